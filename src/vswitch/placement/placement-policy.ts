/**
 * Placement policy: which runtime serves a new flow. Paper §5.2. A policy is one small file; it sees loads as the runtimes last
 * told
 * them and how many flows have been placed there since.
 */

export interface PlacementCandidate {
  readonly id: number
  /** Share of the time that it works, thousandths. */
  readonly busyPerMille: number
  /** Flows it had at its last report. */
  readonly flows: number
  /** Flows placed there since that report. */
  readonly placed: number
}

export interface PlacementPolicy {
  /**
   * Chooses among at least one candidate.
   *
   * @param keyHash hash of the flow's key, the same on every switch
   * @returns the index of the candidate
   */
  choose(candidates: readonly PlacementCandidate[], keyHash: number): number
}
