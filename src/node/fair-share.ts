/**
 * Fair share: who loses packets while a runtime gets more of them than it takes. A full link refuses whatever comes next, and a flow that
 * sends ten times as much as the others takes ten times as much of the room, until those stand still. So while a link fills up, flows that
 * send more than an equal share of what the runtime takes are thinned out evenly to that share, and the others lose nothing: max-min
 * fairness by approximate fair dropping (Pan, Breslau, Prabhakar, Shenker 2003). No flow is thinned out while less is in the link than the
 * runtime takes in 60 ms, at most half of the link, so that nothing is lost that the runtime could have had; nor much longer than that does
 * a packet wait, for a long queue makes all flows slow and TCP send again what is on its way.
 *
 *     window of 20 ms:   count packets of each flow ─▶ share: so much of each that all together are what has left the link meanwhile
 *     the next one:      a flow that sent four shares has every fourth packet sent on
 *
 *     room of a link     ├────────────────────┼─────────────────────┼──────────────────────────────────┼───────────┤
 *     may wait                     all          those within shares    not who is far above the mean      not who is above it
 *                                           target               twice that                           last eighth
 *
 * Flows are counted in two tables of buckets by their hash, and are taken for what the lesser of their two counts says (a count-min sketch;
 * Cormode, Muthukrishnan 2005): one that shares a bucket with a flood is none, unless it does so in both. A runtime that takes next to nothing
 * stands still or is dead, which says nothing of shares: they stay as they are, and the window goes on until it takes something. What one flow
 * sends in a moment in which the runtime, or this switch, waits for its core is no reason for others to lose theirs, or to wait: beyond twice
 * the target flows are refused that have sent far more than the mean in this window. Before the first share is known that mark is an eighth of
 * the link where next to nothing has left in a window: a runtime that has just started may need a second to become as fast as others.
 * What is counted is room: a long frame takes as many buffers of a link as pieces of it would.
 *
 * A runtime that gives slots back late (docs/protocol.md, taking back) has most of a link in use while it takes everything, and gives them back
 * early beyond three quarters: there only the last eighth says that it takes too little.
 */

import type { TimeUs } from '../base/clock.ts'

const BUCKET_BITS = 11
const BUCKETS = 1 << BUCKET_BITS
const WINDOW_US = 20_000
/** What stands for the whole of a flow's packets. */
const ALL = 1 << 14
const COUNT_MAX = 0xffff
/** More than so much of a link is taken, or more waits than should: then a little less than what leaves is let in. */
const FULL = 0.75
const RELIEF = 0.9
/** So much of what a runtime takes may wait in its link, and so many packets at least. */
const WAIT_US = 60_000
const WAITING_MIN = 256
/** With so many times as much only half of what leaves is let in. */
const LONG = 2
const DRAIN = 0.5
/** What may wait becomes less by so much in a window: a runtime that has waited for its core once takes the rest in a moment. */
const TIGHTEN = 0.9
/** By more where so many times as much comes as leaves, but not to less than it takes in 100 ms. */
const FLOODED = 4
const TIGHTEN_FLOODED = 0.5
/** No more may wait than it has taken in so long on average, once the link has been filling for so long. */
const WAIT_LONG_US = 100_000
const KNOWN_US = 500_000
/** Where next to nothing has left in the first window no more of a link is for who is far above the mean. */
const TIGHT_FIRST = 0.125
/** Who has sent more than so many times the mean is far above it. */
const FAR_ABOVE = 2
const FLOWS_FEW = 3
/** What a runtime takes is averaged over about so long. */
const RATE_US = 1_000_000
const MEASURE_US = 50_000
/** No more of a link than this may wait, whatever the runtime takes; where slots are given back late this alone counts. */
const TIGHT = 0.5
const TIGHT_LATE = 0.875
/** The part of a link that is kept for flows that have sent less than the mean; half of what is left when it is tight, where slots come late. */
const KEPT = 0.125
const KEPT_LATE = 0.0625
/** Fewer packets that have left say nothing of what a runtime takes, which gets a core for a moment now and then; of a short link a part. */
const LEFT_MIN = 128
const LEFT_MIN_SHORT = 16
const LEFT_PART = 0.125
/** So many packets of a flow may come at once, in a window, whatever others send. */
const BURST = 4
const STEPS_MAX = 16

/** What is read of a link. */
interface FillingLink {
  /** Data frames that it would take now. */
  readonly room: number
  /** Nobody is at its other end, or says so. */
  readonly isWaiting: boolean
  /** How much of `room` a frame takes. */
  roomOf(length: number): number
}

interface SharedLink {
  readonly runtime: number
  readonly link: FillingLink
  readonly fair: FairShare
  readonly givesBackLate: (() => boolean) | undefined
}

/** The links of a switch, by the runtime behind each. */
export class FairShares {
  readonly #links: SharedLink[] = []
  /** Null while there is room. PERF: looked up per packet. */
  readonly #filling = new Array<FairShare | null>(256).fill(null)
  readonly #linkOf = new Array<FillingLink | null>(256).fill(null)
  /** The room that has been taken at each so far. */
  readonly #sent = new Float64Array(256)

  attach(runtime: number, link: FillingLink, givesBackLate?: () => boolean): void {
    this.#links.push({ runtime, link, fair: new FairShare(), givesBackLate })
    this.#linkOf[runtime] = link
  }

  /** Once in a turn. */
  turn(now: TimeUs): void {
    for (let i = 0; i < this.#links.length; i++) {
      const { runtime, link, fair, givesBackLate } = this.#links[i] as SharedLink
      // Where nobody is, packets wait, or are dropped: who sends more than others is for the next one to say.
      if (link.isWaiting) fair.end()
      else fair.turn(now, link.room, givesBackLate?.() === true, this.#sent[runtime])
      this.#filling[runtime] = fair.isCounting ? fair : null
    }
  }

  /** True if a packet of so many bytes, of a flow with that hash, may be sent to a runtime. Hot. */
  admits(runtime: number, hash: number, length: number): boolean {
    const room = (this.#linkOf[runtime] as FillingLink).roomOf(length)
    const fair = this.#filling[runtime]
    if (fair !== null && !fair.admits(hash, room)) return false
    this.#sent[runtime] += room
    return true
  }

  /** The link had no room for a packet after all. */
  refused(runtime: number, length: number): void {
    const room = this.#linkOf[runtime]?.roomOf(length) ?? 0
    this.#sent[runtime] -= room
    this.#filling[runtime]?.refused(room)
  }
}

export class FairShare {
  /** True since {@link WAITING_MIN} have waited, or the link was tight, until there are few. */
  #isCounting = false
  #capacity = 0
  /** As many packets may wait without anything being thinned out. */
  #target = 0
  #taken = 0
  #takenBefore = 0
  #entered = 0
  /** What the link has room for, and how little of that is kept for flows that have sent less than others. */
  #room = 0
  #kept = 0
  /** With less room than this it is tight, and much too tight: then who has sent far more than the mean is refused, known or not. */
  #tightRoom = 0
  #longRoom = 0
  /** Room that what was shown in this window takes, admitted or not, and how many buckets it is of. */
  #shown = 0
  #flows = 0
  #openedAt: TimeUs = 0
  /** No share has been found since it began to fill; and, of those, next to nothing has left in a whole window. */
  #isUnknown = false
  #isIdle = false
  #countingSince: TimeUs = 0
  /** What has lately left, room per microsecond; and what had left when that was looked at last. */
  #rate = 0
  #rateLeft = 0
  #ratedAt: TimeUs = 0
  #windowEnd: TimeUs = 0
  /** Two tables, one behind the other. */
  readonly #counts = new Uint16Array(2 * BUCKETS)
  /** Of `ALL` packets of a bucket so many go on, and what is left over of them so far. */
  readonly #shares = new Uint16Array(2 * BUCKETS).fill(ALL)
  readonly #left = new Uint16Array(BUCKETS)

  /** Once in a turn, with the room of the link, and what room all that was sent so far has taken; 0 where that is not counted. */
  turn(now: TimeUs, room: number, givesBackLate = false, sent = 0): void {
    if (room > this.#capacity) this.#capacity = room
    this.#taken = this.#capacity - room
    this.#room = room
    this.#kept = (givesBackLate ? KEPT_LATE : KEPT) * this.#capacity
    if (sent > 0 && now - this.#ratedAt >= MEASURE_US) this.#measure(now, sent)
    const most = (givesBackLate ? TIGHT_LATE : TIGHT) * this.#capacity
    if (givesBackLate || !this.#isCounting || this.#target > most) this.#target = most
    this.#tightRoom = this.#capacity - this.#target
    this.#longRoom = this.#capacity - (this.#isIdle ? Math.max(WAITING_MIN, TIGHT_FIRST * this.#capacity) : LONG * this.#target)
    if (!this.#isCounting) {
      this.#isCounting = this.#taken > (givesBackLate ? most : Math.min(WAITING_MIN, most))
      this.#isUnknown = this.#isCounting && !givesBackLate
      this.#countingSince = now
      if (this.#isCounting) this.#open(now)
    } else if (now >= this.#windowEnd) {
      if (this.#taken * 2 > this.#target) this.#next(now, givesBackLate)
      else this.end()
    }
  }

  /** True while so many wait that packets of flows that send more than their share are refused. */
  get isTight(): boolean {
    return this.#room < this.#tightRoom
  }

  /** True while packets are to be shown to `admits`. */
  get isCounting(): boolean {
    return this.#isCounting
  }

  /** A packet of a flow with that hash is to be sent, which takes so much room: true if it may be. Hot while the link is full. */
  admits(hash: number, room = 1): boolean {
    const bucket = hash & (BUCKETS - 1)
    const other = BUCKETS + (Math.imul(hash, 0x9e3779b1) >>> (32 - BUCKET_BITS))
    const countHere = this.#counts[bucket]
    const count = room + Math.min(countHere, this.#counts[other])
    if (count <= COUNT_MAX) {
      this.#counts[bucket] = Math.min(COUNT_MAX, countHere + room)
      this.#counts[other] = Math.min(COUNT_MAX, this.#counts[other] + room)
      this.#shown += room
      if (countHere === 0) this.#flows++
    }
    if (count > BURST * room) {
      if (this.#room <= this.#kept && count * this.#flows > this.#shown) return false
      // Who is alone is far above those that are to come.
      if (this.#room < this.#longRoom && count * Math.max(FLOWS_FEW, this.#flows) > FAR_ABOVE * this.#shown) return false
    }
    const left = this.#left[bucket] + Math.max(this.#shares[bucket], this.#shares[other])
    if (left < ALL && this.isTight) {
      this.#left[bucket] = left
      return false
    }
    this.#left[bucket] = left < ALL ? 0 : left - ALL
    this.#entered += room
    this.#room -= room
    return true
  }

  /** The link had no room for a packet after all. */
  refused(room = 1): void {
    this.#entered -= room
  }

  #measure(now: TimeUs, sent: number): void {
    const left = sent - this.#taken
    const us = now - this.#ratedAt
    this.#rate += ((left - this.#rateLeft) / us - this.#rate) * (1 - Math.exp(-us / RATE_US))
    this.#rateLeft = left
    this.#ratedAt = now
  }

  #open(now: TimeUs): void {
    this.#openedAt = now
    this.#windowEnd = now + WINDOW_US
    this.#takenBefore = this.#taken
    this.#entered = this.#shown = this.#flows = 0
    this.#counts.fill(0)
  }

  /** Nothing is thinned out until the link fills up again. */
  end(): void {
    if (!this.#isCounting) return
    this.#isCounting = this.#isUnknown = this.#isIdle = false
    this.#tightRoom = this.#longRoom = 0
    this.#shares.fill(ALL)
    this.#left.fill(0)
  }

  #next(now: TimeUs, givesBackLate: boolean): void {
    const hasLeft = this.#entered - (this.#taken - this.#takenBefore)
    if (hasLeft < Math.min(LEFT_MIN, Math.max(LEFT_MIN_SHORT, LEFT_PART * this.#capacity))) {
      this.#windowEnd = now + WINDOW_US
      this.#isIdle = this.#isUnknown
      return
    }
    if (!givesBackLate) {
      const usual = WAIT_LONG_US * this.#rate
      const isFlooded = this.#shown > FLOODED * hasLeft
      const less = isFlooded ? Math.max(usual, TIGHTEN_FLOODED * this.#target) : TIGHTEN * this.#target
      const wanted = Math.max(less, hasLeft * WAIT_US / (now - this.#openedAt))
      // What is taken in one moment and not in the next is not what may wait: it is known after a while what is taken on average.
      const isKnown = usual > 0 && now - this.#countingSince >= KNOWN_US
      this.#target = Math.max(WAITING_MIN, isKnown ? Math.min(usual, wanted) : wanted)
    }
    const isLong = !givesBackLate && this.#taken > LONG * this.#target
    const total = isLong ? DRAIN * hasLeft : this.#taken > Math.min(FULL * this.#capacity, this.#target) ? RELIEF * hasLeft : hasLeft
    const share = shareOf(this.#counts, total)
    this.#isUnknown = this.#isIdle = false
    for (let bucket = 0; bucket < 2 * BUCKETS; bucket++) {
      const count = this.#counts[bucket]
      this.#shares[bucket] = count <= share ? ALL : Math.max(1, Math.round(ALL * share / count))
    }
    this.#open(now)
  }
}

/** From the first table: the largest share so that the sum of what each has, but not more than the share, is at most `total`. */
function shareOf(counts: Uint16Array, total: number): number {
  let share = 0
  for (let step = 0; step < STEPS_MAX; step++) {
    let below = 0
    let above = 0
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = counts[bucket]
      if (count > share) above++
      else below += count
    }
    if (above === 0) return Infinity
    const next = (total - below) / above
    if (next <= share + 1e-9) break
    share = next
  }
  return share
}
