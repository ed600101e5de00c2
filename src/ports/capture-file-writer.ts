/**
 * Captures into files: the name says the format, `.pcap` or `.pcapng`, and a further `.gz` compresses.
 *
 *     packets -> PcapWriter | PcapngWriter -> blocks of whole records -> [gzip] -> file
 *
 * Writing is synchronous, a block of 256 KiB at a time, so there is no queue that could grow. In a compressed file
 * every block is a gzip member of its own (RFC 1952 §2.2). Blocks end at a record's end, and a block that could not be
 * written whole is cut off again: whatever happens, the file is a valid capture of the packets up to some point.
 */

import { closeSync, fstatSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { CodedError } from '../base/coded-error.ts'
import type { CaptureFormat } from '../wire/capture-decoder.ts'
import type { CaptureSink } from '../wire/capture-sink.ts'
import { PcapWriter } from '../wire/pcap.ts'
import { PcapngWriter, type PacketNotes } from '../wire/pcapng.ts'

/** What may be said about a {@link CaptureFileWriter}. */
export interface CaptureFileWriterOptions {
  /** The format, if the name does not or should not decide it. */
  readonly format?: CaptureFormat
  /** Files that are being read meanwhile, which must not be written over. */
  readonly inputs?: readonly string[]
  /** An open file to write to, in the place of the one of that name: standard output. */
  readonly fd?: number
}

/**
 * Writes a capture file, which is created or emptied by the constructor.
 *
 * @throws CodedError `NF_USAGE` (the name does not say the format), `NF_FILE_UNWRITABLE`; from {@link packet} also
 *   `NF_CAPTURE_LINK_TYPE` (a pcap file holds one link type). After a throw the file is closed, and holds everything
 *   up to its last whole block; further packets are ignored.
 */
export class CaptureFileWriter implements CaptureSink {
  readonly path: string
  readonly format: CaptureFormat
  readonly isCompressed: boolean
  readonly #writer: PcapWriter | PcapngWriter
  readonly #isRegular: boolean
  #fd: number
  #packetCount = 0
  #lengthBytes = 0

  constructor(path: string, options: CaptureFileWriterOptions = {}) {
    this.path = path
    this.isCompressed = /\.gz$/i.test(path)
    this.format = options.format ?? formatOf(path)
    refuseInputs(path, options.inputs ?? [])
    try {
      this.#fd = options.fd ?? openSync(path, 'w')
    } catch (error) {
      throw unwritable(path, error)
    }
    this.#isRegular = fstatSync(this.#fd).isFile()
    const output = { write: (bytes: Uint8Array, length: number) => this.#write(bytes.subarray(0, length)) }
    this.#writer = this.format === 'pcap' ? new PcapWriter(output) : new PcapngWriter(output)
  }

  /** Packets taken so far. */
  get packetCount(): number {
    return this.#packetCount
  }

  /** Bytes in the file so far, those still in the buffer not among them. */
  get lengthBytes(): number {
    return this.#lengthBytes
  }

  /** @param name of the interface, in pcapng */
  interfaceAdded(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean, name = ''): void {
    this.#writer.interfaceAdded(index, linkType, snapLength, nanosecondResolution, name)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number, notes?: PacketNotes,
  ): void {
    if (this.#fd < 0) return
    try {
      this.#writer.packet(bytes, offset, capturedLength, originalLength, seconds, nanoseconds, interfaceIndex, notes)
    } catch (error) {
      this.close()
      throw error
    }
    this.#packetCount++
  }

  /** Writes out what is buffered, so that others can read it. */
  flush(): void {
    if (this.#fd < 0) return
    try {
      this.#writer.flush()
    } catch (error) {
      this.#release()
      throw error
    }
  }

  /** Writes out what is buffered and closes the file; may be called more than once. */
  close(): void {
    this.flush()
    this.#release()
  }

  #release(): void {
    if (this.#fd < 0) return
    const fd = this.#fd
    this.#fd = -1
    try {
      closeSync(fd)
    } catch (error) {
      throw unwritable(this.path, error) // network file systems report a full disk only here
    }
  }

  #write(block: Uint8Array): void {
    const bytes = this.isCompressed ? gzipSync(block) : block
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at, bytes.length - at)
    } catch (error) {
      this.#cutOff()
      throw unwritable(this.path, error)
    }
    this.#lengthBytes += bytes.length
  }

  /** Takes a half-written block away. */
  #cutOff(): void {
    if (!this.#isRegular) return
    try {
      ftruncateSync(this.#fd, this.#lengthBytes)
    } catch {
      // The error that led here is the one to report.
    }
  }
}

function formatOf(path: string): CaptureFormat {
  const extension = /\.(pcap|pcapng)(\.gz)?$/i.exec(path)?.[1]
  if (extension === undefined) {
    throw new CodedError('NF_USAGE', `${path} does not say in which format to write the capture`,
      'End the name in .pcap, .pcapng, .pcap.gz or .pcapng.gz')
  }
  return extension.toLowerCase() === 'pcap' ? 'pcap' : 'pcapng'
}

function refuseInputs(path: string, inputs: readonly string[]): void {
  const target = statRegular(path)
  if (target === undefined) return
  for (const input of inputs) {
    const source = statRegular(input)
    if (source !== undefined && source.dev === target.dev && source.ino === target.ino) {
      throw new CodedError('NF_FILE_UNWRITABLE', `${path} is the file that is being read`, 'Write to another file')
    }
  }
}

/** Undefined for what cannot be looked at: opening it will say why. */
function statRegular(path: string): Stats | undefined {
  try {
    const stats = statSync(path)
    return stats.isFile() ? stats : undefined
  } catch {
    return undefined
  }
}

function unwritable(path: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { code } = error as NodeJS.ErrnoException
  const [what, mend] = reasons.get(code ?? '') ?? [error.message, '']
  return new CodedError('NF_FILE_UNWRITABLE', `${path} cannot be written: ${what}`, mend, { cause: error })
}

const reasons = new Map<string, readonly [string, string]>([
  ['ENOENT', ['its folder does not exist', 'Create the folder first']],
  ['ENOTDIR', ['what should be its folder is a file', 'Check the path']],
  ['EISDIR', ['it is a directory', 'Add a file name']],
  ['EACCES', ['permission denied', 'Write to a folder of your own']],
  ['EPERM', ['permission denied', 'Write to a folder of your own']],
  ['EROFS', ['the file system is read-only', 'Write to another one']],
  ['ENOSPC', ['the disk is full', 'Make room, or write to another disk; what was written up to here is intact']],
  ['EDQUOT', ['the quota is used up', 'Make room; what was written up to here is intact']],
  ['EFBIG', ['the file has become too large', 'What was written up to here is intact']],
  ['EPIPE', ['the program that was reading it is gone', '']],
])
