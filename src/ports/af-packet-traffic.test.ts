/**
 * AF_PACKET ports between real hosts: two namespaces with kernels' own TCP and UDP, and this process in between.
 *
 *     client namespace ── veth ── [ left port ─▶ this process ─▶ right port ] ── veth ── server namespace
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { foldSum } from '../wire/checksum.ts'
import { AfPacketPort, type AfPacketPortOptions } from './af-packet-port.ts'
import { loadFrameBytes } from './kernels/frame-bytes.ts'
import type { LinkPort } from './link-port.ts'
import { MemifPort } from './memif-port.ts'
import { networkSkip, TestNetwork, until } from './test-network.ts'
import { locateTcp, pseudoHeaderSum, TcpPlace } from './virtio-net-header.ts'

const skip = networkSkip()
const network = new TestNetwork()
const folder = mkdtempSync(join(tmpdir(), 'nfactor-traffic-'))
const children = new Set<ChildProcess>()
after(() => {
  for (const child of children) child.kill('SIGKILL')
  network.close()
  rmSync(folder, { recursive: true, force: true })
})

/** A process with a program of its own in a namespace. */
function start(namespace: string, program: string, ...args: string[]): { child: ChildProcess, output: string, status: number | null } {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const state = { child, output: '', status: null as number | null }
  children.add(child)
  child.stdout.on('data', (data: Buffer) => { state.output += String(data) })
  child.stderr.on('data', (data: Buffer) => { state.output += String(data) })
  child.on('exit', (status) => { state.status = status ?? -1; children.delete(child) })
  return state
}

/** Takes connections at port 9000 and sends back, at the end, the digest of what came, then as many bytes again. */
const SERVER = `
  const { createHash } = require('crypto'), net = require('net')
  net.createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256'); let bytes = 0
    socket.on('data', (data) => { hash.update(data); bytes += data.length })
    socket.on('end', () => { socket.write(hash.digest('hex')); socket.end(Buffer.alloc(bytes, 'x')) })
  }).listen(9000, '::', () => console.log('ready'))`

/** Sends BYTES to HOST, and says how many came back, whether the digest was right, and how long it took. */
const CLIENT = `
  const { createHash, randomBytes } = require('crypto'), net = require('net')
  const [host, bytes] = [process.argv[1], Number(process.argv[2])]
  const data = randomBytes(bytes), began = performance.now()
  let back = Buffer.alloc(0)
  const socket = net.connect({ host, port: 9000, allowHalfOpen: true }, () => socket.end(data))
  const parts = []
  socket.on('data', (part) => parts.push(part))
  socket.on('end', () => {
    const all = Buffer.concat(parts)
    const right = all.subarray(0, 64).toString() === createHash('sha256').update(data).digest('hex')
    console.log(JSON.stringify({ right, back: all.length - 64, ms: Math.round(performance.now() - began) }))
  })
  socket.on('error', (error) => { console.log(String(error)); process.exit(1) })`

/** What the middle has seen of TCP. */
const nothingSeen = { largest: 0, segmentBytesSeen: 0, wrongChecksums: 0, tcpFrames: 0 }

/** The process in between. */
class Middle {
  readonly client = network.addNamespace()
  readonly server = network.addNamespace()
  readonly middle = network.addNamespace()
  readonly arena = new Arena(192 << 20)
  readonly pool = new PacketPool(this.arena, 2048, 128)
  readonly descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly ports: [AfPacketPort, AfPacketPort]
  /** With a hop: the two ends of a shared-memory link between the ports. */
  readonly hop: readonly [MemifPort, MemifPort] | null
  readonly seen = { ...nothingSeen }
  readonly #bytes = loadFrameBytes(this.arena)
  readonly #place = new TcpPlace()

  constructor(options: Partial<AfPacketPortOptions>, mtus: readonly [number, number], hasHop: boolean) {
    network.addVeth(this.client, 'eth0', this.middle, 'left', mtus[0])
    network.addVeth(this.server, 'eth0', this.middle, 'right', mtus[1])
    network.addAddresses(this.client, 'eth0', '10.7.0.1/24', 'fd07::1/64')
    network.addAddresses(this.server, 'eth0', '10.7.0.2/24', 'fd07::2/64')
    const create = (name: string): AfPacketPort => new AfPacketPort({
      arena: this.arena, interface: name, namespace: this.middle, rxFrames: 510, txFrames: 255, ...options,
    })
    this.ports = [create('left'), create('right')]
    for (const port of this.ports) port.open()
    const socket = join(folder, `${this.middle}.sock`)
    const link = (role: 'server' | 'client'): MemifPort => new MemifPort({ arena: this.arena, name: role, role, socket })
    this.hop = hasHop ? [link('server'), link('client')] : null
    for (const port of this.hop ?? []) port.open()
  }

  get #all(): readonly LinkPort[] {
    return this.hop === null ? this.ports : [...this.ports, ...this.hop]
  }

  get isUp(): boolean {
    return this.#all.every((port) => port.isUp)
  }

  /** Passes a batch on from one port to another. */
  #pass(from: LinkPort, to: LinkPort): number {
    const { i32 } = this.arena
    const got = from.receive(this.pool, this.descriptors, 32)
    for (let i = 0; i < got; i++) {
      const d = this.descriptors + i * DESCRIPTOR_WORDS
      this.#check(i32[d + Descriptor.frame], i32[d + Descriptor.length])
      to.send(i32[d + Descriptor.frame], i32[d + Descriptor.length])
      this.pool.give(i32[d + Descriptor.slot])
    }
    return got
  }

  #check(frame: number, length: number): void {
    const { seen } = this
    seen.largest = Math.max(seen.largest, length)
    const place = this.#place
    if (!locateTcp(this.arena, frame, length, place)) return
    seen.tcpFrames++
    const sum = pseudoHeaderSum(this.#bytes, frame, place) + this.#bytes.sumBytes(frame + place.transport, place.end - place.transport)
    if (foldSum(sum) !== 0xffff) seen.wrongChecksums++
    if (length > 1518 && this.arena.u16[(frame - 2) >> 1] > 0) seen.segmentBytesSeen++
  }

  turn = (): void => {
    const { ports, hop } = this
    const all = this.#all
    for (let round = 0; round < 64; round++) {
      let count = 0
      for (const [here, there] of [[0, 1], [1, 0]]) {
        if (hop === null) count += this.#pass(ports[here], ports[there])
        else count += this.#pass(ports[here], hop[here]) + this.#pass(hop[there], ports[there])
      }
      for (const port of all) port.flush()
      if (count === 0) break
    }
    for (const port of all) port.maintain(performance.now() * 1000)
  }

  close(): void {
    for (const port of this.#all) port.close()
    assert.equal(this.pool.used, 0)
  }
}

async function transfer(middle: Middle, host: string, bytes: number): Promise<{ right: boolean, back: number, ms: number }> {
  const server = start(middle.server, SERVER)
  try {
    // The kernel takes its time to find that an interface has a carrier.
    await until('the server is ready', middle.turn, () => server.output.includes('ready') && middle.isUp)
    const client = start(middle.client, CLIENT, host, String(bytes))
    await until(`the transfer (${JSON.stringify(middle.ports.map((port) => port.statistics))})`, middle.turn, () => client.status !== null)
    assert.equal(client.status, 0, client.output)
    return JSON.parse(client.output)
  } finally {
    server.child.kill('SIGKILL')
    await until('the server is gone', middle.turn, () => server.status !== null)
  }
}

const BYTES = 8 << 20

for (const [what, options, mtus, hasHop] of [
  ['segments passed on', {}, [1500, 1500], false],
  ['segments cut', { segments: 'cut' }, [1500, 1500], false],
  ['segments passed on to a smaller MTU', {}, [9000, 1500], false],
  ['segments passed on, jumbo frames', {}, [9000, 9000], false],
  ['over a shared-memory link, segments passed on', {}, [1500, 1500], true],
  ['over a shared-memory link, segments passed on to a smaller MTU', {}, [9000, 1500], true],
] as const) {
  for (const host of ['10.7.0.2', 'fd07::2']) {
    test(`TCP with the offloads that are there by default, ${what}, to ${host}`, { skip, timeout: 60_000 }, async () => {
      const middle = new Middle(options, mtus, hasHop)
      try {
        const { right, back, ms } = await transfer(middle, host, BYTES)
        assert.ok(right)
        assert.equal(back, BYTES)
        const { seen } = middle
        assert.ok(seen.tcpFrames > 100)
        assert.equal(seen.wrongChecksums, 0)
        if ('segments' in options) {
          assert.ok(seen.largest <= 1514, `${seen.largest} bytes`)
        } else {
          assert.ok(seen.largest > 1514 && seen.segmentBytesSeen > 0, 'long segments were seen, with their size')
        }
        for (const port of middle.ports) assert.equal(port.statistics.rxInvalid, 0)
        if (process.env.NFACTOR_PORT_RATES !== undefined) {
          console.log(`${what}, ${host}: ${(2 * BYTES * 8 / ms / 1e6).toFixed(2)} Gbit/s, ${JSON.stringify(seen)}`)
        }
      } finally {
        middle.close()
      }
    })
  }
}
