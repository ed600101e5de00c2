/**
 * Node watcher: captures and traces of one node, on demand. While there is none nothing of it is on the packet path.
 *
 *     StartWatch ─▶ ports and node are watched ─▶ TakeWatch, again and again ─▶ StopWatch, or nobody takes for 5 s, or the bound is reached
 *
 * What has been seen waits in a bounded list for whoever takes it. When that one is slow, copies are lost and counted; packets are not.
 */

import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { messageKind, MessageField } from '../messages/message.ts'
import { ReturnPacket } from '../messages/placement.ts'
import { CommitStep, ReleasePacket } from '../messages/replication.ts'
import { Workload } from '../messages/announcing.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import type { Port } from '../packet/port.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import { compileFlowFilter } from '../ports/frame-summary.ts'
import { compileFrameWords } from '../ports/frame-words.ts'
import { watchPort } from '../ports/port-watch.ts'
import { FrameRecorder } from './frame-recorder.ts'
import type { RpcMethods, RpcParams } from './line-rpc.ts'
import { TraceRecorder } from './trace-recorder.ts'

/** Captures and traces of one node at the same time. */
const WATCHES_MAX = 8
/** Whoever does not take for so long is gone. */
const LEASE_MS = 5_000
/** Messages that carry packets, or are of no flow. */
const PACKET_MESSAGES = new Set([ReturnPacket.type, CommitStep.type, ReleasePacket.type, Workload.type])

/** A port of a node: `peer` is the node behind a link. */
export interface WatchedPort {
  readonly kind: 'external' | 'link' | 'bypass'
  readonly peer: number
  readonly port: Port
}

export interface WatchedNode {
  readonly arena: Arena
  name(): string
  /** Undefined before it begins. */
  node(): RuntimeNode | SwitchNode | undefined
  ports(): WatchedPort[]
}

interface Watch {
  readonly recorder: FrameRecorder | TraceRecorder
  readonly stop: (() => void)[]
  lease: NodeJS.Timeout
}

export class NodeWatcher {
  readonly #host: WatchedNode
  readonly #watches = new Map<number, Watch>()
  #last = 0

  constructor(host: WatchedNode) {
    this.#host = host
  }

  get methods(): RpcMethods {
    return {
      StartWatch: (params) => this.#start(params),
      TakeWatch: ({ watch }) => this.#take(Number(watch)),
      StopWatch: ({ watch }) => {
        this.#stop(Number(watch))
        return {}
      },
    }
  }

  /** A message has come in. Called for every one: a trace shows those of flows. */
  message(peer: number, at: number): void {
    if (this.#watches.size === 0) return
    const { u8, u32, f64 } = this.#host.arena
    const kind = messageKind(u8[at] as number)
    if (kind === undefined || PACKET_MESSAGES.has(kind.type)) return
    const flow = f64[(at + MessageField.flow) >> 3] as number
    if (flow === 0) return
    for (const { recorder } of this.#watches.values()) {
      if (recorder instanceof TraceRecorder) recorder.message(peer, kind.name, flow, u32[(at + MessageField.epoch) >> 2] as number)
    }
  }

  #start({ kind, filter, flow, port, packets, bytes, headBytes }: RpcParams): { watch: number, ports: { kind: string, peer: number }[] } {
    const { arena } = this.#host
    const name = this.#host.name()
    const node = this.#host.node()
    if (node === undefined) throw new CodedError('NF_CLUSTER', `${name} has not begun yet`, 'Wait until nfactor status says ready')
    if (this.#watches.size >= WATCHES_MAX) {
      throw new CodedError('NF_CLUSTER', `${name} has ${WATCHES_MAX} captures and traces already`, 'End one of them first')
    }
    const wants = typeof flow === 'object' && flow !== null ? compileFlowFilter(flow)
      : compileFrameWords(Array.isArray(filter) ? filter.map(String) : [])
    const ports = kind === 'trace' ? this.#host.ports() : this.#portsNamed(port)
    const recorder = kind === 'trace' ? new TraceRecorder(arena, node, wants, Number(headBytes ?? 0))
      : new FrameRecorder(arena, wants, Number(packets), Number(bytes), node.kind === 'runtime' ? node : undefined)
    const watch: Watch = { recorder, stop: [], lease: this.#lease(++this.#last) }
    this.#watches.set(this.#last, watch)
    ports.forEach((one, index) => { watch.stop.push(watchPort(arena, one.port, recorder.portWatch(index, one))) })
    this.#watchNode()
    return { watch: this.#last, ports: ports.map((one) => ({ kind: one.kind, peer: one.peer })) }
  }

  /** @param wanted `external`, `bypass`, the number of the node behind a link; nothing for all */
  #portsNamed(wanted: unknown): WatchedPort[] {
    const all = this.#host.ports()
    const ports = wanted === undefined || wanted === null ? all
      : all.filter(({ kind, peer }) => (kind === 'link' ? peer === wanted : kind === wanted))
    if (ports.length > 0) return ports
    const names = all.map(({ kind, peer }) => (kind === 'link' ? `link ${peer}` : kind))
    throw new CodedError('NF_CLUSTER', `${this.#host.name()} has no port ${JSON.stringify(wanted)}`, `Its ports are ${names.join(', ')}`)
  }

  #take(id: number): unknown {
    const watch = this.#watches.get(id)
    if (watch === undefined) throw new CodedError('NF_CLUSTER', `${this.#host.name()} has no such capture or trace any more`, 'Start it again')
    clearTimeout(watch.lease)
    watch.lease = this.#lease(id)
    const taken = watch.recorder.take()
    if (taken.isOver) this.#stop(id)
    return taken
  }

  #lease(id: number): NodeJS.Timeout {
    return setTimeout(() => { this.#stop(id) }, LEASE_MS).unref()
  }

  #stop(id: number): void {
    const watch = this.#watches.get(id)
    if (watch === undefined) return
    clearTimeout(watch.lease)
    for (const stop of watch.stop) stop()
    this.#watches.delete(id)
    this.#watchNode()
  }

  /** The node tells all recorders at once, or nobody. */
  #watchNode(): void {
    const node = this.#host.node()
    const recorders = [...this.#watches.values()].map(({ recorder }) => recorder)
    if (recorders.length === 0) return node?.watchPackets(null)
    const tell = (act: (watch: Partial<PacketWatch>) => void): void => { for (const recorder of recorders) act(recorder) }
    node?.watchPackets({
      running: (d) => { tell((one) => one.running?.(d)) },
      ran: (d) => { tell((one) => one.ran?.(d)) },
      dropped: (slot, reason) => { tell((one) => one.dropped?.(slot, reason)) },
      held: (slot, phase) => { tell((one) => one.held?.(slot, phase)) },
      stepped: (d, replica) => { tell((one) => one.stepped?.(d, replica)) },
    })
  }
}
