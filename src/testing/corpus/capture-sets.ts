/** Capture sets: the captures of the project and those of the corpus, as tests that compare runs take them. */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeCapture, type CapturedFrame } from './capture-frames.ts'
import { corpusCaptures } from './corpus-location.ts'

export interface Capture {
  readonly name: string
  frames(): CapturedFrame[]
}

const examples = join(import.meta.dirname, '../../../examples/captures')
export const sampleCaptures: Capture[] = readdirSync(examples)
  .filter((name) => /\.pcap(ng)?(\.gz)?$/.test(name) && name !== 'modified.pcap').toSorted()
  .map((name) => ({ name, frames: () => decodeCapture(new Uint8Array(readFileSync(join(examples, name)))) }))
export const web = sampleCaptures.find(({ name }) => name.startsWith('web')) as Capture
export const corpus: Capture[] = corpusCaptures()
  .map(({ name, path }) => ({ name, frames: () => decodeCapture(new Uint8Array(readFileSync(path))) }))
