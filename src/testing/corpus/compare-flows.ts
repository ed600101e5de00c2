/**
 * Holds the flows of a run against the oracle's flow table and the frame census.
 *
 * Several flows on one tuple are summed: a reused port, an idle time-out or a close and reopen split what the oracle
 * shows as one. What must hold for each TCP and UDP tuple: it is there, its packets are the census' frames (see
 * frame-census.ts for fragments and quotes), its VLAN is that of its frames, and the first flow's opener is the side
 * that sent the SYN. Flows without ports are set aside: they hold fragments whose first fragment is not in the capture.
 */

import type { CensusEntry, FrameCensus } from './frame-census.ts'
import { flowDifferences } from './justified-differences.ts'
import type { OracleFlow } from './oracle-records.ts'
import type { RunFlow } from './run-output.ts'

/** Where the census itself disagrees with the oracle beyond the justified differences. */
export function checkCensus(capture: string, census: FrameCensus, oracle: readonly OracleFlow[]): string[] {
  const problems: string[] = []
  const known = new Map(oracle.map(flow => [flow.tuple, flow]))
  for (const [tuple, entry] of census.entries) {
    const flow = known.get(tuple)
    const isJustified = flowDifferences.some(difference => difference.capture === capture && difference.selects(tuple))
    if (flow === undefined && !isJustified) problems.push(`${capture}: the oracle does not list ${tuple}`)
    if (flow !== undefined && flow.packets !== entry.datagrams) {
      problems.push(`${capture}: ${tuple}: the oracle counts ${flow.packets} packets, the census ${entry.datagrams}`)
    }
  }
  for (const tuple of known.keys()) {
    if (!census.entries.has(tuple)) problems.push(`${capture}: only the oracle lists ${tuple}`)
  }
  return problems
}

/** Where the flows of a run disagree with the census, one line each; empty when they agree. */
export function compareWithCensus(capture: string, flows: readonly RunFlow[], census: FrameCensus): string[] {
  const problems: string[] = []
  const groups = new Map<string, RunFlow[]>()
  for (const flow of flows) {
    if ((flow.protocol !== 'tcp' && flow.protocol !== 'udp') || flow.isWithoutPorts) continue
    const group = groups.get(flow.tuple)
    if (group === undefined) groups.set(flow.tuple, [flow])
    else group.push(flow)
  }
  for (const [tuple, entry] of census.entries) {
    const group = groups.get(tuple) ?? []
    groups.delete(tuple)
    problems.push(...compareTuple(tuple, group, entry).map(problem => `${capture}: ${problem}`))
  }
  for (const [tuple, group] of groups) {
    problems.push(`${capture}: ${tuple}: ${packetsOf(group)} packets in a flow that is not in the capture`)
  }
  return problems
}

function compareTuple(tuple: string, group: readonly RunFlow[], entry: CensusEntry): string[] {
  const least = entry.frames - entry.malformed + (entry.frames > entry.malformed ? entry.quotes : 0)
  const most = entry.frames + entry.earlyFragments + entry.quotes
  if (group.length === 0) return least === 0 ? [] : [`${tuple}: no flow`]
  const problems: string[] = []
  const packets = packetsOf(group)
  if (packets < least || packets > most) {
    problems.push(`${tuple}: ${packets} packets instead of ${least === most ? least : `${least} to ${most}`}`)
  }
  for (const vlan of new Set(group.map(flow => flow.vlan))) {
    if (!entry.vlans.has(vlan)) problems.push(`${tuple}: VLAN ${vlan} instead of ${[...entry.vlans].join(', ')}`)
  }
  const opener = group[0]?.opener
  if (entry.opener !== null && opener !== entry.opener) {
    problems.push(`${tuple}: opened as ${opener} instead of ${entry.opener}`)
  }
  return problems
}

function packetsOf(group: readonly RunFlow[]): number {
  return group.reduce((sum, flow) => sum + flow.packets, 0)
}
