/**
 * Node link: a memif link between a switch and a runtime, or the bypass between switches, as the node sees it. Like a cable, an end that
 * is not plugged in holds nothing up: while the link is down there is "room", and what is sent is refused and counted. Otherwise a
 * runtime, which reads only while every link has room for what may come of a batch, would stand still when one switch of two is gone.
 */

import type { Arena } from '../memory/arena.ts'
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
}

export class NodeLink extends WrapperPort<MemifPort> {
  constructor({ arena, name, socket, role }: NodeLinkOptions) {
    super(new MemifPort({
      arena, name, role, socket, ringSize: RING_SIZE, bufferBytes: BUFFER_BYTES, windowBytes: WINDOW_BYTES,
    }))
  }

  override get room(): number {
    return this.inner.isUp ? this.inner.room : UNPLUGGED_ROOM
  }

  get lastEnd(): string {
    return this.inner.lastEnd
  }
}
