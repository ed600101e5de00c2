/**
 * Traffic tag: the 16 bytes by which the sink knows a packet of the generator, whatever a network function has done to its headers.
 * It lies at the start of the payload; a TCP segment without payload has it in its first option, an experimental one (RFC 6994).
 * Little-endian:
 *
 *      0  magic u16    2  check u16    4  flow number u32    8  sequence number within the flow's side, 31 bits; bit 31: side
 *     12  time u32, quarters of a microsecond since the Unix epoch, modulo 2^32 (18 minutes)
 *
 * Magic and check depend on the seed, so that packets of another generator are foreign. Behind the tag comes the pattern: a
 * stretch of a random table; where it begins follows from flow and sequence number, so every packet has its own. The table's running
 * sums give the checksum of any stretch at once.
 */

import { Random } from '../../base/random.ts'
import type { Arena } from '../../memory/arena.ts'

export const TAG_BYTES = 16
/** Kind of TCP option, its length with the tag, and the experiment's identifier, as they lie in memory: `fd 14 4e 46`. */
export const TAG_OPTION_WORD = 0x464e14fd
export const TAG_OPTION_BYTES = 20
/** Side of those who open the flows, and the other. */
export const CLIENT = 0
export const SERVER = 1

/** The first two bytes of the tags of a seed. */
export function tagMagic(seed: number): number {
  const mixed = Math.imul(seed ^ 0x4e466163, 0x9e3779b1)
  return (mixed ^ (mixed >>> 16)) & 0xffff
}

/** The check of a tag. Hot. */
export function tagCheck(seed: number, flow: number, sequence: number, time: number): number {
  const sum = Math.imul(flow ^ seed, 0x9e3779b1) ^ Math.imul(sequence, 0x85ebca6b) ^ Math.imul(time, 0xc2b2ae35)
  const mixed = Math.imul(sum ^ (sum >>> 15), 0x2c1b3c6d)
  return (mixed ^ (mixed >>> 16)) & 0xffff
}

/** Where in the table the pattern of a packet begins, a multiple of 8. Hot. */
export function patternStart(flow: number, sequence: number): number {
  const mixed = Math.imul(flow ^ Math.imul(sequence, 0x27d4eb2f), 0x9e3779b1)
  return (mixed >>> 19) & ~7
}

/** {@link patternStart} is less. */
const STARTS = 8192

export interface PatternTable {
  /** Arena offset of the table, a multiple of 8. */
  readonly base: number
  /** Sum of the 16-bit words before each word of the table, as they lie in memory (little-endian). */
  readonly sums: Float64Array
}

/** Makes the table of a seed, for patterns of up to `bytes` bytes. */
export function createPatternTable(arena: Arena, seed: number, bytes: number): PatternTable {
  const size = (STARTS + bytes + 7) & ~7
  const base = arena.allocate('traffic pattern', size)
  const random = new Random(seed ^ 0x70617474)
  random.fill(arena.u8.subarray(base, base + size))
  const sums = new Float64Array(size / 2 + 1)
  for (let word = 0; word < size / 2; word++) sums[word + 1] = sums[word] + arena.u16[(base >> 1) + word]
  return { base, sums }
}
