import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Random } from '../../base/random.ts'
import { decodeCapture, type CapturedFrame } from './capture-frames.ts'
import { makeEquivalent } from './equivalent-capture.ts'
import { dissectFrame, dissectTcp } from './frame-dissection.ts'
import { findMessages } from './reference-http.ts'
import { reassembleStreams } from './reference-streams.ts'
import { sampleConversations } from './sample-conversations.ts'
import { captureConversations, cutWhole } from './tcp-conversation.ts'

const sample = captureConversations(sampleConversations(), cutWhole)
const shippedPath = fileURLToPath(new URL('../../../examples/captures/web.pcap.gz', import.meta.url))

/** What two equivalent captures have in common: the bytes of every stream. */
function streamsOf(frames: readonly CapturedFrame[]): Record<string, string> {
  return Object.fromEntries(reassembleStreams(frames).flatMap(connection => connection.streams)
    .map(stream => [stream.directed, Buffer.from(stream.bytes).toString('latin1')]))
}

function sequencesOf(frames: readonly CapturedFrame[]): (number | undefined)[] {
  return frames.map(frame => {
    const datagram = dissectFrame(frame)
    return datagram === null ? undefined : dissectTcp(datagram.payload)?.sequence
  })
}

describe('equivalent captures', () => {
  for (let seed = 0; seed < 20; seed++) {
    test(`seed ${seed}: the streams and messages stay`, () => {
      const other = makeEquivalent(sample, new Random(seed))
      assert.deepEqual(streamsOf(other), streamsOf(sample))
      assert.deepEqual(findMessages(other), findMessages(sample))
    })
  }

  test('segments are cut, doubled, reordered and spoiled', () => {
    const other = makeEquivalent(sample, new Random(1))
    assert.ok(other.length > sample.length * 2)
    const pairs = sequencesOf(other).slice(1).map((sequence, index) => [sequencesOf(other)[index] ?? 0, sequence ?? 0])
    assert.ok(pairs.some(([before = 0, after = 0]) => before === after), 'no segment comes twice in a row')
    assert.ok(pairs.filter(([before = 0, after = 0]) => after < before).length > 20, 'hardly anything is out of order')
    const texts = other.map(frame => Buffer.from(frame.bytes).toString('latin1'))
    assert.ok(new Set(texts).size < texts.length)
  })

  test('time never runs back, and the same seed gives the same capture', () => {
    const other = makeEquivalent(sample, new Random(5))
    assert.ok(other.every((frame, index) => index === 0 || frame.timeUs >= (other[index - 1]?.timeUs ?? 0)))
    assert.deepEqual(makeEquivalent(sample, new Random(5)), other)
    assert.notDeepEqual(makeEquivalent(sample, new Random(6)), other)
  })

  test('a connection without its start, or with a hole, is left as it is', () => {
    const withoutStart = sample.slice(1)
    const firstTuple = reassembleStreams(withoutStart)[0]?.tuple ?? ''
    const framesOf = (frames: readonly CapturedFrame[]): CapturedFrame[] =>
      frames.filter(frame => reassembleStreams([frame])[0]?.tuple === firstTuple)
    const other = makeEquivalent(withoutStart, new Random(2))
    assert.deepEqual(framesOf(other), framesOf(withoutStart))
    assert.ok(other.length > withoutStart.length)
  })

  const missing = existsSync(shippedPath) ? false : 'examples/captures/web.pcap.gz does not exist'
  test('the shipped capture has equivalents too', { skip: missing }, () => {
    const frames = decodeCapture(new Uint8Array(readFileSync(shippedPath)))
    const other = makeEquivalent(frames, new Random(3))
    assert.ok(other.length > frames.length)
    assert.deepEqual(streamsOf(other), streamsOf(frames))
  })
})
