/*
 * counters: what happened, as numbers.
 *
 * Owner:   one struct per worker, written by the leader alone with relaxed atomics, read by anybody.
 */
#ifndef WEIR_OBS_COUNTERS_H
#define WEIR_OBS_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

enum close_reason {
#define CLOSE_REASON(id, word, quiet, help) CLOSE_##id,
#include "obs/close_reasons.def"
#undef CLOSE_REASON
    CLOSE_REASONS
};

struct counters {
    _Atomic uint64_t connections;            /* accepted */
    _Atomic uint64_t requests;               /* heads that were complete and valid */
    _Atomic uint64_t refused;                /* answered by the server without a handler, 4xx and 5xx */
    _Atomic uint64_t abandoned;              /* taken off the queue because the client had left */
    _Atomic uint64_t responses[6];           /* by hundreds of the status; [0] = none was sent */
    _Atomic uint64_t bytes_in, bytes_out;
    _Atomic uint64_t closed[CLOSE_REASONS];
    _Atomic uint64_t open;                   /* connections now */
};

/* Leader: add without a locked instruction (one writer). */
static inline void counter_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* The word of a reason, and whether it is an ordinary end. */
const char *close_reason_word(enum close_reason r);
int close_reason_quiet(enum close_reason r);

#endif
