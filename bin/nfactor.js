#!/usr/bin/env node
/**
 * Launcher of the command: finds a Node.js that NFactor runs on, and what to run with it. It must itself load in any
 * Node.js.
 *
 *     this one, if it is version 24 or later       src/cli/main.ts in a source tree (never stale)
 *     else the one that npm installed with us      dist/cli/main.js in an installed package
 */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const NODE_MAJOR_MIN = 24

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'src', 'cli', 'main.ts')
const compiled = join(root, 'dist', 'cli', 'main.js')
// Node strips no types inside node_modules.
const main = existsSync(source) && !/[\\/]node_modules[\\/]/.test(root) ? source : compiled

if (!existsSync(main)) fail(`${main} is missing`, 'Install nfactor again, or build it: npm run build')
if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN) {
  await import(pathToFileURL(main).href)
} else {
  runWith(pinnedNode())
}

/** The Node.js of the platform package, which npm puts next to this package or above. */
function pinnedNode() {
  const inside = join('node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node')
  for (let folder = root; ; folder = dirname(folder)) {
    const path = join(folder, inside)
    if (existsSync(path)) return path
    if (folder === dirname(folder)) break
  }
  return fail(`this is Node.js ${process.versions.node}, and NFactor needs ${NODE_MAJOR_MIN} or later`,
    'Install it from https://nodejs.org, or install nfactor with its optional dependencies, which bring one')
}

function runWith(node) {
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => fail(`${node} does not start: ${error.message}`, ''))
  child.on('close', (status, signal) => {
    // As a shell tells that a signal ended it.
    process.exitCode = status === null ? 128 + constants.signals[signal] : status
    for (const one of signals) process.removeAllListeners(one)
  })
}

function fail(message, mend) {
  process.stderr.write(`error NF_USAGE: ${message}${mend === '' ? '' : `. ${mend}`}\n`)
  process.exit(1)
}
