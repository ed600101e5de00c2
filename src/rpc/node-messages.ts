/**
 * What controllers and nodes say to each other (`controller/node-commands.ts`), and the events of a cluster, as messages and back.
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import type { Hello, NodeCommand, Report } from '../controller/node-commands.ts'
import type { ClusterEvent, ClusterEventSchema } from './generated/nfactor/v1/controller_pb.ts'
import type { NodeCommand as CommandMessage, NodeCommandSchema, NodeReport, NodeReportSchema } from './generated/nfactor/v1/node_pb.ts'
import { plainOf, structOf } from './plain-message.ts'

const kinds = {
  configure: 'configure', setReplicas: 'set-replicas', recover: 'recover', move: 'move', welcome: 'welcome', grantBlock: 'grant-block',
} as const satisfies Record<NonNullable<CommandMessage['command']['case']>, NodeCommand['kind']>

const cases = Object.fromEntries(Object.entries(kinds).map(([name, kind]) => [kind, name])) as
  Record<NodeCommand['kind'], keyof typeof kinds>

export function commandMessage({ kind, term, ...value }: NodeCommand): MessageInitShape<typeof NodeCommandSchema> {
  return { term, command: { case: cases[kind], value } as MessageInitShape<typeof NodeCommandSchema>['command'] }
}

/** The command that a message is; undefined for one of a later version. What is in it is not checked. */
export function commandOf(message: CommandMessage): NodeCommand | undefined {
  const { term, command } = plainOf(message)
  return command.case === undefined ? undefined : { kind: kinds[command.case], term, ...command.value } as NodeCommand
}

export function reportMessage(report: Report | Hello): MessageInitShape<typeof NodeReportSchema> {
  if (!('kind' in report)) return { report: { case: 'hello', value: { ...report } } }
  const { kind, ...value } = report
  return { report: { case: kind, value } as MessageInitShape<typeof NodeReportSchema>['report'] }
}

/** The report that a message is; undefined for one of a later version. What is in it is not checked. */
export function reportOf(message: NodeReport): Report | Hello | undefined {
  const { report } = plainOf(message)
  if (report.case === undefined) return undefined
  return report.case === 'hello' ? report.value : { kind: report.case, ...report.value } as Report
}

/** An event as it is written, every field beside the other. */
export interface FlatEvent {
  readonly number: number
  readonly time: string
  readonly event: string
  readonly node?: string
  readonly text: string
  readonly [field: string]: unknown
}

export function eventMessage({ number, time, event, node, text, ...fields }: FlatEvent): MessageInitShape<typeof ClusterEventSchema> {
  return { number, time, event, node, text, fields: structOf(fields) }
}

export function eventOf({ number, time, event, node, text, fields }: ClusterEvent): FlatEvent {
  return { number, time, event, text, ...node !== undefined && { node }, ...fields }
}
