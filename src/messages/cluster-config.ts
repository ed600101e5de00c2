/**
 * Cluster configuration: which nodes there are and which life of each is meant. Paper §5.3 (`NotifyClusterConfig`).
 *
 * Configurations are numbered; a node takes a newer one and refuses an older one (PROTOCOL 18). A node that is missing, or has
 * another incarnation than before, is fenced: nothing from its former life is accepted any more. A switch that is down stays in the
 * configuration, with incarnation 0, so that every flow key keeps its home (PROTOCOL 1). Incarnations are unique in
 * the cluster, over all nodes and all time, and below 2^21, so that a flow's id fits a safe number.
 */

export type Side = 'ingress' | 'egress'

export interface SwitchEntry {
  readonly id: number
  /** 0 while it is down. */
  readonly incarnation: number
  /** Which of a runtime's two data ports it is behind. */
  readonly side: Side
  /** True for switches that flow keys are at home at (PROTOCOL 1). At least one is. */
  readonly isHome: boolean
}

export interface RuntimeEntry {
  readonly id: number
  readonly incarnation: number
  /** A draining runtime keeps its flows until they have moved, and gets no new ones. */
  readonly isDraining: boolean
}

export interface ClusterConfig {
  readonly version: number
  /** Messages of other clusters are ignored. */
  readonly clusterId: number
  readonly switches: readonly SwitchEntry[]
  readonly runtimes: readonly RuntimeEntry[]
}

/** Switches in a cluster, at most: each is a bit in what a node waits for, and a byte in a message. */
export const SWITCHES_MAX = 8
/** Incarnations stay below this. */
export const INCARNATION_LIMIT = 2 ** 21
/** Node ids are 1 to 255; switches and runtimes share one space. */
export const NODE_ID_MAX = 255

/** True for a configuration that can be: few enough switches, ids and incarnations within their bounds, no id given twice. */
export function isClusterConfig({ switches, runtimes }: ClusterConfig): boolean {
  const ids = [...switches, ...runtimes].map(({ id }) => id)
  const isUpTo = (number: number, end: number): boolean => Number.isInteger(number) && number >= 0 && number <= end
  return switches.length <= SWITCHES_MAX && new Set(ids).size === ids.length && ids.every((id) => id > 0 && isUpTo(id, NODE_ID_MAX)) &&
    [...switches, ...runtimes].every(({ incarnation }) => isUpTo(incarnation, INCARNATION_LIMIT - 1))
}

/** A flow's id: made by its home switch, unique for ever (PROTOCOL 2). */
export function flowIdOf(incarnation: number, counter: number): number {
  return incarnation * 4294967296 + counter
}
