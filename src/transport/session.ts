/**
 * Session: reliable, ordered messages between one incarnation of a node and one of its peer. Paper §6.3; PROTOCOL 25, 26.
 *
 * A stream of messages lies in a ring, and frames carry stretches of it, so that coalescing, fragmentation and retransmission are one
 * thing. Sequence numbers count units of 8 bytes. The receiver's ring has the same size and the sender wraps no message, so every
 * message is whole and 8-aligned in the receiver's memory too, without being copied again.
 *
 *     sender    ... | acknowledged | sent, not acknowledged | to be sent |  room ... |  reserve
 *                                 una                      next         end
 *     receiver  ... | delivered | part of a message | - - gap - - | came early | ...
 *                           delivered            contiguous
 *
 * A message in the stream: bytes u32, kind u32 (0 message, 1 filling up to the end of the ring), then the bytes, padded to 8.
 * In a frame, behind the header that all frames of ours have (frame-header.ts):
 *
 *     24 sequence u32 │ 28 acknowledgement u32 │ 32 data bytes u16, ring size (log2) u8, ranges u8 │ 36 edge u32
 *     40 up to three ranges that came early: from u32, to u32 │ 64 data
 *
 * `edge` is how far the peer may send. Both ends know each other's incarnations from the cluster configuration, so there is no
 * handshake: a new incarnation of the peer begins at sequence 0. Retransmission after RFC 6298, and at once where the ranges show
 * a gap. What is committed leaves at the next `transmit`, in order: an in-band message keeps its place among the data frames.
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { planted } from '../base/planted-bugs.ts'
import type { Arena } from '../memory/arena.ts'
import type { Port } from '../packet/port.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_SOURCE, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { FRAME_MAGIC, FRAME_VERSION, FrameHeader, nodeMac, Stream } from './frame-header.ts'
import type { MessageChannel } from './message-channel.ts'

/** Sizes of a session; the same at both ends. */
export interface SessionSizes {
  /** The longest frame, Ethernet header included. */
  readonly frameBytes: number
  /** Room for ordinary messages. */
  readonly sendBytes: number
  /** The ring: a power of two, at least four times `sendBytes`. What is beyond `sendBytes` is the reserve for replies. */
  readonly ringBytes: number
}

export const defaultSessionSizes: SessionSizes = { frameBytes: 1514, sendBytes: 65_536, ringBytes: 262_144 }

export interface SessionOptions {
  readonly arena: Arena
  readonly clusterId: number
  readonly self: number
  readonly selfIncarnation: number
  readonly peer: number
  /** One of {@link Stream}. */
  readonly stream: number
  readonly sizes?: Partial<SessionSizes>
  /** Called in order, once for each message; the memory is the session's again afterwards. */
  onMessage(offset: number, bytes: number): void
}

/** Byte offsets in a frame behind the Ethernet header. */
const SEQUENCE = 24
const ACKNOWLEDGEMENT = 28
const DATA_BYTES = 32
const RING_LOG2 = 34
const RANGE_COUNT = 35
const EDGE = 36
const RANGES = 40
const HEADER_BYTES = 64
const RANGES_MAX = 3
/** Stretches that came early, kept at most. */
const EARLY_MAX = 32
const RTO_MIN_US = 1000
const RTO_FIRST_US = 20_000
const RTO_MAX_US = 1_000_000
/** Frames sent again at one time-out. */
const RESENT_FRAMES = 4

export interface SessionStatistics {
  framesSent: number
  framesReceived: number
  messagesSent: number
  messagesReceived: number
  retransmitted: number
  duplicates: number
  /** Ignored frames, by reason. */
  corrupted: number
  foreign: number
  stale: number
  beyondWindow: number
  /** Times that there was no room for a message. */
  refused: number
}

export class Session implements MessageChannel {
  readonly peer: number
  peerIncarnation = 0
  /** When the last valid frame came; 0 for none. */
  lastHeard: TimeUs = 0
  readonly statistics: SessionStatistics = {
    framesSent: 0, framesReceived: 0, messagesSent: 0, messagesReceived: 0, retransmitted: 0, duplicates: 0, corrupted: 0,
    foreign: 0, stale: 0, beyondWindow: 0, refused: 0,
  }
  readonly #arena: Arena
  readonly #options: SessionOptions
  readonly #ringBytes: number
  readonly #mask: number
  readonly #sendUnits: number
  readonly #ringLog2: number
  readonly #dataMax: number
  readonly #out: number
  readonly #in: number
  readonly #frame: number
  /** Where a message goes that is to be lost (a planted bug). */
  readonly #nowhere: number

  // Sender: sequence numbers, in units, 32 bits with wrap-around.
  #una = 0
  #next = 0
  #end = 0
  #peerEdge = 0
  #begun = 0
  #begunBytes = 0
  #rto = RTO_FIRST_US
  #srtt = 0
  #rttvar = 0
  #deadline = Infinity
  #timed = -1
  #timedAt = 0
  #isTiming = false
  #isBlocked = false
  #fastUntil = 0
  readonly #sacked = new Int32Array(RANGES_MAX * 2)
  #sackedCount = 0

  // Receiver.
  #contiguous = 0
  #delivered = 0
  #acknowledged = 0
  #edgeTold = 0
  #mustAcknowledge = false
  #isDelivering = false
  readonly #early = new Int32Array(EARLY_MAX * 2)
  #earlyCount = 0

  constructor(options: SessionOptions) {
    const { frameBytes, sendBytes, ringBytes } = { ...defaultSessionSizes, ...options.sizes }
    assert((ringBytes & (ringBytes - 1)) === 0 && ringBytes >= sendBytes * 4, 'a session ring is a power of two and has a reserve')
    this.peer = options.peer
    this.#options = options
    this.#arena = options.arena
    this.#ringBytes = ringBytes
    this.#mask = ringBytes - 1
    this.#ringLog2 = 31 - Math.clz32(ringBytes)
    this.#sendUnits = sendBytes >> 3
    this.#dataMax = (frameBytes - ETHERNET_BYTES - HEADER_BYTES) & ~7
    this.#out = options.arena.allocate('session: to send', ringBytes)
    this.#in = options.arena.allocate('session: received', ringBytes)
    // The bytes behind the Ethernet header are 8-aligned, as in a pool slot.
    this.#frame = options.arena.allocate('session: frame', frameBytes + 66) + 2
    this.#nowhere = planted['replies-dropped'] ? options.arena.allocate('session: nowhere', sendBytes) : 0
    const link = options.stream === Stream.inBand
    const { u8 } = options.arena
    u8.set(nodeMac(options.peer, link ? options.self : 0), this.#frame)
    u8.set(nodeMac(options.self, link ? options.peer : 0), this.#frame + ETHERNET_SOURCE)
    u8[this.#frame + ETHERNET_TYPE] = EtherType.nfactor >> 8
    u8[this.#frame + ETHERNET_TYPE + 1] = EtherType.nfactor & 255
  }

  /** The longest message that ordinary room can take. */
  get messageBytesMax(): number {
    return (this.#sendUnits << 3) - 16
  }

  /** Which life of the peer is meant; 0 for none. All that was queued for, or came from, another one is forgotten. */
  setPeer(incarnation: number): void {
    if (incarnation === this.peerIncarnation) return
    this.peerIncarnation = incarnation
    this.#una = this.#next = this.#end = 0
    this.#peerEdge = this.#ringBytes >> 3
    this.#begun = 0
    this.#rto = RTO_FIRST_US
    this.#srtt = this.#rttvar = 0
    this.#deadline = Infinity
    this.#isTiming = false
    this.#isBlocked = false
    this.#sackedCount = 0
    this.#contiguous = this.#delivered = this.#acknowledged = 0
    this.#edgeTold = this.#ringBytes >> 3
    this.#mustAcknowledge = false
    this.#earlyCount = 0
    this.lastHeard = 0
  }

  // -- Sending -------------------------------------------------------------------------------------------------------

  /** Bytes queued and not yet acknowledged. */
  get queuedBytes(): number {
    return ((this.#end - this.#una) | 0) << 3
  }

  get hasUnsent(): boolean {
    return this.#next !== this.#end
  }

  begin(bytes: number, reserved = false): number {
    assert(this.#begun === 0, 'one message at a time')
    if (this.peerIncarnation === 0) return 0
    const units = 1 + ((bytes + 7) >> 3)
    const used = (this.#end - this.#una) | 0
    const at = (this.#end << 3) & this.#mask
    // A message does not wrap: what is left of the ring is filled up.
    const filling = at + (units << 3) > this.#ringBytes ? (this.#ringBytes - at) >> 3 : 0
    const wanted = used + filling + units
    if (reserved) {
      if (planted['replies-dropped'] && wanted > this.#sendUnits) {
        this.#begun = -1
        return this.#nowhere
      }
      assert(wanted <= this.#ringBytes >> 3, 'the reserve of a session suffices for replies')
    } else if (wanted > this.#sendUnits) {
      this.statistics.refused++
      return 0
    }
    const { i32 } = this.#arena
    if (filling > 0) {
      i32[(this.#out + at) >> 2] = (filling - 1) << 3
      i32[((this.#out + at) >> 2) + 1] = 1
      this.#end = (this.#end + filling) | 0
    }
    const start = this.#out + ((this.#end << 3) & this.#mask)
    i32[start >> 2] = bytes
    i32[(start >> 2) + 1] = 0
    i32.fill(0, (start + 8) >> 2, (start >> 2) + units * 2)
    this.#begun = start
    this.#begunBytes = bytes
    return start + 8
  }

  commit(): void {
    assert(this.#begun !== 0, 'a message is begun before it is committed')
    if (this.#begun > 0) {
      let bytes = this.#begunBytes
      if (planted['long-message-cut'] && bytes > this.#dataMax - 8) {
        bytes = this.#dataMax - 8
        this.#arena.i32[this.#begun >> 2] = bytes
      }
      this.#end = (this.#end + 1 + ((bytes + 7) >> 3)) | 0
      this.statistics.messagesSent++
    }
    this.#begun = 0
  }

  /** Sends what is due: new messages, what must be sent again, an acknowledgement. Returns the number of frames. */
  transmit(port: Port, now: TimeUs): number {
    if (this.peerIncarnation === 0) return 0
    let frames = 0
    this.#isBlocked = false
    if (now >= this.#deadline) frames += this.#timeOut(port, now)
    while (this.#next !== this.#end && !this.#isBlocked) {
      const allowed = (this.#peerEdge - this.#next) | 0
      const units = Math.min((this.#end - this.#next) | 0, this.#dataMax >> 3, allowed)
      if (units <= 0 || !this.#send(port, this.#next, units)) break
      if (!this.#isTiming) {
        this.#isTiming = true
        this.#timed = this.#next
        this.#timedAt = now
      }
      this.#next = (this.#next + units) | 0
      if (this.#deadline === Infinity) this.#deadline = now + this.#rto
      frames++
    }
    if (this.#mustAcknowledge && !this.#isBlocked && this.#send(port, this.#next, 0)) frames++
    return frames
  }

  /** Sends again from the oldest unacknowledged on, leaving out what has come early. */
  #timeOut(port: Port, now: TimeUs): number {
    this.#isTiming = false
    this.#rto = Math.min(this.#rto * 2, RTO_MAX_US)
    this.#deadline = now + this.#rto
    return this.#resend(port, this.#next, RESENT_FRAMES)
  }

  #resend(port: Port, limit: number, framesMax: number): number {
    let frames = 0
    let at = this.#una
    while (frames < framesMax && ((limit - at) | 0) > 0) {
      let stop = limit
      let skipped = false
      for (let i = 0; i < this.#sackedCount; i++) {
        const from = this.#sacked[i * 2]
        const to = this.#sacked[i * 2 + 1]
        if (((at - from) | 0) >= 0 && ((to - at) | 0) > 0) {
          at = to
          skipped = true
        } else if (((from - at) | 0) > 0 && ((stop - from) | 0) > 0) {
          stop = from
        }
      }
      if (skipped) continue
      const units = Math.min((stop - at) | 0, this.#dataMax >> 3)
      if (!this.#send(port, at, units)) break
      at = (at + units) | 0
      frames++
      this.statistics.retransmitted++
    }
    return frames
  }

  #send(port: Port, sequence: number, units: number): boolean {
    const { u8, u16, u32, i32 } = this.#arena
    const { self, selfIncarnation, peer, stream, clusterId } = this.#options
    const frame = this.#frame
    const at = frame + ETHERNET_BYTES
    u16[(at + FrameHeader.magic) >> 1] = FRAME_MAGIC
    u8[at + FrameHeader.version] = FRAME_VERSION
    u8[at + FrameHeader.stream] = stream
    u32[(at + FrameHeader.cluster) >> 2] = clusterId
    u16[(at + FrameHeader.source) >> 1] = self
    u16[(at + FrameHeader.destination) >> 1] = peer
    u32[(at + FrameHeader.sourceIncarnation) >> 2] = selfIncarnation
    u32[(at + FrameHeader.destinationIncarnation) >> 2] = this.peerIncarnation
    i32[(at + SEQUENCE) >> 2] = sequence
    // While replies fill the reserve the peer is not told that more has come: it will wait.
    if (((this.#end - this.#una) | 0) - this.#sendUnits <= ((this.#ringBytes >> 3) - this.#sendUnits) >> 1) {
      this.#acknowledged = this.#contiguous
      this.#edgeTold = (this.#delivered + (this.#ringBytes >> 3)) | 0
    }
    i32[(at + ACKNOWLEDGEMENT) >> 2] = this.#acknowledged
    i32[(at + EDGE) >> 2] = this.#edgeTold
    u16[(at + DATA_BYTES) >> 1] = units << 3
    u8[at + RING_LOG2] = this.#ringLog2
    const ranges = Math.min(this.#earlyCount, RANGES_MAX)
    u8[at + RANGE_COUNT] = ranges
    for (let i = 0; i < ranges * 2; i++) i32[(at + RANGES + i * 4) >> 2] = this.#early[i]
    this.#copy(at + HEADER_BYTES, this.#out, sequence, units, false)
    i32[(at + FrameHeader.checksum) >> 2] = 0
    i32[(at + FrameHeader.checksum) >> 2] = this.#checksum(at, HEADER_BYTES + (units << 3))
    if (!port.sendReserved(frame, ETHERNET_BYTES + HEADER_BYTES + (units << 3))) {
      this.#isBlocked = true
      return false
    }
    this.#mustAcknowledge = false
    this.statistics.framesSent++
    return true
  }

  /** Copies units of the stream out of a ring, or into it. */
  #copy(flat: number, ring: number, sequence: number, units: number, into: boolean): void {
    const { u8 } = this.#arena
    const start = (sequence << 3) & this.#mask
    const bytes = units << 3
    const first = Math.min(bytes, this.#ringBytes - start)
    if (into) {
      u8.copyWithin(ring + start, flat, flat + first)
      if (first < bytes) u8.copyWithin(ring, flat + first, flat + bytes)
    } else {
      u8.copyWithin(flat, ring + start, ring + start + first)
      if (first < bytes) u8.copyWithin(flat + first, ring, ring + bytes - first)
    }
  }

  /** Over whole words: a changed, lost or moved word changes it. */
  #checksum(at: number, bytes: number): number {
    const { i32 } = this.#arena
    let hash = bytes
    const end = (at + bytes) >> 2
    for (let word = at >> 2; word < end; word++) {
      hash = Math.imul(hash ^ i32[word], 0x01000193)
      hash ^= hash >>> 15
    }
    return hash
  }

  /** When `transmit` has something to do, if nothing comes and nothing is queued before. */
  nextDue(): TimeUs {
    if (this.peerIncarnation === 0) return Infinity
    if (this.#mustAcknowledge || (this.#next !== this.#end && ((this.#peerEdge - this.#next) | 0) > 0)) return -Infinity
    return this.#deadline
  }

  /** True when the port had no room at the last `transmit`. */
  get isBlocked(): boolean {
    return this.#isBlocked
  }

  /** True when the peer has not answered for several time-outs although something is waiting for it. */
  isSilent(now: TimeUs): boolean {
    return this.#una !== this.#next && now - this.lastHeard > Math.max(5 * RTO_FIRST_US, 4 * this.#rto)
  }

  // -- Receiving -----------------------------------------------------------------------------------------------------

  /** Takes a frame of this session: `at` is behind its Ethernet header, 8-aligned. */
  receive(at: number, bytes: number, port: Port | null, now: TimeUs): void {
    const { u8, u16, u32, i32 } = this.#arena
    const { self, selfIncarnation, peer, stream, clusterId } = this.#options
    if (bytes < HEADER_BYTES || u16[at >> 1] !== FRAME_MAGIC || u8[at + FrameHeader.version] !== FRAME_VERSION ||
        u32[(at + FrameHeader.cluster) >> 2] !== clusterId || u8[at + FrameHeader.stream] !== stream ||
        u16[(at + FrameHeader.source) >> 1] !== peer || u16[(at + FrameHeader.destination) >> 1] !== self) {
      this.statistics.foreign++
      return
    }
    if (this.peerIncarnation === 0 || u32[(at + FrameHeader.sourceIncarnation) >> 2] !== this.peerIncarnation ||
        u32[(at + FrameHeader.destinationIncarnation) >> 2] !== selfIncarnation) {
      this.statistics.stale++
      return
    }
    const dataBytes = u16[(at + DATA_BYTES) >> 1]
    const sum = i32[(at + FrameHeader.checksum) >> 2]
    i32[(at + FrameHeader.checksum) >> 2] = 0
    if ((dataBytes & 7) !== 0 || HEADER_BYTES + dataBytes > bytes || u8[at + RANGE_COUNT] > RANGES_MAX ||
        u8[at + RING_LOG2] !== this.#ringLog2 || this.#checksum(at, HEADER_BYTES + dataBytes) !== sum) {
      this.statistics.corrupted++
      return
    }
    this.statistics.framesReceived++
    this.lastHeard = now
    this.#takeAcknowledgement(at, port, now)
    if (dataBytes > 0) this.#takeData(i32[(at + SEQUENCE) >> 2], dataBytes >> 3, at + HEADER_BYTES)
    if (this.#delivered !== this.#contiguous) this.#deliver()
  }

  #takeAcknowledgement(at: number, port: Port | null, now: TimeUs): void {
    const { i32, u8 } = this.#arena
    const acknowledged = i32[(at + ACKNOWLEDGEMENT) >> 2]
    const advance = (acknowledged - this.#una) | 0
    if (advance < 0 || ((this.#next - acknowledged) | 0) < 0) return
    const edge = i32[(at + EDGE) >> 2]
    if (((edge - this.#peerEdge) | 0) > 0) this.#peerEdge = edge
    if (advance > 0) {
      this.#una = acknowledged
      if (this.#isTiming && ((acknowledged - this.#timed) | 0) > 0) this.#measured(now - this.#timedAt)
      this.#deadline = this.#una === this.#next ? Infinity : now + this.#rto
    }
    this.#sackedCount = u8[at + RANGE_COUNT]
    for (let i = 0; i < this.#sackedCount * 2; i++) this.#sacked[i] = i32[(at + RANGES + i * 4) >> 2]
    // Something behind has arrived: what is before it was lost, or is late. Once per round trip.
    if (this.#sackedCount > 0 && port !== null && now >= this.#fastUntil && ((this.#sacked[0] - this.#una) | 0) > 0) {
      this.#fastUntil = now + Math.max(this.#srtt, RTO_MIN_US / 2)
      this.#isTiming = false
      this.#resend(port, this.#sacked[0], RESENT_FRAMES)
    }
  }

  /** RFC 6298 §2. */
  #measured(rtt: number): void {
    this.#isTiming = false
    if (this.#srtt === 0) {
      this.#srtt = rtt
      this.#rttvar = rtt / 2
    } else {
      this.#rttvar += (Math.abs(rtt - this.#srtt) - this.#rttvar) / 4
      this.#srtt += (rtt - this.#srtt) / 8
    }
    this.#rto = Math.min(RTO_MAX_US, Math.max(RTO_MIN_US, this.#srtt + 4 * this.#rttvar))
  }

  #takeData(sequence: number, units: number, data: number): void {
    this.#mustAcknowledge = true
    const start = (sequence - this.#contiguous) | 0
    if (start + units <= 0) {
      this.statistics.duplicates++
      if (planted['duplicates-delivered']) this.#deliverAgain(sequence, units)
      return
    }
    if (((sequence + units - this.#delivered) | 0) > this.#ringBytes >> 3) {
      this.statistics.beyondWindow++
      return
    }
    if (start > 0 && !this.#noteEarly(sequence, (sequence + units) | 0)) {
      this.statistics.beyondWindow++
      return
    }
    this.#copy(data, this.#in, sequence, units, true)
    if (start > 0) return
    this.#contiguous = (sequence + units) | 0
    this.#mergeEarly()
  }

  /** Notes a stretch that came early; false when there are too many. The list is sorted, without overlaps. */
  #noteEarly(from: number, to: number): boolean {
    const early = this.#early
    let kept = 0
    let placed = false
    const old = early.slice(0, this.#earlyCount * 2)
    const put = (a: number, b: number): boolean => {
      if (kept === EARLY_MAX) return false
      early[kept * 2] = a
      early[kept * 2 + 1] = b
      kept++
      return true
    }
    for (let i = 0; i < old.length; i += 2) {
      const a = old[i] as number
      const b = old[i + 1] as number
      if (((b - from) | 0) < 0) {
        if (!put(a, b)) return this.#restoreEarly(old)
      } else if (((a - to) | 0) > 0) {
        if (!placed && !put(from, to)) return this.#restoreEarly(old)
        placed = true
        if (!put(a, b)) return this.#restoreEarly(old)
      } else {
        if (((a - from) | 0) < 0) from = a
        if (((b - to) | 0) > 0) to = b
      }
    }
    if (!placed && !put(from, to)) return this.#restoreEarly(old)
    this.#earlyCount = kept
    return true
  }

  #restoreEarly(old: Int32Array): boolean {
    this.#early.set(old)
    return false
  }

  #mergeEarly(): void {
    let used = 0
    while (used < this.#earlyCount && ((this.#early[used * 2] - this.#contiguous) | 0) <= 0) {
      const to = this.#early[used * 2 + 1]
      if (((to - this.#contiguous) | 0) > 0) this.#contiguous = to
      used++
    }
    if (used === 0) return
    this.#early.copyWithin(0, used * 2, this.#earlyCount * 2)
    this.#earlyCount -= used
  }

  #deliver(): void {
    if (this.#isDelivering) return
    this.#isDelivering = true
    const { i32 } = this.#arena
    const incarnation = this.peerIncarnation
    while (this.#delivered !== this.#contiguous) {
      const start = this.#in + ((this.#delivered << 3) & this.#mask)
      const bytes = i32[start >> 2]
      const units = 1 + ((bytes + 7) >> 3)
      assert(bytes >= 0 && start + (units << 3) <= this.#in + this.#ringBytes, 'a message lies within the ring')
      if (((this.#contiguous - this.#delivered) | 0) < units) break
      if (i32[(start >> 2) + 1] === 0) {
        this.statistics.messagesReceived++
        this.#options.onMessage(start + 8, bytes)
        if (this.peerIncarnation !== incarnation) break
      }
      this.#delivered = (this.#delivered + units) | 0
    }
    this.#isDelivering = false
  }

  /** A planted bug: what comes again is handed over again. */
  #deliverAgain(sequence: number, units: number): void {
    const { i32 } = this.#arena
    for (let done = 0; done < units;) {
      const start = this.#in + (((sequence + done) << 3) & this.#mask)
      const bytes = i32[start >> 2]
      done += 1 + ((bytes + 7) >> 3)
      if (bytes <= 0 || done > units || start + 8 + bytes > this.#in + this.#ringBytes) return
      if (i32[(start >> 2) + 1] === 0) this.#options.onMessage(start + 8, bytes)
    }
  }
}
