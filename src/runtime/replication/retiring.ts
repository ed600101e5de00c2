/** Retiring: a replica that releases a flow's frames is told to release no more. PROTOCOL 15. */

import { RetireFlow, RetireFlowConfigVersion, RetireKind } from '../../messages/replication.ts'
import { MessageField } from '../../messages/message.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { begin, type RuntimeContext } from '../runtime-context.ts'

/** Tells a replica that it is to release no more. */
export function sendRetire(context: RuntimeContext, replica: number, flow: number, epoch: number, kind: number = RetireKind.stays): void {
  const channel = context.control(replica)
  const at = begin(context, channel, RetireFlow, flow, epoch, true)
  if (at === 0) return
  context.arena.u8[at + MessageField.code] = kind
  context.arena.u32[(at + RetireFlowConfigVersion) >> 2] = context.configVersion
  ;(channel as MessageChannel).commit()
}
