/**
 * All that the harness knows of one capture before NFactor sees it: its frames, the census, the reference's messages
 * and, for captures with an oracle, what must and may be reported. {@link judgeRun} holds a run against it.
 */

import { readFileSync } from 'node:fs'
import { decodeCapture, type CapturedFrame } from './capture-frames.ts'
import { checkCensus, compareWithCensus } from './compare-flows.ts'
import { compareMessages, type MessageBounds } from './compare-messages.ts'
import { compareTotals } from './compare-totals.ts'
import type { CorpusCapture } from './corpus-location.ts'
import { FrameCensus } from './frame-census.ts'
import { expectMessages } from './justified-differences.ts'
import { readOracleFlows, readOracleMessages } from './oracle-records.ts'
import { findMessages } from './reference-http.ts'
import type { RunOutput } from './run-output.ts'

export interface CaptureStudy {
  readonly name: string
  readonly frames: readonly CapturedFrame[]
  readonly census: FrameCensus
  readonly expected: MessageBounds
  /** Differences between the oracle and the harness' own census and reference that nothing explains. */
  readonly unexplained: readonly string[]
}

/** Studies a capture of the corpus, with the oracle's records. */
export function studyCapture(capture: CorpusCapture): CaptureStudy {
  const frames = decodeCapture(new Uint8Array(readFileSync(capture.path)))
  const census = new FrameCensus(frames)
  const { unexplained, ...expected } = expectMessages(
    capture.name, findMessages(frames), readOracleMessages(capture), census.frameTuples,
  )
  const counted = frames.length === capture.packets
    ? [] : [`${capture.name}: ${frames.length} frames, but the manifest says ${capture.packets}`]
  return {
    name: capture.name,
    frames,
    census,
    expected,
    unexplained: [...counted, ...checkCensus(capture.name, census, readOracleFlows(capture)), ...unexplained],
  }
}

/** Studies frames that no other tool has judged: what the reference is certain of must be reported. */
export function studyFrames(name: string, frames: readonly CapturedFrame[]): CaptureStudy {
  const messages = findMessages(frames)
  const expected = { required: messages.filter(message => message.isCertain), permitted: messages }
  return { name, frames, census: new FrameCensus(frames), expected, unexplained: [] }
}

/** All deviations of a run from a study, one line each; empty when there are none. */
export function judgeRun(study: CaptureStudy, run: RunOutput): string[] {
  return [
    ...compareTotals(study.name, run, study.frames.length, study.census),
    ...compareWithCensus(study.name, run.flows, study.census),
    ...compareMessages(study.name, run.messages, study.expected),
  ]
}
