/**
 * Demo network: three network namespaces of our own, a client and a server with a cluster's interfaces between them. They go when it is
 * closed; what a killed one has left, the next one removes.
 *
 * It needs root, of this machine or of a user namespace: whoever may make one runs the demonstration in there (`ownNamespaces`).
 *
 *     client c0 10.77.0.1 ── in [middle] out ── s0 10.77.0.2 server
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'

const PREFIX = 'nfdemo'
/** Names of network namespaces are files that root alone may make; in a mount namespace of ours a folder of ours lies over theirs. */
const OWN_NAMES = 'mount -t tmpfs tmpfs "$([ -d /run/netns ] && echo /run/netns || echo /run)" && exec "$@"'
const TRY_MS = 5_000

export class DemoNetwork {
  readonly client = `${PREFIX}${process.pid}client`
  readonly middle = `${PREFIX}${process.pid}middle`
  readonly server = `${PREFIX}${process.pid}server`
  readonly clientAddress = '10.77.0.1'
  readonly serverAddress = '10.77.0.2'
  readonly #exit = (): void => { this.close() }

  /** Why there can be none here, in words; empty if there can. */
  static obstacle(): string {
    if (process.getuid?.() !== 0) return 'network namespaces need root, or user namespaces, which cannot be made here'
    if (spawnSync('ip', ['-V']).error !== undefined) return 'ip (iproute2) is not installed'
    const { status } = spawnSync('ip', ['netns', 'add', `${PREFIX}${process.pid}try`])
    spawnSync('ip', ['netns', 'del', `${PREFIX}${process.pid}try`])
    return status === 0 ? '' : 'network namespaces cannot be made here'
  }

  /**
   * What stands before a command that is to be root in a user namespace of its own, with network and mount namespaces; undefined where
   * none can be made, and for root, who needs none.
   */
  static ownNamespaces(): readonly string[] | undefined {
    if (process.getuid?.() === 0) return undefined
    const command = ['unshare', '--user', '--map-root-user', '--net', '--mount', 'sh', '-c', OWN_NAMES, 'sh']
    const name = `${PREFIX}${process.pid}try`
    const attempt = [...command, 'sh', '-c', 'ip netns add "$0" && ip -n "$0" link add in type veth peer name out', name]
    const { status } = spawnSync(attempt[0], attempt.slice(1), { stdio: 'ignore', timeout: TRY_MS })
    return status === 0 ? command : undefined
  }

  /** @throws CodedError `NF_PORT_FAILED` with what `ip` said */
  constructor() {
    removeLeftovers()
    process.on('exit', this.#exit)
    try {
      for (const name of [this.client, this.middle, this.server]) ip('netns', 'add', name)
      this.#join(this.client, 'c0', 'in', this.clientAddress)
      this.#join(this.server, 's0', 'out', this.serverAddress)
    } catch (error) {
      this.close()
      throw error
    }
  }

  #join(namespace: string, name: string, peer: string, address: string): void {
    ip('-n', namespace, 'link', 'add', name, 'type', 'veth', 'peer', 'name', peer, 'netns', this.middle)
    ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', name)
    ip('-n', namespace, 'link', 'set', name, 'up')
    ip('-n', namespace, 'link', 'set', 'lo', 'up')
    ip('-n', this.middle, 'link', 'set', peer, 'addrgenmode', 'none', 'up')
  }

  close(): void {
    process.off('exit', this.#exit)
    for (const name of [this.client, this.middle, this.server]) spawnSync('ip', ['netns', 'del', name])
  }
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new CodedError('NF_PORT_FAILED', `ip ${args.join(' ')}: ${stderr.trim()}`)
}

function removeLeftovers(): void {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const pid = new RegExp(`^${PREFIX}(\\d+)`).exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) spawnSync('ip', ['netns', 'del', name])
  }
}
