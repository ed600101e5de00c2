import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { encodePcap } from './capture-frames.ts'
import { judgeRun, studyFrames } from './capture-study.ts'
import { compareFrames } from './compare-frames.ts'
import { fabricateRun, printRun } from './fabricated-run.ts'
import { commandRunner } from './nfactor-run.ts'
import { sampleConversations } from './sample-conversations.ts'
import { captureConversations, cutWhole } from './tcp-conversation.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-run-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const frames = captureConversations(sampleConversations(), cutWhole)
const study = studyFrames('sample', frames)
const capture = join(folder, 'capture.pcap')
writeFileSync(capture, encodePcap(frames))

/** A module that takes the command's place. */
function command(name: string, body: string): string {
  const path = join(folder, `${name}.mjs`)
  writeFileSync(path, `import { copyFileSync, writeFileSync } from 'node:fs'\nconst args = process.argv.slice(2)\n`
    + `const option = name => args[args.indexOf(name) + 1]\n${body}\n`)
  return path
}

describe('running the command', () => {
  const texts = printRun(fabricateRun(frames.length, study.census, study.expected.permitted))
  const answer = `
    if (args[0] !== 'run' || !args.includes('--json') || option('--chain') !== 'monitor,firewall,http') process.exit(9)
    writeFileSync(option('--flows'), ${JSON.stringify(texts.flows)})
    writeFileSync(option('--events'), ${JSON.stringify(texts.events)})
    if (args.includes('--out')) copyFileSync(args[1], option('--out'))
    console.log(${JSON.stringify(texts.document)})`

  test('its outputs are read, with frames on demand', async () => {
    const run = commandRunner(command('good', answer))
    const result = await run({ capture, wantsFrames: true })
    assert.deepEqual(judgeRun(study, result), [])
    assert.deepEqual(compareFrames('sample', frames, result.frames, 0), [])
    assert.deepEqual((await run({ capture })).frames, [])
  })

  test('a failure is told with what it printed', async () => {
    const run = commandRunner(command('bad', `console.error('NF_CAPTURE_FORMAT: no'); process.exit(3)`))
    await assert.rejects(run({ capture }), /exit status 3: NF_CAPTURE_FORMAT/)
  })

  test('a command that does not end is killed', async () => {
    const run = commandRunner(command('endless', 'setInterval(() => {}, 1000)'), 200)
    await assert.rejects(run({ capture }), /SIGTERM/)
  })

  test('outputs that are not there are a failure', async () => {
    await assert.rejects(commandRunner(command('silent', `console.log('{}')`))({ capture }), /ENOENT/)
    assert.ok(readFileSync(capture).length > 0)
  })
})

describe('frames that left', () => {
  test('a frame lost, changed or out of order is noticed; a dropped one is not missed', () => {
    const changed = { ...frames[5]!, bytes: frames[5]!.bytes.toReversed() }
    assert.deepEqual(compareFrames('s', frames, frames.toSpliced(5, 1), 1), [])
    assert.match(compareFrames('s', frames, frames.toSpliced(5, 1), 0).join(), /left/)
    assert.match(compareFrames('s', frames, frames.toSpliced(5, 1, changed), 0).join(), /frame 6/)
    assert.match(compareFrames('s', frames, frames.toSpliced(5, 2, frames[6]!, frames[5]!), 0).join(), /frame 7/)
  })
})
