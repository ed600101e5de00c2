/**
 * Entry of the command line. It sets what must be set before anything else is loaded, then hands over to the program.
 *
 * The engine's flags count for code that is compiled after they are set, and are part of what the compile cache goes
 * by, which halves the time to start and lies in the user's own cache folder.
 */

import { mkdirSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setEngineFlags } from '../process/engine-flags.ts'

setEngineFlags()

const cacheFolder = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache')
// Node would make the folders itself, but tries for ever where there can be none (/proc).
if (hasFolder(cacheFolder) && hasFolder(join(cacheFolder, 'nfactor'))) enableCompileCache(join(cacheFolder, 'nfactor'))

const { main } = await import('./program.ts')
process.exitCode = await main(process.argv.slice(2))

/** True if the folder is there or could be made. */
function hasFolder(path: string): boolean {
  try {
    mkdirSync(path)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EEXIST'
  }
}
