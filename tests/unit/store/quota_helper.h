/* What tests of the quota store share: a folder, and one spend in a group of its own. */
#ifndef WEIR_TESTS_QUOTA_HELPER_H
#define WEIR_TESTS_QUOTA_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/must.h"
#include "store/quota.h"

/* 15 March 2026, 12:00:00 UTC. */
#define NOON INT64_C(1773576000)
#define DAY INT64_C(86400)

static const struct quota_limits FREE = {-1, -1};

static inline struct quota_op op_of(uint64_t n)
{
    return (struct quota_op){{n, ~n}};
}

/* A group of one: 0 or the error; then nothing was spent. */
static inline int spend_at(struct quota_store *q, uint64_t op, const char *user, const char *route,
                           struct quota_limits limits, int64_t now_s, enum quota_verdict *v,
                           struct quota_use *use)
{
    int rc = quota_begin(q);
    if (rc)
        return rc;
    rc = quota_spend(q, op_of(op), slice_str(user), slice_str(route), limits, now_s, v, use);
    rc = rc ? rc : quota_commit(q);
    if (rc)
        quota_rollback(q);
    return rc;
}

static inline int refund_at(struct quota_store *q, uint64_t op, int64_t now_s)
{
    int rc = quota_begin(q);
    if (rc)
        return rc;
    rc = quota_refund(q, op_of(op), now_s);
    rc = rc ? rc : quota_commit(q);
    if (rc)
        quota_rollback(q);
    return rc;
}

/* The day's and the month's count of a user on all routes. */
static inline struct quota_use used_at(struct quota_store *q, const char *user, int64_t now_s)
{
    struct quota_row rows[16];
    struct quota_use sum = {0};
    unsigned n;
    int rc = quota_usage(q, slice_str(user), now_s, rows, countof(rows), &n);
    assert_int_equal(rc, 0);
    for (unsigned i = 0; i < n; i++) {
        sum.day += rows[i].use.day;
        sum.month += rows[i].use.month;
    }
    return sum;
}

static inline void folder_make(char *path, size_t room)
{
    snprintf(path, room, "%s/weir-quota-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    char *made = mkdtemp(path);
    must(made);
}

static inline void folder_remove(const char *path)
{
    static const char *const NAMES[] = {"q.db",      "q.db-wal",     "q.db-shm",
                                        "q.db-lock", "q.db-journal", "other"};
    char name[512];
    for (size_t i = 0; i < countof(NAMES); i++) {
        snprintf(name, sizeof name, "%s/%s", path, NAMES[i]);
        unlink(name);
    }
    int rc = rmdir(path);
    must(rc == 0);
}

#endif
