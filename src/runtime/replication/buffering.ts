/**
 * Buffering: targets that hold packets of a flow whose owner has died. PROTOCOL 11; docs/protocol.md, "The owner is fenced".
 *
 * There may be several: the target of the last move, and one of a move before that an owner had ordered and died before its replica knew of
 * it. Whoever goes on with the flow fetches from all of them, for each waits for that. Switches send packets to one at most, the newest: an
 * owner tells its replicas of a move before it tells switches, and has fetched what targets before have before it moves the flow again.
 */

export interface Buffering {
  readonly target: number
  /** The epoch of the move to there: the newest of several has the highest. */
  readonly epoch: number
}

export const NOBODY: readonly Buffering[] = []

/** One more, or one that has told of itself again: the newest first. */
export function withTarget(targets: readonly Buffering[], target: number, epoch: number): readonly Buffering[] {
  const known = targets.find((one) => one.target === target)?.epoch ?? 0
  const others = targets.filter((one) => one.target !== target)
  return [...others, { target, epoch: Math.max(known, epoch) }].sort((one, other) => other.epoch - one.epoch)
}
