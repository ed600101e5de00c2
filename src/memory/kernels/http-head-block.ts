/**
 * Layout of the block of arena memory in which the HTTP head scan leaves its results, and the numbers it uses.
 *
 * The WebAssembly kernel and its plain TypeScript twin fill the same block, so whoever reads it need not know which one
 * ran, and a test can compare the two byte by byte. Offsets of head parts are arena offsets; 0 stands for "not there".
 *
 * This file is compiled twice, by TypeScript and by AssemblyScript: numeric constants only.
 */

/** Bytes of the block; it starts on a cache line. */
export const HEAD_BLOCK_BYTES = 128

// What a scan returns.
export const HEAD_COMPLETE = 1
export const HEAD_INCOMPLETE = 0
export const HEAD_INVALID = -1

// Kinds of message: a bit set when asked for, one bit when answered.
export const KIND_REQUEST = 1
export const KIND_RESPONSE = 2
export const KIND_EITHER = 3

// Byte offsets in the block. All are 32-bit integers but the last, a double on an 8-byte boundary.
export const AT_KIND = 0
/** First byte after the head, that is of the body. */
export const AT_HEAD_END = 4
/** First byte of the start line, after empty lines that were skipped. */
export const AT_START = 8
export const AT_METHOD_ID = 12
export const AT_METHOD = 16
export const AT_METHOD_LENGTH = 20
export const AT_URI = 24
export const AT_URI_LENGTH = 28
export const AT_VERSION_MAJOR = 32
export const AT_VERSION_MINOR = 36
export const AT_STATUS = 40
export const AT_REASON = 44
export const AT_REASON_LENGTH = 48
export const AT_HOST = 52
export const AT_HOST_LENGTH = 56
export const AT_AUTHORITY = 60
export const AT_AUTHORITY_LENGTH = 64
export const AT_ATTRIBUTES = 68
export const AT_ANOMALIES = 72
export const AT_INVALID_REASON = 76
/** -1: no usable Content-Length. */
export const AT_CONTENT_LENGTH = 80

// Attributes: what the fields say.
export const HAS_HOST = 1
export const HAS_CONTENT_LENGTH = 2
export const HAS_TRANSFER_ENCODING = 4
/** The final transfer coding is chunked. */
export const CHUNKED = 8
/** A transfer coding other than chunked and identity. */
export const OTHER_CODING = 16
export const CONNECTION_CLOSE = 32
export const CONNECTION_KEEP_ALIVE = 64
export const CONNECTION_UPGRADE = 128
export const UPGRADE_WEBSOCKET = 256
export const UPGRADE_H2C = 512
export const UPGRADE_OTHER = 1024
export const EXPECT_CONTINUE = 2048

// Anomalies: what a strict sender would not have sent.
/** A line ends with LF alone. */
export const BARE_LF = 1
/** A CR that no LF follows, inside a line. */
export const BARE_CR = 2
/** A byte below 0x20 other than HT, CR and LF in a reason phrase or a field line (in a request line it is invalid). */
export const CONTROL_BYTE = 4
/** A field continued on the next line (RFC 9112 §5.2), or white space before the first field (§2.2). */
export const OBS_FOLD = 8
/** White space inside a field name or between name and colon (RFC 9112 §5.1). */
export const FIELD_NAME_SPACE = 16
/** A field line with no colon or no name. */
export const MALFORMED_FIELD = 32
export const BAD_CONTENT_LENGTH = 64
/** Content-Length given more than once, with the same value. */
export const DUPLICATE_CONTENT_LENGTH = 128
/** Content-Length given more than once, with different values; the first is reported. */
export const CONFLICTING_CONTENT_LENGTH = 256
/** Both Content-Length and Transfer-Encoding: a smuggling attempt, or a very old server. */
export const LENGTH_AND_ENCODING = 512
/** Chunked applied twice, or before another coding (then the message is not taken as chunked). */
export const CHUNKED_NOT_FINAL = 1024
/** More than one Host field; the first is reported. */
export const DUPLICATE_HOST = 2048
/** More than one space between the words of the start line, or white space at its end. */
export const START_LINE_SPACE = 4096
/** A space inside the request target. */
export const TARGET_SPACE = 8192
/** A version other than 1.0 and 1.1, or one that is not written as two digits (then 1.0 is reported). */
export const ODD_VERSION = 16384
/** A request line without version. */
export const NO_VERSION = 32768
/** No space after the status code. */
export const STATUS_SUFFIX = 65536

// Why a start line is not one of HTTP.
export const INVALID_METHOD = 1
export const INVALID_TARGET = 2
export const INVALID_VERSION = 3
export const INVALID_STATUS = 4
/** A response was asked for and the bytes do not start with `HTTP/`. */
export const INVALID_NOT_RESPONSE = 5

/** Longest method. */
export const METHOD_BYTES_MAX = 32
// Numbers of the methods that the scan treats apart; the others are in http-tables.ts.
export const METHOD_GET = 1
export const METHOD_HEAD = 2
export const METHOD_POST = 3
export const METHOD_CONNECT = 6

// Tables. Known methods: open addressing, linear probing, never full.
//
//     slot  │ id i32 (0: empty) │ length i32 │ name, 24 bytes, zero-padded │
export const METHOD_SLOTS = 128
export const METHOD_SLOT_BYTES = 32
export const METHOD_SLOT_SHIFT = 25
export const METHOD_HASH = -1640531535
/** Field names by length, a word each, right after the methods. */
export const FIELD_NAME_SLOTS = 32
