/**
 * Probe: the network function of simulated clusters. Its flow state says which packets the flow has seen; it tells the ledger of each,
 * dies of those that are poison, drops some, holds some until the next, and asks now and then to live elsewhere.
 */

import { defineNf, struct, u16, u32, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import type { Ledger, ProcessedPacket } from './ledger.ts'
import { AssertionError } from '../base/assert.ts'
import { ERROR_FLOWS, hasTrailer, isPoison, trailerFlow, trailerId, trailerSequence, trailerSide } from './trailer.ts'

/** What a packet that kills a runtime does: no policy about network functions that throw holds it up. */
export class Poisoned extends AssertionError {
  readonly flow: number

  constructor(flow: number) {
    super(`a packet of flow ${flow} is poison`)
    this.flow = flow
  }
}

/** Where the packet at hand is processed, by whoever runs the runtime. */
export type ProbePlace = (recordOfFlow: number) => Pick<ProcessedPacket, 'runtime' | 'incarnation' | 'flowId' | 'epoch'>

export interface ProbeOptions {
  readonly ledger: Ledger
  readonly place: ProbePlace
  /** One packet in so many is dropped, held; one flow in so many asks to move. 0: none. */
  readonly dropOneIn: number
  readonly holdOneIn: number
  readonly reconsiderOneIn: number
}

/** How many packets it has seen, and the last number of each side; which state it is, for the ledger; and whether it holds a packet. */
const flowState = struct({ count: u32, client: u32, server: u32, number: u16, held: u16 })
/** Where in it the number is, in words. */
export const STATE_WORD = 3

export function probe({ ledger, place, dropOneIn, holdOneIn, reconsiderOneIn }: ProbeOptions): AnyNfDefinition {
  return defineNf({
    name: 'probe', version: 1,
    flowState,
    dropReasons: { unwanted: 'dropped to see that it does not leave' },
    create: (_config, context) => {
      const { u8 } = context.arena
      return {
        allocateFlowState(state) {
          // The record's address in memory stands for the flow: its state lies in it.
          state.number = ledger.began(place(state.o).flowId)
        },
        deallocateFlowState(state) {
          ledger.ended(place(state.o).flowId)
        },
        processPacket(packet, state) {
          const end = packet.frameOffset + packet.frameLength
          if (!hasTrailer(u8, end)) return Verdict.Forward
          const id = trailerId(u8, end)
          const side = trailerSide(u8, end)
          const sequence = trailerSequence(u8, end)
          const flow = trailerFlow(u8, end)
          if (isPoison(u8, end)) throw new Poisoned(flow)
          const isError = flow >= ERROR_FLOWS
          // An ICMP error about a flow that is gone is a flow of its own.
          if (isError && !packet.isRelated) return Verdict.Forward
          const before = isError ? sequence - 1 : side === 0 ? state.client : state.server
          if (!isError) {
            if (side === 0) state.client = sequence
            else state.server = sequence
          }
          state.count++
          const { runtime, incarnation, flowId, epoch } = place(state.o)
          ledger.processed(flow % ERROR_FLOWS, side, sequence,
            { id, runtime, incarnation, flowId, epoch, state: state.number, count: state.count, before })
          if (reconsiderOneIn > 0 && state.count % reconsiderOneIn === 0) context.reconsider()
          if (state.held > 0) {
            context.held.release()
            state.held = 0
          }
          if (dropOneIn > 0 && id % dropOneIn === 0) {
            ledger.refuse(id)
            return context.drop.unwanted
          }
          if (holdOneIn > 0 && id % holdOneIn === 0) {
            state.held = 1
            ledger.hold(id)
            context.timer.set(3000)
            return Verdict.Hold
          }
          return Verdict.Forward
        },
        timerFired(state) {
          context.held.release()
          state.held = 0
        },
        migrationTarget(cluster) {
          // Each change of the cluster asks every flow. If all went elsewhere each time, most moves would be of flows without packets meanwhile.
          if ((context.random() >>> 0) % 3 !== 0) return null
          const others = cluster.runtimes.filter(({ id }) => id !== cluster.self)
          return others[(context.random() >>> 0) % Math.max(1, others.length)]?.id ?? null
        },
      }
    },
  })
}
