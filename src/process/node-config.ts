/**
 * Node configuration: what one process of a cluster is started with, a file in YAML or JSON. A supervisor writes it; who starts a
 * process by hand does it himself.
 *
 *     { kind: switch, id: 1, incarnation: 1, folder: /run/user/1000/nfactor/web, external: { type: tap, interface: nf0 } }
 *     { kind: runtime, id: 11, incarnation: 3, folder: ..., run: run.json }
 *
 * Which other nodes there are, and which life of each is meant, comes from a controller, or whoever else says `NotifyClusterConfig`.
 */

import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { CodedError } from '../base/coded-error.ts'
import { INCARNATION_LIMIT, NODE_ID_MAX, type ClusterConfig } from '../messages/cluster-config.ts'
import { placementPolicies, type PlacementPolicyName } from '../vswitch/placement/index.ts'
import { ConfigDocument, readConfigDocument } from './config-document.ts'
import { checkAgainst } from './config-problem.ts'
import { externalPortSchema } from './external-port-schema.ts'
import { limitsSchema } from './run-config-schema.ts'

/** Ids of runtimes begin here; those below are switches'. */
export const FIRST_RUNTIME_ID = 11

/** Cores have numbers below this. */
export const CPU_LIMIT = 1024

const id = z.int().min(1).max(NODE_ID_MAX)
const incarnation = z.int().min(1).max(INCARNATION_LIMIT - 1)

export const placementSchema = z.enum(Object.keys(placementPolicies) as [PlacementPolicyName, ...PlacementPolicyName[]])
  .default('round-robin').describe('Which runtime serves a new flow')

export const replicationSchema = z.enum(['none', 'async', 'commit']).default('none')
  .describe('Whether each flow has a replica at another runtime: none, some packets behind, or ahead of every packet that leaves')

export const replicasSchema = z.int().min(1).max(2).default(1)
  .describe('How many replicas a flow has, with replication: so many runtimes may die at once. With fewer runtimes, as many as can be')

const nodeFields = {
  id: id.describe('Unique in the cluster, over switches and runtimes'),
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/).describe('What people call the node'),
  clusterId: z.int().min(1).max(0xffffffff).describe('Nodes with another one are not heard'),
  folder: z.string().min(1).describe('Folder of the cluster\'s sockets, for its owner alone'),
  seed: z.int().min(0).max(0xffffffff).default(1),
  network: z.strictObject({
    interface: z.string().min(1).describe('Interface at the network that joins the machines'),
    namespace: z.string().min(1).optional().describe('Network namespace of the interface'),
    machine: z.int().min(0).describe('Number of this machine'),
    machines: z.int().min(1).describe('How many there are'),
  }).optional().describe('Of a cluster on several machines'),
  cpus: z.array(z.int().min(0).max(CPU_LIMIT - 1)).min(1).optional().describe('Numbers of the cores that the process may use'),
}

export const nodeConfigSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('runtime'), ...nodeFields,
    incarnation: incarnation.describe('This life of the node: unique in the cluster for ever'),
    chainVersion: z.int().min(0).default(0).describe('Version of the chain, as controllers count'),
    run: z.string().optional().describe('Configuration of nfactor run: chain, limits, timeouts, policy'),
    replication: replicationSchema,
    replicas: replicasSchema,
    nfFolder: z.string().optional().describe('Where relative names of network functions start'),
  }),
  z.strictObject({
    kind: z.literal('switch'), ...nodeFields,
    incarnation: incarnation.optional().describe('This life of the node; without it a controller gives it one'),
    external: externalPortSchema,
    externalFolder: z.string().default('.').describe('Where relative names of capture files start'),
    /** The switch on the other side: frames that are not IP go there. */
    bypass: id.optional().describe('Id of the switch at the other side, for frames that are not IP'),
    placement: placementSchema,
    limits: z.strictObject({
      entries: z.int().min(64).max(2 ** 26).optional(),
      packets: limitsSchema.shape.packets.optional(),
      largePackets: limitsSchema.shape.largePackets.optional(),
    }).default({}),
  }),
])

export type NodeConfig = z.output<typeof nodeConfigSchema>
export type RuntimeConfig = Extract<NodeConfig, { kind: 'runtime' }>
export type SwitchConfig = Extract<NodeConfig, { kind: 'switch' }>

/** What `NotifyClusterConfig` takes. */
export const clusterConfigSchema: z.ZodType<ClusterConfig> = z.strictObject({
  version: z.int().min(1),
  clusterId: z.int().min(1).max(0xffffffff),
  switches: z.array(z.strictObject({
    id, incarnation: z.int().min(0).max(INCARNATION_LIMIT - 1), side: z.enum(['ingress', 'egress']), isHome: z.boolean(),
  })).min(1),
  runtimes: z.array(z.strictObject({ id, incarnation, isDraining: z.boolean() })),
})

/**
 * Reads a node's file.
 *
 * @throws CodedError `NF_FILE_...`, `NF_CONFIG_SYNTAX`, `NF_CONFIG_INVALID`
 */
export function readNodeConfig(file: string, kind: NodeConfig['kind']): NodeConfig {
  const config = readChecked(file, nodeConfigSchema)
  if (config.kind !== kind) throw new CodedError('NF_CONFIG_INVALID', `${file} is for a ${config.kind}`, `Run nfactor ${config.kind} ${file}`)
  return config.kind === 'runtime' && config.run !== undefined ? { ...config, run: resolve(dirname(resolve(file)), config.run) } : config
}

/** Does once what reading a node's file does, so that the first one is read in one millisecond rather than in twenty: for a process in stock. */
export function rehearseNodeConfig(): void {
  checked(new ConfigDocument('rehearsal', JSON.stringify({
    kind: 'switch', id: 1, name: 'rehearsal', clusterId: 1, folder: '.', external: { type: 'af-packet', interface: 'none' }, limits: {} })),
  nodeConfigSchema)
}

/** What is in a file that fits a schema. @throws CodedError as `readNodeConfig` */
export function readChecked<T>(file: string, schema: z.ZodType<T>): T {
  return checked(readConfigDocument(file), schema)
}

function checked<T>(document: ConfigDocument, schema: z.ZodType<T>): T {
  const { file } = document
  const [syntax] = document.syntaxProblems
  if (syntax !== undefined) throw new CodedError('NF_CONFIG_SYNTAX', `${file}:${syntax.line}:${syntax.column}: ${syntax.message}`)
  const { data, problems: [problem] } = checkAgainst(schema, document.value)
  if (problem === undefined) return data as T
  const { line, column } = document.place(problem.path, problem.atKey)
  throw new CodedError(problem.code, `${file}:${line}:${column}: ${problem.message}`, problem.mend)
}
