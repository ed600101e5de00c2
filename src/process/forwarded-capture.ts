/**
 * The capture of what leaves a run. Its format follows from what it has to hold: pcap for one link type, pcapng for
 * several, and the name decides if it says `.pcapng`.
 *
 * A capture may announce another link type, or finer timestamps, when packets have been written already (pcapng does
 * not list its interfaces up front). A pcap file that cannot hold the next packet is then written again as pcapng,
 * beside itself, and replaced.
 */

import { closeSync, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs'
import { CaptureFileWriter } from '../ports/capture-file-writer.ts'
import { CaptureParser } from '../wire/capture-parser.ts'
import type { CaptureSink } from '../wire/capture-sink.ts'

const COPY_BYTES = 256 * 1024

type Interface = Parameters<NonNullable<CaptureSink['interfaceAdded']>>

/**
 * @throws CodedError what {@link CaptureFileWriter} throws
 */
export class ForwardedCapture implements CaptureSink {
  readonly #path: string
  readonly #inputs: readonly string[]
  readonly #interfaces: Interface[]
  #writer: CaptureFileWriter
  /** Link type of a pcap file's packets, -1 before the first; of no meaning for pcapng. */
  #linkType = -1

  /**
   * @param interfaces those known before the first packet; more may follow
   * @param inputs files that must not be written over
   */
  constructor(path: string, interfaces: readonly Interface[], inputs: readonly string[]) {
    this.#path = path
    this.#inputs = inputs
    this.#interfaces = [...interfaces]
    const linkTypes = new Set(interfaces.map(([, linkType]) => linkType))
    this.#writer = this.#open(path, /\.pcapng(\.gz)?$/i.test(path) || linkTypes.size > 1 ? 'pcapng' : 'pcap')
  }

  interfaceAdded(...one: Interface): void {
    const isFiner = one[3] && !this.#interfaces.some(([, , , nanosecondResolution]) => nanosecondResolution)
    if (isFiner && this.#linkType >= 0 && this.#writer.format === 'pcap') this.#becomePcapng()
    this.#interfaces.push(one)
    this.#writer.interfaceAdded(...one)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    const linkType = (this.#interfaces[interfaceIndex] as Interface)[1]
    if (linkType !== this.#linkType) {
      if (this.#linkType >= 0 && this.#writer.format === 'pcap') this.#becomePcapng()
      this.#linkType = linkType
    }
    this.#writer.packet(bytes, offset, capturedLength, originalLength, seconds, nanoseconds, interfaceIndex)
  }

  flush(): void {
    this.#writer.flush()
  }

  close(): void {
    this.#writer.close()
  }

  #open(path: string, format: 'pcap' | 'pcapng'): CaptureFileWriter {
    const writer = new CaptureFileWriter(path, { format, inputs: this.#inputs })
    for (const one of this.#interfaces) writer.interfaceAdded(...one)
    return writer
  }

  #becomePcapng(): void {
    // What is no plain file cannot be read again: then the writer says what is wrong.
    if (this.#writer.isCompressed || !statSync(this.#path).isFile()) return
    this.#writer.close()
    const copy = `${this.#path}.${process.pid}.tmp`
    try {
      const writer = this.#open(copy, 'pcapng')
      const index = this.#interfaces.findIndex(([, linkType]) => linkType === this.#linkType)
      readAgain(this.#path, {
        packet: (bytes, offset, capturedLength, originalLength, seconds, nanoseconds) =>
          writer.packet(bytes, offset, capturedLength, originalLength, seconds, nanoseconds, index),
      })
      renameSync(copy, this.#path)
      this.#writer = writer
    } catch (error) {
      rmSync(copy, { force: true })
      throw error
    }
  }
}

/** Hands the packets of a plain capture file to `sink`. */
function readAgain(path: string, sink: CaptureSink): void {
  const parser = new CaptureParser(sink)
  const fd = openSync(path, 'r')
  try {
    const buffer = new Uint8Array(COPY_BYTES)
    for (;;) {
      const length = readSync(fd, buffer)
      if (length === 0) break
      parser.push(buffer.subarray(0, length))
    }
    parser.end()
  } finally {
    closeSync(fd)
  }
}
