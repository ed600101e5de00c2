/**
 * Checksum of our own frames: a hash over whole words in two lanes. Every step is a bijection of the running value, so one
 * changed word always shows; more of them do but for one in 2^32. Against memory and drivers gone wrong, not against forgers.
 */

const M1 = 0x9e3779b1 | 0
const M2 = 0x85ebca6b | 0

/** Over `bytes` bytes (a multiple of 8) at `at` (of 4). Hot. */
export function checksum(i32: Int32Array, at: number, bytes: number, seed: number): number {
  let a = seed
  let b = bytes
  const end = (at + bytes) >> 2
  for (let word = at >> 2; word < end; word += 2) {
    a = Math.imul(a ^ i32[word], M1)
    a = (a << 15) | (a >>> 17)
    b = Math.imul(b ^ i32[word + 1], M2)
    b = (b << 13) | (b >>> 19)
  }
  return mixed(a, b)
}

/** The same while it copies: one pass over the words instead of two. */
export function copyWithChecksum(i32: Int32Array, to: number, from: number, bytes: number, seed: number): number {
  let a = seed
  let b = bytes
  let target = to >> 2
  const end = (from + bytes) >> 2
  for (let word = from >> 2; word < end; word += 2) {
    const first = i32[word]
    const second = i32[word + 1]
    i32[target] = first
    i32[target + 1] = second
    target += 2
    a = Math.imul(a ^ first, M1)
    a = (a << 15) | (a >>> 17)
    b = Math.imul(b ^ second, M2)
    b = (b << 13) | (b >>> 19)
  }
  return mixed(a, b)
}

function mixed(a: number, b: number): number {
  const hash = Math.imul(a ^ (b << 16 | b >>> 16), M1)
  return hash ^ (hash >>> 15)
}
