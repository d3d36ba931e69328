/*
 * rates: many keys' GCRA cells in one table of fixed size that all processes share.
 *
 * A request is asked about several keys at once (its user, its address, its route) and either all
 * are spent or none. Keys are 128-bit keyed hashes, so that nobody can choose where his key lands.
 *
 * Full:    keys of users and keys of addresses live in partitions of their own, so a flood of
 *          addresses cannot touch users; a route's key is one of users. A key has one of 8 cells,
 *          and one that is paid off is as good as none and makes room. When all 8 are in debt, the
 *          one that owes least (that time would pay off first) makes room: nobody in good standing
 *          is refused because of others, and who owes much is not forgotten. Who was forgotten may
 *          spend his burst anew; that is counted (`evicted`).
 * Source:  admit/gcra.h; buckets: Azar, Broder, Karlin, Upfal, "Balanced allocations" (1994).
 * Units:   nanoseconds of the monotonic clock.
 * Owner:   rates_new maps, rates_free unmaps; inherited by fork.
 * Threads: any, of any process; stripes of robust mutexes, taken in ascending order.
 * Crash:   a debt is one 64-bit store; a stripe whose holder died is as it was before or after that
 *          store. Who dies while spending several keys has spent some of them, never too little.
 */
#ifndef WEIR_ADMIT_RATES_H
#define WEIR_ADMIT_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "admit/gcra.h"
#include "base/attr.h"
#include "base/slice.h"

struct rates;

enum rates_kind { RATES_USERS = 0, RATES_ADDRESSES, RATES_KINDS };

struct rates_key {
    uint64_t h[2];
};

struct rates_ask {
    enum rates_kind kind;
    struct rates_key key;
    const struct gcra_rate *rate; /* lent until the call returns */
    int64_t cost;                 /* >= 1 */
    /* Answers, on every path: */
    enum gcra_verdict verdict; /* of this key alone, whatever the others say */
    int64_t wait_ns;           /* with GCRA_WAIT: until it could be spent */
    int64_t left;              /* units that can still be spent at once, after this call */
    int64_t reset_ns;          /* until all is paid off, after this call */
    /* For rates_refund: */
    int64_t spent_ns; /* what was spent, in time; 0 = nothing */
    int64_t paid_ns;  /* where the cell stood after it */
};

#define RATES_ASKS_MAX 16

/* A table for about n_keys (>= 1) keys, split evenly between kinds: it has two cells for each, so
 * that hardly a key finds its cells taken before all n_keys are in debt at once. 32 bytes a key,
 * rounded up, and 64 KiB; memory is taken where keys land. NULL: no memory, or no random bytes for
 * the secret. */
WEIR_MUST_USE struct rates *rates_new(uint32_t n_keys);
/* NULL is nothing. */
void rates_free(struct rates *r);
uint64_t rates_bytes(const struct rates *r);

/* A key of the parts, keyed with the table's secret: which limit, and who. */
struct rates_key rates_key(const struct rates *r, uint64_t limit, struct slice who);

/* The same in two steps, for several limits of one: who (SipHash-2-4-128), and then which limit. */
struct rates_key rates_who(const struct rates *r, struct slice who);
struct rates_key rates_key_of(const struct rates_key *who, uint64_t limit);

/* Spend all (then true) or nothing. n <= RATES_ASKS_MAX; two asks of the same key and kind are an
 * error of the caller. */
WEIR_MUST_USE bool rates_spend(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns);

/* Look without spending: the verdicts that rates_spend would give; left and reset_ns as it is. */
void rates_look(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns);

/* Take back what rates_spend spent (the request was refused later), see gcra_refund. Asks that
 * spent nothing are left out, and spent_ns becomes 0: a second time is nothing. A key that was
 * forgotten meanwhile stays so. */
void rates_refund(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns);

struct rates_stats {
    uint64_t keys[RATES_KINDS];    /* cells in debt; exact in a small table, else an estimate from a
                                      sample of RATES_SAMPLE cells */
    uint64_t cells[RATES_KINDS];   /* that there are */
    uint64_t evicted[RATES_KINDS]; /* cells in debt that made room */
    uint64_t recovered;            /* stripes taken over from a holder that died */
};
#define RATES_SAMPLE 32768
void rates_stats(struct rates *r, int64_t now_ns, struct rates_stats *out);

#endif
