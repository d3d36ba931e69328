/*
 * h1_parse: bytes to struct req, strictly by RFC 9112 and RFC 9110.
 *
 * Pure: it opens nothing and allocates nothing. The head is parsed when all of
 * it is there; until then h1_head tells how far it looked, and refuses early
 * what can no longer become a valid head. Bodies in chunks are decoded
 * incrementally, at any split.
 *
 * Owner:   slices point into the caller's bytes. `reason` texts are literals.
 * Threads: none inside.
 */
#ifndef WEIR_HTTP_H1_PARSE_H
#define WEIR_HTTP_H1_PARSE_H

#include <stddef.h>

#include "base/attr.h"
#include "http/req.h"

/* Why the peer's bytes are refused. The connection is to be closed after it. */
struct h1_error {
    int status;         /* 400, 414, 417, 431, 501, 505 */
    const char *reason; /* one sentence for the body and the log; a literal */
};

/*
 * How odd heads are judged where the RFCs leave room, as bits; none: Weir's own way. What a MUST of
 * RFC 9110 or 9112 forbids is refused with all of them.
 */
enum h1_rule {
    H1_PLAIN_METHODS = 1,   /* refuse methods of less than 3 or more than 20 bytes, with small letters or '#' */
    H1_FOLD_METHOD = 2,     /* a method means what its capitals mean; its bytes stay as they are */
    H1_ANY_VERSION = 4,     /* read HTTP/0.* as 1.0 and HTTP/2.* and above as 1.1 */
    H1_VERSION_400 = 8,     /* refuse these with 400 in place of 505 */
    H1_OBS_FOLD = 16,       /* accept folded fields (RFC 9112 §5.2); the caller unfolds: h1_unfold */
    H1_OUTER_CODINGS = 32,  /* accept gzip, deflate, compress and identity before chunked: the
                               application decodes them */
};

struct h1_limits {
    size_t line_bytes;  /* request line without CRLF; more is 414; 0 = only head_bytes */
    size_t head_bytes;  /* request line, fields and the empty line, with all line ends; more is 431
                           (414 when the request line alone is longer); 0 = no limit here */
    unsigned fields;    /* number of field lines; more is 431 */
    size_t field_bytes; /* one field line without CRLF; more is 431; 0 = only head_bytes */
    bool lax_host;      /* serve HTTP/1.1 without Host, and odd Host values, as the peers do; still
                           refuse repeated Host */
    unsigned rules;     /* enum h1_rule bits */
};

enum h1_verdict {
    H1_MORE = 0, /* the bytes so far are fine; more are needed */
    H1_DONE,     /* complete; *used bytes belong to it */
    H1_BAD,      /* refused; *error says why */
};

/*
 * Look at the first `n` bytes of a connection's unread input.
 *
 * Empty lines (CRLF) before the request line are skipped and count as used (RFC 9112
 * §2.2); they do not count for limits. `*seen` (0 at the start of a head) remembers how much was
 * searched, so that bytes that dribble in cost O(n) together. `fields` has room for limits->fields.
 * On H1_DONE *req is complete (its `fields` set to the array) and *used is the head's length.
 * *error means something on H1_BAD alone. The outcome depends on the bytes, not on how they were
 * cut into calls. Fields whose name holds an underscore are marked `dropped`.
 */
WEIR_MUST_USE enum h1_verdict h1_head(const char *p, size_t n, size_t *seen,
                                      const struct h1_limits *limits, struct field *fields,
                                      struct req *req, size_t *used, struct h1_error *error);

/* ---- chunked bodies (RFC 9112 §7.1) ---- */

struct h1_chunked {
    int state;             /* private; zero-initialise the struct */
    uint64_t left;         /* bytes left of the current chunk */
    uint32_t line_bytes;   /* length so far of the current size line or trailer line */
    uint32_t extra_bytes;  /* sum of extension and trailer bytes, bounded (16 KiB -> 400/431) */
    uint32_t trailers;     /* number of trailer lines, bounded by 100 */
    char name[64];         /* name of the current trailer, to refuse forbidden ones */
    uint32_t name_bytes;
};

/*
 * Decode from p[0..n). H1_MORE: *data is a (possibly empty) run of content inside p, *used
 * the bytes consumed; call again with the rest while *used < n or *data is not empty.
 * H1_DONE: the last chunk and its trailers have ended at *used. Trailers are validated and
 * dropped (RFC 9110 §6.5.1 lets a recipient discard them).
 */
WEIR_MUST_USE enum h1_verdict h1_chunked(struct h1_chunked *c, const char *p, size_t n,
                                         size_t *used, struct slice *data,
                                         struct h1_error *error);

/* What is left of the chunk whose size line is read; 0 between chunks and inside such a line. */
uint64_t h1_chunk_left(const struct h1_chunked *c);

/* ---- helpers used elsewhere too ---- */

/* Replace each fold in the `n` bytes of a value by one space, in place; the new length. For all
 * values of a request that is marked `folded`, in the caller's own copy. */
size_t h1_unfold(char *p, size_t n);

/* RFC 9110 §5.6.2 token, at least one byte. */
bool h1_is_token(struct slice s);
/* A field value without CTLs other than HTAB (RFC 9110 §5.5); obs-text is allowed. */
bool h1_is_value(struct slice s);
/* uri-host [":" port] of RFC 9110 §7.2, RFC 3986 §3.2.2 (IP-literals are checked). May be "". */
bool h1_is_host(struct slice s);
/* Does the comma-separated list hold `token` (ASCII case-insensitive)? */
bool h1_list_has(struct slice list, struct slice token);
/* Decimal digits only, no sign, no overflow; false otherwise. */
bool h1_number(struct slice s, uint64_t *out);

#endif
