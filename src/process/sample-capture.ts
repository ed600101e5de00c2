/**
 * Small captures for tests of this layer and of the command line: frames with times, as the bytes of a file.
 */

import { buildFrame } from '../testing/packet-builder.ts'
import { TcpConversation, type TimedFrame } from '../testing/tcp-conversation.ts'
import { PcapWriter } from '../wire/pcap.ts'
import { PcapngWriter } from '../wire/pcapng.ts'

export interface SamplePacket {
  readonly frame: Uint8Array
  /** Microseconds since the Unix epoch, with fractions. */
  readonly time: number
  /** Index of the interface; 0 unless told. */
  readonly port?: number
  readonly wireLength?: number
}

export interface SampleCaptureOptions {
  readonly format?: 'pcap' | 'pcapng'
  /** Link type of each interface; one of Ethernet unless told. */
  readonly linkTypes?: readonly number[]
  readonly nanoseconds?: boolean
}

/** A capture file with these packets. */
export function captureBytes(packets: readonly SamplePacket[], options: SampleCaptureOptions = {}): Buffer {
  const { format = 'pcap', linkTypes = [1], nanoseconds = false } = options
  const parts: Buffer[] = []
  const output = { write: (bytes: Uint8Array, length: number) => void parts.push(Buffer.from(bytes.slice(0, length))) }
  const writer = format === 'pcap' ? new PcapWriter(output) : new PcapngWriter(output)
  linkTypes.forEach((linkType, index) => writer.interfaceAdded(index, linkType, 65535, nanoseconds))
  for (const { frame, time, port = 0, wireLength = frame.length } of packets) {
    const seconds = Math.floor(time / 1e6)
    writer.packet(frame, 0, frame.length, wireLength, seconds, Math.round((time - seconds * 1e6) * 1000), port)
  }
  writer.flush()
  return Buffer.concat(parts)
}

/** A web request and its answer (11 packets, one TCP flow), and a DNS question and its answer in between (2, UDP). */
export function webPackets(): TimedFrame[] {
  const web = new TcpConversation({ clientPort: 40000, serverPort: 80 })
  web.open().client('GET /index.html HTTP/1.1\r\nHost: example.test\r\n\r\n')
    .server('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello').close()
  const time = web.packets[3]?.time ?? 0
  const ends = { source: '10.0.0.1', destination: '10.0.0.53' }
  const question = buildFrame({ ...ends, udp: { sourcePort: 5353, destinationPort: 53, payload: 'question' } })
  const answer = buildFrame({ source: ends.destination, destination: ends.source,
    udp: { sourcePort: 53, destinationPort: 5353, payload: 'answer' } })
  return [...web.packets, { frame: question, time: time + 0.25 }, { frame: answer, time: time + 100.5 }]
    .toSorted((a, b) => a.time - b.time)
}
