/*
 * trace: the identity of a request across services: X-Request-Id and W3C trace context.
 *
 * Source:  W3C Trace Context (Recommendation 2021), sections 3.2, 3.3: traceparent
 *          "00-<32 hex trace-id>-<16 hex parent-id>-<2 hex flags>", tracestate passed on as it
 *          came.
 * Owner:   the generator is the caller's; texts go where he says.
 * Threads: one a generator.
 * fork:    after it each process makes a generator of its own, or ids come twice.
 */
#ifndef WEIR_OBS_TRACE_H
#define WEIR_OBS_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

/* Where new ids come from: xoshiro256++ from a random beginning. Unique, no system call each, some
 * 30 instructions for 16 bytes; not secret: who has seen many can tell the next (nothing rests on
 * it). */
struct trace_source {
    uint64_t s[4];
};
/* 0, or -errno: no random bytes. */
WEIR_MUST_USE int trace_source_init(struct trace_source *s);

struct trace_context {
    unsigned char trace_id[16],
        parent_id[8];         /* parent: of who asks; all 0: this request begins the trace */
    unsigned char span_id[8]; /* ours */
    bool sampled;
};

/* A traceparent of a client, the only one of its request. False: none, or not valid (then a new
 * trace begins, as the recommendation says), and *t is all 0. Of a later version than 00 the parts
 * that 00 has are read (section 3.2.2); of the flags only "sampled". span_id is left 0. */
WEIR_MUST_USE bool trace_parse(struct trace_context *t, struct slice traceparent);
/* A new trace with a span of ours; sampled with a chance of `permille`/1000. */
void trace_begin(struct trace_context *t, struct trace_source *s, unsigned permille);
/* A new span_id in it: we record a span of our own. */
void trace_span(struct trace_context *t, struct trace_source *s);
/* We record none: who is called from here is a child of who asked us, or his trace would have a
 * gap. For a context that was parsed. */
void trace_pass(struct trace_context *t);

#define TRACE_PARENT_BYTES 55
/* traceparent for who is called from here: trace-id, our span, flags. No NUL. */
void trace_write(char out[TRACE_PARENT_BYTES], const struct trace_context *t);

/* `n` bytes, a multiple of eight, as 2 * n digits in lower case. No NUL. */
void trace_hex(char *to, const unsigned char *from, size_t n);

#define REQUEST_ID_BYTES_MAX 64
/* May a client's X-Request-Id be taken? 1 to 64 bytes of letters, digits and -_.:/+=@ */
WEIR_MUST_USE bool request_id_is_good(struct slice s);
#define REQUEST_ID_BYTES 32
/* A new one: 32 hexadecimal digits. No NUL. */
void request_id_write(char out[REQUEST_ID_BYTES], struct trace_source *s);

#endif
