/*
 * access: one line per answered request.
 *
 * Formats: "common", "combined", "json" (one object per line), or a text with Gunicorn's atoms:
 *   %(h)s client   %(l)s -   %(u)s user of Basic credentials   %(t)s local time of the request
 *   %(r)s request line   %(m)s method   %(U)s path, percent-decoded   %(q)s query   %(H)s protocol
 *   %(s)s status   %(b)s %(B)s content bytes   %(f)s Referer   %(a)s User-Agent
 *   %(T)s %(M)s %(D)s time in whole s, ms, us   %(L)s in s with six digits   %(p)s <process id>
 *   %({name}i)s request field   %({name}o)s response field
 *   %({NAME}e)s environ, as it is when the application is done; before its time, and for answers of
 *               the server itself, REMOTE_ADDR REMOTE_PORT REQUEST_METHOD PATH_INFO QUERY_STRING
 *               REQUEST_URI RAW_URI SERVER_PROTOCOL CONTENT_TYPE CONTENT_LENGTH HTTP_*; others are "-"
 * and our own: %(request_id)s %(queue_us)s %(app_us)s %(close_reason)s %(remote_port)s
 *   %(target)s (as sent) %(time_utc)s (ISO 8601, ms) %(x_request_id)s %(trace_id)s
 * A width, "-" and a precision work as in Python (%(m)-7s, %(a).40s), as do "d" in place of "s" for
 * numbers (%(D)08d) and %% for a percent sign.
 *
 * What a client sent is escaped (base/escape.h), so that a line is always one line and no value can
 * close its quotes; a value above 8 KiB is cut and ends in "...". The keys of JSON: docs/logs.md.
 *
 * As Gunicorn writes them (`gunicorn` of access_new): h, m, U, q and the method in r are environ variables
 * too, so that middleware that rewrites them is heard; a value that is there and empty is nothing, not "-"; an
 * atom that nobody knows is "-".
 *
 * Memory:  the line's buffer is kept between lines: no heap call in the steady path.
 * Threads: access_write from one thread at a time.
 */
#ifndef WEIR_OBS_ACCESS_H
#define WEIR_OBS_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

struct access_log;

/* What a line can say. Slices may be empty: shown as "-". */
struct access_facts {
    struct slice remote_addr; /* client, after trusted proxies */
    struct slice remote_port;
    struct slice method, path /* without query, as sent */, query, target /* as sent */, protocol;
    int status;          /* 0: the connection ended before an answer */
    uint64_t body_bytes; /* content sent */
    uint64_t request_id;
    struct slice x_request_id;     /* X-Request-Id as the application saw it */
    const unsigned char *trace_id; /* 16 bytes, lent; NULL: none */
    int64_t wall_ns;          /* when the head was complete */
    int64_t total_ns;         /* from the complete head to the last byte handed to the kernel */
    int64_t queue_ns;         /* of it: waiting for a place */
    int64_t app_ns;           /* of it: inside the application */
    const char *close_reason; /* NULL, or why the answer was cut */
    /* Look a request field up by its lower-case name; empty slice = not sent. Response fields
     * likewise. */
    struct slice (*request_field)(const void *arg, struct slice name);
    struct slice (*response_field)(const void *arg, struct slice name);
    const void *arg;
    /* Values of access_environ's names, in its order; .p NULL: not there. NULL: no environ was made. */
    const struct slice *environ_values;
};

/* Open the log `path` ("-" = standard output) with `format`; `gunicorn`: see above. -1 and a sentence: unknown atom,
 * unclosed parenthesis, file that cannot be opened. */
WEIR_MUST_USE int access_new(struct access_log **out, const char *path, const char *format,
                             bool gunicorn, struct err *e);
/* The environ variables that the format asks for; lent while the log lives. */
unsigned access_environ(const struct access_log *a, const char *const **names);
void access_write(struct access_log *a, const struct access_facts *f);
void access_free(struct access_log **a);

#endif
