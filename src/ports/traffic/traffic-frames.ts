/**
 * Frames of the generator: the next packet of a flow, from its state to bytes, with every length and checksum right.
 *
 * PERF: a frame is written as words; sums are of words as they lie in memory, so nothing is swapped (little-endian machines only).
 * The frame starts at 2 modulo 4 in its slot (packet/packet-pool.ts), so all fields behind the first two bytes are aligned.
 */

import { assert } from '../../base/assert.ts'
import type { Arena } from '../../memory/arena.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import { SEGMENT_BYTES_OFFSET } from '../link-port.ts'
import { FlowStep, FlowWord } from './traffic-flow.ts'
import { patternStart, tagCheck, tagMagic, TAG_BYTES, TAG_OPTION_WORD, type PatternTable } from './traffic-tag.ts'

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const SEGMENT_BYTES = SEGMENT_BYTES_OFFSET
const TAG = TAG_BYTES
const TAG_OPTION = TAG_OPTION_WORD
const { syn: SYN, synAck: SYN_ACK, reply: REPLY, request: REQUEST, finAck: FIN_ACK, fin: FIN } = FlowStep
const { number: NUMBER, step: STEP, sent: SENT, stream: STREAM, kind: KIND } = FlowWord
const { clientAddress: CLIENT_ADDRESS, serverAddress: SERVER_ADDRESS, clientPort: CLIENT_PORT } = FlowWord

/** By step. */
const TCP_FLAGS: readonly number[] = [0x02, 0x12, 0x10, 0x18, 0x18, 0x11, 0x11, 0, 0x10]
/** IPv6 addresses: 2001:2:0:side::number, the first two words as they lie in memory. */
const IPV6_WORD_0 = 0x02000120
const IPV6_SIDE = [0x01000000, 0x02000000]
/** TCP options of a SYN behind the tag: maximum segment size 1460, window scale 7. */
const OPTION_MSS = 0xb4050402 | 0
const OPTION_SCALE = 0x07030301

export const swap16 = (x: number): number => ((x & 0xff) << 8) | ((x >>> 8) & 0xff)
export const swap32 = (x: number): number => (x << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24)
const halves = (x: number): number => (x & 0xffff) + (x >>> 16)
const fold = (x: number): number => {
  x = (x & 0xffff) + (x >>> 16)
  return ((x & 0xffff) + (x >>> 16)) & 0xffff
}

const IPV6_SUM = 2 * halves(IPV6_WORD_0) + halves(IPV6_SIDE[0] as number) + halves(IPV6_SIDE[1] as number)
const OPTION_SUM = halves(TAG_OPTION)
const SYN_SUM = halves(OPTION_MSS) + halves(OPTION_SCALE)

export interface FrameWriterOptions {
  readonly arena: Arena
  readonly seed: number
  /** States of all flows (`FlowWord`). */
  readonly states: Int32Array
  readonly pattern: PatternTable
  readonly macs: readonly [Uint8Array, Uint8Array]
  readonly serverPort: number
  /** Whether a server's replies have data; or else are acknowledgements. */
  readonly hasReplies: boolean
}

/**
 * Writes the next packet of a flow's side and notes in its state that it has been sent. Hot.
 *
 * @param frame arena offset, 2 modulo 4; 2 bytes before the frame and up to 3 behind it are written too
 * @param length bytes of the frame
 * @param s where the flow's state begins
 * @param ticks the time for the tag
 */
export type FrameWriter = (frame: number, length: number, s: number, side: number, ticks: number) => void

export function createFrameWriter(options: FrameWriterOptions): FrameWriter {
  const { arena, seed, states, pattern, macs, serverPort, hasReplies } = options
  const { u8, u16, i32 } = arena
  const { base, sums } = pattern
  const { copy } = loadKernels(arena)
  const linkWords = [linkOf(macs[1], macs[0]), linkOf(macs[0], macs[1])]
  const serverPortWord = swap16(serverPort)
  const magic = tagMagic(seed)
  assert(new Uint8Array(Uint16Array.of(1).buffer)[0] === 1, 'the generator runs on little-endian machines')

  function write(frame: number, length: number, s: number, side: number, ticks: number): void {
    const kind = states[s + KIND]
    const isTcp = (kind & 1) !== 0
    const links = linkWords[side] as Int32Array
    const sequence = states[s + SENT + side]++
    const from = states[s + CLIENT_ADDRESS + side]
    const to = states[s + SERVER_ADDRESS - side]
    const client = states[s + CLIENT_PORT]
    const ports = side === 0 ? client | serverPortWord << 16 : serverPortWord | client << 16
    let w = (frame + 2) >> 2
    u16[(frame + SEGMENT_BYTES) >> 1] = 0
    u16[frame >> 1] = links[0]
    i32[w] = links[1]
    i32[w + 1] = links[2]
    let sum = halves(from) + halves(to) + halves(ports)
    let bytes: number
    if ((kind & 2) === 0) {
      bytes = length - 34
      const lengthWord = 0x0045 | swap16(bytes + 20) << 16
      const idWord = swap16(sequence & 0xffff) | 0x0040 << 16
      const life = 0x40 | (isTcp ? 6 : 17) << 8
      i32[w + 2] = links[3] | 0x0008 << 16
      i32[w + 3] = lengthWord
      i32[w + 4] = idWord
      i32[w + 5] = life | (~fold(halves(lengthWord) + halves(idWord) + life + halves(from) + halves(to)) & 0xffff) << 16
      i32[w + 6] = from
      i32[w + 7] = to
      w += 8
    } else {
      bytes = length - 54
      i32[w + 2] = links[3] | 0xdd86 << 16
      i32[w + 3] = 0x60
      i32[w + 4] = swap16(bytes) | (isTcp ? 6 : 17) << 16 | 0x40 << 24
      i32[w + 5] = i32[w + 9] = IPV6_WORD_0
      i32[w + 6] = IPV6_SIDE[side]
      i32[w + 10] = IPV6_SIDE[side ^ 1]
      i32[w + 7] = i32[w + 11] = 0
      i32[w + 8] = from
      i32[w + 12] = to
      sum += IPV6_SUM
      w += 13
    }
    const checksumAt = isTcp ? (w + 4) << 1 : ((w + 1) << 1) + 1
    i32[w] = ports
    if (isTcp) {
      const step = states[s + STEP]
      const isData = step === REQUEST || (step === REPLY && hasReplies)
      const headerBytes = isData ? 20 : step <= SYN_ACK ? 48 : 40
      const own = states[s + STREAM + side]
      const ownWord = swap32(own)
      const ackWord = step === SYN ? 0 : swap32(states[s + STREAM + 1 - side])
      const flags = headerBytes << 2 | (step === REPLY && !isData ? 0x10 : TCP_FLAGS[step]) << 8 | 0xffff << 16
      const isFlagged = step <= SYN_ACK || step === FIN || step === FIN_ACK
      states[s + STREAM + side] = own + bytes - headerBytes + (isFlagged ? 1 : 0)
      i32[w + 1] = ownWord
      i32[w + 2] = ackWord
      i32[w + 3] = flags
      i32[w + 4] = 0
      sum += halves(ownWord) + halves(ackWord) + halves(flags) + swap16(bytes) + (6 << 8)
      w += 5
      if (!isData) {
        i32[w++] = TAG_OPTION
        sum += OPTION_SUM
        if (step <= SYN_ACK) {
          i32[w + 4] = OPTION_MSS
          i32[w + 5] = OPTION_SCALE
          sum += SYN_SUM
        }
        writeTag(w, states[s + NUMBER], sequence | side << 31, ticks, sum, checksumAt)
        return
      }
    } else {
      const lengthField = swap16(bytes)
      i32[w + 1] = lengthField
      sum += 2 * lengthField + (17 << 8)
      w += 2
    }
    // The pattern.
    const number = states[s + NUMBER]
    const numbered = sequence | side << 31
    const start = patternStart(number, numbered)
    const at = (w << 2) + TAG
    const rest = frame + length - at
    const source = base + start
    if (rest <= 16) for (let i = 0; i < rest; i += 4) i32[(at + i) >> 2] = i32[(source + i) >> 2]
    else copy(at, source, rest)
    const word = start >> 1
    sum += fold(sums[word + (rest >> 1)] - sums[word])
    if ((rest & 1) !== 0) sum += u8[source + rest - 1]
    writeTag(w, number, numbered, ticks, sum, checksumAt)
  }

  /** Writes the tag and, as the sum of all the rest is known, the checksum. */
  function writeTag(w: number, number: number, numbered: number, ticks: number, sum: number, checksumAt: number): void {
    const first = magic | tagCheck(seed, number, numbered, ticks) << 16
    i32[w] = first
    i32[w + 1] = number
    i32[w + 2] = numbered
    i32[w + 3] = ticks
    const checksum = ~fold(sum + halves(first) + halves(number) + halves(numbered) + halves(ticks)) & 0xffff
    // RFC 768: a UDP checksum of 0 is sent as its equal.
    u16[checksumAt] = checksum === 0 ? 0xffff : checksum
  }

  return write
}

/** The 14 bytes of a link header but its type, as four words that lie at 2 modulo 4: 2, 4, 4 and 2 bytes. */
function linkOf(to: Uint8Array, from: Uint8Array): Int32Array {
  const word = (bytes: readonly number[]): number => bytes.reduce((sum, byte, index) => sum | byte << (8 * index), 0)
  const bytes = [...to, ...from]
  return Int32Array.of(word(bytes.slice(0, 2)), word(bytes.slice(2, 6)), word(bytes.slice(6, 10)), word(bytes.slice(10, 12)))
}
