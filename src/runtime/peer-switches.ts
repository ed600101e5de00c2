/**
 * Peer switches: which switches there are, with a bit for each, so that "which of them have answered" is a number. A switch keeps
 * its bit over its lives.
 *
 * PERF: asked several times for each message of a move, and for each batch: everything is looked up by id or mask.
 */

import { assert } from '../base/assert.ts'
import { NODE_ID_MAX, SWITCHES_MAX, type Side, type SwitchEntry } from '../messages/cluster-config.ts'

export class PeerSwitches {
  /** Bits of the switches that are up. */
  all = 0
  readonly #entries: (SwitchEntry | null)[] = new Array<SwitchEntry | null>(SWITCHES_MAX).fill(null)

  /** Version of the configuration with which each came in its present life, by slot. */
  readonly #cameWith: number[] = new Array<number>(SWITCHES_MAX).fill(0)
  /** By id: the bit of a switch that is up, and 1 for one on the servers' side, up or not. */
  readonly #bits = new Int32Array(NODE_ID_MAX + 1)
  readonly #egress = new Uint8Array(NODE_ID_MAX + 1)
  /** By mask: the ids in it, as far as somebody has asked. */
  #ids: (readonly number[] | undefined)[] = []

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
    this.all = 0
    this.#ids = []
    this.#bits.fill(0)
    this.#egress.fill(0)
    for (const [slot, entry] of this.#entries.entries()) {
      if (entry === null) continue
      if (entry.side === 'egress') this.#egress[entry.id] = 1
      if (entry.incarnation !== 0) this.all |= this.#bits[entry.id] = 1 << slot
    }
    return { gone, come }
  }

  /** The bit of a switch; 0 for one that is not up. */
  bitOf(id: number): number {
    return this.#bits[id] ?? 0
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
    return this.#egress[id] === 1 ? 1 : 0
  }

  /** Ids of the switches in a mask. */
  idsIn(mask: number): readonly number[] {
    return this.#ids[mask] ??= this.#entries.flatMap((entry, slot) => (entry !== null && (mask & (1 << slot)) !== 0 ? [entry.id] : []))
  }

  /** Where packets that came from switch `from` leave to: a switch of the other side, the same one for the same hash. */
  across(from: number, hash: number): number {
    const side: Side = this.isEgress(from) === 1 ? 'ingress' : 'egress'
    const others = this.#entries.filter((entry) => entry?.side === side) as SwitchEntry[]
    return others.length === 0 ? from : (others[(hash >>> 0) % others.length] as SwitchEntry).id
  }
}
