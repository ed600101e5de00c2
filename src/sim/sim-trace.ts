/**
 * Trace of a simulation: a hash of everything that happened, so that the same seed can be seen to do the same; and, when a flow is
 * followed, its life message by message, to be read.
 */

import type { Arena } from '../memory/arena.ts'
import { HEAD_BYTES, messageKind, MessageField } from '../messages/message.ts'
import { hasTrailer, trailerFlow, trailerSequence } from './trailer.ts'

const nodeName = (id: number): string => (id === 0 ? 'outside' : id < 10 ? `switch ${id}` : `runtime ${id}`)
const STORY_MAX = 5000

export class SimTrace {
  readonly story: string[] = []
  #hash = 0x811c9dc5
  readonly #follow: number
  /** Ids of the flow that is followed. */
  readonly #ids = new Set<number>()

  constructor(follow: number) {
    this.#follow = follow
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0')
  }

  #add(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193)
    this.#hash ^= this.#hash >>> 15
  }

  turn(now: number, node: number): void {
    this.#add(now | 0)
    this.#add(node)
  }

  /** A frame arrives at a node. */
  frame(now: number, from: number, to: number, frame: Uint8Array): void {
    this.#add(now | 0)
    this.#add(from << 8 | to)
    for (let i = 12; i < frame.length; i += 13) this.#add(frame[i] as number)
    if (this.#follow !== 0 && hasTrailer(frame)) this.packet(now, 'hop', to, frame, from)
  }

  /** A packet comes in from outside, or leaves. */
  packet(now: number, what: 'in' | 'out' | 'hop', node: number, frame: Uint8Array, from = 0): void {
    this.#add(now | 0)
    this.#add(frame.length)
    if (this.#follow === 0 || !hasTrailer(frame) || trailerFlow(frame, frame.length) !== this.#follow) return
    const route = what === 'in' ? `outside ──▶ ${nodeName(node)}` : what === 'out' ? `${nodeName(node)} ──▶ outside`
      : `${nodeName(from)} ──▶ ${nodeName(node)}`
    this.#line(now, route, 'packet', `number ${trailerSequence(frame, frame.length)}`)
  }

  #line(now: number, route: string, what: string, details: string): void {
    if (this.story.length >= STORY_MAX) return
    this.story.push(`${(now / 1000).toFixed(3).padStart(10)} ms  ${route.padEnd(26)} ${what.padEnd(18)} ${details}`.trimEnd())
  }

  /** A message is about to be handled. */
  message(now: number, from: number, to: number, inBand: boolean, arena: Arena, at: number): void {
    this.#add(arena.u8[at] as number)
    if (this.#follow === 0) return
    const kind = messageKind(arena.u8[at] as number)
    if (kind === undefined) return
    const flow = arena.f64[(at + MessageField.flow) >> 3] as number
    let isAbout = this.#ids.has(flow)
    // The client's port names the flow of a key; who asks for a flow has no id for it yet.
    if (kind.bytes > HEAD_BYTES + 44 && 'key' in kind.schema.fields) {
      const ports = arena.i32[(at + MessageField.key + 4) >> 2] as number
      const port = 1024 + this.#follow
      if ((ports >>> 16) === port || (ports & 0xffff) === port) {
        isAbout = true
        if (flow !== 0) this.#ids.add(flow)
      }
    }
    if (!isAbout) return
    const { epoch, node, code } = kind.schema.decode({ arena }, at) as { epoch: number; node: number; code: number }
    const details = [`id ${flow}`, epoch > 0 ? `epoch ${epoch}` : '', node > 0 ? `node ${node}` : '', code > 0 ? `code ${code}` : '']
    this.#line(now, `${nodeName(from)} ${inBand ? '══▶' : '──▶'} ${nodeName(to)}`, kind.name, details.filter((d) => d !== '').join(', '))
  }
}
