/**
 * The commands and their options. What a command does is loaded when it is called, so that `--version` and `--help`
 * answer at once.
 */

import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { fileUnwritable } from '../process/file-unwritable.ts'
import { benchCommand, benches } from './bench-command.ts'
import { addClusterCommands } from './cluster-program.ts'
import { ExitStatus } from './exit-status.ts'
import { reportError } from './error-report.ts'
import { collect, wholeNumber } from './option-values.ts'

const packageFile = new URL('../../package.json', import.meta.url)

/**
 * Runs a command line, given without the program's name.
 *
 * @returns the exit status
 */
export async function main(args: readonly string[]): Promise<number> {
  // Whoever read our output has seen enough (`nfactor ... | head`).
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(ExitStatus.ok)
    process.exit(reportError(fileUnwritable('standard output', error)))
  })
  process.stderr.on('error', () => undefined)
  let status: number = ExitStatus.ok
  const program = buildProgram((result) => { status = result })
  try {
    await program.parseAsync(args, { from: 'user' })
    return status
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(error)
    return error.exitCode === 0 ? ExitStatus.ok : ExitStatus.usage
  }
}

const EXIT_HELP = `
Exit status: 0 done, 1 failed (the message has a code, NF_...), 2 wrong command line, 130 ended by Ctrl-C and 143 by
SIGTERM, both with everything complete up to there.`

function buildProgram(done: (status: number) => void): Command {
  const program = new Command('nfactor')
    .description('Chains of network functions over packets, with one actor per flow.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .configureHelp({ showGlobalOptions: false })
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'error NF_USAGE: ')) })
    .showSuggestionAfterError()
    .addHelpText('after', `
Examples:
  nfactor run web.pcap.gz                         what is in a capture, seen by monitor, firewall and http
  nfactor run - --chain monitor < web.pcap        from standard input
  nfactor nf new my-nf && nfactor run web.pcap --chain ./my-nf.ts
${EXIT_HELP}`)
    .exitOverride()

  program.command('run')
    .description('process a capture file through a chain of network functions')
    .argument('<capture>', 'pcap or pcapng file, plain or compressed with gzip; - for standard input')
    .option('-c, --chain <names>', 'network functions in order, separated by commas: built-in names, .ts or .js ' +
      'files, packages (default: the configuration\'s, or monitor,firewall,http)', list)
    .option('-f, --config <file>', 'configuration, YAML or JSON (see nfactor schema)')
    .option('-s, --set <key=value>', 'one setting, more than once if need be: limits.flows=1000, timeouts.udp=60, ' +
      'policy.nonIp=drop, chain.NAME.KEY=VALUE', collect, [])
    .option('-o, --out <file>', 'write the packets that leave: .pcap or .pcapng, and .gz behind it to compress')
    .option('--flows <file>', 'write a JSON line for each flow as it ends')
    .option('--events <file>', 'write a JSON line for each event that a network function reports')
    .option('--json', 'print one JSON document instead of the summary')
    .option('--seed <number>', 'what random choices start from (default: 1)', wholeNumber)
    .option('-q, --quiet', 'show no progress')
    .addHelpText('after', `
A capture that breaks off is processed up to there, with a warning. Ctrl-C ends the run with all outputs complete; a
second one ends it at once.
${EXIT_HELP}`)
    .action(async (capture: string, options) => {
      const { runCommand } = await import('./run-command.ts')
      done(await runCommand(capture, options))
    })

  program.command('check')
    .description('check a configuration file, and that its network functions load')
    .argument('<file>', 'configuration, YAML or JSON')
    .option('--json', 'print one JSON document')
    .action(async (file: string, options) => {
      const { checkCommand } = await import('./check-command.ts')
      done(await checkCommand(file, options))
    })

  program.command('schema')
    .description('print the JSON Schema of configuration files, for editors')
    .action(async () => {
      const { schemaCommand } = await import('./schema-command.ts')
      done(await schemaCommand())
    })

  const nf = program.command('nf').description('write, test and list network functions')
    .helpCommand('help [command]', 'print the help of a command')
  nf.command('new')
    .description('write a network function to start from, and its test')
    .argument('<name>', 'lower-case letters, digits and dashes')
    .option('-d, --dir <folder>', 'where to write the files', '.')
    .action(async (name: string, options) => {
      const { nfNewCommand } = await import('./nf-new-command.ts')
      done(await nfNewCommand(name, options))
    })
  nf.command('test')
    .description('check that network functions keep the rules that all must keep')
    .argument('<names...>', 'built-in names, .ts or .js files, packages; a NAME.test.ts next to a file is run too')
    .option('-f, --config <file>', 'take the network functions\' configuration from here')
    .option('-s, --set <key=value>', 'one setting: chain.NAME.KEY=VALUE', collect, [])
    .option('--seed <number>', 'seed of the traffic (default: 1)', wholeNumber)
    .option('--json', 'print one JSON document')
    .action(async (names: string[], options) => {
      const { nfTestCommand } = await import('./nf-test-command.ts')
      done(await nfTestCommand(names, options))
    })
  nf.command('list')
    .description('list the built-in network functions, or describe the given ones')
    .argument('[names...]', 'built-in names, .ts or .js files, packages')
    .option('--json', 'print one JSON document')
    .action(async (names: string[], options) => {
      const { nfListCommand } = await import('./nf-list-command.ts')
      done(await nfListCommand(names, options))
    })

  program.command('simulate')
    .description('run a cluster under seeded faults in simulated time, with checkers that watch every packet')
    .option('--seed <number>', 'one seed (default: 1)', wholeNumber)
    .option('--seeds <range>', 'a range of seeds, A..B')
    .option('--runtimes <number>', 'runtimes in the cluster', wholeNumber, 4)
    .option('--flows <number>', 'flows through it', wholeNumber, 50)
    .option('--packets <number>', 'turns of each flow, at most', wholeNumber, 12)
    .option('--faults <kinds>', 'kinds of faults, separated by commas; all, none, or mixed: a few for each seed (default: mixed)')
    .option('--replication <mode>', 'none, async, commit, or mixed: one for each seed (default: mixed)')
    .option('--replicas <number>', 'replicas of a flow, where it has any: 1 or 2; with 2 two runtimes may die at once', wholeNumber, 1)
    .option('--follow <flow>', 'print the life of this flow message by message', wholeNumber)
    .option('--plant <name>', 'switch a planted bug on: the checkers should see it')
    .option('--list-plants', 'list the planted bugs')
    .option('--minutes <number>', 'go on over new seeds for so long', Number)
    .option('--failing <file>', 'add the seeds that failed to this JSON list')
    .option('--json', 'print one JSON document')
    .addHelpText('after', `
The same seed and options give the same trace. Exit status 0 only without violations.
${EXIT_HELP}`)
    .action(async (options) => {
      const { simulateCommand } = await import('./simulate-command.ts')
      done(simulateCommand(options))
    })

  addClusterCommands(program, done)

  const bench = program.command('bench').description('measure NFactor on this machine')
    .helpCommand('help [command]', 'print the help of a command')
  for (const name of Object.keys(benches) as (keyof typeof benches)[]) {
    bench.command(name)
      .description(benches[name].about)
      .argument('[arguments...]', `see nfactor bench ${name} -- --help`)
      .allowUnknownOption()
      .action(async (args: string[]) => { done(await benchCommand(name, args)) })
  }
  return program
}

function version(): string {
  return (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version
}

function list(text: string): string[] {
  const names = text.split(',').map((name) => name.trim()).filter((name) => name !== '')
  if (names.length === 0) throw new InvalidArgumentError('Name at least one network function.')
  return names
}
