/**
 * Home switches: every flow key, and every alias key, is at home at one switch, where it is placed or granted. PROTOCOL 1. All nodes
 * compute it alike, by rendezvous hashing over the configuration's home switches, so that a change of the switches moves few keys.
 */

import { KEY_WORDS, keyVersion } from '../flow/flow-record.ts'
import type { SwitchEntry } from './cluster-config.ts'

function mix(hash: number, word: number): number {
  const h = Math.imul(hash ^ word, 0x9e3779b1)
  return h ^ (h >>> 15)
}

/** A hash of the key at a word index that is the same on every node. */
export function sharedKeyHash(words: Int32Array, key: number): number {
  let hash = mix(mix(mix(mix(mix(0x2c1b3c6d, words[key]), words[key + 1]), words[key + 2]), words[key + 3]), words[key + 7])
  if (keyVersion(words[key]) === 6) for (let i = 4; i < KEY_WORDS; i++) if (i !== 7) hash = mix(hash, words[key + i])
  return hash
}

/** Id of the switch that the key is at home at; 0 when no switch is home to any. */
export function homeSwitchOf(words: Int32Array, key: number, switches: readonly SwitchEntry[]): number {
  const hash = sharedKeyHash(words, key)
  let best = 0
  let bestScore = -1
  for (const { id, isHome } of switches) {
    if (!isHome) continue
    const score = mix(mix(hash, id), 0x297a2d39) >>> 0
    if (score > bestScore) {
      best = id
      bestScore = score
    }
  }
  return best
}
