import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { EventQueue, type Alarm } from './event-queue.ts'

test('events and alarms happen by time, then in the order they were planned; an alarm only at the time it was set to last', () => {
  const random = new Random(7)
  const queue = new EventQueue()
  const expected: { name: string; at: number; order: number }[] = []
  const happened: string[] = []
  const lastSet = new Map<Alarm, { name: string; at: number; order: number }>()
  const alarms: Alarm[] = Array.from({ length: 4 }, (_, i) => queue.alarm(() => { happened.push(`alarm ${i}`) }))
  for (let order = 0; order < 2000; order++) {
    const at = random.below(300)
    if (random.chance(0.3)) {
      const i = random.below(alarms.length)
      queue.set(alarms[i], random.chance(0.1) ? Infinity : at)
      lastSet.set(alarms[i], { name: `alarm ${i}`, at: alarms[i].at, order })
    } else {
      expected.push({ name: `event ${order}`, at, order })
      queue.at(at, (name: string, number: number) => { happened.push(`${name} ${number}`) }, 'event', order)
    }
  }
  expected.push(...[...lastSet.values()].filter(({ at }) => at < Infinity))
  expected.sort((a, b) => a.at - b.at || a.order - b.order)
  while (queue.step(1000));
  assert.deepEqual(happened, expected.map(({ name }) => name))
  assert.equal(queue.now, 1000)
  assert.equal(queue.step(Infinity), false)
})

test('what is planned while an event happens comes in its turn, at once if its time is over', () => {
  const queue = new EventQueue()
  const happened: string[] = []
  const say = (what: string): void => { happened.push(`${what} at ${queue.now}`) }
  const alarm = queue.alarm(() => {
    say('alarm')
    if (queue.now < 20) queue.set(alarm, queue.now + 10)
  })
  queue.set(alarm, 5)
  queue.at(10, () => {
    say('first')
    queue.at(3, say, 'late')
    queue.after(5, () => { say('last') })
  })
  queue.at(10, say, 'second')
  assert.equal(queue.size, 2)
  while (queue.step(100));
  assert.deepEqual(happened, ['alarm at 5', 'first at 10', 'second at 10', 'late at 10', 'alarm at 15', 'last at 15', 'alarm at 25'])
})
