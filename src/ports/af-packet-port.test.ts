import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { AfPacketPort } from './af-packet-port.ts'
import { portContract, type PortPair } from './port-contract.ts'
import { networkSkip, TestNetwork } from './test-network.ts'

const skip = networkSkip()
const network = new TestNetwork()
after(() => { network.close() })

function createPair(mtu: number): PortPair {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right', mtu)
  const ends = ['left', 'right'].map((name) => {
    const arena = new Arena(48 << 20)
    const port = new AfPacketPort({ arena, interface: name, namespace, rxFrames: 240, txFrames: 60, reserved: 16 })
    port.open()
    return { arena, port }
  })
  return {
    ends: [ends[0], ends[1]],
    capacity: 200,
    refusesWhenFull: false,
    frameBytes: { min: 21, ordinary: Math.min(1514, mtu + 14), max: mtu + 14 },
    close: () => { for (const { port } of ends) port.close() },
  }
}

for (const mtu of [1500, 9000]) {
  for (const [name, check] of Object.entries(portContract)) {
    test(`AF_PACKET, MTU ${mtu}: ${name}`, { skip }, () => {
      const pair = createPair(mtu)
      try {
        check(pair)
      } finally {
        pair.close()
      }
    })
  }
}
