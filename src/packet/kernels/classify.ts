/**
 * Loads the kernel of the first batch stages, classify.as.ts. Its twin is in runtime/classify-twin.ts and packet/parse.ts.
 */

import type { Arena } from '../../memory/arena.ts'
import { classifyBinary } from './classify-binary.ts'

/** Result word of a packet that the kernel leaves to the parser. */
export const UNPARSED = -1000

/** See classify.as.ts. All offsets are byte offsets. */
export type ClassifyKernel = (batch: number, count: number, seed: number, table: number, shift: number, lines: number,
  sink: number, time: number, hints: number, hintCount: number) => number

let compiled: WebAssembly.Module | null | undefined

/** The kernel over an arena, or null where WebAssembly is missing. */
export function loadClassifyKernel(arena: Arena): ClassifyKernel | null {
  if (compiled === undefined) {
    compiled = null
    try {
      const bytes = Uint8Array.from(atob(classifyBinary), (c) => c.charCodeAt(0))
      if (WebAssembly.validate(bytes)) compiled = new WebAssembly.Module(bytes)
    } catch {
      // No WebAssembly, or code generation is forbidden: the twin does the same work.
    }
  }
  if (compiled === null) return null
  return new WebAssembly.Instance(compiled, { env: { memory: arena.memory } }).exports.classify as ClassifyKernel
}
