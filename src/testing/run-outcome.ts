/**
 * Run outcome: what a run gave, in a form in which runs can be compared that may differ in what does not matter: the order of
 * flows that end at once, of timers that fire in one tick, and of records of different flows.
 */

import type { FlowResult, FlowTuple, OutputPacket, RecordResult } from './test-runtime.ts'

/** Output frames, final flow states and records, a line of text for each. */
export interface Outcome {
  readonly outputs: string[]
  readonly flows: string[]
  readonly records: string[]
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** The same for both directions. */
function tupleText(t: FlowTuple): string {
  const ends = [`${t.source} ${t.sourcePort}`, `${t.destination} ${t.destinationPort}`].toSorted()
  return `${t.protocol} ${ends.join(' - ')} vlan ${t.vlan}/${t.vlanInner} pppoe ${t.pppoeSession}`
}

export function outcomeOf(outputs: readonly OutputPacket[], flows: readonly FlowResult[],
  records: readonly RecordResult[]): Outcome {
  const lines: { text: string; leftAt: number; byTimer: boolean }[] = outputs.map((o) => ({
    text: `${o.time} port ${o.port}${o.emitted ? ' emitted' : ''} ${o.wireLength} ${hex(o.frame)}`,
    leftAt: o.leftAt, byTimer: o.byTimer,
  }))
  // Timers of one tick fire in no particular order.
  for (let from = 0; from < lines.length;) {
    let to = from + 1
    if (lines[from].byTimer) while (to < lines.length && lines[to].byTimer && lines[to].leftAt === lines[from].leftAt) to++
    const sorted = lines.slice(from, to).toSorted((x, y) => (x.text < y.text ? -1 : 1))
    lines.splice(from, to - from, ...sorted)
    from = to
  }
  // Records of one flow have an order, those of different flows need none.
  const byFlow = new Map<string, number>()
  const recordLines = records.map((r) => {
    const flow = tupleText(r.tuple)
    const number = byFlow.get(flow) ?? 0
    byFlow.set(flow, number + 1)
    return `${flow}: record ${String(number).padStart(6, '0')} ${r.event} from ${r.tuple.source} ${r.tuple.sourcePort} at ` +
      `${r.time} ${JSON.stringify(r.fields)}`
  })
  return {
    outputs: lines.map((line) => line.text),
    flows: flows.map((f) => `${tupleText(f.tuple)} opened by ${f.tuple.source} ${f.tuple.sourcePort}: from ${f.firstSeen} to ` +
      `${f.lastSeen}, ${f.packets} packets, ${f.bytes} bytes, ${f.end}, ${JSON.stringify(f.state)}`).toSorted(),
    records: recordLines.toSorted(),
  }
}

/** The first difference between two outcomes in words, or an empty text. */
export function firstDifference(expected: Outcome, found: Outcome): string {
  for (const what of ['flows', 'records', 'outputs'] as const) {
    const e = expected[what]
    const f = found[what]
    for (let i = 0; i < Math.max(e.length, f.length); i++) {
      if (e[i] === f[i]) continue
      const show = (text: string | undefined): string => {
        if (text === undefined) return 'nothing'
        return text.length > 400 ? `${text.slice(0, 400)}...` : text
      }
      return `${what} differ, number ${i} of ${e.length} and ${f.length}: expected ${show(e[i])}, found ${show(f[i])}`
    }
  }
  return ''
}
