/**
 * The contract of ports, on the ports of tests and benches: what they and the real ones have in common. And that it notices a port
 * that breaks it.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import type { Port } from '../packet/port.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { portContract, type PortPair } from './port-contract.ts'

function createPair(spoil: (port: Port, arena: Arena) => Port = (port) => port): PortPair {
  const arena = new Arena(32 << 20)
  const [a, b] = createMemoryPorts(arena, { frames: 64, reserved: 8, frameBytes: 9000 })
  return {
    ends: [{ arena, port: spoil(a, arena) }, { arena, port: b }],
    capacity: 56,
    refusesWhenFull: true,
    frameBytes: { min: 1, ordinary: 1514, max: 9000 },
    close: () => {},
  }
}

for (const [name, check] of Object.entries(portContract)) {
  test(`memory port: ${name}`, () => { check(createPair()) })
}

/** A port that does one thing wrong. */
function wrong(change: (port: Port, arena: Arena) => Partial<Port>): (port: Port, arena: Arena) => Port {
  return (port, arena) => {
    const rest = change(port, arena)
    return {
      receive: rest.receive ?? ((pool, descriptors, max) => port.receive(pool, descriptors, max)),
      send: rest.send ?? ((frame, length) => port.send(frame, length)),
      sendReserved: rest.sendReserved ?? ((frame, length) => port.sendReserved(frame, length)),
      get room() { return 'room' in rest ? rest.room as number : port.room },
    }
  }
}

let count = 0
const faults: Record<string, (port: Port, arena: Arena) => Port> = {
  'loses every 50th frame': wrong((port) => ({ send: (frame, length) => ++count % 50 === 0 || port.send(frame, length) })),
  'sends every 50th frame twice': wrong((port) => ({
    send: (frame, length) => (++count % 50 === 0 && port.send(frame, length), port.send(frame, length)),
  })),
  'damages a byte': wrong((port, arena) => ({ send: (frame, length) => (arena.u8[frame + (length >> 1)] ^= 1, port.send(frame, length)) })),
  'has no reserve': wrong((port) => ({ send: (frame, length) => port.sendReserved(frame, length) })),
  'cuts long frames': wrong((port) => ({ send: (frame, length) => port.send(frame, Math.min(length, 1500)) })),
  'says that there is always room': wrong(() => ({ room: 1000 })),
}

for (const [fault, spoil] of Object.entries(faults)) {
  test(`the contract notices a port that ${fault}`, () => {
    // A port that loses frames is waited for; one such check is enough.
    const noticed = Object.values(portContract).some((check) => {
      try {
        check(createPair(spoil))
        return false
      } catch (error) {
        assert.ok(error instanceof assert.AssertionError)
        return true
      }
    })
    assert.ok(noticed)
  })
}
