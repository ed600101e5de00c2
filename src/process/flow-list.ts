/**
 * Flow list: the flows that a node knows, as people and programs see them (`ListFlows`).
 */

import { CodedError } from '../base/coded-error.ts'
import { FlowRecord, keyVersion, keyVlanOuter } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import { formatAddress } from '../memory/struct.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import { readSnapshot } from '../runtime/flow-snapshot.ts'
import { ipProtocolName } from '../wire/ipv4.ts'
import { flowLine } from './run-lines.ts'

export interface ListedFlow {
  /** Unique in the cluster for ever. */
  readonly flow: number
  /** Raised whenever the flow moves. */
  readonly epoch: number
  readonly phase: string
  readonly owner: number
  readonly protocol: string
  readonly vlan: number
  /** `address:port` of both endpoints. */
  readonly a: string
  readonly b: string
  /** Of flows that live here. */
  readonly packets?: number
  readonly bytes?: number
  /** With replication: the runtime that keeps its replica, 0 for none. */
  readonly replica?: number
  /** What each network function knows of it. */
  readonly state?: Readonly<Record<string, unknown>>
}

/** A flow as a replica of it has it: as it was when its owner last told. */
export interface ListedReplica {
  readonly flow: number
  readonly epoch: number
  readonly packets: number
  readonly bytes: number
  readonly state: Readonly<Record<string, unknown>>
}

export interface FlowListOptions {
  /** Text that must be in a flow's protocol or endpoints; several, separated by spaces, must all be. */
  readonly filter: string
  readonly limit: number
  readonly isStateWanted: boolean
  /** Only this one. */
  readonly flow?: number
}

export interface FlowList {
  /** How many fit, whatever the limit. */
  readonly total: number
  readonly flows: ListedFlow[]
}

export function listFlows(arena: Arena, node: RuntimeNode | SwitchNode, options: FlowListOptions): FlowList {
  const words = options.filter.toLowerCase().split(/\s+/).filter((word) => word !== '')
  const flows: ListedFlow[] = []
  let total = 0
  for (const { flow, epoch, phase, owner, key } of node.flows()) {
    if (options.flow !== undefined && flow !== options.flow) continue
    if (total >= options.limit && words.length === 0) {
      total++
      continue
    }
    const names = flowNames(arena.i32, key)
    const text = `${names.protocol} ${names.a} ${names.b}`
    if (!words.every((word) => text.includes(word))) continue
    if (total++ >= options.limit) continue
    const record = key << 2
    const isHere = node.kind === 'runtime' && owner === node.id && phase !== 'opening' && phase !== 'inheriting'
    if (!isHere) {
      flows.push({ flow, epoch, phase, owner, ...names })
      continue
    }
    const { packets, bytes, state } = flowLine(node.engine, record, 'finished')
    flows.push({ flow, epoch, phase, owner, ...names, packets, bytes, ...node.replicates && { replica: node.replicaOf(flow) },
      ...options.isStateWanted && { state } })
  }
  return { total, flows }
}

/**
 * What the replicas that a runtime keeps know of these flows. Those of which it has none are left out.
 *
 * @throws CodedError `NF_LIMIT` when there is not one free record to read them in
 */
export function listReplicas({ engine, keptReplica }: RuntimeNode, flows: readonly number[]): ListedReplica[] {
  const { slab, layoutHash } = engine
  const block = slab.take()
  if (block === 0) throw new CodedError('NF_LIMIT', 'a runtime that is full of flows has no room to read a replica in', 'Raise limits.flows')
  try {
    return flows.flatMap((flow) => {
      const kept = keptReplica(flow)
      if (kept === null) return []
      return readSnapshot(engine, layoutHash, kept.snapshot, block, (record) => {
        const { packets, bytes, state } = flowLine(engine, record, 'finished')
        return { flow, epoch: kept.epoch, packets, bytes, state }
      })
    })
  } finally {
    slab.give(block)
  }
}

/** Protocol and endpoints of the flow key at a word index. */
export function flowNames(i32: Int32Array, key: number): { protocol: string, vlan: number, a: string, b: string } {
  const tag = i32[key]
  const ports = i32[key + 1]
  const version = keyVersion(tag)
  const endpoint = (offset: number, port: number): string => {
    const word = key + (offset >> 2)
    const address = formatAddress(version, i32[word], i32[word + 1], i32[word + 2], i32[word + 3])
    return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
  }
  return {
    protocol: ipProtocolName(i32[key + 2] & 255), vlan: keyVlanOuter(tag),
    a: endpoint(FlowRecord.addressA, ports >>> 16), b: endpoint(FlowRecord.addressB, ports & 0xffff),
  }
}
