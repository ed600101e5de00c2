import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../../base/random.ts'
import { LatencyHistogram, TICKS_PER_US } from './latency-histogram.ts'

test('percentiles are those of the values, to 0.8%', () => {
  const random = new Random(1)
  const histogram = new LatencyHistogram()
  const values = Array.from({ length: 5000 }, () => Math.floor(2 ** (random.fraction() * 31)))
  for (const value of values) histogram.record(value)
  values.sort((a, b) => a - b)
  for (const percent of [0, 1, 25, 50, 90, 99, 99.9, 100]) {
    const expected = (values[Math.max(0, Math.ceil((percent / 100) * 5000 - 1e-9) - 1)] as number) / TICKS_PER_US
    const got = histogram.percentileUs(percent)
    assert.ok(got >= expected && got <= expected * 1.008, `${percent}: ${got} for ${expected}`)
  }
  assert.equal(histogram.maxUs, values[4999] as number / TICKS_PER_US)
  assert.equal(histogram.minUs, values[0] as number / TICKS_PER_US)
  assert.equal(histogram.count, 5000)
  assert.ok(Math.abs(histogram.meanUs - values.reduce((a, b) => a + b) / 5000 / TICKS_PER_US) < 1e-3)
})

test('small values are exact, the ends of the range are taken', () => {
  const histogram = new LatencyHistogram()
  assert.equal(histogram.percentileUs(50), 0)
  for (let value = 0; value < 256; value++) histogram.record(value)
  for (let value = 0; value < 256; value++) assert.equal(histogram.percentileUs((value + 1) / 2.56), value / TICKS_PER_US)
  histogram.record(2 ** 31 - 1)
  assert.equal(histogram.percentileUs(100), (2 ** 31 - 1) / TICKS_PER_US)
  const other = new LatencyHistogram()
  other.record(3)
  other.add(histogram)
  assert.equal(other.count, 258)
  other.clear()
  assert.deepEqual([other.count, other.maxUs, other.minUs, other.meanUs], [0, 0, 0, 0])
})
