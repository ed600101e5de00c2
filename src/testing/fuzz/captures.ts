/**
 * Fuzzing of the pcap and pcapng readers: damaged captures never throw, never lead out of bounds, and give the same packets
 * however the stream is cut.
 */

import type { Random } from '../../base/random.ts'
import { CaptureParser, type CaptureState } from '../../wire/capture-parser.ts'
import { CaptureRecorder } from '../../wire/capture-recorder.ts'
import { PcapWriter } from '../../wire/pcap.ts'
import { PcapngWriter } from '../../wire/pcapng.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'

/** Values at which lengths and counts tip over. */
const INTERESTING = [0, 1, 3, 4, 0x7f, 0x80, 0xff]

/** Checks every packet's bounds, and remembers a digest of all. */
class Guard {
  delivered = 0
  digest = 0
  interfaceCount = 0

  interfaceAdded(index: number, linkType: number, snapLength: number): void {
    mustEqual(index, this.interfaceCount++, 'index of an interface')
    this.#mix(linkType)
    this.#mix(snapLength)
  }

  packet(bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number): void {
    const isInside = offset >= 0 && capturedLength >= 0 && offset + capturedLength <= bytes.length
    if (!isInside) throw new Error(`a packet at ${offset}, ${capturedLength} bytes, in ${bytes.length} bytes`)
    if (interfaceIndex >= this.interfaceCount) throw new Error(`a packet of interface ${interfaceIndex}, which is not there`)
    if (!Number.isInteger(seconds) || !Number.isInteger(nanoseconds) || nanoseconds < 0 || nanoseconds >= 1e9) {
      throw new Error(`a packet at ${seconds} s and ${nanoseconds} ns`)
    }
    this.delivered += capturedLength
    for (let i = offset; i < offset + capturedLength; i++) this.#mix(bytes[i] as number)
    for (const number of [originalLength, seconds % 0x7fffffff, nanoseconds, interfaceIndex]) this.#mix(number)
  }

  #mix(n: number): void {
    this.digest = Math.imul(this.digest ^ n, 0x01000193)
  }
}

/** Reads a damaged copy of one of the captures, twice, cut differently. Returns how the reading ended. */
export function readDamaged(random: Random, captures: readonly Uint8Array[]): CaptureState {
  const bytes = damage(random, captures)
  let state: CaptureState = 'open'
  const results = [[Infinity], [random.between(1, 50), random.between(1, 500)]].map((lengths) => {
    const guard = new Guard()
    const parser = new CaptureParser(guard)
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const length = Math.min(lengths[i % lengths.length] as number, bytes.length - at)
      parser.push(bytes.subarray(at, at + length))
      at += length
    }
    parser.end()
    state = parser.state
    if (state === 'open') throw new Error('the stream is still open at its end')
    if (parser.faultPosition > bytes.length) throw new Error('a fault behind the end')
    if (guard.delivered > bytes.length) throw new Error('more bytes were delivered than there are')
    return [state, parser.reason, parser.faultPosition, guard.delivered, guard.digest, guard.interfaceCount]
  })
  mustEqual(results[1], results[0], 'cut into pieces')
  return state
}

function damage(random: Random, captures: readonly Uint8Array[]): Uint8Array {
  let bytes: Uint8Array = random.pick(captures).slice()
  for (let changes = random.between(1, 6); changes > 0 && bytes.length > 0; changes--) {
    // Headers are where it matters: half of all changes go to the first bytes.
    const at = random.below(random.chance(0.5) ? Math.min(128, bytes.length) : bytes.length)
    switch (random.below(6)) {
      case 0: bytes[at] = random.int32(); break
      case 1: bytes[at] = random.pick(INTERESTING); break
      case 2: bytes[at] = (bytes[at] as number) ^ (1 << random.below(8)); break
      case 3: bytes = joined(bytes.subarray(0, at), bytes.subarray(at + random.below(20))); break
      case 4: bytes = joined(bytes.subarray(0, at), random.fill(new Uint8Array(random.below(20))), bytes.subarray(at)); break
      default: bytes = joined(bytes.subarray(0, at), random.pick(captures).subarray(at))
    }
  }
  return bytes
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** A capture of some random packets, in either format and byte order. */
function randomCapture(random: Random): Uint8Array {
  const recorder = new CaptureRecorder()
  const isPcap = random.chance(0.5)
  const interfaces = isPcap ? 1 : random.between(1, 3)
  for (let i = 0; i < interfaces; i++) recorder.interfaceAdded(i, random.pick([1, 101, 113, 276]), 0, random.chance(0.5))
  for (let count = random.below(8); count > 0; count--) {
    const bytes = random.fill(new Uint8Array(random.below(random.chance(0.8) ? 80 : 3000)))
    recorder.packet(bytes, 0, bytes.length, bytes.length + random.below(100), random.int32() >>> 0, random.below(1e9),
      random.below(interfaces))
  }
  const parts: Uint8Array[] = []
  const output = { write: (bytes: Uint8Array, length: number): void => void parts.push(bytes.slice(0, length)) }
  const writer = new (isPcap ? PcapWriter : PcapngWriter)(output, { littleEndian: random.chance(0.7) })
  recorder.replay(writer)
  writer.flush()
  return joined(...parts)
}

export const captures: FuzzTarget = {
  name: 'captures',
  about: 'pcap and pcapng: nothing throws or leads out of bounds, and any way to cut the stream gives the same',
  rounds: 2000,
  round: (random) => void readDamaged(random, [randomCapture(random), randomCapture(random)]),
}
