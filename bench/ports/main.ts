/**
 * `node bench/ports/main.ts [--quick] [--runs N] [--json FILE]`: what ports cost, and how many frames per second they carry.
 *
 * - copy: nanoseconds to copy a frame from a buffer into a slot, by the kernel and by `copyWithin`.
 * - one thread: both ends of a memif link in this thread in turn; per frame, what sending and receiving costs.
 * - memif: a process that sends, a process that receives. With testpmd (if there is one) at either end, for comparison.
 * - AF_PACKET and AF_XDP: both ends of a veth in this thread, in a namespace of the bench's own (as root). The kinds of ports take turns, so
 *   that their ratio holds where times do not.
 *
 * Medians of several runs. Ratios compare between machines; times do not.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { readBenchOptions, runsOf } from '../../src/cli/bench-program.ts'
import { Arena } from '../../src/memory/arena.ts'
import { loadKernels } from '../../src/memory/kernels/kernels.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { PacketPool } from '../../src/packet/packet-pool.ts'
import { AfPacketPort } from '../../src/ports/af-packet-port.ts'
import { AfXdpPort } from '../../src/ports/af-xdp-port.ts'
import type { AfXdpMode } from '../../src/ports/af-xdp-socket.ts'
import type { LinkPort } from '../../src/ports/link-port.ts'
import type { MemifPeerOptions } from '../../src/ports/memif-peer.ts'
import { MemifPort } from '../../src/ports/memif-port.ts'
import { networkSkip, TestNetwork } from '../../src/ports/test-network.ts'
import { xdpSkip } from '../../src/ports/test-xdp.ts'

const USAGE = 'node bench/ports/main.ts [--quick] [--runs N] [--json FILE]'
const { values, runs } = readBenchOptions(USAGE, {
  quick: { type: 'boolean', default: false }, runs: { type: 'string' }, json: { type: 'string' },
}, (given) => ({ values: given, runs: runsOf(given.runs, given.quick ? 3 : 7) }))
const seconds = values.quick ? 1 : 2
const BATCH = 32
const folder = mkdtempSync(join(tmpdir(), 'nfactor-bench-ports-'))
const children = new Set<ChildProcess>()
const results: { what: string, bytes: number, unit: string, value: number }[] = []

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]
}

function report(what: string, bytes: number, unit: string, value: number): void {
  results.push({ what, bytes, unit, value })
  process.stdout.write(`${what.padEnd(44)} ${String(bytes).padStart(6)} B ${value.toFixed(2).padStart(10)} ${unit}\n`)
}

// -- Copying -------------------------------------------------------------------------------------------------------------

function benchCopy(): void {
  const arena = new Arena(16 << 20)
  const from = arena.allocate('from', 256 * 2112)
  const to = arena.allocate('to', 256 * 2112)
  const times = values.quick ? 200_000 : 1_000_000
  for (const bytes of [60, 300, 1500]) {
    for (const [what, { copy }] of [['copy: kernel', loadKernels(arena)], ['copy: copyWithin', loadKernels(arena, { wasm: false })]] as const) {
      const samples = Array.from({ length: runs }, () => {
        const began = performance.now()
        // From a place that is aligned otherwise than a slot's frame.
        for (let i = 0; i < times; i++) copy(to + (i & 255) * 2112 + 130, from + (i & 255) * 2048, bytes)
        return (performance.now() - began) * 1e6 / times
      })
      report(what, bytes, 'ns', median(samples))
    }
  }
}

// -- Both ends in one thread -----------------------------------------------------------------------------------------------

class End {
  readonly pool: PacketPool
  readonly descriptors: number
  readonly frame: number
  readonly arena: Arena
  readonly port: LinkPort

  constructor(arena: Arena, port: LinkPort) {
    this.arena = arena
    this.port = port
    this.pool = new PacketPool(arena, 256, 4)
    this.descriptors = arena.allocate('batch', BATCH * DESCRIPTOR_BYTES) >> 2
    this.frame = arena.allocate('frame', 1 << 16) + 2
    arena.u8.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb6], this.frame)
    port.open()
  }

  send(bytes: number): void {
    for (let i = 0; i < BATCH; i++) this.port.send(this.frame, bytes)
    this.port.flush()
  }

  receive(): number {
    const { i32 } = this.arena
    const count = this.port.receive(this.pool, this.descriptors, BATCH)
    for (let i = 0; i < count; i++) this.pool.give(i32[this.descriptors + i * DESCRIPTOR_WORDS + Descriptor.slot])
    return count
  }
}

/** Bytes of the frames that are sent. */
const SIZES = [60, 1500] as const

function awaitUp(a: End, b: End): void {
  const until = performance.now() + 5000
  while (!(a.port.isUp && b.port.isUp && a.port.room >= BATCH) && performance.now() < until) {
    for (const { port } of [a, b]) port.maintain(performance.now() * 1000)
  }
}

/** Million frames per second from one end to the other. */
function rateOfPair(a: End, b: End, bytes: number, frames: number): number {
  const began = performance.now()
  let received = 0
  for (let sent = 0; sent < frames; sent += BATCH) {
    a.send(bytes)
    received += b.receive()
  }
  const end = performance.now() + 1000
  while (received < frames && performance.now() < end) received += b.receive()
  return received / (performance.now() - began) / 1000
}

function closePair(a: End, b: End): void {
  for (const { port } of [a, b]) port.close()
}

function benchOneThread(): void {
  const socket = join(folder, 'one.sock')
  const ends = (['server', 'client'] as const).map((role) => {
    const arena = new Arena(64 << 20)
    return new End(arena, new MemifPort({ arena, name: role, role, socket }))
  })
  const frames = values.quick ? 320_000 : 3_200_000
  awaitUp(ends[0], ends[1])
  for (const bytes of SIZES) {
    const samples = Array.from({ length: runs }, () => rateOfPair(ends[0], ends[1], bytes, frames))
    report('memif, both ends in one thread', bytes, 'Mpps', median(samples))
  }
  closePair(ends[0], ends[1])
}

/** Both ends of a veth; each with what it is compared to in turns, in one run. */
function benchInterfaces(): void {
  const skip = networkSkip()
  if (skip !== false) {
    process.stdout.write(`AF_PACKET and AF_XDP are left out: ${skip}\n`)
    return
  }
  type Create = (arena: Arena, name: string, namespace: string) => LinkPort
  const afPacket = (frameBytes?: number): Create => (arena, name, namespace) =>
    new AfPacketPort({ arena, interface: name, namespace, frameBytes })
  const afXdp = (mode: AfXdpMode): Create => (arena, name, namespace) => new AfXdpPort({ arena, interface: name, namespace, mode })
  const kinds: [string, Create][] = [['AF_PACKET', afPacket()], ['AF_PACKET, ring frames of 2048', afPacket(2048)]]
  const xdp = xdpSkip()
  if (xdp === false) kinds.push(['AF_XDP, copy', afXdp('copy')], ['AF_XDP, generic', afXdp('generic')])
  else process.stdout.write(`AF_XDP is left out: ${xdp}\n`)
  const frames = values.quick ? 64_000 : 320_000
  const samples = new Map<string, number[]>()
  for (let run = 0; run < runs; run++) {
    for (const [what, create] of kinds) {
      const network = new TestNetwork()
      try {
        const namespace = network.addNamespace()
        network.addVeth(namespace, 'left', namespace, 'right')
        const [left, right] = ['left', 'right'].map((name) => {
          const arena = new Arena(96 << 20)
          return new End(arena, create(arena, name, namespace))
        })
        awaitUp(left, right)
        for (const bytes of SIZES) {
          const key = `${what} ${bytes}`
          samples.set(key, [...samples.get(key) ?? [], rateOfPair(left, right, bytes, frames)])
        }
        closePair(left, right)
      } finally {
        network.close()
      }
    }
  }
  const rate = (what: string, bytes: number): number => median(samples.get(`${what} ${bytes}`) ?? [])
  for (const [what] of kinds) {
    for (const bytes of SIZES) {
      report(`${what}, one thread`, bytes, 'Mpps', rate(what, bytes))
      report('  to that of AF_PACKET', bytes, '', rate(what, bytes) / rate('AF_PACKET', bytes))
    }
  }
}

// -- Two processes ---------------------------------------------------------------------------------------------------------

interface Said { what: string, received: number, sent: number, at: number }

function startPeer(options: MemifPeerOptions, onSaid: (said: Said) => void = () => {}): ChildProcess {
  const program = join(import.meta.dirname, '../../src/ports/memif-peer.ts')
  const child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ['pipe', 'pipe', 'inherit'] })
  children.add(child)
  createInterface({ input: child.stdout }).on('line', (line) => { onSaid(JSON.parse(line)) })
  return child
}

function startTestpmd(socket: string, mode: string, bytes: number): ChildProcess {
  const child = spawn('dpdk-testpmd', [
    '--lcores', '0@1,1@1', '--no-huge', '-m', '256', '--no-pci', '--no-telemetry', '--file-prefix', `nfbench${process.pid}`,
    `--vdev=net_memif0,role=client,id=0,socket=${socket},socket-abstract=no,rsize=10,bsize=2048`, '--', `--forward-mode=${mode}`,
    '--port-topology=loop', '--no-mlockall', '--no-flush-rx', '--total-num-mbufs=8192', '--nb-cores=1', `--txpkts=${bytes}`,
  ], { stdio: ['pipe', 'ignore', 'ignore'] })
  children.add(child)
  return child
}

async function stop(...processes: ChildProcess[]): Promise<void> {
  for (const child of processes) {
    const gone = new Promise((resolve) => { child.on('exit', resolve) })
    child.kill('SIGKILL')
    await gone
    children.delete(child)
  }
}

/** Million frames per second that the receiver says it had, after a second to warm up. */
async function rateOf(socket: string, startSource: (socket: string) => ChildProcess): Promise<number> {
  let first: Said | undefined
  let last: Said | undefined
  let done = (): void => {}
  const finished = new Promise<void>((resolve) => { done = resolve })
  const processes = [startPeer({ port: { role: 'server', socket }, does: 'sink' }, (said) => {
    // testpmd connects when it starts, or not at all.
    if (said.what === 'open') processes.push(startSource(socket))
    if (said.what !== 'running' || said.received === 0) return
    if (first === undefined) first = said
    last = said
    if (said.at - first.at > seconds * 1000) done()
  })]
  const timer = setTimeout(done, 15_000)
  await finished
  clearTimeout(timer)
  await stop(...processes)
  return first === undefined || last === undefined || last.at === first.at ? 0
    : (last.received - first.received) / (last.at - first.at) / 1000
}

async function benchProcesses(): Promise<void> {
  const hasTestpmd = spawnSync('dpdk-testpmd', ['--version']).error === undefined && process.getuid?.() === 0
  let count = 0
  for (const bytes of [60, 1500]) {
    const sources: [string, (socket: string) => ChildProcess][] = [
      ['memif, process to process', (socket) => startPeer({ port: { role: 'client', socket }, does: 'source', bytes })],
    ]
    if (hasTestpmd) sources.push(['memif, testpmd to process', (socket) => startTestpmd(socket, 'txonly', bytes)])
    for (const [what, startSource] of sources) {
      const samples: number[] = []
      for (let run = 0; run < Math.min(runs, 3); run++) samples.push(await rateOf(join(folder, `${++count}.sock`), startSource))
      report(what, bytes, 'Mpps', median(samples))
    }
  }
}

try {
  process.stdout.write(`${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} processors, Node ${process.version}\n`)
  benchCopy()
  benchOneThread()
  benchInterfaces()
  await benchProcesses()
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`)
} finally {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
  rmSync(`/var/run/dpdk/nfbench${process.pid}`, { recursive: true, force: true })
}
