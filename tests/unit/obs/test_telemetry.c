/* telemetry: totals, requests in flight, and what is kept of finished ones. */
#include "obs/telemetry.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define S INT64_C(1000000000)
#define MS INT64_C(1000000)

static struct telemetry *t;
static uint64_t ids;

static int make(void **state)
{
    (void)state;
    ids = 0;
    t = telemetry_new(2, true);
    return t ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    telemetry_free(&t);
    return 0;
}

static struct flight *begin(unsigned slot, int64_t now_ns)
{
    struct flight *f = flight_begin(t, slot, now_ns);
    assert_non_null(f);
    flight_edit(f);
    f->id = ++ids;
    f->wall_ns = 1000 * 60 * S;
    strcpy(f->path, "/a");
    flight_edited(f);
    return f;
}

static void end(struct flight *f, int status, unsigned keep, int64_t now_ns)
{
    f->status = (uint16_t)status;
    flight_finish(t, f, keep, now_ns);
    flight_free(t, f);
}

static void bounds_grow_and_a_time_is_counted_under_the_first_that_is_not_below(void **state)
{
    (void)state;
    struct telemetry_hist *h = &telemetry_slot(t, 0)->loop_lag;
    for (unsigned i = 0; i < TELEMETRY_BOUNDS; i++) {
        assert_true(i == 0 || telemetry_bounds[i] > telemetry_bounds[i - 1]);
        telemetry_observe(h, telemetry_bounds[i]);
        telemetry_observe(h, telemetry_bounds[i] + 1);
        assert_int_equal(h->counts[i], i ? 2 : 1);
        assert_int_equal(h->counts[i + 1], 1);
    }
    telemetry_observe(h, -5);
    assert_int_equal(h->counts[0], 2);
}

static void quantiles_lie_inside_the_step_that_holds_them(void **state)
{
    (void)state;
    struct telemetry_hist *h = &telemetry_slot(t, 0)->gil_wait;
    struct telemetry_counts c = {0}, before = {0};
    assert_int_equal(telemetry_quantile(&c, 0.5), 0);
    for (int i = 0; i < 98; i++)
        telemetry_observe_shared(h, 8 * MS);
    telemetry_sum(&before, h);
    telemetry_observe_shared(h, 40 * S);
    telemetry_observe_shared(h, 4000 * S);
    telemetry_sum(&c, h);
    assert_int_equal(c.n, 100);
    int64_t p50 = telemetry_quantile(&c, 0.5);
    assert_true(p50 > 7 * MS && p50 <= 10 * MS);
    int64_t p99 = telemetry_quantile(&c, 0.985);
    assert_true(p99 > 30 * S && p99 <= 45 * S);
    assert_int_equal(telemetry_quantile(&c, 1), 600 * S);
    telemetry_minus(&c, &before);
    assert_int_equal(c.n, 2);
    assert_true(telemetry_quantile(&c, 0.1) > 30 * S);
}

static void every_status_has_a_row_and_a_text(void **state)
{
    (void)state;
    for (int status = -1; status < 700; status++) {
        unsigned i = telemetry_status_index(status);
        assert_true(i < TELEMETRY_STATUSES);
        char text[8];
        snprintf(text, sizeof text, "%d", status);
        const char *is = telemetry_status_text(i);
        if (status < 100 || status > 599)
            assert_string_equal(is, "none");
        else if (is[1] == 'x')
            assert_true(is[0] == text[0]);
        else
            assert_string_equal(is, text);
    }
    assert_string_equal(telemetry_status_text(telemetry_status_index(429)), "429");
    assert_string_equal(telemetry_status_text(telemetry_status_index(299)), "2xx");
    assert_null(telemetry_status_text(TELEMETRY_STATUSES));
}

static void a_route_keeps_its_row_and_more_than_there_are_rows_share_one(void **state)
{
    (void)state;
    assert_int_equal(telemetry_route(t, "*"), TELEMETRY_ROUTE_OTHER);
    assert_int_equal(telemetry_route(t, "/-/"), TELEMETRY_ROUTE_OWN);
    unsigned a = telemetry_route(t, "POST /a");
    assert_int_equal(telemetry_route(t, "POST /a"), a);
    assert_int_equal(telemetry_find_route(t, "POST /a"), a);
    assert_int_equal(telemetry_find_route(t, "POST /b"), TELEMETRY_ROUTE_OTHER);
    char name[32];
    for (unsigned i = 0; i < 2 * TELEMETRY_ROUTES_MAX; i++) {
        snprintf(name, sizeof name, "r%u", i);
        assert_true(telemetry_route(t, name) < TELEMETRY_ROUTES_MAX);
    }
    assert_int_equal(telemetry_route(t, name), TELEMETRY_ROUTE_OTHER);
    assert_int_equal(telemetry_find_route(t, "POST /a"), a);
}

static void a_request_is_seen_in_each_of_its_states_and_then_counted(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 1);
    struct flight *f = begin(1, 10 * S), seen;
    unsigned route = telemetry_route(t, "POST /a");
    f->route = (uint16_t)route;
    assert_true(flight_copy(&seen, f));
    assert_int_equal(seen.state, FLIGHT_READING);
    flight_enter(w, f, FLIGHT_QUEUED, 11 * S);
    flight_enter(w, f, FLIGHT_READY, 12 * S);
    flight_run(w, f, 4711, 13 * S);
    assert_true(flight_copy(&seen, f));
    assert_int_equal(seen.state, FLIGHT_APPLICATION);
    assert_int_equal(seen.thread, 4711);
    assert_int_equal(w->states[FLIGHT_APPLICATION], 1);
    flight_enter(w, f, FLIGHT_WRITING, 20 * S);
    assert_int_equal(w->in_flight, 1);
    end(f, 200, 0, 21 * S);
    assert_false(flight_copy(&seen, f));
    assert_int_equal(w->in_flight, 0);
    for (unsigned i = 0; i < FLIGHT_STATES; i++)
        assert_int_equal(w->states[i], 0);
    struct telemetry_route *r = &w->routes[route];
    assert_int_equal(r->statuses[telemetry_status_index(200)], 1);
    assert_int_equal(r->total.sum_ns, 11 * S);
    assert_int_equal(r->queue.sum_ns, 2 * S);
    assert_int_equal(r->app.sum_ns, 7 * S);
    assert_int_equal(r->write.sum_ns, 1 * S);
}

static void
one_that_is_answered_and_whose_thread_is_not_back_is_counted_once_and_still_seen(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    struct flight *f = begin(0, 1 * S), seen;
    flight_enter(w, f, FLIGHT_READY, 1 * S);
    flight_run(w, f, 7, 1 * S);
    flight_enter(w, f, FLIGHT_LATE, 4 * S);
    f->status = 504;
    flight_finish(t, f, KEEP_FAILED, 4 * S);
    assert_true(flight_copy(&seen, f));
    assert_int_equal(seen.state, FLIGHT_LATE);
    assert_int_equal(seen.thread, 7);
    flight_free(t, f);
    assert_false(flight_copy(&seen, f));
    assert_int_equal(w->routes[0].statuses[telemetry_status_index(504)], 1);
    assert_true(flight_copy_kept(&seen, &w->failed[0]));
    assert_int_equal(seen.status, 504);
}

static void records_are_used_again_and_no_more_than_there_are(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    for (int i = 0; i < 100; i++)
        end(begin(0, S), 200, 0, S);
    assert_int_equal(w->top, 1);
    for (unsigned i = 0; i < t->flights_max; i++)
        assert_non_null(flight_begin(t, 0, S));
    assert_null(flight_begin(t, 0, S));
    assert_int_equal(w->unlisted, 1);
    assert_non_null(flight_begin(t, 1, S)); /* the neighbour has its own */
}

static void a_thread_that_begins_when_its_client_has_just_left_is_counted_as_late(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    struct flight *f = begin(0, S), seen;
    flight_enter(w, f, FLIGHT_READY, 2 * S);
    flight_enter(w, f, FLIGHT_LATE, 3 * S);
    assert_true(flight_copy(&seen, f));
    assert_int_equal(seen.thread, 0);
    flight_run(w, f, 77, 3 * S);
    assert_int_equal(w->states[FLIGHT_READY], 0);
    assert_int_equal(w->states[FLIGHT_APPLICATION], 0);
    assert_int_equal(w->states[FLIGHT_LATE], 1);
    assert_true(flight_copy(&seen, f));
    assert_int_equal(seen.state, FLIGHT_LATE);
    assert_int_equal(seen.thread, 77);
    end(f, 0, 0, 4 * S);
    for (unsigned i = 0; i < FLIGHT_STATES; i++)
        assert_int_equal(w->states[i], 0);
}

static void the_newest_failures_and_refusals_are_kept(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    struct flight seen;
    for (unsigned i = 0; i < TELEMETRY_FAILED + 5; i++)
        end(begin(0, S), 500, KEEP_FAILED, S);
    assert_int_equal(w->failed_n, TELEMETRY_FAILED + 5);
    assert_true(flight_copy_kept(&seen, &w->failed[4]));
    assert_int_equal(seen.id, TELEMETRY_FAILED + 5);
    struct flight *f = begin(0, S);
    f->refusal = 1 + 4;
    end(f, 429, KEEP_REFUSED, S);
    assert_true(flight_copy_kept(&seen, &w->refused[0]));
    assert_int_equal(w->routes[0].refused[4], 1);
}

static void the_slowest_of_each_minute_are_kept(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    for (int i = 1; i <= 20; i++)
        end(begin(0, S), 200, 0, S + (i * 7 % 20) * MS);
    struct telemetry_minute *m = &w->minutes[1000 % TELEMETRY_MINUTES];
    assert_int_equal(m->minute, 1000);
    int64_t sum = 0;
    for (unsigned i = 0; i < TELEMETRY_SLOWEST; i++)
        sum += m->slowest[i].at_ns[FLIGHT_NONE] - S;
    assert_int_equal(sum, (19 + 18 + 17 + 16) * MS);
    struct flight *f = begin(0, S), seen; /* an hour later the room is another minute's */
    f->wall_ns += 60 * 60 * S;
    end(f, 200, 0, S + 1);
    assert_int_equal(m->minute, 1060);
    assert_true(flight_copy_kept(&seen, &m->slowest[0]));
    assert_false(flight_copy_kept(&seen, &m->slowest[1]));
}

static void spans_go_into_a_ring_that_drops_what_nobody_fetches(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    for (unsigned i = 0; i < t->spans_max + 3; i++)
        end(begin(0, S), 200, KEEP_SPAN, S);
    assert_int_equal(w->spans, t->spans_max);
    assert_int_equal(w->spans_dropped, 3);
    w->span_tail = 1;
    end(begin(0, S), 200, KEEP_SPAN, S);
    assert_int_equal(w->spans, t->spans_max + 1);
}

static void what_a_killed_worker_was_doing_is_told_as_a_failure(void **state)
{
    (void)state;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    struct flight *runs = begin(0, S), *reads = begin(0, S), *torn = begin(0, S), seen;
    flight_enter(w, runs, FLIGHT_READY, S);
    flight_run(w, runs, 9, S);
    flight_edit(torn); /* it died in the middle */
    assert_false(flight_copy(&seen, torn));
    end(begin(0, S), 200, 0, S);
    telemetry_adopt(t, 0);
    assert_int_equal(w->failed_n, 1);
    assert_true(flight_copy_kept(&seen, &w->failed[0]));
    assert_int_equal(seen.id, 1);
    assert_int_equal(seen.status, 0);
    assert_int_equal(w->in_flight, 0);
    assert_int_equal(w->states[FLIGHT_APPLICATION], 0);
    assert_int_equal(w->routes[0].statuses[telemetry_status_index(200)], 1); /* totals stay */
    for (int i = 0; i < 5; i++)
        assert_true(flight_copy(&seen, begin(0, S)));
    (void)reads;
}

/* ---- a reader beside the writer ---- */

static _Atomic bool over;

static void *write_all_the_time(void *arg)
{
    (void)arg;
    struct telemetry_worker *w = telemetry_slot(t, 0);
    for (uint64_t n = 1; n < 200000; n++) {
        struct flight *f = flight_begin(t, 0, S);
        flight_edit(f);
        f->id = n;
        f->bytes_in = f->bytes_out = n;
        memset(f->path, 'a' + (int)(n % 26), 100);
        f->path[100] = '\0';
        flight_edited(f);
        flight_enter(w, f, FLIGHT_READY, S);
        flight_run(w, f, 1, S);
        flight_enter(w, f, FLIGHT_WRITING, S);
        f->status = 500;
        flight_finish(t, f, KEEP_FAILED, S);
        flight_free(t, f);
    }
    over = true;
    return NULL;
}

static void a_copy_is_never_of_two_moments(void **state)
{
    (void)state;
    pthread_t thread;
    struct flight seen;
    uint64_t copies = 0;
    over = false;
    assert_int_equal(pthread_create(&thread, NULL, write_all_the_time, NULL), 0);
    while (!over) {
        struct flight *from[] = {telemetry_flights(t, 0), &telemetry_slot(t, 0)->failed[3]};
        for (unsigned i = 0; i < 2; i++) {
            if (!(i ? flight_copy_kept(&seen, from[i]) : flight_copy(&seen, from[i])) || !seen.id)
                continue;
            copies++;
            assert_int_equal(seen.bytes_in, seen.id);
            assert_int_equal(seen.bytes_out, seen.id);
            assert_int_equal(strspn(seen.path, (char[]){(char)('a' + seen.id % 26), '\0'}), 100);
        }
    }
    pthread_join(thread, NULL);
    assert_true(copies > 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(bounds_grow_and_a_time_is_counted_under_the_first_that_is_not_below),
        T(quantiles_lie_inside_the_step_that_holds_them),
        T(every_status_has_a_row_and_a_text),
        T(a_route_keeps_its_row_and_more_than_there_are_rows_share_one),
        T(a_request_is_seen_in_each_of_its_states_and_then_counted),
        T(one_that_is_answered_and_whose_thread_is_not_back_is_counted_once_and_still_seen),
        T(records_are_used_again_and_no_more_than_there_are),
        T(a_thread_that_begins_when_its_client_has_just_left_is_counted_as_late),
        T(the_newest_failures_and_refusals_are_kept),
        T(the_slowest_of_each_minute_are_kept),
        T(spans_go_into_a_ring_that_drops_what_nobody_fetches),
        T(what_a_killed_worker_was_doing_is_told_as_a_failure),
        T(a_copy_is_never_of_two_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
