import { after, before, describe, test } from 'node:test'
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CodedError, type ErrorCode } from '../../base/coded-error.ts'
import { storeContract } from '../../controller/store-contract.ts'
import type { StoreAnswer, StoreRequest } from '../../controller/store.ts'
import { EtcdStore, type EtcdStoreOptions } from './etcd-store.ts'
import { callEtcd, EtcdServers, freePorts, noEtcd } from './testing/etcd-servers.ts'
import { countsThroughKills, deposedLeaderWritesNothing, holds, leadPassesOnWhenKilled } from './testing/real-store-suite.ts'

const PATIENCE_MS = 15_000
const put: StoreRequest = { kind: 'transact', id: 1, compare: [], changes: [{ key: 'a', value: '1' }] }
const readAll: StoreRequest = { kind: 'read', id: 2, prefix: '' }

/** The first answer that comes, if one does in time. */
async function next(store: EtcdStore, patienceMs = PATIENCE_MS): Promise<StoreAnswer | undefined> {
  for (const end = performance.now() + patienceMs; performance.now() < end; await sleep(2)) {
    const answer = store.poll()
    if (answer !== undefined) return answer
  }
  return undefined
}

function ask(store: EtcdStore, request: StoreRequest, patienceMs?: number): Promise<StoreAnswer | undefined> {
  store.submit(request)
  return next(store, patienceMs)
}

/** The answer to this very request: one before may come late. */
async function reply(store: EtcdStore, request: StoreRequest, patienceMs: number): Promise<StoreAnswer | undefined> {
  store.submit(request)
  for (const end = performance.now() + patienceMs; performance.now() < end;) {
    const answer = await next(store, end - performance.now())
    if (answer?.id === request.id) return answer
  }
  return undefined
}

async function assertRefused(options: EtcdStoreOptions, code: ErrorCode, text: RegExp): Promise<void> {
  await assert.rejects(async () => { await (await EtcdStore.open({ openMs: 300, ...options })).close() }, (error) => {
    assert.ok(error instanceof CodedError, String(error))
    assert.equal(error.code, code, error.toLine())
    assert.match(error.toLine(), text)
    assert.ok(!error.toLine().includes('\n'))
    return true
  })
}

describe('one etcd', { skip: noEtcd }, () => {
  let etcd: EtcdServers
  before(async () => { etcd = await EtcdServers.start() })
  after(() => etcd.close())

  const spec = (prefix: string) => ({ kind: 'etcd' as const, endpoints: etcd.endpoints, prefix })

  for (const [index, one] of storeContract.entries()) {
    if (one.isLong !== true) test(`contract: ${one.name}`, () => holds(one, spec(`short/${index}/`)))
  }
  describe('what takes time', { concurrency: true }, () => {
    for (const [index, one] of storeContract.entries()) {
      if (one.isLong === true) test(`contract: ${one.name}`, () => holds(one, spec(`long/${index}/`)))
    }
    test('processes that are killed while they write leave whole transactions', () => countsThroughKills(spec('count/')))
    test('a leader that is killed is followed by another', async (t) => {
      for (const gap of await leadPassesOnWhenKilled(spec('lead/'))) t.diagnostic(`nobody led for ${Math.round(gap)} ms`)
    })
    test('a leader that stands still is deposed, and writes nothing', () => deposedLeaderWritesNothing(spec('deposed/')))
  })

  test('clusters that share an etcd do not see each other', async () => {
    const stores = await Promise.all(['one/', 'two/'].map((prefix) => EtcdStore.open({ endpoints: etcd.endpoints, prefix })))
    const [one, two] = stores as [EtcdStore, EtcdStore]
    const made = await ask(one, put) as Extract<StoreAnswer, { kind: 'transacted' }>
    assert.equal(made.isDone, true)
    two.submit({ kind: 'watch', id: 3, prefix: '', after: made.revision - 1 })
    const seen = await ask(two, readAll)
    assert.deepEqual(seen?.kind === 'entries' && seen.entries, [])
    await ask(one, { ...put, id: 4 })
    const own = await ask(two, { ...put, id: 5, changes: [{ key: 'b', value: '' }] })
    const told = own?.kind === 'changed' ? own : await next(two)
    assert.deepEqual(told?.kind === 'changed' && told.changes, [{ key: 'b', value: '', lease: 0 }])
    for (const store of stores) await store.close()
  })

  test('a watch that begins before what is compacted ends', async () => {
    const store = await EtcdStore.open({ endpoints: etcd.endpoints, prefix: 'compacted/' })
    const first = await ask(store, put) as Extract<StoreAnswer, { kind: 'transacted' }>
    for (let i = 0; i < 3; i++) await ask(store, put)
    await callEtcd(etcd.endpoints[0] as string, '/v3/kv/compaction', { revision: `${first.revision + 2}` })
    assert.deepEqual(await ask(store, { kind: 'watch', id: 9, prefix: '', after: first.revision }), { kind: 'watch-ended', id: 9 })
    const told = await ask(store, { kind: 'watch', id: 10, prefix: '', after: first.revision + 2 })
    assert.equal(told?.kind === 'changed' && told.revision, first.revision + 3)
    await store.close()
  })

  test('what etcd refuses has failed, and a reason is at hand', async () => {
    const store = await EtcdStore.open({ endpoints: etcd.endpoints, prefix: 'refused/' })
    const many = Array.from({ length: 200 }, (_, index) => ({ key: `${index}`, value: '' }))
    assert.deepEqual(await ask(store, { ...put, changes: many }), { kind: 'failed', id: 1 })
    assert.match(store.problem?.toLine() ?? '', /^NF_STORE_FAILED: etcd at 127.*too many operations/)
    assert.equal((await ask(store, put))?.kind, 'transacted')
    assert.equal(store.problem, undefined)
    await store.close()
  })

  test('a store that is closed, or asked for too much at once, refuses', async () => {
    const store = await EtcdStore.open({ endpoints: etcd.endpoints, prefix: 'closed/', timeoutMs: 10_000 })
    for (let id = 1; id <= 300; id++) store.submit({ kind: 'read', id, prefix: '' })
    const kinds: string[] = []
    while (kinds.length < 300) kinds.push((await next(store))?.kind ?? 'none')
    assert.deepEqual(['entries', 'failed'].map((kind) => kinds.filter((one) => one === kind).length), [256, 44])
    await store.close()
    assert.deepEqual(await ask(store, put), { kind: 'failed', id: 1 })
    assert.deepEqual(await ask(store, { kind: 'watch', id: 3, prefix: '', after: 0 }), { kind: 'watch-ended', id: 3 })
  })
})

describe('three members', { skip: noEtcd }, () => {
  test('one that is killed or hangs is left for another; what was sent to it is not said to have failed', async () => {
    const etcd = await EtcdServers.start({ members: 3 })
    const store = await EtcdStore.open({ endpoints: etcd.endpoints, prefix: 'three/' })
    try {
      const { revision } = await ask(store, put) as Extract<StoreAnswer, { kind: 'transacted' }>
      store.submit({ kind: 'watch', id: 5, prefix: '', after: revision })
      await ask(store, readAll)
      // It hangs: a write gets no answer, a reading one from another member, and the watch ends.
      etcd.signal(0, 'SIGSTOP')
      store.submit({ ...put, id: 6 })
      const kinds = new Set<string>()
      for (const end = performance.now() + PATIENCE_MS; performance.now() < end && kinds.size < 2;) {
        const answer = await ask(store, readAll, 3000)
        if (answer === undefined) continue
        assert.notEqual(answer.id, 6)
        // An election may be under way.
        if (answer.kind !== 'failed') kinds.add(answer.kind)
      }
      assert.deepEqual([...kinds].sort(), ['entries', 'watch-ended'])
      // It goes on, and may carry out what it was sent.
      etcd.signal(0, 'SIGCONT')
      await etcd.ready()
      // It dies: nobody listens, so that the next is asked at once.
      await etcd.kill(1)
      let done = 0
      for (const end = performance.now() + PATIENCE_MS; performance.now() < end && done < 5;) {
        if ((await reply(store, { ...put, id: 10 + done }, 2000))?.kind === 'transacted') done++
      }
      assert.equal(done, 5)
      // Without a majority nothing is done, and a write is not said to have failed while that is not certain.
      await etcd.kill(2)
      const alone = await reply(store, { ...readAll, id: 20 }, 4000)
      assert.ok(alone === undefined || alone.kind === 'failed', alone?.kind)
      assert.equal(store.problem?.code, 'NF_STORE_UNREACHABLE')
      etcd.run(1)
      etcd.run(2)
      await etcd.ready()
      assert.equal((await reply(store, { ...put, id: 21 }, PATIENCE_MS))?.kind, 'transacted')
    } finally {
      await store.close()
      await etcd.close()
    }
  })
})

describe('who may', { skip: noEtcd, concurrency: true }, () => {
  test('users and passwords; a token that is no longer valid is got anew', async () => {
    const etcd = await EtcdServers.start()
    try {
      const [endpoint] = etcd.endpoints as [string]
      await callEtcd(endpoint, '/v3/auth/user/add', { name: 'root', password: 'secret' })
      await callEtcd(endpoint, '/v3/auth/role/add', { name: 'root' })
      await callEtcd(endpoint, '/v3/auth/user/grant', { user: 'root', role: 'root' })
      await callEtcd(endpoint, '/v3/auth/enable', {})
      await assertRefused({ endpoints: etcd.endpoints }, 'NF_STORE_DENIED', /user/)
      await assertRefused({ endpoints: etcd.endpoints, user: { name: 'root', password: 'wrong' } }, 'NF_STORE_DENIED', /authentication failed/)
      const user = { name: 'root', password: 'secret' }
      const store = await EtcdStore.open({ endpoints: etcd.endpoints, user })
      assert.equal((await ask(store, put))?.kind, 'transacted')
      // Tokens are in the memory of the members.
      await etcd.kill(0)
      assert.deepEqual(await ask(store, put), { kind: 'failed', id: 1 })
      etcd.run(0)
      for (const end = performance.now() + PATIENCE_MS; (await ask(store, readAll))?.kind !== 'entries';) assert.ok(performance.now() < end)
      assert.equal((await ask(store, put))?.kind, 'transacted')
      assert.deepEqual(await ask(store, { kind: 'keep', id: 3, lease: 77 }), { kind: 'kept', id: 3, isAlive: false })
      await store.close()
    } finally {
      await etcd.close()
    }
  })

  test('certificates', { skip: spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed' }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nfactor-tls-'))
    const file = (name: string): string => join(folder, name)
    const openssl = (...args: string[]): void => {
      const { status, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    for (const name of ['ca', 'other']) {
      openssl('req', '-x509', ...key, '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`)
    }
    openssl('req', '-x509', ...key, '-days', '2', '-subj', '/CN=member', '-addext', 'subjectAltName=IP:127.0.0.1', '-addext',
      'basicConstraints=critical,CA:FALSE', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-keyout', 'member.key', '-out', 'member.pem')
    const tls = { ca: file('ca.pem'), cert: file('member.pem'), key: file('member.key') }
    const etcd = await EtcdServers.start({
      args: ['--cert-file', tls.cert, '--key-file', tls.key, '--trusted-ca-file', tls.ca, '--client-cert-auth'], access: { tls },
    })
    try {
      const { endpoints } = etcd
      const store = await EtcdStore.open({ endpoints, tls })
      const { revision } = await ask(store, put) as Extract<StoreAnswer, { kind: 'transacted' }>
      assert.equal((await ask(store, { kind: 'watch', id: 3, prefix: '', after: revision - 1 }))?.kind, 'changed')
      await store.close()
      await assertRefused({ endpoints, tls: { ...tls, ca: file('other.pem') } }, 'NF_STORE_DENIED', /certificate/)
      await assertRefused({ endpoints, tls: { ca: tls.ca } }, 'NF_STORE_DENIED', /certificate/)
      await assertRefused({ endpoints, tls: { ca: file('none.pem') } }, 'NF_FILE_UNREADABLE', /none\.pem, the CA for etcd/)
    } finally {
      await etcd.close()
      rmSync(folder, { recursive: true, force: true })
    }
  })

  test('an etcd without room refuses to write', async () => {
    const etcd = await EtcdServers.start({ args: ['--quota-backend-bytes', '400000'] })
    const store = await EtcdStore.open({ endpoints: etcd.endpoints })
    try {
      let answer: StoreAnswer | undefined
      for (let i = 0; i < 100 && answer?.kind !== 'failed'; i++) {
        answer = await ask(store, { ...put, changes: [{ key: `${i}`, value: 'x'.repeat(20_000) }] })
      }
      assert.equal(answer?.kind, 'failed')
      assert.equal(store.problem?.code, 'NF_STORE_FULL')
      assert.equal((await ask(store, readAll))?.kind, 'entries')
    } finally {
      await store.close()
      await etcd.close()
    }
  })
})

describe('without etcd', () => {
  /** Answers readings as etcd does, so that the store opens, and transactions as it is told. */
  async function scripted(
    onTransaction: (respond: (status: number, text: string) => void, cut: () => void) => void,
    onWatch: (response: ServerResponse) => void = () => {},
  ): Promise<Server> {
    const server = createServer((request, response) => {
      request.resume().on('end', () => {
        const respond = (status: number, text: string): void => { response.writeHead(status).end(text) }
        if (request.url === '/v3/kv/txn') onTransaction(respond, () => { request.socket.destroy() })
        else if (request.url === '/v3/watch') onWatch(response)
        else respond(200, '{"header":{"revision":"1"}}')
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return server
  }

  /** 12 messages of a thousand revisions each. */
  function tellMuch(response: ServerResponse): void {
    const header = { revision: '20000' }
    const events = (first: number): unknown[] =>
      Array.from({ length: 1000 }, (_, index) => ({ kv: { key: 'bmZhY3Rvci9h', value: '', mod_revision: `${first + index}` } }))
    for (const result of [{ created: true }, ...Array.from({ length: 12 }, (_, index) => ({ events: events(index * 1000 + 2) }))]) {
      response.write(`${JSON.stringify({ result: { header, ...result } })}\n`)
    }
    // Its end is the other side's.
    response.on('close', () => { left.resolve() })
  }
  const left = Promise.withResolvers<void>()

  test('a watch whose answers nobody takes ends', { timeout: 30_000 }, async () => {
    const server = await scripted(() => {}, tellMuch)
    const { port } = server.address() as AddressInfo
    const store = await EtcdStore.open({ endpoints: [`http://127.0.0.1:${port}`] })
    store.submit({ kind: 'watch', id: 3, prefix: '', after: 1 })
    try {
      await left.promise
      for (let revision = 2; revision <= 10_001; revision++) {
        assert.deepEqual(store.poll(), { kind: 'changed', id: 3, revision, changes: [{ key: 'a', value: '', lease: 0 }] })
      }
      assert.deepEqual([store.poll(), store.poll()], [{ kind: 'watch-ended', id: 3 }, undefined])
    } finally {
      await store.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })

  test('a watch that is told nonsense, or nothing, ends', async () => {
    const told = ['', '{"result":{"created":true}}\n', '{"result":{"events":[{}]}}\n', 'no JSON\n', '{"error":{"grpc_code":14}}\n', null]
    let line: string | null = null
    const server = await scripted(() => {}, (response) => { if (line !== null) response.end(line) })
    const { port } = server.address() as AddressInfo
    const store = await EtcdStore.open({ endpoints: [`http://127.0.0.1:${port}`], timeoutMs: 300 })
    for (line of told) assert.deepEqual(await ask(store, { kind: 'watch', id: 3, prefix: '', after: 1 }), { kind: 'watch-ended', id: 3 })
    await store.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  test('a reply, and a line of a watch, that is too long is none, and the watch ends', async () => {
    const replyMax = 2000
    let length = replyMax
    /** JSON of that length. */
    const padded = (value: object): string => {
      const bare = JSON.stringify({ ...value, pad: '' }).length
      return JSON.stringify({ ...value, pad: 'x'.repeat(length - bare) })
    }
    const told = { result: { header: { revision: '2' }, events: [{ kv: { key: 'bmZhY3Rvci9h', value: '', mod_revision: '2' } }] } }
    let isWhole = true
    const server = await scripted((respond) => { respond(200, padded({ header: { revision: '2' }, succeeded: true })) }, (response) => {
      // The rest of its line never comes, or all of it does, and another one behind it.
      response.write('{"result":{"header":{"revision":"1"},"created":true}}\n')
      response.write(isWhole ? `${padded(told)}\n${padded(told)}\n` : padded(told))
    })
    const { port } = server.address() as AddressInfo
    const store = await EtcdStore.open({ endpoints: [`http://127.0.0.1:${port}`], replyMax, timeoutMs: 5000 })
    const watch: StoreRequest = { kind: 'watch', id: 3, prefix: '', after: 1 }
    try {
      assert.equal((await ask(store, put))?.kind, 'transacted')
      assert.equal((await ask(store, watch))?.kind, 'changed')
      assert.equal((await next(store))?.kind, 'changed')
      length++
      for (isWhole of [true, false]) assert.deepEqual(await ask(store, { ...watch, id: 4 }), { kind: 'watch-ended', id: 4 })
      store.submit(put)
      // It may have been carried out, so that nothing is said of it; the watch at that endpoint ends.
      assert.deepEqual(await next(store), { kind: 'watch-ended', id: 3 })
      assert.match(store.problem?.toLine() ?? '', /its answer is too long/)
      assert.equal(await next(store, 50), undefined)
    } finally {
      await store.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })

  async function answerTo(onTransaction: Parameters<typeof scripted>[0]): Promise<StoreAnswer | undefined> {
    const server = await scripted(onTransaction)
    const { port } = server.address() as AddressInfo
    const store = await EtcdStore.open({ endpoints: [`http://127.0.0.1:${port}`], timeoutMs: 300 })
    try {
      return await ask(store, put, 600)
    } finally {
      await store.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }

  test('failed is said only of what was not carried out for certain', async () => {
    const failed = { kind: 'failed', id: 1 }
    assert.equal(await answerTo(() => {}), undefined, 'it hangs')
    assert.equal(await answerTo((_, cut) => { cut() }), undefined, 'it cuts the connection')
    assert.equal(await answerTo((respond) => { respond(503, '{"code":14,"message":"etcdserver: request timed out"}') }), undefined)
    assert.equal(await answerTo((respond) => { respond(502, '<html>Bad gateway</html>') }), undefined)
    assert.equal(await answerTo((respond) => { respond(200, 'no JSON') }), undefined)
    assert.equal(await answerTo((respond) => { respond(200, '{}') }), undefined, 'a reply without a header')
    assert.deepEqual(await answerTo((respond) => { respond(503, '{"code":14,"message":"etcdserver: no leader"}') }), failed)
    assert.deepEqual(await answerTo((respond) => { respond(400, '{"code":3,"message":"etcdserver: request is too large"}') }), failed)
  })

  test('an endpoint that is not there is passed over, and is the reason if there is no other', async () => {
    const [free] = await freePorts(1)
    const nobody = `http://127.0.0.1:${free}`
    await assertRefused({ endpoints: [nobody] }, 'NF_STORE_UNREACHABLE', /127\.0\.0\.1:\d+: nobody listens there/)
    const server = await scripted((respond) => { respond(200, '{"header":{"revision":"2"},"succeeded":true}') })
    const { port } = server.address() as AddressInfo
    const store = await EtcdStore.open({ endpoints: [nobody, `http://127.0.0.1:${port}`] })
    assert.deepEqual(await ask(store, put), { kind: 'transacted', id: 1, isDone: true, revision: 2 })
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    // The connection that was kept is gone; from then on nobody is there for certain.
    for (const end = performance.now() + PATIENCE_MS; (await ask(store, put, 500))?.kind !== 'failed';) assert.ok(performance.now() < end)
    assert.deepEqual(await ask(store, { kind: 'watch', id: 3, prefix: '', after: 0 }), { kind: 'watch-ended', id: 3 })
    await store.close()
  })

  test('what cannot be an endpoint, or is no etcd, is refused in one line', async () => {
    await assertRefused({ endpoints: [] }, 'NF_CONFIG_INVALID', /no endpoints/)
    for (const endpoint of ['localhost:2379', 'ftp://a', 'http://a/b', 'nothing']) {
      await assertRefused({ endpoints: [endpoint] }, 'NF_CONFIG_INVALID', /is no endpoint of etcd.*http:\/\/HOST:PORT/)
    }
    await assertRefused({ endpoints: ['http://127.0.0.1:1'], prefix: '' }, 'NF_CONFIG_INVALID', /prefix/)
    const web = createServer((_, response) => { response.writeHead(404).end('404 page not found') })
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
    const { port } = web.address() as AddressInfo
    await assertRefused({ endpoints: [`http://127.0.0.1:${port}`] }, 'NF_STORE_VERSION', /etcd 3\.4 or newer/)
    web.closeAllConnections()
    web.close()
  })
})
