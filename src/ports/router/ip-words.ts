/**
 * Addresses in frames, as the router compares them: 32-bit words, one or four, with a version that tells an IPv4 address from an IPv6 one.
 * The bytes may lie anywhere.
 */

/** The big-endian word at a byte. */
export function wordAt(u8: Uint8Array, at: number): number {
  return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3]
}

export function writeWord(u8: Uint8Array, at: number, word: number): void {
  u8[at] = word >>> 24
  u8[at + 1] = word >>> 16
  u8[at + 2] = word >>> 8
  u8[at + 3] = word
}

/** An address that is not in a frame. */
export interface IpAddress {
  readonly version: 4 | 6
  /** One word or four. */
  readonly words: readonly number[]
}

/** Writes an address of 4 or 16 bytes. */
export function writeAddress(u8: Uint8Array, at: number, { words }: IpAddress): void {
  for (let i = 0; i < words.length; i++) writeWord(u8, at + i * 4, words[i])
}

/** The address of 4 or 16 bytes at a place. */
export function addressAt(u8: Uint8Array, at: number, version: 4 | 6): IpAddress {
  return { version, words: Array.from({ length: version === 4 ? 1 : 4 }, (_, i) => wordAt(u8, at + i * 4)) }
}

export function isSameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.version === b.version && a.words.every((word, i) => word === b.words[i])
}
