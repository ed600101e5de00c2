import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from './arena.ts'
import { TimingWheel } from './timing-wheel.ts'

const fields = { next: 0, previous: 4, deadline: 8 }

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`a wheel fires what a sorted list fires, at the same ticks (seed ${seed})`, () => {
    const random = new Random(seed)
    const arena = new Arena(1 << 20)
    const items = Array.from({ length: 200 }, (_, i) => arena.allocate(`item ${i}`, 16, 16))
    const wheel = new TimingWheel(arena, 'wheel', fields)
    let now = random.int32()
    wheel.start(now)
    const due = new Map<number, number>()
    const spans = [1, 5, 255, 256, 257, 65535, 65536, 70000, 16777216, 40000000, 600000000]
    for (let round = 0; round < 3000; round++) {
      const item = random.pick(items)
      const deadline = (now + random.below(random.pick(spans)) - 2) | 0
      if (due.has(item)) {
        if (random.chance(0.5)) { wheel.remove(item); due.delete(item) }
        else { wheel.move(item, deadline); due.set(item, ((deadline - now) | 0) <= 0 ? (now + 1) | 0 : deadline) }
      } else {
        wheel.add(item, deadline)
        due.set(item, ((deadline - now) | 0) <= 0 ? (now + 1) | 0 : deadline)
      }
      assert.equal(wheel.size, due.size)
      if (random.chance(0.3)) {
        const to = (now + random.below(random.pick(spans))) | 0
        for (const d of due.values()) assert.ok(((wheel.nextTick() - d) | 0) <= 0, 'the bound is never late')
        const budget = random.chance(0.5) ? 3 : 1e9
        for (let guard = 0; ; guard++) {
          assert.ok(guard < 100000)
          const steps = wheel.advance(to, budget, (fired) => {
            assert.equal(due.get(fired), wheel.current)
            assert.ok(((to - wheel.current) | 0) >= 0)
            due.delete(fired)
          })
          if (steps < budget) break
        }
        now = to
        assert.equal(wheel.current, now)
        for (const d of due.values()) assert.ok(((d - now) | 0) > 0, 'nothing overdue stays')
      }
    }
  })
}

test('an item added while another fires is kept, also in the slot that fires', () => {
  const arena = new Arena(1 << 16)
  const a = arena.allocate('a', 16, 16)
  const b = arena.allocate('b', 16, 16)
  const wheel = new TimingWheel(arena, 'wheel', fields)
  wheel.add(a, 10)
  const fired: string[] = []
  wheel.advance(10, 100, () => { fired.push(`a at ${wheel.current}`); wheel.add(b, 10) })
  wheel.advance(20, 100, (item) => fired.push(`${item === b ? 'b' : '?'} at ${wheel.current}`))
  assert.deepEqual(fired, ['a at 10', 'b at 11'])
})
