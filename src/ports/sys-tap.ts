/**
 * Calls of the C library for TAP devices; the rest of them is in sys.ts, with the same manners: results of the system call, or a
 * negative errno.
 *
 * Sources: the kernel's Documentation/networking/tuntap.rst, linux/if_tun.h, readv(2), netdevice(7).
 */

import koffi from 'koffi'
import { closeSync, constants, openSync } from 'node:fs'
import * as sys from './sys.ts'

const IFNAMSIZ = 16
const IFF_UP = 1
const IFF_TAP = 0x0002
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const TUNSETIFF = 0x400454ca
const TUNSETOFFLOAD = 0x400454d0
const TUNSETVNETHDRSZ = 0x400454d8
const SIOCGIFFLAGS = 0x8913
const SIOCSIFFLAGS = 0x8914
const SIOCSIFMTU = 0x8922
const AF_INET = 2
const SOCK_DGRAM = 2

/** What whoever reads from a TAP device can cope with: unfinished checksums, TCP segments that were to be cut. */
export const TapOffload = { checksum: 1, tcp4: 2, tcp6: 4 } as const

interface Libc {
  ioctl(fd: number, request: number, argument: ArrayBufferView): number
  /** For requests that have a number in place of a pointer. */
  ioctlNumber(fd: number, request: number, argument: number): number
  readv(fd: number, vector: number, count: number): number
  writev(fd: number, vector: number, count: number): number
}

let libc: Libc | undefined

function load(): Libc {
  if (libc === undefined) {
    // Says so where there is no C library that we know.
    sys.addressOf(new Uint8Array(new ArrayBuffer(8)))
    const library = koffi.load('libc.so.6')
    libc = {
      ioctl: library.func('int ioctl(int fd, unsigned long request, void *argument)'),
      ioctlNumber: library.func('int ioctl(int fd, unsigned long request, uintptr_t argument)'),
      readv: library.func('intptr_t readv(int fd, uintptr_t vector, int count)'),
      writev: library.func('intptr_t writev(int fd, uintptr_t vector, int count)'),
    } as unknown as Libc
  }
  return libc
}

function check(result: number | bigint): number {
  return Number(result) < 0 ? -koffi.errno() : Number(result)
}

/** A request about an interface: 16 bytes of name, then a value. */
function requestFor(name: string): DataView {
  const request = sys.scratch(40)
  Buffer.from(name).forEach((byte, index) => { if (index < IFNAMSIZ - 1) request.setUint8(index, byte) })
  return request
}

/**
 * Opens the end of a TAP device that programs have; makes the device if there is none of that name. Does not block.
 *
 * @param offloads `TapOffload` bits; only with headers
 * @returns the descriptor
 */
export function openTap(name: string, hasHeaders: boolean, offloads: number): number {
  let fd: number
  try {
    fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -sys.Errno.EIO
  }
  const c = load()
  const request = requestFor(name)
  request.setUint16(IFNAMSIZ, IFF_TAP | IFF_NO_PI | (hasHeaders ? IFF_VNET_HDR : 0), true)
  let result = check(c.ioctl(fd, TUNSETIFF, request))
  if (result >= 0 && hasHeaders) {
    const bytes = sys.scratch(8)
    bytes.setInt32(0, 10, true)
    result = check(c.ioctl(fd, TUNSETVNETHDRSZ, bytes))
  }
  if (result >= 0) result = check(c.ioctlNumber(fd, TUNSETOFFLOAD, hasHeaders ? offloads : 0))
  if (result >= 0) return fd
  closeSync(fd)
  return result
}

/** A socket that interfaces of this thread's network namespace can be asked about by. */
export function openInterfaceSocket(): number {
  return sys.socket(AF_INET, SOCK_DGRAM, 0)
}

/** Brings an interface up. */
export function bringUp(fd: number, name: string): number {
  const c = load()
  const request = requestFor(name)
  const result = check(c.ioctl(fd, SIOCGIFFLAGS, request))
  if (result < 0) return result
  request.setUint16(IFNAMSIZ, request.getUint16(IFNAMSIZ, true) | IFF_UP, true)
  return check(c.ioctl(fd, SIOCSIFFLAGS, request))
}

export function setMtu(fd: number, name: string, mtu: number): number {
  const request = requestFor(name)
  request.setInt32(IFNAMSIZ, mtu, true)
  return check(load().ioctl(fd, SIOCSIFMTU, request))
}

/** A list of stretches of memory, for reading and writing in one call. The memory stays referenced by its owner. */
export class MemoryVector {
  readonly #list: DataView
  readonly #address: number
  readonly #count: number

  constructor(count: number) {
    this.#list = sys.scratch(16 * count)
    this.#address = sys.addressOf(this.#list)
    this.#count = count
  }

  /** Says where a stretch is. Hot. */
  set(index: number, address: number, bytes: number): void {
    const at = index * 16
    const high = Math.floor(address / 4294967296)
    this.#list.setUint32(at, address - high * 4294967296, true)
    this.#list.setUint32(at + 4, high, true)
    this.#list.setUint32(at + 8, bytes, true)
  }

  /** Reads into all stretches, in order. Hot. */
  read(fd: number): number {
    return check((libc as Libc).readv(fd, this.#address, this.#count))
  }

  /** Writes the first `count` stretches as one. Hot. */
  write(fd: number, count: number): number {
    return check((libc as Libc).writev(fd, this.#address, count))
  }
}
