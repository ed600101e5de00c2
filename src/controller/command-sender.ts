/**
 * Command sender: brings every node to where the store says that it should be. It compares what nodes report with the view, sends what is
 * missing, and again every so often until a report shows it. Nothing has to be remembered for it: a new leader sends everything once.
 */

import type { TimeUs } from '../base/clock.ts'
import { isReachable, type ClusterView } from './cluster-view.ts'
import type { FenceDocument } from './cluster-state.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import { recoveryState } from './fencing.ts'
import type { MoveOrder } from './flow-moves.ts'
import type { FencedLife, NodeCommand, NodeLinks } from './node-commands.ts'
import { blocksOf } from './port-blocks.ts'

interface Sent {
  readonly what: string
  readonly at: TimeUs
}

/** Sent again after so long, µs. */
const AGAIN_US = 200_000

export class CommandSender {
  readonly #links: NodeLinks
  /** By incarnation, and by kind of command. */
  readonly #sent = new Map<number, Map<string, Sent>>()

  constructor(links: NodeLinks) {
    this.#links = links
  }

  /** Lives of which it is known what they were sent. */
  get size(): number {
    return this.#sent.size
  }

  /** At the beginning of a term: everything is to be sent anew. */
  reset(): void {
    this.#sent.clear()
  }

  /** @param lost lives that are not in the configuration, and still speak */
  send(view: ClusterView, lost: readonly { readonly node: number; readonly incarnation: number }[], orders: readonly MoveOrder[]): void {
    const { cluster: { config, generation }, replicas, term, now } = view
    const told = new Set([...view.switches, ...view.runtimes, ...view.starting.map(({ runtime }) => runtime), ...lost]
      .map(({ incarnation }) => incarnation))
    for (const incarnation of this.#sent.keys()) if (incarnation !== 0 && !told.has(incarnation)) this.#sent.delete(incarnation)
    const open = openFences(view)
    const fenced = open.map(({ node, incarnation, generation: at }): FencedLife => ({ node, incarnation, generation: at }))
    const configure: NodeCommand = { kind: 'configure', term, config, generation, fenced }
    const version = `${config.version}/${generation}`
    const { isAcknowledged } = recoveryState(view)
    for (const { id, incarnation, report } of [...view.switches.filter((one) => one.incarnation !== 0), ...view.runtimes]) {
      const isThere = report !== null && report.configVersion >= config.version && report.generation >= generation
      this.#bring(id, incarnation, configure, version, isThere, now)
    }
    for (const { runtime: { id, incarnation } } of view.starting) this.#bring(id, incarnation, configure, version, false, now)
    // So that they know, and drop everything.
    for (const { node, incarnation } of lost) this.#bring(node, incarnation, configure, version, false, now)
    for (const one of view.runtimes) {
      const { id, incarnation, report } = one
      if (report === null) continue
      const list = replicas.of[id]
      if (list?.incarnation === incarnation) {
        this.#bring(id, incarnation, { kind: 'set-replicas', term, version: replicas.version, replicas: list.replicas },
          `${replicas.version}`, report.replicasVersion >= replicas.version, now)
      }
      if (open.length > 0 && !planted['not-recovered'] && isAcknowledged && report.generation >= generation) {
        this.#bring(id, incarnation, { kind: 'recover', term, generation, dead: fenced }, `${generation}`, report.recovered >= generation, now)
      }
      for (const { pool, held } of report.blocksWanted) {
        const blocks = blocksOf(view, pool, incarnation)
        if (blocks.length <= held) continue
        for (const block of blocks) {
          this.#bring(id, incarnation, { kind: 'grant-block', term, pool, block }, `${pool}/${block}`, false, now, `${pool}/${block}`)
        }
      }
    }
    for (const { source, target, order, flows, share } of orders) {
      if (!isReachable(source)) continue
      this.#bring(source.id, source.incarnation, { kind: 'move', term, order, target, flows, share }, `${order}`, false, now)
    }
  }

  welcome(node: number, nonce: string, incarnation: number, term: number, now: TimeUs): void {
    this.#bring(node, 0, { kind: 'welcome', term, nonce, incarnation }, nonce, false, now, `${node}`)
  }

  /** Sends a command if it is new, or if its effect is not to be seen after a while. */
  #bring(node: number, incarnation: number, command: NodeCommand, what: string, isThere: boolean, now: TimeUs, apart = ''): void {
    const key = `${command.kind} ${apart}`
    const ofLife = this.#sent.get(incarnation) ?? new Map<string, Sent>()
    const sent = ofLife.get(key)
    if (sent?.what === what && (isThere || now - sent.at < AGAIN_US)) return
    if (this.#links.send(node, incarnation, command) === false) return
    ofLife.set(key, { what, at: now })
    this.#sent.set(incarnation, ofLife)
  }
}

/** Fenced lives whose flows have not been recovered. */
export function openFences({ fences }: ClusterView): FenceDocument[] {
  return fences.filter(({ isRecovered }) => !isRecovered).sort((a, b) => a.incarnation - b.incarnation)
}
