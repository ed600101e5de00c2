/**
 * What a call costs the thread that answers it: a node answers in the thread that packets go through.
 *
 *     node bench/rpc/main.ts [--calls N] [--json]
 *
 * A process of its own answers PollWorkload at UNIX sockets; this one calls, one call after another, and asks it for the processor time of
 * its thread before and after. Twice for each way to call: at once after each other (warm), and one every 10 ms (cold, as polls are).
 * All ways take turns, several rounds; the medians are printed.
 */

import { fork } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LineRpcClient, LineRpcServer } from '../../src/process/line-rpc.ts'
import { Node } from '../../src/rpc/generated/nfactor/v1/node_pb.ts'
import { RpcClient } from '../../src/rpc/rpc-client.ts'
import { RpcServer } from '../../src/rpc/rpc-server.ts'
import { serve } from '../../src/rpc/rpc-service.ts'

const ROUNDS = 5
const COLD_MS = 10

async function answerFrom(folder: string): Promise<void> {
  const began = performance.now()
  const workload = () => ({
    busyUs: performance.now() - began, asleepUs: 123_456_789, timeUs: performance.now() * 1000, received: 123_456_789, forwarded: 123_456_000,
    dropped: 789, buffered: 12, flows: 100_000, replicas: 50_000, isEmpty: false,
  })
  const line = new LineRpcServer(join(folder, 'line.sock'), { PollWorkload: workload })
  const server = new RpcServer({ socket: join(folder, 'rpc.sock'), services: [serve(Node, { pollWorkload: workload })] })
  await line.open()
  await server.open()
  process.on('message', () => {
    const { user, system } = process.threadCpuUsage()
    process.send?.(user + system)
  })
  process.on('disconnect', () => { process.exit() })
  process.send?.(0)
}

async function measure(folder: string, calls: number): Promise<{ way: string, warmUs: number, coldUs: number }[]> {
  const child = fork(fileURLToPath(import.meta.url), ['--serve', folder])
  const ask = (isQuestion = true): Promise<number> => new Promise((resolve) => {
    child.once('message', (value) => { resolve(value as number) })
    if (isQuestion) child.send('cpu')
  })
  await ask(false)
  const socket = join(folder, 'rpc.sock')
  const line = await LineRpcClient.connect(join(folder, 'line.sock'))
  const clients = (['json', 'connect', 'grpc'] as const).map((protocol) => new RpcClient({ socket }, { protocol }))
  const [json, http2, grpc] = clients.map((client) => client.service(Node))
  const ways: [string, () => Promise<unknown>][] = [
    ['lines of JSON', () => line.call('PollWorkload')],
    ['Connect, HTTP/1.1, JSON', () => json.pollWorkload({})],
    ['Connect, HTTP/2, binary', () => http2.pollWorkload({})],
    ['gRPC', () => grpc.pollWorkload({})],
  ]
  const costs = ways.map(([way]) => ({ way, warm: [] as number[], cold: [] as number[] }))
  for (const [, call] of ways) for (let i = 0; i < calls; i++) await call()
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, [, call]] of ways.entries()) {
      let before = await ask()
      for (let i = 0; i < calls; i++) await call()
      costs[index].warm.push((await ask() - before) / calls)
      before = await ask()
      const cold = Math.ceil(calls / 50)
      for (let i = 0; i < cold; i++) {
        await call()
        await new Promise((resolve) => { setTimeout(resolve, COLD_MS) })
      }
      costs[index].cold.push((await ask() - before) / cold)
    }
  }
  line.close()
  for (const client of clients) client.close()
  child.disconnect()
  return costs.map(({ way, warm, cold }) => ({ way, warmUs: median(warm), coldUs: median(cold) }))
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]
}

const { values } = parseArgs({ options: {
  calls: { type: 'string', default: '5000' }, json: { type: 'boolean', default: false }, serve: { type: 'string' } } })
if (values.serve !== undefined) {
  await answerFrom(values.serve)
} else {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-bench-'))
  try {
    const costs = await measure(folder, Number(values.calls))
    if (values.json) console.log(JSON.stringify(costs))
    else {
      console.log('processor time of the answering thread for one PollWorkload, µs')
      for (const { way, warmUs, coldUs } of costs) {
        console.log(`${way.padEnd(26)} warm ${warmUs.toFixed(0).padStart(5)}   one every ${COLD_MS} ms ${coldUs.toFixed(0).padStart(5)}`)
      }
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
