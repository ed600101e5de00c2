/**
 * A port for tests whose frames are counts of event descriptors: for what waits for ports, and looks at nothing else of them.
 */

import { PortStatistics, type LinkPort } from './link-port.ts'
import { clearEvent, close, createEvent } from './sys.ts'

export class EventPort implements LinkPort {
  readonly name = 'event'
  readonly isUp = true
  readonly statistics = new PortStatistics()
  readonly frameBytesMax = 1
  readonly room = 0
  /** Its descriptors; `close` gives them up, `open` takes a new one. */
  fds: number[]
  maintained = 0
  retryDue = Infinity
  /** True while somebody sleeps on it. */
  isArmed = false

  constructor(count = 1) {
    this.fds = Array.from({ length: count }, () => createEvent())
  }

  get fd(): number {
    return this.fds[0] as number
  }

  receive(): number { return 0 }
  send(): boolean { return false }
  sendReserved(): boolean { return false }
  open(): void { this.fds.push(createEvent()) }
  close(): void { for (const fd of this.fds.splice(0)) close(fd) }
  flush(): void {}
  maintain(_now: number): void { this.maintained++ }
  arm(): boolean { return this.isArmed = true }
  disarm(): void { this.isArmed = false }
  waitDescriptors(list: number[]): void { list.push(...this.fds) }

  /** What a node does with a port, in `poll`. */
  take(): number {
    const isThere = clearEvent(this.fd) > 0
    if (isThere) this.statistics.rxFrames++
    return isThere ? 1 : 0
  }
}
