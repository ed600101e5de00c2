/**
 * `nfactor runtime`, `nfactor switch`, `nfactor controller`, `nfactor machine`: one process of a cluster. Controllers start the nodes, a
 * supervisor the controllers; for people who build their own. The agent of another machine they start themselves.
 */

import { closeSync, writeSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import { Arena } from '../memory/arena.ts'
import { loadClassifyKernel } from '../packet/kernels/classify.ts'
import { replaceDescriptor } from '../ports/sys.ts'
import { pinProcess } from '../ports/sys-affinity.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { readConfigDocument } from '../process/config-document.ts'
import { ControllerProcess } from '../process/controller-process.ts'
import { containersOf } from '../process/cluster-containers.ts'
import { openLog, processLauncher } from '../process/node-launcher.ts'
import { lowerHelpers } from '../process/helper-threads.ts'
import { MachineAgent } from '../process/machine-agent.ts'
import { readMachineConfig } from '../process/machine-config.ts'
import { NodeExit, NodeProcess } from '../process/node-process.ts'
import { readNodeConfig, rehearseNodeConfig, type NodeConfig } from '../process/node-config.ts'
import { readIdentity, type ControllerConfig } from '../process/supervisor.ts'
import { endYielding } from '../process/start-priority.ts'
import { READY_FD, WarmLauncher, type SpareOrder } from '../process/warm-launcher.ts'
import { ExitStatus } from './exit-status.ts'

export async function nodeCommand(kind: NodeConfig['kind'], file: string): Promise<number> {
  const config = readNodeConfig(file, kind)
  begin(`nfactor ${config.name}`)
  if (config.cpus !== undefined && !pinProcess(config.cpus)) {
    throw new CodedError('NF_CONFIG_INVALID', `${config.name} cannot have core ${config.cpus.join(', ')}`, 'The key cpus names the cores')
  }
  const node = new NodeProcess(config, endAtOnce)
  process.on('uncaughtException', (error) => { endAtOnce(node.report(error)) })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { node.stop() })
  return await node.run()
}

/** A process in stock: all is loaded, and whoever has started it says which node it is, or ends. */
export async function spareCommand(): Promise<number> {
  begin('nfactor spare')
  loadClassifyKernel(new Arena(1 << 18))
  rehearseNodeConfig()
  writeSync(READY_FD, 'ready\n')
  closeSync(READY_FD)
  let text = ''
  for await (const part of process.stdin) if ((text += String(part)).includes('\n')) break
  if (!text.includes('\n')) return ExitStatus.ok
  endYielding()
  const { kind, file, log } = JSON.parse(text) as SpareOrder
  const output = openLog(log)
  for (const fd of [1, 2]) replaceDescriptor(fd, output)
  closeSync(output)
  return await nodeCommand(kind, file)
}

export async function controllerCommand(file: string): Promise<number> {
  const config = readConfigDocument(file).value as ControllerConfig | null
  if (config?.kind !== 'controller') throw new CodedError('NF_CONFIG_INVALID', `${file} is not for a controller`)
  const { id, name } = config
  const folder = new ClusterFolder(config.folder)
  begin(`nfactor ${name}`)
  const identity = readIdentity(folder)
  const launcher = containersOf(identity, folder) ?? new WarmLauncher(processLauncher)
  const controller = await ControllerProcess.open({ id, name, folder, identity, launcher })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { controller.stop() })
  return await controller.run()
}

export async function machineCommand(file: string): Promise<number> {
  const config = readMachineConfig(file)
  begin('nfactor machine')
  const agent = new MachineAgent(config, processLauncher)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => { agent.stop() })
  await agent.run(() => { process.stdout.write(`machine is ready for cluster ${config.cluster} at ${config.host}:${config.port}\n`) })
  return NodeExit.ended
}

/** What every process of a cluster does first: its files are its user's alone, and what compiles beside it goes last. */
function begin(title: string): void {
  process.umask(0o077)
  process.title = title
  lowerHelpers()
}

/** A defect: what comes after it would be wrong. */
function endAtOnce(report: string): never {
  writeSync(2, `error NF_INTERNAL: this is a defect of NFactor\n${report}\n`)
  process.exit(NodeExit.defect)
}
