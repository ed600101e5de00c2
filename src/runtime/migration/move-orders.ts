/**
 * Move orders: what a runtime has been told to move and has not begun to. An order names a number of flows, or a share of the load; its flows
 * begin one after another, heavy ones first, then light ones in the order of the slab, as far as the window of moves has room.
 */

import { FlowPhase, FlowRecord } from '../../flow/flow-record.ts'
import type { ClusterConfig } from '../../messages/cluster-config.ts'
import { chooseFlows, type HeavyFlow } from '../flow-weights.ts'
import { flowOf, type RuntimeContext } from '../runtime-context.ts'

interface MoveOrder {
  readonly target: number
  remaining: number
  /** Flows that go ahead of others, and those that stay. */
  readonly heavy: HeavyFlow[]
  readonly spared: ReadonlySet<number>
  /** Slab index where the search goes on, and how many are still to be looked at. */
  hand: number
  left: number
}

/** Who begins a move, if it can begin now. */
type StartMove = (record: number, target: number) => 'begun' | 'busy' | 'no-room'

export class MoveOrders {
  readonly #context: RuntimeContext
  readonly #orders: MoveOrder[] = []

  constructor(context: RuntimeContext) {
    this.#context = context
  }

  get isEmpty(): boolean {
    return this.#orders.length === 0
  }

  /** Flows that are still to begin. */
  get flows(): number {
    return this.#orders.reduce((sum, order) => sum + order.remaining, 0)
  }

  /**
   * Takes an order to move `number` flows to a runtime. Paper §5.3, table 2.
   *
   * @param share of the load here, 0 to 1, if it is that which is to move: then those flows move that make it up, and `number` is how many of
   *   mean weight would; 0: the number counts
   * @returns the code of its refusal, with nothing changed; empty if it was taken
   */
  give(target: number, number: number, share: number, config: ClusterConfig | null): string {
    const { engine: { slab }, limits, now, self, weights } = this.#context
    if (!Number.isInteger(number) || number < 1) return 'NF_MOVE_NUMBER'
    if (!(share >= 0 && share <= 1)) return 'NF_MOVE_SHARE'
    if (target === self) return 'NF_MOVE_SELF'
    const entry = config?.runtimes.find(({ id }) => id === target)
    if (entry === undefined) return 'NF_MOVE_UNKNOWN_RUNTIME'
    if (entry.isDraining) return 'NF_MOVE_DRAINING'
    if (this.#orders.length >= limits.orders) return 'NF_MOVE_ORDERS'
    const { heavy, spared, light } = chooseFlows(share, number, slab.used, share === 0 ? [] : weights.heavy(now))
    this.#orders.push({ target, remaining: heavy.length + light, heavy: [...heavy], spared, hand: 0, left: slab.highWater })
    return ''
  }

  /**
   * Begins moves while there is room for more.
   *
   * @param isThere true for a runtime to which flows can go
   */
  work(hasRoom: () => boolean, isThere: (runtime: number) => boolean, start: StartMove): void {
    const { engine: { slab } } = this.#context
    while (this.#orders.length > 0 && hasRoom()) {
      const order = this.#orders[0] as MoveOrder
      if (order.remaining <= 0 || order.left <= 0 || !isThere(order.target)) {
        this.#orders.shift()
        continue
      }
      const heavy = order.heavy[0] as HeavyFlow | undefined
      if (heavy !== undefined) {
        // One that has ended since, or cannot move now, is no reason for others to go in its place.
        const isThis = this.#isFlow(heavy.record) && flowOf(this.#context, heavy.record) === heavy.flow
        if (isThis && start(heavy.record, order.target) === 'no-room') return
        order.heavy.shift()
        order.remaining--
        continue
      }
      if (order.hand >= slab.highWater) order.hand = 0
      const record = slab.offsetOf(order.hand)
      const isToMove = this.#isFlow(record) && !order.spared.has(flowOf(this.#context, record))
      const result = isToMove ? start(record, order.target) : 'busy'
      if (result === 'no-room') return
      if (result === 'begun') order.remaining--
      order.hand++
      order.left--
    }
  }

  #isFlow(record: number): boolean {
    const { arena, engine: { slab } } = this.#context
    const phase = arena.u8[record + FlowRecord.phase]
    return slab.isTaken(slab.indexOf(record)) && (phase === FlowPhase.active || phase === FlowPhase.lingering)
  }
}
