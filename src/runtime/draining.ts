/**
 * Draining: a runtime that is to become empty tells every switch to place no new flow here, and every other runtime to leave no new replica
 * here and to take back those that it has left. PROTOCOL 24. Each answers behind the last that it has sent here.
 */

import { planted } from '../base/planted-bugs.ts'
import { StopPlacing } from '../messages/announcing.ts'
import { sendHead, type RuntimeContext } from './runtime-context.ts'

export class Draining {
  readonly #context: RuntimeContext
  #isOn = false
  /** Switches and runtimes that have not answered. */
  #switches = 0
  readonly #runtimes = new Set<number>()

  constructor(context: RuntimeContext) {
    this.#context = context
  }

  get isOn(): boolean {
    return this.#isOn
  }

  /** True while draining when nobody sends anything new here. */
  get isAnswered(): boolean {
    return this.#isOn && ((this.#switches === 0 && this.#runtimes.size === 0) || planted['drained-early'])
  }

  set(on: boolean, runtimes: Iterable<number>): void {
    const { switches } = this.#context
    if (on === this.#isOn) return
    this.#isOn = on
    this.#context.step('draining', on ? 1 : -1)
    this.#switches = 0
    this.#runtimes.clear()
    this.#tell(switches.idsIn(switches.all), runtimes)
  }

  /** Switches in a mask, or a runtime, have answered or are gone. */
  stopped(switches: number, runtime = 0): void {
    this.#switches &= ~switches
    this.#runtimes.delete(runtime)
  }

  /** Nodes that have not been told. */
  come(switches: Iterable<number>, runtimes: Iterable<number>): void {
    if (this.#isOn) this.#tell(switches, runtimes)
  }

  #tell(switches: Iterable<number>, runtimes: Iterable<number>): void {
    const context = this.#context
    const code = this.#isOn ? 1 : 0
    for (const id of switches) {
      if (this.#isOn) this.#switches |= context.switches.bitOf(id)
      sendHead(context, context.control(id), StopPlacing, 0, 0, code)
    }
    for (const id of runtimes) {
      if (this.#isOn) this.#runtimes.add(id)
      sendHead(context, context.control(id), StopPlacing, 0, 0, code)
    }
  }
}
