/**
 * The call of the C library for locks on files; the rest of them is in sys.ts.
 *
 * Source: flock(2).
 */

import koffi from 'koffi'

const LOCK_EX = 2
const LOCK_NB = 4

/** Locks an open file for this process, until it closes it or ends, however it does. False if somebody else has it. */
export function lockFile(fd: number): boolean {
  return koffi.load('libc.so.6').func('int flock(int fd, int operation)')(fd, LOCK_EX | LOCK_NB) === 0
}
