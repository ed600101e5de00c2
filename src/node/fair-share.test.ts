/** Fair share: flows that send little lose nothing beside those that send much, and nothing is lost that could have been taken. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { FairShare, FairShares } from './fair-share.ts'

const CAPACITY = 1024
const TURN_US = 500
/** A runtime takes so many packets in a turn. */
const TAKEN = 10

/** Sends each flow's packets per turn through a link for so many turns, and returns what of the second half of them went on. */
function run(perTurn: readonly number[], turns: number, late = 0): { passed: number[], all: number, refused: number } {
  const fair = new FairShare()
  const sent = perTurn.map(() => 0)
  const passed = perTurn.map(() => 0)
  let queue = 0
  let all = 0
  /** Packets taken in the last turns, whose slots are not given back. */
  const kept: number[] = []
  let refused = 0
  for (let turn = 0; turn < turns; turn++) {
    const inUse = (): number => queue + kept.reduce((sum, count) => sum + count, 0)
    fair.turn(turn * TURN_US, CAPACITY - inUse(), late > 0)
    const isCounted = turn >= turns / 2
    for (const [flow, count] of perTurn.entries()) {
      for (sent[flow] += count; sent[flow] >= 1; sent[flow]--) {
        const isAdmitted = !fair.isCounting || fair.admits(flow * 7919)
        if (!isAdmitted) continue
        if (inUse() === CAPACITY) {
          if (fair.isCounting) fair.refused()
          if (isCounted) refused++
          continue
        }
        queue++
        if (isCounted) passed[flow]++
      }
    }
    const taken = Math.min(queue, TAKEN)
    queue -= taken
    kept.push(taken)
    while (kept.length > late) kept.shift()
    if (isCounted) all += taken
  }
  return { passed, all, refused }
}

test('flows that send less than a share lose nothing, the others have equal shares, and the link is never empty', () => {
  const small = new Array<number>(20).fill(0.1)
  const { passed, all, refused } = run([12, 6, ...small], 8000)
  assert.equal(all, TAKEN * 4000, 'the runtime has always had packets')
  assert.equal(refused, 0, 'the link was never full')
  for (const count of passed.slice(2)) assert.ok(Math.abs(count - 400) <= 1, `${count} of 400`)
  const share = (TAKEN - 2) / 2 * 4000
  for (const count of passed.slice(0, 2)) assert.ok(Math.abs(count - share) < share * 0.06, `${count}, the share is ${share}`)
})

test('where slots are given back late, nothing is lost while the runtime takes all, and flows are told apart when it does not', () => {
  const { passed, refused } = run([4, 3, 2], 1000, 70)
  assert.deepEqual([passed, refused], [[2000, 1500, 1000], 0])
  const overload = run([20, 1], 1000, 70)
  assert.equal(overload.passed[1], 500)
})

test('who sends little more than the share loses that alone', () => {
  const { passed } = run([20, 4, 2], 8000)
  assert.ok(passed[2] === 2 * 4000 && passed[1] >= 3.9 * 4000 * 0.97, String(passed))
})

test('nothing is lost while the runtime takes all, nor after it has been slow', () => {
  const { passed, refused } = run([8, 1, 0.5], 4000)
  assert.deepEqual([passed, refused], [[16_000, 2000, 1000], 0])
  const fair = new FairShare()
  // It has taken 10,000 packets in 100 ms: half of the link may wait.
  fair.turn(0, 1000)
  fair.turn(100_000, 1000, false, 10_000)
  fair.turn(100_001, 600, false, 10_400)
  assert.ok(!fair.isTight && fair.isCounting)
  for (let packet = 0; packet < 300; packet++) assert.ok(fair.admits(packet % 2 === 0 ? 1 : packet % 60), 'nobody is known yet')
  fair.turn(120_002, 480, false, 10_700)
  assert.ok(!fair.admits(1) && fair.admits(3), 'who has sent most is thinned out')
  fair.turn(120_003, 600, false, 10_700)
  for (let packet = 0; packet < 40; packet++) assert.ok(fair.admits(1), 'not while less waits')
  fair.turn(150_000, 900, false, 10_700)
  assert.ok(!fair.isCounting)
})

test('before anything is known of a runtime, a flood does not fill the link, and others lose nothing', () => {
  const long = 4032
  for (const perTurn of [3, 0]) {
    const fair = new FairShare()
    let queue = 0
    let longest = 0
    const lost = { small: 0, flood: 0 }
    // It takes 6,000 packets a second, or nothing for 200 ms, while two flows send 50,000 and twenty others 2,000.
    for (let turn = 0; turn < 400; turn++) {
      fair.turn(turn * TURN_US, long - queue)
      const flows = [1, 2].flatMap((flow) => new Array<number>(25).fill(flow))
      flows.push(10 + turn % 20)
      for (const flow of flows) {
        const isSent = (!fair.isCounting || fair.admits(flow * 7919)) && queue < long
        if (isSent) queue++
        else lost[flow < 10 ? 'flood' : 'small']++
      }
      queue = Math.max(0, queue - perTurn)
      longest = Math.max(longest, queue)
    }
    assert.equal(lost.small, 0)
    assert.ok(lost.flood > 10_000 && longest < 2900 && (perTurn === 0 || queue < 1700), `${longest} packets wait, then ${queue}`)
  }
})

test('a link of a runtime that takes nothing is there for all, to its end', () => {
  const fair = new FairShare()
  fair.turn(0, 100)
  fair.turn(1, 45)
  for (let packet = 0; packet < 20; packet++) assert.ok(fair.admits(packet % 10))
  fair.turn(20_001, 25)
  for (let packet = 0; packet < 25; packet++) assert.ok(fair.admits(packet % 25))
})

test('while a runtime waits for its core, and before the first share is known, a flood does not take the last of the room', () => {
  for (const late of [false, true]) {
    const fair = new FairShare()
    let queue = late ? CAPACITY * 0.75 : 0
    const lost = { small: 0, flood: 0 }
    const passed = { small: 0, flood: 0 }
    // It takes nothing for 150 ms, while two flows send 25 packets a turn and twenty others one in four turns.
    for (let turn = 0; turn < 300; turn++) {
      if (turn === 0) fair.turn(0, CAPACITY, late)
      fair.turn(turn * TURN_US, CAPACITY - queue, late)
      const floods = [1, 2].flatMap((flow) => new Array<number>(25).fill(flow))
      const flows = [...floods, ...Array.from({ length: 5 }, (_, i) => 10 + i * 4 + turn % 4)]
      for (const flow of flows) {
        const kind = flow < 10 ? 'flood' : 'small'
        const isSent = (!fair.isCounting || fair.admits(flow * 7919)) && queue < CAPACITY
        if (isSent) queue++
        ;(isSent ? passed : lost)[kind]++
      }
      if (lost.small === 0) continue
      // The room that was kept has gone by their own packets.
      assert.ok(passed.small >= (late ? 40 : 100), `${passed.small} in ${turn} turns`)
      break
    }
    assert.ok(lost.flood > 0)
  }
})

test('a link at whose other end nobody is thins out nothing, and one that comes back begins anew', () => {
  const link = { room: CAPACITY, isWaiting: false, roomOf: (): number => 1 }
  const shares = new FairShares()
  shares.attach(11, link)
  shares.turn(0)
  /** A window later: how many of so many packets of a flow go on. */
  let now = 0
  const admitted = (count: number): number => {
    shares.turn(now += 20_000)
    return Array.from({ length: count }, (_, packet) => shares.admits(11, packet % 50, 100)).filter(Boolean).length
  }
  link.room = CAPACITY / 8 + 1
  assert.equal(admitted(200), 200)
  assert.equal(admitted(200), 150)
  Object.assign(link, { room: 0, isWaiting: true })
  for (let window = 0; window < 3; window++) assert.equal(admitted(200), 200)
  Object.assign(link, { room: CAPACITY / 8 + 1, isWaiting: false })
  assert.equal(admitted(200), 200)
})

test('a runtime that has waited for its core, and then takes all in a moment, costs nobody a packet', () => {
  const fair = new FairShare()
  let queue = 0
  for (let turn = 0; turn < 20_000; turn++) {
    fair.turn(turn * TURN_US, 4032 - queue, false, turn * 10)
    // Twenty flows, 20,000 packets a second; every quarter of a second it stands still for 80 to 90 ms, and then takes 60 packets a turn.
    for (let i = 0; i < 10; i++) {
      assert.ok(!fair.isCounting || fair.admits((turn % 2 * 10 + i) * 7919), `turn ${turn}, ${queue} packets wait`)
      queue++
    }
    if (turn % 503 >= 160 + Math.floor(turn / 503) % 20) queue = Math.max(0, queue - 60)
  }
})

test('a few packets of a flow at once are not too many for the last room, whatever has come before them', () => {
  const fair = new FairShare()
  fair.turn(0, CAPACITY)
  fair.turn(1, CAPACITY / 10)
  const admitted = (flow: number, count: number): number => Array.from({ length: count }, () => fair.admits(flow)).filter(Boolean).length
  // Twenty flows have shown a packet each, so the mean is one.
  for (let flow = 0; flow < 20; flow++) fair.admits(flow)
  assert.equal(admitted(100, 4), 4)
  assert.ok(admitted(101, 60) < 20, 'a flood is no such burst')
})

test('a window in which a runtime had its core for a moment alone goes on, and says nothing yet', () => {
  const fair = new FairShare()
  const admitted = (): number => Array.from({ length: 100 }, (_, packet) => fair.admits(packet % 20)).filter(Boolean).length
  fair.turn(0, CAPACITY)
  fair.turn(1, 500)
  assert.equal(admitted(), 100)
  // Of 624 that waited or came 20 have left.
  fair.turn(20_001, 420)
  assert.equal(admitted(), 100, 'nobody is thinned out for that')
  // And now 160 of 724.
  fair.turn(40_001, 460)
  assert.ok(admitted() < 100, 'they take less than comes')
})

test('a long link does not make all wait for long: what a flood has left there goes, and the queue stays short', () => {
  const long = 4032
  const fair = new FairShare()
  let queue = 0
  const longest = { early: 0, late: 0 }
  const lost = { small: 0, flood: 0 }
  // Five packets a turn of half a millisecond leave, 10,000 a second; two flows send forty, ten others one in five turns.
  for (let turn = 0; turn < 4000; turn++) {
    fair.turn(turn * TURN_US, long - queue)
    const flows = [...new Array<number>(20).fill(1), ...new Array<number>(20).fill(2), 10 + turn % 5, 15 + turn % 5]
    for (const flow of flows) {
      const isSent = (!fair.isCounting || fair.admits(flow * 7919)) && queue < long
      if (isSent) queue++
      else lost[flow < 10 ? 'flood' : 'small']++
    }
    queue = Math.max(0, queue - 5)
    const when = turn < 2000 ? 'early' : 'late'
    longest[when] = Math.max(longest[when], queue)
    if (when === 'late') assert.ok(queue > 0, 'the runtime always has something')
  }
  // What it takes in 60 ms is 600.
  assert.ok(longest.late < 1000, `${longest.early}, then ${longest.late} packets wait`)
  assert.equal(lost.small, 0)
  assert.ok(lost.flood > 100_000)
})

test('a switch that has stood still, and reads all that has come meanwhile in a moment, does not fill a link with it', () => {
  const fair = new FairShare()
  let queue = 0
  let longest = 0
  let lostSmall = 0
  let now = 0
  let sent = 0
  let next = 0
  const turn = (us: number, taken: number, floods: number, small: number): void => {
    fair.turn(now += us, 4032 - queue, false, sent)
    for (let n = 0; n < floods + small; n++) {
      const flow = n < floods ? 1 + n % 2 : 10 + next++ % 20
      const isSent = !fair.isCounting || fair.admits(flow * 7919)
      if (!isSent && n >= floods) lostSmall++
      if (!isSent) continue
      queue++
      sent++
    }
    queue = Math.max(0, queue - taken)
    longest = Math.max(longest, queue)
  }
  for (let n = 0; n < 2000; n++) turn(TURN_US, 3, 12, 1)
  longest = 0
  for (let round = 0; round < 10; round++) {
    // 60 ms of nothing, in which the runtime takes 300, and then what has come in them: 1,500 packets in 12 turns.
    turn(60_000, 300, 0, 0)
    for (let n = 0; n < 12; n++) turn(TURN_US, 3, 120, 2)
    for (let n = 0; n < 200; n++) turn(TURN_US, 3, 12, 1)
    // The same when the floods have just sent less than their share.
    for (let n = 0; n < 90; n++) turn(TURN_US, 3, 1, 1)
    for (let n = 0; n < 12; n++) turn(TURN_US, 3, 120, 2)
    for (let n = 0; n < 200; n++) turn(TURN_US, 3, 12, 1)
  }
  assert.ok(longest < 1200, `${longest} packets wait, of 360 to 600 that should`)
  assert.equal(lostSmall, 0)
})

test('no flow is taken for a flood because it falls into the same bucket', () => {
  const fair = new FairShare()
  const random = new Random(9)
  const hashes = Array.from({ length: 1010 }, () => random.below(2 ** 32) | 0)
  let queue = 0
  const sent = new Uint16Array(1000)
  const lost = new Uint16Array(1000)
  for (let turn = 0; turn < 20_000; turn++) {
    fair.turn(turn * TURN_US, 4032 - queue)
    for (let n = 0; n < 25; n++) {
      // Ten floods, and a thousand others of which each sends ten packets a second.
      const flow = n < 20 ? 1000 + n % 10 : (turn * 5 + n) % 1000
      const isSent = !fair.isCounting || fair.admits(hashes[flow])
      if (isSent) queue++
      if (flow >= 1000) continue
      sent[flow]++
      if (!isSent) lost[flow]++
    }
    queue = Math.max(0, queue - 10)
  }
  const worst = Math.max(...lost.map((count, flow) => count * 100 / sent[flow]))
  assert.ok(worst < 2, `one has lost ${worst}%`)
})

test('a flood that is alone does not fill a link for those that come next, and leaves the runtime always something to do', () => {
  const fair = new FairShare()
  let queue = 0
  let longest = 0
  let sent = 0
  // 50,000 packets a second to a runtime that takes 4,000 for half a second, then 20,000.
  for (let turn = 0; turn < 4000; turn++) {
    fair.turn(turn * TURN_US, 4032 - queue, false, sent)
    for (let n = 0; n < 25; n++) {
      if (fair.isCounting && !fair.admits(1)) continue
      queue++
      sent++
    }
    longest = Math.max(longest, queue)
    queue -= turn < 1000 ? 2 : 10
    if (turn === 999) assert.ok(longest < 1300, `${longest} packets wait at first`)
    assert.ok(queue > 0)
  }
  assert.ok(longest < 1300, `${longest} packets wait`)
})

test('a burst to a runtime that has waited for its core is no flood as long as it takes what it usually takes', () => {
  for (const perSecond of [20_000, 1000]) {
    const fair = new FairShare()
    let now = 0
    let sent = 0
    for (; now < 5_000_000; now += 50_000) fair.turn(now, 4032, false, sent += perSecond / 20)
    fair.turn(now, 3700, false, sent += 332)
    for (let packet = 0; packet < 1700; packet++) assert.ok(fair.admits(packet % 20 * 7919))
    // Of 1,700 that came in 20 ms 150 have left: that many may wait at the one, and half as many at the other.
    fair.turn(now + 20_001, 4032 - 332 - 1550, false, sent += 1700)
    fair.turn(now + 20_002, 4032 - 332 - 1550, false, sent)
    assert.equal(fair.isTight, perSecond === 1000)
  }
})

test('shares are of the room that frames take: long ones count for as many as their pieces', () => {
  let queue = 0
  const link = { get room() { return 4032 - queue }, isWaiting: false, roomOf: (length: number) => Math.ceil(length / 2048) }
  const shares = new FairShares()
  shares.attach(11, link)
  const passed = [0, 0]
  for (let turn = 0; turn < 8000; turn++) {
    shares.turn(turn * TURN_US)
    // One sends 64 KiB at once, the other in pieces of 2 KiB; a quarter of that is taken.
    for (const [flow, frames, length] of [[0, 1, 65_536], [1, 32, 2048]] as const) {
      for (let n = 0; n < frames; n++) {
        if (!shares.admits(11, 100 + flow, length)) continue
        queue += length / 2048
        if (turn > 2000) passed[flow] += length / 2048
      }
    }
    queue = Math.max(0, queue - 16)
  }
  assert.ok(Math.abs(passed[0] / passed[1] - 1) < 0.2, passed.join())
  assert.ok(Math.abs((passed[0] + passed[1]) / (6000 * 16) - 1) < 0.05, passed.join())
})

test('a share is found for any counts', () => {
  let state = 1
  const random = (max: number): number => (state = Math.imul(state, 1103515245) + 12345 >>> 0) % max
  for (let round = 0; round < 200; round++) {
    const flows = 1 + random(60)
    const counts = Array.from({ length: flows }, () => 1 + random(random(2) === 0 ? 5 : 200))
    counts[0] += 128
    const fair = new FairShare()
    // Where slots come late a long queue says nothing.
    fair.turn(0, 400_000, true)
    fair.turn(1, 45_000, true)
    for (const [flow, count] of counts.entries()) for (let packet = 0; packet < count; packet++) fair.admits(flow)
    const sum = counts.reduce((all, count) => all + count, 0)
    const left = 128 + random(sum - 128)
    fair.turn(20_001, 45_000 - sum + left, true)
    const passed = counts.map((count, flow) => Array.from({ length: count }, () => fair.admits(flow)).filter(Boolean).length)
    const total = passed.reduce((all, count) => all + count, 0)
    assert.ok(total <= left + flows && total >= 0.9 * left - 2 * flows, `${total} of ${left} with ${flows} flows`)
  }
})
