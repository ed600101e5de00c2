/**
 * The frame player of `nfactor bench cluster`: what it sends is right, and what a seat loses, doubles, turns round or changes is counted.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FramePlayer } from '../../bench/cluster/frame-player.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { createTraffic } from '../ports/traffic/traffic-generator.ts'
import { WrapperPort } from '../ports/wrapper-port.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { foldSum, sumBytes } from '../wire/checksum.ts'

const FLOWS = 4096
const MACS = [[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]]

/** A player, with a seat that is one function: what comes of each frame. It is called with the frame and a way to send it on. */
function createBench(isTcp: boolean) {
  const arena = new Arena(64 << 20)
  const { i32, u8 } = arena
  const pool = new PacketPool(arena, 4096, 1)
  const descriptors = arena.allocate('seat', 32 * DESCRIPTOR_BYTES) >> 2
  const links = [0, 1].map(() => createMemoryPorts(arena, { frames: 4096, reserved: 0, frameBytes: 128 }))
  let others = 0
  const player = new FramePlayer({
    arena, pool, flows: FLOWS, isTcp, ports: [new WrapperPort(links[0][0]), new WrapperPort(links[1][0])], now: () => 0,
    onOther(_side, slot) {
      others++
      pool.give(slot)
    },
  })
  const traffic = createTraffic({ arena, seed: 1, flows: FLOWS, tcpShare: isTcp ? 1 : 0, replyPackets: isTcp ? 1 : 0, isClosedLoop: isTcp })
  /** The next packet of every flow of a side, as the generator makes them. */
  const each = (side: 0 | 1, take: (frame: number, length: number) => void): void => {
    for (let made = 0; made < FLOWS;) {
      const count = traffic.ports[side].receive(pool, descriptors, 32)
      for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
        take(i32[d + Descriptor.frame], i32[d + Descriptor.length])
        traffic.ports[1 - side].send(i32[d + Descriptor.frame], i32[d + Descriptor.length])
        pool.give(i32[d + Descriptor.slot])
      }
      made += count
    }
  }
  if (isTcp) for (const side of [0, 1, 0] as const) each(side, () => undefined)
  for (let side = 0; side < player.ways; side++) each(side as 0 | 1, (frame, length) => { player.keep(side, frame, length) })
  player.start(MACS)
  return {
    u8, player,
    get others() { return others },
    /** @param seat true: the frame goes on; it may be changed before */
    run(turns: number, seat: (side: number, frame: number, length: number, send: () => void) => boolean = () => true): void {
      for (let turn = 0; turn < turns; turn++) {
        player.turn(turn)
        for (const side of [0, 1]) {
          const count = links[side][1].receive(pool, descriptors, 32)
          for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
            const send = (): void => { links[1 - side][1].send(i32[d + Descriptor.frame], i32[d + Descriptor.length]) }
            if (seat(side, i32[d + Descriptor.frame], i32[d + Descriptor.length], send)) send()
            pool.give(i32[d + Descriptor.slot])
          }
        }
      }
    },
  }
}

test('TCP: each round goes on where the one before was, with right checksums, and all of it is counted', () => {
  const { player, run, u8 } = createBench(true)
  const view = new DataView(u8.buffer, u8.byteOffset)
  const next = [new Map<number, number>(), new Map<number, number>()]
  let checked = 0
  run(1000, (side, frame, length) => {
    const segment = frame + 34
    // Pseudo header: addresses, protocol, length.
    assert.equal(foldSum(sumBytes(u8, frame + 26, 8) + 6 + length - 34 + sumBytes(u8, segment, length - 34)), 0xffff)
    const flow = view.getUint32(frame + 58, true)
    const sequence = view.getUint32(segment + 4)
    const awaited = next[side].get(flow)
    if (awaited !== undefined) assert.equal(sequence, awaited)
    // It acknowledges what the other side has said.
    const heard = next[1 - side].get(flow)
    if (heard !== undefined) assert.equal(view.getUint32(segment + 8), heard)
    next[side].set(flow, (sequence + length - 54) >>> 0)
    checked++
    return true
  })
  const { sent, received, ...wrong } = player.counts
  assert.ok(sent > 5 * FLOWS && sent === checked, `${sent} frames`)
  assert.ok(sent - received <= 64)
  assert.deepEqual(wrong, { lost: 0, outOfOrder: 0, corrupted: 0, foreign: 0 })
})

test('what is lost, doubled, out of order, changed and not ours is told', () => {
  const bench = createBench(false)
  const { player, run, u8 } = bench
  let count = 0
  let kept: (() => void) | undefined
  run(600, (_side, frame, _length, send) => {
    count++
    if (count === 1000 || count === 1001) return false
    if (count === 2000) send()
    if (count % 32 === 1 && count > 3000 && count < 3100) u8[frame + 55] ^= 1
    if (count === 4000) u8[frame + 46] ^= 255
    if (count === 5000) u8[frame + 12] = 0x88
    kept = send
    return true
  })
  assert.ok(kept !== undefined)
  const { sent, received, lost, outOfOrder, corrupted, foreign } = player.counts
  assert.ok(sent > 10_000)
  assert.equal(outOfOrder, 2, 'the doubled one, and the one that looks like another flow\'s')
  assert.equal(bench.others, 1)
  // The two that did not come, that which was no data any more, and that which was another's.
  assert.equal(lost, 4)
  assert.ok(corrupted >= 1 && foreign === 0, `${corrupted} changed`)
  assert.ok(sent - received - lost <= 64)
  player.pause(true)
  run(10)
  player.giveUp()
  assert.equal(player.counts.received + player.counts.lost, player.counts.sent)
})
