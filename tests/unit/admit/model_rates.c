/*
 * model_rates SECONDS SEED: rounds of random requests against the table and an exact map of leaky
 * buckets, with every answer compared.
 *
 * Requests ask for one to sixteen keys, with random rates (that change, as a reload changes them),
 * costs, times and later refunds. A table with room must answer exactly as the map. A table that
 * is far too small may only be milder, and only for as many keys as it says it has forgotten.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For the secret, so that a seed is the same round again. */
#include "admit/rates.c"
#include "base/attr.h"
#include "base/clock.h"

enum { KEYS = 300, REFUNDS = 64, STEPS = 20000 };

/* A leaky bucket: at `at_ns` it held owes_ns of time, and it runs dry as time goes on. */
struct leaky {
    int64_t owes_ns, at_ns;
    struct gcra_rate rate;
    enum rates_kind kind;
    struct rates_key key;
    bool forgotten; /* the table has less than the map */
};

/* A request whose spending may be taken back. */
struct spending {
    struct rates_ask asks[RATES_ASKS_MAX];
    unsigned of[RATES_ASKS_MAX], n; /* n = 0: none */
};

struct model {
    struct rates *r;
    bool is_small;
    int64_t now_ns;
    uint64_t random;
    struct leaky keys[KEYS];
    struct spending later[REFUNDS];
    uint64_t granted, refused, refunded, milder;
};

static uint64_t random_next(uint64_t *state)
{
    /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1D;
}

/* 0 .. n-1 */
static int64_t pick(struct model *m, int64_t n)
{
    return (int64_t)(random_next(&m->random) >> 2) % n;
}

static int64_t owes(const struct leaky *l, int64_t now_ns)
{
    int64_t left = l->owes_ns - (now_ns - l->at_ns);
    return left > 0 ? left : 0;
}

static void set_rate(struct model *m, struct leaky *l)
{
    static const int64_t PERIODS[] = {1, 100, 1000000000, 60000000000, 86400000000000};
    int64_t burst = pick(m, 3) ? 1 + pick(m, 20) : 1 + pick(m, 1000);
    must(gcra_rate_make(&l->rate, 1 + pick(m, 1000), PERIODS[pick(m, countof(PERIODS))], burst) ==
         0);
}

static void begin(struct model *m, uint64_t seed)
{
    *m = (struct model){.random = seed * 2 + 1, .is_small = seed % 2};
    m->r = rates_new(m->is_small ? (uint32_t)(1 + pick(m, 200)) : 50 * KEYS);
    must(m->r);
    m->r->secret = (struct siphash_key){{random_next(&m->random), random_next(&m->random)}};
    m->now_ns = pick(m, 1000);
    for (unsigned i = 0; i < KEYS; i++) {
        struct leaky *l = &m->keys[i];
        l->kind = i % RATES_KINDS;
        l->key = rates_key(m->r, i % 5, slice_of((char *)&i, sizeof i));
        set_rate(m, l);
    }
}

/* What the map says to an ask; the table's answer must be that, or milder where it has forgotten.
 */
static bool compare(struct model *m, const struct rates_ask *a, struct leaky *l, bool all_spent)
{
    int64_t debt = owes(l, m->now_ns), cost_ns = a->cost * l->rate.step_ns;
    bool may = cost_ns <= l->rate.burst_ns - debt;
    enum gcra_verdict verdict = cost_ns > l->rate.burst_ns ? GCRA_NEVER
                                : may                      ? GCRA_SPENT
                                                           : GCRA_WAIT;
    int64_t wait_ns = verdict == GCRA_WAIT ? debt + cost_ns - l->rate.burst_ns : 0;
    if (all_spent)
        debt += cost_ns;
    int64_t left = debt < l->rate.burst_ns ? (l->rate.burst_ns - debt) / l->rate.step_ns : 0;
    if (m->is_small) {
        must(a->left >= left && a->reset_ns <= debt && a->wait_ns <= wait_ns);
        must((a->verdict == GCRA_NEVER) == (verdict == GCRA_NEVER));
        must(a->verdict != GCRA_WAIT || verdict == GCRA_WAIT);
        if (a->reset_ns < debt && !l->forgotten)
            m->milder++;
        l->forgotten = a->reset_ns < debt;
    } else {
        must(a->verdict == verdict && a->wait_ns == wait_ns);
        must(a->left == left && a->reset_ns == debt);
    }
    must(all_spent == (a->spent_ns != 0) && (!all_spent || a->spent_ns == cost_ns));
    return verdict == GCRA_SPENT;
}

static void request(struct model *m)
{
    struct spending s = {.n = 1 + (unsigned)(pick(m, 4) ? pick(m, 3) : pick(m, RATES_ASKS_MAX))};
    for (unsigned i = 0; i < s.n; i++) {
        bool is_new;
        do { /* a third of the keys is asked for most of the time */
            s.of[i] = (unsigned)(pick(m, 4) ? pick(m, KEYS / 3) : pick(m, KEYS));
            is_new = true;
            for (unsigned j = 0; j < i; j++)
                is_new &= s.of[j] != s.of[i];
        } while (!is_new);
        struct leaky *l = &m->keys[s.of[i]];
        if (pick(m, 500) == 0)
            set_rate(m, l);
        int64_t burst = l->rate.burst_ns / l->rate.step_ns;
        int64_t cost = pick(m, 3) ? 1 : 1 + pick(m, burst + burst / 8 + 1);
        s.asks[i] =
            (struct rates_ask){.kind = l->kind, .key = l->key, .rate = &l->rate, .cost = cost};
    }
    bool spends = pick(m, 10) != 0, spent = false, may = true;
    if (spends)
        spent = rates_spend(m->r, s.asks, s.n, m->now_ns);
    else
        rates_look(m->r, s.asks, s.n, m->now_ns);
    for (unsigned i = 0; i < s.n; i++)
        may &= compare(m, &s.asks[i], &m->keys[s.of[i]], spent);
    must(!spends || (m->is_small ? spent >= may : spent == may));
    spent ? m->granted++ : m->refused++;
    if (!spent)
        return;
    for (unsigned i = 0; i < s.n; i++) {
        struct leaky *l = &m->keys[s.of[i]];
        l->owes_ns = owes(l, m->now_ns) + s.asks[i].spent_ns;
        l->at_ns = m->now_ns;
    }
    if (pick(m, 4) == 0)
        m->later[pick(m, REFUNDS)] = s;
}

static void take_back(struct model *m)
{
    struct spending *s = &m->later[pick(m, REFUNDS)];
    for (unsigned i = 0; i < s->n; i++) {
        struct leaky *l = &m->keys[s->of[i]];
        int64_t debt = owes(l, m->now_ns), back_ns = s->asks[i].paid_ns - m->now_ns;
        back_ns = back_ns < 0 ? 0 : back_ns < s->asks[i].spent_ns ? back_ns : s->asks[i].spent_ns;
        l->owes_ns = debt > back_ns ? debt - back_ns : 0;
        l->at_ns = m->now_ns;
    }
    rates_refund(m->r, s->asks, s->n, m->now_ns);
    m->refunded += s->n != 0;
    if (pick(m, 2))
        s->n = 0; /* else it is taken back once more, which is nothing: spent_ns is 0 */
}

static void pass_time(struct model *m)
{
    static const int64_t LEAPS[] = {1, 10, 1000, 1000000, 1000000000, 10000000000};
    if (pick(m, 2))
        m->now_ns += pick(m, LEAPS[pick(m, countof(LEAPS))]);
}

static void end(struct model *m)
{
    uint64_t in_debt[RATES_KINDS] = {0};
    for (unsigned i = 0; i < KEYS; i++) {
        struct leaky *l = &m->keys[i];
        struct rates_ask a = {.kind = l->kind, .key = l->key, .rate = &l->rate, .cost = 1};
        rates_look(m->r, &a, 1, m->now_ns);
        (void)compare(m, &a, l, false);
        in_debt[l->kind] += a.reset_ns > 0;
    }
    struct rates_stats stats;
    rates_stats(m->r, m->now_ns, &stats);
    uint64_t evicted = stats.evicted[RATES_USERS] + stats.evicted[RATES_ADDRESSES];
    must(m->is_small ? m->milder <= evicted : evicted == 0);
    for (unsigned kind = 0; kind < RATES_KINDS; kind++) /* RATES_SAMPLE is more than there are */
        must(stats.keys[kind] == in_debt[kind]);
    rates_free(m->r);
}

int main(int argc, char **argv)
{
    int64_t seconds = argc > 1 ? strtoll(argv[1], NULL, 10) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1, rounds = 0;
    uint64_t granted = 0, refused = 0, refunded = 0, milder = 0;
    int64_t stop_ns = clock_mono_ns() + seconds * 1000000000;
    static struct model m;
    do {
        begin(&m, seed + rounds);
        for (unsigned i = 0; i < STEPS; i++) {
            pass_time(&m);
            request(&m);
            if (pick(&m, 8) == 0)
                take_back(&m);
        }
        end(&m);
        granted += m.granted;
        refused += m.refused;
        refunded += m.refunded;
        milder += m.milder;
        rounds++;
    } while (clock_mono_ns() < stop_ns);
    printf("%" PRIu64 " rounds from seed %" PRIu64 ": %" PRIu64 " granted, %" PRIu64
           " refused, %" PRIu64 " taken back; small tables were milder %" PRIu64 " times\n",
           rounds, seed, granted, refused, refunded, milder);
    return 0;
}
