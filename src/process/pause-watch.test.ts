/** A thread sees that it has stood still, and for how much of that it had no core. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PauseWatch, pauseText } from './pause-watch.ts'

test('everybody who asks is told the longest pause since', () => {
  let now = 0
  let waited = 0
  const watch = new PauseWatch({ now: () => now, coreWaitNs: () => waited })
  watch.start()
  /** The timer comes so much later than it should; so long there was no core. */
  const look = (lateMs: number, waitMs: number): void => {
    now += 20 + lateMs
    waited += waitMs * 1e6
    watch.look()
  }
  look(0, 1)
  assert.deepEqual(watch.take('one'), { us: 0, coreWaitUs: 0 })
  look(300, 290)
  look(100, 0)
  assert.deepEqual(watch.take('one'), { us: 300_000, coreWaitUs: 290_000 })
  assert.deepEqual(watch.take('one'), { us: 0, coreWaitUs: 0 })
  look(50, 60)
  assert.deepEqual(watch.take('one'), { us: 50_000, coreWaitUs: 50_000 }, 'not longer than the pause itself')
  // Others ask as well, and shorten nobody's view.
  watch.take('two')
  look(70, 0)
  watch.take('one')
  assert.equal(watch.take('two').us, 70_000)
  assert.equal(watch.recent().us, 300_000)
  now += 11_000
  assert.equal(watch.recent().us, 10_980_000, 'the present one counts')
  look(0, 0)
  now += 9_000
  assert.equal(pauseText(watch.recent()), '10980 ms, 0 ms of it waiting for a processor core')
  watch.close()
})

test('the kernel says for how long a thread has waited for a core', { skip: process.platform !== 'linux' && 'not Linux' }, () => {
  const watch = new PauseWatch()
  watch.start()
  for (const end = performance.now() + 120; performance.now() < end;);
  watch.look()
  const { us, coreWaitUs } = watch.take('one')
  assert.ok(us >= 90_000, `${us} us`)
  assert.ok(coreWaitUs >= 0 && coreWaitUs <= us)
  watch.close()
})
