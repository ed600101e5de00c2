import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { MemifPort, type MemifPortOptions } from './memif-port.ts'
import { portContract, type PortPair } from './port-contract.ts'

const skip = process.platform === 'linux' ? false : 'memif needs Linux'
const folder = mkdtempSync(join(tmpdir(), 'nfactor-memif-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let sockets = 0

type Sizes = Partial<Pick<MemifPortOptions, 'ringSize' | 'bufferBytes' | 'reserved'>>

function createPair(sizes: Sizes = {}, rest: Partial<MemifPortOptions> = {}): PortPair & { ports: [MemifPort, MemifPort] } {
  const socket = join(folder, `${++sockets}.sock`)
  const arenas = [new Arena(128 << 20), new Arena(128 << 20)] as const
  const client = new MemifPort({ arena: arenas[1], name: 'client', role: 'client', socket, ...sizes, ...rest })
  const server = new MemifPort({ arena: arenas[0], name: 'server', role: 'server', socket, windowBytes: 32 << 20, ...sizes, ...rest,
    frameBytesMax: client.frameBytesMax })
  server.open()
  client.open()
  const { ringSize = 1024, bufferBytes = 2112, reserved = 64 } = sizes
  return {
    ports: [server, client],
    ends: [{ arena: arenas[0], port: server }, { arena: arenas[1], port: client }],
    capacity: ringSize - Math.min(reserved, ringSize >> 1),
    refusesWhenFull: true,
    frameBytes: { min: 1, ordinary: Math.min(1514, bufferBytes), max: client.frameBytesMax },
    close: () => { server.close(); client.close() },
  }
}

const shapes: [string, Sizes][] = [
  ['as it is', {}], ['small rings', { ringSize: 8, bufferBytes: 2048, reserved: 2 }],
  ['small buffers, so that frames are chained', { ringSize: 256, bufferBytes: 128, reserved: 16 }],
]
for (const [shape, sizes] of shapes) {
  for (const isTurned of [false, true]) {
    for (const [name, check] of Object.entries(portContract)) {
      test(`memif, ${shape}, ${isTurned ? 'client to server' : 'server to client'}: ${name}`, { skip }, () => {
        const pair = createPair(sizes)
        const [a, b] = pair.ends
        try {
          check(isTurned ? { ...pair, ends: [b, a] } : pair)
        } finally {
          pair.close()
        }
      })
    }
  }
}
