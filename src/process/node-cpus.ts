/**
 * Cores of nodes: which of this machine's a cluster has for them, and which of those a node gets.
 *
 *     cpus: [2, 3, 4]       ingress 2     egress 3     runtime-1 4     runtime-2 2, 3 or 4     the next life of ingress 2 again
 *
 * A node gets a core of its own while there is one that no other has; else all of them. Controllers and supervisor are left where they are.
 */

import { readFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import type { ClusterSpec } from './cluster-file.ts'

/** @throws CodedError `NF_CONFIG_INVALID` for a core that this machine does not have, or not for us */
export function cpusOfCluster({ cpus }: Pick<ClusterSpec, 'cpus'>): readonly number[] {
  if (cpus === undefined) return []
  const allowed = allowedCpus()
  if (cpus === 'auto') return allowed
  const wrong = cpus.find((cpu) => !allowed.includes(cpu))
  if (wrong === undefined) return cpus
  throw new CodedError('NF_CONFIG_INVALID', `cpus: there is no core ${wrong} that we may use`, `There are ${allowed.join(', ')}`)
}

/** @param taken the cores of each node that there is */
export function cpusOfNode(all: readonly number[], taken: readonly (readonly number[] | undefined)[]): readonly number[] {
  const free = all.find((cpu) => !taken.some((cpus) => cpus?.length === 1 && cpus[0] === cpu))
  return free === undefined ? all : [free]
}

/** Numbers of the cores that a thread or process, or this one, may use. */
export function allowedCpus(path = 'self'): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync(`/proc/${path}/status`, 'utf8'))?.[1] ?? ''
  return list.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
}
