/**
 * Transcript: what happens in a manual cluster, as text that reads as documentation. One line an event, in order:
 *
 *      0.4 ms  switch 1 ══▶ runtime 11   FlowOpen           flow 1, epoch 1
 *
 * ══▶ is in-band, ──▶ a control session. Flows are numbered as they appear. Lines that begin with a dash are remarks.
 */

import { messageKind } from '../messages/message.ts'
import { AliasRefusal } from '../messages/aliasing.ts'
import { MoveRefusal } from '../messages/migration.ts'
import { layersOf } from '../testing/index.ts'
import { ManualCluster, type LoggedMessage, type ManualClusterOptions } from './manual-cluster.ts'

/** Messages that every cluster exchanges at its start and now and then: left out. */
const ORDINARY = new Set(['Workload', 'AnnounceChain', 'ConfigApplied'])

const nodeName = (id: number): string => (id < 10 ? `switch ${id}` : `runtime ${id}`)

export class Transcript {
  readonly cluster: ManualCluster
  readonly #lines: string[] = []
  readonly #start: number
  readonly #flows = new Map<number, number>()
  #messages = 0
  #left = { ingress: 0, egress: 0 }

  constructor(title: string, about: string, options: ManualClusterOptions) {
    this.cluster = new ManualCluster(options)
    this.#lines.push(title, '='.repeat(title.length), '', ...about.trim().split('\n').map((line) => line.trim()), '')
    this.cluster.turn(20)
    this.#messages = this.cluster.messages.length
    this.#start = this.cluster.now
  }

  /** A remark. */
  say(text: string): void {
    this.#collect()
    this.#lines.push('', `- ${text}`)
  }

  /** A packet comes in from outside. */
  inject(side: 'ingress' | 'egress', frame: Uint8Array): void {
    this.#collect()
    this.#line(`${side === 'ingress' ? 'client' : 'server'} ──▶ ${nodeName(side === 'ingress' ? 1 : 2)}`, 'packet', payloadOf(frame))
    this.cluster.inject(side, frame)
  }

  /** Turns of all nodes. */
  turn(turns = 1, us = 100): void {
    for (let i = 0; i < turns; i++) {
      this.cluster.turn(1, us)
      this.#collect()
    }
  }

  #line(route: string, what: string, details: string, time = this.cluster.now): void {
    const at = ((time - this.#start) / 1000).toFixed(1).padStart(8)
    this.#lines.push(`${at} ms  ${route.padEnd(28)} ${what.padEnd(18)} ${details}`.trimEnd())
  }

  #collect(): void {
    const { messages, left } = this.cluster
    for (; this.#messages < messages.length; this.#messages++) this.#message(messages[this.#messages] as LoggedMessage)
    for (const side of ['egress', 'ingress'] as const) {
      for (; this.#left[side] < left[side].length; this.#left[side]++) {
        const frame = left[side][this.#left[side]] as Uint8Array
        this.#line(`${nodeName(side === 'ingress' ? 1 : 2)} ──▶ ${side === 'ingress' ? 'client' : 'server'}`, 'packet', payloadOf(frame))
      }
    }
  }

  #message({ time, from, to, inBand, name, fields }: LoggedMessage): void {
    if (ORDINARY.has(name)) return
    this.#line(`${nodeName(from)} ${inBand ? '══▶' : '──▶'} ${nodeName(to)}`, name, this.#details(name, fields), time)
  }

  #details(name: string, fields: Record<string, unknown>): string {
    const details: string[] = []
    const { flow, epoch, node, code } = fields as { flow: number; epoch: number; node: number; code: number }
    if (flow !== 0) {
      let number = this.#flows.get(flow)
      if (number === undefined) this.#flows.set(flow, number = this.#flows.size + 1)
      details.push(`flow ${number}`)
    }
    if (epoch !== 0) details.push(`epoch ${epoch}`)
    if (node !== 0 && name !== 'FlowOpen') details.push(nodeText(name, node))
    if (typeof fields.outputs === 'number') details.push(`outputs ${fields.outputs}`)
    if (code !== 0) details.push(codeText(name, code))
    return details.join(', ')
  }

  /** The whole text. */
  text(): string {
    this.#collect()
    return `${this.#lines.join('\n')}\n`
  }
}

function nodeText(name: string, node: number): string {
  switch (name) {
    case 'BufferedPacket': return `from ${nodeName(node)}`
    case 'AdoptFlow': case 'AdoptMember': return 'releases'
    case 'AskFlow': return `generation ${node}`
    default: return `owner ${nodeName(node)}`
  }
}

function codeText(name: string, code: number): string {
  const named = (table: Record<string, number>): string => Object.entries(table).find(([, number]) => number === code)?.[0] ?? `${code}`
  switch (name) {
    case 'PrepareFlowReply': case 'InstallFlowReply': return `refused: ${named(MoveRefusal)}`
    case 'ClaimAliasReply': return `refused: ${named(AliasRefusal)}`
    case 'CloseFlowReply': return 'busy'
    case 'FlowClosed': return 'it has ended'
    case 'AdoptFlow': case 'AdoptMember': return code === 1 ? 'opening' : code === 2 ? 'tentative' : 'aliases alone'
    case 'RerouteFlow': return code === 1 ? 'its state is lost' : 'its owner before is dead'
    case 'MovingFlow': return 'answer in any case'
    case 'AskFlowReply': return code === 1 ? 'it lives here' : code === 2 ? 'its packets are here' : 'wait for me'
    case 'AnnounceFlow': return code === 1 ? 'handed over' : 'waiting for Go'
    default: return `code ${code}`
  }
}

function payloadOf(frame: Uint8Array): string {
  const { transport, end } = layersOf(frame)
  return `"${String.fromCharCode(...frame.subarray(transport + 8, end))}"`
}

/** Names of all kinds of messages, to check that a scenario names one that exists. */
export function isMessageName(name: string): boolean {
  for (let type = 1; type < 256; type++) if (messageKind(type)?.name === name) return true
  return false
}
