/**
 * What controllers keep in the store: which keys, and what their values are. A value is JSON of one of the documents below, checked
 * when it is read: what another version of NFactor has left is refused, never half understood.
 *
 *     term               the highest term there has been
 *     leader             who leads, under a lease; gone with its life
 *     cluster            configuration, fence generation, incarnations given out
 *     fence/INCARNATION  one fenced life each, until long after its flows have been recovered
 *     replicas           who may hold replicas of whose flows
 *     scale              how many runtimes are wanted, and those that are being started
 *     rollout            the rollout under way, or the last one
 *     life/NODE          which process of a switch its incarnation was given to
 *     block/POOL/NUMBER  to which incarnation a block of a shared pool is leased (PROTOCOL 23)
 *
 * Every transaction compares `term` and puts it anew, so each rests on the one before: a leader that has been deposed writes nothing any
 * more, and neither does a transaction that was given up and comes late.
 */

import { z } from 'zod'
import { CodedError } from '../base/coded-error.ts'
import { INCARNATION_LIMIT, NODE_ID_MAX, type ClusterConfig } from '../messages/cluster-config.ts'

const count = z.int().min(0)
const nodeId = z.int().min(1).max(NODE_ID_MAX)
const incarnation = z.int().min(0).max(INCARNATION_LIMIT - 1)
const lived = z.int().min(1).max(INCARNATION_LIMIT - 1)

const config = z.strictObject({
  version: count,
  clusterId: count,
  switches: z.array(z.strictObject({ id: nodeId, incarnation, side: z.enum(['ingress', 'egress']), isHome: z.boolean() })),
  runtimes: z.array(z.strictObject({ id: nodeId, incarnation: lived, isDraining: z.boolean() })),
}) satisfies z.ZodType<ClusterConfig>

const term = z.strictObject({ term: count })

const leader = z.strictObject({
  name: z.string(),
  /** One life of a controller's process; unique. */
  life: z.string(),
  term: count,
})

const cluster = z.strictObject({
  config,
  /** Raised by every fencing; nodes say up to which they have acknowledged. */
  generation: count,
  /** The highest incarnation given out. */
  incarnation,
  /** Chain versions of runtimes, by incarnation. */
  chains: z.record(z.string(), count),
})

const fence = z.strictObject({
  node: nodeId,
  incarnation: lived,
  generation: count,
  term: count,
  /** Its chain version; 0 for switches. */
  chain: count,
  reason: z.enum(['dead', 'partitioned', 'silent', 'replaced', 'not-started', 'drained']),
  /** Its flows have been recovered, or it had none. */
  isRecovered: z.boolean(),
  /** When it was fenced, by the clock of the leader of then, µs. */
  at: z.number().optional(),
})

const replicas = z.strictObject({
  version: count,
  /** By runtime: those that replicas of its flows are placed on in turn. */
  of: z.record(z.string(), z.strictObject({ incarnation: lived, replicas: z.array(nodeId) })),
})

const scale = z.strictObject({
  desired: count,
  /** False: only people change `desired`. */
  isAutomatic: z.boolean(),
  /** Raised by every change of `desired`. */
  decision: count,
  decidedAt: z.number(),
  /** Of the chain that new runtimes run. */
  chain: count,
  starting: z.array(z.strictObject({ id: nodeId, incarnation: lived, chain: count, since: z.number() })),
  /** Runtimes that people have drained: they stay, without flows. They count among the wanted. */
  held: z.array(lived),
  /** Runtimes that people have drained and that end when they are empty. */
  leaving: z.array(lived),
})

const rollout = z.strictObject({
  number: count,
  from: count,
  to: count,
  phase: z.enum(['rolling', 'paused', 'rolling-back', 'done', 'rolled-back']),
  /** Fence generation at its start: lives of the new version fenced since then count against it. */
  sinceGeneration: count,
  /** The highest incarnation given out then: lives of the new version that have not started since count too. */
  sinceIncarnation: count,
  /** Flows can be taken back to the old version too. */
  isReversible: z.boolean(),
  /** What a failure does. */
  onFailure: z.enum(['pause', 'roll-back']),
  /** How many batches of flows have moved and proved well. */
  stage: count,
  /** Why it paused; empty if it did not. */
  reason: z.string(),
})

const life = z.strictObject({ nonce: z.string(), incarnation: lived })
const block = z.strictObject({ incarnation: lived })

/** Schemas by the first part of the key. */
const documents = { term, leader, cluster, fence, replicas, scale, rollout, life, block }

export type DocumentKind = keyof typeof documents
export type Document<K extends DocumentKind> = z.infer<(typeof documents)[K]>
export type ClusterDocument = Document<'cluster'>
export type FenceDocument = Document<'fence'>
export type ReplicasDocument = Document<'replicas'>
export type ScaleDocument = Document<'scale'>
export type StartingRuntime = ScaleDocument['starting'][number]
export type RolloutDocument = Document<'rollout'>
export type FenceReason = FenceDocument['reason']

/**
 * The document that a key holds.
 * @throws CodedError NF_STORE_CONTENT if it is none, or not of this version of NFactor
 */
export function decodeDocument<K extends DocumentKind>(kind: K, key: string, value: string): Document<K> {
  let content: unknown
  try {
    content = JSON.parse(value)
  } catch {
    throw new CodedError('NF_STORE_CONTENT', `the store's entry ${key} is not JSON`)
  }
  const result = documents[kind].safeParse(content)
  if (result.success) return result.data as Document<K>
  const [issue] = result.error.issues
  throw new CodedError('NF_STORE_CONTENT', `the store's entry ${key} is not what this version keeps there: ` +
    `${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trimEnd(), 'Was it written by another version of NFactor?')
}
