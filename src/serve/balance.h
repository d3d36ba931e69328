/*
 * balance: is the connection that waits at the door mine, or another worker's?
 *
 * All workers wait at the same sockets. One that would make things uneven leaves a new connection
 * to the others for a moment: while it has no free place and another worker has one, or while it
 * has clearly more connections than another. Everything rests on the board's numbers, which may be
 * a moment old, so nobody leaves a connection for long: who was waited for may be stopped or
 * hung, and one that let a connection wait in vain is not waited for again before it gives a sign of life.
 *
 * Owner:   the caller. Reads the board, writes only its own struct.
 * Threads: none inside; one leader.
 */
#ifndef WEIR_SERVE_BALANCE_H
#define WEIR_SERVE_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "obs/scoreboard.h"

/* A worker that was waited for in vain, and what its slot said then. */
struct balance_deaf {
    int64_t beat_ns; /* 0: not deaf */
    uint64_t connections;
};

struct balance {
    const struct scoreboard *board; /* lent */
    unsigned own;                   /* slot */
    struct balance_deaf *deaf;      /* owned; one for each slot */
    bool place_seen;                /* while the present connection waits another worker had a free place */
};

/* 0 or -ENOMEM. */
WEIR_MUST_USE int balance_init(struct balance *b, const struct scoreboard *board, unsigned own);
void balance_fini(struct balance *b);

/* A connection waits: 0 = take it, else look again after so many milliseconds. held_ms: for so long it has been left
 * to others already. */
WEIR_MUST_USE unsigned balance_hold(struct balance *b, unsigned held_ms);

#endif
