/**
 * A flow of the generator: its steps, and its state, 16 words. What the steps are for, traffic-generator.ts says.
 */

/** Steps of a flow; odd ones are the server's. */
export const FlowStep = {
  syn: 0, synAck: 1, ack: 2, reply: 3, request: 4, finAck: 5, fin: 6, lastAck: 8,
  /** A slot that has no flow yet. */
  none: -1,
} as const

/** Word numbers within a flow's state. */
export const FlowWord = {
  number: 0,
  step: 1,
  /** Packets left of this step, turns left after this one. */
  left: 2,
  turns: 3,
  /** Packets sent by each side, and the next byte of each side's TCP stream. */
  sent: 4,
  stream: 6,
  /** Waits for the other side's packet of this number; -1 if it does not. */
  awaited: 8,
  /** When it began to wait, ticks. */
  since: 9,
  /** `FlowKind` bits. */
  kind: 10,
  /** Client's and server's address (IPv6: its last word), and the client's port, as they lie in memory. */
  clientAddress: 11,
  serverAddress: 12,
  clientPort: 13,
} as const

export const FLOW_WORDS = 16
export const FlowKind = { tcp: 1, ipv6: 2 } as const
