/**
 * IP reassembly for the harness (RFC 791 §3.2, RFC 8200 §4.5): fragments go in in the order of the capture, and the
 * whole datagram comes out with its last missing fragment. Of overlapping bytes the first to arrive stay. Nothing
 * times out: a capture is finite. {@link FragmentAssembly.firstPayload} tells the transport header of a datagram that
 * is still incomplete, because that is what assigns its later fragments to a flow.
 */

import type { Datagram } from './frame-dissection.ts'

interface Partial {
  readonly bytes: Uint8Array
  readonly known: Uint8Array
  first: Uint8Array | null
  /** Payload length, known once the last fragment has come; -1 before. */
  length: number
}

/** Larger than any datagram whose fragment offsets are 13 bits of 8 bytes. */
const DATAGRAM_BYTES_MAX = 0x20000

export class FragmentAssembly {
  readonly #partials = new Map<string, Partial>()

  /** Takes one fragment; the completed datagram, or null while bytes are missing. */
  add(fragment: Datagram): Datagram | null {
    const part = fragment.fragment
    if (part === null) return fragment
    const key = fragmentKey(fragment)
    let partial = this.#partials.get(key)
    if (partial === undefined) {
      partial = {
        bytes: new Uint8Array(DATAGRAM_BYTES_MAX), known: new Uint8Array(DATAGRAM_BYTES_MAX), first: null, length: -1,
      }
      this.#partials.set(key, partial)
    }
    if (part.offset === 0 && partial.first === null) partial.first = fragment.payload
    const end = Math.min(part.offset + fragment.payload.length, DATAGRAM_BYTES_MAX)
    for (let i = part.offset; i < end; i++) {
      if (partial.known[i] !== 0) continue
      partial.known[i] = 1
      partial.bytes[i] = fragment.payload[i - part.offset] as number
    }
    if (!part.more) partial.length = end
    if (partial.length < 0 || partial.known.subarray(0, partial.length).includes(0)) return null
    this.#partials.delete(key)
    return { ...fragment, fragment: null, payload: partial.bytes.slice(0, partial.length) }
  }

  /** The payload of the first fragment of the datagram that `fragment` belongs to, or null if it has not come. */
  firstPayload(fragment: Datagram): Uint8Array | null {
    return this.#partials.get(fragmentKey(fragment))?.first ?? null
  }
}

/** What makes fragments parts of one datagram: addresses, protocol and identification; IPv6 leaves out the protocol. */
export function fragmentKey(fragment: Datagram): string {
  const protocol = fragment.version === 4 ? fragment.protocol : 0
  return `${fragment.source} ${fragment.destination} ${protocol} ${fragment.fragment?.id ?? 0}`
}
