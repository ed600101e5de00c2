/**
 * Planted bugs of the controllers, as `base/planted-bugs.ts` has them for the nodes: each breaks one rule, so that a test can show that the
 * control simulation sees it. All are off, except within that test.
 */

export const controlBugs = {
  'term-ignored': 'a node takes commands of a lower term (18)',
  'older-config': 'a node takes an older configuration (18)',
  'unconditional': 'transactions are carried out whatever has been written since',
  'elected-twice': 'a controller stands for election while another leads',
  'version-reused': 'fencing does not raise the version of the configuration (18)',
  'incarnation-reused': 'a start does not use up its incarnation (18)',
  'removed-full': 'a draining runtime is removed before it is empty (24)',
  'orphans': 'processes that nobody knows are not stopped',
  'not-recovered': 'replicas of the dead are never promoted (18)',
  'block-reused': 'the block of a dead life is leased again while flows have something in it (23)',
} as const

export type ControlBug = keyof typeof controlBugs

/** Which bugs are on. Set by the test alone. */
export const plantedInControl: Record<ControlBug, boolean> =
  Object.fromEntries(Object.keys(controlBugs).map((name) => [name, false])) as Record<ControlBug, boolean>
