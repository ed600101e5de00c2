/**
 * The clock that all processes of a machine share, which never goes back: for times that are compared between processes.
 */

/** Microseconds since the machine was started. */
export function monotonicUs(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1e6 + nanoseconds / 1000
}
