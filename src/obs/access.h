/*
 * access: one line per answered request.
 *
 * Formats: "common", "combined", "json", or a text with Gunicorn's atoms (%(h)s …), see
 * docs/logs.md. What a client sent is escaped, so that a line is always one line.
 *
 * Threads: access_write from one thread at a time.
 */
#ifndef WEIR_OBS_ACCESS_H
#define WEIR_OBS_ACCESS_H

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
    int status;              /* 0: the connection ended before an answer */
    uint64_t body_bytes;     /* content sent */
    uint64_t request_id;
    int64_t wall_ns;         /* when the head was complete */
    int64_t total_ns;        /* from the complete head to the last byte handed to the kernel */
    int64_t queue_ns;        /* of it: waiting for a place */
    int64_t app_ns;          /* of it: inside the application */
    const char *close_reason;/* NULL, or why the answer was cut */
    /* Look a request field up by its lower-case name; empty slice = not sent. Response fields likewise. */
    struct slice (*request_field)(const void *arg, struct slice name);
    struct slice (*response_field)(const void *arg, struct slice name);
    const void *arg;
};

/* Open the log `path` ("-" = standard output) with `format`. -1 and a sentence: unknown atom, unclosed
 * parenthesis, file that cannot be opened. */
WEIR_MUST_USE int access_new(struct access_log **out, const char *path, const char *format,
                             struct err *e);
void access_write(struct access_log *a, const struct access_facts *f);
void access_free(struct access_log **a);

#endif
