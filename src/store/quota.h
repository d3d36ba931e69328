/*
 * quota: requests of the day and the month (UTC) of each user and route, in a file that lasts.
 *
 * One process opens the file and writes it (the keeper). Spending is grouped: begin, any number of
 * spends and refunds, commit; what was answered before the commit returned 0 is not yet true. An
 * operation carries an id; the same id again gets the same answer and spends nothing, so that
 * whoever lost an answer asks again. A refusal writes nothing, so that who is over his quota costs
 * no disk; its id asked again is looked at anew. A refund that arrives before its spending wins:
 * that id will not spend.
 *
 * Two processes may have the file open for a while (a binary upgrade). All they do to it happens
 * under a lock (flock on PATH-lock), so the counts are exact, and never two connections checkpoint
 * at once.
 *
 * Source:  SQLite, WAL, synchronous=FULL, one connection that writes and checkpoints (Debian 12's
 *          SQLite 3.40 has a defect in WAL reset with several checkpointing connections).
 * Units:   wall clock seconds (UTC); counts of requests.
 * Owner:   quota_open makes, quota_close gives back.
 * Errors:  negative errno. -EUCLEAN: the file is no database of ours, or damaged; -ENOSPC, -EIO, …:
 *          it cannot be written now; -EBUSY: another process holds it for too long. All but the
 *          first may be over with the next begin. The sentence in `e` names file and cure.
 * Threads: none inside.
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

/* 0 or -errno and a sentence. A file that is not there is made (mode 0600), its folder is not.
 * `path` ":memory:" is for tests. */
WEIR_MUST_USE int quota_open(struct quota_store **out, const char *path, struct err *e);
void quota_close(struct quota_store **q);

WEIR_MUST_USE int quota_begin(struct quota_store *q);
/* Within begin and commit. 0 and *verdict, *use; or -errno, and the whole group is to be rolled
 * back. -ERANGE: now_s is no time of the years 1970 to 9999. */
WEIR_MUST_USE int quota_spend(struct quota_store *q, struct quota_op op, struct slice user,
                              struct slice route, struct quota_limits limits, int64_t now_s,
                              enum quota_verdict *verdict, struct quota_use *use);
/* Undo the spending of `op` in the day and month it was made in. Refunded already: nothing.
 * Unknown: remembered, so that it will not spend either. */
WEIR_MUST_USE int quota_refund(struct quota_store *q, struct quota_op op, int64_t now_s);
/* Durable when it returns 0; else the group is rolled back. */
WEIR_MUST_USE int quota_commit(struct quota_store *q);
void quota_rollback(struct quota_store *q);

/* What a user has spent of each route, by name; at most `most`, *n were written. Within a group or
 * outside of it. */
#define QUOTA_ROUTE_BYTES 128
struct quota_row {
    char route[QUOTA_ROUTE_BYTES]; /* with NUL; a longer one is cut */
    struct quota_use use;
};
WEIR_MUST_USE int quota_usage(struct quota_store *q, struct slice user, int64_t now_s,
                              struct quota_row *rows, unsigned most, unsigned *n);

/* Forget operations older than a day and counts of months long past; bounded work a call. Outside
 * of a group. 0: done for now; 1: there is more; or -errno. */
WEIR_MUST_USE int quota_tidy(struct quota_store *q, int64_t now_s);

/* The last failure in words, lent until the next call; "" = none. */
const char *quota_trouble(const struct quota_store *q);

#endif
