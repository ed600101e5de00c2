/**
 * Builds what `RuleSet.match` reads: the bit vectors of one address family's rules, their blocks, and the tries and
 * interval tables that lead to them (see `rule-set.ts` for the layout).
 *
 * A sweep along each dimension adds a rule's bit where one of its entries starts and removes it behind the entry's end;
 * between two such points all values have the same row. From one row to the next only the blocks with a changed bit are
 * new, and all parts are interned (stored once), so that a dimension takes at most one block of 32 words and one row of
 * count / 512 words per start or end, however the rules overlap.
 *
 * An IPv6 address is swept word by word: prefixes that end within the word are intervals, longer ones with the same
 * word form the next word's table, built while the bits of the shorter prefixes around it are set.
 */

import { CodedError } from '../../base/coded-error.ts'
import {
  portProtocols, prefixCovers, prefixWord, protocolHasPorts, ruleHasFamily,
  type AddressPrefix, type NumberRange, type Rule,
} from './rule.ts'
import { prefixMask } from '../../wire/address-text.ts'

/** Up to here rows are plain words; measured: blocks pay from a few words on. */
const FLAT_RULES_MAX = 128

/** Up to here addresses are looked up in tries, 0.5-4 KiB per entry for IPv4 and up to 16 for IPv6. */
const TRIE_PREFIXES_MAX = { 4: 2048, 6: 256 } as const

const BLOCK_WORDS = 32
const PAGE_WORDS = 256
const BUCKET_BITS_MAX = 14
/** The bit of a word's first rule. */
const FIRST_BIT = 0x80000000 | 0
const INT32_MAX = 0x7fffffff
const UINT32_MAX = 0xffffffff

/** A dimension in which a rule covers more than this share of the values named counts as not constrained at all. */
const WIDE_SHARE = 0.1

/** Offsets and sizes of one family's part. */
export interface FamilyParts {
  readonly source: number
  readonly destination: number
  readonly sourcePort: number
  readonly destinationPort: number
  /** 2 x 256 tries over VLAN + 1, by direction and protocol. */
  readonly protocol: number
  /** Whether the addresses have tries rather than interval tables. */
  readonly addressTries: boolean
  readonly rowWords: number
  /** Blocks in a row, 0 if rows are plain words. */
  readonly blocks: number
  /** Per block and per word: the lowest rule index in it. */
  readonly blockFirst: number
  readonly wordFirst: number
  /** Per bit: the rule's index. */
  readonly ruleOfBit: number
}

/** Values `low..high` (unsigned 32-bit) in which a bit is set; `longer` if the prefix goes on in the next word. */
interface Entry {
  readonly bit: number
  readonly low: number
  readonly high: number
  readonly longer: AddressPrefix | null
}

/** Intervals that cover all unsigned 32-bit values: the last value of each, and its row or next table. */
interface Intervals {
  readonly ends: readonly number[]
  readonly entries: readonly number[]
}

interface PlacedPrefix {
  readonly bit: number
  readonly prefix: AddressPrefix
}

/**
 * Appends the part of the rules that can match one address family.
 *
 * @throws CodedError `NF_LIMIT` if the store is full
 */
export function buildFamily(store: WordStore, rules: readonly Rule[], version: 4 | 6): FamilyParts {
  const indexes: number[] = []
  for (let index = 0; index < rules.length; index++) if (ruleHasFamily(rules[index], version)) indexes.push(index)
  const flat = indexes.length <= FLAT_RULES_MAX
  const places = flat ? indexes : clusterRules(rules, indexes, version)
  const rowWords = Math.ceil(places.length / 32)
  const blocks = flat ? 0 : rowWords / BLOCK_WORDS
  const rows = new RowWriter(store, rowWords, blocks)
  const byBit = places.map((index) => index === INT32_MAX ? null : rules[index])

  const sources = placedPrefixes(byBit, (rule) => rule.sources, version)
  const destinations = placedPrefixes(byBit, (rule) => rule.destinations, version)
  const addressTries = Math.max(sources.some.length, destinations.some.length) <= TRIE_PREFIXES_MAX[version]
  const wordFirst = Array.from({ length: rowWords }, (_, word) => places[word * 32])
  return {
    source: appendAddresses(store, rows, sources, addressTries),
    destination: appendAddresses(store, rows, destinations, addressTries),
    sourcePort: appendNumbers(store, rows, byBit, (rule) => rule.sourcePorts),
    destinationPort: appendNumbers(store, rows, byBit, (rule) => rule.destinationPorts),
    protocol: appendProtocols(store, rows, byBit),
    addressTries,
    rowWords,
    blocks,
    blockFirst: store.append(Array.from({ length: blocks }, (_, block) => wordFirst[block * BLOCK_WORDS])),
    wordFirst: store.append(wordFirst),
    ruleOfBit: store.append(places),
  }
}

/** Growing words, in which equal runs can be stored once. */
export class WordStore {
  #words = new Int32Array(1 << 12)
  #length = 0
  readonly #bytesMax: number
  readonly #offsetOfHash = new Map<number, number>()

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** Appends a run and returns its offset. */
  append(run: ArrayLike<number>): number {
    this.#reserve(run.length)
    const offset = this.#length
    this.#words.set(run, offset)
    this.#length += run.length
    return offset
  }

  /** Offset of a run with this content, which nobody may change: an earlier one, or appended. */
  intern(run: Int32Array): number {
    const words = this.#words
    let hash = run.length
    for (let i = 0; i < run.length; i++) hash = Math.imul((hash ^ run[i]) + (hash >>> 15), 0x9e3779b1)
    for (; ; hash = (hash + 1) | 0) {
      const offset = this.#offsetOfHash.get(hash)
      if (offset === undefined) break
      let i = 0
      while (i < run.length && words[offset + i] === run[i]) i++
      if (i === run.length && offset + i <= this.#length) return offset
    }
    this.#offsetOfHash.set(hash, this.#length)
    return this.append(run)
  }

  /**
   * Appends a trie of `levels` pages, eight bits each from the top of the value, and returns its root. The last page's
   * entries are those of `intervals`, the other pages' entries are pages.
   */
  appendTrie(intervals: Intervals, levels: number): number {
    const { ends, entries } = intervals
    const appendPage = (start: number, first: number, shift: number): number => {
      const page = new Int32Array(PAGE_WORDS)
      const span = 2 ** shift
      let i = start
      let uniformOf = -1
      for (let k = 0; k < PAGE_WORDS; k++) {
        const low = first + k * span
        while (ends[i] < low) i++
        const uniform = ends[i] >= low + span - 1
        if (shift === 32 - levels * 8) page[k] = entries[i]
        else if (uniform && uniformOf === i) page[k] = page[k - 1]
        else page[k] = appendPage(i, low, shift - 8)
        uniformOf = uniform ? i : -1
      }
      return this.intern(page)
    }
    return appendPage(0, 0, 24)
  }

  /**
   * Appends a table of intervals and returns its offset: a shift that takes a value to its bucket, the distance from an
   * end to its entry, per bucket where the first end not below it stands, the ends in signed order with three more
   * behind them so that four may be compared at once, and the entries.
   *
   *     | shift | distance | buckets + 1 | ends + 3 | entries |
   */
  appendIntervals(intervals: Intervals): number {
    const { ends, entries } = intervals
    const count = ends.length
    let bits = 1
    while (bits < BUCKET_BITS_MAX && 1 << bits < count) bits++
    const buckets = 1 << bits
    const endsAt = 2 + buckets + 1
    const entriesAt = endsAt + count + 3
    const table = new Int32Array(entriesAt + count)
    table[0] = 32 - bits
    table[1] = entriesAt - endsAt
    let i = 0
    for (let bucket = 0; bucket <= buckets; bucket++) {
      while (i < count - 1 && ends[i] < bucket * 2 ** (32 - bits)) i++
      table[2 + bucket] = this.#length + endsAt + i
    }
    table.fill(INT32_MAX, endsAt + count, entriesAt)
    for (let k = 0; k < count; k++) {
      table[endsAt + k] = ends[k] ^ FIRST_BIT
      table[entriesAt + k] = entries[k]
    }
    return this.append(table)
  }

  finish(): Int32Array {
    return this.#words.slice(0, this.#length)
  }

  #reserve(count: number): void {
    const needed = this.#length + count
    if (needed <= this.#words.length) return
    if (needed * 4 > this.#bytesMax) {
      throw new CodedError('NF_LIMIT', `the rules need more than ${this.#bytesMax >>> 20} MiB`,
        'Use fewer rules, or shorter lists in them')
    }
    const larger = new Int32Array(Math.max(needed, this.#words.length * 2))
    larger.set(this.#words.subarray(0, this.#length))
    this.#words = larger
  }
}

/** The bits as they are at the sweep's present point, and the way from them to a stored row. */
class RowWriter {
  readonly #store: WordStore
  readonly #bits: Int32Array
  /** A row as last stored: a summary per block, then the blocks' offsets. */
  readonly #row: Int32Array
  /** Blocks with a bit changed since then. */
  readonly #changed: Uint8Array

  constructor(store: WordStore, rowWords: number, blocks: number) {
    this.#store = store
    this.#bits = new Int32Array(rowWords)
    this.#row = new Int32Array(blocks * 2)
    this.#changed = new Uint8Array(Math.max(1, Math.ceil(rowWords / BLOCK_WORDS))).fill(1)
  }

  flip(bit: number): void {
    this.#bits[bit >> 5] ^= FIRST_BIT >>> (bit & 31)
    this.#changed[bit >> 10] = 1
  }

  /** Offset of the row with the present bits. */
  row(): number {
    const blocks = this.#row.length / 2
    if (blocks === 0) return this.#store.intern(this.#bits)
    for (let b = 0; b < blocks; b++) {
      if (this.#changed[b] === 0) continue
      this.#changed[b] = 0
      const block = this.#bits.subarray(b * BLOCK_WORDS, (b + 1) * BLOCK_WORDS)
      let summary = 0
      for (let w = 0; w < BLOCK_WORDS; w++) if (block[w] !== 0) summary |= FIRST_BIT >>> w
      this.#row[b] = summary
      this.#row[blocks + b] = this.#store.intern(block)
    }
    return this.#store.intern(this.#row)
  }
}

/** Walks along one dimension; `descend` makes the next word's table of the prefixes that go on. */
function sweep(rows: RowWriter, entries: readonly Entry[], descend: (longer: PlacedPrefix[]) => number): Intervals {
  const byLow = [...entries].sort((a, b) => a.low - b.low)
  const byHigh = entries.filter((entry) => entry.longer === null).sort((a, b) => a.high - b.high)
  const points = [0]
  for (const { low, high } of entries) points.push(low, high + 1)
  points.sort((a, b) => a - b)
  const found = { ends: [] as number[], entries: [] as number[] }
  let nextLow = 0
  let nextHigh = 0
  for (let i = 0; i < points.length; i++) {
    const point = points[i]
    if (point === points[i + 1] || point > UINT32_MAX) continue
    while (nextHigh < byHigh.length && byHigh[nextHigh].high < point) rows.flip(byHigh[nextHigh++].bit)
    const longer: PlacedPrefix[] = []
    for (; nextLow < byLow.length && byLow[nextLow].low === point; nextLow++) {
      const entry = byLow[nextLow]
      if (entry.longer === null) rows.flip(entry.bit)
      else longer.push({ bit: entry.bit, prefix: entry.longer })
    }
    const value = longer.length === 0 ? rows.row() : descend(longer)
    const last = found.entries.length - 1
    if (last >= 0 && found.entries[last] === value) found.ends.pop()
    else found.entries.push(value)
    found.ends.push(Math.min((points[i + 1] ?? Infinity) - 1, UINT32_MAX))
  }
  for (; nextHigh < byHigh.length; nextHigh++) rows.flip(byHigh[nextHigh].bit)
  return found
}

/** The bits of the rules that name no address, and the prefixes of the others. */
interface PlacedPrefixes {
  readonly all: readonly number[]
  readonly some: PlacedPrefix[]
}

function placedPrefixes(
  byBit: ReadonlyArray<Rule | null>, listOf: (rule: Rule) => readonly AddressPrefix[] | null, version: 4 | 6,
): PlacedPrefixes {
  const all: number[] = []
  const some: PlacedPrefix[] = []
  byBit.forEach((rule, bit) => {
    if (rule === null) return
    const list = listOf(rule)?.filter((prefix) => prefix.version === version) ?? null
    if (list === null) all.push(bit)
    else for (const prefix of withoutCovered(list)) some.push({ bit, prefix })
  })
  return { all, some }
}

/** The prefixes that lie in no other one of the list: a bit must not be flipped twice. */
function withoutCovered(list: readonly AddressPrefix[]): AddressPrefix[] {
  const kept: AddressPrefix[] = []
  const inAddressOrder = [...list].sort((a, b) =>
    (a.word0 >>> 0) - (b.word0 >>> 0) || (a.word1 >>> 0) - (b.word1 >>> 0) || (a.word2 >>> 0) - (b.word2 >>> 0) ||
    (a.word3 >>> 0) - (b.word3 >>> 0) || a.length - b.length)
  for (const prefix of inAddressOrder) {
    const last = kept[kept.length - 1]
    if (last === undefined || !prefixCovers(last, prefix)) kept.push(prefix)
  }
  return kept
}

function appendAddresses(store: WordStore, rows: RowWriter, { all, some }: PlacedPrefixes, tries: boolean): number {
  const appendWord = (prefixes: readonly PlacedPrefix[], level: number): number => {
    const entries = prefixes.map(({ bit, prefix }): Entry => {
      const low = prefixWord(prefix, level) >>> 0
      if (prefix.length > (level + 1) * 32) return { bit, low, high: low, longer: prefix }
      return { bit, low, high: (low | ~prefixMask(prefix.length, level)) >>> 0, longer: null }
    })
    const intervals = sweep(rows, entries, (longer) => ~appendWord(longer, level + 1))
    return tries ? store.appendTrie(intervals, 4) : store.appendIntervals(intervals)
  }
  for (const bit of all) rows.flip(bit)
  const root = appendWord(some, 0)
  for (const bit of all) rows.flip(bit)
  return root
}

/** A trie of two pages over 16-bit numbers; `bias` is added to them. */
function appendNumbers(
  store: WordStore, rows: RowWriter, byBit: ReadonlyArray<Rule | null>,
  listOf: (rule: Rule) => readonly NumberRange[] | null, bias = 0,
): number {
  const all: number[] = []
  const entries: Entry[] = []
  byBit.forEach((rule, bit) => {
    if (rule === null) return
    const list = listOf(rule)
    if (list === null) all.push(bit)
    for (const { low, high } of mergeRanges(list ?? [])) {
      entries.push({ bit, low: (low + bias) * 65_536, high: (high + bias + 1) * 65_536 - 1, longer: null })
    }
  })
  for (const bit of all) rows.flip(bit)
  const intervals = sweep(rows, entries, () => 0)
  for (const bit of all) rows.flip(bit)
  return store.appendTrie(intervals, 2)
}

/** Disjoint ranges: a bit must not be flipped twice. */
function mergeRanges(list: readonly NumberRange[]): NumberRange[] {
  const merged: NumberRange[] = []
  for (const range of [...list].sort((a, b) => a.low - b.low)) {
    const last = merged[merged.length - 1]
    if (last === undefined || range.low > last.high) merged.push(range)
    else merged[merged.length - 1] = { low: last.low, high: Math.max(last.high, range.high) }
  }
  return merged
}

/** 2 x 256 VLAN tries by direction and protocol. A rule that names ports is in none of a protocol without ports. */
function appendProtocols(store: WordStore, rows: RowWriter, byBit: ReadonlyArray<Rule | null>): number {
  const tries = new Int32Array(512)
  for (let direction = 0; direction < 2; direction++) {
    const inDirection = byBit.map((rule) =>
      rule === null || (rule.direction !== null && rule.direction !== direction) ? null : rule)
    const named = new Set(inDirection.flatMap((rule) => rule?.protocols ?? []))
    for (const protocol of portProtocols) named.add(protocol)
    let unnamed = 0
    for (let protocol = 0; protocol < 256; protocol++) {
      if (named.has(protocol) || unnamed === 0) {
        const hasPorts = protocolHasPorts(protocol)
        const inProtocol = inDirection.map((rule) => rule !== null &&
          (rule.protocols === null || rule.protocols.includes(protocol)) &&
          (hasPorts || (rule.sourcePorts === null && rule.destinationPorts === null)) ? rule : null)
        tries[direction * 256 + protocol] = appendNumbers(store, rows, inProtocol, (rule) => rule.vlans, 1)
        if (!named.has(protocol)) unnamed = tries[direction * 256 + protocol]
      } else tries[direction * 256 + protocol] = unnamed
    }
  }
  return store.append(tries)
}

/**
 * The rules in the order of their bits, filled up to whole blocks with INT32_MAX.
 *
 * A word costs a search step when in every dimension some of its 32 rules covers the packet. So each rule goes with
 * those that are narrow in the same dimension, sorted by their place there, then in the other dimensions. What shares a
 * word stands in rule order, and so do the words in their block, and the blocks.
 */
function clusterRules(rules: readonly Rule[], indexes: readonly number[], version: 4 | 6): number[] {
  const own = indexes.map((index) => rules[index])
  const dimensions = [
    placesOf(own.map((rule) => addressSpans(rule.sources, version))),
    placesOf(own.map((rule) => addressSpans(rule.destinations, version))),
    placesOf(own.map((rule) => rule.destinationPorts)),
    placesOf(own.map((rule) => rule.sourcePorts)),
    placesOf(own.map((rule) => rule.vlans)),
    placesOf(own.map(({ protocols }) => protocols?.map((one) => ({ low: one, high: one })) ?? null)),
  ]
  const keyed = indexes.map((index, k) => {
    let narrowest = 0
    dimensions.forEach(({ share }, at) => {
      if (share[k] < dimensions[narrowest].share[k]) narrowest = at
    })
    const key = [narrowest, dimensions[narrowest].place[k]]
    for (const { place } of dimensions) key.push(place[k])
    return { index, key }
  })
  keyed.sort((a, b) => {
    const at = a.key.findIndex((value, i) => value !== b.key[i])
    return at < 0 ? a.index - b.index : a.key[at] - b.key[at]
  })
  const words: number[][] = []
  for (let i = 0; i < keyed.length || words.length % BLOCK_WORDS !== 0; i += 32) {
    const word = keyed.slice(i, i + 32).map(({ index }) => index).sort((a, b) => a - b)
    while (word.length < 32) word.push(INT32_MAX)
    words.push(word)
  }
  const blocks: number[][][] = []
  for (let i = 0; i < words.length; i += BLOCK_WORDS) {
    blocks.push(words.slice(i, i + BLOCK_WORDS).sort((a, b) => a[0] - b[0]))
  }
  return blocks.sort((a, b) => a[0][0] - b[0][0]).flat(2)
}

/** Per rule, in one dimension: which share of the values named it covers, and where its first entry lies among them. */
interface Places {
  readonly share: Float64Array
  readonly place: Float64Array
}

interface Span<T> {
  readonly low: T
  readonly high: T
}

function placesOf<T extends number | string>(lists: ReadonlyArray<ReadonlyArray<Span<T>> | null>): Places {
  const named = [...new Set(lists.flatMap((list) => list?.map(({ low }) => low) ?? []))]
  named.sort((a, b) => a < b ? -1 : a > b ? 1 : 0)
  const countBelow = (value: T, orAt: boolean): number => {
    let i = 0
    for (let n = named.length; n > 0;) {
      const half = n >>> 1
      if (named[i + half] < value || (orAt && named[i + half] === value)) {
        i += half + 1
        n -= half + 1
      } else n = half
    }
    return i
  }
  const share = new Float64Array(lists.length).fill(1)
  const place = new Float64Array(lists.length).fill(Infinity)
  lists.forEach((list, k) => {
    if (list === null) return
    let covered = 0
    for (const { low, high } of list) covered += countBelow(high, true) - countBelow(low, false)
    share[k] = covered / named.length
    if (share[k] <= WIDE_SHARE) place[k] = countBelow(list[0].low, false)
  })
  return { share, place }
}

/** Addresses as text of one length, so that they compare as numbers would. */
function addressSpans(list: readonly AddressPrefix[] | null, version: 4 | 6): Array<Span<string>> | null {
  if (list === null) return null
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0')
  return list.filter((prefix) => prefix.version === version).map((prefix) => {
    let low = ''
    let high = ''
    for (let level = 0; level < 4; level++) {
      low += hex(prefixWord(prefix, level))
      high += hex(prefixWord(prefix, level) | ~prefixMask(prefix.length, level))
    }
    return { low, high }
  })
}
