/**
 * Loads network functions: built-in ones by name, others from a file or a package.
 *
 *     monitor             built in
 *     ./nfs/nat.ts        a file; it has the definition as its default export
 *     @acme/nfactor-nat   a package, found from the folder of whoever names it
 *
 * Whatever is wrong with a file that somebody is just writing is told as one line with the place in it.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, parse, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { CodedError } from '../base/coded-error.ts'
import { checkDefinition, isNfDefinition, type AnyNfDefinition } from '../nf/definition.ts'
import { builtInNfs } from '../nfs/index.ts'
import { nearestName } from './nearest-name.ts'
import { installSdkResolution, packageSpecifier, takeAsModule } from './sdk-resolution.ts'

const SOURCE = /\.[cm]?[jt]s$/
const ERASABLE = 'Node only strips types: write a union of literals instead of an enum, plain modules instead of ' +
  'namespaces, and fields instead of parameter properties'

/** True if a chain's name for an NF means a file. */
export function isNfPath(name: string): boolean {
  return /^\.{0,2}\//.test(name) || SOURCE.test(name)
}

/**
 * Loads one NF.
 *
 * @param folder where relative paths start and packages are looked for
 * @throws CodedError `NF_NF_UNKNOWN`, `NF_NF_LOAD`, `NF_NF_INVALID`
 */
export async function loadNf(name: string, folder = process.cwd()): Promise<AnyNfDefinition> {
  const builtIn = Object.hasOwn(builtInNfs, name) ? builtInNfs[name] : undefined
  if (builtIn !== undefined) return (await builtIn()).default
  if (name.trim() === '') throw unknownNf(name, folder)
  installSdkResolution()
  const path = isNfPath(name) ? resolve(folder, name) : undefined
  if (path !== undefined && !existsSync(path)) throw missingFile(name, path)
  if (path !== undefined && !SOURCE.test(path)) {
    throw new CodedError('NF_NF_LOAD', `${name} is not a .ts or .js file`, 'Name the file of a network function')
  }
  const specifier = path !== undefined
    ? pathToFileURL(path).href
    : packageSpecifier(name, pathToFileURL(`${resolve(folder)}/`).href)
  if (path !== undefined && path.endsWith('.js') && isModuleSource(path)) takeAsModule(specifier)
  let module: { readonly default?: unknown }
  try {
    module = await import(specifier) as typeof module
  } catch (error) {
    if (error instanceof CodedError) {
      throw new CodedError(error.code, `${name}: ${error.message}`, error.mend, { cause: error })
    }
    if (path === undefined && isMissingPackage(error, name)) throw unknownNf(name, folder)
    throw loadFailure(name, path, error)
  }
  if (!isNfDefinition(module.default)) {
    throw new CodedError('NF_NF_LOAD', `${name} has no network function as its default export`,
      'Write: export default defineNf({ ... })')
  }
  checkDefinition(module.default)
  return module.default
}

/** True for JavaScript that imports or exports, whether or not the nearest package.json says so. */
function isModuleSource(path: string): boolean {
  try {
    return /^\s*(?:import|export)\b/m.test(readFileSync(path, 'utf8'))
  } catch {
    return false // importing it will say why
  }
}

function unknownNf(name: string, folder: string): CodedError {
  const builtIns = Object.keys(builtInNfs)
  const near = nearestName(name, builtIns) ?? nearFile(name, folder)
  return new CodedError('NF_NF_UNKNOWN', `there is no network function ${JSON.stringify(name)}`,
    (near === undefined ? '' : `Did you mean ${near}? `) +
    `Built in are ${builtIns.join(', ')}; others are named by file (./NAME.ts) or package`)
}

/** A file that somebody may have meant by a bare name. */
function nearFile(name: string, folder: string): string | undefined {
  return ['.ts', '.js', '.mts', '.mjs'].map((ending) => `./${name}${ending}`)
    .find((file) => existsSync(resolve(folder, file)))
}

function missingFile(name: string, path: string): CodedError {
  let neighbours: string[] = []
  try {
    neighbours = readdirSync(dirname(path)).filter((file) => SOURCE.test(file))
  } catch {
    // The folder is missing too.
  }
  const near = nearestName(parse(path).name, neighbours.map((file) => parse(file).name))
  const file = neighbours.find((neighbour) => parse(neighbour).name === near)
  return new CodedError('NF_NF_UNKNOWN', `the network function file ${name} does not exist`,
    file === undefined ? 'Check the path' : `Did you mean ${join(dirname(name), basename(file))}?`)
}

function isMissingPackage(error: unknown, name: string): boolean {
  const { code, message } = error as NodeJS.ErrnoException
  const packageName = name.split('/').slice(0, name.startsWith('@') ? 2 : 1).join('/')
  return code === 'ERR_INVALID_MODULE_SPECIFIER' ||
    (code === 'ERR_MODULE_NOT_FOUND' && message.includes(`'${packageName}'`))
}

function loadFailure(name: string, path: string | undefined, error: unknown): CodedError {
  const { code } = error as NodeJS.ErrnoException
  const text = error instanceof Error ? error.message : String(error)
  if (code === 'ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING') {
    return new CodedError('NF_NF_LOAD', `${name}: files inside node_modules must be JavaScript`,
      'Compile the package, or keep the file outside of node_modules', { cause: error })
  }
  const place = error instanceof Error
    ? placeOf(error.stack ?? '') ?? importerOf(error) ?? syntaxPlace(error, path)
    : undefined
  const mend = code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX' ? ERASABLE
    : code === 'ERR_MODULE_NOT_FOUND' ? 'Install the package in that folder, or check the path of the import'
      : error instanceof SyntaxError || code === 'ERR_INVALID_TYPESCRIPT_SYNTAX' ? 'Mend the line that is named'
        : 'It happens while the file is loaded, before any packet'
  // Node repeats the importing file, which the place has already.
  const what = text.replace(/ imported from .*$/, '')
  return new CodedError('NF_NF_LOAD', `${place ?? name}: ${what}`, mend, { cause: error })
}

/** `file:line:column` of what is wrong: the head that Node gives syntax errors, or the first file on the stack. */
function placeOf(stack: string): string | undefined {
  const lines = stack.split('\n')
  const head = /^((?:file:\/\/)?\/.*):(\d+)$/.exec(lines[0] as string)
  if (head !== null) {
    const caret = lines.slice(1, 6).find((line) => /^\s*\^+\s*$/.test(line))
    return `${localPath(head[1] as string)}:${head[2]}${caret === undefined ? '' : `:${caret.indexOf('^') + 1}`}`
  }
  for (const line of lines) {
    const frame = /\(?(file:\/\/\/[^\s)]+):(\d+):(\d+)\)?$/.exec(line)
    const url = frame?.[1]
    if (url !== undefined && !isOwnFile(url)) return `${localPath(url)}:${frame?.[2]}:${frame?.[3]}`
  }
  return undefined
}

/** The file whose import failed. */
function importerOf(error: Error): string | undefined {
  const importer = / imported from (\/.*)$/.exec(error.message)?.[1]
  return importer === undefined ? undefined : localPath(importer)
}

/** Node keeps the place of a JavaScript module's syntax error to itself, until it is asked to check the file. */
function syntaxPlace(error: Error, path: string | undefined): string | undefined {
  if (!(error instanceof SyntaxError) || path === undefined) return undefined
  return placeOf(spawnSync(process.execPath, ['--check', path], { encoding: 'utf8' }).stderr)
}

const ownFolder = new URL('../', import.meta.url).href

function isOwnFile(url: string): boolean {
  return url.startsWith(ownFolder)
}

/** A path as short as it can be named from here. */
function localPath(url: string): string {
  const path = url.startsWith('file:') ? fileURLToPath(url) : url
  const here = `${process.cwd()}/`
  return path.startsWith(here) ? path.slice(here.length) : path
}
