/**
 * `npm test`: all tests, in two rounds. First those that compute, or wait for ports and processes that nobody hurries, as many files at once
 * as there are cores; then those with whole clusters, one file after the other, for they mind the machine's load. A round that fails does not
 * keep the other from running. Arguments are patterns of files instead of all: `npm test -- 'src/wire/*'`.
 */

import { globSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { relative } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
const patterns = process.argv.length > 2 ? process.argv.slice(2) : ['src/**/*.test.ts']
const files = globSync(patterns).filter((path) => path.endsWith('.test.ts')).sort()
/** A file that takes longer has something left that keeps it alive. */
const FILE_MS = process.env['NFACTOR_FULL'] === undefined ? 600_000 : Infinity
const mindLoad = /^src\/(cli|e2e)\//

const totals = { passed: 0, failed: 0, skipped: 0 }
const failures: string[] = []

/** Runs test files, prints what they report, and adds to the totals. */
async function runFiles(paths: readonly string[], concurrency: number): Promise<void> {
  if (paths.length === 0) return
  const events = run({ files: [...paths], concurrency, timeout: FILE_MS })
  events.on('test:summary', ({ file, counts }) => {
    if (file !== undefined) return
    totals.passed += counts.passed
    totals.failed += counts.tests - counts.passed - counts.skipped - counts.todo
    totals.skipped += counts.skipped + counts.todo
  })
  events.on('test:fail', ({ name, file = '', line = 0 }) => { failures.push(`failed: ${relative('.', file)}:${line} ${name}`) })
  const report = events.compose(new spec())
  for await (const text of report) process.stdout.write(text as string)
}

await runFiles(files.filter((path) => !mindLoad.test(path)), availableParallelism())
await runFiles(files.filter((path) => mindLoad.test(path)), 1)
for (const failure of failures) process.stdout.write(`${failure}\n`)
process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`)
if (totals.failed > 0 || totals.passed === 0) process.exitCode = 1
