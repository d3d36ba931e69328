/* lead: what it promises, with a fake loop and a fake application (fake_loop.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>

#include "fake_loop.h"

static void until_finished(struct fake_job *j, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fake_until(atomic_load(&j[i].finished));
}

static void assert_ran_once(struct fake_job *j, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(atomic_load(&j[i].started), 1);
        assert_int_equal(atomic_load(&j[i].ended), 1);
        assert_int_equal(j[i].answered, 1);
    }
}

static struct fake_job *jobs_new(size_t n, void (*body)(struct fake_job *), void *arg)
{
    struct fake_job *j = calloc(n, sizeof *j);
    assert_non_null(j);
    for (size_t i = 0; i < n; i++)
        fake_job_init(&j[i], body, arg);
    return j;
}

static void begin(struct fake *f, unsigned places_min, unsigned places_max)
{
    struct lead_config c = {.places_min = places_min, .places_max = places_max};
    fake_init(f, &c);
    fake_start(f);
}

static bool monitor_asleep(struct fake *f)
{
    return (atomic_load(&f->lead->notice) & NOTICE_ASLEEP) != 0;
}

static void fast_jobs_run_inline_in_order_and_once(void **state)
{
    (void)state;
    enum { N = 10000 };
    struct fake f;
    begin(&f, 1, 4);
    struct fake_job *j = jobs_new(N, NULL, NULL);
    fake_send_all(&f, j, N);
    until_finished(j, N);
    struct lead_stats s = fake_stats(&f);
    fake_fini(&f);
    assert_ran_once(j, N);
    assert_true(s.inline_runs > N / 2); /* on a slow machine some end away */
    if (s.away_runs == 0)
        for (unsigned i = 0; i < N; i++)
            assert_int_equal(j[i].order, i + 1);
    free(j);
}

static void slow_job_does_not_delay_a_fast_one(void **state)
{
    (void)state;
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, 4);
    struct fake_job slow, fast;
    fake_job_init(&slow, fake_body_gate, &gate);
    fake_job_init(&fast, NULL, NULL);
    fake_send(&f, &slow);
    fake_send(&f, &fast);
    fake_until(atomic_load(&fast.finished));
    assert_false(atomic_load(&slow.finished));
    assert_int_equal(fake_stats(&f).busy, 1);
    fake_gate_open(&gate);
    fake_until(atomic_load(&slow.finished));
    struct lead_stats s = fake_stats(&f);
    assert_int_equal(s.deposed, 1);
    assert_int_equal(s.inline_runs + s.away_runs, 2);
    fake_fini(&f);
    fake_gate_fini(&gate);
}

static void queue_of_slow_and_fast_by_turns_lets_the_fast_pass(void **state)
{
    (void)state;
    enum { N = 400 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, N);
    struct fake_job *j = jobs_new(N, NULL, NULL);
    for (unsigned i = 0; i < N; i += 2) {
        j[i].body = fake_body_gate;
        j[i].arg = &gate;
    }
    fake_send_all(&f, j, N);
    for (unsigned i = 1; i < N; i += 2)
        fake_until(atomic_load(&j[i].finished));
    /* Far fewer than one deposition for each slow job. */
    assert_true(fake_stats(&f).deposed < N / 4);
    fake_gate_open(&gate);
    until_finished(j, N);
    fake_fini(&f);
    assert_ran_once(j, N);
    fake_gate_fini(&gate);
    free(j);
}

static void body_short_sleep(struct fake_job *j)
{
    fake_unlock_app(j->fake);
    fake_sleep_us(2000);
    fake_lock_app(j->fake);
}

static void places_are_never_exceeded_and_all_used(void **state)
{
    (void)state;
    enum { N = 100 };
    static const unsigned places[] = {1, 2, 8};
    for (size_t p = 0; p < countof(places); p++) {
        struct fake f; /* its run asserts the bound */
        begin(&f, 1, places[p]);
        struct fake_job *j = jobs_new(N, body_short_sleep, NULL);
        fake_send_all(&f, j, N);
        until_finished(j, N);
        assert_int_equal(atomic_load(&f.inside_most), places[p]);
        assert_true(fake_stats(&f).threads <= places[p] + 1);
        fake_fini(&f);
        assert_ran_once(j, N);
        free(j);
    }
}

static void leader_turns_while_all_places_are_taken(void **state)
{
    (void)state;
    enum { PLACES = 3 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, PLACES);
    struct fake_job *slow = jobs_new(PLACES, fake_body_gate, &gate), fast;
    fake_send_all(&f, slow, PLACES);
    fake_until(atomic_load(&f.inside) == PLACES);
    fake_job_init(&fast, NULL, NULL);
    fake_send(&f, &fast);
    fake_until(fake_stats(&f).waiting == 1);
    for (int i = 0; i < 10; i++) {
        unsigned turns = atomic_load(&f.turns);
        fake_wake(&f);
        fake_until(atomic_load(&f.turns) > turns);
    }
    struct lead_stats s = fake_stats(&f);
    assert_int_equal(s.waiting, 1);
    assert_int_equal(s.busy, PLACES);
    int64_t age_ns = clock_mono_ns() - s.oldest_ns;
    assert_true(age_ns >= 0 && age_ns < 60000000000);
    assert_false(atomic_load(&fast.started));
    fake_gate_open(&gate);
    fake_until(atomic_load(&fast.finished));
    until_finished(slow, PLACES);
    fake_until(fake_stats(&f).busy == 0);
    assert_int_equal(fake_stats(&f).oldest_ns, 0);
    fake_fini(&f);
    fake_gate_fini(&gate);
    free(slow);
}

/* Leader: take back the job that the test put into f->arg. */
static void cancel_in_turn(struct fake *f)
{
    struct fake_job *j = f->arg;
    if (j->cancelled == 0 && (!list_empty(&j->job.node) || atomic_load(&j->started)))
        j->cancelled = lead_cancel(f->lead, &j->job) ? 1 : -1;
}

/* All places are behind a gate. */
struct full {
    struct fake f;
    struct fake_gate gate;
    struct fake_job *slow;
};

static void full_begin(struct full *h, unsigned places, bool lane)
{
    struct lead_config c = {.places_min = 1, .places_max = places, .reserved_lane = lane};
    fake_init(&h->f, &c);
    fake_start(&h->f);
    fake_gate_init(&h->gate);
    h->slow = jobs_new(places, fake_body_gate, &h->gate);
    fake_send_all(&h->f, h->slow, places);
    fake_until(atomic_load(&h->f.inside) == places);
}

static void full_end(struct full *h)
{
    unsigned places = h->f.config.places_max;
    fake_gate_open(&h->gate);
    until_finished(h->slow, places);
    fake_until(fake_stats(&h->f).busy == 0 && fake_stats(&h->f).waiting == 0);
    fake_until(fake_stats(&h->f).reserved == 0);
    assert_true(fake_stats(&h->f).threads <= places + 1 + h->f.config.reserved_lane);
    fake_fini(&h->f);
    assert_ran_once(h->slow, places);
    fake_gate_fini(&h->gate);
    free(h->slow);
}

static void reserved_job_starts_though_all_places_are_taken(void **state)
{
    (void)state;
    static const unsigned places[] = {2, 3, 16};
    for (size_t p = 0; p < countof(places); p++) {
        struct full h;
        full_begin(&h, places[p], true);
        struct fake_job common[2], reserved;
        for (unsigned i = 0; i < 2; i++)
            fake_job_init(&common[i], NULL, NULL);
        fake_job_init(&reserved, NULL, NULL);
        reserved.job.reserved = true;
        fake_send_all(&h.f, common, 2);
        fake_until(fake_stats(&h.f).waiting == 2);
        for (unsigned i = 0; i < 3; i++) { /* with a new thread, and with the same again */
            atomic_store(&reserved.finished, false);
            fake_send(&h.f, &reserved);
            fake_until(atomic_load(&reserved.finished));
        }
        assert_int_equal(fake_stats(&h.f).lane_runs, 3);
        assert_int_equal(fake_stats(&h.f).waiting, 2);
        assert_int_equal(fake_stats(&h.f).busy, places[p]);
        assert_int_equal(atomic_load(&common[0].started) + atomic_load(&common[1].started), 0);
        full_end(&h);
        assert_ran_once(common, 2);
    }
}

static void second_reserved_job_waits_ahead_of_the_others(void **state)
{
    (void)state;
    struct full h;
    struct fake_gate lane;
    fake_gate_init(&lane);
    full_begin(&h, 3, true);
    struct fake_job *j = jobs_new(6, NULL, NULL);
    for (unsigned i = 1; i < 6; i += 2) /* common and reserved by turns */
        j[i].job.reserved = true;
    fake_job_init(&j[1], fake_body_gate, &lane);
    j[1].job.reserved = true;
    fake_send_all(&h.f, j, 6);
    fake_until(atomic_load(&j[1].started));
    assert_int_equal(atomic_load(&h.f.inside), 4);
    assert_int_equal(fake_stats(&h.f).reserved, 1);
    /* The loop goes on, though places and lane are taken. */
    for (int i = 0; i < 10; i++) {
        unsigned turns = atomic_load(&h.f.turns);
        fake_wake(&h.f);
        fake_until(atomic_load(&h.f.turns) > turns);
    }
    assert_int_equal(fake_stats(&h.f).waiting, 5);
    fake_gate_open(&lane);
    fake_until(atomic_load(&j[3].finished) && atomic_load(&j[5].finished));
    assert_int_equal(j[3].order, 5);
    assert_int_equal(j[5].order, 6);
    assert_int_equal(fake_stats(&h.f).waiting, 3);
    full_end(&h);
    assert_ran_once(j, 6);
    fake_gate_fini(&lane);
    free(j);
}

static void common_jobs_use_a_free_place_beside_the_lane(void **state)
{
    (void)state;
    struct full h;
    struct fake_gate lane;
    fake_gate_init(&lane);
    full_begin(&h, 2, true);
    struct fake_job reserved, common;
    fake_job_init(&reserved, fake_body_gate, &lane);
    reserved.job.reserved = true;
    fake_send(&h.f, &reserved);
    fake_until(atomic_load(&reserved.started));
    fake_gate_open(&h.gate);
    until_finished(h.slow, 2);
    fake_job_init(&common, NULL, NULL);
    fake_send(&h.f, &common);
    fake_until(atomic_load(&common.finished));
    assert_false(atomic_load(&reserved.finished));
    fake_gate_open(&lane);
    fake_until(atomic_load(&reserved.finished));
    full_end(&h);
    fake_gate_fini(&lane);
}

static void lane_is_nothing_with_one_place_or_when_off(void **state)
{
    (void)state;
    for (unsigned places = 1; places <= 2; places++) {
        struct full h;
        full_begin(&h, places, places == 1);
        struct fake_job j[2]; /* the common one first: it is not overtaken */
        fake_job_init(&j[0], NULL, NULL);
        fake_job_init(&j[1], NULL, NULL);
        j[1].job.reserved = true;
        fake_send_all(&h.f, j, 2);
        fake_until(fake_stats(&h.f).waiting == 2);
        for (int i = 0; i < 10; i++) {
            unsigned turns = atomic_load(&h.f.turns);
            fake_wake(&h.f);
            fake_until(atomic_load(&h.f.turns) > turns);
        }
        assert_int_equal(atomic_load(&h.f.inside), places);
        assert_int_equal(fake_stats(&h.f).lane_runs + fake_stats(&h.f).reserved, 0);
        fake_gate_open(&h.gate);
        until_finished(j, 2);
        assert_true(places > 1 || j[0].order < j[1].order);
        full_end(&h);
        assert_ran_once(j, 2);
    }
}

static void reserved_job_waits_for_a_place_when_its_thread_fails(void **state)
{
    (void)state;
    atomic_int *fails[] = {&fake_create_fails_role, &fake_start_fails_role};
    for (size_t i = 0; i < countof(fails); i++) {
        struct full h;
        atomic_store(fails[i], ROLE_LANE);
        full_begin(&h, 2, true);
        struct fake_job *j = jobs_new(4, NULL, NULL);
        j[3].job.reserved = true;
        fake_send_all(&h.f, j, 4);
        fake_until(fake_stats(&h.f).waiting == 4 && fake_stats(&h.f).reserved == 0);
        fake_gate_open(&h.gate);
        until_finished(j, 4);
        full_end(&h);
        atomic_store(fails[i], ROLE_NONE);
        assert_ran_once(j, 4);
        free(j);
    }
}

static void reserved_jobs_can_be_taken_back_and_the_lane_stops(void **state)
{
    (void)state;
    struct full h;
    struct fake_gate lane;
    fake_gate_init(&lane);
    full_begin(&h, 2, true);
    struct fake_job inside, gone, last;
    fake_job_init(&inside, fake_body_gate, &lane);
    fake_job_init(&gone, NULL, NULL);
    fake_job_init(&last, NULL, NULL);
    inside.job.reserved = gone.job.reserved = last.job.reserved = true;
    fake_send(&h.f, &inside);
    fake_until(atomic_load(&inside.started));
    pthread_mutex_lock(&h.f.mutex);
    h.f.arg = &gone;
    h.f.on_turn = cancel_in_turn;
    pthread_mutex_unlock(&h.f.mutex);
    fake_send(&h.f, &gone);
    fake_send(&h.f, &last);
    fake_until(fake_stats(&h.f).waiting == 1); /* `last`, once `gone` is taken back */
    lead_stop(h.f.lead);
    fake_until(lead_join(h.f.lead, 1) == 3);
    fake_gate_open(&lane);
    fake_gate_open(&h.gate);
    assert_int_equal(lead_join(h.f.lead, 60000), 0);
    fake_fini(&h.f);
    assert_int_equal(gone.cancelled, 1);
    assert_int_equal(atomic_load(&gone.started) + atomic_load(&last.started), 0);
    assert_int_equal(inside.answered, 1);
    fake_gate_fini(&lane);
    fake_gate_fini(&h.gate);
    free(h.slow);
}

static void fast_jobs_return_to_the_leader_after_a_full_house(void **state)
{
    (void)state;
    enum { N = 200 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, 1);
    struct fake_job slow;
    fake_job_init(&slow, fake_body_gate, &gate);
    fake_send(&f, &slow);
    fake_until(atomic_load(&slow.started));
    struct fake_job *j = jobs_new(N, NULL, NULL);
    fake_send_all(&f, j, N);
    fake_until(fake_stats(&f).waiting == N);
    fake_gate_open(&gate);
    until_finished(j, N);
    assert_true(fake_stats(&f).inline_runs > N / 2);
    fake_fini(&f);
    assert_ran_once(j, N);
    fake_gate_fini(&gate);
    free(j);
}

static void burst_starts_two_thousand_blocked_jobs_at_once(void **state)
{
    (void)state;
    enum { N = 2000 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 4, .places_max = 2048, .stack_bytes = 65536};
    fake_init(&f, &c);
    fake_start(&f);
    struct fake_job *j = jobs_new(N, fake_body_gate, &gate);
    int64_t start_ns = clock_mono_ns();
    fake_send_all(&f, j, N);
    fake_until(atomic_load(&f.inside) == N);
    print_message("# %d blocking jobs started in %.0f ms\n", N,
                  (double)(clock_mono_ns() - start_ns) / 1e6);
    struct lead_stats s = fake_stats(&f);
    assert_int_equal(s.busy, N);
    assert_true(s.burst > N / 2);
    assert_true(s.deposed < 100);
    fake_gate_open(&gate);
    until_finished(j, N);
    fake_fini(&f);
    assert_ran_once(j, N);
    fake_gate_fini(&gate);
    free(j);
}

static void burst_survives_threads_that_cannot_be_made(void **state)
{
    (void)state;
    enum { N = 50 };
    struct fake f;
    begin(&f, 1, 64);
    struct fake_job *j = jobs_new(N, body_short_sleep, NULL);
    atomic_store(&fake_create_fails, 5);
    atomic_store(&f.start_fails, 5);
    fake_send_all(&f, j, N);
    until_finished(j, N);
    atomic_store(&fake_create_fails, 0);
    fake_until(fake_stats(&f).busy == 0);
    fake_fini(&f);
    assert_ran_once(j, N);
    free(j);
}

/* Nothing wakes the loop from outside in these: where a thread fails, lead itself must see to it
 * that the jobs which relied on it are started all the same. */
static void blocked_jobs_start_one_by_one(atomic_int *fails_role, enum role role, bool contended)
{
    enum { N = 6 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 1, .places_max = 2 * N};
    fake_init(&f, &c);
    f.use_app_lock = true;
    fake_start(&f);
    struct fake_job *j = jobs_new(N, fake_body_gate, &gate);
    atomic_store(fails_role, role);
    if (contended)
        pthread_mutex_lock(&f.app);
    fake_send_all(&f, j, N);
    if (contended) {
        fake_until(fake_stats(&f).contended);
        pthread_mutex_unlock(&f.app);
    }
    fake_until(atomic_load(&f.inside) == N);
    atomic_store(fails_role, ROLE_NONE);
    fake_gate_open(&gate);
    until_finished(j, N);
    fake_until(fake_stats(&f).busy == 0);
    fake_fini(&f);
    assert_ran_once(j, N);
    fake_gate_fini(&gate);
    free(j);
}

static void jobs_start_when_starters_cannot_be_made(void **state)
{
    (void)state;
    blocked_jobs_start_one_by_one(&fake_create_fails_role, ROLE_START, false);
}

static void jobs_start_when_starters_cannot_start(void **state)
{
    (void)state;
    blocked_jobs_start_one_by_one(&fake_start_fails_role, ROLE_START, false);
}

static void jobs_start_when_runners_cannot_be_made(void **state)
{
    (void)state;
    blocked_jobs_start_one_by_one(&fake_create_fails_role, ROLE_RUN, true);
}

static void jobs_start_when_runners_cannot_start(void **state)
{
    (void)state;
    blocked_jobs_start_one_by_one(&fake_start_fails_role, ROLE_RUN, true);
}

static void leader_is_found_again_when_the_first_threads_fail(void **state)
{
    (void)state;
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 2};
    fake_init(&f, &c);
    atomic_store(&f.start_fails, 3);
    fake_start(&f);
    struct fake_job j;
    fake_job_init(&j, NULL, NULL);
    fake_send(&f, &j);
    fake_until(atomic_load(&j.finished));
    fake_fini(&f);
}

static void start_fails_with_a_sentence_when_no_thread_can_be_made(void **state)
{
    (void)state;
    for (unsigned fails = 1; fails <= 2; fails++) {
        struct fake f;
        struct lead_config c = {.places_min = 1, .places_max = 2};
        fake_init(&f, &c);
        struct err e = {0};
        /* The first call makes the monitor, the second the leader. */
        c.monitor_off = fails == 2;
        f.lead->config.monitor_off = c.monitor_off;
        atomic_store(&fake_create_fails, 1);
        assert_int_equal(lead_start(f.lead, &e), -1);
        assert_non_null(strstr(e.text, "thread"));
        fake_fini(&f);
    }
}

static void bad_ranges_are_refused(void **state)
{
    (void)state;
    static const struct lead_ops ops;
    static const struct lead_config bad[] = {
        {.places_min = 0, .places_max = 1},
        {.places_min = 2, .places_max = 1},
        {.places_min = 1, .places_max = 1000000},
    };
    for (size_t i = 0; i < countof(bad); i++) {
        struct lead *l;
        struct err e = {0};
        assert_int_equal(lead_new(&l, &bad[i], &ops, NULL, &e), -1);
        assert_null(l);
        assert_non_null(strstr(e.text, "MIN"));
    }
}

static void contended_lock_keeps_the_loop_turning_and_ends(void **state)
{
    (void)state;
    enum { N = 20 };
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 8};
    fake_init(&f, &c);
    f.use_app_lock = true;
    fake_start(&f);
    fake_until(monitor_asleep(&f)); /* the wait for the lock alone must wake it */
    pthread_mutex_lock(&f.app);     /* somebody computes */
    struct fake_job *j = jobs_new(N, NULL, NULL);
    fake_send_all(&f, j, N);
    fake_until(fake_stats(&f).contended);
    for (int i = 0; i < 10; i++) {
        unsigned turns = atomic_load(&f.turns);
        fake_wake(&f);
        fake_until(atomic_load(&f.turns) > turns);
    }
    struct lead_stats s = fake_stats(&f);
    assert_int_equal(s.deposed_gil, 1);
    assert_int_equal(s.busy, 1); /* one thread waits for the lock with the queue */
    assert_int_equal(s.waiting, N);
    assert_int_equal(s.burst, 0);
    pthread_mutex_unlock(&f.app);
    until_finished(j, N);
    assert_ran_once(j, N);
    /* A take below 50 us ends it; on a busy machine not every one is. */
    int tries = 0;
    while (fake_stats(&f).contended) {
        struct fake_job one;
        fake_job_init(&one, NULL, NULL);
        fake_send(&f, &one);
        fake_until(atomic_load(&one.finished));
        fake_until(fake_stats(&f).busy == 0);
        assert_true(++tries < 10000);
    }
    fake_fini(&f);
    free(j);
}

static void runner_that_blocks_is_replaced(void **state)
{
    (void)state;
    enum { N = 40 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 1, .places_max = 2 * N};
    fake_init(&f, &c);
    f.use_app_lock = true;
    fake_start(&f);
    pthread_mutex_lock(&f.app);
    struct fake_job *j = jobs_new(N, NULL, NULL);
    for (unsigned i = 0; i < N / 2; i++) {
        j[i].body = fake_body_gate;
        j[i].arg = &gate;
    }
    fake_send_all(&f, j, N);
    fake_until(fake_stats(&f).contended);
    pthread_mutex_unlock(&f.app);
    for (unsigned i = N / 2; i < N; i++)
        fake_until(atomic_load(&j[i].finished));
    fake_until(atomic_load(&f.inside) == N / 2);
    fake_gate_open(&gate);
    until_finished(j, N);
    fake_until(fake_stats(&f).busy == 0);
    fake_fini(&f);
    assert_ran_once(j, N);
    fake_gate_fini(&gate);
    free(j);
}

static void cancelled_job_never_starts(void **state)
{
    (void)state;
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 1, .places_max = 1};
    fake_init(&f, &c);
    struct fake_job slow, gone, last;
    fake_job_init(&slow, fake_body_gate, &gate);
    fake_job_init(&gone, NULL, NULL);
    fake_job_init(&last, NULL, NULL);
    f.arg = &gone;
    f.on_turn = cancel_in_turn;
    fake_start(&f);
    fake_send(&f, &slow);
    fake_until(atomic_load(&slow.started));
    fake_send(&f, &gone);
    fake_send(&f, &last);
    unsigned turns = atomic_load(&f.turns);
    fake_wake(&f);
    fake_until(atomic_load(&f.turns) > turns + 1 || fake_stats(&f).waiting == 1);
    fake_gate_open(&gate);
    fake_until(atomic_load(&last.finished));
    fake_fini(&f);
    assert_int_equal(gone.cancelled, 1);
    assert_int_equal(atomic_load(&gone.started), 0);
    fake_gate_fini(&gate);
}

static void started_job_cannot_be_cancelled(void **state)
{
    (void)state;
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 1, .places_max = 1};
    fake_init(&f, &c);
    struct fake_job slow;
    fake_job_init(&slow, fake_body_gate, &gate);
    fake_start(&f);
    fake_send(&f, &slow);
    fake_until(atomic_load(&slow.started));
    pthread_mutex_lock(&f.mutex); /* the leader reads them after its next wake */
    f.arg = &slow;
    f.on_turn = cancel_in_turn;
    pthread_mutex_unlock(&f.mutex);
    unsigned turns = atomic_load(&f.turns);
    fake_wake(&f);
    fake_until(atomic_load(&f.turns) > turns);
    fake_gate_open(&gate);
    fake_until(atomic_load(&slow.finished));
    fake_fini(&f);
    assert_int_equal(slow.cancelled, -1);
    fake_gate_fini(&gate);
}

/* Leader: each answer pushes the next of a chain, as a pipelining connection does. */
static void push_next(struct fake *f, struct fake_job *j)
{
    struct fake_job *end = f->arg;
    if (j + 1 < end)
        lead_push(f->lead, &j[1].job);
}

static void done_leading_may_push_and_needs_no_turn(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 4, .batch = 100};
    fake_init(&f, &c);
    struct fake_job *j = jobs_new(N, NULL, NULL);
    f.arg = j + N;
    f.on_answer = push_next;
    fake_start(&f);
    fake_send(&f, &j[0]);
    until_finished(j, N);
    assert_true(atomic_load(&f.turns) < N / 2);
    fake_fini(&f);
    assert_ran_once(j, N);
    free(j);
}

static void body_50_us(struct fake_job *j)
{
    (void)j;
    for (int64_t end = clock_mono_ns() + 50000; clock_mono_ns() < end;)
        ;
}

static void many_fast_jobs_are_not_taken_for_a_slow_one(void **state)
{
    (void)state;
    enum { N = 2000, TRIES = 5 };
    unsigned ticks = 0, deposed = 0;
    /* A thread that is itself held up by the machine looks slow; five times in a row, hardly. */
    for (int i = 0; i < TRIES && (i == 0 || deposed >= ticks / 4); i++) {
        struct fake f;
        struct lead_config c = {.places_min = 1, .places_max = 4, .batch = 100};
        fake_init(&f, &c);
        struct fake_job *j = jobs_new(N, body_50_us, NULL);
        f.arg = j + N;
        f.on_answer = push_next;
        fake_start(&f);
        unsigned tick = tick_of(f.lead);
        fake_send(&f, &j[0]);
        until_finished(j, N);
        ticks = tick_of(f.lead) - tick;
        deposed = (unsigned)(fake_stats(&f).deposed + fake_stats(&f).deposed_gil);
        fake_fini(&f);
        assert_ran_once(j, N);
        free(j);
    }
    assert_true(deposed < ticks / 4);
}

static void stop_waits_for_those_inside_and_starts_nothing(void **state)
{
    (void)state;
    enum { PLACES = 2, WAITING = 5 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, PLACES);
    struct fake_job *slow = jobs_new(PLACES, fake_body_gate, &gate);
    struct fake_job *waiting = jobs_new(WAITING, NULL, NULL);
    fake_send_all(&f, slow, PLACES);
    fake_until(atomic_load(&f.inside) == PLACES);
    fake_send_all(&f, waiting, WAITING);
    fake_until(fake_stats(&f).waiting == WAITING);
    lead_stop(f.lead);
    fake_until(lead_join(f.lead, 1) == PLACES);
    fake_until(fake_stats(&f).threads == PLACES); /* the leader and the idle have ended */
    fake_gate_open(&gate);
    assert_int_equal(lead_join(f.lead, 60000), 0);
    fake_read_mail(&f);
    assert_ran_once(slow, PLACES);
    assert_int_equal(fake_stats(&f).waiting, WAITING);
    fake_fini(&f);
    for (int i = 0; i < WAITING; i++) {
        assert_int_equal(atomic_load(&waiting[i].started), 0);
        assert_true(list_empty(&waiting[i].job.node));
    }
    fake_gate_fini(&gate);
    free(slow);
    free(waiting);
}

static void stop_takes_the_loop_from_a_leader_inside(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct fake f;
        struct fake_gate gate;
        fake_gate_init(&gate);
        struct lead_config c = {.places_min = 1, .places_max = 1, .tick_us = 20000};
        fake_init(&f, &c);
        fake_start(&f);
        struct fake_job j;
        fake_job_init(&j, fake_body_gate, &gate);
        fake_send(&f, &j);
        fake_until(atomic_load(&j.started));
        lead_stop(f.lead);
        /* The job's end is a message even if no tick had passed: nobody leads any more. */
        fake_until(state_of(atomic_load(&f.lead->word)) == STATE_VACANT);
        fake_gate_open(&gate);
        assert_int_equal(lead_join(f.lead, -1), 0);
        assert_int_equal(fake_stats(&f).away_runs, 1);
        fake_fini(&f);
        fake_gate_fini(&gate);
    }
}

static void body_stop(struct fake_job *j)
{
    lead_stop(j->fake->lead);
}

static void stop_may_come_from_a_job(void **state)
{
    (void)state;
    struct fake f;
    begin(&f, 1, 4);
    struct fake_job j[3];
    fake_job_init(&j[0], body_stop, NULL);
    fake_job_init(&j[1], NULL, NULL);
    fake_job_init(&j[2], NULL, NULL);
    fake_send_all(&f, j, 3);
    assert_int_equal(lead_join(f.lead, 60000), 0);
    fake_fini(&f);
    assert_int_equal(j[0].answered, 1);
    assert_int_equal(atomic_load(&j[1].started) + atomic_load(&j[2].started), 0);
}

static void idle_threads_end_down_to_the_minimum(void **state)
{
    (void)state;
    enum { N = 30 };
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    struct lead_config c = {.places_min = 2, .places_max = 64, .idle_ms = 20};
    fake_init(&f, &c);
    fake_start(&f);
    struct fake_job *j = jobs_new(N, fake_body_gate, &gate);
    fake_send_all(&f, j, N);
    fake_until(atomic_load(&f.inside) == N);
    assert_true(fake_stats(&f).threads > N);
    fake_gate_open(&gate);
    until_finished(j, N);
    fake_until(fake_stats(&f).threads <= 3);
    /* All of them were idle for as long: not one too many has ended. */
    assert_int_equal(atomic_load(&f.threads), 3);
    assert_int_equal(fake_stats(&f).threads, 3);
    fake_fini(&f);
    free(j);
}

/* How often the thread of this name went to sleep; -1: there is none. */
static long sleeps_of(const char *name)
{
    long n = -1;
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        char path[300], line[200];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", d->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        bool match = false;
        while (fgets(line, sizeof line, file)) {
            if (strncmp(line, "Name:\t", 6) == 0)
                match = strncmp(line + 6, name, strlen(name)) == 0;
            if (match && strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
                n = strtol(line + 24, NULL, 10);
        }
        fclose(file);
    }
    closedir(dir);
    return n;
}

static void monitor_sleeps_when_nothing_runs_and_wakes_for_the_next_job(void **state)
{
    (void)state;
    struct fake f;
    struct fake_gate gate;
    fake_gate_init(&gate);
    begin(&f, 1, 4);
    for (int i = 0; i < 3; i++) {
        fake_until(monitor_asleep(&f));
        unsigned tick = tick_of(f.lead);
        long sleeps = sleeps_of("weir-monitor");
        /* Turns without a job do not wake it. */
        for (int n = 0; n < 50; n++) {
            unsigned turns = atomic_load(&f.turns);
            fake_wake(&f);
            fake_until(atomic_load(&f.turns) > turns);
        }
        assert_true(monitor_asleep(&f));
        assert_int_equal(tick_of(f.lead), tick);
        assert_true(sleeps_of("weir-monitor") <= sleeps + 1);
        /* A job that blocks does: it is deposed. */
        struct fake_job slow;
        fake_job_init(&slow, fake_body_gate, &gate);
        fake_send(&f, &slow);
        fake_until(fake_stats(&f).deposed == (unsigned)i + 1);
        fake_gate_open(&gate);
        fake_until(atomic_load(&slow.finished));
        gate.open = false;
    }
    fake_fini(&f);
    fake_gate_fini(&gate);
}

static void monitor_off_deposes_nobody(void **state)
{
    (void)state;
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 4, .monitor_off = true};
    fake_init(&f, &c);
    fake_start(&f);
    assert_int_equal(sleeps_of("weir-monitor"), -1);
    struct fake_job *j = jobs_new(5, body_short_sleep, NULL);
    fake_send_all(&f, j, 5);
    until_finished(j, 5);
    struct lead_stats s = fake_stats(&f);
    assert_int_equal(s.deposed, 0);
    assert_int_equal(s.inline_runs, 5);
    fake_fini(&f);
    free(j);
}

static void body_look(struct fake_job *j)
{
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    pthread_attr_t attr;
    size_t stack = 0;
    must(pthread_getattr_np(pthread_self(), &attr) == 0);
    pthread_attr_getstacksize(&attr, &stack);
    pthread_attr_destroy(&attr);
    bool *good = j->arg;
    *good = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT) &&
            sigismember(&blocked, SIGPROF) && strncmp(name, "weir-", 5) == 0 && stack >= 1000000 &&
            stack < 2000000;
}

static void threads_have_names_stacks_and_no_signals(void **state)
{
    (void)state;
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 1, .stack_bytes = 1000001};
    fake_init(&f, &c);
    fake_start(&f);
    bool good = false;
    struct fake_job j;
    fake_job_init(&j, body_look, &good);
    fake_send(&f, &j);
    fake_until(atomic_load(&j.finished));
    assert_true(good);
    fake_fini(&f);
}

static void never_started_can_be_freed(void **state)
{
    (void)state;
    struct fake f;
    struct lead_config c = {.places_min = 1, .places_max = 1};
    fake_init(&f, &c);
    fake_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_ranges_are_refused),
        cmocka_unit_test(never_started_can_be_freed),
        cmocka_unit_test(fast_jobs_run_inline_in_order_and_once),
        cmocka_unit_test(done_leading_may_push_and_needs_no_turn),
        cmocka_unit_test(slow_job_does_not_delay_a_fast_one),
        cmocka_unit_test(queue_of_slow_and_fast_by_turns_lets_the_fast_pass),
        cmocka_unit_test(places_are_never_exceeded_and_all_used),
        cmocka_unit_test(leader_turns_while_all_places_are_taken),
        cmocka_unit_test(fast_jobs_return_to_the_leader_after_a_full_house),
        cmocka_unit_test(reserved_job_starts_though_all_places_are_taken),
        cmocka_unit_test(second_reserved_job_waits_ahead_of_the_others),
        cmocka_unit_test(common_jobs_use_a_free_place_beside_the_lane),
        cmocka_unit_test(lane_is_nothing_with_one_place_or_when_off),
        cmocka_unit_test(reserved_job_waits_for_a_place_when_its_thread_fails),
        cmocka_unit_test(reserved_jobs_can_be_taken_back_and_the_lane_stops),
        cmocka_unit_test(burst_starts_two_thousand_blocked_jobs_at_once),
        cmocka_unit_test(burst_survives_threads_that_cannot_be_made),
        cmocka_unit_test(jobs_start_when_starters_cannot_be_made),
        cmocka_unit_test(jobs_start_when_starters_cannot_start),
        cmocka_unit_test(jobs_start_when_runners_cannot_be_made),
        cmocka_unit_test(jobs_start_when_runners_cannot_start),
        cmocka_unit_test(leader_is_found_again_when_the_first_threads_fail),
        cmocka_unit_test(start_fails_with_a_sentence_when_no_thread_can_be_made),
        cmocka_unit_test(contended_lock_keeps_the_loop_turning_and_ends),
        cmocka_unit_test(runner_that_blocks_is_replaced),
        cmocka_unit_test(cancelled_job_never_starts),
        cmocka_unit_test(started_job_cannot_be_cancelled),
        cmocka_unit_test(many_fast_jobs_are_not_taken_for_a_slow_one),
        cmocka_unit_test(stop_waits_for_those_inside_and_starts_nothing),
        cmocka_unit_test(stop_takes_the_loop_from_a_leader_inside),
        cmocka_unit_test(stop_may_come_from_a_job),
        cmocka_unit_test(idle_threads_end_down_to_the_minimum),
        cmocka_unit_test(monitor_sleeps_when_nothing_runs_and_wakes_for_the_next_job),
        cmocka_unit_test(monitor_off_deposes_nobody),
        cmocka_unit_test(threads_have_names_stacks_and_no_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
