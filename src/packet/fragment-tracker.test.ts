import { test } from 'node:test'
import assert from 'node:assert/strict'
import { defaultLimits, type EngineLimits } from '../base/limits.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { buildFragments, type FrameOptions } from '../testing/index.ts'
import { Descriptor as D, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, Meta } from './descriptor.ts'
import { FRAGMENT_ENTRY_BYTES, FragmentOutcome, FragmentTracker } from './fragment-tracker.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from './packet-pool.ts'
import { createParser, ParseResult } from './parse.ts'

const LIFETIME_US = 60e6
const KEY_WORDS = 11

class Setup {
  readonly arena = new Arena(1 << 23)
  readonly pool = new PacketPool(this.arena, 256, 1)
  readonly parser = createParser(this.arena, 3)
  readonly tracker: FragmentTracker
  readonly d = this.arena.allocate('descriptor', DESCRIPTOR_BYTES) >> 2

  constructor(limits: Partial<EngineLimits> = {}) {
    this.tracker = new FragmentTracker(this.arena, { ...defaultLimits, fragmentedDatagrams: 64, ...limits }, LIFETIME_US)
  }

  /** Parses a frame in a slot of its own; its result. */
  parse(frame: Uint8Array, time: number, inPool = true): number {
    const { arena: { i32, u8, f64 }, d } = this
    const slot = this.pool.take(frame.length)
    const at = slot + SLOT_FRAME_OFFSET
    u8.set(frame, at)
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    i32[d + D.frame] = at
    i32[d + D.length] = i32[d + D.wireLength] = frame.length
    i32[d + D.slot] = inPool ? slot : 0
    i32[d + D.linkType] = 1
    f64[(d + D.time) >> 1] = time
    return this.parser.parse(d)
  }

  /** What a packet brings: the outcome of a later fragment, or the list of slots that a first one sets free. */
  bring(frame: Uint8Array, time: number): number | number[] {
    const result = this.parse(frame, time)
    if (result === ParseResult.firstFragment) return this.slots(this.tracker.first(this.d))
    assert.equal(result, ParseResult.laterFragment)
    const outcome = this.tracker.later(this.d)
    if (outcome !== FragmentOutcome.held) this.give()
    return outcome
  }

  give(): void {
    this.pool.give(this.arena.i32[this.d + D.slot])
  }

  slots(list: number): number[] {
    const slots: number[] = []
    for (let slot = list; slot > 0; slot = this.arena.i32[(slot >> 2) + D.nextHeld]) slots.push(slot)
    return slots
  }

  key(): string {
    const { arena: { i32 }, d } = this
    const words = i32[d + D.key] >>> 24 === 4 ? [0, 1, 2, 3, 7] : Array.from({ length: KEY_WORDS }, (_, i) => i)
    return `${words.map((w) => i32[d + D.key + w]).join()} ${i32[d + D.hash]} ${i32[d + D.meta] & Meta.fromB}`
  }
}

const bases: Record<string, FrameOptions> = {
  IPv4: {}, 'IPv4 with VLAN': { vlans: [7] }, 'IPv4 with options': { ipOptions: new Uint8Array(8).fill(1) },
  IPv6: { source: '2001:db8::9', destination: '2001:db8::1' },
  'IPv6 with extensions': { source: '2001:db8::9', destination: '2001:db8::1', extensions: [{ type: 0 }] },
  'IPv6 with inner extensions': { source: '2001:db8::9', destination: '2001:db8::1', innerExtensions: [{ type: 60 }] },
}

for (const [name, base] of Object.entries(bases)) {
  test(`${name}: a later fragment has its first one's flow, direction and stream position`, () => {
    for (const carried of [
      { tcp: { sequence: 0xfffffff0, flags: 'PA', payload: 'x'.repeat(200) } },
      { tcp: { sequence: 7, flags: 'S', payload: 'x'.repeat(200) } },
      { udp: { payload: 'x'.repeat(200) } }, { protocol: 47, payload: 'x'.repeat(200) },
    ] as FrameOptions[]) {
      const setup = new Setup()
      const [first, ...later] = buildFragments({ ...base, ...carried, identification: 5 }, 64)
      assert.deepEqual(setup.bring(first, 1), [])
      const key = setup.key()
      const { i32 } = setup.arena
      const { d } = setup
      let position = i32[d + D.payloadLength]
      for (const frame of later) {
        assert.equal(setup.bring(frame, 2), FragmentOutcome.flow)
        assert.equal(setup.key(), key)
        if (carried.tcp !== undefined) {
          const syn = carried.tcp.flags === 'S' ? 1 : 0
          assert.equal(i32[d + D.sequence], ((carried.tcp.sequence as number) + syn + position) | 0)
        }
        assert.ok(i32[d + D.meta] & Meta.laterFragment)
        assert.equal((i32[d + D.meta] >>> 8) & 255, 0, 'no flags: they stand in the first one')
        position += i32[d + D.payloadLength]
      }
      assert.equal(position, 200)
    }
  })

  test(`${name}: the rest of a datagram whose first fragment was dropped is known as such, also where its flow has gone`, () => {
    const [setup, there] = [new Setup(), new Setup()]
    const [first, second, third] = buildFragments({ ...base, identification: 5, udp: { payload: 'x'.repeat(200) } }, 64)
    setup.bring(first, 1)
    setup.bring(second, 2)
    // An earlier one of the same identification, which a function has held until now, or the latest.
    for (const [time, isDropped] of [[-1e9, false], [1, true]] as const) {
      setup.parse(first, time)
      setup.tracker.dropped(setup.d)
      setup.parse(second, 2)
      assert.equal(setup.tracker.isRestOfDropped(setup.d), isDropped)
    }
    const copy = new DataView(new ArrayBuffer(FRAGMENT_ENTRY_BYTES))
    setup.parse(first, 1)
    const entries = setup.tracker.datagramsOf(setup.d + D.key, 1, null)
    setup.tracker.exportEntry(entries[0], 4, copy, 0)
    there.tracker.importEntry(copy, 0, 4, 1)
    for (const one of [setup, there]) {
      assert.equal(one.bring(third, 5), FragmentOutcome.flow)
      assert.equal(one.tracker.isRestOfDropped(one.d), true)
    }
  })

  test(`${name}: what waits can be taken back for a flow between the same ends`, () => {
    const setup = new Setup()
    const { i32 } = setup.arena
    const known = setup.arena.allocate('key', KEY_WORDS * 4) >> 2
    const datagram = (options: FrameOptions): Uint8Array[] =>
      buildFragments({ ...base, ...options, udp: { payload: 'x'.repeat(200) } }, 64)
    setup.bring(datagram({ identification: 1 })[0] as Uint8Array, 1)
    for (let i = 0; i < KEY_WORDS; i++) i32[known + i] = i32[setup.d + D.key + i]
    const source = base.source ?? '10.0.0.1'
    const destination = base.destination ?? '10.0.0.2'
    const [, b, c] = datagram({ identification: 2 }) as [Uint8Array, Uint8Array, Uint8Array]
    const back = datagram({ identification: 3, source: destination, destination: source })[1] as Uint8Array
    const other = datagram({ identification: 4, source: source.includes(':') ? '2001:db8::77' : '10.0.0.77' })[1] as Uint8Array
    const tagged = datagram({ identification: 5, vlans: [99] })[1] as Uint8Array
    for (const frame of [b, other, back, tagged, c]) assert.equal(setup.bring(frame, 2), FragmentOutcome.held)
    assert.deepEqual(setup.tracker.takeWaitingOf(known).map((list) => setup.slots(list).length), [2, 1])
    assert.equal(setup.tracker.held, 2)
    assert.deepEqual(setup.tracker.takeWaitingOf(known), [])
  })

  test(`${name}: what comes before its first one waits, in order`, () => {
    const setup = new Setup()
    const frames = buildFragments({ ...base, udp: { payload: 'x'.repeat(300) }, identification: 5 }, 64)
    for (const frame of [frames[3], frames[1], frames[4], frames[1]]) assert.equal(setup.bring(frame, 1), FragmentOutcome.held)
    assert.equal(setup.tracker.held, 4)
    const waiting = setup.bring(frames[0], 2) as number[]
    const key = setup.key()
    assert.equal(waiting.length, 4)
    assert.equal(setup.tracker.held, 0)
    const { i32 } = setup.arena
    assert.deepEqual(waiting.map((slot) => i32[(slot >> 2) + D.sequence]), [192, 64, 256, 64])
    for (const slot of waiting) {
      i32.copyWithin(setup.d, slot >> 2, (slot >> 2) + DESCRIPTOR_WORDS)
      assert.equal(setup.tracker.later(setup.d), FragmentOutcome.flow)
      assert.equal(setup.key(), key)
      assert.equal(i32[setup.d + D.frame], slot + SLOT_FRAME_OFFSET)
    }
    assert.deepEqual(setup.bring(frames[0], 3), [], 'the first one again sets nothing free')
    assert.equal(setup.bring(frames[2], 3), FragmentOutcome.flow)
  })
}

test('datagrams are told apart by everything that RFC 791 and RFC 8200 name', () => {
  const six: FrameOptions = { source: '2001:db8::9', destination: '2001:db8::1' }
  const options: FrameOptions[] = [
    {}, { identification: 1 }, { source: '10.0.0.9' }, { destination: '10.0.0.9' }, { vlans: [1] }, { pppoe: 1 },
    { source: '10.0.0.2', destination: '10.0.0.1' }, six, { ...six, identification: 1 }, { ...six, identification: 0x10000 },
    { ...six, source: '2001:db8::a' }, { ...six, destination: '2001:db8::a' },
  ]
  const setup = new Setup()
  const frames = options.map((o) => buildFragments({ ...o, udp: { payload: 'x'.repeat(100) } }, 64))
  // The same addresses and identification with another protocol: another datagram in IPv4.
  frames.push(buildFragments({ protocol: 47, payload: 'x'.repeat(100) }, 64))
  frames.forEach(([, later]) => assert.equal(setup.bring(later, 1), FragmentOutcome.held))
  assert.equal(setup.tracker.size, frames.length)
  frames.forEach(([first]) => assert.equal((setup.bring(first, 1) as number[]).length, 1))
  assert.equal(setup.tracker.size, frames.length)
})

test('IPv6: the next header of a later fragment does not matter (RFC 8200 §4.5)', () => {
  const setup = new Setup()
  const [first, later] = buildFragments({ source: '::1', identification: 3, innerExtensions: [{ type: 60 }],
    udp: { payload: 'x'.repeat(100) } }, 64)
  setup.bring(first, 1)
  const key = setup.key()
  later[14 + 40] = 17
  assert.equal(setup.bring(later, 1), FragmentOutcome.flow)
  assert.equal(setup.key(), key)
})

test('a later fragment within the headers of its first one is malformed', () => {
  const setup = new Setup()
  const [first] = buildFragments({ tcp: { options: new Uint8Array(40).fill(1), payload: 'x'.repeat(100) },
    identification: 5 }, 96)
  setup.bring(first, 1)
  for (const [offset, expected] of [[24, FragmentOutcome.malformed], [56, FragmentOutcome.malformed],
    [64, FragmentOutcome.flow], [96, FragmentOutcome.flow]]) {
    const [, later] = buildFragments({ protocol: 6, payload: 'x'.repeat(offset + 8), identification: 5 }, offset)
    assert.equal(setup.bring(later, 1), expected, `offset ${offset}`)
  }
})

test('limits: in total, per datagram, and packets that cannot be kept', () => {
  const later = (id: number): Uint8Array => buildFragments({ udp: { payload: 'x'.repeat(100) }, identification: id }, 64)[1]
  const setup = new Setup({ fragmentsHeld: 5, fragmentsHeldPerDatagram: 3 })
  assert.deepEqual([1, 1, 1, 1, 2, 2, 3].map((id) => setup.bring(later(id), 1)),
    [1, 1, 1, 2, 1, 1, 2], 'held is 1, limit is 2')
  assert.equal(setup.tracker.held, 5)
  assert.equal(setup.pool.used, 5)
  setup.parse(later(9), 1, false)
  assert.equal(setup.tracker.later(setup.d), FragmentOutcome.limit, 'a packet without a slot')
})

test('when there is no room for another datagram the oldest goes, and its packets are handed out', () => {
  const setup = new Setup({ fragmentedDatagrams: 2 })
  const frames = [1, 2, 3, 4].map((id) => buildFragments({ udp: { payload: 'x'.repeat(100) }, identification: id }, 64))
  for (const [, later] of frames) {
    setup.bring(later, 10)
    setup.bring(later, 10)
  }
  assert.equal(setup.tracker.size, 2)
  assert.equal(setup.tracker.held, 8, 'those given up count until they are handed out')
  assert.equal(setup.tracker.nextExpiry(), -Infinity)
  assert.equal(setup.slots(setup.tracker.expire(10)).length, 4)
  assert.equal(setup.tracker.held, 4)
  assert.equal(setup.tracker.expire(10), 0)
  assert.equal((setup.bring(frames[3][0], 10) as number[]).length, 2)
  assert.equal((setup.bring(frames[0][0], 10) as number[]).length, 0, 'forgotten')
})

test('a datagram is forgotten when its time is up, known or waiting', () => {
  const setup = new Setup()
  const [one, two] = [1, 2].map((id) => buildFragments({ udp: { payload: 'x'.repeat(100) }, identification: id }, 64))
  setup.bring(one[0], 100)
  setup.bring(two[1], 200)
  assert.equal(setup.tracker.nextExpiry(), 100 + LIFETIME_US)
  assert.equal(setup.tracker.expire(99 + LIFETIME_US), 0)
  assert.equal(setup.tracker.expire(100 + LIFETIME_US), -1, 'nothing waited')
  assert.equal(setup.tracker.expire(100 + LIFETIME_US), 0)
  assert.equal(setup.tracker.nextExpiry(), 200 + LIFETIME_US)
  assert.equal(setup.bring(one[1], 150 + LIFETIME_US), FragmentOutcome.held, 'its first one is forgotten')
  assert.equal(setup.slots(setup.tracker.expire(200 + LIFETIME_US)).length, 1)
  assert.equal(setup.slots(setup.tracker.expire(Infinity)).length, 1)
  assert.equal(setup.tracker.expire(Infinity), 0)
  assert.deepEqual([setup.tracker.held, setup.tracker.size, setup.tracker.nextExpiry()], [0, 0, Infinity])
})

for (const seed of [1, 2, 3, 4]) {
  test(`the tracker against a map of datagrams (seed ${seed})`, () => {
    const random = new Random(seed)
    const limits = { fragmentedDatagrams: random.between(1, 8), fragmentsHeld: random.between(1, 30),
      fragmentsHeldPerDatagram: random.between(1, 6) }
    const setup = new Setup(limits)
    const datagrams = Array.from({ length: 12 }, (_, id) =>
      buildFragments({ ...random.pick(Object.values(bases)), udp: { sourcePort: id + 1, payload: 'x'.repeat(200) },
        identification: id }, 64))
    interface Entry { id: number; known: boolean; held: number[]; expiry: number }
    const model: Entry[] = []
    let abandoned: number[] = []
    const heldCount = (): number => model.reduce((sum, e) => sum + e.held.length, 0) + abandoned.length
    let time = 1
    const entryOf = (id: number): Entry => {
      let entry = model.find((e) => e.id === id)
      if (entry === undefined) {
        if (model.length >= limits.fragmentedDatagrams) abandoned.push(...(model.shift() as Entry).held)
        entry = { id, known: false, held: [], expiry: time + LIFETIME_US }
        model.push(entry)
      }
      return entry
    }
    for (let round = 0; round < 2000; round++) {
      time += random.below(3e6)
      const id = random.below(12)
      const index = random.below(4)
      const outcome = setup.bring(datagrams[id][index], time)
      const slot = setup.arena.i32[setup.d + D.slot]
      if (index === 0) {
        const entry = entryOf(id)
        assert.deepEqual(outcome, entry.held)
        for (const held of entry.held) setup.pool.give(held)
        entry.known = true
        entry.held = []
        setup.give()
      } else if (model.find((e) => e.id === id)?.known) {
        assert.equal(outcome, FragmentOutcome.flow)
      } else if (heldCount() >= limits.fragmentsHeld) {
        assert.equal(outcome, FragmentOutcome.limit)
      } else {
        const entry = entryOf(id)
        const full = entry.held.length >= limits.fragmentsHeldPerDatagram
        assert.equal(outcome, full ? FragmentOutcome.limit : FragmentOutcome.held)
        if (!full) entry.held.push(slot)
      }
      assert.deepEqual([setup.tracker.size, setup.tracker.held], [model.length, heldCount()])
      if (random.chance(0.3)) {
        for (let list = setup.tracker.expire(time); list !== 0; list = setup.tracker.expire(time)) {
          const expected = abandoned.length > 0 ? abandoned : (model.shift() as Entry).held
          abandoned = []
          assert.deepEqual(setup.slots(list).toSorted(), expected.toSorted())
          for (const held of expected) setup.pool.give(held)
        }
        assert.ok(model.every((e) => e.expiry > time) && abandoned.length === 0)
      }
      assert.equal(setup.pool.used, heldCount())
    }
  })
}
