/**
 * Machine link: a port from this node to a node on another machine, or its control port for all of them, over the Ethernet network that
 * joins the machines. A packet socket for each, which sees frames to its own address alone.
 *
 *     node's frame   02 4e │ incarnation │ link │ node         both addresses, see transport/frame-header.ts
 *     on the wire     tag  │ incarnation │ link │ node         tag: 14 bits made from the cluster's id, locally administered, unicast
 *
 * So two clusters on one network do not take each other's frames, and bridges learn where every node is. IP packets travel under an EtherType
 * of their own, behind tags too; which of the two it was, their version says. So all frames of a link are one kind to whoever is in between:
 * cards and trunks do not spread them over queues by what is in them, which would break their order, receivers do not put several TCP segments
 * together, and no packet filter of a bridge takes them for its own business. Frames do not get longer: data with 1,514 bytes passes. There are
 * no long segments here: outer sides cut them where a cluster has several machines.
 *
 * Like a cable, an end that is not plugged in holds nothing up: while the interface is down there is "room", and what is sent is
 * refused and counted. That the other end is gone nobody sees here; controllers do.
 */

import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import { AfPacketPort } from '../ports/af-packet-port.ts'
import { WrapperPort } from '../ports/wrapper-port.ts'
import { ETHERNET_SOURCE, ETHERNET_TYPE, VLAN_TAG_BYTES } from '../wire/ethernet.ts'

/** A frame of ordinary size with what the ring itself needs. */
const FRAME_BYTES = 2048
const RX_FRAMES = 1024
const TX_FRAMES = 512
const UNPLUGGED_ROOM = 4096
const MTU_MIN = 1500

// EtherTypes as they stand in a frame, read as little-endian numbers.
const IPV4 = 0x0008
const IPV6 = 0xdd86
/** IEEE 802 local experimental EtherType 2. */
const PACKET = 0xb688
const isTag = (type: number): boolean => type === 0x0081 || type === 0xa888 || type === 0x0091

export interface MachineLinkOptions {
  readonly arena: Arena
  readonly name: string
  readonly clusterId: number
  readonly interface: string
  /** Network namespace of the interface. */
  readonly namespace?: string | undefined
  /** This node, and the one at the other end; 0 for the control port. */
  readonly node: number
  readonly link: number
}

/** The first two bytes of a cluster's Ethernet addresses, in network order. */
export function clusterTag(clusterId: number): number {
  const bits = (clusterId ^ (clusterId >>> 14) ^ (clusterId >>> 28)) & 0x3fff
  return ((((bits >> 8) << 2) | 2) << 8) | (bits & 255)
}

export class MachineLink extends WrapperPort<AfPacketPort> {
  readonly #arena: Arena
  /** The tag as it stands in a frame, read as one little-endian number. */
  readonly #tag: number

  constructor({ arena, name, clusterId, interface: interfaceName, namespace, node, link }: MachineLinkOptions) {
    const head = clusterTag(clusterId)
    super(new AfPacketPort({
      arena, name, interface: interfaceName, leads: 'inside', destination: { head, tail: (link << 8) | node }, frameBytes: FRAME_BYTES,
      rxFrames: RX_FRAMES, txFrames: TX_FRAMES, ...namespace !== undefined && { namespace },
    }))
    this.#arena = arena
    this.#tag = ((head & 255) << 8) | (head >> 8)
  }

  override get room(): number {
    return this.inner.isUp ? this.inner.room : UNPLUGGED_ROOM
  }

  get lastEnd(): string {
    return this.inner.lastEnd
  }

  /** Throws a CodedError `NF_PORT_...`, also for an interface that does not take frames of ordinary size. */
  override open(): void {
    this.inner.open()
    const { mtu } = this.inner
    if (mtu >= MTU_MIN) return
    this.inner.close()
    throw new CodedError('NF_PORT_INTERFACE', `port ${this.name}: the network between machines takes ${mtu} bytes, ${MTU_MIN} are needed`,
      'Raise the MTU of the interface that the machine names')
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    const count = this.inner.receive(pool, descriptors, max)
    const { i32, u16, u8 } = this.#arena
    for (let index = 0, d = descriptors; index < count; index++, d += DESCRIPTOR_WORDS) {
      const frame = i32[d + Descriptor.frame]
      const at = this.#typeAt(frame, i32[d + Descriptor.length])
      if (u16[at >> 1] === PACKET) u16[at >> 1] = u8[at + 2] >> 4 === 6 ? IPV6 : IPV4
    }
    return count
  }

  override send(frame: number, length: number): boolean {
    const { u16, u8 } = this.#arena
    this.#mark(frame)
    const at = this.#typeAt(frame, length)
    const type = u16[at >> 1]
    const version = u8[at + 2] >> 4
    if (!(type === IPV4 && version === 4) && !(type === IPV6 && version === 6)) return this.inner.send(frame, length)
    u16[at >> 1] = PACKET
    const isSent = this.inner.send(frame, length)
    u16[at >> 1] = type
    return isSent
  }

  override sendReserved(frame: number, length: number): boolean {
    this.#mark(frame)
    return this.inner.sendReserved(frame, length)
  }

  /** Where the EtherType behind all tags is. */
  #typeAt(frame: number, length: number): number {
    const { u16 } = this.#arena
    const end = frame + length - VLAN_TAG_BYTES - 2
    let at = frame + ETHERNET_TYPE
    while (at < end && isTag(u16[at >> 1])) at += VLAN_TAG_BYTES
    return at
  }

  #mark(frame: number): void {
    const { u16 } = this.#arena
    u16[frame >> 1] = this.#tag
    u16[(frame + ETHERNET_SOURCE) >> 1] = this.#tag
  }
}
