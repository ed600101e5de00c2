/**
 * Tar archive: a stream of files, folders and nothing else, in the format of POSIX (ustar), for the container engine. Owner, time and order
 * are always the same, so that the same files make the same archive.
 */

import { createReadStream, statSync } from 'node:fs'
import { Readable } from 'node:stream'

export interface TarEntry {
  /** Where it is to be, without a slash at the beginning; a folder ends in one. */
  readonly path: string
  /** File on this machine, or what is in it; a folder has neither. */
  readonly file?: string
  readonly text?: string
  readonly mode: number
}

const BLOCK = 512
const NAME_BYTES = 100
const PREFIX_BYTES = 155

/** @throws Error for a path that the format has no room for */
export function tarArchive(entries: readonly TarEntry[]): Readable {
  return Readable.from(blocks(entries), { objectMode: false })
}

async function * blocks(entries: readonly TarEntry[]): AsyncGenerator<Uint8Array> {
  for (const { path, file, text = '', mode } of entries) {
    const bytes = file === undefined ? Buffer.byteLength(text) : statSync(file).size
    yield header(path, bytes, mode)
    let written = 0
    if (file === undefined) {
      written = bytes
      if (bytes > 0) yield Buffer.from(text)
    } else if (bytes > 0) {
      for await (const part of createReadStream(file, { end: bytes - 1, highWaterMark: 1 << 20 })) {
        written += (part as Buffer).length
        yield part as Buffer
      }
    }
    if (written !== bytes) throw new Error(`${file} has become shorter while it was read`)
    if (bytes % BLOCK !== 0) yield new Uint8Array(BLOCK - bytes % BLOCK)
  }
  yield new Uint8Array(2 * BLOCK)
}

function header(path: string, bytes: number, mode: number): Uint8Array {
  const block = Buffer.alloc(BLOCK)
  const [prefix, name] = split(path)
  block.write(name, 0)
  octal(block, 100, 8, mode)
  octal(block, 108, 8, 0)
  octal(block, 116, 8, 0)
  octal(block, 124, 12, bytes)
  octal(block, 136, 12, 0)
  block.fill(' ', 148, 156)
  block.write(path.endsWith('/') ? '5' : '0', 156)
  block.write('ustar\x0000', 257, 'latin1')
  block.write(prefix, 345)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

function octal(block: Buffer, offset: number, width: number, value: number): void {
  block.write(`${value.toString(8).padStart(width - 1, '0')}\0`, offset)
}

/** A long path is cut in two at a slash. */
function split(path: string): [string, string] {
  if (Buffer.byteLength(path) <= NAME_BYTES) return ['', path]
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) {
    if (Buffer.byteLength(path.slice(at + 1)) <= NAME_BYTES && at <= PREFIX_BYTES) return [path.slice(0, at), path.slice(at + 1)]
  }
  throw new Error(`${path} is too long for an archive`)
}
