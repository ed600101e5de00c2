/**
 * API thread: the server of a process's public API (`api-door.ts` starts it, with the first caller). It listens beside the door's socket
 * and then takes that one's name, so that callers come to it directly; those who were there before, and those of TCP, are handed on.
 */

import { renameSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { CodedError } from '../base/coded-error.ts'
import { RpcServer } from '../rpc/rpc-server.ts'
import type { ApiThreadData } from './api-door.ts'
import { apiOf } from './api-services.ts'

const { owner, socket, tcp } = workerData as ApiThreadData
const beside = `${socket}.new`
const { services, isAlive, isReady } = apiOf(owner)
const server = new RpcServer({
  services, isAlive, isReady, socket: beside,
  ...tcp !== undefined && { tcp: { port: 0, path: tcp.path, tls: tcp.tls, access: { token: tcp.token } } },
  onDefect: (reason) => { process.stderr.write(`the API has a defect: ${reason instanceof Error ? reason.stack ?? '' : String(reason)}\n`) },
})
try {
  await server.open()
  renameSync(beside, socket)
} catch (error) {
  // Errors do not keep their class on their way to another thread.
  throw error instanceof CodedError ? new Error(error.toLine()) : error
}
parentPort?.once('message', (graceMs: number) => {
  void server.close(graceMs).then(() => { process.exit() })
})
parentPort?.postMessage('open')
