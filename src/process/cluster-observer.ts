/**
 * Cluster observer: turns what the leading controller sees into events for people, by comparing each view with the one before.
 */

import type { ClusterView, RuntimeView, SwitchView } from '../controller/cluster-view.ts'
import { isHeld } from '../controller/scaling.ts'
import { isReachable } from '../controller/cluster-view.ts'
import type { Report } from '../controller/node-commands.ts'
import { pauseText, type Pause } from './pause-watch.ts'

export type TellEvent = (event: string, text: string, fields?: Readonly<Record<string, unknown>>) => void

interface Seen {
  isReady: boolean
  isSilent: boolean
  isDraining: boolean
  isDrained: boolean
  fencedAt: number
  /** When it was last told that it has stood still, and the longest standstill since that is not told. */
  pauseToldAt: number
  pause: Pause
}

/** A node that stands still for so long is told of, µs; again after so many milliseconds. */
const STANDSTILL_US = 250_000
const STANDSTILL_AGAIN_MS = 10_000
const NO_PAUSE: Pause = { us: 0, coreWaitUs: 0 }
/** With more lives than this, those are forgotten that the view does not name any more. */
const SEEN_MAX = 1024

export class ClusterObserver {
  readonly #tell: TellEvent
  readonly #nameOf: (id: number) => string
  readonly #bootMsOf: (id: number, incarnation: number) => number
  /** By incarnation. */
  readonly #seen = new Map<number, Seen>()
  /** Undefined before the first view of a term: what is so then is no news. */
  #scale: { readonly decision: number, readonly desired: number } | undefined
  #rollout = ''
  #hasBegun = false

  constructor(tell: TellEvent, nameOf: (id: number) => string, bootMsOf: (id: number, incarnation: number) => number) {
    this.#tell = tell
    this.#nameOf = nameOf
    this.#bootMsOf = bootMsOf
  }

  /** A new leader: what it finds is no news, but from then on. */
  begin(): void {
    this.#hasBegun = false
  }

  /** How many lives it remembers. */
  get lives(): number {
    return this.#seen.size
  }

  observe(view: ClusterView): void {
    const { fences, scale, rollout, switches, runtimes } = view
    if (this.#seen.size > SEEN_MAX) this.#forgetBut([...fences, ...switches, ...runtimes])
    for (const one of [...switches, ...runtimes]) if (one.incarnation !== 0) this.#node(view, one)
    for (const { node, incarnation, reason, isRecovered } of fences) {
      const seen = this.#lifeOf(incarnation)
      const name = this.#nameOf(node)
      if (seen.fencedAt === 0) {
        seen.fencedAt = isRecovered && !this.#hasBegun ? -1 : performance.now()
        if (this.#hasBegun) {
          if (reason === 'drained') this.#tell('node-removed', `${name} has left the cluster`, { node: name, incarnation })
          else this.#tell('node-fenced', `${name} (incarnation ${incarnation}) is fenced: ${reason}`, { node: name, incarnation, reason })
        }
        if (isRecovered) seen.fencedAt = -1
      } else if (isRecovered && seen.fencedAt > 0) {
        const ms = Math.round(performance.now() - seen.fencedAt)
        seen.fencedAt = -1
        this.#tell('recovered', `what ${name} (incarnation ${incarnation}) had is recovered, ${ms} ms after it was fenced`,
          { node: name, incarnation, ms })
      }
    }
    if (this.#scale !== undefined && this.#scale.desired !== scale.desired) {
      const { desired: before } = this.#scale
      this.#tell('scaled', `${scale.desired} runtimes are wanted, ${before} before`, { desired: scale.desired, before })
    }
    this.#scale = scale
    const stage = rollout === undefined ? '' : `${rollout.number} ${rollout.phase} ${rollout.stage}`
    if (rollout !== undefined && stage !== this.#rollout && this.#hasBegun) {
      const { to, phase, stage: batches, reason } = rollout
      this.#tell('update', `update to version ${to}: ${phase}${phase === 'rolling' ? `, ${batches} batches of flows have proved well` : ''}` +
        `${reason === '' ? '' : `: ${reason}`}`, { to, phase, stage: batches, reason })
    }
    this.#rollout = stage
    this.#hasBegun = true
  }

  /** What a node says of itself. One that is not ready yet may take its time. */
  reported({ node, incarnation, pausedUs, coreWaitUs = 0 }: Report): void {
    const seen = this.#seen.get(incarnation)
    if (seen?.isReady !== true) return
    if (pausedUs > seen.pause.us) seen.pause = { us: pausedUs, coreWaitUs }
    const { pause } = seen
    if (pause.us < STANDSTILL_US || performance.now() - seen.pauseToldAt < STANDSTILL_AGAIN_MS) return
    seen.pauseToldAt = performance.now()
    seen.pause = NO_PAUSE
    const name = this.#nameOf(node)
    this.#tell('node-stood-still', `${name} has stood still for ${pauseText(pause)}`,
      { node: name, incarnation, ms: Math.round(pause.us / 1000), coreWaitMs: Math.round(pause.coreWaitUs / 1000) })
  }

  #forgetBut(named: readonly { readonly incarnation: number }[]): void {
    const lives = new Set(named.map(({ incarnation }) => incarnation))
    for (const life of this.#seen.keys()) if (!lives.has(life)) this.#seen.delete(life)
  }

  #lifeOf(incarnation: number): Seen {
    let seen = this.#seen.get(incarnation)
    if (seen !== undefined) return seen
    seen = { isReady: false, isSilent: false, isDraining: false, isDrained: false, fencedAt: 0, pauseToldAt: -Infinity, pause: NO_PAUSE }
    this.#seen.set(incarnation, seen)
    return seen
  }

  #node(view: ClusterView, one: SwitchView | RuntimeView): void {
    const { id, incarnation, report } = one
    const seen = this.#lifeOf(incarnation)
    const node = this.#nameOf(id)
    const isReady = report !== null && report.configVersion > 0 && (report.kind === 'switch' || report.isReady)
    if (isReady && !seen.isReady) {
      seen.isReady = true
      const ms = this.#bootMsOf(id, incarnation)
      if (this.#hasBegun) this.#tell('node-ready', `${node} is ready after ${ms} ms`, { node, incarnation, ms })
    }
    const isSilent = seen.isReady && !isReachable(one)
    if (isSilent !== seen.isSilent) {
      seen.isSilent = isSilent
      if (isSilent) this.#tell('node-silent', `${node} does not answer: ${one.health}`, { node, incarnation, health: one.health })
      else this.#tell('node-answers', `${node} answers again`, { node, incarnation })
    }
    if (!('chain' in one)) return
    if (one.isDraining !== seen.isDraining) {
      seen.isDraining = one.isDraining
      seen.isDrained = false
      if (one.isDraining) this.#tell('draining', `${node} is to become empty`, { node, incarnation })
      else this.#tell('drain-ended', `${node} gets flows again`, { node, incarnation })
    }
    if (one.isDraining && !seen.isDrained && report?.kind === 'runtime' && report.isEmpty && isHeld(view, one)) {
      seen.isDrained = true
      this.#tell('drained', `${node} is empty`, { node, incarnation })
    }
  }
}
