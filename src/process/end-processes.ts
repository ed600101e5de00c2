/**
 * Ends the processes of a cluster that a folder knows of: in good order where they let us, by a kill where not.
 */

import { isRunning, signalProcess, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'

/** How long processes have to end in good order, and after a kill. */
export const END_MS = 3_000
export const KILL_MS = 2_000

type Kind = 'controller' | 'node'

/** Ends controllers, then nodes. Returns how many had to be killed. */
export async function endProcesses(folder: ClusterFolder, kinds: readonly Kind[] = ['controller', 'node']): Promise<number> {
  let killed = 0
  for (const wanted of kinds) {
    const living = folder.livingProcesses().filter(({ kind }) => kind !== 'supervisor' && (kind === 'controller') === (wanted === 'controller'))
    for (const entry of living) signalProcess(entry, 'SIGTERM')
    if (await areGone(living, END_MS)) continue
    killed += living.filter((entry) => signalProcess(entry, 'SIGKILL')).length
    await areGone(living, KILL_MS)
  }
  return killed
}

export async function areGone(processes: readonly ProcessEntry[], patienceMs: number): Promise<boolean> {
  const end = performance.now() + patienceMs
  while (processes.some(isRunning)) {
    if (performance.now() > end) return false
    await new Promise((resolve) => { setTimeout(resolve, 10) })
  }
  return true
}
