/**
 * Cluster file: one cluster on one machine, in YAML or JSON. Everything has a default: without a file, a generator at the ingress
 * switch sends through two runtimes to a sink at the egress switch.
 *
 *     name: web
 *     chain: [monitor, firewall, http]
 *     ingress: { type: af-packet, interface: eth1 }
 *     egress: { type: af-packet, interface: eth2 }
 *     runtimes: 3
 *
 * Chain, limits, timeouts and policy are written as for nfactor run, and mean each runtime. A run takes such a file too, and what it
 * says of these.
 */

import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { externalPortSchema, type ExternalPortConfig } from './external-port-schema.ts'
import { placementSchema, replicasSchema, replicationSchema } from './node-config.ts'
import { isLoopback } from '../rpc/loopback.ts'
import { configError, resolveRunConfig, type PlacedProblem, type RunConfig } from './run-config.ts'
import { runConfigSchema, type RunConfigDocument } from './run-config-schema.ts'

const RUNTIMES_MAX = 64
const CONTROLLERS_MAX = 7
const PORT_MAX = 65_535
export const DEFAULT_CLUSTER_NAME = 'default'

export const clusterNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/,
  'a cluster has a name of 1 to 32 lower-case letters, digits and dashes')

export const clusterSchema = runConfigSchema.extend({
  name: clusterNameSchema.default(DEFAULT_CLUSTER_NAME).describe('Name of the cluster on this machine'),
  runtimes: z.int().min(1).max(RUNTIMES_MAX).default(2).describe('How many runtimes'),
  placement: placementSchema,
  replication: replicationSchema,
  replicas: replicasSchema,
  scale: z.strictObject({
    min: z.int().min(1).max(RUNTIMES_MAX).default(1).describe('How many runtimes at least'),
    max: z.int().min(1).max(RUNTIMES_MAX).default(16).describe('How many runtimes at most'),
    high: z.number().min(0.05).max(1).default(0.8).describe('Another runtime comes where each has more load than this, 0 to 1'),
    low: z.number().min(0.01).max(0.95).default(0.6).describe('One goes where the others would have less than this each'),
    pause: z.number().min(1).max(3600).default(30)
      .describe('Seconds from one that goes to the next; twice that after one that has come, and the load of four times that must allow it'),
  }).refine(({ min, max }) => min <= max, 'min is more than max').refine(({ low, high }) => low < high, 'low is not below high').optional()
    .describe('The number of runtimes follows the load; without it there are as many as were asked for'),
  patience: z.number().min(0.05).max(60).optional()
    .describe('Seconds that a node may stand still before it is taken for dead: 0.5 with replication, 2 without'),
  controllers: z.int().min(1).max(CONTROLLERS_MAX).default(1).describe('How many controllers; one of them leads'),
  etcd: z.strictObject({
    endpoints: z.array(z.url()).min(1).describe('http://HOST:PORT of its members'),
    prefix: z.string().optional().describe('Of all keys; the cluster\'s own by default'),
  }).optional().describe('Where controllers keep what they decide; without it in a file of the cluster\'s folder'),
  api: z.strictObject({
    port: z.int().min(1).max(PORT_MAX + 1 - CONTROLLERS_MAX).describe('TCP port of the first controller; the second has the next, and so on'),
    host: z.string().min(1).default('127.0.0.1').describe('Address to listen at; others than this machine\'s own need tls'),
    tls: z.strictObject({
      certificate: z.string().min(1).describe('PEM file: the certificate with its chain'),
      key: z.string().min(1).describe('PEM file: its key'),
      clientAuthority: z.string().min(1).optional().describe('PEM file; clients must show a certificate that it has signed'),
    }).optional().describe('Files are relative to this one'),
  }).refine(({ host, tls }) => tls !== undefined || isLoopback(host), 'an address that others can reach needs tls, or the token could be read')
    .optional().describe('Controllers can be called at TCP too, with the token in the cluster\'s folder'),
  ingress: externalPortSchema.optional().describe('Outer side of the ingress switch'),
  egress: externalPortSchema.optional().describe('Outer side of the egress switch; without it there is one switch only'),
}).describe('Configuration of nfactor up, and of nfactor run, which takes chain, limits, timeouts and policy of it')

export type ClusterDocument = z.output<typeof clusterSchema>

export interface ClusterSpec {
  readonly name: string
  readonly runtimes: number
  readonly placement: ClusterDocument['placement']
  readonly replication: ClusterDocument['replication']
  readonly replicas: ClusterDocument['replicas']
  readonly scale: ClusterDocument['scale']
  readonly patience: number
  readonly controllers: number
  readonly etcd: ClusterDocument['etcd']
  readonly api: ClusterDocument['api']
  readonly ingress: ExternalPortConfig
  readonly egress: ExternalPortConfig | undefined
  /** What each runtime runs: what its file holds, and the folder in which relative names start. */
  readonly run: Pick<RunConfigDocument, 'chain' | 'limits' | 'timeouts' | 'policy'>
  readonly folder: string
  /** Names of the chain's network functions. */
  readonly chain: readonly string[]
}

/** What is in a file, and what is wrong with it. */
export async function resolveCluster(file: string | undefined, settings: readonly string[] = []):
    Promise<{ readonly spec: ClusterSpec | undefined, readonly problems: readonly PlacedProblem[] }> {
  const { config, problems, content } = await resolveRunConfig({ file, settings, schema: clusterSchema })
  if (config === undefined || content === undefined) return { spec: undefined, problems }
  return { spec: specOf(content as ClusterDocument, config, file), problems }
}

/** @throws CodedError for the first problem */
export async function readCluster(file: string | undefined, settings: readonly string[] = []): Promise<ClusterSpec> {
  const { spec, problems } = await resolveCluster(file, settings)
  if (spec === undefined) throw configError(problems, file)
  return spec
}

/** @param config what chain and settings of the content mean */
export function specOf(content: ClusterDocument, config: RunConfig, file: string | undefined): ClusterSpec {
  const { name, runtimes, placement, replication, replicas, scale, controllers, etcd, api, chain, limits, timeouts, policy } = content
  const patience = content.patience ?? (replication === 'none' ? 2 : 0.5)
  const isDefault = content.ingress === undefined && content.egress === undefined
  const ingress = content.ingress ?? externalPortSchema.parse({ type: isDefault ? 'generator' : 'none' })
  const egress = content.egress ?? (isDefault ? externalPortSchema.parse({ type: 'sink' }) : undefined)
  return {
    name, placement, replication, replicas, scale, patience, controllers, etcd, api, ingress, egress,
    runtimes: Math.min(scale?.max ?? RUNTIMES_MAX, Math.max(scale?.min ?? 1, runtimes)),
    run: { chain, limits, timeouts, policy },
    folder: file === undefined ? process.cwd() : dirname(resolve(file)),
    chain: config.chain.map(({ definition }) => definition.name),
  }
}
