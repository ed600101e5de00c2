/**
 * The control network of one machine: frames reach whom they name, nodes come and go in any order, nothing that cannot be delivered holds
 * anybody up.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { DatagramPort } from './datagram-port.ts'
import { waitForPorts } from './port-waiter.ts'

const skip = process.platform === 'linux' ? false : 'needs Linux'
const folder = mkdtempSync(join(tmpdir(), 'nfactor-datagram-'))
after(() => { rmSync(folder, { recursive: true }) })

class Node {
  readonly arena = new Arena(8 << 20)
  readonly pool = new PacketPool(this.arena, 64, 1)
  readonly port: DatagramPort
  readonly #descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly #frame = this.arena.allocate('frame', 2048)

  constructor(id: number) {
    this.port = new DatagramPort({ arena: this.arena, folder, node: id })
    this.port.open()
  }

  send(to: number, text: string): boolean {
    const bytes = Buffer.alloc(14 + text.length)
    bytes[5] = to
    bytes.write(text, 14)
    this.arena.u8.set(bytes, this.#frame)
    return this.port.send(this.#frame, bytes.length)
  }

  receive(max = 32): string[] {
    const { i32, u8 } = this.arena
    const count = this.port.receive(this.pool, this.#descriptors, max)
    return Array.from({ length: count }, (_, index) => {
      const d = this.#descriptors + index * DESCRIPTOR_WORDS
      const frame = i32[d + Descriptor.frame]
      const text = Buffer.from(u8.slice(frame + 14, frame + i32[d + Descriptor.length])).toString()
      this.pool.give(i32[d + Descriptor.slot])
      return text
    })
  }
}

test('frames reach the node that they name, in order', { skip }, () => {
  const [one, two, three] = [1, 2, 255].map((id) => new Node(id))
  for (const text of ['a', 'b', 'c']) assert.ok(one.send(2, text))
  assert.ok(one.send(255, 'd'))
  assert.ok(three.send(2, 'e'))
  assert.deepEqual(two.receive(2), ['a', 'b'])
  assert.deepEqual(two.receive(), ['c', 'e'])
  assert.deepEqual(three.receive(), ['d'])
  assert.deepEqual(one.receive(), [])
  assert.equal(two.pool.used, 0)
  assert.equal(two.port.statistics.rxFrames, 4)
  for (const node of [one, two, three]) node.port.close()
})

test('a node that is not there, or comes back, holds nobody up', { skip }, () => {
  const one = new Node(1)
  assert.ok(one.send(2, 'lost'))
  assert.equal(one.port.statistics.txLost, 1)
  const two = new Node(2)
  assert.ok(one.send(2, 'x'))
  // Killed: the socket's file stays. Its next life takes the place.
  const next = new Node(2)
  assert.ok(one.send(2, 'y'))
  assert.deepEqual(next.receive(), ['y'])
  next.port.close()
  assert.ok(one.send(2, 'lost too'))
  assert.equal(one.port.statistics.txLost, 2)
  two.port.close()
  one.port.close()
})

test('a full queue refuses, and takes frames again when there is room', { skip }, () => {
  const [one, two] = [new Node(1), new Node(2)]
  let sent = 0
  while (one.send(2, String(sent))) assert.ok(++sent < 100_000)
  assert.equal(one.port.statistics.txFull, 1)
  assert.deepEqual(two.receive(1), ['0'])
  assert.ok(one.send(2, 'more'))
  one.port.close()
  two.port.close()
})

test('who sleeps is woken by a frame', { skip }, async () => {
  const [one, two] = [new Node(1), new Node(2)]
  assert.equal(await waitForPorts([two.port], 1), false)
  const woken = waitForPorts([two.port], 10_000)
  one.send(2, 'up')
  assert.equal(await woken, true)
  assert.equal(await waitForPorts([two.port], 10_000), true, 'there is one already')
  two.receive()
  const interrupted = Promise.withResolvers<void>()
  const waiting = waitForPorts([two.port], 10_000, interrupted.promise)
  interrupted.resolve()
  assert.equal(await waiting, true)
  one.port.close()
  two.port.close()
})

test('a path that is too long for sockets is refused', { skip }, () => {
  assert.throws(() => new DatagramPort({ arena: new Arena(1 << 20), folder: `/tmp/${'x'.repeat(100)}`, node: 1 }), { code: 'NF_CONFIG_INVALID' })
})
