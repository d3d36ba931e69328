/*
 * rates: many keys' GCRA cells in one table of fixed size that all processes share.
 *
 * A request is asked about several keys at once (its user, its address, its route) and either all
 * are spent or none. Keys are 128-bit keyed hashes, so that nobody can choose where his key lands.
 *
 * Full:    keys of users and keys of addresses live in partitions of their own, so a flood of
 * addresses cannot touch users. A bucket holds a few cells; a cell that is paid off is as good as
 * none and makes room. When all are in debt, the one that owes least makes room: nobody in good
 * standing is refused because of others, and who owes much is not forgotten. Source:  admit/gcra.h.
 * Units:   nanoseconds of the monotonic clock.
 * Owner:   rates_new maps, rates_free unmaps; inherited by fork.
 * Threads: any, of any process; stripes of robust mutexes, taken in ascending order.
 * Crash:   a cell is one 64-bit store; a stripe whose holder died is as it was before or after that
 * store.
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
    const struct gcra_rate *rate; /* lent */
    int64_t cost;                 /* >= 1 */
    /* Answers, on every path: */
    enum gcra_verdict verdict;
    int64_t left;     /* units that could still be spent at once now */
    int64_t wait_ns;  /* with GCRA_WAIT: until it could be spent */
    int64_t reset_ns; /* until all is paid off */
};

#define RATES_ASKS_MAX 16

/* A table for about `n_keys` keys (split evenly between kinds). NULL: no memory. */
WEIR_MUST_USE struct rates *rates_new(uint32_t n_keys);
void rates_free(struct rates **r);
uint64_t rates_bytes(const struct rates *r);

/* A key of the parts, keyed with the table's secret (SipHash-2-4-128): which limit, and who. */
struct rates_key rates_key(const struct rates *r, uint64_t limit, struct slice who);

/* Spend all (then true) or nothing. n <= RATES_ASKS_MAX; two asks of the same key are an error of
 * the caller. */
WEIR_MUST_USE bool rates_spend(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns);

/* Look without spending; answers as rates_spend with cost units. */
void rates_look(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns);

/* Take back what rates_spend spent (the request was refused later). */
void rates_refund(struct rates *r, const struct rates_ask *asks, unsigned n);

struct rates_stats {
    uint64_t keys[RATES_KINDS];    /* cells in debt, at the last count (an estimate, sampled) */
    uint64_t evicted[RATES_KINDS]; /* cells in debt that made room */
};
void rates_stats(struct rates *r, int64_t now_ns, struct rates_stats *out);

#endif
