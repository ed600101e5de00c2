/**
 * Container launcher: starts the nodes of a cluster as containers, under an engine on this machine.
 *
 *     cluster's folder ══ bind mount, at the same path ══▶ container: sockets, memif links, control network, logs, notes
 *     cluster's file's folder, folders of the chain's files ── the same, read only
 *
 * What is in a container has as little as it can do with: the user of the cluster, no capabilities, no network, a file system that cannot
 * be written, its own process ids. A switch with a network interface has the engine's network, and CAP_NET_RAW.
 *
 * A container's first process is a process of this machine: it is noted in the folder, seen, signalled and missed like any other
 * (`local-launcher.ts`). The engine is needed to start one, and to tell how it has ended. Labels say which cluster a container is of; one that
 * nobody has noted, because the controller that started it was killed in between, is found by them (`sweep`).
 */

import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, isAbsolute, resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import type { ContainerSettings } from './cluster-file.ts'
import { startTicksOf, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import type { ContainerEngine, ContainerSpec, ListedContainer } from './container-engine.ts'
import { lastLinesOf, type LaunchedNode, type NodeEnd, type NodeLauncher } from './node-launcher.ts'
import type { NodeConfig } from './node-config.ts'

export interface ContainerLauncherOptions {
  readonly engine: ContainerEngine
  readonly folder: ClusterFolder
  readonly clusterId: number
  readonly image: string
  readonly settings: Pick<ContainerSettings, 'memory' | 'cores'>
  /** Folder of the cluster's file: relative names start there. */
  readonly specFolder: string
  /** After so many seconds, whoever starts a container has noted it, or is not there any more. */
  readonly notedSeconds?: number
}

const FOLDER_LABEL = 'nfactor.folder'
const NODE_LABEL = 'nfactor.node'
/** An engine that is short of cores and disk takes long. */
const NOTED_SECONDS = 60
/** Where the engine does not tell of an end any more, the process is looked for. */
const LOOK_MS = 50
const MIB = 1 << 20
/** The shell has the output go where everybody looks for it, and becomes the node. */
const SHELL = ['/bin/sh', '-c', 'umask 077; exec "$@" >>"$NFACTOR_LOG" 2>&1', 'sh']

/** What a container says of itself. */
type NodeLabel = Pick<ProcessEntry, 'kind' | 'id' | 'name' | 'incarnation'> & { readonly clusterId: number }

export class ContainerLauncher implements NodeLauncher {
  readonly name = 'container'
  readonly #options: ContainerLauncherOptions
  #command: readonly string[] | undefined

  constructor(options: ContainerLauncherOptions) {
    this.#options = options
  }

  async launch(kind: NodeConfig['kind'], file: string, log: string): Promise<LaunchedNode> {
    const { engine, image, folder, clusterId } = this.#options
    const config = JSON.parse(readFileSync(file, 'utf8')) as NodeConfig
    this.#command ??= await engine.imageCommand(image)
    if (this.#command?.length === 0) {
      throw new CodedError('NF_CONTAINER_IMAGE', `image ${image} has no ENTRYPOINT`, 'It must be the nfactor command: see docs/operations.md')
    }
    const { id, name, incarnation = 0 } = config
    const label: NodeLabel = { kind, id, name, incarnation, clusterId }
    const container = await engine.create(`nfactor-${clusterId}-${name}-${incarnation || `${Date.now()}`}`, {
      Image: image, Entrypoint: SHELL, Cmd: [...this.#command ?? [], kind, file],
      Env: [`NFACTOR_LOG=${log}`, 'HOME=/tmp'], User: `${process.getuid?.()}:${process.getgid?.()}`, WorkingDir: '/',
      Labels: { [FOLDER_LABEL]: folder.path, [NODE_LABEL]: JSON.stringify(label) },
      HostConfig: this.#hostConfig(config),
    })
    // Asked for before the start, so that no end is missed.
    const status = engine.ended(container).catch(() => undefined)
    try {
      await engine.start(container)
    } catch (error) {
      await engine.remove(container).catch(() => undefined)
      throw error
    }
    const pid = await engine.processOf(container)
    const startTicks = startTicksOf(pid)
    return {
      pid,
      ended: status.then(async (value) => {
        // The engine has ended, or was started anew: the process may live.
        if (value === undefined) while (startTicks !== 0 && startTicksOf(pid) === startTicks) await sleep(LOOK_MS)
        return value === undefined ? undefined : endOf(value, log)
      }),
      kill: (signal) => { if (startTicks !== 0 && startTicksOf(pid) === startTicks) process.kill(pid, signal) },
    }
  }

  async sweep(): Promise<void> {
    const { engine, folder, clusterId, notedSeconds = NOTED_SECONDS } = this.#options
    const living = folder.livingProcesses()
    for (const container of await containersOf(engine, folder)) {
      const label = labelOf(container)
      if (label?.clusterId !== clusterId) {
        await engine.remove(container.Id)
        continue
      }
      if (Date.now() / 1000 - container.Created < notedSeconds) continue
      const noted = living.find(({ kind, name, incarnation }) => kind === label.kind && name === label.name && incarnation === label.incarnation)
      const pid = await engine.processOf(container.Id)
      if (noted?.pid === pid) continue
      // Another life has its place, or it has never come to run.
      if (pid === 0 || noted !== undefined) {
        await engine.remove(container.Id)
        continue
      }
      const { kind, id, name, incarnation } = label
      folder.noteProcess({ kind, id, name, incarnation, startedAt: container.Created * 1000, pid, startTicks: startTicksOf(pid) })
    }
  }

  #hostConfig(config: NodeConfig): ContainerSpec['HostConfig'] {
    const { folder, settings: { memory, cores } } = this.#options
    const hasNetwork = config.kind === 'switch' && config.external.type === 'af-packet'
    return {
      AutoRemove: true, ReadonlyRootfs: true, Tmpfs: { '/tmp': '' }, LogConfig: { Type: 'none' },
      NetworkMode: hasNetwork ? 'host' : 'none', CapDrop: ['ALL'], CapAdd: hasNetwork ? ['NET_RAW'] : [], SecurityOpt: ['no-new-privileges'],
      Mounts: [...this.#readFolders(config).map((path) => ({ path, ReadOnly: true })),
        ...[...this.#writtenFolders(config), folder.path].map((path) => ({ path, ReadOnly: false }))]
        .map(({ path, ReadOnly }) => ({ Type: 'bind', Source: path, Target: path, ReadOnly })),
      ...memory !== undefined && { Memory: memory * MIB, MemorySwap: memory * MIB },
      ...cores !== undefined && { NanoCpus: Math.round(cores * 1e9) },
    }
  }

  /** Folders of the files that the node reads. */
  #readFolders(config: NodeConfig): string[] {
    const { specFolder } = this.#options
    const files: string[] = []
    if (config.kind === 'runtime' && config.run !== undefined) {
      const { chain = [] } = JSON.parse(readFileSync(config.run, 'utf8')) as { chain?: (string | { nf: string })[] }
      files.push(...chain.map((one) => typeof one === 'string' ? one : one.nf).filter((name) => isAbsolute(name) || name.startsWith('.')))
    } else if (config.kind === 'switch' && config.external.type === 'capture' && config.external.input !== undefined) {
      files.push(config.external.input)
    }
    const written = this.#writtenFolders(config)
    // The whole of this machine is no folder to hand on.
    return outermost([specFolder, ...files.map((file) => dirname(resolve(specFolder, file)))])
      .filter((path) => path !== '/' && !written.includes(path))
  }

  #writtenFolders(config: NodeConfig): string[] {
    if (config.kind !== 'switch' || config.external.type !== 'capture' || config.external.output === undefined) return []
    return [dirname(resolve(this.#options.specFolder, config.external.output))]
  }
}

/** Ends what is left of a cluster under the engine, noted or not. */
export async function endContainers(engine: ContainerEngine, folder: ClusterFolder): Promise<number> {
  const left = await containersOf(engine, folder)
  for (const { Id } of left) await engine.remove(Id)
  return left.length
}

async function containersOf(engine: ContainerEngine, folder: ClusterFolder): Promise<ListedContainer[]> {
  return await engine.list(`${FOLDER_LABEL}=${folder.path}`)
}

function labelOf({ Labels }: ListedContainer): NodeLabel | undefined {
  try {
    return JSON.parse(Labels[NODE_LABEL]) as NodeLabel
  } catch {
    return undefined
  }
}

/** A status as shells have it: that of a signal is 128 more than its number. */
function endOf(value: number, log: string): NodeEnd {
  const [signal] = Object.entries(constants.signals).find(([, number]) => value === 128 + number) ?? []
  const lastLines = lastLinesOf(log)
  return signal === undefined ? { status: value, signal: null, lastLines } : { status: null, signal: signal as NodeJS.Signals, lastLines }
}

/** Without those that are in another one, each once. */
function outermost(folders: readonly string[]): string[] {
  return [...new Set(folders)].filter((one, _, all) => !all.some((other) => other !== one && one.startsWith(`${other}/`)))
}

function sleep(ms: number): Promise<void> {
  return new Promise((next) => { setTimeout(next, ms) })
}
