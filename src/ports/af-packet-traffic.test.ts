/**
 * AF_PACKET ports between real hosts: two namespaces with kernels' own TCP and UDP, and this process in between.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { Arena } from '../memory/arena.ts'
import { AfPacketPort } from './af-packet-port.ts'
import { MemifPort } from './memif-port.ts'
import { endPrograms, TestMiddle, transfer } from './test-middle.ts'
import { networkSkip, TestNetwork } from './test-network.ts'

const skip = networkSkip()
const network = new TestNetwork()
const folder = mkdtempSync(join(tmpdir(), 'nfactor-traffic-'))
after(() => {
  endPrograms()
  network.close()
  rmSync(folder, { recursive: true, force: true })
})

let hops = 0

/** The two ends of a shared-memory link. */
function createHop(arena: Arena): readonly [MemifPort, MemifPort] {
  const socket = join(folder, `${++hops}.sock`)
  return [new MemifPort({ arena, name: 'server', role: 'server', socket }), new MemifPort({ arena, name: 'client', role: 'client', socket })]
}

const BYTES = 8 << 20

for (const [what, options, mtus, hasHop] of [
  ['segments passed on', {}, [1500, 1500], false],
  ['segments cut', { segments: 'cut' }, [1500, 1500], false],
  ['segments passed on to a smaller MTU', {}, [9000, 1500], false],
  ['segments passed on, jumbo frames', {}, [9000, 9000], false],
  ['over a shared-memory link, segments passed on', {}, [1500, 1500], true],
  ['over a shared-memory link, segments passed on to a smaller MTU', {}, [9000, 1500], true],
] as const) {
  for (const host of ['10.7.0.2', 'fd07::2']) {
    test(`TCP with the offloads that are there by default, ${what}, to ${host}`, { skip, timeout: 60_000 }, async () => {
      const middle = new TestMiddle({
        network, mtus, createHop: hasHop ? createHop : undefined,
        createPort: (arena, name, namespace) =>
          new AfPacketPort({ arena, interface: name, namespace, rxFrames: 510, txFrames: 255, ...options }),
      })
      try {
        const { right, back, ms } = await transfer(middle, host, BYTES)
        assert.ok(right)
        assert.equal(back, BYTES)
        const { seen } = middle
        assert.ok(seen.tcpFrames > 100)
        assert.equal(seen.wrongChecksums, 0)
        if ('segments' in options) {
          assert.ok(seen.largest <= 1514, `${seen.largest} bytes`)
        } else {
          assert.ok(seen.largest > 1514 && seen.segmentBytesSeen > 0, 'long segments were seen, with their size')
        }
        for (const port of middle.ports) assert.equal(port.statistics.rxInvalid, 0)
        if (process.env.NFACTOR_PORT_RATES !== undefined) {
          console.log(`${what}, ${host}: ${(2 * BYTES * 8 / ms / 1e6).toFixed(2)} Gbit/s, ${JSON.stringify(seen)}`)
        }
      } finally {
        middle.close()
      }
    })
  }
}
