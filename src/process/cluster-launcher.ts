/**
 * Cluster launcher: the launcher of a cluster on one or more machines. Switches and the first machine's runtimes are the local launcher's;
 * those of other machines go through their agents. Which machine a runtime is on, its id says (controller/machines.ts).
 */

import type { Launched, Launcher } from '../controller/launcher.ts'
import { machineOf, type MachineView } from '../controller/machines.ts'
import { isStopped, type ProcessEntry } from './cluster-folder.ts'
import type { LocalLauncher } from './local-launcher.ts'
import { FIRST_RUNTIME_ID } from './node-config.ts'
import type { RemoteMachine } from './remote-machine.ts'

export class ClusterLauncher implements Launcher {
  readonly #local: LocalLauncher
  readonly #remote: readonly RemoteMachine[]
  readonly #runtimesMax: readonly number[]

  /** @param remote the machines behind the first one, @param runtimesMax of each machine; none for a cluster without machines */
  constructor(local: LocalLauncher, remote: readonly RemoteMachine[], runtimesMax: readonly number[]) {
    this.#local = local
    this.#remote = remote
    this.#runtimesMax = runtimesMax
  }

  #of(id: number): LocalLauncher | RemoteMachine {
    const machine = machineOf(id, FIRST_RUNTIME_ID, this.#remote.length + 1)
    return machine === 0 ? this.#local : this.#remote[machine - 1]
  }

  get #all(): readonly (LocalLauncher | RemoteMachine)[] {
    return [this.#local, ...this.#remote]
  }

  machines(): readonly MachineView[] {
    return this.#runtimesMax.map((runtimesMax, index) => {
      const { isUp, isSilent } = index === 0 ? { isUp: true, isSilent: false } : this.#remote[index - 1]
      return { isUp, isSilent, runtimesMax }
    })
  }

  /** The processes that there are, on all machines. */
  processes(): ProcessEntry[] {
    return this.#all.flatMap((one) => [...one.processes.values()])
  }

  processOf({ id, pid }: { readonly id: number, readonly pid: number }): ProcessEntry | undefined {
    return this.#of(id).processes.get(pid)
  }

  /** The process of this life of a runtime. */
  processOfRuntime(incarnation: number): ProcessEntry | undefined {
    return this.processes().find((one) => one.kind === 'runtime' && one.incarnation === incarnation)
  }

  /** Of processes on this machine. A switch has one at a time. */
  isStopped({ id, incarnation }: Launched): boolean {
    for (const entry of this.#local.processes.values()) {
      if (entry.id === id && (entry.kind === 'switch' || entry.incarnation === incarnation)) return isStopped(entry)
    }
    return false
  }

  startsOf(name: string): number {
    return this.#all.reduce((sum, one) => sum + one.startsOf(name), 0)
  }

  startRuntime(term: number, runtime: Launched & { readonly chain: number }): void {
    this.#of(runtime.id).startRuntime(term, runtime)
  }

  stopRuntime(term: number, runtime: Launched): void {
    this.#of(runtime.id).stopRuntime(term, runtime)
  }

  /** Ends the process of a switch that has no place in the cluster any more. */
  stopSwitch(term: number, entry: ProcessEntry): void {
    this.#local.stop(term, entry)
  }

  startSwitches(term: number): void {
    this.#local.startSwitches(term)
  }

  /** Keeps ready what makes the next start on this machine a short one. */
  keepWarm(): void {
    this.#local.keepWarm()
  }

  running(): readonly Launched[] {
    return this.#all.flatMap((one) => one.running())
  }

  kill({ id, pid }: { readonly id: number, readonly pid: number }, signal: NodeJS.Signals): boolean {
    return this.#of(id).kill(pid, signal)
  }

  tick(): void {
    for (const one of this.#all) one.tick()
  }

  close(): void {
    for (const machine of this.#remote) machine.close()
  }
}
