/*
 * shared: what all processes of a server have together for admission: rates, gates, keys, and the
 * descriptors by which they wake each other; and where they say what they do, for who looks.
 *
 * Each part is made when a configuration first needs it, before the fork of the processes that use
 * it, and stays for the life of the server: a reload loses no count and no place in a queue.
 *
 * Owner:   shared_new makes; shared_free unmaps and closes in this process alone.
 * Threads: shared_need in a process without threads of ours; the parts as their headers say;
 * shared_wake any.
 */
#ifndef WEIR_SERVE_SHARED_H
#define WEIR_SERVE_SHARED_H

#include "admit/keybox.h"
#include "admit/policy.h"
#include "conf/conf.h"
#include "obs/scoreboard.h"
#include "obs/telemetry.h"
#include "store/keeper_door.h"

struct shared {
    struct policy_shared parts; /* owned; NULL: not needed yet */
    int *wakes;                 /* owned; an eventfd for each slot; NULL: no gates */
    unsigned n_slots;
    uint32_t rate_keys;             /* the size that parts.rates was made with */
    const struct keeper_door *door; /* lent; where the keeper is asked; NULL: nobody is */
    struct telemetry *telemetry;    /* owned; n_slots; NULL: nobody looks */
    struct scoreboard *board;       /* of the supervisor, lent; or, with own_board, owned: where one
                                     * process serves alone and somebody looks. NULL: not known yet */
    bool own_board;
};

/* n_slots: of the scoreboard; 1 where a process serves alone. NULL: no memory. */
struct shared *shared_new(unsigned n_slots);
void shared_free(struct shared **s);

/* Make what `conf` needs and is not there. */
WEIR_MUST_USE int shared_need(struct shared *s, const struct conf *conf, struct err *e);

/* Wake the workers of these slots, and of those that had no room there. */
void shared_wake(const struct shared *s, const struct gate_wakes *wakes);

/* A worker has ended: what it held comes back, and others are woken. */
void shared_sweep(struct shared *s, struct gate_owner owner);

#endif
