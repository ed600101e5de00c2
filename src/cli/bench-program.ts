/**
 * Benches as programs of their own: how their command lines are read, and how they end.
 */

import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'
import { CodedError } from '../base/coded-error.ts'
import { reportError } from './error-report.ts'
import { ExitStatus } from './exit-status.ts'

/** What `parseArgs` says of a wrong command line, as an error for people; any other error as it is. */
export function asUsageError(error: unknown, mend: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  if (code?.startsWith('ERR_PARSE_ARGS_') !== true) return error
  return new CodedError('NF_USAGE', message.replace(/\. .*$/, ''), mend, { cause: error })
}

/** Runs a bench whose `main` reads its arguments. */
export async function runBenchProgram(main: (args: readonly string[]) => Promise<number | void>): Promise<void> {
  try {
    process.exitCode = await main(process.argv.slice(2)) ?? ExitStatus.ok
  } catch (error) {
    process.exitCode = reportError(asUsageError(error, 'See --help'))
  }
}

/** How often something is measured, as the option `--runs` says. */
export function runsOf(text: string | undefined, usual: number): number {
  const runs = Number(text ?? usual)
  if (Number.isInteger(runs) && runs >= 1) return runs
  throw new CodedError('NF_USAGE', `--runs takes a number from 1, not ${JSON.stringify(text)}`)
}

/**
 * The options of a bench that is a script. With `--help` it ends here, and so it does, with one line and exit status 2, where the command line
 * is wrong.
 *
 * @param read makes of the options what the bench needs, and throws a CodedError `NF_USAGE` where they are out of range
 */
export function readBenchOptions<const T extends ParseArgsOptionsConfig, R>(
  usage: string, options: T, read: (values: ReturnType<typeof parseArgs<{ options: T }>>['values']) => R,
): R {
  try {
    if (process.argv.includes('--help')) {
      process.stdout.write(`${usage}\n`)
      process.exit(ExitStatus.ok)
    }
    return read(parseArgs({ options }).values)
  } catch (error) {
    process.exit(reportError(asUsageError(error, `Usage: ${usage}`)))
  }
}
