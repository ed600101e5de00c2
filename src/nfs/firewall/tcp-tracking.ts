/**
 * TCP connection tracking: what the firewall knows of a connection, and what it makes of the next segment.
 * RFC 9293 §3.3.2, RFC 5961, RFC 7323; G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", 2001.
 *
 *     none ─SYN─▶ syn-sent ─SYN+ACK─▶ syn-received ─ACK─▶ established ─FIN─▶ fin-wait ─ACK of it─▶ close-wait
 *      │             └─SYN from the other─▶ simultaneous-open ─▲   ▲            └────other FIN────┬────┘
 *      └─anything else─▶ mid-stream ──────both sides seen──────────┘             last-ack ◀───────┘
 *     closed ◀─RST, from any of them                                                └─ACK of both─▶ time-wait
 *
 * Either side may have begun: nothing here depends on which. Of each side three numbers are kept: `end`, behind the
 * highest byte it has sent; `acknowledged`, its highest acknowledgement; `window`, the largest it has offered. A
 * segment from sender to receiver is plausible if
 *
 *       I   sequence        <= receiver.acknowledged + receiver.window             the receiver has room for it
 *      II   its end         >= sender.end - receiver.window                        it is not older than a window
 *     III   acknowledgement <= receiver.end                                        that much was sent
 *      IV   acknowledgement >= sender.acknowledged - max(sender.window, 66,000)    not older, as II (RFC 5961 §5.2)
 *
 * A segment that fails I or III is invalid. One that fails II or IV is an old duplicate, which its receiver answers or
 * ignores: it passes and changes nothing. A SYN in an open connection, and a RST that is in the window but not where
 * the receiver expects it, pass as well, for the receiver to challenge (RFC 5961 §3.2, §4.2); nothing changes until
 * the answer.
 *
 * A connection whose beginning or window scale was not seen is taken liberally: its windows count as the largest
 * possible. When invalid segments are let through, what is seen may not be all there is, and the receiver's
 * acknowledgements tell what was missed: one of unseen bytes is counted and followed, and at the 16th such surprise
 * the connection is picked up anew.
 */

import type { Arena } from '../../memory/arena.ts'
import { enumeration, i32, struct, type StateOf } from '../../nf/index.ts'

/** Where a connection is. */
export const tcpState = enumeration(
  'none', 'syn-sent', 'syn-received', 'simultaneous-open', 'mid-stream', 'established', 'fin-wait', 'close-wait',
  'last-ack', 'time-wait', 'closed',
)

export const TcpState = tcpState.values

/** What is known of one side, 12 bytes. */
export const tcpSide = struct({ end: i32, acknowledged: i32, window: i32 })

export type TcpSide = StateOf<typeof tcpSide>

/** The part of a flow state that tracking works on; all zero for a new flow. */
export interface TcpTrack {
  /** Of {@link tcpState}. */
  tcp: number
  /** 16 bits, of which {@link CALLER_FLAGS} are the caller's. */
  flags: number
  /** Window scale of the forward side (low 4 bits) and of the reverse side; 15 for none. */
  scales: number
  readonly forward: TcpSide
  readonly reverse: TcpSide
}

/** What tracking makes of a segment. Those from `badFlags` on are invalid. */
export const tcpOutcome = enumeration(
  'valid', 'old-duplicate', 'challenge', 'bad-flags', 'no-handshake', 'out-of-window', 'unacceptable-ack',
  'invalid-reset', 'after-close',
)

export const TcpOutcome = tcpOutcome.values

export interface TcpTrackingOptions {
  /** True: connections whose handshake was not seen are taken up. */
  readonly midStream: boolean
  /** Which segments have to be plausible: all, only RST, or none. */
  readonly windowCheck: boolean | 'liberal'
  /** True when invalid segments are let through: then what they show is followed. */
  readonly followsInvalid: boolean
}

/** Bits of `flags` that tracking leaves alone. */
export const CALLER_FLAGS = 0xe000

// PERF: numbers of module constants fold (see packet/descriptor.ts).
const NONE = TcpState.none
const SYN_SENT = TcpState['syn-sent']
const SYN_RECEIVED = TcpState['syn-received']
const SIMULTANEOUS = TcpState['simultaneous-open']
const MID_STREAM = TcpState['mid-stream']
const ESTABLISHED = TcpState.established
const FIN_WAIT = TcpState['fin-wait']
const CLOSE_WAIT = TcpState['close-wait']
const LAST_ACK = TcpState['last-ack']
const TIME_WAIT = TcpState['time-wait']
const CLOSED = TcpState.closed

const VALID = TcpOutcome.valid
const OLD_DUPLICATE = TcpOutcome['old-duplicate']
const CHALLENGE = TcpOutcome.challenge
const BAD_FLAGS = TcpOutcome['bad-flags']
const NO_HANDSHAKE = TcpOutcome['no-handshake']
const OUT_OF_WINDOW = TcpOutcome['out-of-window']
const UNACCEPTABLE_ACK = TcpOutcome['unacceptable-ack']
const INVALID_RESET = TcpOutcome['invalid-reset']
const AFTER_CLOSE = TcpOutcome['after-close']

const FIN = 1
const SYN = 2
const RST = 4
const ACK = 16

// Bits of `flags`. Those of the reverse side are the next higher ones.
const SENT_SYN = 1
const SENT_ACK = 4
const SENT_FIN = 16
const LIBERAL = 64
/** A SYN was let through in an open connection: an answer to it begins another one. */
const SYN_PASSED = 128
const SURPRISE = 512
const SURPRISES = 15 * SURPRISE

const BOTH_ACK = SENT_ACK | (SENT_ACK << 1)
const NO_SCALE = 15
const WINDOW_MAX = 65535
/** The largest window there can be (RFC 7323 §2.3): a quarter of the sequence space. */
const LIBERAL_WINDOW = WINDOW_MAX << 14
/** How far an acknowledgement may always lie behind, so that a small window does not make delayed ones implausible. */
const ACK_SLACK = 66_000

/** Words of a side: `end`, `acknowledged`, `window`. */
const SIDE_WORDS = 3

/**
 * Makes the function that tracks a segment without SYN, FIN and RST in an established connection. It returns false,
 * with nothing changed, when the segment is not plausible. Hot.
 *
 * `sides` is the byte offset of the forward side, which the reverse side follows; `scales` is the track's.
 * PERF: which side sends next cannot be predicted, nor whether it sends data or acknowledges; so the direction is an
 * index here and the new maxima are sums, not branches (bench engine, chain: 12 ns per packet).
 */
export function makeTrackEstablished({ i32 }: Arena): (
  sides: number, scales: number, direction: number, sequence: number, acknowledgement: number, window: number,
  length: number,
) => boolean {
  return (sides, scales, direction, sequence, acknowledgement, window, length) => {
    const sender = (sides >> 2) + direction * SIDE_WORDS
    const receiver = (sides >> 2) + SIDE_WORDS - direction * SIDE_WORDS
    const receiverWindow = i32[receiver + 2]
    if (((sequence - i32[receiver + 1] - receiverWindow) | 0) > 0) return false
    const end = i32[sender]
    const ahead = (sequence + length - end) | 0
    if (((ahead + receiverWindow) | 0) < 0) return false
    if (((acknowledgement - i32[receiver]) | 0) > 0) return false
    const senderWindow = i32[sender + 2]
    const acknowledged = i32[sender + 1]
    const fresh = (acknowledgement - acknowledged) | 0
    if (fresh < -ACK_SLACK && fresh < -senderWindow) return false
    i32[sender] = end + (ahead & ~(ahead >> 31))
    i32[sender + 1] = acknowledged + (fresh & ~(fresh >> 31))
    const scaled = window << ((scales >>> (direction << 2)) & 15)
    if (scaled > senderWindow) i32[sender + 2] = scaled
    return true
  }
}

/** True for what a TCP sends: SYN or RST, with or without ACK, or else ACK. PSH, URG, ECE and CWR are free. */
function isCombination(flags: number): boolean {
  switch (flags & (FIN | SYN | RST)) {
    case 0: case FIN: return (flags & ACK) !== 0
    case SYN: case RST: return true
    default: return false
  }
}

export class TcpTracker {
  readonly #midStream: boolean
  readonly #follows: boolean
  readonly #isLiberal: boolean
  readonly #checksResets: boolean

  constructor({ midStream, windowCheck, followsInvalid }: TcpTrackingOptions) {
    this.#midStream = midStream
    this.#follows = followsInvalid
    this.#isLiberal = windowCheck !== true
    this.#checksResets = windowCheck !== false
  }

  /**
   * Tracks any segment.
   *
   * @param direction 0 forward, 1 reverse
   * @param length bytes of payload
   * @param scale shift of the window scale option of a SYN, or -1 when it has none
   * @returns a {@link TcpOutcome}; an invalid segment that is not followed has changed nothing
   */
  track(
    state: TcpTrack, direction: number, flags: number, sequence: number, acknowledgement: number, window: number,
    length: number, scale: number,
  ): number {
    if (!isCombination(flags)) return BAD_FLAGS
    if ((flags & RST) !== 0) return this.#reset(state, direction, flags, sequence, acknowledgement)
    if ((flags & SYN) !== 0) {
      return (flags & ACK) === 0
        ? this.#syn(state, direction, sequence, window, length, scale)
        : this.#synAck(state, direction, sequence, acknowledgement, window, length, scale)
    }
    switch (state.tcp) {
      case NONE: return this.#pickUp(state, direction, flags, sequence, acknowledgement, length)
      case SYN_SENT: return this.#unanswered(state, direction, flags, sequence, acknowledgement, length)
      case CLOSED: return length > 0 ? AFTER_CLOSE : VALID
      default: return this.#segment(state, direction, flags, sequence, acknowledgement, window, length)
    }
  }

  /** Tracks a fragment that shows no TCP header: it can only extend what its sender has sent. */
  trackLaterFragment(state: TcpTrack, direction: number, sequence: number, length: number): number {
    const tcp = state.tcp
    if (tcp === NONE || tcp === SYN_SENT || tcp === CLOSED) return VALID
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    if (((sequence - receiver.acknowledged - receiver.window) | 0) > 0) {
      return (state.flags & LIBERAL) !== 0 ? VALID : OUT_OF_WINDOW
    }
    // A FIN in the first fragment stands behind the last one.
    const fin = (state.flags & (SENT_FIN << direction)) !== 0 ? 1 : 0
    const end = (sequence + length + fin) | 0
    if (((end - sender.end) | 0) > 0) sender.end = end
    return VALID
  }

  // -- Opening -------------------------------------------------------------------------------------------------------

  #syn(state: TcpTrack, direction: number, sequence: number, window: number, length: number, scale: number): number {
    const sent = (state.flags & (SENT_SYN << direction)) !== 0
    const { tcp } = state
    if (tcp === NONE || tcp === SYN_SENT || tcp === SIMULTANEOUS) {
      if (tcp === NONE) this.#restart(state, SYN_SENT)
      // RFC 9293 §3.5, figure 7: both sides open at once. A split handshake begins in the same way.
      else if (!sent) state.tcp = SIMULTANEOUS
      this.#takeSyn(state, direction, sequence, window, length, scale)
      return VALID
    }
    if (tcp === SYN_RECEIVED && isAnswered(state, direction, sequence)) {
      this.#takeSyn(state, direction, sequence, window, length, scale)
      return VALID
    }
    state.flags = (state.flags & ~(SYN_PASSED << (1 - direction))) | (SYN_PASSED << direction)
    return CHALLENGE
  }

  #synAck(
    state: TcpTrack, direction: number, sequence: number, acknowledgement: number, window: number, length: number,
    scale: number,
  ): number {
    const { flags, tcp } = state
    const other = 1 - direction
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    const sentSyn = (flags & (SENT_SYN << direction)) !== 0
    const synPassed = (flags & (SYN_PASSED << other)) !== 0
    // A RST may have closed what its receiver did not believe to be closed (RFC 9293 §3.10.7.3): the answer comes.
    if (tcp === NONE || tcp === SYN_SENT || tcp === SIMULTANEOUS || tcp === SYN_RECEIVED ||
        (tcp === CLOSED && !sentSyn)) {
      const isAlone = (flags & (SENT_SYN << other)) === 0 && (flags & (SENT_ACK << direction)) === 0
      if (isAlone) {
        if (!this.#midStream) return NO_HANDSHAKE
      } else if (((acknowledgement - sender.acknowledged) | 0) >= 0 && ((acknowledgement - receiver.end) | 0) <= 0) {
        this.#takeSyn(state, direction, sequence, window, length, scale)
        sender.acknowledged = acknowledgement
        state.flags |= SENT_ACK << direction
        state.tcp = SYN_RECEIVED
        this.#settle(state)
        return VALID
      } else if (!synPassed && !this.#isLiberal) {
        // Of two answers, with and without the data of the SYN, the older one came later.
        const isOlder = receiver.acknowledged === ((sequence + 1) | 0) && (flags & (SENT_ACK << direction)) !== 0 &&
          isBetween((sender.acknowledged - acknowledgement) | 0, 0, WINDOW_MAX)
        return isOlder ? OLD_DUPLICATE : UNACCEPTABLE_ACK
      }
    } else if (isBetween((sender.end - sequence - 1 - length) | 0, 0, Math.max(receiver.window, ACK_SLACK)) &&
        isBetween((receiver.end - acknowledgement) | 0, 0, Math.max(sender.window, ACK_SLACK))) {
      // The answer again, because the acknowledgement that was seen here got lost later.
      return OLD_DUPLICATE
    } else if (!synPassed) {
      return CHALLENGE
    }
    // A connection whose SYN was not seen, or was let through into another one: both sides agree on it now.
    this.#takeAnswerAlone(state, direction, sequence, acknowledgement, window, length, scale)
    return VALID
  }

  /** Forgets the connection, but not what belongs to the caller. */
  #restart(state: TcpTrack, tcp: number): void {
    state.tcp = tcp
    state.flags = (state.flags & CALLER_FLAGS) | (this.#isLiberal ? LIBERAL : 0)
    state.scales = NO_SCALE | (NO_SCALE << 4)
    const { forward, reverse } = state
    forward.end = forward.acknowledged = reverse.end = reverse.acknowledged = 0
    forward.window = reverse.window = this.#isLiberal ? LIBERAL_WINDOW : 0
  }

  /** Takes the numbers and options of a SYN. Its window is never scaled (RFC 7323 §2.2). */
  #takeSyn(state: TcpTrack, direction: number, sequence: number, window: number, length: number, scale: number): void {
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    const first = (sequence + 1) | 0
    const end = (first + length) | 0
    const { flags } = state
    const isKnown = (flags & (SENT_ACK << (1 - direction))) !== 0
      ? isAnswered(state, direction, sequence)
      : (flags & (SENT_SYN << direction)) !== 0 && receiver.acknowledged === first
    if (!isKnown) {
      sender.end = end
      receiver.acknowledged = first
    } else if (((end - sender.end) | 0) > 0) {
      // Sent again it may come with or without data (RFC 7413 §4.1.3).
      sender.end = end
    }
    if (window > sender.window) sender.window = window
    if (scale >= 0 || !isKnown) {
      const at = direction << 2
      state.scales = (state.scales & ~(15 << at)) | ((scale < 0 ? NO_SCALE : scale > 14 ? 14 : scale) << at)
    }
    state.flags |= SENT_SYN << direction
  }

  /** Begins with a SYN+ACK whose SYN was not seen. */
  #takeAnswerAlone(
    state: TcpTrack, direction: number, sequence: number, acknowledgement: number, window: number, length: number,
    scale: number,
  ): void {
    this.#restart(state, SYN_RECEIVED)
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    this.#takeSyn(state, direction, sequence, window, length, scale)
    state.flags |= SENT_ACK << direction
    sender.acknowledged = acknowledgement
    receiver.end = acknowledgement
    if (receiver.window < WINDOW_MAX) receiver.window = WINDOW_MAX
    // The option stands in an answer only when the SYN had it (RFC 7323 §2.2), with a shift that is not known.
    if (scale >= 0) state.scales = (state.scales & ~(15 << ((1 - direction) << 2))) | (14 << ((1 - direction) << 2))
  }

  /** After a SYN, something other than its answer: perhaps the answer was not seen. */
  #unanswered(
    state: TcpTrack, direction: number, flags: number, sequence: number, acknowledgement: number, length: number,
  ): number {
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    let fits = isBetween((sequence - sender.end) | 0, 0, WINDOW_MAX)
    if ((state.flags & (SENT_SYN << direction)) === 0) {
      // An acknowledgement from the other side is what a peer sends that has an old connection on these ports (RFC 9293
      // §3.5.1), or the first step of a split handshake.
      if (length === 0 && (flags & FIN) === 0) return CHALLENGE
      fits = isBetween((acknowledgement - sender.acknowledged) | 0, 0, WINDOW_MAX) &&
        ((acknowledgement - receiver.end) | 0) <= 0
    }
    if (!fits && !this.#follows) return NO_HANDSHAKE
    return this.#pickUp(state, direction, flags, sequence, acknowledgement, length)
  }

  /** Takes up a connection in its middle. */
  #pickUp(
    state: TcpTrack, direction: number, flags: number, sequence: number, acknowledgement: number, length: number,
  ): number {
    if (!this.#midStream) return NO_HANDSHAKE
    this.#restart(state, MID_STREAM)
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    state.scales = 0
    state.flags |= LIBERAL | (SENT_ACK << direction) | ((flags & FIN) !== 0 ? SENT_FIN << direction : 0)
    sender.end = (sequence + length + (flags & FIN)) | 0
    sender.acknowledged = receiver.end = acknowledgement
    receiver.acknowledged = sequence
    sender.window = receiver.window = LIBERAL_WINDOW
    this.#settle(state)
    return VALID
  }

  // -- In the connection ---------------------------------------------------------------------------------------------

  #segment(
    state: TcpTrack, direction: number, flags: number, sequence: number, acknowledgement: number, window: number,
    length: number,
  ): number {
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    const end = (sequence + length + (flags & FIN)) | 0
    const inHandshake = state.tcp === SYN_RECEIVED || state.tcp === SIMULTANEOUS
    const senderWindow = sender.window
    let outcome = VALID
    if (((sequence - receiver.acknowledged - receiver.window) | 0) > 0) {
      outcome = OUT_OF_WINDOW
    } else if (((end - sender.end + receiver.window) | 0) < 0) {
      return OLD_DUPLICATE
    } else {
      const fresh = (acknowledgement - sender.acknowledged) | 0
      // RFC 9293 §3.10.7.4: what ends the handshake is an acknowledgement of the SYN.
      if (((acknowledgement - receiver.end) | 0) > 0 || (inHandshake && fresh < 0)) outcome = UNACCEPTABLE_ACK
      else if (fresh < -ACK_SLACK && fresh < -senderWindow) return OLD_DUPLICATE
    }
    if (outcome !== VALID) {
      const isLiberal = (state.flags & LIBERAL) !== 0
      const surprises = state.flags & SURPRISES
      if (isLiberal && (inHandshake || outcome === OUT_OF_WINDOW)) {
        return this.#pickUp(state, direction, flags, sequence, acknowledgement, length)
      }
      if (!isLiberal) {
        if (inHandshake || !this.#follows) return outcome
        if (surprises === SURPRISES) {
          this.#pickUp(state, direction, flags, sequence, acknowledgement, length)
          return outcome
        }
        state.flags += SURPRISE
        if (outcome === OUT_OF_WINDOW) return outcome
      }
      // The receiver of those bytes says that it has them.
      receiver.end = acknowledgement
      if (isLiberal) outcome = VALID
    }
    if (((end - sender.end) | 0) > 0) {
      if ((state.flags & (SENT_FIN << direction)) !== 0) return AFTER_CLOSE
      sender.end = end
    }
    if (((acknowledgement - sender.acknowledged) | 0) > 0) sender.acknowledged = acknowledgement
    const scaled = window << shiftOf(state.scales, direction)
    if (scaled > senderWindow) sender.window = scaled
    if ((flags & FIN) !== 0 && end === sender.end) state.flags |= SENT_FIN << direction
    state.flags |= SENT_ACK << direction
    this.#settle(state)
    return outcome
  }

  /** Finds the state that what both sides have sent amounts to. */
  #settle(state: TcpTrack): void {
    const { flags, tcp, forward, reverse } = state
    const open = (flags & BOTH_ACK) === BOTH_ACK
    if (!open && tcp !== MID_STREAM) {
      if (tcp === SIMULTANEOUS) state.tcp = SYN_RECEIVED
      return
    }
    if (tcp === SYN_RECEIVED || tcp === SIMULTANEOUS) {
      // RFC 7323 §2.2: no scaling unless both have offered it.
      const { scales } = state
      state.scales = shiftOf(scales, 0) | (shiftOf(scales, 1) << 4)
    }
    const forwardFin = (flags & SENT_FIN) !== 0
    const reverseFin = (flags & (SENT_FIN << 1)) !== 0
    const forwardDone = forwardFin && ((reverse.acknowledged - forward.end) | 0) >= 0
    const reverseDone = reverseFin && ((forward.acknowledged - reverse.end) | 0) >= 0
    if (forwardFin && reverseFin) state.tcp = forwardDone && reverseDone ? TIME_WAIT : LAST_ACK
    else if (forwardFin || reverseFin) state.tcp = forwardDone || reverseDone ? CLOSE_WAIT : FIN_WAIT
    else if (open) state.tcp = ESTABLISHED
  }

  // -- Reset ---------------------------------------------------------------------------------------------------------

  #reset(state: TcpTrack, direction: number, flags: number, sequence: number, acknowledgement: number): number {
    const sender = direction === 0 ? state.forward : state.reverse
    const receiver = direction === 0 ? state.reverse : state.forward
    switch (state.tcp) {
      case NONE:
        if (!this.#midStream) return NO_HANDSHAKE
        this.#restart(state, CLOSED)
        return VALID
      case CLOSED:
      case TIME_WAIT:
        return VALID
      case SYN_SENT:
        if (!this.#checksResets) break
        if ((state.flags & (SENT_SYN << direction)) !== 0) {
          // What its receiver expects is not known here.
          if (sequence === sender.end) break
          return CHALLENGE
        }
        // RFC 9293 §3.10.7.3: believed if it acknowledges the SYN.
        if ((flags & ACK) === 0 || ((acknowledgement - sender.acknowledged) | 0) < 0 ||
            ((acknowledgement - receiver.end) | 0) > 0) return INVALID_RESET
        break
      default: {
        if (!this.#checksResets) break
        // RFC 5961 §3.2: outside of the window it is ignored, in the window it is challenged, at its edge believed.
        const ahead = (sequence - receiver.acknowledged) | 0
        if (ahead < 0 || ahead > receiver.window) return INVALID_RESET
        if (ahead !== 0 && sequence !== sender.end) return CHALLENGE
      }
    }
    state.tcp = CLOSED
    return VALID
  }
}

/** True if the other side has acknowledged a SYN with this number. */
function isAnswered(state: TcpTrack, direction: number, sequence: number): boolean {
  const sender = direction === 0 ? state.forward : state.reverse
  const receiver = direction === 0 ? state.reverse : state.forward
  const data = (sender.end - sequence - 1) | 0
  return isBetween(data, 0, WINDOW_MAX) && isBetween((receiver.acknowledged - sequence - 1) | 0, 0, data)
}

function isBetween(value: number, low: number, high: number): boolean {
  return value >= low && value <= high
}

/** The shift of a side's windows: none unless both sides have one. */
function shiftOf(scales: number, direction: number): number {
  if ((scales & 15) === NO_SCALE || scales >>> 4 === NO_SCALE) return 0
  return (scales >>> (direction << 2)) & 15
}
