import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { NODE_ID_MAX } from '../messages/cluster-config.ts'
import { chooseRuntimeId, isUneven, machineOf, onFullest, silentMachineOf, type MachineView } from './machines.ts'

const FIRST = 11
const up = (runtimesMax = 64): MachineView => ({ isUp: true, runtimesMax })
const down: MachineView = { isUp: false, runtimesMax: 64 }

/** Starts so many runtimes, one after the other. */
function start(machines: readonly MachineView[], count: number, runtimes: readonly number[] = [], lost: readonly number[] = []): number[] {
  const ids = [...runtimes]
  for (let i = 0; i < count; i++) ids.push(chooseRuntimeId(machines, ids, new Set([...ids, ...lost]), FIRST))
  return ids.slice(runtimes.length)
}

test('ids go round the machines; switches are on the first', () => {
  assert.deepEqual([1, 2, 10, 11, 12, 13, 14].map((id) => machineOf(id, FIRST, 3)), [0, 0, 0, 0, 1, 2, 0])
  assert.deepEqual(start([], 4), [11, 12, 13, 14])
  assert.deepEqual(start([up(), up(), up()], 5), [11, 12, 13, 14, 15])
})

test('a machine that is down or full gets none; what is lost comes back where there is room', () => {
  assert.deepEqual(start([up(0), up(), up()], 4), [12, 13, 15, 16])
  assert.deepEqual(start([up(1), up(2)], 4), [11, 12, 14, 0])
  assert.deepEqual(start([down, down], 1), [0])
  // Machine 1 goes with 12 and 14; then it is back, and has the fewest.
  assert.deepEqual(start([up(), down], 2, [11, 13], [12, 14]), [15, 17])
  assert.deepEqual(start([up(), up()], 2, [11, 13, 15, 17]), [12, 14])
  // Names of the dead are free when their flows have been recovered.
  assert.deepEqual(start([up(), up()], 1, [11], [12]), [14])
})

test('a machine that says nothing gets none, is not less full than others, and its nodes are known to be there', () => {
  const silent: MachineView = { ...up(), isSilent: true }
  assert.deepEqual(start([up(), silent], 2), [11, 13])
  assert.deepEqual([isUneven([up(), up()], [11, 13], [11, 13], FIRST), isUneven([up(), silent], [11, 13], [11, 13], FIRST)], [true, false])
  assert.deepEqual([1, 11, 12, 13, 14].map((id) => silentMachineOf([up(), silent], id, FIRST)), [undefined, undefined, 1, undefined, 1])
  assert.equal(silentMachineOf([], 12, FIRST), undefined)
})

test('whatever comes and goes: no id twice, on machines that are up and have room, evenly where they can', () => {
  const random = new Random(7)
  for (let round = 0; round < 300; round++) {
    const machines = Array.from({ length: 1 + random.below(5) }, () => ({ isUp: random.below(4) > 0, runtimesMax: random.below(8) }))
    const runtimes = new Set<number>()
    for (let step = 0; step < 30; step++) {
      const id = chooseRuntimeId(machines, [...runtimes], runtimes, FIRST)
      const counts = machines.map((_, index) => [...runtimes].filter((one) => machineOf(one, FIRST, machines.length) === index).length)
      const open = machines.flatMap(({ isUp, runtimesMax }, index) => (isUp && counts[index] < runtimesMax ? [index] : []))
      if (open.length === 0) {
        assert.equal(id, 0)
        const [first] = runtimes
        if (first === undefined) break
        runtimes.delete(first)
        continue
      }
      assert.ok(id >= FIRST && id <= NODE_ID_MAX && !runtimes.has(id))
      const machine = machineOf(id, FIRST, machines.length)
      assert.ok(open.includes(machine) && counts[machine] === Math.min(...open.map((index) => counts[index])))
      runtimes.add(id)
    }
  }
})

test('from whatever there is, one that comes and one that goes, again and again, makes machines even, and then it ends', () => {
  const random = new Random(11)
  for (let round = 0; round < 600; round++) {
    const machines = Array.from({ length: 2 + random.below(4) }, () => ({ isUp: random.below(5) > 0, runtimesMax: 2 + random.below(6) }))
    const all = [...new Set(Array.from({ length: 1 + random.below(12) }, () => FIRST + random.below(40)))]
    // Some have been drained by people, in every other round: they stay where they are.
    const held = all.filter(() => round % 2 === 1 && random.below(3) === 0)
    let runtimes = all.filter((id) => !held.includes(id))
    const wanted = runtimes.length
    for (let step = 0; isUneven(machines, runtimes, [...runtimes, ...held], FIRST); step++) {
      assert.ok(step < 40, 'it ends')
      const placed = [...runtimes, ...held]
      const came = chooseRuntimeId(machines, placed, new Set(placed), FIRST)
      assert.ok(came > 0)
      const [goes] = onFullest(machines, [...runtimes, came].map((id) => ({ id })), [...placed, came], FIRST)
      assert.notEqual(goes?.id, came, 'what has just come stays')
      runtimes = [...runtimes, came].filter((id) => id !== goes?.id)
    }
    assert.equal(runtimes.length, wanted)
  }
})
