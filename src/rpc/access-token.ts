/**
 * Access token: a secret in a file that only its owner can read. Who shows it (`Authorization: Bearer ...`) may call everything.
 * One is made for each start (`makeAccessToken`), or once for all who share a file (`keepAccessToken`).
 */

import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'

const TOKEN_BYTES = 32
/** A token that somebody has written himself has at least so many characters. */
const TOKEN_LENGTH_MIN = 32

/**
 * Makes a token, and the file that holds it (mode 600); one that was there before is replaced, and valid no more.
 *
 * @throws CodedError `NF_FILE_UNWRITABLE`
 */
export function makeAccessToken(path: string): string {
  return writeToken(path, renameSync)
}

/**
 * The token of a file, which is made if it is not there: several processes that begin at once get the same.
 *
 * @throws CodedError `NF_FILE_UNWRITABLE`, `NF_FILE_UNREADABLE`, also for a token that could be guessed
 */
export function keepAccessToken(path: string): string {
  try {
    return writeToken(path, linkSync)
  } catch (error) {
    if (!(error instanceof CodedError) || (error.cause as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return readLongToken(path, 'Remove it: another is made')
}

/**
 * The token of a file that people have made.
 *
 * @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE`, also for a token that could be guessed
 */
export function readLongToken(path: string, mend: string): string {
  const token = readAccessToken(path)
  if (token.length >= TOKEN_LENGTH_MIN && !/\s/.test(token)) return token
  throw new CodedError('NF_FILE_UNREADABLE', `the token file ${path} does not hold one word of at least ${TOKEN_LENGTH_MIN} characters`, mend)
}

/** @param place gives the file, which is complete then, its name */
function writeToken(path: string, place: (from: string, to: string) => void): string {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  // The name is nobody's yet: a file or link that somebody has put there is not followed.
  const temporary = `${path}.${randomBytes(8).toString('hex')}`
  try {
    writeFileSync(temporary, `${token}\n`, { mode: 0o600, flag: 'wx' })
    place(temporary, path)
  } catch (cause) {
    throw new CodedError('NF_FILE_UNWRITABLE', `the token file ${path} cannot be written: ${(cause as Error).message}`, '', { cause })
  } finally {
    rmSync(temporary, { force: true })
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
