/**
 * Values of options: how their text is read.
 */

import { InvalidArgumentError } from 'commander'

/** For options that may be given more than once. */
export function collect(text: string, before: readonly string[]): string[] {
  return [...before, text]
}

export function wholeNumber(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value > 0xffffffff) {
    throw new InvalidArgumentError('It must be a whole number up to 4294967295.')
  }
  return value
}
