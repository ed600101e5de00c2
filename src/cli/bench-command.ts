/**
 * `nfactor bench`: the benches are programs of the source tree, next to `src`; packages do not carry them.
 */

import { existsSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import { ExitStatus } from './exit-status.ts'

export async function benchEngineCommand(args: readonly string[]): Promise<number> {
  const file = new URL('../../bench/engine/main.ts', import.meta.url)
  if (!existsSync(file)) {
    throw new CodedError('NF_BENCH', 'the benches are not part of the installed package', 'Run this in the source tree')
  }
  const { main } = await import(file.href) as { main(args: readonly string[]): Promise<number | void> }
  try {
    return await main(args) ?? ExitStatus.ok
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code?.startsWith('ERR_PARSE_ARGS_') !== true) throw error
    throw new CodedError('NF_USAGE', message.replace(/\. .*$/, ''), 'See nfactor bench engine -- --help', { cause: error })
  }
}
