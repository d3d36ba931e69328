/*
 * rates_crowd: many threads of many processes that spend a few hot keys of one table, and the exact
 * numbers that must come out. For the unit test, and larger for bench/admission.
 */
#ifndef WEIR_TESTS_RATES_CROWD_H
#define WEIR_TESTS_RATES_CROWD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admit/rates.h"
#include "base/must.h"
#include "base/robust.h"

enum { CROWD_USERS = 8, CROWD_THREADS_MAX = 64 };

enum crowd_play {
    CROWD_STILL = 0, /* time stands still: each user gets exactly the burst */
    CROWD_MOVING,    /* each decision is one ns later: exactly burst and rate */
    CROWD_SETS, /* time stands still; each decision asks for the user and the route: exactly the
                   route's burst, and no user pays for what the route refused */
    CROWD_PLAYS
};

struct crowd {
    struct rates *rates;
    enum crowd_play play;
    struct gcra_rate user_rate, route_rate;
    struct rates_key users[CROWD_USERS], route;
    int64_t decisions;
    /* Of all threads. */
    _Atomic int64_t clock_ns; /* decisions begun */
    _Atomic int64_t admitted[CROWD_USERS];
};

struct crowd_result {
    int64_t decisions, admitted, over, under; /* over, under: against the exact number */
};

static inline bool crowd_ask(struct crowd *c, unsigned user, int64_t now_ns)
{
    struct rates_ask asks[2] = {
        {.kind = RATES_USERS, .key = c->users[user], .rate = &c->user_rate, .cost = 1},
        {.kind = RATES_USERS, .key = c->route, .rate = &c->route_rate, .cost = 1}};
    return rates_spend(c->rates, asks, c->play == CROWD_SETS ? 2 : 1, now_ns);
}

static inline void *crowd_thread(void *arg)
{
    struct crowd *c = arg;
    for (;;) {
        int64_t ns = atomic_fetch_add(&c->clock_ns, 1);
        if (ns >= c->decisions)
            return NULL;
        /* Scattered, but the same in every run. */
        unsigned user = (unsigned)((uint64_t)ns * 0x9E3779B97F4A7C15 >> 61);
        if (crowd_ask(c, user, c->play == CROWD_MOVING ? 1 + ns : 1))
            atomic_fetch_add(&c->admitted[user], 1);
    }
}

static inline void crowd_threads(struct crowd *c, unsigned n)
{
    pthread_t threads[CROWD_THREADS_MAX];
    must(n <= CROWD_THREADS_MAX);
    for (unsigned i = 0; i < n; i++)
        must(pthread_create(&threads[i], NULL, crowd_thread, c) == 0);
    for (unsigned i = 0; i < n; i++)
        must(pthread_join(threads[i], NULL) == 0);
}

/* `processes` 0: threads of this one. The table is the caller's and idle. */
static inline struct crowd_result crowd_run(struct rates *rates, enum crowd_play play,
                                            unsigned processes, unsigned threads, int64_t decisions)
{
    struct crowd *c = shared_map(sizeof *c);
    must(c);
    c->rates = rates;
    c->play = play;
    c->decisions = decisions;
    /* Offered is five times what is granted: a user is asked for every 8 ns, and paid off one
     * in 40. */
    int64_t burst = decisions / CROWD_USERS / 5 + 1;
    must(gcra_rate_make(&c->user_rate, 1, 40, burst) == 0);
    must(gcra_rate_make(&c->route_rate, 1, 40, 3 * burst) == 0);
    for (unsigned i = 0; i < CROWD_USERS; i++)
        c->users[i] = rates_key(rates, (uint64_t)play, slice_of((char *)&i, sizeof i));
    c->route = rates_key(rates, (uint64_t)play, SLICE("the route"));

    int64_t expected = play == CROWD_SETS ? 3 * burst : CROWD_USERS * burst;
    if (play == CROWD_MOVING) {
        /* All begin with the burst spent at 1, so that nobody is ever idle. Then at the time t
         * there must have been granted one for each 40 ns since. */
        for (unsigned i = 0; i < CROWD_USERS; i++)
            while (crowd_ask(c, i, 1))
                c->admitted[i]++;
        expected += CROWD_USERS * ((decisions - 1) / 40);
    }
    pid_t pids[CROWD_THREADS_MAX];
    for (unsigned i = 0; i < processes; i++) {
        pids[i] = fork();
        must(pids[i] >= 0);
        if (pids[i] == 0) {
            crowd_threads(c, threads / processes);
            _exit(0);
        }
    }
    if (!processes)
        crowd_threads(c, threads);
    for (unsigned i = 0; i < processes; i++) {
        int status;
        must(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    }
    if (play == CROWD_MOVING) /* what the last time grants, and nobody happened to ask for */
        for (unsigned i = 0; i < CROWD_USERS; i++)
            while (crowd_ask(c, i, decisions))
                c->admitted[i]++;

    struct crowd_result got = {.decisions = decisions};
    for (unsigned i = 0; i < CROWD_USERS; i++) {
        struct rates_ask ask = {
            .kind = RATES_USERS, .key = c->users[i], .rate = &c->user_rate, .cost = 1};
        rates_look(rates, &ask, 1, 1);
        /* What the table has of a user is what was granted. */
        if (play != CROWD_MOVING)
            must(burst - ask.left == c->admitted[i]);
        got.admitted += c->admitted[i];
    }
    got.over = got.admitted > expected ? got.admitted - expected : 0;
    got.under = got.admitted < expected ? expected - got.admitted : 0;
    void *p = c;
    shared_unmap(&p, sizeof *c);
    return got;
}

#endif
