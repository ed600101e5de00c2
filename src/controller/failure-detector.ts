/**
 * Failure detector: tells nodes that are well, slow, partitioned from us, and dead apart, as far as anyone can from outside.
 *
 * Kinds of evidence, in order of weight:
 *   - *ends*: whoever started a process says that it is gone. Certain, and at once.
 *   - *standstills*: whoever started it sees that it has been stopped. It may go on, but not by having less to do: a short silence is enough.
 *   - *machines*: whoever started processes there hears nothing from it either. One process that pauses does not explain that, so the
 *     allowance for pauses does not count. And what ends together is judged together: one of its nodes that is dead so takes the
 *     others with it that have been silent for half as long, for each fencing costs a round of the cluster.
 *   - *signs of life* at this observer: heartbeats (their rhythm is learnt), and the transport's word: acknowledgements and
 *     messages of any kind.
 *   - *words of other nodes*, carried by their heartbeats: when each last heard each peer, and for how long it has been owed an
 *     acknowledgement by it.
 *
 *                  heartbeats late                silent beyond jitter and pauses
 *      ┌─────────┐────────────────▶┌────────┐────────────────────────┬──▶ partitioned: another node still hears it
 *      │  well   │                 │  slow  │                        ├──▶ unknown: it is we who are cut off
 *      └─────────┘◀────────────────└────────┘                        └──▶ dead: nobody hears it, though others are heard
 *           ▲            heard again                                        │ heard again, and not fenced meanwhile
 *           └───────────────────────────────────────────────────────────────┘
 *
 * A standstill of the observer counts for nobody's silence: `tick` measures it by its own rhythm. A detector cannot tell a process
 * that stands still for longer than the allowance from a dead one, so a verdict decides nothing about who owns a flow: fencing does
 * (PROTOCOL 18), and a wrong verdict costs a recovery, never two owners.
 */

import type { TimeUs } from '../base/clock.ts'
import { ArrivalEstimator, type ArrivalLimits } from './arrival-estimator.ts'

export interface DetectorLimits extends ArrivalLimits {
  /** The observer ticks at least this often while it is not standing still, µs. */
  readonly tickUs: number
  /** Words older than this are forgotten, µs. */
  readonly wordUs: number
  /** Silence that is enough of a node whose process is known to have been stopped, µs. */
  readonly stoppedUs: number
  /** Silence that is enough of a node whose machine does not answer either, and which nobody else hears, µs. */
  readonly machineUs: number
}

/** Defaults; docs/controller.md says what each costs. */
export const defaultDetectorLimits: DetectorLimits = {
  heartbeatUs: 20_000, pauseUs: 300_000, pauseUsMax: 1_000_000, phi: 8, tickUs: 5000, wordUs: 2_000_000, stoppedUs: 100_000,
  machineUs: 200_000,
}

/** For clusters whose runtimes do not pause (no garbage on the packet path) and have processors to themselves. */
export const quickDetectorLimits: DetectorLimits = { ...defaultDetectorLimits, heartbeatUs: 5000, pauseUs: 40_000 }

/** What a node says about a peer. */
export interface PeerWord {
  readonly peer: number
  /** Time since it heard the peer last, µs. */
  readonly heardAgoUs: number
  /** For how long the oldest of its frames has waited for the peer's acknowledgement, µs; 0 if nothing is owed. */
  readonly owedUs: number
}

export type Health = 'well' | 'slow' | 'partitioned' | 'unknown' | 'dead'

export interface Judgement {
  readonly node: number
  readonly incarnation: number
  readonly health: Health
  /** Silence at this observer, µs. */
  readonly silenceUs: number
  /** Nodes that are owed an answer by it for longer than the limit. */
  readonly unheardBy: readonly number[]
}

interface Word {
  /** When the node last heard the peer, at the latest. */
  readonly heardAt: TimeUs
  readonly owedSince: TimeUs
  readonly saidAt: TimeUs
}

interface Watched {
  readonly incarnation: number
  readonly arrivals: ArrivalEstimator
  /** By observing node. */
  readonly words: Map<number, Word>
  hasEnded: boolean
  isStopped: boolean
  /** Its machine, while that does not answer. */
  silentMachine: number | undefined
}

export class FailureDetector {
  readonly #limits: DetectorLimits
  readonly #watched = new Map<number, Watched>()
  #tickAt = -1

  constructor(limits: DetectorLimits = defaultDetectorLimits) {
    this.#limits = limits
  }

  /** Watches these lives, and no others; one that is new is taken to have been heard now. */
  watch(nodes: readonly { readonly id: number; readonly incarnation: number }[], now: TimeUs): void {
    const kept = new Set<number>()
    for (const { id, incarnation } of nodes) {
      if (incarnation === 0) continue
      kept.add(id)
      if (this.#watched.get(id)?.incarnation === incarnation) continue
      this.#watched.set(id, { incarnation, arrivals: new ArrivalEstimator(this.#limits, now), words: new Map(), hasEnded: false,
        isStopped: false, silentMachine: undefined })
    }
    for (const id of this.#watched.keys()) if (!kept.has(id)) this.#watched.delete(id)
  }

  /** A heartbeat, with the node's longest standstill since the one before and its words about its peers. */
  heartbeat(node: number, incarnation: number, pausedUs: number, words: readonly PeerWord[], now: TimeUs): void {
    const watched = this.#find(node, incarnation)
    if (watched === undefined) return
    watched.isStopped = false
    watched.silentMachine = undefined
    watched.arrivals.heartbeat(now, pausedUs)
    for (const { peer, heardAgoUs, owedUs } of words) {
      this.#watched.get(peer)?.words.set(node, {
        heardAt: now - heardAgoUs, owedSince: owedUs === 0 ? Infinity : now - owedUs, saidAt: now })
    }
  }

  /** The transport has heard the node: an acknowledgement, or any message. */
  heard(node: number, incarnation: number, now: TimeUs): void {
    this.#find(node, incarnation)?.arrivals.heard(now)
  }

  /** The process is known to have ended. */
  ended(node: number, incarnation: number): void {
    const watched = this.#find(node, incarnation)
    if (watched !== undefined) watched.hasEnded = true
  }

  /** Nodes from which less is heard than is usual: whoever has started them may know why. */
  *late(now: TimeUs): Generator<{ readonly id: number; readonly incarnation: number }> {
    for (const [id, { incarnation, arrivals, hasEnded }] of this.#watched) if (!hasEnded && arrivals.isLate(now)) yield { id, incarnation }
  }

  /** What is known of a late node: whether its process has been stopped, and its machine, if that does not answer. */
  learn(node: number, incarnation: number, isStopped: boolean, silentMachine: number | undefined): void {
    const watched = this.#find(node, incarnation)
    if (watched !== undefined) Object.assign(watched, { isStopped, silentMachine })
  }

  /** To be called every `tickUs` or more often: what comes later than that was a standstill of our own. */
  tick(now: TimeUs): void {
    const { tickUs } = this.#limits
    const late = this.#tickAt < 0 ? 0 : now - this.#tickAt - tickUs
    this.#tickAt = now
    if (late < tickUs) return
    for (const { arrivals } of this.#watched.values()) arrivals.excuse(late, now)
  }

  /** True if so little is heard here that the silence is ours: of two or more nodes none, or fewer than half with the rest heard by others. */
  isCutOff(now: TimeUs): boolean {
    let heard = 0
    let heardElsewhere = 0
    let living = 0
    for (const watched of this.#watched.values()) {
      if (watched.hasEnded) continue
      living++
      if (!watched.arrivals.isSuspect(now)) heard++
      else if (this.#isHeardElsewhere(watched, now)) heardElsewhere++
    }
    return living > 1 && (heard === 0 || (heardElsewhere > 0 && heard * 2 < living && heardElsewhere === living - heard))
  }

  judge(now: TimeUs): Judgement[] {
    const isCutOff = this.isCutOff(now)
    const living = [...this.#watched.values()].filter(({ hasEnded }) => !hasEnded)
    const inTime = living.filter(({ arrivals }) => !arrivals.isLate(now)).length
    const { machineUs } = this.#limits
    const lost = isCutOff || inTime === 0 ? new Set() : new Set(living.filter((one) => this.#isGoneWith(one, now, machineUs))
      .map(({ silentMachine }) => silentMachine))
    return [...this.#watched].map(([node, watched]) => {
      const { incarnation, arrivals } = watched
      const limit = arrivals.silenceLimit
      const unheardBy: number[] = []
      for (const [observer, { owedSince, saidAt }] of watched.words) {
        if (now - saidAt <= this.#limits.wordUs && saidAt - owedSince > limit) unheardBy.push(observer)
      }
      return { node, incarnation, health: this.#health(watched, isCutOff, lost, inTime, living.length - 1, now),
        silenceUs: now - arrivals.heardAt, unheardBy }
    })
  }

  /**
   * @param lost machines of which a node is dead for their silence
   * @param inTime nodes whose heartbeats are in time
   * @param others how many there are besides this one
   */
  #health(watched: Watched, isCutOff: boolean, lost: ReadonlySet<unknown>, inTime: number, others: number, now: TimeUs): Health {
    const { arrivals, hasEnded } = watched
    const { stoppedUs, machineUs } = this.#limits
    if (hasEnded || (watched.isStopped && now - arrivals.heardAt >= stoppedUs)) return 'dead'
    if (lost.has(watched.silentMachine) && this.#isGoneWith(watched, now, machineUs / 2)) return 'dead'
    if (!arrivals.isSuspect(now)) return arrivals.isLate(now) ? 'slow' : 'well'
    if (isCutOff) return 'unknown'
    if (this.#isHeardElsewhere(watched, now)) return 'partitioned'
    // When all fall silent together, some seem to do so first. So half of the others have to be heard in time, or, later, one of them.
    const isHearing = inTime * 2 >= others || (inTime > 0 && now - arrivals.heardAt >= 2 * arrivals.silenceLimit)
    return isHearing ? 'dead' : 'unknown'
  }

  /** Of a machine that does not answer, and neither we nor anybody else have heard it for so long. */
  #isGoneWith(watched: Watched, now: TimeUs, us: TimeUs): boolean {
    const { silentMachine, arrivals } = watched
    return silentMachine !== undefined && now - arrivals.heardAt >= us && !this.#isHeardElsewhere(watched, now, us)
  }

  /** By another node that we hear, within the silence that we would allow ourselves. */
  #isHeardElsewhere({ words, arrivals }: Watched, now: TimeUs, limit = arrivals.silenceLimit): boolean {
    for (const { heardAt } of words.values()) if (now - heardAt < limit) return true
    return false
  }

  #find(node: number, incarnation: number): Watched | undefined {
    const watched = this.#watched.get(node)
    return watched?.incarnation === incarnation ? watched : undefined
  }
}
