/* gcra: see the header. */
#include "admit/gcra.h"

#include <errno.h>

#include "base/must.h"

/* Ten years: no sane burst is longer, and now + burst still fits an int64_t. */
static const int64_t GCRA_BURST_NS_MAX = 10LL * 365 * 86400 * 1000000000;

int gcra_rate_make(struct gcra_rate *out, int64_t units, int64_t per_ns, int64_t burst)
{
    if (units < 1 || per_ns < 1 || burst < 1)
        return -EINVAL;
    int64_t step_ns = per_ns / units + (per_ns % units != 0);
    if (burst > GCRA_BURST_NS_MAX / step_ns)
        return -ERANGE;
    out->step_ns = step_ns;
    out->burst_ns = burst * step_ns;
    return 0;
}

enum gcra_verdict gcra_spend(struct gcra_cell *cell, const struct gcra_rate *rate, int64_t cost,
                             int64_t now_ns, int64_t *wait_ns)
{
    must(cost >= 1);
    *wait_ns = 0;
    /* Dividing keeps cost * step_ns below from overflowing. */
    if (cost > rate->burst_ns / rate->step_ns)
        return GCRA_NEVER;

    int64_t start_ns = cell->paid_ns > now_ns ? cell->paid_ns : now_ns;
    int64_t paid_ns = start_ns + cost * rate->step_ns;
    int64_t ahead_ns = paid_ns - now_ns;
    if (ahead_ns > rate->burst_ns) {
        *wait_ns = ahead_ns - rate->burst_ns;
        return GCRA_WAIT;
    }
    cell->paid_ns = paid_ns;
    return GCRA_SPENT;
}

int64_t gcra_left(const struct gcra_cell *cell, const struct gcra_rate *rate, int64_t now_ns)
{
    int64_t free_ns = rate->burst_ns - gcra_debt_ns(cell, now_ns);
    return free_ns > 0 ? free_ns / rate->step_ns : 0; /* below 0 after the burst became smaller */
}

int64_t gcra_debt_ns(const struct gcra_cell *cell, int64_t now_ns)
{
    return cell->paid_ns > now_ns ? cell->paid_ns - now_ns : 0;
}

void gcra_refund(struct gcra_cell *cell, int64_t spent_ns, int64_t paid_ns, int64_t now_ns)
{
    int64_t owed_ns = paid_ns > now_ns ? paid_ns - now_ns : 0;
    cell->paid_ns -= spent_ns < owed_ns ? spent_ns : owed_ns;
}
