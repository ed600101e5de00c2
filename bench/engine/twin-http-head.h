/*
 * The HTTP head scan in C: what src/memory/kernels/http-head-twin.ts says, found as the WebAssembly kernel finds it, with the
 * widest vectors that the machine has. One pass: a bit per byte below 0x20 (in a proper head the CR LF of each line and nothing
 * else), then 16 bytes at each line start for the colon; only names of a known length and beginning are looked at further.
 *
 * Reads up to 64 bytes beyond `end`; what is there does not matter, but it must be readable.
 */

enum { HEAD_INVALID = -1, HEAD_INCOMPLETE = 0, HEAD_COMPLETE = 1 };
enum { KIND_REQUEST = 1, KIND_RESPONSE = 2 };
enum { METHOD_OTHER = 0, METHOD_GET = 1, METHOD_HEAD = 2, METHOD_POST = 3, METHOD_CONNECT = 6, METHOD_PRI = 10 };
enum {
  HAS_HOST = 1, HAS_CONTENT_LENGTH = 2, HAS_TRANSFER_ENCODING = 4, CHUNKED = 8, OTHER_CODING = 16, CONNECTION_CLOSE = 32,
  CONNECTION_KEEP_ALIVE = 64, CONNECTION_UPGRADE = 128, UPGRADE_WEBSOCKET = 256, UPGRADE_H2C = 512, UPGRADE_OTHER = 1024,
  EXPECT_CONTINUE = 2048
};
enum {
  BARE_LF = 1, BARE_CR = 2, CONTROL_BYTE = 4, OBS_FOLD = 8, FIELD_NAME_SPACE = 16, MALFORMED_FIELD = 32,
  BAD_CONTENT_LENGTH = 64, DUPLICATE_CONTENT_LENGTH = 128, CONFLICTING_CONTENT_LENGTH = 256, LENGTH_AND_ENCODING = 512,
  CHUNKED_NOT_FINAL = 1024, DUPLICATE_HOST = 2048, START_LINE_SPACE = 4096, TARGET_SPACE = 8192, ODD_VERSION = 16384,
  NO_VERSION = 32768, STATUS_SUFFIX = 65536, LAST_LINE = 1 << 30
};

struct head {
  const uint8_t *end, *method, *uri, *host, *reason, *authority;
  int32_t kind, method_id, method_length, uri_length, host_length, reason_length, authority_length;
  int32_t major, minor, status, attributes, anomalies;
  /* -1: none that is usable. */
  int64_t content_length;
};

#define WORD(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

static inline uint32_t load32(const uint8_t *at) { uint32_t x; memcpy(&x, at, 4); return x; }
static inline uint64_t load64(const uint8_t *at) { uint64_t x; memcpy(&x, at, 8); return x; }
static inline uint32_t lower4(const uint8_t *at) { return load32(at) | 0x20202020; }
static inline int is_blank(uint8_t c) { return c <= 0x20 && (0x100002600ull >> c & 1) != 0; }
static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }
static inline int is_token(uint8_t c) {
  return c < 128 && ((c < 64 ? 0x03ff6cfa00000000ull : 0x57ffffffc7fffffeull) >> (c & 63) & 1) != 0;
}

/* A bit per byte of 64 that is below 0x20. */
static inline uint64_t controls64(const uint8_t *at) {
#if defined(__AVX512BW__)
  return _mm512_cmple_epu8_mask(_mm512_loadu_si512(at), _mm512_set1_epi8(0x1f));
#elif defined(__AVX2__)
  const __m256i x = _mm256_set1_epi8(0x1f);
  __m256i a = _mm256_loadu_si256((const __m256i *)at), b = _mm256_loadu_si256((const __m256i *)(at + 32));
  uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, x), x));
  uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(b, x), x));
  return low | (uint64_t)high << 32;
#else
  uint64_t bits = 0;
  for (int i = 0; i < 64; i++) bits |= (uint64_t)(at[i] < 0x20) << i;
  return bits;
#endif
}

/* Of 16 bytes, a bit for every one that is a colon or at most 0x20, and bit 16. */
static inline uint32_t name_stops(const uint8_t *at) {
#if defined(__SSE2__)
  __m128i x = _mm_loadu_si128((const __m128i *)at), blank = _mm_set1_epi8(0x20);
  __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8(':')), _mm_cmpeq_epi8(_mm_max_epu8(x, blank), blank));
  return (uint32_t)_mm_movemask_epi8(stop) | 0x10000;
#else
  uint32_t bits = 0x10000;
  for (int i = 0; i < 16; i++) bits |= (uint32_t)(at[i] == ':' || at[i] <= 0x20) << i;
  return bits;
#endif
}

static inline const uint8_t *next_blank(const uint8_t *at, const uint8_t *end) {
#if defined(__SSE2__)
  const __m128i blank = _mm_set1_epi8(0x20);
  for (; at < end; at += 16) {
    __m128i x = _mm_loadu_si128((const __m128i *)at);
    uint32_t hits = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(x, blank), blank));
    if (hits != 0) {
      at += __builtin_ctz(hits);
      return at < end ? at : end;
    }
  }
  return end;
#else
  while (at < end && *at > 0x20) at++;
  return at;
#endif
}

static const char *const known_methods[] = {
  "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI", "PROPFIND", "PROPPATCH", "MKCOL",
  "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "M-SEARCH", "PURGE", "LINK",
  "UNLINK", "QUERY", 0
};

static int method_number(const uint8_t *at, size_t length) {
  for (int i = 1; known_methods[i] != 0; i++) {
    if (strlen(known_methods[i]) == length && memcmp(known_methods[i], at, length) == 0) return i;
  }
  return METHOD_OTHER;
}

static void list_element(struct head *h, int name_length, const uint8_t *at, size_t length) {
  if (name_length == 17) {
    int chunked = (h->attributes & CHUNKED) != 0;
    if (length == 7 && lower4(at) == WORD('c', 'h', 'u', 'n') && lower4(at + 3) == WORD('n', 'k', 'e', 'd')) {
      if (chunked) h->anomalies |= CHUNKED_NOT_FINAL;
      h->attributes |= CHUNKED;
      return;
    }
    if (!chunked && length == 8 && lower4(at) == WORD('i', 'd', 'e', 'n') && lower4(at + 4) == WORD('t', 'i', 't', 'y')) return;
    h->attributes |= OTHER_CODING;
    if (chunked) {
      h->attributes &= ~CHUNKED;
      h->anomalies |= CHUNKED_NOT_FINAL;
    }
  } else if (name_length == 10) {
    if (length == 5 && lower4(at) == WORD('c', 'l', 'o', 's') && (at[4] | 0x20) == 'e') h->attributes |= CONNECTION_CLOSE;
    else if (length == 10 && lower4(at) == WORD('k', 'e', 'e', 'p') && at[4] == '-' && lower4(at + 5) == WORD('a', 'l', 'i', 'v') &&
             (at[9] | 0x20) == 'e') h->attributes |= CONNECTION_KEEP_ALIVE;
    else if (length == 7 && lower4(at) == WORD('u', 'p', 'g', 'r') && lower4(at + 3) == WORD('r', 'a', 'd', 'e')) {
      h->attributes |= CONNECTION_UPGRADE;
    }
  } else if (name_length == 7) {
    if (length == 9 && lower4(at) == WORD('w', 'e', 'b', 's') && lower4(at + 4) == WORD('o', 'c', 'k', 'e') && (at[8] | 0x20) == 't') {
      h->attributes |= UPGRADE_WEBSOCKET;
    } else if (length == 3 && (at[0] | 0x20) == 'h' && at[1] == '2' && (at[2] | 0x20) == 'c') h->attributes |= UPGRADE_H2C;
    else h->attributes |= UPGRADE_OTHER;
  } else if (length == 12 && load32(at) == WORD('1', '0', '0', '-') && lower4(at + 4) == WORD('c', 'o', 'n', 't') &&
             lower4(at + 8) == WORD('i', 'n', 'u', 'e')) h->attributes |= EXPECT_CONTINUE;
}

static void content_length(struct head *h, const uint8_t *from, const uint8_t *to) {
  do {
    while (from < to && is_blank(*from)) from++;
    int64_t value = 0;
    const uint8_t *digits = from;
    while (from < to && is_digit(*from) && value <= 9007199254740991) value = value * 10 + (*from++ - '0');
    int bad = from == digits || value > 9007199254740991;
    while (from < to && is_blank(*from)) from++;
    if (bad || (from < to && *from != ',')) {
      h->anomalies |= BAD_CONTENT_LENGTH;
      return;
    }
    if ((h->attributes & HAS_CONTENT_LENGTH) == 0) {
      h->attributes |= HAS_CONTENT_LENGTH;
      h->content_length = value;
    } else {
      h->anomalies |= value == h->content_length ? DUPLICATE_CONTENT_LENGTH : CONFLICTING_CONTENT_LENGTH;
    }
  } while (from++ < to);
}

/* The first letters of the one known name of each length. */
static inline uint32_t known_name(uint32_t length) {
  static const uint32_t names[18] = {
    [4] = WORD('h', 'o', 's', 't'), [6] = WORD('e', 'x', 'p', 'e'), [7] = WORD('u', 'p', 'g', 'r'),
    [10] = WORD('c', 'o', 'n', 'n'), [14] = WORD('c', 'o', 'n', 't'), [17] = WORD('t', 'r', 'a', 'n')
  };
  return length < 18 ? names[length] : 0;
}

/* A field whose name has the length and the first four letters of a known one. */
static void known_field(struct head *h, const uint8_t *start, size_t length, const uint8_t *line_end) {
  if (length == 14) {
    if (lower4(start + 4) != WORD('e', 'n', 't', '-') || lower4(start + 8) != WORD('l', 'e', 'n', 'g') ||
        lower4(start + 10) != WORD('n', 'g', 't', 'h')) return;
  } else if (length == 10) {
    if (lower4(start + 4) != WORD('e', 'c', 't', 'i') || lower4(start + 6) != WORD('t', 'i', 'o', 'n')) return;
  } else if (length == 17) {
    if (lower4(start + 4) != WORD('s', 'f', 'e', 'r') || lower4(start + 8) != WORD('-', 'e', 'n', 'c') ||
        lower4(start + 12) != WORD('o', 'd', 'i', 'n') || (start[16] | 0x20) != 'g') return;
  } else if (length == 7) {
    if (lower4(start + 3) != WORD('r', 'a', 'd', 'e')) return;
  } else if (length == 6) {
    if (lower4(start + 2) != WORD('p', 'e', 'c', 't')) return;
  }
  const uint8_t *from = start + length, *to = line_end;
  while (*from != ':') from++;
  from++;
  while (to > from && is_blank(to[-1])) to--;
  while (from < to && is_blank(*from)) from++;
  if (length == 4) {
    if ((h->attributes & HAS_HOST) != 0) {
      h->anomalies |= DUPLICATE_HOST;
      return;
    }
    h->attributes |= HAS_HOST;
    h->host = from;
    h->host_length = (int32_t)(to - from);
    return;
  }
  if (length == 14) {
    content_length(h, from, to);
    return;
  }
  if (length == 17) h->attributes |= HAS_TRANSFER_ENCODING;
  for (;;) {
    while (from < to && (is_blank(*from) || *from == ',')) from++;
    if (from >= to) return;
    const uint8_t *element = from;
    while (from < to && *from != ',') from++;
    const uint8_t *element_end = from;
    while (is_blank(element_end[-1])) element_end--;
    list_element(h, (int)length, element, (size_t)(element_end - element));
  }
}

/* A line whose name is not followed by a colon at once, or is long. Returns the anomalies of its name. */
static int32_t other_field(struct head *h, const uint8_t *start, const uint8_t *line_end) {
  if (*start == ' ' || *start == '\t') return OBS_FOLD;
  const uint8_t *at = start;
  while (at < line_end && *at != ':' && *at != '\r' && *at != '\n') at++;
  if (at == start || at == line_end || *at != ':') return MALFORMED_FIELD;
  const uint8_t *name_end = at;
  while (name_end > start && (name_end[-1] == ' ' || name_end[-1] == '\t')) name_end--;
  for (const uint8_t *p = start; p < name_end; p++) if (*p <= 0x20) return FIELD_NAME_SPACE;
  size_t length = (size_t)(name_end - start);
  if (length >= 4 && lower4(start) == known_name((uint32_t)length)) known_field(h, start, length, line_end);
  return name_end == at ? 0 : FIELD_NAME_SPACE;
}

/* The start line of a response. Returns where the fields begin, or 0 with `*result` set. */
static const uint8_t *status_line(struct head *h, const uint8_t *start, const uint8_t *end, int *result) {
  *result = HEAD_INCOMPLETE;
  if (end - start < 13) return 0;
  *result = HEAD_INVALID;
  if (!is_digit(start[5]) || start[6] != '.' || !is_digit(start[7]) || start[8] != ' ') return 0;
  h->major = start[5] - '0';
  h->minor = start[7] - '0';
  if (h->major != 1 || h->minor > 1) h->anomalies |= ODD_VERSION;
  const uint8_t *at = start + 9;
  while (at < end && *at == ' ') at++;
  if (at != start + 9) h->anomalies |= START_LINE_SPACE;
  *result = HEAD_INCOMPLETE;
  if (end - at < 4) return 0;
  *result = HEAD_INVALID;
  if (!is_digit(at[0]) || !is_digit(at[1]) || !is_digit(at[2]) || is_digit(at[3])) return 0;
  h->status = (at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0');
  at += 3;
  if (!is_blank(*at)) h->anomalies |= STATUS_SUFFIX;
  *result = HEAD_INCOMPLETE;
  const uint8_t *reason = at, *reason_end = at;
  for (;; at++) {
    if (at >= end) return 0;
    uint8_t c = *at;
    if (c > 0x20) reason_end = at + 1;
    else if (c == ' ' || c == '\t') {
      if (reason == at) reason = at + 1;
    } else if (c == '\n') {
      h->anomalies |= BARE_LF;
      break;
    } else if (c == '\r' && at + 1 >= end) return 0;
    else if (c == '\r' && at[1] == '\n') {
      at++;
      break;
    } else {
      h->anomalies |= c == '\r' ? BARE_CR : CONTROL_BYTE;
      reason_end = at + 1;
    }
  }
  h->kind = KIND_RESPONSE;
  h->reason = reason;
  h->reason_length = reason_end < reason ? 0 : (int32_t)(reason_end - reason);
  return at + 1;
}

static void find_authority(struct head *h, const uint8_t *uri, const uint8_t *uri_end) {
  const uint8_t *from = uri, *to = uri_end;
  if (h->method_id != METHOD_CONNECT) {
    while (from < uri_end && *from != ':' && *from != '/') from++;
    if (from == uri || from + 3 > uri_end || from[0] != ':' || from[1] != '/' || from[2] != '/') return;
    to = from += 3;
    for (const uint8_t *at = from; at < uri_end && *at != '/' && *at != '?' && *at != '#'; at++) {
      to = at + 1;
      if (*at == '@') from = to;
    }
  }
  h->authority = from;
  h->authority_length = (int32_t)(to - from);
}

/* The start line of a request. Returns where the fields begin, or 0 with `*result` set; HTTP/0.9 has none. */
static const uint8_t *request_line(struct head *h, const uint8_t *start, const uint8_t *end, int *result) {
  const uint8_t *at = start;
  int method = METHOD_OTHER;
  if (start + 5 <= end && load32(start) == WORD('G', 'E', 'T', ' ')) {
    method = METHOD_GET;
    at = start + 3;
  } else if (start + 5 <= end && load32(start) == WORD('P', 'O', 'S', 'T') && start[4] == ' ') {
    method = METHOD_POST;
    at = start + 4;
  } else {
    *result = HEAD_INCOMPLETE;
    while (at < end && is_token(*at) && at - start < 32) at++;
    if (at >= end) return 0;
    *result = HEAD_INVALID;
    if (at == start || *at != ' ') return 0;
    method = method_number(start, (size_t)(at - start));
  }
  h->method = start;
  h->method_id = method;
  h->method_length = (int32_t)(at - start);
  *result = HEAD_INCOMPLETE;
  do {
    if (++at >= end) return 0;
  } while (*at == ' ');
  if (at != start + h->method_length + 1) h->anomalies |= START_LINE_SPACE;
  const uint8_t *uri = at;
  *result = HEAD_INVALID;
  if (*uri <= 0x20) return 0;
  const uint8_t *uri_end = next_blank(uri + 1, end);
  h->major = 1;
  h->minor = 1;
  if (uri_end + 11 <= end && *uri_end == ' ' && memcmp(uri_end + 1, "HTTP/1.1\r\n", 10) == 0) {
    at = uri_end + 11;
  } else {
    const uint8_t *word = uri, *word_end = uri_end;
    int words = 1;
    for (;; words++) {
      *result = HEAD_INCOMPLETE;
      at = word_end;
      while (at < end && *at == ' ') at++;
      if (at >= end) return 0;
      if (*at <= 0x20) break;
      if (at - word_end > 1) h->anomalies |= START_LINE_SPACE;
      uri_end = word_end;
      word = at;
      word_end = next_blank(at + 1, end);
    }
    if (at != word_end) h->anomalies |= START_LINE_SPACE;
    if (*at == '\r') {
      if (++at >= end) return 0;
    } else h->anomalies |= BARE_LF;
    *result = HEAD_INVALID;
    if (*at++ != '\n') return 0;
    if (words > 2) h->anomalies |= TARGET_SPACE;
    if (words == 1) {
      if (method == METHOD_OTHER || *uri != '/') return 0;
      h->anomalies |= NO_VERSION;
      h->major = method == METHOD_GET ? 0 : 1;
      h->minor = method == METHOD_GET ? 9 : 0;
    } else {
      if (word_end - word < 5 || memcmp(word, "HTTP/", 5) != 0) return 0;
      if (word_end - word == 8 && is_digit(word[5]) && word[6] == '.' && is_digit(word[7])) {
        h->major = word[5] - '0';
        h->minor = word[7] - '0';
        if (h->major != 1 || h->minor > 1) h->anomalies |= ODD_VERSION;
      } else {
        if (method == METHOD_OTHER) return 0;
        h->anomalies |= ODD_VERSION;
        h->minor = 0;
      }
    }
  }
  h->kind = KIND_REQUEST;
  h->uri = uri;
  h->uri_length = (int32_t)(uri_end - uri);
  if (*uri != '/') find_authority(h, uri, uri_end);
  return at;
}

static const uint8_t *start_line(struct head *h, const uint8_t *at, const uint8_t *end, int *result) {
  memset(h, 0, sizeof *h);
  h->content_length = -1;
  *result = HEAD_INCOMPLETE;
  while (at < end && (*at == '\r' || *at == '\n')) at++;
  if (at >= end) return 0;
  size_t seen = end - at < 5 ? (size_t)(end - at) : 5;
  if (memcmp(at, "HTTP/", seen) == 0) return seen < 5 ? 0 : status_line(h, at, end, result);
  return request_line(h, at, end, result);
}

/* Whether these bytes begin a message. */
static int detect_head(const uint8_t *at, const uint8_t *end) {
  struct head h;
  int result;
  return start_line(&h, at, end, &result) != 0 ? HEAD_COMPLETE : result;
}

static int parse_head(struct head *h, const uint8_t *start, const uint8_t *end) {
  int result;
  const uint8_t *line = start_line(h, start, end, &result);
  if (line == 0) return result;
  h->end = line;
  if (h->kind == KIND_REQUEST && h->major == 0 && (h->anomalies & NO_VERSION) != 0) return HEAD_COMPLETE;
  if (line >= end) return HEAD_INCOMPLETE;
  int32_t anomalies = 0;
  if (*line == '\n') {
    h->anomalies |= BARE_LF;
    h->end = line + 1;
    return HEAD_COMPLETE;
  }
  if (*line == '\r') {
    if (line + 1 >= end) return HEAD_INCOMPLETE;
    if (line[1] == '\n') {
      h->end = line + 2;
      return HEAD_COMPLETE;
    }
  } else if (*line == ':') anomalies = MALFORMED_FIELD;
  /* The last byte cannot end a head without one before it. */
  const uint8_t *limit = end - 1, *base = line - 64;
  uint64_t bits = 0, before = 0;
  do {
    while (bits == 0) {
      base += 64;
      if (base >= limit) return HEAD_INCOMPLETE;
      uint64_t all = controls64(base);
      if (limit - base < 64) all &= ((uint64_t)1 << (limit - base)) - 1;
      /* Of a run of control bytes only the first is visited. */
      bits = all & ~(all << 1 | before);
      before = all >> 63;
    }
    const uint8_t *at = base + __builtin_ctzll(bits);
    bits &= bits - 1;
    if (at[0] == '\r' && at[1] == '\n') at++;
    else if (*at == '\n') anomalies |= BARE_LF;
    else {
      anomalies |= *at == '\r' ? BARE_CR : *at == '\t' ? 0 : CONTROL_BYTE;
      base = at - 63;
      bits = before = 0;
      continue;
    }
    const uint8_t *next = at + 1;
    if (next >= end) return HEAD_INCOMPLETE;
    uint8_t c = *next;
    if (c <= ':') {
      if (c == '\n') anomalies |= BARE_LF | LAST_LINE;
      else if (c == ':') anomalies |= MALFORMED_FIELD;
      else if (c <= ' ') {
        if (c == '\r') {
          if (next + 1 >= end) return HEAD_INCOMPLETE;
          if (next[1] == '\n') anomalies |= LAST_LINE;
        }
        base = next - 64;
        bits = before = 0;
        if (c == ' ' || c == '\t') {
          anomalies |= OBS_FOLD;
          continue;
        }
      }
    }
    /* The line [line, at) is a field with all its continuations. */
    uint32_t length = (uint32_t)__builtin_ctz(name_stops(line));
    if (length == 16 || line[length] != ':') anomalies |= other_field(h, line, at);
    else if (lower4(line) == known_name(length)) known_field(h, line, length, at);
    line = next;
  } while ((anomalies & LAST_LINE) == 0);
  h->anomalies |= anomalies & ~LAST_LINE;
  if ((h->attributes & (HAS_CONTENT_LENGTH | HAS_TRANSFER_ENCODING)) == (HAS_CONTENT_LENGTH | HAS_TRANSFER_ENCODING)) {
    h->anomalies |= LENGTH_AND_ENCODING;
  }
  if ((h->anomalies & BAD_CONTENT_LENGTH) != 0) h->content_length = -1;
  h->end = line + (*line == '\n' ? 1 : 2);
  return HEAD_COMPLETE;
}
