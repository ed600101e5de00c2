/**
 * A configuration file, YAML or JSON (which is YAML), with the place of everything in it.
 */

import { readFileSync } from 'node:fs'
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Document, type Node, type Pair } from 'yaml'
import { CodedError } from '../base/coded-error.ts'

/** Steps from the top of a document to a value: keys and indexes. */
export type ConfigPath = readonly (string | number)[]

export interface ConfigPlace {
  readonly line: number
  readonly column: number
}

export interface SyntaxProblem extends ConfigPlace {
  readonly message: string
}

export class ConfigDocument {
  readonly file: string
  readonly #document: Document.Parsed
  readonly #lines = new LineCounter()

  constructor(file: string, text: string) {
    this.file = file
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false })
  }

  /** What is wrong with it as YAML; its value means nothing if there is anything. */
  get syntaxProblems(): SyntaxProblem[] {
    return this.#document.errors.map((error) => ({ message: error.message, ...this.#placeAt(error.pos[0]) }))
  }

  /**
   * The content as plain values; an empty document is an empty mapping.
   *
   * @throws CodedError `NF_CONFIG_SYNTAX` for aliases without end
   */
  get value(): unknown {
    try {
      return this.#document.toJS() ?? {}
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      throw new CodedError('NF_CONFIG_SYNTAX', `${this.file}: ${message}`, '', { cause: error })
    }
  }

  /**
   * Where the value at `path` stands, or what is nearest to it.
   *
   * @param atKey the place of its key instead
   */
  place(path: ConfigPath, atKey: boolean): ConfigPlace {
    let node: Node | null = this.#document.contents
    let offset = node?.range?.[0] ?? 0
    for (const [index, step] of path.entries()) {
      if (isAlias(node)) node = node.resolve(this.#document) as Node | null ?? null
      let next: Node | null = null
      if (isMap(node)) {
        const pairs = node.items as Pair<Node, Node | null>[]
        const pair = pairs.find(({ key }) => isScalar(key) && String(key.value) === String(step))
        if (pair === undefined) break
        const isLast = index === path.length - 1
        next = pair.value
        offset = (isLast && atKey ? undefined : next?.range?.[0]) ?? pair.key.range?.[0] ?? offset
      } else if (isSeq(node)) {
        next = node.items[Number(step)] as Node | undefined ?? null
        offset = next?.range?.[0] ?? offset
      }
      if (next === null) break
      node = next
    }
    return this.#placeAt(offset)
  }

  #placeAt(offset: number): ConfigPlace {
    const { line, col } = this.#lines.linePos(offset)
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
}

/**
 * @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE`
 */
export function readConfigDocument(file: string): ConfigDocument {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new CodedError('NF_FILE_NOT_FOUND', `${file} does not exist`, 'Check the path', { cause: error })
    }
    const why = code === 'EISDIR' ? 'it is a directory' : code === 'EACCES' ? 'permission denied' : message
    throw new CodedError('NF_FILE_UNREADABLE', `${file} cannot be read: ${why}`, '', { cause: error })
  }
  return new ConfigDocument(file, text)
}
