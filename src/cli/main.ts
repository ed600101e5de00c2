/**
 * Entry of the command line. It sets what must be set before anything else is loaded, then hands over to the program.
 *
 * PERF: the compiled chain is fast when the engine's and the NFs' functions are inlined into it; V8's own limits stop that
 * halfway (20% slower; bench engine, "modularity"). The flags count for code that is compiled after they are set, and are part
 * of what the compile cache goes by, which halves the time to start and lies in the user's own cache folder.
 */

import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'

setFlagsFromString('--max-inlined-bytecode-size=1000')
setFlagsFromString('--max-inlined-bytecode-size-cumulative=3000')

enableCompileCache(join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'nfactor'))

const { main } = await import('./program.ts')
process.exitCode = await main(process.argv.slice(2))
