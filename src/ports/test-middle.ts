/**
 * Two hosts with this process in between, for tests with kernels' own TCP and UDP: a namespace each, and one for the ports.
 *
 *     client namespace ── veth ── [ left port ─▶ this process ─▶ right port ] ── veth ── server namespace
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { foldSum } from '../wire/checksum.ts'
import { loadFrameBytes } from './kernels/frame-bytes.ts'
import type { LinkPort } from './link-port.ts'
import { TestNetwork, until } from './test-network.ts'
import { locateTcp, pseudoHeaderSum, TcpPlace } from './virtio-net-header.ts'

const children = new Set<ChildProcess>()

/** Ends every program that `startIn` has started. */
export function endPrograms(): void {
  for (const child of children) child.kill('SIGKILL')
}

/** Starts a command in a namespace. */
export function startIn(namespace: string, ...command: string[]): { child: ChildProcess, output: string, status: number | null } {
  const child = spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
  const state = { child, output: '', status: null as number | null }
  children.add(child)
  child.stdout.on('data', (data: Buffer) => { state.output += String(data) })
  child.stderr.on('data', (data: Buffer) => { state.output += String(data) })
  child.on('exit', (status) => { state.status = status ?? -1; children.delete(child) })
  return state
}

/** The command that runs a JavaScript program. */
export function nodeProgram(program: string, ...args: string[]): string[] {
  return [process.execPath, '-e', program, ...args]
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

export interface TestMiddleOptions<P extends LinkPort> {
  readonly network: TestNetwork
  /** Makes the port of an interface of this name. */
  readonly createPort: (arena: Arena, name: string, namespace: string) => P
  /** MTU on either side. */
  readonly mtus?: readonly [number, number]
  /** Makes the two ends of a link between the ports. */
  readonly createHop?: (arena: Arena) => readonly [LinkPort, LinkPort]
  /** Queues of the interfaces, in both directions. */
  readonly queues?: number
}

/** The process in between. */
export class TestMiddle<P extends LinkPort> {
  readonly client: string
  readonly server: string
  readonly middle: string
  readonly arena = new Arena(192 << 20)
  readonly pool = new PacketPool(this.arena, 2048, 128)
  readonly descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly ports: readonly [P, P]
  readonly hop: readonly [LinkPort, LinkPort] | null
  readonly seen = { ...nothingSeen }
  readonly #bytes = loadFrameBytes(this.arena)
  readonly #place = new TcpPlace()

  constructor({ network, createPort, mtus = [1500, 1500], createHop, queues = 1 }: TestMiddleOptions<P>) {
    const [client, server, middle] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
    this.client = client
    this.server = server
    this.middle = middle
    network.addVeth(client, 'eth0', middle, 'left', mtus[0], queues)
    network.addVeth(server, 'eth0', middle, 'right', mtus[1], queues)
    network.addAddresses(client, 'eth0', '10.7.0.1/24', 'fd07::1/64')
    network.addAddresses(server, 'eth0', '10.7.0.2/24', 'fd07::2/64')
    this.ports = [createPort(this.arena, 'left', middle), createPort(this.arena, 'right', middle)]
    this.hop = createHop?.(this.arena) ?? null
    for (const port of this.#all) port.open()
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

/** A client sends bytes to a server and gets as many back. */
export async function transfer<P extends LinkPort>(
  middle: TestMiddle<P>, host: string, bytes: number,
): Promise<{ right: boolean, back: number, ms: number }> {
  const server = startIn(middle.server, ...nodeProgram(SERVER))
  try {
    // The kernel takes its time to find that an interface has a carrier.
    await until('the server is ready', middle.turn, () => server.output.includes('ready') && middle.isUp)
    const client = startIn(middle.client, ...nodeProgram(CLIENT, host, String(bytes)))
    await until(`the transfer (${JSON.stringify(middle.ports.map((port) => port.statistics))})`, middle.turn, () => client.status !== null)
    assert.equal(client.status, 0, client.output)
    return JSON.parse(client.output)
  } finally {
    server.child.kill('SIGKILL')
    await until('the server is gone', middle.turn, () => server.status !== null)
  }
}
