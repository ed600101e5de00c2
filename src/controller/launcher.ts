/**
 * Launcher: starts and stops the processes of runtimes, and sees what becomes of them. Like nodes it takes commands of the highest term it
 * has seen and no lower, so a deposed leader stops nothing that its successor has started.
 *
 * Both calls are idempotent and promise nothing: the controller repeats them until `running` shows their effect.
 */

import type { MachineView } from './machines.ts'

export interface Launched {
  readonly id: number
  readonly incarnation: number
}

export interface Launcher {
  /** Starts this life of a runtime, unless it runs or has run: an incarnation is one life. */
  startRuntime(term: number, runtime: Launched & { readonly chain: number }): void
  /** Ends this life, whatever state it is in. */
  stopRuntime(term: number, runtime: Launched): void
  /** The processes that are there now, whoever started them. */
  running(): readonly Launched[]
  /** True for a node whose process is known to stand still: it has been stopped, and does nothing, whatever the reason for its silence. */
  isStopped?(node: Launched): boolean
  /** The machines that runtimes can be on, if there is more than one. */
  machines?(): readonly MachineView[]
}
