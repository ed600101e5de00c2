/*
 * Live migration of one flow, for exhaustive checking with Spin. The protocol is that of docs/protocol.md, "Moving" and "Fencing";
 * names of messages and states are those of src/messages and src/runtime/migration (a test compares them).
 *
 *        packets ─▶ ┌──────────┐ ══ link ══▶ ┌────────┐
 *                   │ Switch 0 │ ◀══ link ══ │ Source │ ─┐ control
 *        packets ◀─ └──────────┘ ╲         ╱ └────────┘  │
 *                                  ╳ every runtime has    │
 *        packets ─▶ ┌──────────┐ ╱   a link ╲ ┌────────┐  │
 *                   │ Switch 1 │ ══ to every ═│ Target │ ─┘
 *        packets ◀─ └──────────┘     switch   └────────┘
 *
 * A packet that enters at one switch is processed by the owner and leaves at the other. The flow's state is what the network
 * function has seen: the number of the last packet of each direction. It travels in InstallFlow.
 *
 * Bounds: PACKETS per direction (2), MOVES begun by the source (1); a timeout may strike at any moment in preparing and rerouting,
 * a refusal at PrepareFlow and at InstallFlow. Every run is finite, so a run that stops short is a state where nothing
 * can go on; there `Settled` requires that the move has ended and every packet was delivered. That is the liveness property.
 *
 * Checked at each step: a packet is processed, and delivered, exactly in the order it entered (so none is lost, repeated or
 * overtaken); no runtime processes while the other does; no frame comes from a runtime that is not the releaser; no packet comes
 * to a runtime that has handed the flow over. With TARGET_DIES or SOURCE_DIES packets may be missing, and the rest holds.
 *
 * Abstractions: links lose and reorder nothing (the transport has its own tests); one flow, without aliases; buffers are large
 * enough; the flow is open, never idle and never closing; the configuration has the two switches throughout.
 *
 * Broken variants, each of which Spin must refuse: NO_GO, TIMER_TAKES_BACK, ABORT_WITHOUT_BUFFER, BARRIER_OUT_OF_BAND,
 * TARGET_FORGETS (planted bugs of the simulator), ONE_DRAINED_NOTE (a switch lets a late Drained overwrite a newer one),
 * ABORT_WITHOUT_PASSED (an abort ends before every switch's first in-band word has come), INHERIT_LOW_EPOCH, INHERIT_WITHOUT_GO
 * and FOLLOW_STALE (with SOURCE_DIES: the flow goes on at the target at an epoch that the source may have used, or before the switches
 * say Go; a switch follows a word of an epoch that is over).
 */

#ifndef PACKETS
#define PACKETS 2
#endif
#ifndef MOVES
#define MOVES 1
#endif
#define ROOM (PACKETS + 2 * MOVES + 1)

mtype = {
  PrepareFlow, PrepareFlowReply, RerouteFlow, RerouteFlowReply, InstallFlow, InstallFlowReply,
  AbortFlow, AbortFlowReply, BufferedPacket, Drained, Go
};
/* A data frame. */
mtype = { data };
/* MoveState of the source, behind it `settled`: no move is under way. */
mtype:move = { preparing, cancelling, rerouting, handing, aborting, takingBack, settled };
/* IncomingState of the target, behind it `absent`: no flow on its way; `owned`: an ordinary flow. */
mtype:incoming = { prepared, waiting, returning, inheriting, absent, owned };

#define SOURCE 1
#define TARGET 2

/* Control sessions: kind, epoch, and two values. */
chan sourceToTarget = [2 * PACKETS + 4] of { mtype, byte, byte, byte };
chan targetToSource = [2 * PACKETS + 4] of { mtype, byte, byte, byte };
chan sourceToSwitch[2] = [4 * MOVES] of { mtype, byte, byte };
chan switchToSource[2] = [4 * MOVES] of { mtype, byte };
chan targetToSwitch[2] = [2] of { mtype, byte, byte };
chan switchToTarget[2] = [4 * MOVES] of { mtype, byte };
/* Data links, with the in-band sessions on them: kind, and the epoch or the packet's number. Output frames are numbered alike. */
chan linkToSource[2] = [ROOM] of { mtype, byte };
chan linkToTarget[2] = [ROOM] of { mtype, byte };
chan linkFromSource[2] = [ROOM] of { mtype, byte };
chan linkFromTarget[2] = [ROOM] of { mtype, byte };

/* What `Settled` and the assertions look at. */
mtype:move sourceState = settled;
mtype:incoming targetState = absent;
bool sourceRuns = true;
bool targetRuns = false;
byte delivered[2];
#ifdef TARGET_DIES
bool targetDead = false;
bool told[3];
#define TARGET_LIVES !targetDead
#else
#define TARGET_LIVES true
#endif
#ifdef SOURCE_DIES
bool sourceDead = false;
#endif
#if defined(TARGET_DIES) || defined(SOURCE_DIES)
#define inOrder(number, last) assert(number > last)
#else
#define inOrder(number, last) assert(number == last + 1)
#endif

/* The network function: notes the packet and puts it out at the other switch. */
inline process(direction, number) {
  inOrder(number, seen[direction]);
  seen[direction] = number;
  if
  :: self == SOURCE -> linkFromSource[1 - (direction)]!data(number)
  :: else -> linkFromTarget[1 - (direction)]!data(number)
  fi
}

/* -- Switch: src/vswitch/virtual-switch.ts ------------------------------------------------------------------------------------ */

inline sendGo() {
  if
  :: owner == SOURCE -> switchToSource[self]!Go(epoch)
  :: owner == TARGET && !fencedTarget -> switchToTarget[self]!Go(epoch)
  :: else
  fi
}

inline answerReroute(before, wordEpoch) {
#ifdef BARRIER_OUT_OF_BAND
  if
  :: before == SOURCE -> switchToSource[self]!RerouteFlowReply(wordEpoch)
  :: else -> switchToTarget[self]!RerouteFlowReply(wordEpoch)
  fi
#else
  if
  :: (before == TARGET && !fencedTarget) || (before == SOURCE && fencedSource) -> linkToTarget[self]!RerouteFlowReply(wordEpoch)
  :: else -> linkToSource[self]!RerouteFlowReply(wordEpoch)
  fi
#endif
}

/* Lets the owner release packets, now or when the releaser before has sent its last. */
inline release() {
  if
  :: releaser == owner || (drainedBy == releaser && drainedEpoch >= epoch) || (releaser == TARGET && fencedTarget) ||
     (releaser == SOURCE && fencedSource) ->
     awaitsDrained = false; releaser = owner; sendGo()
  :: else -> awaitsDrained = true
  fi
}

/* The flow's packets go elsewhere from now on. */
inline follow() {
  epoch = number;
  number = owner; owner = node;
  answerReroute(number, epoch);
  release()
}

inline receiveFrame() {
  if
  :: kind == data ->
     assert(releaser == node);
     inOrder(number, delivered[self]);
     delivered[self] = number
  :: kind == Drained ->
#ifdef ONE_DRAINED_NOTE
     drainedBy = node; drainedEpoch = number;
     if
     :: awaitsDrained -> release()
     :: else
     fi
#else
     if
     :: awaitsDrained && node == releaser && number >= epoch -> awaitsDrained = false; releaser = owner; sendGo()
     :: else ->
        if
        :: number > drainedEpoch -> drainedBy = node; drainedEpoch = number
        :: else
        fi
     fi
#endif
  fi
}

proctype Switch(bit self) {
  byte owner = SOURCE, releaser = SOURCE, epoch = 1, drainedBy = 0, drainedEpoch = 0, entered = 0, number, node;
  bool awaitsDrained = false, fencedTarget = false, fencedSource = false;
  mtype kind;

end:
  do
  /* A packet from outside, to the owner as the entry says. One that would wait for a new owner waits outside. */
  :: d_step { entered < PACKETS && !(owner == TARGET && fencedTarget) && !(owner == SOURCE && fencedSource) ->
       entered++;
       if
       :: owner == SOURCE -> linkToSource[self]!data(entered)
       :: else -> linkToTarget[self]!data(entered)
       fi
     }
  :: d_step { sourceToSwitch[self]?kind(number, node) ->
       assert(kind == RerouteFlow);
#ifdef SOURCE_DIES
#ifndef FOLLOW_STALE
       /* What the dead source had said may come behind what the target says. */
       if
       :: number > epoch -> follow()
       :: else
       fi;
#else
       follow();
#endif
#else
       assert(number > epoch);
       follow();
#endif
       number = 0; node = 0; kind = 0
     }
  :: d_step { targetToSwitch[self]?kind(number, node) ->
       assert(kind == RerouteFlow && number > epoch);
       follow();
       number = 0; node = 0; kind = 0
     }
  :: d_step { linkFromSource[self]?kind(number) ->
       node = SOURCE; receiveFrame(); number = 0; node = 0; kind = 0
     }
  :: d_step { linkFromTarget[self]?kind(number) ->
       node = TARGET; receiveFrame(); number = 0; node = 0; kind = 0
     }
#ifdef SOURCE_DIES
  /* What it had sent on the link is accepted, then the link is severed; what it had said and was not read is gone. */
  :: d_step { sourceDead && !fencedSource && empty(linkFromSource[self]) ->
       fencedSource = true;
       do
       :: nempty(sourceToSwitch[self]) -> sourceToSwitch[self]?kind(number, node)
       :: empty(sourceToSwitch[self]) -> break
       od;
       if
       :: awaitsDrained && releaser == SOURCE -> release()
       :: else
       fi;
       kind = 0; number = 0; node = 0
     }
  :: d_step { fencedSource && nempty(linkToSource[self]) -> linkToSource[self]?kind(number); kind = 0; number = 0 }
#endif
#ifdef TARGET_DIES
  /* What it had sent is accepted, then the link is severed. */
  :: d_step { targetDead && !fencedTarget && empty(linkFromTarget[self]) ->
       fencedTarget = true; told[self] = true;
       if
       :: awaitsDrained && releaser == TARGET -> releaser = owner; release()
       :: else
       fi
     }
  /* Its packets and words come to nobody. */
  :: d_step { fencedTarget && nempty(linkToTarget[self]) -> linkToTarget[self]?kind(number); kind = 0; number = 0 }
#endif
  od
}

/* -- Source: src/runtime/migration/outgoing-moves.ts -------------------------------------------------------------------------- */

inline endMove() {
  sourceState = settled; before = epoch; pending = 0; passed = 0; targetDone = false
}

inline reroute(node) {
  sourceToSwitch[0]!RerouteFlow(epoch, node);
  sourceToSwitch[1]!RerouteFlow(epoch, node)
}

inline finishGoingBack() {
  if
  :: targetDone && ((sourceState == takingBack && pending == 0) ||
#ifndef ABORT_WITHOUT_PASSED
       (sourceState == aborting && (passed == 3 || targetGone))) ->
#else
       sourceState == aborting) ->
#endif
     assert(!targetRuns);
     sourceRuns = true;
     do
     :: nempty(returned) -> returned?direction(number); process(direction, number)
     :: empty(returned) && nempty(held) -> held?direction(number); process(direction, number)
     :: empty(returned) && empty(held) -> break
     od;
     endMove()
  :: else
  fi
}

inline goBack(state) {
  sourceState = state;
  epoch = before + 2;
  pending = 3;
  targetDone = targetGone;
  reroute(SOURCE);
  if
  :: !targetGone -> sourceToTarget!AbortFlow(epoch, 0, 0)
  :: else
  fi;
#ifdef ABORT_WITHOUT_BUFFER
  targetDone = true;
#endif
  finishGoingBack()
}

inline rerouteReply(side) {
  if
  :: sourceState != settled && number == before + 1 ->
     passed = passed | (1 << side);
     if
     :: sourceState == rerouting -> pending = pending & ~(1 << side)
     :: sourceState == aborting -> finishGoingBack()
     :: else
     fi
  :: else
  fi
}

inline fromSwitch(side) {
  if
  :: kind == RerouteFlowReply -> rerouteReply(side)
  :: kind == data ->
     if
     :: sourceState == takingBack || (sourceState == aborting && (passed & (1 << side))) -> held!side(number)
     :: else -> assert(sourceRuns && sourceState != handing); process(side, number)
     fi
  fi
}

inline fromSwitchControl(side) {
  if
  :: kind == Go && (sourceState == aborting || sourceState == takingBack) && number == before + 2 ->
     pending = pending & ~(1 << side);
     finishGoingBack()
  :: kind == RerouteFlowReply -> rerouteReply(side)
  :: else
  fi
}

proctype Source(byte self) {
  /* `before`: the flow's epoch when the move began; `epoch`: the highest one it has been told or told others. */
  byte before = 1, epoch = 1, pending = 0, passed = 0, moves = 0, number, direction, value;
  byte seen[2];
  bool targetDone = false, targetGone = false, owns = true;
  mtype kind;
  chan returned = [2 * PACKETS] of { byte, byte };
  chan held = [2 * PACKETS] of { byte, byte };

end:
  do
  :: d_step { sourceState == settled && owns && moves < MOVES && !targetGone ->
       moves++;
       epoch = before + 1;
       sourceState = preparing;
       sourceToTarget!PrepareFlow(epoch, 0, 0)
     }
  /* Timeouts. */
  :: d_step { sourceState == preparing -> sourceState = cancelling; sourceToTarget!AbortFlow(epoch, 0, 0) }
  :: d_step { sourceState == rerouting -> goBack(aborting); number = 0; direction = 0 }
#ifdef TIMER_TAKES_BACK
  :: d_step { sourceState == handing -> goBack(takingBack); targetDone = true; pending = 0; finishGoingBack(); number = 0;
       direction = 0 }
#endif
  /* Every switch has sent its word: step 3, at the next tick. */
  :: d_step { sourceState == rerouting && pending == 0 ->
       sourceState = handing;
       sourceRuns = false;
       sourceToTarget!InstallFlow(epoch, seen[0], seen[1]);
       linkFromSource[0]!Drained(epoch);
       linkFromSource[1]!Drained(epoch)
     }
  :: d_step { targetToSource?kind(number, value, direction) ->
       if
       :: kind == PrepareFlowReply && sourceState == preparing && number == before + 1 ->
          if
          :: value != 0 -> epoch = before; endMove()
          :: else -> sourceState = rerouting; pending = 3; reroute(TARGET)
          fi
       :: kind == InstallFlowReply && sourceState == handing && number == before + 1 ->
          if
          :: value != 0 -> goBack(takingBack)
          :: else -> owns = false; endMove()
          fi
       :: kind == AbortFlowReply && sourceState == cancelling && number == before + 1 -> epoch = before; endMove()
       :: kind == AbortFlowReply && (sourceState == aborting || sourceState == takingBack) && number == before + 2 ->
          targetDone = true;
          finishGoingBack()
       :: kind == BufferedPacket ->
          if
          :: (sourceState == aborting || sourceState == takingBack) && !targetDone -> returned!direction(value)
          :: else -> process(direction, value)
          fi
       :: else
       fi;
       kind = 0; number = 0; value = 0; direction = 0
     }
  :: d_step { switchToSource[0]?kind(number) -> fromSwitchControl(0); kind = 0; number = 0; direction = 0 }
  :: d_step { switchToSource[1]?kind(number) -> fromSwitchControl(1); kind = 0; number = 0; direction = 0 }
  :: d_step { linkToSource[0]?kind(number) -> fromSwitch(0); kind = 0; number = 0; direction = 0 }
  :: d_step { linkToSource[1]?kind(number) -> fromSwitch(1); kind = 0; number = 0; direction = 0 }
#ifdef TARGET_DIES
  /* Its sessions close: what it had sent and was not read is gone. */
  :: d_step { targetDead && !targetGone ->
       targetGone = true; told[2] = true;
       do
       :: nempty(targetToSource) -> targetToSource?kind(number, value, direction)
       :: empty(targetToSource) -> break
       od;
       if
       :: sourceState == preparing || sourceState == cancelling -> epoch = before; endMove()
       :: sourceState == rerouting -> goBack(aborting)
       :: sourceState == handing -> goBack(takingBack)
       :: sourceState == aborting || sourceState == takingBack -> targetDone = true; finishGoingBack()
       :: else
       fi;
       kind = 0; number = 0; value = 0; direction = 0
     }
#endif
#ifdef SOURCE_DIES
  :: d_step { !sourceDead -> sourceDead = true; sourceRuns = false; sourceState = settled } ; break
#endif
  od
}

/* -- Target: src/runtime/migration/incoming-moves.ts -------------------------------------------------------------------------- */

inline runFlow() {
  targetRuns = true;
  targetState = owned;
  do
  :: nempty(buffer) -> buffer?side(value); process(side, value)
  :: empty(buffer) -> break
  od
}

/* Runs an installed or inherited flow's buffer once every switch accepts what comes of it. */
inline beginFlow() {
  if
#ifdef NO_GO
  :: targetState == waiting ->
#else
  :: targetState == waiting && gone == 3 ->
#endif
     assert(!sourceRuns);
     runFlow()
#ifdef INHERIT_WITHOUT_GO
  :: targetState == inheriting ->
#else
  :: targetState == inheriting && gone == 3 ->
#endif
     seen[0] = 0; seen[1] = 0;
     runFlow()
  :: else
  fi
}

/* Sends the buffer back when every switch has sent its last packet here. */
inline forget() {
  targetState = absent; gone = 0; marked = 0; epoch = 0
}

inline giveBack() {
  if
  :: targetState == returning && marked == 3 ->
     do
     :: nempty(buffer) -> buffer?side(value); targetToSource!BufferedPacket(epoch + 1, value, side)
     :: empty(buffer) -> break
     od;
     targetToSource!AbortFlowReply(epoch + 1, 0, 0);
     forget()
  :: else
  fi
}

inline wordOf(from) {
  if
  :: targetState != absent && targetState != owned && targetState != inheriting && number == epoch + 1 -> marked = marked | (1 << from); giveBack()
  :: else
  fi
}

inline frameFrom(from) {
  if
  :: kind == RerouteFlowReply -> wordOf(from)
  :: kind == data ->
     if
     :: targetState == owned -> process(from, number)
     :: else -> assert(targetState != absent); buffer!from(number)
     fi
  fi
}

inline controlFrom(from) {
  if
  :: kind == Go && targetState != absent && number == epoch -> gone = gone | (1 << from); beginFlow()
  :: kind == RerouteFlowReply -> wordOf(from)
  :: else
  fi
}

proctype Target(byte self) {
  byte epoch = 0, gone = 0, marked = 0, number, value, side;
  byte seen[2];
  bool sourceGone = false;
  mtype kind;
  chan buffer = [2 * PACKETS] of { byte, byte };

end:
  do
  /* May be refused; with a move there it must be. */
  :: d_step { TARGET_LIVES && sourceToTarget?[PrepareFlow] && targetState == absent ->
       sourceToTarget?PrepareFlow(epoch, _, _);
       targetState = prepared;
       targetToSource!PrepareFlowReply(epoch, 0, 0)
     }
  :: d_step { TARGET_LIVES && sourceToTarget?[PrepareFlow] ->
       sourceToTarget?PrepareFlow(number, _, _);
       targetToSource!PrepareFlowReply(number, 1, 0);
       number = 0
     }
  :: d_step { TARGET_LIVES && sourceToTarget?[InstallFlow] && targetState == prepared ->
       sourceToTarget?InstallFlow(number, seen[0], seen[1]);
       assert(number == epoch);
       targetState = waiting;
       targetToSource!InstallFlowReply(epoch, 0, 0);
       beginFlow();
       number = 0; value = 0; side = 0
     }
  /* Refused. It releases nothing: the switches need not wait for it. */
  :: d_step { TARGET_LIVES && sourceToTarget?[InstallFlow] ->
       sourceToTarget?InstallFlow(number, _, _);
       if
       :: targetState == prepared -> linkFromTarget[0]!Drained(number + 1); linkFromTarget[1]!Drained(number + 1)
       :: else
       fi;
       targetToSource!InstallFlowReply(number, 1, 0);
       number = 0
     }
  :: d_step { TARGET_LIVES && sourceToTarget?[AbortFlow] ->
       sourceToTarget?AbortFlow(number, _, _);
       if
       :: targetState == prepared && number == epoch + 1 -> targetState = returning; giveBack()
       :: else ->
          targetToSource!AbortFlowReply(number, 0, 0);
          if
          :: targetState == prepared -> assert(number == epoch && empty(buffer)); forget()
          :: else
          fi
       fi;
       number = 0; value = 0; side = 0
     }
  :: d_step { TARGET_LIVES && nempty(switchToTarget[0]) -> switchToTarget[0]?kind(number); controlFrom(0); kind = 0; number = 0; value = 0; side = 0 }
  :: d_step { TARGET_LIVES && nempty(switchToTarget[1]) -> switchToTarget[1]?kind(number); controlFrom(1); kind = 0; number = 0; value = 0; side = 0 }
  :: d_step { TARGET_LIVES && nempty(linkToTarget[0]) -> linkToTarget[0]?kind(number); frameFrom(0); kind = 0; number = 0; value = 0; side = 0 }
  :: d_step { TARGET_LIVES && nempty(linkToTarget[1]) -> linkToTarget[1]?kind(number); frameFrom(1); kind = 0; number = 0; value = 0; side = 0 }
#ifdef SOURCE_DIES
  /* The source's sessions close. What was prepared goes on here without its state, above every epoch that the source may have used. */
  :: d_step { sourceDead && !sourceGone ->
       sourceGone = true;
       do
       :: nempty(sourceToTarget) -> sourceToTarget?kind(number, value, side)
       :: empty(sourceToTarget) -> break
       od;
       if
       :: targetState == prepared || targetState == returning ->
          targetState = inheriting;
#ifdef INHERIT_LOW_EPOCH
          epoch = epoch + 1;
#else
          epoch = epoch + 2;
#endif
          gone = 0;
          targetToSwitch[0]!RerouteFlow(epoch, TARGET);
          targetToSwitch[1]!RerouteFlow(epoch, TARGET);
          beginFlow()
       :: else
       fi;
       kind = 0; number = 0; value = 0; side = 0
     }
#endif
#ifdef TARGET_FORGETS
  :: d_step { targetState == prepared ->
       do
       :: nempty(buffer) -> buffer?_(_)
       :: empty(buffer) -> break
       od;
       forget() }
#endif
#ifdef TARGET_DIES
  :: d_step { !targetDead -> targetDead = true; targetRuns = false; targetState = absent } ; break
#endif
  od
}

/* -- When nothing can go on any more ------------------------------------------------------------------------------------------ */

proctype Settled() {
  timeout ->
  assert(sourceState == settled);
#ifdef SOURCE_DIES
  assert(targetState == absent || targetState == owned);
  assert(sourceRuns != targetRuns || (sourceDead && !sourceRuns && !targetRuns))
#elif defined(TARGET_DIES)
  assert(sourceRuns != targetRuns || (targetDead && !sourceRuns && !targetRuns))
#else
  assert(targetState == absent || targetState == owned);
  assert(sourceRuns != targetRuns);
  assert(delivered[0] == PACKETS && delivered[1] == PACKETS)
#endif
}

init {
  atomic { run Switch(0); run Switch(1); run Source(SOURCE); run Target(TARGET); run Settled() }
}
