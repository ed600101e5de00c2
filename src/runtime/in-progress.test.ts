/** Poison packets at one engine (PROTOCOL 22): what is noted, what is read back, and what a successor that is told does not run. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assert as holds } from '../base/assert.ts'
import { BATCH_PACKETS, defaultLimits, defaultTimeouts } from '../base/limits.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { defineNf, struct, u32, Verdict } from '../nf/index.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { describeFrame, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { buildFrame } from '../testing/index.ts'
import { createEngine, defaultPolicy, type Engine } from './engine.ts'
import { IN_PROGRESS_BYTES, InProgress, readInProgress } from './in-progress.ts'
import { Quarantine, Quarantined, QUARANTINED_MAX } from './quarantine.ts'

const POISON = 'poison'
/** Counts packets; dies of some, or of a timer. */
const deadly = defineNf({
  name: 'deadly', version: 1,
  flowState: struct({ count: u32 }),
  create: (_config, context) => ({
    processPacket(packet, state) {
      state.count++
      holds(packet.payloadLength !== POISON.length, 'this packet does no harm')
      if (packet.payloadLength === 1) context.timer.set(1000)
      return Verdict.Forward
    },
    timerFired() {
      holds(false, 'this timer does no harm')
    },
  }),
})

interface OneEngine {
  readonly engine: Engine
  readonly note: Int32Array
  /** Lengths of packets that were shown instead of run. */
  readonly shown: number[]
  now: number
}

function start(): OneEngine {
  const note = new Int32Array(IN_PROGRESS_BYTES >> 2).fill(-1)
  const shown: number[] = []
  const engine = createEngine({
    arena: new Arena(16 * 2 ** 20), chain: [{ definition: deadly, config: {} }], timeouts: defaultTimeouts, policy: defaultPolicy, seed: 1,
    limits: { ...defaultLimits, flows: 64, packets: 256, largePackets: 1, extentBytes: 65_536, recordBytes: 65_536, aliases: 4 },
    inProgress: new InProgress(note), events: { quarantined: (_frame, length) => { shown.push(length) } },
  })
  return { engine, note, shown, now: 1e6 }
}

const frame = (port: number, payload: string): Uint8Array => buildFrame({ udp: { sourcePort: port, destinationPort: 53, payload } })

/** Runs a batch of packets; how many left. */
function run(one: OneEngine, ...frames: Uint8Array[]): number {
  const { engine } = one
  const { i32, u8 } = engine.arena
  frames.forEach((bytes, index) => {
    const slot = engine.pool.take(bytes.length)
    const d = engine.descriptor(index)
    u8.set(bytes, slot + SLOT_FRAME_OFFSET)
    describeFrame(i32, d, slot, bytes.length)
    i32[d + Descriptor.port] = 0
  })
  engine.batchCount = frames.length
  const left = engine.process(one.now += 1000)
  engine.clearOutput()
  return left
}

const portsOf = (note: Int32Array): number[] => readInProgress(note).map((key) => Math.max(key[1] >>> 16, key[1] & 0xffff)).sort((a, b) => a - b)

test('the packet that an engine dies of is noted, and nothing is noted between batches', () => {
  const one = start()
  assert.deepEqual(readInProgress(one.note), [])
  assert.equal(run(one, frame(1001, 'fine'), frame(1002, 'fine')), 2)
  assert.deepEqual(readInProgress(one.note), [])
  for (const port of [1001, 1003]) {
    const victim = start()
    run(victim, frame(1001, 'fine'), frame(1002, 'fine'))
    assert.throws(() => run(victim, frame(1002, 'fine'), frame(port, POISON), frame(1002, 'fine')))
    assert.deepEqual(portsOf(victim.note), [port], 'of a flow that there is, and of one that opens')
  }
})

test('a timer that an engine dies of is noted', () => {
  const one = start()
  run(one, frame(1001, 't'), frame(1002, 'fine'))
  assert.throws(() => one.engine.advance(one.now + 100_000))
  assert.deepEqual(portsOf(one.note), [1001])
})

test('a successor that is told runs nothing of that flow, shows its packets, and runs all others', () => {
  const victim = start()
  run(victim, frame(1001, 'fine'), frame(1002, 'fine'))
  const records = [...victim.engine.flows()]
  const snapshots = records.map((record) => victim.engine.exportFlow(record))
  assert.throws(() => run(victim, frame(1001, POISON)))
  for (const isTold of [false, true]) {
    const heir = start()
    if (isTold) for (const key of readInProgress(victim.note)) heir.engine.quarantine(key, false, heir.now)
    for (const snapshot of snapshots) heir.engine.importFlow(snapshot.slice(), heir.now)
    if (!isTold) {
      assert.throws(() => run(heir, frame(1001, POISON)), 'else it dies, too')
      continue
    }
    assert.equal(run(heir, frame(1001, POISON), frame(1002, 'fine'), frame(1001, 'fine')), 1)
    assert.deepEqual(heir.shown, [frame(1001, POISON).length, frame(1001, 'fine').length])
    assert.equal(heir.engine.statistics.dropped, 2)
    assert.equal(heir.engine.table.size, 2)
    heir.engine.advance(heir.now + 3600e6)
    assert.equal(heir.engine.table.size, 0, 'it ends like an idle flow')
  }
})

test('a flow that is here, and one that comes later, are quarantined alike; no new flow opens on the key', () => {
  const one = start()
  run(one, frame(1001, 'fine'))
  const key = one.engine.arena.i32.slice([...one.engine.flows()][0] >> 2, ([...one.engine.flows()][0] >> 2) + 11)
  one.engine.quarantine(key, false, one.now)
  assert.equal(run(one, frame(1001, POISON)), 0)
  const other = start()
  other.engine.quarantine(key, false, other.now)
  assert.equal(run(other, frame(1001, POISON)), 0)
  assert.equal(other.engine.table.size, 0)
  other.now += 601e6
  assert.equal(run(other, frame(1001, 'fine')), 1, 'after a while its sender has given up')
})

test('of several suspects each runs, with care: off the fast path, where it is noted', () => {
  const one = start()
  run(one, frame(1001, 'fine'), frame(1002, 'fine'))
  const keys = [...one.engine.flows()].map((record) => one.engine.arena.i32.slice(record >> 2, (record >> 2) + 11))
  const note = new Int32Array(IN_PROGRESS_BYTES >> 2)
  const batch = new InProgress(note)
  for (const key of [...keys, keys[0] as Int32Array]) batch.add(key, 0)
  assert.deepEqual(portsOf(note), [1001, 1002], 'each once')
  for (const key of readInProgress(note)) one.engine.quarantine(key, true, one.now)
  assert.equal(run(one, frame(1001, 'fine'), frame(1002, 'fine')), 2)
  assert.throws(() => run(one, frame(1002, POISON)))
  assert.deepEqual(portsOf(one.note), [1002])
})

test('flows in quarantine are bounded: the oldest is forgotten', () => {
  const quarantine = new Quarantine()
  const keyOf = (number: number): Int32Array => new Int32Array(KEY_WORDS).fill(number)
  const kindOf = (number: number): number => quarantine.of(keyOf(number), 0, 1)
  for (let number = 1; number <= QUARANTINED_MAX; number++) quarantine.add(keyOf(number), Quarantined.poisoned, 0)
  // Said again it takes no other's place, and is the newest.
  quarantine.add(keyOf(2), Quarantined.poisoned, 0)
  assert.equal(kindOf(1), Quarantined.poisoned)
  quarantine.add(keyOf(QUARANTINED_MAX + 1), Quarantined.suspect, 0)
  assert.deepEqual([1, 2, 3, QUARANTINED_MAX + 1].map(kindOf),
    [Quarantined.no, Quarantined.poisoned, Quarantined.poisoned, Quarantined.suspect])
  assert.equal(quarantine.size, QUARANTINED_MAX)
})

test('the key of a packet is known by the words that its version has: the others hold what there was before', () => {
  const quarantine = new Quarantine()
  for (const version of [4, 6]) {
    const key = new Int32Array(KEY_WORDS)
    key.set([version << 24, (1001 << 16) | 53, 17, 0x0a000001])
    quarantine.add(key, Quarantined.poisoned, 0)
    const other = key.slice()
    other[10] = 7
    assert.equal(quarantine.of(key, 0, 1), Quarantined.poisoned)
    assert.equal(quarantine.of(other, 0, 1), version === 4 ? Quarantined.poisoned : Quarantined.no)
  }
})

test('of a batch as many flows are noted as it can have: more are not, and nothing behind the note is touched', () => {
  const words = IN_PROGRESS_BYTES >> 2
  const memory = new Int32Array(words + 24).fill(-1)
  const note = memory.subarray(0, words)
  const batch = new InProgress(memory)
  for (let number = 1; number <= BATCH_PACKETS + 2; number++) batch.add(new Int32Array(KEY_WORDS).fill(number), 0)
  assert.deepEqual(readInProgress(note).map((key) => key[0]), Array.from({ length: BATCH_PACKETS }, (_, index) => index + 1))
  assert.ok(memory.subarray(words).every((word) => word === -1))
})

test('memory that is no note says nothing', () => {
  assert.deepEqual(readInProgress(new Int32Array(IN_PROGRESS_BYTES >> 2)), [])
  assert.deepEqual(readInProgress(new Int32Array(4)), [])
  const note = new Int32Array(IN_PROGRESS_BYTES >> 2)
  void new InProgress(note)
  for (const count of [-1, 33, 1e9]) {
    note[1] = count
    assert.deepEqual(readInProgress(note), [])
  }
})
