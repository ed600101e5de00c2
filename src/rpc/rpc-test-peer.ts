/**
 * A server for tests, with methods that show what a call can do, in a folder of the test's own.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { Controller } from './generated/nfactor/v1/controller_pb.ts'
import { Node } from './generated/nfactor/v1/node_pb.ts'
import { RpcServer, type RpcServerOptions } from './rpc-server.ts'
import { serve } from './rpc-service.ts'

export const testWorkload = {
  busyUs: 1.5, asleepUs: 0, timeUs: 2 ** 53 - 1, received: 7, forwarded: 5, dropped: 2, buffered: 0, flows: 100_000, replicas: 0, isEmpty: false,
  emitted: 3, takenOver: 2, handedOver: 1, memoryBytes: 4096,
}

export class RpcTestPeer {
  readonly folder = mkdtempSync(join(tmpdir(), 'nfactor-rpc-'))
  readonly socket = join(this.folder, '1.sock')
  readonly tokenFile = join(this.folder, 'token')
  readonly server: RpcServer
  /** What methods have broken with, and how many calls have been called off. */
  readonly defects: unknown[] = []
  calledOff = 0
  isReady = true

  constructor(options: Partial<RpcServerOptions> = {}) {
    this.server = new RpcServer({
      socket: this.socket, onDefect: (reason) => { this.defects.push(reason) }, isReady: () => this.isReady,
      services: [this.#node(), this.#controller()], ...options,
    })
  }

  get url(): string {
    return `http://127.0.0.1:${this.server.port}`
  }

  async close(): Promise<void> {
    await this.server.close()
    rmSync(this.folder, { recursive: true })
  }

  #node() {
    return serve(Node, {
      pollWorkload: () => testWorkload,
      setMigrationTarget: ({ target }) => { throw new CodedError('NF_CLUSTER', `there is no node ${target}`, 'Name another one') },
      drain: () => { throw new Error('oh') },
      getFlow: async ({ flow }) => {
        await new Promise((resolve) => { setTimeout(resolve, 5) })
        return { flow, epoch: 1, state: { of: { any: ['kind', 1, null, true] } } }
      },
      getStatus: (_, { signal }) => this.#untilCalledOff(signal),
      listFlows: ({ filter, limit = 3 }) => ({
        total: limit, flows: Array.from({ length: limit }, (_, flow) => ({ flow, a: filter })) }),
      capture: async function* ({ frames = 0 }) {
        for (let i = 0; i < frames; i++) yield { bytes: Uint8Array.of(i) }
        if (frames === 13) throw new CodedError('NF_PORT_FAILED', 'the port is gone')
      },
    })
  }

  #controller() {
    const until = (signal: AbortSignal): Promise<never> => this.#untilCalledOff(signal)
    return serve(Controller, {
      update: () => ({ phase: 'rolling' }),
      events: async function* ({ after, follow }, { signal }) {
        yield { number: after + 1, event: 'node-ready', text: 'x' }
        if (follow) await until(signal)
      },
    })
  }

  #untilCalledOff(signal: AbortSignal): Promise<never> {
    return new Promise((_, reject) => {
      signal.addEventListener('abort', () => {
        this.calledOff++
        reject(signal.reason as Error)
      })
    })
  }
}

/** Waits until something is so. */
export async function until(what: string, isSo: () => boolean, patienceMs = 5000): Promise<void> {
  for (const end = performance.now() + patienceMs; !isSo();) {
    if (performance.now() > end) throw new Error(`not in ${patienceMs} ms: ${what}`)
    await new Promise((resolve) => { setTimeout(resolve, 5) })
  }
}
