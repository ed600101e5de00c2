/**
 * Compiles the AssemblyScript kernels and embeds them: `node scripts/build-kernels.ts` rewrites
 * src/memory/kernels/kernels-binary.ts. To be run after every change of a `*.as.ts` file; a test recompiles and
 * compares.
 *
 * The output depends on the compiler's version alone, which package-lock.json pins. `--runtime stub` with no use of the
 * heap, imported memory and no static data leave a module of plain functions.
 */

import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const folder = fileURLToPath(new URL('../src/memory/kernels', import.meta.url))
const entries = ['scan.as.ts', 'http-head.as.ts']

/** Compiles the kernels. */
export async function compileKernels(): Promise<Uint8Array> {
  let binary: Uint8Array | undefined
  const { error, stderr } = await asc.main(
    [
      ...entries, '--baseDir', folder, '--outFile', 'kernels.wasm', '--optimizeLevel', '3', '--shrinkLevel', '0',
      '--converge',
      '--noAssert', '--runtime', 'stub', '--importMemory', '--noExportMemory', '--sharedMemory', '--initialMemory', '1',
      '--maximumMemory', '32767', '--enable', 'simd,threads',
    ],
    {
      writeFile: (_name: string, contents: string | Uint8Array) => {
        if (typeof contents !== 'string') binary = contents
      },
    },
  )
  if (error !== null || binary === undefined) throw new Error(`the kernels do not compile: ${stderr.toString()}`)
  return binary
}

/** The source file that embeds a binary. */
export function embedKernels(binary: Uint8Array): string {
  const lines = Buffer.from(binary).toString('base64').match(/.{1,112}/g) ?? []
  return `/**
 * The compiled kernels, in base64. Made by scripts/build-kernels.ts from the \`*.as.ts\` files of this folder; not to
 * be edited.
 */

export const kernelsBinary =
${lines.map((line) => `  '${line}'`).join(' +\n')}
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const binary = await compileKernels()
  writeFileSync(`${folder}/kernels-binary.ts`, embedKernels(binary))
  console.log(`kernels-binary.ts: ${binary.length} bytes of WebAssembly`)
}
