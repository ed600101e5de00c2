/**
 * Equivalence chains: those with which runs of a cluster are compared with undisturbed ones. Every built-in network function alone, a
 * chain of several, and two of ours that hold packets, send copies, set timers and translate.
 */

import type { ChainMember } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { AliasClaim, bool, defineNf, struct, u16, u32, Verdict } from '../nf/index.ts'
import { builtInNfs } from '../nfs/index.ts'

/** Configurations of built-in network functions, where the default says nothing or too little. */
const configurations: Record<string, unknown> = {
  firewall: {
    rules: ['drop udp to port 137-139', 'reset tcp to port 22'], answersPerSecond: 1_000_000,
    tracking: { invalid: 'drop', midStream: 'accept' },
  },
}

const definitions = new Map<string, AnyNfDefinition>()
for (const [name, load] of Object.entries(builtInNfs)) definitions.set(name, (await load()).default)

function member(name: string, config: unknown = {}): ChainMember {
  const definition = definitions.get(name) as AnyNfDefinition
  return { definition, config: definition.config === undefined ? {} : definition.config.parse(config) }
}

/** Holds every fourth packet until the next one, sends copies of some with another time to live, and counts the rings of a timer. */
const juggler = defineNf({
  name: 'juggler', version: 1,
  flowState: struct({ packets: u32, rings: u32, held: u32 }),
  counters: { rings: 'timers that fired' },
  create: (_config, { arena, counters, emit, held, timer }) => ({
    processPacket(packet, state) {
      if (state.packets === 0) timer.set(30_000)
      state.packets++
      held.release()
      state.held = 0
      const copy = state.packets % 7 === 0 ? emit.copy(packet) : null
      if (copy !== null) {
        arena.u8[copy.networkOffset + (copy.isIpv6 ? 7 : 8)] ^= 128
        emit.send(packet.direction)
      }
      if (state.packets % 4 !== 0) return Verdict.Forward
      state.held = 1
      return Verdict.Hold
    },
    timerFired(state) {
      counters.rings++
      state.rings++
      if (state.rings < 4) timer.set(30_000)
    },
  }),
})

/** What a port given by `renaming` differs in from the one before. */
export const ALIAS_BIT = 0x2000

/** Gives the opener of a TCP or UDP flow another port: always the same one, so that runs can be compared. */
const renamer = defineNf({
  name: 'renamer', version: 1,
  flowState: struct({ port: u16, original: u16, granted: bool }),
  counters: { granted: 'ports given', refused: 'ports refused' },
  dropReasons: { noPort: 'the port is another flow\'s' },
  create: (_config, context) => ({
    processPacket(packet, state) {
      // What comes behind a packet that is held, a later fragment of it too, stays behind it.
      if (packet.direction === 0 && !state.granted && context.held.count > 0) return Verdict.Hold
      if ((!packet.isTcp && !packet.isUdp) || packet.isRelated || packet.isLaterFragment) return Verdict.Forward
      if (packet.direction !== 0) {
        if (state.granted && packet.destinationPort === state.port) packet.destinationPort = state.original
        return Verdict.Forward
      }
      if (!state.granted) {
        if (state.port !== 0) return context.drop.noPort
        state.original = packet.sourcePort
        state.port = state.original ^ ALIAS_BIT
        packet.sourcePort = state.port
        const answer = context.alias.claim(packet)
        packet.sourcePort = state.original
        if (answer === AliasClaim.pending) return Verdict.Hold
        context.counters[answer === AliasClaim.granted ? 'granted' : 'refused']++
        if (answer !== AliasClaim.granted) return context.drop.noPort
        state.granted = true
      }
      packet.sourcePort = state.port
      return Verdict.Forward
    },
    aliasClaimed(state, granted) {
      state.granted = granted
      context.counters[granted ? 'granted' : 'refused']++
      if (granted) context.held.retry()
      else context.held.drop(context.drop.noPort)
    },
  }),
})

export const standard = (): ChainMember[] => [member('monitor'), member('firewall'), member('http')]
export const chains: Record<string, () => ChainMember[]> = {
  ...Object.fromEntries([...definitions.keys()].map((name) => [name, () => [member(name, configurations[name])]])),
  'strict chain': () => [member('monitor'), member('firewall', configurations['firewall']), member('http', { overlap: 'last' })],
  juggling: () => [{ definition: juggler, config: {} }, member('http')],
  renaming: () => [{ definition: renamer, config: {} }, member('monitor')],
}
