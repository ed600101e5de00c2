/**
 * Addresses from text: IPv4 in dotted decimal, IPv6 as in RFC 4291 §2.2. As signed 32-bit big-endian words, one for IPv4 and four for IPv6.
 * What is ambiguous is refused. `formatAddress` (memory/struct.ts) is the way back.
 */

/** One word, or `null`. Numbers with leading zeros are refused: some programs read them as octal. */
export function readIpv4(text: string): number[] | null {
  const parts = text.split('.')
  if (parts.length !== 4) return null
  let word = 0
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return null
    word = (word << 8) | Number(part)
  }
  return [word]
}

/** Four words, or `null`: groups, `::` once, an IPv4 address in place of the last two groups. */
export function readIpv6(text: string): number[] | null {
  const halves = text.split('::')
  if (halves.length > 2) return null
  const groups = halves.map((half) => half === '' ? [] : half.split(':'))
  const last = groups[groups.length - 1]
  if (last.length > 0 && last[last.length - 1].includes('.')) {
    const ipv4 = readIpv4(last.pop() as string)
    if (ipv4 === null) return null
    last.push((ipv4[0] >>> 16).toString(16), (ipv4[0] & 0xffff).toString(16))
  }
  const given = groups[0].length + (groups[1]?.length ?? 0)
  if (halves.length === 1 ? given !== 8 : given > 7) return null
  const all = [...groups[0], ...new Array<string>(8 - given).fill('0'), ...(groups[1] ?? [])]
  if (!all.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return null
  const numbers = all.map((group) => parseInt(group, 16))
  return [0, 2, 4, 6].map((at) => (numbers[at] << 16) | numbers[at + 1])
}

/** An address of either family: its words, or `null`. */
export function readAddress(text: string): number[] | null {
  return text.includes(':') ? readIpv6(text) : readIpv4(text)
}

/** Mask of the bits of word `level` (0-3) that a prefix of `length` bits fixes. */
export function prefixMask(length: number, level: number): number {
  const bits = length - level * 32
  if (bits <= 0) return 0
  return bits >= 32 ? -1 : ~(0xffffffff >>> bits)
}
