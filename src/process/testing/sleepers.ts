/** Sleepers: a launcher whose processes do nothing until they are ended. */

import { spawn } from 'node:child_process'
import type { NodeEnd, NodeLauncher } from '../node-launcher.ts'

export const sleepers: NodeLauncher = {
  name: 'process',
  launch() {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' })
    return Promise.resolve({
      pid: child.pid ?? 0, kill: (signal: NodeJS.Signals) => { child.kill(signal) },
      ended: new Promise<NodeEnd>((resolve) => { child.on('exit', (status, signal) => { resolve({ status, signal, lastLines: '' }) }) }),
    })
  },
}
