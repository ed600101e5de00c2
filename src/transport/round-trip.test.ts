import { test } from 'node:test'
import assert from 'node:assert/strict'
import { RoundTrip } from './round-trip.ts'

test('the time-out follows what is measured, within bounds', () => {
  const trip = new RoundTrip()
  assert.equal(trip.rto, 20_000)
  trip.measured(10_000)
  assert.equal(trip.rto, 30_000)
  for (let i = 0; i < 100; i++) trip.measured(10_000)
  assert.ok(trip.rto >= 10_000 && trip.rto < 10_100)
  for (let i = 0; i < 100; i++) trip.measured(10)
  assert.equal(trip.rto, 1000)
  for (let i = 0; i < 100; i++) trip.measured(1e7)
  assert.equal(trip.rto, 250_000)
  trip.reset()
  assert.equal(trip.rto, 20_000)
})

test('the shortest time-out is another one where who answers may have to wait for its core', () => {
  const trip = new RoundTrip(20_000)
  for (let i = 0; i < 100; i++) trip.measured(500)
  assert.equal(trip.rto, 20_000)
  for (let i = 0; i < 100; i++) trip.measured(50_000)
  assert.ok(trip.rto >= 50_000)
})

test('it is doubled while nothing is heard, up to a bound, and back when something is', () => {
  const trip = new RoundTrip()
  for (let i = 0; i < 100; i++) trip.measured(500)
  const { rto } = trip
  trip.timedOut()
  assert.equal(trip.rto, rto * 2)
  for (let i = 0; i < 20; i++) trip.timedOut()
  assert.equal(trip.rto, 250_000)
  assert.equal(trip.timeouts, 21)
  trip.heard()
  assert.equal(trip.rto, rto)
  assert.equal(trip.timeouts, 0)
})
