/**
 * memif links whose other end is killed, cut off, or not what it should be.
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import type { MemifPeerOptions } from './memif-peer.ts'
import { MemifPort, type MemifPortOptions } from './memif-port.ts'
import { waitForPorts } from './port-waiter.ts'

const skip = process.platform === 'linux' ? false : 'memif needs Linux'
const folder = mkdtempSync(join(tmpdir(), 'nfactor-memif-link-'))
const children = new Set<ChildProcess>()
after(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
let count = 0
const newSocket = (): string => join(folder, `${++count}.sock`)

class End {
  readonly arena = new Arena(64 << 20)
  readonly pool = new PacketPool(this.arena, 2048, 16)
  readonly descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly source = this.arena.allocate('frame', 1 << 17) + 2
  readonly port: MemifPort
  sent = 0

  constructor(options: Omit<MemifPortOptions, 'arena' | 'name'>) {
    this.port = new MemifPort({ ...options, arena: this.arena, name: options.role })
  }

  send(length = 60 + (this.sent * 13) % 200): boolean {
    const { view, u8 } = this.arena
    u8.fill(this.sent & 255, this.source, this.source + length)
    view.setUint32(this.source + 14, this.sent, true)
    if (!this.port.send(this.source, length)) return false
    this.sent++
    return true
  }

  /** Numbers of the frames that come in one batch. */
  receive(take: () => number = () => this.port.receive(this.pool, this.descriptors, 32)): number[] {
    const { i32, view } = this.arena
    const got = take()
    return Array.from({ length: got }, (_, i) => {
      const d = this.descriptors + i * DESCRIPTOR_WORDS
      this.pool.give(i32[d + Descriptor.slot])
      return view.getUint32(i32[d + Descriptor.frame] + 14, true)
    })
  }

  takeBack(position?: number): { first: number, frames: number[] } {
    const first = this.port.beginTakeBack(position)
    const frames: number[] = []
    for (let left = this.port.takeBackLeft; left > 0; left = this.port.takeBackLeft) {
      frames.push(...this.receive(() => this.port.takeBack(this.pool, this.descriptors, 32)))
      assert.ok(this.port.takeBackLeft < left)
    }
    return { first, frames }
  }

  async until(what: string, isTrue: () => boolean): Promise<void> {
    const end = performance.now() + 15_000
    while (!isTrue()) {
      assert.ok(performance.now() < end, `in 15 s: ${what}; port: ${this.port.state} ${this.port.lastEnd}`)
      this.port.maintain(performance.now() * 1000)
      await setImmediate()
    }
  }
}

class Peer {
  readonly child: ChildProcess
  said = { what: 'starting', received: 0, sent: 0 }

  constructor(options: MemifPeerOptions) {
    const program = join(import.meta.dirname, 'memif-peer.ts')
    this.child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ['pipe', 'pipe', 'inherit'] })
    children.add(this.child)
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on('line', (line) => { this.said = JSON.parse(line) })
  }

  async kill(): Promise<void> {
    if (!children.delete(this.child)) return
    const gone = new Promise((resolve) => { this.child.on('exit', resolve) })
    this.child.kill('SIGKILL')
    await gone
  }
}

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

/** Runs both until they are up. */
function connect(...ends: End[]): void {
  for (let i = 0; i < 1000 && !ends.every(({ port }) => port.isUp && port.room > 0); i++) {
    for (const { port } of ends) port.maintain(performance.now() * 1000)
  }
  assert.ok(ends.every(({ port }) => port.isUp))
}

for (const role of ['server', 'client'] as const) {
  const theirs = role === 'server' ? 'client' : 'server'

  test(`as ${role}: what a killed ${theirs} has not consumed is taken back, and the next one is served`, { skip, timeout: 60_000 },
    async () => {
      const socket = newSocket()
      const end = new End({ role, socket, keepsUnconsumed: true, ringSize: 256 })
      end.port.open()
      for (let round = 1; round <= 2; round++) {
        const peer = new Peer({ port: { role: theirs, socket, ringSize: 256 }, does: 'sink', stopAfter: 100 })
        try {
          await end.until('the link is up', () => end.port.isUp && end.port.room > 0)
          assert.equal(end.port.statistics.connections, round)
          end.sent = 0
          await end.until('180 frames are sent', () => (end.send(), end.sent === 180))
          await end.until('the peer has 100 of them', () => peer.said.what === 'stopped')
          assert.equal(peer.said.received, 100)
          await peer.kill()
          await end.until('the end is noticed', () => !end.port.isUp)
          assert.match(end.port.lastEnd, /gone/)
          assert.equal(end.send(), false)
          // Nothing new begins before it has been taken back.
          for (let i = 0; i < 20; i++) end.port.maintain(performance.now() * 1000)
          assert.ok(end.port.canTakeBack)
          assert.deepEqual(end.takeBack(), { first: 101, frames: numbers(100, 180) })
          // Again, and from an earlier place: the ring still has all of them.
          assert.deepEqual(end.takeBack(51), { first: 51, frames: numbers(50, 180) })
          end.port.endTakeBack()
          assert.equal(end.port.canTakeBack, false)
          assert.equal(end.port.statistics.txLost, 0)
          assert.equal(end.pool.used, 0)
        } finally {
          await peer.kill()
        }
      }
      end.port.close()
    })

  test(`as ${role}: what a killed ${theirs} had sent is received to its end`, { skip, timeout: 60_000 }, async () => {
    const socket = newSocket()
    const end = new End({ role, socket })
    end.port.open()
    const peer = new Peer({ port: { role: theirs, socket }, does: 'source', frames: 700 })
    try {
      await end.until('it has sent', () => peer.said.what === 'stopped')
      await peer.kill()
      await end.until('the end is noticed', () => !end.port.isUp)
      const frames: number[] = []
      for (let got = end.receive(); got.length > 0; got = end.receive()) frames.push(...got)
      assert.deepEqual(frames, numbers(0, 700))
      assert.equal(end.pool.used, 0)
    } finally {
      await peer.kill()
      end.port.close()
    }
  })

  test(`as ${role}: with manual release the sender has back what was copied and not finished`, { skip }, () => {
    const socket = newSocket()
    const end = new End({ role, socket, keepsUnconsumed: true, ringSize: 128 })
    const other = new End({ role: theirs, socket, isReleaseManual: true, ringSize: 128 })
    end.port.open()
    other.port.open()
    connect(end, other)
    // Several times around the ring.
    for (let round = 0; round < 10; round++) {
      const from = end.sent
      for (let i = 0; i < 50; i++) assert.ok(end.send())
      end.port.flush()
      assert.deepEqual([...other.receive(), ...other.receive()], numbers(from, from + 50))
      assert.equal(other.port.receivedPosition, from + 50)
      if (round < 9) other.port.release(from + 50)
    }
    other.port.release(470)
    other.port.release(460)
    for (let i = 0; i < 5; i++) assert.ok(end.send())
    // A frame over several buffers.
    assert.ok(end.send(5000))
    end.port.sever()
    assert.equal(end.send(), false)
    assert.deepEqual(end.takeBack(), { first: 471, frames: numbers(470, 506) })
    // Not more than the ring has.
    const { first, frames } = end.takeBack(1)
    assert.deepEqual(frames, numbers(first - 1, 506))
    assert.equal(frames.length, 126)
    end.port.endTakeBack()
    assert.equal(end.pool.used, 0)
    other.port.close()
    end.port.close()
  })
}

for (const role of ['server', 'client'] as const) {
  test(`as ${role}: an echo that is killed at any moment loses nothing`, { skip, timeout: 120_000 }, async () => {
    const socket = newSocket()
    const random = new Random(role.length)
    const end = new End({ role, socket, keepsUnconsumed: true })
    end.port.open()
    let repeated = 0
    for (let round = 0; round < 6; round++) {
      const peer = new Peer({ port: { role: role === 'server' ? 'client' : 'server', socket, isReleaseManual: true }, does: 'echo' })
      try {
        await end.until('the link is up', () => end.port.isUp && end.port.room > 0)
        end.sent = 0
        const back: number[] = []
        const frames = random.between(10_000, 40_000)
        await end.until('the echo is in full swing', () => {
          for (let i = 0; i < 200; i++) {
            for (let n = random.below(40); n > 0 && end.sent - back.length < 500 && end.port.room > 0; n--) end.send(60)
            end.port.flush()
            back.push(...end.receive())
          }
          return back.length >= frames
        })
        const killed = peer.kill()
        // While it dies there is more for it.
        await end.until('the end is noticed', () => {
          for (let n = 0; n < 20 && end.sent - back.length < 500 && end.port.room > 0; n++) end.send(60)
          return !end.port.isUp
        })
        await killed
        for (let got = end.receive(); got.length > 0; got = end.receive()) back.push(...got)
        assert.deepEqual(back, numbers(0, back.length))
        const taken = end.takeBack()
        end.port.endTakeBack()
        assert.deepEqual(taken.frames, numbers(taken.first - 1, end.sent))
        assert.ok(taken.first - 1 <= back.length, `${back.length} came back, then from ${taken.first} of ${end.sent}`)
        repeated += back.length - (taken.first - 1)
        assert.ok(back.length - (taken.first - 1) <= 32, 'not more than a batch is there twice')
      } finally {
        await peer.kill()
      }
    }
    if (process.env.NFACTOR_PORT_RATES !== undefined) console.log(`frames that came twice: ${repeated}`)
    assert.equal(end.port.statistics.txLost, 0)
    assert.equal(end.pool.used, 0)
    end.port.close()
  })

  for (const sleeps of ['loop', 'thread'] as const) {
    test(`as ${role}: both ends sleep and are woken by each other, the other one by its ${sleeps}`, { skip, timeout: 60_000 }, async () => {
      const socket = newSocket()
      const end = new End({ role, socket })
      end.port.open()
      const peer = new Peer({ port: { role: role === 'server' ? 'client' : 'server', socket }, does: 'echo', sleeps })
      try {
        // The connection is made in our sleep as well, but for a client that has to try again.
        await end.until('the link is up', () => end.port.isUp && end.port.room > 0)
        const times: number[] = []
        let timeouts = 0
        for (let i = 0; i < 200; i++) {
          const began = performance.now()
          assert.ok(end.send(60))
          let got: number[] = []
          while (got.length === 0) {
            if (!await waitForPorts([end.port], 500)) timeouts++
            end.port.maintain(performance.now() * 1000)
            got = end.receive()
            assert.ok(performance.now() < began + 5000, 'a frame comes back')
          }
          assert.deepEqual(got, [i])
          times.push(performance.now() - began)
        }
        assert.equal(timeouts, 0, 'nobody had to wait for the clock')
        if (process.env.NFACTOR_PORT_RATES !== undefined) console.log(`there and back: ${times.sort((a, b) => a - b)[100].toFixed(3)} ms`)
      } finally {
        await peer.kill()
        end.port.close()
      }
    })
  }
}

test('whatever the two ends do, they find each other again, and nothing is left open', { skip }, () => {
  const random = new Random(21)
  const socket = newSocket()
  const ends = (['server', 'client'] as const).map((role) => new End({ role, socket, keepsUnconsumed: true, ringSize: 64 }))
  const used = (): [number, number] =>
    [readdirSync('/proc/self/fd').length, readFileSync('/proc/self/maps', 'latin1').split('\n').length]
  let before: [number, number] | undefined
  let now = 1
  const turn = (): void => {
    for (const { port } of ends) port.maintain(now += 5000)
  }
  for (let round = 0; round < 300; round++) {
    for (let i = random.below(12); i > 0; i--) {
      const end = random.pick(ends)
      const { port } = end
      random.pick([
        () => { port.open() },
        () => { port.close() },
        () => { port.sever() },
        () => { if (port.canTakeBack) end.takeBack(random.chance(0.5) ? undefined : random.below(100)) },
        () => { port.endTakeBack() },
        () => { for (let n = random.below(80); n > 0; n--) end.send() },
        () => { for (let n = random.below(4); n > 0; n--) end.receive() },
        turn, turn, turn,
      ])()
    }
    // From here on both want the link.
    for (let i = 0; i < 50 && !ends.every(({ port }) => port.isUp && port.room > 0); i++) {
      for (const end of ends) {
        end.port.open()
        while (end.receive().length > 0);
        end.port.endTakeBack()
      }
      turn()
    }
    assert.ok(ends.every(({ port }) => port.isUp), ends.map(({ port }) => `${port.state} ${port.lastEnd}`).join(', '))
    for (const { port } of ends) port.flush()
    while (ends.some((end) => end.receive().length > 0));
    for (const [from, to] of [[0, 1], [1, 0]]) {
      ends[from].sent = 7
      assert.ok(ends[from].send())
      ends[from].port.flush()
      assert.deepEqual(ends[to].receive(), [7])
    }
    for (const { pool } of ends) assert.equal(pool.used, 0)
    if (round === 50) before = used()
  }
  const after = used()
  assert.equal(after[0], before?.[0])
  assert.ok(Math.abs(after[1] - (before?.[1] ?? 0)) < 40, `${before?.[1]} mappings, then ${after[1]}`)
  for (const { port } of ends) port.close()
})

test('what is not taken back is counted as lost', { skip }, () => {
  const socket = newSocket()
  const end = new End({ role: 'server', socket })
  const other = new End({ role: 'client', socket })
  end.port.open()
  other.port.open()
  connect(end, other)
  for (let i = 0; i < 9; i++) assert.ok(end.send())
  end.port.flush()
  assert.equal(other.receive(() => other.port.receive(other.pool, other.descriptors, 4)).length, 4)
  end.port.close()
  assert.equal(end.port.statistics.txLost, 5)
  other.port.close()
})

test('a socket in the abstract namespace', { skip }, () => {
  const socket = `@nfactor-test-${process.pid}`
  const ends = [new End({ role: 'client', socket, secret: 'mellon' }), new End({ role: 'server', socket, secret: 'mellon' })]
  for (const { port } of ends) port.open()
  connect(...ends)
  assert.throws(() => { new End({ role: 'server', socket }).port.open() }, { code: 'NF_PORT_BUSY' })
  assert.ok(ends[0].send())
  ends[0].port.flush()
  assert.deepEqual(ends[1].receive(), [0])
  for (const { port } of ends) port.close()
  assert.equal(existsSync(socket), false)
})

test('two of ours agree when each has looked twice', { skip }, () => {
  const socket = newSocket()
  const [server, client] = (['server', 'client'] as const).map((role) => new End({ role, socket }))
  assert.ok(server !== undefined && client !== undefined)
  server.port.open()
  client.port.open()
  // Connects, says hello, says all, answers, is up.
  for (const { port } of [client, server, client, server, client]) {
    assert.equal(client.port.isUp, false)
    port.maintain(1_000_000)
  }
  assert.ok(server.port.isUp && client.port.isUp)
  for (const { port } of [server, client]) port.close()
})

test('a client says when it tries again: soon at first, less often later, not while it is up', { skip }, () => {
  const socket = newSocket()
  const server = new End({ role: 'server', socket })
  const client = new End({ role: 'client', socket })
  client.port.open()
  assert.equal(client.port.retryDue, -Infinity, 'at once')
  const waits: number[] = []
  for (let now = 0; now < 3e6; now = client.port.retryDue) {
    client.port.maintain(now)
    waits.push(client.port.retryDue - now)
  }
  assert.equal(waits[0], 4_000)
  assert.equal(waits.at(-1), 20_000)
  assert.equal(waits.filter((wait) => wait === 4_000).length, 500, 'for two seconds')
  server.port.open()
  assert.equal(server.port.retryDue, Infinity, 'who listens is told by its socket')
  connect(server, client)
  assert.equal(client.port.retryDue, Infinity)
  server.port.close()
  const now = performance.now() * 1000 + 1e6
  for (let i = 0; i < 3; i++) client.port.maintain(now)
  assert.equal(client.port.retryDue, now + 4_000, 'soon again')
  client.port.close()
  assert.equal(client.port.retryDue, Infinity)
})

test('a second client is told that the place is taken', { skip }, () => {
  const socket = newSocket()
  const ends = (['server', 'client', 'client'] as const).map((role) => new End({ role, socket }))
  for (const { port } of ends) port.open()
  connect(ends[0], ends[1])
  for (let i = 0; i < 10; i++) for (const { port } of ends) port.maintain(performance.now() * 1000)
  assert.equal(ends[2].port.isUp, false)
  assert.match(ends[2].port.lastEnd, /already connected/)
  assert.ok(ends[0].port.isUp && ends[1].port.isUp)
  for (const { port } of ends) port.close()
})

test('both ends must mean the same link', { skip }, () => {
  for (const [server, client, reason] of [
    [{ id: 1 }, { id: 2 }, /no interface 2 here/],
    [{ secret: 'mellon' }, { secret: 'friend' }, /wrong secret/],
    [{ windowBytes: 1 << 20 }, {}, /regions need more than 1048576 bytes/],
  ] as const) {
    const socket = newSocket()
    const a = new End({ role: 'server', socket, ...server })
    const b = new End({ role: 'client', socket, ...client })
    a.port.open()
    b.port.open()
    for (let i = 0; i < 10; i++) for (const { port } of [a, b]) port.maintain(1_000_000 + i)
    assert.equal(a.port.isUp, false)
    assert.match(b.port.lastEnd, reason)
    a.port.close()
    b.port.close()
  }
})

test('a socket of a process that is alive is left to it, one of a dead process is taken over', { skip }, () => {
  const socket = newSocket()
  const first = new End({ role: 'server', socket })
  const second = new End({ role: 'server', socket })
  first.port.open()
  assert.throws(() => { second.port.open() }, (error) => error instanceof CodedError && error.code === 'NF_PORT_BUSY' &&
    error.toLine().includes(socket))
  first.port.close()
  assert.equal(existsSync(socket), false)
  writeFileSync(socket, 'no socket at all')
  assert.throws(() => { second.port.open() }, (error) => error instanceof CodedError && /^NF_PORT_/.test(error.code))
  assert.throws(() => { new End({ role: 'server', socket: join(folder, 'missing', 'x') }).port.open() },
    (error) => error instanceof CodedError && error.code === 'NF_PORT_FAILED' && /Create its folder/.test(error.mend))
})

test('sizes that are not possible are refused', { skip }, () => {
  const socket = newSocket()
  for (const wrong of [{ ringSize: 100 }, { ringSize: 32_768 }, { bufferBytes: 100 }, { socket: 'x'.repeat(108) },
    { secret: 'x'.repeat(24) }]) {
    assert.throws(() => new End({ role: 'client', socket, ...wrong }),
      (error) => error instanceof CodedError && error.code === 'NF_CONFIG_INVALID')
  }
})
