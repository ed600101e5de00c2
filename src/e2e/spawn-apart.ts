/**
 * Programs of a bed as on machines of their own, as far as cores go. Linux shares cores by session (autogroup), and some versions do that
 * wrong (docs/operations.md): a session whose processes wake each other, as a client and a server do that were started side by side, keeps
 * a core for seconds, and whoever else wants it waits. So each has a session of its own.
 */

import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'

/** Of util-linux: ends a program, which `detached` lets live on, with this process. */
export const KEEPER = 'setpriv'

/** Starts a program in a session of its own. It ends when this process does, however that ends. */
export function spawnApart(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  return spawn(KEEPER, ['--pdeathsig', 'KILL', program, ...args], { ...options, detached: true })
}
