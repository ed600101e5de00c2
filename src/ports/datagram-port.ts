/**
 * Datagram port: the control network between nodes of one machine. Every node has one UNIX datagram socket in the cluster's folder;
 * a frame goes to the socket of the node that its destination address names.
 *
 *     folder/control-1   folder/control-2   folder/control-11 ...       frame ─ byte 5 of its destination ─▶ control-N
 *
 * It is what a switch of Ethernet is, and no more: a frame for a node that is not there is lost, one for a node whose queue is full is
 * refused, order is kept. Nobody connects to anybody, so nodes may start, die and start again in any order. Who may write into the
 * folder may speak: its permissions are the protection.
 *
 * Linux lets few datagrams wait at a socket (`net.unix.max_dgram_qlen`, 10 as a rule): a sender that finds no room tries again.
 */

import { unlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { ETHERNET_BYTES } from '../wire/ethernet.ts'
import { PortStatistics, type LinkPort } from './link-port.ts'
import * as sys from './sys.ts'

export interface DatagramPortOptions {
  readonly arena: Arena
  readonly name?: string
  /** Where the nodes' sockets are. */
  readonly folder: string
  /** This node, 1 to 255. */
  readonly node: number
}

/** Longest frame: an ordinary one. */
const FRAME_BYTES = 1514
/** Byte of a frame that says which node it is for: the last of the destination address. */
const DESTINATION = 5
/** Frames that `send` would take: it is the receiver's queue that decides. */
const ROOM = 64

export class DatagramPort implements LinkPort {
  readonly name: string
  readonly statistics = new PortStatistics()
  readonly frameBytesMax = FRAME_BYTES
  readonly room = ROOM
  readonly path: string
  readonly #arena: Arena
  readonly #base: number
  readonly #address: DataView
  /** Socket addresses by node, made as they are needed; the views must stay referenced. */
  readonly #peers: { readonly view: DataView, readonly at: number }[] = []
  readonly #folder: string
  #fd = -1

  constructor(options: DatagramPortOptions) {
    this.#arena = options.arena
    this.name = options.name ?? 'control'
    this.#folder = options.folder
    this.path = this.#pathOf(options.node)
    const address = sys.unixAddress(this.path)
    // The longest name that a peer's can have is as long as that of node 255.
    if (address === null || sys.unixAddress(this.#pathOf(255)) === null) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${this.name}: the path ${this.path} is too long for a socket`,
        'Give the cluster a folder with a shorter path')
    }
    this.#address = address
    this.#base = sys.addressOf(options.arena.u8)
  }

  get isUp(): boolean {
    return this.#fd >= 0
  }

  #pathOf(node: number): string {
    return join(this.#folder, `control-${node}`)
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32 } = this.#arena
    const { statistics } = this
    let count = 0
    while (count < max && this.#fd >= 0) {
      const slot = pool.take(FRAME_BYTES)
      if (slot === 0) break
      const frame = slot + SLOT_FRAME_OFFSET
      const length = sys.receiveDatagram(this.#fd, this.#base + frame, FRAME_BYTES)
      if (length < ETHERNET_BYTES || length > FRAME_BYTES) {
        pool.give(slot)
        if (length < 0) break
        if (length > FRAME_BYTES) statistics.rxOversize++
        else statistics.rxInvalid++
        continue
      }
      const d = descriptors + count++ * DESCRIPTOR_WORDS
      describeFrame(i32, d, slot, length)
      statistics.rxFrames++
      statistics.rxBytes += length
    }
    return count
  }

  send(frame: number, length: number): boolean {
    const { statistics } = this
    if (length > FRAME_BYTES || length < ETHERNET_BYTES) {
      statistics.txOversize++
      return false
    }
    const peer = this.#peer(this.#arena.u8[frame + DESTINATION])
    const result = this.#fd < 0 ? -sys.Errno.EAGAIN
      : sys.sendDatagram(this.#fd, this.#base + frame, length, peer.at, peer.view.byteLength)
    if (result >= 0) {
      statistics.txFrames++
      statistics.txBytes += length
      return true
    }
    if (result === -sys.Errno.EAGAIN || result === -sys.Errno.ENOBUFS || result === -sys.Errno.ENOMEM) {
      statistics.txFull++
      return false
    }
    // Nobody there: lost, as on a wire.
    statistics.txFrames++
    statistics.txLost++
    return true
  }

  sendReserved(frame: number, length: number): boolean {
    return this.send(frame, length)
  }

  #peer(node: number): { readonly view: DataView, readonly at: number } {
    let peer = this.#peers[node]
    if (peer === undefined) {
      const view = sys.unixAddress(this.#pathOf(node)) as DataView
      peer = this.#peers[node] = { view, at: sys.addressOf(view) }
    }
    return peer
  }

  /** A socket of a former life is taken over: a node has one life at a time, and whoever starts it sees to that. */
  open(): void {
    if (this.#fd >= 0) return
    const fd = sys.socket(sys.AF_UNIX, sys.SOCK_DGRAM, 0)
    const what = `port ${this.name} cannot be at ${this.path}`
    if (fd < 0) throw sys.portError(fd, what)
    remove(this.path)
    const result = sys.bind(fd, this.#address)
    if (result < 0) {
      sys.close(fd)
      throw sys.portError(result, what, result === -sys.Errno.ENOENT ? 'Create its folder first.' : '')
    }
    this.#fd = fd
    this.statistics.connections++
  }

  close(): void {
    if (this.#fd < 0) return
    sys.close(this.#fd)
    this.#fd = -1
    remove(this.path)
  }

  flush(): void {}
  maintain(_now: TimeUs): void {}

  arm(): boolean {
    return this.#fd < 0 || (sys.pollNow(this.#fd) & sys.POLLIN) === 0
  }

  disarm(): void {}

  waitDescriptors(list: number[]): void {
    if (this.#fd >= 0) list.push(this.#fd)
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // There is none.
  }
}
