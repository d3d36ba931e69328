/*
 * quota: requests of the day and the month (UTC) of each user and route, in a file that lasts.
 *
 * One process opens the file and writes it (the keeper). Spending is grouped: begin, any number of
 * spends and refunds, commit; what was answered before the commit returned 0 is not yet true. An
 * operation carries an id; the same id again gets the same answer and spends nothing, so that
 * whoever lost an answer asks again.
 *
 * Source:  SQLite, WAL, synchronous=FULL, one connection that writes and checkpoints (Debian 12's
 * SQLite 3.40 has a defect in WAL reset with several checkpointing connections). Units:   wall
 * clock seconds (UTC); counts of requests. Owner:   quota_open makes, quota_close gives back.
 * Errors are negative errno; -EUCLEAN: the file is no database or damaged; the sentence in `e`
 * names file and cure. Threads: none inside.
 */
#ifndef WEIR_STORE_QUOTA_H
#define WEIR_STORE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

struct quota_store;

struct quota_op {
    uint64_t id[2]; /* random; unique for what is to be spent once */
};

struct quota_limits {
    int64_t day, month; /* -1: none */
};

struct quota_use {
    int64_t day, month;               /* spent, this request included when it was allowed */
    int64_t day_ends_s, month_ends_s; /* wall clock, UTC: when the count begins anew */
};

enum quota_verdict { QUOTA_SPENT = 0, QUOTA_DAY_OVER, QUOTA_MONTH_OVER };

/* 0 or -errno and a sentence. `path` ":memory:" is for tests. */
WEIR_MUST_USE int quota_open(struct quota_store **out, const char *path, struct err *e);
void quota_close(struct quota_store **q);

WEIR_MUST_USE int quota_begin(struct quota_store *q);
/* Within begin and commit. 0 and *verdict, *use; or -errno, and the whole group is to be rolled
 * back. */
WEIR_MUST_USE int quota_spend(struct quota_store *q, struct quota_op op, struct slice user,
                              struct slice route, struct quota_limits limits, int64_t now_s,
                              enum quota_verdict *verdict, struct quota_use *use);
/* Undo the spending of `op` in the day and month it was made in; unknown or refunded already:
 * nothing. */
WEIR_MUST_USE int quota_refund(struct quota_store *q, struct quota_op op, int64_t now_s);
/* Durable when it returns 0. */
WEIR_MUST_USE int quota_commit(struct quota_store *q);
void quota_rollback(struct quota_store *q);

/* What a user has spent of each route; *json is a buffer of the caller:
 * {"routes":[{"route","day","month",…}]}. */
struct quota_row {
    char route[128];
    struct quota_use use;
};
WEIR_MUST_USE int quota_usage(struct quota_store *q, struct slice user, int64_t now_s,
                              struct quota_row *rows, unsigned most, unsigned *n);

/* Forget operations older than a day and counts of months long past; bounded work a call. */
WEIR_MUST_USE int quota_tidy(struct quota_store *q, int64_t now_s);

#endif
