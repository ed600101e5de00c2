/** What happened to a traced packet at a node, in words. */

import type { TraceEvent } from './trace-recorder.ts'

/** What a switch does with packets of an entry in this phase. */
const heldWhy: Readonly<Record<string, string>> = {
  asking: 'its home switch is asked who serves the flow', placing: 'no runtime can take the flow yet',
  learning: 'the switch has begun anew, and learns its flows', orphaned: 'the runtime that served the flow is gone',
  closing: 'the flow is ending',
}

/** @param nameOf name of a node by its id */
export function traceText(event: TraceEvent, nameOf: (node: number) => string): string {
  switch (event.at) {
    case 'in':
      return event.port === 'link' ? `in from ${nameOf(event.peer)}` : `in at the ${event.port} port`
    case 'out':
      return event.port === 'link' ? `to ${nameOf(event.peer)}` : `out of the ${event.port} port, ${event.macs}`
    case 'refused':
      return `dropped: the port ${event.port === 'link' ? `to ${nameOf(event.peer)} ` : ''}has no room`
    case 'chain': {
      const steps = event.steps.map(({ nf, verdict, counters }) => {
        const risen = Object.entries(counters).map(([name, by]) => `${name} +${by}`).join(', ')
        return `${nf} ${verdict}${risen === '' ? '' : ` (${risen})`}`
      })
      const flow = event.flow === 0 ? '' : `, epoch ${event.epoch}`
      const emitted = event.emitted === 0 ? '' : `; ${event.emitted} ${event.emitted === 1 ? 'packet' : 'packets'} of its own`
      const end = event.verdict === 'drop' ? [`dropped: ${event.reason}`]
        : event.verdict === 'taken' ? ['kept: the flow is not here, or moves'] : []
      const changed = event.becomes === undefined ? '' : `; it is ${event.becomes} from here on`
      return `${[...steps, ...end].join('; ')}${emitted}${flow}${changed}`
    }
    case 'drop':
      return `dropped: ${event.reason}`
    case 'held':
      return `held: ${heldWhy[event.phase] ?? event.phase}`
    case 'step':
      return `its step goes to the replica ${nameOf(event.replica)}`
    case 'message':
      return event.name
  }
}
