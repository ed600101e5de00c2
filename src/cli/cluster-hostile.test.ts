/**
 * What anybody outside can send to a cluster, while honest connections go through it: damaged frames of every header, floods of
 * fragments, floods of SYNs, our own EtherType. Nothing ends, every packet is accounted for at every node, memory stays within its
 * bounds, and a download goes on, whole.
 *
 *     namespace outside: honest client, and who sends all this ─ veth ─ ingress ═ 2 runtimes ═ egress ─ veth ─ namespace server
 *
 * With NFACTOR_FULL=1 once more with a TAP interface there in the place of the first veth, slower: what the kernel cannot queue before that is
 * lost by whoever sends it, honest or not.
 */

import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { AfPacketPort } from '../ports/af-packet-port.ts'
import { systemClock } from '../ports/system-clock.ts'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'
import { mutatePacket } from '../testing/mutate-packet.ts'
import { buildFragments, buildFrame } from '../testing/packet-builder.ts'
import { syntheticTraces } from '../testing/synthetic-traces.ts'
import type { Download } from './download-programs.ts'
import { TestCluster } from './test-cluster.ts'
import { TestPrograms } from './test-programs.ts'

const isFull = process.env['NFACTOR_FULL'] !== undefined
const SYNS = isFull ? 1_000_000 : 20_000
/** TCP flows at a runtime whose SYN nobody has answered. */
const UNANSWERED = isFull ? 65_536 : 2_048
const FRAGMENTS = isFull ? 20_000 : 3_000
const DAMAGED_ROUNDS = isFull ? 20 : 1
const PATIENCE_MS = 60_000
/** Frames between two turns of the event loop. */
const BURST = 32
const MEGABYTE = 1_000_000

/** Who sends what no honest host does: frames as they are, by a packet socket. */
class Sender {
  sent = 0
  readonly #arena = new Arena(1 << 24)
  readonly #frame = this.#arena.allocate('frame', 2048)
  readonly #port: AfPacketPort

  constructor(name: string, namespace: string) {
    this.#port = new AfPacketPort({ arena: this.#arena, interface: name, namespace, rxFrames: 8, txFrames: 256, frameBytes: 2048 })
    this.#port.open()
  }

  /** @param perSecond how fast at most; as fast as the interface takes them unless told */
  async send(frames: Iterable<Uint8Array>, perSecond = Infinity): Promise<void> {
    const begin = systemClock.now()
    const before = this.sent
    for (const frame of frames) {
      if (frame.length < 14 || frame.length > 1514) continue
      this.#arena.u8.set(frame, this.#frame)
      while (!this.#port.send(this.#frame, frame.length)) await this.#rest()
      this.sent++
      if ((this.sent - before) % BURST !== 0) continue
      await this.#rest()
      const due = begin + (this.sent - before) / perSecond * 1e6
      const aheadMs = (due - systemClock.now()) / 1000
      if (aheadMs > 1) await new Promise((resolve) => { setTimeout(resolve, aheadMs) })
    }
    await this.#rest()
  }

  async #rest(): Promise<void> {
    this.#port.flush()
    this.#port.maintain(systemClock.now())
    await new Promise((resolve) => { setImmediate(resolve) })
  }

  close(): Promise<void> | void {
    return this.#port.close()
  }
}

function* damaged(seed: number): Generator<Uint8Array> {
  const random = new Random(seed)
  for (let round = 0; round < DAMAGED_ROUNDS; round++) {
    for (const { packets } of syntheticTraces(random.int32())) for (const packet of packets) yield mutatePacket(packet, random).frame
  }
}

/** Fragments of many datagrams: firsts alone, later ones alone, and such as contradict each other. */
function* fragments(): Generator<Uint8Array> {
  const payload = new Uint8Array(2800)
  for (let i = 0; i < FRAGMENTS; i++) {
    const source = `10.9.${i >> 8 & 255}.${i & 255}`
    const [first, later] = buildFragments({ source, destination: '10.79.0.2', identification: i & 0xffff, udp: { payload } }, 1400)
    if (i % 3 === 0) yield first
    else if (i % 3 === 1) yield later
    else yield* [first, later, first, later.slice(0, 200), later]
  }
}

function* syns(count: number): Generator<Uint8Array> {
  const frame = buildFrame({ source: '10.0.0.0', destination: '10.79.0.2', tcp: { sourcePort: 1024, destinationPort: 8000, flags: 'S' } })
  const template = frame.slice()
  for (let i = 0; i < count; i++) {
    // 16,384 senders, 64 ports of each. The checksum is a forger's: nobody on the way looks at it.
    template[28] = i >> 8 & 63
    template[29] = i & 255
    template[35] = i >> 14 & 63
    yield template
  }
}

for (const kind of ['af-packet', 'tap'] as const) {
  const skip = networkSkip() || (kind === 'tap' && !isFull && 'NFACTOR_FULL is not set')
  test(`what comes from outside harms nobody, ${kind}`, { skip, timeout: isFull ? 580_000 : 180_000 }, (context) => harmsNobody(context, kind))
}

async function harmsNobody(context: TestContext, kind: 'af-packet' | 'tap'): Promise<void> {
  const isTap = kind === 'tap'
  const network = new TestNetwork()
  const cluster = new TestCluster('hostile')
  const programs = new TestPrograms()
  const senders: Sender[] = []
  context.after(async () => {
    programs.close()
    for (const sender of senders) await sender.close()
    cluster.close()
    network.close()
  })
  const [outside, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
  if (!isTap) network.addVeth(outside, 'c0', middle, 'in')
  network.addVeth(server, 's0', middle, 'out')
  network.addAddresses(server, 's0', '10.79.0.2/24')
  cluster.must('up', cluster.write('cluster.yaml', `
name: hostile
chain: [monitor, firewall, http]
ingress: { type: ${kind}, interface: ${isTap ? 'c0' : 'in'}, namespace: ${isTap ? outside : middle} }
egress: { type: af-packet, interface: out, namespace: ${middle} }
runtimes: 2
patience: 10
limits: { flows: ${isFull ? 1_000_000 : 8_192}, unanswered: ${UNANSWERED} }
`), '--detach')
  network.addAddresses(outside, 'c0', '10.79.0.1/24')
  await programs.serve(server)
  const sender = new Sender('c0', outside)
  senders.push(sender)
  const lives = (await cluster.status()).nodes.map(({ status }) => status?.pid)

  const download = (connections: number, bytes: number, pauseMs: number): Promise<Download[]> =>
    programs.download(outside, '10.79.0.2', connections, bytes, pauseMs)
  const assertWhole = (downloads: readonly Download[], connections: number, bytes: number): void => {
    assert.deepEqual(downloads.map(({ received, same, error }) => ({ received, same, error })),
      Array.from({ length: connections }, () => ({ received: bytes, same: true, error: undefined })))
  }

  /** Every node is the process that it was, and all that has come to it has left, been dropped for a reason, or is there. */
  const account = async (): Promise<void> => {
    const { nodes } = await cluster.untilArrived(PATIENCE_MS)
    assert.deepEqual(nodes.map(({ status }) => status?.pid), lives)
    for (const { name, status } of nodes) {
      assert.ok(status !== undefined, name)
      const { received, emitted, takenOver, forwarded, dropped, buffered, handedOver, memoryBytes } = status.workload
      assert.equal(received + emitted + takenOver, forwarded + dropped + buffered + handedOver, `${name}: ${JSON.stringify(status.workload)}`)
      assert.equal(Object.values(status.dropReasons).reduce((sum, count) => sum + count, 0), dropped, name)
      assert.ok(memoryBytes < 1.2e9, `${name} has ${memoryBytes} bytes in use`)
    }
    context.diagnostic(nodes.map(({ name, status }) => `${name} ${Math.round((status?.workload.memoryBytes ?? 0) / 2 ** 20)} MiB, ` +
      `${status?.workload.flows} flows, ${JSON.stringify(status?.dropReasons)}`).join('; '))
  }

  await context.test('damaged frames of every header', async () => {
    const going = download(2, 2 * MEGABYTE, 20)
    await sender.send(damaged(7))
    assertWhole(await going, 2, 2 * MEGABYTE)
    await account()
    const reasons = (await cluster.status()).nodes[0].status?.dropReasons ?? {}
    assert.ok(Object.keys(reasons).filter((reason) => reason.startsWith('malformed-')).length >= 3, JSON.stringify(reasons))
  })

  await context.test('fragments without a first one, first ones without a rest, and such as contradict each other', async () => {
    const going = download(2, 2 * MEGABYTE, 20)
    await sender.send(fragments())
    assertWhole(await going, 2, 2 * MEGABYTE)
    await account()
    const { dropReasons, workload } = (await cluster.status()).nodes[0].status ?? assert.fail()
    assert.ok((dropReasons['fragment-limit'] ?? 0) > 0, JSON.stringify(dropReasons))
    assert.ok(workload.buffered <= 256, `${workload.buffered} fragments wait`)
  })

  await context.test('frames as nodes speak them are dropped and counted', async () => {
    const foreign = async (): Promise<number> => (await cluster.status()).nodes[0].status?.external?.rxForeign ?? 0
    const before = await foreign()
    const random = new Random(3)
    await sender.send(function* () {
      for (let i = 0; i < 500; i++) {
        const frame = random.fill(new Uint8Array(random.between(14, 1500)))
        frame[0] = 2
        frame[12] = 0x88
        frame[13] = 0xb5
        yield frame
      }
    }())
    await cluster.until('all are counted', async () => await foreign() === before + 500, PATIENCE_MS)
  })

  await context.test('a flood of SYNs takes its room from itself', async () => {
    const going = download(2, 4 * MEGABYTE, 100)
    await cluster.until('the download has begun', async () => (await cluster.flows('10.79.0.1 8000')).length >= 2, PATIENCE_MS)
    const before = (await cluster.status()).nodes
    const begin = performance.now()
    let isOver = false
    const flood = sender.send(syns(SYNS), isFull && !isTap ? 60_000 : 20_000).finally(() => { isOver = true })
    let opened = 0
    while (!isOver) {
      // New connections come through amid it.
      assertWhole(await download(1, 100_000, 0), 1, 100_000)
      opened++
    }
    await flood
    const seconds = (performance.now() - begin) / 1000
    const downloads = await going
    assertWhole(downloads, 2, 4 * MEGABYTE)
    await account()
    // Those that had to go are on their way out when the last has come.
    await cluster.until('as many are left as may be', async () => {
      const { nodes } = await cluster.status()
      return nodes.every(({ name, status }, i) => {
        assert.equal(status?.dropReasons['flow-table-full'], undefined, name)
        const more = (status?.workload.flows ?? 0) - (before[i].status?.workload.flows ?? 0)
        return !name.startsWith('runtime') || (more > UNANSWERED / 2 && more <= UNANSWERED + 200 + 2 * opened)
      })
    }, PATIENCE_MS)
    context.diagnostic(`${SYNS} SYNs in ${seconds.toFixed(1)} s; ${opened} connections opened meanwhile; longest stall of the download ` +
      `${Math.round(Math.max(...downloads.map(({ stall = 0 }) => stall)))} ms`)
  })
}
