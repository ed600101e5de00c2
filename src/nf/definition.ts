/**
 * The definition of a network function: what its author writes, and what the framework gives it. Paper §4, table 1.
 *
 *     nf.allocate_new_fs      allocateFlowState      nf.process_pkt             processPacket
 *     nf.deallocate_fs        deallocateFlowState    nf.get_migration_target    migrationTarget
 *
 * A network function keeps what it knows of a flow in the flow state alone, which the framework stores, moves and copies.
 * It has no socket, no clock, no promise and no variable of its own per flow.
 */

import type { z } from 'zod'
import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import type { Kernels } from '../memory/kernels/kernels.ts'
import type { ExtentPool } from '../memory/extent-pool.ts'
import type { StateOf, Struct } from '../memory/struct.ts'
import type { Packet } from '../packet/packet-view.ts'
import type { CacheHint } from './cache-hint.ts'
import type { FastPathStep } from './fast-path.ts'
import type { PlainRecord, RecordFields, RecordWriter } from './record-buffer.ts'
import type { Verdict } from './verdict.ts'

/** A timer of the flow at hand, one for each network function that has a `timerFired` method. */
export interface FlowTimer {
  /** (Re)starts the timer: `timerFired` is called once, not before `delayUs` microseconds from now. */
  set(delayUs: number): void
  /** Stops the timer. */
  clear(): void
  /** True while it runs. */
  readonly isSet: boolean
}

/** Packets of the flow at hand that this network function holds (verdict `Hold`). */
export interface HeldPackets {
  readonly count: number
  /** Shows them to this network function again, oldest first, as if they came now. All unless told how many. */
  retry(count?: number): void
  /** Lets them go on, oldest first, through the network functions behind this one. All unless told how many. */
  release(count?: number): void
  /** Drops them with a verdict from `context.drop`. All unless told how many. */
  drop(verdict: Verdict, count?: number): void
}

/** Packets that a network function makes. They leave directly: no other network function of the chain sees them. */
export interface Emitter {
  /** A copy of a packet, to be changed and sent; `null` when the limit is reached (counted as `emit-limit`). */
  copy(packet: Packet): Packet | null
  /**
   * An empty frame of `length` bytes behind a copy of `packet`'s link header (Ethernet addresses swapped when it goes back to
   * the packet's sender); the new layer 3 starts at the returned view's `networkOffset`. `null` when the limit is reached.
   */
  frame(packet: Packet, networkBytes: number, direction: number): Packet | null
  /** Sends what `copy` or `frame` gave last. `direction` is that of the flow. */
  send(direction: number): void
}

/** Answers to a claim of an alias key. */
export const AliasClaim = {
  /** Another flow has that tuple, or there is no room: choose another. Later fragments and ICMP errors cannot claim. */
  refused: 0,
  /** It is this flow's. */
  granted: 1,
  /** `aliasClaimed` will tell. Hold the packet until then. */
  pending: 2,
} as const

/** Alias keys: how packets of a flow find it once a network function has translated its addresses or ports. */
export interface AliasKeys {
  /**
   * Claims the tuple that the packet's headers have at this moment as an alias key of the flow at hand: to be called on the
   * rewritten packet, before the first one leaves. Aliases end with the flow. In a cluster a flow has at most 64, and claims one at a time:
   * other claims are refused.
   *
   * @returns an {@link AliasClaim}
   */
  claim(packet: Packet): number
}

/** What is known of the flow at hand. */
export interface FlowView {
  /** Packets seen, the one at hand included. */
  readonly packets: number
  /** Bytes seen on the wire, the packet at hand included. */
  readonly bytes: number
  /** When the flow's first packet came, microseconds since the Unix epoch. */
  readonly firstSeen: TimeUs
  readonly protocol: number
  readonly isIpv6: boolean
}

/** A view of the cluster, the same on all nodes. */
export interface ClusterView {
  readonly version: number
  readonly runtimes: readonly { readonly id: number; readonly load: number; readonly flows: number }[]
  /** The runtime that asks. */
  readonly self: number
}

type Names = Record<string, string>

/** What the framework gives a network function once, when the chain is built. */
export interface NfContext<Counters extends Names, Drops extends Names, Records extends Record<string, RecordFields>, Shared> {
  /** Counters declared in the definition: `context.counters.requests++`. */
  readonly counters: { -readonly [K in keyof Counters]: number }
  /** A drop verdict for each declared reason: `return context.drop.denied`. */
  readonly drop: { readonly [K in keyof Drops]: Verdict }
  /** A writer for each declared record, for the packet path. */
  readonly records: { readonly [K in keyof Records]: RecordWriter<Records[K]> }
  /** Makes a record from plain values. Convenient; allocates. */
  record<K extends keyof Records & string>(event: K, values: PlainRecord<Records[K]>): void
  /** State shared by all flows of this network function on this runtime; it stays when flows move. */
  readonly shared: Shared
  /** Time of the packet or timer at hand, microseconds since the Unix epoch. */
  readonly now: TimeUs
  readonly timer: FlowTimer
  readonly held: HeldPackets
  readonly emit: Emitter
  readonly flow: FlowView
  readonly alias: AliasKeys
  /** The memory that offsets (`packet.payloadOffset`, ...) point into. */
  readonly arena: Arena
  readonly extents: ExtentPool
  /** Fast scanning of bytes in the arena. */
  readonly kernels: Kernels
  /** A seeded random 32-bit integer. */
  random(): number
  /** Asks for `migrationTarget` to be called for the flow at hand. */
  reconsider(): void
}

/** The methods of a network function. Paper §4, table 1. */
export interface NfMethods<State> {
  /** A flow begins: its state is zeroed memory, to be initialised where zero is not right. */
  allocateFlowState?(state: State, packet: Packet): void
  /** The flow ends, by expiry or close; called once in the flow's life, wherever it lived. Extents are freed afterwards. */
  deallocateFlowState?(state: State): void
  /** A packet of the flow. Hot: allocate nothing. */
  processPacket(packet: Packet, state: State): Verdict
  /** A kernel that does what `processPacket` does for most packets. For built-ins. */
  readonly fastPath?: FastPathStep
  /** The flow's timer has fired. */
  timerFired?(state: State): void
  /** The answer to a claim that was pending. Release or retry what was held for it. */
  aliasClaimed?(state: State, granted: boolean): void
  /** Where the flow had better live: a runtime's id, or `null` to stay. */
  migrationTarget?(cluster: ClusterView, state: State): number | null
  /** The flow has come from another runtime, or its replica was promoted here. */
  flowMovedIn?(state: State): void
  /** The flow has left for another runtime. */
  flowMovedOut?(state: State): void
}

/** How to make this version's state from an older version's: what live update runs per flow. */
export interface Upgrade<New> {
  /** The version it starts from. */
  readonly from: number
  /** That version's flow state schema, unchanged. */
  readonly flowState: Struct<any>
  /** `now` is zeroed, then everything in `old` is to be carried over. Extents are not: they are freed. */
  upgrade(old: Record<string, any>, now: New): void
}

export interface NfDefinition<
  Config = unknown, S extends Struct<any> = Struct<any>, Counters extends Names = Names, Drops extends Names = Names,
  Records extends Record<string, RecordFields> = Record<string, RecordFields>, Shared = unknown,
> {
  /** Letters, digits and dashes; unique in a chain. */
  readonly name: string
  /** Raised whenever the flow state or its meaning changes. */
  readonly version: number
  /** One sentence for people. */
  readonly description?: string
  /** Schema of the configuration; every option described and defaulted. */
  readonly config?: z.ZodType<Config>
  readonly flowState?: S
  /** Counters: name to meaning. */
  readonly counters?: Counters
  /** Reasons to drop: name to meaning. */
  readonly dropReasons?: Drops
  /** Kinds of records: name to fields. */
  readonly records?: Records
  /** Makes what all flows share. */
  sharedState?(config: Config): Shared
  readonly upgrades?: readonly Upgrade<StateOf<S>>[]
  /** Memory that it is going to need, for speed alone. */
  readonly cacheHints?: readonly CacheHint[]
  create(config: Config, context: NfContext<Counters, Drops, Records, Shared>): NfMethods<StateOf<S>>
}

/** A definition of any shape, as chains hold it. */
export type AnyNfDefinition = NfDefinition<any, any, any, any, any, any>

/**
 * Declares a network function. Its types follow from the schemas: `config`, `state`, counters, drop reasons and records
 * are all checked where they are used.
 *
 * @throws CodedError `NF_NF_INVALID` when the definition breaks a rule
 */
export function defineNf<
  Config = Record<string, never>, S extends Struct<any> = Struct<{}>, const Counters extends Names = {},
  const Drops extends Names = {}, const Records extends Record<string, RecordFields> = {}, Shared = undefined,
>(
  definition: NfDefinition<Config, S, Counters, Drops, Records, Shared>,
): NfDefinition<Config, S, Counters, Drops, Records, Shared> {
  checkDefinition(definition as AnyNfDefinition)
  return definition
}

const NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/
const COUNTER = /^[A-Za-z][A-Za-z0-9]*$/
/** The most bytes of state that one network function may have in a flow record. */
export const FLOW_STATE_BYTES_MAX = 4096

/** True for something that looks like the result of {@link defineNf}, whichever copy of the library made it. */
export function isNfDefinition(value: unknown): value is AnyNfDefinition {
  return typeof value === 'object' && value !== null && 'name' in value && 'version' in value && 'create' in value &&
    typeof value.create === 'function'
}

/** Checks the rules that the types cannot express. */
export function checkDefinition(nf: AnyNfDefinition): void {
  const fail = (what: string, mend: string): never => {
    throw new CodedError('NF_NF_INVALID', `network function ${JSON.stringify(nf.name)}: ${what}`, mend)
  }
  if (typeof nf.name !== 'string' || !NAME.test(nf.name)) {
    fail('the name is not valid', 'Use lower-case letters, digits and dashes, beginning with a letter.')
  }
  if (!Number.isInteger(nf.version) || nf.version < 1) fail(`version ${nf.version} is not valid`, 'Use 1, 2, 3 ...')
  if (typeof nf.create !== 'function') fail('there is no create function', 'Add create(config, context).')
  for (const counter of Object.keys(nf.counters ?? {})) {
    if (!COUNTER.test(counter) || counter === 'o') {
      fail(`counter ${JSON.stringify(counter)} is not a valid name`, 'Use letters and digits.')
    }
  }
  for (const reason of Object.keys(nf.dropReasons ?? {})) {
    if (!NAME.test(reason) && !COUNTER.test(reason)) {
      fail(`drop reason ${JSON.stringify(reason)} is not a valid name`, 'Use letters, digits and dashes.')
    }
  }
  for (const [event, fields] of Object.entries((nf.records ?? {}) as Record<string, RecordFields>)) {
    const reserved = Object.keys(fields).find((field) =>
      !COUNTER.test(field) || ['at', 'end', 'limit', 'begin', 'commit', 'place', 'constructor'].includes(field))
    if (reserved !== undefined) {
      fail(`record ${event} has a field named ${JSON.stringify(reserved)}`,
        'Use letters and digits, and not a word of the writer.')
    }
  }
  const bytes = nf.flowState?.bytes ?? 0
  if (bytes > FLOW_STATE_BYTES_MAX) {
    fail(`the flow state has ${bytes} bytes, ${FLOW_STATE_BYTES_MAX} are allowed`, 'Move what is large or rare to an extent.')
  }
}
