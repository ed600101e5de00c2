/**
 * A store in etcd (3.4 and newer), for controllers of several machines. Our requests as etcd's, over its HTTP/JSON gateway
 * (`etcd-gateway.ts`), and its replies as answers.
 *
 *     transact   Txn: compares of MOD (0: no such key), puts and deletes
 *     read       Range, linearizable
 *     watch      Watch from the revision behind; one stream each
 *     leases     numbers of 52 bits that we draw, since etcd's own do not fit into a number here; whole seconds, rounded up
 *
 * All keys are under a prefix, so that clusters can share an etcd; revisions are those of all of it. `failed` if etcd has refused, or
 * no endpoint was reached; no answer where nobody knows. Whatever ends a stream ends its watch: the asker reads again, there or at
 * the next endpoint.
 */

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { CodedError } from '../../base/coded-error.ts'
import type { Change, Store, StoreAnswer, StoreEntry, StoreRequest } from '../../controller/store.ts'
import { EtcdGateway, Grpc, type EtcdOutcome, type EtcdStream, type EtcdTls } from './etcd-gateway.ts'

export interface EtcdStoreOptions {
  /** `http://HOST:PORT` or `https://HOST:PORT`, of members of one etcd cluster. */
  readonly endpoints: readonly string[]
  /** Of all keys; every NFactor cluster has its own. Default `nfactor/`. */
  readonly prefix?: string
  /** Files in PEM: whom to trust, and who we are. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string }
  readonly user?: { readonly name: string; readonly password: string }
  /** A request takes no longer, ms. Default 1000. */
  readonly timeoutMs?: number
  /** For how long an etcd that is not there is waited for at open, ms. Default 5000. */
  readonly openMs?: number
  /** A reply, or a line of a watch, is no longer, characters. Default 64 million. */
  readonly replyMax?: number
}

/** Requests on their way; more are refused. */
const PENDING_MAX = 256
/** Answers that nobody has taken; then watches end. */
const ANSWERS_MAX = 10_000
const OPEN_RETRY_MS = 100

interface Header {
  readonly revision?: string
}

interface KeyValue {
  readonly key: string
  readonly value?: string
  readonly mod_revision: string
  readonly lease?: string
}

interface RangeReply {
  readonly header: Header
  readonly kvs?: readonly KeyValue[]
}

interface WatchReply {
  readonly header: Header
  readonly created?: boolean
  readonly canceled?: boolean
  readonly events?: readonly { readonly type?: 'DELETE'; readonly kv: KeyValue }[]
}

const encode = (text: string): string => Buffer.from(text).toString('base64')
const decode = (text = ''): string => Buffer.from(text, 'base64').toString()
const revisionOf = ({ revision = '0' }: Header): number => Number(revision)

/** All keys that begin with these bytes. */
function rangeOf(prefix: string): { readonly key: string; readonly range_end: string } {
  const end = Buffer.from(prefix)
  // UTF-8 has no byte 255.
  end[end.length - 1] = (end.at(-1) as number) + 1
  return { key: encode(prefix), range_end: end.toString('base64') }
}

export class EtcdStore implements Store {
  readonly #gateway: EtcdGateway
  readonly #prefix: string
  readonly #watches = new Map<number, EtcdStream>()
  readonly #answers: StoreAnswer[] = []
  #pending = 0
  #isOpen = true
  #defect: CodedError | undefined

  private constructor(gateway: EtcdGateway, prefix: string) {
    this.#gateway = gateway
    this.#prefix = prefix
  }

  /**
   * Waits until etcd answers as it should.
   *
   * @throws CodedError NF_STORE_UNREACHABLE, _DENIED, _VERSION, _FAILED, NF_CONFIG_INVALID, NF_FILE_UNREADABLE
   */
  static async open(options: EtcdStoreOptions): Promise<EtcdStore> {
    const { prefix = 'nfactor/', user, timeoutMs = 1000, openMs = 5000, replyMax } = options
    if (prefix === '') throw new CodedError('NF_CONFIG_INVALID', 'the prefix of keys in etcd is empty', 'Give every cluster its own')
    const endpoints = endpointsOf(options.endpoints)
    const gateway = new EtcdGateway({ endpoints, tls: tlsOf(options.tls ?? {}), user, timeoutMs,
      ...replyMax !== undefined && { replyMax } })
    for (const end = performance.now() + openMs; ; await sleep(OPEN_RETRY_MS)) {
      const outcome = await gateway.call('/v3/kv/range', { ...rangeOf(prefix), limit: '1' }, true)
      if (outcome.kind === 'done') return new EtcdStore(gateway, prefix)
      const problem = gateway.problem as CodedError
      if (problem.code !== 'NF_STORE_UNREACHABLE' || performance.now() > end) {
        gateway.close()
        throw problem
      }
    }
  }

  /** What is wrong with the store now, or was when it was last asked. */
  get problem(): CodedError | undefined {
    return this.#defect ?? this.#gateway.problem
  }

  submit(request: StoreRequest): void {
    const { id } = request
    if (request.kind === 'unwatch') {
      this.#watches.get(request.watch)?.end()
      this.#watches.delete(request.watch)
    } else if (!this.#isOpen || this.#pending >= PENDING_MAX) {
      this.#answers.push(request.kind === 'watch' ? { kind: 'watch-ended', id } : { kind: 'failed', id })
    } else if (request.kind === 'watch') {
      this.#watch(id, request.prefix, request.after)
    } else {
      this.#pending++
      this.#carryOut(request).catch((error: unknown) => {
        // A reply that is none: it is not known what it stands for.
        this.#defect = new CodedError('NF_STORE_FAILED', `etcd has said what nobody understands: ${String(error)}`)
        return undefined
      }).then((answer) => {
        this.#pending--
        if (answer !== undefined) this.#defect = undefined
        if (answer !== undefined && this.#isOpen) this.#answers.push(answer)
      })
    }
  }

  poll(): StoreAnswer | undefined {
    return this.#answers.shift()
  }

  /** Whatever is under way gets no answer. Leases are not given back. */
  close(): Promise<void> {
    this.#isOpen = false
    this.#gateway.close()
    return Promise.resolve()
  }

  async #carryOut(request: Exclude<StoreRequest, { kind: 'watch' | 'unwatch' }>): Promise<StoreAnswer | undefined> {
    const { id } = request
    switch (request.kind) {
      case 'transact':
        return this.#transact(request)
      case 'read': {
        const outcome = await this.#range(request.prefix)
        // Reading does nothing, so that it may be said of any reading that it was not done.
        if (outcome.kind !== 'done') return { kind: 'failed', id }
        const { header, kvs = [] } = outcome.body
        return { kind: 'entries', id, revision: revisionOf(header), entries: kvs.map((entry) => this.#toEntry(entry)) }
      }
      case 'grant': {
        const lease = Number(randomBytes(8).readBigUInt64BE() >> 12n) + 1
        const outcome = await this.#gateway.call('/v3/lease/grant', { ID: `${lease}`, TTL: `${Math.ceil(request.ttlUs / 1e6)}` }, true)
        // By a try that nothing was heard of.
        const isOurs = outcome.kind === 'refused' && /lease already exists/.test(outcome.reason)
        return outcome.kind === 'done' || isOurs ? { kind: 'granted', id, lease } : unlessUnknown(outcome, id)
      }
      case 'keep': {
        const outcome = await this.#gateway.call<{ result: { TTL?: string } }>('/v3/lease/keepalive', { ID: `${request.lease}` }, true)
        if (outcome.kind !== 'done') return unlessUnknown(outcome, id)
        return { kind: 'kept', id, isAlive: Number(outcome.body.result.TTL ?? 0) > 0 }
      }
      case 'revoke': {
        const outcome = await this.#gateway.call('/v3/lease/revoke', { ID: `${request.lease}` }, true)
        const isGone = outcome.kind === 'refused' && outcome.code === Grpc.NOT_FOUND
        return outcome.kind === 'done' || isGone ? { kind: 'revoked', id } : unlessUnknown(outcome, id)
      }
    }
  }

  async #transact({ id, compare, changes }: Extract<StoreRequest, { kind: 'transact' }>): Promise<StoreAnswer | undefined> {
    const key = (name: string): string => encode(this.#prefix + name)
    const outcome = await this.#gateway.call<{ header: Header; succeeded?: boolean }>('/v3/kv/txn', {
      compare: compare.map(({ key: name, revision }) => ({ target: 'MOD', result: 'EQUAL', key: key(name), mod_revision: `${revision}` })),
      success: changes.map(({ key: name, value, lease = 0 }) => value === null
        ? { request_delete_range: { key: key(name) } }
        : { request_put: { key: key(name), value: encode(value), lease: `${lease}` } }),
    }, false)
    if (outcome.kind === 'done') {
      return { kind: 'transacted', id, isDone: outcome.body.succeeded === true, revision: revisionOf(outcome.body.header) }
    }
    if (outcome.kind === 'refused' && /lease not found/.test(outcome.reason)) {
      // Refused as by a comparison; the revision has to be asked for.
      const now = await this.#range('', true)
      if (now.kind === 'done') return { kind: 'transacted', id, isDone: false, revision: revisionOf(now.body.header) }
    }
    return unlessUnknown(outcome, id)
  }

  #range(prefix: string, isCount = false): Promise<EtcdOutcome<RangeReply>> {
    return this.#gateway.call<RangeReply>('/v3/kv/range', { ...rangeOf(this.#prefix + prefix), count_only: isCount }, true)
  }

  #toEntry({ key, value, mod_revision: revision, lease = '0' }: KeyValue): StoreEntry {
    return { key: decode(key).slice(this.#prefix.length), value: decode(value), revision: Number(revision), lease: Number(lease) }
  }

  #watch(id: number, prefix: string, after: number): void {
    const end = (): void => {
      if (this.#watches.delete(id)) this.#answers.push({ kind: 'watch-ended', id })
    }
    const create = { ...rangeOf(this.#prefix + prefix), start_revision: `${after + 1}` }
    const stream = this.#gateway.stream('/v3/watch', { create_request: create }, (message) => {
      const { header, created = false, canceled = false, events = [] } = message as WatchReply
      const isTooMuch = this.#answers.length + events.length > ANSWERS_MAX
      if (canceled || isTooMuch) {
        stream.end()
        end()
      } else {
        if (created && revisionOf(header) < after) void this.#endIfInFuture(id, after, stream, end).catch(end)
        this.#tell(id, events)
      }
    }, end)
    this.#watches.set(id, stream)
  }

  /** This member may only be behind, and etcd waits for revisions that are to come. */
  async #endIfInFuture(id: number, after: number, stream: EtcdStream, end: () => void): Promise<void> {
    const outcome = await this.#range('', true)
    if (this.#watches.get(id) !== stream || (outcome.kind === 'done' && revisionOf(outcome.body.header) >= after)) return
    stream.end()
    end()
  }

  /** A message holds whole revisions, in order. */
  #tell(id: number, events: NonNullable<WatchReply['events']>): void {
    let revision = 0
    let changes: Change[] = []
    for (const { type, kv } of events) {
      const entry = this.#toEntry(kv)
      if (entry.revision !== revision) {
        changes = []
        revision = entry.revision
        this.#answers.push({ kind: 'changed', id, revision, changes })
      }
      changes.push({ key: entry.key, value: type === 'DELETE' ? null : entry.value, lease: entry.lease })
    }
  }
}

/** What was not carried out has failed; of what is unknown nothing is said. */
function unlessUnknown(outcome: EtcdOutcome<unknown>, id: number): StoreAnswer | undefined {
  return outcome.kind === 'refused' ? { kind: 'failed', id } : undefined
}

function endpointsOf(texts: readonly string[]): URL[] {
  if (texts.length === 0) throw new CodedError('NF_CONFIG_INVALID', 'etcd has no endpoints', 'Give at least one, as http://HOST:PORT')
  return texts.map((text) => {
    const url = URL.parse(text)
    const isPlain = url !== null && /^https?:$/.test(url.protocol) && url.pathname === '/' && url.search === '' && url.username === ''
    if (!isPlain) throw new CodedError('NF_CONFIG_INVALID', `${text} is no endpoint of etcd`, 'It must be http://HOST:PORT or https://HOST:PORT')
    return url
  })
}

function tlsOf(files: NonNullable<EtcdStoreOptions['tls']>): EtcdTls {
  const read = (what: string, path: string | undefined): Buffer | undefined => {
    if (path === undefined) return undefined
    try {
      return readFileSync(path)
    } catch (error) {
      throw new CodedError('NF_FILE_UNREADABLE', `${path}, the ${what} for etcd, cannot be read: ${(error as Error).message}`, '',
        { cause: error })
    }
  }
  return { ca: read('CA', files.ca), cert: read('certificate', files.cert), key: read('key', files.key) }
}
