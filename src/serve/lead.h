/*
 * lead: who leads the loop, inline runs, monitor, burst, places. Knows no Python and no HTTP.
 *
 * Exactly one thread at a time leads: it turns the loop, without the application's lock. When a
 * turn returns with jobs ready, the leader runs them itself, inline. A monitor thread looks every
 * tick (1 ms): where one inline run, or the wait for the application's lock before it, is
 * still the same one, it deposes the leader; another thread takes the loop and the rest of the ready queue,
 * and the deposed thread ends its job as a plain application thread.
 *
 * The reserved lane: where all places are taken, one job that carries `reserved` may be inside the application
 * besides, in a thread of its own, and the others wait ahead of those that do not carry it. Where a place is free
 * all jobs are equal.
 *
 * Threads: each function says who may call it. "Leader" means: inside ops->turn or ops->done_leading.
 * Owner:   jobs belong to the caller; between lead_push and the done callback lead only links them.
 * Source:  docs/decisions/0002; the idea is the Go scheduler's hand-off of a P in a system call.
 */
#ifndef WEIR_SERVE_LEAD_H
#define WEIR_SERVE_LEAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/list.h"

struct lead;

/* Embedded in what is to be run. Zero the struct and list_init(&node) before the first use. */
struct lead_job {
    struct list node;  /* on the ready queue while waiting; private to lead */
    int64_t pushed_ns; /* monotonic time of lead_push, to a tick; private to lead */
    bool reserved;     /* may use the reserved lane; the caller's, not changed while it waits */
};

struct lead_ops {
    /* Leader: one turn of the loop. With may_block the turn may wait for events until wake. */
    void (*turn)(void *ctx, bool may_block);
    /* Any thread: end a blocked turn soon (uv_async_send). Cheap when repeated. */
    void (*wake)(void *ctx);
    /* In a new thread, before anything else of it; NULL *local allowed. 0 or -errno. */
    int (*thread_start)(void *ctx, void **local);
    /* In the thread, after everything else of it. */
    void (*thread_stop)(void *ctx, void *local);
    /* Take and release the application's lock (the GIL); enter may block for long. */
    void (*enter)(void *ctx, void *local);
    void (*leave)(void *ctx, void *local);
    /* Run one job to its end; between enter and leave, in any thread. May block for ever. */
    void (*run)(void *ctx, void *local, struct lead_job *job);
    /* Leader: the job it ran inline has ended; the leader may touch everything. The application's lock may be
     * held, so: memory only, no system call that can block. May call lead_push. */
    void (*done_leading)(void *ctx, struct lead_job *job);
    /* Any thread that does not lead: its job has ended; hand it to the leader by message. The application's
     * lock may be held: it must not wait for anybody who may wait for that lock. */
    void (*done_away)(void *ctx, struct lead_job *job);
};

struct lead_config {
    unsigned places_min; /* threads kept when idle, >= 1 */
    unsigned places_max; /* most jobs inside the application at once, >= places_min */
    unsigned tick_us;    /* period of the monitor; 0 = 1000 */
    unsigned idle_ms;    /* a thread beyond places_min ends after so long without work; 0 = 30,000 */
    unsigned batch;      /* most jobs run inline between two turns; 0 = 16 */
    unsigned stack_bytes;/* 0 = the system's default */
    bool monitor_off;    /* for instruction counting only: nobody is ever deposed */
    /* One place and one thread more, for jobs that carry `reserved`. Nothing with places_max == 1: that may be an
     * application that is not thread-safe. */
    bool reserved_lane;
    /* Where others can see the places taken and the jobs that wait for one; lent until lead_free, written by
     * lead alone, set to 0 by lead_new. NULL: nobody looks. */
    _Atomic uint32_t *busy, *waiting;
};

struct lead_stats {
    unsigned threads;     /* that exist */
    unsigned busy;        /* places taken: inside the application or about to be */
    unsigned reserved;    /* 1: the reserved lane is taken; not part of busy */
    unsigned waiting;     /* jobs in the ready queue */
    uint64_t inline_runs; /* jobs run by the leader to their end */
    uint64_t away_runs;   /* jobs that ended outside leadership */
    uint64_t deposed;     /* during a run */
    uint64_t deposed_gil; /* while waiting for the application's lock */
    uint64_t burst;       /* jobs started by a burst */
    uint64_t lane_runs;   /* jobs that ran in the reserved lane; they count as away_runs, too */
    bool contended;       /* the queue is being run by a runner instead of inline */
    int64_t oldest_ns;    /* monotonic time the head of the queue was pushed; 0 = empty */
};

/* Any thread. 0 or -1 with a sentence. ops and *config are copied. */
WEIR_MUST_USE int lead_new(struct lead **out, const struct lead_config *config,
                           const struct lead_ops *ops, void *ctx, struct err *e);

/* Any thread: start the monitor and the first threads; returns at once. 0 or -1 (no thread can be made; then
 * lead_join and lead_free as after lead_stop). */
WEIR_MUST_USE int lead_start(struct lead *l, struct err *e);

/* Leader: a job is ready to run. */
void lead_push(struct lead *l, struct lead_job *job);

/* Leader, inside ops->done_leading only: the same, ahead of everything that waits. For the next job of
 * a client whose answers go out together; the caller bounds how often in a row. */
void lead_push_next(struct lead *l, struct lead_job *job);

/* Leader: take a job back that has not started; true: it is off the queue and will never run. */
WEIR_MUST_USE bool lead_cancel(struct lead *l, struct lead_job *job);

/* Any thread (also one without a lead thread's role): stop leading after the present turn; no job is started any more. Threads inside the
 * application go on until their job ends (its done_away is still called). */
void lead_stop(struct lead *l);

/* Not a lead thread: wait until no thread of it is left, or until `timeout_ms` passed (-1 = no limit). Returns the
 * number of threads still inside the application. */
WEIR_MUST_USE unsigned lead_join(struct lead *l, int timeout_ms);

/* After lead_join returned 0. *l becomes NULL. */
void lead_free(struct lead **l);

/* Any thread. */
void lead_stats(struct lead *l, struct lead_stats *out);

#endif
