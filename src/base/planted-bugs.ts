/**
 * Planted bugs: each breaks one rule of the cluster protocols, so that the simulator can show that its checkers see it. All
 * are off, except while `nfactor simulate --plant NAME` or a test of the checkers switches one on. Never consulted per packet
 * on the fast path.
 */

/** Name of each planted bug, with the rule that it breaks. */
export const plantedBugs = {
  'switch-places-itself': 'a switch places unknown flows itself instead of asking their home (1)',
  'ghost-actor': 'a runtime makes an actor for a packet without FlowOpen (2)',
  'stale-close': 'a switch ends whatever flow has the key when a close comes, whichever flow it is about (2)',
  'close-without-barrier': 'a runtime ends an idle flow without waiting for the switches (3)',
  'learn-from-data': 'a switch takes the sender of a data frame for the flow\'s owner (4)',
  'alias-granted-twice': 'a home grants an alias that another flow has (5)',
  'alias-before-bound': 'a home grants an alias before every switch knows it (5)',
  'busy-ignored': 'a flow is moved while a move of it is under way (6)',
  'take-back-by-timer': 'a source takes a flow back because the answer to its record is late (7)',
  'target-forgets': 'a target forgets a prepared flow because the record is late (7)',
  'abort-without-buffer': 'an aborted move goes on without what the target had buffered (8)',
  'release-without-go': 'a new owner releases packets before the switches say Go (9)',
  'straggler-lost': 'a packet that strays to the source is lost without a count (10)',
  'relearn-at-once': 'a restarted switch places unknown flows before every runtime has announced its own (21)',
  'relearn-unrecovered': 'a restarted switch places unknown flows while replicas of the fenced have not claimed theirs (21)',
  'drained-early': 'a drained runtime calls itself empty before every switch has stopped placing (24)',
  'replies-dropped': 'a reply for which there is no ordinary room is lost (25)',
  'barrier-out-of-band': 'a switch answers a re-pointing on the control session, past the data (26)',
  'duplicates-delivered': 'a session delivers a repeated frame again',
  'long-message-cut': 'a message longer than a frame loses its end',
  'moved-on-early': 'a flow leaves or ends at its target before its source knows that it has come (7)',
  'state-left-behind': 'a flow that moved away is not released at its source',
  'drop-ignored': 'a packet that a network function drops is forwarded',
  'load-for-runtime': 'the least-loaded policy returns the load for the runtime',
  'stale-epoch': 'a switch follows what is said of an epoch that is over (7, 21)',
  'released-before-stored': 'an owner releases its packets itself, its replica only learns of them (12, 13)',
  'replicated-unbegun': 'a replica gets a flow before its network functions have begun its state (12)',
  'step-not-stored': 'a replica releases a step and does not store it (12)',
  'secured-without-go': 'a new replica releases packets before the switches say Go (9)',
  'everything-resent': 'packets that a dead replica may have released are released again (13)',
  'promote-unasked': 'a replica of a flow that was moving is promoted without asking its target (11)',
  'poison-reruns': 'a flow of which a packet has killed a runtime goes on at its replica as if nothing had been (22)',
  'published-refused': 'a switch refuses what a runtime had published before it was fenced (18)',
  'tail-releases-early': 'the tail of a chain releases a step that the first replica has not stored (14)',
  'chain-ack-early': 'the first replica of a chain acknowledges a step before the tail has it (14)',
  'promote-skips-held': 'the first replica of a chain is promoted and does not release what it holds (14)',
  'take-back-skipped': 'packets that waited in a dead runtime\'s links are not taken back (20)',
  'take-back-repeats': 'packets taken back that the record covers are run again (20)',
  'take-back-unclaimed': 'packets taken back of a flow that nobody goes on with are run again, although they may have left (20)',
  'link-addresses': 'packets taken back, or given back, keep the Ethernet addresses of a link (20)',
  'take-back-order': 'packets taken back run behind those that came later (20)',
  'bare-after-move': 'a flow that has moved gets no replica (11)',
  'bare-after-recovery': 'a flow whose owner has died gets no other replica',
  'guarded-stays': 'a flow with a replica does not move (11)',
  'refusal-unanswered': 'a target that takes no flow does not say so',
  'replaced-unmarked': 'a replica that lives is replaced without hearing so first (15)',
  'retired-early': 'a replica is retired before the new one has said that it has the flow (15)',
  'full-queue-loses': 'outputs for which a session to a replica has no room are lost without a count (16)',
  'slow-stops-all': 'a replica that takes nothing for long stops the flows of all replicas (16)',
  'async-once': 'in async the record goes to the replica once, and never again (17)',
  'async-outputs-alone': 'in async what makes no output does not take the record to the replica (17)',
  'applied-early': 'a runtime says that it has done with the dead while replicas of theirs are still to be promoted (18)',
  'promoted-low': 'a promoted replica takes an epoch that its owner may have gone beyond (19)',
} as const

/** Those that need flows with two replicas, or are seen sooner with them. */
export const chainBugs: readonly PlantedBug[] = ['tail-releases-early', 'chain-ack-early', 'promote-skips-held']

export type PlantedBug = keyof typeof plantedBugs

/** Which bugs are on. Set by the simulator alone. */
export const planted: Record<PlantedBug, boolean> =
  Object.fromEntries(Object.keys(plantedBugs).map((name) => [name, false])) as Record<PlantedBug, boolean>
