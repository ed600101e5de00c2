/**
 * Container engine: the few calls of its HTTP API that we make, at its UNIX socket. Docker's, from 20.10 on; others that speak it do too.
 *
 * Paths name no version of the API: what is used here has been there since 1.24, and an engine refuses versions that it finds too old or too
 * new. An answer that is no success is an error of ours, with the first line of what the engine said.
 *
 * Source: https://docs.docker.com/reference/api/engine/
 */

import { request, type IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { CodedError } from '../base/coded-error.ts'

export const DEFAULT_ENGINE_SOCKET = '/var/run/docker.sock'

/** How long the engine may be silent before it counts as not there. Images take longer: their own limit. */
const ANSWER_MS = 20_000
const IMAGE_MS = 300_000

/** What a container is made of, as the engine names it. */
export interface ContainerSpec {
  readonly Image: string
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[]
  readonly Env: readonly string[]
  readonly User: string
  readonly WorkingDir: string
  readonly Labels: Readonly<Record<string, string>>
  readonly HostConfig: Readonly<Record<string, unknown>>
}

export interface ListedContainer {
  readonly Id: string
  /** Seconds since the Unix epoch. */
  readonly Created: number
  readonly State: string
  readonly Labels: Readonly<Record<string, string>>
}

interface Call {
  readonly body?: unknown
  /** Sent as it is, in place of a body of JSON. */
  readonly stream?: Readable
  readonly timeoutMs?: number
  /** What an answer `not found` is about; without it, undefined is returned. */
  readonly missing?: CodedError
}

export class ContainerEngine {
  readonly socket: string

  constructor(socket: string = DEFAULT_ENGINE_SOCKET) {
    this.socket = socket
  }

  /** @throws CodedError `NF_CONTAINER_ENGINE` where none answers, `NF_CONTAINER_DENIED` where this user may not ask */
  async check(): Promise<void> {
    const missing = new CodedError('NF_CONTAINER_ENGINE', `what answers at ${this.socket} is no container engine`)
    await this.#call('GET', '/version', { missing })
  }

  /** The command of an image; undefined if the engine does not have it. */
  async imageCommand(image: string): Promise<readonly string[] | undefined> {
    const found = await this.#call<{ Config: { Entrypoint: string[] | null } | null }>('GET', `/images/${encodeURIComponent(image)}/json`)
    return found === undefined ? undefined : found.Config?.Entrypoint ?? []
  }

  /** Makes an image of a tar archive. */
  async importImage(repository: string, tag: string, archive: Readable, changes: readonly string[]): Promise<void> {
    const query = new URLSearchParams({ fromSrc: '-', repo: repository, tag })
    for (const change of changes) query.append('changes', change)
    const said = await this.#call<string>('POST', `/images/create?${query}`, { stream: archive, timeoutMs: IMAGE_MS })
    const problem = /"error":"((?:[^"\\]|\\.)*)"/.exec(typeof said === 'string' ? said : '')?.[1]
    if (problem !== undefined) throw new CodedError('NF_CONTAINER_IMAGE', `the engine at ${this.socket} cannot import ${repository}: ${problem}`)
  }

  async images(label: string): Promise<{ Id: string, Created: number, RepoTags: string[] | null }[]> {
    return await this.#call('GET', `/images/json?${filter({ label: [label] })}`) ?? []
  }

  /** Removes an image, unless a container is made of it. */
  async removeImage(image: string): Promise<void> {
    await this.#call('DELETE', `/images/${encodeURIComponent(image)}`).catch(() => undefined)
  }

  missing(image: string): CodedError {
    return new CodedError('NF_CONTAINER_IMAGE', `the engine at ${this.socket} has no image ${image}`,
      'Load it there, or leave container.image out: then one is made of this installation')
  }

  /** Makes a container; returns its id. @throws CodedError `NF_CONTAINER_IMAGE` where there is no such image */
  async create(name: string, spec: ContainerSpec): Promise<string> {
    const missing = this.missing(spec.Image)
    const made = await this.#call<{ Id: string }>('POST', `/containers/create?name=${encodeURIComponent(name)}`, { body: spec, missing })
    return made?.Id ?? ''
  }

  async start(id: string): Promise<void> {
    await this.#call('POST', `/containers/${id}/start`, { missing: new CodedError('NF_CONTAINER_FAILED', `container ${id} has gone`) })
  }

  /** What the engine knows of a container; undefined if it has none of this id. */
  async inspect(id: string):
      Promise<{ readonly State: { readonly Pid: number }, readonly HostConfig: { readonly Memory: number } } | undefined> {
    return await this.#call('GET', `/containers/${id}/json`)
  }

  /** Process id of a container on this machine; 0 if it does not run. */
  async processOf(id: string): Promise<number> {
    return (await this.inspect(id))?.State.Pid ?? 0
  }

  /** Waits for the next end of a container, however long that takes; the status as a shell would have it. */
  async ended(id: string): Promise<number | undefined> {
    const end = await this.#call<{ StatusCode: number }>('POST', `/containers/${id}/wait?condition=next-exit`, { timeoutMs: 0 })
    return end?.StatusCode
  }

  async list(label: string): Promise<ListedContainer[]> {
    return await this.#call('GET', `/containers/json?all=true&${filter({ label: [label] })}`) ?? []
  }

  /** Ends a container at once, and removes it. */
  async remove(id: string): Promise<void> {
    await this.#call('DELETE', `/containers/${id}?force=true`)
  }

  async #call<T>(method: string, path: string, { body, stream, timeoutMs = ANSWER_MS, missing }: Call = {}): Promise<T | undefined> {
    const { status, text } = await this.#exchange(method, path, body, stream, timeoutMs)
    if (status === 404 && missing === undefined) return undefined
    if (status === 404 && missing !== undefined) throw missing
    const value = parsed(text)
    if (status < 400) return value as T
    const said = (value as { message?: unknown } | null)?.message
    throw new CodedError('NF_CONTAINER_FAILED', `the engine at ${this.socket} says: ${firstLine(typeof said === 'string' ? said : text)}`)
  }

  #exchange(method: string, path: string, body: unknown, stream: Readable | undefined, timeoutMs: number):
      Promise<{ status: number, text: string }> {
    return new Promise((resolve, reject) => {
      const fail = (error: NodeJS.ErrnoException): void => { reject(this.#unreachable(error)) }
      const headers = { 'host': 'engine', ...body !== undefined && { 'content-type': 'application/json' },
        ...stream !== undefined && { 'content-type': 'application/x-tar' } }
      const call = request({ socketPath: this.socket, method, path, headers, timeout: timeoutMs }, (answer: IncomingMessage) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (part: string) => { text += part })
        answer.on('error', fail)
        answer.on('end', () => { resolve({ status: answer.statusCode ?? 0, text }) })
      })
      call.on('error', fail)
      // Whoever waits for an end may himself end before.
      if (timeoutMs === 0) call.on('socket', (socket) => { socket.unref() })
      call.on('timeout', () => { call.destroy(new Error(`no answer for ${timeoutMs / 1000} s`)) })
      if (stream === undefined) return call.end(body === undefined ? undefined : JSON.stringify(body))
      stream.on('error', (error) => { call.destroy(error) })
      stream.pipe(call)
    })
  }

  #unreachable(cause: NodeJS.ErrnoException): CodedError {
    if (cause instanceof CodedError) return cause
    if (cause.code === 'EACCES' || cause.code === 'EPERM') {
      return new CodedError('NF_CONTAINER_DENIED', `this user may not use the container engine at ${this.socket}`,
        'Join the group that owns the socket (docker), or run as root', { cause })
    }
    return new CodedError('NF_CONTAINER_ENGINE', `no container engine answers at ${this.socket}: ${cause.message}`,
      'Start it (on Debian it is the package docker.io), or say where it is: container.socket', { cause })
  }
}

function filter(filters: Readonly<Record<string, readonly string[]>>): string {
  return `filters=${encodeURIComponent(JSON.stringify(filters))}`
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function firstLine(text: string): string {
  return text.trim().split('\n')[0].replace(/\.$/, '')
}
