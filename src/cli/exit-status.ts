/**
 * Exit statuses of every command. Documented in the help; scripts rely on them.
 */

export const ExitStatus = {
  ok: 0,
  /** Something is wrong with a file, a configuration, a network function or the machine; the error has a code. */
  failed: 1,
  /** The command line is wrong. */
  usage: 2,
  /** Ended by Ctrl-C (SIGINT), with everything complete up to there: 128 and the signal's number, as shells count. */
  interrupted: 130,
  /** The same by SIGTERM. */
  terminated: 143,
} as const
