/**
 * Network functions of the matrix, as files that people could have written. A small firewall that is updated while its connections live:
 * only a SYN may open a TCP flow, so that a connection whose state is lost on the way is cut off, and its client hangs. And one that has
 * much to do for each packet.
 */

const gateOf = (version: number, layout: string, upgrades: string, counting: string): string => `
import { bool, defineNf, struct, u32, u64, Verdict } from 'nfactor'

const SYN = 2

export default defineNf({
  name: 'gate',
  version: ${version},
  flowState: struct({ ${layout} }),${upgrades}
  dropReasons: { notOpen: 'no SYN has opened this connection' },
  create: (config, { drop }) => ({
    processPacket(packet, state) {
      if (!state.isOpen && (!packet.isTcp || (packet.tcpFlags & SYN) !== 0)) state.isOpen = true
      if (!state.isOpen) return drop.notOpen
      ${counting}
      return Verdict.Forward
    },
  }),
})
`

export const gateBefore = gateOf(1, 'isOpen: bool, packets: u32', '', 'state.packets++')

export const gateAfter = gateOf(2, 'packets: u64, bytes: u64, isOpen: bool', `
  upgrades: [{ from: 1, flowState: struct({ isOpen: bool, packets: u32 }), upgrade(old, now) {
    now.isOpen = old.isOpen
    now.packets = old.packets
  } }],`, `state.packets++
      state.bytes += packet.length`)

/**
 * Some 30 µs for each packet: one runtime can do some 30,000 a second. In calls, not in one long loop: V8 replaces the code of such a loop
 * while it runs, by code that knows nothing of what comes behind the loop, and enters and leaves that with each of ten thousand packets.
 */
export const slowNf = `
import { defineNf, struct, u32, Verdict } from 'nfactor'

function mix(sum: number): number {
  for (let i = 0; i < 300; i++) sum = Math.imul(sum, 0x01000193) ^ i
  return sum
}

export default defineNf({
  name: 'slow',
  version: 1,
  flowState: struct({ sum: u32 }),
  create: () => ({
    processPacket(packet, state) {
      let sum = packet.length
      for (let i = 0; i < 100; i++) sum = mix(sum)
      state.sum = sum >>> 0
      return Verdict.Forward
    },
  }),
})
`
