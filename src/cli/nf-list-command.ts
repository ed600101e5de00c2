/**
 * `nfactor nf list`: what the built-in network functions, or the given ones, do, count, drop, report and take as
 * configuration.
 */

import { styleText } from 'node:util'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { builtInNfs } from '../nfs/index.ts'
import { loadNf } from '../process/nf-loader.ts'
import { nfConfigJsonSchema } from '../process/run-config-schema.ts'
import { ExitStatus } from './exit-status.ts'
import { tableLines } from './text-table.ts'

export async function nfListCommand(names: readonly string[], options: { readonly json?: boolean }): Promise<number> {
  const asked = names.length > 0 ? names : Object.keys(builtInNfs)
  const definitions: AnyNfDefinition[] = []
  for (const name of asked) definitions.push(await loadNf(name))
  process.stdout.write(options.json === true
    ? `${JSON.stringify(definitions.map(describe))}\n`
    : `${definitions.map((definition) => describeLines(definition).join('\n')).join('\n\n')}\n`)
  return ExitStatus.ok
}

function describe(definition: AnyNfDefinition) {
  const { name, version, description = '', counters = {}, dropReasons = {}, records = {}, flowState } = definition
  const events = Object.entries(records as Record<string, object>)
  return {
    name, version, description, counters, dropReasons,
    events: Object.fromEntries(events.map(([event, fields]) => [event, Object.keys(fields)])),
    stateBytes: (flowState as { bytes: number } | undefined)?.bytes ?? 0,
    config: nfConfigJsonSchema(definition),
  }
}

function describeLines(definition: AnyNfDefinition): string[] {
  const { name, version, description, counters, dropReasons, events, stateBytes, config } = describe(definition)
  const bold = (text: string): string => styleText('bold', text, { stream: process.stdout })
  const section = (title: string, rows: readonly (readonly string[])[]): string[] =>
    rows.length === 0 ? [] : [`  ${title}`, ...tableLines(rows, [{}, {}], '    ')]
  const options = Object.entries((config?.properties ?? {}) as Record<string, { description?: string }>)
  return [
    `${bold(name)}  ${description}`,
    `  version ${version}, ${stateBytes} bytes of state per flow`,
    ...section('counters', Object.entries(counters as Record<string, string>)),
    ...section('drop reasons', Object.entries(dropReasons as Record<string, string>)),
    ...section('events', Object.entries(events).map(([event, fields]) => [event, fields.join(', ')])),
    ...section('configuration', options.map(([key, option]) => [key, option.description ?? ''])),
  ]
}
