/**
 * `nfactor run`: a capture through a chain.
 */

import { clusterSchema } from '../process/cluster-file.ts'
import { configError, resolveRunConfig } from '../process/run-config.ts'
import { runCapture, type RunProgress } from '../process/run-capture.ts'
import { reportWarning } from './error-report.ts'
import { ExitStatus } from './exit-status.ts'
import { bytesText, countText, rateText } from './number-text.ts'
import { runSummary } from './run-summary.ts'

export interface RunCommandOptions {
  readonly chain?: readonly string[]
  readonly config?: string
  readonly set?: readonly string[]
  readonly out?: string
  readonly flows?: string
  readonly events?: string
  readonly json?: boolean
  readonly seed?: number
  readonly quiet?: boolean
}

/** A launcher may pass a terminal's signal on that came here as well: within this time two are one. */
const SIGNAL_ECHO_MS = 250
const PROGRESS_MS = 200

export async function runCommand(capture: string, options: RunCommandOptions): Promise<number> {
  const { chain, config: file, set: settings } = options
  const { config, problems } = await resolveRunConfig({ file, chain, settings, schema: clusterSchema })
  if (config === undefined) throw configError(problems, options.config)
  const stop = new AbortController()
  const signals = listenForSignals(stop)
  const progress = options.quiet === true || !process.stderr.isTTY ? undefined : new ProgressLine()
  try {
    const result = await runCapture({
      ...config,
      capture,
      signal: stop.signal,
      onNfFailed(nf, error) {
        progress?.clear()
        reportNfFailure(nf, error, config.policy.nfError)
      },
      ...options.config !== undefined && { inputs: [options.config] },
      ...options.seed !== undefined && { seed: options.seed },
      ...options.out !== undefined && { out: options.out },
      ...options.flows !== undefined && { flows: options.flows },
      ...options.events !== undefined && { events: options.events },
      ...progress !== undefined && { onProgress: (state: RunProgress) => progress.show(state) },
    })
    progress?.clear()
    for (const warning of result.report.warnings) reportWarning(`${result.report.capture.name}: ${warning}`)
    const text = options.json === true ? `${JSON.stringify(result.report)}\n` : runSummary(result, process.stdout)
    process.stdout.write(text)
    return signals.status()
  } finally {
    progress?.clear()
    signals.release()
  }
}

/** The first SIGINT or SIGTERM stops the run in good order, the second one at once. */
function listenForSignals(stop: AbortController): { status(): number; release(): void } {
  let status: number = ExitStatus.ok
  let first = 0
  const onSignal = (signal: NodeJS.Signals): void => {
    const now = performance.now()
    const mine = signal === 'SIGINT' ? ExitStatus.interrupted : ExitStatus.terminated
    if (status !== ExitStatus.ok && now - first > SIGNAL_ECHO_MS) process.exit(mine)
    if (status !== ExitStatus.ok) return
    status = mine
    first = now
    stop.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  return {
    status: () => status,
    release() {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
    },
  }
}

function reportNfFailure(nf: string, error: unknown, policy: 'drop' | 'bypass'): void {
  const stack = error instanceof Error ? error.stack ?? error.message : String(error)
  const consequence = policy === 'drop' ? 'the flow\'s packets are dropped' : 'the flow goes on without it'
  reportWarning(`network function ${nf} failed, ${consequence}; it is not reported again\n${stack}`)
}

/** One line on standard error that is written over again and again. */
class ProgressLine {
  #shown = false
  #lastMs = performance.now()
  #lastPackets = 0

  show({ packets, positionBytes, totalBytes }: RunProgress): void {
    const now = performance.now()
    const elapsedMs = now - this.#lastMs
    if (elapsedMs < PROGRESS_MS) return
    const rate = ((packets - this.#lastPackets) / elapsedMs) * 1000
    this.#lastMs = now
    this.#lastPackets = packets
    const share = totalBytes === undefined || totalBytes === 0 ? bytesText(positionBytes)
      : `${Math.floor((100 * positionBytes) / totalBytes)}% of ${bytesText(totalBytes)}`
    process.stderr.write(`\r${share}  ${countText(packets)} packets  ${rateText(rate, 'packets')}\x1b[K`)
    this.#shown = true
  }

  clear(): void {
    if (this.#shown) process.stderr.write('\r\x1b[K')
    this.#shown = false
  }
}
