/**
 * Networks for tests: namespaces and veths of the test's own, which go when it ends, however it ends.
 *
 * Names carry the process id, so that what a killed run has left is found and removed by the next one.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

const PREFIX = 'nftest'

/** Why such tests cannot run here; false if they can. */
export function networkSkip(): string | false {
  if (process.platform !== 'linux') return 'namespaces need Linux'
  if (process.getuid?.() !== 0) return 'namespaces need root'
  if (spawnSync('ip', ['-V']).error !== undefined) return 'ip (iproute2) is not installed'
  const name = `${PREFIX}${process.pid}x`
  const isPossible = spawnSync('ip', ['netns', 'add', name]).status === 0
  if (isPossible) spawnSync('ip', ['netns', 'del', name])
  return isPossible ? false : 'namespaces cannot be made here'
}

/** Runs a command; throws with what it printed if it fails. */
export function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: 20_000 })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

let count = 0
const alive = new Set<TestNetwork>()
process.on('exit', () => { for (const network of alive) network.close() })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    for (const network of alive) network.close()
    process.kill(process.pid, signal)
  })
}

export class TestNetwork {
  readonly #namespaces: string[] = []

  constructor() {
    alive.add(this)
    for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
      const pid = new RegExp(`^${PREFIX}(\\d+)n`).exec(name)?.[1]
      if (pid !== undefined && !existsSync(`/proc/${pid}`)) spawnSync('ip', ['netns', 'del', name])
    }
  }

  /** Adds a namespace; returns its name. */
  addNamespace(): string {
    const name = `${PREFIX}${process.pid}n${++count}`
    run('ip', 'netns', 'add', name)
    this.#namespaces.push(name)
    return name
  }

  /** Adds a veth between two namespaces (which may be one), up and silent: no IPv6 of its own accord. */
  addVeth(namespace: string, name: string, peerNamespace: string, peerName: string, mtu = 1500, queues = 1): void {
    const common = ['mtu', String(mtu), 'numrxqueues', String(queues), 'numtxqueues', String(queues)]
    run('ip', '-n', namespace, 'link', 'add', 'name', name, ...common,
      'type', 'veth', 'peer', 'name', peerName, ...common, 'netns', peerNamespace)
    for (const [ns, end] of [[namespace, name], [peerNamespace, peerName]]) {
      run('ip', '-n', ns, 'link', 'set', end, 'addrgenmode', 'none')
      run('ip', '-n', ns, 'link', 'set', end, 'up')
    }
  }

  /** Gives an interface addresses. */
  addAddresses(namespace: string, name: string, ...addresses: string[]): void {
    for (const address of addresses) {
      run('ip', '-n', namespace, 'addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []))
    }
    run('ip', '-n', namespace, 'link', 'set', 'lo', 'up')
  }

  /** Runs a command in a namespace. */
  run(namespace: string, ...command: string[]): string {
    return run('ip', 'netns', 'exec', namespace, ...command)
  }

  close(): void {
    if (!alive.delete(this)) return
    for (const name of this.#namespaces) spawnSync('ip', ['netns', 'del', name])
  }
}

/**
 * A command that pings a host, one after the other, so that a slow answer is no lost one: several at a time are given up after twice the
 * time that the first took.
 */
export function pingCommand(host: string, count = 3): string[] {
  return ['sh', '-c', `for i in $(seq ${count}); do ping -c 1 -W 5 ${host} || exit 1; done`]
}

/** Turns until something is so; throws after `patienceMs`. */
export async function until(what: string, turn: () => void, isTrue: () => boolean, patienceMs = 15_000): Promise<void> {
  const end = performance.now() + patienceMs
  while (!isTrue()) {
    if (performance.now() > end) throw new Error(`not in ${patienceMs} ms: ${what}`)
    turn()
    await setImmediate()
  }
}
