/**
 * Machines: which of a cluster's machines a node is on, and where the next runtime goes. Pure.
 *
 * A runtime's id says its machine: ids go round the machines in turn. So controllers and nodes agree without a word, a life cannot be
 * started on two machines, and nothing of it stands in the store. Switches (ids below the first runtime's) are on machine 0, where the
 * controllers are.
 *
 *     3 machines, first id 11:     0: 11 14 17 ...     1: 12 15 18 ...     2: 13 16 19 ...
 */

import { NODE_ID_MAX } from '../messages/cluster-config.ts'

/** What the launcher knows of a machine. */
export interface MachineView {
  /** Processes can be started there now. */
  readonly isUp: boolean
  /** It has said nothing for a moment: it may be gone, and nothing new is begun there. */
  readonly isSilent?: boolean
  readonly runtimesMax: number
}

export function machineOf(id: number, firstId: number, machines: number): number {
  return id < firstId ? 0 : (id - firstId) % machines
}

/** Whether the machine of a node can be reached; always, where there is but one. */
export function isMachineUp(machines: readonly MachineView[], id: number, firstId: number): boolean {
  return machines.length === 0 || machines[machineOf(id, firstId, machines.length)].isUp
}

/** The machine of a node, if it has said nothing for a moment; undefined otherwise, and where there is but one. */
export function silentMachineOf(machines: readonly MachineView[], id: number, firstId: number): number | undefined {
  if (machines.length === 0) return undefined
  const machine = machineOf(id, firstId, machines.length)
  return machines[machine].isSilent === true ? machine : undefined
}

const isOpen = ({ isUp, isSilent = false }: MachineView): boolean => isUp && !isSilent

const countsOf = (machines: readonly MachineView[], runtimes: readonly number[], firstId: number): number[] =>
  machines.map((_, index) => runtimes.filter((id) => machineOf(id, firstId, machines.length) === index).length)

/**
 * Whether a machine has two runtimes more than another one that is up and has room: then one is to come there, and one of the former to go.
 * So a machine that was lost and is back gets its share again, and replicas with it.
 *
 * @param runtimes ids of those that may go
 * @param placed ids of all that count, theirs included: what stays where it is takes room as well
 */
export function isUneven(machines: readonly MachineView[], runtimes: readonly number[], placed: readonly number[], firstId: number): boolean {
  const counts = countsOf(machines, placed, firstId)
  const least = Math.min(...machines.flatMap((one, index) => (isOpen(one) && counts[index] < one.runtimesMax ? [counts[index]] : [])))
  return Math.max(...runtimes.map((id) => counts[machineOf(id, firstId, machines.length)])) >= least + 2
}

/**
 * Of these runtimes, those on the machines that have most.
 *
 * @param placed ids of all that count, theirs included: see `isUneven`
 */
export function onFullest<T extends { readonly id: number }>(
  machines: readonly MachineView[], runtimes: readonly T[], placed: readonly number[], firstId: number,
): readonly T[] {
  if (machines.length === 0) return runtimes
  const counts = countsOf(machines, placed, firstId)
  const most = Math.max(...runtimes.map(({ id }) => counts[machineOf(id, firstId, machines.length)]))
  return runtimes.filter(({ id }) => counts[machineOf(id, firstId, machines.length)] === most)
}

/**
 * An id for a new runtime: on the machine that is up and has the fewest, the first of several; the lowest that is not taken. 0 if there is
 * no machine with room.
 *
 * @param machines none: there is one, without bounds
 * @param runtimes ids of those that there are, and of those being started
 * @param taken ids that cannot be given out
 */
export function chooseRuntimeId(
  machines: readonly MachineView[], runtimes: readonly number[], taken: ReadonlySet<number>, firstId: number,
): number {
  const all = machines.length === 0 ? [{ isUp: true, runtimesMax: NODE_ID_MAX }] : machines
  const step = all.length
  const counts = countsOf(all, runtimes, firstId)
  const order = all.map((_, index) => index).filter((index) => isOpen(all[index]) && counts[index] < all[index].runtimesMax)
    .sort((a, b) => counts[a] - counts[b] || a - b)
  for (const machine of order) {
    for (let id = firstId + machine; id <= NODE_ID_MAX; id += step) if (!taken.has(id)) return id
  }
  return 0
}
