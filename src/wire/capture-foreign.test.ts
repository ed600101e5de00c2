import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { FOREIGN_HEAD_LENGTH, describeForeign } from './capture-foreign.ts'

const looksLike = (head: Uint8Array): string => describeForeign(head).looksLike

test('programs, archives, images and other captures are named', () => {
  assert.equal(looksLike(readFileSync(process.execPath).subarray(0, FOREIGN_HEAD_LENGTH)), 'an ELF program')
  assert.equal(looksLike(Buffer.from('PK\x03\x04\x14\x00', 'latin1')), 'a zip archive')
  assert.equal(looksLike(gzipSync('x')), 'a file that was compressed with gzip twice')
  assert.equal(looksLike(Buffer.from('28b52ffd24', 'hex')), 'a file compressed with Zstandard')
  assert.match(describeForeign(Buffer.from('28b52ffd24', 'hex')).mend, /zstd -dc/)
  assert.equal(looksLike(Buffer.from('snoop\0\0\0\0\0\0\x02')), 'a snoop capture')
  const tar = Buffer.alloc(512)
  tar.write('name')
  tar.write('ustar', 257)
  assert.equal(looksLike(tar), 'a tar archive')
})

test('text is quoted, and only text', () => {
  assert.equal(looksLike(Buffer.from('{\n  "chain": [\n')), 'text that begins with "{   "chain": ["')
  assert.equal(looksLike(Buffer.from('Caf\u00e9 au lait and more')), 'text that begins with "Caf?? au lait and more"')
  assert.equal(looksLike(Buffer.from(' \n')), 'text that begins with "white space"')
  assert.equal(looksLike(Buffer.from('text and\x01not')), 'unknown data that begins with 74 65 78 74 20 61 6e 64')
})

test('everything else is shown in hex', () => {
  assert.equal(looksLike(new Uint8Array(100)), 'nothing but zero bytes')
  assert.equal(looksLike(Uint8Array.of(1, 2)), 'unknown data that begins with 01 02')
})
