/**
 * Node link: a memif link between a switch and a runtime, or the bypass between switches, as the node sees it. Like a cable, an end that
 * is not plugged in holds nothing up: while the link is down there is "room", and what is sent is refused and counted. Otherwise a
 * runtime, which reads only while every link has room for what may come of a batch, would stand still when one switch of two is gone.
 */

import type { Arena } from '../memory/arena.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { TakeBackPort } from '../packet/port.ts'
import { MemifPort } from '../ports/memif-port.ts'
import { WrapperPort } from '../ports/wrapper-port.ts'

/** A long TCP segment takes 32 buffers. */
const RING_SIZE = 4096
const BUFFER_BYTES = 2112
/** What the other side's memory takes: two rings, their buffers, and a page or two. */
const WINDOW_BYTES = 24 << 20
const UNPLUGGED_ROOM = 4096

export interface NodeLinkOptions {
  readonly arena: Arena
  readonly name: string
  readonly socket: string
  /** Switches listen, runtimes connect. */
  readonly role: 'server' | 'client'
  /** What the other end has not given back when it is gone stays until it is taken back, or given up. */
  readonly keepsUnconsumed?: boolean
  /** What is received is given back by `release` alone. */
  readonly isReleaseManual?: boolean
}

export class NodeLink extends WrapperPort<MemifPort> implements TakeBackPort {
  constructor({ arena, name, socket, role, keepsUnconsumed, isReleaseManual }: NodeLinkOptions) {
    super(new MemifPort({
      arena, name, role, socket, ringSize: RING_SIZE, bufferBytes: BUFFER_BYTES, windowBytes: WINDOW_BYTES,
      keepsUnconsumed, isReleaseManual,
    }))
  }

  override get room(): number {
    return this.inner.isUp ? this.inner.room : UNPLUGGED_ROOM
  }

  // -- Giving back, taking back --------------------------------------------------------------------------------------------

  get connection(): number {
    return this.inner.connection
  }

  get receivedPosition(): number {
    return this.inner.receivedPosition
  }

  get sentPosition(): number {
    return this.inner.sentPosition
  }

  get isCrowded(): boolean {
    return this.inner.isCrowded
  }

  release(position: number): void {
    this.inner.release(position)
  }

  sever(): void {
    this.inner.sever()
  }

  get canTakeBack(): boolean {
    return this.inner.canTakeBack
  }

  beginTakeBack(): number {
    return this.inner.beginTakeBack()
  }

  get takeBackLeft(): number {
    return this.inner.takeBackLeft
  }

  takeBack(pool: PacketPool, descriptors: number, max: number): number {
    return this.inner.takeBack(pool, descriptors, max)
  }

  endTakeBack(): void {
    this.inner.endTakeBack()
  }

  get lastEnd(): string {
    return this.inner.lastEnd
  }
}
