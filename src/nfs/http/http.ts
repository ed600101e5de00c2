/**
 * http: reads HTTP/1.x requests and responses.
 *
 * Purpose      Finds HTTP by its content, on any port and also in connections whose beginning was not seen, and reports every
 *              message. Handles segmentation at any byte, pipelining, keep-alive, chunked bodies, interim responses, HEAD,
 *              CONNECT, upgrades (WebSocket, h2c), retransmission, overlap, reordering and loss (see message-reader.ts). Forwards
 *              everything. RFC 9110, RFC 9112.
 * Config       overlap   which bytes count where TCP segments disagree: `first` (default) or `last`
 * State        56 bytes: counts, and where each direction is. In extents: the last message's method, host, URI (256 bytes),
 *              status; up to 31 KB of an incomplete head and 63 KB of early segments per direction
 * Counters     requests, responses, badMessages, gaps, oversizedHeads, noRoom, upgrades
 * Records      request (method, host, uri, version), response (status, version)
 * Example      nfactor run web.pcap.gz --chain http --events messages.jsonl
 *
 * Memory is bounded per flow by the numbers above and in total by the limit on extents; what finds no room is counted
 * (`noRoom`) and the reader goes on at the next message.
 */

import { assert } from '../../base/assert.ts'
import { HEAD_BLOCK_BYTES } from '../../memory/kernels/http-head-block.ts'
import { offsetIn } from '../../memory/struct.ts'
import { defineNf, text, u16, Verdict, z, type Packet } from '../../nf/index.ts'
import { fastPathBinary } from '../fast-path-binary.ts'
import { FastPathPart } from '../fast-path-part.ts'
import { MessageReader, type MessageSink } from './message-reader.ts'
import { Method } from './head.ts'
import { httpState, last, OUTSTANDING_MAX, Phase, side, SideFlag, type HttpState } from './http-state.ts'

const OTHER = Phase.other
const START = Phase.start

// Where the words are that the fast path reads (see http-state.ts): byte offset of the sides, word offsets within one.
const SIDES = offsetIn(httpState, 'sides')
const SIDE_BYTES = side.bytes
const NEXT = offsetIn(side, 'stream') >> 2
const PENDING = NEXT + 1
const REMAINING = offsetIn(side, 'remaining') >> 2
/** remainingHigh │ phase << 16 │ flags << 24 */
const STATUS = offsetIn(side, 'remainingHigh') >> 2
const PHASE_BITS = 0xff0000
const OTHER_STATUS = OTHER << 16
/** In a body of which less than 2 GiB are left. */
const BODY_BITS = 0xffffff
const BODY_STATUS = Phase.body << 16
const HEAD_STATUS = Phase.head << 16
assert(offsetIn(side, 'remainingHigh') % 4 === 0 && offsetIn(side, 'phase') === offsetIn(side, 'remainingHigh') + 2,
  'phase and flags share a word with the high bits of the rest')
assert(SIDES === 12 && SIDE_BYTES === 20 && NEXT === 0 && REMAINING === 3 && STATUS === 4 && Phase.head === 1 &&
  Phase.body === 2 && OTHER === 9 && (Method.PRI as number) === 10 && OUTSTANDING_MAX === 14 &&
  offsetIn(httpState, 'outstanding') === 8 && offsetIn(httpState, 'last') === 52 &&
  offsetIn(last, 'host') === 28 && offsetIn(last, 'uri') === 158, 'http.as.ts knows the layout')
/** Words that http.as.ts is told, before its head block. */
const PARAMETER_BYTES = 64

export default defineNf({
  name: 'http',
  version: 1,
  description: 'reads HTTP/1.x requests and responses',
  config: z.strictObject({
    overlap: z.enum(['first', 'last']).default('first')
      .describe('Which bytes count where TCP segments disagree about a byte that was not delivered yet'),
  }),
  flowState: httpState,
  cacheHints: [{ pair: 'sides', field: 'phase', equals: Phase.head, payloadBytes: 448, extent: 'last', extentBytes: 256 }],
  counters: {
    requests: 'requests read',
    responses: 'responses read',
    badMessages: 'places where a message was expected and something else came',
    gaps: 'holes in a stream that a message may have been lost in',
    oversizedHeads: 'message heads longer than 31 KB, passed over',
    noRoom: 'times that no extent was left for a message',
    upgrades: 'connections that became a tunnel (CONNECT, WebSocket, h2c)',
  },
  records: {
    request: { method: text(32), host: text(1024), uri: text(16384), version: text(16) },
    response: { status: u16, version: text(16) },
  },
  create(config, { arena, counters, extents, kernels, records }) {
    const { request, response } = records
    const sink: MessageSink = {
      request(_state, last, head, direction) {
        counters.requests++
        request.begin(direction)
        request.method.copyFrom(head.methodOffset, head.methodLength)
        request.host.copyFrom(head.hostOffset, head.hostLength)
        request.uri.copyFrom(head.uriOffset, head.uriLength)
        writeVersion(request.version, head.versionMajor, head.versionMinor)
        request.commit()
        if (last === null) return
        last.method.copyFrom(head.methodOffset, head.methodLength)
        last.host.copyFrom(head.hostOffset, head.hostLength)
        last.uri.copyFrom(head.uriOffset, head.uriLength)
      },
      response(_state, last, head, direction) {
        counters.responses++
        response.begin(direction)
        response.status = head.status
        writeVersion(response.version, head.versionMajor, head.versionMinor)
        response.commit()
        if (last !== null) last.status = head.status
      },
      anomaly(what) {
        counters[what]++
      },
    }
    const reader = new MessageReader(arena, kernels, extents.dataBytes, config.overlap, sink)

    const { i32 } = arena

    // For http.as.ts.
    const parameters = arena.allocate('http fast path', PARAMETER_BYTES + HEAD_BLOCK_BYTES)
    i32.set([kernels.httpTables, request.place.cursor, request.place.which, request.place.limit, response.place.which,
      response.place.limit], parameters >> 2)

    /** Any packet, by the state's fields. */
    function read(packet: Packet, state: HttpState): void {
      const direction = packet.direction
      const side = state.sides.own(direction)
      const other = state.sides.other(direction)
      const flags = packet.tcpFlags
      const syn = (flags >>> 1) & 1
      const sequence = packet.sequence
      const length = packet.payloadLength
      if (syn !== 0) reader.begin(side, sequence)
      if ((flags & 16) !== 0 && other.phase !== OTHER && (other.phase !== START || other.flags !== 0)) {
        const acknowledgement = (packet.acknowledgement - ((other.flags & SideFlag.finished) >>> 3)) | 0
        if (((acknowledgement - other.stream.next) | 0) > 0) {
          reader.acknowledged(state, other, 1 - direction, acknowledgement)
        }
      }
      if ((flags & 1) !== 0) side.flags |= SideFlag.finished
      if (length > 0) reader.segment(state, side, direction, (sequence + syn) | 0, packet.payloadOffset, length)
    }

    return {
      /**
       * PERF: what most packets are, on words instead of fields (bench engine, http): acknowledgements of what was seen, and
       * the next bytes of a body. Everything else is for `read`.
       */
      processPacket(packet, state) {
        if (!packet.isTcp || packet.isRelated) return Verdict.Forward
        const direction = packet.direction
        const own = (state.o + SIDES + direction * SIDE_BYTES) >> 2
        const status = i32[own + STATUS]
        const flags = packet.tcpFlags
        if ((status & PHASE_BITS) === OTHER_STATUS && (flags & 2) === 0) return Verdict.Forward
        const other = (state.o + SIDES + (1 - direction) * SIDE_BYTES) >> 2
        const length = packet.payloadLength
        if ((flags & 0x13) === 0x10 && ((packet.acknowledgement - i32[other + NEXT]) | 0) <= 0) {
          if (length === 0) return Verdict.Forward
          const sequence = packet.sequence
          const left = i32[own + REMAINING] - length
          if ((status & BODY_BITS) === BODY_STATUS && left >= 0 && i32[own + NEXT] === sequence && i32[own + PENDING] === 0) {
            i32[own + NEXT] = (sequence + length) | 0
            i32[own + REMAINING] = left
            if (left === 0) i32[own + STATUS] = (status & ~PHASE_BITS) | HEAD_STATUS
            return Verdict.Forward
          }
        }
        read(packet, state)
        return Verdict.Forward
      },

      fastPath: { module: fastPathBinary, part: FastPathPart.http, parameter: parameters },
    }
  },
})

/** Versions in use are written from constants: no text is made per message. */
function writeVersion(target: { write(text: string): void }, major: number, minor: number): void {
  if (major === 1) target.write(minor === 1 ? 'HTTP/1.1' : minor === 0 ? 'HTTP/1.0' : `HTTP/1.${minor}`)
  else if (major === 0) target.write('')
  else target.write(`HTTP/${major}.${minor}`)
}
