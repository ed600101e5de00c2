/**
 * `nfactor nf new`: a network function to start from, and its test. It limits the packets of each flow: short, and with
 * each of the things that most network functions need (configuration, state, a counter, a drop reason).
 */

import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { builtInNfs } from '../nfs/index.ts'
import { fileUnwritable } from '../process/file-unwritable.ts'
import { ExitStatus } from './exit-status.ts'

const NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/

export async function nfNewCommand(name: string, options: { readonly dir: string }): Promise<number> {
  if (!NAME.test(name)) {
    throw new CodedError('NF_USAGE', `${JSON.stringify(name)} cannot be the name of a network function`,
      'Use lower-case letters, digits and dashes, beginning with a letter')
  }
  if (Object.hasOwn(builtInNfs, name)) {
    throw new CodedError('NF_EXISTS', `${name} is a built-in network function`, 'Take another name')
  }
  const file = join(options.dir, `${name}.ts`)
  const testFile = join(options.dir, `${name}.test.ts`)
  try {
    makeFolder(resolve(options.dir))
  } catch (error) {
    throw fileUnwritable(options.dir, error)
  }
  writeNew(file, nfSource(name))
  writeNew(testFile, testSource(name))
  const path = /^[./]/.test(file) ? file : `./${file}`
  process.stdout.write(`${file}
${testFile}

Try:
  nfactor nf test ${path}
  nfactor run CAPTURE --chain ${path}
`)
  return ExitStatus.ok
}

/** Makes a folder and those above it. Node would do it itself, but tries for ever where there can be none (/proc). */
function makeFolder(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return
  makeFolder(dirname(path))
  mkdirSync(path)
}

function writeNew(file: string, text: string): void {
  try {
    writeFileSync(file, text, { flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new CodedError('NF_EXISTS', `${file} exists already`, 'Take another name, or delete it', { cause: error })
    }
    throw fileUnwritable(file, error)
  }
}

function nfSource(name: string): string {
  return `/**
 * ${name}: lets the first packets of every flow pass and drops the rest.
 */

import { defineNf, struct, u32, Verdict, z } from 'nfactor'

export default defineNf({
  name: '${name}',
  version: 1,
  description: 'lets the first packets of every flow pass',
  config: z.strictObject({
    packets: z.int().min(1).default(100).describe('Packets that a flow may have'),
  }),
  flowState: struct({ packets: u32 }),
  counters: { limited: 'flows that had more packets than they may' },
  dropReasons: { tooMany: 'the flow has had its packets' },

  create: (config, { counters, drop }) => ({
    processPacket(_packet, state) {
      state.packets++
      if (state.packets <= config.packets) return Verdict.Forward
      if (state.packets === config.packets + 1) counters.limited++
      return drop.tooMany
    },
  }),
})
`
}

function testSource(name: string): string {
  return `import assert from 'node:assert/strict'
import { test } from 'node:test'
import { buildFrame, runPackets } from 'nfactor/testing'
import nf from './${name}.ts'

const frame = (sourcePort: number) => buildFrame({ udp: { sourcePort, destinationPort: 53 } })

test('the first packets of a flow pass, the rest are dropped', () => {
  const packets = [frame(1000), frame(1000), frame(1000), frame(2000)]
  const { outputs, dropReasons, counters, flows } = runPackets(nf, packets, { config: { packets: 2 } })
  assert.equal(outputs.length, 3)
  assert.deepEqual(dropReasons, { '${name}-too-many': 1 })
  assert.equal(counters['${name}']?.limited, 1)
  assert.deepEqual(flows.map((flow) => flow.state['${name}'].packets), [3, 1])
})
`
}
