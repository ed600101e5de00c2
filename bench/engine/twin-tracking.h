/*
 * The firewall of the twin: rules once per flow, then tracking of TCP connections as src/nfs/firewall/tcp-tracking.ts describes
 * it, segment by segment. Included by twin.c.
 */

enum {
  NONE, SYN_SENT, SYN_RECEIVED, SIMULTANEOUS, MID_STREAM, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSED
};
enum {
  VALID, OLD_DUPLICATE, CHALLENGE, BAD_FLAGS, NO_HANDSHAKE, OUT_OF_WINDOW, UNACCEPTABLE_ACK, INVALID_RESET, AFTER_CLOSE
};
/* Bits of `track_flags`; those of the reverse side are the next higher ones. */
enum { SENT_SYN = 1, SENT_ACK = 4, SENT_FIN = 16, LIBERAL = 64, SYN_PASSED = 128, SURPRISE = 512, SURPRISES = 15 * 512 };
/* Bits that tracking leaves alone. */
enum { REPORTED = 0x2000, OPENED_BY_REVERSE = 0x4000 };
enum { NO_SCALE = 15, WINDOW_MAX = 65535, LIBERAL_WINDOW = 65535 << 14, ACK_SLACK = 66000 };

INLINE int32_t minus(uint32_t a, uint32_t b) { return (int32_t)(a - b); }
INLINE uint32_t shift_of(uint8_t scales, int direction) {
  if ((scales & 15) == NO_SCALE || scales >> 4 == NO_SCALE) return 0;
  return scales >> (direction << 2) & 15;
}
INLINE int32_t slack_of(const struct window *w) { return w->window > ACK_SLACK ? (int32_t)w->window : ACK_SLACK; }
static int is_between(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

/* A segment without SYN, FIN and RST in an established connection; 0, with nothing changed, when it is not plausible. */
INLINE int track_established(struct flow *f, int direction, uint32_t sequence, uint32_t acknowledgement, uint32_t window,
    uint32_t length) {
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  int32_t ahead = minus(sequence + length, sender->end), fresh = minus(acknowledgement, sender->acknowledged);
  int32_t slack = slack_of(sender);
  if (unlikely((minus(sequence, receiver->acknowledged + receiver->window) > 0) | ((int32_t)((uint32_t)ahead + receiver->window) < 0) |
               (minus(acknowledgement, receiver->end) > 0) | (fresh < -slack))) return 0;
  sender->end = ahead > 0 ? sequence + length : sender->end;
  sender->acknowledged = fresh > 0 ? acknowledgement : sender->acknowledged;
  uint32_t scaled = window << (f->scales >> (direction << 2) & 15);
  sender->window = scaled > sender->window ? scaled : sender->window;
  return 1;
}

static void restart(struct flow *f, int state) {
  f->track = (uint8_t)state;
  f->track_flags &= REPORTED | OPENED_BY_REVERSE;
  f->scales = NO_SCALE | NO_SCALE << 4;
  memset(f->window, 0, sizeof f->window);
}

static int is_answered(const struct flow *f, int direction, uint32_t sequence) {
  int32_t data = minus(f->window[direction].end, sequence + 1);
  return is_between(data, 0, WINDOW_MAX) && is_between(minus(f->window[1 - direction].acknowledged, sequence + 1), 0, data);
}

static void take_syn(struct flow *f, int direction, uint32_t sequence, uint32_t window, uint32_t length, int scale) {
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  uint32_t first = sequence + 1, end = first + length;
  int known = (f->track_flags & SENT_ACK << (1 - direction)) != 0 ? is_answered(f, direction, sequence)
    : (f->track_flags & SENT_SYN << direction) != 0 && receiver->acknowledged == first;
  if (!known) {
    sender->end = end;
    receiver->acknowledged = first;
  } else if (minus(end, sender->end) > 0) sender->end = end;
  if (window > sender->window) sender->window = window;
  if (scale >= 0 || !known) {
    int at = direction << 2, offered = scale < 0 ? NO_SCALE : scale > 14 ? 14 : scale;
    f->scales = (uint8_t)((f->scales & ~(15 << at)) | offered << at);
  }
  f->track_flags |= SENT_SYN << direction;
}

/* Finds the state that what both sides have sent amounts to. */
static void settle(struct flow *f) {
  int open = (f->track_flags & (SENT_ACK | SENT_ACK << 1)) == (SENT_ACK | SENT_ACK << 1);
  if (!open && f->track != MID_STREAM) {
    if (f->track == SIMULTANEOUS) f->track = SYN_RECEIVED;
    return;
  }
  if (f->track == SYN_RECEIVED || f->track == SIMULTANEOUS) {
    f->scales = (uint8_t)(shift_of(f->scales, 0) | shift_of(f->scales, 1) << 4);
  }
  int forward_fin = (f->track_flags & SENT_FIN) != 0, reverse_fin = (f->track_flags & SENT_FIN << 1) != 0;
  int forward_done = forward_fin && minus(f->window[1].acknowledged, f->window[0].end) >= 0;
  int reverse_done = reverse_fin && minus(f->window[0].acknowledged, f->window[1].end) >= 0;
  if (forward_fin && reverse_fin) f->track = forward_done && reverse_done ? TIME_WAIT : LAST_ACK;
  else if (forward_fin || reverse_fin) f->track = forward_done || reverse_done ? CLOSE_WAIT : FIN_WAIT;
  else if (open) f->track = ESTABLISHED;
}

static int pick_up(struct flow *f, int direction, uint32_t flags, uint32_t sequence, uint32_t acknowledgement, uint32_t length) {
  restart(f, MID_STREAM);
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  f->scales = 0;
  f->track_flags |= LIBERAL | SENT_ACK << direction | ((flags & FIN) != 0 ? SENT_FIN << direction : 0);
  sender->end = sequence + length + (flags & FIN);
  sender->acknowledged = receiver->end = acknowledgement;
  receiver->acknowledged = sequence;
  sender->window = receiver->window = LIBERAL_WINDOW;
  settle(f);
  return VALID;
}

static int track_syn(struct flow *f, int direction, uint32_t sequence, uint32_t window, uint32_t length, int scale) {
  int sent = (f->track_flags & SENT_SYN << direction) != 0;
  if (f->track == NONE || f->track == SYN_SENT || f->track == SIMULTANEOUS) {
    if (f->track == NONE) restart(f, SYN_SENT);
    else if (!sent) f->track = SIMULTANEOUS;
    take_syn(f, direction, sequence, window, length, scale);
    return VALID;
  }
  if (f->track == SYN_RECEIVED && is_answered(f, direction, sequence)) {
    take_syn(f, direction, sequence, window, length, scale);
    return VALID;
  }
  f->track_flags = (uint16_t)((f->track_flags & ~(SYN_PASSED << (1 - direction))) | SYN_PASSED << direction);
  return CHALLENGE;
}

static int track_syn_ack(struct flow *f, int direction, uint32_t sequence, uint32_t acknowledgement, uint32_t window, uint32_t length,
    int scale) {
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  int other = 1 - direction, syn_passed = (f->track_flags & SYN_PASSED << other) != 0;
  int sent_syn = (f->track_flags & SENT_SYN << direction) != 0;
  if (f->track == SYN_SENT || f->track == SIMULTANEOUS || f->track == SYN_RECEIVED || f->track == NONE ||
      (f->track == CLOSED && !sent_syn)) {
    int alone = (f->track_flags & SENT_SYN << other) == 0 && (f->track_flags & SENT_ACK << direction) == 0;
    if (!alone) {
      if (minus(acknowledgement, sender->acknowledged) >= 0 && minus(acknowledgement, receiver->end) <= 0) {
        take_syn(f, direction, sequence, window, length, scale);
        sender->acknowledged = acknowledgement;
        f->track_flags |= SENT_ACK << direction;
        f->track = SYN_RECEIVED;
        settle(f);
        return VALID;
      }
      if (!syn_passed) {
        /* Of two answers, with and without the data of the SYN, the older one came later. */
        int older = receiver->acknowledged == sequence + 1 && (f->track_flags & SENT_ACK << direction) != 0 &&
          is_between(minus(sender->acknowledged, acknowledgement), 0, WINDOW_MAX);
        return older ? OLD_DUPLICATE : UNACCEPTABLE_ACK;
      }
    }
  } else if (is_between(minus(sender->end, sequence + 1 + length), 0, slack_of(receiver)) &&
             is_between(minus(receiver->end, acknowledgement), 0, slack_of(sender))) {
    return OLD_DUPLICATE;
  } else if (!syn_passed) {
    return CHALLENGE;
  }
  restart(f, SYN_RECEIVED);
  take_syn(f, direction, sequence, window, length, scale);
  f->track_flags |= SENT_ACK << direction;
  sender->acknowledged = acknowledgement;
  receiver->end = acknowledgement;
  if (receiver->window < WINDOW_MAX) receiver->window = WINDOW_MAX;
  if (scale >= 0) f->scales = (uint8_t)((f->scales & ~(15 << (other << 2))) | 14 << (other << 2));
  return VALID;
}

static int track_segment(struct flow *f, int direction, uint32_t flags, uint32_t sequence, uint32_t acknowledgement, uint32_t window,
    uint32_t length) {
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  uint32_t end = sequence + length + (flags & FIN);
  int handshake = f->track == SYN_RECEIVED || f->track == SIMULTANEOUS, outcome = VALID;
  int32_t fresh = minus(acknowledgement, sender->acknowledged);
  int32_t slack = slack_of(sender);
  if (minus(sequence, receiver->acknowledged + receiver->window) > 0) outcome = OUT_OF_WINDOW;
  else if ((int32_t)(end - sender->end + receiver->window) < 0) return OLD_DUPLICATE;
  else if (minus(acknowledgement, receiver->end) > 0 || (handshake && fresh < 0)) outcome = UNACCEPTABLE_ACK;
  else if (fresh < -slack) return OLD_DUPLICATE;
  if (outcome != VALID) {
    int liberal = (f->track_flags & LIBERAL) != 0;
    if (liberal && (handshake || outcome == OUT_OF_WINDOW)) return pick_up(f, direction, flags, sequence, acknowledgement, length);
    if (!liberal) {
      if (handshake) return outcome;
      /* Invalid segments are let through: what they show is followed, and after 16 of them the connection is picked up anew. */
      if ((f->track_flags & SURPRISES) == SURPRISES) {
        pick_up(f, direction, flags, sequence, acknowledgement, length);
        return outcome;
      }
      f->track_flags += SURPRISE;
      if (outcome == OUT_OF_WINDOW) return outcome;
    }
    receiver->end = acknowledgement;
    if (liberal) outcome = VALID;
  }
  if (minus(end, sender->end) > 0) {
    if ((f->track_flags & SENT_FIN << direction) != 0) return AFTER_CLOSE;
    sender->end = end;
  }
  if (minus(acknowledgement, sender->acknowledged) > 0) sender->acknowledged = acknowledgement;
  uint32_t scaled = window << shift_of(f->scales, direction);
  if (scaled > sender->window) sender->window = scaled;
  if ((flags & FIN) != 0 && end == sender->end) f->track_flags |= SENT_FIN << direction;
  f->track_flags |= SENT_ACK << direction;
  settle(f);
  return outcome;
}

static int track_reset(struct flow *f, int direction, uint32_t flags, uint32_t sequence, uint32_t acknowledgement) {
  struct window *sender = &f->window[direction], *receiver = &f->window[1 - direction];
  if (f->track == NONE) restart(f, CLOSED);
  else if (f->track == CLOSED || f->track == TIME_WAIT) return VALID;
  else if (f->track == SYN_SENT) {
    if ((f->track_flags & SENT_SYN << direction) != 0) {
      if (sequence != sender->end) return CHALLENGE;
    } else if ((flags & ACK) == 0 || minus(acknowledgement, sender->acknowledged) < 0 || minus(acknowledgement, receiver->end) > 0) {
      return INVALID_RESET;
    }
  } else {
    int32_t ahead = minus(sequence, receiver->acknowledged);
    if (ahead < 0 || ahead > (int32_t)receiver->window) return INVALID_RESET;
    if (ahead != 0 && sequence != sender->end) return CHALLENGE;
  }
  f->track = CLOSED;
  return VALID;
}

/* The shift of a SYN's window scale option, or -1. */
static int window_scale(const struct descriptor *d) {
  const uint8_t *end = d->frame + d->payload, *at = end;
  for (at = d->frame + d->transport + 20; at < end && *at != 0;) {
    if (*at == 1) {
      at++;
      continue;
    }
    if (end - at < 2 || at[1] < 2 || end - at < at[1]) return -1;
    if (*at == 3 && at[1] == 3) return at[2];
    at += at[1];
  }
  return -1;
}

/* Any segment. Returns its outcome; those from BAD_FLAGS on are invalid. */
static int track(struct flow *f, int direction, const struct descriptor *d) {
  uint32_t flags = d->tcp_flags, length = d->payload_length;
  switch (flags & (FIN | SYN | RST)) {
    case 0: case FIN:
      if ((flags & ACK) == 0) return BAD_FLAGS;
      break;
    case SYN:
      return (flags & ACK) == 0 ? track_syn(f, direction, d->sequence, d->window, length, window_scale(d))
        : track_syn_ack(f, direction, d->sequence, d->acknowledgement, d->window, length, window_scale(d));
    case RST: return track_reset(f, direction, flags, d->sequence, d->acknowledgement);
    default: return BAD_FLAGS;
  }
  switch (f->track) {
    case NONE: return pick_up(f, direction, flags, d->sequence, d->acknowledgement, length);
    case SYN_SENT:
      if ((f->track_flags & SENT_SYN << direction) == 0 && length == 0 && (flags & FIN) == 0) return CHALLENGE;
      return pick_up(f, direction, flags, d->sequence, d->acknowledgement, length);
    case CLOSED: return length > 0 ? AFTER_CLOSE : VALID;
    default: return track_segment(f, direction, flags, d->sequence, d->acknowledgement, d->window, length);
  }
}

/* The index of the rule that matches a packet from endpoint b (or a) of the flow, or the number of rules. */
static uint32_t match_rule(const struct twin *t, const struct flow *f, int from_b) {
  uint32_t low = f->ports >> 16, high = f->ports & 0xffff;
  uint32_t source = from_b ? f->b : f->a, destination = from_b ? f->a : f->b, protocol = f->protocol & 255;
  uint32_t source_port = from_b ? high : low, destination_port = from_b ? low : high;
  for (uint32_t i = 0; i < t->rule_count; i++) {
    const struct rule *r = t->rules + i;
    if ((((source ^ r->source) & r->source_mask) | ((destination ^ r->destination) & r->destination_mask)) == 0 &&
        (r->protocol == 256 || r->protocol == protocol) && source_port >= r->source_low && source_port <= r->source_high &&
        destination_port >= r->destination_low && destination_port <= r->destination_high) return i;
  }
  return t->rule_count;
}

static int is_accepted(const struct twin *t, uint32_t rule) { return rule == t->rule_count || t->rules[rule].action == 0; }

/* Decides about a flow. */
RARE static void judge(struct twin *t, struct flow *f, int from_b, double now) {
  f->rule = (uint16_t)match_rule(t, f, from_b);
  f->verdict = is_accepted(t, f->rule) ? ACCEPTED : DENIED;
  if (f->verdict == ACCEPTED) {
    t->accepted_flows++;
    return;
  }
  t->denied_flows++;
  struct record *r = begin_record(t, f, DENIED_EVENT, (int)(from_b ^ f->opener), now, 0);
  if (r == 0) return;
  r->length[0] = f->rule;
  commit_record(t, r, (uint8_t *)(r + 1));
}

/* A TCP segment that is not simply the next one of an established connection; 0: drop. Invalid ones are only counted. */
static __attribute__((noinline)) int follow(struct twin *t, const struct descriptor *d, struct flow *f, int direction, double now) {
  uint8_t before = f->track;
  if ((d->tcp_flags & (FIN | SYN | RST | ACK)) == SYN && direction != ((f->track_flags & OPENED_BY_REVERSE) != 0) &&
      before != SYN_SENT && before != SIMULTANEOUS) {
    /* The other side opens: the rules decide about that one anew. */
    uint32_t rule = match_rule(t, f, d->from_b);
    if (!is_accepted(t, rule)) return 0;
    if (before == NONE) {
      f->track_flags ^= OPENED_BY_REVERSE;
      f->rule = (uint16_t)rule;
    }
  }
  int outcome = track(f, direction, d);
  if (f->track != before) t->track_changes[f->track]++;
  if (outcome == VALID) return 1;
  t->track_outcomes[outcome]++;
  if (outcome >= BAD_FLAGS && (f->track_flags & REPORTED) == 0) {
    f->track_flags |= REPORTED;
    struct record *r = begin_record(t, f, INVALID_EVENT, direction, now, 0);
    if (r == 0) return 1;
    r->length[0] = (uint16_t)outcome;
    r->length[1] = f->track;
    commit_record(t, r, (uint8_t *)(r + 1));
  }
  return 1;
}

/* 0: drop. */
INLINE int firewall(struct twin *t, const struct descriptor *d, struct flow *f, int direction, double now) {
  if (unlikely(f->verdict != ACCEPTED)) {
    if (f->verdict == 0) judge(t, f, d->from_b, now);
    if (f->verdict == DENIED) return 0;
  }
  if (unlikely((d->protocol & 255) != 6)) return 1;
  if (likely(f->track == ESTABLISHED && (d->tcp_flags & (FIN | SYN | RST | ACK)) == ACK &&
             track_established(f, direction, d->sequence, d->acknowledgement, d->window, d->payload_length))) return 1;
  return follow(t, d, f, direction, now);
}

INLINE uint32_t is_established(const struct flow *f) { return f->track == ESTABLISHED; }
