/**
 * The clock that all processes of a machine share: microseconds since it was started, times of suspension included (CLOCK_BOOTTIME), and the
 * name of that start. A time of another boot says nothing.
 *
 * Linux gives it in /proc/uptime in steps of 10 ms, which is fine enough for leases of seconds, and needs no call of the C library.
 */

import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { CodedError } from '../../base/coded-error.ts'

/** Microseconds since this machine was started. */
export function bootTimeUs(): number {
  return uptime() * 1e6
}

/** Unique to this start of the machine. @throws CodedError NF_STORE_FAILED where the system does not tell */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch (error) {
    throw new CodedError('NF_STORE_FAILED', 'this system does not name its boot (/proc/sys/kernel/random/boot_id), which leases in files need',
      'Use etcd as store', { cause: error })
  }
}
