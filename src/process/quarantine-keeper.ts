/**
 * Quarantine keeper: between a controller and its nodes, it sees to it that a packet which has killed a runtime does not kill those that
 * have the flow next. Before any node hears that a life is fenced, the runtimes hear which flow that life was running. PROTOCOL 22.
 *
 *     the process crashed, or is fenced while it keeps a processor busy (a loop)   one flow noted: it is quarantined; several: suspects
 *     nobody knows how it ended                                                    suspects; one that was a suspect before: quarantined
 *     it was killed from outside, or stands still                                  the packet that it was at has done nothing
 *
 * What is known is read from the notes of fenced lives, so the next leader knows it too.
 */

import { readFileSync, rmSync } from 'node:fs'
import { addBounded, setBounded } from '../base/bounded.ts'
import type { FencedLife, NodeCommand, NodeLinks } from '../controller/node-commands.ts'
import type { ClusterFolder, ProcessEntry } from './cluster-folder.ts'
import { flowNames } from './flow-list.ts'
import { EXTERNAL_SIGNALS, type NodeEnd } from './node-launcher.ts'
import { readProgressNote } from './progress-note.ts'

export interface QuarantineKeeperOptions {
  readonly folder: ClusterFolder
  readonly links: NodeLinks
  /** Tells a runtime; `isSuspect`: only one of several, or perhaps none. */
  /** False: it is not there yet. */
  quarantine(node: number, incarnation: number, keys: readonly (readonly number[])[], isSuspect: boolean): void | false
  processOf(incarnation: number): ProcessEntry | undefined
  onQuarantined(text: string, fields: Readonly<Record<string, unknown>>): void
}

interface Verdict {
  readonly keys: readonly (readonly number[])[]
  readonly isSuspect: boolean
}

/** Remembered at once; what came first is forgotten first. */
const VERDICTS_MAX = 256
/** The same for flows that have been suspects, and for ends of lives that nobody has asked about. */
const SUSPECTS_MAX = 1024
const ENDS_MAX = 1024
/** With more lives than this, those are forgotten that are not among the fenced any more. */
const EXAMINED_MAX = 1024

export class QuarantineKeeper implements NodeLinks {
  readonly #options: QuarantineKeeperOptions
  /** How lives ended, of those that this process had started. */
  readonly #ends = new Map<number, NodeEnd>()
  readonly #examined = new Set<number>()
  readonly #suspects = new Set<string>()
  readonly #verdicts: Verdict[] = []
  /** How many verdicts, since the beginning, each life has been told. */
  readonly #told = new Map<number, number>()
  #forgotten = 0

  constructor(options: QuarantineKeeperOptions) {
    this.#options = options
  }

  /** A life has ended, and how is known. */
  ended(incarnation: number, end: NodeEnd): void {
    setBounded(this.#ends, incarnation, end, ENDS_MAX)
  }

  send(node: number, incarnation: number, command: NodeCommand): void | false {
    if (command.kind === 'configure') {
      for (const life of command.fenced) if (!this.#examined.has(life.incarnation)) this.#examine(life.incarnation)
      if (this.#examined.size > EXAMINED_MAX) this.#forgetBut(command.fenced)
      const isSwitch = command.config.switches.some(({ id }) => id === node)
      if (!isSwitch) this.#tell(node, incarnation)
    }
    return this.#options.links.send(node, incarnation, command)
  }

  #tell(node: number, incarnation: number): void {
    const from = Math.max(this.#forgotten, this.#told.get(incarnation) ?? 0)
    for (const { keys, isSuspect } of this.#verdicts.slice(from - this.#forgotten)) {
      if (this.#options.quarantine(node, incarnation, keys, isSuspect) === false) return
    }
    this.#told.set(incarnation, this.#forgotten + this.#verdicts.length)
  }

  #forgetBut(fenced: readonly FencedLife[]): void {
    const lives = new Set(fenced.map(({ incarnation }) => incarnation))
    for (const life of this.#examined) {
      if (lives.has(life)) continue
      this.#examined.delete(life)
      // No leader asks about it any more.
      rmSync(this.#options.folder.noteFile(life), { force: true })
    }
  }

  #examine(incarnation: number): void {
    this.#examined.add(incarnation)
    const blame = this.#blameOf(incarnation)
    const path = this.#options.folder.noteFile(incarnation)
    const keys = blame === 'none' ? [] : readProgressNote(path)
    this.#ends.delete(incarnation)
    this.#told.delete(incarnation)
    if (blame === 'none') rmSync(path, { force: true })
    if (keys.length === 0) return
    const names = keys.map((key) => key.join())
    const isSuspect = keys.length > 1 || (blame === 'unknown' && !this.#suspects.has(names[0]))
    if (isSuspect) for (const name of names) addBounded(this.#suspects, name, SUSPECTS_MAX)
    this.#verdicts.push({ keys: keys.map((key) => [...key]), isSuspect })
    if (this.#verdicts.length > VERDICTS_MAX) {
      this.#verdicts.shift()
      this.#forgotten++
    }
    const flows = keys.map((key) => {
      const { protocol, a, b } = flowNames(key, 0)
      return `${protocol} ${a} ${b}`
    })
    this.#options.onQuarantined(isSuspect
      ? `a packet of one of ${flows.length} flows may have ended incarnation ${incarnation}; they run with care`
      : `a packet of ${flows[0]} has ended incarnation ${incarnation}; the flow is quarantined`, { incarnation, flows, isSuspect })
  }

  /** Whether what a life was running can have been its end. */
  #blameOf(incarnation: number): 'certain' | 'unknown' | 'none' {
    const end = this.#ends.get(incarnation)
    if (end !== undefined) return end.signal !== null && EXTERNAL_SIGNALS.includes(end.signal) ? 'none' : 'certain'
    const entry = this.#options.processOf(incarnation)
    if (entry === undefined) return 'unknown'
    // It lives, and is fenced: it keeps a processor busy, or it stands, and then its packet is not why.
    return stateOf(entry.pid) === 'R' ? 'certain' : 'none'
  }
}

/** The kernel's letter for what a process does now; empty if there is none. */
function stateOf(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2, text.lastIndexOf(')') + 3)
  } catch {
    return ''
  }
}
