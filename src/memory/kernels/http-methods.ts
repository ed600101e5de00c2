/**
 * The request methods that have a number, and the table in which a head scan looks them up.
 *
 * HTTP lets a method be any token, so this list decides nothing but two things: which methods an NF can tell apart by
 * number, and which words make a request line believable when its version is missing or damaged. It holds the registry of
 * RFC 9110 and WebDAV, and what is seen in the wild (UPnP, caches, Exchange, RPC over HTTP).
 */

import { assert } from '../../base/assert.ts'
import type { Arena } from '../arena.ts'
import { METHOD_HASH, METHOD_SLOT_BYTES, METHOD_SLOT_SHIFT, METHOD_SLOTS } from './http-head-block.ts'

/** Method names by number; number 0 is any other token. */
export const httpMethodNames: readonly string[] = [
  '',
  // RFC 9110, RFC 5789
  'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH',
  // HTTP/2's preface
  'PRI',
  // WebDAV and its relatives
  'PROPFIND', 'PROPPATCH', 'MKCOL', 'COPY', 'MOVE', 'LOCK', 'UNLOCK', 'SEARCH', 'REPORT', 'ACL', 'BIND', 'UNBIND', 'REBIND',
  'CHECKIN', 'CHECKOUT', 'UNCHECKOUT', 'VERSION-CONTROL', 'BASELINE-CONTROL', 'MKWORKSPACE', 'MKACTIVITY', 'MKCALENDAR',
  'MKREDIRECTREF', 'UPDATEREDIRECTREF', 'ORDERPATCH', 'LABEL', 'MERGE', 'UPDATE', 'LINK', 'UNLINK', 'QUERY',
  // UPnP, caches, Exchange, RPC over HTTP
  'NOTIFY', 'SUBSCRIBE', 'UNSUBSCRIBE', 'M-SEARCH', 'PURGE', 'SOURCE', 'POLL', 'BCOPY', 'BMOVE', 'BDELETE', 'BPROPFIND',
  'BPROPPATCH', 'BITS_POST', 'CCM_POST', 'RPC_CONNECT', 'RPC_IN_DATA', 'RPC_OUT_DATA', 'SSTP_DUPLEX_POST',
]

/**
 * Writes the table of known methods into the arena, to be searched by hash of length and first four bytes (of a method
 * of three letters: with the space that follows it).
 *
 * @returns its offset
 */
export function writeHttpMethods(arena: Arena): number {
  const table = arena.allocate('http methods', METHOD_SLOTS * METHOD_SLOT_BYTES, 64)
  const { i32, u8, view } = arena
  for (let id = 1; id < httpMethodNames.length; id++) {
    const name = httpMethodNames[id]
    assert(name.length >= 3 && name.length <= METHOD_SLOT_BYTES - 8, 'a known method has 3 to 24 letters')
    const padded = name.padEnd(4, ' ')
    const head = padded.charCodeAt(0) | (padded.charCodeAt(1) << 8) | (padded.charCodeAt(2) << 16) | (padded.charCodeAt(3) << 24)
    let slot = Math.imul(head ^ name.length, METHOD_HASH) >>> METHOD_SLOT_SHIFT
    while (i32[(table + slot * METHOD_SLOT_BYTES) >> 2] !== 0) slot = (slot + 1) & (METHOD_SLOTS - 1)
    const at = table + slot * METHOD_SLOT_BYTES
    view.setInt32(at, id, true)
    view.setInt32(at + 4, name.length, true)
    for (let i = 0; i < name.length; i++) u8[at + 8 + i] = name.charCodeAt(i)
  }
  return table
}
