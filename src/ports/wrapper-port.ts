/**
 * Wrapper port: a port around another one. What a wrapper does not change goes through; wrappers stack in any order.
 *
 *     data plane ─▶ fault ─▶ trace ─▶ capture ─▶ port ─▶ link
 *
 * A port with something outside behind it has more members than `Port` (it opens and closes, is flushed and waited for); a wrapper has
 * all of them, and what its inner port does not have does nothing.
 */

import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'

/** A port that can be wrapped: any. */
export interface InnerPort extends Port {
  readonly name?: string
  readonly isUp?: boolean
  readonly frameBytesMax?: number
  open?(): void
  close?(): void
  flush?(): void
  maintain?(now: number): void
  arm?(): boolean
  disarm?(): void
  waitDescriptors?(list: number[]): void
}

/** Direction of a frame, seen from the node: `in` by `receive`, `out` by `send`. */
export const PortDirection = { in: 0, out: 1 } as const

/** A port that passes everything on. */
export class WrapperPort<P extends InnerPort = InnerPort> implements Port {
  readonly inner: P

  constructor(inner: P) {
    this.inner = inner
  }

  get name(): string {
    return this.inner.name ?? 'port'
  }

  get isUp(): boolean {
    return this.inner.isUp ?? true
  }

  get frameBytesMax(): number {
    return this.inner.frameBytesMax ?? Infinity
  }

  /** The inner port's own counts, where it has any. */
  get statistics(): P extends { readonly statistics: infer S } ? S : undefined {
    return (this.inner as { statistics?: unknown }).statistics as never
  }

  get room(): number {
    return this.inner.room
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    return this.inner.receive(pool, descriptors, max)
  }

  send(frame: number, length: number): boolean {
    return this.inner.send(frame, length)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.inner.sendReserved(frame, length)
  }

  open(): void {
    this.inner.open?.()
  }

  close(): void {
    this.inner.close?.()
  }

  flush(): void {
    this.inner.flush?.()
  }

  maintain(now: number): void {
    this.inner.maintain?.(now)
  }

  arm(): boolean {
    return this.inner.arm?.() ?? true
  }

  disarm(): void {
    this.inner.disarm?.()
  }

  waitDescriptors(list: number[]): void {
    this.inner.waitDescriptors?.(list)
  }
}
