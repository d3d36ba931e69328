/*
 * rates: see the header.
 *
 * A kind's partition is a row of stripes, a stripe a mutex and a row of pages, a page 64 buckets, a
 * bucket a cache line of four cells. A key's hash chooses a stripe, a page of it and two buckets of
 * the page: so one lock covers all places where the key can be, and they cost one entry of the TLB
 * (which is most of what a decision costs in a table of many pages). A new key goes to the emptier
 * of its buckets; with two cells for each key that leaves about one in 50,000 without a free one.
 *
 * A cell keeps 64 of the key's bits; the other 64 choose the place. Two keys share a cell where the
 * 64 agree and a bucket: for a million keys the chance of any such pair is below 1 in 10^12.
 */
#include "admit/rates.h"

#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/random.h>

#include "base/must.h"
#include "base/robust.h"
#include "base/siphash.h"

enum {
    LINE = 64,         /* bytes of a cache line */
    PAGE = 4096,       /* of the memory: what one entry of the TLB covers */
    BUCKET_CELLS = 4,  /* fill a line */
    PAGE_BUCKETS = 64, /* fill a page */
    KEY_BUCKETS = 2,   /* where a key can be */
    STRIPES_MAX = 512, /* of a kind: 64 threads seldom meet in one */
};

/* A cell is free when paid_ns has passed; `who` then is of no meaning. Atomic for who looks without
 * the lock (rates_stats), and so that the two stores are made in the order that they are written.
 */
struct cell {
    _Atomic uint64_t who; /* rates_key.h[1] */
    _Atomic int64_t paid_ns;
};

struct bucket {
    alignas(LINE) struct cell cells[BUCKET_CELLS];
};
static_assert(sizeof(struct bucket) == LINE, "one line to read");
static_assert(PAGE_BUCKETS * LINE == PAGE, "both buckets of a key in one page");

struct stripe {
    alignas(LINE) struct robust lock;
    /* Written under the lock, read without. */
    _Atomic uint64_t evicted;
    _Atomic uint64_t recovered;
};

/* Read-only once made, but for stripes and buckets. */
struct rates {
    uint64_t bytes; /* of the mapping */
    struct siphash_key secret;
    uint32_t stripes; /* of each kind */
    uint32_t pages;   /* of each stripe */
    uint32_t buckets; /* of each page; less than PAGE_BUCKETS only in a small table */
    /* In the same mapping, which forks have at the same address. One kind after the other. */
    struct bucket *bucket;
    struct stripe stripe[];
};

/* Where an ask's key is, and what is to become of it. */
struct place {
    uint32_t stripe; /* of all kinds */
    struct bucket *buckets[KEY_BUCKETS];
    struct cell *cell;         /* NULL: it has none */
    struct gcra_cell is, then; /* now, and after spending */
};

static int64_t paid_of(struct cell *c)
{
    return atomic_load_explicit(&c->paid_ns, memory_order_relaxed);
}

static uint64_t who_of(struct cell *c)
{
    return atomic_load_explicit(&c->who, memory_order_relaxed);
}

/* Who dies between two stores leaves a cell that is free. */
static void put(struct cell *c, uint64_t who, int64_t paid_ns)
{
    if (who_of(c) != who) {
        atomic_store_explicit(&c->paid_ns, 0, memory_order_release);
        atomic_store_explicit(&c->who, who, memory_order_release);
    }
    atomic_store_explicit(&c->paid_ns, paid_ns, memory_order_release);
}

/* The counter has one writer at a time, the holder of the stripe. */
static void count(_Atomic uint64_t *counter)
{
    uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, n + 1, memory_order_relaxed);
}

/* `bits` random bits of `width` to 0 .. n - 1. */
static uint32_t share(uint64_t bits, unsigned width, uint32_t n)
{
    return (uint32_t)(bits * n >> width);
}

static void locate(struct rates *r, enum rates_kind kind, const struct rates_key *key,
                   struct place *at)
{
    uint64_t h = key->h[0];
    at->stripe = (uint32_t)kind * r->stripes + share(h >> 48, 16, r->stripes);
    size_t page = (size_t)at->stripe * r->pages + share(h >> 24 & 0xffffff, 24, r->pages);
    uint32_t one = share(h >> 12 & 0xfff, 12, r->buckets);
    uint32_t other = share(h & 0xfff, 12, r->buckets);
    if (other == one)
        other = one + 1 < r->buckets ? one + 1 : 0;
    at->buckets[0] = r->bucket + page * r->buckets + one;
    at->buckets[1] = r->bucket + page * r->buckets + other;
    /* Three lines that are likely in no cache: fetched together, not one after the other. */
    __builtin_prefetch(&r->stripe[at->stripe], 1);
    __builtin_prefetch(at->buckets[0], 1);
    __builtin_prefetch(at->buckets[1], 1);
}

static void lock(struct rates *r, uint32_t stripe)
{
    /* There is nothing to repair, see put. */
    if (robust_lock(&r->stripe[stripe].lock))
        count(&r->stripe[stripe].recovered);
}

/* The stripes of the places in ascending order, each once. */
static unsigned stripes_of(const struct place *at, unsigned n, uint32_t *out)
{
    unsigned k = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned j = k;
        while (j && out[j - 1] > at[i].stripe)
            j--;
        if (j && out[j - 1] == at[i].stripe)
            continue;
        for (unsigned m = k; m > j; m--)
            out[m] = out[m - 1];
        out[j] = at[i].stripe;
        k++;
    }
    return k;
}

static struct cell *find(const struct place *at, uint64_t who)
{
    for (unsigned b = 0; b < KEY_BUCKETS; b++)
        for (unsigned c = 0; c < BUCKET_CELLS; c++)
            if (who_of(&at->buckets[b]->cells[c]) == who)
                return &at->buckets[b]->cells[c];
    return NULL;
}

static bool is_used(const struct place *at, unsigned n, const struct cell *c)
{
    for (unsigned i = 0; i < n; i++)
        if (at[i].cell == c)
            return true;
    return false;
}

/* A cell for a key that has none: a free one, else the one that owes least. Never one of this very
 * request; NULL: all 8 are. */
static struct cell *make_room(struct rates *r, const struct place *mine, const struct place *at,
                              unsigned n, int64_t now_ns)
{
    struct cell *free_one = NULL, *least = NULL;
    unsigned free_most = 0;
    for (unsigned b = 0; b < KEY_BUCKETS; b++) {
        struct cell *last = NULL;
        unsigned n_free = 0;
        for (unsigned i = 0; i < BUCKET_CELLS; i++) {
            struct cell *c = &mine->buckets[b]->cells[i];
            if (is_used(at, n, c))
                continue;
            if (paid_of(c) <= now_ns) {
                last = c;
                n_free++;
            } else if (!least || paid_of(c) < paid_of(least)) {
                least = c;
            }
        }
        if (n_free > free_most) {
            free_most = n_free;
            free_one = last;
        }
    }
    if (free_one)
        return free_one;
    count(&r->stripe[mine->stripe].evicted);
    return least;
}

/* The verdict and what spending would make of the cell. */
static bool weigh(struct rates_ask *a, struct place *at, int64_t now_ns)
{
    at->cell = find(at, a->key.h[1]);
    at->is.paid_ns = at->cell ? paid_of(at->cell) : 0;
    at->then = at->is;
    a->verdict = gcra_spend(&at->then, a->rate, a->cost, now_ns, &a->wait_ns);
    return a->verdict == GCRA_SPENT;
}

/* place[i] is a's. */
static void spend(struct rates *r, struct rates_ask *a, struct place *place, unsigned n, unsigned i,
                  int64_t now_ns)
{
    struct place *at = &place[i];
    if (!at->cell)
        at->cell = make_room(r, at, place, n, now_ns);
    if (at->cell)
        put(at->cell, a->key.h[1], at->then.paid_ns);
    at->is = at->then;
}

static void answer(struct rates_ask *a, const struct place *at, bool is_spent, int64_t now_ns)
{
    a->left = gcra_left(&at->is, a->rate, now_ns);
    a->reset_ns = gcra_debt_ns(&at->is, now_ns);
    a->spent_ns = is_spent ? a->cost * a->rate->step_ns : 0;
    a->paid_ns = is_spent ? at->is.paid_ns : 0;
}

static bool decide(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns,
                   bool is_spending)
{
    WEIR_UNINITIALIZED struct place at[RATES_ASKS_MAX];
    WEIR_UNINITIALIZED uint32_t stripes[RATES_ASKS_MAX];
    must(n <= RATES_ASKS_MAX);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < i; j++)
            must(asks[i].kind != asks[j].kind || asks[i].key.h[0] != asks[j].key.h[0] ||
                 asks[i].key.h[1] != asks[j].key.h[1]);
        locate(r, asks[i].kind, &asks[i].key, &at[i]);
    }
    unsigned n_stripes = stripes_of(at, n, stripes);
    for (unsigned i = 0; i < n_stripes; i++)
        lock(r, stripes[i]);
    bool may = true;
    for (unsigned i = 0; i < n; i++)
        may &= weigh(&asks[i], &at[i], now_ns);
    if (may && is_spending)
        for (unsigned i = 0; i < n; i++)
            spend(r, &asks[i], at, n, i, now_ns);
    for (unsigned i = n_stripes; i-- > 0;)
        robust_unlock(&r->stripe[stripes[i]].lock);
    for (unsigned i = 0; i < n; i++)
        answer(&asks[i], &at[i], may && is_spending, now_ns);
    return may;
}

static bool make_secret(struct siphash_key *out)
{
    unsigned char bytes[SIPHASH_KEY_BYTES];
    size_t have = 0;
    while (have < sizeof bytes) {
        ssize_t got = getrandom(bytes + have, sizeof bytes - have, 0);
        if (got > 0)
            have += (size_t)got;
        else if (errno != EINTR)
            return false;
    }
    *out = siphash_key(bytes);
    return true;
}

struct rates *rates_new(uint32_t n_keys)
{
    must(n_keys >= 1);
    /* Two cells a key, half of the keys to each kind: n_keys cells a kind. */
    uint32_t buckets = n_keys / BUCKET_CELLS + (n_keys % BUCKET_CELLS != 0);
    uint32_t all_pages = buckets / PAGE_BUCKETS + (buckets % PAGE_BUCKETS != 0);
    uint32_t stripes = all_pages < STRIPES_MAX ? all_pages : STRIPES_MAX;
    uint32_t pages = all_pages / stripes + (all_pages % stripes != 0);
    buckets = buckets < KEY_BUCKETS ? KEY_BUCKETS : buckets < PAGE_BUCKETS ? buckets : PAGE_BUCKETS;

    size_t n_stripes = (size_t)RATES_KINDS * stripes;
    size_t head = sizeof(struct rates) + n_stripes * sizeof(struct stripe);
    head = (head + PAGE - 1) / PAGE * PAGE;
    size_t bytes = head + n_stripes * pages * buckets * sizeof(struct bucket);
    struct rates *r = shared_map(bytes);
    if (!r)
        return NULL;
    r->bytes = bytes;
    r->stripes = stripes;
    r->pages = pages;
    r->buckets = buckets;
    r->bucket = (struct bucket *)(void *)((char *)r + head);
    bool ok = make_secret(&r->secret);
    for (size_t i = 0; ok && i < n_stripes; i++)
        ok = robust_init(&r->stripe[i].lock) == 0;
    if (!ok) {
        rates_free(r);
        r = NULL;
    }
    return r;
}

void rates_free(struct rates *r)
{
    void *p = r;
    if (r)
        shared_unmap(&p, r->bytes);
}

uint64_t rates_bytes(const struct rates *r)
{
    return r->bytes;
}

struct rates_key rates_who(const struct rates *r, struct slice who)
{
    struct rates_key key;
    siphash128(&r->secret, who.p, who.n, key.h);
    return key;
}

/* One to one (the end of MurmurHash3), so that two limits of one never meet. */
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* The hash of who is secret and has 128 bits: with a limit mixed in, it is as hard to choose, and
 * two of them meet as seldom. */
struct rates_key rates_key_of(const struct rates_key *who, uint64_t limit)
{
    return (struct rates_key){{mix(who->h[0] ^ limit), mix(who->h[1] + limit)}};
}

struct rates_key rates_key(const struct rates *r, uint64_t limit, struct slice who)
{
    struct rates_key of = rates_who(r, who);
    return rates_key_of(&of, limit);
}

bool rates_spend(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns)
{
    return decide(r, asks, n, now_ns, true);
}

void rates_look(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns)
{
    (void)decide(r, asks, n, now_ns, false);
}

void rates_refund(struct rates *r, struct rates_ask *asks, unsigned n, int64_t now_ns)
{
    /* One after the other: who dies in between has given back some, which allows nobody more. */
    for (unsigned i = 0; i < n; i++) {
        struct rates_ask *a = &asks[i];
        if (a->spent_ns == 0)
            continue;
        struct place at;
        locate(r, a->kind, &a->key, &at);
        lock(r, at.stripe);
        struct cell *c = find(&at, a->key.h[1]);
        if (c) {
            struct gcra_cell cell = {paid_of(c)};
            gcra_refund(&cell, a->spent_ns, a->paid_ns, now_ns);
            put(c, a->key.h[1], cell.paid_ns);
        }
        robust_unlock(&r->stripe[at.stripe].lock);
        a->spent_ns = 0;
    }
}

void rates_stats(struct rates *r, int64_t now_ns, struct rates_stats *out)
{
    *out = (struct rates_stats){0};
    size_t n_buckets = (size_t)r->stripes * r->pages * r->buckets;
    must(n_buckets >= 1);
    size_t n_sample =
        RATES_SAMPLE / BUCKET_CELLS < n_buckets ? RATES_SAMPLE / BUCKET_CELLS : n_buckets;
    for (unsigned kind = 0; kind < RATES_KINDS; kind++) {
        /* Keys land by chance, so any buckets are a fair sample. */
        uint64_t in_debt = 0;
        for (size_t i = 0; i < n_sample; i++) {
            struct bucket *b = r->bucket + kind * n_buckets + i * n_buckets / n_sample;
            for (unsigned c = 0; c < BUCKET_CELLS; c++)
                in_debt += paid_of(&b->cells[c]) > now_ns;
        }
        out->cells[kind] = (uint64_t)n_buckets * BUCKET_CELLS;
        out->keys[kind] = in_debt * n_buckets / n_sample;
        for (uint32_t i = 0; i < r->stripes; i++) {
            struct stripe *s = &r->stripe[kind * r->stripes + i];
            out->evicted[kind] += atomic_load_explicit(&s->evicted, memory_order_relaxed);
            out->recovered += atomic_load_explicit(&s->recovered, memory_order_relaxed);
        }
    }
}
