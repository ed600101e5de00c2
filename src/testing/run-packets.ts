/**
 * Runs packets through a chain and shows what came of them: the whole of most tests of a network function.
 *
 *     const { outputs, flows, records } = runPackets(firewall, web.packets, { config: { rules: [...] } })
 *     assert.equal(outputs.length, 0)
 *     assert.equal(flows[0].state.firewall.action, 'drop')
 */

import { TestRuntime, type TestChain, type TestPacket, type TestResult, type TestRuntimeOptions } from './test-runtime.ts'

export interface RunPacketsOptions extends TestRuntimeOptions {
  /** False: flows that are still there at the end stay open. */
  readonly finish?: boolean
  /** Lets time pass after the last packet, microseconds. */
  readonly waitUs?: number
}

/**
 * Puts packets through a fresh engine with this chain.
 *
 * @param packets frames, or frames with times; in the order in which they arrive
 * @throws Error when packets got lost without a count
 */
export function runPackets(chain: TestChain, packets: Iterable<Uint8Array | TestPacket>, options: RunPacketsOptions = {}):
    TestResult {
  const runtime = new TestRuntime(chain, options)
  runtime.feedAll(packets)
  runtime.flush()
  if (options.waitUs !== undefined) runtime.advanceTo(runtime.time + options.waitUs)
  if (options.finish ?? true) runtime.finish()
  const result = runtime.result()
  const fault = runtime.conservationFault
  if (fault !== '') throw new Error(fault)
  runtime.dispose()
  return result
}
