/*
 * Replication in `commit` with moves and fencing, for exhaustive checking with Spin: one flow, three runtimes, any of which may die at
 * any moment. The protocol is that of docs/protocol.md, "Replication", "Moving" and "Fencing"; names of messages and states are those
 * of src/messages and src/runtime (a test compares them).
 *
 *     packets ─▶ first switch ══▶ owner ── CommitStep ─▶ replica ══▶ last switch ─▶ packets
 *
 * Every runtime can be all that a runtime can be: owner, source, target, keeper of a replica. Runtime 1 owns the flow at first, and 3
 * keeps its replica. A record is the set of packets that the network function has seen.
 *
 * Bounds: PACKETS of one direction (1), SWITCHES (1; with 2 packets enter at the first and leave at the last), MOVES (1), CRASHES (1),
 * REPLACES of a replica that lives (0). TIMEOUTS: a move may time out as well. ONE_CHOICE: of two runtimes that may keep a replica always
 * the same is chosen, else always one or always the other.
 *
 * Checked at each step: packets are processed and leave in order and once; a record that is processed has seen every packet that has
 * left; nothing leaves that is not stored; one runtime runs the flow; no switch gives a flow up whose state lives; no packet is dropped.
 * And when nothing can go on (`Settled`; every run is finite): nothing is open, one runtime has the flow, the newest record, and a
 * replica equal to it; nobody keeps another copy; every packet has left that was not in the dead: on a link to it, in its buffers, or
 * processed there and not stored yet.
 *
 * Abstractions: those of migration.pml, and: a node dies and is fenced in one; what it had published is accepted, what it had said and
 * was not read is lost; a step is one message; the session has room; runtimes know each other's chain; no switch restarts. With two
 * deaths state may be lost with owner and replica: the run ends where a flow is given up or inherited.
 *
 * Broken variants, each of which Spin must refuse, and the rule of docs/protocol.md that each breaks:
 *   NO_MOVING_WORD, PROMOTE_UNASKED, ANSWER_EARLY  a replica of a flow that moves asks before it is promoted, and who is asked answers when
 *                                                  nothing comes from the dead any more
 *   PROMOTE_LOW_EPOCH                              a promoted flow is above all epochs that its owner may have used
 *   RELEASE_BEFORE_STORE, STEP_NOT_STORED          a replica stores a step, and then releases it; nobody else does
 *   SECURED_WITHOUT_GO                             nothing leaves anew before the switches say who has released what
 *   EVERYTHING_RESENT, NOTHING_RESENT              what a dead replica has not released, and only that, leaves anew
 *   COUNT_FORGOTTEN, LATE_GO_COUNTS                the same when a move was given up meanwhile
 *   BACK_FORGOTTEN                                 the same when it has given one up before (CRASHES=2)
 *   HAND_UNSTORED, CONFIRM_EARLY, RETIRED_FOR_GOOD, RUN_UNCONFIRMED  a move waits until all steps are stored, until the target's replica
 *                                                  has the flow, until the source takes nothing back; the old replica is kept till then
 *   APPLIED_EARLY                                  flows of the dead are given up when every replica has been promoted
 *   TARGET_UNTOLD                                  the target of a dead owner's move gives back what it buffers (TIMEOUTS) behind all that
 *                                                  it was sent
 *   RETIRED_EARLY, REPLACED_UNMARKED               a replica that lives is replaced (REPLACES=1) only when it knows, and the new one has it
 */

#ifndef PACKETS
#define PACKETS 1
#endif
#ifndef SWITCHES
#define SWITCHES 1
#endif
#ifndef MOVES
#define MOVES 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef REPLACES
#define REPLACES 0
#endif
#define N 3
#define LAST (SWITCHES - 1)
#define ALL ((1 << SWITCHES) - 1)
#define EVERY ((1 << PACKETS) - 1)
#define bit(x) (1 << ((x) - 1))
/* PROMOTION_EPOCHS of src/runtime/coordinator.ts. */
#ifdef PROMOTE_LOW_EPOCH
#define PROMOTION_EPOCHS 0
#else
#define PROMOTION_EPOCHS 8
#endif

mtype = {
  PrepareFlow, PrepareFlowReply, RerouteFlow, RerouteFlowReply, InstallFlow, InstallFlowReply,
  AbortFlow, AbortFlowReply, BufferedPacket, Drained, Go,
  AdoptFlow, AdoptFlowReply, CommitStep, RetireFlow, ForgetFlow, MovingFlow, MovingFlowReply, AskFlow, AskFlowReply, YieldFlow,
  ConfigApplied
};
/* A data frame. */
mtype = { data };
/* MoveState of the source, behind it `settled`: no move is under way. */
mtype:move = { preparing, cancelling, rerouting, handing, aborting, takingBack, settled };
/* IncomingState of the target, behind it `absent`: no flow on its way. */
mtype:incoming = { prepared, waiting, returning, inheriting, absent };
/* AdoptKind, but for `opening`. */
#define SETTLED 0
#define TENTATIVE 2

/* Room for what another death brings. */
#define MORE ((CRASHES - 1) * 4)

/* Control sessions between runtimes, by sender and receiver. */
chan control[9] = [5 + MORE] of { mtype, byte, byte, byte, byte };
#define sessionTo(x) control[(self - 1) * N + (x) - 1]
#define sessionFrom(x) control[((x) - 1) * N + self - 1]
/* Control sessions and links of switches and runtimes. */
chan toSwitch[SWITCHES * N] = [4 + MORE] of { mtype, byte, byte, byte, byte, byte };
chan fromSwitch[SWITCHES * N] = [4 + MORE] of { mtype, byte, byte, bool };
chan linkTo[SWITCHES * N] = [PACKETS + 4 + MORE] of { mtype, byte };
chan linkFrom[SWITCHES * N] = [PACKETS + 5 + MORE] of { mtype, byte };
#define at(s, runtime) ((s) * N + (runtime) - 1)

/* What is true, whoever knows it. */
bool alive[4] = true;
bool runs[4];
byte fences = 0, version = 0, moves = 0, replaces = 0, leaving = 0;
/* Which of two is chosen to keep a replica. */
bit isHighFirst;
byte entered = 0, delivered = 0, stored = 0, excused = 0;
/* Frames in steps that the replica of a runtime has handled; whether the source has its InstallFlowReply. */
byte handled[4];
bool isReplyHandled[4];
/* The flow's state is lost for good. */
bool isLost = false;

/* What `Settled` looks at. */
bool hasOf[4], securingOf[4], keepsOf[4], guardDeadOf[4];
byte recordOf[4], guardOf[4], keptOwnerOf[4], keptRecordOf[4], ownerAt[2], releaserAt[2];
mtype:move stateOf[4];
mtype:incoming incomingOf[4];
#define has hasOf[self]
#define record recordOf[self]
#define guard guardOf[self]
#define isGuardDead guardDeadOf[self]
#define isSecuring securingOf[self]
#define state stateOf[self]
#define incoming incomingOf[self]
#define keeps keepsOf[self]
#define keptOwner keptOwnerOf[self]
#define keptRecord keptRecordOf[self]

/* -- Switch: src/vswitch/virtual-switch.ts, releasing.ts ---------------------------------------------------------------------- */

#define owner ownerAt[self]
#define releaser releaserAt[self]
#define isFenced(x) ((dead & bit(x)) != 0)
#define hasDrained(x) ((drainedBy == (x) && drainedEpoch == epoch) || early[x] == epoch)

inline sayGo() {
  if
  :: !isFenced(owner) && alive[owner] -> fromSwitch[at(self, owner)]!Go(epoch, released, false)
  :: else
  fi
}

/* Lets the owner go on, now or when the releaser before has sent its last. */
inline release() {
  next = (nextReleaser != 0 -> nextReleaser : owner);
  if
  :: releaser == next || releaser == 0 || hasDrained(releaser) || isFenced(releaser) ->
     awaitsDrained = false;
     value = releaser;
     if
     :: isFenced(owner) || isFenced(next) -> releaser = 0
     :: else -> releaser = next
     fi;
     sayGo();
     if
#ifdef COUNT_FORGOTTEN
     :: next != value -> released = 0
#else
     :: next != value && next != owner -> released = 0
#endif
     :: else
     fi
  :: else -> awaitsDrained = true
  fi;
  next = 0; value = 0
}

inline sayDrainedOf(epochSaid) {
  if
  :: awaitsDrained && releaser == node && epochSaid == epoch && epochSaid < drainedEpoch ->
     /* What is awaited has come, while a later word is noted already. */
     early[node] = epochSaid;
     release()
  :: else ->
     if
     :: epochSaid < drainedEpoch
     :: epochSaid == drainedEpoch && drainedBy == releaser && node != releaser -> early[node] = epochSaid
     :: else ->
        if
        :: epochSaid == drainedEpoch && drainedBy != 0 && drainedBy != node -> early[drainedBy] = epochSaid
        :: else
        fi;
        drainedEpoch = epochSaid; drainedBy = node;
        if
        :: awaitsDrained -> release()
        :: else
        fi
     fi
  fi
}

/* Frames of one step or output, in their order. */
inline acceptFrames(frames) {
  if
  :: releaser == node ->
     assert((frames & stored) == frames);
     value = 1;
     do
     :: value > EVERY -> break
     :: value <= EVERY ->
        if
        :: frames & value -> assert(delivered < value); delivered = delivered | value; released++
        :: else
        fi;
        value = value << 1
     od;
     value = 0
  /* Not the releaser's. If it is not released anew, it is missing in the end. */
  :: else -> assert(fences != 0)
  fi
}

inline reroute() {
  if
  :: epochSaid < epoch ->
     if
     :: code != 0 && !isFenced(node) && alive[node] -> fromSwitch[at(self, node)]!Go(epochSaid, 0, true)
     :: else
     fi
  :: else ->
     assert(epochSaid != epoch || ownerSaid != owner);
     value = owner;
     if
     :: now != 0 && !isFenced(now) && code == 0 && releaser == owner -> releaser = now
     :: else
     fi;
     if
     :: releaser != 0 && releaser == nextReleaser && isFenced(releaser) -> releaser = 0
     :: else
     fi;
     nextReleaser = releaserSaid;
     if
     :: releaser == 0 && now != 0 && !isFenced(now) -> releaser = now
     :: releaser == 0 && !(now != 0 && !isFenced(now)) ->
        if
        :: ownerSaid == node || now != 0 -> releaser = (releaserSaid != 0 -> releaserSaid : ownerSaid)
        :: else -> releaser = node
        fi
     :: else
     fi;
     owner = ownerSaid; epoch = epochSaid; isOrphan = isFenced(owner);
     if
#ifndef TARGET_UNTOLD
     /* The target of the dead owner's move gives back what it buffers when it has all that was sent to it, whoever was the owner since. */
     :: code >= 2 && (code >> 2) != 0 && !isFenced(code >> 2) -> value = code >> 2
     :: !(code >= 2 && (code >> 2) != 0 && !isFenced(code >> 2)) && (code >= 2 || isFenced(value)) -> value = node
#else
     :: (code >= 2 && value != (code >> 2)) || isFenced(value) -> value = node
#endif
     :: else
     fi;
     if
     :: alive[value] -> linkTo[at(self, value)]!RerouteFlowReply(epoch)
     :: else
     fi;
     value = 0;
     release()
  fi
}

/* When every runtime has said its word about the dead, flows that nobody has claimed are given up. */
inline removeOrphan() {
  if
  :: isOrphan && isFenced(owner) && dead == fences && appliedIn == version && ((applied | dead) == 7) -> assert(fences != 0 && version > 1); isLost = true
  :: else
  fi
}

proctype Switch(byte self) {
  byte epoch = 1, nextReleaser = 3, drainedBy = 0, drainedEpoch = 0, released = 0, dead = 0, applied = 0, appliedIn = 0;
  byte node = 0, epochSaid = 0, ownerSaid = 0, releaserSaid = 0, now = 0, code = 0, value = 0, next = 0;
  byte early[4];
  bool awaitsDrained = false, isOrphan = false;
  mtype kind;

end:
  do
  /* A packet from outside. One of an orphaned flow waits outside. */
  :: d_step { self == 0 && entered < PACKETS && !isOrphan && !isLost ->
       entered++;
       if
       :: alive[owner] -> linkTo[at(0, owner)]!data(1 << (entered - 1))
       :: else -> excused = excused | (1 << (entered - 1))
       fi
     }
#define switchHears(x) \
  :: d_step { nempty(toSwitch[at(self, x)]) && !isFenced(x) -> \
       node = x; \
       toSwitch[at(self, x)]?kind(epochSaid, ownerSaid, releaserSaid, now, code); \
       if \
       :: kind == RerouteFlow -> reroute() \
       :: kind == ConfigApplied && epochSaid == version -> \
          applied = (appliedIn == version -> applied | bit(node) : bit(node)); appliedIn = version; \
          removeOrphan() \
       :: else \
       fi; \
       kind = 0; node = 0; epochSaid = 0; ownerSaid = 0; releaserSaid = 0; now = 0; code = 0 \
     } \
  :: d_step { nempty(linkFrom[at(self, x)]) -> \
       node = x; \
       linkFrom[at(self, x)]?kind(epochSaid); \
       if \
       :: kind == data -> acceptFrames(epochSaid) \
       :: else -> sayDrainedOf(epochSaid) \
       fi; \
       kind = 0; node = 0; epochSaid = 0 \
     }
  switchHears(1)
  switchHears(2)
  switchHears(3)
  /* What the dead had published has been accepted; what they had said and was not read is gone. */
  :: d_step { dead != fences &&
       (!(fences & 1) || empty(linkFrom[at(self, 1)])) && (!(fences & 2) || empty(linkFrom[at(self, 2)])) &&
       (!(fences & 4) || empty(linkFrom[at(self, 3)])) ->
       node = 1;
       do
       :: node > N -> break
       :: node <= N && (fences & bit(node)) && !(dead & bit(node)) ->
          do
          :: nempty(toSwitch[at(self, node)]) -> toSwitch[at(self, node)]?kind(epochSaid, ownerSaid, releaserSaid, now, code)
          :: empty(toSwitch[at(self, node)]) -> break
          od;
          dead = dead | bit(node);
          node++
       :: else -> node++
       od;
       if
       :: isFenced(owner) -> isOrphan = true
       :: else
       fi;
       if
       :: releaser != 0 && isFenced(releaser) ->
          releaser = 0;
          if
          :: awaitsDrained -> release()
          :: else
          fi
       :: else
       fi;
       removeOrphan();
       kind = 0; node = 0; epochSaid = 0; ownerSaid = 0; releaserSaid = 0; now = 0; code = 0
     }
  od
}
#undef owner
#undef releaser

/* -- Runtime ------------------------------------------------------------------------------------------------------------------ */

inline say(receiver, message, said, first, other, last) {
  o = receiver;
  if
  :: o != 0 && alive[o] && !isFenced(o) -> sessionTo(o)!message(said, first, other, last)
  :: else
  fi;
  o = 0
}

inline sayDrained(said) {
  s = 0;
  do
  :: s < SWITCHES -> linkFrom[at(s, self)]!Drained(said); s++
  :: s >= SWITCHES -> break
  od;
  s = 0
}

inline sayReroute(said, newOwner, newReleaser, releaserNow, about) {
  s = 0;
  do
  :: s < SWITCHES -> toSwitch[at(s, self)]!RerouteFlow(said, newOwner, newReleaser, releaserNow, about); s++
  :: s >= SWITCHES -> break
  od;
  s = 0
}

/* Frames leave from here. */
inline releaseFrames(frames) {
  linkFrom[at(LAST, self)]!data(frames)
}

/* -- Steps: src/runtime/replication/steps.ts */

inline process(packet) {
  assert(record < (packet));
  assert((delivered & ~record) == 0);
  record = record | (packet);
  if
  :: guard == 0 -> stored = stored | (packet); releaseFrames(packet)
  :: else ->
     outputs = outputs | (packet); kept = kept | (packet);
#ifdef RELEASE_BEFORE_STORE
     releaseFrames(packet);
#endif
     if
     :: isGuardDead || isBatch
     :: else -> say(guard, CommitStep, epoch, record, packet, 0)
     fi
  fi
}

inline runQueue(queue) {
  p = 1;
  do
  :: p > EVERY -> break
  :: p <= EVERY ->
     if
     :: queue & p -> process(p)
     :: else
     fi;
     p = p << 1
  od;
  p = 0; queue = 0
}

inline goOn() {
  assert(!runs[1] && !runs[2] && !runs[3]);
  runs[self] = true
}

inline clearGuard() {
  guard = 0; isGuardDead = false; isAdopted = false; outputs = 0; kept = 0; handled[self] = 0; backAt = 0; acceptedBack = 0
}

/* -- Protection: src/runtime/replication/protection.ts */

#define canKeep(x) ((x) != self && !isFenced(x) && (x) != leaving)
#define second ((self % N) + 1)
#define third (((self + 1) % N) + 1)

inline choose(except) {
  chosen = 0;
  if
  :: canKeep(second) && second != except && (isHighFirst || !(canKeep(third) && third != except)) -> chosen = second
  :: canKeep(third) && third != except && (!isHighFirst || !(canKeep(second) && second != except)) -> chosen = third
  :: else
  fi
}

/* What is behind the change of releaser: outputs that the one before never released leave anew, then what came meanwhile runs. */
inline finishSecuring() {
  if
  :: isSecuring && isRerouted && pending == 0 && isTargetDone && (newReplica == 0 || isNewAdopted) ->
     isSecuring = false;
     if
     :: guard != 0 && !isGuardDead && guard != newReplica -> say(guard, ForgetFlow, 0, 0, 0, 0)
     :: else
     fi;
     /* The first `released` of its outputs have been accepted, as a switch has said now or when a move was called off. */
     if
     :: acceptedBack > released -> released = acceptedBack
     :: else
     fi;
     p = 1;
     do
     :: p > EVERY -> break
     :: p <= EVERY ->
#ifndef EVERYTHING_RESENT
        if
        :: (outputs & p) && released != 0 -> released--; kept = kept & ~p
        :: else
        fi;
#endif
        p = p << 1
     od;
     p = 0;
#ifdef NOTHING_RESENT
     kept = 0;
#endif
     value = kept;
     clearGuard();
     guard = newReplica; isAdopted = true;
     goOn();
     if
     :: guard == 0 && value != 0 -> stored = stored | value; releaseFrames(value)
     :: guard != 0 -> outputs = value; kept = value
     :: else
     fi;
     value = 0;
     isBatch = true;
     runQueue(returned);
     runQueue(held);
     isBatch = false;
     if
     :: guard != 0 && kept != 0 -> say(guard, CommitStep, epoch, record, kept, 0)
     :: else
     fi;
     newReplica = 0; isMarked = false; isAsked = false; isNewAdopted = false; isRerouted = false; isPromotion = false; isOwnReleaser = false;
     pending = 0; markers = 0; released = 0; isReleasedKnown = false; firstEpoch = 0; securingTarget = 0; isTargetDone = false
  :: else
  fi
}

inline changeReleaser() {
  isRerouted = true;
  pending = ALL; markers = ALL;
  value = self;
  if
  :: guard == 0 || isOwnReleaser || isPromotion
  :: else -> value = (isGuardDead -> 0 : guard)
  fi;
  sayReroute(epoch, self, newReplica, value, (isPromotion -> 2 + 4 * securingTarget : 0));
  value = 0;
  if
  :: guard != 0 && !isGuardDead && !isOwnReleaser -> say(guard, RetireFlow, epoch, newReplica == 0, version_, 0)
  :: else
  fi;
  if
  :: guard == 0 || isGuardDead || isOwnReleaser || isPromotion -> sayDrained(epoch)
  :: else
  fi;
  if
  :: !isTargetDone -> say(securingTarget, AbortFlow, epoch, markers, 0, 0)
  :: else
  fi;
#ifdef SECURED_WITHOUT_GO
  pending = 0;
#endif
  mustFinish = true
}

inline askToAdopt() {
  if
  :: newReplica == 0 || isAsked || !isMarked
  :: else ->
     isAsked = true;
     if
     :: guard != 0 && !isGuardDead && guard != newReplica -> value = guard
     :: else
     fi;
     say(newReplica, AdoptFlow, epoch, SETTLED, record, value);
     value = 0
#ifdef RETIRED_EARLY
     ; isNewAdopted = true; mustChange = true
#endif
  fi
}

inline beginSecuring(except) {
  epoch++;
  choose(except);
  if
  :: earlyReplica != 0 ->
     if
     :: earlyReplica != except && canKeep(earlyReplica) -> chosen = earlyReplica
     :: else -> say(earlyReplica, ForgetFlow, 0, 0, 0, 0)
     fi;
     earlyReplica = 0
  :: else
  fi;
  newReplica = chosen; chosen = 0;
  if
  :: newReplica == 0 && isOwnReleaser && guard != 0 && !isGuardDead && guard != except -> newReplica = guard
  :: else
  fi;
  isAsked = false; isNewAdopted = false; isRerouted = false;
  if
  :: newReplica == 0 -> mustChange = true
  :: newReplica != 0 && isMarked -> mustAsk = true
  :: else -> say(guard, MovingFlow, epoch, self, 0, 0)
  fi
}

/* The flow is paused, gets a (new) replica, and runs. */
inline secure(buffersNow, promotion, ownReleaser) {
  runs[self] = false;
  isSecuring = true;
  isPromotion = promotion; isOwnReleaser = ownReleaser;
  securingTarget = buffersNow; isTargetDone = securingTarget == 0;
#ifdef REPLACED_UNMARKED
  isMarked = true;
#else
  isMarked = guard == 0 || isGuardDead || ownReleaser || promotion;
#endif
  released = 0; isReleasedKnown = false; firstEpoch = epoch + 1;
  mustBegin = true
}

/* -- Outgoing moves: src/runtime/migration/outgoing-moves.ts */

inline endMove() {
  state = settled; target = 0; before = 0; movePending = 0; passed = 0; moveMarkers = 0; isMarking = false; isMoveDone = false
}

inline tellReplica(epochSaid, where) {
  if
  :: toldReplica == guard -> toldCount++
  :: else -> toldReplica = guard; toldCount = 1
  fi;
  say(guard, MovingFlow, epochSaid, where, 0, 0)
}

inline tellReplicaStays(epochSaid) {
  if
  :: guard != 0 && !isGuardDead -> tellReplica(epochSaid, 0)
  :: else
  fi
}

#define liveGuard (isGuardDead -> 0 : guard)

inline startRerouting() {
  state = rerouting;
  isMarking = false;
  movePending = ALL;
  sayReroute(before + 1, target, 0, liveGuard, 0)
}

inline finishGoingBack() {
  if
  :: state != settled && isMoveDone && !(state == takingBack && movePending != 0) &&
     !(state == aborting && returned != 0 && (ALL & ~passed) != 0) ->
     if
     :: state == takingBack ->
        endMove();
        held = held | returned; returned = 0;
        secure(0, false, true)
     :: else ->
        value = before + 2;
        endMove();
        tellReplicaStays(value);
        value = 0;
        runQueue(returned);
        runQueue(held)
     fi
  :: else
  fi
}

inline goBack(isTargetGone) {
  epoch = before + 2;
  movePending = ALL; moveMarkers = ALL;
  isMoveDone = isTargetGone;
  o = 0;
  if
  :: state == aborting && !isGuardDead -> o = guard
  :: else
  fi;
  sayReroute(epoch, self, o, 0, 0);
  o = 0;
  if
  :: !isMoveDone -> say(target, AbortFlow, epoch, moveMarkers, 0, 0)
  :: else
  fi;
  mustGoBack = true
}

inline abortMove(isTargetGone) {
  state = aborting;
  if
  :: guard != 0 -> backAt = before + 2
  :: else
  fi;
  goBack(isTargetGone)
}

inline takeBack(isTargetGone) {
  state = takingBack;
  value = before + 2;
  goBack(isTargetGone);
  if
  :: liveGuard != 0 -> say(guard, RetireFlow, value, 0, version_, 0)
  :: else
  fi;
  value = 0
}

inline cancelMove() {
  state = cancelling;
  say(target, AbortFlow, before + 1, 0, 0, 0);
  tellReplicaStays(before)
}

inline startMove(where) {
  moves++;
  target = where; before = epoch; state = preparing;
  say(target, PrepareFlow, epoch + 1, guard, 0, 0)
}

/* -- Incoming moves: src/runtime/migration/incoming-moves.ts */

inline forgetMove() {
  incoming = absent; incomingEpoch = 0; source = 0; sourceReplica = 0; yields = false; isUnheard = false; gone = 0; awaited = 0; marked = 0
}

inline begin() {
  if
#ifdef RUN_UNCONFIRMED
  :: incoming == waiting && gone == ALL ->
#else
  :: incoming == waiting && gone == ALL && unconfirmed == 0 ->
#endif
     held = queue; queue = 0;
     forgetMove();
     secure(0, false, false)
  :: else
  fi
}

inline giveBack() {
  if
  :: incoming == returning && (awaited & ~marked) == 0 ->
     if
     /* Said to somebody whose end is not known here yet, it is lost with him. */
     :: queue != 0 && !alive[source] -> excused = excused | queue; queue = 0
     :: queue != 0 && alive[source] -> say(source, BufferedPacket, incomingEpoch + 1, queue, 0, 0); queue = 0
     :: else
     fi;
     say(source, AbortFlowReply, incomingEpoch + 1, 0, 0, 0);
     forgetMove()
  :: else
  fi
}

/* The source hears that the flow is here, and has a replica. */
inline confirm(where, epochSaid) {
  if
  :: !isFenced(where) -> isReplyHandled[self] = false; unconfirmed = 2; say(where, InstallFlowReply, epochSaid, 0, 0, 0)
  /* Nobody hears it any more, and nothing is taken back. */
  :: else -> unconfirmed = 0; mustStart = true
  fi
}

inline adopted() {
  adoption = 0;
  confirm(confirmTo, confirmEpoch)
}

inline startInheriting() {
  assert(version > 1);
  isLost = true
}

/* -- Replicas: src/runtime/replication/replicas.ts */

inline dropReplica() {
  keeps = false; keptOwner = 0; keptRecord = 0; keptEpoch = 0; isTentative = false; former = 0; movingTo = 0; movingEpoch = 0;
  isAsking = false; asking = 0; buffersAt = 0
}

inline promote() {
  assert(!has);
  has = true; record = keptRecord; epoch = keptEpoch + PROMOTION_EPOCHS;
  clearGuard();
  /* Who kept it before, should the owner have died in the middle of the change. */
  if
  :: former != 0 && !isFenced(former) -> guard = former; isAdopted = true
  :: else
  fi;
  value = (buffersAt != 0 && !isFenced(buffersAt) -> buffersAt : 0);
  dropReplica();
  if
  :: incoming != absent -> held = queue; queue = 0; forgetMove()
  :: else
  fi;
  secure(value, true, false);
  value = 0
}

/* What the handlers above leave to be done, in the order of the code. */
inline finish() {
  if
  :: mustGoBack -> mustGoBack = false; finishGoingBack()
  :: else
  fi;
  if
  :: mustStart -> mustStart = false; begin()
  :: else
  fi;
  if
  :: mustPromote -> mustPromote = false; promote()
  :: else
  fi;
  if
  :: mustBegin -> mustBegin = false; beginSecuring(excepted); excepted = 0
  :: else
  fi;
  if
  :: mustAsk -> mustAsk = false; askToAdopt()
  :: else
  fi;
  if
  :: mustChange -> mustChange = false; changeReleaser()
  :: else
  fi;
  if
  :: mustFinish -> mustFinish = false; finishSecuring()
  :: else
  fi
}

inline answered(x, code) {
  asking = asking & ~bit(x);
  if
  :: code == 2 -> buffersAt = x
  :: else
  fi;
  if
  :: code == 1 -> sayDrained(movingEpoch); dropReplica()
  :: code != 1 && asking == 0 -> mustPromote = true
  :: else
  fi
}

inline ask() {
  isAsking = true;
  asking = 7 & ~dead & ~bit(self);
  if
  :: asking & bit(second) -> say(second, AskFlow, movingEpoch, version_, 0, 0)
  :: else
  fi;
  if
  :: asking & bit(third) -> say(third, AskFlow, movingEpoch, version_, 0, 0)
  :: else
  fi;
  if
  :: asking == 0 -> mustPromote = true
  :: else
  fi
}

inline reply(x, epochSaid) {
  value = 0;
  if
  :: keeps && keptOwner != (x) && keptEpoch >= epochSaid -> value = 1
  :: has && (epoch >= epochSaid || state == handing || state == takingBack) -> value = 1
  :: else ->
     if
     :: (incoming == prepared || incoming == returning) && sourceReplica == (x) -> yields = true; value = 2
     :: else
     fi
  fi;
  say(x, AskFlowReply, epochSaid, value, 0, 0);
  value = 0
}

/* -- Messages */

inline fromRuntime(x) {
  if
  :: kind == PrepareFlow ->
     if
     :: incoming != absent || has -> say(x, PrepareFlowReply, e, 1, 0, 0)
     :: else ->
        incoming = prepared; incomingEpoch = e; source = x; sourceReplica = a;
        say(x, PrepareFlowReply, e, 0, 0, 0)
     fi
  :: kind == PrepareFlowReply && state == preparing && e == before + 1 ->
     if
     :: a != 0 -> endMove()
     :: a == 0 && liveGuard == 0 -> startRerouting()
     :: else ->
        isMarking = true; tellReplica(e, target)
#ifdef NO_MOVING_WORD
        ; startRerouting()
#endif
     fi
  /* Of a move that has been called off. */
  :: kind == PrepareFlowReply && !(state == preparing && e == before + 1) -> skip
  :: kind == InstallFlow ->
     assert(incoming == prepared && source == x && incomingEpoch == e && !yields);
     has = true; record = a; epoch = e;
     clearGuard();
     incoming = waiting;
     dropReplica();
     unconfirmed = 1; confirmTo = x; confirmEpoch = e;
     choose(x);
     if
     :: chosen == 0 -> confirm(x, e)
     :: else ->
        earlyReplica = chosen; adoption = chosen; chosen = 0;
        say(earlyReplica, AdoptFlow, e, TENTATIVE, record, 0)
#ifdef CONFIRM_EARLY
        ; adopted()
#endif
     fi;
     mustStart = true
  :: kind == InstallFlowReply ->
     isReplyHandled[x] = true;
     if
     :: state == handing && e == before + 1 ->
        assert(a == 0);
        toldReplica = 0; toldCount = 0;
        if
        :: guard != 0 && !isGuardDead -> say(guard, ForgetFlow, 0, 0, 0, 0)
        :: else
        fi;
        clearGuard();
        has = false; record = 0; epoch = 0;
        endMove()
     :: else
     fi
  :: kind == AbortFlow ->
     isFromReplica = incoming != absent && yields && sourceReplica == x;
     if
     :: isFromReplica ->
        source = x; isUnheard = false;
        if
        :: e > incomingEpoch + 1 -> incomingEpoch = e - 1; marked = 0
        :: else
        fi
     :: else
     fi;
     if
     :: incoming == absent || source != x || incoming == waiting || (e != incomingEpoch && e != incomingEpoch + 1) ->
        say(x, AbortFlowReply, e, 0, 0, 0)
     :: else ->
        if
        :: e == incomingEpoch ->
           if
           :: isFromReplica && b == 0 && queue != 0 -> startInheriting()
           :: else ->
              assert(queue == 0);
              forgetMove();
              say(x, AbortFlowReply, e, 0, 0, 0)
           fi
        :: else ->
           awaited = a; incoming = returning;
           sayDrained(e);
           giveBack()
        fi
     fi;
     isFromReplica = false
  :: kind == AbortFlowReply ->
     if
     :: isSecuring ->
        if
        :: e == epoch -> isTargetDone = true; mustFinish = true
        :: else
        fi
     :: !isSecuring && state == cancelling && e == before + 1 -> endMove()
     :: !isSecuring && (state == aborting || state == takingBack) && e == before + 2 -> isMoveDone = true; mustGoBack = true
     :: else
     fi
  :: kind == BufferedPacket ->
     assert(isSecuring || ((state == aborting || state == takingBack) && !isMoveDone));
     returned = returned | a
  :: kind == AdoptFlow ->
     if
     :: has || (keeps && keptEpoch > e) -> say(x, AdoptFlowReply, e, 1, 0, 0)
     :: else ->
        if
        :: keeps && isAsking -> sayDrained(movingEpoch)
        :: keeps && !isAsking && keptOwner != x -> replacedOwner = keptOwner; replacedEpoch = movingEpoch
        :: else
        fi;
        dropReplica();
        keeps = true; keptOwner = x; keptEpoch = e; movingEpoch = e; keptRecord = b; isTentative = a == TENTATIVE; former = c;
        say(x, AdoptFlowReply, e, 0, 0, 0)
     fi
  :: kind == AdoptFlowReply ->
     if
     :: adoption == x -> adopted()
     :: adoption != x && isSecuring && newReplica == x && e == epoch ->
        if
        :: a == 0 -> isNewAdopted = true; mustChange = !isRerouted
        :: else -> mustBegin = true; excepted = x
        fi
     :: else
     fi
  :: kind == CommitStep ->
     handled[x] = handled[x] | b;
     if
     :: keeps && keptOwner == x && e >= keptEpoch ->
        keptEpoch = e; former = 0;
#ifndef STEP_NOT_STORED
        keptRecord = a;
#endif
        stored = stored | b;
        releaseFrames(b)
     :: else -> assert(fences != 0)
     fi
  :: kind == RetireFlow ->
     replacedOwner = 0; replacedEpoch = 0;
     if
     :: keeps && keptOwner == x && a != 0 -> dropReplica()
     :: keeps && keptOwner != x && keptEpoch < e ->
        /* Who says so has taken the flow over. */
        if
        :: isAsking -> sayDrained(movingEpoch)
        :: else
        fi;
        dropReplica()
     :: else
     fi;
     if
     :: b <= version_ -> sayDrained(e)
     :: else -> retireEpoch = e; retireVersion = b
     fi
  :: kind == ForgetFlow ->
     if
     :: keeps && keptOwner == x -> dropReplica()
     :: (!keeps || keptOwner != x) && replacedOwner == x -> replacedOwner = 0; replacedEpoch = 0
     :: else
     fi
  :: kind == MovingFlow ->
     if
     :: keeps && keptOwner == x -> former = 0; movingTo = a; movingEpoch = e; say(x, MovingFlowReply, e, 0, 0, 0)
     :: else
     fi
  :: kind == MovingFlowReply ->
     if
     :: isSecuring && !isMarked && guard == x -> isMarked = true; mustAsk = true
     :: !(isSecuring && !isMarked && guard == x) && toldReplica == x ->
        toldCount--;
        if
        :: toldCount == 0 ->
           toldReplica = 0;
           if
           :: state == preparing && isMarking -> startRerouting()
           :: else
           fi
        :: else
        fi
     :: else
     fi
  :: kind == AskFlow ->
#ifdef ANSWER_EARLY
     reply(x, e)
#else
     if
     :: a <= version_ -> reply(x, e)
     :: else -> questionEpoch[x] = e; questionVersion[x] = a
     fi
#endif
  :: kind == AskFlowReply ->
     if
     :: keeps && isAsking -> answered(x, a)
     :: else
     fi
  /* Of a replica that goes on. */
  :: kind == YieldFlow && a == 2 -> isUnheard = false
  :: kind == YieldFlow && a == 0 ->
     if
     :: keeps && (movingTo == x || buffersAt == x) -> buffersAt = x; say(x, YieldFlow, e, 2, 0, 0)
     :: !(keeps && (movingTo == x || buffersAt == x)) && isSecuring && securingTarget == x && !isTargetDone -> say(x, YieldFlow, e, 2, 0, 0)
     :: else -> say(x, AbortFlow, e, 0, 0, 0)
     fi
  fi
}

inline packetFrom(switchId, packet) {
  if
  :: has && runs[self] && !(state == aborting && (passed & (1 << switchId))) -> process(packet)
  :: has && !(runs[self] && !(state == aborting && (passed & (1 << switchId)))) && (isSecuring || state == aborting || state == takingBack) ->
     held = held | packet
  :: else -> assert(incoming == prepared || incoming == returning || incoming == waiting); queue = queue | packet
  fi
}

inline rerouteReply(switchId, epochSaid) {
  if
  :: isSecuring ->
     if
     :: epochSaid == epoch && isRerouted && !isTargetDone && (markers & (1 << switchId)) ->
        markers = markers & ~(1 << switchId);
        say(securingTarget, AbortFlow, epoch, markers, 0, 0)
     :: else
     fi
  :: !isSecuring && incoming != absent ->
     if
     :: yields && epochSaid > incomingEpoch + 1 -> incomingEpoch = epochSaid - 1; marked = 0
     :: else
     fi;
     if
     :: epochSaid == incomingEpoch + 1 -> marked = marked | (1 << switchId); giveBack()
     :: else
     fi
  :: !isSecuring && incoming == absent && state != settled ->
     if
     :: epochSaid == before + 1 ->
        passed = passed | (1 << switchId);
        if
        :: state == aborting -> mustGoBack = true
        :: state == rerouting -> movePending = movePending & ~(1 << switchId)
        :: else
        fi
     :: epochSaid == before + 2 && (moveMarkers & (1 << switchId)) ->
        moveMarkers = moveMarkers & ~(1 << switchId);
        say(target, AbortFlow, before + 2, moveMarkers, 0, 0)
     :: else
     fi
  :: else
  fi
}

inline goFrom(switchId) {
#ifndef BACK_FORGOTTEN
  if
  :: b == 0 && backAt != 0 && e == backAt && switchId == LAST && a > acceptedBack -> acceptedBack = a
  :: else
  fi;
#endif
  if
  :: b != 0 ->
     /* A switch knows better. */
     if
     :: isSecuring && isPromotion && e == epoch ->
        assert(returned == 0 && held == 0);
        if
        :: guard != 0 && !isGuardDead -> say(guard, ForgetFlow, 0, 0, 0, 0)
        :: else
        fi;
        clearGuard();
        say(newReplica, ForgetFlow, 0, 0, 0, 0);
        isSecuring = false; has = false; record = 0; epoch = 0;
        newReplica = 0; isMarked = false; isAsked = false; isNewAdopted = false; isRerouted = false; isPromotion = false;
        pending = 0; markers = 0; released = 0; isReleasedKnown = false; firstEpoch = 0; securingTarget = 0; isTargetDone = false
     :: else
     fi
  :: b == 0 && incoming != absent && e == incomingEpoch -> gone = gone | (1 << switchId); mustStart = true
  :: b == 0 && !(incoming != absent && e == incomingEpoch) && state != settled && e == before + 2 ->
     movePending = movePending & ~(1 << switchId);
     mustGoBack = true
  :: b == 0 && !(incoming != absent && e == incomingEpoch) && !(state != settled && e == before + 2) && isSecuring && e <= epoch ->
     if
#ifdef LATE_GO_COUNTS
     :: switchId == LAST && !isReleasedKnown ->
#else
     :: switchId == LAST && !isReleasedKnown && e >= firstEpoch ->
#endif
        isReleasedKnown = true; released = a
     :: else
     fi;
     if
     :: e == epoch -> pending = pending & ~(1 << switchId); mustFinish = true
     :: else
     fi
  :: else
  fi
}

/* A runtime is fenced: the order is that of Coordinator.configure. */
inline fenced(x) {
  if
  :: state != settled && target == x ->
     if
     :: state == preparing || state == cancelling -> endMove()
     :: state == rerouting -> abortMove(true)
     :: state == handing -> takeBack(true)
     :: else -> isMoveDone = true; mustGoBack = true
     fi
  :: else
  fi;
  if
  :: unconfirmed != 0 && confirmTo == x -> unconfirmed = 0; mustStart = true
  :: else
  fi;
  if
  :: (incoming == prepared || incoming == returning) && (source == x || (yields && sourceReplica == x)) ->
     if
     :: sourceReplica == self && keeps -> yields = true
     :: else ->
        if
        :: !(yields && sourceReplica == x) && sourceReplica != 0 && !isFenced(sourceReplica) ->
           yields = true;
           isUnheard = true;
           say(sourceReplica, YieldFlow, incomingEpoch, 0, 0, 0)
        :: else -> startInheriting()
        fi
     fi
  :: else
  fi;
  if
  :: adoption == x -> adopted()
  :: else
  fi;
  if
  :: isSecuring ->
     if
     :: securingTarget == x -> isTargetDone = true
     :: else
     fi;
     if
     :: guard == x -> isGuardDead = true; isMarked = true; mustAsk = true
     :: else
     fi;
     if
     :: newReplica == x -> mustBegin = true; excepted = x
     :: else -> mustFinish = true
     fi
  :: else
  fi;
  if
  :: guard == x -> isGuardDead = true
  :: else
  fi;
  if
  :: replacedOwner == x -> sayDrained(replacedEpoch); replacedOwner = 0; replacedEpoch = 0
  :: else
  fi;
  if
  :: keeps && isAsking -> answered(x, 0)
  :: keeps && !isAsking && keptOwner == x ->
#ifndef PROMOTE_UNASKED
     if
     :: movingTo == 0 && !isTentative -> mustPromote = true
     :: else -> ask()
     fi
#else
     mustPromote = true
#endif
  :: else
  fi
}

proctype Runtime(byte self) {
  byte epoch = 0, outputs = 0, kept = 0, backAt = 0, acceptedBack = 0, newReplica = 0, pending = 0, markers = 0, released = 0, firstEpoch = 0, securingTarget = 0, returned = 0, held = 0;
  bool isAdopted = false, isMarked = false, isAsked = false, isNewAdopted = false, isRerouted = false, isPromotion = false,
    isOwnReleaser = false, isReleasedKnown = false, isTargetDone = false, isBatch = false;
  bool mustGoBack = false, mustStart = false, mustPromote = false, mustBegin = false, mustAsk = false, mustChange = false, mustFinish = false;
  byte excepted = 0;
  byte target = 0, before = 0, movePending = 0, passed = 0, moveMarkers = 0, toldReplica = 0, toldCount = 0;
  bool isMarking = false, isMoveDone = false;
  byte incomingEpoch = 0, source = 0, sourceReplica = 0, gone = 0, awaited = 0, marked = 0, queue = 0, unconfirmed = 0, confirmTo = 0,
    confirmEpoch = 0, adoption = 0, earlyReplica = 0;
  bool yields = false, isUnheard = false, isFromReplica = false;
  byte keptEpoch = 0, former = 0, movingTo = 0, movingEpoch = 0, asking = 0, buffersAt = 0, replacedOwner = 0, replacedEpoch = 0,
    retireEpoch = 0, retireVersion = 0;
  bool isTentative = false, isAsking = false, isApplying = false;
  byte questionEpoch[4], questionVersion[4];
  byte dead = 0, version_ = 0, e = 0, a = 0, b = 0, c = 0, s = 0, p = 0, t = 0, x = 0, o = 0, value = 0, chosen = 0;
  mtype kind;

  d_step {
    state = settled; incoming = absent;
    if
    :: self == 1 -> has = true; epoch = 1; guard = 3; isAdopted = true; runs[1] = true
    :: self == 3 -> keeps = true; keptOwner = 1; keptEpoch = 1; movingEpoch = 1
    :: else
    fi
  }
end:
  do
  :: atomic {
  if
#define hears(y) \
  :: d_step { nempty(sessionFrom(y)) && !isFenced(y) && !isLost -> \
       sessionFrom(y)?kind(e, a, b, c); \
       x = y; \
       fromRuntime(x); \
       kind = 0; e = 0; a = 0; b = 0; c = 0; x = 0 \
     }
  hears(second)
  hears(third)
#define hearsSwitch(y) \
  :: d_step { nempty(fromSwitch[at(y, self)]) && !isLost -> \
       fromSwitch[at(y, self)]?kind(e, a, b); goFrom(y); \
       kind = 0; e = 0; a = 0; b = 0 \
     } \
  :: d_step { nempty(linkTo[at(y, self)]) && !isLost -> \
       linkTo[at(y, self)]?kind(e); \
       if \
       :: kind == data -> packetFrom(y, e) \
       :: else -> rerouteReply(y, e) \
       fi; \
       kind = 0; e = 0 \
     }
  hearsSwitch(0)
#if SWITCHES > 1
  hearsSwitch(1)
#endif
  /* A configuration: sessions with the dead close. */
  :: d_step { version_ != version && !isLost ->
       t = fences & ~dead;
       dead = fences; version_ = version;
       x = 1;
       do
       :: x > N -> break
       :: x <= N ->
          if
          :: t & bit(x) ->
             do
             :: nempty(sessionFrom(x)) ->
                sessionFrom(x)?kind(e, a, b, c);
                if
                :: kind == BufferedPacket -> excused = excused | a
                :: else
                fi
             :: empty(sessionFrom(x)) -> break
             od;
             questionEpoch[x] = 0; questionVersion[x] = 0
          :: else
          fi;
          x++
       od;
       kind = 0; e = 0; a = 0; b = 0; c = 0;
       asking = asking & 7;
       p = t; t = 0; e = p; p = 0;
       x = 1;
       do
       :: x > N -> break
       :: x <= N ->
          if
          :: e & bit(x) -> fenced(x)
          :: else
          fi;
          x++
       od;
       if
       :: toldReplica != 0 && (e & bit(toldReplica)) -> toldReplica = 0; toldCount = 0
       :: else
       fi;
       if
       :: retireEpoch != 0 -> sayDrained(retireEpoch); retireEpoch = 0; retireVersion = 0
       :: else
       fi;
       x = 1;
       do
       :: x > N -> break
       :: x <= N ->
          if
          :: questionEpoch[x] != 0 -> reply(x, questionEpoch[x]); questionEpoch[x] = 0; questionVersion[x] = 0
          :: else
          fi;
          x++
       od;
       x = 0; e = 0;
       isApplying = true
     }
#ifdef APPLIED_EARLY
  :: d_step { isApplying && !isLost ->
#else
  :: d_step { isApplying && !isAsking && !isUnheard && !(isSecuring && isPromotion && !isRerouted) && !isLost ->
#endif
       isApplying = false;
       s = 0;
       do
       :: s < SWITCHES -> toSwitch[at(s, self)]!ConfigApplied(version_, 0, 0, 0, 0); s++
       :: s >= SWITCHES -> break
       od;
       s = 0
     }
  /* The session has acknowledged: steps, and the answer to the source. */
  :: d_step { kept != 0 && isAdopted && !isGuardDead && (kept & handled[self]) != 0 && !isLost -> kept = kept & ~handled[self] }
  :: d_step { unconfirmed == 2 && isReplyHandled[self] && !isLost -> unconfirmed = 0; mustStart = true }
  /* Step 3 of a move. */
  :: d_step { state == rerouting && movePending == 0 && isGuardDead && !isLost -> abortMove(false) }
#ifdef HAND_UNSTORED
  :: d_step { state == rerouting && movePending == 0 && !isGuardDead && !isLost ->
#else
  :: d_step { state == rerouting && movePending == 0 && !isGuardDead && kept == 0 && !isLost ->
#endif
       say(target, InstallFlow, before + 1, record, 0, 0);
       runs[self] = false;
       if
#ifdef RETIRED_FOR_GOOD
       :: guard != 0 -> say(guard, RetireFlow, before + 1, 1, version_, 0)
#else
       :: guard != 0 -> say(guard, RetireFlow, before + 1, 0, version_, 0)
#endif
       :: else -> sayDrained(before + 1)
       fi;
       state = handing
     }
  /* A flow without a replica, or whose replica is dead. */
  :: d_step { has && runs[self] && state == settled && toldReplica == 0 && unconfirmed == 0 && incoming == absent && !isLost &&
       (isGuardDead || (guard == 0 && (canKeep(second) || canKeep(third)))) -> secure(0, false, false) }
  /* Orders: a move, another replica. */
#define mayMove (has && runs[self] && state == settled && incoming == absent && unconfirmed == 0 && !isGuardDead && moves < MOVES && !isLost)
  :: d_step { mayMove && !isFenced(second) -> startMove(second) }
  :: d_step { mayMove && !isFenced(third) -> startMove(third) }
#if REPLACES > 0
  :: d_step { has && runs[self] && state == settled && toldReplica == 0 && unconfirmed == 0 && incoming == absent && guard != 0 &&
       !isGuardDead && isAdopted && replaces < REPLACES && !isLost ->
       replaces++; leaving = guard;
       secure(0, false, false)
     }
#endif
  /* A move that its replica's death has stopped times out; with TIMEOUTS any may. */
#ifdef TIMEOUTS
  :: d_step { state == preparing && !isLost -> cancelMove() }
#else
  :: d_step { state == preparing && isMarking && isGuardDead && !isLost -> cancelMove() }
#endif
#ifdef TIMEOUTS
  :: d_step { state == rerouting && !isLost -> abortMove(false) }
#endif
  /* The end. What is on its way here, or here alone, is lost. */
  :: d_step { version < CRASHES && !isLost ->
       alive[self] = false; runs[self] = false;
       fences = fences | bit(self);
       version++;
       excused = excused | queue | held | returned;
       if
       :: has -> excused = excused | (record & ~stored)
       :: else
       fi;
       s = 0;
       do
       :: s < SWITCHES ->
          do
          :: nempty(linkTo[at(s, self)]) ->
             linkTo[at(s, self)]?kind(e);
             if
             :: kind == data -> excused = excused | e
             :: else
             fi
          :: empty(linkTo[at(s, self)]) -> break
          od;
          do
          :: nempty(fromSwitch[at(s, self)]) -> fromSwitch[at(s, self)]?kind(e, a, b)
          :: empty(fromSwitch[at(s, self)]) -> break
          od;
          s++
       :: s >= SWITCHES -> break
       od;
       do
       :: nempty(sessionFrom(second)) ->
          sessionFrom(second)?kind(e, a, b, c);
          if
          :: kind == BufferedPacket -> excused = excused | a
          :: else
          fi
       :: empty(sessionFrom(second)) -> break
       od;
       do
       :: nempty(sessionFrom(third)) ->
          sessionFrom(third)?kind(e, a, b, c);
          if
          :: kind == BufferedPacket -> excused = excused | a
          :: else
          fi
       :: empty(sessionFrom(third)) -> break
       od;
       kind = 0; e = 0; a = 0; b = 0; c = 0; s = 0;
       has = false; record = 0; epoch = 0; clearGuard();
       isSecuring = false; state = settled; incoming = absent; dropReplica();
       newReplica = 0; pending = 0; markers = 0; released = 0; securingTarget = 0; returned = 0; held = 0; queue = 0;
       isMarked = false; isAsked = false; isNewAdopted = false; isRerouted = false; isPromotion = false;
       isOwnReleaser = false; isReleasedKnown = false; firstEpoch = 0; isTargetDone = false;
       target = 0; before = 0; movePending = 0; passed = 0; moveMarkers = 0; toldReplica = 0; toldCount = 0;
       isMarking = false; isMoveDone = false;
       incomingEpoch = 0; source = 0; sourceReplica = 0; gone = 0; awaited = 0; marked = 0; unconfirmed = 0; confirmTo = 0;
       confirmEpoch = 0; adoption = 0; earlyReplica = 0; yields = false; isUnheard = false;
       replacedOwner = 0; replacedEpoch = 0; retireEpoch = 0; retireVersion = 0; isApplying = false; dead = 0; version_ = 0;
       questionEpoch[1] = 0; questionEpoch[2] = 0; questionEpoch[3] = 0;
       questionVersion[1] = 0; questionVersion[2] = 0; questionVersion[3] = 0
     };
     goto over
  fi;
  d_step { finish() }
  }
  od;
over:
  skip
}

/* -- When nothing can go on any more ------------------------------------------------------------------------------------------ */

#define isSettled(x) (stateOf[x] == settled && incomingOf[x] == absent && !securingOf[x])
#define isOwner(x) (hasOf[x] && runs[x] && (delivered & ~recordOf[x]) == 0 && ownerAt[0] == (x) && ownerAt[LAST] == (x))
#define isGuarded(x, y) (guardOf[x] == (y) && !guardDeadOf[x] && keepsOf[y] && keptOwnerOf[y] == (x) && keptRecordOf[y] == recordOf[x] && \
  releaserAt[0] == (y) && releaserAt[LAST] == (y))
#define isAlone(x) (guardOf[x] == 0 && releaserAt[0] == (x) && releaserAt[LAST] == (x))

proctype Settled() {
  byte o;

  timeout ->
  if
  :: isLost
  :: else ->
     assert(isSettled(1) && isSettled(2) && isSettled(3));
     assert(hasOf[1] + hasOf[2] + hasOf[3] == 1);
     o = (hasOf[1] -> 1 : (hasOf[2] -> 2 : 3));
     assert(isOwner(o));
     assert(keepsOf[1] + keepsOf[2] + keepsOf[3] <= 1);
     assert((guardOf[o] != 0 && isGuarded(o, guardOf[o])) ||
       (isAlone(o) && (alive[1] + alive[2] + alive[3] == 1 || leaving != 0) && keepsOf[1] + keepsOf[2] + keepsOf[3] == 0));
     assert(entered == PACKETS);
     assert((delivered | excused) == EVERY)
  fi
}

init {
  d_step { ownerAt[0] = 1; ownerAt[1] = 1; releaserAt[0] = 3; releaserAt[1] = 3 }
#ifndef ONE_CHOICE
  if
  :: isHighFirst = 0
  :: isHighFirst = 1
  fi;
#endif
  atomic {
    run Runtime(1); run Runtime(2); run Runtime(3);
    run Switch(0);
#if SWITCHES > 1
    run Switch(1);
#endif
    run Settled()
  }
}
