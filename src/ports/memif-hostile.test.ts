/**
 * memif with a client that breaks the rules: whatever it says and writes, the server goes on, and serves the next one.
 */

import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_BYTES as BATCH_BYTES } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { MemifPort } from './memif-port.ts'
import * as protocol from './memif-protocol.ts'
import { DESCRIPTOR_BYTES, MESSAGE_BYTES, MessageType, ringBytes } from './memif-protocol.ts'
import { SharedRegions } from './shared-regions.ts'
import * as sys from './sys.ts'

const skip = process.platform === 'linux' ? false : 'memif needs Linux'
const folder = mkdtempSync(join(tmpdir(), 'nfactor-memif-hostile-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let sockets = 0

const SIZE = 16
const REGION_BYTES = 2 * ringBytes(SIZE) + 2 * SIZE * 2048

class Server {
  readonly socket = join(folder, `${++sockets}.sock`)
  readonly arena = new Arena(32 << 20)
  readonly pool = new PacketPool(this.arena, 64, 2)
  readonly descriptors = this.arena.allocate('batch', 32 * BATCH_BYTES) >> 2
  readonly frame = this.arena.allocate('frame', 8192) + 2
  readonly port = new MemifPort({ arena: this.arena, name: 'server', role: 'server', socket: this.socket, windowBytes: 1 << 20 })
  #now = 1

  constructor() {
    this.port.open()
  }

  turn(): void {
    this.port.maintain(this.#now += 1000)
  }

  /** One batch; its slots are given back. */
  receive(): number {
    const count = this.port.receive(this.pool, this.descriptors, 32)
    for (let i = 0; i < count; i++) this.pool.give(this.arena.i32[this.descriptors + i * 32 + 24])
    return count
  }
}

/** A client by hand. */
class Client {
  readonly server: Server
  readonly message = new sys.MessageBuffer(MESSAGE_BYTES)
  readonly fd: number
  readonly arena = new Arena(4 << 20)
  readonly regions = new SharedRegions(this.arena, 'client', 1 << 20, 4)
  memory = -1

  constructor(server: Server) {
    this.server = server
    this.fd = sys.socket(sys.AF_UNIX, sys.SOCK_SEQPACKET, 0)
    assert.equal(sys.connect(this.fd, sys.unixAddress(server.socket) as DataView), 0)
    server.turn()
    assert.equal(this.read(), MessageType.hello)
  }

  /** Type of the next message; 0 when there is none, -1 when the server has hung up. */
  read(): number {
    const length = this.message.receive(this.fd)
    return length === MESSAGE_BYTES ? this.message.bytes.getUint16(0, true) : length === -sys.Errno.EAGAIN ? 0 : -1
  }

  /** Says something; returns the type of the answer. */
  say(put: (view: DataView) => void, fd = -1): number {
    put(this.message.bytes)
    this.message.send(this.fd, fd)
    this.server.turn()
    return this.read()
  }

  init(): void {
    assert.equal(this.say((view) => { protocol.putInit(view, 0, '', 'hostile') }), MessageType.ack)
  }

  addRegion(): void {
    this.memory = sys.createSealedMemory('hostile', REGION_BYTES)
    assert.equal(this.regions.map(this.memory, REGION_BYTES, false), '')
    assert.equal(this.say((view) => { protocol.putAddRegion(view, 0, REGION_BYTES) }, this.memory), MessageType.ack)
  }

  addRings(): void {
    for (const isS2m of [true, false]) {
      const offset = isS2m ? 0 : ringBytes(SIZE)
      this.arena.u32[(this.regions.offsets[0] + offset) >> 2] = protocol.MEMIF_COOKIE
      const event = sys.createEvent()
      const answer = this.say((view) => {
        protocol.putAddRing(view, { isS2m, index: 0, region: 0, offset, log2Size: Math.log2(SIZE) })
      }, event)
      assert.equal(answer, MessageType.ack)
      sys.close(event)
    }
  }

  connect(): this {
    this.init()
    this.addRegion()
    this.addRings()
    assert.equal(this.say((view) => { protocol.putConnect(view, MessageType.connect, 'hostile') }), MessageType.connected)
    assert.ok(this.server.port.isUp)
    return this
  }

  /** Word index of a descriptor. */
  descriptor(isS2m: boolean, index: number): number {
    return (this.regions.offsets[0] + (isS2m ? 0 : ringBytes(SIZE)) + protocol.RING_DESCRIPTORS + index * DESCRIPTOR_BYTES) >> 2
  }

  setHead(isS2m: boolean, head: number): void {
    this.arena.u16[(this.regions.offsets[0] + (isS2m ? 0 : ringBytes(SIZE)) + protocol.RING_HEAD) >> 1] = head
  }

  write(isS2m: boolean, index: number, flags: number, region: number, length: number, offset: number): void {
    const at = this.descriptor(isS2m, index)
    this.arena.i32.set([flags | (region << 16), length, offset, 0], at)
  }

  close(): void {
    sys.close(this.fd)
    sys.close(this.memory)
    this.regions.clear()
  }
}

/** Runs a client against a server; afterwards a client that keeps to the rules is served. */
function withServer(run: (server: Server) => void): void {
  const server = new Server()
  try {
    run(server)
    for (let i = 0; i < 5; i++) {
      server.receive()
      server.turn()
    }
    assert.equal(server.port.isUp, false)
    const good = new Client(server).connect()
    good.write(true, 0, 0, 0, 100, 2 * ringBytes(SIZE))
    good.setHead(true, 1)
    assert.equal(server.receive(), 1)
    assert.equal(server.pool.used, 0)
    good.close()
  } finally {
    server.port.close()
  }
}

test('messages that make no sense end the connection with a reason', { skip }, () => {
  withServer((server) => {
    const addRing = (change: Partial<protocol.AddRing>) => (view: DataView): void => {
      protocol.putAddRing(view, { isS2m: true, index: 0, region: 0, offset: 0, log2Size: 4, ...change })
    }
    const event = sys.createEvent()
    const steps: [RegExp, (client: Client) => number][] = [
      [/not yet introduced/, (c) => c.say((view) => { protocol.putAddRegion(view, 0, 4096) })],
      [/does not belong here/, (c) => (c.init(), c.say((view) => { protocol.putHello(view, 'hello') }))],
      [/without memory/, (c) => (c.init(), c.say((view) => { protocol.putAddRegion(view, 0, 4096) }))],
      [/in order/, (c) => (c.init(), c.say((view) => { protocol.putAddRegion(view, 7, 4096) }, event))],
      [/not sealed/, (c) => (c.init(), c.say((view) => { protocol.putAddRegion(view, 0, 4096) }, event))],
      [/outside of its region/, (c) => (c.init(), c.addRegion(), c.say(addRing({ offset: REGION_BYTES - 100 }), event))],
      [/outside of its region/, (c) => (c.init(), c.addRegion(), c.say(addRing({ offset: 0xfffffffc }), event))],
      [/outside of its region/, (c) => (c.init(), c.addRegion(), c.say(addRing({ offset: 2 }), event))],
      [/outside of its region/, (c) => (c.init(), c.addRegion(), c.say(addRing({ region: 1 }), event))],
      [/size is not possible/, (c) => (c.init(), c.addRegion(), c.say(addRing({ log2Size: 15 }), event))],
      [/one ring each way/, (c) => (c.init(), c.addRegion(), c.say(addRing({ index: 1 }), event))],
      [/without event counter/, (c) => (c.init(), c.addRegion(), c.say(addRing({})))],
      // It might block whoever reads it.
      [/without event counter/, (c) => (c.init(), c.addRegion(), c.say(addRing({}), c.memory))],
      [/there already/, (c) => (c.init(), c.addRegion(), c.addRings(), c.say(addRing({}), event))],
      [/ring is missing/, (c) => (c.init(), c.addRegion(), c.say((view) => { protocol.putConnect(view, MessageType.connect, 'x') }))],
      [/longer than its file/, (c) => {
        c.init()
        c.memory = sys.createSealedMemory('short', 4096)
        return c.say((view) => { protocol.putAddRegion(view, 0, 2 ** 40) }, c.memory)
      }],
      [/regions need more/, (c) => {
        c.init()
        c.memory = sys.createSealedMemory('long', 2 << 20)
        return c.say((view) => { protocol.putAddRegion(view, 0, 2 << 20) }, c.memory)
      }],
    ]
    for (const [reason, step] of steps) {
      const client = new Client(server)
      assert.equal(step(client), MessageType.disconnect, String(reason))
      assert.match(protocol.readDisconnect(client.message.bytes), reason)
      assert.match(server.port.lastEnd, reason)
      client.close()
    }
    sys.close(event)
  })
})

test('random messages leave the server whole, and no descriptor open', { skip }, () => {
  withServer((server) => {
    const random = new Random(11)
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    const before = descriptors()
    for (let round = 0; round < 200; round++) {
      const client = new Client(server)
      const event = sys.createEvent()
      for (let i = random.between(1, 6), answer = 0; i > 0 && answer !== -1; i--) {
        if (random.chance(0.3)) protocol.putInit(client.message.bytes, 0, '', 'x')
        else for (let at = 0; at < MESSAGE_BYTES; at++) client.message.bytes.setUint8(at, random.below(256))
        if (random.chance(0.8)) client.message.bytes.setUint16(0, random.below(10), true)
        if (random.chance(0.5)) for (let at = 2; at < MESSAGE_BYTES; at++) client.message.bytes.setUint8(at, random.below(3))
        client.message.send(client.fd, random.chance(0.5) ? event : -1)
        server.turn()
        answer = client.read()
      }
      sys.close(event)
      client.close()
      server.turn()
    }
    assert.equal(descriptors(), before)
  })
})

test('an unsealed region is refused, and may be taken if told so', { skip }, () => {
  const fd = sys.createUnsealedMemory('unsealed', 8192)
  const arena = new Arena(1 << 20)
  const regions = new SharedRegions(arena, 'window', 65_536, 2)
  assert.match(regions.map(fd, 8192, false), /not sealed/)
  assert.equal(regions.map(fd, 8192, true), '')
  arena.u8[regions.offsets[0]] = 7
  regions.clear()
  assert.equal(arena.u8[regions.window], 0)
  ftruncateSync(fd, 0)
  closeSync(fd)
})

test('descriptors that point nowhere are counted, and their frames left out', { skip }, () => {
  const server = new Server()
  const client = new Client(server).connect()
  const buffers = 2 * ringBytes(SIZE)
  const wrong: [number, number, number][] = [
    [1, 100, buffers], [0xffff, 100, buffers], [0, REGION_BYTES + 1, 0], [0, 100, REGION_BYTES - 99], [0, 100, -1], [0, -1, buffers],
    [0, 0, buffers], [0, 0x7fffffff, 0x7fffffff], [0, 100, 0x7fffffff],
  ]
  wrong.forEach(([region, length, offset], index) => { client.write(true, index, 0, region, length, offset) })
  client.write(true, wrong.length, 0, 0, 100, buffers)
  client.setHead(true, wrong.length + 1)
  assert.equal(server.receive(), 1)
  assert.equal(server.port.statistics.rxInvalid, wrong.length)
  // A chain without an end: never anything, until it fills the ring.
  const from = wrong.length + 1
  for (let i = 0; i < SIZE; i++) client.write(true, (from + i) % SIZE, 1, 0, 100, buffers)
  client.setHead(true, from + 3)
  assert.equal(server.receive(), 0)
  assert.equal(server.port.statistics.rxInvalid, wrong.length)
  client.setHead(true, from + SIZE)
  assert.equal(server.receive(), 0)
  assert.equal(server.port.statistics.rxInvalid, wrong.length + 1)
  // More than the ring has: this cannot be mended.
  client.setHead(true, from + 3 * SIZE)
  assert.equal(server.receive(), 0)
  server.turn()
  assert.match(server.port.lastEnd, /ring is damaged/)
  assert.equal(server.pool.used, 0)
  client.close()
  server.port.close()
})

test('buffers that are offered where there are none are not written to', { skip }, () => {
  for (const [region, length, offset] of [[1, 2048, 0], [0, 2048, REGION_BYTES - 2047], [0, -5, 0], [0, 2048, -2048], [0, 0, 0]]) {
    withServer((server) => {
      const client = new Client(server).connect()
      for (let i = 0; i < SIZE; i++) client.write(false, i, 0, region, length, offset)
      client.setHead(false, SIZE)
      assert.equal(server.port.send(server.frame, 60), false)
      assert.equal(server.port.send(server.frame, 6000), false)
      server.turn()
      assert.match(server.port.lastEnd, /ring is damaged/)
      client.close()
    })
  }
})

test('a client that writes at random into all of its memory does no harm', { skip }, () => {
  const random = new Random(5)
  for (let round = 0; round < 30; round++) {
    withServer((server) => {
      const client = new Client(server).connect()
      const { u8 } = client.arena
      const base = client.regions.offsets[0]
      for (let i = 0; i < 200; i++) {
        const isSmall = random.chance(0.7)
        for (let n = random.between(1, 40); n > 0; n--) {
          u8[base + random.below(2 * ringBytes(SIZE))] = isSmall ? random.below(3) : random.below(256)
        }
        if (random.chance(0.5)) client.setHead(true, random.below(20))
        if (random.chance(0.5)) client.setHead(false, random.below(40))
        server.receive()
        server.port.send(server.frame, random.between(60, 8000))
        server.port.flush()
        if (random.chance(0.1)) server.turn()
      }
      assert.equal(server.pool.used, 0)
      client.close()
    })
  }
})
