import { test } from 'node:test'
import assert from 'node:assert/strict'
import type { AnyNfDefinition } from './definition.ts'
import { checkDefinition, defineNf, FLOW_STATE_BYTES_MAX, isNfDefinition } from './definition.ts'
import { struct, text, u8, Verdict } from './index.ts'
import { dropReasonOfVerdict, dropVerdict } from './verdict.ts'

const good: AnyNfDefinition = { name: 'good', version: 1, create: () => ({ processPacket: () => Verdict.Forward }) }

test('a definition that keeps the rules is returned as it is', () => {
  assert.equal(defineNf(good), good)
  for (const name of ['a', 'a1', 'rate-limit', 'x-2-y']) checkDefinition({ ...good, name })
  checkDefinition({ ...good, version: 7, counters: { a: '', seenTwice: '' }, dropReasons: { tooBig: '', 'too-small': '' } })
  checkDefinition({ ...good, flowState: struct({ t: text(FLOW_STATE_BYTES_MAX - 2) }) })
})

test('a broken rule names the function, what is wrong and how to mend it', () => {
  const cases: [Partial<Record<keyof AnyNfDefinition, unknown>>, RegExp][] = [
    ...['', 'A', '1a', 'a--b', 'a-', '-a', 'a b', 'ä', 7, undefined].map((name) =>
      [{ name }, /name is not valid/] as [object, RegExp]),
    ...[0, -1, 1.5, NaN, '1', undefined].map((version) => [{ version }, /version/] as [object, RegExp]),
    [{ create: undefined }, /create/], [{ counters: { o: '' } }, /counter "o"/], [{ counters: { 'a-b': '' } }, /counter "a-b"/],
    [{ dropReasons: { 'a b': '' } }, /drop reason "a b"/], [{ dropReasons: { '': '' } }, /drop reason ""/],
    ...['at', 'end', 'begin', 'commit'].map((field) => [{ records: { e: { [field]: u8 } } }, /field named/] as [object, RegExp]),
    [{ flowState: struct({ t: text(FLOW_STATE_BYTES_MAX), u: u8 }) }, /4099 bytes|4100 bytes|bytes, 4096 are allowed/],
  ]
  for (const [change, message] of cases) {
    assert.throws(() => defineNf({ ...good, ...change } as never), (error: any) => {
      assert.equal(error.code, 'NF_NF_INVALID')
      assert.match(error.message, message)
      assert.ok(error.mend.length > 5)
      return true
    }, JSON.stringify(change))
  }
})

test('a definition is known by its shape', () => {
  assert.equal(isNfDefinition(good), true)
  for (const value of [null, undefined, 1, 'x', {}, { ...good, create: 1 }, () => good]) {
    assert.equal(isNfDefinition(value), false)
  }
})

test('verdicts are numbers: forward, hold, and one for each reason to drop', () => {
  assert.deepEqual(Verdict, { Forward: 0, Hold: 1 })
  for (const reason of [0, 1, 99]) {
    assert.ok(dropVerdict(reason) > Verdict.Hold)
    assert.equal(dropReasonOfVerdict(dropVerdict(reason)), reason)
  }
})
