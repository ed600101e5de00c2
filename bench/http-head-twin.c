/*
 * The head scan as one would write it in C: memchr from line to line, then a look at the first letters of each name. It
 * finds what the kernels find in a proper head, without their anomalies (which makes it a little faster than an exact
 * twin).
 *
 * Input file: int32 count, then per head int32 offset and int32 length, then the bytes. Prints the digest of all
 * results, and the median time per head in nanoseconds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { HOST = 1, LENGTH = 2, CODING = 4, CHUNKED = 8, OTHER_CODING = 16, CLOSE = 32, KEEP_ALIVE = 64, UPGRADE = 128,
       WEBSOCKET = 256, H2C = 512, OTHER = 1024, CONTINUE = 2048 };

struct head {
  const char *end, *uri, *host, *reason;
  int kind, method, uri_length, host_length, reason_length, major, minor, status, attributes;
  double content_length;
};

static int method_id(const char *at, size_t length) {
  switch (length) {
    case 3: return memcmp(at, "GET", 3) == 0 ? 1 : memcmp(at, "PUT", 3) == 0 ? 4 : 0;
    case 4: return memcmp(at, "POST", 4) == 0 ? 3 : memcmp(at, "HEAD", 4) == 0 ? 2 : 0;
    case 6: return memcmp(at, "DELETE", 6) == 0 ? 5 : 0;
    case 7: return memcmp(at, "OPTIONS", 7) == 0 ? 7 : memcmp(at, "CONNECT", 7) == 0 ? 6 : 0;
  }
  return 0;
}

static int blank(char c) { return c == ' ' || c == '\t'; }

static void list(struct head *h, int what, const char *at, const char *end) {
  while (at < end) {
    const char *comma = memchr(at, ',', end - at);
    const char *next = comma ? comma + 1 : end;
    const char *to = comma ? comma : end;
    while (at < to && blank(*at)) at++;
    while (to > at && blank(to[-1])) to--;
    size_t n = to - at;
    if (n > 0 && what == 0) {
      if (n == 7 && strncasecmp(at, "chunked", 7) == 0) h->attributes |= CHUNKED;
      else if (n != 8 || strncasecmp(at, "identity", 8) != 0) h->attributes = (h->attributes | OTHER_CODING) & ~CHUNKED;
    } else if (n > 0 && what == 1) {
      if (n == 5 && strncasecmp(at, "close", 5) == 0) h->attributes |= CLOSE;
      if (n == 10 && strncasecmp(at, "keep-alive", 10) == 0) h->attributes |= KEEP_ALIVE;
      if (n == 7 && strncasecmp(at, "upgrade", 7) == 0) h->attributes |= UPGRADE;
    } else if (n > 0 && what == 2) {
      if (n == 9 && strncasecmp(at, "websocket", 9) == 0) h->attributes |= WEBSOCKET;
      else if (n == 3 && strncasecmp(at, "h2c", 3) == 0) h->attributes |= H2C;
      else h->attributes |= OTHER;
    } else if (n == 12 && strncasecmp(at, "100-continue", 12) == 0) h->attributes |= CONTINUE;
    at = next;
  }
}

static int parse(const char *at, const char *end, struct head *h) {
  memset(h, 0, sizeof *h);
  h->content_length = -1;
  const char *lf = memchr(at, '\n', end - at);
  if (!lf) return 0;
  const char *eol = lf > at && lf[-1] == '\r' ? lf - 1 : lf;
  if (eol - at >= 12 && memcmp(at, "HTTP/", 5) == 0) {
    h->kind = 2;
    h->major = at[5] - '0';
    h->minor = at[7] - '0';
    h->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
    const char *reason = at + 12;
    while (reason < eol && blank(*reason)) reason++;
    h->reason = reason;
    h->reason_length = eol - reason;
  } else {
    const char *space = memchr(at, ' ', eol - at);
    if (!space || eol - space < 11 || memcmp(eol - 9, " HTTP/", 6) != 0 || eol[-2] != '.') return -1;
    h->kind = 1;
    h->method = method_id(at, space - at);
    h->uri = space + 1;
    h->uri_length = eol - 9 - h->uri;
    h->major = eol[-3] - '0';
    h->minor = eol[-1] - '0';
  }
  for (;;) {
    at = lf + 1;
    if (at >= end) return 0;
    if (*at == '\n') { h->end = at + 1; return 1; }
    if (*at == '\r' && at + 1 < end && at[1] == '\n') { h->end = at + 2; return 1; }
    lf = memchr(at, '\n', end - at);
    if (!lf) return 0;
    eol = lf[-1] == '\r' ? lf - 1 : lf;
    size_t n = 0;
    switch (*at | 0x20) {
      case 'h': if (eol - at >= 5 && at[4] == ':' && strncasecmp(at, "host", 4) == 0) n = 4; break;
      case 'c':
        if (eol - at >= 15 && at[14] == ':' && strncasecmp(at, "content-length", 14) == 0) n = 14;
        else if (eol - at >= 11 && at[10] == ':' && strncasecmp(at, "connection", 10) == 0) n = 10;
        break;
      case 't': if (eol - at >= 18 && at[17] == ':' && strncasecmp(at, "transfer-encoding", 17) == 0) n = 17; break;
      case 'u': if (eol - at >= 8 && at[7] == ':' && strncasecmp(at, "upgrade", 7) == 0) n = 7; break;
      case 'e': if (eol - at >= 7 && at[6] == ':' && strncasecmp(at, "expect", 6) == 0) n = 6; break;
    }
    if (n == 0) continue;
    const char *value = at + n + 1;
    while (value < eol && blank(*value)) value++;
    while (eol > value && blank(eol[-1])) eol--;
    if (n == 4) { h->host = value; h->host_length = eol - value; h->attributes |= HOST; }
    else if (n == 14) {
      double length = 0;
      for (; value < eol && *value >= '0' && *value <= '9'; value++) length = length * 10 + (*value - '0');
      if (value == eol) { h->content_length = length; h->attributes |= LENGTH; }
    } else if (n == 17) { h->attributes |= CODING; list(h, 0, value, eol); }
    else list(h, n == 10 ? 1 : n == 7 ? 2 : 3, value, eol);
  }
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  static char bytes[1 << 22];
  FILE *file = fopen(argv[1], "rb");
  if (argc < 4 || !file) return 1;
  fread(bytes, 1, sizeof bytes, file);
  int rounds = atoi(argv[2]), samples = atoi(argv[3]);
  const int32_t *index = (const int32_t *)bytes;
  int count = index[0];
  struct head h;
  uint32_t digest = 0;
  for (int i = 0; i < count; i++) {
    const char *at = bytes + index[1 + 2 * i];
    int result = parse(at, at + index[2 + 2 * i], &h);
    int32_t values[] = { result, h.end - at, h.kind, h.method, h.uri_length, h.major, h.minor, h.status,
      h.reason_length, h.host ? h.host - at : 0, h.host_length, h.attributes, (int32_t)h.content_length };
    for (size_t j = 0; j < sizeof values / sizeof *values; j++) digest = digest * 31 + (uint32_t)values[j];
  }
  double times[1000];
  volatile uint64_t sink = 0;
  for (int s = 0; s < samples; s++) {
    uint64_t start = now(), sum = 0;
    for (int r = 0; r < rounds; r++) {
      for (int i = 0; i < count; i++) {
        const char *at = bytes + index[1 + 2 * i];
        sum += parse(at, at + index[2 + 2 * i], &h) + (h.end - at) + h.host_length;
      }
    }
    times[s] = (double)(now() - start) / rounds / count;
    sink += sum;
  }
  qsort(times, samples, sizeof *times, compare);
  printf("%u %.2f\n", digest, times[samples / 2]);
  return 0;
}
