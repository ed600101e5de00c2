/**
 * Flow snapshot: one flow as bytes, to be copied, sent, stored and installed again. DESIGN: "a snapshot of a flow is one copy
 * of its record", with what hangs on it.
 *
 *      0 magic u32 │ 4 total bytes u32 │ 8 checksum u32 │ 12 layout u32 │ 16 taken at f64 │ 24 record bytes u32
 *     28 held packets u16, fragmented datagrams u16 │ 32 record ... │ per extent field: blocks u32, blocks ...
 *        │ per held packet: descriptor, frame │ per datagram of which more fragments may come: what the tracker knows
 *
 * Timers travel as the time they have left, times in the state are moved by the difference of the two clocks. A snapshot is
 * checked whole (size, checksum, layout, room) before anything is installed. `layout` is a hash of the chain's record layout: a
 * chain that differs in an NF's version takes the flow if it brings `upgrade` for it, and needs the old layout for that.
 */

import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import type { ExtentPool } from '../memory/extent-pool.ts'
import type { Struct, StructView } from '../memory/struct.ts'
import { FlowRecord, KEY_WORDS } from '../flow/flow-record.ts'
import { FRAGMENT_ENTRY_BYTES, type FragmentTracker } from '../packet/fragment-tracker.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { FRAME_BYTES_MAX, SLOT_FRAME_OFFSET, type PacketPool } from '../packet/packet-pool.ts'
import { CHAIN_NFS_MAX, type Chain, type ChainNf } from '../nf/chain.ts'
import { FLOW_STATE_BYTES_MAX } from '../nf/definition.ts'
import type { FlowAliases } from './flow-aliases.ts'

const MAGIC = 0x5346464e
const HEADER_BYTES = 32
/** Where a snapshot has its record. */
export const SNAPSHOT_RECORD_OFFSET = HEADER_BYTES
/** No record is longer: a chain has at most so many NFs. */
const RECORD_BYTES_MAX = FlowRecord.state + CHAIN_NFS_MAX * (FLOW_STATE_BYTES_MAX + 16)

/** Where each NF's state lies in a record: what another version of the chain must know to take its flows. */
export interface ChainLayout {
  readonly recordBytes: number
  readonly nfs: readonly {
    readonly name: string
    readonly version: number
    readonly stateOffset: number
    readonly stateBytes: number
    readonly timerOffset: number
    readonly fingerprint: string
    /** Offsets within the state of words that refer to extents. */
    readonly extents: readonly number[]
    readonly times: readonly number[]
  }[]
}

const layouts = new WeakMap<Chain, ChainLayout>()

export function layoutOf(chain: Chain): ChainLayout {
  let layout = layouts.get(chain)
  if (layout === undefined) layouts.set(chain, layout = makeLayout(chain))
  return layout
}

function makeLayout(chain: Chain): ChainLayout {
  return {
    recordBytes: chain.recordBytes,
    nfs: chain.nfs.map((nf) => {
      const schema = nf.definition.flowState as Struct<any> | undefined
      return {
        name: nf.name, version: nf.definition.version, stateOffset: nf.stateOffset, stateBytes: nf.stateBytes,
        timerOffset: nf.timerOffset, fingerprint: schema?.fingerprint ?? '{}',
        extents: schema?.extents.map((e) => e.offset) ?? [], times: schema?.times ?? [],
      }
    }),
  }
}

/** True for what has the shape of a layout, and whose parts lie within a record: what another node says is not trusted. */
export function isChainLayout(value: unknown): value is ChainLayout {
  const { recordBytes, nfs } = (value ?? {}) as Record<string, unknown>
  const isUpTo = (number: unknown, end: number): boolean => Number.isInteger(number) && (number as number) >= 0 && (number as number) <= end
  const areUpTo = (list: unknown, end: number): boolean => Array.isArray(list) && list.every((number) => isUpTo(number, end))
  if (!isUpTo(recordBytes, RECORD_BYTES_MAX) || !Array.isArray(nfs)) return false
  return nfs.every((nf: ChainLayout['nfs'][number] | null) => typeof nf?.name === 'string' && typeof nf.fingerprint === 'string' &&
    Number.isInteger(nf.version) && isUpTo(nf.stateOffset, recordBytes as number) &&
    isUpTo(nf.stateBytes, Math.min(FLOW_STATE_BYTES_MAX, (recordBytes as number) - nf.stateOffset)) &&
    isUpTo(nf.timerOffset, (recordBytes as number) - 8) && areUpTo(nf.extents, nf.stateBytes - 4) && areUpTo(nf.times, nf.stateBytes - 8))
}

/** True if a chain can take flows whose records have this layout: each NF is of the same version, or brings an upgrade. */
export function takesLayout(chain: Chain, layout: ChainLayout): boolean {
  try {
    planUpgrades(chain, layout)
    return chain.nfs.every((nf, index) => {
      const old = layout.nfs[index] as ChainLayout['nfs'][number]
      return old.version !== nf.definition.version || old.stateBytes === nf.stateBytes
    })
  } catch (error) {
    if (error instanceof CodedError) return false
    throw error
  }
}

const hashes = new WeakMap<ChainLayout, number>()

/** The hash by which a snapshot names its layout. */
export function layoutHash(layout: ChainLayout): number {
  let hash = hashes.get(layout)
  if (hash !== undefined) return hash
  const text = JSON.stringify(layout)
  hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hashes.set(layout, hash | 0)
  return hash | 0
}

/** Bytes that a snapshot is written to or read from, and the same as words: both begin at the same place, 4-aligned. */
interface SnapshotBytes {
  readonly u8: Uint8Array
  readonly i32: Int32Array
  readonly view: DataView
}

/**
 * A hash enough to tell a damaged or truncated snapshot. PERF: every step of a flow with a replica computes one; four lanes do not wait for
 * each other's multiplications.
 */
function checksum({ u8, i32 }: Pick<SnapshotBytes, 'u8' | 'i32'>, from: number, to: number): number {
  let a = 0x811c9dc5 | 0
  let b = 0x01000193
  let c = to - from
  let d = 0x27d4eb2f
  let word = from >> 2
  for (const end = word + (((to - from) >> 4) << 2); word < end; word += 4) {
    a = Math.imul(a ^ i32[word], 0x01000193)
    a ^= a >>> 15
    b = Math.imul(b ^ i32[word + 1], 0x01000193)
    b ^= b >>> 15
    c = Math.imul(c ^ i32[word + 2], 0x01000193)
    c ^= c >>> 15
    d = Math.imul(d ^ i32[word + 3], 0x01000193)
    d ^= d >>> 15
  }
  for (let at = word << 2; at < to; at++) a = Math.imul(a ^ u8[at], 0x01000193)
  const hash = Math.imul(a ^ (b << 16 | b >>> 16), 0x01000193) ^ Math.imul(c ^ (d << 16 | d >>> 16), 0x5bd1e995)
  return hash ^ (hash >>> 15)
}

/** PERF: who takes many snapshots may use one buffer for them: its views are made once. */
let lastBytes: SnapshotBytes | null = null

/** A snapshot of its own memory. */
function bytesOf(snapshot: Uint8Array): SnapshotBytes {
  if (lastBytes?.u8 === snapshot) return lastBytes
  const u8 = (snapshot.byteOffset & 3) === 0 ? snapshot : snapshot.slice()
  return lastBytes = {
    u8, i32: new Int32Array(u8.buffer, u8.byteOffset, u8.length >> 2), view: new DataView(u8.buffer, u8.byteOffset, u8.byteLength),
  }
}

const align4 = (n: number): number => (n + 3) & ~3
/** Descriptor words that are offsets into the frame's memory. */
const FRAME_OFFSETS = [Descriptor.network, Descriptor.transport, Descriptor.payload]

export interface SnapshotParts {
  readonly arena: Arena
  readonly extents: ExtentPool
  readonly pool: PacketPool
  readonly chain: Chain
  readonly fragments: FragmentTracker
  readonly aliases: FlowAliases
}

/** How long a snapshot of the flow at `record` would be now. */
export function snapshotBytes(parts: SnapshotParts, record: number): number {
  return measure(parts, record, datagramsOf(parts, record))
}

function measure({ arena: { i32 }, extents, chain }: SnapshotParts, record: number, datagrams: readonly number[]): number {
  let bytes = HEADER_BYTES + chain.recordBytes + datagrams.length * FRAGMENT_ENTRY_BYTES
  for (const field of extentWords(chain)) bytes += 4 + extents.chainBlocks(i32[(record + field) >> 2]) * extents.blockBytes
  for (let slot = i32[(record + FlowRecord.heldFirst) >> 2]; slot !== 0; slot = i32[(slot >> 2) + Descriptor.nextHeld]) {
    bytes += DESCRIPTOR_BYTES + align4(i32[(slot >> 2) + Descriptor.length])
  }
  return bytes
}

function datagramsOf({ arena: { i32 }, fragments, aliases }: SnapshotParts, record: number): readonly number[] {
  if (fragments.size === 0) return []
  const flipOf = aliases.size === 0 ? null : (key: number, hash: number): number => aliases.flipOf(record, key, hash)
  return fragments.datagramsOf(record >> 2, i32[(record + FlowRecord.hash) >> 2], flipOf)
}

/** The flow at `record` as bytes of their own. */
export function takeSnapshot(parts: SnapshotParts, hash: number, record: number, now: TimeUs): Uint8Array {
  const snapshot = new Uint8Array(snapshotBytes(parts, record))
  writeSnapshot(parts, hash, record, now, bytesOf(snapshot), 0)
  return snapshot
}

/** The same, written to a place with room for it, 8-aligned. An arena is such bytes. Hot where flows have replicas. */
export function writeSnapshot(parts: SnapshotParts, hash: number, record: number, now: TimeUs, target: SnapshotBytes, start: number): void {
  const { arena: { i32, u8, f64, u16 }, extents, chain, fragments } = parts
  const { u8: snapshot, i32: words, view } = target
  const fields = extentWords(chain)
  const held = u16[(record + FlowRecord.heldCount) >> 1]
  const datagrams = datagramsOf(parts, record)
  const bytes = measure(parts, record, datagrams)
  view.setUint32(start, MAGIC, true)
  view.setUint32(start + 4, bytes, true)
  view.setInt32(start + 12, hash, true)
  view.setFloat64(start + 16, now, true)
  view.setUint32(start + 24, chain.recordBytes, true)
  view.setUint16(start + 28, held, true)
  view.setUint16(start + 30, datagrams.length, true)
  let at = start + HEADER_BYTES
  for (let word = 0; word < chain.recordBytes >> 2; word++) words[(at >> 2) + word] = i32[(record >> 2) + word]
  for (const nf of chain.nfs) {
    if (nf.timerOffset === 0) continue
    const timer = f64[(record + nf.timerOffset) >> 3]
    if (timer !== 0) view.setFloat64(at + nf.timerOffset, Math.max(1, timer - now), true)
  }
  at += chain.recordBytes
  for (const field of fields) {
    const head = i32[(record + field) >> 2]
    view.setUint32(at, extents.chainBlocks(head), true)
    at += 4
    at += extents.exportChain(head, snapshot, at)
  }
  for (let slot = i32[(record + FlowRecord.heldFirst) >> 2]; slot !== 0; slot = i32[(slot >> 2) + Descriptor.nextHeld]) {
    const d = slot >> 2
    const frame = i32[d + Descriptor.frame]
    snapshot.set(u8.subarray(slot, slot + DESCRIPTOR_BYTES), at)
    // Offsets are sent relative to the frame.
    for (const word of FRAME_OFFSETS) {
      const offset = i32[d + word]
      view.setInt32(at + word * 4, offset === 0 ? -1 : offset - frame, true)
    }
    at += DESCRIPTOR_BYTES
    snapshot.set(u8.subarray(frame, frame + i32[d + Descriptor.length]), at)
    at += align4(i32[d + Descriptor.length])
  }
  for (const entry of datagrams) {
    fragments.exportEntry(entry, now, view, at)
    at += FRAGMENT_ENTRY_BYTES
  }
  view.setInt32(start + 8, checksum(target, start + 12, start + bytes), true)
}

const extentWordsOf = new WeakMap<Chain, readonly number[]>()

/** Offsets in a record of words that refer to extents. */
function extentWords(chain: Chain): readonly number[] {
  let words = extentWordsOf.get(chain)
  if (words === undefined) {
    words = chain.nfs.flatMap((nf) =>
      ((nf.definition.flowState as Struct<any> | undefined)?.extents ?? []).map((e) => nf.stateOffset + e.offset))
    extentWordsOf.set(chain, words)
  }
  return words
}

function damaged(what: string): never {
  throw new CodedError('NF_SNAPSHOT', `a flow snapshot ${what}`)
}

/** A snapshot whose size and checksum have been found right. */
export type CheckedSnapshot = SnapshotBytes

/** Checks a snapshot's size and checksum. @throws CodedError `NF_SNAPSHOT` */
export function checkSnapshot(snapshot: Uint8Array): CheckedSnapshot {
  if (snapshot.length < HEADER_BYTES) damaged('is cut short')
  const bytes = bytesOf(snapshot)
  const { view } = bytes
  if (view.getUint32(0, true) !== MAGIC) damaged('does not begin like one')
  if (view.getUint32(4, true) !== snapshot.length) damaged('has not the size that it names')
  if (view.getInt32(8, true) !== checksum(bytes, 12, snapshot.length)) damaged('fails its checksum')
  return bytes
}

/** The checksum that a snapshot must carry. */
export function snapshotChecksum(snapshot: Uint8Array): number {
  return checksum(bytesOf(snapshot), 12, snapshot.length)
}

/** Copies a snapshot's flow key to `words[at..]`. @throws CodedError `NF_SNAPSHOT` */
export function snapshotKey({ u8, i32 }: CheckedSnapshot, words: Int32Array, at: number): void {
  if (u8.length < HEADER_BYTES + KEY_WORDS * 4) damaged('is cut short')
  for (let i = 0; i < KEY_WORDS; i++) words[at + i] = i32[(HEADER_BYTES >> 2) + i]
}

/** The flow key, hash and idle timeout are in the record; the engine reads them from there after the install. */
export interface InstallResult {
  /** Packets held, in order, as slots with their descriptors in place. */
  readonly held: number[]
  /** Fragments of the flow's datagrams that came here before it, by datagram: lists of slots. */
  readonly early: number[]
}

/**
 * Installs a snapshot in an empty record block.
 *
 * @param flowHash hash of the flow's key here
 * @param from layout of the chain that the snapshot was taken from, if it is not this chain's
 * @param scratch arena offset of room for a state of an older version
 * @throws CodedError `NF_SNAPSHOT`, with nothing installed
 */
export function installSnapshot({ arena, extents, pool, chain, fragments }: SnapshotParts, own: number, checked: CheckedSnapshot,
    record: number, flowHash: number, now: TimeUs, from: ChainLayout | undefined, scratch: number): InstallResult {
  const { i32, u8, f64 } = arena
  const { u8: snapshot, i32: words, view } = checked
  const same = view.getInt32(12, true) === own
  if (!same && (from === undefined || layoutHash(from) !== view.getInt32(12, true))) {
    damaged('was taken from another chain')
  }
  const layout = same ? layoutOf(chain) : (from as ChainLayout)
  if (view.getUint32(24, true) !== layout.recordBytes) damaged('has not the record size of its chain')
  const delta = now - view.getFloat64(16, true)
  // Find every part first, so that nothing is installed from a snapshot that does not fit together.
  const chains: { nf: number; offset: number; blocks: number; at: number }[] = []
  let at = HEADER_BYTES + layout.recordBytes
  layout.nfs.forEach((nf, index) => {
    for (const offset of nf.extents) {
      if (at + 4 > snapshot.length) damaged('is cut short')
      const blocks = view.getUint32(at, true)
      at += 4
      chains.push({ nf: index, offset, blocks, at })
      at += blocks * extents.blockBytes
    }
  })
  const frames: { at: number; length: number }[] = []
  for (let i = view.getUint16(28, true); i > 0; i--) {
    if (at + DESCRIPTOR_BYTES > snapshot.length) damaged('is cut short')
    const length = view.getInt32(at + Descriptor.length * 4, true)
    if (length < 0 || length > FRAME_BYTES_MAX) damaged('has a held packet of an impossible length')
    frames.push({ at, length })
    at += DESCRIPTOR_BYTES + align4(length)
  }
  const datagrams = at
  at += view.getUint16(30, true) * FRAGMENT_ENTRY_BYTES
  if (at !== snapshot.length) damaged('has parts that do not add up')
  const upgrades = same ? [] : planUpgrades(chain, layout)
  const wanted = chains.reduce((sum, c) => sum + (same || upgrades[c.nf] === undefined ? c.blocks : 0), 0)
  if (wanted > extents.available) throw new CodedError('NF_LIMIT', 'no room for the extents of a flow that moves in')
  const held: number[] = []
  for (const { length } of frames) {
    const slot = pool.take(length)
    if (slot === 0) {
      for (const taken of held) pool.give(taken)
      throw new CodedError('NF_LIMIT', 'no room for the held packets of a flow that moves in')
    }
    held.push(slot)
  }

  const recordWords = (same ? chain.recordBytes : FlowRecord.state) >> 2
  for (let word = 0; word < recordWords; word++) i32[(record >> 2) + word] = words[(HEADER_BYTES >> 2) + word]
  if (!same) u8.fill(0, record + FlowRecord.state, record + chain.recordBytes)
  chain.nfs.forEach((nf, index) => {
    const old = layout.nfs[index] as ChainLayout['nfs'][number]
    const bytes = same ? snapshot : snapshot.subarray(HEADER_BYTES + old.stateOffset, HEADER_BYTES + old.stateOffset + old.stateBytes)
    if (nf.timerOffset !== 0 && old.timerOffset !== 0) {
      const left = view.getFloat64(HEADER_BYTES + old.timerOffset, true)
      f64[(record + nf.timerOffset) >> 3] = left === 0 ? 0 : now + left
    }
    const upgrade = upgrades[index]
    if (upgrade === undefined) {
      if (!same) u8.set(bytes, record + nf.stateOffset)
      for (const offset of old.extents) i32[(record + nf.stateOffset + offset) >> 2] = 0
      for (const offset of old.times) moveTime(f64, record + nf.stateOffset + offset, delta)
    } else {
      u8.set(bytes, scratch)
      for (const offset of old.extents) i32[(scratch + offset) >> 2] = 0
      for (const offset of old.times) moveTime(f64, scratch + offset, delta)
      upgrade(nf, record + nf.stateOffset, scratch, { arena, extents })
    }
  })
  for (const { nf, offset, blocks, at: place } of chains) {
    if (upgrades[nf] !== undefined) continue
    i32[(record + (chain.nfs[nf] as ChainNf).stateOffset + offset) >> 2] = extents.importChain(snapshot, place, blocks)
  }
  moveTime(f64, record + FlowRecord.firstSeen, delta)
  moveTime(f64, record + FlowRecord.lastSeen, delta)
  i32[(record + FlowRecord.heldFirst) >> 2] = held[0] ?? 0
  i32[(record + FlowRecord.heldLast) >> 2] = held.at(-1) ?? 0
  frames.forEach(({ at: place, length }, index) => {
    const slot = held[index] as number
    const d = slot >> 2
    for (let word = 0; word < DESCRIPTOR_WORDS; word++) i32[d + word] = view.getInt32(place + word * 4, true)
    const frame = slot + SLOT_FRAME_OFFSET
    u8.set(snapshot.subarray(place + DESCRIPTOR_BYTES, place + DESCRIPTOR_BYTES + length), frame)
    i32[d + Descriptor.frame] = frame
    i32[d + Descriptor.slot] = slot
    i32[d + Descriptor.record] = record
    i32[d + Descriptor.nextHeld] = held[index + 1] ?? 0
    for (const word of FRAME_OFFSETS) i32[d + word] = i32[d + word] < 0 ? 0 : i32[d + word] + frame
  })
  const early: number[] = []
  for (let place = datagrams; place < at; place += FRAGMENT_ENTRY_BYTES) {
    const waiting = fragments.importEntry(view, place, now, flowHash)
    if (waiting !== 0) early.push(waiting)
  }
  return { held, early }
}

/**
 * Lays the record of a snapshot of this chain's layout, and its extents, where they can be read, and takes them away again. No flow of it is
 * here: times and timers are as they came, held packets are left out, and extents for which there is no room read as absent.
 *
 * @param block an empty record block
 * @throws CodedError `NF_SNAPSHOT` for what is damaged or another chain's
 */
export function readSnapshot<T>({ arena: { i32, u8 }, extents, chain }: Pick<SnapshotParts, 'arena' | 'extents' | 'chain'>, own: number,
    snapshot: Uint8Array, block: number, read: (record: number) => T): T {
  const { view } = checkSnapshot(snapshot)
  if (view.getInt32(12, true) !== own) damaged('was taken from another chain')
  u8.set(snapshot.subarray(HEADER_BYTES, HEADER_BYTES + chain.recordBytes), block)
  let at = HEADER_BYTES + chain.recordBytes
  const heads: number[] = []
  for (const field of extentWords(chain)) {
    const blocks = view.getUint32(at, true)
    const head = blocks > extents.available ? 0 : extents.importChain(snapshot, at + 4, blocks)
    heads.push(head)
    i32[(block + field) >> 2] = head
    at += 4 + blocks * extents.blockBytes
  }
  try {
    return read(block)
  } finally {
    for (const head of heads) extents.giveChain(head)
  }
}

function moveTime(f64: Float64Array, offset: number, delta: number): void {
  if (f64[offset >> 3] !== 0) f64[offset >> 3] += delta
}

type UpgradeStep = (nf: ChainNf, state: number, old: number, binding: { arena: Arena; extents: ExtentPool }) => void

/** For each NF whose version differs, how to make its state; throws if a difference cannot be bridged. */
function planUpgrades(chain: Chain, layout: ChainLayout): (UpgradeStep | undefined)[] {
  if (chain.nfs.length !== layout.nfs.length) damaged('was taken from another chain')
  return chain.nfs.map((nf, index) => {
    const old = layout.nfs[index] as ChainLayout['nfs'][number]
    if (old.name !== nf.name) damaged('was taken from another chain')
    const fingerprint = nf.definition.flowState?.fingerprint ?? '{}'
    if (old.version === nf.definition.version && old.fingerprint === fingerprint) return undefined
    const found = nf.definition.upgrades?.find((u: { from: number; flowState: Struct<any> }) =>
      u.from === old.version && u.flowState.fingerprint === old.fingerprint)
    if (found === undefined) {
      damaged(`has ${old.name} in version ${old.version}, and version ${nf.definition.version} brings no upgrade from it`)
    }
    return (own, state, scratch, binding) => {
      const before = found.flowState.bind(binding) as StructView
      before.o = scratch
      own.state.o = state
      found.upgrade(before as never, own.state)
    }
  })
}
