/**
 * Holds what left the chain against what came in: a chain that only watches and filters passes every packet on
 * unchanged and in order, or drops it.
 */

import type { CapturedFrame } from './capture-frames.ts'

/** All deviations of the frames that left, one line each; empty when they are the received ones without the dropped. */
export function compareFrames(
  capture: string, received: readonly CapturedFrame[], left: readonly CapturedFrame[], dropped: number,
): string[] {
  if (left.length !== received.length - dropped) {
    return [`${capture}: ${left.length} frames left, but ${received.length} came and ${dropped} were dropped`]
  }
  let next = 0
  for (const [index, frame] of left.entries()) {
    while (next < received.length && !isSame(received[next] as CapturedFrame, frame)) next++
    if (next === received.length) return [`${capture}: frame ${index + 1} of those that left did not come in like that`]
    next++
  }
  return []
}

function isSame(a: CapturedFrame, b: CapturedFrame): boolean {
  return Buffer.compare(a.bytes, b.bytes) === 0
}
