/**
 * Question: who has a flow, as another runtime asks whose copy's owner, or whose move's source, is dead (replicas.ts).
 */

export interface Question {
  readonly from: number
  readonly flow: number
  readonly epoch: number
  readonly configVersion: number
  readonly key: Int32Array
  readonly generation: number
  /** The asker is the target of the dead owner's move, and has nothing but packets: any copy goes on with the flow. */
  readonly isTarget: boolean
}
