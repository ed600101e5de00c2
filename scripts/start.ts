/**
 * `npm start`: a first look. Runs the example capture through the standard chain, keeps what it found in ./out, and
 * says what to try next.
 */

import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
mkdirSync('out', { recursive: true })
const { status } = spawnSync(process.execPath, [
  'bin/nfactor.js', 'run', 'examples/captures/web.pcap.gz', '--chain', 'monitor,firewall,http',
  '--flows', 'out/flows.jsonl', '--events', 'out/events.jsonl',
], { stdio: 'inherit' })
if (status === 0) {
  process.stdout.write(`
out/flows.jsonl has a line for each flow, out/events.jsonl one for each HTTP message. What to try next:

  node bin/nfactor.js run YOUR.pcap                  a capture of your own; --json for programs
  node bin/nfactor.js nf list                        what the network functions do, count and take as configuration
  node bin/nfactor.js nf new my-nf --dir out         a network function to start from, then
  node bin/nfactor.js nf test out/my-nf.ts           does it keep the rules that all must keep?
  node bin/nfactor.js run examples/captures/web.pcap.gz --chain monitor,out/my-nf.ts
`)
}
process.exitCode = status ?? 1
