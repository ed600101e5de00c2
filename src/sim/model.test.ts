/**
 * The Promela model of migration in models/: it speaks of the messages and states of the code, Spin finds no error in it, and
 * finds one in each broken variant. The checks by Spin are skipped where `spin` or `gcc` is missing.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as migration from '../messages/migration.ts'

const root = join(import.meta.dirname, '..', '..')
const modelPath = join(root, 'models', 'migration.pml')
const model = readFileSync(modelPath, 'utf8')

/** Names in the model's declaration that begins like this. */
function declared(start: string): string[] {
  const at = model.indexOf(start)
  assert.ok(at >= 0, `the model declares ${start}`)
  return model.slice(at + start.length, model.indexOf('}', at)).split(',').map((name) => name.trim())
}

/** Members of a union of texts in a source. */
function unionIn(path: string, name: string): string[] {
  const found = new RegExp(`export type ${name} = (.*)`).exec(readFileSync(join(root, path), 'utf8'))
  assert.ok(found !== null, `${path} has the type ${name}`)
  return [...found[1].matchAll(/'(\w+)'/g)].map((match) => match[1])
}

test('the model names messages and states as the code does', () => {
  const kinds = Object.values(migration).filter((kind) => typeof kind === 'object' && 'schema' in kind).map((kind) => kind.name)
  // The layout of records is told once, ahead of all moves.
  assert.deepEqual(declared('mtype = {').sort(), kinds.filter((name) => name !== 'AnnounceChain').sort())
  assert.deepEqual(declared('mtype:move = {').sort(),
    [...unionIn('src/runtime/migration/outgoing-moves.ts', 'MoveState'), 'settled'].sort())
  assert.deepEqual(declared('mtype:incoming = {').sort(),
    [...unionIn('src/runtime/migration/incoming-moves.ts', 'IncomingState'), 'absent', 'owned'].sort())
})

const isFull = process.env.NFACTOR_FULL === '1'
const isMissing = ['spin', 'gcc'].some((program) => spawnSync(program, [program === 'spin' ? '-V' : '--version']).status !== 0)
const skip = isMissing ? 'spin or gcc is not installed' : false

/** Runs Spin exhaustively on a configuration; the number of errors, 0 or 1. */
function errorsIn(flags: readonly string[], optimise = '-O2'): number {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-model-'))
  try {
    const run = (program: string, args: string[]): string => {
      const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder, encoding: 'utf8', timeout: 300_000 })
      assert.equal(status, 0, `${program} ${args.join(' ')}: ${stdout}${stderr}`)
      return stdout
    }
    run('spin', ['-a', ...flags, modelPath])
    run('gcc', [optimise, '-w', '-DSAFETY', '-DCOLLAPSE', '-DMEMLIM=2000', '-o', 'pan', 'pan.c'])
    const report = run(join(folder, 'pan'), ['-m10000', '-w22', '-b'])
    assert.doesNotMatch(report, /max search depth too small|Search not completed.*memory/)
    const errors = /errors: (\d+)/.exec(report)
    assert.ok(errors !== null, report)
    return Number(errors[1])
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('no run of the protocol breaks its promises: one packet each way', { skip }, () => {
  assert.equal(errorsIn(['-DPACKETS=1']), 0)
})

test('the same with two packets each way', { skip: skip || (isFull ? false : 'NFACTOR_FULL=1 runs it') }, () => {
  assert.equal(errorsIn(['-DPACKETS=2']), 0)
})

test('the same when the target dies', { skip: skip || (isFull ? false : 'NFACTOR_FULL=1 runs it') }, () => {
  assert.equal(errorsIn(['-DPACKETS=1', '-DTARGET_DIES']), 0)
})

test('the same when the source dies', { skip: skip || (isFull ? false : 'NFACTOR_FULL=1 runs it') }, () => {
  assert.equal(errorsIn(['-DPACKETS=1', '-DSOURCE_DIES']), 0)
})

/** Variants that are about the death of the source. */
const SOURCE_DIES = /^(INHERIT|FOLLOW)/

for (const variant of ['NO_GO', 'TIMER_TAKES_BACK', 'ABORT_WITHOUT_BUFFER', 'BARRIER_OUT_OF_BAND', 'TARGET_FORGETS',
  'ONE_DRAINED_NOTE', 'ABORT_WITHOUT_PASSED', 'INHERIT_LOW_EPOCH',
  'INHERIT_WITHOUT_GO', 'FOLLOW_STALE']) {
  test(`an error is found in the variant ${variant}`, { skip }, () => {
    const packets = variant === 'ABORT_WITHOUT_PASSED' ? 2 : 1
    assert.equal(errorsIn([`-DPACKETS=${packets}`, `-D${variant}`, ...SOURCE_DIES.test(variant) ? ['-DSOURCE_DIES'] : []], '-O0'), 1)
  })
}
