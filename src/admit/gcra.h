/*
 * gcra: may this key spend `cost` units now, and if not, when?
 *
 * The limiter keeps one instant per key, the time at which all spending so far
 * would be paid off at the configured rate. Spending moves that instant ahead;
 * a key may run ahead of the clock by at most its burst. No refill timer.
 *
 * Source:  ITU-T I.371, generic cell rate algorithm, virtual scheduling form.
 * Units:   time is int64_t nanoseconds of the monotonic clock, never wall time.
 *          A unit is what the caller counts: a request, a byte, a model token.
 * Owner:   the caller owns every struct; nothing is allocated, nothing to free.
 * Threads: none inside. A cell belongs to one loop thread; a rate is read-only
 *          once made and may be shared by all.
 */
#ifndef WEIR_ADMIT_GCRA_H
#define WEIR_ADMIT_GCRA_H

#include <stdint.h>
#include "base/attr.h"

struct gcra_rate {
    int64_t step_ns;  /* time that one unit costs, >= 1 */
    int64_t burst_ns; /* how far a key may run ahead of the clock */
};

struct gcra_cell {
    int64_t paid_ns; /* all spending is paid off at this instant; 0 = idle */
};

enum gcra_verdict {
    GCRA_SPENT = 0, /* spent; the cell has moved */
    GCRA_WAIT,      /* not spent; ask again after *wait_ns */
    GCRA_NEVER,     /* cost is larger than the burst: waiting cannot help */
};

/* Make a rate of `units` per `per_ns`, with at most `burst` units at once.
 * The step rounds up, so a key gets slightly less than asked, never more.
 * Returns 0, -EINVAL (an argument below 1) or -ERANGE (does not fit). */
WEIR_MUST_USE int gcra_rate_make(struct gcra_rate *out, int64_t units, int64_t per_ns,
                                 int64_t burst);

/* Try to spend `cost` (>= 1) units. *wait_ns is written on every path: 0 unless
 * the verdict is GCRA_WAIT. `now_ns` may repeat or go back; it costs no units. */
WEIR_MUST_USE enum gcra_verdict gcra_spend(struct gcra_cell *cell, const struct gcra_rate *rate,
                                           int64_t cost, int64_t now_ns, int64_t *wait_ns);

/* How many units could be spent at once now: 0 to the burst. */
int64_t gcra_left(const struct gcra_cell *cell, const struct gcra_rate *rate, int64_t now_ns);

/* Until all spending is paid off; 0 = idle. A cell that owes nothing is as good as a new one. */
int64_t gcra_debt_ns(const struct gcra_cell *cell, int64_t now_ns);

/* Take back one spending that came to nothing: of spent_ns (units * step_ns), after which the cell
 * stood at paid_ns. What time has paid off meanwhile is no credit for others, so at most paid_ns -
 * now_ns is given back. Exact where all of it is still owed or nothing was spent since; else less
 * than it was.
 * Of several taken back from one key a later one can return up to its own units too much: where the
 * key fell idle in between only because of the earlier. In all, what a key spent and kept since the
 * first of them stays within rate and burst. */
void gcra_refund(struct gcra_cell *cell, int64_t spent_ns, int64_t paid_ns, int64_t now_ns);

#endif
