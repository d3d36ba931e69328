/*
 * status: the state of the server as JSON, for the status page, `weir status` and scripts. Its
 * shape is docs/reference/status-json.md.
 *
 * Bounds:  STATUS_FLIGHTS_MAX requests in flight, 50 pairs of route and user that wait, 50 groups
 * of refusals, 20 slowest, 50 failed; the rest is counted. All records in flight are looked at,
 *          most of them by their first bytes alone: 10,000 take a few milliseconds.
 * Source:  RFC 8259 (JSON); the query is application/x-www-form-urlencoded.
 * Owner:   the buf is the caller's; memory that a call takes is given back before it returns.
 * Threads: one (the admin listener's loop).
 */
#ifndef WEIR_ADMIN_STATUS_H
#define WEIR_ADMIN_STATUS_H

#include <limits.h>

#include "admin/view.h"
#include "base/buf.h"
#include "base/err.h"

enum status_sort {
    STATUS_BY_AGE = 0 /* oldest first */,
    STATUS_BY_USER,
    STATUS_BY_ROUTE,
    STATUS_BY_STATE
};

#define STATUS_FLIGHTS 100
#define STATUS_FLIGHTS_MAX 1000
#define STATUS_NO_FLIGHTS UINT_MAX

/* What is wanted; zeroed: everything, with 100 flights, oldest first. */
struct status_ask {
    unsigned flights; /* most that are listed; 0 = STATUS_FLIGHTS; or STATUS_NO_FLIGHTS */
    enum status_sort sort;
    int state;       /* enum flight_state; 0 = all */
    int worker;      /* 1 + slot; 0 = all */
    char route[128]; /* exact; "" = all */
    char find[128];  /* part of path, user, address or request id, ASCII case aside; "" = all */
    bool brief;      /* without settings, slowest, failed and refusals: for a page that has them */
};

/* From the query of a URL ("flights=50&state=queued"). -1 and a sentence: an unknown name, or a
 * wrong value. */
WEIR_MUST_USE int status_ask_parse(struct status_ask *ask, struct slice query, struct err *e);

/* Append the object. 0 or -ENOMEM (what was appended is then not whole). */
WEIR_MUST_USE int status_write(struct buf *out, const struct admin_view *v,
                               const struct status_ask *ask);

/* One request in flight (`worker` slot, `id`), as in `flights`, with its waterfall; null where it
 * is over. */
WEIR_MUST_USE int status_write_flight(struct buf *out, const struct admin_view *v, unsigned worker,
                                      uint64_t id);

/* Why the server is not ready, of those words of `ready-unless` that are true now: "booting",
 * "draining", "saturated"; NULL: it is ready. */
const char *status_unready(const struct admin_view *v);

/* ---- figures over time, for charts ---- */

/* The last 10 minutes second by second while somebody looks, and the last hour in steps of 10 s
 * always. The server's own answers ("/-/") are left out of rates and quantiles: who asks every
 * second whether it lives would stand in front of its users. */
struct history;
WEIR_MUST_USE struct history *history_new(void);
void history_free(struct history **h);
/* Once a second while somebody looks, every 10 s otherwise. 0 or -ENOMEM. */
WEIR_MUST_USE int history_tick(struct history *h, const struct admin_view *v, int64_t now_ns,
                               int64_t wall_ns);
/* Append the newest point as an object ({}: there is none yet); and all points, as
 * {"columns": […], "seconds": [[…]…], "steps": …}. 0 or -ENOMEM. */
WEIR_MUST_USE int history_write_last(struct buf *out, const struct history *h);
WEIR_MUST_USE int history_write(struct buf *out, const struct history *h);

#endif
