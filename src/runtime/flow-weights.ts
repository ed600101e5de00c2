/**
 * Flow weights: which flows have had most of a runtime's packets lately, as samples of those packets tell; and which flows go when a share of
 * the load is to go. Traffic is a few flows that send most of it and many that send little: half of the flows may be all of the load, or next
 * to nothing. A few hundred samples tell them apart (Mori et al., "Identifying elephant flows through periodically sampled packets", 2004).
 *
 *     packets  ─▶ every 4th to so many-th ─▶ ring of 512 samples ─▶ flows that have a 32nd of them: heavy
 *     share 50%:  heavy flows of 48, 47, 2% ─▶ the first one goes, the second stays, and of the light ones so many as weigh the last 2%
 */

import type { TimeUs } from '../base/clock.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { flowOf, type RuntimeContext } from './runtime-context.ts'

/** A power of two. */
const SAMPLES = 512
/** Older samples say nothing of now, µs. */
const HORIZON_US = 1_000_000
/** Fewer samples say nothing at all. */
const SAMPLES_MIN = 64
/** A flow that has so much of the samples, and so many, is heavy. */
const HEAVY = 1 / 32
const HEAVY_SAMPLES = 8
/** Packets from one sample to the next, on average: twice as many where the ring tells of less time than this, half as many after such a gap. */
const STRIDE_MIN = 4
const STRIDE_MAX = 1 << 16
const LAP_US = HORIZON_US / 4
const GAP_US = HORIZON_US / 128
/** A flow goes if it weighs at most so many times what is yet to go: the loads are nearer to each other then than before. */
const FITS = 1.25
/** Light flows go in so many times the number that flows of mean weight would be, at most. */
const LIGHT_MAX = 2
/** A rounding error is no flow. */
const ROUNDING = 1e-6

export interface HeavyFlow {
  readonly flow: number
  /** Offset of its record when it was sampled last. */
  readonly record: number
  /** Of all packets. */
  readonly share: number
}

export class FlowWeights {
  readonly #flows = new Float64Array(SAMPLES)
  readonly #records = new Float64Array(SAMPLES)
  readonly #times = new Float64Array(SAMPLES).fill(-Infinity)
  #hand = 0
  #stride = STRIDE_MIN
  /** Packets until the next sample. */
  #left = STRIDE_MIN
  #lap: TimeUs = 0
  #random = 1

  /** Looks at a batch of so many packets that has been run. */
  look(context: RuntimeContext, count: number): void {
    const { arena, engine, now } = context
    for (let index = this.begin(count); index < count;) {
      const record = arena.i32[engine.descriptor(index) + Descriptor.record]
      index = this.take(index, count, record, record === 0 ? 0 : flowOf(context, record), now)
    }
  }

  /**
   * A batch of so many packets has come: the index of the first one that is to be shown to `take`, `count` or more if there is none.
   * PERF: most batches have none, and there is nothing else per batch.
   */
  begin(count: number): number {
    const index = this.#left
    if (index >= count) this.#left = index - count
    return index
  }

  /** A sample of that batch, of flow 0 if the packet was of none. Returns the index of the next one. */
  take(index: number, count: number, record: number, flow: number, now: TimeUs): number {
    const hand = this.#hand
    const last = this.#times[(hand - 1) & (SAMPLES - 1)]
    if (now - last > GAP_US) this.#stride = Math.max(STRIDE_MIN, this.#stride / 2)
    this.#flows[hand] = flow
    this.#records[hand] = record
    this.#times[hand] = now
    this.#hand = (hand + 1) & (SAMPLES - 1)
    if (this.#hand === 0) this.#turnOver(now)
    const next = index + this.#step()
    if (next >= count) this.#left = next - count
    return next
  }

  /** Random, so that what comes in a rhythm is not met always or never; about the stride on average. */
  #step(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0
    return 1 + Math.floor(this.#random / 2 ** 32 * (2 * this.#stride - 1))
  }

  #turnOver(now: TimeUs): void {
    if (now - this.#lap < LAP_US) this.#stride = Math.min(STRIDE_MAX, this.#stride * 2)
    this.#lap = now
  }

  /** The heavy flows of the last second, heaviest first; none where too little has come to tell. */
  heavy(now: TimeUs): HeavyFlow[] {
    const counts = new Map<number, { record: number; count: number }>()
    let all = 0
    for (let i = 0; i < SAMPLES; i++) {
      // The latest first: a flow's record is where it was then.
      const at = (this.#hand - 1 - i) & (SAMPLES - 1)
      if (now - this.#times[at] > HORIZON_US) continue
      all++
      const flow = this.#flows[at]
      const found = counts.get(flow)
      if (found === undefined) counts.set(flow, { record: this.#records[at], count: 1 })
      else found.count++
    }
    if (all < SAMPLES_MIN) return []
    const least = Math.max(HEAVY_SAMPLES, HEAVY * all)
    return [...counts].filter(([flow, { count }]) => flow !== 0 && count >= least)
      .map(([flow, { record, count }]) => ({ flow, record, share: count / all }))
      .sort((a, b) => b.share - a.share || a.flow - b.flow)
  }
}

/** Which flows go. */
export interface FlowChoice {
  readonly heavy: readonly HeavyFlow[]
  /** Heavy ones that stay. */
  readonly spared: ReadonlySet<number>
  /** So many light ones. */
  readonly light: number
}

/**
 * Which flows make up a share of the load. A flow that is too heavy stays: there it would be as much too much as it is here, and who leaves
 * is who stands behind it in the queue.
 *
 * @param number how many flows of mean weight would be that share
 * @param flows how many there are
 */
export function chooseFlows(share: number, number: number, flows: number, heavy: readonly HeavyFlow[]): FlowChoice {
  if (heavy.length === 0) return { heavy: [], spared: new Set(), light: number }
  const chosen: HeavyFlow[] = []
  const spared = new Set<number>()
  let open = share
  let rest = 1
  for (const one of heavy) {
    rest -= one.share
    if (one.share <= open * FITS) {
      chosen.push(one)
      open = Math.max(0, open - one.share)
    } else spared.add(one.flow)
  }
  const light = Math.max(0, flows - heavy.length)
  // Where those weigh nothing that could be seen, what is open is any number of them.
  const wanted = Math.max(0, Math.ceil(Math.min(1, open / Math.max(rest, Number.EPSILON)) * light - ROUNDING))
  return { heavy: chosen, spared, light: Math.min(wanted, LIGHT_MAX * number) }
}
