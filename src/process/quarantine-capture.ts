/**
 * Quarantine capture: the packets of quarantined flows of one runtime, as a capture for whoever looks for the defect. Made with the first
 * packet, and bounded: what comes after so many is counted and dropped like the rest.
 */

import { CaptureFileWriter } from '../ports/capture-file-writer.ts'
import { LinkType } from '../wire/link-type.ts'

const PACKETS_MAX = 1000

export class QuarantineCapture {
  readonly #path: string
  #writer: CaptureFileWriter | undefined
  #packets = 0

  /** @param path ends in .pcap */
  constructor(path: string) {
    this.#path = path
  }

  /** @param timeUs since the Unix epoch */
  add(frame: Uint8Array, timeUs: number): void {
    if (this.#packets >= PACKETS_MAX) return
    this.#packets++
    try {
      if (this.#writer === undefined) {
        this.#writer = new CaptureFileWriter(this.#path)
        this.#writer.interfaceAdded(0, LinkType.Ethernet, 0, false)
      }
      const seconds = Math.floor(timeUs / 1e6)
      this.#writer.packet(frame, 0, frame.length, frame.length, seconds, Math.floor(timeUs - seconds * 1e6) * 1000, 0)
      this.#writer.flush()
    } catch {
      // A disk that is full keeps no capture.
      this.#packets = PACKETS_MAX
    }
  }
}
