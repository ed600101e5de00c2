/**
 * sys: every call of the C library that NFactor makes for its ports, in one module, so that another way to call it can replace
 * koffi without anybody noticing.
 *
 * A call gives what the system call gives, or a negative errno; it never throws. Pointers to our own memory are typed arrays over
 * buffers outside of the JavaScript heap (`scratch`), pointers to anything else are numbers: addresses of user space are below
 * 2^47. What an errno means to a person, `portError` says.
 *
 * An errno is a hint: it is asked for in a second call, and V8 may have made calls in between. Nothing that matters hangs on one alone.
 *
 * Sources: the manual pages of Linux, sections 2 and 7; numbers from the headers of x86-64 and arm64, where all of these agree.
 */

import koffi from 'koffi'
import { closeSync, openSync, readlinkSync } from 'node:fs'
import { getSystemErrorMap } from 'node:util'
import { assert } from '../base/assert.ts'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'

/** Errno values that somebody looks at. */
export const Errno = {
  EPERM: 1, ENOENT: 2, EINTR: 4, EIO: 5, ENXIO: 6, EAGAIN: 11, ENOMEM: 12, EACCES: 13, EBUSY: 16, EEXIST: 17, ENODEV: 19, EINVAL: 22,
  EPIPE: 32, ENOSYS: 38, EPROTO: 71, EMSGSIZE: 90, ENOPROTOOPT: 92, EPROTONOSUPPORT: 93, EOPNOTSUPP: 95, EAFNOSUPPORT: 97,
  EADDRINUSE: 98, ENETDOWN: 100, ECONNRESET: 104, ENOBUFS: 105, ECONNREFUSED: 111, EINPROGRESS: 115,
} as const

export const AF_UNIX = 1
export const AF_PACKET = 17
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_SEQPACKET = 5
export const SOCK_NONBLOCK = 0x800
export const SOCK_CLOEXEC = 0x80000
export const SOL_SOCKET = 1
export const SO_ERROR = 4
export const MSG_DONTWAIT = 0x40
const MSG_TRUNC = 0x20
export const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
const SCM_RIGHTS = 1

export const PROT_READ_WRITE = 3
export const MAP_SHARED = 1
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000

const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_SETFL = 4
const F_ADD_SEALS = 1033
const F_GET_SEALS = 1034
export const F_SEAL_SHRINK = 2
export const F_SEAL_GROW = 4

const EPOLL_CLOEXEC = 0x80000
const EPOLL_CTL_ADD = 1
const EPOLLIN = 1
const EFD_NONBLOCK = 0x800
const EFD_CLOEXEC = 0x80000

export const POLLIN = 1
export const POLLERR = 8
export const POLLHUP = 16

/** Bytes of a page, as `mmap` counts them on the machines that we run on. */
export const PAGE_BYTES = 4096

/** Descriptors that a message may bring along; a peer's surplus is closed. */
const RIGHTS_MAX = 4
const CMSG_HEADER_BYTES = 16

/** Memory outside of the JavaScript heap, which does not move: for what system calls read and write. */
export function scratch(bytes: number): DataView<ArrayBuffer> {
  return new DataView(new ArrayBuffer(bytes))
}

type Result = number
type Pointer = ArrayBufferView | null

interface Libc {
  memcpy(to: ArrayBufferView, from: ArrayBufferView, bytes: number): number | bigint
  mmap(address: number, bytes: number, protection: number, flags: number, fd: number, offset: number): number | bigint
  close(fd: number): Result
  socket(family: number, type: number, protocol: number): Result
  bind(fd: number, address: Pointer, bytes: number): Result
  listen(fd: number, backlog: number): Result
  accept4(fd: number, address: Pointer, bytes: Pointer, flags: number): Result
  connect(fd: number, address: Pointer, bytes: number): Result
  setsockopt(fd: number, level: number, option: number, value: Pointer, bytes: number): Result
  getsockopt(fd: number, level: number, option: number, value: Pointer, bytes: Pointer): Result
  sendto(fd: number, buffer: number, bytes: number, flags: number, address: number, addressBytes: number): Result
  recvfrom(fd: number, buffer: number, bytes: number, flags: number, address: number, addressBytes: number): Result
  sendmsg(fd: number, message: Pointer, flags: number): Result
  recvmsg(fd: number, message: Pointer, flags: number): Result
  memfd_create(name: string, flags: number): Result
  ftruncate(fd: number, bytes: number): Result
  fcntl(fd: number, command: number, value: number): Result
  eventfd(value: number, flags: number): Result
  epoll_create1(flags: number): Result
  epoll_ctl(set: number, operation: number, fd: number, event: Pointer): Result
  read(fd: number, buffer: Pointer, bytes: number): Result
  write(fd: number, buffer: Pointer, bytes: number): Result
  poll(descriptors: Pointer, count: number, timeoutMs: number): Result
  ppoll(descriptors: Pointer, count: number, timeout: Pointer, signals: Pointer): Result
  ioctl(fd: number, request: number, argument: Pointer): Result
  setns(fd: number, kind: number): Result
  dup2(from: number, to: number): Result
  sched_yield(): Result
}

/** `fcntl` and `ioctl` take variable arguments, which Linux passes like named ones on x86-64 and arm64. */
const declarations: Record<keyof Libc, string> = {
  memcpy: 'uintptr_t memcpy(void *to, void *from, size_t bytes)',
  mmap: 'intptr_t mmap(uintptr_t address, size_t bytes, int protection, int flags, int fd, int64_t offset)',
  close: 'int close(int fd)',
  dup2: 'int dup2(int from, int to)',
  socket: 'int socket(int family, int type, int protocol)',
  bind: 'int bind(int fd, void *address, uint32_t bytes)',
  listen: 'int listen(int fd, int backlog)',
  accept4: 'int accept4(int fd, void *address, void *bytes, int flags)',
  connect: 'int connect(int fd, void *address, uint32_t bytes)',
  setsockopt: 'int setsockopt(int fd, int level, int option, void *value, uint32_t bytes)',
  getsockopt: 'int getsockopt(int fd, int level, int option, void *value, void *bytes)',
  sendto: 'intptr_t sendto(int fd, uintptr_t buffer, size_t bytes, int flags, uintptr_t address, uint32_t addressBytes)',
  recvfrom: 'intptr_t recvfrom(int fd, uintptr_t buffer, size_t bytes, int flags, uintptr_t address, uintptr_t addressBytes)',
  sendmsg: 'intptr_t sendmsg(int fd, void *message, int flags)',
  recvmsg: 'intptr_t recvmsg(int fd, void *message, int flags)',
  memfd_create: 'int memfd_create(const char *name, unsigned int flags)',
  ftruncate: 'int ftruncate(int fd, int64_t bytes)',
  fcntl: 'int fcntl(int fd, int command, long value)',
  eventfd: 'int eventfd(unsigned int value, int flags)',
  epoll_create1: 'int epoll_create1(int flags)',
  epoll_ctl: 'int epoll_ctl(int set, int operation, int fd, void *event)',
  read: 'intptr_t read(int fd, void *buffer, size_t bytes)',
  write: 'intptr_t write(int fd, void *buffer, size_t bytes)',
  poll: 'int poll(void *descriptors, unsigned long count, int timeoutMs)',
  ppoll: 'int ppoll(void *descriptors, unsigned long count, void *timeout, void *signals)',
  ioctl: 'int ioctl(int fd, unsigned long request, void *argument)',
  setns: 'int setns(int fd, int kind)',
  sched_yield: 'int sched_yield(void)',
}

let libc: Libc | undefined

/** The C library, loaded at the first call. `NF_PORT_UNSUPPORTED` where there is none that we know. */
function load(): Libc {
  if (libc !== undefined) return libc
  if (process.platform !== 'linux') {
    throw new CodedError('NF_PORT_UNSUPPORTED', `ports to real links need Linux, this is ${process.platform}`)
  }
  try {
    const library = koffi.load('libc.so.6')
    const functions: Record<string, unknown> = {}
    for (const [name, declaration] of Object.entries(declarations)) functions[name] = library.func(declaration)
    return libc = functions as unknown as Libc
  } catch (cause) {
    throw new CodedError('NF_PORT_UNSUPPORTED', 'the C library (glibc, libc.so.6) cannot be called here',
      'Ports to real links need Linux with glibc.', { cause })
  }
}

/** The result of a call, or the negative errno. */
function check(result: number | bigint): number {
  return Number(result) < 0 ? -koffi.errno() : Number(result)
}

/** Where a typed array's first byte is. The array's buffer must stay referenced as long as the address is used. */
export function addressOf(bytes: ArrayBufferView): number {
  return Number(load().memcpy(bytes, bytes, 0))
}

let closes = 0

/** Lets a descriptor be another one's file from now on. */
export function replaceDescriptor(fd: number, by: number): number {
  closes++
  return check(load().dup2(by, fd))
}

export function close(fd: number): void {
  if (fd < 0) return
  closes++
  load().close(fd)
}

/** How many descriptors were closed here, or replaced: as long as it is the same, a number means the same descriptor. */
export function closeCount(): number {
  return closes
}

// -- Memory ------------------------------------------------------------------------------------------------------------

/** A file in memory of this size. Its owner can make it shorter. Returns its descriptor. */
export function createUnsealedMemory(name: string, bytes: number): number {
  const c = load()
  const fd = check(c.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING))
  if (fd < 0) return fd
  const result = check(c.ftruncate(fd, bytes))
  if (result === 0) return fd
  c.close(fd)
  return result
}

/** The same, but it can never shrink or grow. */
export function createSealedMemory(name: string, bytes: number): number {
  const fd = createUnsealedMemory(name, bytes)
  if (fd < 0) return fd
  const result = check(load().fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
  if (result === 0) return fd
  load().close(fd)
  return result
}

/** The seals of a file (F_SEAL_...), or a negative errno: EINVAL for a file that cannot have any. */
export function sealsOf(fd: number): number {
  return check(load().fcntl(fd, F_GET_SEALS, 0))
}

/** Maps a file, shared, over memory that is ours already. `address`, `bytes` and `offset` are whole pages of the file's kind. */
export function mapOver(address: number, bytes: number, fd: number, offset = 0): number {
  return Math.min(0, check(load().mmap(address, bytes, PROT_READ_WRITE, MAP_SHARED | MAP_FIXED, fd, offset)))
}

/** Puts fresh, zeroed memory in the place of what was mapped over ours. */
export function unmapOver(address: number, bytes: number): number {
  const flags = MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE
  return Math.min(0, check(load().mmap(address, bytes, PROT_READ_WRITE, flags, -1, 0)))
}

// -- Sockets -----------------------------------------------------------------------------------------------------------

export function socket(family: number, type: number, protocol: number): number {
  return check(load().socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol))
}

export function bind(fd: number, address: DataView): number {
  return check(load().bind(fd, address, address.byteLength))
}

export function connect(fd: number, address: DataView): number {
  return check(load().connect(fd, address, address.byteLength))
}

export function listen(fd: number, backlog: number): number {
  return check(load().listen(fd, backlog))
}

export function accept(fd: number): number {
  return check(load().accept4(fd, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK))
}

/** The address of a UNIX socket; null when the path is too long for one (107 bytes). A path that begins with `@` is abstract. */
export function unixAddress(path: string): DataView | null {
  const text = Buffer.from(path)
  if (text.length === 0 || text.length > 107) return null
  const isAbstract = text[0] === 0x40
  const address = scratch(2 + text.length + (isAbstract ? 0 : 1))
  address.setUint16(0, AF_UNIX, true)
  text.forEach((byte, index) => { address.setUint8(2 + index, byte) })
  if (isAbstract) address.setUint8(2, 0)
  return address
}

export function setOption(fd: number, level: number, option: number, value: DataView): number {
  return check(load().setsockopt(fd, level, option, value, value.byteLength))
}

export function setNumber(fd: number, level: number, option: number, value: number): number {
  const word = scratch(4)
  word.setInt32(0, value, true)
  return setOption(fd, level, option, word)
}

/** Reads an option into `value`. Returns how many bytes there are. */
export function getOption(fd: number, level: number, option: number, value: DataView): number {
  const bytes = scratch(4)
  bytes.setUint32(0, value.byteLength, true)
  const result = check(load().getsockopt(fd, level, option, value, bytes))
  return result < 0 ? result : bytes.getUint32(0, true)
}

/** The error that waits at a socket, taken: an errno (positive), 0 for none. */
export function takeSocketError(fd: number): number {
  const value = scratch(4)
  const result = getOption(fd, SOL_SOCKET, SO_ERROR, value)
  return result < 0 ? -result : value.getInt32(0, true)
}

/** Writes bytes: a datagram, where the socket has those. Returns how many, or a negative errno. */
export function write(fd: number, bytes: ArrayBufferView): number {
  return check(load().write(fd, bytes, bytes.byteLength))
}

/** Sends a datagram from one place in our memory to the socket address at another. Returns its length, or a negative errno. Hot. */
export function sendDatagram(fd: number, from: number, bytes: number, address: number, addressBytes: number): number {
  return check(load().sendto(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, address, addressBytes))
}

/** Receives a datagram to a place in our memory. Returns its whole length, which may be more than `bytes`, or a negative errno. Hot. */
export function receiveDatagram(fd: number, to: number, bytes: number): number {
  return check(load().recvfrom(fd, to, bytes, MSG_DONTWAIT | MSG_TRUNC, 0, 0))
}

/** Tells a socket with rings to send what its ring holds. */
export function kick(fd: number): number {
  return check(load().sendto(fd, 0, 0, MSG_DONTWAIT, 0, 0))
}

/**
 * Messages of fixed size over a UNIX socket, each with at most one descriptor beside it. One object per thread is enough: the
 * message that came last lies in `bytes`.
 */
export class MessageBuffer {
  readonly bytes: DataView<ArrayBuffer>
  readonly #header = scratch(56)
  readonly #vector = scratch(16)
  readonly #control = scratch(CMSG_HEADER_BYTES + 4 * RIGHTS_MAX)

  constructor(bytes: number) {
    this.bytes = scratch(bytes)
    const setAddress = (view: DataView, at: number, of: DataView): void => { view.setBigUint64(at, BigInt(addressOf(of)), true) }
    setAddress(this.#vector, 0, this.bytes)
    this.#vector.setBigUint64(8, BigInt(bytes), true)
    setAddress(this.#header, 16, this.#vector)
    this.#header.setBigUint64(24, 1n, true)
    setAddress(this.#header, 32, this.#control)
  }

  /** Sends `bytes` whole; `fd` goes along unless it is -1. Returns a negative errno, or how many bytes went. */
  send(socketFd: number, fd: number): number {
    this.#header.setBigUint64(40, fd < 0 ? 0n : 24n, true)
    this.#control.setBigUint64(0, 20n, true)
    this.#control.setInt32(8, SOL_SOCKET, true)
    this.#control.setInt32(12, SCM_RIGHTS, true)
    this.#control.setInt32(16, fd, true)
    return check(load().sendmsg(socketFd, this.#header, MSG_DONTWAIT | MSG_NOSIGNAL))
  }

  /** The descriptor that came with the last message, which is the caller's to close; -1 for none. */
  fd = -1

  /** Receives a message into `bytes`. Returns its length, 0 when the peer is gone, -EAGAIN when there is none, or another errno. */
  receive(socketFd: number): number {
    this.fd = -1
    let length = 0
    for (let attempt = 0; attempt < 3; attempt++) {
      this.#header.setBigUint64(40, BigInt(this.#control.byteLength), true)
      length = check(load().recvmsg(socketFd, this.#header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
      if (length >= 0) break
      // Another errno than this one would end the connection: once more, if there is something to read at all.
      if (length === -Errno.EAGAIN || pollNow(socketFd) === 0) return -Errno.EAGAIN
    }
    if (length < 0) return length
    if (Number(this.#header.getBigUint64(40, true)) >= CMSG_HEADER_BYTES + 4 &&
        this.#control.getInt32(8, true) === SOL_SOCKET && this.#control.getInt32(12, true) === SCM_RIGHTS) {
      const end = Math.min(Number(this.#control.getBigUint64(0, true)), this.#control.byteLength)
      for (let at = CMSG_HEADER_BYTES; at + 4 <= end; at += 4) {
        if (this.fd === -1) this.fd = this.#control.getInt32(at, true)
        else close(this.#control.getInt32(at, true))
      }
    }
    return length
  }
}

// -- Interfaces --------------------------------------------------------------------------------------------------------

const IFNAMSIZ = 16
const SIOCGIFFLAGS = 0x8913
const SIOCGIFMTU = 0x8921
const SIOCGIFHWADDR = 0x8927
const SIOCGIFINDEX = 0x8933

/** Asks for a property of an interface. Returns the reply (16 bytes of name, then the value), or a negative errno. */
function askInterface(fd: number, name: string, request: number): DataView | number {
  const text = Buffer.from(name)
  if (text.length === 0 || text.length >= IFNAMSIZ) return -Errno.ENODEV
  const reply = scratch(40)
  text.forEach((byte, index) => { reply.setUint8(index, byte) })
  const result = check(load().ioctl(fd, request, reply))
  return result < 0 ? result : reply
}

/** Number of the interface with this name, in the namespace of the socket `fd`; negative errno. */
export function interfaceIndex(fd: number, name: string): number {
  const reply = askInterface(fd, name, SIOCGIFINDEX)
  return typeof reply === 'number' ? reply : reply.getInt32(IFNAMSIZ, true)
}

/** Its maximum transmission unit: the bytes of a frame behind the Ethernet header. */
export function interfaceMtu(fd: number, name: string): number {
  const reply = askInterface(fd, name, SIOCGIFMTU)
  return typeof reply === 'number' ? reply : reply.getInt32(IFNAMSIZ, true)
}

/** Its flags: IFF_UP 1, IFF_RUNNING 0x40. */
export function interfaceFlags(fd: number, name: string): number {
  const reply = askInterface(fd, name, SIOCGIFFLAGS)
  return typeof reply === 'number' ? reply : reply.getUint16(IFNAMSIZ, true)
}

/** Kind of its hardware address (ARPHRD_ETHER is 1), and the address. */
export function interfaceAddress(fd: number, name: string): { kind: number, address: Uint8Array } | number {
  const reply = askInterface(fd, name, SIOCGIFHWADDR)
  if (typeof reply === 'number') return reply
  return { kind: reply.getUint16(IFNAMSIZ, true), address: new Uint8Array(reply.buffer, IFNAMSIZ + 2, 6).slice() }
}

const CLONE_NEWNET = 0x40000000

/**
 * Does something in another network namespace: its name as `ip netns` knows it, or the path of a namespace file. Sockets stay in the
 * namespace that they were made in. Throws a CodedError if there is no such namespace or it may not be entered.
 */
export function inNamespace<T>(namespace: string, action: () => T): T {
  const path = namespace.includes('/') ? namespace : `/run/netns/${namespace}`
  let there: number
  try {
    there = openSync(path, 'r')
  } catch (cause) {
    throw new CodedError('NF_PORT_INTERFACE', `the network namespace ${namespace} cannot be opened (${path})`,
      '`ip netns list` lists those that have a name.', { cause })
  }
  const home = openSync('/proc/thread-self/ns/net', 'r')
  try {
    const result = check(load().setns(there, CLONE_NEWNET))
    if (result < 0) throw portError(result, `cannot enter the network namespace ${namespace}`, 'That takes CAP_SYS_ADMIN.')
    try {
      return action()
    } finally {
      // Anything else would leave this thread in the wrong place.
      assert(check(load().setns(home, CLONE_NEWNET)) === 0, 'a thread can go back to its own network namespace')
    }
  } finally {
    closeSync(there)
    closeSync(home)
  }
}

// -- Waiting -----------------------------------------------------------------------------------------------------------

/** An event counter that does not block. */
export function createEvent(): number {
  return check(load().eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
}

/** True if a descriptor that somebody has sent is an event counter. It does not block afterwards. */
export function acceptEvent(fd: number): boolean {
  try {
    if (readlinkSync(`/proc/self/fd/${fd}`) !== 'anon_inode:[eventfd]') return false
  } catch {
    return false
  }
  return check(load().fcntl(fd, F_SETFL, EFD_NONBLOCK)) === 0
}

const eventWord = scratch(8)

/** Adds one to an event counter. */
export function signalEvent(fd: number): number {
  eventWord.setBigUint64(0, 1n, true)
  return check(load().write(fd, eventWord, 8))
}

/** Takes what an event counter holds. Negative errno (EAGAIN) when that is nothing. */
export function clearEvent(fd: number): number {
  return check(load().read(fd, eventWord, 8))
}

/** A descriptor that has something to read while one of those added to it has (epoll(7)). */
export function createDescriptorSet(): number {
  return check(load().epoll_create1(EPOLL_CLOEXEC))
}

/** An `epoll_event`: its data, which we do not use, is behind a gap on some machines. */
const epollEvent = scratch(16)

/** Adds a descriptor to a set; one that is there already stays. One that is closed has to go with the whole set: a peer may hold it too. */
export function addToSet(set: number, fd: number): number {
  epollEvent.setUint32(0, EPOLLIN, true)
  const result = check(load().epoll_ctl(set, EPOLL_CTL_ADD, fd, epollEvent))
  return result === -Errno.EEXIST ? 0 : result
}

const timespec = scratch(16)

/**
 * Waits, and holds the thread, until one of the descriptors has something to read or is broken, or the time is over; a negative
 * one is left out. Returns how many have. Only for threads that do nothing else: the event loop stands still.
 */
export function waitForInput(fds: readonly number[], timeoutUs: number): number {
  const list = scratch(8 * fds.length)
  timespec.setBigInt64(0, BigInt(Math.floor(timeoutUs / 1e6)), true)
  timespec.setBigInt64(8, BigInt(Math.floor(timeoutUs % 1e6) * 1000), true)
  fds.forEach((fd, index) => {
    list.setInt32(index * 8, fd, true)
    list.setInt16(index * 8 + 4, POLLIN, true)
  })
  const result = check(load().ppoll(list, fds.length, timespec, null))
  return result === -Errno.EINTR ? 0 : result
}

/** What `poll` says of one descriptor now: POLL... bits. */
export function pollNow(fd: number): number {
  const list = scratch(8)
  list.setInt32(0, fd, true)
  list.setInt16(4, POLLIN, true)
  return check(load().poll(list, 1, 0)) <= 0 ? 0 : list.getInt16(6, true)
}

/** Lets another process have the core. */
export function yieldCore(): void {
  load().sched_yield()
}

/**
 * Calls back on the event loop whenever the descriptor has something to read. The handle must stay referenced, or the calls end.
 *
 * @returns a handle; `stop()` ends it, `unref()` lets the process end in spite of it
 */
export function watchInput(fd: number, callback: () => void): InputWatch {
  return koffi.node.poll(fd, { readable: true }, () => { callback() })
}

export type InputWatch = ReturnType<typeof koffi.node.poll>

// -- Errors ------------------------------------------------------------------------------------------------------------

const names = getSystemErrorMap()

/** `ENODEV: no such device`, for a positive or a negative errno. */
export function errnoText(errno: number): string {
  const [name, text] = names.get(-Math.abs(errno)) ?? [`errno ${Math.abs(errno)}`, 'unknown error']
  return `${name}: ${text}`
}

/** What a system call's errno means to whoever opens a port: a line with a code of the table, and how to mend it. */
export function portError(errno: number, what: string, mend = ''): CodedError {
  const number = Math.abs(errno)
  let code: ErrorCode = 'NF_PORT_FAILED'
  let how = mend
  if (number === Errno.EPERM || number === Errno.EACCES) {
    code = 'NF_PORT_PRIVILEGE'
    how ||= 'Run it as root or with the capability it needs (CAP_NET_RAW for packet sockets), or in a namespace of your own.'
  } else if (number === Errno.ENODEV || number === Errno.ENXIO) {
    code = 'NF_PORT_INTERFACE'
    how ||= '`ip link` lists the interfaces there are.'
  } else if (number === Errno.EAFNOSUPPORT || number === Errno.EPROTONOSUPPORT || number === Errno.ENOSYS ||
      number === Errno.ENOPROTOOPT || number === Errno.EOPNOTSUPP) {
    code = 'NF_PORT_UNSUPPORTED'
    how ||= 'This kernel lacks a feature that the port needs.'
  } else if (number === Errno.EADDRINUSE) {
    code = 'NF_PORT_BUSY'
  }
  return new CodedError(code, `${what}: ${errnoText(number)}`, how)
}
