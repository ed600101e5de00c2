/** What a switch keeps of packets that have come back by themselves, ahead of what it takes back from a dead runtime's link. PROTOCOL 20. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, Meta } from '../packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { ParseResult } from '../packet/parse.ts'
import { Entry, EntryFlag } from '../vswitch/switch-table.ts'
import type { DataLink } from './data-link.ts'
import { TakingBack, type TakingBackHost } from './taking-back.ts'

const RETURNED_MAX = 4096
const ENTRY = 64

test('positions of packets that have come back are bounded, for each link: the oldest is taken back with its flow after all', () => {
  const arena = new Arena(1 << 20)
  const pool = new PacketPool(arena, 64, 1)
  const taken: [number, number, number][] = []
  const host = {
    context: { arena, now: 1, table: { mainOf: (entry: number) => entry } },
    virtualSwitch: {
      addresses: { restore: () => true },
      takenBack: { forgetNotes: () => {}, add: (runtime: number, _life: number, entry: number, slot: number, position: number) => {
        pool.give(slot)
        taken.push([runtime, entry, position])
      } },
    },
    pool, parser: { parse: () => ParseResult.flow }, descriptors: arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2, find: () => ENTRY,
  } as unknown as TakingBackHost
  const takingBack = new TakingBack(host)
  /** A link that has three packets, at positions 1 to 3. */
  const linkWith = (): DataLink => {
    let left = 3
    const port = {
      get takeBackLeft() { return left },
      takeBack: (_pool: PacketPool, d: number): number => {
        const slot = pool.take(60)
        arena.i32[d + Descriptor.slot] = slot
        arena.i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
        left--
        return 1
      },
      endTakeBack: () => {},
    }
    return { beginTakeBack: () => ({ port, first: 1 }) } as unknown as DataLink
  }
  for (let position = 1; position <= RETURNED_MAX; position++) for (const runtime of [11, 12]) takingBack.returned(runtime, position)
  takingBack.returned(11, RETURNED_MAX + 1)
  for (const runtime of [11, 12]) takingBack.takeBack(runtime, linkWith(), 100 + runtime)
  assert.deepEqual(taken, [[11, ENTRY, 1], [11, 0, 2], [11, 0, 3], [12, 0, 1], [12, 0, 2], [12, 0, 3]])
  takingBack.takeBack(12, linkWith(), 112)
  assert.deepEqual(taken.slice(6), [[12, ENTRY, 1], [12, ENTRY, 2], [12, ENTRY, 3]], 'another connection has positions of its own')
  assert.equal(pool.used, 0)
})

test('an ICMP error goes with the flow that it is about, or with its own where that was there alone and somebody has served it', () => {
  const arena = new Arena(1 << 20)
  const pool = new PacketPool(arena, 64, 1)
  const [MAIN, OWN] = [1024, 2048]
  const [RUNTIME, LIFE] = [11, 111]
  let cameAhead: number[] = []
  let isOwnKey = false
  const taken: number[] = []
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const host = {
    context: { arena, now: 1, table: { mainOf: (entry: number) => entry } },
    virtualSwitch: {
      addresses: { restore: () => true },
      takenBack: { forgetNotes: () => {}, cameAhead: (_runtime: number, _life: number, entry: number) => cameAhead.includes(entry),
        add: (_runtime: number, _life: number, entry: number, slot: number) => {
          pool.give(slot)
          taken.push(entry)
        } },
    },
    pool, descriptors, find: () => (isOwnKey ? OWN : MAIN),
    parser: {
      parse: (d: number) => {
        isOwnKey = false
        arena.i32[d + Descriptor.meta] = Meta.related
        return ParseResult.flow
      },
      useOwnKey: () => { isOwnKey = true },
    },
  } as unknown as TakingBackHost
  const goesWith = (ahead: number[], owners: Record<number, number>, ownFlags = 0): number => {
    cameAhead = ahead
    for (const entry of [MAIN, OWN]) {
      arena.u16[(entry + Entry.owner) >> 1] = owners[entry] ?? RUNTIME
      arena.u32[(entry + Entry.ownerIncarnation) >> 2] = LIFE
    }
    arena.u8[OWN + Entry.flags] = ownFlags
    let left = 1
    const port = { get takeBackLeft() { return left }, endTakeBack: () => {}, takeBack: (_pool: PacketPool, d: number): number => {
      const slot = pool.take(60)
      arena.i32[d + Descriptor.slot] = slot
      arena.i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
      return left--
    } }
    new TakingBack(host).takeBack(RUNTIME, { beginTakeBack: () => ({ port, first: 1 }) } as unknown as DataLink, LIFE)
    return taken.pop() as number
  }
  assert.equal(goesWith([MAIN, OWN], {}), MAIN)
  assert.equal(goesWith([OWN], {}), OWN, 'the flow has come since')
  assert.equal(goesWith([OWN], {}, EntryFlag.fresh), MAIN, 'nobody serves one of its own: the runtime knew the flow before this switch did')
  assert.equal(goesWith([OWN], { [MAIN]: 12 }, EntryFlag.fresh), OWN, 'the flow never was there')
  assert.equal(goesWith([], {}), MAIN)
})
