/**
 * A small firewall that the matrix updates while its connections live: two versions, as files that people could have written. Only a SYN
 * may open a TCP flow: a connection whose state is lost on the way is cut off, and its client hangs.
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
