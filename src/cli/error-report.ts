/**
 * How a command says what went wrong: an operating error in one line with its code, a defect with its stack.
 */

import { styleText } from 'node:util'
import { CodedError } from '../base/coded-error.ts'
import { ExitStatus } from './exit-status.ts'

/** Prints the error on standard error. Returns the exit status that it means. */
export function reportError(error: unknown): number {
  const stream = process.stderr
  const label = styleText('red', 'error', { stream })
  if (error instanceof CodedError) {
    process.stderr.write(`${label} ${error.toLine()}\n`)
    return error.code === 'NF_USAGE' ? ExitStatus.usage : ExitStatus.failed
  }
  const stack = error instanceof Error ? error.stack ?? error.message : String(error)
  process.stderr.write(`${label} NF_INTERNAL: this is a defect of NFactor\n${stack}\n`)
  return ExitStatus.failed
}

/** Prints a warning on standard error, one line. */
export function reportWarning(message: string): void {
  process.stderr.write(`${styleText('yellow', 'warning', { stream: process.stderr })} ${message}\n`)
}
