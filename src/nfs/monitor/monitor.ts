/**
 * monitor: counts what passes.
 *
 * Purpose      Packets and bytes per direction, sizes, TCP flags seen, duration, for every flow; a histogram of sizes over all.
 *              Forwards everything. The paper's flow monitor (§7).
 * Config       none
 * State        40 bytes: packets and bytes per direction, smallest and largest packet, TCP flags seen per direction
 * Counters     packets, bytes, and packets by size (frame bytes on the wire): upTo64, upTo128, upTo256, upTo512, upTo1024,
 *              upTo1518, larger
 * Records      none
 * Example      nfactor run web.pcap.gz --chain monitor --flows flows.jsonl
 */

import { defineNf, Direction, struct, u16, u64, u8, Verdict } from '../../nf/index.ts'

export default defineNf({
  name: 'monitor',
  version: 1,
  description: 'counts packets, bytes, sizes and TCP flags',
  flowState: struct({
    packetsForward: u64,
    packetsReverse: u64,
    bytesForward: u64,
    bytesReverse: u64,
    lengthMin: u16,
    lengthMax: u16,
    tcpFlagsForward: u8,
    tcpFlagsReverse: u8,
  }),
  counters: {
    packets: 'packets seen',
    bytes: 'bytes seen',
    upTo64: 'packets of at most 64 bytes',
    upTo128: 'packets of 65 to 128 bytes',
    upTo256: 'packets of 129 to 256 bytes',
    upTo512: 'packets of 257 to 512 bytes',
    upTo1024: 'packets of 513 to 1,024 bytes',
    upTo1518: 'packets of 1,025 to 1,518 bytes',
    larger: 'packets of more than 1,518 bytes',
  },
  create: (_config, { counters }) => ({
    allocateFlowState(state) {
      state.lengthMin = 65535
    },

    processPacket(packet, state) {
      const length = packet.length
      if (packet.direction === Direction.forward) {
        state.packetsForward++
        state.bytesForward += length
        state.tcpFlagsForward |= packet.tcpFlags
      } else {
        state.packetsReverse++
        state.bytesReverse += length
        state.tcpFlagsReverse |= packet.tcpFlags
      }
      if (length < state.lengthMin) state.lengthMin = length
      if (length > state.lengthMax) state.lengthMax = length
      counters.packets++
      counters.bytes += length
      if (length <= 256) {
        if (length <= 64) counters.upTo64++
        else if (length <= 128) counters.upTo128++
        else counters.upTo256++
      } else if (length <= 512) counters.upTo512++
      else if (length <= 1024) counters.upTo1024++
      else if (length <= 1518) counters.upTo1518++
      else counters.larger++
      return Verdict.Forward
    },
  }),
})
