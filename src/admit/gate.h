/*
 * gate: how many at once, who waits, and in what order; for all processes of a server together.
 *
 * A route has so many tokens and a bounded queue. Both are records of one table in shared memory: a
 * ticket waits, or holds a token, and names its owner (worker slot and generation), so that what a
 * dead worker held comes back. The queue is fair: deficit round-robin over flows (users), and
 * within a flow the earliest deadline first, then first come. Who gives a token back, or lets a
 * ticket go, gives the free token to the next at once and is told which worker is to be woken.
 *
 * Source:  Shreedhar and Varghese, "Efficient fair queueing using deficit round robin" (1995); the
 * cost of a request is its weight (1 by default). Units:   _ns nanoseconds of the monotonic clock,
 * which all processes of a machine share. Owner:   gates_new maps, gates_free unmaps; the mapping
 * is inherited by fork. Threads: any, of any process. One robust mutex a route; nothing blocks
 * inside. Crash:   a holder of the mutex that dies leaves a route that is rebuilt from its tickets.
 */
#ifndef WEIR_ADMIT_GATE_H
#define WEIR_ADMIT_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

struct gates;

#define GATE_ROUTES_MAX 256    /* names of routes that ever were; see gates_route */
#define GATE_TICKETS_MAX 65536 /* waiting or running, of all routes */
#define GATE_NONE UINT32_MAX   /* no ticket */

/* Who has a ticket; of obs/scoreboard. */
struct gate_owner {
    uint32_t slot, generation;
};

/* Limits come with every call, so that a reload changes them for the requests that come. */
struct gate_limits {
    uint32_t concurrency; /* >= 1 */
    uint32_t queue_size;
    int64_t wait_ns; /* longest wait */
};

enum gate_verdict {
    GATE_ENTERED = 0, /* holds a token */
    GATE_QUEUED,      /* waits; its owner is told by gates_take_granted */
    GATE_FULL,        /* the queue is full, or all tickets are in use */
    GATE_LATE, /* it would wait longer than wait_ns or its deadline allows: refused at once */
};

struct gate_ask {
    uint32_t route; /* of gates_route */
    struct gate_limits limits;
    struct gate_owner owner;
    uint64_t flow;       /* hash of the user or address; equal flows share a turn */
    uint32_t weight;     /* >= 1 */
    int64_t deadline_ns; /* it is useless after; INT64_MAX: never */
    uint64_t cookie;     /* the owner's; given back by gates_take_granted */
};

struct gate_answer {
    uint32_t ticket;     /* GATE_NONE unless ENTERED or QUEUED */
    uint32_t position;   /* from 1: so many would start before it and itself; also when refused. 0 =
                            ENTERED */
    int64_t expected_ns; /* estimated wait, from the route's own running mean of how long a token is
                            held; 0 = unknown */
};

/* NULL: no memory. */
WEIR_MUST_USE struct gates *gates_new(void);
void gates_free(struct gates **g);

/* The route's number; the same name has the same number in every process and after a reload.
 * GATE_NONE: all are in use (then the oldest that nobody holds a ticket of is taken over; if there
 * is none, this). */
WEIR_MUST_USE uint32_t gates_route(struct gates *g, const char *name);

WEIR_MUST_USE enum gate_verdict gates_enter(struct gates *g, const struct gate_ask *ask,
                                            int64_t now_ns, struct gate_answer *out);

/* Slots of workers that are to be woken: each has been granted something. The caller writes to
 * their eventfds. */
struct gate_wakes {
    uint32_t n;
    uint32_t slots[16]; /* without repetition; if more are to be woken, the rest stays for the next
                         * call: n == 16, call gates_pump */
};

/* Give a token back, or stop waiting; also where the grant has just come. The ticket ends. held:
 * what the time of holding says of the route's speed counts (false for runs that failed at once).
 */
void gates_leave(struct gates *g, uint32_t ticket, bool held, int64_t now_ns,
                 struct gate_wakes *wakes);

/* Hand free tokens to who waits (after limits grew, after a sweep). */
void gates_pump(struct gates *g, uint32_t route, const struct gate_limits *limits, int64_t now_ns,
                struct gate_wakes *wakes);

/* Cookies of the owner's tickets that were granted since the last call; at most `most`, returns how
 * many. A ticket whose deadline or wait has passed is never granted: its owner drops it by
 * gates_leave (it has the time itself). */
unsigned gates_take_granted(struct gates *g, struct gate_owner owner, uint64_t *cookies,
                            unsigned most);

/* All that a dead owner had comes back; every generation of the slot below `generation` too. */
void gates_sweep(struct gates *g, struct gate_owner owner, int64_t now_ns,
                 struct gate_wakes *wakes);

struct gate_stats {
    uint32_t running, waiting;
    int64_t head_ns;      /* since when the longest waiter waits; 0 = none */
    int64_t mean_held_ns; /* running mean of how long a token is held; 0 = unknown */
    uint64_t entered, queued, full, late, left; /* totals; left: stopped waiting by itself */
    int64_t waited_ns;                          /* total time that granted tickets waited */
    uint32_t flows;                             /* that wait */
};
void gates_stats(struct gates *g, uint32_t route, struct gate_stats *out);

/* The flows with most waiting, largest first; how many were written. For the status page. */
struct gate_flow {
    uint64_t flow;
    uint32_t waiting;
};
unsigned gates_flows(struct gates *g, uint32_t route, struct gate_flow *out, unsigned most);

/* Where a waiting ticket stands now, from 1; 0: it does not wait. */
uint32_t gates_position(struct gates *g, uint32_t ticket, int64_t *expected_ns);

#endif
