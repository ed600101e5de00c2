/**
 * AF_XDP ports between real hosts: two namespaces with kernels' own ICMP, TCP and UDP, and this process in between.
 */

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { AfPacketPort } from './af-packet-port.ts'
import { AfXdpPort } from './af-xdp-port.ts'
import type { LinkPort } from './link-port.ts'
import { endPrograms, nodeProgram, startIn, TestMiddle, transfer } from './test-middle.ts'
import { pingCommand, TestNetwork, until } from './test-network.ts'
import { ethtoolSkip, xdpSkip } from './test-xdp.ts'

const skip = xdpSkip()
const network = new TestNetwork()
after(() => {
  endPrograms()
  network.close()
})

const RINGS = { rxFrames: 1024, txFrames: 512 } as const
const BYTES = 2 << 20

/** Sends datagrams to HOST, each when the one before has come back, or a second after it; says how many did not come back as they went. */
const DATAGRAMS = `
  const [host, count] = [process.argv[1], Number(process.argv[2])]
  const socket = require('dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const text = (i) => Buffer.alloc(i * 13 % 1400 + 1, String(i))
  let lost = 0, next = 0, timer
  const send = () => {
    if (next === count) { console.log(JSON.stringify({ lost })); socket.close(); return }
    socket.send(text(next), 9000, host)
    timer = setTimeout(() => { lost++; next++; send() }, 1000)
  }
  socket.on('message', (data) => { clearTimeout(timer); if (!data.equals(text(next))) lost++; next++; send() })
  send()`

const ECHO = `
  const socket = require('dgram').createSocket('udp6')
  socket.on('message', (data, { address, port }) => socket.send(data, port, address))
  socket.bind(9000, '::', () => console.log('ready'))`

for (const [mode, queues] of [['copy', 4], ['generic', 1]] as const) {
  const name = `AF_XDP, ${mode}, queues: ${queues}: pings, TCP and UDP pass with the checksums that senders leave to cards`
  test(name, { skip: mode === 'generic' ? ethtoolSkip() : skip, timeout: 60_000 }, async () => {
    const middle = new TestMiddle({
      network, queues,
      createPort: (arena, name, namespace) => new AfXdpPort({ arena, interface: name, namespace, mode, ...RINGS }),
    })
    try {
      for (const port of middle.ports) assert.deepEqual([port.mode, port.queues], [mode, queues])
      if (mode === 'generic') {
        // Nothing cuts segments there; that checksums are left to the card stays.
        for (const host of [middle.client, middle.server]) {
          network.run(host, 'ethtool', '-K', 'eth0', 'tso', 'off', 'gso', 'off')
        }
      }
      for (const host of ['10.7.0.2', 'fd07::2']) {
        const { right, back } = await transfer(middle, host, BYTES)
        assert.deepEqual([right, back], [true, BYTES])
        const ping = startIn(middle.client, ...pingCommand(host))
        await until('all pings are answered', middle.turn, () => ping.status !== null)
        assert.equal(ping.status, 0, ping.output)
      }
      const echo = startIn(middle.server, ...nodeProgram(ECHO))
      await until('the server is ready', middle.turn, () => echo.output.includes('ready'))
      for (const host of ['10.7.0.2', 'fd07::2']) {
        const client = startIn(middle.client, ...nodeProgram(DATAGRAMS, host, '100'))
        await until('all datagrams have gone', middle.turn, () => client.status !== null)
        assert.equal(client.output, '{"lost":0}\n')
      }
      assert.ok(middle.seen.tcpFrames > 500)
      assert.deepEqual([middle.seen.wrongChecksums, middle.seen.largest <= 1514], [0, true])
      for (const { statistics: { rxInvalid, rxOversize, txOversize } } of middle.ports) {
        assert.deepEqual([rxInvalid, rxOversize, txOversize], [0, 0, 0])
      }
    } finally {
      middle.close()
    }
  })
}

test('AF_XDP beside AF_PACKET: segments that come in whole leave cut', { skip, timeout: 60_000 }, async () => {
  const middle = new TestMiddle<LinkPort>({
    network,
    createPort: (arena, name, namespace) => (name === 'left'
      ? new AfPacketPort({ arena, interface: name, namespace }) : new AfXdpPort({ arena, interface: name, namespace, ...RINGS })),
  })
  try {
    const { right, back } = await transfer(middle, '10.7.0.2', BYTES)
    assert.deepEqual([right, back], [true, BYTES])
    assert.equal(middle.seen.wrongChecksums, 0)
    assert.ok(middle.seen.segmentBytesSeen > 0 && middle.seen.largest > 1514, 'there were long segments')
    assert.equal(middle.ports[1].statistics.txOversize, 0)
  } finally {
    middle.close()
  }
})
