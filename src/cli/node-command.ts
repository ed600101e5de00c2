/**
 * `nfactor runtime` and `nfactor switch`: one node of a cluster as a process. A supervisor starts them; for people who build their own.
 */

import { writeSync } from 'node:fs'
import { NodeExit, NodeProcess } from '../process/node-process.ts'
import { readNodeConfig, type NodeConfig } from '../process/node-config.ts'

export async function nodeCommand(kind: NodeConfig['kind'], file: string): Promise<number> {
  const config = readNodeConfig(file, kind)
  process.umask(0o077)
  process.title = `nfactor ${config.name}`
  const node = new NodeProcess(config, endAtOnce)
  process.on('uncaughtException', (error) => { endAtOnce(node.report(error)) })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { node.stop() })
  return await node.run()
}

/** A defect: what comes after it would be wrong. */
function endAtOnce(report: string): never {
  writeSync(2, `error NF_INTERNAL: this is a defect of NFactor\n${report}\n`)
  process.exit(NodeExit.defect)
}
