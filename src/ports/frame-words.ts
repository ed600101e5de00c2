/**
 * Frame words: which frames people mean, and which packet a frame is.
 *
 * The filter is a list of words that must all hold: any text that is in the protocol or an endpoint, as flows are listed; `host ADDRESS`
 * and `port NUMBER` exactly; `not` before any of them; `and` says nothing.
 *
 * The identity of a packet is its flow (both endpoints in one order) and a digest of what nodes and network functions leave as it is: IP
 * identification, lengths, TCP numbers and flags, ICMP words, payload. Ethernet addresses, hop counts and checksums are not in it.
 */

import { CodedError } from '../base/coded-error.ts'
import { IPV4_FRAGMENT } from '../wire/ipv4.ts'
import { compileFlowFilter, FrameLayers, frameNames, type FramePredicate } from './frame-summary.ts'

/** @throws CodedError `NF_USAGE`, `NF_CONFIG_INVALID` (an address or port that is none) */
export function compileFrameWords(words: readonly string[]): FramePredicate {
  const tokens = words.join(' ').toLowerCase().split(/\s+/).filter((word) => word !== '')
  const texts: { text: string, isWanted: boolean }[] = []
  const exact: { fits: FramePredicate, isWanted: boolean }[] = []
  let isWanted = true
  for (let i = 0; i < tokens.length; i++) {
    const word = tokens[i] as string
    if (word === 'and') continue
    if (word === 'not') {
      isWanted = !isWanted
      continue
    }
    if (word === 'host' || word === 'port') {
      const value = tokens[++i]
      if (value === undefined) throw new CodedError('NF_USAGE', `filter: nothing follows ${word}`, 'Say host ADDRESS or port NUMBER')
      exact.push({ fits: compileFlowFilter(word === 'host' ? { address: value } : { port: Number(value) }), isWanted })
    } else {
      texts.push({ text: word, isWanted })
    }
    isWanted = true
  }
  if (!isWanted) throw new CodedError('NF_USAGE', 'filter: nothing follows not', 'Say a word, host ADDRESS or port NUMBER behind it')
  return (bytes, frame, length) => {
    for (const one of exact) if (one.fits(bytes, frame, length) !== one.isWanted) return false
    if (texts.length === 0) return true
    const names = frameNames(bytes, frame, length)
    return texts.every((one) => names.includes(one.text) === one.isWanted)
  }
}

const layers = new FrameLayers()
/** A long payload is told from others by its first bytes and its length. */
const DIGESTED_BYTES = 512

/** The identity of a packet; empty for what is no IP. */
export function frameIdentity(bytes: Uint8Array, frame: number, length: number): string {
  layers.read(bytes, frame, length)
  const { version, network, transport, end } = layers
  if (version === 0) return ''
  const [protocol, ...endpoints] = frameNames(bytes, frame, length).split(' ')
  let hash = 0x811c9dc5
  const add = (from: number, to: number): void => {
    for (let at = from; at < to; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193)
  }
  if (version === 4) add(network + 2, network + IPV4_FRAGMENT + 2)
  else add(network + 4, network + 6)
  const isTcp = layers.protocol === 6
  if (transport === 0) {
    // The checksum of ICMP is left out, and so is that of UDP and TCP.
    const body = network + (version === 4 ? ((bytes[network] as number) & 15) * 4 : 40)
    add(body, Math.min(end, body + 2))
    add(body + 4, Math.min(end, body + DIGESTED_BYTES))
  } else {
    add(transport, transport + (isTcp ? 16 : 6))
    add(transport + (isTcp ? 18 : 8), Math.min(end, transport + DIGESTED_BYTES))
  }
  return `${[protocol, ...endpoints.toSorted()].join(' ')} #${(hash >>> 0).toString(16).padStart(8, '0')}`
}
