/**
 * Start priority: a process that is started beside others that work lets them go first until it works itself. Loading a node's modules
 * takes half a second of processor time, which those in service would miss where cores are few: their packets would wait, or be lost at an
 * interface.
 *
 *     who starts it ─▶ less by YIELD, said in its environment ─▶ it loads ─▶ takes its priority back, all threads ─▶ serves
 *
 * Only where a process may have its priority back: Linux asks for CAP_SYS_NICE, and not just that of a user namespace.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { lowerHelpers } from './helper-threads.ts'

/** The priority to take back, a nice value. */
const VARIABLE = 'NFACTOR_PRIORITY'
/** Steps of nice: a third of the processor time that an ordinary process gets beside it. */
const YIELD = 5
const NICE_MAX = 19
const CAP_SYS_NICE = 1n << 23n

let mayYield: boolean | undefined

/** Whether a process of ours could have its priority back. */
export function mayRaisePriority(): boolean {
  if (process.platform !== 'linux') return false
  try {
    const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
    return (BigInt(`0x${capabilities}`) & CAP_SYS_NICE) !== 0n && /^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'utf8'))
  } catch {
    return false
  }
}

/** What a process that is to begin so finds in its environment; nothing where it could not have its priority back. */
export function yieldingEnvironment(): NodeJS.ProcessEnv {
  mayYield ??= mayRaisePriority()
  return mayYield ? { [VARIABLE]: `${getPriority()}` } : {}
}

/** Lets others go before a process that was just started with such an environment. */
export function beginYielding(pid: number): void {
  if (mayYield !== true) return
  try {
    setPriority(pid, Math.min(NICE_MAX, getPriority() + YIELD))
  } catch {
    // It has ended.
  }
}

/** This process works from now on: its threads get their priority back, but for V8's helpers. */
export function endYielding(): void {
  const priority = process.env[VARIABLE]
  if (priority === undefined) return
  delete process.env[VARIABLE]
  for (const thread of readdirSync('/proc/self/task')) {
    try {
      setPriority(Number(thread), Number(priority))
    } catch {
      // A thread that has ended, or a right that was given up meanwhile.
    }
  }
  lowerHelpers()
}
