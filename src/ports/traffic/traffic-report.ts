/**
 * Traffic report: what a generator has sent and what its sink has seen, in numbers for programs and in lines for people.
 *
 * At the end of a run, when nothing is on its way any more, `missing` is what got lost: all that was sent and did not come in once.
 */

import type { LatencyHistogram } from './latency-histogram.ts'
import type { TrafficSent } from './traffic-generator.ts'
import type { FlowCounts, TrafficCounts, TrafficSink, TrafficTotals } from './traffic-sink.ts'

/** Microseconds. */
export interface LatencyReport {
  readonly min: number
  readonly mean: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

export interface FlowReport extends FlowCounts {
  readonly flow: number
  readonly side: 'client' | 'server'
}

export interface TrafficReport {
  readonly sent: TrafficSent
  readonly seen: TrafficTotals
  /** Packets sent that have not come in, or not so that they could be told. */
  readonly missing: number
  readonly latencyUs: LatencyReport
  /** Sides of flows with whom something was wrong, the worst first. Of flows that the sink still knows. */
  readonly worstFlows: readonly FlowReport[]
}

/** Percentiles and the like of a histogram. */
export function reportLatency(histogram: LatencyHistogram): LatencyReport {
  const [p50, p90, p99, p999] = [50, 90, 99, 99.9].map((percent) => histogram.percentileUs(percent))
  return { min: histogram.minUs, mean: histogram.meanUs, p50, p90, p99, p999, max: histogram.maxUs }
}

/** @param worst how many flows to name; 10 unless told */
export function reportTraffic({ sent, sink }: { sent: Readonly<TrafficSent>, sink: TrafficSink }, worst = 10): TrafficReport {
  const flows: FlowReport[] = []
  sink.forEachFlow((flow, side) => {
    const counts = sink.countsOf(flow, side)
    if (counts !== undefined && faultsOf(counts) > 0) flows.push({ flow, side: side === 0 ? 'client' : 'server', ...counts })
  })
  flows.sort((a, b) => faultsOf(b) - faultsOf(a) || a.flow - b.flow)
  return {
    sent: { ...sent }, seen: { ...sink.totals }, missing: sent.packets - sink.totals.received, latencyUs: reportLatency(sink.latency),
    worstFlows: flows.slice(0, worst),
  }
}

const faultsOf = ({ lost, duplicated, reordered, corrupted, stale }: TrafficCounts): number =>
  lost + duplicated + reordered + corrupted + stale

/** The report in lines, without an end of line at the last. */
export function formatTrafficReport({ sent, seen, missing, latencyUs, worstFlows }: TrafficReport): string {
  const us = (value: number): string => `${value < 100 ? value.toFixed(2) : Math.round(value)} µs`
  const { min, mean, p50, p90, p99, p999, max } = latencyUs
  const lines = [
    `sent      ${sent.packets} packets, ${sent.bytes} bytes, ${sent.opened} flows of which ${sent.ended} have ended and ` +
      `${sent.stalled} were given up`,
    `received  ${seen.received}, missing ${missing}, duplicated ${seen.duplicated}, reordered ${seen.reordered}, ` +
      `corrupted ${seen.corrupted} (unreadable ${seen.unreadable})`,
    `besides   stale ${seen.stale}, foreign ${seen.foreign}, astray ${seen.astray}`,
    `latency   min ${us(min)}, mean ${us(mean)}, 50% ${us(p50)}, 90% ${us(p90)}, 99% ${us(p99)}, 99.9% ${us(p999)}, max ${us(max)}`,
  ]
  for (const { flow, side, received, lost, duplicated, reordered, corrupted, stale, latencyMeanUs, latencyMaxUs } of worstFlows) {
    lines.push(`flow ${flow}, ${side}: received ${received}, lost ${lost}, duplicated ${duplicated}, reordered ${reordered}, ` +
      `corrupted ${corrupted}, stale ${stale}, latency mean ${us(latencyMeanUs)}, max ${us(latencyMaxUs)}`)
  }
  return lines.join('\n')
}
