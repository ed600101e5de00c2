/**
 * Access token: a secret in a file that only its owner can read. Who shows it (`Authorization: Bearer ...`) may call everything.
 */

import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'

const TOKEN_BYTES = 32

/**
 * Makes a token, and the file that holds it (mode 600); one that was there before is replaced, and valid no more.
 *
 * @throws CodedError `NF_FILE_UNWRITABLE`
 */
export function makeAccessToken(path: string): string {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  // The name is nobody's yet: a file or link that somebody has put there is not followed.
  const temporary = `${path}.${randomBytes(8).toString('hex')}`
  try {
    writeFileSync(temporary, `${token}\n`, { mode: 0o600, flag: 'wx' })
    renameSync(temporary, path)
  } catch (cause) {
    throw new CodedError('NF_FILE_UNWRITABLE', `the token file ${path} cannot be written: ${(cause as Error).message}`, '', { cause })
  }
  return token
}

/** @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE` */
export function readAccessToken(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (cause) {
    const isMissing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new CodedError(isMissing ? 'NF_FILE_NOT_FOUND' : 'NF_FILE_UNREADABLE',
      `the token file ${path} cannot be read: ${(cause as Error).message}`, '', { cause })
  }
}

/** A check whether an `Authorization` header has this token, in a time that says nothing about it. */
export function tokenCheck(token: string): (header: string | null | undefined) => boolean {
  const digest = (text: string): Buffer => hash('sha256', text, 'buffer')
  const right = digest(token)
  return (header) => {
    const given = typeof header === 'string' && /^bearer /i.test(header) ? header.slice('bearer '.length).trim() : ''
    return timingSafeEqual(digest(given), right)
  }
}
