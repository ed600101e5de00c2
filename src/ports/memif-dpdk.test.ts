/**
 * memif against DPDK's testpmd, as it comes with Debian: it sends to us, it echoes what we send, in both roles.
 */

import assert from 'node:assert/strict'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { MemifPort } from './memif-port.ts'

const isInstalled = spawnSync('dpdk-testpmd', ['--version']).error === undefined
const skip = process.platform !== 'linux' ? 'memif needs Linux'
  : !isInstalled ? 'dpdk-testpmd is not installed'
    : process.getuid?.() !== 0 ? 'testpmd needs root here' : false

const folder = mkdtempSync(join(tmpdir(), 'nfactor-memif-dpdk-'))
const children = new Set<ChildProcess>()
after(() => {
  for (const child of children) child.kill('SIGKILL')
  // What a killed DPDK leaves behind.
  for (let i = 0; i <= count; i++) rmSync(`/var/run/dpdk/${prefix}${i}`, { recursive: true, force: true })
  rmSync(folder, { recursive: true, force: true })
})

const prefix = `nfactor${process.pid}n`
let count = 0

function startTestpmd(role: 'client' | 'server', socket: string, mode: string, ...more: string[]): ChildProcess & { output: string } {
  const child = spawn('dpdk-testpmd', [
    '--lcores', '0@0,1@0', '--no-huge', '-m', '256', '--no-pci', '--no-telemetry', '--file-prefix', `${prefix}${++count}`,
    `--vdev=net_memif0,role=${role},id=3,socket=${socket},socket-abstract=no,rsize=9,bsize=2048`,
    '--', `--forward-mode=${mode}`, '--port-topology=loop', '--no-mlockall', '--no-flush-rx', '--total-num-mbufs=4096', '--nb-cores=1', ...more,
  ], { stdio: ['pipe', 'pipe', 'pipe'] }) as unknown as ChildProcess & { output: string }
  children.add(child)
  child.on('exit', () => children.delete(child))
  child.output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => { child.output += String(data) })
  return child
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => { child.on('exit', resolve) })
  child.kill('SIGKILL')
  await gone
}

class Rig {
  readonly arena = new Arena(64 << 20)
  readonly pool = new PacketPool(this.arena, 1024, 16)
  readonly descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly source = this.arena.allocate('frame', 1 << 16) + 2
  readonly port: MemifPort
  readonly frames: Uint8Array[] = []
  received = 0
  keeps = true

  constructor(role: 'server' | 'client', socket: string) {
    this.port = new MemifPort({ arena: this.arena, name: 'dpdk', role, socket, id: 3 })
    this.port.open()
  }

  turn(): void {
    this.port.flush()
    const { i32, u8 } = this.arena
    const got = this.port.receive(this.pool, this.descriptors, 32)
    this.received += got
    for (let i = 0; i < got; i++) {
      const d = this.descriptors + i * DESCRIPTOR_WORDS
      const frame = i32[d + Descriptor.frame]
      if (this.keeps) this.frames.push(u8.slice(frame, frame + i32[d + Descriptor.length]))
      this.pool.give(i32[d + Descriptor.slot])
    }
  }

  async until(what: string, child: { output: string }, isTrue: () => boolean): Promise<void> {
    const end = performance.now() + 20_000
    while (!isTrue()) {
      const state = `${this.port.state} ${this.port.lastEnd} ${JSON.stringify(this.port.statistics)}`
      assert.ok(performance.now() < end, `in 20 s: ${what}; port: ${state}\n${child.output.slice(-2000)}`)
      this.port.maintain(performance.now() * 1000)
      this.turn()
      await setImmediate()
    }
  }
}

function checkSane(rig: Rig): void {
  assert.equal(rig.pool.used, 0)
  assert.equal(rig.port.statistics.rxInvalid, 0)
}

for (const role of ['server', 'client'] as const) {
  const theirs = role === 'server' ? 'client' : 'server'
  test(`as ${role}: testpmd, the ${theirs}, sends`, { skip, timeout: 60_000 }, async () => {
    const socket = join(folder, `${++count}.sock`)
    const rig = new Rig(role, socket)
    rig.keeps = false
    const child = startTestpmd(theirs, socket, 'txonly', '--txpkts=60')
    try {
      await rig.until('frames come', child, () => rig.received > 50_000)
      checkSane(rig)
      assert.equal(rig.port.statistics.rxBytes, rig.received * 60)
    } finally {
      await stop(child)
      rig.port.close()
    }
  })

  test(`as ${role}: testpmd, the ${theirs}, echoes what we send`, { skip, timeout: 60_000 }, async () => {
    const socket = join(folder, `${++count}.sock`)
    const rig = new Rig(role, socket)
    const child = startTestpmd(theirs, socket, 'io')
    try {
      await rig.until('the link is up', child, () => rig.port.isUp && rig.port.room > 0)
      // It is started, but perhaps not forwarding yet.
      const sent: Uint8Array[] = []
      const { arena, source } = rig
      for (let i = 0; i < 3000; i++) {
        const length = 60 + (i * 37) % (i % 100 === 0 ? 5000 : 1455)
        const bytes = arena.u8.subarray(source, source + length)
        for (let at = 0; at < length; at++) bytes[at] = (at * 7 + i) & 255
        const copy = Uint8Array.from(bytes)
        // testpmd drops what it finds no room for on the way back.
        await rig.until(`frame ${i} can go`, child, () => i - rig.received < 100 && rig.port.send(source, length))
        sent.push(copy)
      }
      await rig.until('all have come back', child, () => rig.received >= sent.length)
      assert.equal(rig.received, sent.length)
      for (const [i, bytes] of sent.entries()) assert.ok(Buffer.compare(bytes, rig.frames[i]) === 0, `frame ${i} of ${bytes.length} bytes`)
      checkSane(rig)
    } finally {
      await stop(child)
      rig.port.close()
    }
  })
}

test('a testpmd that is killed under traffic leaves us whole, and another one can come', { skip, timeout: 90_000 }, async () => {
  const socket = join(folder, `${++count}.sock`)
  const rig = new Rig('server', socket)
  rig.keeps = false
  try {
    for (let round = 1; round <= 3; round++) {
      const child = startTestpmd('client', socket, 'txonly', '--txpkts=60')
      try {
        const before = rig.received
        await rig.until('frames come', child, () => rig.received > before + 20_000)
        assert.equal(rig.port.statistics.connections, round)
        await stop(child)
        await rig.until('the end is noticed', child, () => !rig.port.isUp)
        assert.match(rig.port.lastEnd, /gone/)
      } finally {
        await stop(child)
      }
    }
    checkSane(rig)
  } finally {
    rig.port.close()
  }
})
