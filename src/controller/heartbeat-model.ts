/**
 * A model of what stands between a heartbeat and its observer, for tests and for the figures of the evaluation: nodes under load
 * that stand still now and then, a network with jitter and losses, an observer that stands still itself.
 *
 *   node      ordinary delay of a loop with much to do, up to 4 ms; in bursts of 2 s up to 15 ms
 *             scavenges of 1-15 ms, about two a second; collections of 50-300 ms, about one a minute (all as configured)
 *   network   50-500 µs; 1 in 1,000 heartbeats lost; one in 5,000 late by up to 30 ms
 *   observer  stands still like a node does
 */

import type { TimeUs } from '../base/clock.ts'
import type { Random } from '../base/random.ts'
import { FailureDetector, type DetectorLimits, type Health } from './failure-detector.ts'

export interface HeartbeatModel {
  readonly nodes: number
  readonly limits: DetectorLimits
  /** The longest standstill, µs; 0: only scavenges. */
  readonly pauseUsMax: number
  /** Whether the observer stands still too. */
  readonly observerPauses: boolean
}

interface Node {
  readonly id: number
  /** Next heartbeat, if nothing comes between. */
  due: TimeUs
  lastSent: TimeUs
  pauseAt: TimeUs
  scavengeAt: TimeUs
  burstUntil: TimeUs
  pausedUs: number
  /** No heartbeat after this. */
  stopsAt: TimeUs
}

/** Heartbeats on their way, in the order of their arrival. */
interface Arrival {
  readonly at: TimeUs
  readonly node: Node
  readonly pausedUs: number
}

export class HeartbeatSimulation {
  readonly detector: FailureDetector
  readonly nodes: Node[]
  now: TimeUs = 0
  readonly #model: HeartbeatModel
  readonly #random: Random
  readonly #onTheWay: Arrival[] = []
  #observerPauseAt: TimeUs
  #observerAwake: TimeUs = 0

  constructor(model: HeartbeatModel, random: Random) {
    this.#model = model
    this.#random = random
    this.detector = new FailureDetector(model.limits)
    this.nodes = Array.from({ length: model.nodes }, (_, index) => ({
      id: index + 1, due: random.below(model.limits.heartbeatUs), lastSent: 0, pauseAt: this.#exponential(60e6),
      scavengeAt: this.#exponential(500_000), burstUntil: 0, pausedUs: 0, stopsAt: Infinity }))
    this.#observerPauseAt = this.#exponential(60e6)
    this.detector.watch(this.nodes.map(({ id }) => ({ id, incarnation: id })), 0)
  }

  #exponential(meanUs: number): number {
    return -Math.log(1 - this.#random.fraction()) * meanUs
  }

  /** Runs until `end`, and tells of every judgement of the health of a node that is not `well`. */
  run(end: TimeUs, told: (node: number, health: Health, now: TimeUs) => void): void {
    const { limits, observerPauses, pauseUsMax } = this.#model
    while (this.now < end) {
      this.now += limits.tickUs
      for (const node of this.nodes) this.#send(node)
      if (observerPauses && pauseUsMax > 0 && this.now >= this.#observerPauseAt) {
        this.#observerAwake = this.now + this.#random.between(pauseUsMax >> 2, pauseUsMax)
        this.#observerPauseAt = this.now + this.#exponential(60e6)
      }
      if (this.now < this.#observerAwake) continue
      this.detector.tick(this.now)
      this.#onTheWay.sort((a, b) => a.at - b.at)
      while (this.#onTheWay.length > 0 && (this.#onTheWay[0] as Arrival).at <= this.now) {
        const { node, pausedUs } = this.#onTheWay.shift() as Arrival
        // An observer sees what has come when it looks.
        this.detector.heartbeat(node.id, node.id, pausedUs, [], this.now)
      }
      for (const { node, health } of this.detector.judge(this.now)) if (health !== 'well') told(node, health, this.now)
    }
  }

  #send(node: Node): void {
    const random = this.#random
    const { heartbeatUs } = this.#model.limits
    while (node.due <= this.now) {
      let at = node.due
      if (at >= node.burstUntil && random.chance(heartbeatUs / 20e6)) node.burstUntil = at + 2e6
      at += random.below(at < node.burstUntil ? 15_000 : 4000)
      if (at >= node.scavengeAt) {
        const pause = random.between(1000, 15_000)
        at += pause
        node.pausedUs = Math.max(node.pausedUs, pause)
        node.scavengeAt = at + this.#exponential(500_000)
      }
      if (at >= node.pauseAt && this.#model.pauseUsMax > 0) {
        const pause = random.between(Math.min(50_000, this.#model.pauseUsMax), this.#model.pauseUsMax)
        at += pause
        node.pausedUs = Math.max(node.pausedUs, pause)
        node.pauseAt = at + this.#exponential(60e6)
      }
      node.due = Math.max(at, node.due + heartbeatUs)
      if (at > node.stopsAt) {
        node.due = Infinity
        return
      }
      const delay = random.between(50, 500) + (random.chance(1 / 5000) ? random.below(30_000) : 0)
      if (!random.chance(0.001)) this.#onTheWay.push({ at: at + delay, node, pausedUs: node.pausedUs })
      node.pausedUs = 0
    }
  }
}
