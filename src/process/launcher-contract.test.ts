/**
 * The contract of launchers: what a cluster may expect of processes and of containers alike. And what is of containers alone: how little
 * they may do, those that nobody has noted, and what is said where they cannot be started.
 *
 * Containers need an engine of the test's own; where there can be none, they are skipped.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { endContainersOf, prepareContainers } from './cluster-containers.ts'
import type { ClusterSpec } from './cluster-file.ts'
import { ClusterFolder, isRunning, isStopped, startTicksOf, type ProcessEntry } from './cluster-folder.ts'
import type { SwitchMember } from './cluster-members.ts'
import { ContainerEngine } from './container-engine.ts'
import { ownImage } from './container-image.ts'
import { ContainerLauncher, endContainers } from './container-launcher.ts'
import { callOnce } from './line-rpc.ts'
import { LocalLauncher } from './local-launcher.ts'
import { allowedCpus } from './node-cpus.ts'
import { processLauncher, startError, type NodeEnd, type NodeLauncher } from './node-launcher.ts'
import type { NodeStatus } from './node-status.ts'
import { engineSkip, TestEngine } from './testing/test-engine.ts'

const PATIENCE_MS = 60_000
const CLUSTER_ID = 7
const home = mkdtempSync(join(tmpdir(), 'nfactor-launch-'))
after(() => {
  for (const controller of controllers) controller.die()
  rmSync(home, { recursive: true, force: true })
})

async function until<T>(what: string, look: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    await new Promise((next) => { setTimeout(next, 10) })
  }
  const ends = [...controllers].flatMap(({ ended }) => ended.map(({ end }) => end))
  return assert.fail(`waited in vain: ${what}; ends so far: ${JSON.stringify(ends.slice(-3))}`)
}

/** All that there have been: a test that fails leaves one that goes on. */
const controllers = new Set<Controller>()

/** A launcher as a controller has it, and what it has told. */
class Controller {
  readonly started: ProcessEntry[] = []
  readonly ended: { readonly entry: ProcessEntry, readonly end: NodeEnd | undefined }[] = []
  readonly launcher: LocalLauncher
  readonly #timer: NodeJS.Timeout

  constructor(folder: ClusterFolder, launcher: NodeLauncher, external: SwitchMember['external'] = { type: 'none' }) {
    const member: SwitchMember = { kind: 'switch', clusterId: CLUSTER_ID, folder: folder.path, id: 1, name: 'ingress', seed: 1, external,
      externalFolder: home, placement: 'round-robin', limits: {} }
    this.launcher = new LocalLauncher({
      folder, launcher, switches: [member], cpus: allowedCpus(),
      runtime: () => assert.fail('no runtime is started'),
      onStarted: (entry) => { this.started.push(entry) },
      onEnded: (entry, end) => { this.ended.push({ entry, end }) },
    })
    this.#timer = setInterval(() => { this.launcher.tick() }, 10)
    controllers.add(this)
  }

  /** Has a switch started, and waits until it answers. */
  async start(folder: ClusterFolder, term: number): Promise<ProcessEntry> {
    const before = this.started.length
    return await until('an answer', async () => {
      // Whoever has died young may have to wait, and is started again.
      this.launcher.startSwitches(term)
      const status = await callOnce<NodeStatus>(folder.nodeSocket(1), 'GetStatus').catch(() => undefined)
      return this.started.slice(before).find(({ startTicks }) => startTicks === status?.startTicks)
    })
  }

  async endOf({ pid }: ProcessEntry): Promise<NodeEnd | undefined> {
    return (await until('an end', () => this.ended.find(({ entry }) => entry.pid === pid))).end
  }

  /** Is killed: hears and does nothing any more. */
  die(): void {
    clearInterval(this.#timer)
  }
}

let folders = 0
function newFolder(): ClusterFolder {
  const folder = new ClusterFolder(join(home, `run-${++folders}`))
  folder.create()
  return folder
}

/** @param launcherFor a launcher for the cluster in a folder */
function launcherContract(launcherFor: (folder: ClusterFolder) => NodeLauncher): void {
  test('a node is started once, found by others, missed when it dies, and started again', async () => {
    const folder = newFolder()
    const [first, second] = [new Controller(folder, launcherFor(folder)), new Controller(folder, launcherFor(folder))]
    const entry = await first.start(folder, 1)
    assert.ok(isRunning(entry), 'it is a process of this machine')
    const [cpu] = allowedCpus()
    assert.deepEqual(entry.cpus, [cpu], 'it has a core of its own')
    const threads = readdirSync(`/proc/${entry.pid}/task`).map((thread) => allowedCpus(`${entry.pid}/task/${thread}`))
    assert.deepEqual(threads, threads.map(() => [cpu]))
    first.launcher.startSwitches(1)
    await until('the other one sees it', () => second.launcher.processes.get(entry.pid))
    second.launcher.startSwitches(2)
    assert.deepEqual([first.started.length, second.started.length], [1, 0], 'what is there is not started')

    assert.equal(isStopped(entry), false)
    assert.ok(second.launcher.kill(entry.pid, 'SIGSTOP'))
    await until('it stands still', () => isStopped(entry))
    assert.equal(isStopped({ ...entry, startTicks: entry.startTicks + 1 }), false, 'another process')
    assert.ok(second.launcher.kill(entry.pid, 'SIGKILL'))
    assert.equal((await first.endOf(entry))?.signal, 'SIGKILL')
    assert.equal(await second.endOf(entry), undefined, 'who has not started it does not know how it ended')
    assert.equal(second.launcher.kill(entry.pid, 'SIGKILL'), false)

    first.die()
    const next = await second.start(folder, 2)
    assert.ok(second.launcher.kill(next.pid, 'SIGTERM'))
    assert.deepEqual(await second.endOf(next).then((end) => [end?.status, end?.signal]), [0, null], 'in good order')
    second.die()
  })

  test('the launcher of a controller that was killed leaves a node to the next one, which can end it', async () => {
    const folder = newFolder()
    const first = new Controller(folder, launcherFor(folder))
    const entry = await first.start(folder, 1)
    first.die()
    const next = new Controller(folder, launcherFor(folder))
    await until('it is found', () => next.launcher.processes.get(entry.pid))
    // A process that is stopped hears nothing: it is killed after a while.
    next.launcher.kill(entry.pid, 'SIGSTOP')
    next.launcher.stop(1, entry)
    await until('it is ended', () => {
      next.launcher.stop(2, entry)
      return !isRunning(entry)
    })
    await next.endOf(entry)
    assert.equal(next.launcher.processes.size, 0)
    next.die()
  })

  test('a start that fails is told in one line', async () => {
    const folder = newFolder()
    const controller = new Controller(folder, launcherFor(folder), { type: 'capture', input: 'missing.pcap' })
    controller.launcher.startSwitches(1)
    const { end } = await until('an end', () => controller.ended[0])
    controller.die()
    assert.ok(end !== undefined)
    const error = startError('ingress', end)
    assert.match(error.toLine(), /^NF_FILE_NOT_FOUND: ingress: .*missing\.pcap.*$/)
    assert.equal(folder.livingProcesses().length, 0)
  })
}

describe('processes', () => {
  launcherContract(() => processLauncher)
})

const NOBODY = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
const look = `fs.readdirSync(${JSON.stringify(import.meta.dirname)})`
const canBeNobody = spawnSync('setpriv', [...NOBODY, process.execPath, '-e', look]).status === 0

test('where there is no engine, or not for this user, that is said in one line', async () => {
  await assert.rejects(new ContainerEngine(join(home, 'missing.sock')).check(),
    { code: 'NF_CONTAINER_ENGINE', message: /^no container engine answers at .*missing\.sock: [^\n]*$/, mend: /docker\.io/ })
  const stranger = createServer((_, response) => { response.writeHead(404).end() })
  const socket = join(home, 'stranger.sock')
  await new Promise<void>((open) => { stranger.listen(socket, open) })
  await assert.rejects(new ContainerEngine(socket).check(), { code: 'NF_CONTAINER_ENGINE', message: /stranger\.sock is no container engine$/ })
  if (canBeNobody) {
    chmodSync(home, 0o755)
    chmodSync(socket, 0o600)
    const program = `import { ContainerEngine } from './container-engine.ts'
await new ContainerEngine(${JSON.stringify(socket)}).check().catch((error) => { console.log(error.toLine()) })`
    const { stdout } = spawnSync('setpriv', [...NOBODY, process.execPath, '--input-type=module-typescript', '-e', program],
      { encoding: 'utf8', cwd: import.meta.dirname })
    assert.match(stdout, /^NF_CONTAINER_DENIED: this user may not use the container engine at .*\. Join the group .*\n$/)
  }
  stranger.close()
})

const skip = engineSkip()
describe('containers', { skip, concurrency: false }, () => {
  let own: TestEngine
  let image = ''
  before(async () => {
    own = await TestEngine.start()
    image = (await ownImage(own.engine)).name
  })
  after(async () => { await own?.close() })

  const launcherFor = (folder: ClusterFolder, more: Partial<ConstructorParameters<typeof ContainerLauncher>[0]> = {}): ContainerLauncher =>
    new ContainerLauncher({ engine: own.engine, folder, clusterId: CLUSTER_ID, image, settings: {}, specFolder: home, ...more })
  const specOf = (more: Partial<ClusterSpec['container']>): ClusterSpec =>
    ({ container: { socket: own.engine.socket, ...more } }) as unknown as ClusterSpec

  launcherContract(launcherFor)

  test('a container has no capability, no network, and a limit; one that nobody has noted is found, a stranger ended', async () => {
    const folder = newFolder()
    const launcher = launcherFor(folder, { settings: { memory: 512 }, notedSeconds: 0 })
    const controller = new Controller(folder, launcher)
    const entry = await controller.start(folder, 1)
    controller.die()
    const status = readFileSync(`/proc/${entry.pid}/status`, 'utf8')
    assert.match(status, /^CapEff:\s*0+$/m)
    assert.match(status, /^CapBnd:\s*0+$/m)
    assert.match(status, /^NoNewPrivs:\s*1$/m)
    assert.equal(readFileSync(`/proc/${entry.pid}/net/dev`, 'utf8').split('\n').filter((line) => line.includes(':')).length, 1, 'lo alone')
    const container = (await own.engine.list(`nfactor.folder=${folder.path}`)).find(({ State }) => State === 'running')
    assert.ok(container !== undefined)
    assert.equal((await own.engine.inspect(container.Id))?.HostConfig.Memory, 512 << 20)
    assert.equal(await own.engine.processOf(container.Id), entry.pid)

    rmSync(join(folder.path, 'processes'), { recursive: true })
    assert.deepEqual(folder.livingProcesses(), [])
    await until('it is a second old', async () => {
      await launcher.sweep()
      return folder.livingProcesses().length > 0
    })
    const [{ pid, startTicks, name, kind }] = folder.livingProcesses()
    assert.deepEqual([pid, startTicks, name, kind], [entry.pid, entry.startTicks, 'ingress', 'switch'])
    await launcher.sweep()
    assert.ok(isRunning(entry), 'who is noted is let be')
    await launcherFor(folder, { clusterId: CLUSTER_ID + 1, notedSeconds: 0 }).sweep()
    await until('a container of another cluster is ended', () => startTicksOf(entry.pid) === 0)
  })

  test('what is left under the engine when a cluster ends is ended', async () => {
    const folder = newFolder()
    const controller = new Controller(folder, launcherFor(folder))
    const entry = await controller.start(folder, 1)
    controller.die()
    await endContainersOf(specOf({}), folder)
    assert.equal(isRunning(entry), false)
    assert.equal(await endContainers(own.engine, folder), 0)
  })

  test('what keeps containers from being started is said in one line', async () => {
    const folder = newFolder()
    const refusal = async (spec: ClusterSpec): Promise<string> => await prepareContainers(spec, folder).then(() => '', (error: unknown) =>
      (error instanceof CodedError ? error.toLine() : String(error)))
    assert.match(await refusal(specOf({ image: 'nothing:here' })), /^NF_CONTAINER_IMAGE: the engine at .* has no image nothing:here\. .*$/)

    const controller = new Controller(folder, launcherFor(folder, { image: 'nothing:here' }))
    controller.launcher.startSwitches(1)
    const { entry, end } = await until('an end', () => controller.ended[0])
    controller.die()
    assert.equal(entry.pid, 0)
    assert.match(startError('ingress', end as NodeEnd).toLine(), /^NF_CONTAINER_IMAGE: ingress: .*nothing:here.*$/)

    mkdirSync(join(home, 'gone'))
    const gone = launcherFor(folder, { specFolder: join(home, 'gone') })
    rmSync(join(home, 'gone'), { recursive: true })
    const other = new Controller(newFolder(), gone)
    other.launcher.startSwitches(1)
    const failed = await until('an end', () => other.ended[0])
    other.die()
    assert.match(startError('ingress', failed.end as NodeEnd).toLine(), /^NF_CONTAINER_FAILED: ingress: the engine at .* says: .*gone.*$/)
    assert.deepEqual(await new ContainerEngine(own.engine.socket).list(`nfactor.folder=${folder.path}`), [])
  })
})
