/* One key's cell, and what no order of spending may break: a window of any length has no more than
 * the burst and what the rate gives in that time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>

#include "admit/gcra.h"
#include "base/attr.h"
#include "base/must.h"

#define SECOND 1000000000LL

static struct gcra_rate rate_of(int64_t units, int64_t per_ns, int64_t burst)
{
    struct gcra_rate rate;
    must(gcra_rate_make(&rate, units, per_ns, burst) == 0);
    return rate;
}

static void a_rate_rounds_its_step_up(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(3, 10, 2);
    assert_int_equal(rate.step_ns, 4);
    assert_int_equal(rate.burst_ns, 8);
    rate = rate_of(10, 60 * SECOND, 3);
    assert_int_equal(rate.step_ns, 6 * SECOND);
    rate = rate_of(INT64_MAX, 1, 1);
    assert_int_equal(rate.step_ns, 1);
}

static void a_rate_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct gcra_rate rate;
    assert_int_equal(gcra_rate_make(&rate, 0, SECOND, 1), -EINVAL);
    assert_int_equal(gcra_rate_make(&rate, -1, SECOND, 1), -EINVAL);
    assert_int_equal(gcra_rate_make(&rate, 1, 0, 1), -EINVAL);
    assert_int_equal(gcra_rate_make(&rate, 1, SECOND, 0), -EINVAL);
    assert_int_equal(gcra_rate_make(&rate, 1, INT64_MAX, 1), -ERANGE);
    assert_int_equal(gcra_rate_make(&rate, 1, 86400 * SECOND, INT64_MAX), -ERANGE);
    assert_int_equal(gcra_rate_make(&rate, 1, 86400 * SECOND, 3650), 0);
    assert_int_equal(gcra_rate_make(&rate, 1, 86400 * SECOND, 3651), -ERANGE);
}

static void a_burst_is_spent_at_once_and_then_one_a_step(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(10, 60 * SECOND, 3);
    struct gcra_cell cell = {0};
    int64_t now = 1000, wait;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(gcra_left(&cell, &rate, now), 3 - i);
        assert_int_equal(gcra_spend(&cell, &rate, 1, now, &wait), GCRA_SPENT);
        assert_int_equal(wait, 0);
    }
    assert_int_equal(gcra_left(&cell, &rate, now), 0);
    assert_int_equal(gcra_debt_ns(&cell, now), 18 * SECOND);
    assert_int_equal(gcra_spend(&cell, &rate, 1, now, &wait), GCRA_WAIT);
    assert_int_equal(wait, 6 * SECOND);
    assert_int_equal(gcra_spend(&cell, &rate, 1, now + wait - 1, &wait), GCRA_WAIT);
    assert_int_equal(wait, 1);
    assert_int_equal(gcra_spend(&cell, &rate, 1, now + 6 * SECOND, &wait), GCRA_SPENT);
    assert_int_equal(gcra_spend(&cell, &rate, 1, now + 6 * SECOND, &wait), GCRA_WAIT);
}

static void more_than_the_burst_is_never_spent(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(10, SECOND, 3);
    struct gcra_cell cell = {0};
    int64_t wait = 1;
    assert_int_equal(gcra_spend(&cell, &rate, 4, 5, &wait), GCRA_NEVER);
    assert_int_equal(wait, 0);
    assert_int_equal(gcra_spend(&cell, &rate, INT64_MAX, 5, &wait), GCRA_NEVER);
    assert_int_equal(cell.paid_ns, 0);
    assert_int_equal(gcra_spend(&cell, &rate, 3, 5, &wait), GCRA_SPENT);
}

static void idleness_saves_up_no_more_than_the_burst(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(10, SECOND, 3);
    struct gcra_cell cell = {0};
    int64_t wait, now = 3600 * SECOND;
    assert_int_equal(gcra_left(&cell, &rate, now), 3);
    assert_int_equal(gcra_spend(&cell, &rate, 3, now, &wait), GCRA_SPENT);
    assert_int_equal(gcra_spend(&cell, &rate, 1, now, &wait), GCRA_WAIT);
}

static void a_clock_that_goes_back_costs_nothing_and_gives_nothing(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(1, 10, 2);
    struct gcra_cell cell = {0};
    int64_t wait;
    assert_int_equal(gcra_spend(&cell, &rate, 1, 100, &wait), GCRA_SPENT);
    assert_int_equal(gcra_spend(&cell, &rate, 1, 95, &wait), GCRA_WAIT);
    assert_int_equal(wait, 5);
    assert_int_equal(cell.paid_ns, 110);
    assert_int_equal(gcra_spend(&cell, &rate, 1, 100, &wait), GCRA_SPENT);
    assert_int_equal(cell.paid_ns, 120);
}

static void a_smaller_burst_after_a_reload_leaves_nothing_until_it_is_paid_off(void **state)
{
    (void)state;
    struct gcra_rate wide = rate_of(1, 10, 100), narrow = rate_of(1, 10, 2);
    struct gcra_cell cell = {0};
    int64_t wait;
    assert_int_equal(gcra_spend(&cell, &wide, 100, 0, &wait), GCRA_SPENT);
    assert_int_equal(gcra_left(&cell, &narrow, 0), 0);
    assert_int_equal(gcra_spend(&cell, &narrow, 1, 0, &wait), GCRA_WAIT);
    assert_int_equal(wait, 1000 + 10 - 20);
    assert_int_equal(gcra_spend(&cell, &narrow, 1, wait, &wait), GCRA_SPENT);
}

static void what_is_taken_back_at_once_was_never_spent(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(1, 10, 5);
    struct gcra_cell cell = {0};
    int64_t wait;
    assert_int_equal(gcra_spend(&cell, &rate, 1, 100, &wait), GCRA_SPENT);
    assert_int_equal(gcra_spend(&cell, &rate, 3, 100, &wait), GCRA_SPENT);
    int64_t paid = cell.paid_ns;
    assert_int_equal(gcra_spend(&cell, &rate, 1, 100, &wait), GCRA_SPENT);
    gcra_refund(&cell, 30, paid, 100);
    assert_int_equal(gcra_debt_ns(&cell, 100), 20);
    assert_int_equal(gcra_left(&cell, &rate, 100), 3);
}

static void what_time_has_paid_off_is_no_credit_for_others(void **state)
{
    (void)state;
    struct gcra_rate rate = rate_of(1, 10, 1);
    struct gcra_cell cell = {0};
    int64_t wait;
    assert_int_equal(gcra_spend(&cell, &rate, 1, 100, &wait), GCRA_SPENT);
    int64_t paid = cell.paid_ns;
    assert_int_equal(gcra_spend(&cell, &rate, 1, 110, &wait), GCRA_SPENT);
    gcra_refund(&cell, 10, paid, 111); /* the first, which is paid off; the second is not */
    assert_int_equal(gcra_debt_ns(&cell, 111), 9);
    assert_int_equal(gcra_spend(&cell, &rate, 1, 111, &wait), GCRA_WAIT);
}

/* ---- by chance ---- */

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* 0 .. n - 1 */
static int64_t pick(uint64_t *seed, int64_t n)
{
    return (int64_t)(next_random(seed) >> 16) % n;
}

enum { SPENDS = 200 };

static void no_window_holds_more_than_burst_and_rate(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed * 0x9E3779B97F4A7C15;
        struct gcra_rate rate =
            rate_of(1 + pick(&random, 5), 1 + pick(&random, 50), 1 + pick(&random, 9));
        int64_t burst = rate.burst_ns / rate.step_ns;
        struct gcra_cell cell = {0};
        int64_t at[SPENDS], cost[SPENDS], now = pick(&random, 100);
        unsigned n = 0;
        while (n < SPENDS) {
            now += pick(&random, 4) ? pick(&random, rate.step_ns + 2) : 0;
            int64_t units = 1 + pick(&random, burst), left = gcra_left(&cell, &rate, now), wait;
            enum gcra_verdict verdict = gcra_spend(&cell, &rate, units, now, &wait);
            assert_int_equal(verdict, units <= left ? GCRA_SPENT : GCRA_WAIT);
            if (verdict == GCRA_SPENT) {
                at[n] = now;
                cost[n++] = units;
            } else if (pick(&random, 2)) {
                /* The wait is exact: not a moment earlier, and then it is granted. */
                struct gcra_cell copy = cell;
                int64_t more;
                assert_int_equal(gcra_spend(&copy, &rate, units, now + wait - 1, &more), GCRA_WAIT);
                assert_int_equal(gcra_spend(&copy, &rate, units, now + wait, &more), GCRA_SPENT);
            }
        }
        for (unsigned i = 0; i < n; i++) {
            int64_t sum = 0;
            for (unsigned j = i; j < n; j++) {
                sum += cost[j];
                assert_true(sum * rate.step_ns <= rate.burst_ns + at[j] - at[i]);
            }
        }
    }
}

/* Two cells with the same spends, but that one had one more, which is taken back. */
static void one_refund_never_gives_more_than_not_to_have_spent(void **state)
{
    (void)state;
    unsigned exact = 0, less = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        uint64_t random = seed * 0x9E3779B97F4A7C15;
        struct gcra_rate rate = rate_of(1, 20, 6);
        struct gcra_cell with = {0}, without = {0};
        int64_t now = 0, wait;
        for (int64_t i = pick(&random, 4); i > 0; i--) {
            now += pick(&random, 30);
            int64_t cost = 1 + pick(&random, 2);
            if (gcra_spend(&with, &rate, cost, now, &wait) == GCRA_SPENT)
                assert_int_equal(gcra_spend(&without, &rate, cost, now, &wait), GCRA_SPENT);
        }
        now += pick(&random, 30);
        int64_t extra = 1 + pick(&random, 2), spent_at = now;
        if (gcra_spend(&with, &rate, extra, now, &wait) != GCRA_SPENT)
            continue;
        int64_t paid = with.paid_ns;
        bool is_last = true;
        for (int64_t i = pick(&random, 4); i > 0; i--) {
            now += pick(&random, 30);
            int64_t cost = 1 + pick(&random, 2);
            if (gcra_spend(&with, &rate, cost, now, &wait) == GCRA_SPENT) {
                assert_int_equal(gcra_spend(&without, &rate, cost, now, &wait), GCRA_SPENT);
                is_last = false;
            }
        }
        now += pick(&random, 30);
        bool is_owed = paid - now >= extra * rate.step_ns;
        gcra_refund(&with, extra * rate.step_ns, paid, now);
        int64_t behind = gcra_debt_ns(&with, now) - gcra_debt_ns(&without, now);
        assert_true(behind >= 0 && behind <= now - spent_at);
        if (is_last || is_owed)
            assert_int_equal(behind, 0);
        behind ? less++ : exact++;
    }
    assert_true(exact > 500 && less > 50); /* both happen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_rounds_its_step_up),
        cmocka_unit_test(a_rate_that_makes_no_sense_is_refused),
        cmocka_unit_test(a_burst_is_spent_at_once_and_then_one_a_step),
        cmocka_unit_test(more_than_the_burst_is_never_spent),
        cmocka_unit_test(idleness_saves_up_no_more_than_the_burst),
        cmocka_unit_test(a_clock_that_goes_back_costs_nothing_and_gives_nothing),
        cmocka_unit_test(a_smaller_burst_after_a_reload_leaves_nothing_until_it_is_paid_off),
        cmocka_unit_test(what_is_taken_back_at_once_was_never_spent),
        cmocka_unit_test(what_time_has_paid_off_is_no_credit_for_others),
        cmocka_unit_test(no_window_holds_more_than_burst_and_rate),
        cmocka_unit_test(one_refund_never_gives_more_than_not_to_have_spent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
