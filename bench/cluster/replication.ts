/**
 * `nfactor bench replication`: what replicas cost.
 *
 *     node bench/cluster/replication.ts [--quick] [--part memory,network] [--flows N] [--recover N,N] [--runs N] [--seconds N] [--json FILE]
 *
 * In memory (replication-memory.ts): CPU time per packet of a cluster in one process with `none`, `async` and `commit` in turns, beside one
 * more link hop of packet and record; heap per replica; CPU time per flow that is recovered. Over the network (replication-network.ts): TCP
 * and pings through clusters of processes, the modes in turns. Medians, and ratios within each round: absolute times say what the machine
 * was doing.
 */

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { CodedError } from '../../src/base/coded-error.ts'
import { setEngineFlags } from '../../src/process/engine-flags.ts'
import type { NetworkResult } from './replication-network.ts'

const HELP = `nfactor bench replication [--quick] [--part memory,network] [--flows N] [--recover N,N,...] [--runs N] [--seconds N] [--json FILE]

What async and commit cost: in CPU time per packet, memory and CPU time per recovered flow (memory), and TCP throughput and round trips
through real processes (network: as root, with iperf3 and ping; --runs rounds of --seconds for each measurement).`

/** Passes of all flows that warm up, and that count for each run. */
const WARM_UP = 4
const PASSES = 4

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number
const fixed = (value: number, digits: number): string => value.toFixed(digits)

interface Options {
  readonly flows: number
  readonly recover: readonly number[]
  readonly runs: number
  readonly seconds: number
}

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: {
    quick: { type: 'boolean', default: false }, part: { type: 'string', default: 'memory,network' }, flows: { type: 'string' },
    recover: { type: 'string' }, runs: { type: 'string' }, seconds: { type: 'string' }, json: { type: 'string' },
    help: { type: 'boolean', default: false },
  } })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const options: Options = {
    flows: Number(values.flows ?? 10_240), runs: Number(values.runs ?? (values.quick ? 1 : 5)),
    recover: (values.recover ?? (values.quick ? '1000,10000' : '1000,10000,100000')).split(',').map(Number),
    seconds: Number(values.seconds ?? (values.quick ? 2 : 4)),
  }
  const parts = values.part.split(',')
  const isCount = (value: number, most: number): boolean => Number.isInteger(value) && value >= 1 && value <= most
  if (!isCount(options.runs, 1000) || !isCount(options.seconds, 60) || !isCount(options.flows, 100_000) || options.flows % 256 !== 0 ||
      !options.recover.every((flows) => isCount(flows, 200_000)) || !parts.every((part) => part === 'memory' || part === 'network')) {
    throw new CodedError('NF_USAGE', 'bench replication: --part takes memory and network, --flows a multiple of 256 up to 100000, ' +
      '--recover numbers up to 200000, --runs and --seconds a number from 1')
  }
  console.log(`${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} cores, Node ${process.version}; medians of ${options.runs}`)
  const results: Record<string, unknown> = { node: process.version, cpu: cpus()[0]?.model, ...options }
  if (parts.includes('memory')) results.memory = await inMemory(options)
  if (parts.includes('network')) results.network = await overNetwork(options)
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return 0
}

async function inMemory({ flows, recover, runs }: Options): Promise<object> {
  setEngineFlags()
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const { measureHop, modes, openCluster, passPackets, recordBytesOf, recoverFlows, replicaBytes } = await import('./replication-memory.ts')
  const clusters = modes.map((mode) => openCluster(flows, mode))
  const recordBytes = recordBytesOf(clusters[0])
  const rows: { none: number, async: number, commit: number, hop: number }[] = []
  for (let pass = 0; pass < WARM_UP + runs * PASSES; pass++) {
    const [none, async, commit] = clusters.map((cluster) => passPackets(cluster, flows)) as [number, number, number]
    const row = { none, async, commit, hop: measureHop(recordBytes, 32 * 1024) }
    if (pass >= WARM_UP) rows.push(row)
  }
  const [none, async, commit, hop] = (['none', 'async', 'commit', 'hop'] as const).map((name) => median(rows.map((row) => row[name])))
  const [asyncHops, commitHops] = (['async', 'commit'] as const).map((mode) => median(rows.map((row) => (row[mode] - row.none) / row.hop)))
  console.log(`\nCPU time per packet, four nodes in one process, ${flows} flows: none ${fixed(none, 0)} ns, async ${fixed(async, 0)}, ` +
    `commit ${fixed(commit, 0)}`)
  console.log(`one more hop of packet and record (${recordBytes} bytes): ${fixed(hop, 0)} ns; async costs ${fixed(asyncHops, 1)} of it, ` +
    `commit ${fixed(commitHops, 1)}`)
  const bytes = median(Array.from({ length: runs }, () => replicaBytes(flows, collect)))
  console.log(`memory for each replica and its guard: ${fixed(bytes, 0)} bytes`)
  const recovery: { flows: number, us: number }[] = []
  for (const count of recover) {
    const us = median(Array.from({ length: runs }, () => recoverFlows(count)))
    recovery.push({ flows: count, us })
    console.log(`recovery of ${count} flows: ${fixed(us, 1)} µs of CPU time each, ${fixed(us * count / 1000, 0)} ms in all`)
  }
  return { none, async, commit, hop, asyncHops, commitHops, recordBytes, replicaBytes: bytes, recovery }
}

async function overNetwork({ runs, seconds }: Options): Promise<object | undefined> {
  const { CONNECTIONS, measureNetwork, networkObstacle } = await import('./replication-network.ts')
  const obstacle = networkObstacle()
  if (obstacle !== '') {
    console.log(`\nnot measured over the network: ${obstacle}`)
    return undefined
  }
  const rounds: { none: NetworkResult, async: NetworkResult, commit: NetworkResult }[] = []
  for (let round = 0; round < runs; round++) {
    rounds.push({ none: await measureNetwork('none', seconds), async: await measureNetwork('async', seconds),
      commit: await measureNetwork('commit', seconds) })
  }
  console.log(`\nThrough processes         TCP, one connection     ${CONNECTIONS} connections         ping, median    90%`)
  const table = (['none', 'async', 'commit'] as const).map((mode) => {
    const of = (name: keyof NetworkResult): number => median(rounds.map((round) => round[mode][name]))
    const ratio = (name: keyof NetworkResult): number => median(rounds.map((round) => round[mode][name] / round.none[name]))
    const row = { mode, ...rounds[0][mode] } as Record<string, number | string>
    for (const name of ['one', 'several', 'ping', 'pingP90', 'retransmitted', 'refused'] as const) {
      row[name] = of(name)
      row[`${name}Ratio`] = ratio(name)
    }
    console.log(`${mode.padEnd(20)} ${fixed(of('one'), 2).padStart(8)} Gbit/s, ${fixed(ratio('one'), 2)} x ` +
      `${fixed(of('several'), 2).padStart(8)} Gbit/s, ${fixed(ratio('several'), 2)} x ${fixed(of('ping'), 2).padStart(8)} ms, ` +
      `${fixed(ratio('ping'), 1)} x ${fixed(of('pingP90'), 2).padStart(7)} ms, ${fixed(ratio('pingP90'), 1)} x`)
    return row
  })
  const ofAsync = median(rounds.map(({ async, commit }) => commit.one / async.one))
  console.log(`commit has ${fixed(ofAsync, 2)} of async's throughput with one connection; ` +
    `${fixed(median(rounds.map(({ commit }) => commit.retransmitted)), 0)} frames sent again between the nodes`)
  return { connections: CONNECTIONS, rows: table, commitOfAsync: ofAsync, rounds }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main(process.argv.slice(2))
