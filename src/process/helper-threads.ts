/**
 * Helper threads: those with which V8 compiles, and collects garbage, beside the thread that runs a node. When a node meets code that it has
 * not run often (the first flows of a dead runtime that it takes over), hundreds of functions are compiled anew within half a second, and
 * where cores are few V8's four threads of every process take as much of them as all nodes together, just then: flows stand still for longer.
 * So a process of a cluster has one such thread, and that lets those that move packets go first.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'

/** What Node is told for every process of a cluster. */
export const HELPER_FLAGS: readonly string[] = ['--v8-pool-size=1']

/** Steps of nice: a tenth of what an ordinary thread gets beside it. What waits for a helper, rarely, is not to wait for ever. */
const HELPER_YIELD = 10
const NICE_MAX = 19
const THREADS = '/proc/self/task'

/** Lets this process's other threads, and other processes, go before V8's helpers. */
export function lowerHelpers(): void {
  if (process.platform !== 'linux') return
  const priority = Math.min(NICE_MAX, getPriority() + HELPER_YIELD)
  for (const thread of readdirSync(THREADS)) {
    try {
      if (readFileSync(`${THREADS}/${thread}/comm`, 'utf8').startsWith('V8Worker')) setPriority(Number(thread), priority)
    } catch {
      // A thread that has ended.
    }
  }
}
