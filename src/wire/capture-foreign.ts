/**
 * Guesses what a file is that is not a capture, from its first bytes: somebody who named the wrong file is helped more
 * by "an ELF program" than by "bad magic number". Formats that hold packets all the same come with the way to convert
 * them.
 */

/** What {@link describeForeign} found. */
export interface ForeignDescription {
  /** To follow "it looks like": `a zip archive`, `text`. */
  readonly looksLike: string
  /** How to mend it, one sentence. */
  readonly mend: string
}

/** Bytes that {@link describeForeign} wants to see, if the file has as many. */
export const FOREIGN_HEAD_LENGTH = 512

const MEND_NOT_A_CAPTURE = 'Name a pcap or pcapng file, plain or compressed with gzip'

function decompressWith(program: string): string {
  return `Decompress it on the way: ${program} -dc FILE | nfactor run -`
}

const MEND_CONVERT = 'Convert it with Wireshark\'s tool: editcap -F pcapng FILE OUTPUT.pcapng'

/** First bytes as one character per byte, what they mean, how to mend it. */
const signatures: readonly (readonly [string, string, string])[] = [
  ['\x7fELF', 'an ELF program', MEND_NOT_A_CAPTURE],
  ['PK\x03\x04', 'a zip archive', 'Extract the capture from it first'],
  ['PK\x05\x06', 'an empty zip archive', MEND_NOT_A_CAPTURE],
  ['Rar!\x1a\x07', 'a RAR archive', 'Extract the capture from it first'],
  ['7z\xbc\xaf\x27\x1c', 'a 7-Zip archive', 'Extract the capture from it first'],
  ['\x28\xb5\x2f\xfd', 'a file compressed with Zstandard', decompressWith('zstd')],
  ['\xfd7zXZ\x00', 'a file compressed with xz', decompressWith('xz')],
  ['BZh', 'a file compressed with bzip2', decompressWith('bzip2')],
  ['\x04\x22\x4d\x18', 'a file compressed with LZ4', decompressWith('lz4')],
  ['\x1f\x9d', 'a file compressed with compress', decompressWith('gzip')],
  ['\x1f\x8b', 'a file that was compressed with gzip twice', decompressWith('gzip')],
  ['snoop\x00\x00\x00', 'a snoop capture', MEND_CONVERT],
  ['btsnoop\x00', 'a Bluetooth capture', MEND_NOT_A_CAPTURE],
  ['GMBU', 'a Microsoft Network Monitor capture', MEND_CONVERT],
  ['RTSS', 'a Microsoft Network Monitor capture', MEND_CONVERT],
  ['\x1c\x00\x01\xac', 'a pcap variant of IXIA', MEND_CONVERT],
  ['\xac\x01\x00\x1c', 'a pcap variant of IXIA', MEND_CONVERT],
  ['\x1c\x00\x01\xab', 'a pcap variant of IXIA', MEND_CONVERT],
  ['\xab\x01\x00\x1c', 'a pcap variant of IXIA', MEND_CONVERT],
  ['XCP\x00', 'a NetXRay capture', MEND_CONVERT],
  ['%PDF', 'a PDF document', MEND_NOT_A_CAPTURE],
  ['\x89PNG', 'a PNG image', MEND_NOT_A_CAPTURE],
  ['\xff\xd8\xff', 'a JPEG image', MEND_NOT_A_CAPTURE],
  ['GIF8', 'a GIF image', MEND_NOT_A_CAPTURE],
  ['SQLite format 3\x00', 'an SQLite database', MEND_NOT_A_CAPTURE],
  ['MZ', 'a Windows program', MEND_NOT_A_CAPTURE],
  ['\x00asm', 'a WebAssembly module', MEND_NOT_A_CAPTURE],
  ['#!', 'a script', MEND_NOT_A_CAPTURE],
]

/** Describes a file by its first bytes, of which there is at least one. */
export function describeForeign(head: Uint8Array): ForeignDescription {
  for (const [signature, looksLike, mend] of signatures) {
    if (startsWith(head, signature, 0)) return { looksLike, mend }
  }
  if (startsWith(head, 'ustar', 257)) return { looksLike: 'a tar archive', mend: 'Extract the capture from it first' }
  if (head.every(byte => byte === 0)) return { looksLike: 'nothing but zero bytes', mend: MEND_NOT_A_CAPTURE }
  const text = textStart(head)
  if (text !== '') {
    return {
      looksLike: `text that begins with "${text}"`,
      mend: 'Name a pcap or pcapng file; a hex dump becomes one with Wireshark\'s text2pcap',
    }
  }
  const bytes = Array.from(head.subarray(0, 8), byte => byte.toString(16).padStart(2, '0')).join(' ')
  return { looksLike: `unknown data that begins with ${bytes}`, mend: MEND_NOT_A_CAPTURE }
}

function startsWith(head: Uint8Array, signature: string, offset: number): boolean {
  if (head.length < offset + signature.length) return false
  for (let i = 0; i < signature.length; i++) {
    if (head[offset + i] !== signature.charCodeAt(i)) return false
  }
  return true
}

/** The first printable characters of what is text from end to end; empty if it is not text. */
function textStart(head: Uint8Array): string {
  let start = ''
  for (const byte of head) {
    const isSpace = byte === 0x09 || byte === 0x0a || byte === 0x0d
    // 0x80 and above: UTF-8, or some older alphabet.
    if (!isSpace && (byte < 0x20 || byte === 0x7f)) return ''
    if (start.length < 24) start += isSpace ? ' ' : byte < 0x7f ? String.fromCharCode(byte) : '?'
  }
  start = start.trim()
  return start === '' ? 'white space' : start
}
