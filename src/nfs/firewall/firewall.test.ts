import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../base/random.ts'
import { formatAddress } from '../../memory/struct.ts'
import { bool, defineNf, struct, Verdict } from '../../nf/index.ts'
import {
  buildFragments, buildFrame, buildPacket, checksumFault, layersOf, runPackets, TcpConversation, TEST_START_US,
  type FrameOptions, type OutputPacket, type TcpConversationOptions, type TcpOptions,
  type TestPacket, type TestResult,
} from '../../testing/index.ts'
import firewall from './firewall.ts'
import { LinearRuleSet } from './linear-rule-set.ts'
import { parseRules } from './rule-config.ts'
import { RuleAction } from './rule.ts'

const INSIDE = '10.0.0.1'
const OUTSIDE = '192.0.2.2'
const inside6 = '2001:db8::1'
const outside6 = '2001:db8:1::2'
const there6 = { source: inside6, destination: outside6 }
const back6 = { source: outside6, destination: inside6 }

/** A TCP segment from the inside, or with `back` from the outside; the numbers fit together. */
function tcp(flags: string, options: FrameOptions & { back?: boolean; sequence?: number; acknowledgement?: number;
  payload?: string; port?: number } = {}): Uint8Array {
  const { back = false, sequence = 100, acknowledgement = 0, payload = '', port = 40000, ...rest } = options
  const ports = back ? { sourcePort: 80, destinationPort: port } : { sourcePort: port, destinationPort: 80 }
  return buildFrame({
    source: back ? OUTSIDE : INSIDE, destination: back ? INSIDE : OUTSIDE, ...rest,
    tcp: { ...ports, sequence, acknowledgement, flags, payload },
  })
}

function udp(destinationPort: number, options: FrameOptions = {}): Uint8Array {
  const { payload = 'x', ...rest } = options
  const datagram = { sourcePort: 5000, destinationPort, payload }
  return buildFrame({ source: INSIDE, destination: OUTSIDE, ...rest, udp: datagram })
}

/** From the inside to the outside, port 40000 to port 80 unless told; the server's first byte is number 300. */
function conversation(options: TcpConversationOptions = {}): TcpConversation {
  return new TcpConversation({ client: INSIDE, server: OUTSIDE, clientSequence: 99, serverSequence: 299, ...options })
}

const run = (packets: readonly (Uint8Array | TestPacket)[], config: object = {}): TestResult =>
  runPackets(firewall, packets, { config })

const counter = (result: TestResult, name: string): number => result.counters.firewall[name]
const emittedOf = (result: TestResult): OutputPacket[] => result.outputs.filter((output) => output.emitted)
const passedOf = (result: TestResult): number => result.outputs.length - emittedOf(result).length

describe('without configuration', () => {
  it('forwards everything unchanged, and shows the state of connections', () => {
    const web = conversation().open().client('GET').server('OK').close().packets.map((packet) => packet.frame)
    const packets = [...web, udp(53), buildFrame({ icmp: {} }), tcp('SF', { port: 7 })]
    const result = run(packets)
    assert.deepEqual(result.outputs.map((output) => output.frame), packets)
    assert.deepEqual(result.flows.map((flow) => flow.state.firewall), [
      { verdict: 'accept', tcp: 'time-wait', rule: null },
      { verdict: 'accept', tcp: 'none', rule: null },
      { verdict: 'accept', tcp: 'none', rule: null },
      { verdict: 'accept', tcp: 'none', rule: null },
    ])
    const { acceptedFlows, opened, established, closed, invalidFlags } = result.counters.firewall
    assert.deepEqual({ acceptedFlows, opened, established, closed, invalidFlags },
      { acceptedFlows: 4, opened: 1, established: 1, closed: 1, invalidFlags: 1 })
    assert.deepEqual(result.records.map(({ event, fields }) => ({ event, ...fields })),
      [{ event: 'invalid', reason: 'bad-flags', tcp: 'none', dropped: false }])
  })

  it('has 32 bytes of state', () => {
    assert.equal(firewall.flowState?.bytes, 32)
  })
})

describe('rules', () => {
  const rules = ['drop tcp to port 23 name telnet', 'accept tcp from 10.0.0.0/8', 'reset udp to port 53']

  it('let the first match decide, for both directions of the flow', () => {
    const telnet = conversation({ serverPort: 23 }).open().packets
    const web = conversation({ clientPort: 41000 }).open().client('GET').packets.map((packet) => packet.frame)
    const result = run([...telnet, ...web, udp(9000)], { rules, default: 'drop' })
    assert.equal(result.outputs.length, web.length)
    assert.deepEqual(result.dropReasons, { 'firewall-denied': telnet.length + 1 })
    assert.deepEqual(result.flows.map((flow) => flow.state.firewall), [
      { verdict: 'drop', tcp: 'none', rule: 0 },
      { verdict: 'accept', tcp: 'established', rule: 1 },
      { verdict: 'drop', tcp: 'none', rule: null },
    ])
    assert.deepEqual(result.records.map(({ event, tuple, fields }) => [event, tuple.destinationPort, fields]), [
      ['denied', 23, { rule: 0, name: 'telnet', action: 'drop' }],
      ['denied', 9000, { rule: -1, name: '', action: 'drop' }],
    ])
    assert.equal(counter(result, 'acceptedFlows'), 1)
    assert.equal(counter(result, 'deniedFlows'), 2)
  })

  it('see the opener as the source, also when its answer comes first', () => {
    const [syn, synAck, ack] = conversation().open().packets
    const config = { rules: [`accept tcp from ${INSIDE} to ${OUTSIDE} port 80`], default: 'drop' }
    const result = run([synAck.frame, syn.frame, ack.frame], config)
    assert.equal(result.outputs.length, 3)
    assert.equal(counter(result, 'midStream'), 1)
    assert.equal(result.flows[0].state.firewall.tcp, 'established')
    assert.equal(run([synAck.frame, syn.frame], { ...config, default: 'accept', rules: [`drop tcp from ${OUTSIDE}`] })
      .outputs.length, 2)
    const denied = run([synAck.frame], { default: 'drop' })
    assert.equal(denied.records[0].tuple.source, INSIDE)
  })

  it('know the side that the opener is on', () => {
    const config = { rules: ['accept tcp in'], default: 'drop' }
    const at = (frame: Uint8Array, port: number): TestPacket => ({ frame, port })
    const synAck = tcp('SA', { back: true, acknowledgement: 101 })
    assert.equal(run([at(tcp('S'), 0), at(synAck, 1)], config).outputs.length, 2)
    assert.equal(run([at(tcp('S'), 1)], config).outputs.length, 0)
    assert.equal(run([at(synAck, 1), at(tcp('S'), 0)], config).outputs.length, 2)
    assert.equal(run([at(synAck, 0)], config).outputs.length, 0)
  })

  it('look at VLAN and IPv6 addresses', () => {
    const rules = ['drop vlan 7', `accept from ${inside6}`, 'accept vlan none from 10.0.0.0/8']
    const packets = [
      udp(1, { vlans: [7] }), udp(2, { vlans: [8] }), udp(3), udp(4, there6), udp(5, back6),
      udp(6, { ...there6, vlans: [7] }), udp(7, { vlans: [{ id: 0, priority: 5 }] }),
    ]
    const result = run(packets, { rules, default: 'drop' })
    assert.deepEqual(result.outputs.map((output) => output.frame), [packets[2], packets[3], packets[6]])
    assert.deepEqual(result.flows.map((flow) => flow.state.firewall.rule), [0, null, 2, 1, null, 0, 2])
  })

  it('see what network functions in front have written', () => {
    const rewrite = defineNf({
      name: 'rewrite', version: 1,
      create: () => ({
        processPacket(packet) {
          if (packet.direction === 0) packet.destinationPort = 8080
          else packet.sourcePort = 8080
          return Verdict.Forward
        },
      }),
    })
    const config = firewall.config!.parse({ rules: ['accept tcp to port 8080'], default: 'drop' })
    const { packets } = conversation().open()
    assert.equal(runPackets([rewrite, { definition: firewall, config }], packets).outputs.length, 3)
  })

  it('wait for a packet with ports, when others came by a network function in front', () => {
    const gate = defineNf({
      name: 'gate', version: 1, flowState: struct({ seen: bool }), dropReasons: { early: 'the first packet' },
      create: (_config, { drop }) => ({
        processPacket(_packet, state) {
          if (state.seen) return Verdict.Forward
          state.seen = true
          return drop.early
        },
      }),
    })
    const runBehind = (packets: Uint8Array[], config: object): TestResult =>
      runPackets([gate, { definition: firewall, config: firewall.config!.parse(config) }], packets)
    const fragments = buildFragments({ source: INSIDE, destination: OUTSIDE, identification: 3,
      udp: { sourcePort: 5000, destinationPort: 53, payload: 'y'.repeat(2000) } }, 800)
    const icmp = { type: 3, code: 3, quote: udp(53).subarray(14) }
    const error = buildFrame({ source: OUTSIDE, destination: INSIDE, icmp })
    const rules = ['accept udp to port 53']
    const late = runBehind([...fragments, error, udp(53)], { rules, default: 'drop' })
    assert.deepEqual(late.outputs.map((output) => output.frame), [fragments[1], fragments[2], udp(53)])
    assert.equal(late.dropReasons['firewall-denied'], 1)
    assert.equal(late.flows[0].state.firewall.verdict, 'accept')
    assert.equal(runBehind([udp(53), error], { rules }).outputs.length, 1)
    assert.equal(runBehind([udp(53), error], { rules }).flows[0].state.firewall.verdict, 'undecided')
  })

  it('count 65,535 at most', () => {
    const parse = (count: number) => firewall.config!.safeParse({ rules: new Array(count).fill('drop') })
    assert.equal(parse(65535).success, true)
    assert.equal(parse(65536).success, false)
  })

  it('work with 10,000 of them', () => {
    const random = new Random(3)
    const site = (): string => `10.${random.below(3)}.${random.below(4)}.0/24`
    const lines = Array.from({ length: 10_000 }, () => {
      const low = random.below(3000)
      const what = `${random.pick(['accept', 'drop'])} ${random.pick(['tcp', 'udp'])}`
      return `${what} from ${site()} to ${site()} port ${low}-${low + 40}`
    })
    const linear = new LinearRuleSet(parseRules(lines))
    const packets: Uint8Array[] = []
    const expected: boolean[] = []
    let matched = 0
    for (let i = 0; i < 1000; i++) {
      const isTcp = random.chance(0.5)
      const word = (): number => (10 << 24) | (random.below(3) << 16) | (random.below(4) << 8) | random.below(256)
      const source = word()
      const destination = word()
      const destinationPort = random.below(3000)
      const transport = { sourcePort: 1024 + i, destinationPort }
      packets.push(buildFrame({
        source: formatAddress(4, source), destination: formatAddress(4, destination),
        ...(isTcp ? { tcp: { ...transport, flags: 'S' } } : { udp: transport }),
      }))
      const rule = linear.match(
        4, source, 0, 0, 0, destination, 0, 0, 0, 1024 + i, destinationPort, isTcp ? 6 : 17, -1, 0)
      if (rule >= 0) matched++
      expected.push(rule >= 0 && parseRules([lines[rule]])[0].action === RuleAction.Accept)
    }
    assert.ok(matched > 200 && matched < 900, `${matched} of 1,000 packets match a rule`)
    const { outputs } = run(packets, { rules: lines, default: 'drop' })
    const passed = new Set(outputs.map((output) => Buffer.from(output.frame).toString('latin1')))
    assert.deepEqual(packets.map((packet) => passed.has(Buffer.from(packet).toString('latin1'))), expected)
  })
})

describe('the other direction', () => {
  const config = { rules: [`accept tcp from ${INSIDE}`], default: 'drop' }
  /** A stray segment of the inside opens the flow. */
  const against = [tcp('A', { acknowledgement: 500 }), tcp('S', { back: true, sequence: 499 })]

  it('may not open a connection on the ports of an accepted flow', () => {
    const stray = run(against, config)
    assert.equal(stray.outputs.length, 1)
    assert.equal(counter(stray, 'deniedConnections'), 1)
    assert.equal(stray.flows[0].state.firewall.tcp, 'mid-stream')
    const late = [...conversation().open().packets, tcp('S', { back: true, sequence: 7 })]
    assert.equal(run(late, config).outputs.length, 3)
    assert.equal(run(late).outputs.length, 4)
    // Opening at once is the connection that was allowed.
    assert.equal(run([tcp('S'), tcp('S', { back: true, sequence: 300 })], config).outputs.length, 2)
  })

  it('may open one that the rules allow, on the ports of a refused flow', () => {
    const result = run([
      tcp('A', { back: true, sequence: 7, acknowledgement: 9 }),
      tcp('S', { sequence: 100 }),
      tcp('SA', { back: true, sequence: 300, acknowledgement: 101 }),
      tcp('A', { sequence: 101, acknowledgement: 301 }),
      tcp('S', { back: true, sequence: 9999 }),
    ], config)
    assert.equal(result.outputs.length, 3)
    assert.deepEqual(result.flows[0].state.firewall, { verdict: 'accept', tcp: 'established', rule: 0 })
    assert.equal(counter(result, 'acceptedFlows'), 1)
    assert.equal(counter(result, 'deniedConnections'), 1)
  })

  it('gets no answer through, and opens nothing without SYN, on the ports of a refused flow', () => {
    const back = { source: OUTSIDE, destination: INSIDE }
    const fromOutside = { rules: [`accept from ${OUTSIDE}`], default: 'drop' }
    const answer = buildFrame({ ...back, udp: { sourcePort: 53, destinationPort: 5000 } })
    assert.equal(run([udp(53), answer], fromOutside).outputs.length, 0)
    for (const flags of ['SA', 'A', 'FA', 'RA']) {
      assert.equal(run([tcp('S'), tcp(flags, { back: true, acknowledgement: 101 })], fromOutside).outputs.length, 0)
    }
  })

  it('is told when it is refused', () => {
    const result = run(against, { ...config, default: 'reset' })
    assert.equal(counter(result, 'resetsSent'), 1)
  })

  it('is asked for anew only when connections are tracked', () => {
    const result = run(against, { ...config, tracking: { enabled: false } })
    assert.equal(result.outputs.length, 2)
    assert.equal(result.flows[0].state.firewall.tcp, 'none')
  })
})

describe('what belongs to a flow', () => {
  const big = { source: INSIDE, destination: OUTSIDE, udp: { destinationPort: 53, payload: 'y'.repeat(3000) } }
  const big6 = { ...big, ...there6 }

  it('are its fragments, in any order', () => {
    for (const datagram of [big, big6]) {
      const fragments = buildFragments({ ...datagram, identification: 9 }, 1000)
      for (const order of [fragments, fragments.toReversed()]) {
        assert.equal(run(order, { rules: ['accept udp to port 53'], default: 'drop' }).outputs.length, fragments.length)
        const denied = run(order, { rules: ['reset udp to port 53'] })
        assert.equal(passedOf(denied), 0)
        assert.equal(counter(denied, 'prohibitedSent'), 1)
        assert.equal(denied.dropReasons['firewall-denied'], fragments.length)
      }
    }
  })

  it('are fragments of its segments', () => {
    const ports = { sourcePort: 40000, destinationPort: 80 }
    const segment = { ...ports, sequence: 100, acknowledgement: 300, flags: 'FA', payload: 'z'.repeat(2000) }
    const result = run([
      ...conversation().open().packets,
      ...buildFragments({ source: INSIDE, destination: OUTSIDE, identification: 5, tcp: segment }, 600),
      tcp('A', { back: true, sequence: 300, acknowledgement: 2101 }),
    ], { tracking: { invalid: 'drop' } })
    assert.deepEqual(result.dropReasons, {})
    assert.equal(result.flows[0].state.firewall.tcp, 'close-wait')
  })

  it('are ICMP errors about it', () => {
    const quote = tcp('S').subarray(14)
    const error = buildFrame({ source: '198.51.100.9', destination: INSIDE, icmp: { type: 3, code: 1, quote } })
    const config = { rules: ['accept tcp to port 80'], default: 'drop' }
    const passed = run([tcp('S'), error], config)
    assert.equal(passed.outputs.length, 2)
    assert.equal(passed.flows.length, 1)
    assert.equal(passed.flows[0].state.firewall.tcp, 'syn-sent')
    const denied = run([tcp('S'), error, error], { ...config, rules: ['reset tcp to port 80'] })
    assert.equal(passedOf(denied), 0)
    assert.equal(emittedOf(denied).length, 1)
    // Without its flow it is a flow of its own.
    assert.equal(run([error], config).outputs.length, 0)
    assert.equal(run([error], { ...config, rules: ['accept icmp'] }).outputs.length, 1)
  })

  it('are not the other ports of a protocol without ports in the flow key', () => {
    const sctp = (sourcePort: number, destinationPort: number, back = false): Uint8Array => buildFrame({
      source: back ? OUTSIDE : INSIDE, destination: back ? INSIDE : OUTSIDE, protocol: 132,
      payload: Uint8Array.of(sourcePort >>> 8, sourcePort, destinationPort >>> 8, destinationPort, 0, 0, 0, 0),
    })
    const packets = [sctp(1000, 3868), sctp(3868, 1000, true), sctp(1000, 22), sctp(22, 1000, true), sctp(1001, 3868)]
    const result = run(packets, { rules: ['accept sctp to port 3868'], default: 'drop' })
    assert.deepEqual(result.outputs.map((output) => output.frame), [packets[0], packets[1], packets[4]])
    assert.equal(result.flows[0].state.firewall.verdict, 'by-packet')
    assert.equal(counter(result, 'acceptedFlows'), 1)
    assert.equal(counter(result, 'deniedFlows'), 0)
    const ssh = { rules: ['reset sctp from port 1000 to port 22 name ssh'] }
    const refused = run([packets[2], packets[0], packets[2]], ssh)
    assert.equal(counter(refused, 'deniedFlows'), 1)
    assert.equal(counter(refused, 'prohibitedSent'), 1)
    assert.deepEqual(refused.records.map((record) => record.fields), [{ rule: 0, name: 'ssh', action: 'reset' }])
    assert.equal(passedOf(run(packets, { rules: ['drop sctp from port 1000'] })), 1)
    assert.equal(run(packets, { rules: ['accept sctp'], default: 'drop' }).outputs.length, 5)
    // A later fragment goes with what was let through.
    const fragments = [0, 8].map((offset) => buildFrame({
      source: INSIDE, destination: OUTSIDE, identification: 8, protocol: 132, payload: packets[0].subarray(34),
      fragment: { offset, more: offset === 0 },
    }))
    assert.equal(run(fragments, { rules: ['accept sctp to port 3868'], default: 'drop' }).outputs.length, 2)
  })
})

/** The fields of a RST. */
function readReset(output: OutputPacket): object {
  const { frame } = output
  const { transport, end } = layersOf(frame)
  const view = new DataView(frame.buffer, frame.byteOffset)
  assert.equal(checksumFault(frame), '')
  assert.equal(end, frame.length)
  assert.equal(end - transport, 20)
  return {
    flags: frame[transport + 13],
    sequence: view.getUint32(transport + 4),
    acknowledgement: view.getUint32(transport + 8),
    ports: [view.getUint16(transport), view.getUint16(transport + 2)],
  }
}

describe('reset', () => {
  const config = { default: 'reset' }

  it('answers TCP with RST (RFC 9293 §3.5.2)', () => {
    const ports = [80, 40000]
    const answerTo = (frame: Uint8Array): object => readReset(emittedOf(run([frame], config))[0])
    assert.deepEqual(answerTo(tcp('S')), { flags: 0x14, sequence: 0, acknowledgement: 101, ports })
    assert.deepEqual(answerTo(tcp('S', { payload: 'fast' })), { flags: 0x14, sequence: 0, acknowledgement: 105, ports })
    assert.deepEqual(answerTo(tcp('F', { payload: 'abc' })), { flags: 0x14, sequence: 0, acknowledgement: 104, ports })
    assert.deepEqual(answerTo(tcp('S', { sequence: 0xffffffff })),
      { flags: 0x14, sequence: 0, acknowledgement: 0, ports })
    assert.deepEqual(answerTo(tcp('PA', { acknowledgement: 777, payload: 'abc' })),
      { flags: 0x04, sequence: 777, acknowledgement: 0, ports })
    assert.deepEqual(answerTo(tcp('SA', { acknowledgement: 0xfffffff0 })),
      { flags: 0x04, sequence: 0xfffffff0, acknowledgement: 0, ports })
    assert.deepEqual(answerTo(tcp('S', there6)),
      { flags: 0x14, sequence: 0, acknowledgement: 101, ports })
    for (const flags of ['R', 'RA']) {
      const result = run([tcp(flags, { acknowledgement: 5 })], config)
      assert.equal(result.outputs.length, 0)
      assert.equal(counter(result, 'unanswered'), 1)
      assert.equal(counter(result, 'resetsSent'), 0)
    }
  })

  it('sends it back the way the packet came', () => {
    const [answer] = emittedOf(run([tcp('S', { vlans: [100, 7], ipOptions: Uint8Array.of(1, 1, 1, 1) })], config))
    assert.deepEqual(answer.frame.subarray(0, 22), tcp('S', {
      vlans: [100, 7], sourceMac: '02:00:00:00:00:02', destinationMac: '02:00:00:00:00:01' }).subarray(0, 22))
    const { network } = layersOf(answer.frame)
    assert.equal(answer.frame[network], 0x45)
    assert.deepEqual([...answer.frame.subarray(network + 12, network + 20)], [192, 0, 2, 2, 10, 0, 0, 1])
    for (const packet of [tcp('S', there6), udp(53, there6)]) {
      const { frame } = emittedOf(run([packet], config))[0]
      assert.deepEqual(frame.subarray(0, 14), tcp('S', {
        ...back6, sourceMac: '02:00:00:00:00:02', destinationMac: '02:00:00:00:00:01' }).subarray(0, 14))
      assert.deepEqual(frame.subarray(22, 54), udp(1, back6).subarray(22, 54))
    }
  })

  it('answers the rest with "administratively prohibited" (RFC 1812 §5.2.7.1, RFC 4443 §3.1)', () => {
    const answerTo = (packet: Uint8Array): { kind: number[]; quote: Uint8Array; length: number } => {
      const { frame } = emittedOf(run([packet], config))[0]
      assert.equal(checksumFault(frame), '')
      const { network, transport, end } = layersOf(frame)
      assert.equal(end, frame.length)
      const kind = [...frame.subarray(transport, transport + 2)]
      return { kind, quote: frame.subarray(transport + 8), length: end - network }
    }
    const small = udp(53, { trailer: new Uint8Array(20) })
    assert.deepEqual(answerTo(small), { kind: [3, 13], quote: small.subarray(14, 14 + 29), length: 28 + 29 })
    const large = udp(53, { payload: 'q'.repeat(1401) })
    assert.deepEqual(answerTo(large), { kind: [3, 13], quote: large.subarray(14, 14 + 548), length: 576 })
    const small6 = udp(53, { ...there6, payload: 'odd', trailer: new Uint8Array(9) })
    assert.deepEqual(answerTo(small6), { kind: [1, 1], quote: small6.subarray(14, 14 + 51), length: 48 + 51 })
    const large6 = udp(53, { ...there6, payload: 'q'.repeat(1400) })
    assert.deepEqual(answerTo(large6), { kind: [1, 1], quote: large6.subarray(14, 14 + 1232), length: 1280 })
    const cut = emittedOf(run([{ frame: large.subarray(0, 100), wireLength: large.length }], config))[0].frame
    assert.equal(checksumFault(cut), '')
    assert.deepEqual(cut.subarray(42), large.subarray(14, 100))
    assert.deepEqual(answerTo(buildFrame({ icmp: {} })).kind, [3, 13])
    assert.deepEqual(answerTo(buildFrame({ protocol: 47, payload: 'gre' })).kind, [3, 13])
  })

  it('keeps silent where an answer would go astray (RFC 1122 §3.2.2, RFC 4443 §2.4)', () => {
    const quote = buildPacket({ source: OUTSIDE, destination: INSIDE, udp: {} })
    const quote6 = buildPacket({ source: outside6, destination: inside6, udp: {} })
    const silent: Uint8Array[] = [
      udp(1, { destination: '224.0.0.251' }), udp(1, { destination: '255.255.255.255' }), udp(1, { source: '0.0.0.0' }),
      udp(1, { source: '240.0.0.1' }), udp(1, { destinationMac: '01:00:5e:00:00:01' }),
      udp(1, { source: inside6, destination: 'ff02::1' }), udp(1, { source: '::', destination: outside6 }),
      udp(1, { source: 'ff02::1', destination: outside6 }),
      tcp('S', { destination: '239.1.1.1' }), tcp('S', { destinationMac: 'ff:ff:ff:ff:ff:ff' }),
      buildFrame({ icmp: { type: 3, code: 1, quote } }), buildFrame({ icmp: { type: 11, code: 0, quote } }),
      buildFrame({ ...there6, icmp: { type: 1, code: 4, quote: quote6 } }),
      buildFrame({ ...there6, icmp: { type: 137, code: 0 } }),
    ]
    const result = run(silent, config)
    assert.equal(result.outputs.length, 0)
    assert.equal(counter(result, 'unanswered'), silent.length)
    assert.equal(result.dropReasons['firewall-denied'], silent.length)
    assert.equal(run([buildFrame({ ...there6, icmp: {} })], config).outputs.length, 1)
  })

  it('does not answer a segment whose length is not known', () => {
    const segment = { source: INSIDE, destination: OUTSIDE, identification: 4,
      tcp: { flags: 'S', sequence: 100, payload: 'x'.repeat(600) } }
    assert.equal(run(buildFragments(segment, 400), config).outputs.length, 0)
    const withAck = buildFragments({ ...segment, tcp: { ...segment.tcp, flags: 'A', acknowledgement: 9 } }, 400)
    assert.equal(run(withAck, config).outputs.length, 1)
  })

  it('answers a flow once a second', () => {
    const at = (ms: number, port = 40000): TestPacket =>
      ({ frame: tcp('S', { port }), time: TEST_START_US + ms * 1000 })
    const result = run([at(0), at(10), at(20, 40001), at(900), at(1100), at(1200), at(2000)], config)
    assert.deepEqual(emittedOf(result).map((output) => (output.time / 1000) % 1e6), [0, 20, 1100, 2000])
    assert.equal(counter(result, 'resetsSent'), 4)
    assert.equal(counter(result, 'unanswered'), 3)
  })

  it('answers all flows within a limit', () => {
    const flood = Array.from({ length: 400 }, (_, i): TestPacket => ({
      frame: tcp('S', { port: 1000 + i }), time: TEST_START_US + Math.floor(i / 100) * 500_000 }))
    const result = run(flood, { ...config, answersPerSecond: 20 })
    // The bucket is full at first, and half full again after half a second.
    assert.equal(emittedOf(result).length, 20 + 10 + 10 + 10)
    assert.equal(run(flood, { ...config, answersPerSecond: 0 }).outputs.length, 0)
    assert.equal(counter(run(flood, config), 'resetsSent'), 400)
  })
})

describe('tracking', () => {
  const open = conversation().open().packets
  const data = { sequence: 100, acknowledgement: 300, payload: 'x' }
  /** A packet of each invalid kind, for the connection above. */
  const invalid: Record<string, Uint8Array> = {
    'invalid-flags': tcp('SF'),
    'out-of-window': tcp('PA', { ...data, sequence: 999_999 }),
    'unacceptable-ack': tcp('A', { sequence: 100, acknowledgement: 301 }),
    'invalid-reset': tcp('R', { sequence: 99 }),
  }

  it('drops invalid segments when told so, each for its reason', () => {
    const config = { tracking: { invalid: 'drop' } }
    for (const [reason, frame] of Object.entries(invalid)) {
      const result = run([...open, frame, frame], config)
      assert.deepEqual(result.dropReasons, { [`firewall-${reason}`]: 2 })
      assert.equal(result.flows[0].state.firewall.tcp, 'established')
      assert.equal(result.records.length, 1)
      assert.deepEqual(result.records[0].fields.dropped, true)
      const name = reason.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
      assert.equal(counter(result, name), 2)
      assert.equal(run([...open, frame]).outputs.length, 4)
    }
    const after = run([...open, tcp('R', { sequence: 100 }), tcp('PA', data)], config)
    assert.deepEqual(after.dropReasons, { 'firewall-after-close': 1 })
  })

  it('drops what has no handshake when told so', () => {
    const config = { tracking: { midStream: 'drop' } }
    const result = run([tcp('PA', { payload: 'x' }), tcp('S', { sequence: 99 }), ...open.slice(1)], config)
    assert.deepEqual(result.dropReasons, { 'firewall-no-handshake': 1 })
    assert.equal(result.flows[0].state.firewall.tcp, 'established')
    assert.equal(run([tcp('PA', { payload: 'x' })]).outputs.length, 1)
  })

  it('lets the answerer of a refused middle open where rules allow it', () => {
    const config = { rules: [`accept tcp from ${INSIDE}`, `accept tcp from ${OUTSIDE} port 80`], default: 'drop',
      tracking: { midStream: 'drop' } }
    const before = tcp('A', { back: true, acknowledgement: 5 })
    const result = run([before, ...open, tcp('S', { back: true, sequence: 9999 })], config)
    assert.equal(result.outputs.length, 4)
    assert.deepEqual(result.flows[0].state.firewall, { verdict: 'accept', tcp: 'established', rule: 0 })
  })

  it('is switched off, or eased', () => {
    const reasons = (tracking: object): string[] =>
      Object.keys(run([...open, ...Object.values(invalid)], { tracking: { invalid: 'drop', ...tracking } }).dropReasons)
    assert.deepEqual(reasons({ enabled: false }), [])
    assert.deepEqual(reasons({ windowCheck: 'liberal' }), ['firewall-invalid-flags', 'firewall-invalid-reset'])
    assert.deepEqual(reasons({ windowCheck: false }), ['firewall-invalid-flags'])
    assert.equal(reasons({}).length, 4)
  })

  it('reads the window scale option', () => {
    const options = Uint8Array.of(2, 4, 5, 180, 1, 3, 3, 4)
    const inward = { sourcePort: 80, destinationPort: 40000, window: 1000 }
    const outward = { sourcePort: 40000, destinationPort: 80, window: 1000 }
    const out = (segment: TcpOptions): Uint8Array =>
      buildFrame({ source: INSIDE, destination: OUTSIDE, tcp: { ...outward, acknowledgement: 300, ...segment } })
    const back = (segment: TcpOptions): Uint8Array =>
      buildFrame({ source: OUTSIDE, destination: INSIDE, tcp: { ...inward, acknowledgement: 100, ...segment } })
    const shake = (): Uint8Array[] => [
      out({ flags: 'S', sequence: 99, acknowledgement: 0, options }), back({ flags: 'SA', sequence: 299, options }),
      out({ sequence: 100 }), back({ sequence: 300 }),
    ]
    const edge = 100 + (1000 << 4)
    const reasons = (sequence: number): object =>
      run([...shake(), out({ sequence, payload: 'x' })], { tracking: { invalid: 'drop' } }).dropReasons
    assert.deepEqual(reasons(edge), {})
    // Not an option of this kind with another length.
    options.set([3, 4, 4, 0], 4)
    assert.deepEqual(reasons(edge), { 'firewall-out-of-window': 1 })
    options.set([1, 3, 3, 4], 4)
    assert.deepEqual(reasons(edge + 1), { 'firewall-out-of-window': 1 })
  })

  it('knows how long segments were that a capture has cut', () => {
    for (const [client, server] of [[INSIDE, OUTSIDE], [inside6, outside6]]) {
      const web = conversation({ client, server }).open().client('x'.repeat(5000)).server('y'.repeat(9000)).close()
      const cut = web.packets.map(({ frame, time }) =>
        ({ frame: frame.subarray(0, 80), wireLength: frame.length, time }))
      const result = run(cut, { tracking: { invalid: 'drop' } })
      assert.deepEqual(result.dropReasons, {})
      assert.equal(result.flows[0].state.firewall.tcp, 'time-wait')
    }
  })

  it('begins anew with a SYN after the end', () => {
    const web = conversation().open().close()
    const again = conversation({ clientSequence: 5, startUs: web.timeUs }).open()
    const result = run([...web.packets, ...again.packets], { tracking: { invalid: 'drop', midStream: 'drop' } })
    assert.deepEqual(result.dropReasons, {})
    assert.deepEqual(result.flows.map((flow) => flow.state.firewall.tcp), ['time-wait', 'established'])
  })
})
