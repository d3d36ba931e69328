/*
 * lead: one thread leads the loop; a monitor takes the loop away from it when a job holds it up.
 *
 * THE LEADER'S WORD is one atomic (sequence, state); the sequence grows with every run.
 *
 *     LOOP    the thread leads: it turns the loop, takes jobs, calls done_leading
 *     LOCK    it waits for the application's lock
 *     APP     it is in ops->run
 *     VACANT  nobody leads
 *
 *     LOOP -> LOCK, LOOP -> APP   the leader stores, with the next sequence
 *     LOCK -> LOOP, APP -> LOOP   the leader, by compare-and-swap
 *     LOCK -> VACANT, APP -> VACANT   the monitor, by compare-and-swap, holding the mutex: when two
 *                                 ticks have seen the same word (after lead_stop: at once)
 *     VACANT -> LOOP              any thread with nothing else to do, holding the mutex
 *     LOOP -> VACANT              the leader, after lead_stop
 *
 * Only LOCK and APP have two writers. All that can happen there, by what the monitor last read
 * (M) and what is there when its compare-and-swap comes (N):
 *     M = (n, APP),  N = (n, APP)     the monitor wins. The thread's own swap fails later: it
 * touches nothing of the leader's any more; its job ends by done_away. M = (n, LOCK), N = (n, LOCK)
 * the monitor wins. The thread has taken no job yet. When its swap fails it holds the lock at last,
 * and has become the runner. M = (n, APP),  N = (n, LOOP)    the run ended in time: the monitor
 * loses and does nothing. The M = (n, LOCK), N = (n, LOOP)    same. (It loses against LOOP whatever
 * the sequence.) M = (n, x),    N = (n + k, y)   another run: the sequence differs, the monitor
 * loses. M = (n, x),    N = (n, VACANT)  cannot be: the monitor alone goes there while threads
 * lead. Two threads that want the vacant loop both hold the mutex; the second one sees LOOP. With
 * 62 bits the sequence does not come round. It follows that
 *   - at most one thread is between a successful entry to LOOP and its next failure to return
 * there;
 *   - a job has one end: done_leading, where the swap out of APP succeeded, else done_away;
 *   - what is the leader's (batch, fresh) has one owner: the thread in LOOP; the monitor from
 *     its successful swap until it releases the mutex; then the thread that claims the loop.
 *
 * JOBS wait on three lists, in this order: batch (what the leader is about to run), ready (shared,
 * under the mutex), fresh (pushed since). Being deposed, or a cancel, joins them into ready.
 *
 * WHO CARES for a job on ready, so that no wake-up is lost (all of it under the mutex):
 *   - a starter: a thread that has been given a place and will take one job when it is up;
 *   - the runner, in contended mode: a thread that works on the queue until it is empty;
 *   - a thread that ends its job, when `skipped` says that the queue found no place (then all
 *     places are taken, and whoever gives one back sees `skipped`);
 *   - else the leader: it never blocks in the loop with such a job left over. Where one of the
 *     first three gives up, it calls ops->wake after it has changed the state.
 *
 * PLACES are taken before the application is entered, with the thread found afterwards: one thread
 * more than places may exist, so there is always one left to lead.
 *
 * CONTENDED MODE: a leader that was deposed in LOCK is the runner from then on. The runner has a
 * word of its own, with VACANT = there is none, LOCK = not in ops->run, APP = in it; the monitor
 * retires a runner as it deposes a leader, but only from APP. There is one runner at most, so one
 * thread at most waits for the lock with the queue behind it, and the leader does not wait at all.
 * A retired runner's depositions count for the burst like a leader's: starters wait for the lock
 * too, but those that will sleep leave it at once, and those that compute would get there one by
 * one anyhow.
 *
 * THE RESERVED LANE is one place outside `busy`, for a job that carries `reserved` when there is no
 * other place, and never for another: its thread (ROLE_LANE) takes reserved jobs alone, and is neither
 * leader nor runner meanwhile. So with the lane one thread more may exist, and there is still one left
 * to lead. Whoever finds no place (`skipped` is set first: a thread that is made releases the mutex)
 * moves the reserved jobs of ready to its front and, when the lane is free, finds a thread for it; who
 * ends a job in the lane takes the next one. `unsorted` says that there may be reserved jobs
 * elsewhere on ready than at its front. A job that is pushed costs the look at its flag and no more.
 *
 * Lock order: the application's lock, then the mutex. No callback is called with the mutex held.
 */
#include "serve/lead.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"

static const unsigned TICK_US = 1000;
static const unsigned TICK_US_MAX = 1000000;
static const unsigned IDLE_MS = 30000;
static const unsigned BATCH = 16;
/* The monitor falls asleep after so many ticks that saw nothing run. */
static const unsigned QUIET_TICKS = 20;
/* So many fast runs between two depositions, and the second one counts as the first in a row.
 * One fast run is not enough: in a queue of slow and fast jobs by turns each slow one would
 * hold up the fast one behind it for a tick or two, 200 of them for 0.3 s. */
static const unsigned ROW_FAST_RUNS = 8;
/* Depositions in a row start 1, 2, 4 .. 2^ROW_MAX waiting jobs; more than any number of places. */
static const unsigned ROW_MAX = 20;
/* A lock got this fast was free: nobody computes. Far below any switch interval, above a futex. */
static const int64_t QUICK_TAKE_NS = 50000;
/* Each thread that a burst starts starts so many others before its own job. */
static const unsigned FAN_OUT = 2;
/* After a thread could not be made, none is tried for so long. */
static const int64_t CREATE_PAUSE_NS = 100000000;
/* More threads than that no process makes; keeps every sum of counts far from a wrap. */
static const unsigned PLACES_MAX = 65536;

enum state {
    STATE_LOOP,   /* the thread leads */
    STATE_LOCK,   /* it waits for the application's lock (runner: between jobs) */
    STATE_APP,    /* it runs a job */
    STATE_VACANT, /* nobody has the role */
};

/* What a thread that was idle, or is new, is to do. */
enum role {
    ROLE_NONE,
    ROLE_LEAD,  /* claim the loop, if it is still vacant */
    ROLE_START, /* has a place: run one waiting job */
    ROLE_RUN,   /* has a place: be the runner */
    ROLE_LANE,  /* has the lane: run reserved jobs */
};

enum notice {
    NOTICE_ASLEEP = 1, /* the monitor sleeps: whoever starts a run wakes it */
    NOTICE_STOP = 2,   /* lead_stop was called: start nothing */
};

struct thread {
    struct list node;     /* on lead.idle while idle */
    struct lead *lead;    /* borrowed */
    struct thread *older; /* the thread that ended before, to be joined */
    void *local;          /* the application's own, from ops->thread_start */
    pthread_cond_t wake;  /* signalled after `role` was set, or on stop */
    pthread_t id;
    enum role role;  /* under the mutex */
    unsigned number; /* of its name */
};

struct lead {
    /* The leader's: written by the thread in LOOP (or by the holder of the mutex after VACANT). */
    _Atomic uint64_t word;        /* see above */
    _Atomic unsigned notice;      /* enum notice */
    _Atomic unsigned lead_n;      /* jobs on batch and fresh; others may read */
    _Atomic uint64_t inline_runs; /* for lead_stats; also tells the monitor of fast runs */
    _Atomic int64_t batch_ns;     /* when the head of the batch was pushed; 0 = no batch */
    struct list batch;            /* to be run inline now */
    struct list fresh;            /* pushed since the queue was last looked at */
    bool reserved;                /* a reserved job may be on batch or fresh */
    struct lead_ops ops;
    void *ctx;
    struct lead_config config; /* zeros replaced */
    _Atomic unsigned *busy;    /* places taken, <= places_max; see batch_take_calm. Lent, or own_busy */
    _Atomic unsigned *ready_n; /* jobs on ready; written under the mutex, others may read. Lent, or own_ready */

    /* The monitor's. */
    alignas(64) _Atomic unsigned tick; /* grows with each tick */
    _Atomic int64_t now_ns;            /* the time of the last tick */

    /* Under the mutex. */
    alignas(64) pthread_mutex_t mutex;
    struct list ready;             /* jobs that wait, the oldest first */
    struct list idle;              /* threads, the last used first */
    _Atomic unsigned starters;     /* places among them whose thread has not taken its job yet */
    unsigned launch;               /* starters among them that have no thread yet */
    unsigned takers;               /* threads on their way to claim the loop */
    unsigned threads;              /* that exist and stay, <= places_max + 1, and 1 with the lane */
    unsigned ending;               /* threads that will do nothing more but end */
    unsigned named;                /* threads ever made */
    bool skipped;                  /* the queue found no place free */
    bool kick;                     /* ops->wake is owed; lead_unlock pays */
    bool unsorted;                 /* reserved jobs on ready may stand behind others */
    bool lane_taken;               /* a reserved job is inside beyond the places, or about to be */
    uint64_t lane_runs;            /* for lead_stats */
    _Atomic bool contended;        /* a runner works on the queue, not the leader */
    bool started;                  /* lead_start was called */
    bool monitor_alive;            /* its thread has not ended */
    bool monitor_joinable;         /* its thread was made and not joined */
    _Atomic uint64_t runner;       /* the runner's word; set to LOCK and VACANT under the mutex */
    uint64_t runner_fast;          /* jobs that runners ended in time */
    uint64_t away_runs, burst;     /* for lead_stats */
    uint64_t deposed, deposed_gil; /* for lead_stats */
    unsigned row;                  /* depositions in APP in a row */
    uint64_t row_fast;             /* fast runs at the last of them */
    int64_t create_after_ns;       /* no thread is made before */
    struct thread *dead;           /* the thread that ended last, to be joined */
    pthread_t monitor;             /* its thread */
    pthread_cond_t monitor_wake;   /* NOTICE_ASLEEP was cleared */
    pthread_cond_t ended;          /* a thread has ended, or the monitor */
    _Atomic unsigned own_busy, own_ready; /* where nobody else looks */
};

/* ---- small things ---- */

static inline enum state state_of(uint64_t word)
{
    return (enum state)(word & 3);
}

/* The same run in another state. */
static inline uint64_t word_as(uint64_t word, enum state state)
{
    return (word & ~(uint64_t)3) | (uint64_t)state;
}

/* The next run. */
static inline uint64_t word_next(uint64_t word, enum state state)
{
    return ((word | 3) + 1) | (uint64_t)state;
}

static inline bool word_swap(_Atomic uint64_t *at, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(at, &from, to);
}

/* A counter with one writer at a time. */
static inline void count(_Atomic unsigned *n, int change)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + (unsigned)change,
                          memory_order_relaxed);
}

static inline unsigned count_of(_Atomic unsigned *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

static inline unsigned tick_of(struct lead *l)
{
    return atomic_load_explicit(&l->tick, memory_order_relaxed);
}

static inline bool stopping(struct lead *l)
{
    return (atomic_load_explicit(&l->notice, memory_order_relaxed) & NOTICE_STOP) != 0;
}

/* Put `node` first. */
static inline void list_add_first(struct list *head, struct list *node)
{
    list_add(head->next, node);
}

/* Move all of `from` before the node `at`: before a head is last, before its next is first. */
static inline void list_join(struct list *at, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = at->prev;
    at->prev->next = from->next;
    from->prev->next = at;
    at->prev = from->prev;
    list_init(from);
}

static inline struct lead_job *job_of(struct list *node)
{
    return container_of(node, struct lead_job, node);
}

static void lead_lock(struct lead *l)
{
    must(pthread_mutex_lock(&l->mutex) == 0);
}

static void lead_unlock(struct lead *l)
{
    bool kick = l->kick;
    l->kick = false;
    must(pthread_mutex_unlock(&l->mutex) == 0);
    if (WEIR_UNLIKELY(kick))
        l->ops.wake(l->ctx);
}

#ifdef __APPLE__
/* Conditions know the wall clock only; a step of it makes a wait longer or shorter, once. */
static const clockid_t COND_CLOCK = CLOCK_REALTIME;
#else
static const clockid_t COND_CLOCK = CLOCK_MONOTONIC;
#endif

static struct timespec time_after_ms(int64_t ms)
{
    int64_t ns = clock_read_ns(COND_CLOCK) + ms * 1000000;
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static int cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);
    if (rc)
        return rc;
#ifndef __APPLE__
    rc = pthread_condattr_setclock(&attr, COND_CLOCK);
#endif
    if (rc == 0)
        rc = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return rc;
}

static void thread_name(const char *name)
{
#ifdef __APPLE__
    pthread_setname_np(name);
#else
    pthread_setname_np(pthread_self(), name);
#endif
}

/* ---- queue and places ---- */

/* The leader, or after VACANT the holder of the mutex: all jobs that wait go to ready. */
static void queue_join_locked(struct lead *l)
{
    bool to_front = !list_empty(&l->batch) && !list_empty(&l->ready);
    if (l->reserved || (to_front && job_of(l->ready.next)->reserved))
        l->unsorted = true;
    l->reserved = false;
    list_join(l->ready.next, &l->batch);
    list_join(&l->ready, &l->fresh);
    count(l->ready_n, (int)count_of(&l->lead_n));
    atomic_store_explicit(&l->lead_n, 0, memory_order_relaxed);
    atomic_store_explicit(&l->batch_ns, 0, memory_order_relaxed);
}

static struct lead_job *queue_pop_locked(struct lead *l)
{
    if (list_empty(&l->ready) || stopping(l))
        return NULL;
    struct lead_job *job = job_of(l->ready.next);
    list_del(&job->node);
    count(l->ready_n, -1);
    return job;
}

static void queue_put_back_locked(struct lead *l, struct lead_job *job)
{
    l->unsorted = true;
    list_add_first(&l->ready, &job->node);
    count(l->ready_n, 1);
}

/* Reserved jobs of ready go to its front, in their order. */
static void queue_sort_locked(struct lead *l)
{
    if (!l->unsorted)
        return;
    l->unsorted = false;
    struct list reserved;
    list_init(&reserved);
    for (struct list *i = l->ready.next, *next; i != &l->ready; i = next) {
        next = i->next;
        if (!job_of(i)->reserved)
            continue;
        list_del(i);
        list_add(&reserved, i);
    }
    list_join(l->ready.next, &reserved);
}

/* The first job of ready, if it is reserved. */
static struct lead_job *queue_pop_reserved_locked(struct lead *l)
{
    queue_sort_locked(l);
    bool is = !list_empty(&l->ready) && job_of(l->ready.next)->reserved;
    return is ? queue_pop_locked(l) : NULL;
}

/* Jobs that wait and that no starter will take. */
static unsigned queue_left_locked(struct lead *l)
{
    unsigned n = count_of(l->ready_n), starters = count_of(&l->starters);
    return n > starters ? n - starters : 0;
}

/* Take a place, if there is one. */
static inline bool place_take(struct lead *l)
{
    unsigned busy = count_of(l->busy);
    while (busy < l->config.places_max)
        if (atomic_compare_exchange_weak(l->busy, &busy, busy + 1))
            return true;
    return false;
}

static void place_give_back_locked(struct lead *l, unsigned n)
{
    must(atomic_fetch_sub(l->busy, n) >= n);
    /* The queue relied on the holders of places; now there is a free one, and the leader has it. */
    if (l->skipped && count_of(l->ready_n) > 0)
        l->kick = true;
    l->skipped = false;
}

/* This thread has a place and no job: does it take the next one? Only where the queue relies on
 * it. After a fast job it does not: the leader runs fast ones cheaper, so it gets the place. */
static bool place_goes_on_locked(struct lead *l, bool was_slow)
{
    return l->skipped && was_slow && state_of(atomic_load(&l->word)) != STATE_VACANT;
}

/* This thread has a place and no job: run what waits, while `go_on`, then give the place back. */
static void place_use_locked(struct lead *l, struct thread *t, bool go_on)
{
    while (go_on) {
        struct lead_job *job = queue_pop_locked(l);
        if (!job)
            break;
        lead_unlock(l);
        unsigned tick = tick_of(l);
        l->ops.enter(l->ctx, t->local);
        l->ops.run(l->ctx, t->local, job);
        l->ops.leave(l->ctx, t->local);
        l->ops.done_away(l->ctx, job);
        bool was_slow = tick != tick_of(l);
        lead_lock(l);
        l->away_runs++;
        go_on = place_goes_on_locked(l, was_slow);
    }
    place_give_back_locked(l, 1);
}

/* This thread has a place and the application's lock, not the mutex, and leads no more. `job` has
 * run, or is NULL. Returns with the mutex, without the rest. */
static void place_leave(struct lead *l, struct thread *t, struct lead_job *job, bool was_slow)
{
    l->ops.leave(l->ctx, t->local);
    if (job)
        l->ops.done_away(l->ctx, job);
    lead_lock(l);
    if (job)
        l->away_runs++;
    place_use_locked(l, t, place_goes_on_locked(l, was_slow));
}

/* The runner's word says that there is none. */
static void runner_end_locked(struct lead *l)
{
    atomic_store(&l->runner, word_as(atomic_load(&l->runner), STATE_VACANT));
}

/* ---- threads ---- */

static void *thread_main(void *arg);

static void thread_free(struct thread *t)
{
    pthread_cond_destroy(&t->wake);
    free(t);
}

/* Make a thread with all signals blocked. 0 or an errno. */
static int thread_spawn(struct lead *l, pthread_t *id, void *(*entry)(void *), void *arg)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc)
        return rc;
    if (l->config.stack_bytes)
        rc = pthread_attr_setstacksize(&attr, l->config.stack_bytes);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc == 0)
        rc = pthread_create(id, &attr, entry, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

static int thread_make(struct lead *l, enum role role, unsigned number)
{
    struct thread *t = calloc(1, sizeof *t);
    if (!t)
        return ENOMEM;
    list_init(&t->node);
    t->lead = l;
    t->role = role;
    t->number = number;
    int rc = cond_init(&t->wake);
    if (rc) {
        free(t);
        return rc;
    }
    rc = thread_spawn(l, &t->id, thread_main, t);
    if (rc)
        thread_free(t);
    return rc;
}

/* Give `role` to an idle thread; false: there is none. */
static bool thread_wake_locked(struct lead *l, enum role role)
{
    if (list_empty(&l->idle))
        return false;
    struct thread *t = container_of(l->idle.next, struct thread, node);
    list_del(&t->node);
    t->role = role;
    if (role == ROLE_LEAD)
        l->takers++;
    pthread_cond_signal(&t->wake);
    return true;
}

/* Give `role` to a new thread. Releases the mutex meanwhile: look at everything again after it. */
static bool thread_make_locked(struct lead *l, enum role role)
{
    if (l->threads > l->config.places_max + l->config.reserved_lane || stopping(l))
        return false;
    if (l->create_after_ns && clock_mono_ns() < l->create_after_ns)
        return false;
    l->create_after_ns = 0;
    l->threads++;
    if (role == ROLE_LEAD)
        l->takers++;
    unsigned number = ++l->named;
    lead_unlock(l);
    int rc = thread_make(l, role, number);
    lead_lock(l);
    if (rc == 0)
        return true;
    l->threads--;
    if (role == ROLE_LEAD)
        l->takers--;
    l->create_after_ns = clock_mono_ns() + CREATE_PAUSE_NS;
    pthread_cond_broadcast(&l->ended);
    return false;
}

/* Find threads for up to `most` of the starters that have none. Releases the mutex meanwhile. */
static void launch_locked(struct lead *l, unsigned most)
{
    for (unsigned i = 0; i < most && l->launch > 0; i++) {
        l->launch--;
        if (thread_wake_locked(l, ROLE_START) || thread_make_locked(l, ROLE_START))
            continue;
        unsigned failed = l->launch + 1;
        l->launch = 0;
        count(&l->starters, -(int)failed);
        place_give_back_locked(l, failed);
        l->kick = true;
    }
}

/* A thread could not start: what it was to do is undone. */
static void thread_failed_locked(struct lead *l, struct thread *t)
{
    l->create_after_ns = clock_mono_ns() + CREATE_PAUSE_NS;
    switch (t->role) {
    case ROLE_NONE:
        break;
    case ROLE_LEAD: /* the monitor looks for another one */
        l->takers--;
        break;
    case ROLE_START:
        count(&l->starters, -1);
        place_give_back_locked(l, 1);
        break;
    case ROLE_RUN:
        runner_end_locked(l);
        place_give_back_locked(l, 1);
        break;
    case ROLE_LANE:
        l->lane_taken = false;
        break;
    }
    l->kick = true;
}

/* Wait for a role; false: the thread is to end. */
static bool thread_idle_locked(struct lead *l, struct thread *t)
{
    list_add_first(&l->idle, &t->node);
    struct timespec until = time_after_ms(l->config.idle_ms);
    while (t->role == ROLE_NONE && !stopping(l)) {
        /* No time limit for those below the minimum. No more than that many can wait so: each of
         * them began while no more threads than that existed. */
        if (l->threads <= l->config.places_min + 1)
            pthread_cond_wait(&t->wake, &l->mutex);
        else if (pthread_cond_timedwait(&t->wake, &l->mutex, &until) == ETIMEDOUT &&
                 t->role == ROLE_NONE && l->threads > l->config.places_min + 1)
            break;
    }
    list_del(&t->node); /* harmless when a role was given */
    return t->role != ROLE_NONE;
}

/* ---- the monitor's bed ---- */

static void monitor_wake_locked(struct lead *l)
{
    if (!(atomic_load(&l->notice) & NOTICE_ASLEEP))
        return;
    atomic_store_explicit(&l->now_ns, clock_mono_ns(), memory_order_relaxed);
    atomic_fetch_and(&l->notice, ~(unsigned)NOTICE_ASLEEP);
    pthread_cond_signal(&l->monitor_wake);
}

/* After the word said that a run begins. The monitor sets ASLEEP and reads the words again before
 * it sleeps; all four accesses are sequentially consistent, so one side sees the other. The same
 * goes for STOP: true says that a run which began now came after lead_stop. */
static WEIR_COLD bool notice_look(struct lead *l)
{
    lead_lock(l);
    monitor_wake_locked(l);
    lead_unlock(l);
    return stopping(l);
}

/* ---- no place ---- */

/* This thread has the lane: run reserved jobs, while there are any. */
static void lane_use_locked(struct lead *l, struct thread *t)
{
    for (struct lead_job *job; (job = queue_pop_reserved_locked(l)) != NULL;) {
        lead_unlock(l);
        l->ops.enter(l->ctx, t->local);
        l->ops.run(l->ctx, t->local, job);
        l->ops.leave(l->ctx, t->local);
        l->ops.done_away(l->ctx, job);
        lead_lock(l);
        l->away_runs++;
        l->lane_runs++;
    }
    l->lane_taken = false;
}

/* Jobs wait and all places are taken: who gives one back will look (`skipped`). A reserved job need
 * not wait for that. May release the mutex. */
static void house_full_locked(struct lead *l)
{
    l->skipped = true;
    monitor_wake_locked(l);
    if (!l->config.reserved_lane)
        return;
    queue_sort_locked(l);
    if (l->lane_taken || list_empty(&l->ready) || !job_of(l->ready.next)->reserved)
        return;
    l->lane_taken = true;
    if (!thread_wake_locked(l, ROLE_LANE) && !thread_make_locked(l, ROLE_LANE))
        l->lane_taken = false;
}

/* ---- the runner of the contended mode ---- */

/* Somebody cares for the queue from now on: a runner, or `skipped`. False: no thread for it. May
 * release the mutex. */
static bool runner_appoint_locked(struct lead *l)
{
    uint64_t r = atomic_load(&l->runner);
    if (state_of(r) != STATE_VACANT)
        return true;
    if (!place_take(l)) {
        house_full_locked(l);
        return true;
    }
    atomic_store(&l->runner, word_next(r, STATE_LOCK));
    monitor_wake_locked(l);
    if (thread_wake_locked(l, ROLE_RUN) || thread_make_locked(l, ROLE_RUN))
        return true;
    runner_end_locked(l);
    atomic_fetch_sub(l->busy, 1);
    return false;
}

/* Take the application's lock, without the mutex; the time that took. */
static int64_t runner_enter_locked(struct lead *l, struct thread *t)
{
    lead_unlock(l);
    int64_t start_ns = clock_mono_ns();
    l->ops.enter(l->ctx, t->local);
    int64_t took_ns = clock_mono_ns() - start_ns;
    lead_lock(l);
    return took_ns;
}

/* The runner holds the application's lock and not the mutex. Run the job; false: it was retired. */
static bool runner_job(struct lead *l, struct thread *t, struct lead_job *job, uint64_t word)
{
    l->ops.run(l->ctx, t->local, job);
    if (!word_swap(&l->runner, word, word_as(word, STATE_LOCK)))
        return false;
    l->ops.done_away(l->ctx, job);
    return true;
}

/* This thread is the runner and has a place; `entered`: it holds the application's lock already.
 * It works until the queue is empty, the lock is no longer contended, or it was retired. */
static void runner_run_locked(struct lead *l, struct thread *t, bool entered)
{
    for (;; entered = false) {
        bool quick = !entered && runner_enter_locked(l, t) < QUICK_TAKE_NS;
        unsigned tick = tick_of(l);
        for (unsigned n = 0; n < l->config.batch && (n == 0 || tick == tick_of(l)); n++) {
            struct lead_job *job = queue_pop_locked(l);
            if (quick || !job) {
                runner_end_locked(l);
                if (quick) {
                    l->contended = false;
                    l->kick = true;
                }
                lead_unlock(l);
                if (job)
                    l->ops.run(l->ctx, t->local, job);
                place_leave(l, t, job, tick != tick_of(l));
                return;
            }
            uint64_t r = word_next(atomic_load(&l->runner), STATE_APP);
            atomic_store(&l->runner, r);
            monitor_wake_locked(l);
            lead_unlock(l);
            if (!runner_job(l, t, job, r)) {
                place_leave(l, t, job, true);
                return;
            }
            lead_lock(l);
            l->away_runs++;
            l->runner_fast++;
        }
        lead_unlock(l);
        l->ops.leave(l->ctx, t->local);
        lead_lock(l);
    }
}

/* ---- the leader ---- */

/* The next job of this batch: after the batch itself, what its jobs brought about (the next
 * request of the same connection), unless older ones wait. */
static inline struct lead_job *batch_pop(struct lead *l)
{
    if (list_empty(&l->batch)) {
        if (count_of(l->ready_n) > 0 || list_empty(&l->fresh))
            return NULL;
        list_join(&l->batch, &l->fresh);
    }
    struct lead_job *job = job_of(l->batch.next);
    list_del(&job->node);
    count(&l->lead_n, -1);
    return job;
}

/* Run the batch inline. The leader has a place; *word is its own. True: it still leads. False: it
 * was deposed, its work is done, its place given back, and it holds the mutex. */
static bool batch_run(struct lead *l, struct thread *t, uint64_t *word)
{
    unsigned tick = tick_of(l);
    uint64_t w = word_next(*word, STATE_LOCK);
    atomic_store(&l->word, w);
    if (WEIR_UNLIKELY(atomic_load(&l->notice) != 0))
        (void)notice_look(l);
    l->ops.enter(l->ctx, t->local);
    if (WEIR_UNLIKELY(!word_swap(&l->word, w, word_as(w, STATE_LOOP)))) {
        lead_lock(l);
        runner_run_locked(l, t, true);
        return false;
    }
    for (unsigned n = 0; n < l->config.batch && (n == 0 || tick == tick_of(l)); n++) {
        struct lead_job *job = batch_pop(l);
        if (!job)
            break;
        w = word_next(w, STATE_APP);
        atomic_store(&l->word, w);
        if (WEIR_UNLIKELY(atomic_load(&l->notice) != 0) && notice_look(l)) {
            lead_lock(l);
            queue_put_back_locked(l, job);
            lead_unlock(l);
            job = NULL;
        } else {
            l->ops.run(l->ctx, t->local, job);
        }
        if (WEIR_UNLIKELY(!word_swap(&l->word, w, word_as(w, STATE_LOOP)))) {
            place_leave(l, t, job, true);
            return false;
        }
        if (WEIR_UNLIKELY(!job))
            break;
        uint64_t runs = atomic_load_explicit(&l->inline_runs, memory_order_relaxed) + 1;
        atomic_store_explicit(&l->inline_runs, runs, memory_order_relaxed);
        l->ops.done_leading(l->ctx, job);
    }
    l->ops.leave(l->ctx, t->local);
    *word = word_as(w, STATE_LOOP);
    return true;
}

/* Take jobs for a batch off the queue, with a place; false: there are none for the leader. */
static bool batch_take_locked(struct lead *l)
{
    queue_join_locked(l);
    if (queue_left_locked(l) == 0 || stopping(l))
        return false;
    /* With no thread for a runner, the leader has to do. */
    if (l->contended && runner_appoint_locked(l))
        return false;
    /* Again: making a thread releases the mutex. */
    unsigned n = queue_left_locked(l);
    if (n == 0 || stopping(l))
        return false;
    if (!place_take(l)) {
        house_full_locked(l);
        return false;
    }
    l->skipped = false;
    if (count_of(&l->starters) == 0) {
        list_join(&l->batch, &l->ready);
    } else {
        n = n < l->config.batch ? n : l->config.batch;
        for (unsigned i = 0; i < n; i++) {
            struct list *node = l->ready.next;
            list_del(node);
            list_add(&l->batch, node);
        }
    }
    count(l->ready_n, -(int)n);
    atomic_store_explicit(&l->lead_n, n, memory_order_relaxed);
    atomic_store_explicit(&l->batch_ns, job_of(l->batch.next)->pushed_ns, memory_order_relaxed);
    return true;
}

/* The same without the mutex, for the usual case: nothing waits but what this turn has pushed, no
 * starter is about, nobody else runs the queue. What is read here grows only when the leader or a
 * runner is deposed; there is no runner while contended is false, and this thread is in LOOP. So it
 * stays as it is read. Nor can anybody set `skipped` until the place is given back. */
static inline bool batch_take_calm(struct lead *l)
{
    if (atomic_load_explicit(&l->contended, memory_order_acquire) || count_of(&l->starters) != 0 ||
        count_of(l->ready_n) != 0 || list_empty(&l->fresh) || !place_take(l))
        return false;
    list_join(&l->batch, &l->fresh);
    atomic_store_explicit(&l->batch_ns, job_of(l->batch.next)->pushed_ns, memory_order_relaxed);
    return true;
}

/* After a batch the leader gives its place back. True: jobs wait. */
static inline bool batch_end(struct lead *l)
{
    if (count_of(&l->lead_n) == 0 && count_of(l->ready_n) == 0) {
        atomic_store_explicit(&l->batch_ns, 0, memory_order_relaxed);
        atomic_fetch_sub(l->busy, 1);
        return false;
    }
    lead_lock(l);
    queue_join_locked(l);
    atomic_fetch_sub(l->busy, 1);
    bool rest = queue_left_locked(l) > 0;
    lead_unlock(l);
    return rest;
}

/* This thread has claimed the loop. Returns when it leads no more. The mutex is held before and
 * after. */
static void lead_turns_locked(struct lead *l, struct thread *t)
{
    uint64_t word = atomic_load(&l->word);
    bool rest = count_of(l->ready_n) > 0;
    lead_unlock(l);
    while (!stopping(l)) {
        l->ops.turn(l->ctx, !rest);
        rest = false;
        if (count_of(&l->lead_n) == 0 && count_of(l->ready_n) == 0)
            continue;
        bool some = batch_take_calm(l);
        if (!some) {
            lead_lock(l);
            some = batch_take_locked(l);
            lead_unlock(l);
        }
        if (some) {
            if (!batch_run(l, t, &word))
                return;
            rest = batch_end(l);
        }
    }
    lead_lock(l);
    queue_join_locked(l);
    atomic_store(&l->word, word_as(word, STATE_VACANT));
}

/* ---- a thread's life ---- */

/* Do what it is told, claim the loop when it is vacant, else be idle. */
static void thread_work_locked(struct lead *l, struct thread *t)
{
    for (;;) {
        enum role role = t->role;
        t->role = ROLE_NONE;
        switch (role) {
        case ROLE_NONE:
            break;
        case ROLE_LEAD:
            l->takers--;
            break;
        case ROLE_START:
            launch_locked(l, FAN_OUT);
            count(&l->starters, -1);
            l->burst += count_of(l->ready_n) > 0 && !stopping(l);
            place_use_locked(l, t, true);
            break;
        case ROLE_RUN:
            runner_run_locked(l, t, false);
            break;
        case ROLE_LANE:
            lane_use_locked(l, t);
            break;
        }
        if (stopping(l))
            return;
        if (state_of(atomic_load(&l->word)) == STATE_VACANT) {
            atomic_store(&l->word, word_next(atomic_load(&l->word), STATE_LOOP));
            lead_turns_locked(l, t);
        } else if (l->kick) {
            lead_unlock(l); /* pays; then look again */
            lead_lock(l);
        } else if (!thread_idle_locked(l, t)) {
            return;
        }
    }
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    struct lead *l = t->lead;
    char name[16]; /* all that Linux keeps */
    snprintf(name, sizeof name, "weir-%u", t->number);
    thread_name(name);
    int rc = l->ops.thread_start(l->ctx, &t->local);
    lead_lock(l);
    if (rc == 0)
        thread_work_locked(l, t);
    else
        thread_failed_locked(l, t);
    l->threads--;
    l->ending++;
    lead_unlock(l);
    if (rc == 0)
        l->ops.thread_stop(l->ctx, t->local);

    lead_lock(l);
    struct thread *older = l->dead;
    l->dead = t;
    l->ending--;
    pthread_cond_broadcast(&l->ended);
    lead_unlock(l);
    /* Each joins the one before it, so at most one ended thread keeps its stack. */
    if (older) {
        pthread_join(older->id, NULL);
        thread_free(older);
    }
    return NULL;
}

/* ---- the monitor ---- */

/* A job held up the leader or the runner: so will others of the queue. */
static void burst_locked(struct lead *l)
{
    uint64_t fast = atomic_load_explicit(&l->inline_runs, memory_order_relaxed) + l->runner_fast;
    if (fast - l->row_fast > ROW_FAST_RUNS)
        l->row = 0;
    l->row_fast = fast;
    l->row += l->row < ROW_MAX;
    if (l->row < 2)
        return;
    unsigned n = 1U << (l->row - 2);
    unsigned left = queue_left_locked(l), started = 0;
    while (started < n && started < left && place_take(l))
        started++;
    count(&l->starters, (int)started);
    l->launch += started;
}

/* Is a thread there to take the loop, or on its way? May release the mutex. */
static bool taker_find_locked(struct lead *l)
{
    while (l->takers == 0 && list_empty(&l->idle))
        if (!thread_make_locked(l, ROLE_LEAD))
            return false;
    return true;
}

/* Two ticks have seen this word of the leader, not in LOOP. */
static void leader_late(struct lead *l, uint64_t word)
{
    lead_lock(l);
    bool vacant = state_of(word) == STATE_VACANT;
    if (taker_find_locked(l) && (vacant ? atomic_load(&l->word) == word
                                        : word_swap(&l->word, word, word_as(word, STATE_VACANT)))) {
        (void)thread_wake_locked(l, ROLE_LEAD); /* none idle: then one is on its way */
        if (!vacant)
            queue_join_locked(l);
        if (state_of(word) == STATE_APP) {
            l->deposed++;
            burst_locked(l);
        } else if (state_of(word) == STATE_LOCK) {
            uint64_t r = atomic_load(&l->runner);
            must(state_of(r) == STATE_VACANT);
            l->deposed_gil++;
            l->contended = true;
            atomic_store(&l->runner, word_next(r, STATE_LOCK));
        }
        launch_locked(l, FAN_OUT);
    }
    lead_unlock(l);
}

/* Two ticks have seen this word of the runner, in APP. */
static void runner_late(struct lead *l, uint64_t word)
{
    lead_lock(l);
    if (word_swap(&l->runner, word, word_as(word, STATE_VACANT))) {
        l->deposed++;
        burst_locked(l);
        if (queue_left_locked(l) > 0 && !runner_appoint_locked(l))
            l->kick = true;
        launch_locked(l, FAN_OUT);
    }
    lead_unlock(l);
}

/* After lead_stop: true when nobody leads any more. */
static bool leader_stop(struct lead *l)
{
    lead_lock(l);
    uint64_t word = atomic_load(&l->word);
    if ((state_of(word) == STATE_LOCK || state_of(word) == STATE_APP) &&
        word_swap(&l->word, word, word_as(word, STATE_VACANT)))
        queue_join_locked(l);
    bool vacant = state_of(atomic_load(&l->word)) == STATE_VACANT;
    lead_unlock(l);
    return vacant;
}

/* Nothing has run for a while: sleep until a run begins. */
static void monitor_sleep(struct lead *l, uint64_t word, uint64_t runner)
{
    lead_lock(l);
    atomic_fetch_or(&l->notice, NOTICE_ASLEEP);
    if (atomic_load(&l->word) != word || atomic_load(&l->runner) != runner ||
        count_of(l->ready_n) > 0 || stopping(l))
        monitor_wake_locked(l);
    while (atomic_load(&l->notice) & NOTICE_ASLEEP)
        pthread_cond_wait(&l->monitor_wake, &l->mutex);
    lead_unlock(l);
}

static void *monitor_main(void *arg)
{
    struct lead *l = arg;
    uint64_t word_before = 0, runner_before = 0;
    unsigned quiet = 0;
    struct timespec tick = {.tv_sec = l->config.tick_us / 1000000,
                            .tv_nsec = (long)(l->config.tick_us % 1000000) * 1000};
    thread_name("weir-monitor");
    for (;;) {
        nanosleep(&tick, NULL);
        atomic_store_explicit(&l->now_ns, clock_mono_ns(), memory_order_relaxed);
        count(&l->tick, 1);
        if (stopping(l)) {
            if (leader_stop(l))
                break;
            continue;
        }
        uint64_t word = atomic_load(&l->word), runner = atomic_load(&l->runner);
        bool same = word == word_before && runner == runner_before;
        if (word == word_before && state_of(word) != STATE_LOOP)
            leader_late(l, word);
        if (runner == runner_before && state_of(runner) == STATE_APP)
            runner_late(l, runner);
        same = same && state_of(word) == STATE_LOOP && state_of(runner) == STATE_VACANT &&
               count_of(l->ready_n) == 0;
        quiet = same ? quiet + 1 : 0;
        if (quiet >= QUIET_TICKS) {
            monitor_sleep(l, word, runner);
            quiet = 0;
        }
        word_before = word;
        runner_before = runner;
    }
    lead_lock(l);
    l->monitor_alive = false;
    pthread_cond_broadcast(&l->ended);
    lead_unlock(l);
    return NULL;
}

/* ---- public ---- */

int lead_new(struct lead **out, const struct lead_config *config, const struct lead_ops *ops,
             void *ctx, struct err *e)
{
    *out = NULL;
    if (config->places_min < 1 || config->places_max < config->places_min ||
        config->places_max > PLACES_MAX)
        return err_set(e, "threads: the range %u:%u is not within 1:%u; give MIN <= MAX",
                       config->places_min, config->places_max, PLACES_MAX);
    struct lead *l = aligned_alloc(alignof(struct lead), sizeof *l);
    if (!l)
        return err_set(e, "out of memory while making the threads' table");
    memset(l, 0, sizeof *l);
    l->config = *config;
    struct lead_config *c = &l->config;
    c->reserved_lane = c->reserved_lane && c->places_max > 1;
    c->tick_us = c->tick_us == 0 ? TICK_US : c->tick_us < TICK_US_MAX ? c->tick_us : TICK_US_MAX;
    c->idle_ms = c->idle_ms ? c->idle_ms : IDLE_MS;
    c->batch = c->batch ? c->batch : BATCH;
    if (c->stack_bytes) {
        unsigned page = (unsigned)sysconf(_SC_PAGESIZE), least = (unsigned)PTHREAD_STACK_MIN;
        c->stack_bytes = c->stack_bytes > least ? c->stack_bytes : least;
        c->stack_bytes = (c->stack_bytes + page - 1) / page * page;
    }
    l->ops = *ops;
    l->ctx = ctx;
    l->busy = c->busy ? c->busy : &l->own_busy;
    l->ready_n = c->waiting ? c->waiting : &l->own_ready;
    atomic_store(l->busy, 0); /* a worker that was killed leaves its numbers */
    atomic_store(l->ready_n, 0);
    list_init(&l->batch);
    list_init(&l->fresh);
    list_init(&l->ready);
    list_init(&l->idle);
    atomic_store(&l->word, word_as(0, STATE_VACANT));
    atomic_store(&l->runner, word_as(0, STATE_VACANT));
    atomic_store(&l->now_ns, clock_mono_ns());
    bool mutex = pthread_mutex_init(&l->mutex, NULL) == 0;
    bool ended = cond_init(&l->ended) == 0;
    bool wake = cond_init(&l->monitor_wake) == 0;
    if (mutex && ended && wake) {
        *out = l;
        return 0;
    }
    if (mutex)
        pthread_mutex_destroy(&l->mutex);
    if (ended)
        pthread_cond_destroy(&l->ended);
    if (wake)
        pthread_cond_destroy(&l->monitor_wake);
    free(l);
    return err_set(e, "the system gives no mutex for the threads' table");
}

int lead_start(struct lead *l, struct err *e)
{
    must(!l->started);
    l->started = true;
    int rc = 0;
    lead_lock(l);
    if (!l->config.monitor_off) {
        rc = thread_spawn(l, &l->monitor, monitor_main, l);
        l->monitor_alive = l->monitor_joinable = rc == 0;
    }
    /* The second one is there when the first is deposed for the first time. */
    bool made = rc == 0 && thread_make_locked(l, ROLE_LEAD);
    if (made)
        (void)thread_make_locked(l, ROLE_NONE);
    lead_unlock(l);
    if (made)
        return 0;
    lead_stop(l);
    return err_set(e, "cannot make a thread: raise the limit of processes (ulimit -u, the "
                      "container's pids limit) or give the process more memory");
}

void lead_push(struct lead *l, struct lead_job *job)
{
    must(list_empty(&job->node));
    job->pushed_ns = atomic_load_explicit(&l->notice, memory_order_relaxed) & NOTICE_ASLEEP
                         ? clock_mono_ns() /* nobody keeps now_ns up to date */
                         : atomic_load_explicit(&l->now_ns, memory_order_relaxed);
    list_add(&l->fresh, &job->node);
    if (WEIR_UNLIKELY(job->reserved))
        l->reserved = true;
    count(&l->lead_n, 1);
}

void lead_push_next(struct lead *l, struct lead_job *job)
{
    must(list_empty(&job->node));
    job->pushed_ns = atomic_load_explicit(&l->now_ns, memory_order_relaxed);
    list_add(l->batch.next, &job->node); /* before the first */
    if (WEIR_UNLIKELY(job->reserved))
        l->reserved = true;
    count(&l->lead_n, 1);
}

bool lead_cancel(struct lead *l, struct lead_job *job)
{
    lead_lock(l);
    queue_join_locked(l);
    bool waits = !list_empty(&job->node);
    if (waits) {
        list_del(&job->node);
        count(l->ready_n, -1);
    }
    lead_unlock(l);
    return waits;
}

void lead_stop(struct lead *l)
{
    lead_lock(l);
    atomic_fetch_or(&l->notice, NOTICE_STOP);
    count(&l->starters, -(int)l->launch);
    must(atomic_fetch_sub(l->busy, l->launch) >= l->launch);
    l->launch = 0;
    for (struct list *i = l->idle.next; i != &l->idle; i = i->next)
        pthread_cond_signal(&container_of(i, struct thread, node)->wake);
    monitor_wake_locked(l);
    l->kick = true;
    lead_unlock(l);
}

unsigned lead_join(struct lead *l, int timeout_ms)
{
    struct timespec until = time_after_ms(timeout_ms);
    lead_lock(l);
    while (l->threads + l->ending > 0 || l->monitor_alive) {
        int rc = timeout_ms < 0 ? pthread_cond_wait(&l->ended, &l->mutex)
                                : pthread_cond_timedwait(&l->ended, &l->mutex, &until);
        if (rc == ETIMEDOUT)
            break;
    }
    unsigned left = count_of(l->busy) + l->lane_taken;
    if (left == 0)
        left = l->threads + l->ending > 0 || l->monitor_alive;
    struct thread *last = left ? NULL : l->dead;
    bool monitor = !left && l->monitor_joinable;
    if (!left) {
        l->dead = NULL;
        l->monitor_joinable = false;
    }
    lead_unlock(l);
    if (last) {
        pthread_join(last->id, NULL);
        thread_free(last);
    }
    if (monitor)
        pthread_join(l->monitor, NULL);
    return left;
}

void lead_free(struct lead **at)
{
    struct lead *l = *at;
    if (!l)
        return;
    *at = NULL;
    must(l->threads == 0 && l->ending == 0 && !l->monitor_joinable && !l->dead);
    queue_join_locked(l);
    while (!list_empty(&l->ready))
        list_del(l->ready.next);
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->ended);
    pthread_cond_destroy(&l->monitor_wake);
    free(l);
}

void lead_stats(struct lead *l, struct lead_stats *out)
{
    memset(out, 0, sizeof *out);
    lead_lock(l);
    out->threads = l->threads + l->ending;
    out->busy = count_of(l->busy);
    out->reserved = l->lane_taken;
    out->lane_runs = l->lane_runs;
    out->waiting = count_of(l->ready_n) + count_of(&l->lead_n);
    out->inline_runs = atomic_load_explicit(&l->inline_runs, memory_order_relaxed);
    out->away_runs = l->away_runs;
    out->deposed = l->deposed;
    out->deposed_gil = l->deposed_gil;
    out->burst = l->burst;
    out->contended = l->contended;
    out->oldest_ns = atomic_load_explicit(&l->batch_ns, memory_order_relaxed);
    if (out->oldest_ns == 0 && !list_empty(&l->ready))
        out->oldest_ns = job_of(l->ready.next)->pushed_ns;
    lead_unlock(l);
}
