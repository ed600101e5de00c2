import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Random } from '../../base/random.ts'
import { decodeCapture, encodePcap, type CapturedFrame } from './capture-frames.ts'
import { judgeRun, studyCapture, studyFrames, type CaptureStudy } from './capture-study.ts'
import { compareFrames } from './compare-frames.ts'
import { compareTotals } from './compare-totals.ts'
import { compareWithCensus } from './compare-flows.ts'
import { corpusCaptures, corpusMissing, suiteCases } from './corpus-location.ts'
import { makeEquivalent } from './equivalent-capture.ts'
import { FrameCensus } from './frame-census.ts'
import { messageKey, suiteDifferences, unpermitted } from './justified-differences.ts'
import { judgeLlhttpCase, llhttpCases } from './llhttp-cases.ts'
import { commandMissing, commandRunner, type RunResult } from './nfactor-run.ts'
import { sampleConversations } from './sample-conversations.ts'
import { translateExpectation } from './suite-expectations.ts'
import {
  captureConversations, conversationDirections, cutAtRandom, cutBytes, cutWhole,
} from './tcp-conversation.ts'

/**
 * NFactor against the capture corpus, through the command line: flows, packets and HTTP events of every capture, the
 * suites of other projects, and captures that differ but must give the same events.
 */
const run = commandRunner()
const needsCommand = commandMissing()
const needsCorpus = needsCommand === false ? corpusMissing() : needsCommand
const shippedPath = fileURLToPath(new URL('../../../examples/captures/web.pcap.gz', import.meta.url))
/** Runs at a time. */
const CONCURRENCY = 2
const LINK_ETHERNET = 1

describe('captures', { skip: needsCorpus, concurrency: CONCURRENCY }, () => {
  for (const capture of corpusCaptures()) {
    test(capture.name, async () => {
      const study = studyCapture(capture)
      const isEthernet = study.frames.every(frame => frame.linkType === LINK_ETHERNET)
      const result = await run({ capture: capture.path, wantsFrames: isEthernet })
      const dropped = result.document.packets.dropped
      assert.deepEqual([
        ...unpermitted(capture.name, judgeRun(study, result)),
        ...(isEthernet ? compareFrames(capture.name, study.frames, result.frames, dropped) : []),
      ], [])
    })
  }
})

for (const suite of ['suricata-stream-http', 'ipv6-evasion']) {
  describe(suite, { skip: needsCorpus, concurrency: CONCURRENCY }, () => {
    for (const suiteCase of suiteCases(suite)) {
      test(suiteCase.name, async () => {
        const frames = decodeCapture(new Uint8Array(readFileSync(suiteCase.path)))
        const study = withAlternative(studyFrames(suiteCase.name, frames))
        const result = await run({ capture: suiteCase.path })
        const skipped = suiteDifferences.find(difference => difference.case === suiteCase.name)?.skips
        const unmet = suiteCase.expectations
          .filter(expectation => expectation.match['event_type'] !== skipped)
          .map(expectation => translateExpectation(expectation)?.(result) ?? null)
        const problems = unpermitted(suiteCase.name, judgeRun(study, result))
        assert.deepEqual([...problems, ...unmet.filter(problem => problem !== null)], [])
      })
    }
  })
}

describe('llhttp', { skip: needsCorpus, concurrency: CONCURRENCY }, () => {
  for (const [name, cut] of [
    ['whole', cutWhole], ['byte by byte', cutBytes], ['cut at random', cutAtRandom(new Random(11))],
  ] as const) {
    test(name, async () => {
      const cases = llhttpCases()
      const frames = captureConversations(cases.map(subject => subject.turns), cut)
      const result = await runFrames(frames)
      const census = new FrameCensus(frames)
      const problems = cases.map((subject, index) => {
        const direction = conversationDirections(index)[subject.subject]
        return judgeLlhttpCase(subject, result.messages.filter(message => message.directed === direction))
      })
      assert.deepEqual([
        ...compareTotals(name, result, frames.length, census),
        ...compareWithCensus(name, result.flows, census),
        ...problems.filter(problem => problem !== null),
      ], [])
    })
  }
})

describe('equivalent captures give the same events', { skip: needsCommand, concurrency: CONCURRENCY }, () => {
  const sample = captureConversations(sampleConversations(), cutWhole)

  test('the sample gives the events that are in it', async () => {
    assert.deepEqual(judgeRun(studyFrames('sample', sample), await runFrames(sample)), [])
  })

  for (let seed = 0; seed < 8; seed++) {
    test(`sample, seed ${seed}`, async () => {
      const frames = makeEquivalent(sample, new Random(seed))
      assert.deepEqual(judgeRun(studyFrames(`sample ${seed}`, frames), await runFrames(frames)), [])
    })
  }

  const missing = existsSync(shippedPath) ? false : 'examples/captures/web.pcap.gz does not exist'
  test('shipped capture', { skip: missing }, async () => {
    await compareWithEquivalents(decodeCapture(new Uint8Array(readFileSync(shippedPath))), [1, 2])
  })

  const whole = [
    'v6-http4', 'vlan-http11', 'pipe-mozilla5', 'ka-browse-2011', 'h2c-upgrade', 'ws-basic', 'nat-mixed-155',
  ]
  for (const capture of corpusCaptures().filter(candidate => whole.includes(candidate.name))) {
    test(capture.name, { skip: needsCorpus }, async () => {
      await compareWithEquivalents(decodeCapture(new Uint8Array(readFileSync(capture.path))), [3])
    })
  }
})

async function compareWithEquivalents(frames: readonly CapturedFrame[], seeds: readonly number[]): Promise<void> {
  const expected = eventsOf(await runFrames(frames))
  assert.notDeepEqual(expected, {})
  for (const seed of seeds) {
    const other = makeEquivalent(frames, new Random(seed))
    assert.deepEqual(eventsOf(await runFrames(other)), expected, `seed ${seed}`)
  }
}

/** The events of every direction, in order. */
function eventsOf(result: RunResult): Record<string, string[]> {
  const events: Record<string, string[]> = {}
  for (const message of result.messages) {
    events[message.directed] = [...events[message.directed] ?? [], messageKey('', message)]
  }
  return events
}

/** A run over frames that are in no file yet. */
async function runFrames(frames: readonly CapturedFrame[]): Promise<RunResult> {
  const folder = await mkdtemp(join(tmpdir(), 'nfactor-frames-'))
  try {
    const capture = join(folder, 'frames.pcap')
    await writeFile(capture, encodePcap(frames))
    return await run({ capture })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** A study in which a request may be reported with another URI, where the suite's differences allow one. */
function withAlternative(study: CaptureStudy): CaptureStudy {
  const uri = suiteDifferences.find(difference => difference.case === study.name)?.uri
  if (uri === undefined) return study
  const isMeant = (message: { readonly uri: string }): boolean => message.uri === uri.reference
  return {
    ...study,
    expected: {
      required: study.expected.required.filter(message => !isMeant(message)),
      permitted: study.expected.permitted.flatMap(message =>
        isMeant(message) ? [message, { ...message, uri: uri.alternative }] : [message]),
    },
  }
}
