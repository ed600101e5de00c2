/**
 * External ports of switches, made from their configuration.
 */

import { resolve } from 'node:path'
import { assert } from '../base/assert.ts'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { AfPacketPort } from '../ports/af-packet-port.ts'
import { AfXdpPort } from '../ports/af-xdp-port.ts'
import { openCaptureFilePort } from '../ports/capture-file-port.ts'
import { DevicePort } from '../ports/device-port.ts'
import type { LinkPort } from '../ports/link-port.ts'
import { readRouterConfig } from '../ports/router/router-config.ts'
import { RouterPort } from '../ports/router/router-port.ts'
import { TapPort } from '../ports/tap-port.ts'
import { createTraffic } from '../ports/traffic/traffic-generator.ts'
import { createTrafficSink, SinkPort } from '../ports/traffic/traffic-sink.ts'
import type { ExternalPortConfig } from './external-port-schema.ts'

export interface ExternalPort {
  readonly port: LinkPort
  /** What generator or sink have counted, for status. */
  readonly traffic?: () => Record<string, unknown>
  /** What has become of frames where the port is a router. */
  readonly router?: () => Record<string, number>
  /** How frames come and go, for status, where that is not certain beforehand. */
  readonly how?: () => string
  /** What is not as it was wanted, for the log. */
  readonly warning?: string
}

/** Errors of an AF_XDP port for which a packet socket is a way out. */
const FALLS_BACK: readonly ErrorCode[] = ['NF_PORT_PRIVILEGE', 'NF_PORT_UNSUPPORTED']

/**
 * @param folder where relative names of files start
 * @throws CodedError for what a port says is wrong
 */
export async function createExternalPort(arena: Arena, config: ExternalPortConfig, folder: string): Promise<ExternalPort> {
  const outer = await createOuterPort(arena, config, folder)
  if (!('router' in config) || config.router === undefined) return outer
  const read = readRouterConfig(config.router)
  assert('config' in read, 'a router whose configuration has been checked can be made')
  const port = new RouterPort({ arena, inner: outer.port, config: read.config })
  return { ...outer, port, router: () => ({ ...port.counts, neighbours: port.neighbours }) }
}

async function createOuterPort(arena: Arena, config: ExternalPortConfig, folder: string): Promise<ExternalPort> {
  switch (config.type) {
    case 'af-packet': {
      const { interface: name, namespace, segments, frames } = config
      return { port: new AfPacketPort({ arena, interface: name, namespace, segments, rxFrames: frames, txFrames: frames }) }
    }
    case 'af-xdp':
      return createXdpPort(arena, config)
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

/** Opens it, for only then is it known whether AF_XDP can be had; if not, makes a port with a packet socket. */
function createXdpPort(arena: Arena, config: Extract<ExternalPortConfig, { type: 'af-xdp' }>): ExternalPort {
  const { interface: name, namespace, frames, mode, fallback } = config
  try {
    const port = new AfXdpPort({ arena, interface: name, namespace, rxFrames: frames, mode })
    port.open()
    const queues = (): string => (port.queues === 1 ? '1 queue' : `${port.queues} queues`)
    return { port, how: () => (port.mode === '' ? `AF_XDP, not open: ${port.lastEnd}` : `AF_XDP, ${port.mode}, ${queues()}`) }
  } catch (error) {
    if (!fallback || !(error instanceof CodedError) || !FALLS_BACK.includes(error.code)) throw error
    const warning = `AF_PACKET in place of AF_XDP: ${error.toLine()}`
    return { port: new AfPacketPort({ arena, interface: name, namespace }), how: () => warning, warning: `port ${name}: ${warning}` }
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
