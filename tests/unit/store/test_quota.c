/* quota: counts by the day and the month with a clock that the test turns; files that cannot be
 * used. */
#include "quota_helper.h"

#include <sqlite3.h>
#include <time.h>

static struct quota_store *q;
static enum quota_verdict v;
static struct quota_use use;

static int make(void **state)
{
    (void)state;
    struct err e;
    return quota_open(&q, ":memory:", &e);
}

static int unmake(void **state)
{
    (void)state;
    quota_close(&q);
    return 0;
}

/* ---- counting ---- */

static void what_is_within_the_limit_is_spent_and_the_next_is_not(void **state)
{
    (void)state;
    const struct quota_limits two = {2, -1};
    for (uint64_t i = 1; i <= 2; i++) {
        assert_int_equal(spend_at(q, i, "ann", "ai", two, NOON, &v, &use), 0);
        assert_int_equal(v, QUOTA_SPENT);
        assert_int_equal(use.day, i);
        assert_int_equal(use.month, i);
    }
    for (uint64_t i = 3; i <= 5; i++) {
        assert_int_equal(spend_at(q, i, "ann", "ai", two, NOON, &v, &use), 0);
        assert_int_equal(v, QUOTA_DAY_OVER);
        assert_int_equal(use.day, 2);
    }
    assert_int_equal(used_at(q, "ann", NOON).day, 2);
}

static void zero_a_day_lets_nobody_in(void **state)
{
    (void)state;
    assert_int_equal(spend_at(q, 1, "ann", "ai", (struct quota_limits){0, -1}, NOON, &v, &use), 0);
    assert_int_equal(v, QUOTA_DAY_OVER);
    assert_int_equal(use.day, 0);
}

static void users_and_routes_count_for_themselves(void **state)
{
    (void)state;
    const struct quota_limits one = {1, 1};
    uint64_t op = 0;
    const char *const users[] = {"ann", "bob", ""}, *const routes[] = {"ai", "board"};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            assert_int_equal(spend_at(q, ++op, users[i], routes[k], one, NOON, &v, &use), 0);
            assert_int_equal(v, QUOTA_SPENT);
        }
    assert_int_equal(used_at(q, "ann", NOON).day, 2);
    assert_int_equal(spend_at(q, ++op, "ann", "ai", one, NOON, &v, &use), 0);
    assert_int_equal(v, QUOTA_DAY_OVER);
}

static void names_may_hold_any_byte(void **state)
{
    (void)state;
    static const char A[] = "a\0b", B[] = "a\0c", C[] = "\xff\xfe'; DROP TABLE counts; --";
    const struct slice names[] = {SLICE(A), SLICE(B), SLICE(C)};
    struct quota_row rows[4];
    unsigned n;
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(quota_begin(q), 0);
        assert_int_equal(quota_spend(q, op_of(i + 1), names[i], SLICE("r"), FREE, NOON, &v, &use),
                         0);
        assert_int_equal(use.day, 1);
        assert_int_equal(quota_commit(q), 0);
        assert_int_equal(quota_usage(q, names[i], NOON, rows, 4, &n), 0);
        assert_int_equal(n, 1);
    }
}

static void a_new_day_begins_at_midnight_utc(void **state)
{
    (void)state;
    const struct quota_limits one = {1, -1};
    const int64_t midnight = NOON + DAY / 2;
    assert_int_equal(spend_at(q, 1, "ann", "ai", one, midnight - 1, &v, &use), 0);
    assert_int_equal(v, QUOTA_SPENT);
    assert_int_equal(use.day_ends_s, midnight);
    assert_int_equal(spend_at(q, 2, "ann", "ai", one, midnight - 1, &v, &use), 0);
    assert_int_equal(v, QUOTA_DAY_OVER);
    assert_int_equal(spend_at(q, 3, "ann", "ai", one, midnight, &v, &use), 0);
    assert_int_equal(v, QUOTA_SPENT);
    assert_int_equal(use.day, 1);
    assert_int_equal(use.month, 2);
    assert_int_equal(use.day_ends_s, midnight + DAY);
    /* A clock that goes back finds its day as it was. */
    assert_int_equal(spend_at(q, 4, "ann", "ai", one, midnight - 1, &v, &use), 0);
    assert_int_equal(v, QUOTA_DAY_OVER);
}

static void the_month_bounds_what_its_days_would_allow(void **state)
{
    (void)state;
    const struct quota_limits limits = {2, 3};
    for (uint64_t i = 0; i < 6; i++) {
        assert_int_equal(
            spend_at(q, i + 1, "ann", "ai", limits, NOON + (int64_t)(i / 2) * DAY, &v, &use), 0);
        assert_int_equal(v, i < 3 ? QUOTA_SPENT : QUOTA_MONTH_OVER);
    }
    assert_int_equal(use.month, 3);
    /* 1 April 2026. */
    assert_int_equal(use.month_ends_s, 1775001600);
    assert_int_equal(spend_at(q, 9, "ann", "ai", limits, 1775001600 - 1, &v, &use), 0);
    assert_int_equal(v, QUOTA_MONTH_OVER);
    assert_int_equal(spend_at(q, 10, "ann", "ai", limits, 1775001600, &v, &use), 0);
    assert_int_equal(v, QUOTA_SPENT);
    assert_int_equal(use.month, 1);
}

/* Against the C library's calendar, each day from 1970 to 2200, and the years' ends up to 9999. */
static void days_and_months_end_as_in_the_calendar(void **state)
{
    (void)state;
    uint64_t op = 0;
    assert_int_equal(quota_begin(q), 0);
    for (int64_t day = 0; day < 84006 + 2848500; day += day < 84006 ? 1 : 30) {
        int64_t now = day * DAY + (day % 3) * 43199;
        if (now > INT64_C(253402300799))
            break;
        time_t t = (time_t)now;
        struct tm tm;
        gmtime_r(&t, &tm);
        struct tm next = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1};
        assert_int_equal(quota_spend(q, op_of(++op), SLICE("u"), SLICE("r"),
                                     (struct quota_limits){0, 0}, now, &v, &use),
                         0);
        assert_int_equal(use.day_ends_s, (day + 1) * DAY);
        assert_int_equal(use.month_ends_s, timegm(&next));
    }
    assert_int_equal(quota_commit(q), 0);
    assert_int_equal(quota_begin(q), 0);
    assert_int_equal(quota_spend(q, op_of(1), SLICE("u"), SLICE("r"), FREE, -1, &v, &use), -ERANGE);
    assert_int_equal(quota_spend(q, op_of(1), SLICE("u"), SLICE("r"), FREE, INT64_MAX, &v, &use),
                     -ERANGE);
    quota_rollback(q);
}

/* ---- operations ---- */

static void the_same_operation_again_gets_the_same_answer_and_spends_nothing(void **state)
{
    (void)state;
    assert_int_equal(spend_at(q, 7, "ann", "ai", FREE, NOON, &v, &use), 0);
    struct quota_use first = use;
    assert_int_equal(spend_at(q, 8, "ann", "ai", FREE, NOON, &v, &use), 0);
    for (int i = 0; i < 3; i++) { /* also on the next day, and where the limit is reached */
        assert_int_equal(
            spend_at(q, 7, "ann", "ai", (struct quota_limits){1, 1}, NOON + i * DAY, &v, &use), 0);
        assert_int_equal(v, QUOTA_SPENT);
        assert_memory_equal(&use, &first, sizeof use);
    }
    assert_int_equal(used_at(q, "ann", NOON).day, 2);
}

static void a_refund_makes_room_once(void **state)
{
    (void)state;
    const struct quota_limits one = {1, 1};
    assert_int_equal(spend_at(q, 1, "ann", "ai", one, NOON, &v, &use), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(refund_at(q, 1, NOON), 0);
    assert_int_equal(used_at(q, "ann", NOON).day, 0);
    assert_int_equal(used_at(q, "ann", NOON).month, 0);
    assert_int_equal(spend_at(q, 2, "ann", "ai", one, NOON, &v, &use), 0);
    assert_int_equal(v, QUOTA_SPENT);
    assert_int_equal(spend_at(q, 3, "ann", "ai", one, NOON, &v, &use), 0);
    assert_int_equal(v, QUOTA_DAY_OVER);
}

static void a_refund_goes_to_the_day_and_month_of_its_spending(void **state)
{
    (void)state;
    const int64_t april = 1775001600;
    assert_int_equal(spend_at(q, 1, "ann", "ai", FREE, april - 5, &v, &use), 0);
    assert_int_equal(spend_at(q, 2, "ann", "ai", FREE, april + 5, &v, &use), 0);
    assert_int_equal(refund_at(q, 1, april + 6), 0);
    assert_int_equal(used_at(q, "ann", april + 6).day, 1);
    assert_int_equal(used_at(q, "ann", april + 6).month, 1);
    assert_int_equal(used_at(q, "ann", april - 5).day, 0);
    assert_int_equal(used_at(q, "ann", april - 5).month, 0);
}

static void a_refund_that_comes_first_keeps_its_spending_from_counting(void **state)
{
    (void)state;
    assert_int_equal(refund_at(q, 1, NOON), 0);
    assert_int_equal(spend_at(q, 1, "ann", "ai", FREE, NOON, &v, &use), 0);
    assert_int_equal(use.day_ends_s, NOON + DAY / 2);
    assert_int_equal(used_at(q, "ann", NOON).day, 0);
    assert_int_equal(refund_at(q, 1, NOON), 0);
    assert_int_equal(used_at(q, "ann", NOON).day, 0);
}

static void what_is_rolled_back_was_never_spent(void **state)
{
    (void)state;
    assert_int_equal(quota_begin(q), 0);
    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(quota_spend(q, op_of(i), SLICE("ann"), SLICE("ai"), FREE, NOON, &v, &use),
                         0);
    assert_int_equal(use.day, 10);
    quota_rollback(q);
    quota_rollback(q);
    assert_int_equal(used_at(q, "ann", NOON).day, 0);
}

static void usage_names_the_routes_and_no_more_than_asked(void **state)
{
    (void)state;
    struct quota_row rows[3];
    unsigned n;
    char route[200];
    uint64_t op = 0;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k <= i; k++) {
            snprintf(route, sizeof route, "route%d", i);
            assert_int_equal(spend_at(q, ++op, "ann", route, FREE, NOON, &v, &use), 0);
        }
    assert_int_equal(quota_usage(q, SLICE("ann"), NOON, rows, 3, &n), 0);
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++) {
        snprintf(route, sizeof route, "route%d", i);
        assert_string_equal(rows[i].route, route);
        assert_int_equal(rows[i].use.day, i + 1);
        assert_int_equal(rows[i].use.month, i + 1);
        assert_int_equal(rows[i].use.day_ends_s, NOON + DAY / 2);
    }
    assert_int_equal(quota_usage(q, SLICE("ann"), NOON + DAY, rows, 3, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(rows[2].use.day, 0);
    assert_int_equal(rows[2].use.month, 3);
    assert_int_equal(quota_usage(q, SLICE("bob"), NOON, rows, 3, &n), 0);
    assert_int_equal(n, 0);
}

/* ---- tidying ---- */

static int64_t rows_of(const char *path, const char *table)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    char sql[64];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return n;
}

static void tidying_forgets_old_operations_and_counts_in_small_steps(void **state)
{
    (void)state;
    char folder[256], path[512], user[32];
    struct quota_store *f;
    struct err e;
    int rc, steps = 0;
    folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/q.db", folder);
    assert_int_equal(quota_open(&f, path, &e), 0);
    assert_int_equal(quota_begin(f), 0);
    for (uint64_t i = 1; i <= 2000; i++) {
        snprintf(user, sizeof user, "user%u", (unsigned)i);
        assert_int_equal(quota_spend(f, op_of(i), slice_str(user), SLICE("ai"), FREE,
                                     i <= 1500 ? NOON : NOON + 100 * DAY, &v, &use),
                         0);
    }
    assert_int_equal(quota_commit(f), 0);
    while ((rc = quota_tidy(f, NOON + 100 * DAY)) == 1)
        steps++;
    assert_int_equal(rc, 0);
    assert_in_range(steps, 5, 40);
    assert_int_equal(rows_of(path, "ops"), 500);
    /* Months are kept longer than days. */
    assert_int_equal(rows_of(path, "counts"), 1500 + 2 * 500);
    assert_int_equal(used_at(f, "user1", NOON).month, 1);
    assert_int_equal(used_at(f, "user1", NOON).day, 0);
    while ((rc = quota_tidy(f, NOON + 500 * DAY)) == 1)
        ;
    assert_int_equal(rc, 0);
    assert_int_equal(rows_of(path, "counts"), 500);
    assert_int_equal(rows_of(path, "ops"), 0);
    quota_close(&f);
    folder_remove(folder);
}

/* ---- files ---- */

struct place_of_file {
    char folder[256], path[512];
};

static struct place_of_file at;

static int make_folder(void **state)
{
    (void)state;
    folder_make(at.folder, sizeof at.folder);
    snprintf(at.path, sizeof at.path, "%s/q.db", at.folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    folder_remove(at.folder);
    return 0;
}

static void refuses(int error, const char *says)
{
    struct quota_store *f;
    struct err e = {{0}};
    assert_int_equal(quota_open(&f, at.path, &e), error);
    assert_null(f);
    assert_non_null(strstr(e.text, at.path));
    if (!strstr(e.text, says))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void counts_are_there_after_closing(void **state)
{
    (void)state;
    struct quota_store *f;
    struct err e;
    struct stat st;
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(quota_open(&f, at.path, &e), 0);
        assert_int_equal(spend_at(f, i, "ann", "ai", FREE, NOON, &v, &use), 0);
        assert_int_equal(use.day, i);
        quota_close(&f);
    }
    assert_int_equal(stat(at.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void two_stores_on_one_file_count_exactly(void **state)
{
    (void)state;
    struct quota_store *f[2];
    struct err e;
    const struct quota_limits limit = {150, -1};
    int spent = 0;
    assert_int_equal(quota_open(&f[0], at.path, &e), 0);
    assert_int_equal(quota_open(&f[1], at.path, &e), 0);
    for (uint64_t i = 1; i <= 200; i++) {
        assert_int_equal(spend_at(f[i % 2], i, "ann", "ai", limit, NOON, &v, &use), 0);
        spent += v == QUOTA_SPENT;
        /* Asked again of the other one. */
        if (v == QUOTA_SPENT)
            assert_int_equal(spend_at(f[(i + 1) % 2], i, "ann", "ai", limit, NOON, &v, &use), 0);
    }
    assert_int_equal(spent, 150);
    assert_int_equal(used_at(f[0], "ann", NOON).day, 150);
    /* While one is in a group the other waits, and says so when that takes too long. */
    assert_int_equal(quota_begin(f[0]), 0);
    assert_int_equal(quota_begin(f[1]), -EBUSY);
    assert_non_null(strstr(quota_trouble(f[1]), at.path));
    quota_rollback(f[0]);
    assert_int_equal(quota_begin(f[1]), 0);
    quota_rollback(f[1]);
    quota_close(&f[0]);
    assert_int_equal(used_at(f[1], "ann", NOON).day, 150);
    quota_close(&f[1]);
}

static void the_log_does_not_grow_without_end(void **state)
{
    (void)state;
    struct quota_store *f;
    struct err e;
    struct stat st;
    char wal[600], user[32];
    snprintf(wal, sizeof wal, "%s-wal", at.path);
    assert_int_equal(quota_open(&f, at.path, &e), 0);
    for (uint64_t g = 0; g < 150; g++) {
        assert_int_equal(quota_begin(f), 0);
        for (uint64_t i = 0; i < 100; i++) {
            snprintf(user, sizeof user, "user%u", (unsigned)(g * 100 + i));
            assert_int_equal(quota_spend(f, op_of(g * 100 + i), slice_str(user), SLICE("ai"), FREE,
                                         NOON, &v, &use),
                             0);
        }
        assert_int_equal(quota_commit(f), 0);
    }
    assert_int_equal(stat(wal, &st), 0);
    assert_in_range(st.st_size, 1, 8 << 20);
    quota_close(&f);
    assert_int_equal(quota_open(&f, at.path, &e), 0);
    assert_int_equal(used_at(f, "user14999", NOON).day, 1);
    quota_close(&f);
}

static void a_file_that_is_no_database_is_refused(void **state)
{
    (void)state;
    FILE *f = fopen(at.path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is a letter\n", f);
    fclose(f);
    refuses(-EUCLEAN, "restore a copy");
}

static void exec_on_file(const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(at.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_database_of_another_program_is_left_alone(void **state)
{
    (void)state;
    exec_on_file("CREATE TABLE letters (t)");
    refuses(-EUCLEAN, "another program");
    exec_on_file("PRAGMA application_id = 77");
    refuses(-EUCLEAN, "another program");
    assert_int_equal(rows_of(at.path, "letters"), 0);
}

static void a_newer_store_is_refused_and_an_altered_one_too(void **state)
{
    (void)state;
    struct quota_store *f;
    struct err e;
    assert_int_equal(quota_open(&f, at.path, &e), 0);
    quota_close(&f);
    exec_on_file("PRAGMA user_version = 2");
    refuses(-EUCLEAN, "newer version");
    exec_on_file("PRAGMA user_version = 1; ALTER TABLE counts ADD COLUMN more INTEGER");
    refuses(-EUCLEAN, "restore a copy");
}

static void a_place_that_cannot_hold_a_file_is_refused_with_the_cure(void **state)
{
    (void)state;
    char good[512];
    memcpy(good, at.path, sizeof good);
    snprintf(at.path, sizeof at.path, "%s/none/q.db", at.folder);
    refuses(-ENOENT, "make its folder");
    snprintf(at.path, sizeof at.path, "%s", at.folder);
    refuses(-EISDIR, "name a file");
    snprintf(at.path, sizeof at.path, "%s-lock", at.folder); /* made by that */
    unlink(at.path);
    if (geteuid() != 0) {
        memcpy(at.path, good, sizeof good);
        chmod(at.folder, 0500);
        refuses(-EACCES, "give the file");
        chmod(at.folder, 0700);
    }
    memcpy(at.path, good, sizeof good);
}

static void a_file_that_was_replaced_is_noticed(void **state)
{
    (void)state;
    struct quota_store *f, *g;
    struct err e;
    assert_int_equal(quota_open(&f, at.path, &e), 0);
    assert_int_equal(spend_at(f, 1, "ann", "ai", FREE, NOON, &v, &use), 0);
    assert_int_equal(quota_tidy(f, NOON), 0);
    unlink(at.path);
    assert_int_equal(quota_tidy(f, NOON), -ESTALE);
    assert_non_null(strstr(quota_trouble(f), "replaced"));
    quota_close(&f);
    char wal[600];
    snprintf(wal, sizeof wal, "%s-wal", at.path);
    unlink(wal);
    assert_int_equal(quota_open(&g, at.path, &e), 0);
    quota_close(&g);
}

int main(void)
{
#define MEMORY(f) cmocka_unit_test_setup_teardown(f, make, unmake)
#define FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        MEMORY(what_is_within_the_limit_is_spent_and_the_next_is_not),
        MEMORY(zero_a_day_lets_nobody_in),
        MEMORY(users_and_routes_count_for_themselves),
        MEMORY(names_may_hold_any_byte),
        MEMORY(a_new_day_begins_at_midnight_utc),
        MEMORY(the_month_bounds_what_its_days_would_allow),
        MEMORY(days_and_months_end_as_in_the_calendar),
        MEMORY(the_same_operation_again_gets_the_same_answer_and_spends_nothing),
        MEMORY(a_refund_makes_room_once),
        MEMORY(a_refund_goes_to_the_day_and_month_of_its_spending),
        MEMORY(a_refund_that_comes_first_keeps_its_spending_from_counting),
        MEMORY(what_is_rolled_back_was_never_spent),
        MEMORY(usage_names_the_routes_and_no_more_than_asked),
        cmocka_unit_test(tidying_forgets_old_operations_and_counts_in_small_steps),
        FOLDER(counts_are_there_after_closing),
        FOLDER(two_stores_on_one_file_count_exactly),
        FOLDER(the_log_does_not_grow_without_end),
        FOLDER(a_file_that_is_no_database_is_refused),
        FOLDER(a_database_of_another_program_is_left_alone),
        FOLDER(a_newer_store_is_refused_and_an_altered_one_too),
        FOLDER(a_place_that_cannot_hold_a_file_is_refused_with_the_cure),
        FOLDER(a_file_that_was_replaced_is_noticed),
    };
    return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
