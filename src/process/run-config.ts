/**
 * What a run is to do, put together from a configuration file, a chain named on the command line and single settings.
 *
 *     file (YAML, JSON) ─▶ --set limits... ─▶ schema ─▶ --chain picks NFs ─▶ --set chain.NF... ─▶ each NF's own schema
 *
 * All problems are found, not only the first, and each says where it comes from: file, line and column, or the option.
 */

import { dirname, parse, resolve } from 'node:path'
import type { z } from 'zod'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'
import type { EngineLimits, IdleTimeouts } from '../base/limits.ts'
import type { ChainMember } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import type { EnginePolicy } from '../runtime/engine.ts'
import type { ConfigDocument, ConfigPath, SyntaxProblem } from './config-document.ts'
import { checkAgainst, meant, pathText, type ConfigProblem } from './config-problem.ts'
import { isNfPath, loadNf } from './nf-loader.ts'
import { engineSettings, runConfigSchema, strict, type RunConfigDocument } from './run-config-schema.ts'

/** The chain of a run that names none. */
export const defaultChain: readonly string[] = ['monitor', 'firewall', 'http']

export interface RunConfigSources {
  /** A configuration file. */
  readonly file?: string | undefined
  /** NFs by name, instead of the file's chain; those that the file has too keep their configuration. */
  readonly chain?: readonly string[] | undefined
  /** What named that chain, for messages; unless told, `--chain`. */
  readonly chainPlace?: string
  /** Single settings, each `limits.flows=1000`, `timeouts.udp=60`, `policy.nonIp=drop` or `chain.NF.KEY=VALUE`. */
  readonly settings?: readonly string[] | undefined
  /** Schema of a file that says more than a run's does. */
  readonly schema?: z.ZodType<RunConfigDocument>
  /** Where relative names of network functions in the file start; the file's own folder unless told. */
  readonly folder?: string | undefined
}

/** An NF of the chain with its configuration as the NF gets it, and as it was given. */
export interface ConfiguredNf extends ChainMember {
  readonly given: unknown
}

export interface RunConfig {
  readonly chain: readonly ConfiguredNf[]
  readonly limits: EngineLimits
  readonly timeouts: IdleTimeouts
  readonly policy: EnginePolicy
}

/** A problem and where it comes from. */
export interface PlacedProblem {
  /** `FILE:LINE:COLUMN`, or the option. */
  readonly place: string
  readonly file: string | undefined
  readonly line: number | undefined
  readonly column: number | undefined
  /** The key, such as `limits.flows`. */
  readonly key: string
  readonly code: ErrorCode
  readonly message: string
  readonly mend: string
}

interface Setting {
  readonly text: string
  readonly path: ConfigPath
  readonly value: unknown
}

interface ChainEntry {
  readonly nf: string
  readonly config: unknown
  /** Where relative names start. */
  readonly folder: string
  /** Index in the file's chain; -1 for an NF that only the command line names. */
  readonly index: number
}

/**
 * @returns the configuration, or what is wrong with it
 * @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE`, `NF_USAGE` (a setting that is none)
 */
export async function resolveRunConfig(
  sources: RunConfigSources,
): Promise<{
  readonly config: RunConfig | undefined
  readonly problems: readonly PlacedProblem[]
  /** The file's content with its defaults, if it fits its schema. */
  readonly content?: RunConfigDocument
}> {
  // The YAML parser takes longer to load than a small capture to process.
  const document = sources.file === undefined ? undefined
    : (await import('./config-document.ts')).readConfigDocument(sources.file)
  const settings = await Promise.all((sources.settings ?? []).map(parseSetting))
  const syntax = document?.syntaxProblems ?? []
  if (document !== undefined && syntax.length > 0) {
    return { config: undefined, problems: syntax.map((one) => syntaxProblem(document.file, one)) }
  }
  const general = settings.filter(({ path }) => path[0] !== 'chain')
  const value = general.reduce<unknown>((whole, one) => withValue(whole, one.path, one.value), document?.value ?? {})
  const checked = checkAgainst(sources.schema ?? runConfigSchema, value)
  if (checked.problems.length > 0) {
    const problems = checked.problems.map((problem) =>
      placed(problem, placeOfSetting(problem.path, general) ?? placeInFile(document, problem.path, problem.atKey)))
    return { config: undefined, problems: inOrder(problems) }
  }
  const content = checked.data as RunConfigDocument
  const entries = chainEntries(content.chain ?? [], sources)
  const problems = settings.flatMap((setting) => strayProblems(setting, entries))
  const chain: ConfiguredNf[] = []
  for (const entry of entries) {
    const own = settings.filter(({ path }) => path[0] === 'chain' && isNamed(entry, String(path[1])))
      .map((setting) => ({ ...setting, path: setting.path.slice(2) }))
    const { member, found } = await chainMember(entry, own, document, sources.chainPlace ?? '--chain')
    if (member !== undefined) chain.push(member)
    problems.push(...found)
  }
  const config = problems.length === 0 ? { chain, ...engineSettings(content) } : undefined
  return { config, problems: inOrder(problems), content }
}

/** As somebody reads the file. */
function inOrder(problems: readonly PlacedProblem[]): PlacedProblem[] {
  return problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0))
}

/** The first problem as an error that says how many more there are. */
export function configError(problems: readonly PlacedProblem[], file: string | undefined): CodedError {
  const first = problems[0] as PlacedProblem
  const more = problems.length === 1 ? '' :
    ` (and ${problems.length - 1} more${file === undefined ? '' : `: nfactor check ${file}`})`
  return new CodedError(first.code, `${first.place}: ${first.message}${more}`, first.mend)
}

// -- Settings --------------------------------------------------------------------------------------------------------

const SECTIONS = ['limits', 'timeouts', 'policy', 'chain']

async function parseSetting(text: string): Promise<Setting> {
  const equals = text.indexOf('=')
  const path = text.slice(0, Math.max(0, equals)).split('.').map((step) => /^\d+$/.test(step) ? Number(step) : step)
  const usage = (message: string, mend: string): CodedError =>
    new CodedError('NF_USAGE', `--set ${text}: ${message}`, mend)
  const example = 'Write --set limits.flows=1000, or --set chain.NAME.KEY=VALUE'
  if (equals < 1 || path.some((step) => step === '')) throw usage('it is not KEY=VALUE', example)
  const section = String(path[0])
  if (!SECTIONS.includes(section)) {
    throw usage(`there is no ${JSON.stringify(section)}`,
      `${meant(section, SECTIONS)}It begins with ${SECTIONS.join(', ')}`)
  }
  if (path.length < (section === 'chain' ? 3 : 2)) throw usage('the key is not complete', example)
  const { parse: parseYaml } = await import('yaml')
  try {
    return { text, path, value: parseYaml(text.slice(equals + 1)) as unknown }
  } catch {
    throw usage('the value is not valid', 'Quote it')
  }
}

/** A copy of `whole` in which `path` has this value. */
function withValue(whole: unknown, path: ConfigPath, value: unknown): unknown {
  const [step, ...rest] = path
  if (step === undefined) return value
  if (Array.isArray(whole) && typeof step === 'number') {
    const copy = [...whole] as unknown[]
    copy[Math.min(step, copy.length)] = withValue(copy[step], rest, value)
    return copy
  }
  const isMapping = typeof whole === 'object' && whole !== null && !Array.isArray(whole)
  const inside = isMapping ? whole as Record<string, unknown> : {}
  return { ...inside, [step]: withValue(inside[step], rest, value) }
}

/** The problem of a setting for an NF that is not there. */
function strayProblems(setting: Setting, entries: readonly ChainEntry[]): PlacedProblem[] {
  const { path } = setting
  const name = String(path[1])
  if (path[0] !== 'chain' || entries.some((entry) => isNamed(entry, name))) return []
  const names = entries.map((entry) => shortName(entry.nf))
  const message = `${JSON.stringify(name)} is not in the chain`
  const mend = `${meant(name, names)}The chain is ${names.join(', ')}`
  const place = placeOfSetting(path, [setting]) as Place
  return [placed({ code: 'NF_CONFIG_INVALID', path, atKey: true, message, mend }, place)]
}

// -- Chain -----------------------------------------------------------------------------------------------------------

function chainEntries(
  fileChain: NonNullable<RunConfigDocument['chain']>, { file, chain, folder: given }: RunConfigSources,
): ChainEntry[] {
  const folder = given ?? (file === undefined ? process.cwd() : dirname(resolve(file)))
  const fromFile = fileChain.map((entry, index): ChainEntry =>
    typeof entry === 'string'
      ? { nf: entry, config: undefined, folder, index }
      : { nf: entry.nf, config: entry.config, folder, index })
  if (chain === undefined && fromFile.length > 0) return fromFile
  const unused = [...fromFile]
  return (chain ?? defaultChain).map((name) => {
    const at = unused.findIndex((entry) => isNamed(entry, name))
    // The same name twice takes the file's entries in order.
    if (at >= 0) return unused.splice(at, 1)[0] as ChainEntry
    return { nf: name, config: undefined, folder: process.cwd(), index: -1 }
  })
}

/** The name of an NF without folder and extension. */
function shortName(name: string): string {
  return isNfPath(name) ? parse(name).name : name
}

function isNamed(entry: ChainEntry, name: string): boolean {
  if (entry.nf === name) return true
  if (!isNfPath(entry.nf)) return false
  return isNfPath(name) ? resolve(entry.folder, entry.nf) === resolve(name) : shortName(entry.nf) === name
}

/** @param settings those of this NF, with paths that start in its configuration */
async function chainMember(
  entry: ChainEntry, settings: readonly Setting[], document: ConfigDocument | undefined, chainPlace: string,
): Promise<{ readonly member?: ConfiguredNf; readonly found: readonly PlacedProblem[] }> {
  const { nf, index } = entry
  const path: ConfigPath = ['chain', index < 0 ? nf : index]
  const place = (at: ConfigPath, atKey: boolean): Place =>
    index < 0 ? { place: chainPlace } : placeInFile(document, at, atKey)
  let definition: AnyNfDefinition
  try {
    definition = await loadNf(nf, entry.folder)
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    const { code, message, mend } = error
    return { found: [placed({ code, path, atKey: false, message, mend }, place([...path, 'nf'], false))] }
  }
  const config = settings.reduce<unknown>((whole, one) => withValue(whole, one.path, one.value), entry.config ?? {})
  const { data, problems } = checkNfConfig(definition, config)
  const found = problems.map((problem) => {
    const at = [...path, 'config', ...problem.path]
    return placed({ ...problem, path: at, message: `${definition.name}: ${problem.message}` },
      placeOfSetting(problem.path, settings) ?? place(at, problem.atKey))
  })
  return { member: { definition, config: data, given: config }, found }
}

/** Checks an NF's configuration against the NF's own schema. */
export function checkNfConfig(definition: AnyNfDefinition, config: unknown): ReturnType<typeof checkAgainst> {
  if (definition.config !== undefined) return checkAgainst(strict(definition.config), config)
  const keys = typeof config === 'object' && config !== null ? Object.keys(config) : []
  return {
    data: {},
    problems: keys.map((key) => ({
      code: 'NF_CONFIG_INVALID', path: [key], atKey: true, message: `there is no key ${JSON.stringify(key)}`,
      mend: 'It takes no configuration',
    })),
  }
}

// -- Places ----------------------------------------------------------------------------------------------------------

interface Place {
  readonly place: string
  readonly file?: string
  readonly line?: number
  readonly column?: number
}

function placed({ code, path, message, mend }: ConfigProblem, { place, file, line, column }: Place): PlacedProblem {
  return { place, file, line, column, key: pathText(path), code, message, mend }
}

function placeInFile(document: ConfigDocument | undefined, path: ConfigPath, atKey: boolean): Place {
  if (document === undefined) return { place: 'the command line' }
  const { file } = document
  const { line, column } = document.place(path, atKey)
  return { place: `${file}:${line}:${column}`, file, line, column }
}

/** The setting that gave the value at `path`, or a part of it. */
function placeOfSetting(path: ConfigPath, settings: readonly Setting[]): Place | undefined {
  const setting = settings.findLast((one) => isPrefix(one.path, path) || (path.length > 0 && isPrefix(path, one.path)))
  return setting === undefined ? undefined : { place: `--set ${setting.text}` }
}

function isPrefix(start: ConfigPath, path: ConfigPath): boolean {
  return start.length <= path.length && start.every((step, index) => step === path[index])
}

function syntaxProblem(file: string, { line, column, message }: SyntaxProblem): PlacedProblem {
  return placed({ code: 'NF_CONFIG_SYNTAX', path: [], atKey: false, message, mend: '' },
    { place: `${file}:${line}:${column}`, file, line, column })
}
