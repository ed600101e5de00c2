/**
 * The Promela models in models/, of migration and of replication: they speak of the messages and states of the code, Spin finds no error
 * in them, and finds one in each broken variant. The checks by Spin are skipped where `spin` or `gcc` is missing.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as migration from '../messages/migration.ts'
import * as replication from '../messages/replication.ts'

const root = join(import.meta.dirname, '..', '..')
type Model = 'migration' | 'replication'
const pathOf = (name: Model): string => join(root, 'models', `${name}.pml`)

/** Names in a model's declaration that begins like this. */
function declared(name: Model, start: string): string[] {
  const model = readFileSync(pathOf(name), 'utf8')
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

/** Names of the messages of a protocol. */
function kindsIn(protocol: object): string[] {
  return Object.values(protocol).flatMap((kind: unknown) =>
    (typeof kind === 'object' && kind !== null && 'schema' in kind && 'name' in kind ? [String(kind.name)] : []))
}

test('the models name messages and states as the code does', () => {
  // The layout of records is told once, ahead of all moves; a step is one message in the model, and a flow has one replica; of one flow none
  // goes ahead.
  const ofMoves = kindsIn(migration).filter((name) => name !== 'AnnounceChain')
  const ofReplicas = kindsIn(replication).filter((name) => !['ReleasePacket', 'AdoptMember', 'StepsHeld', 'HurryFlow'].includes(name))
  assert.deepEqual(declared('migration', 'mtype = {').sort(), ofMoves.sort())
  assert.deepEqual(declared('replication', 'mtype = {').sort(), [...ofMoves, ...ofReplicas, 'ConfigApplied'].sort())
  const states = unionIn('src/runtime/migration/outgoing-move.ts', 'MoveState')
  const incoming = unionIn('src/runtime/migration/incoming-move.ts', 'IncomingState')
  for (const name of ['migration', 'replication'] as const) {
    assert.deepEqual(declared(name, 'mtype:move = {').sort(), [...states, 'settled'].sort())
  }
  assert.deepEqual(declared('migration', 'mtype:incoming = {').sort(), [...incoming, 'absent', 'owned'].sort())
  assert.deepEqual(declared('replication', 'mtype:incoming = {').sort(), [...incoming, 'absent'].sort())
  const epochs = /PROMOTION_EPOCHS = (\d+)/.exec(readFileSync(join(root, 'src/runtime/coordinator.ts'), 'utf8'))?.[1]
  assert.match(readFileSync(pathOf('replication'), 'utf8'), new RegExp(`define PROMOTION_EPOCHS ${epochs}\n`))
})

const isFull = process.env.NFACTOR_FULL === '1'
const isMissing = ['spin', 'gcc'].some((program) => spawnSync(program, [program === 'spin' ? '-V' : '--version']).status !== 0)
const skip = isMissing ? 'spin or gcc is not installed' : false

/** Runs Spin exhaustively on a configuration; the number of errors, 0 or 1. */
function errorsIn(flags: readonly string[], optimise = '-O2', model: Model = 'migration'): number {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-model-'))
  try {
    const run = (program: string, args: string[]): string => {
      const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder, encoding: 'utf8', timeout: 900_000 })
      assert.equal(status, 0, `${program} ${args.join(' ')}: ${stdout}${stderr}`)
      return stdout
    }
    run('spin', ['-a', ...flags, pathOf(model)])
    run('gcc', [optimise, '-w', '-DSAFETY', '-DCOLLAPSE', '-DVECTORSZ=2048', '-DMEMLIM=4000', '-o', 'pan', 'pan.c'])
    const report = run(join(folder, 'pan'), ['-m20000', '-w22', '-b'])
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

// -- Replication -------------------------------------------------------------------------------------------------------

const skipUnlessFull = skip || (isFull ? false : 'NFACTOR_FULL=1 runs it')

test('no run of replication breaks its promises: one packet, a move, a death', { skip }, () => {
  assert.equal(errorsIn(['-DONE_CHOICE'], '-O0', 'replication'), 0)
})

/** Larger bounds. */
for (const bounds of ['', '-DPACKETS=2', '-DMOVES=0 -DREPLACES=1', '-DTIMEOUTS', '-DCRASHES=2']) {
  test(`replication, with ${bounds === '' ? 'either choice of a replica' : bounds}`, { skip: skipUnlessFull }, () => {
    assert.equal(errorsIn(bounds.split(' ').filter((flag) => flag !== ''), '-O2', 'replication'), 0)
  })
}

/** Variants whose error is found at once. */
const quick = ['EVERYTHING_RESENT', 'STEP_NOT_STORED', 'COUNT_FORGOTTEN']

for (const variant of [...quick, 'RELEASE_BEFORE_STORE', 'NOTHING_RESENT', 'SECURED_WITHOUT_GO', 'LATE_GO_COUNTS', 'NO_MOVING_WORD',
  'PROMOTE_UNASKED', 'ANSWER_EARLY', 'PROMOTE_LOW_EPOCH', 'HAND_UNSTORED', 'CONFIRM_EARLY', 'RETIRED_FOR_GOOD', 'RUN_UNCONFIRMED',
  'APPLIED_EARLY', 'RETIRED_EARLY', 'REPLACED_UNMARKED', 'BACK_FORGOTTEN', 'TARGET_UNTOLD']) {
  test(`an error is found in the variant ${variant} of replication`, { skip: quick.includes(variant) ? skip : skipUnlessFull }, () => {
    const bounds = ['RETIRED_EARLY', 'REPLACED_UNMARKED'].includes(variant) ? ['-DMOVES=0', '-DREPLACES=1']
      : variant === 'BACK_FORGOTTEN' ? ['-DONE_CHOICE', '-DCRASHES=2']
      : variant === 'TARGET_UNTOLD' ? ['-DONE_CHOICE', '-DTIMEOUTS'] : []
    assert.equal(errorsIn([`-D${variant}`, ...bounds], '-O0', 'replication'), 1)
  })
}
