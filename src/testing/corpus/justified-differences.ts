/**
 * Where NFactor may differ from tshark's record of a capture, and why tshark's record is not the truth there.
 *
 * Every entry says exactly which messages or flows it covers and gives its reason: a property of the oracle that can be
 * shown, or a clause of a standard. An entry that only makes a test pass has no place here. The rules that apply
 * everywhere (fragments and ICMP errors count as packets of a flow) are not differences of single captures and stand in
 * frame-census.ts.
 */

import type { OracleMessage } from './oracle-records.ts'
import type { ReferenceMessage } from './reference-http.ts'

export interface MessageDifference {
  readonly capture: string
  /**
   *  - `missed`: the message is in the capture, and the oracle does not list it;
   *  - `wrong`: the oracle lists it, and it is not in the capture;
   *  - `optional`: a conforming parser may report it or not.
   */
  readonly kind: 'missed' | 'wrong' | 'optional'
  readonly reason: string
  /** Selects messages of the reference (`missed`, `optional`). */
  readonly selects?: (message: ReferenceMessage) => boolean
  /** Selects messages of the oracle (`wrong`), by the number of the frame. */
  readonly frames?: readonly number[]
  /** How many messages the entry covers, where the selection alone could cover more. */
  readonly count?: number
}

export interface FlowDifference {
  readonly capture: string
  /** The oracle does not list these flows, which are in the capture. */
  readonly selects: (tuple: string) => boolean
  readonly reason: string
}

const bodyReason = 'tshark lists a response once its whole body was captured; here bytes of the body are not in the '
  + 'capture, while the head is. A response exists from its head on (RFC 9112 §2.1)'

export const messageDifferences: readonly MessageDifference[] = [
  {
    capture: 'ooo-netflix',
    kind: 'missed',
    reason: bodyReason,
    selects: message => message.kind === 'response' && !message.isBodyCaptured,
  },
  {
    capture: 'fuzz-131',
    kind: 'missed',
    reason: bodyReason,
    selects: message => message.kind === 'response' && !message.isBodyCaptured,
  },
  {
    capture: 'fuzz-131',
    kind: 'optional',
    reason: 'a recipient may reject a message with an invalid field line (RFC 9112 §2.2, §5.1), and cannot be held '
      + 'to pick up a connection whose SYN was damaged beyond recognition',
    selects: message => !message.isHeadWellFormed || !message.isFromStart,
  },
  {
    capture: 'pipe-files-gap',
    kind: 'missed',
    reason: bodyReason,
    selects: message => message.kind === 'response' && !message.isBodyCaptured,
  },
  {
    capture: 'pipe-files-gap',
    kind: 'missed',
    reason: 'the response behind the lost body: tshark, still waiting for that body, takes it for a part of it, '
      + 'although Content-Length says where the body ends (RFC 9112 §6.3)',
    selects: message => message.kind === 'response' && message.isBodyCaptured,
    count: 1,
  },
  {
    capture: 'mixed-web-70',
    kind: 'missed',
    reason: 'one response on each of two connections arrives with a hole that retransmissions fill later; tshark '
      + 'finds both only with tcp.reassemble_out_of_order set, which is not its default',
    selects: message => message.kind === 'response' && message.status === 200 && /:4415[23]$/.test(message.directed),
    count: 2,
  },
  {
    capture: 'retrans-post',
    kind: 'wrong',
    reason: 'these frames repeat the segment before them (same sequence number and bytes); tshark dissects what it '
      + 'calls a fast retransmission once more. Old sequence numbers are not delivered again (RFC 9293 §3.10.7.4)',
    frames: [42, 86],
  },
  {
    capture: 'methods49',
    kind: 'optional',
    reason: 'these request lines have no valid HTTP version, so they are not request lines (RFC 9112 §3); Zeek and '
      + 'tshark disagree on what to list',
    selects: message => message.kind === 'request' && !/^HTTP\/1\.[01]$/.test(message.version),
  },
]

export const flowDifferences: readonly FlowDifference[] = [
  {
    capture: 'nat-mixed-155',
    selects: tuple => tuple.startsWith('udp ') && tuple.includes(':3544 '),
    reason: 'Teredo (RFC 4380): tshark looks into the tunnel and lists the frame under the IPv6 packet inside, not '
      + 'under the UDP flow that carries it',
  },
]

export interface SuiteDifference {
  /** Name of the suite's case. */
  readonly case: string
  readonly reason: string
  /** The kind of event record whose expectations do not apply. */
  readonly skips?: string
  /** A URI that a request of the capture may be reported with, instead of the reference's. */
  readonly uri?: { readonly reference: string, readonly alternative: string }
}

export const suiteDifferences: readonly SuiteDifference[] = [
  {
    case: 'tcp-fastopen-10-syn-data-ignore',
    skips: 'flow',
    reason: 'Suricata opens a second flow for a stray SYN-ACK after the connection has closed; a closed connection '
      + 'keeps its tuple for a while, and a SYN alone starts another (RFC 9293 §3.3.2, §3.6.1)',
  },
  {
    case: 'tcp-urgp-04-2byte-XY',
    uri: { reference: '/malicXYious', alternative: '/malicXious' },
    reason: 'urgent data is a part of the stream (RFC 9293 §3.8.5), but socket implementations take its last byte '
      + 'out of it (RFC 6093 §2), as this server did: a watcher may take either side',
  },
]

/** Deviations that are none: what a run may say beyond the reference, with the reason. */
export const permittedDeviations: readonly { readonly subject: string, readonly pattern: RegExp, readonly reason: string }[] = [
  {
    subject: 'fuzz-131',
    pattern: /unexpected: tcp 172\.20\.3\.5:80 > 172\.20\.3\.13:53136 response 202 /,
    reason: 'the response is in the capture, behind a segment whose sequence number was damaged: whoever follows '
      + 'acknowledgements finds it, whoever follows that segment does not',
  },
  {
    subject: 'http-uri-spaces',
    pattern: /unexpected: .* request GET \/uri afterspace /,
    reason: 'a request target may not contain a space, and a recipient may reject the request or take the line apart at '
      + 'its last space (RFC 9112 §3.2)',
  },
  {
    subject: 'ipv6-malformed-fragments-36',
    pattern: /1 packets dropped as malformed, but 0 are/,
    reason: 'a fragment header behind a fragment header: the first fragment must hold the whole header chain, which a '
      + 'second fragment header cannot be the end of (RFC 7112 §5)',
  },
]

/** The problems of a subject that no entry permits. */
export function unpermitted(subject: string, problems: readonly string[]): string[] {
  const entries = permittedDeviations.filter(entry => entry.subject === subject)
  return problems.filter(problem => !entries.some(entry => entry.pattern.test(problem)))
}

/** What a capture must and may yield, and differences to the oracle that no entry explains. */
export interface ExpectedMessages {
  /** Messages that must be reported. */
  readonly required: readonly ReferenceMessage[]
  /** Messages that may be reported: the required ones and those that depend on a parser's leniency. */
  readonly permitted: readonly ReferenceMessage[]
  readonly unexplained: readonly string[]
}

/**
 * Brings the oracle's messages and the reference's together.
 *
 * @param directions the directed tuple of every frame of the capture, which gives the oracle's messages theirs
 */
export function expectMessages(
  capture: string, reference: readonly ReferenceMessage[], oracle: readonly OracleMessage[],
  directions: readonly (string | null)[],
): ExpectedMessages {
  const unexplained: string[] = []
  const differences = messageDifferences.filter(difference => difference.capture === capture)
  const left = new Map<MessageDifference, number>()
  for (const difference of differences) left.set(difference, difference.count ?? Infinity)
  const wrongFrames = new Set(differences.flatMap(difference => difference.frames ?? []))
  const listed = new Map<string, number>()
  for (const message of oracle) {
    if (wrongFrames.delete(message.frame)) continue
    const key = messageKey(directions[message.frame - 1] ?? '', message)
    listed.set(key, (listed.get(key) ?? 0) + 1)
  }
  for (const frame of wrongFrames) unexplained.push(`${capture}: the oracle lists nothing at frame ${frame}`)
  const isListed = (message: ReferenceMessage): boolean => {
    const key = messageKey(message.directed, message)
    const count = listed.get(key) ?? 0
    if (count > 0) listed.set(key, count - 1)
    return count > 0
  }
  // Bodies that are wholly there first: among equal messages those are the ones that the oracle lists.
  const order = [...reference].sort((a, b) => Number(b.isBodyCaptured) - Number(a.isBodyCaptured))
  const required = new Set<ReferenceMessage>()
  for (const message of order) {
    const isKnown = isListed(message)
    if (isKnown || message.isCertain) required.add(message)
    if (isKnown) continue
    const missed = differences.find(difference =>
      difference.kind === 'missed' && difference.selects?.(message) === true && (left.get(difference) ?? 0) > 0)
    const key = messageKey(message.directed, message)
    if (missed === undefined) unexplained.push(`${capture}: only in the reference: ${key}`)
    else left.set(missed, (left.get(missed) ?? 0) - 1)
  }
  for (const [key, count] of listed) {
    if (count > 0) unexplained.push(`${capture}: only in the oracle, ${count}x: ${key}`)
  }
  for (const [difference, count] of left) {
    if (difference.count !== undefined && count > 0) {
      unexplained.push(`${capture}: ${count} fewer than the difference says: ${difference.reason}`)
    }
  }
  const isOptional = (message: ReferenceMessage): boolean =>
    differences.some(difference => difference.kind === 'optional' && difference.selects?.(message) === true)
  return {
    required: reference.filter(message => required.has(message) && !isOptional(message)),
    permitted: reference,
    unexplained,
  }
}

/** What two messages must have in common to be the same message in two tools' records. */
export interface MessageFields {
  readonly kind: 'request' | 'response'
  readonly method: string
  readonly uri: string
  readonly host: string
  readonly status: number
}

/** The text by which messages are compared. A host ends at a NUL, as it does in tools written in C. */
export function messageKey(directed: string, message: MessageFields): string {
  return message.kind === 'response'
    ? `${directed} response ${message.status}`
    : `${directed} request ${message.method} ${message.uri} host=${message.host.split('\0')[0]}`
}
