/**
 * memif port: one end of a shared-memory link, memif version 2. The other end is another process of ours, DPDK or VPP.
 *
 *             open            peer connects, agrees          peer gone, or disagrees
 *     closed ─────▶ waiting ─────▶ agreeing ─────▶ up ─────────────▶ ended ─────▶ waiting
 *                      ▲              │ refused, too slow              │ once what was received has been fetched
 *                      └──────────────┘                                │ and what was not consumed has been taken back
 *
 * A *server* listens at a socket and maps the memory that the client brings; a *client* makes the memory, connects, and tries again
 * until it can. The server should be ours where the other end is DPDK: a DPDK server was seen to crash when its client is killed.
 * One client at a time, one ring each way. Memory outlives a process that is killed: the end that stays still receives what had been
 * sent to it, and can take back what was not consumed (`keepsUnconsumed`).
 *
 * Everything here is polled: `maintain` moves the connection on and never waits.
 */

import { lstatSync, unlinkSync } from 'node:fs'
import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { FRAME_BYTES_MAX, type PacketPool } from '../packet/packet-pool.ts'
import type { TakeBackPort } from '../packet/port.ts'
import { PortStatistics, type LinkPort } from './link-port.ts'
import { clientRegionBytes, MemifConnection } from './memif-connection.ts'
import { LOG2_RING_SIZE_MAX, REGIONS_MAX } from './memif-protocol.ts'
import { MemifReceiver } from './memif-receiver.ts'
import { MemifSender, type RingPlace } from './memif-sender.ts'
import { SharedRegions } from './shared-regions.ts'
import * as sys from './sys.ts'

export interface MemifPortOptions {
  readonly arena: Arena
  readonly name: string
  readonly role: 'server' | 'client'
  /** Path of the socket, at most 107 bytes; one that begins with `@` is in the abstract namespace. */
  readonly socket: string
  /** Number of the link at that socket, the same on both sides. */
  readonly id?: number
  /** What the client must know, at most 23 bytes of ASCII. Not a protection against who can read the memory. */
  readonly secret?: string
  /** Client: descriptors per ring (a power of two, 2 to 16,384) and bytes per buffer (a multiple of 64). Frames may take several. */
  readonly ringSize?: number
  readonly bufferBytes?: number
  /** Server: bytes of address space for the client's memory. */
  readonly windowBytes?: number
  /** Descriptors that data frames leave free for NFactor's own messages. At most half of the ring. */
  readonly reserved?: number
  readonly frameBytesMax?: number
  /** After an end, wait for `beginTakeBack` and `endTakeBack` before the next connection. */
  readonly keepsUnconsumed?: boolean
  /** Buffers are given back with `release` alone, not when they have been copied. */
  readonly isReleaseManual?: boolean
  /** Take memory that the client could make shorter: it can kill this process. For DPDK's `zero-copy=yes`. */
  readonly acceptsUnsealed?: boolean
}

type State = 'closed' | 'waiting' | 'agreeing' | 'up' | 'ended'

const RING_SIZE = 1024
/** 33 cache lines: headers do not all fall into the same sets of the cache. */
const BUFFER_BYTES = 2112
const WINDOW_BYTES = 16 << 20
const RESERVED = 64
/** How long the two may take to agree, microseconds. */
const AGREE_US = 3_000_000
/** How long a client waits between attempts: at first, for whoever was there may be back in a moment, and when it has tried for a while. */
const RETRY_SOON_US = 4_000
const RETRY_US = 20_000
const SOON_US = 2_000_000

export class MemifPort implements LinkPort, TakeBackPort {
  readonly name: string
  readonly statistics = new PortStatistics()
  readonly frameBytesMax: number
  /** Why the last connection ended or was refused, for people. */
  lastEnd = ''
  readonly #options: MemifPortOptions
  readonly #arena: Arena
  readonly #regions: SharedRegions
  readonly #connection: MemifConnection
  #state: State = 'closed'
  #listener = -1
  #sender: MemifSender | null = null
  #receiver: MemifReceiver | null = null
  #knowsSegments = false
  #agreeUntil = 0
  #retryAt = -Infinity
  /** Client: when it began to try. */
  #triesSince = Infinity
  #isTakingBack = false

  constructor(options: MemifPortOptions) {
    const { arena, name, role, ringSize = RING_SIZE, bufferBytes = BUFFER_BYTES, windowBytes = WINDOW_BYTES } = options
    const isPowerOfTwo = Number.isInteger(ringSize) && (ringSize & (ringSize - 1)) === 0
    if (!isPowerOfTwo || ringSize < 2 || ringSize > 1 << LOG2_RING_SIZE_MAX) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${name}: a ring of ${ringSize} is no power of two from 2 to 16384`)
    }
    if (!(Number.isInteger(bufferBytes) && bufferBytes >= 64 && bufferBytes % 64 === 0 && bufferBytes <= 1 << 20)) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${name}: buffers of ${bufferBytes} bytes are no multiple of 64 from 64 to 1 MiB`)
    }
    if (sys.unixAddress(options.socket) === null) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${name}: the socket path has ${options.socket.length} bytes, 1 to 107 are possible`)
    }
    if (!/^[\x20-\x7e]{0,23}$/.test(options.secret ?? '')) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${name}: a secret is at most 23 printable ASCII characters`)
    }
    this.name = name
    this.#options = options
    this.#arena = arena
    const isClient = role === 'client'
    this.bufferBytes = bufferBytes
    const regions = this.#regions = new SharedRegions(arena, `port ${name}`, isClient ? clientRegionBytes(ringSize, bufferBytes) : windowBytes,
      isClient ? 1 : REGIONS_MAX)
    this.#connection = new MemifConnection({
      arena, regions, role, name, id: options.id ?? 0, secret: options.secret ?? '', ringSize, bufferBytes,
      acceptsUnsealed: options.acceptsUnsealed === true,
    })
    const ringBytesMax = isClient ? (ringSize - Math.min(options.reserved ?? RESERVED, ringSize >> 1)) * bufferBytes : FRAME_BYTES_MAX
    this.frameBytesMax = Math.min(options.frameBytesMax ?? FRAME_BYTES_MAX, FRAME_BYTES_MAX, ringBytesMax)
  }

  get isUp(): boolean {
    return this.#state === 'up'
  }

  get state(): string {
    return this.#state
  }

  /** What the other end calls itself; empty while there is none. */
  get peerName(): string {
    return this.#connection.peerName
  }

  // -- Frames --------------------------------------------------------------------------------------------------------------

  receive(pool: PacketPool, descriptors: number, max: number): number {
    if (this.#receiver === null) return 0
    this.flush()
    return this.#receiver.receive(pool, descriptors, max)
  }

  send(frame: number, length: number): boolean {
    return this.#send(frame, length, false)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.#send(frame, length, true)
  }

  #send(frame: number, length: number, isReserved: boolean): boolean {
    const statistics = this.statistics
    if (length > this.frameBytesMax || length <= 0) {
      statistics.txOversize++
      return false
    }
    if (this.#sender === null || this.#state !== 'up' || !this.#sender.send(frame, length, isReserved, this.#knowsSegments)) {
      statistics.txFull++
      return false
    }
    statistics.txFrames++
    statistics.txBytes += length
    return true
  }

  readonly bufferBytes: number

  get room(): number {
    return this.#sender === null || this.#state !== 'up' ? 0 : this.#sender.room
  }

  flush(): void {
    if (this.#state === 'up') (this.#sender as MemifSender).publish()
  }

  /** How many connections there have been. */
  get connection(): number {
    return this.statistics.connections
  }

  /** With manual release: true when what has not been given back nearly fills the ring. */
  get isCrowded(): boolean {
    return this.#receiver?.isCrowded === true
  }

  /** With manual release: position of the last frame received on this connection. The first one is 1. */
  get receivedPosition(): number {
    return this.#receiver?.receivedFrames ?? 0
  }

  /** With manual release: gives back all frames up to this position. What has not been given back, the sender can take back. */
  release(position: number): void {
    this.#receiver?.release(position)
  }

  /** Position of the last frame sent on this connection. */
  get sentPosition(): number {
    return this.#sender?.sentFrames ?? 0
  }

  // -- Taking back ---------------------------------------------------------------------------------------------------------

  /**
   * Cuts the link from our side, for good: nothing is sent any more, and what the other side consumes from now on is its own affair.
   * For an end that has been declared dead and may not be.
   */
  sever(): void {
    if (this.#state === 'up') this.#end('severed')
  }

  /** True when the link has ended and frames sent on it may be taken back. */
  get canTakeBack(): boolean {
    return this.#state === 'ended' && this.#sender !== null
  }

  /**
   * Begins to take back what was sent and not consumed, or everything from `position` on that the ring still holds.
   *
   * @returns the position of the first frame that `takeBack` gives
   */
  beginTakeBack(position?: number): number {
    assert(this.canTakeBack, 'frames are taken back from a link that has ended')
    this.#isTakingBack = true
    return (this.#sender as MemifSender).beginTakeBack(position)
  }

  /** Takes back at most `max` frames, oldest first, into slots as `receive` does. 0 when there are no more, or no slots. */
  takeBack(pool: PacketPool, descriptors: number, max: number): number {
    return this.#isTakingBack ? (this.#sender as MemifSender).takeBack(pool, descriptors, max) : 0
  }

  /** Frames still to be taken back. */
  get takeBackLeft(): number {
    return this.#isTakingBack ? (this.#sender as MemifSender).takeBackLeft : 0
  }

  /** What has not been taken back by now is lost, and counted. The link can come up again. */
  endTakeBack(): void {
    if (this.#state !== 'ended' || this.#sender === null) return
    this.statistics.txLost += this.#isTakingBack ? this.#sender.takeBackLeft : this.#sender.unconsumedFrames
    this.#sender = null
    this.#isTakingBack = false
  }

  // -- Opening and closing -------------------------------------------------------------------------------------------------

  open(): void {
    if (this.#state !== 'closed') return
    if (this.#options.role === 'server') this.#listen()
    this.#state = 'waiting'
    this.#retryAt = -Infinity
  }

  #listen(): void {
    const path = this.#options.socket
    const address = sys.unixAddress(path) as DataView
    const what = `port ${this.name} cannot listen at ${path}`
    const fd = sys.socket(sys.AF_UNIX, sys.SOCK_SEQPACKET, 0)
    if (fd < 0) throw sys.portError(fd, what)
    let result = sys.bind(fd, address)
    if (result === -sys.Errno.EADDRINUSE && !path.startsWith('@') && this.#isStale(path, address)) {
      // Whoever made this socket is gone.
      try {
        unlinkSync(path)
      } catch {
        // Then binding fails again, with the reason.
      }
      result = sys.bind(fd, address)
    }
    if (result === 0) result = sys.listen(fd, 4)
    if (result < 0) {
      sys.close(fd)
      const mend = result === -sys.Errno.EADDRINUSE ? 'Stop the process that listens there, or give the port another path.'
        : result === -sys.Errno.ENOENT ? 'Create its folder first.'
          : result === -sys.Errno.EACCES ? 'Choose a folder that you may write to.' : ''
      throw sys.portError(result, what, mend)
    }
    this.#listener = fd
  }

  /** True if this is a socket, and nobody listens at it. */
  #isStale(path: string, address: DataView): boolean {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false
    const probe = sys.socket(sys.AF_UNIX, sys.SOCK_SEQPACKET, 0)
    // Refused, and so every time: any other answer may be that of somebody who is busy.
    const isRefused = [1, 2, 3].every(() => sys.connect(probe, address) === -sys.Errno.ECONNREFUSED)
    sys.close(probe)
    return isRefused
  }

  close(): void {
    if (this.#state === 'closed') return
    this.flush()
    if (this.#state === 'up' || this.#state === 'agreeing') this.#end('closed')
    this.endTakeBack()
    this.#forget()
    if (this.#listener >= 0) {
      sys.close(this.#listener)
      this.#listener = -1
      try {
        if (!this.#options.socket.startsWith('@')) unlinkSync(this.#options.socket)
      } catch {
        // Somebody else has removed it.
      }
    }
    this.#state = 'closed'
  }

  /** The connection is over: the peer is told, and our side of the memory stays as it is while somebody needs it. */
  #end(reason: string): void {
    this.lastEnd = reason
    this.#connection.leave(reason)
    this.#state = this.#state === 'up' ? 'ended' : 'waiting'
    if (this.#state === 'waiting') this.#forget()
  }

  #forget(): void {
    this.#sender = this.#receiver = null
    this.#connection.forget()
  }

  // -- Connection ----------------------------------------------------------------------------------------------------------

  get retryDue(): TimeUs {
    return this.#state === 'waiting' && this.#listener < 0 ? this.#retryAt : Infinity
  }

  maintain(now: TimeUs): void {
    if (this.#state === 'closed') return
    this.flush()
    if (this.#state === 'agreeing' || this.#state === 'up') this.#converse(now)
    if (this.#state === 'up' && (this.#sender?.isBroken === true || this.#receiver?.isBroken === true)) {
      this.#end('the ring is damaged')
    }
    if (this.#state === 'ended') this.#leave()
    if (this.#state === 'waiting') {
      if (this.#listener >= 0) this.#accept(now)
      else if (now >= this.#retryAt) this.#connect(now)
    } else if (this.#listener >= 0 && this.#state === 'up') {
      this.#refuseOthers()
    }
  }

  #converse(now: TimeUs): void {
    const connection = this.#connection
    const reason = connection.poll()
    // What was agreed before the peer left counts: it may have sent something.
    if (this.#state === 'agreeing' && connection.isAgreed) this.#start()
    if (reason !== '') this.#end(reason)
    else if (this.#state === 'agreeing' && now > this.#agreeUntil) this.#end('no answer in time')
  }

  #start(): void {
    const { sending, receiving, sendEvent, isPeerOurs } = this.#connection
    const { isReleaseManual = false, reserved = RESERVED } = this.#options
    this.#knowsSegments = isPeerOurs
    const regions = this.#regions
    this.#sender = new MemifSender(this.#arena, regions, sending as RingPlace, reserved, sendEvent)
    this.#receiver = new MemifReceiver(this.#arena, regions, receiving as RingPlace, isReleaseManual, isPeerOurs, this.statistics)
    this.#state = 'up'
    this.#triesSince = Infinity
    this.lastEnd = ''
    this.statistics.connections++
  }

  /** An ended link is left when everything has been fetched from it. */
  #leave(): void {
    if (this.#receiver !== null && this.#receiver.hasFrames) return
    if (this.#sender !== null) {
      if (this.#options.keepsUnconsumed === true) return
      this.endTakeBack()
    }
    this.#forget()
    this.#state = 'waiting'
  }

  #accept(now: TimeUs): void {
    const fd = sys.accept(this.#listener)
    if (fd >= 0) this.#begin(fd, now)
  }

  #begin(fd: number, now: TimeUs): void {
    this.#state = 'agreeing'
    this.#agreeUntil = now + AGREE_US
    const reason = this.#connection.begin(fd)
    if (reason !== '') this.#end(reason)
  }

  #refuseOthers(): void {
    const fd = sys.accept(this.#listener)
    if (fd >= 0) this.#connection.refuse(fd, 'already connected')
  }

  #connect(now: TimeUs): void {
    this.#triesSince = Math.min(this.#triesSince, now)
    this.#retryAt = now + (now - this.#triesSince < SOON_US ? RETRY_SOON_US : RETRY_US)
    const fd = sys.socket(sys.AF_UNIX, sys.SOCK_SEQPACKET, 0)
    const result = fd < 0 ? fd : sys.connect(fd, sys.unixAddress(this.#options.socket) as DataView)
    if (result >= 0) {
      this.#begin(fd, now)
      return
    }
    this.lastEnd = `cannot connect (${sys.errnoText(result)})`
    sys.close(fd)
  }

  // -- Waiting -------------------------------------------------------------------------------------------------------------

  arm(): boolean {
    this.flush()
    if (this.#receiver === null) return true
    sys.clearEvent(this.#connection.receiveEvent)
    return this.#receiver.arm()
  }

  disarm(): void {
    this.#receiver?.disarm()
  }

  waitDescriptors(list: number[]): void {
    // Who knocks while an ended link is being emptied has to wait, and must not keep us awake.
    const listener = this.#state === 'ended' ? -1 : this.#listener
    for (const fd of [listener, this.#connection.socket, this.#connection.receiveEvent]) if (fd >= 0) list.push(fd)
  }
}
