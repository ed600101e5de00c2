/**
 * Reads every capture of the test corpus, which the environment variable NFACTOR_CORPUS names: a folder with a
 * `manifest.json` that says how many packets each one has.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { CaptureSink } from '../wire/capture-sink.ts'
import { isSupportedLinkType, linkPayload } from '../wire/link-type.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'

interface Manifest {
  readonly captures: readonly { readonly name: string, readonly file: string, readonly packets: number }[]
}

/** Counts, and digests all that a capture holds. */
class Digest implements CaptureSink {
  packetCount = 0
  unknownCount = 0
  readonly hash = createHash('sha256')
  readonly #linkTypes: number[] = []
  readonly #next: CaptureSink | undefined

  constructor(next?: CaptureSink) {
    this.#next = next
  }

  interfaceAdded(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean): void {
    assert.ok(isSupportedLinkType(linkType))
    this.#linkTypes.push(linkType)
    this.#next?.interfaceAdded?.(index, linkType, snapLength, nanosecondResolution)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    this.packetCount++
    if (linkPayload(bytes, offset, capturedLength, this.#linkTypes[interfaceIndex] as number) === 0) this.unknownCount++
    this.hash.update(`${capturedLength} ${originalLength} ${seconds} ${nanoseconds} ${interfaceIndex}`)
    this.hash.update(bytes.subarray(offset, offset + capturedLength))
    this.#next?.packet(bytes, offset, capturedLength, originalLength, seconds, nanoseconds, interfaceIndex)
  }
}

const corpus = process.env['NFACTOR_CORPUS']
const folder = mkdtempSync(join(tmpdir(), 'nfactor-capture-corpus-'))
after(() => rmSync(folder, { recursive: true }))

test('the corpus', { skip: corpus === undefined && 'NFACTOR_CORPUS is not set' }, async () => {
  const manifest = JSON.parse(readFileSync(join(corpus as string, 'manifest.json'), 'utf8')) as Manifest
  assert.ok(manifest.captures.length > 0)
  for (const { name, file, packets } of manifest.captures) {
    const copy = join(folder, 'copy.pcapng')
    const writer = new CaptureFileWriter(copy)
    const original = new Digest(writer)
    const reader = await openCaptureReader(join(corpus as string, file))
    const ending = await reader.readInto(original)
    writer.close()
    assert.equal(ending.state, 'complete', `${name}: ${ending.reason}`)
    assert.equal(original.packetCount, packets, name)
    // A few frames of old captures are IEEE 802.3 or cut short.
    assert.ok(original.unknownCount <= packets / 5, `${name}: ${original.unknownCount} of ${packets} without EtherType`)

    const copied = new Digest()
    await (await openCaptureReader(copy)).readInto(copied)
    assert.equal(copied.hash.digest('hex'), original.hash.digest('hex'), name)
  }
})
