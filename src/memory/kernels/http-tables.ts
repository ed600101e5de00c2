/**
 * What a head scan looks up: the request methods that have a number, and the first letters of the known fields.
 *
 * HTTP lets a method be any token, so this list decides nothing but two things: which methods an NF can tell apart by
 * number, and which words make a request line believable when its version is missing or damaged. It holds the registry
 * of RFC 9110 and WebDAV, and what is seen in the wild (UPnP, caches, Exchange, RPC over HTTP).
 */

import { assert } from '../../base/assert.ts'
import type { Arena } from '../arena.ts'
import { FIELD_NAME_SLOTS, METHOD_HASH, METHOD_SLOT_BYTES, METHOD_SLOT_SHIFT, METHOD_SLOTS } from './http-head-block.ts'

/** Method names by number; number 0 is any other token. */
export const httpMethodNames = [
  '',
  // RFC 9110, RFC 5789
  'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH',
  // HTTP/2's preface
  'PRI',
  // WebDAV and its relatives
  'PROPFIND', 'PROPPATCH', 'MKCOL', 'COPY', 'MOVE', 'LOCK', 'UNLOCK', 'SEARCH', 'REPORT', 'ACL', 'BIND', 'UNBIND',
  'REBIND', 'CHECKIN', 'CHECKOUT', 'UNCHECKOUT', 'VERSION-CONTROL', 'BASELINE-CONTROL', 'MKWORKSPACE', 'MKACTIVITY',
  'MKCALENDAR', 'MKREDIRECTREF', 'UPDATEREDIRECTREF', 'ORDERPATCH', 'LABEL', 'MERGE', 'UPDATE', 'LINK', 'UNLINK',
  'QUERY',
  // UPnP, caches, Exchange, RPC over HTTP
  'NOTIFY', 'SUBSCRIBE', 'UNSUBSCRIBE', 'M-SEARCH', 'PURGE', 'SOURCE', 'POLL', 'BCOPY', 'BMOVE', 'BDELETE', 'BPROPFIND',
  'BPROPPATCH', 'BITS_POST', 'CCM_POST', 'RPC_CONNECT', 'RPC_IN_DATA', 'RPC_OUT_DATA', 'SSTP_DUPLEX_POST',
] as const

/** The fields that a head scan reads. No two have the same length. */
const fieldNames = ['host', 'expect', 'upgrade', 'connection', 'content-length', 'transfer-encoding']

/**
 * Writes the tables into the arena. Methods are searched by a hash of length and first four bytes (of a method of three
 * letters: with the space that follows it). After them comes a word for each length of a field name: the first four
 * letters of the one known name of that length.
 *
 * @returns their offset
 */
export function writeHttpTables(arena: Arena): number {
  const table = arena.allocate('http tables', METHOD_SLOTS * METHOD_SLOT_BYTES + FIELD_NAME_SLOTS * 4, 64)
  const { i32, u8, view } = arena
  const letters = (text: string): number =>
    text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)
  for (let id = 1; id < httpMethodNames.length; id++) {
    const name: string = httpMethodNames[id]
    assert(name.length >= 3 && name.length <= METHOD_SLOT_BYTES - 8, 'a known method has 3 to 24 letters')
    let slot = Math.imul(letters(name.padEnd(4, ' ')) ^ name.length, METHOD_HASH) >>> METHOD_SLOT_SHIFT
    while (i32[(table + slot * METHOD_SLOT_BYTES) >> 2] !== 0) slot = (slot + 1) & (METHOD_SLOTS - 1)
    const at = table + slot * METHOD_SLOT_BYTES
    view.setInt32(at, id, true)
    view.setInt32(at + 4, name.length, true)
    for (let i = 0; i < name.length; i++) u8[at + 8 + i] = name.charCodeAt(i)
  }
  const names = table + METHOD_SLOTS * METHOD_SLOT_BYTES
  for (const name of fieldNames) view.setInt32(names + name.length * 4, letters(name), true)
  return table
}
