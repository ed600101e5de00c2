/**
 * The engine's twin in C (twin.c): compiled on the spot into a temporary folder, loaded into this process, and measured as
 * worker.ts measures the engine, on the same trace in the same memory.
 *
 *     twin           batches of 32 in stages, with prefetches
 *     twin-packet    packet by packet
 *
 * Behind a name may stand what is in the chain, as in `twin:http` or `twin-packet:monitor,http`; it is the whole chain otherwise.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import koffi from 'koffi'
import { CodedError } from '../../src/base/coded-error.ts'
import { Arena } from '../../src/memory/arena.ts'
import { parseRules, type RuleConfig } from '../../src/nfs/firewall/rule-config.ts'
import { RuleAction, type Rule } from '../../src/nfs/firewall/rule.ts'
import { prefixMask } from '../../src/wire/address-text.ts'
import { adviseHugePages } from '../../src/ports/huge-pages.ts'
import { SLOT_BYTES, standardRules, Trace } from './trace.ts'
import type { WorkerOptions, WorkerResult } from './worker.ts'

const source = fileURLToPath(new URL('twin.c', import.meta.url))
const nfBits: Readonly<Record<string, number>> = { monitor: 1, firewall: 2, http: 4, chain: 7, empty: 0 }
const RULE_WORDS = 10
const ANY_PROTOCOL = 256

interface Twin {
  /** Runs the chunk at hand. */
  process(count: number, now: number): void
  /** Takes output and records of the chunk into the digest. */
  account(): void
  digest(): Float64Array
}

/**
 * Compiles and loads the twin.
 *
 * @throws CodedError `NF_BENCH` when there is no C compiler, or it fails
 */
function loadTwin(): ReturnType<typeof koffi.load> {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-twin-'))
  try {
    const library = join(folder, 'twin.so')
    try {
      execFileSync(process.env.CC ?? 'gcc', ['-O3', '-march=native', '-shared', '-fPIC', '-o', library, source],
        { stdio: 'pipe' })
    } catch (cause) {
      const error = cause as NodeJS.ErrnoException & { readonly stderr?: Buffer }
      if (error.code === 'ENOENT') {
        throw new CodedError('NF_BENCH', 'there is no C compiler: the twin in C was left out', 'Install gcc, or set CC')
      }
      const complaint = /^.*error:.*$/m.exec(String(error.stderr))?.[0] ?? error.message
      throw new CodedError('NF_BENCH', `the twin in C does not compile: ${complaint}`)
    }
    return koffi.load(library)
  } finally {
    // A loaded library stays mapped without its file.
    rmSync(folder, { recursive: true })
  }
}

function createTwin(arena: Arena, trace: Trace, options: WorkerOptions, staged: boolean, nfs: number): Twin {
  const library = loadTwin()
  const create = library.func('void *twin_create(int, int, int, double, int, void *, int, int)')
  const run = library.func('void twin_process(void *, uintptr_t, int, uintptr_t, int, double)')
  const account = library.func('void twin_account(void *, uintptr_t, int)')
  const digest = library.func('void twin_digest(void *, void *)')
  // A function that returns its pointer argument gives the arena's address.
  const addressOf = koffi.load('libc.so.6').func('uintptr_t memcpy(void *, void *, size_t)')
  const base = BigInt(addressOf(arena.u8, arena.u8, 0) as number | bigint)
  const pool = base + BigInt(trace.pool)
  const lengths = base + BigInt(trace.lengths * 4)
  const rules = ruleWords(parseRules(standardRules() as RuleConfig[]))
  const flows = Math.max(4096, Math.ceil(options.flows * 1.1))
  const huge = process.env.NFACTOR_HUGE_PAGES === '0' ? 0 : 1
  const twin: unknown = create(flows, nfs, staged ? 1 : 0, options.flows * 400 + 4194304, huge,
    rules, rules.length / RULE_WORDS, 1)
  if (twin === null) throw new CodedError('NF_BENCH', `no memory for the twin in C with ${options.flows} flows`)
  return {
    process: (count, now) => { run(twin, pool, SLOT_BYTES, lengths, count, now) },
    account: () => { account(twin, pool, SLOT_BYTES) },
    digest: () => {
      const values = new Float64Array(12)
      digest(twin, values)
      return values
    },
  }
}

/** Rules as the twin walks them: IPv4, one line per rule. */
function ruleWords(rules: readonly Rule[]): Int32Array {
  const one = <T>(list: readonly T[] | null, any: T): T => {
    if (list !== null && list.length !== 1) throw new CodedError('NF_BENCH', 'the twin in C takes no lists in rules')
    return list === null ? any : list[0]
  }
  const anyAddress = { version: 4, word0: 0, word1: 0, word2: 0, word3: 0, length: 0 } as const
  const anyPort = { low: 0, high: 65535 }
  return Int32Array.from(rules.flatMap((rule) => {
    const from = one(rule.sources, anyAddress)
    const to = one(rule.destinations, anyAddress)
    const sourcePort = one(rule.sourcePorts, anyPort)
    const destinationPort = one(rule.destinationPorts, anyPort)
    return [
      prefixMask(from.length, 0), from.word0, prefixMask(to.length, 0), to.word0, one(rule.protocols, ANY_PROTOCOL),
      sourcePort.low, sourcePort.high, destinationPort.low, destinationPort.high, rule.action === RuleAction.Accept ? 0 : 1,
    ]
  }))
}

/**
 * One measurement of the twin.
 *
 * @throws CodedError `NF_BENCH` when there is no C compiler
 */
export async function measureTwin(options: WorkerOptions): Promise<WorkerResult> {
  const [mode, chain = 'chain'] = options.variant.split(':')
  const nfs = chain.split(',').reduce((bits, name) => bits | (nfBits[name] ?? 0), 0)
  const arena = new Arena()
  if (process.env.NFACTOR_HUGE_PAGES !== '0') adviseHugePages(arena)
  const trace = new Trace(arena, { flows: options.flows, distribution: options.distribution, seed: 20260101 })
  const twin = createTwin(arena, trace, options, mode === 'twin', nfs)
  let now = 1.7e15
  function runChunk(count: number): number {
    const start = performance.now()
    twin.process(count, now)
    const sample = (performance.now() - start) * 1e6 / count
    now += count * 0.1
    twin.account()
    return sample
  }

  const opening: number[] = []
  for (let flow = 0; flow < options.flows;) {
    flow = trace.openNext(flow)
    opening.push(runChunk(trace.count))
  }
  const samples: number[] = []
  for (let chunk = 0; chunk < options.chunks; chunk++) {
    trace.next()
    const sample = runChunk(trace.count)
    if (chunk >= options.chunks / 3) samples.push(sample)
  }
  const at = (sorted: readonly number[], q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]
  samples.sort((a, b) => a - b)
  opening.sort((a, b) => a - b)
  const values = twin.digest()
  const [forwarded, dropped, flows, output, states, records] = values
  return {
    ...options,
    median: at(samples, 0.5),
    p10: at(samples, 0.1),
    p90: at(samples, 0.9),
    opening: at(opening, 0.5),
    digest: { forwarded, dropped, flows, output, states, records },
    recordBytes: values[10],
    tableBytes: values[11],
    allocated: 0,
    scavenges: 0,
  }
}
