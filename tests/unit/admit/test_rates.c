/* The shared table: all or nothing, what happens when it is full, many threads and processes at
 * once, and holders that die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>

/* For its layout: keys that meet in one bucket, and a stripe whose holder dies. */
#include "admit/rates.c"
#include "base/attr.h"
#include "rates_crowd.h"

#define SECOND 1000000000LL

static struct rates *table(uint32_t n_keys)
{
    struct rates *r = rates_new(n_keys);
    must(r);
    return r;
}

static struct rates_key key_of(struct rates *r, uint64_t limit, uint64_t who)
{
    return rates_key(r, limit, slice_of((char *)&who, sizeof who));
}

/* Keys with the same eight cells; n >= 1. */
static struct rates_key neighbour(uint64_t n)
{
    return (struct rates_key){{0x123456789abcdef0, n}};
}

static struct rates_ask ask_of(enum rates_kind kind, struct rates_key key,
                               const struct gcra_rate *rate, int64_t cost)
{
    return (struct rates_ask){.kind = kind, .key = key, .rate = rate, .cost = cost};
}

static bool spend_one(struct rates *r, enum rates_kind kind, struct rates_key key,
                      const struct gcra_rate *rate, int64_t cost, int64_t now_ns)
{
    struct rates_ask ask = ask_of(kind, key, rate, cost);
    return rates_spend(r, &ask, 1, now_ns);
}

static int64_t left_of(struct rates *r, enum rates_kind kind, struct rates_key key,
                       const struct gcra_rate *rate, int64_t now_ns)
{
    struct rates_ask ask = ask_of(kind, key, rate, 1);
    rates_look(r, &ask, 1, now_ns);
    return ask.left;
}

static const struct gcra_rate TEN_A_MINUTE = {6 * SECOND, 18 * SECOND}; /* burst 3 */

static void answers_say_what_is_left_and_when(void **state)
{
    (void)state;
    struct rates *r = table(100);
    struct rates_ask ask = ask_of(RATES_USERS, key_of(r, 1, 7), &TEN_A_MINUTE, 2);
    assert_true(rates_spend(r, &ask, 1, SECOND));
    assert_int_equal(ask.verdict, GCRA_SPENT);
    assert_int_equal(ask.left, 1);
    assert_int_equal(ask.wait_ns, 0);
    assert_int_equal(ask.reset_ns, 12 * SECOND);
    assert_int_equal(ask.spent_ns, 12 * SECOND);
    assert_false(rates_spend(r, &ask, 1, 2 * SECOND));
    assert_int_equal(ask.verdict, GCRA_WAIT);
    assert_int_equal(ask.left, 1);
    assert_int_equal(ask.wait_ns, 5 * SECOND);
    assert_int_equal(ask.reset_ns, 11 * SECOND);
    assert_int_equal(ask.spent_ns, 0);
    ask.cost = 4;
    assert_false(rates_spend(r, &ask, 1, 2 * SECOND));
    assert_int_equal(ask.verdict, GCRA_NEVER);
    assert_int_equal(ask.left, 1);
    assert_int_equal(ask.wait_ns, 0);
    rates_free(r);
}

static void a_look_spends_nothing(void **state)
{
    (void)state;
    struct rates *r = table(100);
    struct rates_ask ask = ask_of(RATES_USERS, key_of(r, 1, 7), &TEN_A_MINUTE, 3);
    for (unsigned i = 0; i < 3; i++) {
        rates_look(r, &ask, 1, SECOND);
        assert_int_equal(ask.verdict, GCRA_SPENT);
        assert_int_equal(ask.left, 3);
        assert_int_equal(ask.reset_ns, 0);
    }
    assert_true(rates_spend(r, &ask, 1, SECOND));
    rates_look(r, &ask, 1, SECOND);
    assert_int_equal(ask.verdict, GCRA_WAIT);
    rates_free(r);
}

static void all_keys_are_spent_or_none(void **state)
{
    (void)state;
    struct rates *r = table(100);
    struct gcra_rate wide = {SECOND, 100 * SECOND};
    struct rates_ask asks[] = {ask_of(RATES_USERS, key_of(r, 1, 1), &wide, 1),
                               ask_of(RATES_ADDRESSES, key_of(r, 2, 1), &TEN_A_MINUTE, 1),
                               ask_of(RATES_USERS, key_of(r, 3, 1), &wide, 1)};
    for (unsigned i = 0; i < 3; i++)
        assert_true(rates_spend(r, asks, countof(asks), 0));
    assert_false(rates_spend(r, asks, countof(asks), 0));
    assert_int_equal(asks[0].verdict, GCRA_SPENT); /* of itself it could */
    assert_int_equal(asks[1].verdict, GCRA_WAIT);
    assert_int_equal(asks[2].verdict, GCRA_SPENT);
    assert_int_equal(asks[0].left, 97);
    assert_int_equal(asks[0].spent_ns, 0);
    assert_int_equal(asks[2].left, 97);
    assert_true(rates_spend(r, asks, 0, 0)); /* nothing is asked of who has no limit */
    rates_free(r);
}

static void the_same_name_is_another_key_for_another_limit_kind_and_table(void **state)
{
    (void)state;
    struct rates *r = table(100), *other = table(100);
    struct rates_key a = key_of(r, 1, 1), b = key_of(r, 2, 1), c = key_of(other, 1, 1);
    assert_memory_not_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &c, sizeof a);
    assert_true(spend_one(r, RATES_USERS, a, &TEN_A_MINUTE, 3, 0));
    assert_int_equal(left_of(r, RATES_USERS, b, &TEN_A_MINUTE, 0), 3);
    assert_int_equal(left_of(r, RATES_ADDRESSES, a, &TEN_A_MINUTE, 0), 3);
    rates_free(r);
    rates_free(other);
}

static void a_key_in_two_steps_is_the_same_and_limits_of_one_never_meet(void **state)
{
    (void)state;
    struct rates *r = table(100);
    struct rates_key who = rates_who(r, SLICE("jwt:ada"));
    static const uint64_t LIMITS[] = {0, 1, 2, 1ULL << 63, UINT64_MAX, 0xcbf29ce484222325u};
    for (unsigned i = 0; i < countof(LIMITS); i++) {
        struct rates_key a = rates_key_of(&who, LIMITS[i]);
        struct rates_key whole = rates_key(r, LIMITS[i], SLICE("jwt:ada"));
        assert_memory_equal(&a, &whole, sizeof a);
        for (unsigned j = 0; j < i; j++) {
            struct rates_key b = rates_key_of(&who, LIMITS[j]);
            assert_int_not_equal(a.h[0], b.h[0]);
            assert_int_not_equal(a.h[1], b.h[1]);
        }
    }
    rates_free(r);
}

static void what_is_taken_back_can_be_spent_again_but_only_once(void **state)
{
    (void)state;
    struct rates *r = table(100);
    struct rates_ask asks[] = {ask_of(RATES_USERS, key_of(r, 1, 1), &TEN_A_MINUTE, 2),
                               ask_of(RATES_ADDRESSES, key_of(r, 2, 1), &TEN_A_MINUTE, 1)};
    assert_true(spend_one(r, RATES_USERS, asks[0].key, &TEN_A_MINUTE, 1, 0));
    assert_true(rates_spend(r, asks, countof(asks), 0));
    for (unsigned i = 0; i < 2; i++) {
        rates_refund(r, asks, countof(asks), 0);
        assert_int_equal(left_of(r, RATES_USERS, asks[0].key, &TEN_A_MINUTE, 0), 2);
        assert_int_equal(left_of(r, RATES_ADDRESSES, asks[1].key, &TEN_A_MINUTE, 0), 3);
    }
    /* What was refused spent nothing, so nothing comes back. */
    asks[0].cost = 3;
    assert_false(rates_spend(r, asks, countof(asks), 0));
    rates_refund(r, asks, countof(asks), 0);
    assert_int_equal(left_of(r, RATES_USERS, asks[0].key, &TEN_A_MINUTE, 0), 2);
    rates_free(r);
}

static void sixteen_keys_of_one_bucket_pair_do_no_harm(void **state)
{
    (void)state;
    struct rates *r = table(1000);
    struct rates_ask asks[RATES_ASKS_MAX];
    for (unsigned i = 0; i < RATES_ASKS_MAX; i++)
        asks[i] = ask_of(RATES_USERS, neighbour(1 + i), &TEN_A_MINUTE, 1);
    assert_true(rates_spend(r, asks, RATES_ASKS_MAX, 0));
    unsigned known = 0;
    for (unsigned i = 0; i < RATES_ASKS_MAX; i++)
        known += left_of(r, RATES_USERS, asks[i].key, &TEN_A_MINUTE, 0) == 2;
    assert_int_equal(known, KEY_BUCKETS * BUCKET_CELLS);
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.evicted[RATES_USERS], RATES_ASKS_MAX - known);
    rates_refund(r, asks, RATES_ASKS_MAX, 0);
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.keys[RATES_USERS], 0);
    rates_free(r);
}

/* ---- full ---- */

static void who_owes_least_makes_room(void **state)
{
    (void)state;
    struct rates *r = table(1000);
    struct gcra_rate rate = {SECOND, 100 * SECOND};
    for (unsigned i = 1; i <= 8; i++) /* owe 10, 20, … s; the fifth 5 s */
        assert_true(spend_one(r, RATES_USERS, neighbour(i), &rate, i == 5 ? 5 : 10 * i, 0));
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.keys[RATES_USERS], 8);
    assert_int_equal(stats.evicted[RATES_USERS], 0);
    assert_true(
        spend_one(r, RATES_USERS, neighbour(9), &rate, 50, 0)); /* in good standing: not refused */
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.keys[RATES_USERS], 8);
    assert_int_equal(stats.evicted[RATES_USERS], 1);
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(left_of(r, RATES_USERS, neighbour(i), &rate, 0),
                         i == 5 ? 100 : 100 - 10 * i);
    assert_int_equal(left_of(r, RATES_USERS, neighbour(9), &rate, 0), 50);
    rates_free(r);
}

static void who_is_paid_off_makes_room_before_anybody_in_debt(void **state)
{
    (void)state;
    struct rates *r = table(1000);
    struct gcra_rate rate = {SECOND, 100 * SECOND};
    for (unsigned i = 1; i <= 8; i++)
        assert_true(spend_one(r, RATES_USERS, neighbour(i), &rate, i == 3 ? 5 : 6, 0));
    assert_true(spend_one(r, RATES_USERS, neighbour(9), &rate, 1, 5 * SECOND));
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(left_of(r, RATES_USERS, neighbour(i), &rate, 5 * SECOND),
                         i == 3 ? 100 : 99);
    struct rates_stats stats;
    rates_stats(r, 5 * SECOND, &stats);
    assert_int_equal(stats.evicted[RATES_USERS], 0);
    rates_free(r);
}

static void keys_that_are_as_many_as_promised_find_room(void **state)
{
    (void)state;
    enum { KEYS = 100000 };
    struct rates *r = table(KEYS);
    for (unsigned i = 0; i < KEYS; i++)
        assert_true(spend_one(r, i % 2 ? RATES_USERS : RATES_ADDRESSES, key_of(r, 1, i),
                              &TEN_A_MINUTE, 1, 0));
    unsigned forgotten = 0;
    for (unsigned i = 0; i < KEYS; i++)
        forgotten += left_of(r, i % 2 ? RATES_USERS : RATES_ADDRESSES, key_of(r, 1, i),
                             &TEN_A_MINUTE, 0) != 2;
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.evicted[RATES_USERS] + stats.evicted[RATES_ADDRESSES], forgotten);
    assert_true(forgotten <= KEYS / 10000); /* by chance: the secret differs in each run */
    for (unsigned kind = 0; kind < RATES_KINDS; kind++)
        assert_in_range(stats.keys[kind], KEYS / 2 * 9 / 10, KEYS / 2 * 11 / 10); /* sampled */
    rates_free(r);
}

static void a_million_addresses_neither_push_out_nor_lock_out_a_user(void **state)
{
    (void)state;
    enum { USERS = 10000, FLOOD = 1000000 };
    struct rates *r = table(100000);
    struct gcra_rate rate = {SECOND, 100 * SECOND};
    for (unsigned i = 0; i < USERS; i++)
        assert_true(spend_one(r, RATES_USERS, key_of(r, 1, i), &rate, 1 + i % 100, 0));
    /* One address has spent all; the others come once each, and none of them is refused. */
    struct rates_key greedy = key_of(r, 2, FLOOD);
    assert_true(spend_one(r, RATES_ADDRESSES, greedy, &rate, 100, 0));
    for (unsigned i = 0; i < FLOOD; i++)
        assert_true(spend_one(r, RATES_ADDRESSES, key_of(r, 2, i), &rate, 1, 0));
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.evicted[RATES_USERS], 0);
    assert_int_equal(stats.keys[RATES_ADDRESSES], stats.cells[RATES_ADDRESSES]);
    assert_int_equal(stats.evicted[RATES_ADDRESSES], FLOOD + 1 - stats.cells[RATES_ADDRESSES]);
    assert_int_equal(left_of(r, RATES_ADDRESSES, greedy, &rate, 0), 0);
    for (unsigned i = 0; i < USERS; i++)
        assert_int_equal(left_of(r, RATES_USERS, key_of(r, 1, i), &rate, 0), 99 - i % 100);
    assert_true(spend_one(r, RATES_USERS, key_of(r, 1, USERS), &rate, 100, 0));
    rates_free(r);
}

static void the_smallest_table_works(void **state)
{
    (void)state;
    struct rates *r = table(1);
    assert_true(rates_bytes(r) <= 8192);
    for (unsigned i = 0; i < 100; i++)
        assert_true(spend_one(r, RATES_USERS, key_of(r, 1, i), &TEN_A_MINUTE, 1, 0));
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.cells[RATES_USERS], 8);
    assert_int_equal(stats.keys[RATES_USERS], 8);
    assert_int_equal(stats.evicted[RATES_USERS], 92);
    rates_free(r);
    rates_free(NULL);
}

static void a_million_keys_fit_in_64_mib(void **state)
{
    (void)state;
    struct rates *r = table(1 << 20);
    assert_true(rates_bytes(r) <= 64 << 20);
    rates_free(r);
}

/* ---- many at once ---- */

static void play_all(unsigned processes, unsigned threads, int64_t decisions)
{
    for (enum crowd_play play = 0; play < CROWD_PLAYS; play++) {
        struct rates *r = table(1000);
        struct crowd_result got = crowd_run(r, play, processes, threads, decisions);
        assert_int_equal(got.over, 0);
        assert_int_equal(got.under, 0);
        rates_free(r);
    }
}

static void threads_spend_exactly_what_there_is(void **state)
{
    (void)state;
    play_all(0, 16, 40000);
}

static void threads_of_processes_spend_exactly_what_there_is(void **state)
{
    (void)state;
    play_all(4, 64, 100000);
}

/* ---- holders that die ---- */

static void wait_dead(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void a_stripe_whose_holder_died_goes_on_as_it_was(void **state)
{
    (void)state;
    struct rates *r = table(1000);
    assert_true(spend_one(r, RATES_USERS, neighbour(1), &TEN_A_MINUTE, 2, 0));
    pid_t pid = fork();
    if (pid == 0) {
        struct place at;
        struct rates_key key = neighbour(1);
        locate(r, RATES_USERS, &key, &at);
        lock(r, at.stripe);
        raise(SIGKILL);
    }
    wait_dead(pid);
    assert_int_equal(left_of(r, RATES_USERS, neighbour(1), &TEN_A_MINUTE, 0), 1);
    assert_true(spend_one(r, RATES_USERS, neighbour(1), &TEN_A_MINUTE, 1, 0));
    assert_false(spend_one(r, RATES_USERS, neighbour(1), &TEN_A_MINUTE, 1, 0));
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.recovered, 1);
    rates_free(r);
}

static void a_cell_between_two_keys_is_free(void **state)
{
    (void)state;
    struct rates *r = table(1000);
    for (unsigned i = 1; i <= 8; i++)
        assert_true(spend_one(r, RATES_USERS, neighbour(i), &TEN_A_MINUTE, i == 4 ? 1 : 3, 0));
    struct place at;
    struct rates_key key = neighbour(4);
    locate(r, RATES_USERS, &key, &at);
    struct cell *c = find(&at, 4);
    /* As put leaves it after its first store, and after its second. */
    atomic_store(&c->paid_ns, 0);
    assert_int_equal(left_of(r, RATES_USERS, neighbour(4), &TEN_A_MINUTE, 0), 3);
    atomic_store(&c->who, 9);
    assert_int_equal(left_of(r, RATES_USERS, neighbour(9), &TEN_A_MINUTE, 0), 3);
    assert_true(spend_one(r, RATES_USERS, neighbour(10), &TEN_A_MINUTE, 1, 0));
    struct rates_stats stats;
    rates_stats(r, 0, &stats);
    assert_int_equal(stats.evicted[RATES_USERS], 0);
    rates_free(r);
}

/* Children spend until they are killed: one of four hot keys together with a key that comes but
 * once, so that cells change hands all the time. */
enum { HOT = 4, CHILDREN = 4, KILLS = 60, FIRST = 1000 };
static const struct gcra_rate ENDLESS = {1, 1LL << 50};

struct killed {
    struct rates *r;
    struct rates_key hot[HOT];
    _Atomic int64_t spends[HOT]; /* counted after each: a child that dies has at most one more */
};

static void spend_until_killed(struct killed *k, uint64_t seed)
{
    for (uint64_t i = seed;; i++) {
        unsigned hot = (unsigned)(i * 0x9E3779B97F4A7C15 >> 62);
        struct rates_ask asks[] = {ask_of(RATES_USERS, k->hot[hot], &ENDLESS, 1),
                                   ask_of(RATES_USERS, key_of(k->r, 1, i), &ENDLESS, 1)};
        if (rates_spend(k->r, asks, countof(asks), 1))
            atomic_fetch_add(&k->spends[hot], 1);
    }
}

static int64_t all_spends(struct killed *k)
{
    int64_t n = 0;
    for (unsigned i = 0; i < HOT; i++)
        n += atomic_load(&k->spends[i]);
    return n;
}

static void processes_killed_while_they_spend_leave_a_table_that_works(void **state)
{
    (void)state;
    struct killed *k = shared_map(sizeof *k);
    must(k);
    k->r = table(64);
    for (unsigned i = 0; i < HOT; i++) { /* they owe most, so they stay */
        k->hot[i] = key_of(k->r, 2, i);
        assert_true(spend_one(k->r, RATES_USERS, k->hot[i], &ENDLESS, FIRST, 1));
    }
    pid_t pids[CHILDREN] = {0};
    for (unsigned n = 0; n < KILLS; n++) {
        pid_t *pid = &pids[n % CHILDREN];
        if (*pid) {
            /* Not before something was spent since the last kill: the table works. */
            int64_t before = all_spends(k);
            while (all_spends(k) < before + 50)
                sched_yield();
            assert_int_equal(kill(*pid, SIGKILL), 0);
            wait_dead(*pid);
        }
        *pid = fork();
        assert_true(*pid >= 0);
        if (*pid == 0)
            spend_until_killed(k, (uint64_t)n << 32);
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        wait_dead(pids[i]);
    }
    /* Nothing that was granted is missing, and the dead took at most one spending each with them.
     */
    int64_t of_the_dead = 0;
    for (unsigned i = 0; i < HOT; i++) {
        struct rates_ask ask = ask_of(RATES_USERS, k->hot[i], &ENDLESS, 1);
        rates_look(k->r, &ask, 1, 1);
        assert_true(ask.reset_ns - FIRST >= k->spends[i]);
        of_the_dead += ask.reset_ns - FIRST - k->spends[i];
    }
    assert_true(of_the_dead <= KILLS);
    struct rates_stats stats;
    rates_stats(k->r, 1, &stats);
    print_message(
        "# %lld spends, %lld of the dead, %llu cells changed hands, %llu stripes recovered\n",
        (long long)all_spends(k), (long long)of_the_dead,
        (unsigned long long)stats.evicted[RATES_USERS], (unsigned long long)stats.recovered);
    rates_free(k->r);
    void *p = k;
    shared_unmap(&p, sizeof *k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_say_what_is_left_and_when),
        cmocka_unit_test(a_look_spends_nothing),
        cmocka_unit_test(all_keys_are_spent_or_none),
        cmocka_unit_test(the_same_name_is_another_key_for_another_limit_kind_and_table),
        cmocka_unit_test(a_key_in_two_steps_is_the_same_and_limits_of_one_never_meet),
        cmocka_unit_test(what_is_taken_back_can_be_spent_again_but_only_once),
        cmocka_unit_test(sixteen_keys_of_one_bucket_pair_do_no_harm),
        cmocka_unit_test(who_owes_least_makes_room),
        cmocka_unit_test(who_is_paid_off_makes_room_before_anybody_in_debt),
        cmocka_unit_test(keys_that_are_as_many_as_promised_find_room),
        cmocka_unit_test(a_million_addresses_neither_push_out_nor_lock_out_a_user),
        cmocka_unit_test(the_smallest_table_works),
        cmocka_unit_test(a_million_keys_fit_in_64_mib),
        cmocka_unit_test(threads_spend_exactly_what_there_is),
        cmocka_unit_test(threads_of_processes_spend_exactly_what_there_is),
        cmocka_unit_test(a_stripe_whose_holder_died_goes_on_as_it_was),
        cmocka_unit_test(a_cell_between_two_keys_is_free),
        cmocka_unit_test(processes_killed_while_they_spend_leave_a_table_that_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
