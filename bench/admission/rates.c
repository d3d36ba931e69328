/*
 * bench_rates: what a decision of the table of rates costs, and whether many threads of many
 * processes get exactly what there is. Prints one JSON object.
 *
 * Times are taken of CHUNK decisions, shorter than a turn of the scheduler, so that the median
 * tells what a decision costs and not what else the machine does; "low" is the tenth of the chunks
 * that took least. All keys come once a round, in an order that no prefetcher knows.
 */
#include <stdio.h>
#include <stdlib.h>

#include "admit/rates.h"
#include "admit/rates_crowd.h"
#include "base/attr.h"
#include "base/clock.h"

enum {
    N_KEYS = 1000000,
    CHUNK = 1000,
    ROUNDS = 5,
    DECISIONS = 1000000,
    PROCESSES = 4,
    THREADS = 64,
    CHUNKS_MAX = ROUNDS * N_KEYS / CHUNK
};

static struct {
    double ns[CHUNKS_MAX]; /* each: of one decision */
    _Atomic unsigned n;
} chunks;

static void chunk_add(int64_t ns, unsigned decisions)
{
    unsigned i = atomic_fetch_add(&chunks.n, 1);
    must(i < CHUNKS_MAX);
    chunks.ns[i] = (double)ns / decisions;
}

static int by_ns(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_chunks(const char *name)
{
    qsort(chunks.ns, chunks.n, sizeof chunks.ns[0], by_ns);
    printf("  \"%s\": {\"median\": %.1f, \"low\": %.1f},\n", name, chunks.ns[chunks.n / 2],
           chunks.ns[chunks.n / 10]);
    chunks.n = 0;
}

/* As requests have them. */
static struct rates_key *keys_in_disorder(const struct rates *r)
{
    struct rates_key *keys = malloc(N_KEYS * sizeof *keys);
    must(keys);
    for (uint32_t i = 0; i < N_KEYS; i++)
        keys[i] = rates_key(r, 1, slice_of((char *)&i, sizeof i));
    uint64_t random = 88172645463325252;
    for (uint32_t i = N_KEYS - 1; i > 0; i--) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint32_t j = (uint32_t)((random >> 32) * (i + 1) >> 32);
        struct rates_key key = keys[i];
        keys[i] = keys[j];
        keys[j] = key;
    }
    return keys;
}

static enum rates_kind kind_of(const struct rates_key *key)
{
    return key->h[1] & 1 ? RATES_USERS : RATES_ADDRESSES;
}

/* 1/s burst 3600: whatever is asked here is granted, and stays in debt. */
static const struct gcra_rate RATE = {1000000000, 3600000000000};

struct job {
    struct rates *r;
    const struct rates_key *keys;
    uint32_t from, to;
    unsigned asks; /* keys a decision */
};

static void *decide(void *arg)
{
    struct job *j = arg;
    struct rates_ask asks[RATES_ASKS_MAX];
    for (unsigned round = 0; round < ROUNDS; round++)
        for (uint32_t i = j->from; i + CHUNK * j->asks <= j->to;) {
            int64_t begin_ns = clock_mono_ns();
            for (unsigned n = 0; n < CHUNK; n++, i += j->asks) {
                for (unsigned k = 0; k < j->asks; k++)
                    asks[k] = (struct rates_ask){.kind = kind_of(&j->keys[i + k]),
                                                 .key = j->keys[i + k],
                                                 .rate = &RATE,
                                                 .cost = 1};
                must(rates_spend(j->r, asks, j->asks, 1));
            }
            chunk_add(clock_mono_ns() - begin_ns, CHUNK);
        }
    return NULL;
}

static void decisions(const char *name, struct rates *r, const struct rates_key *keys,
                      unsigned threads, unsigned asks)
{
    struct job jobs[2];
    pthread_t ids[countof(jobs)];
    must(threads <= countof(jobs));
    for (unsigned i = 0; i < threads; i++) {
        jobs[i] = (struct job){.r = r, .keys = keys, .asks = asks};
        jobs[i].from = N_KEYS / threads * i;
        jobs[i].to = N_KEYS / threads * (i + 1);
        must(pthread_create(&ids[i], NULL, decide, &jobs[i]) == 0);
    }
    for (unsigned i = 0; i < threads; i++)
        must(pthread_join(ids[i], NULL) == 0);
    print_chunks(name);
}

/* Hashing a user as tokens name them; the sum keeps the compiler from leaving it out. */
static void keys_made(const struct rates *r)
{
    static const char USER[] = "0c9a1f0e-3c59-4f7e-9e0b-6d3f8a6c2b11";
    uint64_t sum = 0;
    for (unsigned i = 0; i < CHUNKS_MAX; i++) {
        int64_t begin_ns = clock_mono_ns();
        for (unsigned n = 0; n < CHUNK; n++)
            sum += rates_key(r, sum + n, SLICE(USER)).h[0];
        chunk_add(clock_mono_ns() - begin_ns, CHUNK);
    }
    must(sum);
    print_chunks("key_ns");
}

/* A key that is in the cache: what is more for the others is memory. */
static void hot_decisions(struct rates *r)
{
    static const struct gcra_rate ENDLESS = {1, 1LL << 50};
    struct rates_ask ask = {
        .kind = RATES_USERS, .key = rates_key(r, 2, SLICE("hot")), .rate = &ENDLESS, .cost = 1};
    for (unsigned i = 0; i < CHUNKS_MAX; i++) {
        int64_t begin_ns = clock_mono_ns();
        for (unsigned n = 0; n < CHUNK; n++)
            must(rates_spend(r, &ask, 1, 1));
        chunk_add(clock_mono_ns() - begin_ns, CHUNK);
    }
    print_chunks("decision_hot_ns");
}

int main(void)
{
    struct rates *r = rates_new(N_KEYS);
    must(r);
    struct rates_key *keys = keys_in_disorder(r);
    for (uint32_t i = 0; i < N_KEYS; i++) {
        struct rates_ask ask = {
            .kind = kind_of(&keys[i]), .key = keys[i], .rate = &RATE, .cost = 1};
        must(rates_spend(r, &ask, 1, 1));
    }
    struct rates_stats stats;
    rates_stats(r, 1, &stats);
    printf("{\n  \"keys\": %d,\n  \"table_bytes\": %llu,\n", N_KEYS,
           (unsigned long long)rates_bytes(r));
    printf("  \"forgotten_when_all_are_in_debt\": %llu,\n",
           (unsigned long long)(stats.evicted[RATES_USERS] + stats.evicted[RATES_ADDRESSES]));
    decisions("decision_ns", r, keys, 1, 1);
    decisions("decision_two_threads_ns", r, keys, 2, 1);
    decisions("decision_of_three_keys_ns", r, keys, 1, 3);
    hot_decisions(r);
    keys_made(r);
    free(keys);
    rates_free(r);

    static const char *const PLAYS[CROWD_PLAYS] = {"still", "moving", "sets"};
    printf("  \"processes\": %d,\n  \"threads\": %d", PROCESSES, THREADS);
    for (enum crowd_play play = 0; play < CROWD_PLAYS; play++) {
        r = rates_new(1000);
        must(r);
        int64_t begin_ns = clock_mono_ns();
        struct crowd_result got = crowd_run(r, play, PROCESSES, THREADS, DECISIONS);
        double ns = (double)(clock_mono_ns() - begin_ns) / (double)got.decisions;
        printf(
            ",\n  \"crowd_%s\": {\"decisions\": %lld, \"admitted\": %lld, \"over_admitted\": %lld, "
            "\"under_admitted\": %lld, \"ns\": %.1f}",
            PLAYS[play], (long long)got.decisions, (long long)got.admitted, (long long)got.over,
            (long long)got.under, ns);
        rates_free(r);
    }
    printf("\n}\n");
    return 0;
}
