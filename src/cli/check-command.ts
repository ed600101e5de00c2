/**
 * `nfactor check`: every problem of a configuration file, each with its place, as compilers write them.
 */

import { resolveCluster } from '../process/cluster-file.ts'
import { ExitStatus } from './exit-status.ts'
import { countOf } from './number-text.ts'

export async function checkCommand(file: string, options: { readonly json?: boolean }): Promise<number> {
  const { spec, problems } = await resolveCluster(file)
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ file, ok: spec !== undefined, problems })}\n`)
  } else if (spec !== undefined) {
    process.stdout.write(`${file}: OK (chain ${spec.chain.join(', ')})\n`)
  } else {
    for (const { place, code, message, mend } of problems) {
      process.stdout.write(`${place}: ${code}: ${message}${mend === '' ? '' : `. ${mend}`}\n`)
    }
    process.stdout.write(`${countOf(problems.length, 'problem')}\n`)
  }
  return spec === undefined ? ExitStatus.failed : ExitStatus.ok
}
