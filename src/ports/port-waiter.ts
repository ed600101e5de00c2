/**
 * Waiting for ports: how a loop that polls goes to sleep when nothing comes, and is woken by the next frame.
 *
 *     poll, poll, nothing for a while ─▶ arm all ─┬─ a frame was there already ─▶ go on polling
 *                                                 └─ sleep on their descriptors ─▶ woken, or the time is over ─▶ disarm, go on
 *
 * A look after arming is part of `arm`, so that no frame can slip between the last poll and the sleep.
 */

import type { LinkPort } from './link-port.ts'
import { waitForInput, watchInput } from './sys.ts'

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

/**
 * Waits on the event loop until one of the ports has something to do or the time is over. Call `maintain` on them afterwards.
 *
 * @param interrupted ends the wait as well, as if something had come
 * @returns true if there is something, false if it was the time
 */
export async function waitForPorts(ports: readonly LinkPort[], timeoutMs: number, interrupted?: Promise<void>): Promise<boolean> {
  if (!armAll(ports)) return true
  // The handles are used once: a port may close a descriptor, and another may get its number, as soon as somebody else runs.
  let handles: ReturnType<typeof watchInput>[] = []
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<boolean>((resolve) => {
      timer = setTimeout(() => { resolve(false) }, timeoutMs)
      void interrupted?.then(() => { resolve(true) })
      handles = descriptorsOf(ports).map((fd) => watchInput(fd, () => { resolve(true) }))
    })
  } finally {
    clearTimeout(timer)
    for (const handle of handles) handle.close()
    disarmAll(ports)
  }
}

/** The same for a thread that has nothing else to do: it stands still meanwhile. */
export function waitForPortsBlocking(ports: readonly LinkPort[], timeoutMs: number): boolean {
  if (!armAll(ports)) return true
  const isThere = waitForInput(descriptorsOf(ports), timeoutMs * 1000) > 0
  disarmAll(ports)
  return isThere
}
