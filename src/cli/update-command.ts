/**
 * `nfactor update`: brings a running cluster to another version of its chain, flow by flow.
 */

import { CodedError } from '../base/coded-error.ts'
import { chainUpdate } from '../process/chain-update.ts'
import { ClusterClient } from '../process/cluster-client.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { ExitStatus } from './exit-status.ts'

export interface UpdateCommandOptions {
  readonly name: string
  readonly json?: boolean
  readonly set: readonly string[]
  readonly onFailure: string
  readonly pause?: boolean
  readonly resume?: boolean
  readonly rollBack?: boolean
}

export async function updateCommand(file: string | undefined, options: UpdateCommandOptions): Promise<number> {
  const folder = ClusterFolder.ofCluster(options.name)
  const cluster = new ClusterClient(options.name, folder)
  const action = options.pause ? 'pause' : options.resume ? 'resume' : options.rollBack ? 'roll-back' : 'begin'
  if (action !== 'begin' && (file !== undefined || options.set.length > 0)) {
    throw new CodedError('NF_USAGE', `--${action} takes no configuration`, 'Leave it out')
  }
  const result = await cluster.update({ action, ...action === 'begin' && {
    onFailure: options.onFailure, ...await wanted(file, options, cluster) } })
  const { version, phase, reason, seconds } = result
  const ends: Readonly<Record<string, string>> = { 'done': 'all flows are on', 'rolled-back': 'no flow is on', 'paused': 'some flows are on' }
  const text = `${phase}: ${ends[phase] ?? phase} version ${version} of the chain, after ${seconds} s${reason === '' ? '' : `: ${reason}`}`
  process.stdout.write(`${options.json === true ? JSON.stringify(result) : text}\n`)
  const isAsWanted = phase === (action === 'roll-back' ? 'rolled-back' : action === 'pause' ? 'paused' : 'done')
  return isAsWanted ? ExitStatus.ok : ExitStatus.failed
}

/** What runtimes are to run from now on, checked here. */
async function wanted(file: string | undefined, { set }: UpdateCommandOptions, cluster: ClusterClient): Promise<object> {
  if (file === undefined && set.length === 0) throw new CodedError('NF_USAGE', 'update needs a file, or --set', 'See nfactor update --help')
  // Is it there at all? That comes first.
  const { chainVersion } = await cluster.status()
  return await chainUpdate(cluster.folder, chainVersion, { file, settings: set })
}
