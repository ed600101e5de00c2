/**
 * Waiting for ports: how a loop that polls goes to sleep when nothing comes, and is woken by the next frame.
 *
 *     poll, poll, nothing for a while ─▶ arm all ─┬─ a frame was there already ─▶ go on polling
 *                                                 └─ sleep on their descriptors ─▶ woken, or the time is over ─▶ disarm, go on
 *
 * A look after arming is part of `arm`, so that no frame can slip between the last poll and the sleep.
 *
 * A loop sleeps hundreds of times a second while little comes. So all descriptors are in one set, which the kernel keeps from sleep to
 * sleep, and the event loop watches that one; a set lasts until the ports have other descriptors.
 */

import type { LinkPort } from './link-port.ts'
import { addToSet, close, closeCount, createDescriptorSet, portError, waitForInput, watchInput, type InputWatch } from './sys.ts'

function descriptorsOf(ports: readonly LinkPort[]): number[] {
  const list: number[] = []
  for (const port of ports) port.waitDescriptors(list)
  return list
}

/** Arms all; false, with all disarmed again, if one of them has a frame already. */
function armAll(ports: readonly LinkPort[]): boolean {
  for (const port of ports) {
    if (port.arm()) continue
    disarmAll(ports)
    return false
  }
  return true
}

function disarmAll(ports: readonly LinkPort[]): void {
  for (const port of ports) port.disarm()
}

/** Whoever sleeps on ports, on the event loop; one for each loop that does, closed at its end. */
export class PortWaiter {
  #set = -1
  #watch: InputWatch | undefined
  /** What the set holds, and how many descriptors had been closed when it was made. */
  #held: readonly number[] = []
  #closes = 0
  #wake: (isThere: boolean) => void = nothing
  #first: () => void = nothing
  #hasSlept = false
  readonly #woken = (): void => {
    this.#first()
    this.#wake(true)
  }
  readonly #late = (): void => { this.#wake(false) }

  /**
   * Waits until one of the ports has something to do or the time is over. If no frame has come, call `maintain` on them then. One wait at a
   * time.
   *
   * @param first what is to be done at once when one of them has, ahead of all that ends the wait; must not throw
   * @returns true if there is something, or it was interrupted; false if it was the time
   */
  async wait(ports: readonly LinkPort[], timeoutMs: number, first = nothing): Promise<boolean> {
    this.#hasSlept = false
    if (!armAll(ports)) return true
    this.#hasSlept = true
    let timer: NodeJS.Timeout | undefined
    try {
      const watch = this.#watchOver(descriptorsOf(ports))
      return await new Promise<boolean>((resolve) => {
        this.#wake = resolve
        this.#first = first
        timer = setTimeout(this.#late, timeoutMs)
        watch.start(this.#woken)
      })
    } finally {
      this.#wake = this.#first = nothing
      clearTimeout(timer)
      this.#watch?.stop()
      disarmAll(ports)
    }
  }

  /** False if a port had something before the last wait had begun. */
  get hasSlept(): boolean {
    return this.#hasSlept
  }

  /** Ends a wait, as if something had come. */
  interrupt(): void {
    this.#wake(true)
  }

  close(): void {
    this.#watch?.close()
    this.#watch = undefined
    close(this.#set)
    this.#set = -1
  }

  /** The watch over these descriptors. */
  #watchOver(fds: readonly number[]): InputWatch {
    const { length } = fds
    let isSame = this.#watch !== undefined && this.#closes === closeCount() && length === this.#held.length
    for (let i = 0; isSame && i < length; i++) isSame = fds[i] === this.#held[i]
    if (this.#watch !== undefined && isSame) return this.#watch
    this.close()
    this.#set = createDescriptorSet()
    if (this.#set < 0) throw portError(this.#set, 'waiting for ports')
    for (const fd of fds) {
      const result = addToSet(this.#set, fd)
      if (result < 0) throw portError(result, 'waiting for a port')
    }
    this.#held = fds
    this.#closes = closeCount()
    return this.#watch = watchInput(this.#set, this.#woken)
  }
}

function nothing(): void {
  // Nobody waits.
}

/** Waits once on the event loop: see `PortWaiter`. */
export async function waitForPorts(ports: readonly LinkPort[], timeoutMs: number, interrupted?: Promise<void>): Promise<boolean> {
  const waiter = new PortWaiter()
  void interrupted?.then(() => { waiter.interrupt() })
  try {
    return await waiter.wait(ports, timeoutMs)
  } finally {
    waiter.close()
  }
}

/** The same for a thread that has nothing else to do: it stands still meanwhile. */
export function waitForPortsBlocking(ports: readonly LinkPort[], timeoutMs: number): boolean {
  if (!armAll(ports)) return true
  const isThere = waitForInput(descriptorsOf(ports), timeoutMs * 1000) > 0
  disarmAll(ports)
  return isThere
}
