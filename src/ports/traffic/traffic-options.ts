/**
 * What traffic the generator makes: options, their defaults and limits, and the tables made of them.
 */

import type { Clock } from '../../base/clock.ts'
import { CodedError } from '../../base/coded-error.ts'
import type { Arena } from '../../memory/arena.ts'

/** When packets come: evenly; at random (a Poisson process); or several at once, the bursts at random. */
export type ArrivalProcess = 'constant' | 'poisson' | 'bursty'

/** Bytes of a frame, without Ethernet's own check sequence; `imix`; or several with their weights. */
export type FrameSizes = number | 'imix' | readonly (readonly [bytes: number, weight: number])[]

export interface TrafficOptions {
  readonly arena: Arena
  /** The same seed gives the same packets in the same order. */
  readonly seed: number
  /** Flows open at once. */
  readonly flows: number
  /**
   * Packets per second of each side, at most; `Infinity`, the default: as fast as they are taken. A side that has nothing to send lets
   * its turns pass.
   */
  readonly packetsPerSecond?: number
  /** `constant` unless told. */
  readonly arrivals?: ArrivalProcess
  /** Packets of a burst, if bursty; 32 unless told. */
  readonly burst?: number
  /** 60 unless told, what a switch calls 64. A packet with less than its headers and the tag gets that. */
  readonly sizes?: FrameSizes
  /** Share of flows that are TCP, and IPv6: 0 to 1; 0 unless told. */
  readonly tcpShare?: number
  readonly ipv6Share?: number
  /** A flow's turns: so many packets from the client, then so many from the server; 1 and 0 unless told. */
  readonly requestPackets?: number
  readonly replyPackets?: number
  /** How often, then the flow ends and another takes its place; `Infinity`, the default: for ever. */
  readonly turns?: number
  /**
   * True: a side's turn begins when the last packet of the other's has come in. False, the default: as soon as it has been sent, as
   * suits flows that go one way.
   */
  readonly isClosedLoop?: boolean
  /** In a closed loop: a flow whose packet does not come in for so long is given up; a second unless told. */
  readonly stallUs?: number
  /** Packets in all; no limit unless told. */
  readonly packets?: number
  /** Addresses in use on either side, 1 to 65,000; 250 each unless told. Of 198.18.0.0/16 and 198.19.0.0/16, or 2001:2::/48. */
  readonly clients?: number
  readonly servers?: number
  /** Servers' port; 5001 unless told. */
  readonly serverPort?: number
  /** Link addresses of client and server, 6 bytes each. */
  readonly macs?: readonly [Uint8Array, Uint8Array]
  readonly clock?: Clock
}

/** Both sides' link addresses, unless told. */
export const defaultMacs: readonly [Uint8Array, Uint8Array] =
  [Uint8Array.of(2, 0x4e, 0x46, 0, 0, 1), Uint8Array.of(2, 0x4e, 0x46, 0, 0, 2)]

/** The simple Internet mix: IP packets of 40, 576 and 1,500 bytes as 7 : 4 : 1. */
const IMIX: readonly (readonly [number, number])[] = [[60, 7], [590, 4], [1514, 1]]
const FRAME_MIN = 60
const FRAME_MAX = 65_549

/** Slots of a size table. */
export const SIZE_SLOTS = 4096

/** Sizes by weight: a random slot of the table is a random size. */
export function sizeTable(sizes: FrameSizes): Int32Array {
  const list = typeof sizes === 'number' ? [[sizes, 1] as const] : sizes === 'imix' ? IMIX : sizes
  const total = list.reduce((sum, [, weight]) => sum + weight, 0)
  if (list.length === 0 || !(total > 0)) throw wrong('frame sizes', 'nothing', 'Give at least one size with a weight above 0')
  const table = new Int32Array(SIZE_SLOTS)
  let slot = 0
  let sum = 0
  for (const [bytes, weight] of list) {
    whole('frame size', bytes, FRAME_MIN, FRAME_MAX)
    if (!(weight >= 0)) throw wrong('weight of a frame size', weight, 'Give a number of at least 0')
    sum += weight
    for (; slot < Math.round((sum / total) * SIZE_SLOTS); slot++) table[slot] = bytes
  }
  return table
}

/** @throws CodedError `NF_CONFIG_INVALID` */
export function checkTrafficOptions(options: TrafficOptions): void {
  whole('number of flows', options.flows, 1, 2 ** 24)
  whole('number of clients', options.clients, 1, 65_000)
  whole('number of servers', options.servers, 1, 65_000)
  whole('server port', options.serverPort, 1, 65_535)
  whole('packets of a request', options.requestPackets, 1, 1e9)
  whole('packets of a reply', options.replyPackets, 0, 1e9)
  whole('packets of a burst', options.burst, 1, 1e6)
  if (options.turns !== Infinity) whole('number of turns', options.turns, 1, 1e9)
  const { packetsPerSecond = 1, stallUs = 1, tcpShare = 0, ipv6Share = 0, packets = 0 } = options
  if (!(packetsPerSecond > 0)) throw wrong('packets per second', packetsPerSecond, 'Give a number above 0')
  if (!(stallUs > 0 && stallUs <= 5e8)) throw wrong('time until a flow is given up', stallUs, 'Give 1 to 500,000,000 microseconds')
  if (!(packets >= 0)) throw wrong('number of packets', packets, 'Give a number of at least 0')
  for (const share of [tcpShare, ipv6Share]) if (!(share >= 0 && share <= 1)) throw wrong('share', share, 'Give 0 to 1')
}

function whole(what: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) return
  throw wrong(what, value, `Give a whole number from ${least} to ${most}`)
}

function wrong(what: string, value: unknown, mend: string): CodedError {
  return new CodedError('NF_CONFIG_INVALID', `traffic generator: ${what} cannot be ${String(value)}`, mend)
}
