/**
 * Cluster lock: who has it may make, clear and remove the folder of a cluster. The supervisor has it from before it looks whether the cluster
 * is there until nothing is left of it; so of two that begin at once one is refused, and does not clear what the other has just made.
 *
 * It is a file beside the folder, locked by the kernel: a process that ends, however it does, gives it back.
 */

import { closeSync, fstatSync, openSync, rmSync, statSync } from 'node:fs'
import { lockFile } from '../ports/sys-lock.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { fileUnwritable } from './file-unwritable.ts'

export class ClusterLock {
  readonly #path: string
  #fd: number

  private constructor(path: string, fd: number) {
    this.#path = path
    this.#fd = fd
  }

  /**
   * Undefined if somebody else has it.
   *
   * @throws CodedError `NF_FILE_UNWRITABLE`
   */
  static take(folder: ClusterFolder): ClusterLock | undefined {
    folder.createBase()
    const path = folder.lockFile
    for (;;) {
      let fd: number
      try {
        fd = openSync(path, 'a', 0o600)
      } catch (error) {
        throw fileUnwritable(path, error)
      }
      const isOurs = lockFile(fd)
      if (isOurs && isNamed(fd, path)) return new ClusterLock(path, fd)
      closeSync(fd)
      if (!isOurs) return undefined
      // Whoever had it has removed the file meanwhile: that one locks nothing any more.
    }
  }

  /** Gives it back. May be called more than once. */
  release(): void {
    if (this.#fd < 0) return
    if (isNamed(this.#fd, this.#path)) rmSync(this.#path, { force: true })
    closeSync(this.#fd)
    this.#fd = -1
  }
}

/** Whether an open file is the one of this name. */
function isNamed(fd: number, path: string): boolean {
  const [own, named] = [fstatSync(fd), statSync(path, { throwIfNoEntry: false })]
  return named?.ino === own.ino && named.dev === own.dev
}
