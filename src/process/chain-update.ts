/**
 * Chain update: the next version of a cluster's chain, from a file or from changes to the present one, checked before any runtime gets it.
 */

import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, resolve } from 'node:path'
import { clusterSchema, type ClusterDocument } from './cluster-file.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { configError, defaultChain, resolveRunConfig, type RunConfig } from './run-config.ts'
import { readIdentity } from './supervisor.ts'

/** What the leader is told. */
export interface ChainUpdate {
  /** What runtimes are to run; names of files are absolute. */
  readonly run: object
  /** Flows can go back too. */
  readonly isReversible: boolean
}

export interface ChainUpdateSources {
  /** A cluster's file; without it, the present version. */
  readonly file?: string
  /** KEY=VALUE */
  readonly settings?: readonly string[]
  /** A JSON file whose keys take the place of those of the present version; it is made whole. */
  readonly changes?: string
}

/**
 * @param chainVersion the present one
 * @throws CodedError what is wrong with it
 */
export async function chainUpdate(folder: ClusterFolder, chainVersion: number, sources: ChainUpdateSources): Promise<ChainUpdate> {
  const { file, settings, changes } = sources
  const { spec } = readIdentity(folder)
  const present = folder.runFile(chainVersion)
  const base = file === undefined ? spec.folder : dirname(resolve(file))
  if (changes !== undefined) {
    const changed = JSON.parse(readFileSync(changes, 'utf8')) as object
    folder.write(changes, JSON.stringify({ ...JSON.parse(readFileSync(present, 'utf8')) as object, ...changed }))
  }
  const former = await resolveRunConfig({ file: present, folder: spec.folder })
  const next = await resolveRunConfig({ file: file ?? changes ?? present, folder: base, settings,
    ...changes === undefined && { schema: clusterSchema } })
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
