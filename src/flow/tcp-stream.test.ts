import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { ExtentPool } from '../memory/extent-pool.ts'
import { TcpStreams, tcpStream, type OverlapPolicy, type StreamReader } from './tcp-stream.ts'

const GAP = -1
const SKIPPED = -2

/** Streams over a small arena; what the reader is given is kept position by position. */
class Setup {
  readonly arena = new Arena(1 << 20)
  readonly pool: ExtentPool
  readonly state
  readonly streams: TcpStreams
  /** Byte, GAP or SKIPPED for each position of the stream so far. */
  readonly given: number[] = []
  /** How much the reader says it need not see; asked anew each time. */
  skippable = (): number => 0
  readonly #at: number

  constructor(overlap: OverlapPolicy, initial: number, blocks: number, poolBlocks = 256) {
    this.pool = new ExtentPool(this.arena, poolBlocks, 64)
    const schema = tcpStream(blocks)
    this.state = schema.bind({ arena: this.arena, extents: this.pool })
    this.state.o = this.arena.allocate('state', schema.bytes)
    this.state.next = initial
    this.#at = this.arena.allocate('segment', 65536)
    const reader: StreamReader = {
      streamData: (direction, offset, end) => {
        assert.equal(direction, 1)
        assert.ok(end > offset)
        for (let i = offset; i < end; i++) this.given.push(this.arena.u8[i])
      },
      streamGap: (_direction, bytes) => {
        assert.ok(bytes > 0)
        for (let i = 0; i < bytes; i++) this.given.push(GAP)
      },
      streamSkippable: () => this.skippable(),
      streamSkip: (_direction, bytes) => {
        assert.ok(bytes > 0 && bytes <= this.skippable())
        for (let i = 0; i < bytes; i++) this.given.push(SKIPPED)
      },
    }
    this.streams = new TcpStreams(reader, overlap)
  }

  segment(sequence: number, bytes: Uint8Array): void {
    this.arena.u8.set(bytes, this.#at)
    this.streams.segment(this.state, 1, sequence | 0, this.#at, bytes.length)
    this.check()
  }

  acknowledged(sequence: number): void {
    this.streams.acknowledged(this.state, 1, sequence | 0)
    this.check()
  }

  /** The chain is sorted, begins beyond `next`, does not overlap, and keeps its bound. */
  check(): void {
    const { pool, state } = this
    assert.ok(state.pending.blocks <= state.pending.blocksMax)
    assert.equal(pool.used, state.pending.blocks)
    let end = state.next
    let first = true
    for (let block = state.pending.head; block !== 0; block = pool.next(block)) {
      const ahead = (pool.tag(block) - end) | 0
      assert.ok(first ? ahead > 0 : ahead >= 0, 'sorted, without overlap, behind a hole')
      assert.ok(pool.length(block) > 0 && pool.length(block) <= pool.dataBytes)
      end = (pool.tag(block) + pool.length(block)) | 0
      first = false
    }
  }
}

const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (letter) => letter.charCodeAt(0))

for (const policy of ['first', 'last'] as const) {
  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    test(`segments in any order, repeated, overlapping, contradicting: ${policy} (seed ${seed})`, () => {
      const random = new Random(seed)
      const size = random.between(50, 2000)
      const start = random.pick([0, 12345, -30, 0x7fffffff - 100, -0x80000000])
      const setup = new Setup(policy, start, 200)
      /** What is known of each position: the model. */
      const known: (number | undefined)[] = new Array(size)
      let next = 0
      const send = (from: number, bytes: Uint8Array): void => {
        setup.segment(start + from, bytes)
        bytes.forEach((byte, i) => {
          const at = from + i
          if (at >= next && (policy === 'last' || known[at] === undefined)) known[at] = byte
        })
        while (next < size && known[next] !== undefined) next++
        assert.equal(setup.given.length, next)
        assert.equal(setup.state.next, (start + next) | 0)
      }
      for (let i = 0; i < 150; i++) {
        const from = Math.max(0, Math.min(size - 1, random.chance(0.5) ? next + random.between(-20, 60) : random.below(size)))
        const length = Math.min(random.between(1, random.pick([3, 30, 300])), size - from)
        send(from, random.fill(new Uint8Array(length)))
      }
      send(0, random.fill(new Uint8Array(size)))
      assert.equal(next, size)
      assert.equal(setup.given.findIndex((byte, at) => byte !== known[at]), -1, 'the first position that differs')
      assert.equal(setup.pool.used, 0)
      assert.equal(setup.streams.gaps, 0)
    })
  }
}

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) {
  test(`loss, acknowledgement, skipping and little room: what is given is what was sent (seed ${seed})`, () => {
    const random = new Random(seed)
    const size = 4000
    const sent = random.fill(new Uint8Array(size))
    const start = random.int32()
    // The reader of a body skips: some ranges of the stream need not be seen.
    const skip = random.chance(0.5)
    const setup = new Setup(random.pick(['first', 'last']), start, random.between(1, 6), random.between(1, 8))
    setup.skippable = () => (skip && setup.given.length % 1000 > 300 ? 1000 - setup.given.length % 1000 : 0)
    const peak: number[] = []
    let arrived = 0
    for (let round = 0; round < 400; round++) {
      const from = Math.max(0, Math.min(size - 1, arrived + random.between(-80, 200)))
      const length = Math.min(random.between(1, 150), size - from)
      setup.segment(start + from, sent.subarray(from, from + length))
      arrived = Math.max(arrived, Math.min(from + length, arrived + 40))
      if (random.chance(0.05)) setup.acknowledged(start + Math.max(0, arrived - random.below(60)))
      peak.push(setup.pool.used)
    }
    setup.acknowledged(start + size)
    assert.equal(setup.given.length, size, 'every position was given once: as a byte, skipped or as a gap')
    setup.given.forEach((byte, at) => {
      if (byte >= 0) assert.equal(byte, sent[at], `byte ${at}`)
      if (byte === SKIPPED) assert.ok(skip && at % 1000 > 300)
    })
    assert.equal(setup.streams.gapBytes, setup.given.filter((byte) => byte === GAP).length)
    assert.ok(setup.streams.gaps <= setup.streams.gapBytes)
    assert.equal(setup.pool.used, 0, 'all blocks are back')
    assert.ok(Math.max(...peak) > 0)
  })
}

test('the plain cases', () => {
  const setup = new Setup('first', 100, 4)
  setup.segment(100, bytesOf('ab'))
  setup.segment(104, bytesOf('ef'))
  assert.deepEqual(setup.given, [...bytesOf('ab')])
  assert.equal(setup.state.pending.length, 2)
  setup.segment(101, bytesOf('bcd'))
  assert.deepEqual(setup.given, [...bytesOf('abcdef')])
  setup.segment(100, bytesOf('xxxx'))
  setup.segment(90, bytesOf('0123456789abcdefgh'))
  assert.deepEqual(setup.given, [...bytesOf('abcdefgh')], 'only what is new of a retransmission')
})

test('bytes that came first stay under `first`, also when the hole before them is filled by a longer segment', () => {
  for (const [policy, expected] of [['first', 'abCDEF'], ['last', 'abcdef']] as const) {
    const setup = new Setup(policy, 0, 4)
    setup.segment(2, bytesOf('CDEF'))
    setup.segment(0, bytesOf('abcdef'))
    assert.deepEqual(String.fromCharCode(...setup.given), expected, policy)
  }
})

test('an acknowledged hole is passed over, and what is behind it delivered', () => {
  const setup = new Setup('first', 0, 4)
  setup.segment(5, bytesOf('five'))
  setup.acknowledged(0)
  setup.acknowledged(-10)
  assert.deepEqual(setup.given, [])
  setup.acknowledged(7)
  assert.deepEqual(setup.given, [GAP, GAP, GAP, GAP, GAP, ...bytesOf('five')])
  assert.equal(setup.streams.gaps, 1)
  assert.equal(setup.streams.gapBytes, 5)
  setup.acknowledged(12)
  assert.equal(setup.streams.gaps, 2)
  assert.equal(setup.state.next, 12)
})

test('a hole that is partly acknowledged stays a hole', () => {
  const setup = new Setup('first', 0, 4)
  setup.segment(10, bytesOf('tail'))
  setup.acknowledged(4)
  assert.deepEqual(setup.given, [GAP, GAP, GAP, GAP])
  setup.segment(4, bytesOf('456789'))
  assert.equal(setup.given.length, 14)
})

test('without room the oldest hole is given up, never a byte that is there', () => {
  const setup = new Setup('first', 0, 2)
  setup.segment(10, bytesOf('ten'))
  setup.segment(20, bytesOf('twenty'))
  assert.equal(setup.pool.used, 2)
  setup.segment(30, bytesOf('thirty'))
  assert.equal(setup.streams.gapBytes, 10, 'the hole before ten')
  assert.equal(setup.given.length, 13)
  assert.equal(setup.pool.used, 2)
  // A pool that others have emptied.
  const empty = new Setup('first', 0, 4, 1)
  const taken = empty.pool.take()
  empty.arena.u8.set(bytesOf('late'), 512 * 1024)
  empty.streams.segment(empty.state, 1, 7, 512 * 1024, 4)
  assert.deepEqual(empty.given, [GAP, GAP, GAP, GAP, GAP, GAP, GAP, ...bytesOf('late')])
  assert.ok(empty.pool.refused > 0)
  empty.pool.give(taken)
})

test('a reader that need not see what is missing loses nothing to a hole', () => {
  const setup = new Setup('first', 0, 4)
  setup.skippable = () => Math.max(0, 100 - setup.given.length)
  setup.segment(50, bytesOf('x'))
  assert.equal(setup.given.filter((byte) => byte === SKIPPED).length, 50)
  assert.equal(setup.streams.gaps, 0)
  setup.segment(101, bytesOf('behind'))
  assert.equal(setup.state.pending.length, 6, 'beyond what may be skipped it waits')
  setup.acknowledged(101)
  assert.equal(setup.streams.gaps, 1, 'a hole that reaches beyond it is one')
  assert.equal(setup.pool.used, 0)
})

test('a stream can be cleared, also by the reader while it is read', () => {
  const setup = new Setup('first', 0, 4)
  setup.segment(5, bytesOf('abc'))
  setup.streams.clear(setup.state)
  assert.equal(setup.pool.used, 0)
  setup.segment(5, bytesOf('abc'))
  setup.segment(9, bytesOf('def'))
  const clearing = new TcpStreams({
    streamData: () => clearing.clear(setup.state),
    streamGap: () => undefined, streamSkippable: () => 0, streamSkip: () => undefined,
  }, 'first')
  clearing.acknowledged(setup.state, 1, 5)
  assert.equal(setup.pool.used, 0)
  assert.equal(setup.state.pending.head, 0)
})
