/* Whose turn is it? And a model: workers that read old numbers still share evenly, and nobody waits long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/must.h"
#include "serve/balance.h"

enum { WORKERS = 4, FEWER_MS = 20, PLACE_MS = 100 };

struct world {
    struct scoreboard *board;
    struct balance of[WORKERS];
};

static int make(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    must(w);
    w->board = scoreboard_new(WORKERS);
    must(w->board);
    atomic_store(&w->board->top, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct scoreboard_slot *s = &w->board->slots[i];
        atomic_store(&s->state, WORKER_READY);
        atomic_store(&s->places, 4);
        atomic_store(&s->beat_ns, 1);
        must(balance_init(&w->of[i], w->board, i) == 0);
    }
    *state = w;
    return 0;
}

static int unmake(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        balance_fini(&w->of[i]);
    scoreboard_free(&w->board);
    free(w);
    return 0;
}

static void set_open(struct world *w, unsigned a, unsigned b, unsigned c, unsigned d)
{
    const unsigned n[WORKERS] = {a, b, c, d};
    for (unsigned i = 0; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].open, n[i]);
}

static void equals_take_what_comes(void **state)
{
    struct world *w = *state;
    set_open(w, 5, 5, 6, 6);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(balance_hold(&w->of[i], 0), 0);
}

static void one_with_clearly_more_leaves_it_to_others(void **state)
{
    struct world *w = *state;
    set_open(w, 7, 5, 6, 6);
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
    for (unsigned i = 1; i < WORKERS; i++)
        assert_int_equal(balance_hold(&w->of[i], 0), 0);
}

static void an_eighth_more_is_not_clearly_more(void **state)
{
    struct world *w = *state;
    set_open(w, 900, 800, 900, 900);
    assert_int_equal(balance_hold(&w->of[0], 0), 0);
    set_open(w, 901, 800, 900, 900);
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
}

static void only_workers_that_accept_count(void **state)
{
    struct world *w = *state;
    static const enum worker_state OTHERS[] = {WORKER_NONE, WORKER_BOOTING, WORKER_DRAINING, WORKER_DEAD};
    set_open(w, 100, 0, 100, 100);
    for (unsigned i = 0; i < countof(OTHERS); i++) {
        atomic_store(&w->board->slots[1].state, OTHERS[i]);
        assert_int_equal(balance_hold(&w->of[0], 0), 0);
    }
}

static void one_without_a_place_leaves_it_to_one_that_has_one(void **state)
{
    struct world *w = *state;
    set_open(w, 0, 50, 50, 50); /* even with the fewest connections */
    atomic_store(&w->board->slots[0].busy, 4);
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
    assert_in_range(balance_hold(&w->of[0], PLACE_MS - 1), 1, 5);
    assert_int_equal(balance_hold(&w->of[0], PLACE_MS), 0); /* but not for ever */
    atomic_store(&w->board->slots[0].busy, 3);
    assert_int_equal(balance_hold(&w->of[0], 0), 0);
    atomic_store(&w->board->slots[0].waiting, 1); /* the place is as good as taken */
    for (unsigned i = 1; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].beat_ns, 2); /* none of them is deaf any more */
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
}

static void where_nobody_has_a_place_connections_decide(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].busy, 4);
    set_open(w, 9, 5, 5, 5);
    /* A few looks: the others may be in the middle of short requests. */
    assert_int_equal(balance_hold(&w->of[1], 0), 1);
    assert_in_range(balance_hold(&w->of[1], 4), 1, 5);
    assert_int_equal(balance_hold(&w->of[1], 5), 0);
    assert_int_equal(balance_hold(&w->of[0], 0), 1);
    assert_in_range(balance_hold(&w->of[0], 5), 1, 5);
    assert_int_equal(balance_hold(&w->of[0], FEWER_MS), 0);
}

static void a_place_that_was_seen_once_is_waited_for(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].busy, 4);
    set_open(w, 0, 5, 5, 5);
    assert_int_equal(balance_hold(&w->of[0], 0), 1);
    atomic_store(&w->board->slots[2].busy, 3);
    assert_in_range(balance_hold(&w->of[0], 1), 1, 5);
    atomic_store(&w->board->slots[2].busy, 4); /* it runs a short request again */
    assert_in_range(balance_hold(&w->of[0], 50), 1, 5);
    assert_int_equal(balance_hold(&w->of[0], PLACE_MS), 0);
}

static void one_with_fewer_but_without_a_place_is_waited_for_only_once(void **state)
{
    struct world *w = *state;
    set_open(w, 9, 5, 9, 9);
    atomic_store(&w->board->slots[1].busy, 4);
    assert_int_equal(balance_hold(&w->of[0], 0), 1); /* maybe it is in the middle of a short request */
    assert_int_equal(balance_hold(&w->of[0], 1), 0);
}

static void nobody_is_waited_for_long(void **state)
{
    struct world *w = *state;
    set_open(w, 9, 5, 9, 9);
    assert_in_range(balance_hold(&w->of[0], FEWER_MS - 1), 1, 5);
    assert_int_equal(balance_hold(&w->of[0], FEWER_MS), 0);
}

static void who_was_waited_for_in_vain_must_give_a_sign_first(void **state)
{
    struct world *w = *state;
    set_open(w, 9, 5, 9, 9);
    assert_int_equal(balance_hold(&w->of[0], FEWER_MS), 0);
    assert_int_equal(balance_hold(&w->of[0], 0), 0);
    atomic_store(&w->board->slots[1].beat_ns, 2);
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
    assert_int_equal(balance_hold(&w->of[0], FEWER_MS), 0);
    atomic_fetch_add(&w->board->slots[1].counters.connections, 1); /* or it accepts one */
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
}

static void one_whose_threads_are_stuck_leaves_all_to_its_replacement(void **state)
{
    struct world *w = *state;
    for (unsigned i = 1; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].state, WORKER_BOOTING);
    atomic_store(&w->board->slots[0].recycle, RECYCLE_STUCK);
    atomic_store(&w->board->slots[0].busy, 4);
    assert_in_range(balance_hold(&w->of[0], 10000), 1, 5);
    atomic_store(&w->board->slots[0].busy, 3); /* one thread is free */
    assert_int_equal(balance_hold(&w->of[0], 0), 0);
}

/* ---- the model ---- */

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void a_held_one_takes_nothing_unless_all_others_are_silent(void **state)
{
    struct world *w = *state;
    int64_t now_ns = clock_mono_ns();
    for (unsigned i = 0; i < WORKERS; i++)
        atomic_store(&w->board->slots[i].beat_ns, now_ns - 600 * INT64_C(1000000000));
    atomic_store(&w->board->slots[0].held, 1);
    assert_int_equal(balance_hold(&w->of[0], 200), 0);
    atomic_store(&w->board->slots[2].beat_ns, now_ns);
    assert_in_range(balance_hold(&w->of[0], 0), 1, 5);
    assert_in_range(balance_hold(&w->of[0], 200), 1, 5);
    atomic_store(&w->board->slots[2].held, 1);
    assert_int_equal(balance_hold(&w->of[0], 200), 0);
}

struct actor {
    bool stopped;
    unsigned held_since, look_at; /* ms; look_at 0: looks at the next arrival */
    bool holds;
};

/* Connections come, at most `burst` in a millisecond, and stay. Each millisecond the workers look in an order by chance.
 * Returns the most that one waited. */
static unsigned play(struct world *w, uint64_t seed, unsigned total, unsigned burst, bool one_stopped)
{
    struct actor actors[WORKERS] = {0};
    unsigned arrived[100] = {0}; /* when those that wait came; the oldest first */
    unsigned waiting = 0, come = 0, taken = 0, worst = 0;
    actors[0].stopped = one_stopped;
    for (unsigned now = 1; taken < total; now++) {
        assert_true(now < 100000);
        for (unsigned n = (unsigned)(next_random(&seed) % (burst + 1)); n && come < total && waiting < 100; n--, come++)
            arrived[waiting++] = now;
        unsigned first = (unsigned)(next_random(&seed) % WORKERS);
        for (unsigned k = 0; k < WORKERS; k++) {
            struct actor *a = &actors[(first + k) % WORKERS];
            unsigned slot = (first + k) % WORKERS;
            if (a->stopped || (a->holds && now < a->look_at) || next_random(&seed) % 3 == 0)
                continue; /* stopped, pauses, or has other things to do */
            if (!waiting)
                a->holds = false;
            while (waiting) {
                unsigned pause = balance_hold(&w->of[slot], a->holds ? now - a->held_since : 0);
                if (pause) {
                    if (!a->holds)
                        a->held_since = now;
                    a->holds = true;
                    a->look_at = now + pause;
                    break;
                }
                a->holds = false;
                atomic_fetch_add(&w->board->slots[slot].open, 1);
                atomic_fetch_add(&w->board->slots[slot].counters.connections, 1);
                if (now - arrived[0] > worst)
                    worst = now - arrived[0];
                memmove(arrived, arrived + 1, --waiting * sizeof arrived[0]);
                taken++;
            }
        }
    }
    return worst;
}

static void connections_that_stay_are_shared_evenly(void **state)
{
    struct world *w = *state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        set_open(w, 0, 0, 0, 0);
        memset(w->of[0].deaf, 0, WORKERS * sizeof *w->of[0].deaf);
        unsigned worst = play(w, seed, 64, seed % 2 ? 3 : 64, false);
        for (unsigned i = 0; i < WORKERS; i++)
            assert_in_range(atomic_load(&w->board->slots[i].open), 10, 24); /* 16 +- a half */
        assert_true(worst <= 2 * FEWER_MS);
    }
}

static void a_stopped_worker_keeps_nobody_waiting(void **state)
{
    struct world *w = *state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        set_open(w, 0, 0, 0, 0);
        for (unsigned i = 0; i < WORKERS; i++)
            memset(w->of[i].deaf, 0, WORKERS * sizeof *w->of[i].deaf);
        unsigned worst = play(w, seed, 60, 3, true);
        for (unsigned i = 1; i < WORKERS; i++)
            assert_in_range(atomic_load(&w->board->slots[i].open), 12, 30);
        assert_true(worst <= 2 * FEWER_MS);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        TEST(equals_take_what_comes),
        TEST(one_with_clearly_more_leaves_it_to_others),
        TEST(an_eighth_more_is_not_clearly_more),
        TEST(only_workers_that_accept_count),
        TEST(one_without_a_place_leaves_it_to_one_that_has_one),
        TEST(where_nobody_has_a_place_connections_decide),
        TEST(a_place_that_was_seen_once_is_waited_for),
        TEST(one_with_fewer_but_without_a_place_is_waited_for_only_once),
        TEST(nobody_is_waited_for_long),
        TEST(who_was_waited_for_in_vain_must_give_a_sign_first),
        TEST(one_whose_threads_are_stuck_leaves_all_to_its_replacement),
        TEST(a_held_one_takes_nothing_unless_all_others_are_silent),
        TEST(connections_that_stay_are_shared_evenly),
        TEST(a_stopped_worker_keeps_nobody_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
