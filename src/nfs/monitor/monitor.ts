/**
 * monitor: counts what passes.
 *
 * Purpose      Packets and bytes per direction, sizes, TCP flags seen, duration (the flow's own first and last packet), for every
 *              flow. Forwards everything. The paper's flow monitor (§7).
 * Config       none
 * State        40 bytes. packets and bytes: forward, reverse; lengthMin and lengthMax: the smallest and the largest packet, bytes
 *              on the wire, 65535 for what is longer; tcpFlags: all flags seen, forward, reverse
 * Counters     packets, bytes
 * Records      none
 * Example      nfactor run web.pcap.gz --chain monitor --flows flows.jsonl
 */

import { assert } from '../../base/assert.ts'
import { offsetIn } from '../../memory/struct.ts'
import { array, defineNf, struct, u16, u64, u8, Verdict } from '../../nf/index.ts'
import { fastPathBinary } from '../fast-path-binary.ts'
import { FastPathPart } from '../fast-path-part.ts'

const flowState = struct({
  packets: array(u64, 2),
  bytes: array(u64, 2),
  lengthMin: u16,
  lengthMax: u16,
  tcpFlags: array(u8, 2),
})
assert(offsetIn(flowState, 'lengthMin') === 32 && offsetIn(flowState, 'tcpFlags') === 36, 'monitor.as.ts knows the layout')

/** What its field holds. A segment that was not cut up yet can be longer. */
const LENGTH_MAX = 65535

export default defineNf({
  name: 'monitor',
  version: 1,
  description: 'counts packets, bytes, sizes and TCP flags',
  flowState,
  counters: {
    packets: 'packets seen',
    bytes: 'bytes seen',
  },
  create: (_config, { counters }) => ({
    allocateFlowState(state) {
      state.lengthMin = LENGTH_MAX
    },

    processPacket(packet, state) {
      const { direction, length } = packet
      state.packets.add(direction)
      state.bytes.add(direction, length)
      const flags = packet.tcpFlags
      const seen = state.tcpFlags.get(direction)
      if ((seen | flags) !== seen) state.tcpFlags.set(direction, seen | flags)
      if (length < state.lengthMin) state.lengthMin = length
      if (length > state.lengthMax) state.lengthMax = length < LENGTH_MAX ? length : LENGTH_MAX
      counters.packets++
      counters.bytes += length
      return Verdict.Forward
    },

    fastPath: { module: fastPathBinary, part: FastPathPart.monitor },
  }),
})
