/**
 * Watched interface: the network interface that a port is tied to, found by its name and looked at again and again: it may go down, change
 * its MTU, or go away and come back as another one of the same name. All through a packet socket of the interface's namespace.
 */

import { CodedError } from '../base/coded-error.ts'
import * as sys from './sys.ts'

const ARPHRD_ETHER = 1
const IFF_UP_AND_RUNNING = 0x41
const SOL_PACKET = 263
const PACKET_ADD_MEMBERSHIP = 1
const PACKET_MR_PROMISC = 1
const SO_SNDBUF = 7
const SO_ATTACH_FILTER = 26
const SO_SNDBUFFORCE = 32
/** Bytes that may be under way: long segments, or some hundred frames, would be stopped by the default of 208 KiB. */
const SEND_BUFFER_BYTES = 16 << 20

export class WatchedInterface {
  readonly name: string
  index = 0
  mtu = 0
  /** True while the interface is up and has a carrier. */
  isRunning = false

  constructor(name: string) {
    this.name = name
  }

  /**
   * @param what what an error begins with
   * @throws CodedError `NF_PORT_INTERFACE` if there is no such interface, or it is not an Ethernet one
   */
  find(fd: number, what: string): void {
    this.index = sys.interfaceIndex(fd, this.name)
    if (this.index < 0) throw sys.portError(this.index, what)
    const address = sys.interfaceAddress(fd, this.name)
    if (typeof address === 'number') throw sys.portError(address, what)
    if (address.kind !== ARPHRD_ETHER) throw new CodedError('NF_PORT_INTERFACE', `${what} is not an Ethernet interface`)
    this.mtu = Math.max(0, sys.interfaceMtu(fd, this.name))
  }

  /** Looks what the interface is like now. Returns why it cannot be used any more, or an empty text. */
  look(fd: number): string {
    // An error that nobody takes, such as that the interface went down, would keep waking whoever waits.
    sys.takeSocketError(fd)
    const index = sys.interfaceIndex(fd, this.name)
    const flags = sys.interfaceFlags(fd, this.name)
    this.mtu = Math.max(0, sys.interfaceMtu(fd, this.name))
    this.isRunning = index === this.index && flags >= 0 && (flags & IFF_UP_AND_RUNNING) === IFF_UP_AND_RUNNING
    return index === this.index ? '' : `interface ${this.name} has gone`
  }

  forget(): void {
    this.index = this.mtu = 0
    this.isRunning = false
  }
}

/**
 * Binds a packet socket to an interface and a protocol (big-endian), and has the interface take frames to all addresses as long as the
 * socket is open. Throws a CodedError `NF_PORT_...`.
 */
export function bindToInterface(fd: number, index: number, protocol: number, what: string): void {
  const own = sys.scratch(20)
  own.setUint16(0, sys.AF_PACKET, true)
  own.setUint16(2, protocol, true)
  own.setInt32(4, index, true)
  const bound = sys.bind(fd, own)
  if (bound < 0) throw sys.portError(bound, `${what} cannot be bound to`)
  const membership = sys.scratch(16)
  membership.setInt32(0, index, true)
  membership.setUint16(4, PACKET_MR_PROMISC, true)
  const joined = sys.setOption(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
  if (joined < 0) throw sys.portError(joined, `${what} cannot be made promiscuous`)
}

/** Lets a socket have so many frames under way as its rings have room for. */
export function raiseSendBuffer(fd: number): void {
  if (sys.setNumber(fd, sys.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES) < 0) {
    sys.setNumber(fd, sys.SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES)
  }
}

/** Ethernet addresses that begin and end so: each two bytes, as a number in network order. */
export interface Destination {
  readonly head: number
  readonly tail: number
}

// Classic BPF: load half word, jump if equal, return. linux/bpf_common.h.
const BPF_LDH_ABS = 0x28
const BPF_JEQ = 0x15
const BPF_RET = 0x06

/** Has the kernel leave out all frames but those to such addresses, before it copies them. Returns a negative errno if it does not. */
export function acceptOnly(fd: number, { head, tail }: Destination): number {
  const program: readonly (readonly [code: number, ifTrue: number, ifFalse: number, value: number])[] = [
    [BPF_LDH_ABS, 0, 0, 0], [BPF_JEQ, 0, 3, head], [BPF_LDH_ABS, 0, 0, 4], [BPF_JEQ, 0, 1, tail],
    [BPF_RET, 0, 0, 0x7fffffff], [BPF_RET, 0, 0, 0],
  ]
  const code = sys.scratch(8 * program.length)
  program.forEach(([operation, ifTrue, ifFalse, value], index) => {
    code.setUint16(index * 8, operation, true)
    code.setUint8(index * 8 + 2, ifTrue)
    code.setUint8(index * 8 + 3, ifFalse)
    code.setUint32(index * 8 + 4, value, true)
  })
  const filter = sys.scratch(16)
  filter.setUint16(0, program.length, true)
  filter.setBigUint64(8, BigInt(sys.addressOf(code)), true)
  return sys.setOption(fd, sys.SOL_SOCKET, SO_ATTACH_FILTER, filter)
}
