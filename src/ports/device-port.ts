/**
 * Device port: a port with nothing outside of this process behind it but files and arithmetic: always up, never waited for. What
 * such ports have of a link port.
 */

import type { TimeUs } from '../base/clock.ts'
import { FRAME_BYTES_MAX, type PacketPool } from '../packet/packet-pool.ts'
import { PortStatistics, type LinkPort } from './link-port.ts'

export abstract class DevicePort implements LinkPort {
  readonly name: string
  readonly isUp: boolean = true
  readonly statistics = new PortStatistics()
  readonly frameBytesMax: number = FRAME_BYTES_MAX

  constructor(name: string) {
    this.name = name
  }

  abstract readonly room: number
  abstract receive(pool: PacketPool, descriptors: number, max: number): number
  abstract send(frame: number, length: number): boolean

  sendReserved(frame: number, length: number): boolean {
    return this.send(frame, length)
  }

  open(): void {}
  close(): void | Promise<void> {}
  flush(): void {}
  maintain(_now: TimeUs): void {}

  /** No descriptor tells when there is more to receive: true only if there never will be. */
  abstract arm(): boolean

  disarm(): void {}
  waitDescriptors(_list: number[]): void {}

  /** Counts frames received. */
  protected countIn(frames: number, bytes: number): void {
    this.statistics.rxFrames += frames
    this.statistics.rxBytes += bytes
  }

  /** Counts a frame taken, or refused because of its length (`isTooLong`) or for want of room. */
  protected countOut(isSent: boolean, length: number): boolean {
    const { statistics } = this
    if (isSent) {
      statistics.txFrames++
      statistics.txBytes += length
    } else if (length > this.frameBytesMax) {
      statistics.txOversize++
    } else {
      statistics.txFull++
    }
    return isSent
  }
}
