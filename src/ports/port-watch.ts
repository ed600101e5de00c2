/**
 * Port watch: sees the frames of a port that is in use, and lets go of it again. Unlike a wrapper it need not be there before: while a
 * port is watched its own `receive`, `send` and `sendReserved` stand in front of those of its class, and afterwards they are gone. A
 * port that nobody watches is exactly what it was.
 */

import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { Arena } from '../memory/arena.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'

export interface PortWatch {
  received(frame: number, length: number, slot: number): void
  /** Called before the port is asked; what it answers is told by `refused`, if it has no room. */
  sending(frame: number, length: number): void
  refused(frame: number, length: number): void
}

const watches = new WeakMap<Port, PortWatch[]>()

/** Watches a port until what it returns is called. More than one may watch. */
export function watchPort(arena: Arena, port: Port, watch: PortWatch): () => void {
  const list = watches.get(port) ?? []
  if (list.length === 0) {
    watches.set(port, list)
    shadow(arena, port, list)
  }
  list.push(watch)
  return () => {
    const at = list.indexOf(watch)
    if (at < 0) return
    list.splice(at, 1)
    if (list.length > 0) return
    watches.delete(port)
    for (const name of ['sendReserved', 'send', 'receive'] as const) Reflect.deleteProperty(port, name)
  }
}

function shadow({ i32 }: Arena, port: Port, list: readonly PortWatch[]): void {
  const { receive, send, sendReserved } = port
  const sendBy = (own: Port['send']) => (frame: number, length: number): boolean => {
    for (const watch of list) watch.sending(frame, length)
    const isSent = own.call(port, frame, length)
    if (!isSent) for (const watch of list) watch.refused(frame, length)
    return isSent
  }
  port.receive = (pool: PacketPool, descriptors: number, max: number): number => {
    const count = receive.call(port, pool, descriptors, max)
    for (let i = 0, d = descriptors; i < count; i++, d += DESCRIPTOR_WORDS) {
      for (const watch of list) watch.received(i32[d + Descriptor.frame], i32[d + Descriptor.length], i32[d + Descriptor.slot])
    }
    return count
  }
  port.send = sendBy(send)
  port.sendReserved = sendBy(sendReserved)
}
