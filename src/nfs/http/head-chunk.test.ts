import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import { CHUNK_LINE_BYTES_MAX, createChunkParser } from './head-chunk.ts'
import { HeadResult } from './head.ts'

const arena = new Arena(1 << 17)
const parser = createChunkParser(arena, loadKernels(arena))
const input = arena.allocate('input', 8192)

function put(text: string, at: number = input): number {
  arena.u8.set(Buffer.from(text, 'latin1'), at)
  return at + text.length
}

function parse(text: string): [result: number, size?: number, line?: number] {
  const result = parser.parseChunkSize(input, put(text))
  return result === HeadResult.Complete ? [result, parser.size, parser.dataOffset - input] : [result]
}

test('sizes', () => {
  const cases: [string, number][] = [
    ['0\r\n', 0], ['a\r\n', 10], ['A\n', 10], ['000\r\n', 0], ['00000000000000000000000001F\r\n', 31],
    ['fFfF  \t\r\n', 65535],
    ['5;a\r\n', 5], ['5 ; a="b;c"\t;d=\xff\r\n', 5], ['5;\r\n', 5], ['1fffffffffffff\r\n', Number.MAX_SAFE_INTEGER],
  ]
  for (const [line, size] of cases) {
    assert.deepEqual(parse(`${line}data`), [HeadResult.Complete, size, line.length], line)
  }
})

test('what no two receivers would agree on is invalid', () => {
  for (const line of [
    '\r\n', ' 5\r\n', 'g\r\n', '-5\r\n', '+5\r\n', '0x5\r\n', '5 x\r\n', '5,5\r\n', '5\rx', '5;a\rb', '5;a\0b\r\n',
    '5\0\r\n', ';a\r\n',
    '20000000000000\r\n', 'fffffffffffffffff', `1${'0'.repeat(300)}`, '5\x0b\r\n', '@\r\n', '`\r\n', ':\r\n', '/\r\n',
    'G\r\n',
  ]) {
    assert.deepEqual(parse(line), [HeadResult.Invalid], JSON.stringify(line))
  }
})

test('incomplete at every shorter length', () => {
  for (const line of ['5\r\n', '1a;name="value" \r\n', '7 \n']) {
    for (let length = 0; length < line.length; length++) {
      assert.deepEqual(parse(line.slice(0, length)), [HeadResult.Incomplete])
    }
    // At the very end of the memory, too.
    put(line, arena.u8.length - line.length)
    assert.equal(parser.parseChunkSize(arena.u8.length - line.length, arena.u8.length), HeadResult.Complete)
    assert.equal(parser.dataOffset, arena.u8.length)
    assert.equal(parser.parseChunkSize(arena.u8.length - line.length, arena.u8.length - 1), HeadResult.Incomplete)
  }
})

test('a line is limited', () => {
  const line = (length: number): string => `5;${'x'.repeat(length - 4)}\r\n`
  assert.deepEqual(parse(line(CHUNK_LINE_BYTES_MAX)), [HeadResult.Complete, 5, CHUNK_LINE_BYTES_MAX])
  assert.deepEqual(parse(line(CHUNK_LINE_BYTES_MAX + 1)), [HeadResult.Invalid])
  assert.deepEqual(parse(line(CHUNK_LINE_BYTES_MAX + 1).slice(0, CHUNK_LINE_BYTES_MAX)), [HeadResult.Invalid])
  assert.deepEqual(parse(line(CHUNK_LINE_BYTES_MAX + 1).slice(0, CHUNK_LINE_BYTES_MAX - 1)), [HeadResult.Incomplete])
  assert.deepEqual(parse('0'.repeat(CHUNK_LINE_BYTES_MAX - 1)), [HeadResult.Incomplete])
  assert.deepEqual(parse('0'.repeat(CHUNK_LINE_BYTES_MAX)), [HeadResult.Invalid])
})

test('a bad line leaves the last result alone', () => {
  parse('ab\r\n')
  parse('zz\r\n')
  parse('c')
  assert.equal(parser.size, 0xab)
})

test('random sizes', () => {
  const random = new Random(1)
  for (let round = 0; round < 2000; round++) {
    const size = Math.floor(random.fraction() * 2 ** random.below(54))
    const digits = '0'.repeat(random.below(3)) + size.toString(16)
    const line = `${random.chance(0.5) ? digits : digits.toUpperCase()}${random.pick(['', ' ', ';x=y'])}\r\n`
    assert.deepEqual(parse(line), [HeadResult.Complete, size, line.length], line)
  }
})

test('the end of a trailer', () => {
  const end = (text: string): number => {
    const found = parser.findTrailerEnd(input, put(text))
    return found === -1 ? -1 : found - input
  }
  assert.equal(end('\r\nGET'), 2)
  assert.equal(end('\nGET'), 1)
  assert.equal(end('Expires: now\r\nA: b\r\n\r\nGET'), 22)
  assert.equal(end('A: b\n\n'), 6)
  for (const text of ['', '\r', 'A: b\r\n', 'A: b\r\n\r']) assert.equal(end(text), -1)
})
