/**
 * What a run found, for people.
 */

import { styleText } from 'node:util'
import { engineDropReasons } from '../packet/drop-reason.ts'
import type { ChainNf } from '../nf/chain.ts'
import { driverDropReasons } from '../process/capture-driver.ts'
import type { RunReport, RunResult } from '../process/run-capture.ts'
import { bytesText, countOf, countText, durationText, rateText } from './number-text.ts'
import { tableLines } from './text-table.ts'

/**
 * @param stream where it will be shown: styled if that is a terminal that takes it
 */
export function runSummary({ report, chain }: RunResult, stream: NodeJS.WriteStream): string {
  const bold = (text: string): string => styleText('bold', text, { stream })
  const dim = (text: string): string => styleText('dim', text, { stream })
  const sections = [
    [bold(report.capture.name) + dim(`  ${captureText(report)}`), ...overview(report)],
    dropSection(report, chain, bold),
    ...chain.map((nf) => nfSection(nf, report.nfs[nf.name] ?? {}, bold, dim)),
  ]
  return `${sections.filter((lines) => lines.length > 0).map((lines) => lines.join('\n')).join('\n\n')}\n`
}

function captureText({ capture, elapsedSeconds, packetsPerSecond }: RunReport): string {
  const format = capture.format === undefined ? '' : `${capture.format}, `
  const took = `${durationText(elapsedSeconds)}, ${rateText(packetsPerSecond, 'packets')}`
  return `${format}${durationText(capture.seconds)} of traffic, processed in ${took}`
}

function overview({ packets, bytes, flows, records, nfErrors }: RunReport): string[] {
  const kinds = [[flows.tcp, 'TCP'], [flows.udp, 'UDP'], [flows.icmp, 'ICMP'], [flows.other, 'other']] as const
  const ends = [[flows.closed, 'closed'], [flows.expired, 'expired'], [flows.finished, 'open at the end']] as const
  const listed = (parts: readonly (readonly [number, string])[]): string =>
    parts.filter(([count]) => count > 0).map(([count, what]) => `${countText(count)} ${what}`).join(', ')
  const lost = records.lost > 0 ? `${countText(records.lost)} lost` : ''
  const rows = [
    ['packets', countText(packets.received), 'received'],
    ['', countText(packets.forwarded), `forwarded, ${bytesText(bytes.forwarded)} of ${bytesText(bytes.received)}`],
    ['', countText(packets.dropped), 'dropped'],
    ...packets.emitted > 0 ? [['', countText(packets.emitted), 'emitted by network functions']] : [],
    ['flows', countText(flows.created), flows.created === 0 ? '' : `${listed(kinds)}; ${listed(ends)}`],
    ...records.made > 0 ? [['events', countText(records.made), lost]] : [],
    ...nfErrors > 0 ? [['errors', countText(nfErrors), 'thrown by network functions']] : [],
  ]
  return tableLines(rows, [{}, { align: 'right' }, {}])
}

function dropSection(
  { dropReasons, packets }: RunReport, chain: readonly ChainNf[], bold: (text: string) => string,
): string[] {
  const meanings = meaningsOf(chain)
  const rows = Object.entries(dropReasons).toSorted(([, a], [, b]) => b - a)
    .map(([reason, count]) => [countText(count), reason, meanings.get(reason) ?? ''])
  if (rows.length === 0) return []
  return [bold(`dropped: ${countOf(packets.dropped, 'packet')}`), ...tableLines(rows, [{ align: 'right' }, {}, {}])]
}

/** What each drop reason means. */
function meaningsOf(chain: readonly ChainNf[]): Map<string, string> {
  const meanings = new Map<string, string>([...Object.entries(engineDropReasons), ...Object.entries(driverDropReasons)])
  for (const { name, definition } of chain) {
    for (const [reason, meaning] of Object.entries((definition.dropReasons ?? {}) as Record<string, string>)) {
      meanings.set(`${name}-${reason.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, meaning)
    }
  }
  return meanings
}

function nfSection(
  { name, definition }: ChainNf, counters: Readonly<Record<string, number>>,
  bold: (text: string) => string, dim: (text: string) => string,
): string[] {
  const meanings = (definition.counters ?? {}) as Record<string, string>
  const rows = Object.entries(counters).map(([counter, value]) => [countText(value), counter, meanings[counter] ?? ''])
  const description = definition.description === undefined ? '' : dim(`  ${definition.description}`)
  const lines = tableLines(rows, [{ align: 'right' }, {}, {}])
  // What did not happen stays in the background.
  return [bold(name) + description, ...lines.map((line, index) => rows[index]?.[0] === '0' ? dim(line) : line)]
}
