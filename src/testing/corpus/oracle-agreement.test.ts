import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Random } from '../../base/random.ts'
import { decodeCapture } from './capture-frames.ts'
import { judgeRun, studyCapture, studyFrames } from './capture-study.ts'
import { corpusCaptures, corpusMissing, suiteCases } from './corpus-location.ts'
import { fabricateRun, printRun } from './fabricated-run.ts'
import { flowDifferences, messageDifferences, suiteDifferences } from './justified-differences.ts'
import { judgeLlhttpCase, llhttpCases } from './llhttp-cases.ts'
import { findMessages } from './reference-http.ts'
import { reassembleStreams, type ReferenceConnection } from './reference-streams.ts'
import { parseRunOutput } from './run-output.ts'
import { judgeStreamCase, streamCases } from './stream-suite.ts'
import { translateExpectation } from './suite-expectations.ts'
import { captureConversations, conversationDirections, cutAtRandom, cutBytes, cutWhole } from './tcp-conversation.ts'

/**
 * Holds the harness' own census and reference against the other tools, so that what NFactor is judged by is not just
 * another opinion. Every disagreement must be one of the justified differences.
 */
const skip = corpusMissing()
const suites = ['suricata-stream-http', 'ipv6-evasion']

describe('captures', { skip }, () => {
  for (const capture of corpusCaptures()) {
    test(capture.name, () => {
      const study = studyCapture(capture)
      assert.deepEqual(study.unexplained, [])
      const { document, flows, events } = printRun(
        fabricateRun(study.frames.length, study.census, study.expected.permitted),
      )
      assert.deepEqual(judgeRun(study, parseRunOutput(document, flows, events)), [])
    })
  }

  test('every justified difference is of a capture or case that exists', () => {
    const captures = new Set(corpusCaptures().map(capture => capture.name))
    const cases = new Set(suites.flatMap(suite => suiteCases(suite)).map(suiteCase => suiteCase.name))
    for (const difference of [...messageDifferences, ...flowDifferences]) {
      assert.ok(captures.has(difference.capture), difference.capture)
    }
    for (const difference of suiteDifferences) assert.ok(cases.has(difference.case), difference.case)
  })
})

describe('suites', { skip }, () => {
  for (const suite of suites) {
    test(`${suite}: the reference meets the expectations that NFactor's outputs can answer`, () => {
      let answered = 0
      for (const suiteCase of suiteCases(suite)) {
        const study = studyFrames(suiteCase.name, decodeCapture(new Uint8Array(readFileSync(suiteCase.path))))
        const { document, flows, events } = printRun(
          fabricateRun(study.frames.length, study.census, study.expected.permitted),
        )
        const run = parseRunOutput(document, flows, events)
        assert.deepEqual(judgeRun(study, run), [])
        const skipped = suiteDifferences.find(difference => difference.case === suiteCase.name)?.skips
        for (const expectation of suiteCase.expectations) {
          const check = translateExpectation(expectation)
          if (check === null || expectation.match['event_type'] === skipped) continue
          answered++
          assert.equal(check(run), null, suiteCase.name)
        }
      }
      assert.ok(suite !== 'suricata-stream-http' || answered >= 30, `only ${answered} expectations were answered`)
    })
  }

  for (const [name, cut] of [
    ['whole', cutWhole], ['byte by byte', cutBytes], ['cut at random', cutAtRandom(new Random(20))],
  ] as const) {
    test(`llhttp ${name}: the reference meets the cases`, () => {
      const cases = llhttpCases()
      const messages = findMessages(captureConversations(cases.map(subject => subject.turns), cut))
      const problems = cases.map((subject, index) => {
        const direction = conversationDirections(index)[subject.subject]
        return judgeLlhttpCase(subject, messages.filter(message => message.directed === direction))
      })
      assert.deepEqual(problems.filter(problem => problem !== null), [])
    })
  }

  for (const subject of streamCases()) {
    test(`reassembly ${subject.name}: the reference gives the suite's bytes, and a spoiled one does not`, () => {
      assert.equal(judgeStreamCase(subject, reassembleStreams), null)
      assert.notEqual(judgeStreamCase(subject, frames => spoil(reassembleStreams(frames))), null)
      assert.notEqual(judgeStreamCase(subject, frames => reassembleStreams(frames).slice(1)), null)
    })
  }
})

/** Changes one byte in the middle of every stream. */
function spoil(connections: readonly ReferenceConnection[]): ReferenceConnection[] {
  return connections.map(connection => ({
    ...connection,
    streams: connection.streams.map(stream => {
      const bytes = stream.bytes.slice()
      const middle = bytes.length >> 1
      if (bytes.length > 0) bytes[middle] = (bytes[middle] as number) ^ 1
      return { ...stream, bytes }
    }),
  }))
}
