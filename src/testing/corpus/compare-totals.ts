/**
 * Holds the counters of a run against each other and against the capture: nothing is lost, nothing counted twice.
 *
 *  - received + emitted = forwarded + dropped (nothing stays in a buffer at the end of a capture);
 *  - received = the frames of the capture;
 *  - the drop reasons sum to the drops, none of them is a defect, and no more packets are dropped as malformed than
 *    have headers that contradict the frame;
 *  - the flows' packets are packets that were received, and the counts by protocol are those of the flow lines;
 *  - the http counters are the numbers of http events.
 */

import type { FrameCensus } from './frame-census.ts'
import type { RunOutput } from './run-output.ts'

/** Drop reasons that no capture of the corpus justifies: a defect, or a limit that is far too low. */
const defectReasons = ['nf-error', 'flow-table-full', 'hold-limit', 'hold-ended', 'emit-limit', 'fragment-limit']

/** All deviations of a run's totals, one line each; empty when there are none. */
export function compareTotals(capture: string, run: RunOutput, packets: number, census: FrameCensus): string[] {
  const problems: string[] = []
  const expectEqual = (what: string, actual: number, expected: number): void => {
    if (actual !== expected) problems.push(`${capture}: ${what}: ${actual} instead of ${expected}`)
  }
  const { packets: counts, dropReasons, flows, nfs, bytes } = run.document
  expectEqual('packets.received', counts.received, packets)
  expectEqual('forwarded + dropped', counts.forwarded + counts.dropped, counts.received + counts.emitted)
  expectEqual('sum of dropReasons', sum(Object.values(dropReasons)), counts.dropped)
  for (const reason of defectReasons) expectEqual(`dropReasons.${reason}`, dropReasons[reason] ?? 0, 0)
  const malformed = sum(Object.entries(dropReasons).filter(([name]) => name.startsWith('malformed-')).map(([, n]) => n))
  if (malformed > census.malformedFrames) {
    problems.push(`${capture}: ${malformed} packets dropped as malformed, but ${census.malformedFrames} are`)
  }
  expectEqual('flows.created', flows.created, run.flows.length)
  expectEqual('flows.tcp', flows.tcp, countOf(run, 'tcp'))
  expectEqual('flows.udp', flows.udp, countOf(run, 'udp'))
  expectEqual('flows by protocol', flows.tcp + flows.udp + flows.icmp + flows.other, flows.created)
  const inFlows = sum(run.flows.map(flow => flow.packets))
  if (inFlows > counts.received) {
    problems.push(`${capture}: ${inFlows} packets in flows, but ${counts.received} received`)
  }
  const least = sum([...census.entries.values()].map(entry => entry.frames - entry.malformed))
  if (inFlows < least) problems.push(`${capture}: ${inFlows} packets in flows, but ${least} have TCP or UDP ports`)
  if (bytes.forwarded > bytes.received && counts.emitted === 0) {
    problems.push(`${capture}: ${bytes.forwarded} bytes forwarded, but ${bytes.received} received`)
  }
  const http = nfs['http']
  if (http !== undefined) {
    const requests = run.messages.filter(message => message.kind === 'request').length
    expectEqual('nfs.http.requests', http['requests'] ?? -1, requests)
    expectEqual('nfs.http.responses', http['responses'] ?? -1, run.messages.length - requests)
  }
  return problems
}

function countOf(run: RunOutput, protocol: string): number {
  return run.flows.filter(flow => flow.protocol === protocol).length
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
