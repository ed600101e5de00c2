/** Programs of a test in namespaces of its own: clients and servers in JavaScript, killed at the end whatever happens. */

import type { ChildProcess } from 'node:child_process'
import { clientProgram, parseDownloads, serverProgram, startProgram, type Download } from './download-programs.ts'

export class TestPrograms {
  readonly #children = new Set<ChildProcess>()

  /** Starts the web server; returns when it listens. */
  async serve(namespace: string): Promise<void> {
    const child = this.#start(namespace, serverProgram)
    await new Promise((resolve) => { child.stdout?.once('data', resolve) })
  }

  /** Downloads from it over so many connections, and says how each went. */
  async download(namespace: string, host: string, connections: number, bytes: number, pauseMs: number): Promise<Download[]> {
    const child = this.#start(namespace, clientProgram, host, String(connections), String(bytes), String(pauseMs))
    let text = ''
    child.stdout?.setEncoding('utf8').on('data', (part: string) => { text += part })
    await new Promise((resolve) => { child.on('close', resolve) })
    this.#children.delete(child)
    return parseDownloads(text)
  }

  #start(namespace: string, program: string, ...args: string[]): ChildProcess {
    const child = startProgram(namespace, program, ...args)
    this.#children.add(child)
    return child
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL')
  }
}
