/**
 * Verdict: what a network function decides about a packet. A number, so that the packet path allocates nothing:
 *
 *     0        forward: the next network function sees the packet, after the last one it leaves
 *     1        hold: the network function keeps the packet until it releases it (`context.held`)
 *     2 + n    drop, for reason n: later network functions do not see the packet and nothing leaves
 *
 * A network function gets its drop verdicts from `context.drop`, one for each reason it declares.
 */

export type Verdict = number

export const Verdict = {
  Forward: 0,
  Hold: 1,
} as const

/** The verdict that drops for reason number `reason`. */
export const dropVerdict = (reason: number): Verdict => 2 + reason
/** The reason number of a drop verdict. */
export const dropReasonOfVerdict = (verdict: Verdict): number => verdict - 2
