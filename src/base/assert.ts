/**
 * Assertions that stay on in production. A broken invariant is a defect of NFactor, never a bad packet or a bad
 * configuration: it stops the runtime, and its flows resume elsewhere.
 */

/** Thrown by {@link assert}: an invariant of NFactor itself does not hold. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/**
 * Stops with `message` unless `condition` holds. Free on the hot path as long as the message is a constant.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}
