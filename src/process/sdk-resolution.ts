/**
 * Lets a network function in any file import `nfactor` and `nfactor/testing`, and get the copy that is running: neither
 * an installed package next to the file nor a version of its own can come between. TypeScript files are taken for ES
 * modules whatever the nearest package.json says, and a package is found from the folder that names it in a chain.
 */

import { registerHooks } from 'node:module'

/** Specifiers of this form name a package as seen from a folder: see {@link packageSpecifier}. */
const FROM_FOLDER = 'nfactor-from:'

// Compiled, this file has JavaScript neighbours.
const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
const sdk = new Map([
  ['nfactor', new URL(`../nf/index.${extension}`, import.meta.url).href],
  ['nfactor/testing', new URL(`../testing/index.${extension}`, import.meta.url).href],
])

/** What to import to get a package as a module in `folder` would. */
export function packageSpecifier(name: string, folderUrl: string): string {
  return `${FROM_FOLDER}${encodeURIComponent(folderUrl)}:${name}`
}

const modules = new Set<string>()

/** Has a JavaScript file taken for an ES module whatever the nearest package.json says. */
export function takeAsModule(url: string): void {
  modules.add(url)
}

let isInstalled = false

/** Installs the resolution for everything that is imported from now on; once per process. */
export function installSdkResolution(): void {
  if (isInstalled) return
  isInstalled = true
  registerHooks({
    resolve(specifier, context, nextResolve) {
      const url = sdk.get(specifier)
      if (url !== undefined) return { url, shortCircuit: true }
      if (specifier.startsWith(FROM_FOLDER)) {
        const colon = specifier.indexOf(':', FROM_FOLDER.length)
        const parentURL = decodeURIComponent(specifier.slice(FROM_FOLDER.length, colon))
        return nextResolve(specifier.slice(colon + 1), { ...context, parentURL })
      }
      const resolved = nextResolve(specifier, context)
      if (/^file:.*\.ts$/.test(resolved.url)) return { ...resolved, format: 'module-typescript' }
      return modules.has(resolved.url) ? { ...resolved, format: 'module' } : resolved
    },
  })
}
