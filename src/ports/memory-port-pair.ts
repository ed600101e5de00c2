/**
 * Memory port pair: a link inside one arena with a wrapper around each end, for putting wrappers through the contract of ports.
 */

import { Arena } from '../memory/arena.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import type { PortPair } from './port-contract.ts'
import { WrapperPort, type InnerPort } from './wrapper-port.ts'

const FRAME_BYTES_MAX = 9000
const FRAMES = 256

/** A memory port that refuses frames which are too long for its cells. */
class LimitedPort extends WrapperPort {
  override get frameBytesMax(): number {
    return FRAME_BYTES_MAX
  }

  override send(frame: number, length: number): boolean {
    return length <= FRAME_BYTES_MAX && this.inner.send(frame, length)
  }

  override sendReserved(frame: number, length: number): boolean {
    return length <= FRAME_BYTES_MAX && this.inner.sendReserved(frame, length)
  }
}

/** A link of two memory ports, each in a wrapper, for the contract. */
export function createMemoryPortPair(wrap: (inner: InnerPort, arena: Arena) => InnerPort): PortPair {
  const arena = new Arena(64 << 20)
  const ends = createMemoryPorts(arena, { frames: FRAMES, reserved: 16, frameBytes: FRAME_BYTES_MAX })
    .map((port) => ({ arena, port: withoutLife(wrap(new LimitedPort(port), arena)) }))
  return {
    ends: [ends[0] as PortPair['ends'][0], ends[1] as PortPair['ends'][1]],
    capacity: FRAMES - 16,
    refusesWhenFull: true,
    frameBytes: { min: 1, ordinary: 1514, max: FRAME_BYTES_MAX },
    close: () => undefined,
  }
}

/** Memory ports neither open and close, nor count. */
function withoutLife(port: InnerPort): PortPair['ends'][0]['port'] {
  return {
    get room() { return port.room },
    receive: (pool, descriptors, max) => port.receive(pool, descriptors, max),
    send: (frame, length) => port.send(frame, length),
    sendReserved: (frame, length) => port.sendReserved(frame, length),
    flush: () => port.flush?.(),
    maintain: (now) => port.maintain?.(now),
  }
}
