import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { TcpStreams, tcpStream, type TcpStreamState } from '../../flow/tcp-stream.ts'
import { bool, defineNf, struct, u32, Verdict } from '../../nf/index.ts'
import { runPackets } from '../run-packets.ts'
import type { CapturedFrame } from './capture-frames.ts'
import { corpusMissing } from './corpus-location.ts'
import { judgeStreamCase, streamCases, type ReassembledStream } from './stream-suite.ts'

/**
 * TCP streams as a network function sees them, against the suite of another project's stream reassembly: the NF below
 * writes down what a stream reader is given.
 */

interface Dump {
  bytes: number[]
  holes: { start: number, end: number }[]
}

function dumpStreams(frames: readonly CapturedFrame[]): { streams: ReassembledStream[] }[] {
  const dumps: Dump[][] = []
  const side = struct({ stream: tcpStream(128), known: bool })
  const dumpNf = defineNf({
    name: 'dump',
    version: 1,
    flowState: struct({ number: u32, forward: side, reverse: side }),
    create(_config, { arena }) {
      let current: Dump[] = []
      const streams = new TcpStreams({
        streamData(direction, offset, end) {
          for (let at = offset; at < end; at++) current[direction]?.bytes.push(arena.u8[at])
        },
        streamGap(direction, bytes) {
          const dump = current[direction] as Dump
          dump.holes.push({ start: dump.bytes.length, end: dump.bytes.length + bytes })
          for (let i = 0; i < bytes; i++) dump.bytes.push(0)
        },
        streamSkippable: () => 0,
        streamSkip: () => assert.fail('nothing is skippable'),
      }, 'first')
      return {
        allocateFlowState(state) {
          state.number = dumps.push([{ bytes: [], holes: [] }, { bytes: [], holes: [] }]) - 1
        },
        processPacket(packet, state) {
          if (!packet.isTcp || packet.isRelated) return Verdict.Forward
          current = dumps[state.number] as Dump[]
          const own = packet.direction === 0 ? state.forward : state.reverse
          const other = packet.direction === 0 ? state.reverse : state.forward
          const syn = (packet.tcpFlags >>> 1) & 1
          if (!own.known && (syn !== 0 || packet.payloadLength > 0)) {
            own.known = true
            own.stream.next = (packet.sequence + syn) | 0
          }
          if (other.known) {
            streams.acknowledged(other.stream as TcpStreamState, 1 - packet.direction, packet.acknowledgement)
          }
          if (packet.payloadLength > 0) {
            streams.segment(own.stream as TcpStreamState, packet.direction, (packet.sequence + syn) | 0, packet.payloadOffset,
              packet.payloadLength)
          }
          return Verdict.Forward
        },
      }
    },
  })
  runPackets(dumpNf, frames.map((frame) =>
    ({ frame: frame.bytes, linkType: frame.linkType, wireLength: frame.wireLength })))
  return dumps.map((pair) => ({
    // A FIN takes a sequence number: its acknowledgement looks like a hole of one byte at the end.
    streams: pair.map(({ bytes, holes }) => {
      const last = holes.at(-1)
      const fin = last !== undefined && last.end === bytes.length && last.end - last.start === 1
      return { bytes: Uint8Array.from(fin ? bytes.slice(0, -1) : bytes), holes: fin ? holes.slice(0, -1) : holes }
    }),
  }))
}

describe('TCP streams of the engine', { skip: corpusMissing() }, () => {
  for (const subject of streamCases()) {
    test(subject.name, { skip: subject.isAcknowledgedEarly && 'the edit acknowledges bytes before they come' }, () => {
      assert.equal(judgeStreamCase(subject, dumpStreams), null)
    })
  }
})
