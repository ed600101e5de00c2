/**
 * The executor: slices between turns of the event loop, sleep and waking, ending in good order and at once.
 */

import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { AssertionError } from '../base/assert.ts'
import { signalEvent } from '../ports/sys.ts'
import { systemClock } from '../ports/system-clock.ts'
import { EventPort } from '../ports/test-event-port.ts'
import { Executor } from './executor.ts'

const skip = process.platform === 'linux' ? false : 'needs Linux'

/** A busy machine does everything late. */
const PATIENCE_MS = 30_000

/** Runs it, and lets it end should the test fail before: it would keep the process. */
function begin(context: TestContext, executor: Executor): Promise<void> {
  context.after(() => { executor.stop(0) })
  return executor.run()
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS
  while (!isTrue()) {
    assert.ok(performance.now() < end, what)
    await sleep(1)
  }
}

test('an idle executor sleeps, is woken by a frame, and ends', { skip }, async (context) => {
  const port = new EventPort()
  let taken = 0
  const executor = new Executor({ node: { poll: () => (taken += port.take(), false), nextDue: () => Infinity }, ports: [port], dozeMsMax: 2000 })
  const running = begin(context, executor)
  await until('it falls asleep', () => port.isArmed)
  const { polls } = executor.statistics
  await sleep(20)
  assert.ok(executor.statistics.polls - polls < 5, 'it sleeps')
  const before = performance.now()
  signalEvent(port.fd)
  await until('the frame is taken', () => taken === 1)
  assert.ok(performance.now() - before < 1000, 'not by the end of the sleep')
  await until('it sleeps again', () => executor.statistics.sleeps >= 1 && port.isArmed)
  assert.ok(port.maintained > 0)
  executor.stop()
  await running
  port.close()
})

test('what is due wakes a sleeper, and so does who has something to do', { skip }, async (context) => {
  const port = new EventPort()
  let due = Infinity
  let polledAt = 0
  const executor = new Executor({
    node: { poll: (now) => (polledAt = now, port.take(), false), nextDue: () => due }, ports: [port], dozeMsMax: 5000 })
  const running = begin(context, executor)
  await until('it falls asleep', () => port.isArmed)
  await sleep(5)
  due = systemClock.now() + 10_000
  executor.wake()
  await until('it is polled when something is due', () => polledAt >= due)
  due = Infinity
  executor.stop()
  await running
  port.close()
})

test('a sleep ends when a port is to try something again', { skip }, async (context) => {
  const port = new EventPort()
  let triedAt = 0
  port.maintain = (now) => {
    if (now < port.retryDue) return
    triedAt = now
    port.retryDue = Infinity
  }
  const executor = new Executor({ node: { poll: () => (port.take(), false), nextDue: () => Infinity }, ports: [port], dozeMsMax: 60_000 })
  const running = begin(context, executor)
  await until('it falls asleep', () => port.isArmed)
  const due = systemClock.now() + 10_000
  port.retryDue = due
  executor.wake()
  await until('the port has tried', () => triedAt >= due)
  await until('it sleeps again', () => port.isArmed)
  executor.stop()
  await running
  port.close()
})

test('what wakes a sleeper is done ahead of all else, and it stays awake for the next', { skip }, async (context) => {
  const port = new EventPort()
  const order: string[] = []
  port.maintain = () => { order.push('maintain') }
  let isQuiet = false
  const node = { poll: () => {
    if (port.take() > 0) order.push('frame')
    else if (isQuiet && order.at(-1) !== 'nothing') order.push('nothing')
    return false
  }, nextDue: () => Infinity }
  const executor = new Executor({ node, ports: [port], dozeMsMax: 60_000 })
  const running = begin(context, executor)
  await until('it falls asleep', () => port.isArmed)
  await sleep(20)
  const { sleeps } = executor.statistics
  order.length = 0
  isQuiet = true
  signalEvent(port.fd)
  await until('it sleeps again', () => order.includes('frame') && port.isArmed)
  assert.equal(order[0], 'frame')
  assert.equal(executor.statistics.sleeps, sleeps + 1)
  assert.ok(executor.statistics.asleepUs >= 15_000, 'what is done at once is no sleep')
  executor.stop()
  await running
  port.close()
})

test('a port that has something when it is to sleep costs a look, not its maintenance', { skip }, async (context) => {
  const port = new EventPort()
  let arms = 0
  let us = 0
  let polls = 0
  port.arm = () => (arms++, false)
  // Of a shared core, where it tries to sleep after a few turns; a frame comes now and then. Maintenance is due every 5 ms.
  const node = { poll: () => (++polls % 15 === 0 && port.statistics.rxFrames++, false), nextDue: () => Infinity }
  const executor = new Executor({ node, ports: [port], clock: { now: () => us += 30 } })
  const running = begin(context, executor)
  await until('it has tried many times', () => arms >= 500)
  assert.ok(port.maintained < arms / 3, `${port.maintained} times for ${arms} looks`)
  assert.equal(executor.statistics.sleeps, 0)
  executor.stop()
  await running
  port.close()
})

test('a broken invariant in what wakes it ends the run', { skip }, async (context) => {
  const port = new EventPort()
  const node = { poll(): boolean { if (port.take() > 0) throw new AssertionError('two owners'); return false }, nextDue: () => Infinity }
  const executor = new Executor({ node, ports: [port], dozeMsMax: 60_000 })
  const running = begin(context, executor)
  await until('it falls asleep', () => port.isArmed)
  signalEvent(port.fd)
  await assert.rejects(running, AssertionError)
  port.close()
})

test('where others want the core it soon sleeps instead of polling, until a frame comes', { skip }, async (context) => {
  const port = new EventPort()
  let taken = 0
  let us = 0
  // Every look at the clock is 30 µs after the one before: whatever is done in between has taken the time of a shared core.
  const executor = new Executor({ node: { poll: () => (taken += port.take(), false), nextDue: () => Infinity }, ports: [port],
    clock: { now: () => us += 30 } })
  const running = begin(context, executor)
  await until('it sleeps', () => port.isArmed)
  assert.ok(executor.statistics.polls < 50, `${executor.statistics.polls} polls`)
  const before = performance.now()
  signalEvent(port.fd)
  await until('the frame is taken', () => taken === 1)
  assert.ok(performance.now() - before < 1000)
  executor.stop()
  await running
  port.close()
})

test('work that cannot be done is looked at once between two turns of the event loop', { skip }, async (context) => {
  const port = new EventPort()
  let polls = 0
  let turns = 0
  let isOver = false
  const count = (): void => {
    turns++
    if (!isOver) setImmediate(count)
  }
  setImmediate(count)
  // A node that reads nothing because a link is full: it leaves work each time, and no frame comes.
  const executor = new Executor({ node: { poll: () => ++polls < 500, nextDue: () => Infinity }, ports: [port] })
  const running = begin(context, executor)
  await until('it has been polled', () => polls >= 500)
  isOver = true
  assert.ok(turns > 400, `${turns} turns`)
  executor.stop()
  await running
  port.close()
})

test('events are handled while a node has work without end', { skip }, async (context) => {
  const port = new EventPort()
  const executor = new Executor({ node: { poll: () => ++port.statistics.rxFrames > 0, nextDue: () => -Infinity }, ports: [port] })
  const running = begin(context, executor)
  const before = performance.now()
  await sleep(5)
  assert.ok(performance.now() - before < 5000)
  assert.ok(executor.statistics.busyPolls > 100)
  executor.stop(10)
  await running
  port.close()
})

test('stopping lets what is inside go out', { skip }, async (context) => {
  let left = 2000
  const executor = new Executor({ node: { poll: () => --left > 0, nextDue: () => Infinity }, ports: [], sliceUs: 1 })
  executor.stop(PATIENCE_MS)
  await begin(context, executor)
  assert.ok(left <= 0)
})

test('a broken invariant ends the run', { skip }, async (context) => {
  let polls = 0
  const node = { poll(): boolean { if (++polls === 10) throw new AssertionError('two owners'); return true }, nextDue: () => Infinity }
  await assert.rejects(new Executor({ node, ports: [] }).run(), AssertionError)
  assert.equal(polls, 10)
})
