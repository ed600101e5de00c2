/**
 * `nfactor bench switch`: a virtual switch against a runtime's engine with the standard chain, on the same frames in one run.
 *
 *     node bench/vswitch/main.ts [--quick] [--flows 10000,100000] [--chunks 300] [--arrivals 1000000] [--json FILE]
 *
 *     external -> link    receive, parse, hash, find the entry, rewrite addresses, send on the owner's link
 *     link -> external    the same back: the sender must be the releaser, the addresses are restored
 *     engine              monitor, firewall, http (bench/engine)
 *
 * Frames are those of the engine bench (bench/engine/trace.ts), a chunk of 4,096 at a time through each of the three in turn. Ports
 * copy nothing, so that what is compared is the nodes; the switch takes and gives back packet slots all the same. Then flows come and
 * go through a cluster of real nodes, and what has grown by the end is told.
 */

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { CodedError } from '../../src/base/coded-error.ts'
import { runBenchProgram } from '../../src/cli/bench-program.ts'
import { Arena } from '../../src/memory/arena.ts'
import { AnnounceDone, ConfigApplied } from '../../src/messages/announcing.ts'
import type { ClusterConfig as Config } from '../../src/messages/cluster-config.ts'
import { MessageField } from '../../src/messages/message.ts'
import { createControlPlane } from '../../src/node/control-plane.ts'
import { DataLink } from '../../src/node/data-link.ts'
import { createSwitchNode } from '../../src/node/switch-node.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import type { Port } from '../../src/packet/port.ts'
import { adviseHugePages } from '../../src/ports/huge-pages.ts'
import { setEngineFlags } from '../../src/process/engine-flags.ts'
import { roundRobin } from '../../src/vswitch/placement/round-robin.ts'
import { ENTRY_BYTES } from '../../src/vswitch/switch-table.ts'
import { churnCluster, type Kept } from '../cluster/cluster-churn.ts'
import { CHUNK_PACKETS, SLOT_BYTES, Trace } from '../engine/trace.ts'
import { engineFor } from '../engine/variants.ts'

const SWITCH = 1
const RUNTIME = 11
const frameWord = Descriptor.frame
const lengthWord = Descriptor.length
const wireLengthWord = Descriptor.wireLength
const slotWord = Descriptor.slot
const linkTypeWord = Descriptor.linkType

function configOf(version: number, runtimes: Config['runtimes']): Config {
  return { version, clusterId: 1, switches: [{ id: SWITCH, incarnation: 1, side: 'ingress', isHome: true }], runtimes }
}

/** A port that gives the frames of a chunk, where they lie, and takes all that it is given. Our own frames go by a queue. */
class TracePort implements Port {
  next = 0
  end = 0
  sent = 0
  readonly room = 1e6
  readonly inbox: Uint8Array[] = []
  outbox: Uint8Array[] = []
  readonly #arena: Arena
  readonly #trace: Trace | null

  constructor(arena: Arena, trace: Trace | null) {
    this.#arena = arena
    this.#trace = trace
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32 } = this.#arena
    if (this.inbox.length > 0) return this.#receiveOwn(pool, descriptors)
    const trace = this.#trace
    if (trace === null) return 0
    const count = Math.min(max, this.end - this.next)
    for (let i = 0, d = descriptors; i < count; i++, d += DESCRIPTOR_WORDS) {
      const length = i32[trace.lengths + this.next]
      i32[d + frameWord] = trace.pool + this.next++ * SLOT_BYTES + 2
      i32[d + lengthWord] = length
      i32[d + wireLengthWord] = length
      i32[d + slotWord] = pool.take(length)
      i32[d + linkTypeWord] = 1
    }
    return count
  }

  #receiveOwn(pool: PacketPool, d: number): number {
    const { i32, u8 } = this.#arena
    const bytes = this.inbox.shift() as Uint8Array
    const slot = pool.take(bytes.length)
    u8.set(bytes, slot + SLOT_FRAME_OFFSET)
    i32[d + frameWord] = slot + SLOT_FRAME_OFFSET
    i32[d + lengthWord] = bytes.length
    i32[d + wireLengthWord] = bytes.length
    i32[d + slotWord] = slot
    i32[d + linkTypeWord] = 1
    return 1
  }

  send(): boolean {
    this.sent++
    return true
  }

  sendReserved(frame: number, length: number): boolean {
    this.outbox.push(this.#arena.u8.slice(frame, frame + length))
    return true
  }
}

interface Row { flows: number; name: string; median: number; low: number; high: number; ratio: number }

async function compare(flows: number, chunks: number): Promise<{ rows: Row[]; tableBytes: number }> {
  const arena = new Arena()
  adviseHugePages(arena)
  const engine = await engineFor(arena, { variant: 'chain', flows, distribution: 'uniform', chunks, wasm: true })
  const trace = new Trace(arena, { flows, distribution: 'uniform', seed: 20260101 })
  const external = new TracePort(arena, trace)
  const link = new TracePort(arena, trace)
  const runtimePort = new TracePort(arena, null)
  const control = new TracePort(arena, null)
  const node = createSwitchNode({
    arena, id: SWITCH, incarnation: 1, clusterId: 1, policy: roundRobin(), seed: 1, config: configOf(1, []),
    limits: { entries: Math.ceil(flows * 1.01) + 16, packets: 512, largePackets: 1 },
    ports: { external, control, links: new Map([[RUNTIME, link]]) },
  })
  node.notifyClusterConfig(configOf(2, [{ id: RUNTIME, incarnation: 2, isDraining: false }]), 0)
  const said = new TracePort(arena, null)
  const plane = createControlPlane({ arena, clusterId: 1, self: RUNTIME, selfIncarnation: 2, port: said, onMessage: () => undefined })
  plane.setPeers([{ id: SWITCH, incarnation: 1 }])
  const channel = plane.channel(SWITCH)
  if (channel === null) throw new Error('the runtime has no session to the switch')
  for (const { type, bytes } of [AnnounceDone, ConfigApplied]) {
    const at = channel.begin(bytes, true)
    arena.u8[at] = type
    arena.u32[(at + MessageField.epoch) >> 2] = 2
    channel.commit()
  }
  plane.transmit(1)
  control.inbox.push(...said.outbox)
  const runtime = new DataLink({ arena, clusterId: 1, self: RUNTIME, selfIncarnation: 2, peer: SWITCH, port: runtimePort,
    isSwitch: false, onRefused: () => undefined,
    onMessage: () => {} })
  runtime.setPeer(1)
  const pool = new PacketPool(arena, 64, 1)
  const batch = arena.allocate('runtime batch', 32 * DESCRIPTOR_WORDS * 4) >> 2

  const { i32 } = arena
  let now = 1e6
  const run = (port: TracePort, other: TracePort, count: number): number => {
    port.next = 0
    port.end = count
    other.sent = 0
    const start = performance.now()
    while (port.next < port.end) {
      now += 13
      node.poll(now)
    }
    const time = (performance.now() - start) * 1e6 / count
    if (other.sent === count) return time
    throw new Error(`${other.sent} of ${count} packets came through: ${JSON.stringify(node.dropReasons())}`)
  }
  /** The runtime's side of the in-band session answers. */
  const answer = (): void => {
    for (let turn = 0; turn < 4 || link.outbox.length > 0; turn++) {
      runtimePort.inbox.push(...link.outbox)
      link.outbox = []
      while (runtime.receive(pool, batch, 32) > 0 || runtime.hasPending) runtime.deliver(now)
      runtime.transmit(now)
      link.inbox.push(...runtimePort.outbox)
      runtimePort.outbox = []
      now += 50_000
      node.poll(now)
    }
  }
  const { process: runBatch, clearOutput } = engine
  const runEngine = (count: number): number => {
    const start = performance.now()
    for (let first = 0; first < count; first += 32) {
      const packets = Math.min(32, count - first)
      now += 3
      for (let i = 0, d = engine.descriptor(0); i < packets; i++, d += DESCRIPTOR_WORDS) {
        i32[d + frameWord] = trace.pool + (first + i) * SLOT_BYTES + 2
        i32[d + lengthWord] = i32[trace.lengths + first + i]
        i32[d + slotWord] = 0
        i32[d + linkTypeWord] = 1
      }
      engine.batchCount = packets
      runBatch(now)
      clearOutput()
    }
    return (performance.now() - start) * 1e6 / count
  }

  for (let flow = 0; flow < flows;) {
    flow = trace.openNext(flow)
    // A part at a time: a session has so much room.
    for (let from = 0; from < trace.count; from += 384) {
      external.next = from
      external.end = Math.min(from + 384, trace.count)
      while (external.next < external.end) node.poll(now += 13)
      answer()
    }
    runEngine(trace.count)
  }
  if (node.entries !== flows) throw new Error(`${node.entries} of ${flows} flows opened: ${JSON.stringify(node.dropReasons())}`)
  const inward: number[] = []
  const outward: number[] = []
  const chain: number[] = []
  for (let chunk = 0; chunk < chunks; chunk++) {
    trace.next()
    const measures = [(): void => { inward.push(run(external, link, CHUNK_PACKETS)) },
      (): void => { outward.push(run(link, external, CHUNK_PACKETS)) }, (): void => { chain.push(runEngine(CHUNK_PACKETS)) }]
    for (let i = 0; i < 3; i++) (measures[(chunk + i) % 3] as () => void)()
  }
  const rowOf = (name: string, all: number[]): Row => {
    const times = all.slice(all.length / 3).sort((a, b) => a - b)
    const at = (share: number): number => times[Math.floor((times.length - 1) * share)] as number
    return { flows, name, median: at(0.5), low: at(0.1), high: at(0.9), ratio: 1 }
  }
  const rows = [rowOf('engine, standard chain', chain), rowOf('switch, external -> link', inward),
    rowOf('switch, link -> external', outward)]
  for (const row of rows) row.ratio = row.median / (rows[0] as Row).median
  const tableBytes = arena.regions.filter(({ name }) => name.startsWith('switch table'))
    .reduce((sum, { bytes }) => sum + bytes, 0)
  return { rows, tableBytes: tableBytes / flows }
}

const HELP = `nfactor bench switch [--quick] [--flows N,N,...] [--chunks N] [--arrivals N] [--json FILE]

Time per packet of a virtual switch against the engine with the standard chain, memory per entry, and what is left in a
cluster after so many flows have come and gone (--arrivals).`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: {
    quick: { type: 'boolean', default: false }, flows: { type: 'string' }, chunks: { type: 'string' }, arrivals: { type: 'string' },
    json: { type: 'string' }, help: { type: 'boolean', default: false },
  } })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const counts = (values.flows ?? '10000,100000').split(',').map(Number)
  const chunks = Number(values.chunks ?? (values.quick ? 100 : 300))
  const arrivals = Number(values.arrivals ?? (values.quick ? 100_000 : 1_000_000))
  if (!(chunks >= 3 && arrivals >= 0) || counts.some((flows) => !(flows >= 100 && flows <= 1_000_000))) {
    throw new CodedError('NF_USAGE', 'bench switch: --flows takes numbers from 100 to 1000000, --chunks a number from 3')
  }
  setEngineFlags()
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  console.log(`${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}; time per packet, median (10th to 90th percentile)\n`)
  const rows: Row[] = []
  let table = 0
  for (const flows of counts) {
    const found = await compare(flows, chunks)
    table = Math.max(table, found.tableBytes)
    rows.push(...found.rows)
    console.log(`${flows.toLocaleString('en')} flows`)
    for (const { name, median, low, high, ratio } of found.rows) {
      console.log(`  ${name.padEnd(26)} ${median.toFixed(0).padStart(5)} ns  (${low.toFixed(0)} - ${high.toFixed(0)})`.padEnd(56) +
        `${ratio.toFixed(2)} x`)
    }
  }
  console.log(`\nmemory: ${ENTRY_BYTES} B per entry and up to ${table.toFixed(0)} B of tables`)
  const churn = arrivals === 0 ? null : churnCluster(arrivals, collect)
  if (churn !== null) {
    const { before, after } = churn
    const change = (name: keyof Kept): string => `${before[name].toLocaleString('en')} → ${after[name].toLocaleString('en')}`
    console.log(`
${arrivals.toLocaleString('en')} flows through two switches and two runtimes, up to ${churn.alive.toLocaleString('en')} alive, ${
  churn.us.toFixed(1)} µs of CPU time each;
when none is left, before and after:
  JavaScript heap  ${(before.heapBytes / 1024).toFixed(0)} → ${(after.heapBytes / 1024).toFixed(0)} KiB
  flow records ever used  ${change('records')}
  in use: flows and entries ${change('flows')}, packet slots ${change('slots')}, extents ${change('extents')}`)
  }
  if (values.json !== undefined) {
    const result = { node: process.version, cpu: cpus()[0]?.model, rows, entryBytes: ENTRY_BYTES, tableBytes: table, churn }
    writeFileSync(values.json, `${JSON.stringify(result, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runBenchProgram(main)
