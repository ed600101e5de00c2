/**
 * Cluster members: what the processes of a cluster's nodes are started with, from what the cluster is.
 */

import type { Founding } from '../controller/controller.ts'
import { machineOf } from '../controller/machines.ts'
import { pem } from './api-address.ts'
import type { ClusterSpec } from './cluster-file.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import type { MachineAddress } from './machine-connection.ts'
import { FIRST_RUNTIME_ID, type RuntimeConfig, type SwitchConfig } from './node-config.ts'

/** The cluster as its file in the folder says it: what every controller is to know. */
export interface ClusterIdentity {
  readonly clusterId: number
  readonly spec: ClusterSpec
  /** What its containers are made of, if it has any. */
  readonly image?: string
  /** Numbers of the cores that its nodes may use; all without. */
  readonly cpus?: readonly number[]
}

export type SwitchMember = Omit<SwitchConfig, 'incarnation'>
export type RuntimeMember = RuntimeConfig
export type MemberConfig = SwitchMember | RuntimeMember

export const INGRESS_ID = 1
export const EGRESS_ID = 2

export function runtimeName(id: number): string {
  return `runtime-${id - FIRST_RUNTIME_ID + 1}`
}

export function switchMembers({ clusterId, spec }: ClusterIdentity, folder: ClusterFolder): SwitchMember[] {
  const switches = [{ id: INGRESS_ID, name: 'ingress', external: spec.ingress }]
  if (spec.egress !== undefined) switches.push({ id: EGRESS_ID, name: 'egress', external: spec.egress })
  return switches.map((own) => ({
    kind: 'switch', clusterId, folder: folder.path, ...own, seed: own.id, externalFolder: spec.folder, placement: spec.placement, limits: {},
    ...networkOf(spec, 0),
    ...switches.length > 1 && { bypass: own.id === INGRESS_ID ? EGRESS_ID : INGRESS_ID },
  }))
}

export function runtimeMember({ clusterId, spec }: ClusterIdentity, folder: ClusterFolder, id: number, incarnation: number, chain: number):
    RuntimeMember {
  return {
    kind: 'runtime', clusterId, folder: folder.path, id, name: runtimeName(id), incarnation, chainVersion: chain, seed: id,
    run: folder.runFile(chain), nfFolder: spec.folder, replication: spec.replication, replicas: spec.replicas,
    ...networkOf(spec, machineOf(id, FIRST_RUNTIME_ID, Math.max(1, spec.machines.length))),
  }
}

/** How a node reaches those on other machines, if there are any. */
function networkOf({ machines }: ClusterSpec, machine: number): Pick<RuntimeConfig, 'network'> {
  if (machines.length === 0) return {}
  const { interface: interfaceName, namespace } = machines[machine]
  return { network: { interface: interfaceName, ...namespace !== undefined && { namespace }, machine, machines: machines.length } }
}

/** Name of the machine that a node is on; empty where there is but one. */
export function machineNameOf({ machines }: ClusterSpec, id: number): string {
  return machines.length === 0 ? '' : machines[machineOf(id, FIRST_RUNTIME_ID, machines.length)].name
}

/** Where the agents of machines behind the first are. @throws CodedError for an authority's file */
export function machineAddresses({ machines, folder }: ClusterSpec): MachineAddress[] {
  return machines.flatMap(({ name, agent }) => (agent === undefined ? [] : [{
    name, host: agent.host, port: agent.port,
    authority: agent.authority === undefined ? undefined : pem(agent.authority, folder, `authority of machine ${name}`) }]))
}

/** What the first leader ever puts into the store. */
export function foundingOf({ clusterId, spec }: ClusterIdentity): Founding {
  return {
    clusterId, desired: spec.runtimes, isAutomatic: spec.scale !== undefined, chain: 1,
    switches: [
      { id: INGRESS_ID, side: 'ingress', isHome: true } as const,
      ...spec.egress === undefined ? [] : [{ id: EGRESS_ID, side: 'egress', isHome: false } as const],
    ],
  }
}
