/**
 * Control network: a node's control port. On one machine everybody reaches everybody by datagrams, at once and without a connection; two
 * nodes that have much to say to each other get a memif link of their own beside them, which takes long frames and costs no system call
 * for each.
 *
 *     frame ─▶ for a node with a link that is up? ─yes─▶ memif       refused while its ring is full, for it will be emptied
 *                                                 ─no──▶ datagram
 *
 * Both ends count the frames between them, sent and received, and open their end at the same number: nobody has to ask, and nodes that say
 * little to each other cost nothing. The one with the lower id listens. A link whose other end dies goes down, and what is said then goes
 * by datagrams, until the next life has said enough to open its end. An end that cannot be opened is tried again as many frames later.
 * What was on its way is lost, as on a wire; frames that overtake others when a link comes up the sessions put in order.
 *
 * Nodes on other machines are reached by a port of their own (`far`), with frames of ordinary size.
 */

import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import { DatagramPort } from '../ports/datagram-port.ts'
import { PortStatistics, type LinkPort } from '../ports/link-port.ts'
import { MemifPort } from '../ports/memif-port.ts'
import { ETHERNET_SOURCE } from '../wire/ethernet.ts'
import type { ClusterFolder } from './cluster-folder.ts'

export interface ControlNetworkOptions {
  readonly arena: Arena
  readonly folder: ClusterFolder
  /** This node, 1 to 255. */
  readonly node: number
  /** The port to nodes on other machines, and which those are. */
  readonly far?: { readonly port: LinkPort, isFar(node: number): boolean }
}

/** Frames between two nodes after which they get a link. */
export const TALKATIVE_FRAMES = 64
/** Nodes beyond so many have no links to this one. */
export const CONTROL_LINKS_MAX = 64
/** Sixteen of the longest frames: two megabytes for both directions, of which only what has been used is there. */
const RING_SIZE = 512
const BUFFER_BYTES = 2112
const WINDOW_BYTES = 2176 << 10
/** The longest frame, and what datagrams carry. */
const LONG_FRAME_BYTES = 65_024
/** Calls of `receive` in a row that find frames at links before the socket, at which one look is a system call, is looked at again. */
const BUSY_RECEIVES = 8
/** Which node a frame is for, and of: the last bytes of its Ethernet addresses. */
const DESTINATION = 5
const SOURCE = ETHERNET_SOURCE + 5

/** A node that has sent or received frames. */
interface Peer {
  frames: number
  link: MemifPort | null
}

export class ControlNetwork implements LinkPort {
  readonly name = 'control'
  readonly statistics = new PortStatistics()
  readonly frameBytesMax = LONG_FRAME_BYTES
  readonly #options: ControlNetworkOptions
  readonly #datagrams: DatagramPort
  readonly #far: LinkPort | undefined
  /** By node: 1 for those on other machines. PERF: looked up per frame. */
  readonly #isFar = new Uint8Array(256)
  /** By node. PERF: an array, looked up per frame. */
  readonly #peers: (Peer | undefined)[] = new Array<Peer | undefined>(256).fill(undefined)
  readonly #links: MemifPort[] = []
  /** Peers whose end is to be opened: not in the midst of sending or receiving. */
  readonly #talkative: number[] = []
  #first = 0
  #busyReceives = 0

  constructor(options: ControlNetworkOptions) {
    const { arena, folder, node, far } = options
    this.#options = options
    this.#far = far?.port
    for (let id = 1; id < 256; id++) this.#isFar[id] = far?.isFar(id) === true ? 1 : 0
    this.#datagrams = new DatagramPort({ arena, folder: folder.path, node })
  }

  get isUp(): boolean {
    return this.#datagrams.isUp && this.#far?.isUp !== false
  }

  get room(): number {
    return this.#datagrams.room
  }

  /** The link to a node, once there is one. */
  linkTo(node: number): MemifPort | null {
    return this.#peers[node]?.link ?? null
  }

  /** What has gone by datagrams. */
  get datagrams(): PortStatistics {
    return this.#datagrams.statistics
  }

  /** Links that there are, up or not. */
  get links(): readonly MemifPort[] {
    return this.#links
  }

  frameBytesTo(node: number): number {
    return this.#peers[node]?.link?.isUp === true ? LONG_FRAME_BYTES : this.#datagrams.frameBytesMax
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const links = this.#links
    let count = 0
    // Another one first each time, so that none starves the others.
    if (++this.#first >= links.length) this.#first = 0
    for (let i = 0; i < links.length && count < max; i++) {
      const link = links[(this.#first + i) % links.length]
      count += link.receive(pool, descriptors + count * DESCRIPTOR_WORDS, max - count)
    }
    if (this.#far !== undefined && count < max) count += this.#far.receive(pool, descriptors + count * DESCRIPTOR_WORDS, max - count)
    if (count === 0 || ++this.#busyReceives >= BUSY_RECEIVES) {
      this.#busyReceives = 0
      const at = descriptors + count * DESCRIPTOR_WORDS
      const more = this.#datagrams.receive(pool, at, max - count)
      const { i32, u8 } = this.#options.arena
      for (let index = 0; index < more; index++) this.#count(u8[i32[at + index * DESCRIPTOR_WORDS + Descriptor.frame] + SOURCE])
      count += more
    }
    this.statistics.rxFrames += count
    return count
  }

  send(frame: number, length: number): boolean {
    return this.sendReserved(frame, length)
  }

  sendReserved(frame: number, length: number): boolean {
    const node = this.#options.arena.u8[frame + DESTINATION]
    if (this.#isFar[node] === 1) return this.#sent((this.#far as LinkPort).sendReserved(frame, length), length)
    const link = this.#peers[node]?.link
    if (link?.isUp === true) return this.#sent(link.sendReserved(frame, length), length)
    if (!this.#datagrams.send(frame, length)) return this.#sent(false, length)
    this.#count(node)
    return this.#sent(true, length)
  }

  #sent(isTaken: boolean, length: number): boolean {
    const { statistics } = this
    if (isTaken) {
      statistics.txFrames++
      statistics.txBytes += length
    } else {
      statistics.txFull++
    }
    return isTaken
  }

  #count(node: number): void {
    if (node === 0 || node === this.#options.node) return
    const peer = this.#peers[node] ??= { frames: 0, link: null }
    if (++peer.frames === TALKATIVE_FRAMES) this.#talkative.push(node)
  }

  #openLink(node: number, peer: Peer): void {
    if (peer.link === null) {
      if (this.#links.length >= CONTROL_LINKS_MAX) return
      const { arena, folder, node: self } = this.#options
      peer.link = new MemifPort({
        arena, name: `control ${self}-${node}`, role: self < node ? 'server' : 'client', socket: folder.controlLinkSocket(self, node),
        ringSize: RING_SIZE, bufferBytes: BUFFER_BYTES, windowBytes: WINDOW_BYTES, reserved: 0,
      })
      this.#links.push(peer.link)
    }
    try {
      peer.link.open()
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      // A former life of ours has not quite ended. Datagrams do meanwhile.
      peer.link.lastEnd = error.message
      peer.frames = 0
    }
  }

  open(): void {
    this.#datagrams.open()
    this.#far?.open()
  }

  close(): void {
    this.#datagrams.close()
    this.#far?.close()
    for (const link of this.#links) link.close()
  }

  flush(): void {
    this.#far?.flush()
    for (let i = 0; i < this.#links.length; i++) this.#links[i].flush()
  }

  maintain(now: TimeUs): void {
    for (let node = this.#talkative.pop(); node !== undefined; node = this.#talkative.pop()) this.#openLink(node, this.#peers[node] as Peer)
    for (const link of this.#links) link.maintain(now)
    this.#far?.maintain(now)
  }

  arm(): boolean {
    for (let i = 0; i < this.#links.length; i++) if (!this.#links[i].arm()) return false
    return this.#datagrams.arm() && this.#far?.arm() !== false
  }

  disarm(): void {
    for (const link of this.#links) link.disarm()
    this.#far?.disarm()
  }

  waitDescriptors(list: number[]): void {
    this.#datagrams.waitDescriptors(list)
    for (const link of this.#links) link.waitDescriptors(list)
    this.#far?.waitDescriptors(list)
  }
}
