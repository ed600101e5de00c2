/**
 * The standard chain on a wire: HTTP between two namespaces, through packet ports and an engine, with the offloads that interfaces have
 * by default. The firewall drops what does not fit its connection; nothing does.
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { after, test } from 'node:test'
import { defaultLimits, defaultTimeouts, BATCH_PACKETS } from '../base/limits.ts'
import { Arena } from '../memory/arena.ts'
import type { ChainMember } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import type { DecodedRecord } from '../nf/record-buffer.ts'
import firewall from '../nfs/firewall/firewall.ts'
import http from '../nfs/http/http.ts'
import monitor from '../nfs/monitor/monitor.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { createEngine, defaultPolicy } from '../runtime/engine.ts'
import { AfPacketPort } from './af-packet-port.ts'
import { networkSkip, TestNetwork, until } from './test-network.ts'

const skip = networkSkip()
const network = new TestNetwork()
const children = new Set<ChildProcess>()
after(() => {
  for (const child of children) child.kill('SIGKILL')
  network.close()
})

const SERVER = `
  require('http').createServer((request, response) => {
    const bytes = Number(request.url.slice(1))
    response.setHeader('Content-Length', bytes)
    response.end(Buffer.alloc(bytes, 'x'))
  }).listen(8080, () => console.log('ready'))`

/** Asks for so many bytes in each of the requests, a few of them at a time, over connections that are used again. */
const CLIENT = `
  const http = require('http'), agent = new http.Agent({ keepAlive: true, maxSockets: 4 })
  const get = (bytes) => new Promise((resolve, reject) => http.get({ host: '10.9.0.2', port: 8080, path: '/' + bytes, agent }, (response) => {
    let length = 0
    response.on('data', (data) => { length += data.length }).on('end', () => resolve(length === bytes))
  }).on('error', reject))
  Promise.all(process.argv.slice(1).map(Number).map(get)).then((right) => { console.log(right.every(Boolean)); agent.destroy() })`

function start(namespace: string, program: string, ...args: string[]): { output: string, status: number | null, child: ChildProcess } {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const state = { child, output: '', status: null as number | null }
  children.add(child)
  child.stdout.on('data', (data: Buffer) => { state.output += String(data) })
  child.on('exit', (status) => { state.status = status ?? -1; children.delete(child) })
  return state
}

function member(definition: AnyNfDefinition, config: unknown): ChainMember {
  return { definition, config: definition.config === undefined ? config : definition.config.parse(config) }
}

for (const segments of ['pass', 'cut'] as const) {
  test(`HTTP through monitor, firewall and http, segments: ${segments}`, { skip, timeout: 60_000 }, async () => {
    const [client, server, middle] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
    network.addVeth(client, 'eth0', middle, 'left')
    network.addVeth(server, 'eth0', middle, 'right')
    network.addAddresses(client, 'eth0', '10.9.0.1/24')
    network.addAddresses(server, 'eth0', '10.9.0.2/24')
    const arena = new Arena(512 << 20)
    const ports = ['left', 'right'].map((name) => new AfPacketPort({ arena, interface: name, namespace: middle, segments }))
    for (const port of ports) port.open()
    const engine = createEngine({
      arena, chain: [member(monitor, {}), member(firewall, { tracking: { invalid: 'drop' } }), member(http, {})],
      limits: { ...defaultLimits, flows: 1000, packets: 4096, extentBytes: 16 << 20, aliases: 1024 },
      timeouts: defaultTimeouts, policy: defaultPolicy, seed: 1,
    })
    const { i32 } = arena
    const records: DecodedRecord[] = []
    let longest = 0
    let refused = 0
    const turn = (): void => {
      const now = Date.now() * 1000
      for (let round = 0, count = -1; round < 64 && count !== 0; round++) {
        count = 0
        for (const [side, port] of ports.entries()) {
          const got = engine.batchCount = port.receive(engine.pool, engine.descriptor(0), BATCH_PACKETS)
          if (got === 0) continue
          count += got
          for (let i = 0; i < got; i++) {
            const d = engine.descriptor(i)
            i32[d + Descriptor.port] = side
            longest = Math.max(longest, i32[d + Descriptor.length])
          }
          engine.process(now)
          for (let i = 0; i < engine.outputCount; i++) {
            const d = i32[engine.outputs + i]
            if (!ports[1 - side].send(i32[d + Descriptor.frame], i32[d + Descriptor.length])) refused++
          }
          engine.clearOutput()
          engine.records.drain((record) => { records.push({ ...record, fields: { ...record.fields } }) })
        }
        for (const port of ports) port.flush()
      }
      for (const port of ports) port.maintain(performance.now() * 1000)
      engine.advance(now, 1000)
    }

    const serving = start(server, SERVER)
    await until('the server is ready', turn, () => serving.output.includes('ready') && ports.every((port) => port.isUp))
    const sizes = Array.from({ length: 40 }, (_, i) => (i % 10 === 0 ? 1_000_000 : i * 500) + i)
    const asking = start(client, CLIENT, ...sizes.map(String))
    await until('all has been fetched', turn, () => asking.status !== null)
    assert.equal(asking.output, 'true\n')

    const { statistics } = engine
    const drops = Array.from(engine.dropCounts, (count, i) => `${engine.chain.dropReasons[i]} ${count}`).filter((text) => !text.endsWith(' 0'))
    assert.equal(statistics.dropped, 0, drops.join(', '))
    assert.equal(statistics.nfErrors, 0)
    assert.equal(refused, 0)
    assert.equal(segments === 'pass', longest > 1514)
    const seen = JSON.stringify(records.map(({ fields }) => fields))
    for (const size of sizes) assert.ok(seen.includes(`/${size}"`), `the request for ${size} bytes: ${seen.slice(0, 500)}`)
    for (const port of ports) port.close()
    assert.equal(engine.pool.used, engine.buffered)
    serving.child.kill('SIGKILL')
  })
}
