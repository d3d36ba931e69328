/*
 * quota on a disk that fails and crashes: every answer that was given after a commit stays true.
 *
 * The same story is told again and again, with the first, second, … n-th write, sync, opening,
 * truncation or removal failing, until the story needs no more. Then the power goes, and the books
 * are compared: what was acknowledged is there, exactly once; what was not acknowledged is there at
 * most once, and its id asked again counts once.
 */
#include "quota_helper.h"

#include "../tools/crash_vfs.h"

enum { USERS = 3, GROUPS = 14, PER_GROUP = 9, OPS = GROUPS * PER_GROUP };

enum fate { UNKNOWN = 0, ACKNOWLEDGED, REFUNDED, ATTEMPTED, REFUND_ATTEMPTED };

static char folder[256], path[512];
static enum fate fates[OPS];
static const char *const USER[USERS] = {"ann", "bob", "eve"};

static bool is_counted_by_answer(enum fate f)
{
    return f == ACKNOWLEDGED;
}

/* One group of spends and refunds; it succeeds as a whole or not at all. */
static void group(struct quota_store *q, unsigned g)
{
    enum quota_verdict v;
    struct quota_use use;
    int rc = quota_begin(q);
    bool begun = rc == 0;
    for (unsigned i = 0; !rc && i < PER_GROUP; i++) {
        unsigned op = g * PER_GROUP + i;
        rc = quota_spend(q, op_of(op + 1), slice_str(USER[op % USERS]), SLICE("ai"), FREE, NOON, &v,
                         &use);
    }
    /* One of the group before. */
    unsigned back = g ? (g - 1) * PER_GROUP + g % PER_GROUP : 0;
    if (!rc && g)
        rc = quota_refund(q, op_of(back + 1), NOON);
    rc = rc ? rc : quota_commit(q);
    if (begun && rc)
        quota_rollback(q);
    for (unsigned i = 0; begun && i < PER_GROUP; i++)
        fates[g * PER_GROUP + i] = rc ? ATTEMPTED : ACKNOWLEDGED;
    if (begun && g)
        fates[back] = !rc ? REFUNDED : fates[back] == ACKNOWLEDGED ? REFUND_ATTEMPTED : fates[back];
}

/* How many of them a user must have, and may have. */
static void books(unsigned user, unsigned *least, unsigned *most)
{
    *least = *most = 0;
    for (unsigned op = 0; op < OPS; op++) {
        if (op % USERS != user)
            continue;
        *least += is_counted_by_answer(fates[op]);
        *most += is_counted_by_answer(fates[op]) || fates[op] == ATTEMPTED ||
                 fates[op] == REFUND_ATTEMPTED;
    }
}

static void story(void)
{
    struct quota_store *q = NULL;
    struct err e;
    memset(fates, 0, sizeof fates);
    for (unsigned g = 0; g < GROUPS; g++) {
        if (!q && quota_open(&q, path, &e))
            continue;
        group(q, g);
        if (g % 5 == 4) {
            int rc = quota_tidy(q, NOON);
            (void)rc; /* a failure is the point */
        }
        if (g == GROUPS / 2)
            quota_close(&q);
    }
    /* The connection ends with the power: nothing of what its close would do reaches the disk. */
    crash_vfs_fail(1, true, false);
    quota_close(&q);
}

static void check(unsigned n, bool exact)
{
    struct quota_store *q;
    struct err e = {{0}};
    enum quota_verdict v;
    struct quota_use use;
    if (quota_open(&q, path, &e))
        fail_msg("failure %u: %s", n, e.text);
    for (unsigned u = 0; u < USERS; u++) {
        unsigned least, most;
        books(u, &least, &most);
        int64_t day = used_at(q, USER[u], NOON).day;
        if (day < least || day > (exact ? least : most) || day != used_at(q, USER[u], NOON).month)
            fail_msg("failure %u: %s has %d, not %u to %u", n, USER[u], (int)day, least, most);
    }
    /* Whoever lost his answer asks again: each one counts once, whatever became of it before. */
    assert_int_equal(quota_begin(q), 0);
    for (unsigned op = 0; op < OPS; op++)
        assert_int_equal(quota_spend(q, op_of(op + 1), slice_str(USER[op % USERS]), SLICE("ai"),
                                     FREE, NOON, &v, &use),
                         0);
    assert_int_equal(quota_commit(q), 0);
    for (unsigned u = 0; u < USERS; u++) {
        unsigned refunded = 0, perhaps = 0;
        for (unsigned op = u; op < OPS; op += USERS) {
            refunded += fates[op] == REFUNDED;
            perhaps += fates[op] == REFUND_ATTEMPTED;
        }
        int64_t day = used_at(q, USER[u], NOON).day;
        assert_in_range(day, OPS / USERS - refunded - perhaps, OPS / USERS - refunded);
    }
    quota_close(&q);
}

/* Every n up to where nothing fails any more. */
static void each_failure(bool dead, bool full, unsigned seed)
{
    unsigned n, failures = 0;
    for (n = 1;; n++) {
        crash_vfs_clean();
        crash_vfs_fail(n, dead, full);
        story();
        bool any = false;
        for (unsigned op = 0; op < OPS; op++)
            any |= fates[op] != ACKNOWLEDGED && fates[op] != REFUNDED;
        crash_vfs_crash(seed ? seed + n : 0);
        check(n, false);
        if (!any && n > 100) /* the story went through: this failure was behind it, or harmless */
            break;
        failures += any;
        if (n > 4000)
            break;
    }
    assert_true(failures > 50);
    print_message("# %u failures, the story ends at %u\n", failures, n);
}

static void without_failures_a_crash_loses_nothing(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 50; seed++) {
        crash_vfs_clean();
        story();
        crash_vfs_crash(seed);
        check(0, true);
    }
}

static void whatever_fails_once_no_answer_becomes_untrue(void **state)
{
    (void)state;
    each_failure(false, false, 0);
}

static void whatever_fails_and_tears_no_answer_becomes_untrue(void **state)
{
    (void)state;
    each_failure(false, false, 4711);
}

static void a_disk_that_dies_takes_no_answer_with_it(void **state)
{
    (void)state;
    each_failure(true, false, 0);
    each_failure(true, false, 815);
}

static void a_full_disk_refuses_and_recovers(void **state)
{
    (void)state;
    each_failure(false, true, 0);
    each_failure(true, true, 99);
}

static void the_store_goes_on_when_the_disk_has_room_again(void **state)
{
    (void)state;
    struct quota_store *q;
    struct err e;
    enum quota_verdict v;
    struct quota_use use;
    crash_vfs_clean();
    assert_int_equal(quota_open(&q, path, &e), 0);
    assert_int_equal(spend_at(q, 1, "ann", "ai", FREE, NOON, &v, &use), 0);
    crash_vfs_fail(1, true, true);
    for (uint64_t i = 2; i < 100; i++) {
        assert_int_equal(spend_at(q, i, "ann", "ai", FREE, NOON, &v, &use), -ENOSPC);
        assert_non_null(strstr(quota_trouble(q), "make room"));
    }
    crash_vfs_fail(0, false, false);
    for (uint64_t i = 2; i < 100; i++)
        assert_int_equal(spend_at(q, i, "ann", "ai", FREE, NOON, &v, &use), 0);
    assert_int_equal(use.day, 99);
    quota_close(&q);
}

/* What a random bit may do: nothing, or a refusal, at the start or later; never a crash, never an
 * endless loop. */
static void a_thousand_flipped_bits_crash_nothing(void **state)
{
    (void)state;
    unsigned refused = 0, later = 0;
    uint32_t r = 20260315;
    for (unsigned round = 0; round < 1000; round++) {
        struct quota_store *q;
        struct err e = {{0}};
        enum quota_verdict v;
        struct quota_use use;
        crash_vfs_clean();
        assert_int_equal(quota_open(&q, path, &e), 0);
        for (unsigned g = 0; g < 4; g++)
            group(q, g);
        if (round % 4)
            quota_close(&q); /* the log is in the file now */
        else
            crash_vfs_fail(1, true, false), quota_close(&q);
        crash_vfs_fail(0, false, false);
        for (unsigned flips = 0; flips <= round % 3; flips++) {
            r = r * 1664525 + 1013904223;
            unsigned bit = r >> 4;
            if (round % 4 || !crash_vfs_flip("q.db-wal", bit)) {
                /* Often where the structure is. */
                if (round & 1)
                    bit = bit % 4096 * 8 + bit % 8;
                assert_true(crash_vfs_flip("q.db", bit));
            }
        }
        int rc = quota_open(&q, path, &e);
        if (rc) {
            assert_int_equal(rc, -EUCLEAN);
            assert_non_null(strstr(e.text, path));
            refused++;
            continue;
        }
        for (uint64_t op = 10; op < 50; op++) {
            rc = spend_at(q, op, USER[op % USERS], "ai", FREE, NOON, &v, &use);
            later += rc != 0;
            rc = refund_at(q, op + 50, NOON);
            (void)rc;
        }
        struct quota_row rows[8];
        unsigned n;
        rc = quota_usage(q, SLICE("ann"), NOON, rows, 8, &n);
        rc = quota_tidy(q, NOON + 100 * DAY);
        (void)rc;
        quota_close(&q);
    }
    print_message("# %u files refused at the start, %u questions later\n", refused, later);
    assert_true(refused > 100);
}

static int make(void **state)
{
    (void)state;
    folder_make(folder, sizeof folder); /* for the lock: the rest is in memory */
    snprintf(path, sizeof path, "%s/q.db", folder);
    crash_vfs_register();
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    crash_vfs_clean();
    folder_remove(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_failures_a_crash_loses_nothing),
        cmocka_unit_test(the_store_goes_on_when_the_disk_has_room_again),
        cmocka_unit_test(whatever_fails_once_no_answer_becomes_untrue),
        cmocka_unit_test(whatever_fails_and_tears_no_answer_becomes_untrue),
        cmocka_unit_test(a_disk_that_dies_takes_no_answer_with_it),
        cmocka_unit_test(a_full_disk_refuses_and_recovers),
        cmocka_unit_test(a_thousand_flipped_bits_crash_nothing),
    };
    return cmocka_run_group_tests_name("quota crash", tests, make, unmake);
}
