/**
 * Flow watch: follows a network function's flows through allocateFlowState, deallocateFlowState, flowMovedIn and flowMovedOut,
 * to see that each begins and ends once.
 */

import { Random } from '../base/random.ts'
import type { AnyNfDefinition, NfContext, NfMethods } from '../nf/definition.ts'

/** Follows which flows are there, by where their states lie. */
export class FlowWatch {
  fault = ''
  readonly #here = new Map<object, Set<number>>()

  clear(): void {
    this.fault = ''
    this.#here.clear()
  }

  get living(): number {
    return this.#here.values().reduce((sum, set) => sum + set.size, 0)
  }

  came(instance: object, state: number, how: string): void {
    let set = this.#here.get(instance)
    if (set === undefined) this.#here.set(instance, set = new Set())
    if (set.has(state) && this.fault === '') this.fault = `${how} for a flow that is there already`
    set.add(state)
  }

  went(instance: object, state: number, how: string): void {
    if (this.#here.get(instance)?.delete(state) !== true && this.fault === '') this.fault = `${how} for a flow that is not there`
  }
}

/** The definition with its flows watched and its random numbers a function of the flow. */
export function instrument(definition: AnyNfDefinition, watch: FlowWatch): AnyNfDefinition {
  return {
    ...definition,
    create(config: unknown, context: NfContext<any, any, any, any>): NfMethods<any> {
      let draws = 0
      const { flow } = context
      const own = Object.create(context, {
        random: { value: () => new Random(flow.packets * 31 + flow.bytes * 7 + flow.firstSeen % 65521 + draws++).int32() },
      }) as NfContext<any, any, any, any>
      const methods = definition.create(config, own)
      const instance = {}
      const enter = <T>(run: () => T): T => {
        draws = 0
        return run()
      }
      const watched: NfMethods<any> = {
        allocateFlowState(state, packet) {
          watch.came(instance, state.o, 'allocateFlowState')
          enter(() => methods.allocateFlowState?.(state, packet))
        },
        deallocateFlowState(state) {
          watch.went(instance, state.o, 'deallocateFlowState')
          enter(() => methods.deallocateFlowState?.(state))
        },
        processPacket: (packet, state) => enter(() => methods.processPacket(packet, state)),
        flowMovedIn(state) {
          watch.came(instance, state.o, 'flowMovedIn')
          enter(() => methods.flowMovedIn?.(state))
        },
        flowMovedOut(state) {
          watch.went(instance, state.o, 'flowMovedOut')
          enter(() => methods.flowMovedOut?.(state))
        },
      }
      if (methods.timerFired !== undefined) watched.timerFired = (state) => enter(() => methods.timerFired?.(state))
      if (methods.migrationTarget !== undefined) {
        watched.migrationTarget = (cluster, state) => methods.migrationTarget?.(cluster, state) ?? null
      }
      return watched
    },
  }
}
