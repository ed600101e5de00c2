/**
 * Cluster members: what the processes of a cluster's nodes are started with, from what the cluster is.
 */

import type { Founding } from '../controller/controller.ts'
import type { ClusterSpec } from './cluster-file.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import type { RuntimeConfig, SwitchConfig } from './node-config.ts'

/** The cluster as its file in the folder says it: what every controller is to know. */
export interface ClusterIdentity {
  readonly clusterId: number
  readonly spec: ClusterSpec
}

export type SwitchMember = Omit<SwitchConfig, 'incarnation'>
export type RuntimeMember = RuntimeConfig
export type MemberConfig = SwitchMember | RuntimeMember

export const INGRESS_ID = 1
export const EGRESS_ID = 2
export const FIRST_RUNTIME_ID = 11

export function runtimeName(id: number): string {
  return `runtime-${id - FIRST_RUNTIME_ID + 1}`
}

export function switchMembers({ clusterId, spec }: ClusterIdentity, folder: ClusterFolder): SwitchMember[] {
  const switches = [{ id: INGRESS_ID, name: 'ingress', external: spec.ingress }]
  if (spec.egress !== undefined) switches.push({ id: EGRESS_ID, name: 'egress', external: spec.egress })
  return switches.map((own) => ({
    kind: 'switch', clusterId, folder: folder.path, ...own, seed: own.id, externalFolder: spec.folder, placement: spec.placement, limits: {},
    ...switches.length > 1 && { bypass: own.id === INGRESS_ID ? EGRESS_ID : INGRESS_ID },
  }))
}

export function runtimeMember({ clusterId, spec }: ClusterIdentity, folder: ClusterFolder, id: number, incarnation: number, chain: number):
    RuntimeMember {
  return {
    kind: 'runtime', clusterId, folder: folder.path, id, name: runtimeName(id), incarnation, chainVersion: chain, seed: id,
    run: folder.runFile(chain), nfFolder: spec.folder, replication: spec.replication, replicas: spec.replicas,
  }
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
