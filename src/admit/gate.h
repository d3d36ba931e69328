/*
 * gate: how many at once, who waits, and in what order; for all processes of a server together.
 *
 * A route has so many tokens and a bounded queue. Both are records of one table in shared memory: a
 * ticket waits, or holds a token, and names its owner (worker slot and generation), so that what a
 * dead worker held comes back. The queue is fair: deficit round-robin over flows (users), and
 * within a flow the earliest deadline first, then first come. Who gives a token back, or lets a
 * ticket go, gives the free token to the next at once and is told which worker is to be woken.
 *
 * What a request costs of its flow's turns is its weight: of two flows that always wait, the one
 * whose requests weigh 1 is granted three for one of the other's, which weigh 3.
 *
 * Not fair: the queue's room. Who fills it first has it, until his rate or quota stops him.
 *
 * Source:  Shreedhar and Varghese, "Efficient fair queueing using deficit round robin" (1995).
 * Units:   _ns nanoseconds of the monotonic clock, which all processes of a machine share.
 * Owner:   gates_new maps, gates_free unmaps; the mapping is inherited by fork. It takes memory
 *          only where it is touched: 7 KB for each 64 tickets, 8 KB for each slot that waited.
 * Threads: any, of any process. One robust mutex a route; nothing blocks inside.
 * Crash:   a holder of the mutex that dies leaves a route that is rebuilt from its tickets. The
 *          turns of its flows begin anew; nothing else is lost.
 * Cost:    logarithmic in what a flow has waiting; a ticket whose time is over is dropped once,
 *          when its turn comes.
 *          gates_sweep, gates_stats, gates_flows and a rebuild look at all tickets of a route.
 */
#ifndef WEIR_ADMIT_GATE_H
#define WEIR_ADMIT_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

struct gates;

#define GATE_ROUTES_MAX 256 /* names of routes that ever were; see gates_route */
/* Waiting or running, of all routes. 64 are never used, and a route takes them 64 at a time. */
#define GATE_TICKETS_MAX 65536
#define GATE_SLOTS_MAX 4096 /* as SCOREBOARD_SLOTS_MAX */
#define GATE_WEIGHT_MAX 63  /* a larger weight counts as this */
#define GATE_SHARE 2
#define GATE_NONE UINT32_MAX /* no ticket */

/* Who has a ticket; of obs/scoreboard. */
struct gate_owner {
    uint32_t slot, generation;
};

/* Limits come with every call, so that a reload changes them for the requests that come. While old
 * and new processes serve together, the newest concurrency that was told holds for all. */
struct gate_limits {
    uint32_t concurrency; /* >= 1 */
    uint32_t queue_size;
    int64_t wait_ns; /* longest wait */
    int64_t made_ns; /* when somebody decided so */
};

enum gate_verdict {
    GATE_ENTERED = 0, /* holds a token */
    GATE_QUEUED,      /* waits; its owner is told by gates_take_granted */
    GATE_FULL,        /* the queue is full, or all tickets are in use */
    GATE_LATE, /* its deadline has passed, or it would wait longer than that or wait_ns allow:
                * refused at once. Never while a token is free, and without an estimate only
                * for a deadline that has passed */
};

struct gate_ask {
    uint32_t route; /* of gates_route */
    struct gate_limits limits;
    struct gate_owner owner;
    uint64_t flow;   /* hash of the user or address; equal flows share a turn */
    bool shares;     /* its flow may wait with at most GATE_SHARE times the free room of the queue
                      * (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): alone it gets
                      * two     thirds, and leaves room for others; beyond that: GATE_FULL */
    uint32_t weight; /* >= 1; more than GATE_WEIGHT_MAX counts as that */
    int64_t deadline_ns; /* it is useless after; INT64_MAX: never */
    uint64_t cookie;     /* the owner's; given back by gates_take_granted */
};

/* Position: how many start until this one has, itself included. An estimate that takes all for
 * equal weights: those of its flow that go before it, and of each other flow as many and one more,
 * if so many wait. Who comes later with an earlier deadline, or leaves, moves it. At most one turn
 * of each flow too many; of flows with more than 32 before it, an upper bound. Expected wait:
 * position x mean time that a token is held / concurrency. */
struct gate_answer {
    uint32_t ticket;   /* GATE_NONE unless ENTERED or QUEUED */
    uint32_t position; /* from 1; 0 = ENTERED. When refused: the length of the queue, and 1 */
    /* 0 = unknown, or ENTERED. LATE: of where it would stand; FULL: of position. */
    int64_t expected_ns;
};

/* NULL: no memory. */
WEIR_MUST_USE struct gates *gates_new(void);
void gates_free(struct gates **g);

/* The route's number; the same name has the same number in every process and after a reload.
 * GATE_NONE: all are in use (then the oldest that nobody holds a ticket of is taken over; if there
 * is none, this). */
WEIR_MUST_USE uint32_t gates_route(struct gates *g, const char *name);

/* Where ask->limits are larger than before, those that wait are granted first; who is to be woken
 * for it comes with the next call that tells: see gates_wakes. */
WEIR_MUST_USE enum gate_verdict gates_enter(struct gates *g, const struct gate_ask *ask,
                                            int64_t now_ns, struct gate_answer *out);

/* Slots of workers that are to be woken: each has been granted something, not necessarily by this
 * call. Who is told writes to their eventfds; nobody else is told of the same grants. */
struct gate_wakes {
    uint32_t n;
    uint32_t slots[16]; /* without repetition. n == 16: more may be left for the next call of
                         * anybody that has wakes; call gates_wakes until n < 16 */
};

/* Give a token back, or stop waiting; also where the grant has just come (then its cookie may have
 * been taken by another thread already, and is to be ignored). The ticket ends. held: what the time
 * of holding says of the route's speed counts (false for runs that failed at once). */
void gates_leave(struct gates *g, uint32_t ticket, bool held, int64_t now_ns,
                 struct gate_wakes *wakes);

/* Who is to be woken and nobody was told of yet. Costs one load where there is nobody. */
void gates_wakes(struct gates *g, struct gate_wakes *wakes);

/* Hand free tokens to who waits (after limits grew, after a sweep). */
void gates_pump(struct gates *g, uint32_t route, const struct gate_limits *limits, int64_t now_ns,
                struct gate_wakes *wakes);

/* Cookies of the owner's tickets that were granted since the last call; at most `most`, returns how
 * many. A ticket whose deadline or wait has passed is never granted: its owner drops it by
 * gates_leave (it has the time itself). */
unsigned gates_take_granted(struct gates *g, struct gate_owner owner, uint64_t *cookies,
                            unsigned most);

/* All that a dead owner had comes back; every generation of the slot below `generation` too.
 * Whoever has a grant and has not yet taken it is woken again: the dead one may have been told to.
 * Routes whose lock it held are rebuilt. */
void gates_sweep(struct gates *g, struct gate_owner owner, int64_t now_ns,
                 struct gate_wakes *wakes);

struct gate_stats {
    uint32_t running, waiting;
    int64_t head_ns;      /* since when the longest waiter waits; 0 = none */
    int64_t mean_held_ns; /* running mean of how long a token is held; 0 = unknown */
    /* Totals. entered: at once; left: stopped waiting, by itself, too late, or with its owner */
    uint64_t entered, queued, full, late, left;
    int64_t waited_ns; /* total time that granted tickets waited */
    uint32_t flows;    /* that wait */
};
void gates_stats(struct gates *g, uint32_t route, struct gate_stats *out);
/* The same by name, for who only looks: a route that nobody has asked for is all zero, and is not
 * made. False: its lock is not to be had within a few milliseconds (a process may be stopped that
 * holds it); *out is all zero. */
WEIR_MUST_USE bool gates_look(struct gates *g, const char *name, struct gate_stats *out);

/* The flows with most waiting, largest first; how many were written. For the status page. */
struct gate_flow {
    uint64_t flow;
    uint32_t waiting;
};
unsigned gates_flows(struct gates *g, uint32_t route, struct gate_flow *out, unsigned most);

/* Where those of one flow stand now, the first to start first; how many were written. */
struct gate_place {
    uint32_t position;   /* from 1, as in gate_answer */
    int64_t expected_ns; /* 0 = unknown */
};
unsigned gates_places(struct gates *g, uint32_t route, uint64_t flow, struct gate_place *out,
                      unsigned most);

/* Where a waiting ticket stands now, from 1, as in gate_answer; 0: it does not wait. */
uint32_t gates_position(struct gates *g, uint32_t ticket, int64_t *expected_ns);

#endif
