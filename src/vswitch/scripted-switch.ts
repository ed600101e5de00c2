/**
 * Scripted switch: a virtual switch whose surroundings are lists. Messages to it are written by hand, what it sends is noted in
 * the
 * order in which it happens, on which session, and with the data packets in between. For tests.
 */

import { assert } from '../base/assert.ts'
import { Arena } from '../memory/arena.ts'
import { AnnounceDone, ConfigApplied } from '../messages/announcing.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { homeSwitchOf } from '../messages/home-switch.ts'
import { MessageField, messageKind, type MessageKind } from '../messages/message.ts'
import { GoReleased } from '../messages/migration.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { createParser } from '../packet/parse.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import type { PlacementPolicy } from './placement/placement-policy.ts'
import { defaultSwitchLimits, defaultSwitchTimes, type SwitchContext, type SwitchLimits } from './switch-context.ts'
import { Entry, EntryFlag, SwitchTable } from './switch-table.ts'
import { VirtualSwitch } from './virtual-switch.ts'

/** A message as sent: `=` before the name means in-band. */
export interface Sent {
  readonly to: number
  readonly name: string
  readonly flow: number
  readonly epoch: number
  readonly node: number
  readonly code: number
  /** In a Go: frames that were accepted from the releaser before. */
  readonly released: number
}

/** What a scripted message says; the key is that of a flow by number. */
export interface Said {
  flow?: number
  epoch?: number
  node?: number
  code?: number
  key?: number
  macs?: readonly number[]
  /** 32-bit fields by byte offset. */
  words?: Record<number, number>
  /** 16-bit fields by byte offset. */
  halves?: Record<number, number>
  /** Words behind the message. */
  tail?: readonly number[]
}

const FRAME_BYTES = 60
/** Addresses of every packet from endpoint a to endpoint b: destination, then source. */
export const FLOW_MACS: readonly number[] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa]

export class ScriptedSwitch {
  readonly arena = new Arena(16 * 2 ** 20)
  readonly pool: PacketPool
  readonly table: SwitchTable
  readonly context: SwitchContext
  readonly logic: VirtualSwitch
  /** All that has happened since `take`: `=FlowOpen 11 1`, `packet 5 to 11`, `packet 5 out`. */
  log: string[] = []
  sent: Sent[] = []
  readonly drops: Record<string, number> = {}
  readonly anomalies: Record<string, number> = {}
  readonly steps: Record<string, number> = {}
  /** Sessions whose reserve is more than half used: a node's id, `=` before it for in-band. */
  readonly strained = new Set<string>()
  given = 0
  #config: ClusterConfig
  readonly #parser
  readonly #single: number
  readonly #message: number
  readonly #out: number
  readonly #key: number

  constructor(config: ClusterConfig, self: number, policy: PlacementPolicy, limits: Partial<SwitchLimits> = {}) {
    const arena = this.arena
    const all = { ...defaultSwitchLimits, entries: 1000, packets: 512, largePackets: 1, ...limits }
    this.pool = new PacketPool(arena, all.packets, all.largePackets)
    this.table = new SwitchTable(arena, all.entries)
    this.#parser = createParser(arena, 12345)
    this.#single = arena.allocate('single', 128) >> 2
    this.#message = arena.allocate('message in', 4096)
    this.#out = arena.allocate('message out', 4096)
    this.#key = arena.allocate('key', 64) >> 2
    this.#config = config
    this.context = {
      arena, self, incarnation: config.switches.find(({ id }) => id === self)?.incarnation ?? 0, limits: all,
      times: defaultSwitchTimes, table: this.table, now: 0, held: 0,
      control: (peer) => this.#knows(peer) ? this.#channel(peer, '') : null,
      inBand: (runtime) => this.#config.runtimes.some(({ id }) => id === runtime) ? this.#channel(runtime, '=') : null,
      toRuntime: (d, runtime) => this.#left(d, `to ${runtime}`),
      toExternal: (d) => this.#left(d, 'out'),
      restoreAddresses: () => {},
      drop: (slot, reason) => {
        this.drops[reason] = (this.drops[reason] ?? 0) + 1
        this.log.push(`drop ${reason}`)
        if (slot !== 0) this.pool.give(slot)
      },
      giveSlot: (slot) => { this.pool.give(slot) },
      isScarce: (slot) => this.pool.isLarge(slot) && this.pool.availableLarge * 2 < all.largePackets,
      anomaly: (what) => { this.anomalies[what] = (this.anomalies[what] ?? 0) + 1 },
      step: (phase, by) => {
        this.steps[phase] = (this.steps[phase] ?? 0) + by
        assert(this.steps[phase] >= 0, 'no step ends more often than it begins')
      },
      hashOf: (key) => {
        arena.i32.copyWithin(this.#single + Descriptor.key, key, key + KEY_WORDS)
        return this.#parser.hashKey(this.#single)
      },
      useOwnKey: (d) => { this.#parser.useOwnKey(d) },
      hasRoomTo: () => true, isDown: () => false, positionTo: () => 0, takeBack: () => undefined,
      countForwarded: () => undefined,
      countTakenOver: () => {},
      countHandedOver: () => {},
    }
    this.logic = new VirtualSwitch(this.context, policy)
    this.logic.configure(config)
  }

  #knows(peer: number): boolean {
    return [...this.#config.switches, ...this.#config.runtimes].some(({ id, incarnation }) => id === peer && incarnation !== 0)
  }

  #left(d: number, where: string): void {
    const { i32 } = this.arena
    this.log.push(`packet ${i32[d + Descriptor.key + 3]} ${where}`)
    this.pool.give(i32[d + Descriptor.slot])
  }

  #channel(to: number, mark: string): MessageChannel {
    const { u8, u16, u32, f64 } = this.arena
    const at = this.#out
    return {
      isStrained: this.strained.has(`${mark}${to}`),
      begin: (bytes) => {
        u8.fill(0, at, at + bytes)
        return at
      },
      commit: () => {
        const name = mark + (messageKind(u8[at])?.name ?? '?')
        const epoch = u32[(at + MessageField.epoch) >> 2]
        const node = u16[(at + MessageField.node) >> 1]
        const code = u8[at + MessageField.code]
        const released = name === 'Go' ? u32[(at + GoReleased) >> 2] : 0
        this.sent.push({ to, name, flow: f64[(at + MessageField.flow) >> 3], epoch, node, code, released })
        this.log.push(`${name} ${to}${code === 0 ? '' : ` code ${code}`}`)
      },
    }
  }

  /** A 32-bit field of the message that was sent last, by byte offset. */
  lastWord(offset: number): number {
    return this.arena.u32[(this.#out + offset) >> 2]
  }

  configure(config: ClusterConfig): void {
    this.#config = config
    this.logic.configure(config)
  }

  /** Writes the key of a flow by number: UDP between two addresses. */
  writeKey(number: number, key: number): void {
    this.arena.i32.fill(0, key, key + KEY_WORDS)
    this.arena.i32.set([4 << 24, (1000 << 16) | 53, 17, number], key)
    this.arena.i32[key + 7] = 0x0a000001
  }

  keyOf(number: number): number {
    this.writeKey(number, this.#key)
    return this.#key
  }

  homeOf(number: number): number {
    return homeSwitchOf(this.arena.i32, this.keyOf(number), this.#config.switches)
  }

  /** The first flow number from a start on whose home is this switch. */
  flowAt(home: number, from = 1): number {
    let number = from
    while (this.homeOf(number) !== home) number++
    return number
  }

  entryOf(number: number): number {
    const key = this.keyOf(number)
    return this.table.find(key, this.context.hashOf(key))
  }

  /** A packet of a flow, from endpoint a, as a parsed descriptor in its slot. */
  packetOf(number: number, bytes = FRAME_BYTES): number {
    const { i32, u8 } = this.arena
    const slot = this.pool.take(bytes)
    assert(slot !== 0, 'the script has a slot')
    const d = slot >> 2
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    this.writeKey(number, d + Descriptor.key)
    // As behind a packet of IPv6 that was there before: the words of an address that one of IPv4 does not use mean nothing.
    for (const word of [4, 5, 6, 8, 9, 10]) i32[d + Descriptor.key + word] = -1
    i32[d + Descriptor.hash] = this.context.hashOf(d + Descriptor.key)
    i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
    i32[d + Descriptor.length] = bytes
    i32[d + Descriptor.slot] = slot
    u8.set(FLOW_MACS, slot + SLOT_FRAME_OFFSET)
    return d
  }

  /** A packet comes in from outside. */
  external(number: number, bytes = FRAME_BYTES): void {
    const d = this.packetOf(number, bytes)
    const shown = this.entryOf(number)
    if (shown === 0) this.logic.unknown(d)
    else this.logic.packet(this.table.mainOf(shown), d)
  }

  /** A packet comes from a runtime. */
  fromRuntime(number: number, runtime: number): void {
    const d = this.packetOf(number)
    this.arena.i32[d + Descriptor.switch] = runtime
    const shown = this.entryOf(number)
    if (shown === 0) this.logic.unknownFromRuntime(d)
    else this.logic.fromRuntime(this.table.mainOf(shown), shown, d, runtime)
  }

  /** A runtime gives a packet back. */
  returned(number: number): void {
    this.logic.returned(this.packetOf(number))
  }

  #write(kind: MessageKind, said: Said): number {
    const { u8, u16, u32, i32, f64 } = this.arena
    const at = this.#message
    u8.fill(0, at, at + 512)
    u8[at] = kind.type
    u8[at + MessageField.code] = said.code ?? 0
    u16[(at + MessageField.node) >> 1] = said.node ?? 0
    u32[(at + MessageField.epoch) >> 2] = said.epoch ?? 0
    f64[(at + MessageField.flow) >> 3] = said.flow ?? 0
    if (said.key !== undefined) {
      this.writeKey(said.key, (at + MessageField.key) >> 2)
      u8.set(said.macs ?? FLOW_MACS, at + MessageField.macs)
    }
    for (const [offset, value] of Object.entries(said.words ?? {})) u32[(at + Number(offset)) >> 2] = value
    for (const [offset, value] of Object.entries(said.halves ?? {})) u16[(at + Number(offset)) >> 1] = value
    i32.set(said.tail ?? [], (at + kind.bytes) >> 2)
    return kind.bytes + (said.tail?.length ?? 0) * 4
  }

  control(peer: number, kind: MessageKind, said: Said = {}): void {
    const bytes = this.#write(kind, said)
    this.logic.onControl(peer, this.#message, bytes)
  }

  /** A runtime has told of all its flows, and of those whose owners have died. */
  announced(runtime: number): void {
    this.control(runtime, AnnounceDone)
    this.control(runtime, ConfigApplied, { epoch: this.#config.version })
  }

  inBand(runtime: number, kind: MessageKind, said: Said = {}): void {
    const bytes = this.#write(kind, said)
    this.logic.onInBand(runtime, this.#message, bytes)
  }

  /** Any bytes as a message. */
  raw(isInBand: boolean, peer: number, bytes: Uint8Array): void {
    this.arena.u8.set(bytes, this.#message)
    if (isInBand) this.logic.onInBand(peer, this.#message, bytes.length)
    else this.logic.onControl(peer, this.#message, bytes.length)
  }

  /** What has happened since it was last asked. */
  take(): string[] {
    const log = this.log
    this.log = []
    this.sent = []
    return log
  }

  /** Owner, releaser and epoch of a flow's entry, and whether it awaits `Drained`. */
  entry(number: number): { owner: number; releaser: number; epoch: number; flow: number; phase: number; awaits: boolean } | null {
    const { u8, u16, u32, f64 } = this.arena
    const entry = this.table.mainOf(this.entryOf(number))
    if (entry === 0) return null
    return { owner: u16[(entry + Entry.owner) >> 1], releaser: u16[(entry + Entry.releaser) >> 1],
      epoch: u32[(entry + Entry.epoch) >> 2],
      flow: f64[(entry + Entry.flow) >> 3], phase: u8[entry + Entry.phase],
      awaits: (u8[entry + Entry.flags] & EntryFlag.awaitsDrained) !== 0 }
  }

  /** Lets time pass. */
  pass(us: number): void {
    this.context.now += us
    this.logic.tick()
  }
}
