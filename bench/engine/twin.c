/*
 * The engine's twin in C: the same work as the chain monitor-firewall-http in src/, on the same frames in the same memory, written
 * as one would write it in C for speed. It is the baseline of `nfactor bench engine`, loaded into the bench's own process.
 *
 * The same work: descriptors and an output list per batch of 32, checked headers, canonical key and keyed hash, a table of 8-byte
 * slots at load <= 1/2, flow records, life of connections (lingering, reopening), a timing wheel, counters, rules once per flow,
 * connection tracking per segment, both streams of each connection in order, message heads, body counting, records, and the last
 * message of each flow. What the trace never has (IPv6, later fragments, quoted packets in ICMP errors) is counted and dropped.
 *
 * Two modes. Packet by packet; and in stages over a batch, so that cache misses overlap, with prefetches:
 *
 *     frames ─▶ parse, hash, prefetch slots ─▶ find, prefetch records ─▶ prefetch what heads need ─▶ one packet after the other
 *
 * A record is laid out by what a packet needs:
 *
 *     line 0, 1   every packet: key, life, counters, windows, next sequence numbers, where each side is in its messages
 *     line 2      packets with HTTP bytes
 *     line 3      first and last packet of a flow
 *
 * Each function `run_...` is one chain and mode, with all tests for what is not in the chain gone at compile time.
 */

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include "twin-http-head.h"

#define INLINE static inline __attribute__((always_inline))
#define RARE __attribute__((noinline, cold))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { BATCH = 32, CHUNK = 4096, LINE = 64 };
enum { MONITOR = 1, FIREWALL = 2, HTTP = 4 };
enum { FREE, ACTIVE, LINGERING };
enum { FIN_A = 1, FIN_B = 2, RESET = 4, SYN_SEEN = 8, ANSWERED = 16 };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { FLOW, PASS, DROP };
enum { START, IN_HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, TRAILER, UNTIL_CLOSE, TUNNEL, LOST, OTHER };
/* Flags of a side. */
enum { SYNCHRONISED = 1, HAS_PENDING = 2, CHUNK_DIGITS = 4, CHUNK_EXTENSION = 8, EMPTY_LINE = 16, FINISHED = 32 };
enum { PLAIN, TO_HEAD, TO_CONNECT };
enum { OUTSTANDING_MAX = 14, PIECES_MAX = 16, PENDING_MAX = 32 };
enum { ACCEPTED = 1, DENIED = 2 };
enum { REQUEST_EVENT, RESPONSE_EVENT, DENIED_EVENT, INVALID_EVENT };

/* Idle timeouts, milliseconds. */
enum { T_TCP_OPENING = 240000, T_TCP = 7440000, T_TCP_CLOSED = 120000, T_UDP = 300000, T_ICMP = 60000, T_OTHER = 300000 };

struct window { uint32_t end, acknowledged, window; };

struct flow {
  /* line 0 */
  uint32_t a, b, ports, tag, protocol;
  uint8_t phase, flags, opener, life;
  double last_seen;
  uint64_t packets, bytes;
  uint16_t length_min, length_max;
  uint8_t tcp_flags[2];
  uint8_t verdict, track;
  uint32_t next[2];
  /* line 1 */
  uint64_t direction_packets[2], direction_bytes[2];
  struct window window[2];
  uint16_t track_flags;
  uint8_t scales, unused;
  uint8_t side_phase[2], side_flags[2];
  /* line 2 */
  uint64_t remaining[2];
  uint32_t requests, responses;
  uint32_t pending[2], pieces[2];
  uint32_t last;
  /* Requests that wait for a response: their number, and above it two bits each, the oldest lowest. */
  uint32_t outstanding;
  uint16_t status, rule;
  uint8_t room[12];
  /* line 3 */
  double first_seen;
  uint64_t id;
  uint32_t hash, idle_timeout;
  uint32_t wheel_next, wheel_previous, wheel_deadline;
  uint8_t more_room[28];
};
_Static_assert(sizeof(struct flow) == 256, "a record has four lines");
_Static_assert(offsetof(struct flow, direction_packets) == 64 && offsetof(struct flow, remaining) == 128 &&
  offsetof(struct flow, first_seen) == 192, "lines begin where they should");

/* The last message's texts, one behind the other. */
struct last { uint16_t host_length, uri_length; uint8_t method_length, text[24 + 128 + 256 + 31 + 4]; };
/* Bytes of a stream that came too early, or a part of a head. */
struct block { uint32_t next, sequence, length, unused; uint8_t data[2032]; };

struct descriptor {
  const uint8_t *frame;
  struct flow *flow;
  uint32_t length, a, b, ports, tag, protocol, hash, sequence, acknowledgement;
  uint16_t payload, payload_length, transport, window;
  uint8_t tcp_flags, from_b, result, unused;
};

/* A record: text follows, padded to 8. */
struct record { uint32_t bytes, event; double time; uint32_t a, b, ports, tag, protocol, from_b; uint16_t length[4]; };

struct rule { uint32_t source_mask, source, destination_mask, destination, protocol, source_low, source_high, destination_low,
  destination_high, action; };

struct slab { uint8_t *base; size_t size; uint32_t count, high, free, used; };

struct twin {
  /* Slots of the table: hash and index of a record. */
  uint32_t (*slots)[2];
  uint32_t shift, mask, flows, flows_max;
  struct flow *flow;
  struct slab records, lasts, blocks;
  uint32_t wheel[4][256], wheel_current;
  uint64_t wheel_bits[4][4];
  double epoch;
  int started, chain, staged;
  struct rule *rules;
  uint32_t rule_count;
  uint64_t seed[2];
  uint64_t received, forwarded, dropped, bytes_received, bytes_forwarded, flows_created, flows_ended;
  uint64_t monitor_packets, monitor_bytes;
  uint64_t accepted_flows, denied_flows, track_changes[11], track_outcomes[9];
  uint64_t http_requests, http_responses, bad_messages, gaps, oversized, no_room, upgrades;
  uint64_t drop_counts[32];
  int segment_start;
  uint32_t output_count;
  uint8_t *record_base, *record_at, *record_end;
  uint32_t output_digest, record_digest;
  struct descriptor batch[BATCH] __attribute__((aligned(64)));
  struct descriptor *output[BATCH];
  const uint8_t *sent[CHUNK];
  uint8_t scratch[PIECES_MAX * 2032 + 64];
};

enum { D_LINK, D_IPV4, D_IPV6, D_TCP, D_UDP, D_ICMP, D_FRAGMENT, D_FULL, D_DENIED };

INLINE uint16_t big16(const uint8_t *at) { uint16_t x; memcpy(&x, at, 2); return __builtin_bswap16(x); }
INLINE uint32_t big32(const uint8_t *at) { return __builtin_bswap32(load32(at)); }

/* -- Memory ------------------------------------------------------------------------------------------------------------ */

static void *reserve(size_t bytes, int huge) {
  const size_t page = 2u << 20;
  bytes = (bytes + 2 * page - 1) & ~(page - 1);
  uint8_t *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return 0;
  if (huge) madvise(at, bytes, MADV_HUGEPAGE);
  return (uint8_t *)(((uintptr_t)at + page - 1) & ~(page - 1));
}

static int slab_make(struct slab *s, size_t size, size_t count, int huge) {
  s->base = reserve(size * (count + 1), huge);
  s->size = size;
  s->count = (uint32_t)count;
  s->high = s->free = s->used = 0;
  return s->base != 0;
}

/* An index from 1 on; 0: none left. */
INLINE uint32_t slab_take(struct slab *s) {
  uint32_t index = s->free;
  if (index != 0) memcpy(&s->free, s->base + index * s->size, 4);
  else if (s->high == s->count) return 0;
  else index = ++s->high;
  s->used++;
  return index;
}

INLINE void slab_give(struct slab *s, uint32_t index) {
  memcpy(s->base + index * s->size, &s->free, 4);
  s->free = index;
  s->used--;
}

INLINE void *slab_at(struct slab *s, uint32_t index) { return s->base + index * s->size; }

static void give_chain(struct twin *t, uint32_t *head) {
  while (*head != 0) {
    uint32_t index = *head;
    *head = ((struct block *)slab_at(&t->blocks, index))->next;
    slab_give(&t->blocks, index);
  }
}

/* -- Flow table -------------------------------------------------------------------------------------------------------- */

INLINE uint32_t hash_key(const struct twin *t, uint32_t a, uint32_t b, uint32_t ports, uint32_t tag, uint32_t protocol) {
  __uint128_t x = (__uint128_t)(((uint64_t)a << 32 | b) ^ t->seed[0]) * ((((uint64_t)ports << 32) | (tag ^ protocol * 0x01000193u)) ^ t->seed[1]);
  uint64_t y = (uint64_t)x ^ (uint64_t)(x >> 64);
  y = (y ^ y >> 32) * 0x9e3779b97f4a7c15ull;
  return (uint32_t)(y >> 32);
}

INLINE int same_key(const struct descriptor *d, const struct flow *f) {
  return ((f->a ^ d->a) | (f->b ^ d->b) | (f->ports ^ d->ports) | (f->tag ^ d->tag) | (f->protocol ^ d->protocol)) == 0;
}

/* The record whose entry has this hash, most likely. */
INLINE struct flow *guess(const struct twin *t, uint32_t hash) {
  for (uint32_t slot = hash >> t->shift;; slot = (slot + 1) & t->mask) {
    uint32_t index = t->slots[slot][1];
    if (index == 0) return 0;
    if (t->slots[slot][0] == hash) return t->flow + index;
  }
}

static struct flow *find(const struct twin *t, const struct descriptor *d) {
  for (uint32_t slot = d->hash >> t->shift;; slot = (slot + 1) & t->mask) {
    uint32_t index = t->slots[slot][1];
    if (index == 0) return 0;
    if (t->slots[slot][0] == d->hash && same_key(d, t->flow + index)) return t->flow + index;
  }
}

static void table_insert(struct twin *t, uint32_t hash, uint32_t index) {
  uint32_t slot = hash >> t->shift;
  while (t->slots[slot][1] != 0) slot = (slot + 1) & t->mask;
  t->slots[slot][0] = hash;
  t->slots[slot][1] = index;
  t->flows++;
}

static void table_remove(struct twin *t, uint32_t hash, uint32_t index) {
  uint32_t hole = hash >> t->shift;
  while (t->slots[hole][1] != index) hole = (hole + 1) & t->mask;
  for (uint32_t slot = (hole + 1) & t->mask; t->slots[slot][1] != 0; slot = (slot + 1) & t->mask) {
    uint32_t home = t->slots[slot][0] >> t->shift;
    if (((slot - home) & t->mask) >= ((slot - hole) & t->mask)) {
      memcpy(t->slots[hole], t->slots[slot], 8);
      hole = slot;
    }
  }
  memset(t->slots[hole], 0, 8);
  t->flows--;
}

/* -- Timing wheel ------------------------------------------------------------------------------------------------------ */

static void wheel_add(struct twin *t, uint32_t index, uint32_t deadline) {
  int32_t distance = (int32_t)(deadline - t->wheel_current);
  if (distance <= 0) {
    deadline = t->wheel_current + 1;
    distance = 1;
  }
  int level = distance >= 1 << 24 ? 3 : distance >= 1 << 16 ? 2 : distance >= 1 << 8 ? 1 : 0;
  uint32_t slot = deadline >> (level << 3) & 255;
  struct flow *f = t->flow + index;
  uint32_t first = t->wheel[level][slot];
  f->wheel_deadline = deadline;
  f->wheel_next = first;
  f->wheel_previous = 0x80000000u | (uint32_t)level << 8 | slot;
  if (first != 0) t->flow[first].wheel_previous = index;
  else t->wheel_bits[level][slot >> 6] |= (uint64_t)1 << (slot & 63);
  t->wheel[level][slot] = index;
}

static void wheel_remove(struct twin *t, uint32_t index) {
  struct flow *f = t->flow + index;
  uint32_t next = f->wheel_next, previous = f->wheel_previous;
  if (next != 0) t->flow[next].wheel_previous = previous;
  if ((previous & 0x80000000u) == 0) {
    t->flow[previous].wheel_next = next;
    return;
  }
  uint32_t level = previous >> 8 & 3, slot = previous & 255;
  t->wheel[level][slot] = next;
  if (next == 0) t->wheel_bits[level][slot >> 6] &= ~((uint64_t)1 << (slot & 63));
}

INLINE uint32_t tick_of(const struct twin *t, double time) { return (uint32_t)(int64_t)((time - t->epoch) / 1000 + 0.9999999); }

/* -- Flows ------------------------------------------------------------------------------------------------------------- */

RARE static struct flow *open_flow(struct twin *t, struct descriptor *d, double now) {
  uint32_t index = t->flows < t->flows_max ? slab_take(&t->records) : 0;
  if (index == 0) {
    t->drop_counts[D_FULL]++;
    t->dropped++;
    return 0;
  }
  struct flow *f = t->flow + index;
  memset(f, 0, sizeof *f);
  f->a = d->a;
  f->b = d->b;
  f->ports = d->ports;
  f->tag = d->tag;
  f->protocol = d->protocol;
  if (!t->started) {
    t->started = 1;
    t->epoch = now;
    t->wheel_current = 0;
  }
  uint8_t protocol = d->protocol & 255;
  /* The first packet seen of a handshake may be its answer. */
  f->opener = d->from_b ^ (protocol == 6 && (d->tcp_flags & (SYN | ACK)) == (SYN | ACK));
  f->phase = ACTIVE;
  f->first_seen = f->last_seen = now;
  f->hash = d->hash;
  f->idle_timeout = protocol == 6 ? ((d->tcp_flags & (SYN | ACK)) == SYN ? T_TCP_OPENING : T_TCP)
    : protocol == 17 ? T_UDP : protocol == 1 ? T_ICMP : T_OTHER;
  f->id = ++t->flows_created;
  table_insert(t, d->hash, index);
  wheel_add(t, index, tick_of(t, now + f->idle_timeout * 1000.0));
  f->length_min = 65535;
  d->flow = f;
  return f;
}

RARE static void end_flow(struct twin *t, struct flow *f) {
  uint32_t index = (uint32_t)(f - t->flow);
  for (int side = 0; side < 2; side++) {
    give_chain(t, &f->pending[side]);
    give_chain(t, &f->pieces[side]);
  }
  if (f->last != 0) slab_give(&t->lasts, f->last);
  wheel_remove(t, index);
  table_remove(t, f->hash, index);
  f->phase = FREE;
  slab_give(&t->records, index);
  t->flows_ended++;
}

/* SYN, FIN and RST. Returns the flow: another one if a new connection begins on the same ports. */
RARE static struct flow *tcp_life(struct twin *t, struct descriptor *d, struct flow *f, double now) {
  uint8_t flags = d->tcp_flags;
  if (f->phase == LINGERING && (flags & (RST | SYN | ACK)) == SYN) {
    end_flow(t, f);
    f = open_flow(t, d, now);
    if (f == 0) return 0;
    f->packets = 1;
    f->bytes = d->length;
  }
  if ((flags & SYN) != 0) {
    f->life |= SYN_SEEN;
    if ((flags & ACK) != 0 && (f->life & ANSWERED) == 0) {
      f->life |= ANSWERED;
      f->idle_timeout = T_TCP;
    }
  }
  if ((flags & FIN) != 0) f->life |= d->from_b ? FIN_B : FIN_A;
  if ((flags & RST) != 0) f->life |= RESET;
  if (f->phase == ACTIVE && ((f->life & (FIN_A | FIN_B)) == (FIN_A | FIN_B) || (f->life & RESET) != 0)) {
    f->phase = LINGERING;
    f->idle_timeout = T_TCP_CLOSED;
    wheel_remove(t, (uint32_t)(f - t->flow));
    wheel_add(t, (uint32_t)(f - t->flow), tick_of(t, f->last_seen + f->idle_timeout * 1000.0));
  }
  return f;
}

/* -- Parser ------------------------------------------------------------------------------------------------------------ */

INLINE void set_key(const struct twin *t, struct descriptor *d, uint32_t source, uint32_t destination, uint32_t source_port,
    uint32_t destination_port, uint32_t tag, uint32_t protocol) {
  uint64_t x = (uint64_t)source << 16 | source_port, y = (uint64_t)destination << 16 | destination_port;
  int swap = x > y;
  uint64_t low = swap ? y : x, high = swap ? x : y;
  d->a = (uint32_t)(low >> 16);
  d->b = (uint32_t)(high >> 16);
  d->ports = (uint32_t)(low << 16) | (uint32_t)(high & 0xffff);
  d->tag = tag;
  d->protocol = protocol;
  d->from_b = (uint8_t)swap;
  d->hash = hash_key(t, d->a, d->b, d->ports, tag, protocol);
  d->result = FLOW;
}

INLINE void bad(struct twin *t, struct descriptor *d, int reason) {
  t->drop_counts[reason]++;
  d->result = DROP;
}

/* Everything but plain TCP over IPv4: VLAN tags, options, fragments, other protocols, damage. */
RARE static void parse_other(struct twin *t, struct descriptor *d) {
  const uint8_t *frame = d->frame, *end = frame + d->length, *at = frame + 14;
  d->hash = 0;
  d->tcp_flags = 0;
  d->payload_length = 0;
  if (d->length < 14) {
    bad(t, d, D_LINK);
    return;
  }
  uint32_t type = big16(frame + 12), vlan = 0;
  for (int tags = 0; type == 0x8100 || type == 0x88a8; tags++) {
    if (end - at < 4 || tags == 8) {
      bad(t, d, D_LINK);
      return;
    }
    if (tags < 2) vlan |= (uint32_t)(big16(at) & 0xfff) << (12 * tags);
    type = big16(at + 2);
    at += 4;
  }
  if (type != 0x0800) {
    if (type == 0x86dd) bad(t, d, D_IPV6);
    else d->result = PASS;
    return;
  }
  if (end - at < 20 || at[0] >> 4 != 4) {
    bad(t, d, D_IPV4);
    return;
  }
  uint32_t header = (at[0] & 15u) << 2, total = big16(at + 2);
  if (header < 20 || end - at < (ptrdiff_t)header || end - at < (ptrdiff_t)total || (total < header && total != 0)) {
    bad(t, d, D_IPV4);
    return;
  }
  if (total != 0) end = at + total;
  if ((big16(at + 6) & 0x1fff) != 0) {
    bad(t, d, D_FRAGMENT);
    return;
  }
  uint32_t protocol = at[9], source = big32(at + 12), destination = big32(at + 16), ports = 0;
  const uint8_t *transport = at + header, *payload = transport;
  if (protocol == 6) {
    if (end - transport < 20) {
      bad(t, d, D_TCP);
      return;
    }
    payload = transport + ((transport[12] >> 4) << 2);
    if (payload < transport + 20 || payload > end) {
      bad(t, d, D_TCP);
      return;
    }
    ports = big32(transport);
    d->transport = (uint16_t)(transport - frame);
    d->sequence = big32(transport + 4);
    d->acknowledgement = big32(transport + 8);
    d->tcp_flags = transport[13];
    d->window = big16(transport + 14);
  } else if (protocol == 17) {
    if (end - transport < 8) {
      bad(t, d, D_UDP);
      return;
    }
    uint32_t length = big16(transport + 4);
    if ((length < 8 && length != 0) || end - transport < (ptrdiff_t)length) {
      bad(t, d, D_UDP);
      return;
    }
    if (length != 0) end = transport + length;
    ports = big32(transport);
    payload = transport + 8;
  } else if (protocol == 1) {
    if (end - transport < 8) {
      bad(t, d, D_ICMP);
      return;
    }
    uint32_t type_of = transport[0], identifier = big16(transport + 4);
    if (type_of == 0 || type_of == 8 || (type_of >= 13 && type_of <= 18)) ports = identifier << 16 | identifier;
    payload = transport + 8;
  }
  d->payload = (uint16_t)(payload - frame);
  d->payload_length = (uint16_t)(end - payload);
  set_key(t, d, source, destination, ports >> 16, ports & 0xffff, vlan | 4u << 24, protocol);
}

INLINE void parse(struct twin *t, struct descriptor *d) {
  const uint8_t *ip = d->frame + 14;
  uint32_t length = d->length, total = big16(ip + 2), data = (ip[32] >> 4) << 2;
  uint16_t type, fragment;
  memcpy(&type, ip - 2, 2);
  memcpy(&fragment, ip + 6, 2);
  if (likely((length >= 54) & (type == 0x0008) & (ip[0] == 0x45) & (ip[9] == 6) & ((fragment & 0xff3f) == 0) & (total >= 20 + data) &
             (total + 14 <= length) & (data >= 20))) {
    d->transport = 34;
    d->payload = (uint16_t)(34 + data);
    d->payload_length = (uint16_t)(total - 20 - data);
    d->sequence = big32(ip + 24);
    d->acknowledgement = big32(ip + 28);
    d->tcp_flags = ip[33];
    d->window = big16(ip + 34);
    set_key(t, d, big32(ip + 12), big32(ip + 16), big16(ip + 20), big16(ip + 22), 4u << 24, 6);
  } else {
    parse_other(t, d);
  }
}

/* -- Records ----------------------------------------------------------------------------------------------------------- */

/* Up to 31 bytes beyond the end are written, and read. */
INLINE uint8_t *copy_text(uint8_t *to, const uint8_t *from, size_t length) {
  if (likely(length <= 32)) memcpy(to, from, 32);
  else memcpy(to, from, length);
  return to + length;
}

INLINE struct record *begin_record(struct twin *t, const struct flow *f, int event, int direction, double now, size_t texts) {
  struct record *r = (struct record *)t->record_at;
  if (unlikely(t->record_at + sizeof *r + texts + 64 > t->record_end)) return 0;
  r->event = (uint32_t)event;
  r->time = now;
  r->a = f->a;
  r->b = f->b;
  r->ports = f->ports;
  r->tag = f->tag;
  r->protocol = f->protocol;
  r->from_b = (uint32_t)(direction ^ f->opener);
  return r;
}

INLINE void commit_record(struct twin *t, struct record *r, const uint8_t *end) {
  r->bytes = (uint32_t)(end - (uint8_t *)r);
  t->record_at = (uint8_t *)(((uintptr_t)end + 7) & ~(uintptr_t)7);
}

INLINE uint32_t write_version(uint8_t *to, int major, int minor) {
  if (major == 0) return 0;
  memcpy(to, "HTTP/1.1", 8);
  to[5] = (uint8_t)('0' + major);
  to[7] = (uint8_t)('0' + minor);
  return 8;
}

/* -- HTTP -------------------------------------------------------------------------------------------------------------- */

static void deliver(struct twin *t, struct flow *f, int direction, const uint8_t *at, const uint8_t *end, double now);

static void set_body(struct flow *f, int direction, int64_t length) {
  f->remaining[direction] = (uint64_t)length;
  f->side_phase[direction] = length > 0 ? BODY : IN_HEAD;
}

static void lose(struct flow *f, int direction) {
  uint8_t phase = f->side_phase[direction];
  if (phase == UNTIL_CLOSE || phase == TUNNEL || phase == OTHER) return;
  f->side_phase[direction] = LOST;
  f->outstanding = 0;
}

static void tunnel(struct twin *t, struct flow *f) {
  for (int side = 0; side < 2; side++) {
    f->side_phase[side] = TUNNEL;
    f->side_flags[side] &= ~HAS_PENDING;
    give_chain(t, &f->pending[side]);
    give_chain(t, &f->pieces[side]);
  }
}

static void not_message(struct twin *t, struct flow *f, int direction) {
  if (f->side_phase[direction] == START && (f->side_flags[direction] & SYNCHRONISED) != 0) {
    f->side_phase[direction] = OTHER;
    return;
  }
  t->bad_messages++;
  lose(f, direction);
}

INLINE size_t at_most(int32_t length, size_t limit) { return (size_t)length < limit ? (size_t)length : limit; }

static void request(struct twin *t, struct flow *f, int direction, const struct head *h, double now) {
  if (h->method_id == METHOD_PRI) {
    tunnel(t, f);
    return;
  }
  f->requests++;
  t->http_requests++;
  uint32_t waiting = f->outstanding & 15, kind = h->method_id == METHOD_HEAD ? TO_HEAD : h->method_id == METHOD_CONNECT ? TO_CONNECT : PLAIN;
  if (waiting < OUTSTANDING_MAX) f->outstanding = (f->outstanding + 1) | kind << (4 + 2 * waiting);
  size_t host = at_most(h->host_length, 1024), uri = at_most(h->uri_length, 16384), method = (size_t)h->method_length;
  struct record *r = begin_record(t, f, REQUEST_EVENT, direction, now, host + uri + method + 8);
  if (likely(r != 0)) {
    uint8_t *to = (uint8_t *)(r + 1);
    to = copy_text(to, h->method, method);
    to = copy_text(to, h->host, host);
    to = copy_text(to, h->uri, uri);
    uint32_t version = write_version(to, h->major, h->minor);
    r->length[0] = (uint16_t)method;
    r->length[1] = (uint16_t)host;
    r->length[2] = (uint16_t)uri;
    r->length[3] = (uint16_t)version;
    commit_record(t, r, to + version);
  }
  if (f->last == 0) f->last = slab_take(&t->lasts);
  if (unlikely(f->last == 0)) t->no_room++;
  else {
    struct last *last = slab_at(&t->lasts, f->last);
    last->method_length = (uint8_t)at_most(h->method_length, 24);
    last->host_length = (uint16_t)at_most(h->host_length, 128);
    last->uri_length = (uint16_t)at_most(h->uri_length, 256);
    uint8_t *to = copy_text(last->text, h->method, last->method_length);
    to = copy_text(to, h->host, last->host_length);
    copy_text(to, h->uri, last->uri_length);
  }
  if ((h->attributes & CHUNKED) != 0) {
    f->remaining[direction] = 0;
    f->side_phase[direction] = CHUNK_SIZE;
  } else {
    set_body(f, direction, h->content_length > 0 && (h->attributes & HAS_TRANSFER_ENCODING) == 0 ? h->content_length : 0);
  }
}

static void response(struct twin *t, struct flow *f, int direction, const struct head *h, double now) {
  int status = h->status, kind = PLAIN;
  f->responses++;
  t->http_responses++;
  int interim = status >= 100 && status < 200 && status != 101;
  if (!interim && (f->outstanding & 15) > 0) {
    kind = (int)(f->outstanding >> 4 & 3);
    f->outstanding = (f->outstanding >> 6) << 4 | ((f->outstanding & 15) - 1);
  }
  struct record *r = begin_record(t, f, RESPONSE_EVENT, direction, now, 8);
  if (likely(r != 0)) {
    uint32_t version = write_version((uint8_t *)(r + 1), h->major, h->minor);
    r->length[0] = (uint16_t)status;
    r->length[1] = (uint16_t)version;
    commit_record(t, r, (uint8_t *)(r + 1) + version);
  }
  f->status = (uint16_t)status;
  if (status == 101 || (kind == TO_CONNECT && status >= 200 && status < 300)) {
    t->upgrades++;
    tunnel(t, f);
  } else if (interim || status == 204 || status == 304 || kind == TO_HEAD) {
    set_body(f, direction, 0);
  } else if ((h->attributes & CHUNKED) != 0) {
    f->remaining[direction] = 0;
    f->side_phase[direction] = CHUNK_SIZE;
  } else if ((h->attributes & HAS_TRANSFER_ENCODING) != 0 || h->content_length < 0) {
    f->side_phase[direction] = UNTIL_CLOSE;
  } else {
    set_body(f, direction, h->content_length);
  }
}

INLINE void message(struct twin *t, struct flow *f, int direction, const struct head *h, double now) {
  if (h->kind == KIND_REQUEST) request(t, f, direction, h, now);
  else response(t, f, direction, h, now);
}

/* Adds bytes to a chain of blocks; 0 when there is no room. */
RARE static int append(struct twin *t, uint32_t *head, const uint8_t *at, size_t length, int blocks_max) {
  uint32_t *link = head;
  struct block *last = 0;
  int blocks = 0;
  for (; *link != 0; link = &last->next, blocks++) last = slab_at(&t->blocks, *link);
  while (length > 0) {
    if (last == 0 || last->length == sizeof last->data) {
      uint32_t index = blocks++ < blocks_max ? slab_take(&t->blocks) : 0;
      if (index == 0) return 0;
      *link = index;
      last = slab_at(&t->blocks, index);
      last->next = 0;
      last->length = 0;
      link = &last->next;
    }
    size_t part = sizeof last->data - last->length;
    if (part > length) part = length;
    memcpy(last->data + last->length, at, part);
    last->length += (uint32_t)part;
    at += part;
    length -= part;
  }
  return 1;
}

/* A head that comes in pieces. Returns where to go on. */
RARE static const uint8_t *head_in_pieces(struct twin *t, struct flow *f, int direction, const uint8_t *at, const uint8_t *end,
    double now) {
  size_t known = 0;
  for (uint32_t index = f->pieces[direction]; index != 0;) {
    struct block *b = slab_at(&t->blocks, index);
    memcpy(t->scratch + known, b->data, b->length);
    known += b->length;
    index = b->next;
  }
  size_t more = (size_t)(end - at);
  if (known + more > PIECES_MAX * 2032) more = PIECES_MAX * 2032 - known;
  memcpy(t->scratch + known, at, more);
  struct head h;
  int result = parse_head(&h, t->scratch, t->scratch + known + more);
  if (result == HEAD_INCOMPLETE && append(t, &f->pieces[direction], at, (size_t)(end - at), PIECES_MAX)) return end;
  give_chain(t, &f->pieces[direction]);
  if (result == HEAD_COMPLETE) {
    at += h.end - (t->scratch + known);
    message(t, f, direction, &h, now);
    return at;
  }
  if (result == HEAD_INVALID) not_message(t, f, direction);
  else {
    t->oversized++;
    lose(f, direction);
  }
  return end;
}

static const uint8_t *message_head(struct twin *t, struct flow *f, int direction, const uint8_t *at, const uint8_t *end,
    double now) {
  if (unlikely(f->pieces[direction] != 0)) return head_in_pieces(t, f, direction, at, end, now);
  struct head h;
  int result = parse_head(&h, at, end);
  if (likely(result == HEAD_COMPLETE)) {
    message(t, f, direction, &h, now);
    return h.end;
  }
  if (result == HEAD_INVALID) {
    not_message(t, f, direction);
    return end;
  }
  if (!append(t, &f->pieces[direction], at, (size_t)(end - at), PIECES_MAX)) {
    t->no_room++;
    give_chain(t, &f->pieces[direction]);
    lose(f, direction);
  }
  return end;
}

/* A chunk's size line, after the line end that closes the chunk before; byte by byte. */
RARE static const uint8_t *chunk_size(struct twin *t, struct flow *f, int direction, const uint8_t *at, const uint8_t *end) {
  uint8_t *flags = &f->side_flags[direction];
  while (at < end) {
    uint8_t c = *at++;
    if (c == '\n') {
      if ((*flags & CHUNK_DIGITS) == 0) continue;
      *flags &= ~(CHUNK_DIGITS | CHUNK_EXTENSION);
      f->side_phase[direction] = f->remaining[direction] > 0 ? CHUNK_DATA : TRAILER;
      *flags |= EMPTY_LINE;
      return at;
    }
    if (c == '\r' || (*flags & CHUNK_EXTENSION) != 0) continue;
    int digit = is_digit(c) ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
    if (digit >= 0 && f->remaining[direction] >> 49 == 0) {
      f->remaining[direction] = f->remaining[direction] << 4 | (uint64_t)digit;
      *flags |= CHUNK_DIGITS;
    } else if (digit < 0 && (*flags & CHUNK_DIGITS) != 0) {
      *flags |= CHUNK_EXTENSION;
    } else {
      t->bad_messages++;
      lose(f, direction);
      return end;
    }
  }
  return end;
}

RARE static const uint8_t *trailer(struct flow *f, int direction, const uint8_t *at, const uint8_t *end) {
  uint8_t *flags = &f->side_flags[direction];
  while (at < end) {
    uint8_t c = *at++;
    if (c == '\n') {
      if ((*flags & EMPTY_LINE) != 0) {
        f->side_phase[direction] = IN_HEAD;
        return at;
      }
      *flags |= EMPTY_LINE;
    } else if (c != '\r') *flags &= ~EMPTY_LINE;
  }
  return end;
}

static void consume(struct flow *f, int direction, uint64_t bytes) {
  f->remaining[direction] -= bytes;
  if (f->remaining[direction] == 0) f->side_phase[direction] = f->side_phase[direction] == BODY ? IN_HEAD : CHUNK_SIZE;
}

/* Bytes of a stream in order. */
static void deliver(struct twin *t, struct flow *f, int direction, const uint8_t *at, const uint8_t *end, double now) {
  while (at < end) {
    switch (f->side_phase[direction]) {
      case BODY: case CHUNK_DATA: {
        uint64_t part = (uint64_t)(end - at);
        if (part > f->remaining[direction]) part = f->remaining[direction];
        consume(f, direction, part);
        at += part;
        break;
      }
      case UNTIL_CLOSE: case TUNNEL: case OTHER: return;
      case CHUNK_SIZE: at = chunk_size(t, f, direction, at, end); break;
      case TRAILER: at = trailer(f, direction, at, end); break;
      case LOST:
        if (!t->segment_start || detect_head(at, end) == HEAD_INVALID) return;
        f->side_phase[direction] = IN_HEAD;
        /* fall through */
      default: at = message_head(t, f, direction, at, end, now);
    }
    t->segment_start = 0;
  }
}

static uint64_t skippable(const struct flow *f, int direction) {
  switch (f->side_phase[direction]) {
    case BODY: case CHUNK_DATA: return f->remaining[direction];
    case UNTIL_CLOSE: case TUNNEL: case OTHER: return 0x7fffffff;
    default: return 0;
  }
}

/* `bytes` bytes will not be seen. */
static void pass_over(struct twin *t, struct flow *f, int direction, uint32_t bytes) {
  uint8_t phase = f->side_phase[direction];
  if (bytes <= skippable(f, direction)) {
    if (phase == BODY || phase == CHUNK_DATA) consume(f, direction, bytes);
  } else {
    t->gaps++;
    give_chain(t, &f->pieces[direction]);
    f->side_flags[direction] &= SYNCHRONISED | HAS_PENDING | FINISHED;
    if (phase == START) f->side_phase[direction] = LOST;
    else lose(f, direction);
    t->segment_start = 1;
  }
  f->next[direction] += bytes;
}

/* Delivers what is pending and has become next. */
static void drain(struct twin *t, struct flow *f, int direction, double now) {
  while (f->pending[direction] != 0) {
    uint32_t index = f->pending[direction];
    struct block *b = slab_at(&t->blocks, index);
    int32_t ahead = (int32_t)(b->sequence - f->next[direction]);
    if (ahead > 0) {
      if ((uint64_t)ahead > skippable(f, direction)) return;
      pass_over(t, f, direction, (uint32_t)ahead);
      ahead = 0;
    }
    f->pending[direction] = b->next;
    uint32_t known = (uint32_t)-ahead;
    if (known < b->length) {
      f->next[direction] += b->length - known;
      deliver(t, f, direction, b->data + known, b->data + b->length, now);
    }
    slab_give(&t->blocks, index);
  }
  f->side_flags[direction] &= ~HAS_PENDING;
}

/* Keeps a segment that came too early, in order of sequence numbers; overlaps are cut when they are delivered. */
RARE static void keep(struct twin *t, struct flow *f, int direction, uint32_t sequence, const uint8_t *at, uint32_t length, double now) {
  int blocks = 0;
  uint32_t *link = &f->pending[direction];
  for (; *link != 0; blocks++) {
    struct block *b = slab_at(&t->blocks, *link);
    if ((int32_t)(b->sequence - sequence) > 0) break;
    link = &b->next;
  }
  uint32_t index = blocks < PENDING_MAX && length <= 2032 ? slab_take(&t->blocks) : 0;
  if (index == 0) {
    pass_over(t, f, direction, sequence - f->next[direction]);
    f->next[direction] = sequence + length;
    deliver(t, f, direction, at, at + length, now);
    drain(t, f, direction, now);
    return;
  }
  struct block *b = slab_at(&t->blocks, index);
  b->next = *link;
  b->sequence = sequence;
  b->length = length;
  memcpy(b->data, at, length);
  *link = index;
  f->side_flags[direction] |= HAS_PENDING;
}

/* A segment with payload that is not simply the next one of a body. */
static __attribute__((noinline)) void segment(struct twin *t, struct flow *f, int direction, uint32_t sequence, const uint8_t *at,
    uint32_t length, double now) {
  if (f->side_phase[direction] == START && (f->side_flags[direction] & SYNCHRONISED) == 0) {
    f->next[direction] = sequence;
    f->side_phase[direction] = LOST;
  }
  t->segment_start = 1;
  int32_t ahead = (int32_t)(sequence - f->next[direction]);
  if (unlikely(ahead != 0)) {
    if (ahead < 0) {
      if ((int32_t)length + ahead <= 0) return;
      at -= ahead;
      length += (uint32_t)ahead;
      sequence = f->next[direction];
    } else if ((uint64_t)ahead > skippable(f, direction)) {
      keep(t, f, direction, sequence, at, length, now);
      return;
    } else {
      pass_over(t, f, direction, (uint32_t)ahead);
    }
  }
  f->next[direction] = sequence + length;
  deliver(t, f, direction, at, at + length, now);
  if (unlikely((f->side_flags[direction] & HAS_PENDING) != 0)) drain(t, f, direction, now);
}

/* The peer has acknowledged what was not seen here. */
RARE static void acknowledged(struct twin *t, struct flow *f, int direction, uint32_t acknowledgement, double now) {
  for (;;) {
    int32_t missing = (int32_t)(acknowledgement - f->next[direction]);
    if (missing <= 0) return;
    int32_t before = missing;
    if (f->pending[direction] != 0) {
      before = (int32_t)(((struct block *)slab_at(&t->blocks, f->pending[direction]))->sequence - f->next[direction]);
    }
    if (before > 0) pass_over(t, f, direction, (uint32_t)(before < missing ? before : missing));
    drain(t, f, direction, now);
  }
}

INLINE void http(struct twin *t, const struct descriptor *d, struct flow *f, int direction, double now) {
  if (unlikely((d->protocol & 255) != 6)) return;
  uint32_t flags = d->tcp_flags, syn = flags >> 1 & 1;
  uint8_t phase = f->side_phase[direction];
  if (phase == OTHER && syn == 0) return;
  if (unlikely(syn != 0) && phase == START) {
    f->next[direction] = d->sequence + 1;
    f->side_flags[direction] |= SYNCHRONISED;
  }
  if (likely((flags & ACK) != 0)) {
    int other = 1 - direction;
    /* A FIN takes a number, too. */
    uint32_t acknowledgement = d->acknowledgement - ((f->side_flags[other] & FINISHED) != 0);
    if (unlikely((int32_t)(acknowledgement - f->next[other]) > 0) && f->side_phase[other] != OTHER &&
        (f->side_phase[other] | f->side_flags[other]) != 0) {
      acknowledged(t, f, other, acknowledgement, now);
    }
  }
  if (unlikely((flags & FIN) != 0)) f->side_flags[direction] |= FINISHED;
  uint32_t length = d->payload_length;
  if (length == 0) return;
  uint32_t sequence = d->sequence + syn;
  if (sequence == f->next[direction] && phase == BODY && (f->side_flags[direction] & HAS_PENDING) == 0 &&
      length <= f->remaining[direction]) {
    f->remaining[direction] -= length;
    f->next[direction] = sequence + length;
    if (f->remaining[direction] == 0) f->side_phase[direction] = IN_HEAD;
    return;
  }
  segment(t, f, direction, sequence, d->frame + d->payload, length, now);
}

/* -- Monitor and firewall ---------------------------------------------------------------------------------------------- */

INLINE void monitor(struct twin *t, const struct descriptor *d, struct flow *f, int direction) {
  uint32_t length = d->length;
  f->direction_packets[direction]++;
  f->direction_bytes[direction] += length;
  f->tcp_flags[direction] |= d->tcp_flags;
  f->length_min = (uint16_t)(length < f->length_min ? length : f->length_min);
  f->length_max = (uint16_t)(length > f->length_max ? length : f->length_max);
  t->monitor_packets++;
  t->monitor_bytes += length;
}

#include "twin-tracking.h"

/* -- One packet -------------------------------------------------------------------------------------------------------- */

INLINE void actor(struct twin *t, struct descriptor *d, const int chain, const double now, uint32_t *leaving) {
  if (unlikely(d->result != FLOW)) {
    if (d->result == PASS) t->output[(*leaving)++] = d;
    else t->dropped++;
    return;
  }
  struct flow *f = d->flow;
  if (unlikely(f == 0) || unlikely(!same_key(d, f))) {
    f = find(t, d);
    if (f == 0) f = open_flow(t, d, now);
    if (f == 0) return;
  }
  f->last_seen = now;
  f->packets++;
  f->bytes += d->length;
  if (unlikely((d->tcp_flags & (FIN | SYN | RST)) != 0)) {
    f = tcp_life(t, d, f, now);
    if (f == 0) return;
  }
  int direction = d->from_b ^ f->opener;
  if (chain & MONITOR) monitor(t, d, f, direction);
  if (chain & FIREWALL) {
    if (!firewall(t, d, f, direction, now)) {
      t->drop_counts[D_DENIED]++;
      t->dropped++;
      return;
    }
  }
  if (chain & HTTP) http(t, d, f, direction, now);
  t->output[(*leaving)++] = d;
}

INLINE void run(struct twin *t, const uint8_t *pool, size_t stride, const int32_t *lengths, uint32_t count, double now,
    const int chain, const int staged) {
  uint32_t sent = 0;
  for (uint32_t first = 0; first < count; first += BATCH) {
    uint32_t packets = count - first < BATCH ? count - first : BATCH, leaving = 0;
    now += packets * 0.1;
    struct descriptor *batch = t->batch;
    const uint8_t *frame = pool + first * stride + 2;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < packets; i++, frame += stride) {
      batch[i].frame = frame;
      batch[i].length = (uint32_t)lengths[first + i];
      bytes += batch[i].length;
      if (staged) __builtin_prefetch(frame);
    }
    if (staged) {
      for (uint32_t i = 0; i < packets; i++) {
        parse(t, batch + i);
        __builtin_prefetch(t->slots[batch[i].hash >> t->shift]);
      }
      for (uint32_t i = 0; i < packets; i++) {
        struct flow *f = guess(t, batch[i].hash);
        batch[i].flow = f;
        __builtin_prefetch(f, 1);
        if (chain != 0) __builtin_prefetch((uint8_t *)f + 64, 1);
        if (chain & HTTP) __builtin_prefetch((uint8_t *)f + (batch[i].payload_length != 0 ? 128 : 64), 1);
      }
      if (chain & HTTP) {
        for (uint32_t i = 0; i < packets; i++) {
          struct flow *f = batch[i].flow;
          if (f == 0 || batch[i].payload_length == 0) continue;
          if (f->side_phase[batch[i].from_b ^ f->opener] == IN_HEAD) {
            const uint8_t *payload = batch[i].frame + batch[i].payload;
            for (int at = 0; at < 448; at += LINE) __builtin_prefetch(payload + at);
            if (f->last != 0) __builtin_prefetch(slab_at(&t->lasts, f->last), 1);
          }
        }
      }
      for (uint32_t i = 0; i < packets; i++) actor(t, batch + i, chain, now, &leaving);
    } else {
      for (uint32_t i = 0; i < packets; i++) {
        parse(t, batch + i);
        batch[i].flow = guess(t, batch[i].hash);
        actor(t, batch + i, chain, now, &leaving);
      }
    }
    t->received += packets;
    t->bytes_received += bytes;
    t->forwarded += leaving;
    /* The host takes what is to leave. */
    for (uint32_t i = 0; i < leaving; i++) {
      t->bytes_forwarded += t->output[i]->length;
      t->sent[sent++] = t->output[i]->frame;
    }
  }
  t->output_count = sent;
}

#define RUN(name, chain, staged) \
  static __attribute__((noinline)) void name(struct twin *t, const uint8_t *pool, size_t stride, const int32_t *lengths, \
      uint32_t count, double now) { \
    run(t, pool, stride, lengths, count, now, chain, staged); \
  }
RUN(run_empty, 0, 0) RUN(run_empty_staged, 0, 1)
RUN(run_monitor, MONITOR, 0) RUN(run_monitor_staged, MONITOR, 1)
RUN(run_firewall, FIREWALL, 0) RUN(run_firewall_staged, FIREWALL, 1)
RUN(run_monitor_firewall, MONITOR | FIREWALL, 0) RUN(run_monitor_firewall_staged, MONITOR | FIREWALL, 1)
RUN(run_http, HTTP, 0) RUN(run_http_staged, HTTP, 1)
RUN(run_monitor_http, MONITOR | HTTP, 0) RUN(run_monitor_http_staged, MONITOR | HTTP, 1)
RUN(run_firewall_http, FIREWALL | HTTP, 0) RUN(run_firewall_http_staged, FIREWALL | HTTP, 1)
RUN(run_chain, MONITOR | FIREWALL | HTTP, 0) RUN(run_chain_staged, MONITOR | FIREWALL | HTTP, 1)

/* -- The bench's side -------------------------------------------------------------------------------------------------- */

/* `chain`: bits of MONITOR, FIREWALL, HTTP. `rules`: ten words each, as struct rule. Returns 0 when there is no memory. */
struct twin *twin_create(int32_t flows, int32_t chain, int32_t staged, double extent_bytes, int32_t huge, const uint32_t *rules,
    int32_t rule_count, int32_t seed) {
  struct twin *t = reserve(sizeof *t, huge);
  if (t == 0) return 0;
  uint32_t bits = 6;
  while ((uint64_t)1 << bits < (uint64_t)flows * 2) bits++;
  t->shift = 32 - bits;
  t->mask = ((uint32_t)1 << bits) - 1;
  t->flows_max = (uint32_t)flows;
  t->slots = reserve((size_t)8 << bits, huge);
  t->chain = chain;
  t->staged = staged;
  t->seed[0] = 0x9e3779b97f4a7c15ull * (uint32_t)(seed | 1);
  t->seed[1] = 0xc2b2ae3d27d4eb4full * (uint32_t)(seed | 1);
  t->rules = (struct rule *)malloc(sizeof(struct rule) * (size_t)(rule_count + 1));
  t->rule_count = (uint32_t)rule_count;
  memcpy(t->rules, rules, sizeof(struct rule) * (size_t)rule_count);
  t->record_base = t->record_at = reserve(4 << 20, huge);
  t->record_end = t->record_base + (4 << 20);
  t->output_digest = t->record_digest = 0x811c9dc5u;
  if (t->slots == 0 || t->record_base == 0 || !slab_make(&t->records, sizeof(struct flow), (size_t)flows, huge) ||
      !slab_make(&t->lasts, sizeof(struct last), (size_t)(extent_bytes / sizeof(struct last)), huge) ||
      !slab_make(&t->blocks, sizeof(struct block), (size_t)(extent_bytes / 4 / sizeof(struct block)) + 64, huge)) return 0;
  t->flow = (struct flow *)t->records.base;
  return t;
}

/* Runs `count` packets in batches of 32: frame i begins 2 bytes behind `pool + i * stride`. */
void twin_process(struct twin *t, uint64_t pool, int32_t stride, uint64_t lengths, int32_t count, double now) {
  typedef void (*runner)(struct twin *, const uint8_t *, size_t, const int32_t *, uint32_t, double);
  static const runner runners[8][2] = {
    { run_empty, run_empty_staged }, { run_monitor, run_monitor_staged }, { run_firewall, run_firewall_staged },
    { run_monitor_firewall, run_monitor_firewall_staged }, { run_http, run_http_staged },
    { run_monitor_http, run_monitor_http_staged }, { run_firewall_http, run_firewall_http_staged }, { run_chain, run_chain_staged }
  };
  runners[t->chain][t->staged](t, (const uint8_t *)pool, (size_t)stride, (const int32_t *)lengths, (uint32_t)count, now);
}

static uint32_t step(uint32_t hash, uint32_t byte) { return (hash ^ byte) * 0x01000193u; }
static uint32_t mix(uint32_t hash, uint32_t word) { return step(step(hash, word & 0xffff), word >> 16); }

/* Only HTTP messages count. */
static uint32_t digest_record(uint32_t hash, const struct record *r) {
  const uint8_t *text = (const uint8_t *)(r + 1);
  if (r->event == REQUEST_EVENT) {
    hash = mix(hash, 7);
    for (int field = 0; field < 4; field++) for (int i = 0; i < r->length[field]; i++) hash = step(hash, *text++);
  } else if (r->event == RESPONSE_EVENT) {
    hash = mix(mix(hash, 8), r->length[0]);
    for (int i = 0; i < r->length[1]; i++) hash = step(hash, *text++);
  }
  return hash;
}

/* Takes output and records of the chunk into the digest. */
void twin_account(struct twin *t, uint64_t pool, int32_t stride) {
  for (uint32_t i = 0; i < t->output_count; i++) {
    t->output_digest = step(t->output_digest, (uint32_t)(((uint64_t)t->sent[i] - pool) / (uint64_t)stride));
  }
  for (uint8_t *at = t->record_base; at < t->record_at; at += (((struct record *)at)->bytes + 7) & ~7u) {
    t->record_digest = digest_record(t->record_digest, (struct record *)at);
  }
  t->record_at = t->record_base;
}

/* forwarded, dropped, flows, output, states, records; then the HTTP counters and the bytes of a record and the table. */
void twin_digest(struct twin *t, double *result) {
  uint32_t states = 0;
  for (uint32_t index = 1; index <= t->records.high; index++) {
    const struct flow *f = t->flow + index;
    if (f->phase == FREE) continue;
    uint32_t hash = mix(mix(mix(0x811c9dc5u, f->ports), f->a), f->b);
    if (t->chain & MONITOR) {
      hash = mix(mix(hash, (uint32_t)f->direction_packets[0]), (uint32_t)f->direction_packets[1]);
      hash = mix(mix(hash, (uint32_t)f->direction_bytes[0]), (uint32_t)f->direction_bytes[1]);
      hash = mix(mix(mix(mix(hash, f->length_min), f->length_max), f->tcp_flags[0]), f->tcp_flags[1]);
    }
    if (t->chain & FIREWALL) hash = mix(mix(hash, f->verdict == ACCEPTED ? 1 : 2), is_established(f));
    if (t->chain & HTTP) hash = mix(mix(hash, f->requests), f->responses);
    states += hash;
  }
  double values[] = { (double)t->forwarded, (double)t->dropped, t->flows, (int32_t)t->output_digest, (int32_t)states,
    (int32_t)t->record_digest, (double)t->http_requests, (double)t->http_responses, (double)t->bad_messages, (double)t->gaps,
    sizeof(struct flow), 8.0 * (t->mask + 1.0) };
  memcpy(result, values, sizeof values);
}
