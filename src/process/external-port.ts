/**
 * External ports of switches, made from their configuration.
 */

import { resolve } from 'node:path'
import type { Arena } from '../memory/arena.ts'
import { AfPacketPort } from '../ports/af-packet-port.ts'
import { openCaptureFilePort } from '../ports/capture-file-port.ts'
import { DevicePort } from '../ports/device-port.ts'
import type { LinkPort } from '../ports/link-port.ts'
import { TapPort } from '../ports/tap-port.ts'
import { createTraffic } from '../ports/traffic/traffic-generator.ts'
import { createTrafficSink, SinkPort } from '../ports/traffic/traffic-sink.ts'
import type { ExternalPortConfig } from './external-port-schema.ts'

export interface ExternalPort {
  readonly port: LinkPort
  /** What generator or sink have counted, for status. */
  readonly traffic?: () => Record<string, unknown>
}

/**
 * @param folder where relative names of files start
 * @throws CodedError for what a port says is wrong
 */
export async function createExternalPort(arena: Arena, config: ExternalPortConfig, folder: string): Promise<ExternalPort> {
  switch (config.type) {
    case 'af-packet': {
      const { interface: name, namespace, segments, frames } = config
      return { port: new AfPacketPort({ arena, interface: name, namespace, segments, rxFrames: frames, txFrames: frames }) }
    }
    case 'tap': {
      const { interface: name, namespace, segments, mtu } = config
      return { port: new TapPort({ arena, interface: name, namespace, segments, mtu }) }
    }
    case 'capture': {
      const path = (name: string | undefined): string | undefined => name === undefined ? undefined : resolve(folder, name)
      const { input, output, speed } = config
      return { port: await openCaptureFilePort({ arena, input: path(input), output: path(output), speed }) }
    }
    case 'generator': {
      const { seed, flows, packetsPerSecond, frameBytes, turns, packets } = config
      const traffic = createTraffic({ arena, seed, flows, packetsPerSecond, sizes: frameBytes, turns, packets })
      return { port: traffic.ports[0], traffic: () => ({ sent: { ...traffic.sent } }) }
    }
    case 'sink': {
      const sink = createTrafficSink({ arena, seed: config.seed, flows: config.flows })
      const { latency } = sink
      return {
        port: new SinkPort(sink, 1),
        traffic: () => ({
          ...sink.totals,
          latencyUs: { mean: latency.meanUs, p50: latency.percentileUs(50), p99: latency.percentileUs(99), max: latency.maxUs },
        }),
      }
    }
    case 'none':
      return { port: new NoPort() }
  }
}

/** A port with nothing behind it: gives nothing, and forgets what it gets. */
class NoPort extends DevicePort {
  readonly room = 4096

  constructor() {
    super('none')
  }

  receive(): number {
    return 0
  }

  send(_frame: number, length: number): boolean {
    return this.countOut(true, length)
  }

  arm(): boolean {
    return true
  }
}
