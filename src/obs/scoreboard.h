/*
 * scoreboard: what all processes of one server know of each other. Shared memory, one slot a
 * worker.
 *
 * The supervisor maps it before the first fork. A worker writes its own slot; the supervisor and
 * the other workers read it. Numbers may be a moment old; nothing here decides who owns what.
 *
 * Owner:   the supervisor; the mapping is inherited by fork and goes with the last process.
 * Threads: every field is atomic. `open` is written by the worker's leader alone, `busy` by any of
 *          its threads, the supervisor's fields by the supervisor alone.
 */
#ifndef WEIR_OBS_SCOREBOARD_H
#define WEIR_OBS_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "obs/counters.h"

/* The life of a worker, as its slot tells it. */
enum worker_state {
    WORKER_NONE = 0, /* the slot is free */
    WORKER_BOOTING,  /* forked; imports the application */
    WORKER_READY,    /* accepts connections */
    WORKER_DRAINING, /* accepts none any more; finishes what it has */
    WORKER_DEAD,     /* ended; the supervisor has not yet cleared the slot */
};

/* "ready", …; "none". */
const char *worker_state_word(enum worker_state s);

/* Why a worker is to be replaced. */
enum recycle_reason {
    RECYCLE_NONE = 0,
#define RECYCLE_REASON(id, word, text) RECYCLE_##id,
#include "obs/recycle_reasons.def"
#undef RECYCLE_REASON
    RECYCLE_REASONS
};
/* "max_rss", …, "none" for metrics and status; "max-rss", … for the log. */
const char *recycle_word(enum recycle_reason r);
const char *recycle_text(enum recycle_reason r);

struct scoreboard_slot {
    _Atomic int32_t pid;   /* 0 = free; supervisor */
    _Atomic int32_t state; /* enum worker_state; worker, and the supervisor at birth and death */
    _Atomic uint32_t generation; /* counts the processes that had this slot; supervisor */
    _Atomic uint32_t age;    /* number of the worker since the start, as Gunicorn's worker.age */
    _Atomic int64_t born_ns; /* monotonic; supervisor */
    _Atomic int64_t beat_ns; /* monotonic; the loop's sign of life; worker */
    _Atomic int32_t recycle; /* enum recycle_reason; worker, or the admin listener */
    _Atomic int32_t
        held; /* 1: takes no new connections; admin listener, and the supervisor at birth */
    _Atomic uint32_t places; /* most requests inside the application at once; worker */
    _Atomic uint32_t busy;   /* requests inside the application, or about to be; worker */
    _Atomic uint32_t
        stuck; /* of busy: answered with 504, and the thread has not come back; worker */
    _Atomic uint32_t waiting; /* requests that wait for a place; worker */
    _Atomic uint32_t open;    /* connections; worker */
    struct counters counters; /* worker; kept when the slot passes to the next process */
} __attribute__((aligned(64)));

#define SCOREBOARD_SLOTS_MAX 4096

struct scoreboard {
    uint32_t n_slots;
    _Atomic int32_t stopping;   /* the whole server stops: nobody takes connections over */
    _Atomic int32_t supervisor; /* its pid */
    _Atomic int32_t neighbour; /* another supervisor (a binary upgrade) that serves the same sockets
                                * and takes connections over: its pid; 0: none */
    _Atomic uint32_t top;      /* all slots in use are below this one; supervisor */
    _Atomic int32_t boot_told; /* a worker has said why it cannot start: the others need not */
    _Atomic uint64_t started;  /* workers that were started; supervisor */
    _Atomic uint64_t crashed;  /* of them: ended by themselves without being told to; supervisor */
    _Atomic uint64_t recycled[RECYCLE_REASONS]; /* replaced, by the reason; supervisor */
    _Atomic uint64_t reloads;                   /* that came about; supervisor */
    struct scoreboard_slot slots[];
};

/* Map a board of n_slots slots, zeroed. NULL: no memory. */
WEIR_MUST_USE struct scoreboard *scoreboard_new(unsigned n_slots);
void scoreboard_free(struct scoreboard **b);

#endif
