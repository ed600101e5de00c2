/**
 * Container image: what the nodes of a cluster run in, made of this installation and nothing from elsewhere.
 *
 *     /usr/local/bin/node, /bin/sh and the libraries that they load        as they are on this machine
 *     /opt/nfactor/{src or dist,node_modules,package.json}                 this program, and the packages that it needs at run time
 *     /opt/nfactor/cache                                                   what V8 has compiled of it: a node starts in a third of the time
 *
 * Its name tells the files that it was made of, by sizes and times: whoever has changed one gets another image. The engine keeps it until
 * another one is made an hour later.
 */

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CodedError } from '../base/coded-error.ts'
import type { ContainerEngine } from './container-engine.ts'
import { HELPER_FLAGS } from './helper-threads.ts'
import { tarArchive, type TarEntry } from './tar-archive.ts'

const REPOSITORY = 'nfactor'
const IMAGE_LABEL = 'nfactor.image'
const NODE = 'usr/local/bin/node'
const HOME = 'opt/nfactor'
const CACHE = 'cache'
/** An image of another installation that may be about to be used is let be. */
const OLD_SECONDS = 3600
const COMPILE_MS = 60_000

/** What packages need at run time. */
const PACKAGE_FILES = new Set(['.js', '.cjs', '.mjs', '.json', '.node', '.wasm', '.proto'])
const ownFolder = fileURLToPath(new URL('../..', import.meta.url))
/** TypeScript in a source tree, JavaScript in a package. */
const programFolder = extname(import.meta.filename) === '.ts' ? 'src' : 'dist'
const program = `${programFolder}/cli/main${extname(import.meta.filename)}`

/** A file of the image: where it is there, and here. */
interface Part {
  readonly path: string
  readonly file: string
}

/**
 * The image of this installation, made if the engine does not have it.
 *
 * @param onBuild called before it is made, which takes some seconds
 * @throws CodedError `NF_CONTAINER_...`
 */
export async function ownImage(engine: ContainerEngine, onBuild?: () => void): Promise<{ readonly name: string, readonly isNew: boolean }> {
  const parts = [...systemParts(), ...programParts()]
  const digest = createHash('sha256').update(`${process.version} ${process.getuid?.()}`)
  for (const { path, file } of parts) {
    const { size, mtimeMs } = statSync(file)
    digest.update(`${path} ${size} ${mtimeMs}\n`)
  }
  const tag = digest.digest('hex').slice(0, 16)
  const name = `${REPOSITORY}:${tag}`
  if (await engine.imageCommand(name) !== undefined) return { name, isNew: false }
  onBuild?.()
  const stage = mkdtempSync(join(tmpdir(), 'nfactor-image-'))
  try {
    await build(engine, tag, parts, stage)
  } finally {
    rmSync(stage, { recursive: true, force: true })
  }
  const now = Date.now() / 1000
  for (const { Id, Created, RepoTags } of await engine.images(IMAGE_LABEL)) {
    if (RepoTags?.includes(name) !== true && now - Created > OLD_SECONDS) await engine.removeImage(Id)
  }
  return { name, isNew: true }
}

async function build(engine: ContainerEngine, tag: string, parts: readonly Part[], stage: string): Promise<void> {
  // Code is compiled where it will lie, as seen from its cache: which of it there is, is told by a name relative to that.
  for (const { path, file } of parts) {
    if (!path.startsWith(HOME)) continue
    mkdirSync(dirname(join(stage, path)), { recursive: true })
    cpSync(file, join(stage, path), { dereference: true })
  }
  await compile(join(stage, HOME))
  const staged = filesBelow(join(stage, HOME), HOME, () => true)
  const files: TarEntry[] = [
    { path: 'etc/passwd', text: 'root:x:0:0:root:/tmp:/bin/sh\n', mode: 0o644 },
    ...parts.filter(({ path }) => !path.startsWith(HOME)).map(({ path, file }) => ({ path, file, mode: 0o755 })),
    ...staged.map(({ path, file }) => ({ path, file, mode: 0o644 })),
  ]
  const folders = [...new Set(files.flatMap(({ path }) => parentsOf(path)))].toSorted().map((path) => ({ path, mode: 0o755 }))
  const entries = [{ path: 'tmp/', mode: 0o1777 }, ...folders, ...files]
  await engine.importImage(REPOSITORY, tag, tarArchive(entries), [
    `ENTRYPOINT ${JSON.stringify([`/${NODE}`, ...HELPER_FLAGS, `/${HOME}/${program}`])}`,
    `ENV NODE_COMPILE_CACHE=/${HOME}/${CACHE}`, 'ENV NODE_COMPILE_CACHE_PORTABLE=1',
    `LABEL ${IMAGE_LABEL}=${tag}`,
  ])
}

/** Has Node compile what nodes are made of, by starting two that cannot begin: what they load it keeps. */
async function compile(home: string): Promise<void> {
  const nowhere = join(home, 'nowhere')
  const common = { clusterId: 1, folder: nowhere, incarnation: 1 }
  const env = { ...process.env, NODE_COMPILE_CACHE: join(home, CACHE), NODE_COMPILE_CACHE_PORTABLE: '1' }
  const configs = [
    { ...common, kind: 'runtime', id: 11, name: 'runtime-1' }, { ...common, kind: 'switch', id: 1, name: 'ingress', external: { type: 'none' } },
  ]
  await Promise.all(configs.map(async (config) => {
    const file = join(home, `${config.name}.json`)
    writeFileSync(file, JSON.stringify(config))
    const child = spawn(process.execPath, [join(home, program), config.kind, file], { stdio: 'ignore', env, timeout: COMPILE_MS })
    await new Promise((resolve) => child.on('close', resolve).on('error', resolve))
    rmSync(file)
  }))
}

/** Node, a shell, and what the dynamic linker loads for them. */
function systemParts(): Part[] {
  const programs = [{ path: NODE, file: realpathSync(process.execPath) }, { path: 'bin/sh', file: realpathSync('/bin/sh') }]
  const libraries = new Map<string, string>()
  const addons = filesBelow(join(modulesFolder(), '@koromix'), '', (name) => name.endsWith('.node'))
  for (const { file } of [...programs, ...addons]) {
    const { stdout, status, error } = spawnSync('ldd', [file], { encoding: 'utf8' })
    if (error !== undefined || status !== 0) {
      throw new CodedError('NF_CONTAINER_IMAGE', `ldd does not say which libraries ${file} needs`, 'An image is made on Linux with glibc only')
    }
    for (const [, path] of stdout.matchAll(/(?:=>\s*|^\s*)(\/\S+) \(0x/gm)) libraries.set(path.slice(1), realpathSync(path))
  }
  return [...programs, ...[...libraries].map(([path, file]) => ({ path, file }))]
}

/** This program, and its packages with theirs. */
function programParts(): Part[] {
  const isOurs = (name: string): boolean => !/\.test\.ts$/.test(name)
  return [
    { path: `${HOME}/package.json`, file: join(ownFolder, 'package.json') },
    ...filesBelow(join(ownFolder, programFolder), `${HOME}/${programFolder}`, isOurs),
    ...packages().flatMap((name) => filesBelow(join(modulesFolder(), name), `${HOME}/node_modules/${name}`,
      (file) => PACKAGE_FILES.has(extname(file)) || /^licen[cs]e/i.test(file))),
  ]
}

/** Names of the packages that we need, and that those need; Node itself, which is one of them, is there already. */
function packages(): string[] {
  const found = new Set<string>()
  const look = (folder: string): void => {
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as
      Record<'dependencies' | 'optionalDependencies', Record<string, string> | undefined>
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const path = join(modulesFolder(), name)
      if (found.has(name) || /^node-linux-/.test(name) || !existsSync(path)) continue
      found.add(name)
      look(path)
    }
  }
  look(ownFolder)
  return [...found]
}

/** Where packages are: beside this one where it is a package itself. */
function modulesFolder(): string {
  const inside = join(ownFolder, 'node_modules')
  return existsSync(join(inside, 'koffi')) ? inside : dirname(ownFolder.replace(/\/$/, ''))
}

function filesBelow(folder: string, path: string, isWanted: (name: string) => boolean): Part[] {
  return readdirSync(folder, { withFileTypes: true }).toSorted((a, b) => a.name < b.name ? -1 : 1).flatMap((entry) => {
    const [file, inside] = [join(folder, entry.name), `${path}/${entry.name}`]
    if (entry.isDirectory()) return filesBelow(file, inside, isWanted)
    return entry.isFile() && isWanted(entry.name) ? [{ path: inside, file }] : []
  })
}

/** `a/`, `a/b/` of `a/b/c`. */
function parentsOf(path: string): string[] {
  const parts = path.split('/').slice(0, -1)
  return parts.map((_, index) => `${parts.slice(0, index + 1).join('/')}/`)
}
