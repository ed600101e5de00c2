import { after, test } from 'node:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Arena } from '../memory/arena.ts'
import { FaultPort } from './fault-port.ts'
import { MemifPort } from './memif-port.ts'
import { createMemoryPortPair } from './memory-port-pair.ts'
import { portContract, type PortPair } from './port-contract.ts'
import { TracePort } from './trace-port.ts'
import { WrapperPort } from './wrapper-port.ts'

for (const [name, check] of Object.entries(portContract)) {
  test(`wrapper port: ${name}`, () => { check(createMemoryPortPair((inner) => new WrapperPort(inner))) })
}

const folder = mkdtempSync(join(tmpdir(), 'nfactor-wrapper-'))
after(() => { rmSync(folder, { recursive: true, force: true }) })
let sockets = 0

/** A link that opens and closes, with wrappers around its ends. */
function createWrappedLink(): PortPair {
  const socket = join(folder, `${++sockets}.sock`)
  const ends = (['server', 'client'] as const).map((role) => {
    const arena = new Arena(128 << 20)
    const memif = new MemifPort({ arena, name: role, role, socket, windowBytes: 32 << 20 })
    const port = new FaultPort({ arena, seed: 1, inner: new TracePort({ arena, inner: memif, frames: 16 }) })
    port.open()
    return { arena, port }
  })
  const client = ends[1].port.inner.inner
  return {
    ends: [ends[0], ends[1]],
    capacity: 960,
    refusesWhenFull: true,
    frameBytes: { min: 1, ordinary: 1514, max: client.frameBytesMax },
    close: () => { for (const { port } of ends) port.close() },
  }
}

const skip = process.platform === 'linux' ? false : 'memif needs Linux'
for (const [name, check] of Object.entries(portContract)) {
  test(`fault and trace ports around a link: ${name}`, { skip }, () => {
    const pair = createWrappedLink()
    try {
      check(pair)
    } finally {
      pair.close()
    }
  })
}
