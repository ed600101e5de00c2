/**
 * `nfactor simulate`: clusters under seeded faults, in one process and in simulated time. See docs/protocol.md and src/sim.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import { planted, plantedBugs, type PlantedBug } from '../base/planted-bugs.ts'
import { allFaultKinds, faultKinds, type FaultKind } from '../sim/fault-kinds.ts'
import {
  addTo, type FailingSeed, faultsOfSeed, newSummary, phaseTable, replicationOfSeed, type SimulationSummary,
} from '../sim/simulation-report.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import { simulate, type SimulationResult } from '../sim/simulation.ts'
import { ExitStatus } from './exit-status.ts'

export interface SimulateOptions {
  readonly seed?: number
  readonly seeds?: string
  readonly runtimes: number
  readonly flows: number
  readonly packets: number
  readonly faults?: string
  readonly replication?: string
  readonly replicas: number
  readonly follow?: number
  readonly plant?: string
  readonly listPlants?: boolean
  readonly minutes?: number
  readonly failing?: string
  readonly json?: boolean
}

const RUNTIMES_MAX = 64

/** The seeds of `A..B`, or of one number. */
function seedRange(options: SimulateOptions): [number, number] {
  if (options.seeds === undefined) {
    const seed = options.seed ?? 1
    return [seed, seed]
  }
  const match = /^(\d+)\.\.(\d+)$/.exec(options.seeds)
  const [first, last] = match === null ? [1, 0] : [Number(match[1]), Number(match[2])]
  if (last < first || last > 0xffffffff) {
    throw new CodedError('NF_USAGE', `--seeds takes a range like 1..100, not ${JSON.stringify(options.seeds)}`)
  }
  return [first, last]
}

function faultsOf(text: string | undefined): FaultKind[] | 'mixed' {
  if (text === undefined || text === 'mixed') return 'mixed'
  if (text === 'none') return []
  if (text === 'all') return allFaultKinds
  const names = text.split(',').map((name) => name.trim()).filter((name) => name !== '')
  const unknown = names.find((name) => !(name in faultKinds))
  if (unknown !== undefined) {
    throw new CodedError('NF_USAGE', `there is no kind of fault named ${JSON.stringify(unknown)}`,
      `There are: ${allFaultKinds.join(', ')}; or all, none, mixed.`)
  }
  return names as FaultKind[]
}

const MODES: readonly string[] = ['none', 'async', 'commit']

function replicationOf(text: string | undefined, seed: number): ReplicationMode {
  if (text === undefined || text === 'mixed') return replicationOfSeed(seed)
  if (MODES.includes(text)) return text as ReplicationMode
  throw new CodedError('NF_USAGE', `--replication takes ${MODES.join(', ')} or mixed, not ${JSON.stringify(text)}`)
}

/**
 * Adds seeds to a list of failing ones. They are replayed with the faults of their seed and the other options' defaults, but for the
 * replication, if it was given: then they are listed as `[seed, mode]`, and as `[seed, mode, 2]` with two replicas.
 */
function addFailing(file: string, seeds: readonly number[], mode: string | undefined, replicas: number): void {
  const known = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) as FailingSeed[] : []
  const isOwn = (mode === undefined || mode === 'mixed') && replicas === 1
  const found = seeds.map((seed): FailingSeed => {
    if (isOwn) return seed
    const replication = replicationOf(mode, seed)
    return replicas === 1 ? [seed, replication] : [seed, replication, replicas]
  })
  const all = [...new Set([...known, ...found].map((one) => JSON.stringify(one).replaceAll(',', ', ')))]
    .sort((a, b) => Number.parseInt(a.replace('[', ''), 10) - Number.parseInt(b.replace('[', ''), 10))
  writeFileSync(file, `[\n${all.map((one) => `  ${one}`).join(',\n')}\n]\n`)
}

export function simulateCommand(options: SimulateOptions): number {
  if (options.listPlants === true) {
    for (const [name, rule] of Object.entries(plantedBugs)) console.log(`${name.padEnd(22)} ${rule}`)
    return ExitStatus.ok
  }
  if (options.plant !== undefined) {
    if (!(options.plant in plantedBugs)) {
      throw new CodedError('NF_USAGE', `there is no planted bug named ${JSON.stringify(options.plant)}`, 'See --list-plants.')
    }
    planted[options.plant as PlantedBug] = true
  }
  if (!(options.runtimes >= 1 && options.runtimes <= RUNTIMES_MAX)) {
    throw new CodedError('NF_USAGE', `--runtimes takes a number from 1 to ${RUNTIMES_MAX}, not ${options.runtimes}`)
  }
  if (options.replicas !== 1 && options.replicas !== 2) throw new CodedError('NF_USAGE', `--replicas takes 1 or 2, not ${options.replicas}`)
  for (const name of ['flows', 'packets'] as const) {
    if (options[name] < 1) throw new CodedError('NF_USAGE', `--${name} takes a number from 1`)
  }
  if (options.minutes !== undefined && !(options.minutes > 0)) {
    throw new CodedError('NF_USAGE', '--minutes takes a number above 0')
  }
  const faults = faultsOf(options.faults)
  const [first, last] = seedRange(options)
  const started = performance.now()
  const deadline = options.minutes === undefined ? Infinity : started + options.minutes * 60_000
  // A soak goes on from a place of its own.
  const from = options.minutes === undefined ? first : Date.now() % 0x7fffffff
  const to = options.minutes === undefined ? last : 0xffffffff
  const summary = newSummary()
  let result: SimulationResult | null = null
  for (let seed = from; seed <= to && performance.now() < deadline; seed++) {
    result = simulate({ seed, runtimes: options.runtimes, flows: options.flows, packets: options.packets, follow: options.follow,
      faults: faults === 'mixed' ? faultsOfSeed(seed, options.replicas) : faults, replication: replicationOf(options.replication, seed),
      replicas: options.replicas })
    addTo(summary, result)
    if (result.violations.length > 0 && options.json !== true) {
      for (const { checker, detail } of result.violations.slice(0, 3)) console.log(`seed ${seed}: ${checker}: ${detail}`)
    }
  }
  const seconds = (performance.now() - started) / 1000
  if (options.failing !== undefined && summary.violations.length > 0) {
    addFailing(options.failing, summary.violations.map(({ seed }) => seed), options.replication, options.replicas)
  }
  if (options.json === true) console.log(JSON.stringify(summary, null, 2))
  else report(summary, result, faults === 'mixed' ? allFaultKinds : faults, seconds)
  return summary.violations.length === 0 ? ExitStatus.ok : ExitStatus.failed
}

function report(summary: SimulationSummary, result: SimulationResult | null, faults: readonly FaultKind[], seconds: number): void {
  if (summary.seeds === 1 && result !== null) {
    for (const line of result.story) console.log(line)
    const { packets, moves } = result
    console.log(`seed ${result.seed}: ${packets.sent} packets came, ${packets.left} left, ${packets.lost} were lost by faults, ` +
      `${packets.dropped} dropped`)
    console.log(`${moves.completed} moves completed, ${moves.refused} refused, ${moves.aborted} aborted, ${moves.takenBack} taken back`)
    console.log(`${result.events} events in ${result.simulatedMs} ms of simulated time; trace ${result.hash}`)
  }
  if (faults.length > 0) {
    console.log('\nstrikes of faults while a step of the protocol was open:\n')
    for (const line of phaseTable(summary, faults)) console.log(line)
    console.log()
  }
  console.log(`${summary.seeds} seeds, ${summary.counted} counted, ${summary.violations.length} violations; ` +
    `${(summary.seeds / seconds).toFixed(1)} seeds per second`)
}
