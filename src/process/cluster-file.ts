/**
 * Cluster file: one cluster, in YAML or JSON. Everything has a default: without a file, a generator at the ingress
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
import { DEFAULT_ENGINE_SOCKET } from './container-engine.ts'
import { externalPortSchema, interfaceName, type ExternalPortConfig } from './external-port-schema.ts'
import { CPU_LIMIT, placementSchema, replicasSchema, replicationSchema } from './node-config.ts'
import { isLoopback } from '../rpc/loopback.ts'
import { configError, resolveRunConfig, type PlacedProblem, type RunConfig } from './run-config.ts'
import { runConfigSchema, type RunConfigDocument } from './run-config-schema.ts'

const RUNTIMES_MAX = 64
const CONTROLLERS_MAX = 7
const MACHINES_MAX = 16
export const PORT_MAX = 65_535
export const DEFAULT_CLUSTER_NAME = 'default'

export const clusterNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/,
  'a cluster has a name of 1 to 32 lower-case letters, digits and dashes')

export const apiTlsSchema = z.strictObject({
  certificate: z.string().min(1).describe('PEM file: the certificate with its chain'),
  key: z.string().min(1).describe('PEM file: its key'),
  clientAuthority: z.string().min(1).optional().describe('PEM file; clients must show a certificate that it has signed'),
}).describe('Files are relative to this one')

const machineSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/, 'a machine has a name of 1 to 32 lower-case letters, digits and dashes'),
  interface: interfaceName.describe('Interface there at the network that joins the machines, and nobody else'),
  namespace: z.string().min(1).optional().describe('Network namespace of the interface'),
  runtimes: z.int().min(0).max(RUNTIMES_MAX).default(RUNTIMES_MAX).describe('How many runtimes there at most'),
  agent: z.strictObject({
    host: z.string().min(1).describe('Address at which nfactor machine listens there'),
    port: z.int().min(1).max(PORT_MAX).default(7090),
    authority: z.string().min(1).optional().describe('PEM file: TLS is spoken, and the agent\'s certificate must be signed by this'),
    clear: z.boolean().default(false).describe('Speaks in clear text with an address that is not this machine\'s own'),
  }).refine(({ host, authority, clear }) => authority !== undefined || clear || isLoopback(host),
    'another machine is spoken to in TLS, with authority, or, on a network that is trusted, with clear: true')
    .optional().describe('Of every machine but the first'),
})

const machinesSchema = z.array(machineSchema).min(2).max(MACHINES_MAX).superRefine((machines, context) => {
  for (const [index, { name, agent }] of machines.entries()) {
    const fault = (key: string, message: string): void => { context.addIssue({ code: 'custom', path: [index, key], message }) }
    if (machines.findIndex((one) => one.name === name) < index) fault('name', `there are two machines named ${name}`)
    if (index === 0 && agent !== undefined) fault('agent', 'the first machine is this one, which needs no agent')
    if (index > 0 && agent === undefined) fault('agent', 'a machine behind the first one says where its agent is')
  }
})

const containerSchema = z.strictObject({
  socket: z.string().min(1).default(DEFAULT_ENGINE_SOCKET).describe('UNIX socket of the container engine (Docker)'),
  image: z.string().min(1).optional().describe('Image of the nodes, whose entry point is nfactor; made of this installation without it'),
  memory: z.int().min(128).max(1 << 20).optional().describe('What a node may use, in MiB'),
  cores: z.number().min(0.05).max(1024).optional().describe('Time of how many cores a node may use'),
})

export type ContainerSettings = z.output<typeof containerSchema>

interface Outline {
  readonly machines?: readonly z.output<typeof machineSchema>[] | undefined
  readonly token?: string | undefined
  readonly runtimes: number
  readonly scale?: { readonly max: number } | undefined
  readonly launcher: 'process' | 'container'
  readonly container?: ContainerSettings | undefined
  readonly ingress?: ExternalPortConfig | undefined
  readonly egress?: ExternalPortConfig | undefined
}

function checkMachines({ machines, token, runtimes, scale, launcher, ingress, egress }: Outline, context: z.RefinementCtx): void {
  if (machines === undefined) return
  const fault = (path: (string | number)[], message: string): void => { context.addIssue({ code: 'custom', path, message }) }
  if (token === undefined) fault(['machines'], 'machines know each other by a token: name its file, token: FILE')
  const room = machines.reduce((sum, machine) => sum + machine.runtimes, 0)
  const most = scale?.max ?? runtimes
  if (most > room) fault(['machines'], `they have room for ${room} runtimes, and there are to be ${most}`)
  const [{ interface: own, namespace }] = machines
  for (const [name, port] of [['ingress', ingress], ['egress', egress]] as const) {
    if (port === undefined || !('interface' in port) || port.interface !== own || port.namespace !== namespace) continue
    fault(['machines', 0, 'interface'], `it is the outer side of ${name}, from where nobody may speak as a node`)
  }
  if (launcher !== 'process') fault(['machines'], 'nodes in containers are on one machine')
}

function checkContainers({ launcher, container, ingress, egress }: Outline, context: z.RefinementCtx): void {
  const issue = (message: string, ...path: string[]): void => { context.addIssue({ code: 'custom', message, path }) }
  if (launcher === 'process') {
    if (container !== undefined) issue('nothing is in a container without launcher: container', 'container')
    return
  }
  for (const [side, port] of [['ingress', ingress], ['egress', egress]] as const) {
    if (port === undefined) continue
    if (port.type === 'tap' || port.type === 'af-xdp') issue(`a container cannot have a port of type ${port.type}; use af-packet`, side, 'type')
    else if (port.type === 'af-packet' && port.namespace !== undefined) {
      issue('a container has the engine\'s network namespace; move the interface there', side, 'namespace')
    }
  }
}

/** A router sends by its own addresses: a cable on the other side would pass frames on that are for nobody there. */
function checkRouters({ ingress, egress }: Outline, context: z.RefinementCtx): void {
  const isRouter = (port: ExternalPortConfig | undefined): boolean => port !== undefined && 'router' in port && port.router !== undefined
  const isCable = (port: ExternalPortConfig | undefined): boolean => port !== undefined && 'interface' in port && !isRouter(port)
  for (const [path, own, other] of [['ingress', ingress, egress], ['egress', egress, ingress]] as const) {
    if (!isCable(own) || !isRouter(other)) continue
    context.addIssue({ code: 'custom', path: [path], message: 'the other side is a router, so this one needs router, too' })
  }
}

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
    tls: apiTlsSchema.optional(),
  }).refine(({ host, tls }) => tls !== undefined || isLoopback(host), 'an address that others can reach needs tls, or the token could be read')
    .optional().describe('Controllers can be called at TCP too, with the token in the cluster\'s folder'),
  token: z.string().min(1).optional().describe('File of the token that callers of the API and machines show; one is made unless told'),
  machines: machinesSchema.optional()
    .describe('The machines that runtimes are on; the first is this one, with the switches and the controllers. One unless told'),
  launcher: z.enum(['process', 'container']).default('process').describe('What a node is: a process, or a container'),
  container: containerSchema.optional().describe('With launcher: container'),
  cpus: z.union([z.literal('auto'), z.array(z.int().min(0).max(CPU_LIMIT - 1)).min(1)
    .refine((list) => new Set(list).size === list.length, 'a core stands there twice')]).optional()
    .describe('Numbers of the cores that nodes may use, or auto for all: each node has one of its own while there are enough'),
  ingress: externalPortSchema.optional().describe('Outer side of the ingress switch'),
  egress: externalPortSchema.optional().describe('Outer side of the egress switch; without it there is one switch only'),
}).superRefine((document, context) => {
  checkMachines(document, context)
  checkContainers(document, context)
  checkRouters(document, context)
}).describe('Configuration of nfactor up, and of nfactor run, which takes chain, limits, timeouts and policy of it')

export type ClusterDocument = z.output<typeof clusterSchema>

export type MachineSpec = z.output<typeof machineSchema>

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
  /** File of the cluster's token, relative to `folder`. */
  readonly token: string | undefined
  readonly machines: readonly MachineSpec[]
  readonly launcher: ClusterDocument['launcher']
  readonly container: ContainerSettings | undefined
  readonly cpus: ClusterDocument['cpus']
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

/** Links between machines carry ordinary frames: whatever is longer is cut where it comes in. */
function withoutLongSegments(port: ExternalPortConfig): ExternalPortConfig {
  return port.type === 'af-packet' || port.type === 'tap' ? { ...port, segments: 'cut' } : port
}

/** @param config what chain and settings of the content mean */
export function specOf(content: ClusterDocument, config: RunConfig, file: string | undefined): ClusterSpec {
  const {
    name, runtimes, placement, replication, replicas, scale, controllers, etcd, api, token, machines = [], launcher, container, cpus,
    chain, limits, timeouts, policy,
  } = content
  const patience = content.patience ?? (replication === 'none' ? 2 : 0.5)
  const isDefault = content.ingress === undefined && content.egress === undefined
  const ingress = content.ingress ?? externalPortSchema.parse({ type: isDefault ? 'generator' : 'none' })
  const egress = content.egress ?? (isDefault ? externalPortSchema.parse({ type: 'sink' }) : undefined)
  return {
    name, placement, replication, replicas, scale, patience, controllers, etcd, api, token, machines, launcher, cpus,
    container: launcher === 'container' ? container ?? containerSchema.parse({}) : undefined,
    ingress: machines.length === 0 ? ingress : withoutLongSegments(ingress),
    egress: egress === undefined || machines.length === 0 ? egress : withoutLongSegments(egress),
    runtimes: Math.min(scale?.max ?? RUNTIMES_MAX, Math.max(scale?.min ?? 1, runtimes)),
    run: { chain, limits, timeouts, policy },
    folder: file === undefined ? process.cwd() : dirname(resolve(file)),
    chain: config.chain.map(({ definition }) => definition.name),
  }
}
