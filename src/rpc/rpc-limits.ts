/**
 * Bounds of a listener for calls. A node answers in the thread that packets go through, so nothing that comes in may take long or grow.
 */

export interface RpcLimits {
  /** Bytes of a request, and of an answer or of one message of a stream. */
  readonly requestBytesMax: number
  readonly answerBytesMax: number
  /** Bytes of the headers of a request. */
  readonly headerBytesMax: number
  /** Connections at one address; calls at a time over one connection, and over all. */
  readonly connectionsMax: number
  readonly streamsMax: number
  readonly callsMax: number
  /** A new connection has so long for its first call (with TLS: for the handshake, then again), a request for its headers. */
  readonly headersMs: number
  /** A request has so long until it is complete. */
  readonly requestMs: number
  /** A connection without calls is closed after so long. */
  readonly idleMs: number
  /** A call that answers once has so long, and its caller as long again to take the answer. Streams go on until somebody ends them. */
  readonly callMs: number
}

export const defaultRpcLimits: RpcLimits = {
  requestBytesMax: 1 << 20, answerBytesMax: 64 << 20, headerBytesMax: 16 << 10,
  connectionsMax: 256, streamsMax: 128, callsMax: 1024,
  headersMs: 5_000, requestMs: 10_000, idleMs: 300_000, callMs: 60_000,
}
