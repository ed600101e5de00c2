/**
 * Chain checks: what is asked of flows with two replicas, by looking into the runtimes. PROTOCOL 14, 15.
 */

import type { RuntimeNode } from '../node/runtime-node.ts'
import { SNAPSHOT_RECORD_OFFSET } from '../runtime/flow-snapshot.ts'
import { STATE_WORD } from './probe.ts'
import type { SimNode, Simulation } from './simulation.ts'
import { trailerFlow, trailerId } from './trailer.ts'

/** A runtime sends a frame of a flow to a switch: with two replicas both must have what it is part of. */
export function checkReleased(simulation: Simulation, id: number, frame: Uint8Array): void {
  const effect = simulation.options.replicas > 1 ? simulation.ledger.effectOf(frame) : null
  if (effect === null) return
  const { flowId, state, count } = effect
  const tail = simulation.find(id)
  const copy = (tail.node as RuntimeNode | null)?.keptRecord(flowId)
  const predecessor = copy?.place?.predecessor ?? 0
  if (copy === undefined || predecessor === 0) return
  if (new Set([id, predecessor, copy.owner]).size < 3) {
    simulation.ledger.violate('commit', `flow id ${flowId} at ${copy.owner} has its replicas at ${predecessor} and ${id}`)
  }
  /** How many packets what is kept has seen of this state: none if it is of one before. */
  const seenAt = (one: SimNode): number => {
    const node = one.node as RuntimeNode | null
    const words = node?.keptRecord(flowId)?.words
    if (words === undefined) return -1
    const at = SNAPSHOT_RECORD_OFFSET + (node?.engine.chain.nfs[1]?.stateOffset ?? 0) >> 2
    const kept = words[at + STATE_WORD] & 0xffff
    return kept < state ? 0 : kept > state ? Infinity : words[at]
  }
  const first = simulation.find(predecessor)
  const isThere = first.node !== null && first.incarnation === copy.place?.predecessorIncarnation
  if (seenAt(tail) < count || (isThere && seenAt(first) >= 0 && seenAt(first) < count)) {
    const packet = `packet ${trailerId(frame, frame.length)} of flow ${trailerFlow(frame, frame.length)} (id ${flowId})`
    simulation.ledger.violate('commit', `runtime ${id} releases ${packet}, which its state has seen as number ${count}: ` +
      `what it keeps has seen ${seenAt(tail)}, what runtime ${predecessor} ahead of it keeps ${seenAt(first)}`)
  }
}

/** Runtimes with flows that have fewer replicas than they could have. */
export function degraded(simulation: Simulation): string[] {
  const { replicas } = simulation.options
  const live = simulation.liveRuntimes().map(({ node }) => node as RuntimeNode)
  if (replicas < 2 || live.filter(({ openSteps }) => openSteps.draining === 0).length <= replicas) return []
  return live.filter((node) => node.degraded > 0).map((node) => `degraded at ${node.id}: ${node.degraded}`)
}
