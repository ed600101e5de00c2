/**
 * Loads the kernels: small functions over the arena that scan bytes faster than JavaScript can.
 *
 * They are written in AssemblyScript (`*.as.ts`), compiled by scripts/build-kernels.ts and embedded as text, so nothing
 * is read or built when the program starts. The module imports the arena's memory, brings no memory, data or start
 * function of its own, and so cannot disturb the arena. Each kernel has a plain TypeScript twin with the same signature
 * and the same results; the twins take over where WebAssembly SIMD is missing, and can be asked for.
 *
 * Offsets are trusted: callers pass ranges inside the arena with `offset <= end`.
 */

import type { Arena } from '../arena.ts'
import { createHttpHeadTwin, type HttpHeadKernels } from './http-head-twin.ts'
import { writeHttpTables } from './http-tables.ts'
import { kernelsBinary } from './kernels-binary.ts'
import { createScanTwin, type ScanKernels } from './scan-twin.ts'

export interface Kernels extends ScanKernels, HttpHeadKernels {
  /** Whether these are the WebAssembly kernels, not their twins. */
  readonly wasm: boolean
  /** Arena offset of what a head scan looks up, for other modules with the scan in them. */
  readonly httpTables: number
}

type KernelExports = ScanKernels & HttpHeadKernels & { setHttpTables(tables: number): void }

let compiled: WebAssembly.Module | null | undefined

/** The compiled module, or null if this engine cannot run it. Compiled once per process: it takes milliseconds. */
function compileKernels(): WebAssembly.Module | null {
  if (compiled === undefined) {
    compiled = null
    try {
      const bytes = Uint8Array.from(atob(kernelsBinary), (c) => c.charCodeAt(0))
      if (WebAssembly.validate(bytes)) compiled = new WebAssembly.Module(bytes)
    } catch {
      // No WebAssembly at all, or code generation is forbidden: the twins do the same work.
    }
  }
  return compiled
}

/**
 * The kernels over an arena, of which they take 4 KiB for their tables.
 *
 * @param options.wasm false: the plain TypeScript twins; true (the default): WebAssembly if the engine can
 */
export function loadKernels(arena: Arena, options: { wasm?: boolean } = {}): Kernels {
  const tables = writeHttpTables(arena)
  const module = options.wasm === false ? null : compileKernels()
  if (module === null) return { wasm: false, httpTables: tables, ...createScanTwin(arena), ...createHttpHeadTwin(arena, tables) }
  const instance = new WebAssembly.Instance(module, { env: { memory: arena.memory } })
  const exports = instance.exports as unknown as KernelExports
  exports.setHttpTables(tables)
  return {
    wasm: true,
    httpTables: tables,
    findByte: exports.findByte,
    findHeadEnd: exports.findHeadEnd,
    equalBytes: exports.equalBytes,
    copy: exports.copy,
    checksum16: exports.checksum16,
    parseHttpHead: exports.parseHttpHead,
    detectHttp: exports.detectHttp,
  }
}
