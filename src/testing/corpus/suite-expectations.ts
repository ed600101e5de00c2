/**
 * Suricata's expectations, as far as NFactor's outputs can answer them.
 *
 * Suricata's verification cases expect event records: alerts of particular rules, and records of HTTP transactions,
 * flows, files and so on. Alerts have no counterpart here. Of the rest this module translates
 *
 *  - `http`: so many transactions with a URL, a status, a method, a host name. A transaction is a request and its
 *    response; a URL is looked up among the request events, a status among the response events;
 *  - `flow`: so many flows of a protocol, with endpoints and packet counts where the case names them.
 *
 * An expectation that cannot be answered gives null, so that a test can count how many were.
 */

import type { SuiteExpectation } from './corpus-location.ts'
import { canonicalAddress } from './flow-tuple.ts'
import type { RunOutput } from './run-output.ts'

/** Says what is wrong, or null when all is well. */
export type ExpectationCheck = (run: RunOutput) => string | null

const requestFields = new Set(['http.url', 'http.http_method', 'http.hostname'])
const transactionFields = new Set([...requestFields, 'http.status'])
/** Fields that only say in which record the match is looked for, or are a property of the case, not of the traffic. */
const neutralFields = new Set(['event_type', 'proto', 'app_proto', 'tx_id'])
/** Fields that hold of bodies, files, headers and states, which the events do not tell. */
const unansweredFields =
  /^(?:http\.(?:length|redirect|http_user_agent|http_content_type|protocol|\w+_headers)|flow\.|tcp\.)/
/** Fields of a flow that the flow lines do tell. */
const flowFields = new Set(['src_ip', 'dest_ip', 'src_port', 'dest_port'])

/** The check that an expectation comes to, or null when NFactor's outputs do not answer it. */
export function translateExpectation(expectation: SuiteExpectation): ExpectationCheck | null {
  const { match } = expectation
  if (match['event_type'] === 'http') return translateTransaction(expectation)
  if (match['event_type'] === 'flow') return translateFlow(expectation)
  return null
}

function translateTransaction({ count, match }: SuiteExpectation): ExpectationCheck | null {
  const fields = Object.keys(match)
  if (!fields.every(field => isKnown(field, transactionFields))) return null
  const url = match['http.url']
  const status = match['http.status']
  const asksRequest = fields.some(field => requestFields.has(field))
  if (!asksRequest && status === undefined) {
    // Headers or sizes are asked for: at least that many transactions there must be.
    const isBare = fields.every(field => neutralFields.has(field))
    return run => {
      const transactions = run.messages.filter(message => message.kind === 'request').length
      const isRight = isBare ? transactions === count : transactions >= count
      return isRight ? null : `${transactions} HTTP transactions instead of ${count}`
    }
  }
  return run => {
    const requests = run.messages.filter(message => message.kind === 'request'
      && (url === undefined || message.uri === url)
      && (match['http.http_method'] === undefined || message.method === match['http.http_method'])
      && (match['http.hostname'] === undefined || message.host === match['http.hostname']))
    if (asksRequest && requests.length !== count) {
      return `${requests.length} requests ${JSON.stringify(match)}, not ${count}`
    }
    const responses = run.messages.filter(message => message.kind === 'response' && message.status === status)
    // One response may answer another request of the same status: at least that many there must be.
    const isAnswered = status === undefined || responses.length >= count
    return isAnswered ? null : `${responses.length} responses with status ${String(status)}, not ${count}`
  }
}

function translateFlow({ count, match }: SuiteExpectation): ExpectationCheck | null {
  if (!Object.keys(match).every(field => isKnown(field, flowFields))) return null
  const protocol = typeof match['proto'] === 'string' ? match['proto'].toLowerCase() : null
  const ends = ['src', 'dest'].map(end => ({ address: match[`${end}_ip`], port: match[`${end}_port`] }))
  const toServer = match['flow.pkts_toserver']
  const toClient = match['flow.pkts_toclient']
  return run => {
    const flows = run.flows.filter(flow => (protocol === null || flow.protocol === protocol)
      && ends.every(end => (end.address === undefined || flow.tuple.includes(` ${addressText(end.address)}:`))
        && (end.port === undefined || flow.tuple.split(' ').some(part => part.endsWith(`:${String(end.port)}`)))))
    if (flows.length !== count) return `${flows.length} flows ${JSON.stringify(match)}, not ${count}`
    if (typeof toServer !== 'number' || typeof toClient !== 'number') return null
    const packets = flows.reduce((sum, flow) => sum + flow.packets, 0)
    return packets === (toServer + toClient) * count ? null : `${packets} packets in flows ${JSON.stringify(match)}`
  }
}

function isKnown(field: string, answered: ReadonlySet<string>): boolean {
  return neutralFields.has(field) || answered.has(field) || unansweredFields.test(field)
}

function addressText(address: unknown): string {
  const canonical = canonicalAddress(String(address))
  return canonical.includes(':') ? `[${canonical}]` : canonical
}
