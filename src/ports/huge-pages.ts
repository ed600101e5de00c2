/**
 * Huge pages: asks the kernel to back the arena with 2 MiB pages where it can (transparent huge pages). With millions of flows a
 * page table walk per record costs a quarter of the time. Only advice: without libc, or where the kernel declines, nothing
 * changes.
 */

import koffi from 'koffi'
import type { Arena } from '../memory/arena.ts'

const MADV_HUGEPAGE = 14

/** Returns true if the kernel took the advice. */
export function adviseHugePages(arena: Arena): boolean {
  if (process.platform !== 'linux') return false
  try {
    const libc = koffi.load('libc.so.6')
    // A function that returns its pointer argument gives the arena's address.
    const address = libc.func('uintptr_t memcpy(void *, void *, size_t)')
    const advise = libc.func('int madvise(uintptr_t, size_t, int)')
    const base = BigInt(address(arena.u8, arena.u8, 0) as number | bigint)
    return advise(base, arena.bytes, MADV_HUGEPAGE) === 0
  } catch {
    return false
  }
}
