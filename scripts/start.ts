/**
 * `npm start`: a first look. Shows a cluster at work (`nfactor demo`), then says what to try next. Arguments go to the demo:
 * `npm start -- --stay` leaves the cluster up.
 */

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
const args = process.argv.slice(2)
const { status } = spawnSync(process.execPath, ['bin/nfactor.js', 'demo', ...args], { stdio: 'inherit' })
if (status === 0 && !args.includes('--json')) {
  process.stdout.write(`
What to try next:

  npx nfactor up --detach                            a cluster of your own, then nfactor status, flows, migrate, kill, down
  npx nfactor run examples/captures/web.pcap.gz      the chain over a capture, here a real one of 949 packets; --json for programs
  npx nfactor nf list                                what the network functions do, count and take as configuration
  npx nfactor nf new my-nf --dir out                 a network function to start from, then
  npx nfactor nf test out/my-nf.ts                   does it keep the rules that all must keep?
`)
}
process.exitCode = status ?? 1
