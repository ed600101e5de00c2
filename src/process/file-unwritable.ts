/**
 * Why a file could not be written, as one line that says how to mend it.
 */

import { CodedError } from '../base/coded-error.ts'

const reasons = new Map<string, readonly [string, string]>([
  ['ENOENT', ['its folder does not exist', 'Create the folder first']],
  ['ENOTDIR', ['what should be its folder is a file', 'Check the path']],
  ['EEXIST', ['what should be a folder is a file', 'Check the path']],
  ['EISDIR', ['it is a directory', 'Add a file name']],
  ['EACCES', ['permission denied', 'Write to a folder of your own']],
  ['EPERM', ['permission denied', 'Write to a folder of your own']],
  ['EROFS', ['the file system is read-only', 'Write to another one']],
  ['ENOSPC', ['the disk is full', 'Make room, or write to another disk; what was written up to here is intact']],
  ['EDQUOT', ['the quota is used up', 'Make room; what was written up to here is intact']],
  ['EFBIG', ['the file has become too large', 'What was written up to here is intact']],
  ['EPIPE', ['the program that was reading it is gone', '']],
])

/** The `NF_FILE_UNWRITABLE` for what a system call threw; what is no system error comes back as it is. */
export function fileUnwritable(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof CodedError) return error
  const { code } = error as NodeJS.ErrnoException
  const [what, mend] = reasons.get(code ?? '') ?? [error.message, '']
  return new CodedError('NF_FILE_UNWRITABLE', `${path} cannot be written: ${what}`, mend, { cause: error })
}
