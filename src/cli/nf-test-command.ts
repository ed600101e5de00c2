/**
 * `nfactor nf test`: the contract suite on any network function, and its own tests (`NAME.test.ts` next to `NAME.ts`)
 * if there are some, run so that they find `nfactor/testing` wherever they lie.
 */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { styleText } from 'node:util'
import { CodedError } from '../base/coded-error.ts'
import { isNfPath } from '../process/nf-loader.ts'
import { configError, resolveRunConfig } from '../process/run-config.ts'
import { runContractSuite, type ContractReport } from '../testing/contract.ts'
import { ExitStatus } from './exit-status.ts'
import { countOf } from './number-text.ts'
import { tableLines } from './text-table.ts'

export interface NfTestCommandOptions {
  readonly config?: string
  readonly set?: readonly string[]
  readonly seed?: number
  readonly json?: boolean
}

interface NfTestReport extends ContractReport {
  /** The NF's own tests: their file, and whether they passed. */
  readonly tests?: { readonly file: string; readonly ok: boolean }
}

export async function nfTestCommand(names: readonly string[], options: NfTestCommandOptions): Promise<number> {
  const { config, problems } = await resolveRunConfig({ file: options.config, chain: names, chainPlace: 'nf test',
    settings: options.set })
  if (config === undefined) throw configError(problems, options.config)
  const reports: NfTestReport[] = []
  for (const [index, { definition, given }] of config.chain.entries()) {
    const seed = options.seed ?? 1
    const report = await runContractSuite(definition, { config: given, seed })
    if (options.json !== true) process.stdout.write(`${contractLines(report).join('\n')}\n`)
    const file = testFileOf(names[index] as string)
    if (file === undefined) {
      reports.push(report)
    } else {
      const ok = await runTests(file, options.json === true)
      reports.push({ ...report, ok: report.ok && ok, tests: { file, ok } })
    }
  }
  if (options.json === true) process.stdout.write(`${JSON.stringify(reports)}\n`)
  const failed = reports.filter((report) => !report.ok)
  if (failed.length > 0) {
    throw new CodedError('NF_NF_CONTRACT', `${failed.map((report) => report.nf).join(', ')} failed`,
      `The same seed shows the same failure: --seed ${options.seed ?? 1}`)
  }
  return ExitStatus.ok
}

function contractLines({ nf, ok, checks }: ContractReport): string[] {
  const stream = process.stdout
  const good = styleText('green', 'ok', { stream })
  const bad = styleText('red', 'FAILED', { stream })
  const rows = checks.map((check) => [check.ok ? 'ok' : 'FAILED', check.check, check.detail])
  const lines = tableLines(rows, [{}, {}, {}])
    .map((line) => line.replace(/^( *)FAILED/, `$1${bad}`).replace(/^( *)ok/, `$1${good}`))
  const failed = checks.filter((check) => !check.ok).length
  const result = ok ? `${countOf(checks.length, 'check')} passed` : `${countOf(failed, 'check')} failed`
  return [`${styleText('bold', nf, { stream })}  ${result}`, ...lines]
}

/** The NF's own tests, if it is a file that has some next to it. */
function testFileOf(name: string): string | undefined {
  const file = name.replace(/\.([cm]?[jt]s)$/, '.test.$1')
  return isNfPath(name) && file !== name && existsSync(file) ? resolve(file) : undefined
}

/** Runs a test file with Node's test runner. */
function runTests(file: string, isQuiet: boolean): Promise<boolean> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const register = new URL(`../process/register-sdk.${extension}`, import.meta.url).href
  // Under a test runner, this is a run of its own all the same.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, ['--import', register, '--test', '--test-reporter=spec', file], {
      env, stdio: ['ignore', isQuiet ? 2 : 'inherit', 'inherit'],
    })
    child.on('error', failed)
    child.on('close', (status) => done(status === 0))
  })
}
