/**
 * Fault kinds: what the simulator does to a cluster. Faults of the control network and of nodes leave every packet its guarantee, but
 * for packets within a node that crashes; faults of data links (`link-...`) cost or double the packets that they strike, exactly.
 */

export const faultKinds = {
  loss: 'frames of the control network are lost',
  duplication: 'frames of the control network come twice',
  reordering: 'frames of the control network overtake each other',
  delay: 'frames of the control network are late, by milliseconds',
  corruption: 'bits of frames of the control network change',
  partition: 'some nodes do not hear others on the control network, one way or both',
  crash: 'a runtime ends without a word; it is fenced, and comes back empty in another life',
  restart: 'a switch ends without a word, and comes back empty in another life',
  pause: 'a node does nothing for milliseconds',
  slow: 'a node takes long for every turn',
  full: 'data links have little room',
  skew: 'nodes\' clocks differ, and jump ahead',
  'crash-pair': 'two runtimes end at once; only where flows have two replicas, and only while each flow has them',
  poison: 'a runtime dies of a packet that its sender sends again; like a crash, but told whose packet it was',
  'link-loss': 'frames of data links are lost, in-band messages too',
  'link-delay': 'data links are slow now and then, in order',
  'link-duplication': 'frames of data links come twice, in-band messages too',
  'link-reordering': 'frames of data links overtake each other, in-band messages too',
} as const

export type FaultKind = keyof typeof faultKinds
/** The kinds for any cluster; two runtimes at once are too many for flows with one replica. */
export const allFaultKinds = (Object.keys(faultKinds) as FaultKind[]).filter((kind) => kind !== 'crash-pair')

/** Faults after which packets of a flow may leave in another order than they came. */
export const looseOrder: readonly FaultKind[] = ['link-loss', 'link-duplication', 'link-reordering']

/** Faults that cost no packet, where links can take back and flows have replicas that release. */
export const losslessFaults = new Set<FaultKind>(['loss', 'duplication', 'reordering', 'delay', 'corruption', 'skew', 'crash'])
/** Steps in which another failure may cost packets all the same. */
export const unsettledSteps = ['securing', 'askingOwner', 'aborting', 'takingBack', 'returning', 'inheriting', 'claiming', 'orphaned',
  'relearning']
/** Reasons that drop copies of packets that others have. */
export const dropsOfCopies = ['former-life', 'not-releaser', 'unknown-replica']

/** Reasons to drop a packet that a kind of fault may cause. Where first fragments find no room, the rest of their datagrams waits in vain. */
const dropsOf: Partial<Record<FaultKind, readonly string[]>> = {
  crash: ['former-life', 'source-fenced', 'no-replica', 'step-incomplete', 'unknown-replica', 'secure-buffer', 'not-releaser',
    'no-owner', 'fragment-timeout', 'hold-limit', 'hold-timeout', 'move-buffer', 'alias-buffer', 'no-runtime', 'link-full', 'over-share',
    'hold-ended', 'no-home'],
  restart: ['not-releaser', 'no-owner', 'fragment-timeout', 'hold-limit', 'hold-timeout', 'move-buffer', 'alias-buffer', 'no-home', 'link-full',
    'over-share'],
  partition: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer'],
  loss: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer'],
  delay: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer'],
  corruption: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer'],
  reordering: ['hold-limit', 'move-buffer', 'alias-buffer'],
  pause: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer', 'link-full', 'over-share', 'port-full', 'no-slot',
    'fragment-timeout'],
  slow: ['hold-limit', 'hold-timeout', 'no-home', 'move-buffer', 'alias-buffer', 'link-full', 'over-share', 'port-full', 'no-slot',
    'fragment-timeout'],
  full: ['hold-limit', 'move-buffer', 'alias-buffer', 'link-full', 'over-share', 'port-full', 'no-slot', 'fragment-timeout'],
  skew: ['hold-timeout', 'no-home'],
  'link-loss': ['no-owner', 'not-releaser', 'fragment-timeout', 'hold-limit', 'move-buffer', 'alias-buffer'],
  'link-delay': ['hold-limit', 'move-buffer', 'alias-buffer', 'link-full', 'over-share', 'hold-timeout', 'fragment-timeout'],
  'link-duplication': ['no-owner', 'not-releaser', 'fragment-timeout', 'hold-limit', 'move-buffer', 'alias-buffer'],
  'link-reordering': ['no-owner', 'not-releaser', 'fragment-timeout', 'hold-limit', 'move-buffer', 'alias-buffer', 'straggler'],
}

dropsOf['crash-pair'] = dropsOf.crash
dropsOf.poison = [...dropsOf.crash ?? [], 'quarantined']

/** Reasons to drop that a run with these faults may show, besides those of network functions. */
export function permittedDrops(kinds: Iterable<FaultKind>): Set<string> {
  // Whatever holds up a replica makes it slow.
  return new Set([...kinds].flatMap((kind) => [...dropsOf[kind] ?? [], 'replica-slow']))
}
