import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearestName } from './nearest-name.ts'

const names = ['monitor', 'firewall', 'http']

test('a slip of the finger finds the name', () => {
  for (const typed of ['monitr', 'monitro', 'Monitor', 'mnoitor', 'monitorr', 'moniter']) {
    assert.equal(nearestName(typed, names), 'monitor', typed)
  }
  assert.equal(nearestName('htp', names), 'http')
  assert.equal(nearestName('firewal', names), 'firewall')
})

test('what is far from every name finds none', () => {
  for (const typed of ['', 'x', 'nat', 'load-balancer', 'tt']) assert.equal(nearestName(typed, names), undefined, typed)
})

test('the nearest of several is taken', () => {
  assert.equal(nearestName('flow', ['flows', 'slow', 'packets']), 'flows')
  assert.equal(nearestName('tcpClose', ['tcp', 'tcpOpening', 'tcpClosed']), 'tcpClosed')
})
