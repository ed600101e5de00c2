/**
 * Cluster view: what the deciders decide on. One moment: the documents of the store, and for each node what the detector thinks of it
 * and what it has reported last. Paper §5.3.
 */

import type { TimeUs } from '../base/clock.ts'
import type {
  ClusterDocument, Document, FenceDocument, ReplicasDocument, RolloutDocument, ScaleDocument, StartingRuntime,
} from './cluster-state.ts'
import type { Health, Judgement } from './failure-detector.ts'
import type { MachineView } from './machines.ts'
import type { Report, RuntimeReport, SwitchReport } from './node-commands.ts'
import type { StateMirror } from './state-mirror.ts'

export interface NodeView<R extends Report> {
  readonly id: number
  readonly incarnation: number
  readonly health: Health
  readonly hasEnded: boolean
  readonly silenceUs: number
  /** Nodes that are owed an answer by it for too long. */
  readonly unheardBy: readonly number[]
  /** The last report, unless it is too old to decide on. */
  readonly report: R | null
}

export type SwitchView = NodeView<SwitchReport>

export interface RuntimeView extends NodeView<RuntimeReport> {
  readonly isDraining: boolean
  readonly chain: number
  /** Of what switches have lately had for it, the share for which its links had no room; of the worst of them. */
  readonly refused: number
}

export interface StartingView {
  readonly runtime: StartingRuntime
  readonly isReady: boolean
  readonly hasEnded: boolean
}

export interface ClusterView {
  readonly now: TimeUs
  readonly term: number
  readonly cluster: ClusterDocument
  readonly scale: ScaleDocument
  readonly rollout: RolloutDocument | undefined
  readonly replicas: ReplicasDocument
  readonly fences: readonly FenceDocument[]
  /** By `POOL/NUMBER`. */
  readonly blocks: ReadonlyMap<string, Document<'block'>>
  readonly switches: readonly SwitchView[]
  /** Of the configuration; those that are starting are apart. */
  readonly runtimes: readonly RuntimeView[]
  readonly starting: readonly StartingView[]
  /** Where runtimes can be; none: there is one machine, without bounds. */
  readonly machines: readonly MachineView[]
}

export interface HeardReport {
  readonly report: Report
  readonly at: TimeUs
}

/** Reports older than this decide nothing, µs. */
export const REPORT_US = 1e6

export interface Observations {
  readonly judgements: readonly Judgement[]
  /** By incarnation. */
  readonly reports: ReadonlyMap<number, HeardReport>
  readonly ended: ReadonlySet<number>
  readonly machines: readonly MachineView[]
}

/** Undefined before the cluster has been founded. */
export function viewOf(mirror: StateMirror, observed: Observations, term: number, now: TimeUs): ClusterView | undefined {
  const cluster = mirror.get('cluster')
  const scale = mirror.get('scale')
  if (cluster === undefined || scale === undefined) return undefined
  const judged = new Map(observed.judgements.map((judgement) => [judgement.incarnation, judgement]))
  const fresh = (incarnation: number): Report | null => {
    const heard = observed.reports.get(incarnation)
    return heard !== undefined && now - heard.at <= REPORT_US ? heard.report : null
  }
  const nodeView = <R extends Report>(id: number, incarnation: number, kind: R['kind']): NodeView<R> => {
    const judgement = judged.get(incarnation)
    const report = fresh(incarnation)
    return { id, incarnation, health: judgement?.health ?? 'unknown', hasEnded: observed.ended.has(incarnation),
      silenceUs: judgement?.silenceUs ?? 0, unheardBy: judgement?.unheardBy ?? [],
      report: report?.kind === kind ? report as R : null }
  }
  const switches = cluster.config.switches.map(({ id, incarnation }) => nodeView<SwitchReport>(id, incarnation, 'switch'))
  const refusals = switches.flatMap(({ report }) => report?.refused ?? [])
  return {
    now, term, cluster, scale, machines: observed.machines,
    rollout: mirror.get('rollout'), replicas: mirror.get('replicas') ?? { version: 0, of: {} },
    fences: [...mirror.all('fence').values()], blocks: mirror.all('block'),
    switches,
    runtimes: cluster.config.runtimes.map(({ id, incarnation, isDraining }) => ({
      ...nodeView<RuntimeReport>(id, incarnation, 'runtime'), isDraining, chain: cluster.chains[incarnation] ?? 0,
      refused: Math.max(0, ...refusals.filter(({ runtime }) => runtime === id).map(({ share }) => share)) })),
    starting: scale.starting.map((runtime) => {
      const report = fresh(runtime.incarnation)
      return { runtime, isReady: report?.kind === 'runtime' && report.isReady, hasEnded: observed.ended.has(runtime.incarnation) }
    }),
  }
}

/** Whether a node can be told anything. */
export function isReachable({ health }: { readonly health: Health }): boolean {
  return health === 'well' || health === 'slow'
}

/** A runtime for whose packets links have so often no room has as much to do as it can. */
const REFUSED_FULL = 0.01
/** Shares beyond this say little about how much more there would be. */
const LOST_MAX = 0.5

/**
 * Load of a runtime in runtimes' worth: its busy fraction, and in proportion what it had to drop, and switches for it. 1 is a runtime that has
 * just enough to do; more means that packets are lost. At most 4, for drops say little about how much more there would be.
 *
 * A runtime whose links are full does all that it can, whatever share of the time it says that it works: it may not get the core when
 * there is something to do.
 */
export function demandOf({ report, refused }: Pick<RuntimeView, 'report' | 'refused'>): number {
  if (report === null) return 0
  const { busyPerMille, packetsPerSecond, dropsPerSecond } = report
  const busy = busyPerMille / 1000
  const load = busy + (1 - busy) * Math.min(1, refused / REFUSED_FULL)
  const lost = dropsPerSecond === 0 ? 1 : (packetsPerSecond + dropsPerSecond) / Math.max(1, packetsPerSecond)
  return Math.min(4, load * lost / (1 - Math.min(LOST_MAX, refused)))
}

/** Load of all runtimes, with what interfaces have lost before any switch saw it, at most as much again. */
export function totalDemandOf({ runtimes, switches }: Pick<ClusterView, 'runtimes' | 'switches'>): number {
  const missed = Math.max(0, ...switches.map(({ report }) => report?.missed ?? 0))
  return runtimes.reduce((total, one) => total + demandOf(one), 0) / (1 - Math.min(LOST_MAX, missed))
}
