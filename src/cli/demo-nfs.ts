/**
 * The network function that the demo updates while its flows live: two versions, as files that people could have written.
 */

/** Counts packets of each flow. */
export const flowSizeBefore = `import { defineNf, struct, u64, Verdict } from 'nfactor'

export default defineNf({
  name: 'flow-size',
  version: 1,
  flowState: struct({ packets: u64 }),
  create: () => ({
    processPacket(packet, fs) {
      fs.packets++
      return Verdict.Forward
    },
  }),
})
`

/** Counts bytes as well: another layout of the state, and how the old one becomes it. */
export const flowSizeAfter = `import { defineNf, struct, u64, Verdict } from 'nfactor'

export default defineNf({
  name: 'flow-size',
  version: 2,
  flowState: struct({ packets: u64, bytes: u64 }),
  upgrades: [{ from: 1, flowState: struct({ packets: u64 }), upgrade(old, now) { now.packets = old.packets } }],
  create: () => ({
    processPacket(packet, fs) {
      fs.packets++
      fs.bytes += packet.length
      return Verdict.Forward
    },
  }),
})
`
