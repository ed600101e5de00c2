/**
 * Where captured packets go, one call per packet: the engine, a counter, or a writer (a capture parser whose sink is a
 * writer converts one format into another).
 *
 * Interfaces are numbered from 0 without gaps over the whole capture, also when a pcapng file starts again at 0 in its
 * next section; each is announced before its first packet. A pcap file has exactly one.
 */

export interface CaptureSink {
  /**
   * Announces the next interface.
   *
   * @param linkType as in `LinkType`, possibly one that NFactor does not read
   * @param snapLength bytes kept of each packet at most; 0 means no limit
   * @param nanosecondResolution timestamps are finer than a microsecond
   */
  interfaceAdded?(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean): void

  /**
   * Takes one packet, `bytes[offset..offset + capturedLength)`. The bytes are lent: valid during the call only. Hot.
   *
   * @param originalLength bytes that the packet had on the wire
   * @param seconds whole seconds since the Unix epoch
   * @param nanoseconds the rest, `0 <= nanoseconds < 1e9`
   */
  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void
}

/**
 * The longest packet that is believed: the largest snap length of tcpdump and Wireshark, and some room for what they
 * put in front of it. A record that claims more is damage.
 */
export const CAPTURED_LENGTH_MAX = 262_144 + 1024
