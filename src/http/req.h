/*
 * req: one request head as every handler sees it.
 *
 * Owner:   all slices point into the bytes that were parsed; who parsed them
 *          keeps these alive (serve/exchange: the request's own arena).
 * Threads: written by the parser and by http/proxy (trusted proxies) before the
 *          request is handed on, read-only afterwards.
 * Source:  RFC 9112 §3 (request line), §5 (fields), §6 (framing); RFC 9110 §7.
 */
#ifndef WEIR_HTTP_REQ_H
#define WEIR_HTTP_REQ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* Fields that the core itself looks at; all others are HDR_OTHER. */
enum hdr {
    HDR_OTHER = 0,
    HDR_HOST,
    HDR_CONTENT_LENGTH,
    HDR_CONTENT_TYPE,
    HDR_TRANSFER_ENCODING,
    HDR_CONNECTION,
    HDR_EXPECT,
    HDR_UPGRADE,
    HDR_COOKIE,
    HDR_USER_AGENT,
    HDR_REFERER,
    HDR_FORWARDED,
    HDR_X_FORWARDED_FOR,
    HDR_X_FORWARDED_PROTO,
    HDR_X_FORWARDED_HOST,
    HDR_X_FORWARDED_PORT,
    HDR_X_FORWARDED_BY,
    HDR_TRAILER,
    HDR_TE,
    HDR_AUTHORIZATION, /* at most 30: serve keeps them as bits */
};

struct field {
    struct slice name;  /* as sent, a token */
    struct slice value; /* without OWS at both ends; no CR, LF or NUL */
    enum hdr id;
    bool dropped; /* not to be shown to the application (untrusted proxy header, underscore) */
};

enum req_form {
    REQ_ORIGIN = 0, /* /path?query */
    REQ_ABSOLUTE,   /* http://host/path?query */
    REQ_AUTHORITY,  /* CONNECT host:port */
    REQ_ASTERISK,   /* OPTIONS * */
};

enum req_framing {
    REQ_BODY_NONE = 0, /* no content: neither length nor chunked, or length 0 */
    REQ_BODY_LENGTH,   /* exactly content_length bytes, >= 1 */
    REQ_BODY_CHUNKED,
};

struct req {
    struct slice method; /* token, case kept */
    struct slice target; /* as sent, whole */
    struct slice path;   /* still percent-encoded, fragment cut; "*" for OPTIONS *, "" for CONNECT */
    struct slice query;  /* without the question mark; fragment cut */
    struct slice host;   /* authority in force: of an absolute target, else of Host; may be "" */
    struct slice scheme; /* "http" unless an absolute target or a trusted proxy says otherwise */
    enum req_form form;
    uint8_t minor; /* HTTP/1.minor: 0 or 1 */
    bool head;     /* method is HEAD */

    struct field *fields; /* in the order sent */
    unsigned n_fields;
    bool underscores; /* the name of a field holds '_' */
    bool folded;      /* a value runs over several lines (then it holds CR); only with H1_OBS_FOLD */

    enum req_framing framing;
    uint64_t content_length; /* meaningful with REQ_BODY_LENGTH; 0 otherwise */
    bool has_content_length; /* the field was sent (it may say 0) */
    bool keep_alive;         /* the client allows another request on this connection */
    bool expect_continue;    /* Expect: 100-continue of an HTTP/1.1 client that announced content */
};

/* The value of the first field of this name; empty: there is none. */
static inline struct slice req_field(const struct req *r, struct slice name)
{
    for (unsigned i = 0; i < r->n_fields; i++)
        if (slice_ieq(r->fields[i].name, name))
            return r->fields[i].value;
    return (struct slice){0};
}

#endif
