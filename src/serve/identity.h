/*
 * identity: what a request is called, here and in other services: its X-Request-Id and its trace.
 *
 * What a client says is taken where it is plain and said once (obs/trace.h); else it gets new ones.
 * With `export` we record a span of each request that is sampled, and the application's spans are
 * its children; without, they are children of whoever asked us.
 *
 * Owner:   the texts are lent: of the head, or of the struct itself, which must not move.
 * Threads: none inside; the source is the loop's.
 */
#ifndef WEIR_SERVE_IDENTITY_H
#define WEIR_SERVE_IDENTITY_H

#include "http/req.h"
#include "obs/trace.h"

struct identity_rules {
    bool request_id;   /* conf request-id */
    bool trace;        /* conf trace-context */
    bool export;       /* conf otlp-endpoint: spans are recorded */
    unsigned permille; /* of the traces begun here that are sampled */
};

struct identity {
    struct slice request_id;     /* 1 to REQUEST_ID_BYTES_MAX bytes; .n 0: not asked for */
    struct trace_context trace;  /* with `traced` */
    bool traced, begun;          /* begun: by this request */
    char made[REQUEST_ID_BYTES]; /* what request_id points to where it is new */
};

/* Fill in all of *id. Fields that are dropped count as not sent. */
void identity_take(struct identity *id, const struct req *r, const struct identity_rules *rules,
                   struct trace_source *s);

#endif
