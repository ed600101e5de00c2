/**
 * The fast path of a chain as a WebAssembly kernel: what most packets need of flow actor and network functions, for a whole batch
 * in one call. A network function names its part in `fastPath`; where every one of a chain has a part in the same module, and in
 * the module's order, the engine uses it. Without it the chain gives the same results: it is the kernel's twin.
 *
 *     program in the arena, words   │ outputs │ stopped at │ - │ - │  then for each part of the module
 *                                   │ state offset, 0 if not in the chain │ counters │ parameter │ - │
 */

import type { Arena } from '../memory/arena.ts'

/** Given by a network function with its methods. */
export interface FastPathStep {
  /** The module, in base64; exports `fastPath` as `nfs/fast-path.as.ts` does. */
  readonly module: string
  /** Which part of the module it is, from 0 on. */
  readonly part: number
  /** Handed to it. */
  readonly parameter?: number
}

/** What the program is written from. */
export interface FastPathMember {
  readonly step: FastPathStep | undefined
  readonly stateOffset: number
  /** Arena offset of the counters. */
  readonly counters: number
}

export interface FastPath {
  /** Runs packets from the descriptor at byte offset `d` on; returns where it stopped. See nfs/fast-path.as.ts. */
  readonly run: (d: number, end: number, program: number, guessed: number) => number
  /** Byte offset of the program. */
  readonly program: number
  /** Which NF of the chain a part is. */
  readonly nfOfPart: Int32Array
}

/** Words of the program. */
export const FastPathWord = { outputs: 0, stopped: 1 } as const

const HEADER_WORDS = 4
const PART_WORDS = 4
/** The most parts of a module. */
const PARTS_MAX = 16

const compiled = new Map<string, WebAssembly.Module | null>()

function compile(base64: string): WebAssembly.Module | null {
  let module = compiled.get(base64)
  if (module === undefined) {
    module = null
    try {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
      if (WebAssembly.validate(bytes)) module = new WebAssembly.Module(bytes)
    } catch {
      // No WebAssembly, or code generation is forbidden: the chain does the same work.
    }
    compiled.set(base64, module)
  }
  return module
}

/** The kernel for a chain, or null where there is none. */
export function loadFastPath(arena: Arena, members: readonly FastPathMember[]): FastPath | null {
  const source = members[0]?.step?.module
  if (source === undefined || members.some(({ step }) => step?.module !== source)) return null
  const parts = members.map(({ step }) => (step as FastPathStep).part)
  if (parts.some((part, index) => index > 0 && part <= parts[index - 1])) return null
  const module = compile(source)
  if (module === null) return null
  const program = arena.allocate('fast path', (HEADER_WORDS + PARTS_MAX * PART_WORDS) * 4)
  const { i32 } = arena
  const nfOfPart = new Int32Array(PARTS_MAX)
  members.forEach(({ step, stateOffset, counters }, index) => {
    const word = (program >> 2) + HEADER_WORDS + parts[index] * PART_WORDS
    nfOfPart[parts[index]] = index
    i32[word] = stateOffset
    i32[word + 1] = counters
    i32[word + 2] = step?.parameter ?? 0
  })
  const run = new WebAssembly.Instance(module, { env: { memory: arena.memory } }).exports.fastPath as FastPath['run']
  return { run, program, nfOfPart }
}
