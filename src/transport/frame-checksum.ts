/**
 * Checksum of our own frames: a hash over whole words in four lanes. Every step is a bijection of the running value, so one
 * changed word always shows; more of them do but for one in 2^32. Against memory and drivers gone wrong, not against forgers.
 *
 * PERF: four lanes do not wait for each other's multiplications: 0.2 to 0.3 ns per byte (bench transport).
 */

const M1 = 0x9e3779b1 | 0
const M2 = 0x85ebca6b | 0
const M3 = 0xc2b2ae35 | 0
const M4 = 0x27d4eb2f

/** Over `bytes` bytes (a multiple of 8) at `at` (of 4). Hot. */
export function checksum(i32: Int32Array, at: number, bytes: number, seed: number): number {
  let a = seed
  let b = bytes
  let c = seed ^ M3
  let d = bytes ^ M4
  let word = at >> 2
  for (const end = word + ((bytes >> 4) << 2); word < end; word += 4) {
    a = Math.imul(a ^ i32[word], M1)
    a = (a << 15) | (a >>> 17)
    b = Math.imul(b ^ i32[word + 1], M2)
    b = (b << 13) | (b >>> 19)
    c = Math.imul(c ^ i32[word + 2], M3)
    c = (c << 15) | (c >>> 17)
    d = Math.imul(d ^ i32[word + 3], M4)
    d = (d << 13) | (d >>> 19)
  }
  if ((bytes & 8) !== 0) {
    a = Math.imul(a ^ i32[word], M1)
    b = Math.imul(b ^ i32[word + 1], M2)
  }
  const hash = Math.imul(a ^ (b << 16 | b >>> 16), M1) ^ Math.imul(c ^ (d << 16 | d >>> 16), M2)
  return hash ^ (hash >>> 15)
}
