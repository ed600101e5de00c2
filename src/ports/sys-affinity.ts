/**
 * The call of the C library for the cores that a process may use; the rest of them is in sys.ts.
 *
 * Source: sched_setaffinity(2).
 */

import koffi from 'koffi'
import { readdirSync } from 'node:fs'
import { scratch } from './sys.ts'

/** Room for 1,024 cores, as in the C library's own type. */
const MASK_BYTES = 128

/**
 * Has all threads of this process use these cores alone; those that they start do too. Returns false where the system refuses: there is no
 * such core, or it belongs to others.
 *
 * @param cpus numbers below 1,024
 */
export function pinProcess(cpus: readonly number[]): boolean {
  const mask = scratch(MASK_BYTES)
  for (const cpu of cpus) mask.setUint8(cpu >> 3, mask.getUint8(cpu >> 3) | 1 << (cpu & 7))
  const call = koffi.load('libc.so.6').func('int sched_setaffinity(int pid, size_t bytes, void *mask)')
  let isDone = true
  for (const thread of readdirSync('/proc/self/task')) {
    const result = call(Number(thread), mask.byteLength, mask) as number
    // Another thread may have ended meanwhile.
    if (result !== 0 && Number(thread) === process.pid) isDone = false
  }
  return isDone
}
