/**
 * Whether tests of AF_XDP ports can run here.
 */

import { spawnSync } from 'node:child_process'
import { networkSkip } from './test-network.ts'
import * as sys from './sys.ts'
import { createSocketMap } from './sys-xdp.ts'

const AF_XDP = 44

/** Why they cannot; false if they can. */
export function xdpSkip(): string | false {
  const skip = networkSkip()
  if (skip !== false) return skip
  for (const [what, create] of [
    ['AF_XDP sockets', () => sys.socket(AF_XDP, sys.SOCK_RAW, 0)], ['maps of AF_XDP sockets', () => createSocketMap(1)],
  ] as const) {
    const fd = create()
    if (fd < 0) return `${what} cannot be had here: ${sys.errnoText(fd)}`
    sys.close(fd)
  }
  return false
}

/** The same, where the test also sets an interface's queues or offloads. */
export function ethtoolSkip(): string | false {
  return xdpSkip() || (spawnSync('ethtool', ['--version']).error === undefined ? false : 'ethtool is not installed')
}
