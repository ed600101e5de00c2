/**
 * The parts of the bench on real links: what each measures, and beside what. A part prints nothing; it returns rows for the table, what it
 * has measured for the JSON, and what was wrong with it: packets that were lost, doubled or changed make its figures worth nothing.
 */

import { defaultDetectorLimits, FailureDetector, quickDetectorLimits, type DetectorLimits } from '../../src/controller/failure-detector.ts'
import { monotonicUs } from '../../src/process/monotonic-clock.ts'
import type { NodeStatus } from '../../src/process/node-status.ts'
import type { ReportAnswer } from '../../src/process/node-process.ts'
import { LinksBed, testpmdObstacle, type BedOptions } from './links-bed.ts'
import type { LoadStatus, Marked, PlayResult } from './links-messages.ts'

export interface Row {
  readonly what: string
  readonly figure: string
  readonly baseline: string
  readonly ratio: string
  readonly aim: string
}

export interface PartResult {
  readonly rows: Row[]
  measured: Record<string, unknown>
  /** What must be said beside the figures. */
  readonly notes: string[]
  /** Why they are worth nothing. */
  readonly wrong: string[]
}

export interface PartOptions {
  readonly isQuick: boolean
  readonly runs: number
  readonly flows: number
  say(text: string): void
}

const STANDARD = ['monitor', 'firewall', 'http']
/** A figure this near to what the load can do says nothing about the seat. */
const TOP_SHARE = 0.9

export const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number
const fixed = (value: number, digits = 2): string => value.toFixed(digits)
const mpps = (packetsPerSecond: number): string => `${fixed(packetsPerSecond / 1e6)} Mpps`
const times = (ratio: number): string => `${fixed(ratio)} x`

/** Beds that take turns: whoever is not measured stands still. */
async function withBeds<T>(options: readonly BedOptions[], use: (beds: readonly LinksBed[]) => Promise<T>): Promise<T> {
  const beds: LinksBed[] = []
  try {
    for (const one of options) {
      for (const bed of beds) bed.freeze()
      beds.push(await LinksBed.open(one))
      const bed = beds.at(-1) as LinksBed
      if (one.runtimes > 0) await bed.openFlows()
      if (one.isPinned) await bed.load({ what: 'straighten' })
    }
    return await use(beds)
  } finally {
    for (const bed of beds) bed.close()
  }
}

async function alone<T>(bed: LinksBed, beds: readonly LinksBed[], action: () => Promise<T>): Promise<T> {
  for (const other of beds) if (other !== bed) other.freeze()
  bed.thaw()
  return await action()
}

function wrongOf(what: string, { counts: { lost, outOfOrder, corrupted, foreign } }: PlayResult): string[] {
  return lost + outOfOrder + corrupted + foreign === 0 ? []
    : [`${what}: ${lost} packets lost, ${outOfOrder} out of order or doubled, ${corrupted} changed, ${foreign} foreign`]
}

// -- P4, P9: one runtime between two links -----------------------------------------------------------------------------

interface Seat {
  readonly name: string
  readonly bed: LinksBed
  readonly rates: number[]
  readonly tops: number[]
}

const seatOptions = (flows: number, isTcp: boolean, runtimes: number, nodeOptions?: readonly string[]): BedOptions =>
  ({ flows, isTcp, chain: isTcp ? STANDARD : ['monitor'], runtimes, isPinned: true, nodeOptions })

/** Throughput of a runtime in its seat, and of testpmd in the same one; both kinds of traffic. */
export async function throughput({ isQuick, runs, flows, say }: PartOptions): Promise<PartResult> {
  const result: PartResult = { rows: [], measured: {}, notes: [], wrong: [] }
  const obstacle = testpmdObstacle()
  if (obstacle !== '') result.notes.push(`no baseline: ${obstacle}`)
  const seconds = isQuick ? 0.5 : 1
  for (const [isTcp, name, aim] of [[false, 'monitor alone, UDP', '>= 0.6 x'], [true, 'standard chain, TCP', '>= 3 Mpps']] as const) {
    say(`p4: ${name}`)
    await withBeds([seatOptions(flows, isTcp, 1), ...obstacle === '' ? [seatOptions(flows, isTcp, 0)] : []], async (beds) => {
      const seats = beds.map((bed, index): Seat => ({ name: index === 0 ? 'runtime' : 'testpmd', bed, rates: [], tops: [] }))
      for (let run = -1; run < runs; run++) {
        for (const { name: seat, bed, rates, tops } of seats) {
          const played = await alone(bed, beds, () => bed.load<PlayResult>({ what: 'play', seconds }))
          result.wrong.push(...wrongOf(`p4, ${name}, ${seat}`, played))
          // The first one warms up.
          if (run < 0) continue
          rates.push(played.packetsPerSecond)
          tops.push(played.topPacketsPerSecond)
        }
      }
      const [own, baseline] = seats as [Seat, Seat | undefined]
      for (const { name: seat, rates, tops } of seats) {
        if (median(rates) <= TOP_SHARE * median(tops)) continue
        result.notes.push(`${name}: ${seat} is within 10% of what the load can do (${mpps(median(tops))}): it may be faster than ` +
          `it was measured${seat === 'testpmd' ? ', and the ratio less' : ''}`)
      }
      const ratio = baseline === undefined ? undefined : median(own.rates.map((rate, run) => rate / (baseline.rates[run] as number)))
      result.rows.push({ what: name, figure: mpps(median(own.rates)), baseline: baseline === undefined ? '-' : mpps(median(baseline.rates)),
        ratio: ratio === undefined ? '-' : times(ratio), aim })
      result.measured[isTcp ? 'chain' : 'monitor'] = { runtime: own.rates, runtimeTops: own.tops, testpmd: baseline?.rates,
        testpmdTops: baseline?.tops, ratio }
    })
  }
  result.notes.push('runtime and testpmd have core 0, source and sink share core 1 and stand in for both switches')
  return result
}

/** Lines of --trace-gc between two times of the process, milliseconds. */
function collections(output: string, from: number, to: number): { scavenges: number, others: number } {
  let scavenges = 0
  let others = 0
  for (const [, at, kind] of output.matchAll(/^\[\d+:[^\]]*\]\s+(\d+) ms: (Scavenge|Mark-Compact)/gm)) {
    if (Number(at) < from || Number(at) > to) continue
    if (kind === 'Scavenge') scavenges++
    else others++
  }
  return { scavenges, others }
}

/** Latency at half of what the runtime can do, beside testpmd at the same rate; collections of garbage meanwhile. */
export async function latency({ isQuick, flows, say }: PartOptions): Promise<PartResult> {
  const result: PartResult = { rows: [], measured: {}, notes: [], wrong: [] }
  const obstacle = testpmdObstacle()
  if (obstacle !== '') result.notes.push(`no baseline: ${obstacle}`)
  const packets = isQuick ? 1e6 : 1e7
  say('p9: latency at half load')
  const options = [seatOptions(flows, true, 1, ['--trace-gc']), ...obstacle === '' ? [seatOptions(flows, true, 0)] : []]
  await withBeds(options, async (beds) => {
    const [own, other] = beds as [LinksBed, LinksBed | undefined]
    const half = await alone(own, beds, async () => {
      // What is compiled, allocated and collected while it warms up is not what is meant.
      await own.load<PlayResult>({ what: 'play', seconds: isQuick ? 1 : 3 })
      const top = await own.load<PlayResult>({ what: 'play', seconds: 1 })
      result.wrong.push(...wrongOf('p9, runtime at its top', top))
      const packetsPerSecond = top.packetsPerSecond / 2
      await own.load<PlayResult>({ what: 'play', seconds: 1, packetsPerSecond })
      const began = performance.now()
      const played = await own.load<PlayResult>({ what: 'play', seconds: isQuick ? 5 : 20, packetsPerSecond, packets })
      return { packetsPerSecond, played, began, ended: performance.now() }
    })
    result.wrong.push(...wrongOf('p9, runtime', half.played))
    const theirs = other === undefined ? undefined : await alone(other, beds, async () => {
      await other.load<PlayResult>({ what: 'play', seconds: 1, packetsPerSecond: half.packetsPerSecond })
      return await other.load<PlayResult>({ what: 'play', seconds: isQuick ? 1 : 4, packetsPerSecond: half.packetsPerSecond })
    })
    if (theirs !== undefined) result.wrong.push(...wrongOf('p9, testpmd', theirs))
    own.thaw()
    const { output, startedAt } = await own.endRuntime(0)
    // What the process prints counts from its own start, some tens of milliseconds behind ours.
    const { scavenges, others } = collections(output, half.began - startedAt - 100, half.ended - startedAt)
    const { played } = half
    for (const [name, of] of [['p50', 'p50Us'], ['p99', 'p99Us'], ['p99.9', 'p999Us']] as const) {
      result.rows.push({ what: `latency at ${mpps(half.packetsPerSecond)}, ${name}`, figure: `${fixed(played[of], 1)} µs`,
        baseline: theirs === undefined ? '-' : `${fixed(theirs[of], 1)} µs`,
        ratio: theirs === undefined ? '-' : `${played[of] < theirs[of] ? '' : '+'}${fixed(played[of] - theirs[of], 1)} µs`,
        aim: name === 'p99.9' ? '+150 µs' : '' })
    }
    result.rows.push({ what: `scavenges in ${(played.counts.received / 1e6).toFixed(1)} million packets`, figure: `${scavenges}`,
      baseline: `${others} other collections`, ratio: '', aim: '0' })
    result.measured = { packetsPerSecond: half.packetsPerSecond, runtime: played, testpmd: theirs, scavenges, others }
  })
  return result
}

// -- P6, P7: migration -------------------------------------------------------------------------------------------------

const PAIR: Omit<BedOptions, 'flows'> = { isTcp: false, chain: STANDARD, runtimes: 2, isPinned: false }
/** Messages from the order to the new owner's first packet at the egress switch, one behind the other. */
const HOPS = 7
/** After so long without it an order is given again, so often at most. */
const MOVED_MS = 2000
const ORDERS_MAX = 10
/** Packets on their way at most, where none may be lost: who had to wait for a core does not overrun the links afterwards. */
const WINDOW = 2048
/** And of one flow: a target buffers 256. */
const ONE_FLOW_WINDOW = 200
/** A flow that has come stays for so long at least. */
const RESIDENCE_MS = 110

/** One flow moves to and fro in a cluster that has nothing else to do. */
export async function oneFlow({ isQuick, say }: PartOptions): Promise<PartResult> {
  const result: PartResult = { rows: [], measured: {}, notes: [], wrong: [] }
  const moves = isQuick ? 30 : 150
  say('p6: one flow')
  await withBeds([{ ...PAIR, flows: 1 }], async ([only]) => {
    const bed = only as LinksBed
    await bed.load({ what: 'send', packetsPerSecond: isQuick ? 5_000 : 20_000, window: ONE_FLOW_WINDOW })
    const took: number[] = []
    let repeated = 0
    let source = 0
    for (let move = 0; move < moves; move++) {
      await sleep(RESIDENCE_MS)
      const target = 1 - source
      const seen = bed.load<number>({ what: 'await', runtime: bed.idOf(target) })
      let orders = 0
      let at: number | undefined
      let startedAt = 0
      // On a machine with much to do a move is called off now and then, or the flow has come too lately to go.
      for (; at === undefined && orders < ORDERS_MAX; orders++) {
        const { accepted, code, atUs } = await bed.ask<{ accepted: boolean, code: string, atUs: number }>(
          source, 'SetMigrationTarget', { target: bed.idOf(target), number: 1 })
        if (!accepted) throw new Error(`an order has been refused: ${code}`)
        startedAt = atUs
        at = await Promise.race([seen, sleep(MOVED_MS)]) ?? undefined
      }
      repeated += orders - 1
      // The first tenth is cold code.
      if (at !== undefined && orders === 1 && move >= moves / 10) took.push(at - startedAt)
      source = target
    }
    if (repeated > 0) result.notes.push(`${repeated} of ${moves} orders had to be repeated, and are left out`)
    const { p50Us } = (await bed.load<LoadStatus>({ what: 'status' })).latency
    result.wrong.push(...await lossOf('p6', bed))
    const at = (share: number): number => took.toSorted((a, b) => a - b)[Math.min(took.length - 1, Math.floor(took.length * share))] as number
    const hop = p50Us / 2
    for (const [name, share, aim] of [['p50', 0.5, '< 250 µs'], ['p99', 0.99, '< 2 ms']] as const) {
      result.rows.push({ what: `one flow moves, order to first packet, ${name}`, figure: `${fixed(at(share), 0)} µs`,
        baseline: `${HOPS} hops of ${fixed(hop, 1)} µs`, ratio: times(at(share) / (hop * HOPS)), aim })
    }
    result.measured = { took, hopUs: hop, hops: HOPS }
  })
  result.notes.push('a hop is half of the way of a packet through a runtime, median; load and two runtimes share the cores')
  return result
}

interface Moved {
  /** While packets went through: how long it took, and work of all processes by their executors with the move minus without, µs per flow. */
  readonly ms: number
  readonly busyUs: number
  /** Without packets: CPU time of all processes with the move minus without, µs per flow. */
  readonly cpuUs: number
  /** Orders that it took: one each way, unless moves were called off. */
  readonly orders: number
}

/** All flows of a runtime move to another one while packets go on. */
export async function manyFlows({ isQuick, runs, flows: most, say }: PartOptions): Promise<PartResult> {
  const result: PartResult = { rows: [], measured: {}, notes: [], wrong: [] }
  const packetsPerSecond = isQuick ? 20_000 : 100_000
  const each = new Map<number, number>()
  for (const flows of [...new Set([Math.ceil(most / 10), most])]) {
    say(`p7: ${flows} flows`)
    await withBeds([{ ...PAIR, flows }], async ([bed]) => {
      const moved = await moveToAndFro(bed as LinksBed, flows, packetsPerSecond, isQuick ? 1 : Math.min(runs, 3))
      result.wrong.push(...await lossOf(`p7, ${flows} flows`, bed as LinksBed))
      const of = (name: keyof Moved): number => median(moved.map((one) => one[name]))
      each.set(flows, of('cpuUs'))
      result.rows.push({ what: `${flows} flows move at ${packetsPerSecond / 1000} kpps, time`, figure: `${fixed(of('ms'), 0)} ms`,
        baseline: '-', ratio: '', aim: flows === 100_000 ? '< 1 s' : '' })
      result.rows.push({ what: '  CPU per flow, without packets', figure: `${fixed(of('cpuUs'), 1)} µs`, baseline: '-', ratio: '',
        aim: '<= 3 µs' })
      result.rows.push({ what: '  the same with packets, as executors count', figure: `${fixed(of('busyUs'), 1)} µs`, baseline: '-', ratio: '',
        aim: '<= 3 µs' })
      result.measured[flows] = moved
      const repeated = moved.reduce((sum, { orders }) => sum + orders - 2, 0)
      if (repeated > 0) result.notes.push(`${flows} flows: ${repeated} orders had to be repeated, for moves were called off`)
    })
  }
  const [few, many] = [...each.values()]
  if (few !== undefined && many !== undefined) {
    result.rows.push({ what: '  cost per flow, many to few', figure: '', baseline: '', ratio: times(many / few), aim: 'linear' })
  }
  result.notes.push('CPU of load and both runtimes, with the move minus without. While packets come all of them poll, and the kernel sees no ' +
    'difference; executors count polls that found work, and on a core that is shared the wait for it, too')
  return result
}

/** There while packets go through, and back without any. */
async function moveToAndFro(bed: LinksBed, flows: number, packetsPerSecond: number, runs: number): Promise<Moved[]> {
  const moved: Moved[] = []
  // The first one is cold code.
  for (let run = -1; run < runs; run++) {
    await bed.load({ what: 'send', packetsPerSecond, window: WINDOW })
    const loaded = await costOfMove(bed, flows, 0, run < 0 ? 300 : 1000)
    await bed.load({ what: 'settle' })
    const idle = await costOfMove(bed, flows, 1, run < 0 ? 300 : 1000)
    if (run >= 0) moved.push({ ms: loaded.ms, busyUs: loaded.busyUs, cpuUs: idle.cpuUs, orders: loaded.orders + idle.orders })
  }
  return moved
}

/** What it costs to move all flows of a runtime to the other one, beside as long a time without. */
async function costOfMove(bed: LinksBed, flows: number, source: number, quietMs: number):
    Promise<{ ms: number, cpuUs: number, busyUs: number, orders: number }> {
  await sleep(2 * RESIDENCE_MS)
  const quiet = await costOf(bed, () => sleep(quietMs))
  let orders = 0
  const order = async (left: number): Promise<void> => {
    orders++
    await bed.ask(source, 'SetMigrationTarget', { target: bed.idOf(1 - source), number: left })
  }
  const busy = await costOf(bed, async () => {
    await order(flows)
    await bed.until('flows move', async () => {
      const { workload, openSteps } = (await bed.statuses())[source] as NodeStatus
      // A move that waits for a core for too long is called off: those are ordered again.
      if (workload.flows > 0 && Object.keys(openSteps).length === 0) await order(workload.flows)
      return workload.flows === 0
    }, 120_000, 10)
  })
  const share = busy.ms / quiet.ms
  return { ms: busy.ms, orders, cpuUs: (busy.cpuUs - quiet.cpuUs * share) / flows, busyUs: (busy.busyUs - quiet.busyUs * share) / flows }
}

async function costOf(bed: LinksBed, action: () => Promise<void>): Promise<{ ms: number, cpuUs: number, busyUs: number }> {
  const busyOf = async (): Promise<number> => {
    const [load, ...runtimes] = await Promise.all([bed.load<LoadStatus>({ what: 'status' }), ...[0, 1].map((runtime) =>
      bed.ask<{ busyUs: number }>(runtime, 'PollWorkload'))]) as { busyUs: number }[]
    return runtimes.reduce((sum, { busyUs }) => sum + busyUs, load?.busyUs ?? 0)
  }
  const busy = await busyOf()
  const cpu = bed.cpuUs()
  const began = performance.now()
  await action()
  const ms = performance.now() - began
  return { ms, cpuUs: bed.cpuUs() - cpu, busyUs: await busyOf() - busy }
}

/** What the sink says when everything has come out. */
async function lossOf(what: string, bed: LinksBed, isLossTold = true): Promise<string[]> {
  await bed.load({ what: 'settle' })
  const { sent, totals: { received, duplicated, reordered, corrupted, stale, foreign }, drops } = await bed.load<LoadStatus>({ what: 'status' })
  const lost = sent - received
  const wrong = duplicated + reordered + corrupted + stale + foreign + (isLossTold ? lost : 0)
  return wrong === 0 ? [] : [`${what}: of ${sent} packets ${lost} lost, ${duplicated} doubled, ${reordered} out of order, ` +
    `${corrupted} changed ${JSON.stringify([drops, ...(await bed.statuses()).map(({ dropReasons }) => dropReasons)])}`]
}

// -- P8: recovery ------------------------------------------------------------------------------------------------------

/** As controllers of a cluster with replication have it: a report every 50 ms, half a second of patience. */
const usualLimits: DetectorLimits = { ...defaultDetectorLimits, heartbeatUs: 50_000, tickUs: 40_000, pauseUs: 500_000 }
const RECOVERED_MS = 60_000
const HEARTBEAT_MS = 5

/** A runtime with replicas elsewhere is killed, or stopped: what comes of its flows. */
export async function recovery({ isQuick, flows: most, say }: PartOptions): Promise<PartResult> {
  const result: PartResult = { rows: [], measured: {}, notes: [], wrong: [] }
  const flows = isQuick ? Math.ceil(most / 10) : most
  const packetsPerSecond = isQuick ? 5_000 : 20_000
  for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
    say(`p8: ${flows} flows, ${signal}`)
    await withBeds([{ ...PAIR, flows, replication: 'commit' }], async ([only]) => {
      const bed = only as LinksBed
      await bed.until('replicas', async () => Number((await bed.statuses())[1]?.replication?.held) >= flows, 120_000, 50)
      await bed.load({ what: 'send', packetsPerSecond })
      const seconds = isQuick ? 1 : signal === 'SIGSTOP' ? 60 : 3
      const watch = new Watch(bed)
      await watch.run(seconds * 1000, () => false)
      const suspected = { ...watch.suspicions }
      const struck = monotonicUs()
      bed.runtimes[0]?.child.kill(signal)
      const found = await watch.run(RECOVERED_MS, () => watch.foundAt > 0)
      if (!found) throw new Error(`${signal} has not been noticed`)
      await bed.load({ what: 'mark' })
      const marked = monotonicUs()
      await bed.configure({ without: 0 })
      let after: Marked | undefined
      await bed.until('flows go on', async () => {
        after = await bed.load<Marked>({ what: 'marked' })
        return after.flows >= flows
      }, RECOVERED_MS, 100).catch(() => undefined)
      const settled = await lossOf(`p8, ${signal}`, bed, false)
      const { totals, sent } = await bed.load<LoadStatus>({ what: 'status' })
      result.wrong.push(...settled)
      const { sinceMark, sinceDue, flows: served } = after as unknown as Marked
      if (served < flows) {
        result.wrong.push(`p8, ${signal}: ${flows - served} of ${flows} flows have had no packet within ${RECOVERED_MS / 1000} s`)
      }
      const detected = (watch.foundAt - struck) / 1000
      const quickMs = watch.quickAt === 0 ? undefined : (watch.quickAt - struck) / 1000
      result.rows.push({ what: `${signal}: found after`, figure: `${fixed(detected, 0)} ms`,
        baseline: quickMs === undefined || signal === 'SIGKILL' ? '-' : `${fixed(quickMs, 0)} ms by quick limits`, ratio: '',
        aim: '< 100 ms' })
      result.rows.push({ what: `  first packets of ${flows} flows behind that, late by: p50, p99, longest`,
        figure: sinceDue.map((ms) => fixed(ms, 0)).join(', ').concat(' ms'), baseline: '-', ratio: '', aim: '< 100 ms' })
      const lost = sent - totals.received
      result.rows.push({ what: '  lost, doubled, of packets', figure: `${lost}, ${totals.duplicated}`, baseline: `${sent}`, ratio: '', aim: '' })
      result.rows.push({ what: `  wrong suspicions in ${seconds} s before: usual, quick limits`,
        figure: `${suspected.usual}, ${suspected.quick}`, baseline: '-', ratio: '', aim: '0' })
      result.measured[signal] = { flows, packetsPerSecond, detectedMs: detected, quickMs, sinceMark, sinceDue,
        markAfterMs: (marked - struck) / 1000, lost, totals, suspected, seconds }
    })
  }
  result.notes.push('the bench itself is the controller: the detector of controllers hears the runtimes\' reports, and what their end says')
  return result
}

/** The failure detector over real reports, with two sets of limits. */
class Watch {
  readonly suspicions = { usual: 0, quick: 0 }
  /** When the first runtime was found dead: by the usual limits or by its end, and by the quick ones. */
  foundAt = 0
  quickAt = 0
  readonly #bed: LinksBed
  readonly #usual = new FailureDetector(usualLimits)
  readonly #quick = new FailureDetector(quickDetectorLimits)
  readonly #asked = [false, false]
  readonly #isSuspected = { usual: [false, false], quick: [false, false] }
  #beats = 0

  constructor(bed: LinksBed) {
    this.#bed = bed
    const lives = bed.lives
    for (const detector of [this.#usual, this.#quick]) detector.watch(lives, monotonicUs())
    bed.runtimes[0]?.child.on('exit', () => {
      for (const detector of [this.#usual, this.#quick]) detector.ended(lives[0]?.id ?? 0, lives[0]?.incarnation ?? 0)
      this.#look()
    })
  }

  /** Watches for so long, or until something is so. */
  async run(ms: number, isDone: () => boolean): Promise<boolean> {
    for (const end = performance.now() + ms; performance.now() < end;) {
      this.#beat()
      this.#look()
      if (isDone()) return true
      await sleep(HEARTBEAT_MS)
    }
    return isDone()
  }

  #beat(): void {
    const isUsual = this.#beats++ % (usualLimits.heartbeatUs / 1000 / HEARTBEAT_MS) === 0
    for (const runtime of [0, 1]) {
      if (this.#asked[runtime] === true) continue
      this.#asked[runtime] = true
      this.#bed.ask<ReportAnswer>(runtime, 'Report', { controller: 'bench' }).then((answer) => {
        this.#asked[runtime] = false
        if (!('report' in answer)) return
        const { node, incarnation, pausedUs, words } = answer.report
        const now = monotonicUs()
        if (isUsual) this.#usual.heartbeat(node, incarnation, pausedUs, words, now)
        this.#quick.heartbeat(node, incarnation, pausedUs, words, now)
      }, () => undefined)
    }
  }

  #look(): void {
    const now = monotonicUs()
    for (const [name, detector] of [['usual', this.#usual], ['quick', this.#quick]] as const) {
      detector.tick(now)
      detector.judge(now).forEach(({ health }, index) => {
        const isDead = health === 'dead'
        if (isDead && this.#isSuspected[name][index] === false) {
          this.suspicions[name]++
          if (index === 0 && name === 'usual') this.foundAt = now
          if (index === 0 && name === 'quick') this.quickAt = now
        }
        this.#isSuspected[name][index] = isDead
      })
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })
