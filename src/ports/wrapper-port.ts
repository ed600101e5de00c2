/**
 * Wrapper port: a port around another one. What a wrapper does not change goes through; wrappers stack in any order.
 *
 *     data plane ─▶ fault ─▶ trace ─▶ capture ─▶ port ─▶ link
 *
 * A wrapper has all members of a link port; those that its inner port does not have do nothing.
 */

import type { TimeUs } from '../base/clock.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { PortStatistics, type LinkPort } from './link-port.ts'

/** A port that can be wrapped: any. */
export type InnerPort = Port & Partial<LinkPort>

/** Direction of a frame, seen from the node: `in` by `receive`, `out` by `send`. */
export const PortDirection = { in: 0, out: 1 } as const

/** A port that passes everything on. */
export class WrapperPort<P extends InnerPort = InnerPort> implements LinkPort {
  readonly inner: P
  #noStatistics: PortStatistics | undefined

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

  /** The inner port's counts; zeroes for a port that counts nothing. */
  get statistics(): PortStatistics {
    return this.inner.statistics ?? (this.#noStatistics ??= new PortStatistics())
  }

  get isPatient(): boolean {
    return this.inner.isPatient ?? false
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

  get retryDue(): TimeUs | undefined {
    return this.inner.retryDue
  }

  maintain(now: TimeUs): void {
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
