/**
 * Translating: the network function of simulated clusters that claims alias keys. It gives some flows another source port, drawn from
 * so few that claims collide, and the servers of the workload answer to that port. A packet that comes back to a port whose flow
 * lives is to find that flow: if it does not, the ledger is told.
 */

import { AliasClaim, bool, defineNf, struct, u16, u8, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import type { Ledger } from './ledger.ts'
import { hasTrailer, isTranslated, trailerFlow, trailerId, trailerSide } from './trailer.ts'

export const FIRST_TRANSLATED_PORT = 62_000
const ATTEMPTS_MAX = 8

const flowState = struct({ original: u16, port: u16, attempts: u8, granted: bool })

/** `ports`: how many there are to choose from. */
export function translating(ledger: Ledger, ports: number): AnyNfDefinition {
  return defineNf({
    name: 'translating', version: 1,
    flowState,
    dropReasons: { stray: 'came back to a port that is no flow\'s', noPort: 'no port to be had' },
    create: (_config, context) => {
      const { u8: bytes } = context.arena
      return {
        deallocateFlowState(state) {
          if (state.granted) ledger.unclaim(state.port)
        },
        processPacket(packet, state) {
          const end = packet.frameOffset + packet.frameLength
          if (!hasTrailer(bytes, end)) return Verdict.Forward
          const flow = trailerFlow(bytes, end)
          if (packet.protocol !== 17 || packet.isIpv6 || !isTranslated(flow)) return Verdict.Forward
          const id = trailerId(bytes, end)
          if (trailerSide(bytes, end) === 1) {
            // Behind the end of its flow a port may be another flow's.
            if (!state.granted || packet.destinationPort !== state.port || flow !== state.original - 1024) {
              ledger.stray(flow, id, packet.destinationPort)
              return context.drop.stray
            }
            packet.destinationPort = state.original
            return Verdict.Forward
          }
          while (!state.granted) {
            if (state.original === 0) state.original = packet.sourcePort
            else if (context.held.count > 0) return Verdict.Hold
            if (state.attempts >= ATTEMPTS_MAX) {
              ledger.refuse(id)
              return context.drop.noPort
            }
            state.attempts++
            state.port = FIRST_TRANSLATED_PORT + (context.random() >>> 0) % ports
            packet.sourcePort = state.port
            const answer = context.alias.claim(packet)
            packet.sourcePort = state.original
            if (answer === AliasClaim.pending) return Verdict.Hold
            if (answer !== AliasClaim.granted) continue
            state.granted = true
            ledger.claim(state.port, flow)
          }
          packet.sourcePort = state.port
          return Verdict.Forward
        },
        aliasClaimed(state, granted) {
          state.granted = granted
          if (granted) ledger.claim(state.port, state.original - 1024)
          context.held.retry()
        },
      }
    },
  })
}
