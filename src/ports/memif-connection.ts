/**
 * memif connection: the control channel of one end, from the first message to the last, and the memory that it brings.
 *
 *     server: HELLO ▶, then answers each message with ACK until CONNECT, which CONNECTED answers
 *     client: waits for HELLO, then INIT, ADD_REGION, ADD_RING twice and CONNECT, each after the ACK of the one before;
 *             all at once to one of ours, which reads on: two looks of each side rather than seven, and a look may be milliseconds away
 *
 * It reads what has come and never waits. A peer that breaks the protocol, or means something that is not possible here, is told why
 * and disconnected; nothing of what it says is used before it has been checked.
 */

import type { Arena } from '../memory/arena.ts'
import * as protocol from './memif-protocol.ts'
import { MESSAGE_BYTES, MessageType, ringBytes } from './memif-protocol.ts'
import type { RingPlace } from './memif-sender.ts'
import type { SharedRegions } from './shared-regions.ts'
import * as sys from './sys.ts'

export interface MemifConnectionOptions {
  readonly arena: Arena
  readonly regions: SharedRegions
  readonly role: 'server' | 'client'
  readonly name: string
  readonly id: number
  readonly secret: string
  /** Client: descriptors per ring, and bytes per buffer. */
  readonly ringSize: number
  readonly bufferBytes: number
  readonly acceptsUnsealed: boolean
}

/** What we are called. Two that are called so understand each other's descriptor metadata. */
const OWN_NAME = 'NFactor'

/** Bytes of a client's region: both rings, then the buffers of both. */
export function clientRegionBytes(ringSize: number, bufferBytes: number): number {
  return buffersOffset(ringSize) + 2 * ringSize * bufferBytes
}

function buffersOffset(ringSize: number): number {
  return Math.ceil(2 * ringBytes(ringSize) / 64) * 64
}

export class MemifConnection {
  /** Where the rings are, once both sides agree. */
  sending: RingPlace | null = null
  receiving: RingPlace | null = null
  /** What the other end calls itself. */
  peerName = ''
  /** Event counters: of the ring that we receive from, and of the one that we send on; -1 while there is none. */
  receiveEvent = -1
  sendEvent = -1
  readonly #options: MemifConnectionOptions
  readonly #message = new sys.MessageBuffer(MESSAGE_BYTES)
  #peer = -1
  #memory = -1
  #s2m: protocol.AddRing | null = null
  #m2s: protocol.AddRing | null = null
  #hasInit = false
  /** Client: messages that wait for an acknowledgement of the one before. Each gives the descriptor that goes along. */
  #outbox: ((view: DataView) => number)[] = []

  constructor(options: MemifConnectionOptions) {
    this.#options = options
  }

  /** The socket to the peer, -1 when there is none. */
  get socket(): number {
    return this.#peer
  }

  get isAgreed(): boolean {
    return this.sending !== null
  }

  get isPeerOurs(): boolean {
    return this.peerName === OWN_NAME
  }

  /** Begins with a connected socket, which is the connection's from now on. Returns why not, or an empty text. */
  begin(peer: number): string {
    this.#peer = peer
    if (this.#options.role === 'client') return ''
    protocol.putHello(this.#message.bytes, OWN_NAME)
    return this.#send(-1)
  }

  #send(fd: number): string {
    return this.#message.send(this.#peer, fd) < 0 ? 'the peer does not listen' : ''
  }

  /** Tells somebody else at the door that there is no room. */
  refuse(peer: number, reason: string): void {
    protocol.putDisconnect(this.#message.bytes, 0, reason)
    this.#message.send(peer, -1)
    sys.close(peer)
  }

  /** Reads what the peer has said. Returns why the connection has to end, or an empty text. */
  poll(): string {
    let reason = ''
    // More in one go than a peer that keeps to the protocol can have sent.
    for (let i = 0; i < protocol.REGIONS_MAX + 8 && reason === '' && this.#peer >= 0; i++) {
      const length = this.#message.receive(this.#peer)
      if (length === -sys.Errno.EAGAIN) break
      if (length <= 0) reason = length === 0 ? 'the peer is gone' : `the peer is gone (${sys.errnoText(length)})`
      else if (length !== MESSAGE_BYTES) reason = 'a message of the wrong size'
      else reason = this.#onMessage(this.#message.bytes, this.#message.bytes.getUint16(0, true))
      // What came along and nobody took.
      sys.close(this.#takeFd())
    }
    return reason
  }

  /** The descriptor that came with the last message, -1 for none; whoever takes it closes it. */
  #takeFd(): number {
    const { fd } = this.#message
    this.#message.fd = -1
    return fd
  }

  /** Says why, and leaves the peer; the memory stays. */
  leave(reason: string): void {
    if (this.#peer < 0) return
    this.refuse(this.#peer, reason)
    this.#peer = -1
  }

  /** Gives memory and descriptors back. */
  forget(): void {
    this.#options.regions.clear()
    for (const fd of [this.#memory, this.receiveEvent, this.sendEvent, this.#peer]) sys.close(fd)
    this.#memory = this.receiveEvent = this.sendEvent = this.#peer = -1
    this.#s2m = this.#m2s = null
    this.sending = this.receiving = null
    this.peerName = ''
    this.#hasInit = false
    this.#outbox = []
  }

  #onMessage(view: DataView, type: number): string {
    if (type === MessageType.disconnect) return `the peer says: ${protocol.readDisconnect(view)}`
    if (this.isAgreed) return 'a message that does not belong here'
    return this.#options.role === 'server' ? this.#onClientMessage(view, type) : this.#onServerMessage(view, type)
  }

  // -- Server's side -------------------------------------------------------------------------------------------------------

  #onClientMessage(view: DataView, type: number): string {
    let reason = ''
    if (type === MessageType.init) reason = this.#onInit(protocol.readInit(view))
    else if (!this.#hasInit) return 'not yet introduced'
    else if (type === MessageType.addRegion) reason = this.#onAddRegion(protocol.readAddRegion(view))
    else if (type === MessageType.addRing) reason = this.#onAddRing(protocol.readAddRing(view))
    else if (type === MessageType.connect) return this.#onConnect()
    else return 'a message that does not belong here'
    if (reason !== '') return reason
    protocol.putSimple(view, MessageType.ack)
    return this.#send(-1)
  }

  #onInit({ version, id, mode, secret, name }: protocol.Init): string {
    if (version !== protocol.MEMIF_VERSION) return `version ${version >> 8}.${version & 255} is not spoken here`
    if (id !== this.#options.id) return `no interface ${id} here`
    if (mode !== protocol.MODE_ETHERNET) return 'only Ethernet mode is possible'
    if (secret !== this.#options.secret) return 'wrong secret'
    this.peerName = name
    this.#hasInit = true
    return ''
  }

  #onAddRegion({ index, bytes }: { readonly index: number, readonly bytes: number }): string {
    if (this.#message.fd < 0) return 'a region without memory'
    if (index !== this.#options.regions.count) return 'regions come in order'
    return this.#options.regions.map(this.#message.fd, bytes, this.#options.acceptsUnsealed)
  }

  #onAddRing(ring: protocol.AddRing): string {
    if (ring.index !== 0) return 'one ring each way is possible'
    if (ring.log2Size > protocol.LOG2_RING_SIZE_MAX || ring.log2Size < 1) return 'a ring of that size is not possible'
    if (ring.region >= this.#options.regions.count || ring.offset % 4 !== 0 ||
        ring.offset + ringBytes(1 << ring.log2Size) > this.#options.regions.lengths[ring.region]) {
      return 'a ring outside of its region'
    }
    if ((ring.isS2m ? this.#s2m : this.#m2s) !== null) return 'a ring that is there already'
    if (this.#message.fd < 0 || !sys.acceptEvent(this.#message.fd)) return 'a ring without event counter'
    if (ring.isS2m) {
      this.#s2m = ring
      this.receiveEvent = this.#takeFd()
    } else {
      this.#m2s = ring
      this.sendEvent = this.#takeFd()
    }
    return ''
  }

  #onConnect(): string {
    const s2m = this.#s2m
    const m2s = this.#m2s
    if (s2m === null || m2s === null) return 'a ring is missing'
    const { arena, regions } = this.#options
    const placeOf = (ring: protocol.AddRing): RingPlace => ({
      ring: regions.offsets[ring.region] + ring.offset, size: 1 << ring.log2Size, isS2m: ring.isS2m, buffers: 0, bufferBytes: 0,
    })
    if ([s2m, m2s].some((ring) => arena.u32[placeOf(ring).ring >> 2] !== protocol.MEMIF_COOKIE)) return 'a ring without its mark'
    this.sending = placeOf(m2s)
    this.receiving = placeOf(s2m)
    protocol.putConnect(this.#message.bytes, MessageType.connected, this.#options.name)
    return this.#send(-1)
  }

  // -- Client's side -------------------------------------------------------------------------------------------------------

  #onServerMessage(view: DataView, type: number): string {
    if (type === MessageType.hello) {
      const { name, minimum, maximum, log2RingSizeMax } = protocol.readHello(view)
      if (minimum > protocol.MEMIF_VERSION || maximum < protocol.MEMIF_VERSION) return 'no version in common'
      if (1 << log2RingSizeMax < this.#options.ringSize) return `the peer takes rings of at most ${1 << log2RingSizeMax}`
      if (this.#memory >= 0) return 'a message that does not belong here'
      this.peerName = name
      const reason = this.#createMemory()
      return reason === '' ? this.#sendFirst() : reason
    }
    if (this.#memory < 0) return 'a message that does not belong here'
    if (type === MessageType.ack) return this.#sendNext()
    if (type !== MessageType.connected || this.#outbox.length > 0) return 'a message that does not belong here'
    const { s2m, m2s } = this.#ownPlaces()
    this.sending = s2m
    this.receiving = m2s
    return ''
  }

  #sendFirst(): string {
    const reason = this.#sendNext()
    // A server that has left meanwhile has said why: that is read next.
    while (this.isPeerOurs && this.#outbox.length > 0 && this.#sendNext() === '');
    return reason
  }

  #sendNext(): string {
    const message = this.#outbox.shift()
    if (message === undefined) return ''
    const fd = message(this.#message.bytes)
    return this.#send(fd)
  }

  #ownPlaces(): { s2m: RingPlace, m2s: RingPlace } {
    const { regions, ringSize: size, bufferBytes } = this.#options
    const base = regions.offsets[0]
    const buffers = base + buffersOffset(size)
    return {
      s2m: { ring: base, size, isS2m: true, buffers, bufferBytes },
      m2s: { ring: base + ringBytes(size), size, isS2m: false, buffers: buffers + size * bufferBytes, bufferBytes },
    }
  }

  /** Makes the memory and the messages that tell of it. Returns why not, or an empty text. */
  #createMemory(): string {
    const { arena, regions, name, id, secret, ringSize } = this.#options
    const bytes = clientRegionBytes(ringSize, this.#options.bufferBytes)
    this.#memory = sys.createSealedMemory(`nfactor ${name}`, bytes)
    this.sendEvent = sys.createEvent()
    this.receiveEvent = sys.createEvent()
    const failed = Math.min(this.#memory, this.sendEvent, this.receiveEvent)
    if (failed < 0) return `no memory for the link (${sys.errnoText(failed)})`
    const reason = regions.map(this.#memory, bytes, false)
    if (reason !== '') return reason
    const { s2m, m2s } = this.#ownPlaces()
    for (const { ring } of [s2m, m2s]) {
      arena.u32[ring >> 2] = protocol.MEMIF_COOKIE
      arena.u16[(ring + protocol.RING_FLAGS) >> 1] = protocol.RING_FLAG_MASK_INTERRUPT
    }
    const log2Size = Math.log2(ringSize)
    const offset = ringBytes(ringSize)
    this.#outbox = [
      (view) => { protocol.putInit(view, id, secret, OWN_NAME); return -1 },
      (view) => { protocol.putAddRegion(view, 0, bytes); return this.#memory },
      (view) => { protocol.putAddRing(view, { isS2m: true, index: 0, region: 0, offset: 0, log2Size }); return this.sendEvent },
      (view) => { protocol.putAddRing(view, { isS2m: false, index: 0, region: 0, offset, log2Size }); return this.receiveEvent },
      (view) => { protocol.putConnect(view, MessageType.connect, name); return -1 },
    ]
    return ''
  }
}
