/**
 * Load of the bench on real links, a process: traffic generator and sink, and between them and the memif links the two switches of the
 * cluster, in one thread.
 *
 *     through    generator ─ ingress ═ memif ═ runtimes ═ memif ═ egress ─ sink        run by the executor, as any node is
 *     straight   generator or player ═ memif ═ seat ═ memif ═ sink                     no switch touches a frame of data
 *
 * *Straight* is for one runtime, or testpmd in its seat: flows have been opened through the switches; then frames go out as a switch would
 * send them, with the link's addresses, and what comes back is counted at once. The switches hear their in-band messages still.
 *
 * The parent says what to do by messages ({@link LoadCommand}), one at a time, and gets an answer to each.
 */

import { setImmediate } from 'node:timers/promises'
import type { ClusterConfig } from '../../src/messages/cluster-config.ts'
import { Arena } from '../../src/memory/arena.ts'
import { createSwitchNode, type SwitchNode } from '../../src/node/switch-node.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { describeFrame, PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import type { LinkPort } from '../../src/ports/link-port.ts'
import { MemifPort } from '../../src/ports/memif-port.ts'
import { systemClock } from '../../src/ports/system-clock.ts'
import { LatencyHistogram, TICKS_PER_US } from '../../src/ports/traffic/latency-histogram.ts'
import { createTraffic, type Traffic } from '../../src/ports/traffic/traffic-generator.ts'
import { defaultMacs } from '../../src/ports/traffic/traffic-options.ts'
import { WrapperPort } from '../../src/ports/wrapper-port.ts'
import { ClusterFolder } from '../../src/process/cluster-folder.ts'
import { ControlNetwork } from '../../src/process/control-network.ts'
import { Executor } from '../../src/process/executor.ts'
import { monotonicUs } from '../../src/process/monotonic-clock.ts'
import { NodeLink } from '../../src/process/node-link.ts'
import { nodeMac } from '../../src/transport/frame-header.ts'
import { roundRobin } from '../../src/vswitch/placement/round-robin.ts'
import { FramePlayer, type PlayedCounts } from './frame-player.ts'
import type { LoadCommand, LoadOptions, LoadStatus, Marked, PlayResult } from './links-messages.ts'

const SWITCHES = [1, 2] as const
const SEED = 7
const BATCH = 32
const SLICE_US = 500
/** Packets on their way while flows are made ready. */
const WINDOW = 1024
const NODES_US = 500
const MAINTAIN_US = 5_000
const SESSIONS = { timeoutUsMin: 20_000 }
const ETHERTYPE = 12
const IPV4_LE = 8
/** Where the tag of a UDP packet has its time. */
const UDP_TIME = 54
const SETTLE_MS = 8_000

/** A link whose data frames the load may take itself; then the node gets the others alone. */
class LoadLink extends WrapperPort<LinkPort> {
  readonly runtime: number
  /** Frames that are not data, for the node. */
  readonly others: { readonly slot: number, readonly length: number }[] = []
  isStraight = false
  readonly #load: Load

  constructor(inner: LinkPort, runtime: number, load: Load) {
    super(inner)
    this.runtime = runtime
    this.#load = load
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    if (!this.isStraight) {
      const count = this.inner.receive(pool, descriptors, max)
      if (count > 0 && this.#load.awaited === this.runtime) this.#load.lookForData(descriptors, count)
      return count
    }
    const { i32, u8 } = this.#load.arena
    let count = 0
    for (; count < max && this.others.length > 0; count++) {
      const { slot, length } = this.others.shift() as { slot: number, length: number }
      const to = pool.take(length)
      if (to === 0) break
      u8.copyWithin(to + SLOT_FRAME_OFFSET, slot + SLOT_FRAME_OFFSET, slot + SLOT_FRAME_OFFSET + length)
      this.#load.pool.give(slot)
      describeFrame(i32, descriptors + count * DESCRIPTOR_WORDS, to, length)
    }
    return count
  }
}

/** The generator's port at a switch: it can be closed, and what comes in can be watched. */
class OuterPort extends WrapperPort {
  isClosed = true
  /** Packets that may be on their way. */
  window = Infinity
  onData: ((frame: number) => void) | undefined
  readonly #load: Load

  constructor(inner: LinkPort, load: Load) {
    super(inner)
    this.#load = load
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    return this.isClosed || this.#load.inside >= this.window ? 0 : this.inner.receive(pool, descriptors, max)
  }

  override send(frame: number, length: number): boolean {
    const isTaken = this.inner.send(frame, length)
    this.onData?.(frame)
    return isTaken
  }
}

class Load {
  readonly arena = new Arena()
  readonly pool = new PacketPool(this.arena, 4096, 4)
  readonly #options: LoadOptions
  readonly #traffic: Traffic
  readonly #outer: [OuterPort, OuterPort]
  readonly #links: LoadLink[][]
  readonly #controls: ControlNetwork[] = []
  readonly #descriptors = this.arena.allocate('load batch', BATCH * DESCRIPTOR_BYTES) >> 2
  #switches: SwitchNode[] = []
  #config: ClusterConfig | undefined
  #executor: Executor | undefined
  #running: Promise<void> = Promise.resolve()
  #player: FramePlayer | undefined
  #nodesAt = 0
  #maintainAt = 0
  awaited = 0
  #onAwaited: ((at: number) => void) | undefined
  #markTicks = 0
  readonly #seen: Uint8Array
  readonly #sinceMark = new LatencyHistogram()
  readonly #sinceDue = new LatencyHistogram()

  constructor(options: LoadOptions) {
    const { arena } = this
    const { flows, isTcp } = options
    this.#options = options
    this.#seen = new Uint8Array(flows)
    this.#traffic = createTraffic({ arena, seed: SEED, flows, packetsPerSecond: 1000, tcpShare: isTcp ? 1 : 0,
      replyPackets: isTcp ? 1 : 0, isClosedLoop: isTcp, stallUs: 60e6 })
    this.#outer = this.#traffic.ports.map((port) => new OuterPort(port, this)) as [OuterPort, OuterPort]
    const folder = new ClusterFolder(options.folder)
    if (options.runtimes.length === 0) {
      this.#links = ['west', 'east'].map((name) => [new LoadLink(new MemifPort({
        arena, name, role: 'server', socket: `${options.folder}/${name}`, ringSize: 4096, bufferBytes: 2112, windowBytes: 48 << 20,
        acceptsUnsealed: true,
      }), 0, this)])
    } else {
      this.#links = SWITCHES.map((own) => options.runtimes.map((runtime) => new LoadLink(new NodeLink({
        arena, name: `link ${own}-${runtime}`, socket: folder.linkSocket(own, runtime), role: 'server',
      }), runtime, this)))
      for (const node of SWITCHES) this.#controls.push(new ControlNetwork({ arena, folder, node }))
    }
    for (const port of [...this.#links.flat(), ...this.#controls]) port.open()
  }

  async do(command: LoadCommand): Promise<unknown> {
    switch (command.what) {
      case 'configure': return this.#configure(command.config)
      case 'send': return this.#send(command.packetsPerSecond, command.window ?? Infinity)
      case 'settle': return await this.#settle()
      case 'straighten': return await this.#straighten()
      case 'play': return await this.#play(command.seconds, command.packetsPerSecond ?? 0, command.packets ?? Infinity)
      case 'await': return await new Promise((resolve) => {
        this.awaited = command.runtime
        this.#onAwaited = resolve
      })
      case 'mark': return this.#mark()
      case 'marked': return this.#marked()
      case 'status': return this.#status()
    }
  }

  // -- Through the switches ------------------------------------------------------------------------------------------

  #configure(config: ClusterConfig): void {
    this.#config = config
    if (this.#switches.length > 0) {
      for (const node of this.#switches) node.notifyClusterConfig(config, systemClock.now())
      this.#executor?.wake()
      return
    }
    const { arena } = this
    const { clusterId, flows } = this.#options
    this.#switches = SWITCHES.map((id, index) => createSwitchNode({
      arena, id, incarnation: config.switches.find((one) => one.id === id)?.incarnation ?? 0, clusterId, policy: roundRobin(), seed: id,
      config,
      limits: { entries: flows * 2 + 64, largePackets: 4 }, sessions: SESSIONS,
      ports: { external: this.#outer[index] as OuterPort, control: this.#controls[index] as ControlNetwork,
        links: new Map((this.#links[index] as LoadLink[]).map((link) => [link.runtime, link])) },
    }))
    this.#execute()
  }

  #execute(): void {
    const [one, other] = this.#switches as [SwitchNode, SwitchNode]
    const executor = this.#executor = new Executor({
      node: {
        poll: (now) => {
          const isMore = one.poll(now)
          return other.poll(now) || isMore
        },
        nextDue: () => Math.min(one.nextDue(), other.nextDue()),
      },
      ports: [...this.#controls, ...this.#links.flat(), ...this.#outer],
    })
    this.#running = executor.run()
    this.#running.catch((error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
      process.exit(1)
    })
  }

  #send(packetsPerSecond: number, window: number): void {
    this.#traffic.setRate(packetsPerSecond)
    for (const port of this.#outer) {
      port.window = window
      port.isClosed = false
    }
  }

  /** Packets that the generator has sent and the sink has not seen, nor missed. */
  get inside(): number {
    const { received, lost } = this.#traffic.sink.totals
    return this.#traffic.sent.packets - received - lost
  }

  get #isSettled(): boolean {
    return this.inside <= 0
  }

  async #settle(): Promise<boolean> {
    // Answers still go out, so that a flow's turn is the client's again.
    this.#outer[0].isClosed = true
    let last = -1
    for (let quietSince = performance.now(); performance.now() - quietSince < SETTLE_MS;) {
      await new Promise((resolve) => { setTimeout(resolve, 20) })
      const { received } = this.#traffic.sink.totals
      if (this.#isSettled && received === last) break
      if (received !== last) quietSince = performance.now()
      last = received
    }
    this.#outer[1].isClosed = true
    return this.#isSettled
  }

  lookForData(descriptors: number, count: number): void {
    const { i32, u16 } = this.arena
    for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
      if (u16[((i32[d + Descriptor.frame] as number) + ETHERTYPE) >> 1] !== IPV4_LE) continue
      this.awaited = 0
      this.#onAwaited?.(monotonicUs())
      return
    }
  }

  #mark(): void {
    this.#seen.fill(0)
    this.#sinceMark.clear()
    this.#sinceDue.clear()
    this.#markTicks = (systemClock.now() * TICKS_PER_US) | 0
    const { i32 } = this.arena
    const { sink } = this.#traffic
    const { flows } = this.#options
    this.#outer[1].onData = (frame) => {
      if (sink.sequence < 0) return
      const slot = (sink.flow >>> 0) % flows
      const due = i32[(frame + UDP_TIME) >> 2] as number
      if (this.#seen[slot] !== 0 || ((due - this.#markTicks) | 0) < 0) return
      this.#seen[slot] = 1
      const now = (systemClock.now() * TICKS_PER_US) | 0
      this.#sinceMark.record(Math.max(0, (now - this.#markTicks) | 0))
      this.#sinceDue.record(Math.max(0, (now - due) | 0))
    }
  }

  #marked(): Marked {
    const of = (histogram: LatencyHistogram): readonly [number, number, number] =>
      [histogram.percentileUs(50) / 1000, histogram.percentileUs(99) / 1000, histogram.maxUs / 1000]
    return { flows: this.#sinceMark.count, sinceMark: of(this.#sinceMark), sinceDue: of(this.#sinceDue) }
  }

  #status(): LoadStatus {
    const { sink, sent } = this.#traffic
    const sum = (lists: Record<string, number>[]): Record<string, number> => {
      const all: Record<string, number> = {}
      for (const list of lists) for (const [name, count] of Object.entries(list)) all[name] = (all[name] ?? 0) + count
      return all
    }
    return {
      sent: sent.packets, opened: sent.opened, totals: { ...sink.totals },
      latency: { p50Us: sink.latency.percentileUs(50), p99Us: sink.latency.percentileUs(99), maxUs: sink.latency.maxUs },
      busyUs: this.#executor?.statistics.busyUs ?? 0,
      drops: sum(this.#switches.map((node) => node.dropReasons())), anomalies: sum(this.#switches.map((node) => node.anomalies)),
      openSteps: this.#switches.reduce((all, { openSteps }) => all + Object.values(openSteps).reduce((some, count) => some + count, 0), 0),
      // Whoever is at the other end may have to offer buffers first.
      isUp: this.#links.flat().every(({ isUp, room }) => isUp && room > 2 * WINDOW),
    }
  }

  // -- Straight ------------------------------------------------------------------------------------------------------

  /** The links that packets of the one seat take: at the clients' side and at the servers'. */
  get #ways(): [LoadLink, LoadLink] {
    return this.#links.map((links) => links[0]) as [LoadLink, LoadLink]
  }

  async #straighten(): Promise<void> {
    const { flows, isTcp } = this.#options
    const ways = this.#ways
    this.#executor?.stop(0)
    await this.#running
    for (const way of ways) way.isStraight = true
    const macs = this.#macs()
    const player = this.#player = new FramePlayer({
      arena: this.arena, pool: this.pool, flows, isTcp, ports: ways.map(({ inner }) => inner) as unknown as [LinkPort, LinkPort],
      now: () => systemClock.now(),
      onOther: (side, slot, _frame, length) => { (ways[side] as LoadLink).others.push({ slot, length }) },
    })
    this.#traffic.setRate(Infinity)
    // Without switches nothing has been opened yet; a TCP flow is past its handshake when both sides have sent two packets.
    if (this.#switches.length === 0 && isTcp) {
      while (this.#traffic.sent.packets < flows * 7) await this.#liveTurns(macs, [true, true])
      while (!this.#isSettled) await this.#liveTurns(macs, [false, true])
      await this.#liveTurns(macs, [false, true])
    }
    for (let side = 0; side < player.ways; side++) {
      const before = this.#traffic.sent.packets
      while (this.#traffic.sent.packets < before + flows) {
        const isOpen = [side === 0, side === 1] as const
        await this.#liveTurns(macs, isOpen, (frame, length) => { player.keep(side, frame, length) }, before + flows)
      }
      while (!this.#isSettled) await this.#liveTurns(macs, [false, false])
    }
    player.start(macs)
  }

  /** Addresses of frames that enter at either side, as a switch would send them. */
  #macs(): number[][] {
    const config = this.#config
    const runtime = config?.runtimes[0]
    if (config === undefined || runtime === undefined) return [[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]]
    return SWITCHES.map((id) => {
      const incarnation = config.switches.find((one) => one.id === id)?.incarnation ?? 0
      return [...nodeMac(runtime.id, id, runtime.incarnation), ...nodeMac(id, runtime.id, incarnation)]
    })
  }

  /** The generator's packets straight into the links, and what comes out into its sink: for a slice. */
  async #liveTurns(macs: number[][], isOpen: readonly [boolean, boolean], keep?: (frame: number, length: number) => void, most = Infinity):
      Promise<void> {
    const { u8, i32 } = this.arena
    const { ports, sent } = this.#traffic
    const ways = this.#ways
    const descriptors = this.#descriptors
    const began = performance.now()
    while (performance.now() - began < SLICE_US / 1000) {
      for (const side of [0, 1] as const) {
        const way = ways[side]
        const count = !isOpen[side] || this.inside > WINDOW ? 0
          : ports[side].receive(this.pool, descriptors, Math.min(BATCH, most - sent.packets))
        for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
          const frame = i32[d + Descriptor.frame] as number
          keep?.(frame, i32[d + Descriptor.length] as number)
          u8.set(macs[side] as number[], frame)
          if (!way.inner.send(frame, i32[d + Descriptor.length] as number)) throw new Error(`link ${way.name} has no room`)
          this.pool.give(i32[d + Descriptor.slot] as number)
        }
        way.inner.flush()
      }
      for (const side of [0, 1] as const) {
        const way = ways[side]
        const count = way.inner.receive(this.pool, descriptors, BATCH)
        for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
          const frame = i32[d + Descriptor.frame] as number
          const length = i32[d + Descriptor.length] as number
          const slot = i32[d + Descriptor.slot] as number
          if (this.arena.u16[(frame + ETHERTYPE) >> 1] !== IPV4_LE) {
            way.others.push({ slot, length })
            continue
          }
          const [client, server] = defaultMacs
          u8.set(side === 1 ? server : client, frame)
          u8.set(side === 1 ? client : server, frame + 6)
          ports[side].send(frame, length)
          this.pool.give(slot)
        }
      }
    }
    this.#beside()
    await setImmediate()
  }

  /** What the links and the switches need now and then while frames go straight. */
  #beside(): void {
    const now = systemClock.now()
    if (now >= this.#nodesAt) {
      this.#nodesAt = now + NODES_US
      for (const node of this.#switches) node.poll(now)
      for (const control of this.#controls) control.flush()
      for (const way of this.#ways) way.inner.flush()
    }
    if (now < this.#maintainAt) return
    this.#maintainAt = now + MAINTAIN_US
    for (const port of [...this.#links.flat(), ...this.#controls]) port.maintain(now)
  }

  async #play(seconds: number, packetsPerSecond: number, packets: number): Promise<PlayResult> {
    const player = this.#player as FramePlayer
    const { counts } = player
    for (const name of Object.keys(counts) as (keyof PlayedCounts)[]) counts[name] = 0
    player.latency.clear()
    player.intervalUs = packetsPerSecond === 0 ? 0 : 1e6 * player.ways / packetsPerSecond
    player.pause(false)
    const began = systemClock.now()
    const end = began + seconds * 1e6
    let busy = 0
    let now = began
    while (now < end && counts.sent < packets) {
      const until = now + SLICE_US
      while (now < until) {
        const moved = player.turn(now)
        const before = now
        now = systemClock.now()
        if (moved > 0) busy += now - before
      }
      this.#beside()
      await setImmediate()
      now = systemClock.now()
    }
    const { received } = counts
    const took = now - began
    player.pause(true)
    for (const deadline = performance.now() + 1000; player.inside > 0 && performance.now() < deadline;) {
      player.turn(systemClock.now())
      this.#beside()
      await setImmediate()
    }
    player.giveUp()
    const { latency } = player
    return { packetsPerSecond: received * 1e6 / took, topPacketsPerSecond: received * 1e6 / busy, counts: { ...counts },
      p50Us: latency.percentileUs(50), p99Us: latency.percentileUs(99), p999Us: latency.percentileUs(99.9), maxUs: latency.maxUs }
  }

  /** Until somebody runs the nodes, the links still have to come up. */
  maintain(): void {
    if (this.#executor !== undefined) return
    for (const port of [...this.#links.flat(), ...this.#controls]) port.maintain(systemClock.now())
  }
}

const load = new Load(JSON.parse(process.argv[2] as string) as LoadOptions)
setInterval(() => { load.maintain() }, 5)
process.on('message', ({ id, command }: { id: number, command: LoadCommand }) => {
  load.do(command).then((result) => process.send?.({ id, result }), (error: unknown) => {
    process.send?.({ id, error: error instanceof Error ? error.stack : String(error) })
  })
})
// The parent may be killed: nothing is left then.
process.on('disconnect', () => process.exit(0))
