/**
 * Waiting for ports: descriptors are kept from wait to wait, and never longer than a port has them.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PortWaiter, waitForPorts } from './port-waiter.ts'
import { clearEvent, signalEvent } from './sys.ts'
import { EventPort } from './test-event-port.ts'

const skip = process.platform === 'linux' ? false : 'needs Linux'
const LONG_MS = 10_000

test('a waiter wakes for each of its ports, wait after wait, and lets them go', { skip }, async () => {
  const [one, two, waiter] = [new EventPort(2), new EventPort(), new PortWaiter()]
  try {
    assert.equal(await waiter.wait([one, two], 1), false, 'the time is over')
    for (const fd of [...one.fds, two.fd, one.fd]) {
      const waiting = waiter.wait([one, two], LONG_MS)
      signalEvent(fd)
      assert.equal(await waiting, true)
      assert.equal(await waiter.wait([one, two], LONG_MS), true, 'it is there still')
      clearEvent(fd)
      assert.equal(await waiter.wait([one, two], 1), false, 'it has been taken')
    }
    assert.deepEqual([one.isArmed, two.isArmed], [false, false])
    const waiting = waiter.wait([one, two], LONG_MS)
    waiter.interrupt()
    assert.equal(await waiting, true)
  } finally {
    waiter.close()
    one.close()
    two.close()
  }
})

test('a descriptor that a port has closed is forgotten, also where a peer holds it and another one has its number', { skip }, async () => {
  const [port, waiter] = [new EventPort(), new PortWaiter()]
  try {
    assert.equal(await waiter.wait([port], 1), false)
    const old = port.fd
    port.close()
    port.open()
    assert.equal(port.fd, old, 'the kernel gives the lowest number')
    const waiting = waiter.wait([port], LONG_MS)
    signalEvent(port.fd)
    assert.equal(await waiting, true)
    port.close()
    assert.equal(await waiter.wait([port], 1), false, 'nothing is left to wait for')
  } finally {
    waiter.close()
    port.close()
  }
})

test('one wait alone can be interrupted, too', { skip }, async () => {
  const port = new EventPort()
  try {
    assert.equal(await waitForPorts([port], LONG_MS, new Promise((resolve) => { setTimeout(resolve, 1) })), true)
  } finally {
    port.close()
  }
})
