/** Events survive what a full disk, or an editor, has made of their file. */

import assert from 'node:assert/strict'
import {
  appendFileSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { EventLog } from './event-log.ts'
import { lastLinesOf, openLog } from './node-launcher.ts'

const home = mkdtempSync(join(tmpdir(), 'nfactor-events-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

const names = (log: EventLog): string[] => log.since(0, 100).map(({ number, event, text }) => `${number} ${event} ${text}`)

test('a line that was cut costs itself alone', () => {
  const file = join(home, 'events.jsonl')
  const log = new EventLog(file)
  const other = new EventLog(file)
  assert.deepEqual(names(other), [])
  log.add('one', 'a', { node: 'ü' })
  assert.equal(statSync(file).mode & 0o777, 0o600)
  log.add('two', 'b')
  truncateSync(file, statSync(file).size - 5)
  assert.deepEqual(names(other), ['1 one a'])
  other.add('three', 'c')
  log.add('four', 'd')
  assert.deepEqual(names(other), ['1 one a', '2 three c', '3 four d'])
  appendFileSync(file, 'null\n7\n{}\n\n')
  log.add('five', 'e')
  for (const one of [log, other, new EventLog(file)]) assert.deepEqual(names(one), ['1 one a', '2 three c', '3 four d', '4 five e'])
})

test('a long file is put aside, and nobody misses or counts anything twice', () => {
  const file = join(home, 'long.jsonl')
  const log = new EventLog(file)
  const early = new EventLog(file)
  const add = (first: number, last: number): void => {
    for (let n = first; n <= last; n++) log.add('n', `${n}`, { eventsBefore: 100 })
  }
  const seen = (one: EventLog): number[] => one.since(0, 100).map(({ number, text }) => (assert.equal(text, `${number}`), number))
  const upTo = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, at) => first + at)
  log.bound(0)
  add(1, 3)
  assert.deepEqual(seen(early), upTo(1, 3))
  add(4, 6)
  const open = openSync(file, 'a')
  log.bound(10)
  // Somebody had it open.
  writeSync(open, `${JSON.stringify({ time: '', event: 'n', text: '7' })}\n`)
  closeSync(open)
  assert.deepEqual(seen(early), upTo(1, 7))
  assert.equal(statSync(file).mode & 0o777, 0o600)
  add(8, 9)
  const late = new EventLog(file)
  for (const one of [early, late]) assert.deepEqual(seen(one), upTo(1, 9))
  log.bound(10)
  add(10, 10)
  for (const one of [early, late]) assert.deepEqual(seen(one), upTo(1, 10))
  const texts = new EventLog(file).since(0, 100).map(({ text }) => text)
  assert.deepEqual(texts, ['8', '9', '10'], 'what was put aside before that is gone')
  log.bound(1 << 20)
  assert.match(readFileSync(file, 'utf8'), /^\{"eventsBefore":9\}\n/, 'a short one stays')
})

test('of a log that is longer than memory its end is read', () => {
  const log = join(home, 'node.log')
  assert.equal(lastLinesOf(log), '')
  writeFileSync(log, 'short\n')
  assert.equal(lastLinesOf(log), 'short')
  // A file with a hole, of which a text cannot be made.
  truncateSync(log, 3 * 2 ** 30)
  appendFileSync(log, '\nthe last line\n')
  assert.equal(lastLinesOf(log).split('\n').at(-1), 'the last line')
  assert.ok(lastLinesOf(log).length <= 8192)
})

test('a log goes on over all lives of a node until it is long', () => {
  const log = join(home, 'lives.log')
  const say = (text: string): void => {
    const file = openLog(log)
    writeSync(file, text)
    closeSync(file)
  }
  say('one ')
  say('two ')
  assert.equal(readFileSync(log, 'utf8'), 'one two ')
  truncateSync(log, 2 ** 24 + 1)
  say('three')
  assert.deepEqual([readFileSync(log, 'utf8'), statSync(`${log}.old`).size], ['three', 2 ** 24 + 1])
})
