/**
 * The commands of clusters and their options.
 */

import { Command, Option } from 'commander'
import { collect, wholeNumber } from './option-values.ts'

const DEFAULT_NAME = 'default'

export function addClusterCommands(program: Command, done: (status: number) => void): void {
  program.command('up')
    .description('run a cluster on this machine: controllers, switches and runtimes')
    .argument('[file]', 'configuration of the cluster, YAML or JSON; without one, a generator sends through two runtimes to a sink')
    .option('-n, --name <name>', 'name of the cluster (default: the file\'s, or default)')
    .option('-r, --runtimes <number>', 'how many runtimes (default: the file\'s, or 2)', wholeNumber)
    .option('-s, --set <key=value>', 'one setting, more than once if need be: limits.flows=1000, chain.NAME.KEY=VALUE', collect, [])
    .option('-d, --detach', 'return when the cluster is ready, and leave it running')
    .option('--json', 'print one JSON document when it is ready')
    .action(async (file: string | undefined, options) => {
      const { upCommand } = await import('./up-command.ts')
      done(await upCommand(file, options))
    })

  program.command('demo')
    .description('show a cluster at work: flows move while packets go through, nodes are killed and come back; ends by itself')
    .option('--stay', 'leave the cluster up until Ctrl-C, and say how to look around')
    .option('--json', 'print timings and verdicts as one JSON document')
    .action(async (options) => {
      const { demoCommand } = await import('./demo-command.ts')
      done(await demoCommand(options))
    })

  /** A command to a running cluster. */
  const toCluster = (name: string, about: string): Command => program.command(name).description(about)
    .option('-n, --name <name>', 'name of the cluster', DEFAULT_NAME)
    .option('--json', name === 'events' ? 'print a JSON line for each' : 'print one JSON document')

  toCluster('down', 'end a cluster, also one whose supervisor was killed')
    .action(async (options) => {
      const { downCommand } = await import('./up-command.ts')
      done(await downCommand(options))
    })
  toCluster('status', 'the nodes of a cluster and how they are')
    .option('-w, --watch', 'again every second')
    .action(async (options) => {
      const { statusCommand } = await import('./cluster-commands.ts')
      done(await statusCommand(options))
    })
  toCluster('flows', 'the flows of a cluster, and where they live')
    .argument('[filter...]', 'words that must be in a flow\'s protocol, addresses or ports')
    .option('--limit <number>', 'how many at most', wholeNumber, 100)
    .option('--state', 'with what each network function knows of them')
    .option('--node <node>', 'as this node knows them')
    .action(async (filter: string[], options) => {
      const { flowsCommand } = await import('./cluster-commands.ts')
      done(await flowsCommand(filter, options))
    })
  toCluster('migrate', 'move flows from one runtime to another')
    .argument('<from>', 'name or id of the runtime that they live on')
    .argument('<to>', 'name or id of the runtime that is to get them')
    .argument('[number]', 'how many; all unless told', wholeNumber)
    .action(async (from: string, to: string, number: number | undefined, options) => {
      const { migrateCommand } = await import('./cluster-commands.ts')
      done(await migrateCommand(from, to, { ...options, number }))
    })
  toCluster('drain', 'take a runtime out of service: its flows move to the others')
    .argument('<node>', 'name or id of a runtime')
    .option('--remove', 'end its process when it is empty')
    .addOption(new Option('--undo', 'give it flows again').conflicts('remove'))
    .action(async (node: string, options) => {
      const { drainCommand } = await import('./cluster-commands.ts')
      done(await drainCommand(node, options))
    })
  toCluster('scale', 'say how many runtimes there are to be')
    .argument('<runtimes>', 'a number, or auto: as the load demands')
    .action(async (runtimes: string, options) => {
      const { scaleCommand } = await import('./cluster-commands.ts')
      done(await scaleCommand(runtimes, options))
    })
  toCluster('update', 'bring flows, batch by batch, to another version of the chain')
    .argument('[file]', 'configuration with the chain, limits, timeouts and policy as they are to be')
    .option('-s, --set <key=value>', 'one setting, more than once if need be: chain.NAME.KEY=VALUE', collect, [])
    .addOption(new Option('--on-failure <what>', 'what a failure does').choices(['pause', 'roll-back']).default('pause'))
    .addOption(new Option('--pause', 'leave both versions as they are for now').conflicts(['resume', 'rollBack']))
    .addOption(new Option('--resume', 'go on with a paused update').conflicts(['pause', 'rollBack']))
    .addOption(new Option('--roll-back', 'go back to the version before').conflicts(['pause', 'resume']))
    .action(async (file: string | undefined, options) => {
      const { updateCommand } = await import('./update-command.ts')
      done(await updateCommand(file, options))
    })
  toCluster('kill', 'kill the process of a node, to see what follows')
    .argument('<node>', 'name or id of a node')
    .option('--signal <signal>', 'another signal', 'SIGKILL')
    .action(async (node: string, options) => {
      const { killCommand } = await import('./cluster-commands.ts')
      done(await killCommand(node, options))
    })
  toCluster('events', 'what has happened to a cluster')
    .option('-f, --follow', 'go on with what happens')
    .action(async (options) => {
      const { eventsCommand } = await import('./cluster-commands.ts')
      done(await eventsCommand(options))
    })

  toCluster('trace', 'the way of packets through a cluster, hop by hop: which node did what with them, when, and why they were dropped')
    .argument('[flow...]', 'words as for flows; also host ADDRESS, port NUMBER, and not before any of them')
    .option('--packets <number>', 'how many packets', wholeNumber, 5)
    .option('--seconds <number>', 'how long to wait for them', wholeNumber, 10)
    .action(async (words: string[], options) => {
      const { traceCommand } = await import('./trace-command.ts')
      done(await traceCommand(words, options))
    })
  toCluster('capture', 'what the ports of a node receive and send, as a pcapng file')
    .argument('<node>', 'name or id of a node')
    .option('--port <port...>', 'external, bypass, or link and the node behind it (default: all)')
    .option('--filter <word...>', 'words as for trace')
    .option('--packets <number>', 'how many frames at most', wholeNumber, 100_000)
    .option('--bytes <number>', 'how many bytes of frames at most', wholeNumber, 256 << 20)
    .option('--seconds <number>', 'how long at most', wholeNumber, 60)
    .option('-o, --out <file>', 'file to write (default: the node\'s name and .pcapng); - for standard output')
    .action(async (node: string, options) => {
      const { captureCommand } = await import('./capture-command.ts')
      done(await captureCommand(node, options))
    })

  program.command('controller')
    .description('run one controller of a cluster in this process (nfactor up starts them all)')
    .argument('<file>', 'what the supervisor has written for it')
    .action(async (file: string) => {
      const { controllerCommand } = await import('./node-command.ts')
      done(await controllerCommand(file))
    })

  program.command('machine')
    .description('take runtimes of a cluster on this machine, for controllers on another one; ends by Ctrl-C, and its runtimes with it')
    .argument('<file>', 'configuration of the agent, YAML or JSON')
    .action(async (file: string) => {
      const { machineCommand } = await import('./node-command.ts')
      done(await machineCommand(file))
    })

  program.command('spare', { hidden: true })
    .description('load what a node needs, and wait to be told which one to be (controllers keep one in stock)')
    .action(async () => {
      const { spareCommand } = await import('./node-command.ts')
      done(await spareCommand())
    })

  for (const kind of ['runtime', 'switch'] as const) {
    program.command(kind)
      .description(`run one ${kind} of a cluster in this process (nfactor up starts them all)`)
      .argument('<file>', 'configuration of the node, YAML or JSON')
      .action(async (file: string) => {
        const { nodeCommand } = await import('./node-command.ts')
        done(await nodeCommand(kind, file))
      })
  }
}
