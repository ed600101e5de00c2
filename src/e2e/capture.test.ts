/**
 * Captures through a cluster of processes with three runtimes give for each flow what `nfactor run` gives: packets, bytes, and all that
 * each network function knows of it; and what is dropped is dropped for the same reasons.
 *
 * All captures are one after another on a tape, each in a VLAN of its own, so that one cluster is enough. It plays them as fast as it can: a
 * switch takes from a file only what it can pass on. Nothing expires meanwhile on either side.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { TestCluster } from '../cli/test-cluster.ts'
import { openCaptureReader } from '../ports/capture-file-reader.ts'
import { CaptureFileWriter } from '../ports/capture-file-writer.ts'
import type { ClusterFlow } from '../process/operator.ts'
import type { FlowLine } from '../process/run-lines.ts'
import { corpusCaptures, corpusMissing } from '../testing/corpus/corpus-location.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { linkPayload, LinkType } from '../wire/link-type.ts'

const linux = process.platform !== 'linux' && 'ports to real links need Linux'
const isFull = process.env['NFACTOR_FULL'] !== undefined
const examples = ['web.pcap.gz', 'ethernet.pcap', 'vlan.pcap', 'linux-sll.pcap', 'raw.pcap']
  .map((name) => join(import.meta.dirname, '../../examples/captures', name))

const settings = `
chain: [monitor, firewall, http]
timeouts: { tcpOpening: 1000000, tcp: 1000000, tcpClosed: 1000000, udp: 1000000, icmp: 1000000, other: 1000000 }
`
/** VLANs of captures. */
const VLAN_FIRST = 2000
const ETHERNET_HEADER = 14
const PATIENCE_MS = 240_000
/** Later fragments without a first one: `nfactor run` gives them up at its end, a cluster after a minute. */
const WAITING = 'fragment-timeout'

type Known = Pick<FlowLine, 'packets' | 'bytes' | 'state'>

/** Puts captures one after another on a tape; returns how many packets that are. */
async function record(tape: string, captures: readonly string[]): Promise<number> {
  const writer = new CaptureFileWriter(tape)
  writer.interfaceAdded(0, LinkType.Ethernet, 0, true)
  let end = 1_700_000_000
  let count = 0
  for (const [i, path] of captures.entries()) {
    const capture = new CaptureRecorder()
    await (await openCaptureReader(path)).readInto(capture)
    const shift = end - Math.min(...capture.packets.map(({ seconds }) => seconds))
    for (const { bytes, originalLength, seconds, nanoseconds, interfaceIndex } of capture.packets) {
      const linkType = capture.interfaces[interfaceIndex].linkType
      const isEthernet = linkType === LinkType.Ethernet
      const link = isEthernet ? ETHERNET_HEADER : linkPayload(bytes, 0, bytes.length, linkType)
      const packet = bytes.subarray(link & 0xffff)
      const frame = new Uint8Array(18 + packet.length)
      frame.set(isEthernet ? bytes.subarray(0, 12) : [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
      const vlan = VLAN_FIRST + i
      frame.set([0x81, 0, vlan >> 8, vlan & 255, ...isEthernet ? bytes.subarray(12, 14) : [link >>> 24, link >>> 16 & 255]], 12)
      frame.set(packet, 18)
      writer.packet(frame, 0, frame.length, originalLength + frame.length - bytes.length, seconds + shift, nanoseconds, 0)
      end = Math.max(end, seconds + shift + 1)
      count++
    }
  }
  writer.close()
  return count
}

async function compare(context: TestContext, captures: readonly string[]): Promise<void> {
  const cluster = new TestCluster('capture')
  context.after(() => { cluster.close() })
  const tape = join(cluster.folder, 'tape.pcap')
  const packets = await record(tape, captures)
  const config = cluster.write('run.yaml', settings)
  const { status, stdout, stderr } = cluster.call('run', tape, '--config', config, '--flows', 'flows.jsonl', '--json')
  assert.equal(status, 0, stderr)
  const { dropReasons: { [WAITING]: waiting = 0, ...dropReasons } } = JSON.parse(stdout) as { dropReasons: Record<string, number> }
  const expected = new Map<string, Known>()
  // Of connections that followed each other on the same ports, the last.
  for (const line of readFileSync(join(cluster.folder, 'flows.jsonl'), 'utf8').trim().split('\n')) {
    const { key: { vlan, protocol, a, b }, packets: count, bytes, state } = JSON.parse(line) as FlowLine
    const endpoint = ({ address, port }: typeof a): string => `${address.includes(':') ? `[${address}]` : address}:${port}`
    expected.set(`${protocol} ${vlan} ${endpoint(a)} ${endpoint(b)}`, { packets: count, bytes, state })
  }
  cluster.must('up', cluster.write('cluster.yaml', `name: capture
${settings}
ingress: { type: capture, input: ${JSON.stringify(tape)} }
egress: { type: none }
runtimes: 3
`), '--detach')
  const begin = performance.now()
  await cluster.until('all has been played and has arrived', async () => {
    const { nodes } = await cluster.status()
    const buffered = nodes.reduce((sum, { status: of }) => sum + (of?.workload.buffered ?? 0), 0)
    return nodes[0].status?.external?.rxFrames === packets && buffered === waiting
  }, PATIENCE_MS)
  const seconds = (performance.now() - begin) / 1000
  const { nodes } = await cluster.untilArrived(PATIENCE_MS)
  const drops: Record<string, number> = {}
  for (const { status: of } of nodes) {
    for (const [reason, count] of Object.entries(of?.dropReasons ?? {})) drops[reason] = (drops[reason] ?? 0) + count
  }
  assert.deepEqual(drops, dropReasons)
  const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { state: true, limit: 100_000 })
  const found: ReadonlyMap<string, unknown> = new Map(flows.map(({ protocol, vlan, a, b, packets: count, bytes, state }) =>
    [`${protocol} ${vlan} ${a} ${b}`, { packets: count, bytes, state }] as const))
  assert.ok(new Set(flows.map(({ node }) => node)).size === 3, 'all runtimes have flows')
  for (const [key, known] of expected) assert.deepEqual(found.get(key), known, key)
  assert.deepEqual([...found.keys()].filter((key) => !expected.has(key)), [])
  context.diagnostic(`${captures.length} captures, ${packets} packets, ${flows.length} flows: played in ${seconds.toFixed(1)} s`)
}

test('examples through a cluster', { skip: linux, timeout: 300_000 }, (context) => compare(context, examples))

const missing = corpusMissing() || (!isFull && 'NFACTOR_FULL is not set')
test('the capture corpus through a cluster', { skip: linux || missing, timeout: 580_000 }, async (context) => {
  const captures = corpusCaptures().map(({ path }) => path)
  assert.ok(captures.length > 10)
  await compare(context, captures)
})
