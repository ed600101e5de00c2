/** Which flows runtimes are to run with care, by the notes of lives that have ended: what of that is remembered. */

import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { NodeCommand } from '../controller/node-commands.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { IN_PROGRESS_BYTES, InProgress } from '../runtime/in-progress.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { QuarantineKeeper } from './quarantine-keeper.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-keeper-'))
after(() => { rmSync(folder, { recursive: true }) })
const noteFile = (incarnation: number): string => join(folder, `note-${incarnation}`)

/** A life was running a packet of a flow when it ended. */
function note(incarnation: number, flow: number): void {
  const words = new Int32Array(IN_PROGRESS_BYTES >> 2)
  const key = new Int32Array(KEY_WORDS)
  key[0] = (4 << 24) | (17 << 16)
  key[1] = flow
  new InProgress(words).begin(key, 0)
  writeFileSync(noteFile(incarnation), words)
}

const configure = (fenced: readonly number[]): NodeCommand => ({ kind: 'configure', term: 1, generation: 1,
  config: { version: 1, clusterId: 1, switches: [], runtimes: [] }, fenced: fenced.map((incarnation) => ({ node: 11, incarnation })) } as never)

test('verdicts, suspects and lives that were examined are bounded: what came first is forgotten first', () => {
  const told: [number, number, boolean][] = []
  let examined = 0
  const keeper = new QuarantineKeeper({
    folder: { noteFile } as ClusterFolder, links: { send: () => undefined },
    quarantine: (_, incarnation, keys, isSuspect) => { for (const key of keys) told.push([incarnation, key[1] as number, isSuspect]) },
    processOf: () => undefined, onQuarantined: () => { examined++ },
  })
  for (let life = 1; life <= 300; life++) note(life, life)
  keeper.send(12, 5000, configure(Array.from({ length: 300 }, (_, i) => i + 1)))
  assert.deepEqual([examined, told.length, told[0], told.at(-1)], [300, 256, [5000, 45, true], [5000, 300, true]])
  // Who has heard hears what is new; who comes hears all that is remembered.
  note(301, 301)
  keeper.send(12, 5000, configure([301]))
  assert.deepEqual(told.slice(256), [[5000, 301, true]])
  keeper.send(12, 5001, configure([301]))
  assert.deepEqual([told.length, told[257]], [256 + 1 + 256, [5001, 46, true]])
  // A flow that was a suspect once is certain the second time; not when so many others have been suspects since.
  note(302, 301)
  keeper.send(12, 5001, configure([302]))
  assert.deepEqual(told.at(-1), [5001, 301, false])
  for (let life = 303; life <= 303 + 1024; life++) note(life, life)
  keeper.send(12, 5001, configure(Array.from({ length: 1025 }, (_, i) => 303 + i)))
  note(1400, 301)
  keeper.send(12, 5001, configure([1400]))
  assert.deepEqual(told.at(-1), [5001, 301, true])
  // Lives that are not among the fenced any more are forgotten; those that are, however many, are examined once.
  const before = examined
  keeper.send(12, 5001, configure([1400]))
  assert.equal(examined, before)
  assert.deepEqual(readdirSync(folder), ['note-1400'], 'and so are their notes')
  note(1, 1)
  keeper.send(12, 5001, configure([1]))
  assert.equal(examined, before + 1)
})
