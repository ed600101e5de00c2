/**
 * One capture format, seen by `CaptureParser`: something that takes whole records out of a stretch of bytes and says
 * how many bytes it needs for the next one. The parser owns all buffering; a decoder keeps no byte.
 */

export type CaptureFormat = 'pcap' | 'pcapng'

export abstract class CaptureDecoder {
  abstract readonly format: CaptureFormat

  /** The file header was accepted. */
  headerAccepted = false

  /** Bytes, counted from where the last `decode` stopped, that the next one wants to see at least. */
  need = 0

  /** Inside a record of which a part was consumed (a long block that is being skipped). */
  insideRecord = false

  /** Position in the stream of the record that the last `decode` could not finish. */
  recordPosition = 0

  /** What is wrong with the capture, one line; empty as long as nothing is. */
  fault = ''

  /** Position in the stream of the first byte that is wrong. */
  faultPosition = 0

  /**
   * Hands on every whole record in `bytes[start..end)`.
   *
   * @param view over the same bytes as `bytes`
   * @param base position in the stream of `bytes[0]`
   * @returns where the first unfinished record starts (`need` is then more than what is left), or where the fault is
   */
  abstract decode(bytes: Uint8Array, view: DataView, start: number, end: number, base: number): number

  /** Records damage at a position of the stream. */
  protected fail(position: number, fault: string): void {
    this.fault = fault
    this.faultPosition = position
  }
}
