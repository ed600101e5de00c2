/**
 * firewall: lets flows pass by rules, and watches that TCP connections are sound.
 *
 * Purpose      The first rule that matches the packet that opens a flow decides for the whole flow, in both directions
 *              (rule syntax: rule-config.ts). Later fragments and ICMP errors about a flow share its fate. TCP
 *              connections are tracked through all their states with their windows (tcp-tracking.ts); segments that
 *              cannot belong to a connection are invalid.
 *              When the other side opens a connection on the ports of a flow (a SYN against its direction), the rules
 *              decide about that one anew. A flow of a protocol whose ports are not part of the flow key (SCTP, DCCP,
 *              UDP-Lite) is judged packet by packet if rules name its ports.
 * Config       rules, default     what passes: `accept`, `drop`, or `reset`: drop and tell the sender (rejection.ts)
 *              answersPerSecond   bound on what `reset` sends (1,000 over all flows; 1 a second for each)
 *              tracking           enabled, midStream, invalid, windowCheck: see their descriptions below
 *              Without any configuration everything passes and is tracked, also in captures that begin in the middle
 *              of connections or have holes: invalid segments are counted, not dropped. Inline, where every packet is
 *              seen, fail safe instead: `default: drop`, `tracking: { invalid: drop }`, and `midStream: drop` where
 *              no connection is older than the firewall.
 * State        32 bytes: verdict and rule, state of the connection, and per direction the end of what was sent, the
 *              highest acknowledgement and the largest window
 * Counters     flows: acceptedFlows, deniedFlows, deniedConnections; answers: resetsSent, prohibitedSent, unanswered;
 *              connections: opened, established, midStream, closed, reset; segments: oldDuplicates, challenges, and
 *              the invalid ones: invalidFlags, noHandshake, outOfWindow, unacceptableAck, invalidReset, afterClose
 * Drops        denied, and the kinds of invalid segments
 * Records      denied (rule, name, action), once per flow; invalid (reason, tcp, dropped), the first of a flow
 * Example      nfactor run web.pcap.gz --chain firewall --set chain.firewall.default=drop \
 *                --set 'chain.firewall.rules=["accept tcp to port 80,443"]'
 *
 * Rules look at a packet as the network functions before this one have left it. A rule's `in` and `out` are port 0 and
 * any other; the opener of a flow whose answer was seen first is taken to be on the other side. A segment that is
 * dropped has changed nothing of what is known of its connection.
 */

import {
  bool, defineNf, Direction, enumeration, i32, internal, IpProtocol, struct, text, u16, u8, Verdict, z,
  type Packet, type StateOf,
} from '../../nf/index.ts'
import { assert } from '../../base/assert.ts'
import { fastPathBinary } from '../fast-path-binary.ts'
import { FastPathPart } from '../fast-path-part.ts'
import { Answer, Rejection } from './rejection.ts'
import { parseRuleAction, parseRules, ruleActionSchema, rulesSchema } from './rule-config.ts'
import { RuleSet } from './rule-set.ts'
import { portProtocols, RuleAction, type Rule } from './rule.ts'
import {
  makeTrackEstablished, TcpOutcome, tcpOutcome, tcpSide, TcpState, tcpState, TcpTracker,
} from './tcp-tracking.ts'

const NO_RULE = 65535

/** Index of a rule; people see `null` when it was the default. */
const ruleIndex = {
  ...u16,
  fingerprint: 'rule',
  decode: (...place: Parameters<typeof u16.decode>): number | null => {
    const index = u16.decode(...place)
    return index === NO_RULE ? null : index
  },
}

const flowVerdict = enumeration('undecided', 'accept', 'drop', 'reset', 'by-packet')

const flowState = struct({
  verdict: flowVerdict,
  tcp: tcpState,
  rule: ruleIndex,
  forward: internal(tcpSide),
  reverse: internal(tcpSide),
  /** Of tracking, and the bits below. */
  flags: internal(u16),
  scales: internal(u8),
  /** The second (modulo 255, plus 1) of the last answer. */
  answered: internal(u8),
})

type FlowState = StateOf<typeof flowState>

/** Where the two sides lie in the state. */
const SIDES = 4
const offsetOf = (name: string): number | undefined => flowState.layout.find((field) => field.name === name)?.offset
assert(offsetOf('forward') === SIDES && offsetOf('reverse') === SIDES + tcpSide.bytes, 'one side follows the other')
assert(offsetOf('tcp') === 1 && offsetOf('scales') === 30 && flowVerdict.values.accept === 1 && TcpState.established === 5,
  'firewall.as.ts knows the layout')

/** The first invalid segment of the flow has been reported. */
const REPORTED = 0x2000
/** It was the reverse side that the rules allowed to open the connection. */
const OPENED_BY_REVERSE = 0x4000

const UNDECIDED = flowVerdict.values.undecided
const ACCEPT = flowVerdict.values.accept
const DROP = flowVerdict.values.drop
const RESET = flowVerdict.values.reset
const BY_PACKET = flowVerdict.values['by-packet']
const ESTABLISHED = TcpState.established
const FORWARD = Verdict.Forward
/** FIN, SYN, RST and ACK. */
const CONTROL = 0x17
const ONLY_ACK = 0x10
const ONLY_SYN = 0x02
const WINDOW_SCALE = 3

const config = z.strictObject({
  rules: rulesSchema.refine((rules) => rules.length <= NO_RULE, `at most ${NO_RULE} rules are allowed`).default([])
    .describe('Rules in order, first match wins: objects, or lines like "accept tcp from 10.0.0.0/8 to port 80,443"'),
  default: ruleActionSchema.default('accept')
    .describe('What becomes of a flow that no rule matches: accept, drop, or reset (drop, and tell the sender)'),
  answersPerSecond: z.number().int().min(0).max(1_000_000).default(1000)
    .describe('How many packets "reset" may send per second, over all flows'),
  tracking: z.strictObject({
    enabled: z.boolean().default(true).describe('Follow TCP connections'),
    midStream: z.enum(['accept', 'drop']).default('accept')
      .describe('TCP segments of connections whose handshake was not seen'),
    invalid: z.enum(['accept', 'drop']).default('accept')
      .describe('Segments that cannot belong to their connection: accept only counts them; use drop inline'),
    windowCheck: z.union([z.boolean(), z.literal('liberal')]).default(true)
      .describe('Which segments have to lie in the window: true for all, liberal for RST alone, false for none'),
  }).prefault({}).describe('TCP connection tracking'),
})

export default defineNf({
  name: 'firewall',
  version: 1,
  description: 'accepts or refuses flows by rules and tracks TCP connections',
  config,
  flowState,
  counters: {
    acceptedFlows: 'flows that may pass',
    deniedFlows: 'flows that may not pass',
    deniedConnections: 'connection attempts against the direction of an accepted flow that may not pass',
    resetsSent: 'RST segments sent to refuse',
    prohibitedSent: 'ICMP errors sent to refuse',
    unanswered: 'refused packets without an answer: not due, or beyond the limit',
    opened: 'connections whose SYN was seen',
    established: 'connections seen to be established',
    midStream: 'connections picked up without their handshake',
    closed: 'connections closed by FIN in both directions',
    reset: 'connections closed by RST',
    oldDuplicates: 'old segments, let through',
    challenges: 'SYN and RST segments in open connections, let through for their receiver to challenge',
    invalidFlags: 'segments with impossible flags, like SYN with FIN, or none',
    noHandshake: 'segments of a connection that was not opened',
    outOfWindow: 'segments beyond the receiver\'s window',
    unacceptableAck: 'acknowledgements of what was not sent',
    invalidReset: 'RST segments out of window',
    afterClose: 'data after the sender\'s FIN or after a RST',
  },
  dropReasons: {
    denied: 'the rules do not let the flow pass',
    invalidFlags: 'impossible TCP flags',
    noHandshake: 'a TCP segment of a connection that was not opened',
    outOfWindow: 'a TCP segment beyond the receiver\'s window',
    unacceptableAck: 'a TCP acknowledgement of what was not sent',
    invalidReset: 'a TCP RST out of window',
    afterClose: 'TCP data after the sender\'s FIN or after a RST',
  },
  records: {
    denied: { rule: i32, name: text(64), action: enumeration('drop', 'reset') },
    invalid: { reason: tcpOutcome, tcp: tcpState, dropped: bool },
  },
  sharedState: ({ answersPerSecond }) => ({ answersLeft: answersPerSecond, refilledUs: 0 }),

  create(config, context) {
    const { counters, drop, records, shared } = context
    const { view, u8 } = context.arena
    const tracks = config.tracking.enabled
    const dropsInvalid = config.tracking.invalid === 'drop'
    const tracker = new TcpTracker({
      midStream: config.tracking.midStream === 'accept',
      windowCheck: config.tracking.windowCheck,
      followsInvalid: !dropsInvalid,
    })
    const trackEstablished = makeTrackEstablished(context.arena)
    const rejection = new Rejection(context.arena, context.emit)
    const rules = parseRules(config.rules)
    const ruleSet = rules.length === 0 ? null : new RuleSet(rules)
    const defaultAction = parseRuleAction(config.default)

    // -- Rules -------------------------------------------------------------------------------------------------------

    /** Protocols to be judged packet by packet: a flow has more than one pair of ports, and rules look at them. */
    const isByPacket = new Uint8Array(256)
    for (const protocol of rules.flatMap(protocolsWithPortsOf)) isByPacket[protocol] = 1
    isByPacket[IpProtocol.tcp] = isByPacket[IpProtocol.udp] = 0

    /** Index of the matching rule, or {@link NO_RULE}; `fromOpener` is false for a packet to the opener. */
    function matchRule(packet: Packet, fromOpener: boolean): number {
      if (ruleSet === null) return NO_RULE
      const { protocol, vlan } = packet
      let source = packet.sourcePort
      let destination = packet.destinationPort
      if (isByPacket[protocol] !== 0 && packet.payloadLength >= 4) {
        source = view.getUint16(packet.payloadOffset)
        destination = view.getUint16(packet.payloadOffset + 2)
      }
      const tag = vlan === 0 ? -1 : vlan
      const side = (packet.port === 0) === fromOpener ? 0 : 1
      const s0 = packet.sourceWord(0)
      const d0 = packet.destinationWord(0)
      let index: number
      if (!packet.isIpv6) {
        index = fromOpener
          ? ruleSet.match(4, s0, 0, 0, 0, d0, 0, 0, 0, source, destination, protocol, tag, side)
          : ruleSet.match(4, d0, 0, 0, 0, s0, 0, 0, 0, destination, source, protocol, tag, side)
      } else {
        const s1 = packet.sourceWord(1)
        const s2 = packet.sourceWord(2)
        const s3 = packet.sourceWord(3)
        const d1 = packet.destinationWord(1)
        const d2 = packet.destinationWord(2)
        const d3 = packet.destinationWord(3)
        index = fromOpener
          ? ruleSet.match(6, s0, s1, s2, s3, d0, d1, d2, d3, source, destination, protocol, tag, side)
          : ruleSet.match(6, d0, d1, d2, d3, s0, s1, s2, s3, destination, source, protocol, tag, side)
      }
      return index < 0 ? NO_RULE : index
    }

    const actionOf = (rule: number): RuleAction => (rule === NO_RULE ? defaultAction : rules[rule].action)

    /** Decides about a flow by one of its packets. */
    function judge(packet: Packet, state: FlowState, fromOpener: boolean): void {
      const rule = matchRule(packet, fromOpener)
      const action = actionOf(rule)
      state.rule = rule
      state.verdict = action === RuleAction.Accept ? ACCEPT : action === RuleAction.Drop ? DROP : RESET
      if (action === RuleAction.Accept) {
        counters.acceptedFlows++
        return
      }
      counters.deniedFlows++
      reportDenied(rule, action)
    }

    function reportDenied(rule: number, action: RuleAction): void {
      const record = records.denied
      record.begin(Direction.forward)
      record.rule = rule === NO_RULE ? -1 : rule
      if (rule !== NO_RULE) record.name.write(rules[rule].name)
      record.action = action === RuleAction.Reset ? 1 : 0
      record.commit()
    }

    /** A packet of a flow that is not (yet) accepted. */
    function refuse(packet: Packet, state: FlowState): Verdict {
      const isReverse = packet.direction === Direction.reverse
      const before = state.verdict
      // Without ports there is nothing to judge. A later fragment is useless when the first was refused (RFC 1858 §2).
      if (packet.isRelated || packet.isLaterFragment) {
        if (before === DROP || before === RESET) return drop.denied
        return before === UNDECIDED && packet.isRelated && defaultAction !== RuleAction.Accept ? drop.denied : FORWARD
      }
      let action: RuleAction
      if (before === BY_PACKET || isByPacket[packet.protocol] !== 0) {
        state.verdict = BY_PACKET
        state.rule = matchRule(packet, !isReverse)
        action = actionOf(state.rule)
        if (before !== BY_PACKET) {
          if (action === RuleAction.Accept) counters.acceptedFlows++
          else {
            counters.deniedFlows++
            reportDenied(state.rule, action)
          }
        }
        if (action === RuleAction.Accept) return FORWARD
      } else {
        if (before === UNDECIDED) judge(packet, state, !isReverse)
        else if (tracks && isReverse && (packet.tcpFlags & CONTROL) === ONLY_SYN &&
            actionOf(matchRule(packet, true)) === RuleAction.Accept) {
          // `mayOpen` notes the rule, and whose connection it is.
          state.verdict = ACCEPT
          counters.acceptedFlows++
        }
        if (state.verdict === ACCEPT) return follow(packet, state)
        action = state.verdict === RESET ? RuleAction.Reset : RuleAction.Drop
      }
      if (action === RuleAction.Reset) answer(packet, state)
      return drop.denied
    }

    /** Tells the sender of a refused packet, at most once a second for each flow and within the limit for all. */
    function answer(packet: Packet, state: FlowState): void {
      const second = Math.floor(packet.time / 1e6)
      const stamp = (second % 255) + 1
      if (stamp === state.answered || !takeToken(packet.time)) {
        counters.unanswered++
        return
      }
      const answered = rejection.answer(packet)
      if (answered === Answer.none) {
        shared.answersLeft++
        counters.unanswered++
        return
      }
      state.answered = stamp
      if (answered === Answer.tcpReset) counters.resetsSent++
      else counters.prohibitedSent++
    }

    /** A bucket that holds the answers of one second. */
    function takeToken(now: number): boolean {
      if (now > shared.refilledUs) {
        const fresh = ((now - shared.refilledUs) / 1e6) * config.answersPerSecond
        shared.answersLeft = Math.min(config.answersPerSecond, shared.answersLeft + fresh)
        shared.refilledUs = now
      }
      if (shared.answersLeft < 1) return false
      shared.answersLeft--
      return true
    }

    // -- Connections -------------------------------------------------------------------------------------------------

    /** A packet of an accepted flow, whatever it is. */
    function follow(packet: Packet, state: FlowState): Verdict {
      if (!tracks || !packet.isTcp || packet.isRelated) return FORWARD
      const direction = packet.direction
      const flags = packet.tcpFlags
      const sequence = packet.sequence
      const length = segmentBytes(packet)
      const before = state.tcp
      let outcome: number
      if (packet.isLaterFragment) {
        outcome = tracker.trackLaterFragment(state, direction, sequence, length)
      } else {
        if ((flags & CONTROL) === ONLY_SYN && !mayOpen(packet, state)) {
          counters.deniedConnections++
          if (actionOf(matchRule(packet, true)) === RuleAction.Reset) answer(packet, state)
          return drop.denied
        }
        outcome = tracker.track(state, direction, flags, sequence, packet.acknowledgement, packet.window, length,
          (flags & ONLY_SYN) !== 0 ? scaleOption(packet) : -1)
      }
      if (state.tcp !== before) countChange(before, state.tcp)
      return outcome === TcpOutcome.valid ? FORWARD : judgeSegment(outcome, state)
    }

    /** False for a SYN from the side that the verdict was not about, if the rules forbid it to open connections. */
    function mayOpen(packet: Packet, state: FlowState): boolean {
      const { direction } = packet
      if (direction === ((state.flags & OPENED_BY_REVERSE) !== 0 ? Direction.reverse : Direction.forward)) return true
      // Both sides open at once (RFC 9293 §3.5, figure 7): that is the connection that was allowed.
      if (state.tcp === TcpState['syn-sent'] || state.tcp === TcpState['simultaneous-open']) return true
      const rule = matchRule(packet, true)
      if (actionOf(rule) !== RuleAction.Accept) return false
      if (state.tcp === TcpState.none) {
        state.flags ^= OPENED_BY_REVERSE
        state.rule = rule
      }
      return true
    }

    /** Bytes of payload on the wire: captures may have cut them off. */
    function segmentBytes(packet: Packet): number {
      if (packet.frameLength >= packet.length) return packet.payloadLength
      const at = packet.networkOffset
      const stated = packet.isIpv6 ? view.getUint16(at + 4) + 40 : view.getUint16(at + 2)
      return Math.max(packet.payloadLength, stated - (packet.payloadOffset - at))
    }

    /** The shift of the window scale option (RFC 7323 §2.2), or -1. */
    function scaleOption(packet: Packet): number {
      const at = packet.tcpOption(WINDOW_SCALE)
      return at !== 0 && u8[at - 1] === 3 ? u8[at] : -1
    }

    function countChange(before: number, after: number): void {
      switch (after) {
        case TcpState['syn-sent']: counters.opened++; return
        case TcpState['syn-received']: if (before === TcpState.none) counters.midStream++; return
        case TcpState['mid-stream']: counters.midStream++; return
        case TcpState.established: counters.established++; return
        case TcpState['time-wait']: counters.closed++; return
        case TcpState.closed: counters.reset++; return
        default:
      }
    }

    /** The verdict on a segment that is not simply valid. */
    function judgeSegment(outcome: number, state: FlowState): Verdict {
      let verdict: Verdict
      switch (outcome) {
        case TcpOutcome['old-duplicate']: counters.oldDuplicates++; return FORWARD
        case TcpOutcome.challenge: counters.challenges++; return FORWARD
        case TcpOutcome['bad-flags']: counters.invalidFlags++; verdict = drop.invalidFlags; break
        case TcpOutcome['no-handshake']: counters.noHandshake++; verdict = drop.noHandshake; break
        case TcpOutcome['out-of-window']: counters.outOfWindow++; verdict = drop.outOfWindow; break
        case TcpOutcome['unacceptable-ack']: counters.unacceptableAck++; verdict = drop.unacceptableAck; break
        case TcpOutcome['invalid-reset']: counters.invalidReset++; verdict = drop.invalidReset; break
        default: counters.afterClose++; verdict = drop.afterClose
      }
      const isDropped = dropsInvalid || outcome === TcpOutcome['no-handshake']
      if ((state.flags & REPORTED) === 0) {
        state.flags |= REPORTED
        const record = records.invalid
        record.begin()
        record.reason = outcome
        record.tcp = state.tcp
        record.dropped = isDropped
        record.commit()
      }
      return isDropped ? verdict : FORWARD
    }

    return {
      processPacket(packet, state) {
        if (state.verdict !== ACCEPT) return refuse(packet, state)
        if (state.tcp === ESTABLISHED && (packet.tcpFlags & CONTROL) === ONLY_ACK &&
            packet.frameLength >= packet.length &&
            trackEstablished(state.o + SIDES, state.scales, packet.direction, packet.sequence, packet.acknowledgement,
              packet.window, packet.payloadLength)) return FORWARD
        return follow(packet, state)
      },

      fastPath: { module: fastPathBinary, part: FastPathPart.firewall, parameter: tracks ? 1 : 0 },
    }
  },
})

/** The protocols whose ports a rule looks at. */
function protocolsWithPortsOf(rule: Rule): readonly number[] {
  if (rule.sourcePorts === null && rule.destinationPorts === null) return []
  return rule.protocols ?? portProtocols
}
