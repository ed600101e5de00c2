/**
 * `nfactor check`: every problem of a configuration file, each with its place, as compilers write them.
 */

import { resolveRunConfig } from '../process/run-config.ts'
import { ExitStatus } from './exit-status.ts'
import { countOf } from './number-text.ts'

export async function checkCommand(file: string, options: { readonly json?: boolean }): Promise<number> {
  const { config, problems } = await resolveRunConfig({ file })
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ file, ok: config !== undefined, problems })}\n`)
  } else if (config !== undefined) {
    process.stdout.write(`${file}: OK (chain ${config.chain.map(({ definition }) => definition.name).join(', ')})\n`)
  } else {
    for (const { place, code, message, mend } of problems) {
      process.stdout.write(`${place}: ${code}: ${message}${mend === '' ? '' : `. ${mend}`}\n`)
    }
    process.stdout.write(`${countOf(problems.length, 'problem')}\n`)
  }
  return config === undefined ? ExitStatus.failed : ExitStatus.ok
}
