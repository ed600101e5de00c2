/**
 * Peer switches: which switches there are, with a bit for each, so that "which of them have answered" is a number. A switch keeps
 * its bit over its lives.
 */

import { assert } from '../base/assert.ts'
import { SWITCHES_MAX, type Side, type SwitchEntry } from '../messages/cluster-config.ts'

export class PeerSwitches {
  /** Bits of the switches that are up. */
  all = 0
  readonly #entries: (SwitchEntry | null)[] = new Array<SwitchEntry | null>(SWITCHES_MAX).fill(null)

  /** Version of the configuration with which each came in its present life, by slot. */
  readonly #cameWith: number[] = new Array<number>(SWITCHES_MAX).fill(0)

  /** Takes a configuration's switches. Tells which are down or gone, and which have come (back) in a new life. */
  update(entries: readonly SwitchEntry[], version: number): { gone: number[]; come: number[] } {
    assert(entries.length <= SWITCHES_MAX, 'a cluster has few switches')
    const gone: number[] = []
    const come: number[] = []
    for (const [slot, old] of this.#entries.entries()) {
      if (old === null) continue
      const entry = entries.find((one) => one.id === old.id)
      if (entry === undefined) this.#entries[slot] = null
      if (old.incarnation !== 0 && (entry === undefined || entry.incarnation === 0)) gone.push(1 << slot)
    }
    for (const entry of entries) {
      let slot = this.#entries.findIndex((old) => old?.id === entry.id)
      if (slot < 0) slot = this.#entries.indexOf(null)
      if (entry.incarnation !== 0 && this.#entries[slot]?.incarnation !== entry.incarnation) {
        come.push(entry.id)
        this.#cameWith[slot] = version
      }
      this.#entries[slot] = entry
    }
    this.all = this.#entries.reduce((mask, entry, slot) => ((entry?.incarnation ?? 0) === 0 ? mask : mask | (1 << slot)), 0)
    return { gone, come }
  }

  /** The bit of a switch; 0 for one that is not up. */
  bitOf(id: number): number {
    const slot = this.#entries.findIndex((entry) => entry?.id === id && entry.incarnation !== 0)
    return slot < 0 ? 0 : 1 << slot
  }

  /** The present life of a switch; 0 for one that is not up. */
  incarnationOf(id: number): number {
    return this.#entries.find((entry) => entry?.id === id)?.incarnation ?? 0
  }

  /** True when a switch came, in its present life, with a configuration newer than `version`. */
  isNewerThan(version: number, id: number): boolean {
    return (this.#cameWith[this.#entries.findIndex((entry) => entry?.id === id)] ?? 0) > version
  }

  /** 1 for a switch on the servers' side, 0 for others: what a packet view has as `port`. */
  isEgress(id: number): 0 | 1 {
    return this.#entries.find((entry) => entry?.id === id)?.side === 'egress' ? 1 : 0
  }

  /** Ids of the switches in a mask. */
  *idsIn(mask: number): Generator<number> {
    for (let slot = 0; slot < SWITCHES_MAX; slot++) {
      const entry = this.#entries[slot]
      if ((mask & (1 << slot)) !== 0 && entry !== null && entry !== undefined) yield entry.id
    }
  }

  /** Where packets that came from switch `from` leave to: a switch of the other side, the same one for the same hash. */
  across(from: number, hash: number): number {
    const here = this.#entries.find((entry) => entry?.id === from)
    const side: Side = here?.side === 'egress' ? 'ingress' : 'egress'
    const others = this.#entries.filter((entry) => entry?.side === side) as SwitchEntry[]
    return others.length === 0 ? from : (others[(hash >>> 0) % others.length] as SwitchEntry).id
  }
}
