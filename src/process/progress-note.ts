/**
 * Progress note: a page of a file, mapped into a runtime's process, in which the engine notes whose packet it is running. The file is
 * still there when the process has died, however it did. PROTOCOL 22, `runtime/in-progress.ts`.
 */

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import type { Arena } from '../memory/arena.ts'
import * as sys from '../ports/sys.ts'
import { IN_PROGRESS_BYTES, InProgress, readInProgress } from '../runtime/in-progress.ts'

/** Makes the file and maps it; undefined where that is not possible, and nothing is noted then. */
export function openProgressNote(arena: Arena, path: string): InProgress | undefined {
  const bytes = Math.ceil(IN_PROGRESS_BYTES / sys.PAGE_BYTES) * sys.PAGE_BYTES
  const offset = arena.allocate('progress note', bytes, sys.PAGE_BYTES)
  let fd = -1
  try {
    fd = openSync(path, 'w+', 0o600)
    // Written, not just as long: with a full disk behind it, the first word that is noted in a hole kills the process.
    writeSync(fd, new Uint8Array(bytes))
    if (sys.mapOver(sys.addressOf(arena.u8) + offset, bytes, fd) < 0) return undefined
    return new InProgress(arena.i32.subarray(offset >> 2, (offset + bytes) >> 2))
  } catch {
    return undefined
  } finally {
    if (fd >= 0) closeSync(fd)
  }
}

/** Keys of the flows that a process which is gone, or stands, was running; none if there is no note. */
export function readProgressNote(path: string): Int32Array[] {
  try {
    const bytes = readFileSync(path)
    return readInProgress(new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)))
  } catch {
    return []
  }
}
