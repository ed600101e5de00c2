/**
 * A process with a test's server, to be killed. Tells its socket to who has started it.
 */

import { rmSync } from 'node:fs'
import { RpcTestPeer } from './rpc-test-peer.ts'

const peer = new RpcTestPeer()
await peer.server.open()
process.send?.(peer.socket)
process.on('disconnect', () => {
  rmSync(peer.folder, { recursive: true })
  process.exit()
})
