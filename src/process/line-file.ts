/**
 * A text file written line by line, synchronously, a block of whole lines at a time: there is no queue that could grow,
 * and what reached the disk is whole lines, also when the disk is full (a block that could not be written whole is cut
 * off again).
 */

import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { fileUnwritable } from './file-unwritable.ts'

const BLOCK_CHARACTERS = 64 * 1024

/**
 * @throws CodedError `NF_FILE_UNWRITABLE`, from any method but {@link LineFile.abandon}. After a throw the file is
 *   closed and further lines are ignored.
 */
export class LineFile {
  readonly path: string
  readonly #isRegular: boolean
  #fd: number
  #block = ''
  #lengthBytes = 0
  #lineCount = 0

  /** Creates or empties the file. */
  constructor(path: string) {
    this.path = path
    try {
      this.#fd = openSync(path, 'w')
      this.#isRegular = fstatSync(this.#fd).isFile()
    } catch (error) {
      throw fileUnwritable(path, error)
    }
  }

  get lineCount(): number {
    return this.#lineCount
  }

  /** Adds a line, given without its line feed. */
  write(line: string): void {
    if (this.#fd < 0) return
    this.#block += line
    this.#block += '\n'
    this.#lineCount++
    if (this.#block.length >= BLOCK_CHARACTERS) this.flush()
  }

  /** Writes out what is buffered, so that others can read it. */
  flush(): void {
    if (this.#fd < 0 || this.#block === '') return
    const bytes = Buffer.from(this.#block, 'utf8')
    this.#block = ''
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at, bytes.length - at)
    } catch (error) {
      this.#cutOff()
      this.#release()
      throw fileUnwritable(this.path, error)
    }
    this.#lengthBytes += bytes.length
  }

  /** Writes out what is buffered and closes the file; may be called more than once. */
  close(): void {
    this.flush()
    this.#release()
  }

  /** Closes the file without complaint, with as many of the buffered lines as it takes: something else went wrong. */
  abandon(): void {
    try {
      this.close()
    } catch {
      // What led here is the error to report.
    }
  }

  #release(): void {
    if (this.#fd < 0) return
    const fd = this.#fd
    this.#fd = -1
    try {
      closeSync(fd)
    } catch (error) {
      throw fileUnwritable(this.path, error) // network file systems report a full disk only here
    }
  }

  #cutOff(): void {
    if (!this.#isRegular) return
    try {
      ftruncateSync(this.#fd, this.#lengthBytes)
    } catch {
      // The error that led here is the one to report.
    }
  }
}
