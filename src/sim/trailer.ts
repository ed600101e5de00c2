/**
 * Trailer: the last 16 bytes of every packet that the simulator sends, by which its checkers know it wherever it turns up, whatever a
 * network function has done to its headers.
 *
 *     magic u32 │ packet id u32 │ flow u24, side u8 (bit 7: poison) │ sequence number within the flow's side u32        big-endian
 *
 * Its Ethernet addresses are those of its flow's ends: 02, 00, flow u24, side u8. Switches are to restore them.
 */

export const TRAILER_BYTES = 16
/** ICMP errors about a flow have its number and this: they are in order among themselves only. */
export const ERROR_FLOWS = 0x800000
/** True for flows whose source port is translated, if they are UDP over IPv4. */
export const isTranslated = (flow: number): boolean => flow % 4 === 0 && flow < ERROR_FLOWS
const MAGIC = 0x4e465331

export interface Trailer {
  readonly id: number
  readonly flow: number
  /** 0: sent by the clients' side. */
  readonly side: number
  readonly sequence: number
  /** The probe dies of it. */
  readonly isPoison?: boolean
}

const POISON = 0x80

export function writeTrailer(frame: Uint8Array, { id, flow, side, sequence, isPoison = false }: Trailer): void {
  const view = new DataView(frame.buffer, frame.byteOffset + frame.length - TRAILER_BYTES)
  view.setUint32(0, MAGIC)
  view.setUint32(4, id)
  view.setUint32(8, flow << 8 | side | (isPoison ? POISON : 0))
  view.setUint32(12, sequence)
  const ends = flow % ERROR_FLOWS
  frame.set([0x02, 0, ends >> 16, ends >> 8, ends, 1 - side, 0x02, 0, ends >> 16, ends >> 8, ends, side])
}

/** True for a packet with the Ethernet addresses that it came with. */
export function hasOwnAddresses(bytes: Uint8Array, flow: number, side: number): boolean {
  const ends = flow % ERROR_FLOWS
  const high = 0x0200 << 16 | ends >> 8
  const low = (ends & 255) << 8
  return be32(bytes, 0) === high && (bytes[4] << 8 | bytes[5]) === (low | 1 - side) && be32(bytes, 6) === high &&
    (bytes[10] << 8 | bytes[11]) === (low | side)
}

const be32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0

/** True for frames that are packets of the simulator. */
export function hasTrailer(bytes: Uint8Array, end: number = bytes.length): boolean {
  return end >= TRAILER_BYTES && be32(bytes, end - 16) === MAGIC
}

/** Number parts of a trailer that ends at `end`, without making an object. */
export const trailerId = (bytes: Uint8Array, end: number): number => be32(bytes, end - 12)
export const trailerFlow = (bytes: Uint8Array, end: number): number => be32(bytes, end - 8) >>> 8
export const trailerSide = (bytes: Uint8Array, end: number): number => (bytes[end - 5] as number) & ~POISON
export const isPoison = (bytes: Uint8Array, end: number): boolean => ((bytes[end - 5] as number) & POISON) !== 0
export const trailerSequence = (bytes: Uint8Array, end: number): number => be32(bytes, end - 4)
