/**
 * `nfactor update`: brings a running cluster to another version of its chain, flow by flow.
 */

import { dirname, isAbsolute, resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { ClusterClient } from '../process/cluster-client.ts'
import { clusterSchema, type ClusterDocument } from '../process/cluster-file.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { configError, defaultChain, resolveRunConfig, type RunConfig } from '../process/run-config.ts'
import { readIdentity } from '../process/supervisor.ts'
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

/** What runtimes are to run from now on, checked here; names of files made absolute, so that it means the same there. */
async function wanted(file: string | undefined, { set }: UpdateCommandOptions, cluster: ClusterClient): Promise<object> {
  if (file === undefined && set.length === 0) throw new CodedError('NF_USAGE', 'update needs a file, or --set', 'See nfactor update --help')
  // Is it there at all? That comes first.
  const { chainVersion } = await cluster.status()
  const { spec } = readIdentity(cluster.folder)
  const base = file === undefined ? spec.folder : dirname(resolve(file))
  const former = await resolveRunConfig({ file: cluster.folder.runFile(chainVersion), folder: spec.folder })
  const next = await resolveRunConfig({
    file: file ?? cluster.folder.runFile(chainVersion), folder: base, settings: set, schema: clusterSchema })
  if (next.config === undefined || next.content === undefined) throw configError(next.problems, file)
  const { chain, limits, timeouts, policy } = next.content as ClusterDocument
  const run = { chain: (chain ?? defaultChain).map((member) => absolute(member, base)), limits, timeouts, policy }
  return { run, isReversible: former.config !== undefined && haveSameState(former.config, next.config) }
}

function absolute(member: NonNullable<ClusterDocument['chain']>[number], base: string): unknown {
  const place = (name: string): string => name.startsWith('.') && !isAbsolute(name) ? resolve(base, name) : name
  return typeof member === 'string' ? place(member) : { ...member, nf: place(member.nf) }
}

/** Flows can go back too where no network function has changed what it keeps. */
function haveSameState(before: RunConfig, next: RunConfig): boolean {
  const kinds = ({ chain }: RunConfig): string => chain.map(({ definition }) => `${definition.name} ${definition.version}`).join(', ')
  return kinds(before) === kinds(next)
}
