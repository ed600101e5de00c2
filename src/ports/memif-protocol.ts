/**
 * memif version 2: the messages of its control channel and the layout of its rings, as DPDK, VPP and libmemif have them.
 *
 *     client                      server           a ring, in a shared region
 *       │ ◀────────── HELLO ──────── │              0 cookie 4 flags 6 head      64 tail
 *       │ ─ INIT ──────────────────▶ │            128 descriptors, 16 bytes each:
 *       │ ─ ADD_REGION + memfd ────▶ │ each is        0 flags 2 region 4 length 8 offset 12 metadata
 *       │ ─ ADD_RING + eventfd ────▶ │ answered
 *       │ ─ ADD_RING + eventfd ────▶ │ by ACK      S2M ring: client sends: head = sent, tail = consumed
 *       │ ─ CONNECT ───────────────▶ │             M2S ring: server sends: tail = sent, head = consumed + size of the ring
 *       │ ◀──────── CONNECTED ────── │
 *       ╎ ◀─ DISCONNECT, or EOF ───▶ ╎
 *
 * The memory is the client's. Only one side writes each of head and tail; both count modulo 2^16. Little-endian, packed. Source:
 * memif.h and the memif documentation of VPP and DPDK.
 */

export const MEMIF_VERSION = 0x200
export const MEMIF_COOKIE = 0x3e31f20
export const MESSAGE_BYTES = 128

export const MessageType = {
  none: 0, ack: 1, hello: 2, init: 3, addRegion: 4, addRing: 5, connect: 6, connected: 7, disconnect: 8,
} as const

/** ADD_RING flag: the client sends on this ring. */
export const ADD_RING_S2M = 1
/** Interface mode: whole Ethernet frames. */
export const MODE_ETHERNET = 0

export const RING_FLAGS = 4
export const RING_HEAD = 6
export const RING_TAIL = 64
export const RING_DESCRIPTORS = 128
/** Ring flag, set by who receives: do not wake me. */
export const RING_FLAG_MASK_INTERRUPT = 1

export const DESCRIPTOR_BYTES = 16
/** Descriptor flag: the frame goes on in the next buffer. */
export const DESCRIPTOR_FLAG_NEXT = 1

export const LOG2_RING_SIZE_MAX = 14
export const REGIONS_MAX = 256

export function ringBytes(size: number): number {
  return RING_DESCRIPTORS + size * DESCRIPTOR_BYTES
}

// -- Messages: written into and read from a view of 128 bytes ------------------------------------------------------------

function putText(view: DataView, at: number, bytes: number, text: string): void {
  const encoded = new TextEncoder().encode(text).subarray(0, bytes - 1)
  for (let i = 0; i < bytes; i++) view.setUint8(at + i, encoded[i] ?? 0)
}

function textAt(view: DataView, at: number, bytes: number): string {
  const all = new Uint8Array(view.buffer, view.byteOffset + at, bytes)
  const end = all.indexOf(0)
  // What a peer calls itself is shown to people: no control characters.
  return new TextDecoder().decode(all.slice(0, end < 0 ? bytes : end)).replace(/[^\x20-\x7e]/g, '?')
}

function begin(view: DataView, type: number): void {
  for (let at = 0; at < MESSAGE_BYTES; at += 4) view.setUint32(at, 0, true)
  view.setUint16(0, type, true)
}

export function putSimple(view: DataView, type: number): void {
  begin(view, type)
}

export function putHello(view: DataView, name: string): void {
  begin(view, MessageType.hello)
  putText(view, 2, 32, name)
  view.setUint16(34, MEMIF_VERSION, true)
  view.setUint16(36, MEMIF_VERSION, true)
  view.setUint16(38, REGIONS_MAX - 1, true)
  // One ring each way: the highest index is 0.
  view.setUint16(40, 0, true)
  view.setUint16(42, 0, true)
  view.setUint8(44, LOG2_RING_SIZE_MAX)
}

export interface Hello { readonly name: string, readonly minimum: number, readonly maximum: number, readonly log2RingSizeMax: number }

export function readHello(view: DataView): Hello {
  return { name: textAt(view, 2, 32), minimum: view.getUint16(34, true), maximum: view.getUint16(36, true),
    log2RingSizeMax: view.getUint8(44) }
}

export interface Init {
  readonly version: number
  readonly id: number
  readonly mode: number
  readonly secret: string
  readonly name: string
}

export function putInit(view: DataView, id: number, secret: string, name: string): void {
  begin(view, MessageType.init)
  view.setUint16(2, MEMIF_VERSION, true)
  view.setUint32(4, id, true)
  view.setUint8(8, MODE_ETHERNET)
  putText(view, 9, 24, secret)
  putText(view, 33, 32, name)
}

export function readInit(view: DataView): Init {
  return { version: view.getUint16(2, true), id: view.getUint32(4, true), mode: view.getUint8(8), secret: textAt(view, 9, 24),
    name: textAt(view, 33, 32) }
}

export function putAddRegion(view: DataView, index: number, bytes: number): void {
  begin(view, MessageType.addRegion)
  view.setUint16(2, index, true)
  view.setBigUint64(4, BigInt(bytes), true)
}

export function readAddRegion(view: DataView): { readonly index: number, readonly bytes: number } {
  return { index: view.getUint16(2, true), bytes: Number(view.getBigUint64(4, true)) }
}

export interface AddRing {
  readonly isS2m: boolean
  readonly index: number
  readonly region: number
  readonly offset: number
  readonly log2Size: number
}

export function putAddRing(view: DataView, ring: AddRing): void {
  begin(view, MessageType.addRing)
  view.setUint16(2, ring.isS2m ? ADD_RING_S2M : 0, true)
  view.setUint16(4, ring.index, true)
  view.setUint16(6, ring.region, true)
  view.setUint32(8, ring.offset, true)
  view.setUint8(12, ring.log2Size)
}

export function readAddRing(view: DataView): AddRing {
  return { isS2m: (view.getUint16(2, true) & ADD_RING_S2M) !== 0, index: view.getUint16(4, true), region: view.getUint16(6, true),
    offset: view.getUint32(8, true), log2Size: view.getUint8(12) }
}

/** CONNECT or CONNECTED, with the name of the interface. */
export function putConnect(view: DataView, type: number, name: string): void {
  begin(view, type)
  putText(view, 2, 32, name)
}

export function putDisconnect(view: DataView, code: number, text: string): void {
  begin(view, MessageType.disconnect)
  view.setUint32(2, code, true)
  putText(view, 6, 96, text)
}

export function readDisconnect(view: DataView): string {
  return textAt(view, 6, 96)
}
