/**
 * TLS: the server shows who it is, and with an authority for clients they do so too. Certificates are made for the test.
 */

import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { Node } from './generated/nfactor/v1/node_pb.ts'
import { RpcClient } from './rpc-client.ts'
import { RpcServer, type TcpDoor } from './rpc-server.ts'
import { serve } from './rpc-service.ts'
import { testWorkload } from './rpc-test-peer.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-tls-'))
after(() => { rmSync(folder, { recursive: true }) })
const skip = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not here'

function openssl(...args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
}

/** An authority, or what it has signed. */
function certificate(name: string, authority?: string): void {
  const extension = authority === undefined ? 'basicConstraints=critical,CA:TRUE\n' : 'subjectAltName=IP:127.0.0.1,DNS:node.test\n'
  writeFileSync(join(folder, `${name}.ext`), extension)
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`,
    '-out', `${name}.csr`, '-subj', `/CN=${name}`)
  openssl('x509', '-req', '-in', `${name}.csr`, '-days', '2', '-extfile', `${name}.ext`, '-out', `${name}.pem`,
    ...authority === undefined ? ['-signkey', `${name}.key`] : ['-CA', `${authority}.pem`, '-CAkey', `${authority}.key`, '-CAcreateserial'])
}

const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
const services = [serve(Node, { pollWorkload: () => testWorkload, capture: async function* () { yield { bytes: Uint8Array.of(1) } } })]

async function withServer(door: Omit<TcpDoor, 'port'>, use: (url: string, port: number) => Promise<void>): Promise<void> {
  const server = new RpcServer({ tcp: { port: 0, ...door }, services })
  await server.open()
  try {
    await use(`https://127.0.0.1:${server.port}`, server.port)
  } finally {
    await server.close()
  }
}

if (skip === false) {
  certificate('ours')
  certificate('theirs')
  certificate('server', 'ours')
  certificate('client', 'ours')
  certificate('stranger', 'theirs')
}

test('TLS: the certificate is checked, the token demanded, HTTP/1.1 and HTTP/2 spoken', { skip }, async () => {
  const tokenFile = join(folder, 'token')
  const tls = { certificate: read('server.pem'), key: read('server.key') }
  await withServer({ host: '0.0.0.0', tls, access: { tokenFile } }, async (url, port) => {
    const trust = { tls: { authority: read('ours.pem') } }
    for (const protocol of ['connect', 'json', 'grpc'] as const) {
      const client = new RpcClient({ url, tokenFile, ...trust }, { protocol })
      assert.equal((await client.service(Node).pollWorkload({})).received, 7)
      for await (const { bytes } of client.service(Node).capture({})) assert.deepEqual([...bytes], [1])
      client.close()
      for (const [address, code] of [[{ url, ...trust }, 'NF_RPC_TOKEN'], [{ url, tokenFile }, 'NF_NODE_GONE'],
        [{ url, tokenFile, tls: { ...trust.tls, serverName: 'other.test' } }, 'NF_NODE_GONE'],
        [{ url: url.replace('https', 'http'), tokenFile }, 'NF_NODE_GONE']] as const) {
        const refused = new RpcClient(address, { protocol })
        await assert.rejects(refused.service(Node).pollWorkload({}), { name: 'CodedError', code }, protocol)
        refused.close()
      }
    }
    for (const alpn of ['h2', 'http/1.1']) {
      const socket = connect({ port, host: '127.0.0.1', ca: read('ours.pem'), ALPNProtocols: [alpn] })
      await once(socket, 'secureConnect')
      assert.equal(socket.alpnProtocol, alpn)
      socket.destroy()
    }
    for (const bytes of ['\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n', '\xff'.repeat(1000)]) {
      const socket = connectTcp(port, '127.0.0.1')
      socket.on('error', () => undefined).resume()
      socket.write(Buffer.from(bytes, 'latin1'))
      await new Promise((resolve) => { socket.on('close', resolve) })
    }
    const old = connect({ port, host: '127.0.0.1', ca: read('ours.pem'), maxVersion: 'TLSv1.1', minVersion: 'TLSv1' })
    await assert.rejects(once(old, 'secureConnect'))
    if (spawnSync('curl', ['--version']).status === 0) {
      const { stdout } = await promisify(execFile)('curl', ['-sS', '--cacert', join(folder, 'ours.pem'), '-H', 'content-type: application/json',
        '-H', `authorization: Bearer ${readFileSync(tokenFile, 'utf8').trim()}`, '-d', '{}', '-w', ' %{http_version}',
        `${url}/nfactor.v1.Node/PollWorkload`])
      assert.ok(stdout.endsWith(' 2'))
      assert.deepEqual(JSON.parse(stdout.slice(0, -2)), testWorkload)
    }
  })
})

test('mutual TLS: only who has a certificate of the authority is let in', { skip }, async () => {
  const tls = { certificate: read('server.pem'), key: read('server.key'), clientAuthority: read('ours.pem') }
  await withServer({ tls, access: 'certificate' }, async (url) => {
    const authority = read('ours.pem')
    for (const protocol of ['connect', 'json', 'grpc'] as const) {
      const client = new RpcClient({ url, tls: { authority, certificate: read('client.pem'), key: read('client.key') } }, { protocol })
      assert.equal((await client.service(Node).pollWorkload({})).received, 7)
      client.close()
      for (const own of [{}, { certificate: read('stranger.pem'), key: read('stranger.key') }]) {
        const refused = new RpcClient({ url, tls: { authority, ...own } }, { protocol })
        await assert.rejects(refused.service(Node).pollWorkload({}), { name: 'CodedError', code: 'NF_NODE_GONE' })
        refused.close()
      }
    }
  })
})

test('certificates that cannot be used are told', { skip }, async () => {
  await assert.rejects(withServer({ tls: { certificate: read('server.pem'), key: read('client.key') }, access: 'anybody' }, async () => {}),
    { code: 'NF_CONFIG_INVALID' })
  await assert.rejects(withServer({ tls: { certificate: 'no', key: 'no' }, access: 'anybody' }, async () => {}), { code: 'NF_CONFIG_INVALID' })
})
