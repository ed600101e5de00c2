/**
 * Session: reliable, ordered messages between one life of a node and one of its peer. Paper §6.3; PROTOCOL 25, 26.
 *
 * Messages lie in a ring, one behind the other, and frames carry stretches of that stream: coalescing, fragmentation and
 * retransmission are one thing. Sequence numbers count its units of 8 bytes. An area behind the ring lets a message lie in one
 * piece where the ring begins again.
 *
 *     sender    ... | acknowledged | sent, not acknowledged | to be sent | ordinary room | reserve ... |
 *                                 una                      next         end
 *     receiver  ... | delivered | part of a message | - - missing - - | came early | - - ...
 *                           delivered            contiguous
 *
 * A message in the stream: bytes u32, 0 u32, then its bytes, padded to 8. The receiving half is stream-receiver.ts. In a frame,
 * behind what all frames of ours have (frame-header.ts; those fields are compared, the checksum is over the rest):
 *
 *     24 sequence u32 │ 28 acknowledged u32 │ 32 data bytes u16 │ 34 stretches u8 │ 35 flags u8 │ 36 edge u32
 *     40 up to three stretches that came early: from u32, to u32 │ 64 data
 *
 * Back-pressure. What has come is always acknowledged and always delivered, for if both ends stopped doing so until their
 * replies had left, neither would ever go on. Instead each end says up to where in its stream the peer may put *ordinary*
 * messages (`edge`), and does not move it while more than half of its own reserve is in use. So at most `sendBytes` of
 * requests can still come then, and the other half of the reserve is for their replies. Nothing else delays a first transmission:
 * what is committed leaves at the next `transmit`, in order, and an in-band message keeps its place among the data frames.
 *
 * Both ends know each other's incarnations from the cluster configuration, so there is no handshake: with a new one the stream
 * begins anew. Retransmission as in RFC 6298, and as in RFC 6675 where the stretches show that something is missing.
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { planted } from '../base/planted-bugs.ts'
import type { Arena } from '../memory/arena.ts'
import type { Port } from '../packet/port.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_SOURCE, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { checksum } from './frame-checksum.ts'
import { FRAME_MAGIC, FRAME_VERSION, FrameHeader, nodeMac, Stream } from './frame-header.ts'
import type { MessageChannel } from './message-channel.ts'
import { LossRecovery, STRETCHES_MAX } from './loss-recovery.ts'
import { RoundTrip } from './round-trip.ts'
import { createSessionStatistics } from './session-statistics.ts'
import { STREAM_START, StreamReceiver } from './stream-receiver.ts'

/** Sizes of a session. Ends with different ones understand each other. */
export interface SessionSizes {
  /** The longest frame, Ethernet header included. */
  readonly frameBytes: number
  /** The longest one where the port says that longer ones reach the peer; `frameBytes` unless told. */
  readonly longFrameBytes?: number
  /** The shortest time-out, microseconds; 1,000 unless told. */
  readonly timeoutUsMin?: number
  /** Room for ordinary messages. */
  readonly sendBytes: number
  /** The ring: a power of two, at least three times `sendBytes`. What is beyond `sendBytes` is the reserve for replies. */
  readonly ringBytes: number
  /** The longest message; less than `sendBytes`, and as much as that unless told. */
  readonly messageBytesMax?: number
}

export const defaultSessionSizes: SessionSizes = { frameBytes: 1514, sendBytes: 131_072, ringBytes: 524_288 }

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
  onMessage(offset: number, bytes: number, peer: number): void
}

/** Byte offsets in a frame behind the Ethernet header. */
export const SessionHeader = {
  sequence: 24, acknowledged: 28, dataBytes: 32, stretchCount: 34, flags: 35, edge: 36, stretches: 40, bytes: 64,
} as const
const SEQUENCE = SessionHeader.sequence
const ACKNOWLEDGED = SessionHeader.acknowledged
const DATA_BYTES = SessionHeader.dataBytes
const STRETCH_COUNT = SessionHeader.stretchCount
const FLAGS = SessionHeader.flags
const EDGE = SessionHeader.edge
const STRETCHES = SessionHeader.stretches
const HEADER_BYTES = SessionHeader.bytes
/** Flag: an answer is wanted although there is no data. */
const PROBE = 1
/** A peer that has let so many time-outs pass is silent. */
const SILENT_TIMEOUTS = 5
/** How long to wait before a port without room is tried again. */
const BLOCKED_US = 50

/** Units of the stream in a full frame. */
const dataUnitsOf = (frameBytes: number): number => (frameBytes - ETHERNET_BYTES - HEADER_BYTES) >> 3

export class Session implements MessageChannel {
  peer = 0
  peerIncarnation = 0
  /** When the last valid frame came; 0 for none. */
  lastHeard: TimeUs = 0
  /** True when messages were lost because a silent peer had left no room: nothing goes or comes until its next life. */
  isBroken = false
  readonly statistics = createSessionStatistics()
  readonly messageBytesMax: number
  readonly #arena: Arena
  readonly #options: SessionOptions
  readonly #mask: number
  readonly #ringUnits: number
  readonly #sendUnits: number
  readonly #strainedUnits: number
  readonly #frameBytes: number
  readonly #longFrameBytes: number
  /** Of a full frame, as long as the port carries one to this peer now. */
  #dataUnits: number
  readonly #out: number
  /** Where frames are put together. */
  readonly #frame: number
  #now: TimeUs = 0
  #seedOut = 0
  #seedIn = 0

  // Sender. Positions in the stream, 32 bits with wrap-around.
  #una = 0
  #next = 0
  #end = 0
  /** The end of the message that `next` is in the middle of, or `next`. */
  #boundary = 0
  /** Up to where the peer allows ordinary messages. */
  #edge = 0
  #begun = 0
  #begunBytes = 0
  #isLost = false
  readonly #roundTrip: RoundTrip
  #deadline: TimeUs = Infinity
  #timed = 0
  #timedAt: TimeUs = -1
  readonly #recovery = new LossRecovery()
  #isStarved = false
  #mustProbe = false
  #isBlocked = false

  // Receiver.
  readonly #receiver: StreamReceiver
  #edgeTold = 0
  #mustAcknowledge = false
  #isReceiving = false

  constructor(options: SessionOptions) {
    const sizes = { ...defaultSessionSizes, ...options.sizes }
    const { frameBytes, longFrameBytes = frameBytes, sendBytes, ringBytes, messageBytesMax = sendBytes - 8 } = sizes
    assert((ringBytes & (ringBytes - 1)) === 0 && ringBytes >= sendBytes * 3, 'a ring is a power of two and has a reserve')
    assert(sendBytes % 8 === 0 && messageBytesMax > 0 && messageBytesMax + 8 <= sendBytes, 'every message fits the ordinary room')
    assert(frameBytes >= ETHERNET_BYTES + HEADER_BYTES + 8 && longFrameBytes < 65_536, 'a frame holds its header and some data')
    const { arena } = options
    this.messageBytesMax = messageBytesMax
    this.#options = options
    this.#arena = arena
    this.#mask = ringBytes - 1
    this.#ringUnits = ringBytes >> 3
    this.#sendUnits = sendBytes >> 3
    this.#strainedUnits = this.#sendUnits + ((this.#ringUnits - this.#sendUnits) >> 1)
    this.#roundTrip = new RoundTrip(sizes.timeoutUsMin)
    this.#frameBytes = frameBytes
    this.#longFrameBytes = Math.max(frameBytes, longFrameBytes)
    this.#dataUnits = dataUnitsOf(frameBytes)
    this.#out = arena.allocate('session: to send', ringBytes + ((messageBytesMax + 15) & ~7))
    this.#receiver = new StreamReceiver(arena, ringBytes, messageBytesMax, this.statistics,
      (offset, bytes) => { options.onMessage(offset, bytes, this.peer) })
    // The bytes behind the Ethernet header are 8-aligned, as in a pool slot.
    this.#frame = arena.allocate('session: frame', this.#longFrameBytes + 2) + 2
    this.setAddress(options.peer)
  }

  /** Makes it a session with another node; the former peer is gone. */
  setAddress(peer: number): void {
    const { self, stream, clusterId, selfIncarnation } = this.#options
    const { u8, u16, u32 } = this.#arena
    this.setPeer(0)
    this.peer = peer
    const frame = this.#frame
    const at = frame + ETHERNET_BYTES
    u8.set(nodeMac(self, stream === Stream.inBand ? peer : 0, selfIncarnation), frame + ETHERNET_SOURCE)
    u8[frame + ETHERNET_TYPE] = EtherType.nfactor >> 8
    u8[frame + ETHERNET_TYPE + 1] = EtherType.nfactor & 255
    u16[(at + FrameHeader.magic) >> 1] = FRAME_MAGIC
    u8[at + FrameHeader.version] = FRAME_VERSION
    u8[at + FrameHeader.stream] = stream
    u32[(at + FrameHeader.cluster) >> 2] = clusterId
    u16[(at + FrameHeader.source) >> 1] = self
    u16[(at + FrameHeader.destination) >> 1] = peer
    u32[(at + FrameHeader.sourceIncarnation) >> 2] = selfIncarnation
  }

  /** Which life of the peer is meant; 0 for none. All that was queued for, or came from, another one is forgotten. */
  setPeer(incarnation: number): void {
    if (incarnation === this.peerIncarnation) return
    this.peerIncarnation = incarnation
    this.isBroken = false
    this.lastHeard = 0
    this.#una = this.#next = this.#end = this.#boundary = STREAM_START
    this.#begun = 0
    this.#roundTrip.reset()
    this.#deadline = Infinity
    this.#timedAt = -1
    this.#recovery.reset(STREAM_START)
    this.#isStarved = this.#mustProbe = this.#isBlocked = false
    this.#receiver.reset()
    this.#edge = this.#edgeTold = (STREAM_START + this.#sendUnits) | 0
    this.#mustAcknowledge = false
    const { self, selfIncarnation, stream } = this.#options
    this.#arena.u8.set(nodeMac(this.peer, stream === Stream.inBand ? self : 0, incarnation), this.#frame)
    this.#arena.u32[(this.#frame + ETHERNET_BYTES + FrameHeader.destinationIncarnation) >> 2] = incarnation
    this.#seedOut = Math.imul(selfIncarnation, 31) + Math.imul(incarnation, 17) + self | 0
    this.#seedIn = Math.imul(incarnation, 31) + Math.imul(selfIncarnation, 17) + this.peer | 0
  }

  // -- Messages to send ----------------------------------------------------------------------------------------------

  /** Bytes of the stream not yet acknowledged. */
  get queuedBytes(): number {
    return ((this.#end - this.#una) | 0) << 3
  }

  get position(): number { return this.#end }

  /** The peer hands over what it acknowledges before it does so. */
  hasReached(position: number): boolean {
    return ((this.#una - position) | 0) >= 0
  }

  /** True while something committed has never been sent. */
  get hasUnsent(): boolean {
    return this.#next !== this.#end
  }

  /** True while more than half of the reserve is in use. */
  get isStrained(): boolean {
    return ((this.#end - this.#una) | 0) > this.#strainedUnits
  }

  /** Asks the peer for a frame with the next `transmit`. */
  probe(): void { this.#mustProbe = true }

  begin(bytes: number, reserved = false): number {
    assert(this.#begun === 0, 'one message at a time')
    assert(bytes > 0 && bytes <= this.messageBytesMax, 'a message is not too long for its session')
    if (this.peerIncarnation === 0 || this.isBroken) return 0
    const units = 1 + ((bytes + 7) >> 3)
    const wanted = ((this.#end - this.#una) | 0) + units
    this.#isLost = false
    if (!reserved) {
      if (wanted > this.#sendUnits || ((this.#end + units - this.#edge) | 0) > 0) return this.#refuse()
    } else if (wanted > this.#ringUnits) {
      return this.#exhausted()
    } else if (planted['replies-dropped'] && wanted > this.#sendUnits) {
      this.#isLost = true
    }
    const { i32, f64 } = this.#arena
    const start = this.#out + ((this.#end << 3) & this.#mask)
    // PERF: half the time of `fill` (bench transport).
    for (let double = start >> 3, end = double + units; double < end; double++) f64[double] = 0
    i32[start >> 2] = bytes
    this.#begun = start
    this.#begunBytes = bytes
    return start + 8
  }

  #refuse(): number {
    this.statistics.refused++
    if (this.#una === this.#end && !this.#isStarved) this.#deadline = this.#now + this.#roundTrip.rto
    this.#isStarved = true
    return 0
  }

  /** With a peer that answers, the reserve suffices. One that does not has to be fenced: it cannot catch up any more. */
  #exhausted(): number {
    assert(this.#roundTrip.timeouts > 0 || this.lastHeard === 0, 'the reserve of a session suffices for replies')
    this.isBroken = true
    this.statistics.lost++
    return 0
  }

  commit(): void {
    const start = this.#begun
    assert(start !== 0, 'a message is begun before it is committed')
    this.#begun = 0
    this.statistics.messagesSent++
    if (this.#isLost) return
    const { i32, u8 } = this.#arena
    let bytes = this.#begunBytes
    if (planted['long-message-cut'] && bytes > (this.#dataUnits << 3) - 8) i32[start >> 2] = bytes = (this.#dataUnits << 3) - 8
    const units = 1 + ((bytes + 7) >> 3)
    this.#end = (this.#end + units) | 0
    const ringEnd = this.#out + this.#mask + 1
    if (start + (units << 3) > ringEnd) u8.copyWithin(this.#out, ringEnd, start + (units << 3))
  }

  // -- Frames to send ------------------------------------------------------------------------------------------------

  /** Sends what is due: what must be sent again, new messages, an acknowledgement. Returns the number of frames. Hot. */
  transmit(port: Port, now: TimeUs): number {
    this.#now = now
    if (this.peerIncarnation === 0 || this.isBroken) return 0
    const before = this.statistics.framesSent
    this.#isBlocked = false
    const reaches = Math.min(this.#longFrameBytes, port.frameBytesTo?.(this.peer) ?? 0)
    this.#dataUnits = dataUnitsOf(Math.max(this.#frameBytes, reaches))
    if (now >= this.#deadline) this.#timeOut(now)
    if (now >= this.#recovery.lateUntil) this.#recovery.presumeLost(now)
    if (this.#recovery.budget > 0) this.#resend(port)
    while (this.#next !== this.#end && !this.#isBlocked) {
      const units = this.#nextStretch()
      if (!this.#send(port, this.#next, units)) break
      if (this.#timedAt < 0) {
        this.#timedAt = now
        this.#timed = this.#next
      }
      this.#next = (this.#next + units) | 0
      if (((this.#boundary - this.#next) | 0) < 0) this.#boundary = this.#next
      if (this.#deadline === Infinity) this.#deadline = now + this.#roundTrip.rto
    }
    const allowed = (this.#edgeTold - this.#receiver.delivered) | 0
    if (allowed <= this.#sendUnits >> 1 && !this.isStrained) this.#mustAcknowledge = true
    if ((this.#mustAcknowledge || this.#mustProbe) && !this.#isBlocked) this.#send(port, this.#next, 0)
    return this.statistics.framesSent - before
  }

  /** Units of the next frame: whole messages, or a part of one that is longer than a frame. */
  #nextStretch(): number {
    const { i32 } = this.#arena
    let units = (this.#boundary - this.#next) | 0
    if (units > 0) return Math.min(units, this.#dataUnits)
    for (;;) {
      const at = (this.#next + units) | 0
      if (at === this.#end) return units
      const message = 1 + ((i32[(this.#out + ((at << 3) & this.#mask)) >> 2] + 7) >> 3)
      if (units + message > this.#dataUnits) {
        if (units > 0) return units
        this.#boundary = (this.#next + message) | 0
        return this.#dataUnits
      }
      units += message
    }
  }

  #timeOut(now: TimeUs): void {
    this.statistics.timeouts++
    this.#roundTrip.timedOut()
    this.#deadline = now + this.#roundTrip.rto
    if (this.#una === this.#next) {
      this.#mustProbe = this.#isStarved
      if (!this.#isStarved) this.#deadline = Infinity
      return
    }
    this.#recovery.timedOut(this.#una, this.#next)
  }

  #resend(port: Port): void {
    const recovery = this.#recovery
    while (recovery.budget > 0 && !this.#isBlocked) {
      const units = recovery.findMissing(this.#dataUnits)
      if (units === 0) break
      if (!this.#send(port, recovery.from, units)) return
      recovery.sent(units, this.#next)
      // What is sent twice is not measured (Karn).
      this.#timedAt = -1
      this.statistics.retransmitted++
    }
    recovery.budget = 0
  }

  #send(port: Port, sequence: number, units: number): boolean {
    const { u8, u16, i32 } = this.#arena
    const frame = this.#frame
    const at = frame + ETHERNET_BYTES
    const bytes = units << 3
    if (!this.isStrained) this.#edgeTold = (this.#receiver.delivered + this.#sendUnits) | 0
    const stretches = Math.min(this.#receiver.early.count, STRETCHES_MAX)
    i32[(at + SEQUENCE) >> 2] = sequence
    i32[(at + ACKNOWLEDGED) >> 2] = this.#receiver.contiguous
    u16[(at + DATA_BYTES) >> 1] = bytes
    u8[at + STRETCH_COUNT] = stretches
    u8[at + FLAGS] = this.#mustProbe ? PROBE : 0
    i32[(at + EDGE) >> 2] = this.#edgeTold
    for (let i = 0; i < stretches; i++) {
      i32[(at + STRETCHES + i * 8) >> 2] = this.#receiver.early.from(i)
      i32[(at + STRETCHES + 4 + i * 8) >> 2] = this.#receiver.early.to(i)
    }
    let sum = checksum(i32, at + SEQUENCE, HEADER_BYTES - SEQUENCE, this.#seedOut)
    if (units > 0) {
      const data = at + HEADER_BYTES
      const start = (sequence << 3) & this.#mask
      const first = Math.min(bytes, this.#mask + 1 - start)
      u8.copyWithin(data, this.#out + start, this.#out + start + first)
      if (first < bytes) u8.copyWithin(data + first, this.#out, this.#out + bytes - first)
      sum = checksum(i32, data, bytes, sum)
    }
    i32[(at + FrameHeader.checksum) >> 2] = sum
    if (!port.sendReserved(frame, ETHERNET_BYTES + HEADER_BYTES + bytes)) {
      this.#isBlocked = true
      return false
    }
    this.#mustAcknowledge = this.#mustProbe = false
    this.statistics.framesSent++
    this.statistics.bytesSent += bytes
    return true
  }

  /** When `transmit` has something to do, if nothing comes before; -Infinity for at once. */
  nextDue(): TimeUs {
    if (this.peerIncarnation === 0 || this.isBroken) return Infinity
    const isDue = this.#mustAcknowledge || this.#mustProbe || this.#next !== this.#end || this.#recovery.budget > 0
    const due = isDue ? -Infinity : Math.min(this.#deadline, this.#recovery.lateUntil)
    return this.#isBlocked ? Math.max(due, this.#now + BLOCKED_US) : due
  }

  /** Smoothed, microseconds; 0 before the first measurement. */
  get roundTripUs(): number { return this.#roundTrip.smoothed }

  /** True when the port had no room at the last `transmit`. */
  get isBlocked(): boolean { return this.#isBlocked }

  /** True when the peer has let several time-outs pass although something is waiting for it. */
  get isSilent(): boolean {
    return this.isBroken || this.#roundTrip.timeouts >= SILENT_TIMEOUTS
  }

  // -- Frames received -----------------------------------------------------------------------------------------------

  /** Takes a frame: `at` is behind its Ethernet header, 8-aligned. Messages may be delivered from within it. Hot. */
  receive(at: number, bytes: number, now: TimeUs): void {
    const { u8, u16, i32 } = this.#arena
    assert((at & 7) === 0 && !this.#isReceiving, 'frames are received one by one, aligned')
    if (this.isBroken || !this.#isOurs(at, bytes)) return
    const dataBytes = u16[(at + DATA_BYTES) >> 1]
    if (HEADER_BYTES + dataBytes > bytes || (dataBytes & 7) !== 0 ||
        this.#sumOf(at, dataBytes) !== i32[(at + FrameHeader.checksum) >> 2]) {
      this.statistics.corrupted++
      return
    }
    this.#now = now
    this.lastHeard = now
    this.statistics.framesReceived++
    this.statistics.bytesReceived += dataBytes
    if (this.#roundTrip.timeouts > 0) this.#heardAgain(now)
    this.#takeAcknowledgement(at, now)
    if ((u8[at + FLAGS] & PROBE) !== 0) this.#mustAcknowledge = true
    if (dataBytes === 0) return
    const incarnation = this.peerIncarnation
    this.#isReceiving = true
    this.#receiver.take(i32[(at + SEQUENCE) >> 2], dataBytes >> 3, at + HEADER_BYTES)
    this.#isReceiving = false
    if (this.peerIncarnation === incarnation) this.#mustAcknowledge = true
  }

  #sumOf(at: number, dataBytes: number): number {
    const { i32 } = this.#arena
    const sum = checksum(i32, at + SEQUENCE, HEADER_BYTES - SEQUENCE, this.#seedIn)
    return dataBytes === 0 ? sum : checksum(i32, at + HEADER_BYTES, dataBytes, sum)
  }

  #isOurs(at: number, bytes: number): boolean {
    const { u8, u16, u32 } = this.#arena
    const { self, selfIncarnation, stream, clusterId } = this.#options
    const { statistics } = this
    if (bytes < HEADER_BYTES) statistics.short++
    else if (u16[at >> 1] !== FRAME_MAGIC) statistics.otherMagic++
    else if (u8[at + FrameHeader.version] !== FRAME_VERSION) statistics.otherVersion++
    else if (u32[(at + FrameHeader.cluster) >> 2] !== clusterId) statistics.otherCluster++
    else if (u16[(at + FrameHeader.source) >> 1] !== this.peer ||
      u16[(at + FrameHeader.destination) >> 1] !== self) statistics.otherNode++
    else if (u8[at + FrameHeader.stream] !== stream) statistics.otherStream++
    else if (this.peerIncarnation === 0 || u32[(at + FrameHeader.sourceIncarnation) >> 2] !== this.peerIncarnation ||
      u32[(at + FrameHeader.destinationIncarnation) >> 2] !== selfIncarnation) statistics.stale++
    else return true
    return false
  }

  /** After silence: what waits is not left to wait for a time-out that has been backed off. */
  #heardAgain(now: TimeUs): void {
    this.#roundTrip.heard()
    if (this.#deadline !== Infinity) this.#deadline = Math.min(this.#deadline, now + this.#roundTrip.rto)
  }

  #takeAcknowledgement(at: number, now: TimeUs): void {
    const { i32, u8 } = this.#arena
    const acknowledged = i32[(at + ACKNOWLEDGED) >> 2]
    const advance = (acknowledged - this.#una) | 0
    if (advance < 0 || ((this.#next - acknowledged) | 0) < 0) return
    const edge = i32[(at + EDGE) >> 2]
    if (((edge - this.#edge) | 0) > 0) {
      this.#edge = edge
      this.#isStarved = false
    }
    if (advance > 0) {
      this.#una = acknowledged
      if (this.#timedAt >= 0 && ((acknowledged - this.#timed) | 0) > 0) {
        this.#roundTrip.measured(now - this.#timedAt)
        this.#timedAt = -1
      }
      this.#recovery.advance(acknowledged)
      this.#deadline = acknowledged === this.#next && !this.#isStarved ? Infinity : now + this.#roundTrip.rto
    } else if (acknowledged === this.#next && !this.#isStarved) {
      this.#deadline = Infinity
    }
    this.#recovery.takeStretches(i32, at + STRETCHES, u8[at + STRETCH_COUNT], acknowledged, this.#next)
    this.#recovery.judge(this.#dataUnits, now, this.#roundTrip.reorderingUs)
  }
}
