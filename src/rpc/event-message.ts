/**
 * The events of a cluster as messages and back.
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ClusterEvent, ClusterEventSchema } from './generated/nfactor/v1/controller_pb.ts'
import { structOf } from './plain-message.ts'

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
