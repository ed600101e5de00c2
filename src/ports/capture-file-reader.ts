/**
 * Captures from files, pipes and standard input, plain or compressed with gzip.
 *
 *     file or stream -> [gunzip] -> CaptureParser -> CaptureSink
 *
 * A regular file is read into two buffers in turn: while the packets of one are handed on, the other is being filled.
 * Whether the bytes are compressed is seen from the first two of them, never from a name; a compressed file may consist
 * of several gzip members one after the other (RFC 1952 §2.2).
 *
 * What is wrong with the file as a whole is a `CodedError`. A capture that breaks off, plain or compressed, is none:
 * all that came before the break is handed on, and the {@link CaptureEnding} says what is missing.
 */

import { close, constants, createReadStream, fstat, open, read } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { createGunzip } from 'node:zlib'
import { CodedError } from '../base/coded-error.ts'
import type { CaptureFormat } from '../wire/capture-decoder.ts'
import { FOREIGN_HEAD_LENGTH, describeForeign } from '../wire/capture-foreign.ts'
import { CaptureParser } from '../wire/capture-parser.ts'
import type { CaptureSink } from '../wire/capture-sink.ts'

const CHUNK_LENGTH = 256 * 1024
/**
 * Compressed bytes handed to zlib at once. When zlib finds damage, it withholds what the last piece has given so far:
 * so a piece is at most a 32nd of what came before it, and the packets in front of the damage are lost by as little.
 */
const GZIP_PIECE_LENGTH_MIN = 512
const GZIP_PIECE_LENGTH_MAX = 64 * 1024
const GZIP_PIECE_FRACTION = 32

const STDIN_FD = 0

const closeFd = promisify(close)
const fstatFd = promisify(fstat)
const openFd = promisify(open)
const readFd = promisify(read)

/** How the reading of a capture ended. */
export interface CaptureEnding {
  /** `complete`; or the capture broke off, became impossible, or the signal told the reader to stop. */
  readonly state: 'complete' | 'truncated' | 'damaged' | 'aborted'
  /** What is wrong and where, one line without a full stop, for a warning; empty for a complete capture. */
  readonly reason: string
  /** Undefined only if the reader was stopped before it knew. */
  readonly format: CaptureFormat | undefined
}

/**
 * Opens a capture for reading.
 *
 * @param path a file, or `-` for standard input
 * @param signal stops the reading between two chunks
 * @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE`
 */
export async function openCaptureReader(path: string, signal?: AbortSignal): Promise<CaptureFileReader> {
  const name = path === '-' ? 'standard input' : path
  let fd = STDIN_FD
  try {
    // Without O_NONBLOCK the opening of a named pipe waits for its writer, and cannot be aborted.
    if (path !== '-') fd = await openFd(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stats = await fstatFd(fd)
    if (stats.isDirectory()) {
      throw new CodedError('NF_FILE_UNREADABLE', `${name} is a directory`, 'Name a capture file in it')
    }
    const isRegular = stats.isFile()
    const stream = isRegular ? undefined : openStream(fd, stats.isFIFO())
    return new CaptureFileReader(name, fd, isRegular ? stats.size : undefined, stream, signal)
  } catch (error) {
    if (fd !== STDIN_FD) await closeFd(fd)
    throw unreadable(name, error)
  }
}

function openStream(fd: number, isPipe: boolean): Readable {
  if (fd === STDIN_FD) return process.stdin
  // A socket object waits for a pipe without holding a thread, so that it can be given up at any time.
  return isPipe ? new Socket({ fd, readable: true, writable: false }) : createReadStream('', { fd, autoClose: true })
}

function unreadable(name: string, error: unknown): unknown {
  if (error instanceof CodedError || !(error instanceof Error)) return error
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new CodedError('NF_FILE_NOT_FOUND', `${name} does not exist`, 'Check the path', { cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new CodedError('NF_FILE_UNREADABLE', `${name} cannot be read: permission denied`,
      'Change its permissions, or read it as another user', { cause: error })
  }
  return new CodedError('NF_FILE_UNREADABLE', `${name} cannot be read: ${error.message}`, '', { cause: error })
}

/** An opened capture; made by {@link openCaptureReader}. To be read once, and closed in any case. */
export class CaptureFileReader {
  /** The path, or `standard input`. */
  readonly name: string
  /** Length of the file as it is stored, compressed or not; undefined for a pipe. */
  readonly totalBytes: number | undefined
  readonly #fd: number
  readonly #stream: Readable | undefined
  readonly #signal: AbortSignal | undefined
  #positionBytes = 0
  #isCompressed = false
  #isClosed = false
  #pendingRead: Promise<{ bytesRead: number }> | undefined
  #gzipFault = ''
  #isGzipCutOff = false

  constructor(
    name: string, fd: number, totalBytes: number | undefined, stream: Readable | undefined,
    signal: AbortSignal | undefined,
  ) {
    this.name = name
    this.totalBytes = totalBytes
    this.#fd = fd
    this.#stream = stream
    this.#signal = signal
  }

  /** How far the reading is, in the same bytes as {@link totalBytes}. */
  get positionBytes(): number {
    return this.#positionBytes
  }

  /** True if the bytes are compressed with gzip; known once the first of them have been read. */
  get isCompressed(): boolean {
    return this.#isCompressed
  }

  /**
   * Hands all packets of the capture to `sink`, and closes the reader.
   *
   * @param afterChunk called after each chunk's packets (up to 256 KiB): for progress, or to let others work; reading
   *   goes on when what it returns is settled
   * @throws CodedError `NF_CAPTURE_EMPTY`, `NF_CAPTURE_FORMAT`, `NF_FILE_UNREADABLE`; and whatever the sink throws
   */
  async readInto(sink: CaptureSink, afterChunk?: () => void | Promise<void>): Promise<CaptureEnding> {
    const parser = new CaptureParser(sink)
    const head = new Uint8Array(FOREIGN_HEAD_LENGTH)
    let headLength = 0
    try {
      for await (const chunk of this.chunks()) {
        if (headLength < head.length) {
          const part = chunk.subarray(0, head.length - headLength)
          head.set(part, headLength)
          headLength += part.length
        }
        parser.push(chunk)
        if (parser.state === 'foreign' && headLength === head.length) break
        if (parser.state === 'damaged') break
        await afterChunk?.()
      }
    } finally {
      await this.close()
    }
    const format = parser.format
    if (this.#signal?.aborted) return { state: 'aborted', reason: 'the reading was stopped', format }
    parser.end()
    if (format === undefined) throw this.#notACapture(parser, head.subarray(0, headLength))
    const where = this.#isCompressed ? ' of the decompressed capture' : ''
    if (parser.state === 'damaged') {
      return { state: 'damaged', reason: `${parser.reason}, at byte ${parser.faultPosition}${where}`, format }
    }
    if (this.#gzipFault !== '') {
      return { state: this.#isGzipCutOff ? 'truncated' : 'damaged', reason: this.#gzipFault, format }
    }
    if (parser.state === 'truncated') {
      return { state: 'truncated', reason: `${parser.reason}, at byte ${parser.faultPosition}${where}`, format }
    }
    return { state: 'complete', reason: '', format }
  }

  /**
   * The decompressed bytes, in chunks of up to 256 KiB. A chunk is valid until the next one is asked for. Ends early
   * when the signal says so, and where compressed data break off or are damaged.
   *
   * @throws CodedError `NF_FILE_UNREADABLE`
   */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    const stored = this.#stored()
    try {
      // The first two bytes may come one by one.
      let start: Uint8Array = new Uint8Array(0)
      while (start.length < 2) {
        const { value, done } = await stored.next()
        if (done) break
        start = start.length === 0 ? value : Buffer.concat([start, value])
      }
      if (start.length === 0) return
      this.#isCompressed = start[0] === 0x1f && start[1] === 0x8b
      if (this.#isCompressed) {
        yield* this.#decompressed(start, stored)
      } else {
        yield start
        yield* stored
      }
    } finally {
      await stored.return()
    }
  }

  /** Gives the file back; may be called more than once, and in the middle. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#stream !== undefined) {
      this.#stream.destroy()
      return
    }
    await this.#pendingRead?.catch(() => undefined)
    if (this.#fd !== STDIN_FD) await closeFd(this.#fd)
  }

  /** The bytes as they are stored. */
  async *#stored(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* this.#stream === undefined ? this.#fromFile() : this.#fromStream(this.#stream)
    } catch (error) {
      if (!this.#signal?.aborted) throw unreadable(this.name, error)
    }
  }

  async *#fromFile(): AsyncGenerator<Uint8Array, void, undefined> {
    let buffer = new Uint8Array(CHUNK_LENGTH)
    let nextBuffer = new Uint8Array(CHUNK_LENGTH)
    this.#pendingRead = readFd(this.#fd, buffer, 0, CHUNK_LENGTH, null)
    while (!this.#signal?.aborted && !this.#isClosed) {
      const { bytesRead } = await this.#pendingRead
      if (bytesRead === 0) return
      this.#pendingRead = readFd(this.#fd, nextBuffer, 0, CHUNK_LENGTH, null)
      this.#pendingRead.catch(() => undefined) // it is awaited later, if at all
      this.#positionBytes += bytesRead
      yield buffer.subarray(0, bytesRead)
      const filled = nextBuffer
      nextBuffer = buffer
      buffer = filled
    }
  }

  async *#fromStream(stream: Readable): AsyncGenerator<Uint8Array, void, undefined> {
    const stop = (): void => void stream.destroy()
    this.#signal?.addEventListener('abort', stop)
    try {
      if (this.#signal?.aborted) return
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        this.#positionBytes += chunk.length
        yield chunk
      }
    } finally {
      this.#signal?.removeEventListener('abort', stop)
    }
  }

  async *#decompressed(
    start: Uint8Array, stored: AsyncGenerator<Uint8Array, void, undefined>,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const gunzip = createGunzip({ chunkSize: CHUNK_LENGTH })
    let failure: NodeJS.ErrnoException | undefined
    let isIdle = true
    let wake = (): void => undefined
    const taken = (): void => {
      isIdle = true
      wake()
    }
    gunzip.on('error', error => {
      failure = error
      wake()
    })
    gunzip.on('readable', () => wake())
    gunzip.on('end', taken)
    /** What zlib has ready, until it has used up its input. */
    async function* ready(): AsyncGenerator<Uint8Array, void, undefined> {
      for (;;) {
        const chunk = gunzip.read() as Buffer | null
        if (chunk !== null) yield chunk
        else if (isIdle || failure !== undefined) return
        else await new Promise<void>(resolve => { wake = resolve })
      }
    }
    try {
      let fed = 0
      for (let input: Uint8Array | undefined = start; input !== undefined;) {
        for (let at = 0; at < input.length && failure === undefined;) {
          const length = Math.max(GZIP_PIECE_LENGTH_MIN, Math.min(GZIP_PIECE_LENGTH_MAX, fed / GZIP_PIECE_FRACTION | 0))
          const piece = input.subarray(at, at + length)
          isIdle = false
          gunzip.write(piece, taken)
          yield* ready()
          at += piece.length
          fed += piece.length
        }
        if (failure !== undefined) break
        const next = await stored.next()
        input = next.done ? undefined : next.value
      }
      if (failure === undefined && !this.#signal?.aborted) {
        isIdle = false
        gunzip.end()
        yield* ready()
      }
      if (failure !== undefined) {
        this.#isGzipCutOff = failure.code === 'Z_BUF_ERROR'
        this.#gzipFault = this.#isGzipCutOff
          ? `the compressed file is cut off after ${fed} bytes`
          : `the compressed data are damaged after about ${fed} bytes (${failure.message})`
      }
    } finally {
      gunzip.destroy()
    }
  }

  #notACapture(parser: CaptureParser, head: Uint8Array): CodedError {
    if (parser.state === 'empty') {
      if (this.#gzipFault !== '') {
        return new CodedError('NF_CAPTURE_FORMAT', `${this.name} is compressed with gzip, but ${this.#gzipFault}`,
          'Fetch or make the file again')
      }
      const once = this.#isCompressed ? ' once decompressed' : ''
      return new CodedError('NF_CAPTURE_EMPTY', `${this.name} is empty${once}`,
        'Make the capture again; tcpdump writes the file header at once, so this file was never written to')
    }
    if (parser.state === 'foreign') {
      const { looksLike, mend } = describeForeign(head)
      const inside = this.#isCompressed ? ' inside of its gzip compression' : ''
      return new CodedError('NF_CAPTURE_FORMAT',
        `${this.name} is not a pcap or pcapng capture${inside}: it looks like ${looksLike}`, mend)
    }
    return new CodedError('NF_CAPTURE_FORMAT', `${this.name} begins like a capture, but ${parser.reason}`,
      'Fetch or make the file again')
  }
}
