/**
 * Calls of the C library for AF_XDP: bpf(2), and how many queues an interface has. The rest of them is in sys.ts, with the same
 * manners: results of the system call, or a negative errno.
 *
 * Everything that bpf(2) makes here is a descriptor, and goes with it: the map, the program, and the link that ties the program to an
 * interface. Nothing is pinned, so nothing outlives the process.
 *
 * Sources: bpf(2), linux/bpf.h, linux/ethtool.h.
 */

import koffi from 'koffi'
import * as sys from './sys.ts'

const BPF_MAP_CREATE = 0
const BPF_MAP_UPDATE_ELEM = 2
const BPF_PROG_LOAD = 5
const BPF_LINK_CREATE = 28
const BPF_MAP_TYPE_XSKMAP = 17
const BPF_PROG_TYPE_XDP = 6
/** Attach type. */
const BPF_XDP = 37
/** Names that tools show. At most 15 characters. */
const NAME = 'nfactor'

/** Who runs the program: the kernel, once it has made its own description of a frame, or the driver, before that. */
export const XdpAttach = { generic: 2, native: 4 } as const

/** How often loading a program is tried again. */
const LOAD_TRIES = 20

const SIOCETHTOOL = 0x8946
const ETHTOOL_GCHANNELS = 0x3c
const IFNAMSIZ = 16

interface Libc {
  syscall(number: number, command: number, attributes: ArrayBufferView, bytes: number): number
  ioctl(fd: number, request: number, argument: ArrayBufferView): number
}

let libc: Libc | undefined

function load(): Libc {
  if (libc === undefined) {
    // Says so where there is no C library that we know.
    sys.addressOf(sys.scratch(8))
    const library = koffi.load('libc.so.6')
    libc = {
      syscall: library.func('long syscall(long number, int command, void *attributes, unsigned int bytes)'),
      ioctl: library.func('int ioctl(int fd, unsigned long request, void *argument)'),
    } as unknown as Libc
  }
  return libc
}

function check(result: number): number {
  return result < 0 ? -koffi.errno() : result
}

function bpf(command: number, attributes: DataView): number {
  const number = process.arch === 'x64' ? 321 : 280
  return check(load().syscall(number, command, attributes, attributes.byteLength))
}

function writeText(to: DataView, at: number, text: string): void {
  Buffer.from(text).forEach((byte, index) => { to.setUint8(at + index, byte) })
}

/** A map from queue numbers to AF_XDP sockets. Returns its descriptor. */
export function createSocketMap(entries: number): number {
  const attributes = sys.scratch(48)
  const words = [BPF_MAP_TYPE_XSKMAP, 4, 4, entries]
  words.forEach((word, index) => { attributes.setUint32(index * 4, word, true) })
  writeText(attributes, 28, NAME)
  return bpf(BPF_MAP_CREATE, attributes)
}

/** Enters a socket, which must be bound, under the number of its queue. It leaves the map when it is closed. */
export function setSocketInMap(map: number, queue: number, socket: number): number {
  const key = sys.scratch(4)
  key.setUint32(0, queue, true)
  const value = sys.scratch(4)
  value.setInt32(0, socket, true)
  const attributes = sys.scratch(32)
  attributes.setInt32(0, map, true)
  attributes.setBigUint64(8, BigInt(sys.addressOf(key)), true)
  attributes.setBigUint64(16, BigInt(sys.addressOf(value)), true)
  return bpf(BPF_MAP_UPDATE_ELEM, attributes)
}

/** Loads a program that decides on frames. Returns its descriptor; -EACCES means that the kernel's verifier has refused it. */
export function loadXdpProgram(instructions: DataView): number {
  const license = sys.scratch(16)
  writeText(license, 0, 'Apache-2.0')
  const attributes = sys.scratch(72)
  attributes.setUint32(0, BPF_PROG_TYPE_XDP, true)
  attributes.setUint32(4, instructions.byteLength / 8, true)
  attributes.setBigUint64(8, BigInt(sys.addressOf(instructions)), true)
  attributes.setBigUint64(16, BigInt(sys.addressOf(license)), true)
  writeText(attributes, 48, NAME)
  attributes.setUint32(68, BPF_XDP, true)
  // The verifier gives up when there is a signal for the thread, as V8's own.
  let result = bpf(BPF_PROG_LOAD, attributes)
  for (let i = 0; result === -sys.Errno.EAGAIN && i < LOAD_TRIES; i++) result = bpf(BPF_PROG_LOAD, attributes)
  return result
}

/**
 * Ties a program to an interface of this thread's network namespace.
 *
 * @param attach one of `XdpAttach`
 * @returns a descriptor; once it is closed, or its owner has died, the interface is as it was
 */
export function attachXdpProgram(program: number, interfaceIndex: number, attach: number): number {
  const attributes = sys.scratch(16)
  const words = [program, interfaceIndex, BPF_XDP, attach]
  words.forEach((word, index) => { attributes.setUint32(index * 4, word, true) })
  return bpf(BPF_LINK_CREATE, attributes)
}

/** Queues that an interface receives by: 1 where its driver does not say. `fd` is a socket of the interface's namespace. */
export function receiveQueuesOf(fd: number, name: string): number {
  const channels = sys.scratch(36)
  channels.setUint32(0, ETHTOOL_GCHANNELS, true)
  const request = sys.scratch(40)
  writeText(request, 0, name.slice(0, IFNAMSIZ - 1))
  request.setBigUint64(IFNAMSIZ, BigInt(sys.addressOf(channels)), true)
  if (check(load().ioctl(fd, SIOCETHTOOL, request)) < 0) return 1
  const receiving = channels.getUint32(20, true)
  const combined = channels.getUint32(32, true)
  return Math.max(1, receiving + combined)
}
