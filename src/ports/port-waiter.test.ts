/**
 * Waiting for ports: descriptors are kept from wait to wait, and never longer than a port has them.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PortStatistics, type LinkPort } from './link-port.ts'
import { PortWaiter, waitForPorts } from './port-waiter.ts'
import { clearEvent, close, createEvent, signalEvent } from './sys.ts'

const skip = process.platform === 'linux' ? false : 'needs Linux'
const LONG_MS = 10_000

class EventPort implements LinkPort {
  readonly name = 'event'
  readonly isUp = true
  readonly statistics = new PortStatistics()
  readonly frameBytesMax = 1
  readonly room = 0
  fds: number[] = []
  armed = 0
  receive(): number { return 0 }
  send(): boolean { return false }
  sendReserved(): boolean { return false }
  open(): void {}
  close(): void { for (const fd of this.fds.splice(0)) close(fd) }
  flush(): void {}
  maintain(): void {}
  arm(): boolean { return ++this.armed > 0 }
  disarm(): void { this.armed = 0 }
  waitDescriptors(list: number[]): void { list.push(...this.fds) }
}

test('a waiter wakes for each of its ports, wait after wait, and lets them go', { skip }, async () => {
  const [one, two, waiter] = [new EventPort(), new EventPort(), new PortWaiter()]
  one.fds = [createEvent(), createEvent()]
  two.fds = [createEvent()]
  try {
    assert.equal(await waiter.wait([one, two], 1), false, 'the time is over')
    for (const fd of [...one.fds, ...two.fds, one.fds[0] as number]) {
      const waiting = waiter.wait([one, two], LONG_MS)
      signalEvent(fd)
      assert.equal(await waiting, true)
      assert.equal(await waiter.wait([one, two], LONG_MS), true, 'it is there still')
      clearEvent(fd)
      assert.equal(await waiter.wait([one, two], 1), false, 'it has been taken')
    }
    assert.deepEqual([one.armed, two.armed], [0, 0])
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
  port.fds = [createEvent()]
  try {
    assert.equal(await waiter.wait([port], 1), false)
    const [old] = port.fds
    port.close()
    port.fds = [createEvent()]
    assert.deepEqual(port.fds, [old], 'the kernel gives the lowest number')
    const waiting = waiter.wait([port], LONG_MS)
    signalEvent(port.fds[0] as number)
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
  port.fds = [createEvent()]
  try {
    assert.equal(await waitForPorts([port], LONG_MS, new Promise((resolve) => { setTimeout(resolve, 1) })), true)
  } finally {
    port.close()
  }
})
