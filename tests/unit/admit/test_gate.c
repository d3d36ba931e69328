/* gate: what it promises, with a clock that stands in the tests; and with processes that are
 * killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gate_check.h"

#define SECOND ((int64_t)1000000000)

/* One route, and what the tests ask of it. */
struct bench {
    struct gates *g;
    uint32_t route;
    struct gate_limits limits;
    struct gate_answer answer; /* of the last ask */
    struct gate_wakes wakes;   /* of the last call that has them */
};

static struct bench bench_new(uint32_t concurrency, uint32_t queue_size)
{
    struct bench b = {.g = gates_new()};
    assert_non_null(b.g);
    b.route = gates_route(b.g, "POST /api/ai/*");
    b.limits = (struct gate_limits){concurrency, queue_size, 30 * SECOND, 0};
    return b;
}

static void bench_free(struct bench *b)
{
    check_route(b->g, b->route);
    gates_free(&b->g);
    assert_null(b->g);
}

static struct gate_ask ask_of(const struct bench *b, uint32_t slot, uint64_t flow, uint64_t cookie)
{
    return (struct gate_ask){
        .route = b->route,
        .limits = b->limits,
        .owner = {slot, 1},
        .flow = flow,
        .weight = 1,
        .deadline_ns = INT64_MAX,
        .cookie = cookie,
    };
}

static enum gate_verdict enter(struct bench *b, struct gate_ask ask, int64_t now_ns)
{
    enum gate_verdict verdict = gates_enter(b->g, &ask, now_ns, &b->answer);
    check_route(b->g, b->route);
    return verdict;
}

/* The ticket of one that must wait, or run. */
static uint32_t ticket_of(struct bench *b, uint64_t flow, uint64_t cookie, int64_t now_ns,
                          enum gate_verdict verdict)
{
    assert_int_equal(enter(b, ask_of(b, 1, flow, cookie), now_ns), verdict);
    return b->answer.ticket;
}

static void leave(struct bench *b, uint32_t ticket, int64_t now_ns)
{
    gates_leave(b->g, ticket, true, now_ns, &b->wakes);
    check_route(b->g, b->route);
}

/* The cookie of the one grant of slot 1; 0: none. */
static uint64_t granted(struct bench *b)
{
    uint64_t cookies[2];
    unsigned n = gates_take_granted(b->g, (struct gate_owner){1, 1}, cookies, 2);
    assert_true(n <= 1);
    return n ? cookies[0] : 0;
}

/* The first ticket that holds a token and whose owner knows it. */
static uint32_t held(struct bench *b)
{
    uint32_t n = 0;
    while ((n = ticket_next(b->g, &b->g->routes[b->route], n)) != 0)
        if (state_of(&b->g->tickets[n]) == TICKET_HELD)
            return n;
    fail();
    return 0;
}

static struct gate_stats stats(struct bench *b)
{
    struct gate_stats s;
    gates_stats(b->g, b->route, &s);
    return s;
}

static void tokens_are_given_until_there_are_none(void **state)
{
    (void)state;
    struct bench b = bench_new(2, 1);
    uint32_t first = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    assert_int_equal(b.answer.position, 0);
    uint32_t second = ticket_of(&b, 2, 2, 0, GATE_ENTERED);
    uint32_t third = ticket_of(&b, 3, 3, 0, GATE_QUEUED);
    assert_int_equal(b.answer.position, 1);
    assert_int_equal(enter(&b, ask_of(&b, 1, 4, 4), 0), GATE_FULL);
    assert_int_equal(b.answer.ticket, GATE_NONE);
    assert_int_equal(b.answer.position, 2);
    assert_int_equal(granted(&b), 0);
    leave(&b, first, SECOND);
    assert_int_equal(b.wakes.n, 1);
    assert_int_equal(b.wakes.slots[0], 1);
    assert_int_equal(granted(&b), 3);
    assert_int_equal(granted(&b), 0);
    leave(&b, second, SECOND);
    assert_int_equal(b.wakes.n, 0);
    leave(&b, third, 2 * SECOND);
    struct gate_stats s = stats(&b);
    assert_int_equal(s.running + s.waiting, 0);
    assert_int_equal(s.entered, 2);
    assert_int_equal(s.queued, 1);
    assert_int_equal(s.full, 1);
    assert_int_equal(s.left, 0);
    assert_int_equal(s.waited_ns, SECOND);
    assert_int_equal(s.mean_held_ns, SECOND);
    bench_free(&b);
}

static void same_name_is_the_same_route_and_old_ones_make_room(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1);
    uint32_t ticket = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    char name[32];
    for (unsigned i = 1; i < GATE_ROUTES_MAX; i++) {
        snprintf(name, sizeof name, "route %u", i);
        assert_int_equal(gates_route(b.g, name), i);
    }
    assert_int_equal(gates_route(b.g, "route 1"), 1);
    /* The oldest is in use, the second has been asked for since. */
    assert_int_equal(gates_route(b.g, "new"), 2);
    assert_int_equal(gates_route(b.g, "new"), 2);
    assert_int_equal(gates_route(b.g, "route 2"), 3);
    assert_int_equal(gates_route(b.g, "POST /api/ai/*"), b.route);
    leave(&b, ticket, 0);
    bench_free(&b);
}

static void routes_that_all_run_make_no_room(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1);
    char name[32];
    for (unsigned i = 0; i < GATE_ROUTES_MAX; i++) {
        snprintf(name, sizeof name, "route %u", i);
        uint32_t route = i ? gates_route(b.g, name) : b.route;
        assert_int_equal(route, i);
        struct gate_ask ask = ask_of(&b, 1, 1, 1);
        ask.route = route;
        assert_int_equal(enter(&b, ask, 0), GATE_ENTERED);
    }
    assert_int_equal(gates_route(b.g, "one more"), GATE_NONE);
    bench_free(&b);
}

static void equal_deadlines_are_first_come_first_served(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 100);
    uint32_t running = ticket_of(&b, 7, 1, 0, GATE_ENTERED), tickets[101];
    for (uint64_t i = 2; i <= 100; i++) {
        tickets[i] = ticket_of(&b, 7, i, 0, GATE_QUEUED);
        assert_int_equal(b.answer.position, i - 1);
    }
    for (uint64_t i = 2; i <= 100; i++) {
        leave(&b, running, 0);
        assert_int_equal(granted(&b), i);
        running = tickets[i];
        int64_t expected_ns;
        if (i < 100)
            assert_int_equal(gates_position(b.g, tickets[100], &expected_ns), 100 - i);
    }
    bench_free(&b);
}

static void earliest_deadline_of_a_flow_goes_first(void **state)
{
    (void)state;
    static const int64_t deadlines[] = {50, 20, 70, 20, 10, INT64_MAX};
    static const unsigned order[] = {4, 1, 3, 0, 2, 5};
    struct bench b = bench_new(1, 100);
    uint32_t running = ticket_of(&b, 7, 99, 0, GATE_ENTERED), tickets[countof(order)];
    for (unsigned i = 0; i < countof(order); i++) {
        struct gate_ask ask = ask_of(&b, 1, 7, i + 1);
        ask.deadline_ns = deadlines[i];
        assert_int_equal(enter(&b, ask, 0), GATE_QUEUED);
        tickets[i] = b.answer.ticket;
    }
    for (unsigned i = 0; i < countof(order); i++) {
        leave(&b, running, 5);
        assert_int_equal(granted(&b), order[i] + 1);
        running = tickets[order[i]];
    }
    bench_free(&b);
}

static void who_is_late_is_not_granted_and_costs_no_token(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 100);
    uint32_t running = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    struct gate_ask ask = ask_of(&b, 1, 2, 2);
    ask.deadline_ns = 10;
    assert_int_equal(enter(&b, ask, 0), GATE_QUEUED);
    uint32_t late = b.answer.ticket;
    ask = ask_of(&b, 1, 3, 3);
    ask.limits.wait_ns = 10;
    assert_int_equal(enter(&b, ask, 0), GATE_QUEUED);
    uint32_t tired = b.answer.ticket;
    ask = ask_of(&b, 1, 4, 4);
    ask.deadline_ns = 11;
    assert_int_equal(enter(&b, ask, 0), GATE_QUEUED);
    uint32_t just = b.answer.ticket;
    leave(&b, running, 11);
    assert_int_equal(granted(&b), 4);
    int64_t expected_ns;
    assert_int_equal(gates_position(b.g, late, &expected_ns), 0);
    leave(&b, late, 12);
    leave(&b, tired, 12);
    leave(&b, just, 12);
    assert_int_equal(granted(&b), 0);
    struct gate_stats s = stats(&b);
    assert_int_equal(s.left, 2);
    assert_int_equal(s.running, 0);
    bench_free(&b);
}

static void expected_wait_beyond_the_limit_is_refused_at_once(void **state)
{
    (void)state;
    struct bench b = bench_new(2, 100);
    uint32_t running[2] = {ticket_of(&b, 1, 1, 0, GATE_ENTERED),
                           ticket_of(&b, 1, 1, 0, GATE_ENTERED)};
    /* Nothing is known yet: whoever comes may wait. */
    struct gate_ask ask = ask_of(&b, 1, 2, 2);
    ask.deadline_ns = 1;
    assert_int_equal(enter(&b, ask, 0), GATE_QUEUED);
    assert_int_equal(b.answer.expected_ns, 0);
    leave(&b, b.answer.ticket, 0);
    leave(&b, running[0], 10 * SECOND); /* one is held for ten seconds */
    running[0] = ticket_of(&b, 1, 1, 10 * SECOND, GATE_ENTERED);
    /* 5 s, 10 s, 15 s: with two tokens. */
    for (unsigned i = 1; i <= 3; i++) {
        (void)ticket_of(&b, 3, 3, 10 * SECOND, GATE_QUEUED);
        assert_int_equal(b.answer.expected_ns, 5 * SECOND * i);
    }
    ask.flow = 3;
    ask.deadline_ns = 29 * SECOND; /* one after those three */
    ask.limits.wait_ns = 20 * SECOND;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_QUEUED); /* goes before them */
    assert_int_equal(b.answer.position, 1);
    leave(&b, b.answer.ticket, 10 * SECOND);
    ask.deadline_ns = INT64_MAX;
    ask.limits.wait_ns = 20 * SECOND - 1;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_LATE);
    assert_int_equal(b.answer.position, 4);
    assert_int_equal(b.answer.expected_ns, 20 * SECOND);
    ask.limits.wait_ns = 20 * SECOND;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_QUEUED);
    /* Another user would have his turn after one of them, not after all. */
    ask = ask_of(&b, 1, 4, 4);
    ask.deadline_ns = 20 * SECOND;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_QUEUED);
    assert_int_equal(b.answer.position, 2);
    ask.flow = 5;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_LATE);
    /* It is over already. */
    ask.deadline_ns = 10 * SECOND - 1;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_LATE);
    /* While a token is free nobody is late. */
    leave(&b, running[0], 10 * SECOND);
    ask.limits.concurrency = 100;
    assert_int_equal(enter(&b, ask, 10 * SECOND), GATE_ENTERED);
    assert_int_equal(stats(&b).late, 3);
    bench_free(&b);
}

static void mean_follows_within_twenty_completions(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1);
    int64_t now_ns = 0;
    static const int64_t held_ns[] = {SECOND, 10 * SECOND, SECOND / 10};
    for (unsigned k = 0; k < countof(held_ns); k++) {
        int64_t before_ns = stats(&b).mean_held_ns;
        for (unsigned i = 0; i < 20; i++) {
            uint32_t ticket = ticket_of(&b, 1, 1, now_ns, GATE_ENTERED);
            now_ns += held_ns[k];
            leave(&b, ticket, now_ns);
        }
        int64_t off_ns = llabs(stats(&b).mean_held_ns - held_ns[k]);
        assert_true(off_ns * 10 <= llabs(before_ns - held_ns[k]));
    }
    /* Runs that failed at once say nothing. */
    int64_t mean_ns = stats(&b).mean_held_ns;
    uint32_t ticket = ticket_of(&b, 1, 1, now_ns, GATE_ENTERED);
    gates_leave(b.g, ticket, false, now_ns, &b.wakes);
    assert_int_equal(stats(&b).mean_held_ns, mean_ns);
    bench_free(&b);
}

static void larger_limit_lets_waiting_ones_in_first(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 10);
    (void)ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    (void)ticket_of(&b, 1, 2, 0, GATE_QUEUED);
    (void)ticket_of(&b, 1, 3, 0, GATE_QUEUED);
    b.limits.concurrency = 2;
    gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
    assert_int_equal(b.wakes.n, 1);
    assert_int_equal(granted(&b), 2);
    b.limits.concurrency = 3;
    (void)ticket_of(&b, 1, 4, 0, GATE_QUEUED);
    assert_int_equal(granted(&b), 3); /* the wake comes with the next call that has one */
    gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
    assert_int_equal(b.wakes.n, 1);
    bench_free(&b);
}

static void older_limit_changes_nothing(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 10);
    struct gate_limits old = b.limits;
    (void)ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    uint32_t second = ticket_of(&b, 1, 2, 0, GATE_QUEUED);
    (void)ticket_of(&b, 1, 3, 0, GATE_QUEUED);
    b.limits.concurrency = 2;
    b.limits.made_ns = 5; /* a reload */
    gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
    assert_int_equal(granted(&b), 2);
    b.limits = old; /* a process that has not heard of it */
    (void)ticket_of(&b, 1, 4, 0, GATE_QUEUED);
    gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
    assert_int_equal(granted(&b), 0);
    leave(&b, second, 1);
    assert_int_equal(granted(&b), 3);
    bench_free(&b);
}

static void smaller_limit_holds_until_enough_have_left(void **state)
{
    (void)state;
    struct bench b = bench_new(3, 10);
    uint32_t running[3];
    for (unsigned i = 0; i < 3; i++)
        running[i] = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    b.limits.concurrency = 1;
    (void)ticket_of(&b, 1, 2, 0, GATE_QUEUED);
    leave(&b, running[0], 0);
    leave(&b, running[1], 0);
    assert_int_equal(granted(&b), 0);
    leave(&b, running[2], 0);
    assert_int_equal(granted(&b), 2);
    bench_free(&b);
}

static void wakes_that_do_not_fit_come_with_the_next_call(void **state)
{
    (void)state;
    enum { N = 100 };
    struct bench b = bench_new(1, N);
    (void)ticket_of(&b, 0, 1, 0, GATE_ENTERED);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(enter(&b, ask_of(&b, 40 * i, i, i), 0), GATE_QUEUED);
    b.limits.concurrency = N + 1;
    bool woken[N] = {false};
    unsigned n = 0, calls = 0;
    do {
        gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
        for (uint32_t i = 0; i < b.wakes.n; i++) {
            assert_int_equal(b.wakes.slots[i] % 40, 0);
            assert_false(woken[b.wakes.slots[i] / 40]);
            woken[b.wakes.slots[i] / 40] = true;
        }
        n += b.wakes.n;
        calls++;
    } while (b.wakes.n == countof(b.wakes.slots));
    assert_int_equal(n, N);
    assert_int_equal(calls, (N + 15) / 16);
    bench_free(&b);
}

static void grants_that_do_not_fit_come_with_the_next_call(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct bench b = bench_new(1, N);
    (void)ticket_of(&b, 0, 1, 0, GATE_ENTERED);
    for (uint64_t i = 0; i < N; i++)
        (void)ticket_of(&b, i % 10, i, 0, GATE_QUEUED);
    b.limits.concurrency = N + 1;
    gates_pump(b.g, b.route, &b.limits, 0, &b.wakes);
    bool seen[N] = {false};
    uint64_t cookies[7];
    unsigned n, sum = 0;
    while ((n = gates_take_granted(b.g, (struct gate_owner){1, 1}, cookies, 7)) != 0) {
        for (unsigned i = 0; i < n; i++) {
            assert_false(seen[cookies[i]]);
            seen[cookies[i]] = true;
        }
        sum += n;
    }
    assert_int_equal(sum, N);
    bench_free(&b);
}

static void sweep_brings_back_all_that_a_dead_owner_had(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct bench b = bench_new(100, N);
    uint32_t routes[3] = {b.route, gates_route(b.g, "b"), gates_route(b.g, "c")};
    for (uint32_t i = 0; i < N; i++) {
        struct gate_ask ask = ask_of(&b, i % 3, i % 50, i);
        ask.route = routes[i % 7 % 3];
        ask.owner.generation = 1 + i % 2;
        (void)enter(&b, ask, 0);
    }
    /* A ticket of the next generation of the slot stays. */
    struct gate_ask ask = ask_of(&b, 1, 5, 77);
    ask.owner.generation = 3;
    ask.limits.queue_size = 2 * N;
    assert_true(enter(&b, ask, 0) <= GATE_QUEUED);
    gates_sweep(b.g, (struct gate_owner){1, 2}, 0, &b.wakes);
    for (unsigned k = 0; k < 3; k++) {
        check_route(b.g, routes[k]);
        struct route *r = &b.g->routes[routes[k]];
        for (uint32_t n = 0; (n = ticket_next(b.g, r, n)) != 0;)
            assert_true(b.g->tickets[n].owner.slot != 1 || b.g->tickets[n].owner.generation == 3);
        assert_true(r->running == r->concurrency || r->waiting == 0);
    }
    for (uint32_t slot = 0; slot < 3; slot++)
        gates_sweep(b.g, (struct gate_owner){slot, 9}, 0, &b.wakes);
    for (unsigned k = 0; k < 3; k++)
        assert_int_equal(b.g->routes[routes[k]].used, 0);
    bench_free(&b);
}

static void all_tickets_can_be_used_and_then_it_is_full(void **state)
{
    (void)state;
    struct bench b = bench_new(1, UINT32_MAX);
    struct gate_ask ask = ask_of(&b, 1, 1, 1);
    uint32_t n = 0;
    while (gates_enter(b.g, &ask, 0, &b.answer) != GATE_FULL) {
        n++;
        ask.flow = n / 3;
    }
    assert_int_equal(n, GATE_TICKETS_MAX - CHUNK);
    assert_int_equal(b.answer.ticket, GATE_NONE);
    check_route(b.g, b.route);
    /* Another route has none either, though all its tokens are free. */
    ask.route = gates_route(b.g, "another");
    assert_int_equal(gates_enter(b.g, &ask, 0, &b.answer), GATE_FULL);
    gates_sweep(b.g, (struct gate_owner){1, 1}, 0, &b.wakes);
    assert_int_equal(gates_enter(b.g, &ask, 0, &b.answer), GATE_ENTERED);
    bench_free(&b);
}

static void flows_with_most_waiting_are_told(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1000);
    (void)ticket_of(&b, 0, 1, 5, GATE_ENTERED);
    for (unsigned i = 0; i < 20; i++)
        for (unsigned k = 0; k <= i; k++)
            (void)ticket_of(&b, i, 1, 7 + i, GATE_QUEUED);
    struct gate_flow top[3];
    assert_int_equal(gates_flows(b.g, b.route, top, 3), 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(top[i].flow, 19 - i);
        assert_int_equal(top[i].waiting, 20 - i);
    }
    assert_int_equal(gates_flows(b.g, b.route, top, 0), 0);
    assert_int_equal(stats(&b).flows, 20);
    assert_int_equal(stats(&b).head_ns, 7);
    bench_free(&b);
}

/* Serve `turns` one by one; how many each of the flows 0 .. n-1 had. All of them always wait. */
static void serve(struct bench *b, uint32_t running, const uint32_t *weights, unsigned n,
                  unsigned turns, unsigned *had)
{
    for (unsigned f = 0; f < n; f++) {
        struct gate_ask ask = ask_of(b, 1, f, f);
        ask.weight = weights ? weights[f] : 1;
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(enter(b, ask, 0), GATE_QUEUED);
    }
    for (unsigned i = 0; i < turns; i++) {
        uint64_t cookie;
        gates_leave(b->g, running, true, 0, &b->wakes);
        assert_int_equal(gates_take_granted(b->g, (struct gate_owner){1, 1}, &cookie, 1), 1);
        had[cookie]++;
        running = held(b);
        struct gate_ask ask = ask_of(b, 1, cookie, cookie);
        ask.weight = weights ? weights[cookie] : 1;
        assert_int_equal(gates_enter(b->g, &ask, 0, &b->answer), GATE_QUEUED);
    }
}

/* How many of `flow` find room, asking until one is refused. */
static unsigned filled_by(struct bench *b, uint64_t flow)
{
    for (unsigned n = 0;; n++) {
        struct gate_ask ask = ask_of(b, 1, flow, 1000 * flow + n);
        ask.shares = true;
        if (enter(b, ask, 0) != GATE_QUEUED)
            return n;
    }
}

static void greedy_user_leaves_room_for_others(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 100);
    assert_int_equal(enter(&b, ask_of(&b, 1, 1, 1), 0), GATE_ENTERED);
    assert_int_equal(filled_by(&b, 1), 67);
    assert_int_equal(filled_by(&b, 2), 22);
    assert_int_equal(filled_by(&b, 3), 8);
    assert_int_equal(filled_by(&b, 1), 0);
    for (uint64_t flow = 4; flow < 6; flow++)
        assert_true(filled_by(&b, flow) > 0);
    assert_int_equal(stats(&b).waiting, 100);
    bench_free(&b);
}

static void one_place_in_the_queue_is_anybodys(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1);
    assert_int_equal(enter(&b, ask_of(&b, 1, 1, 1), 0), GATE_ENTERED);
    assert_int_equal(filled_by(&b, 1), 1);
    assert_int_equal(filled_by(&b, 2), 0);
    bench_free(&b);
}

static void user_is_told_where_his_own_stand(void **state)
{
    (void)state;
    struct bench b = bench_new(2, 100);
    struct gate_place places[3];
    uint32_t run[2];
    for (unsigned i = 0; i < 2; i++)
        run[i] = ticket_of(&b, 9, 100 + i, 0, GATE_ENTERED);
    assert_int_equal(gates_places(b.g, b.route, 1, places, countof(places)), 0);
    for (unsigned i = 0; i < 4; i++)
        (void)ticket_of(&b, 1, 1 + i, 0, GATE_QUEUED);
    for (unsigned i = 0; i < 2; i++)
        (void)ticket_of(&b, 2, 11 + i, 0, GATE_QUEUED);
    assert_int_equal(gates_places(b.g, b.route, 2, places, countof(places)), 2);
    assert_int_equal(places[0].position, 2); /* at most one of each other flow before it */
    assert_int_equal(places[1].position, 4);
    assert_int_equal(places[1].expected_ns, 0);
    assert_int_equal(gates_places(b.g, b.route, 1, places, countof(places)), 3); /* no more room */
    assert_int_equal(places[2].position, 5);
    leave(&b, run[0], 4 * SECOND);
    assert_int_equal(gates_places(b.g, b.route, 2, places, countof(places)), 2);
    assert_int_equal(places[1].expected_ns, places[1].position * (4 * SECOND) / 2);
    bench_free(&b);
}

static void equal_users_have_equal_shares(void **state)
{
    (void)state;
    enum { N = 50 };
    struct bench b = bench_new(1, 1000);
    unsigned had[N] = {0};
    uint32_t running = ticket_of(&b, 99, 99, 0, GATE_ENTERED);
    serve(&b, running, NULL, N, 5025, had);
    assert_true(jain(had, N) >= 0.9999);
    bench_free(&b);
}

static void shares_are_as_the_weights_say(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1, 2, 3, 10, 63, 1000};
    struct bench b = bench_new(1, 1000);
    unsigned had[countof(weights)] = {0}, spent[countof(weights)];
    uint32_t running = ticket_of(&b, 99, 99, 0, GATE_ENTERED);
    serve(&b, running, weights, countof(weights), 20000, had);
    for (unsigned i = 0; i < countof(weights); i++)
        spent[i] = had[i] * (weights[i] < GATE_WEIGHT_MAX ? weights[i] : GATE_WEIGHT_MAX);
    assert_true(jain(spent, countof(weights)) >= 0.999);
    bench_free(&b);
}

/* Users that ask for one thing at a time, and one who asks for a hundred: the longest that one of
 * them waits, in turns. */
static unsigned longest_wait(bool greedy)
{
    enum { USERS = 20, TURNS = 5000 };
    struct bench b = bench_new(1, 10000);
    uint32_t running = ticket_of(&b, 1000, 1000, 0, GATE_ENTERED);
    unsigned since[USERS], longest = 0;
    struct gate_answer a;
    for (unsigned i = 0; greedy && i < 100; i++)
        (void)ticket_of(&b, 1000, 1000, 0, GATE_QUEUED);
    uint32_t tickets[USERS];
    for (unsigned u = 0; u < USERS; u++) {
        tickets[u] = ticket_of(&b, u, u, 0, GATE_QUEUED);
        since[u] = 0;
    }
    for (unsigned turn = 1; turn <= TURNS; turn++) {
        uint64_t cookie;
        gates_leave(b.g, running, true, 0, &b.wakes);
        assert_int_equal(gates_take_granted(b.g, (struct gate_owner){1, 1}, &cookie, 1), 1);
        struct gate_ask ask = ask_of(&b, 1, cookie, cookie);
        if (cookie == 1000) {
            running = held(&b);
            assert_int_equal(gates_enter(b.g, &ask, 0, &a), GATE_QUEUED);
            continue;
        }
        longest = turn - since[cookie] > longest ? turn - since[cookie] : longest;
        running = tickets[cookie];
        assert_int_equal(gates_enter(b.g, &ask, 0, &a), GATE_QUEUED);
        tickets[cookie] = a.ticket;
        since[cookie] = turn;
    }
    bench_free(&b);
    return longest;
}

static void greedy_user_does_not_delay_others(void **state)
{
    (void)state;
    unsigned alone = longest_wait(false), beside = longest_wait(true);
    assert_true(beside * 10 <= alone * 12);
}

static void tickets_that_are_let_go_save_no_turns(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 1000);
    uint32_t running = ticket_of(&b, 9, 9, 0, GATE_ENTERED);
    struct gate_ask heavy = ask_of(&b, 1, 1, 1);
    heavy.weight = 50;
    heavy.deadline_ns = 1000;
    assert_int_equal(enter(&b, heavy, 0), GATE_QUEUED);
    uint32_t bait = b.answer.ticket;
    struct gate_ask light[2] = {ask_of(&b, 1, 1, 1), ask_of(&b, 1, 2, 2)};
    for (unsigned i = 0; i < 90; i++)
        (void)enter(&b, light[i % 2], 0);
    unsigned had[3] = {0};
    for (unsigned i = 0; i < 60; i++) {
        if (i == 30)
            leave(&b, bait, 0);
        uint64_t cookie;
        gates_leave(b.g, running, true, 0, &b.wakes);
        assert_int_equal(gates_take_granted(b.g, (struct gate_owner){1, 1}, &cookie, 1), 1);
        had[cookie]++;
        running = held(&b);
    }
    assert_in_range(had[1], 14, 16); /* half of what came after he let the bait go */
    bench_free(&b);
}

/* Die with the lock of the route, and what can be made anew in disorder. */
static void *die_inside(void *arg)
{
    struct bench *b = arg;
    struct route *r = &b->g->routes[b->route];
    must(!robust_lock(&r->lock));
    memset((char *)r + offsetof(struct route, running), 0x5A,
           sizeof *r - offsetof(struct route, running));
    for (uint32_t c = 1; c < CHUNKS; c++)
        if (is_of(b->g, c, r))
            memset(b->g->chunks[c].of, 0x5A, sizeof b->g->chunks[c].of);
    memset(b->g->buckets[b->route], 0x5A, sizeof b->g->buckets[0]);
    return NULL;
}

static void dead_holder_leaves_a_route_that_is_rebuilt(void **state)
{
    (void)state;
    enum { N = 500 };
    struct bench b = bench_new(10, N);
    uint32_t running[10];
    for (unsigned i = 0; i < 10; i++)
        running[i] = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    for (unsigned i = 0; i < N; i++)
        (void)ticket_of(&b, i % 37, i, 0, GATE_QUEUED);
    leave(&b, running[0], 0); /* a grant that nobody has looked at */
    struct gate_stats before = stats(&b);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, die_inside, &b), 0);
    pthread_join(thread, NULL);
    struct gate_stats after = stats(&b);
    /* Behind its last member there are bytes that nobody sets. */
    assert_memory_equal(&before, &after, offsetof(struct gate_stats, flows) + sizeof before.flows);
    assert_int_equal(b.g->routes[b.route].repairs, 1);
    check_route(b.g, b.route);
    assert_int_not_equal(granted(&b) + 1, 0);
    for (unsigned i = 1; i < 10; i++)
        leave(&b, running[i], 0);
    gates_sweep(b.g, (struct gate_owner){1, 1}, 0, &b.wakes);
    assert_int_equal(b.g->routes[b.route].used, 0);
    bench_free(&b);
}

static void grant_whose_waker_died_is_told_again_by_the_sweep(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 10);
    assert_int_equal(enter(&b, ask_of(&b, 2, 1, 1), 0), GATE_ENTERED);
    uint32_t ticket = b.answer.ticket;
    (void)ticket_of(&b, 1, 5, 0, GATE_QUEUED);
    leave(&b, ticket, 0); /* slot 2 is told whom to wake, and dies before it does */
    assert_int_equal(b.wakes.n, 1);
    gates_sweep(b.g, (struct gate_owner){2, 1}, 0, &b.wakes);
    assert_int_equal(b.wakes.n, 1);
    assert_int_equal(b.wakes.slots[0], 1);
    assert_int_equal(granted(&b), 5);
    bench_free(&b);
}

static void operations_stay_cheap_with_ten_thousand_waiting(void **state)
{
    (void)state;
    enum { N = 10000 };
    for (unsigned flows = 1; flows <= N; flows *= 100) {
        struct bench b = bench_new(1, N + 1);
        uint32_t running = ticket_of(&b, 0, 0, 0, GATE_ENTERED);
        struct gate_ask ask;
        struct timespec t[2];
        clock_gettime(CLOCK_MONOTONIC, &t[0]);
        for (unsigned i = 0; i < N; i++) {
            ask = ask_of(&b, 1, i % flows, i);
            ask.deadline_ns = SECOND + (int64_t)(mix(i) % 1000000);
            assert_int_equal(gates_enter(b.g, &ask, 0, &b.answer), GATE_QUEUED);
        }
        /* No tree is deeper than a few times the logarithm. */
        unsigned deepest = 0;
        for (uint32_t n = 0; (n = ticket_next(b.g, &b.g->routes[b.route], n)) != 0;) {
            unsigned depth = 0;
            for (uint32_t at = n; at && state_of(&b.g->tickets[n]) == TICKET_WAITING;
                 at = b.g->tickets[at].parent)
                depth++;
            deepest = depth > deepest ? depth : deepest;
        }
        assert_true(deepest < 60);
        gates_leave(b.g, running, true, 0, &b.wakes);
        clock_gettime(CLOCK_MONOTONIC, &t[1]);
        print_message(
            "# %d waiting in %u flows: depth %u, %.0f ns each\n", N, flows, deepest,
            ((double)(t[1].tv_sec - t[0].tv_sec) * 1e9 + (double)(t[1].tv_nsec - t[0].tv_nsec)) /
                N);
        bench_free(&b);
    }
}

/* ---- a process that is killed at any instruction ---- */

enum { STEP_TICKETS = 140 }; /* of two chunks and some */

/* The child's life: all that a worker does, over and over. */
static void life(struct bench *b, uint32_t running)
{
    struct gate_owner self = {2, 1};
    struct gate_wakes wakes;
    for (uint64_t i = 0;; i++) {
        gates_leave(b->g, running, true, 0, &wakes);
        for (unsigned k = 0; k < 60; k++) { /* takes a chunk, now and then */
            struct gate_ask ask = ask_of(b, 2, mix(i + k) % 7, i);
            ask.limits.concurrency += k % 2;
            (void)!gates_enter(b->g, &ask, 0, &b->answer);
            if (b->answer.ticket != GATE_NONE && k % 3)
                gates_leave(b->g, b->answer.ticket, true, 0, &wakes);
            else if (b->answer.ticket != GATE_NONE)
                running = b->answer.ticket;
        }
        uint64_t cookies[3];
        (void)gates_take_granted(b->g, self, cookies, 3);
    }
}

/* Let the child take so many steps, and kill it; false: the system does not allow that. */
static bool step_and_kill(struct bench *b, uint32_t running, uint64_t steps)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        raise(SIGSTOP);
        life(b, running);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    bool may = WIFSTOPPED(status);
    for (uint64_t i = 0; i < steps && may; i++)
        may = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
              WIFSTOPPED(status);
    if (!WIFEXITED(status)) {
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    return may;
}

static void process_may_die_at_any_instruction(void **state)
{
    (void)state;
    enum { DEATHS = 60, STEPS = 4000 };
    uint64_t repairs = 0;
    for (uint64_t n = 0; n < DEATHS; n++) {
        struct bench b = bench_new(3, STEP_TICKETS);
        uint32_t running = 0;
        for (uint32_t i = 0; i < STEP_TICKETS; i++) {
            struct gate_ask ask = ask_of(&b, 1 + i % 2, i % 11, i);
            ask.deadline_ns = (int64_t)(mix(i) % 50); /* some more than once */
            (void)!gates_enter(b.g, &ask, 0, &b.answer);
            running = i == 1 ? b.answer.ticket : running;
        }
        if (!step_and_kill(&b, running, mix(n) % STEPS)) {
            gates_free(&b.g);
            skip(); /* no ptrace here */
        }
        gates_sweep(b.g, (struct gate_owner){2, 1}, 0, &b.wakes);
        check_route(b.g, b.route);
        struct route *r = &b.g->routes[b.route];
        repairs += r->repairs;
        assert_true(r->running == r->concurrency && r->waiting + r->running == r->used);
        assert_int_equal(r->used, STEP_TICKETS / 2);
        /* Every one that is left has its turn, once. */
        bool seen[STEP_TICKETS] = {false};
        seen[0] = true; /* entered at once … */
        seen[2] = true; /* … this one, too */
        for (unsigned left = STEP_TICKETS / 2; left > 0; left--) {
            uint64_t cookies[STEP_TICKETS];
            unsigned got =
                gates_take_granted(b.g, (struct gate_owner){1, 1}, cookies, STEP_TICKETS);
            for (unsigned i = 0; i < got; i++) {
                assert_false(seen[cookies[i]]);
                seen[cookies[i]] = true;
            }
            leave(&b, held(&b), 0);
        }
        for (unsigned i = 0; i < STEP_TICKETS; i += 2)
            assert_true(seen[i]);
        assert_int_equal(r->used, 0);
        bench_free(&b);
    }
    print_message("# %d deaths, %llu of them with the lock\n", DEATHS, (unsigned long long)repairs);
    assert_true(repairs > 0);
}

/* ---- processes with threads, of which some are killed ---- */

enum { PROCESSES = 4, THREADS = 16, ROUTES = 3, CONCURRENCY = 5 };

struct common {
    struct gates *g;
    uint32_t routes[ROUTES];
    bool kills;                 /* then nobody knows how many are inside */
    _Atomic int inside[ROUTES]; /* who holds a token, as the threads count */
    _Atomic uint64_t held;      /* tokens that were */
    _Atomic bool stop;
};

struct crew {
    struct common *common;
    struct gate_owner owner;
    _Atomic uint64_t granted[THREADS]; /* the last cookie that was granted to each */
};

struct member {
    struct crew *crew;
    unsigned index;
    uint64_t random;
};

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* Any thread of the process learns of grants for all of them. */
static void learn(struct crew *crew)
{
    uint64_t cookies[4];
    unsigned n = gates_take_granted(crew->common->g, crew->owner, cookies, 4);
    for (unsigned i = 0; i < n; i++) {
        _Atomic uint64_t *at = &crew->granted[cookies[i] % THREADS];
        for (uint64_t last = atomic_load(at);
             last < cookies[i] && !atomic_compare_exchange_weak(at, &last, cookies[i]);)
            ;
    }
}

static void member_turn(struct member *m, uint64_t turn)
{
    struct crew *crew = m->crew;
    struct common *c = crew->common;
    uint64_t random = m->random = mix(m->random + turn);
    unsigned k = (unsigned)(random % ROUTES), patience = (unsigned)(random >> 16 & 63);
    struct gate_ask ask = {
        .route = c->routes[k],
        .limits = {CONCURRENCY, 40, SECOND, 0},
        .owner = crew->owner,
        .flow = (random >> 8) % 9,
        .weight = 1 + (uint32_t)((random >> 24) % 3),
        .deadline_ns = INT64_MAX,
        .cookie = turn * THREADS + m->index,
    };
    struct gate_answer a;
    struct gate_wakes wakes;
    enum gate_verdict v = gates_enter(c->g, &ask, mono_ns(), &a);
    if (a.ticket == GATE_NONE) {
        struct gate_stats look; /* holds the lock for longer, so that more die with it */
        gates_stats(c->g, ask.route, &look);
        must(look.running <= CONCURRENCY);
        return;
    }
    bool has = v == GATE_ENTERED;
    for (unsigned i = 0; !has && (i < patience || patience > 32) && !atomic_load(&c->stop); i++) {
        learn(crew);
        has = atomic_load(&crew->granted[m->index]) == ask.cookie;
        int64_t expected_ns;
        if (!has && gates_position(c->g, a.ticket, &expected_ns) > 1)
            sched_yield();
    }
    if (has) {
        must(atomic_fetch_add(&c->inside[k], 1) < CONCURRENCY || c->kills);
        atomic_fetch_add(&c->held, 1);
        if ((random >> 32) % 4 == 0)
            sched_yield();
        atomic_fetch_sub(&c->inside[k], 1);
    }
    gates_leave(c->g, a.ticket, true, mono_ns(), &wakes);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    for (uint64_t turn = 1; !atomic_load(&m->crew->common->stop); turn++)
        member_turn(m, turn);
    return NULL;
}

static pid_t crew_start(struct common *c, uint32_t slot, uint32_t generation)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    static struct crew crew;
    crew.common = c;
    crew.owner = (struct gate_owner){slot, generation};
    static struct member members[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        members[i] = (struct member){&crew, i, slot * 1000003 + generation * 101 + i};
        must(pthread_create(&threads[i], NULL, member_main, &members[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    _exit(0);
}

static struct common *common_new(bool kills)
{
    struct common *c = shared_map(sizeof *c);
    assert_non_null(c);
    c->g = gates_new();
    assert_non_null(c->g);
    c->kills = kills;
    for (unsigned k = 0; k < ROUTES; k++) {
        char name[8];
        snprintf(name, sizeof name, "%u", k);
        c->routes[k] = gates_route(c->g, name);
    }
    return c;
}

static void common_free(struct common *c)
{
    gates_free(&c->g);
    void *p = c;
    shared_unmap(&p, sizeof *c);
}

/* So many tokens more have been held. */
static void until_held(struct common *c, uint64_t more)
{
    uint64_t goal = atomic_load(&c->held) + more;
    struct timespec pause = {.tv_nsec = 200000};
    while (atomic_load(&c->held) < goal)
        nanosleep(&pause, NULL);
}

static uint32_t routes_check(struct common *c)
{
    uint32_t used = 0;
    for (unsigned k = 0; k < ROUTES; k++) {
        check_route(c->g, c->routes[k]);
        struct gate_stats s;
        gates_stats(c->g, c->routes[k], &s);
        assert_true(s.running <= CONCURRENCY && s.waiting <= 40);
        used += s.running + s.waiting;
    }
    return used;
}

static void processes_never_hold_more_tokens_than_there_are(void **state)
{
    (void)state;
    struct common *c = common_new(false);
    pid_t pids[PROCESSES];
    for (uint32_t i = 0; i < PROCESSES; i++)
        pids[i] = crew_start(c, i, 1);
    until_held(c, 20000);
    atomic_store(&c->stop, true);
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(routes_check(c), 0);
    common_free(c);
}

static void killed_processes_lose_no_token(void **state)
{
    (void)state;
    enum { KILLS = 200 };
    struct common *c = common_new(true);
    pid_t pids[PROCESSES];
    uint32_t generations[PROCESSES];
    struct gate_wakes wakes;
    for (uint32_t i = 0; i < PROCESSES; i++)
        pids[i] = crew_start(c, i, generations[i] = 1);
    for (unsigned kill_n = 0; kill_n < KILLS; kill_n++) {
        until_held(c, 50 + mix(kill_n) % 200); /* those that are left go on */
        uint32_t i = (uint32_t)(mix(kill_n + 1000) % PROCESSES);
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        gates_sweep(c->g, (struct gate_owner){i, generations[i]}, mono_ns(), &wakes);
        routes_check(c);
        pids[i] = crew_start(c, i, ++generations[i]);
    }
    for (uint32_t i = 0; i < PROCESSES; i++) {
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    }
    for (uint32_t i = 0; i < PROCESSES; i++)
        gates_sweep(c->g, (struct gate_owner){i, generations[i]}, mono_ns(), &wakes);
    assert_int_equal(routes_check(c), 0);
    uint64_t repairs = 0;
    for (unsigned k = 0; k < ROUTES; k++) {
        assert_int_equal(c->g->routes[c->routes[k]].used, 0);
        repairs += c->g->routes[c->routes[k]].repairs;
    }
    /* No chunk is lost either. */
    for (uint32_t n = 1, left = ROUTES; n < CHUNKS; n++)
        assert_true(atomic_load(&c->g->chunks[n].route) == 0 || left-- > 0);
    print_message("# %d kills, %llu of them with a lock, %llu tokens held\n", KILLS + PROCESSES,
                  (unsigned long long)repairs, (unsigned long long)atomic_load(&c->held));
    common_free(c);
}

static void who_was_granted_by_one_that_entered_is_told(void **state)
{
    (void)state;
    struct bench b = bench_new(1, 10);
    uint32_t first = ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    uint32_t waits = ticket_of(&b, 2, 2, 0, GATE_QUEUED);
    gates_wakes(b.g, &b.wakes);
    assert_int_equal(b.wakes.n, 0);
    b.limits.concurrency = 3; /* of another generation */
    struct gate_ask ask = ask_of(&b, 2, 3, 3);
    assert_int_equal(enter(&b, ask, 0), GATE_ENTERED);
    gates_wakes(b.g, &b.wakes);
    assert_int_equal(b.wakes.n, 1);
    assert_int_equal(b.wakes.slots[0], 1);
    assert_int_equal(granted(&b), 2);
    gates_wakes(b.g, &b.wakes);
    assert_int_equal(b.wakes.n, 0);
    leave(&b, first, 1);
    leave(&b, waits, 1);
    bench_free(&b);
}

static void who_looks_does_not_wait_for_a_process_that_is_stopped(void **state)
{
    (void)state;
    struct bench b = bench_new(2, 10);
    struct gate_stats s;
    (void)ticket_of(&b, 1, 1, 0, GATE_ENTERED);
    assert_true(gates_look(b.g, "nobody has asked", &s));
    assert_int_equal(s.running, 0);
    assert_int_equal(atomic_load(&b.g->routes_n), 1); /* it was not made */
    struct robust *locks[] = {&b.g->names, &b.g->routes[b.route].lock};
    for (unsigned i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)!robust_lock(locks[i]);
            raise(SIGSTOP);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        assert_true(WIFSTOPPED(status));
        assert_false(gates_look(b.g, "POST /api/ai/*", &s));
        assert_int_equal(s.running, 0);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(gates_look(b.g, "POST /api/ai/*", &s)); /* it died inside: made anew */
        assert_int_equal(s.running, 1);
    }
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_given_until_there_are_none),
        cmocka_unit_test(who_was_granted_by_one_that_entered_is_told),
        cmocka_unit_test(who_looks_does_not_wait_for_a_process_that_is_stopped),
        cmocka_unit_test(same_name_is_the_same_route_and_old_ones_make_room),
        cmocka_unit_test(routes_that_all_run_make_no_room),
        cmocka_unit_test(equal_deadlines_are_first_come_first_served),
        cmocka_unit_test(earliest_deadline_of_a_flow_goes_first),
        cmocka_unit_test(who_is_late_is_not_granted_and_costs_no_token),
        cmocka_unit_test(expected_wait_beyond_the_limit_is_refused_at_once),
        cmocka_unit_test(mean_follows_within_twenty_completions),
        cmocka_unit_test(larger_limit_lets_waiting_ones_in_first),
        cmocka_unit_test(older_limit_changes_nothing),
        cmocka_unit_test(smaller_limit_holds_until_enough_have_left),
        cmocka_unit_test(wakes_that_do_not_fit_come_with_the_next_call),
        cmocka_unit_test(grants_that_do_not_fit_come_with_the_next_call),
        cmocka_unit_test(sweep_brings_back_all_that_a_dead_owner_had),
        cmocka_unit_test(all_tickets_can_be_used_and_then_it_is_full),
        cmocka_unit_test(flows_with_most_waiting_are_told),
        cmocka_unit_test(greedy_user_leaves_room_for_others),
        cmocka_unit_test(one_place_in_the_queue_is_anybodys),
        cmocka_unit_test(user_is_told_where_his_own_stand),
        cmocka_unit_test(equal_users_have_equal_shares),
        cmocka_unit_test(shares_are_as_the_weights_say),
        cmocka_unit_test(greedy_user_does_not_delay_others),
        cmocka_unit_test(tickets_that_are_let_go_save_no_turns),
        cmocka_unit_test(dead_holder_leaves_a_route_that_is_rebuilt),
        cmocka_unit_test(grant_whose_waker_died_is_told_again_by_the_sweep),
        cmocka_unit_test(operations_stay_cheap_with_ten_thousand_waiting),
        cmocka_unit_test(process_may_die_at_any_instruction),
        cmocka_unit_test(processes_never_hold_more_tokens_than_there_are),
        cmocka_unit_test(killed_processes_lose_no_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
