/**
 * `node src/ports/memif-peer.ts JSON`: a process at the other end of a memif link, for tests and benches.
 *
 * It prints a line when the port is open, when the link is up, one per second, and when `stopAfter` frames have been received; a
 * frame's number is the word at byte 14. What it does: `sink` receives, `echo` sends back what it receives, `source` sends frames of
 * `bytes` bytes.
 */

import { setImmediate } from 'node:timers/promises'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { MemifPort, type MemifPortOptions } from './memif-port.ts'
import { waitForPorts, waitForPortsBlocking } from './port-waiter.ts'
import { yieldCore } from './sys.ts'

export interface MemifPeerOptions {
  readonly port: Omit<MemifPortOptions, 'arena' | 'name'>
  readonly does: 'sink' | 'echo' | 'source'
  /** Source: bytes of a frame; and how many, if there is an end. */
  readonly bytes?: number
  readonly frames?: number
  /** Sleeps when nothing comes, on the event loop or with its thread. */
  readonly sleeps?: 'loop' | 'thread'
  /** Sink: receive so many, then no more. */
  readonly stopAfter?: number
  /** Sink, with manual release: give back those up to here only. */
  readonly releaseUpTo?: number
}

/** Batches between two looks at the event loop. */
const BATCHES = 128
const BATCH = 32

async function main(options: MemifPeerOptions): Promise<void> {
  const { does, bytes = 60, frames = Infinity, stopAfter = Infinity, releaseUpTo = Infinity } = options
  const arena = new Arena(96 << 20)
  const { i32, view } = arena
  const pool = new PacketPool(arena, 4096, 16)
  const descriptors = arena.allocate('batch', BATCH * DESCRIPTOR_BYTES) >> 2
  const source = arena.allocate('frame', 1 << 16) + 2
  const port = new MemifPort({ ...options.port, arena, name: 'peer' })
  port.open()
  let received = 0
  let sent = 0
  let isUp = false
  let isStopped = false
  const say = (what: string): void => {
    process.stdout.write(`${JSON.stringify({ what, received, sent, at: performance.timeOrigin + performance.now() })}\n`)
  }
  say('open')
  process.stdin.on('end', () => process.exit(0)).resume()

  function receive(): number {
    const count = port.receive(pool, descriptors, Math.min(BATCH, stopAfter - received))
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      if (does === 'echo' && port.send(i32[d + Descriptor.frame], i32[d + Descriptor.length])) sent++
      pool.give(i32[d + Descriptor.slot])
    }
    received += count
    // What has been answered may be given back, and not before.
    port.flush()
    if (count > 0) port.release(Math.min(port.receivedPosition, releaseUpTo))
    return count
  }

  function transmit(): number {
    let count = 0
    for (const most = Math.min(BATCH, frames - sent, port.room); count < most; count++) {
      view.setUint32(source + 14, sent, true)
      if (!port.send(source, bytes)) break
      sent++
    }
    return count
  }

  for (let second = 0;;) {
    const now = performance.now()
    port.maintain(now * 1000)
    if (isUp && now >= second) {
      second = now + 1000
      say(isStopped ? 'stopped' : 'running')
    }
    if (port.isUp !== isUp) {
      isUp = port.isUp
      say(isUp ? 'up' : `down: ${port.lastEnd}`)
    }
    let total = 0
    for (let i = 0; i < BATCHES; i++) {
      const count = receive() + (does === 'source' ? transmit() : 0)
      port.flush()
      total += count
      if (count > 0) continue
      if (options.sleeps !== undefined) break
      yieldCore()
    }
    if (total === 0 && options.sleeps === 'loop') await waitForPorts([port], 1000)
    if (total === 0 && options.sleeps === 'thread') waitForPortsBlocking([port], 1000)
    if (!isStopped && isUp && (received >= stopAfter || (does === 'source' && sent >= frames))) {
      isStopped = true
      say('stopped')
    }
    await setImmediate()
  }
}

await main(JSON.parse(process.argv[2]) as MemifPeerOptions)
