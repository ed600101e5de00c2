/**
 * The client's programs that others have written: curl, ssh, iperf3. What they print is checked and timed here.
 */

import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Port, Tally, type ClientPlan, type Outcome, type Session } from './outcome.ts'
import { spawnApart } from './spawn-apart.ts'

const PATIENCE_MS = 30_000
const CURLS = 8
const LOOK_MS = 20
const ECHO_MS = 50
const IPERF_INTERVAL_S = 0.1

const children = new Set<ChildProcess>()
const folders = new Set<string>()

/** Leaves nothing behind, however this process ends. */
export function cleanUp(): void {
  for (const child of children) child.kill('SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
}

function start(program: string, args: readonly string[], input: 'pipe' | 'ignore' = 'ignore'): ChildProcess {
  const child = spawnApart(program, args, { stdio: [input, 'pipe', 'pipe'] })
  children.add(child)
  child.on('close', () => { children.delete(child) })
  return child
}

/**
 * curl: so many downloads at a time, of files that the server sends slowly; eight processes, round after round until the stop, two of them
 * over HTTP/2. A stall is how long a file does not grow, as seen every 20 ms.
 */
export function curlSession({ hosts, downloads, files }: ClientPlan): Session {
  const tally = new Tally()
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-curl-'))
  folders.add(folder)
  const growing = new Map<string, { size: number, readonly whole: number, readonly hear: () => void }>()
  const looking = setInterval(() => {
    for (const [path, file] of growing) {
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
      if (size === file.size) continue
      file.hear()
      file.size = size
      if (size === file.whole) growing.delete(path)
    }
  }, LOOK_MS)
  let isOver = false

  const round = (group: number, count: number): Promise<void> => new Promise((resolve) => {
    const isHttp2 = group % 4 >= 2 && group < 4
    const host = hosts[group % hosts.length]
    const server = `http://${host.includes(':') ? `[${host}]` : host}:${isHttp2 ? Port.web2 : Port.web}`
    const wanted = Array.from({ length: Math.ceil(downloads / CURLS) }, (_, index) => {
      const file = files[(group + count + index) % files.length]
      return { ...file, path: join(folder, `${group}-${count}-${index}`) }
    })
    for (const { path, bytes } of wanted) {
      tally.connections++
      growing.set(path, { size: 0, whole: bytes, hear: tally.clock.open() })
    }
    const curl = start('curl', ['--silent', '--show-error', '--fail', '--no-buffer', '--parallel', '--parallel-immediate',
      '--parallel-max', `${wanted.length}`, ...isHttp2 ? ['--http2-prior-knowledge'] : [],
      ...wanted.flatMap(({ name, path }) => ['-o', path, `${server}/slow/${name}`])])
    let complaint = ''
    curl.stdout?.resume()
    curl.stderr?.setEncoding('utf8').on('data', (part: string) => { complaint += part })
    curl.on('close', (status, signal) => {
      if (status !== 0) tally.fault(`curl: ${signal ?? status} ${complaint.trim()}`)
      for (const { name, path, digest } of wanted) {
        growing.delete(path)
        const content = statSync(path, { throwIfNoEntry: false }) === undefined ? Buffer.alloc(0) : readFileSync(path)
        if (createHash('sha256').update(content).digest('hex') === digest) tally.complete++
        else tally.fault(`curl: ${name} differs, ${content.length} bytes`)
        rmSync(path, { force: true })
      }
      resolve()
    })
  })
  const ends = Array.from({ length: CURLS }, async (_, group) => {
    for (let count = 0; !isOver; count++) await round(group, count)
  })
  return {
    async stop() {
      isOver = true
      const late = sleep(PATIENCE_MS).then(() => { tally.fault(`curl: ${growing.size} downloads do not end`) })
      await Promise.race([Promise.all(ends), late])
      clearInterval(looking)
      return tally.outcome('curl')
    },
  }
}

/** ssh: a session that echoes a line every 50 ms. */
export function sshSession({ hosts: [host], keyFile }: ClientPlan): Session {
  const tally = new Tally()
  const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'IdentitiesOnly=yes', 'BatchMode=yes', 'LogLevel=ERROR']
  const ssh = start('ssh', ['-F', 'none', '-T', '-p', `${Port.ssh}`, '-i', keyFile, ...options.flatMap((option) => ['-o', option]),
    `root@${host}`, 'cat'], 'pipe')
  tally.connections++
  const hear = tally.clock.open()
  let sent = 0
  let rest = ''
  let isOver = false
  let complaint = ''
  ssh.stdout?.setEncoding('utf8').on('data', (part: string) => {
    hear()
    const lines = (rest + part).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (line !== `${tally.complete}`) tally.fault(`ssh: ${line} instead of ${tally.complete}`)
      tally.complete++
    }
  })
  ssh.stderr?.setEncoding('utf8').on('data', (part: string) => { complaint += part })
  ssh.stdin?.on('error', () => { /* its end says more */ })
  const ended = new Promise<void>((resolve) => {
    ssh.on('close', (status) => {
      if (!isOver || status !== 0) tally.fault(`ssh: ended with ${status} ${complaint.trim()}`)
      resolve()
    })
  })
  const timer = setInterval(() => { ssh.stdin?.write(`${sent++}\n`) }, ECHO_MS)
  return {
    async stop() {
      clearInterval(timer)
      isOver = true
      ssh.stdin?.end()
      await Promise.race([ended, sleep(PATIENCE_MS)])
      if (tally.complete !== sent) tally.fault(`ssh: ${tally.complete} of ${sent} lines`)
      return tally.outcome('ssh')
    },
  }
}

interface IperfSums {
  readonly bytes: number
  readonly packets?: number
  readonly lost_packets?: number
  readonly out_of_order?: number
}

interface IperfReport {
  readonly error?: string
  readonly intervals: readonly { readonly sum: IperfSums }[]
  readonly end: { readonly sum_received?: IperfSums, readonly sum?: IperfSums }
  readonly server_output_json?: IperfReport
}

const IPERF_KINDS = [
  { name: 'iperf3 tcp up', args: ['-b', '5M'] }, { name: 'iperf3 tcp down', args: ['-b', '5M', '-R'] },
  { name: 'iperf3 udp up', args: ['-u', '-b', '2M', '-l', '1200'] }, { name: 'iperf3 udp down', args: ['-u', '-b', '2M', '-l', '1200', '-R'] },
] as const

/** iperf3: TCP and UDP, up and down, for a fixed time. A stall is so many empty intervals at the receiver, one behind the other. */
export function iperfSessions({ hosts, iperfSeconds }: ClientPlan): Session[] {
  return IPERF_KINDS.map(({ name, args }, index) => {
    const iperf = start('iperf3', ['-c', hosts[index % hosts.length], '-p', `${Port.iperf + index}`, '-t', `${iperfSeconds}`,
      '-i', `${IPERF_INTERVAL_S}`, '-J', '--get-server-output', ...args])
    let output = ''
    iperf.stdout?.setEncoding('utf8').on('data', (part: string) => { output += part })
    const ended = new Promise<number | null>((resolve) => { iperf.on('close', resolve) })
    return {
      async stop() {
        const status = await Promise.race([ended, sleep(iperfSeconds * 1000 + PATIENCE_MS).then(() => -1)])
        return iperfOutcome(name, status, output, args.includes('-R' as never))
      },
    }
  })
}

function iperfOutcome(name: string, status: number | null, output: string, isDown: boolean): Outcome {
  const tally = new Tally()
  tally.connections = 1
  let report: IperfReport
  try {
    report = JSON.parse(output) as IperfReport
  } catch {
    tally.fault(`${name}: ended with ${status}, without a report`)
    return tally.outcome(name)
  }
  if (status !== 0 || report.error !== undefined) tally.fault(`${name}: ${report.error ?? `status ${status}`}`)
  const receiver = isDown ? report : report.server_output_json
  let empty = 0
  // The first intervals are the connection's beginning, the last ones its end.
  for (const { sum: { bytes } } of receiver?.intervals.slice(2, -2) ?? []) {
    empty = bytes === 0 ? empty + 1 : 0
    tally.clock.longestMs = Math.max(tally.clock.longestMs, empty * IPERF_INTERVAL_S * 1000)
  }
  const sums = receiver?.end.sum_received ?? receiver?.end.sum
  tally.complete = sums?.bytes ?? 0
  if (tally.complete === 0) tally.fault(`${name}: nothing came`)
  tally.lost = receiver?.end.sum?.lost_packets ?? 0
  return tally.outcome(name)
}
