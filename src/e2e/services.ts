/**
 * Services of the server's namespace: nginx, sshd with keys made here, iperf3, and our own peer server.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Random } from '../base/random.ts'
import { run } from '../ports/test-network.ts'
import { Port, type WebFile } from './outcome.ts'
import { KEEPER, spawnApart } from './spawn-apart.ts'

/** Bytes per second of a slow download, and how much nginx sends at once. */
const SLOW_RATE = 24_000
const FILES = 8

export const missingPrograms = [KEEPER, 'nginx', 'curl', 'iperf3', 'ssh', 'sshd', 'ssh-keygen']
  .filter((program) => spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin command -v ${program}`]).status !== 0)

export interface Services {
  readonly files: readonly WebFile[]
  readonly keyFile: string
  close(): Promise<void>
}

/** Starts them all in a namespace; their files are in `folder`. */
export async function startServices(namespace: string, folder: string, hosts: readonly string[]): Promise<Services> {
  const files = writeFiles(folder)
  const keyFile = join(folder, 'client-key')
  for (const name of ['client-key', 'host-key']) run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name))
  writeFileSync(join(folder, 'nginx.conf'), nginxConfig(folder))
  const children: ChildProcess[] = []
  const start = (...command: string[]): ChildProcess => {
    const child = spawnApart('ip', ['netns', 'exec', namespace, ...command], { stdio: ['ignore', 'pipe', 'ignore'] })
    children.push(child)
    return child
  }
  start('nginx', '-e', join(folder, 'nginx-error.log'), '-p', folder, '-c', join(folder, 'nginx.conf'))
  // sshd wants a folder of its own in /run: a mount that only it sees.
  const options = [`Port=${Port.ssh}`, `HostKey=${join(folder, 'host-key')}`, `AuthorizedKeysFile=${join(folder, 'client-key.pub')}`,
    'StrictModes=no', 'UsePAM=no', 'PidFile=none', 'PasswordAuthentication=no', 'UseDNS=no']
  const sshd = ['/usr/sbin/sshd', '-D', '-f', 'none', '-E', join(folder, 'sshd.log'), ...options.flatMap((option) => ['-o', option])]
  start('sh', '-c', 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"', 'sh', ...sshd)
  for (let index = 0; index < 5; index++) start('iperf3', '-s', '-J', '-p', `${Port.iperf + index}`)
  const peer = start(process.execPath, join(import.meta.dirname, 'peer-server.ts'))
  await new Promise<void>((resolve, reject) => {
    peer.stdout?.once('data', () => { resolve() })
    peer.once('close', (status) => { reject(new Error(`the peer server ended with ${status}`)) })
  })
  for (const child of children) child.stdout?.resume()
  await listening(namespace, [Port.web, Port.web2, Port.ssh, Port.iperf, Port.iperf + 4], hosts)
  return {
    files, keyFile,
    async close() {
      for (const child of children) child.kill('SIGTERM')
      await Promise.all(children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return
        await Promise.race([new Promise((resolve) => { child.once('close', resolve) }), sleep(2000)])
        child.kill('SIGKILL')
      }))
    },
  }
}

/** Files of noise, each of another size. */
function writeFiles(folder: string): WebFile[] {
  mkdirSync(join(folder, 'files'))
  const random = new Random(7)
  return Array.from({ length: FILES }, (_, index) => {
    const content = Buffer.alloc(100_000 + index * 30_000)
    for (let at = 0; at + 4 <= content.length; at += 4) content.writeUInt32LE(random.below(0xffffffff), at)
    const name = `noise-${index}`
    writeFileSync(join(folder, 'files', name), content)
    return { name, bytes: content.length, digest: createHash('sha256').update(content).digest('hex') }
  })
}

function nginxConfig(folder: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/nginx-${kind};`).join(' ')
  return `
user root; daemon off; worker_processes 1; pid ${folder}/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; sendfile_max_chunk 4k; keepalive_requests 1000000; default_type application/octet-stream; ${temporary}
  http2_chunk_size 4k;
  server {
    listen ${Port.web}; listen [::]:${Port.web}; listen ${Port.web2} http2; listen [::]:${Port.web2} http2;
    location /fast/ { alias ${folder}/files/; }
    location /slow/ { alias ${folder}/files/; limit_rate ${SLOW_RATE}; }
  }
}
`
}

/** Waits until all ports take connections there. */
async function listening(namespace: string, ports: readonly number[], hosts: readonly string[]): Promise<void> {
  const program = `
    import { connect } from 'node:net'
    const open = (host, port) => new Promise((resolve) => {
      connect(port, host).on('connect', function () { this.destroy(); resolve(true) }).on('error', () => { resolve(false) }) })
    const all = ${JSON.stringify(hosts.flatMap((host) => ports.map((port) => [host, port])))}
    for (let left = 100; left > 0; left--) {
      const missing = []
      for (const [host, port] of all) if (!await open(host, port)) missing.push(host + ' ' + port)
      if (missing.length === 0) process.exit(0)
      if (left === 1) console.error(missing.join(', '))
      await new Promise((resolve) => { setTimeout(resolve, 100) })
    }
    process.exit(1)`
  const { status, stderr } = await new Promise<{ status: number | null, stderr: string }>((resolve) => {
    let stderr = ''
    const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '--input-type=module', '-e', program],
      { stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr.setEncoding('utf8').on('data', (part: string) => { stderr += part })
    child.on('close', (code) => { resolve({ status: code, stderr }) })
  })
  if (status !== 0) throw new Error(`not listening: ${stderr}`)
}
