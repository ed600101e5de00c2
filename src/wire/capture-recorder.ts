/**
 * A sink that keeps everything it is given, as plain objects: for tests, and for captures that are small enough to be
 * looked at whole.
 */

import type { CaptureSink } from './capture-sink.ts'

/** An interface, as it was announced. */
export interface RecordedInterface {
  readonly linkType: number
  readonly snapLength: number
  readonly nanosecondResolution: boolean
}

/** A packet with its own copy of the bytes. */
export interface RecordedPacket {
  readonly bytes: Uint8Array
  readonly originalLength: number
  readonly seconds: number
  readonly nanoseconds: number
  readonly interfaceIndex: number
}

export class CaptureRecorder implements CaptureSink {
  readonly interfaces: RecordedInterface[] = []
  readonly packets: RecordedPacket[] = []

  interfaceAdded(_index: number, linkType: number, snapLength: number, nanosecondResolution: boolean): void {
    this.interfaces.push({ linkType, snapLength, nanosecondResolution })
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    // A Buffer's slice would be no copy.
    const copy = new Uint8Array(bytes.subarray(offset, offset + capturedLength))
    this.packets.push({ bytes: copy, originalLength, seconds, nanoseconds, interfaceIndex })
  }

  /** Gives everything to another sink, in order: all interfaces, then all packets. */
  replay(sink: CaptureSink): void {
    this.interfaces.forEach((i, index) => {
      sink.interfaceAdded?.(index, i.linkType, i.snapLength, i.nanosecondResolution)
    })
    for (const p of this.packets) {
      sink.packet(p.bytes, 0, p.bytes.length, p.originalLength, p.seconds, p.nanoseconds, p.interfaceIndex)
    }
  }
}
