/**
 * Fuzzing of the snapshot decoder: flows of real traffic, their snapshots damaged, with and without a checksum that fits again. A
 * damaged snapshot is refused with a code and leaves nothing behind, or is taken whole; nothing else throws.
 */

import { CodedError } from '../../base/coded-error.ts'
import type { Random } from '../../base/random.ts'
import http from '../../nfs/http/http.ts'
import { snapshotChecksum } from '../../runtime/flow-snapshot.ts'
import { gate } from '../probe-nfs.ts'
import { syntheticTraces } from '../synthetic-traces.ts'
import { TEST_START_US, TestRuntime } from '../test-runtime.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'

/** Bytes in front of the record: what the decoder goes by. */
const HEADER_BYTES = 32

/** A damaged copy of a snapshot whose record ends at `recordEnd`. */
function damaged(random: Random, snapshot: Uint8Array, recordEnd: number): Uint8Array {
  const bytes = random.chance(0.2) ? snapshot.slice(0, random.below(snapshot.length)) : snapshot.slice()
  if (bytes.length < HEADER_BYTES) return bytes
  const fits = random.chance(0.7)
  for (let changes = random.between(1, 3); changes > 0; changes--) {
    // Behind a checksum that fits, sizes and parts are damaged; the record itself is the word of another engine.
    const at = !fits ? random.below(bytes.length)
      : random.chance(0.5) || bytes.length <= recordEnd ? random.below(HEADER_BYTES) : random.between(recordEnd, bytes.length - 1)
    bytes[at] = random.pick([0, 1, 0x7f, 0xff, random.int32()])
  }
  if (fits) {
    const view = new DataView(bytes.buffer)
    view.setUint32(4, bytes.length, true)
    view.setInt32(8, snapshotChecksum(bytes), true)
  }
  return bytes
}

export const snapshots: FuzzTarget = {
  name: 'snapshots',
  about: 'snapshots of flows: what is damaged is refused and leaves nothing behind, or is taken whole',
  rounds: 10,
  round(random) {
    const source = new TestRuntime([gate(), http])
    const recordEnd = HEADER_BYTES + source.engine.chain.recordBytes
    const { packets } = random.pick(syntheticTraces(random.int32()))
    source.feedAll(packets.slice(0, random.between(1, packets.length)))
    const taken = source.exportFlows(true)
    const target = new TestRuntime([gate(), http])
    for (const snapshot of taken) {
      for (let tries = 0; tries < 20; tries++) {
        const before = [target.engine.slab.used, target.engine.extents.used, target.engine.pool.used]
        try {
          target.engine.importFlow(damaged(random, snapshot, recordEnd), TEST_START_US)
        } catch (error) {
          if (!(error instanceof CodedError)) throw error
          const after = [target.engine.slab.used, target.engine.extents.used, target.engine.pool.used]
          mustEqual(after, before, `in use after "${error.message}"`)
        }
      }
    }
    source.dispose()
    target.dispose()
  },
}
