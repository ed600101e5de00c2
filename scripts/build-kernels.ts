/**
 * Compiles the AssemblyScript kernels and embeds them: `node scripts/build-kernels.ts` rewrites
 * the `*-binary.ts` file beside them. To be run after every change of a `*.as.ts` file; a test recompiles and
 * compares.
 *
 * The output depends on the compiler's version alone, which package-lock.json pins. `--runtime stub` with no use of the
 * heap, imported memory and no static data leave a module of plain functions.
 */

import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

/** The modules: where the sources are, and where the compiled module is embedded. */
export const modules = [
  {
    folder: 'src/memory/kernels', entries: ['scan.as.ts', 'http-head.as.ts'],
    target: 'kernels-binary.ts', name: 'kernelsBinary',
  },
  { folder: 'src/packet/kernels', entries: ['classify.as.ts'], target: 'classify-binary.ts', name: 'classifyBinary' },
  { folder: 'src/nfs', entries: ['fast-path.as.ts'], target: 'fast-path-binary.ts', name: 'fastPathBinary' },
] as const

export type KernelModule = (typeof modules)[number]

const folderOf = (module: KernelModule): string => fileURLToPath(new URL(`../${module.folder}`, import.meta.url))

/** Where the embedding file of a module is. */
export const targetOf = (module: KernelModule): string => `${folderOf(module)}/${module.target}`

/** Compiles one module. */
export async function compileKernels(module: KernelModule = modules[0]): Promise<Uint8Array> {
  let binary: Uint8Array | undefined
  const { error, stderr } = await asc.main(
    [
      ...module.entries, '--baseDir', folderOf(module), '--outFile', 'kernels.wasm', '--optimizeLevel', '3', '--shrinkLevel', '0',
      '--converge', '--noAssert', '--runtime', 'stub', '--importMemory', '--noExportMemory', '--sharedMemory', '--initialMemory',
      '1', '--maximumMemory', '32767', '--enable', 'simd,threads',
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

/** The source file that embeds a module's binary. */
export function embedKernels(binary: Uint8Array, module: KernelModule = modules[0]): string {
  const lines = Buffer.from(binary).toString('base64').match(/.{1,116}/g) ?? []
  return `/**
 * The compiled kernels, in base64. Made by scripts/build-kernels.ts from the \`*.as.ts\` files of this folder; not to be edited.
 */

export const ${module.name} =
${lines.map((line) => `  '${line}'`).join(' +\n')}
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const module of modules) {
    const binary = await compileKernels(module)
    writeFileSync(targetOf(module), embedKernels(binary, module))
    console.log(`${module.folder}/${module.target}: ${binary.length} bytes of WebAssembly`)
  }
}
