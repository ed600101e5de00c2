/**
 * `nfactor schema`: the JSON Schema of configuration files. Its output is also kept as docs/config.schema.json.
 */

import { builtInNfs } from '../nfs/index.ts'
import { clusterSchema } from '../process/cluster-file.ts'
import { loadNf } from '../process/nf-loader.ts'
import { runConfigJsonSchema } from '../process/run-config-schema.ts'
import { ExitStatus } from './exit-status.ts'

/** The schema as it is printed. */
export async function schemaText(): Promise<string> {
  const definitions = await Promise.all(Object.keys(builtInNfs).map((name) => loadNf(name)))
  return `${JSON.stringify(runConfigJsonSchema(definitions, clusterSchema), null, 2)}\n`
}

export async function schemaCommand(): Promise<number> {
  process.stdout.write(await schemaText())
  return ExitStatus.ok
}
