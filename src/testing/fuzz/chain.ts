/**
 * Fuzzing of the whole engine with the built-in network functions: damaged packets of every kind, on every link type, repeated,
 * reordered, with little room. Nobody throws, every packet is counted once, nothing is left over, and neither the memory around
 * a frame nor the kernels make a difference.
 */

import type { Random } from '../../base/random.ts'
import firewall from '../../nfs/firewall/firewall.ts'
import http from '../../nfs/http/http.ts'
import monitor from '../../nfs/monitor/monitor.ts'
import { mutatePacket } from '../mutate-packet.ts'
import { firstDifference, outcomeOf, type Outcome } from '../run-outcome.ts'
import { syntheticTraces } from '../synthetic-traces.ts'
import { TestRuntime, type TestPacket, type TestRuntimeOptions } from '../test-runtime.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'
import { onAnyLink } from './packets.ts'

const configs = [{}, { default: 'drop', rules: ['accept udp', 'accept to port 80,443'] }, { default: 'reset' },
  { tracking: { invalid: 'drop', midStream: 'drop' } }]

/** A trace that no honest network brings. */
function badTraffic(random: Random): TestPacket[] {
  const traces = syntheticTraces(random.int32())
  const { packets } = random.chance(0.3) ? traces.find((trace) => trace.name === 'fragments') ?? traces[0] : random.pick(traces)
  const share = random.fraction()
  const isOnAnyLink = random.chance(0.3)
  const changed = packets.flatMap((packet) => {
    const same = isOnAnyLink ? onAnyLink(random, packet) : packet
    const one = random.chance(share) ? mutatePacket(same, random) : same
    return random.chance(0.1) ? [one, one] : random.chance(0.05) ? [] : [one]
  })
  // Frames change places, times do not.
  for (let i = 1; i < changed.length; i++) {
    if (!random.chance(0.1)) continue
    const [a, b] = [changed[i - 1], changed[i]]
    changed[i - 1] = { ...b, time: a.time }
    changed[i] = { ...a, time: b.time }
  }
  return changed
}

/** Runs the packets and checks what must hold of any run. */
export function runToTheEnd(packets: readonly TestPacket[], config: object, options: TestRuntimeOptions): Outcome {
  const chain = [{ definition: monitor, config: {} }, { definition: firewall, config: firewall.config?.parse(config) },
    { definition: http, config: { overlap: 'first' } }]
  const runtime = new TestRuntime(chain as never, options)
  for (const packet of packets) {
    runtime.feed(packet)
    if (options.batch === 1) mustEqual(runtime.conservationFault, '', 'the count of packets')
  }
  runtime.finish()
  const { errors, inUse } = runtime.result()
  mustEqual(errors.map(({ nf, error }) => `${nf}: ${String(error)}`), [], 'errors')
  mustEqual(runtime.conservationFault, '', 'the count of packets')
  mustEqual(inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 }, 'what is in use at the end')
  const outcome = outcomeOf(runtime.outputs, runtime.ended, runtime.records)
  runtime.dispose()
  return outcome
}

export const chain: FuzzTarget = {
  name: 'chain',
  about: 'the engine with monitor, firewall and http on damaged traffic: nothing throws, leaks or depends on stray bytes',
  rounds: 20,
  round(random) {
    const packets = badTraffic(random)
    const config = random.pick(configs)
    const limits = random.chance(0.5) ? {} : {
      flows: random.between(1, 8), unanswered: random.between(1, 4), extentBytes: random.pick([1, 4, 16]) << 10, recordBytes: 1 << 16,
      fragmentedDatagrams: random.between(1, 4), fragmentsHeld: random.between(1, 4), fragmentsHeldPerDatagram: 2,
    }
    const batch = random.pick([1, 7, 32])
    const expected = runToTheEnd(packets, config, { limits, batch, garbage: 1, wasm: false })
    const found = runToTheEnd(packets, config, { limits, batch, garbage: 2 })
    mustEqual(firstDifference(expected, found), '', 'kernels and other bytes around the frames')
  },
}
