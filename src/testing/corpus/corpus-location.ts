/**
 * Where the capture corpus is, and what it holds.
 *
 * The corpus is a folder that is not part of this repository; the environment variable NFACTOR_CORPUS names it. Tests
 * that need it skip with {@link corpusMissing} when the variable is unset, so that the suite runs everywhere. Layout:
 *
 *     manifest.json             every capture with its facts
 *     captures/NAME.pcap[.gz]
 *     oracle/NAME/              what other tools say of the capture
 *     suites/NAME/              cases of other projects, with their own expectations
 */

import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** One capture of the corpus, as far as the harness uses its facts. */
export interface CorpusCapture {
  readonly name: string
  /** Absolute path of the capture file. */
  readonly path: string
  readonly packets: number
  readonly linkType: string
  /** Absolute path of the folder with the other tools' outputs. */
  readonly oraclePath: string
}

/** One expectation of a suite's case: so many event records with these fields. */
export interface SuiteExpectation {
  readonly count: number
  readonly match: Readonly<Record<string, unknown>>
}

/** One case of a suite that consists of captures with expected event records. */
export interface SuiteCase {
  readonly suite: string
  readonly name: string
  readonly path: string
  readonly expectations: readonly SuiteExpectation[]
}

/** The corpus folder, or null when NFACTOR_CORPUS is unset. */
export function corpusFolder(): string | null {
  const folder = process.env['NFACTOR_CORPUS']
  return folder === undefined || folder === '' ? null : folder
}

/** A reason to skip a test, or false when the corpus is there: the value of a test's `skip` option. */
export function corpusMissing(): string | false {
  const folder = corpusFolder()
  if (folder === null) return 'NFACTOR_CORPUS is unset: no capture corpus to test with'
  if (!existsSync(join(folder, 'manifest.json'))) return `NFACTOR_CORPUS: ${folder} has no manifest.json`
  return false
}

/** All captures that the manifest lists. */
export function corpusCaptures(): CorpusCapture[] {
  const folder = corpusFolder()
  if (folder === null || corpusMissing() !== false) return []
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as {
    captures: { name: string, file: string, packets: number, link_type: string }[]
  }
  return manifest.captures.map(entry => ({
    name: entry.name,
    path: join(folder, entry.file),
    packets: entry.packets,
    linkType: entry.link_type,
    oraclePath: join(folder, 'oracle', entry.name),
  }))
}

/** The folder of a suite, whether it exists or not. */
export function suiteFolder(suite: string): string {
  return join(corpusFolder() ?? '', 'suites', suite)
}

/** The cases of a suite with an index.jsonl; empty without a corpus. */
export function suiteCases(suite: string): SuiteCase[] {
  const folder = suiteFolder(suite)
  const index = join(folder, 'index.jsonl')
  if (corpusMissing() !== false || !existsSync(index)) return []
  return readFileSync(index, 'utf8').split('\n').filter(line => line !== '').map(line => {
    const entry = JSON.parse(line) as { case: string, pcap: string, expect: SuiteExpectation[] | null }
    const caseFolder = join(folder, entry.case)
    const file = readdirSync(caseFolder).find(name => name === entry.pcap) ?? entry.pcap
    return { suite, name: entry.case, path: join(caseFolder, file), expectations: entry.expect ?? [] }
  })
}
