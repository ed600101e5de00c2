/**
 * What a router port is told: its own addresses with the networks that they are in, next hops of other networks, and its Ethernet address.
 * Read from text, so that every mistake is found before a port is opened.
 */

import { prefixMask, readAddress } from '../../wire/address-text.ts'
import { isSameAddress, type IpAddress } from './ip-words.ts'

export interface RouterText {
  /** `address/length`, one or more. */
  readonly addresses: readonly string[]
  /** Next hop of a network, both as text; the longest prefix that fits counts. */
  readonly routes: Readonly<Record<string, string>>
  /** Six bytes in hex, with colons; made of the addresses unless told. */
  readonly mac?: string
}

export interface Route {
  readonly version: 4 | 6
  readonly words: readonly number[]
  /** Of each word: the bits that count. */
  readonly masks: readonly number[]
  readonly length: number
  /** Null for a network that the port itself is in. */
  readonly via: IpAddress | null
}

export interface RouterConfig {
  readonly addresses: readonly IpAddress[]
  /** Longest prefix first. */
  readonly routes: readonly Route[]
  readonly mac: Uint8Array
}

/** A mistake: where in the text, and what. */
export interface RouterMistake {
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** @returns the configuration, or every mistake in it */
export function readRouterConfig(text: RouterText): { readonly config: RouterConfig } | { readonly mistakes: readonly RouterMistake[] } {
  const mistakes: RouterMistake[] = []
  const addresses: IpAddress[] = []
  const routes: Route[] = []
  text.addresses.forEach((one, index) => {
    const route = readPrefix(one, true)
    if (route === null || isUnspecified(route.words) || isMulticast(route)) {
      mistakes.push({ path: ['addresses', index], message: `"${one}" is no address with the length of its network, like 192.0.2.1/24` })
    } else {
      addresses.push({ version: route.version, words: route.words })
      routes.push({ ...route, words: route.words.map((word, i) => word & route.masks[i]) })
    }
  })
  const mac = text.mac === undefined ? macOf(text.addresses.join()) : Uint8Array.from(text.mac.split(':').map((byte) => parseInt(byte, 16)))
  if (addresses.some(({ version }) => version === 6)) {
    // RFC 4291 §2.5.6 and appendix A: who speaks IPv6 has an address on the link itself.
    const [a, b, c, d, e, f] = mac
    const prefix = 0xfe800000 | 0
    addresses.push({ version: 6, words: [prefix, 0, ((a ^ 2) << 24) | (b << 16) | (c << 8) | 0xff, (0xfe << 24) | (d << 16) | (e << 8) | f] })
    routes.push({ version: 6, words: [prefix, 0, 0, 0], masks: [0, 1, 2, 3].map((level) => prefixMask(10, level)), length: 10, via: null })
  }
  for (const [network, hop] of Object.entries(text.routes)) {
    const route = readPrefix(network, false)
    const words = readAddress(hop)
    const say = (message: string): void => { mistakes.push({ path: ['routes', network], message }) }
    if (route === null) say(`"${network}" is no network, like 0.0.0.0/0 or 2001:db8::/32, with no bits set behind its length`)
    else if (words === null) say(`"${hop}" is no address of a next hop`)
    else {
      const via: IpAddress = { version: words.length === 1 ? 4 : 6, words }
      if (via.version !== route.version) say(`"${hop}" is not of the same IP version as ${network}`)
      else if (addresses.some((own) => isSameAddress(own, via))) say(`"${hop}" is the port's own address`)
      else if (routes.some((one) => one.via === null && fits(one, via))) routes.push({ ...route, via })
      else say(`"${hop}" is in none of the port's networks: nobody could be asked for it`)
    }
  }
  if (mistakes.length > 0) return { mistakes }
  return { config: { addresses, routes: routes.sort((a, b) => b.length - a.length), mac } }
}

/** True if an address is in a route's network. */
export function fits({ version, words, masks }: Route, address: IpAddress): boolean {
  return version === address.version && words.every((word, i) => (address.words[i] & masks[i]) === word)
}

function readPrefix(text: string, isHost: boolean): Route | null {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text)
  const words = match === null ? null : readAddress(match[1])
  if (match === null || words === null) return null
  const length = Number(match[2])
  const masks = words.map((_, level) => prefixMask(length, level))
  if (length > words.length * 32 || (!isHost && words.some((word, i) => (word & ~masks[i]) !== 0))) return null
  return { version: words.length === 1 ? 4 : 6, words, masks, length, via: null }
}

function isUnspecified(words: readonly number[]): boolean {
  return words.every((word) => word === 0)
}

function isMulticast({ version, words }: Route): boolean {
  return version === 4 ? words[0] >>> 28 >= 14 : words[0] >>> 24 === 0xff
}

/** A local Ethernet address that is always the same for the same text. */
function macOf(text: string): Uint8Array {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return Uint8Array.of(0x02, 0x4e, 0x46, hash >>> 16, hash >>> 8, hash)
}
