/**
 * Header of NFactor's own frames, behind the Ethernet header (EtherType `EtherType.nfactor`). Little-endian, 8-aligned in a
 * pool slot.
 *
 *      0 magic u16 │ 2 version u8 │ 3 stream u8 │ 4 cluster u32 │ 8 source u16 │ 10 destination u16
 *     12 source incarnation u32 │ 16 destination incarnation u32 │ 20 checksum u32 │ 24 ... of the session, see session.ts
 */

/** Byte offsets behind the Ethernet header. */
export const FrameHeader = {
  magic: 0, version: 2, stream: 3, cluster: 4, source: 8, destination: 10, sourceIncarnation: 12, destinationIncarnation: 16,
  checksum: 20, session: 24,
} as const

export const FRAME_MAGIC = 0x464e
export const FRAME_VERSION = 1

/** Which of the two kinds of session a frame belongs to. */
export const Stream = { control: 0, inBand: 1 } as const

/**
 * The Ethernet address of one life of a node at its control port (`link` 0) or at its end of the link to node `link`: locally administered.
 * Of the incarnation it has the lower 16 bits: enough to tell a frame for a former life, or of one, from those of today.
 */
export function nodeMac(node: number, link: number, incarnation: number): readonly [number, number, number, number, number, number] {
  return [0x02, 0x4e, (incarnation >> 8) & 255, incarnation & 255, link, node]
}
