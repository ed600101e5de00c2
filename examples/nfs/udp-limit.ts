/**
 * udp-limit: lets at most so many UDP packets per second and flow pass.
 *
 * Purpose      Keeps one talkative UDP flow from drowning the others.
 * Config       packetsPerSecond (default 100)
 * State        16 bytes
 * Counters     limited
 * Drops        too-fast
 * Records      limited (packets): once for each second in which a flow was limited
 * Example      nfactor run web.pcap.gz --chain ./examples/nfs/udp-limit.ts
 */

import { defineNf, struct, time, u32, Verdict, z } from 'nfactor'

export default defineNf({
  name: 'udp-limit',
  version: 1,
  description: 'lets at most so many UDP packets per second and flow pass',
  config: z.strictObject({ packetsPerSecond: z.number().int().positive().default(100).describe('packets per second and flow') }),
  flowState: struct({ second: time, packets: u32 }),
  counters: { limited: 'packets dropped' },
  dropReasons: { tooFast: 'the flow sent more packets in this second than it may' },
  records: { limited: { packets: u32 } },
  create: ({ packetsPerSecond }, { counters, drop, record }) => ({
    processPacket(packet, state) {
      if (!packet.isUdp) return Verdict.Forward
      if (packet.time - state.second >= 1e6) {
        if (state.packets > packetsPerSecond) record('limited', { packets: state.packets })
        state.second = packet.time
        state.packets = 0
      }
      state.packets++
      if (state.packets <= packetsPerSecond) return Verdict.Forward
      counters.limited++
      return drop.tooFast
    },
  }),
})
