import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesText, countOf, countText, durationText, rateText } from './number-text.ts'
import { tableLines } from './text-table.ts'

test('counts', () => {
  assert.equal(countText(0), '0')
  assert.equal(countText(1234567), '1,234,567')
  assert.equal(countOf(1, 'flow'), '1 flow')
  assert.equal(countOf(2000, 'flow'), '2,000 flows')
  assert.equal(countOf(0, 'match', 'matches'), '0 matches')
})

test('bytes', () => {
  assert.deepEqual([0, 1, 999, 1000, 12_345, 999_499, 999_500, 1e6, 45_600_000, 2.5e9, 7e15].map(bytesText),
    ['0 bytes', '1 byte', '999 bytes', '1.00 kB', '12.3 kB', '999 kB', '1.00 MB', '1.00 MB', '45.6 MB', '2.50 GB',
      '7.00 PB'])
})

test('durations', () => {
  assert.deepEqual([0, 0.0001234, 0.5, 0.9996, 3.456, 59.9, 60, 125, 3600, 3785, 86_400, 190_000].map(durationText),
    ['0.00 ms', '0.12 ms', '500 ms', '1.00 s', '3.46 s', '59.9 s', '1 min', '2 min 5 s', '1 h', '1 h 3 min', '1 d',
      '2 d 4 h'])
})

test('rates', () => {
  assert.deepEqual([0, 950, 9999, 12_345, 999_600, 12_345_678].map((rate) => rateText(rate, 'packets')),
    ['0 packets/s', '950 packets/s', '9,999 packets/s', '12.3 k packets/s', '1.00 M packets/s', '12.3 M packets/s'])
})

test('tables are aligned, with nothing behind the last column', () => {
  assert.deepEqual(tableLines([['1', 'a', 'first'], ['1,000', 'long', '']], [{ align: 'right' }, {}, {}]),
    ['      1  a     first', '  1,000  long'])
  assert.deepEqual(tableLines([], [{}]), [])
})
