/**
 * Probe NFs: network functions for tests, to stand before and behind the one that is tested or to bring the engine into a state.
 *
 *     recorder      keeps what it sees of each packet as records, and the beginnings and ends of flows
 *     gate          holds, releases, drops and fails as the payloads of packets tell it
 *     sideCounter   counts packets of each direction
 *     translator    gives each TCP or UDP flow another source port, as an address translator does
 */

import { AliasClaim, bool, defineNf, struct, text, u16, u32, u8, Verdict, z } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { layersOf } from './packet-builder.ts'
import type { RecordResult } from './test-runtime.ts'

/** Makes a record `saw` of each packet, with up to 40 bytes of its payload, and `began` and `ended` of each flow. */
export const recorder = (name = 'recorder'): AnyNfDefinition => defineNf({
  name, version: 1,
  flowState: struct({ packets: u32 }),
  records: { saw: { payload: text(40), direction: u8, number: u32 }, began: {}, ended: { packets: u32 } },
  create: (_config, { records }) => ({
    allocateFlowState() {
      records.began.begin()
      records.began.commit()
    },
    deallocateFlowState(state) {
      records.ended.begin()
      records.ended.packets = state.packets
      records.ended.commit()
    },
    processPacket(packet, state) {
      state.packets++
      records.saw.begin()
      records.saw.payload.copyFrom(packet.payloadOffset, packet.payloadLength)
      records.saw.direction = packet.direction
      records.saw.number = state.packets
      records.saw.commit()
      return Verdict.Forward
    },
  }),
})

/** The payloads that a recorder saw. */
export function saw(result: { readonly records: readonly RecordResult[] }, nf = 'recorder'): string[] {
  return result.records.filter((r) => r.nf === nf && r.event === 'saw').map((r) => r.fields.payload as string)
}

/**
 * Does what a packet's payload says: `hold...` is held, `go N` releases N (or all) held packets, `drop N` drops them, `refuse` is
 * dropped, `fail` throws; anything else passes.
 */
export const gate = (name = 'gate'): AnyNfDefinition => defineNf({
  name, version: 1,
  flowState: struct({ held: u32, word: text(8) }),
  dropReasons: { unwanted: 'dropped by command' },
  create: (_config, context) => ({
    processPacket(packet, state) {
      state.word.copyFrom(packet.payloadOffset, packet.payloadLength)
      const [word, count] = state.word.toString().split(' ')
      if (word === 'fail') throw new Error('told to fail')
      if (word === 'go') context.held.release(count === undefined ? undefined : Number(count))
      if (word === 'drop') context.held.drop(context.drop.unwanted, count === undefined ? undefined : Number(count))
      if (word === 'refuse') return context.drop.unwanted
      state.held = context.held.count
      return word.startsWith('hold') ? Verdict.Hold : Verdict.Forward
    },
  }),
})

/** Counts packets of each direction in `forward` and `reverse`. */
export const sideCounter = (name = 'counter'): AnyNfDefinition => defineNf({
  name, version: 1,
  flowState: struct({ forward: u32, reverse: u32 }),
  create: () => ({
    processPacket(packet, state) {
      if (packet.direction === 0) state.forward++
      else state.reverse++
      return Verdict.Forward
    },
  }),
})

/**
 * Rewrites the source port of forward packets to one from `first` on, and back for reverse packets. A port that another flow has is
 * refused, and the next one is tried; `attempts` at most.
 */
export const translator = (name = 'translator'): AnyNfDefinition => defineNf({
  name, version: 1,
  config: z.object({
    first: z.number().default(20_000), ports: z.number().default(1000), attempts: z.number().default(8),
  }),
  flowState: struct({ original: u16, port: u16, attempts: u8, granted: bool }),
  counters: { claimed: 'ports claimed', refused: 'ports refused' },
  dropReasons: { noPort: 'no port to be had' },
  create: (config, context) => ({
    processPacket(packet, state) {
      if (packet.direction !== 0) {
        if (state.granted && packet.destinationPort === state.port) packet.destinationPort = state.original
        return Verdict.Forward
      }
      while (!state.granted) {
        if (state.attempts >= config.attempts) return context.drop.noPort
        if (state.original === 0) state.original = packet.sourcePort
        else if (context.held.count > 0) return Verdict.Hold
        state.port = config.first + ((context.random() >>> 0) % config.ports)
        state.attempts++
        const port = packet.sourcePort
        packet.sourcePort = state.port
        const answer = context.alias.claim(packet)
        packet.sourcePort = port
        if (answer === AliasClaim.pending) return Verdict.Hold
        if (answer === AliasClaim.granted) state.granted = true
        else context.counters.refused++
      }
      packet.sourcePort = state.port
      return Verdict.Forward
    },
    aliasClaimed(state, granted) {
      state.granted = granted
      if (granted) context.counters.claimed++
      else context.counters.refused++
      context.held.retry()
    },
  }),
})

/** The payloads of UDP frames behind Ethernet headers, as texts. */
export function payloads(outputs: readonly { readonly frame: Uint8Array }[]): string[] {
  return outputs.map(({ frame }) => {
    const { transport, end } = layersOf(frame)
    return String.fromCharCode(...frame.subarray(transport + 8, end))
  })
}
