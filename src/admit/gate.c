/*
 * gate: see the header.
 *
 * THE TRUTH is the tickets: state, owner, key, times. All else of a route (its chunks' masks,
 * flows, calendar, sums) can be made anew from them, and is, when a holder of the route's mutex has
 * died. So a ticket's fields are written before its state, and the state is one store. Tables have
 * numbers instead of pointers, and 0 is nobody: chunk 0, with tickets and flows 0 to 63, is never
 * used, so that fresh memory needs no work.
 *
 *     FREE -> HELD                 enters at once
 *     FREE -> WAITING -> GRANTED -> HELD      waits, is given a token, its owner has learnt of it
 *     WAITING -> EXPIRED           its time was over when its turn came
 *     any -> FREE                  leaves, or its owner died
 *
 * CHUNKS. A route takes tickets 64 at a time (a chunk, with the same number of flow records), so
 * the mutex of the route guards its tickets and there is no common list of free ones. A flow has at
 * least one ticket that waits, so a route that has a ticket for it has a flow record, too. A
 * route's chunks with room come first on its list, one list for tickets and one for flows.
 *
 * A FLOW is a treap of its waiting tickets, ordered by deadline, then arrival; each node knows how
 * many are below it, so the rank of a ticket is found on the way down.
 *
 * TURNS. Deficit round-robin with a quantum of 1, where visits that would grant nothing are not
 * made: a flow whose first ticket weighs w has enough saved at the w-th visit, so it is put into
 * the calendar w rounds ahead, behind those of the same round. A flow that comes new, or comes
 * back, has saved nothing and stands where it would stand at the tail of the active list. What
 * remains after a change of the first ticket is not carried over: nobody saves turns with tickets
 * that he lets go.
 *
 * NOTICE of a grant is a bit of the ticket in its owner's box, and a bit of the owner's slot among
 * the wakes. Bits can be set twice without harm, so what a dead process may have left undone is
 * done again.
 *
 * Lock order: names, then a route.
 */
#include "admit/gate.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/must.h"
#include "base/robust.h"

#define CHUNK 64 /* tickets; bits of a word */
#define CHUNKS (GATE_TICKETS_MAX / CHUNK)
#define SLOTS GATE_SLOTS_MAX
#define ROUNDS 64    /* of the calendar; bits of a word */
#define BUCKETS 4096 /* of a route's table of flows */
#define DEPTHS 32    /* see route.deep */

static_assert(GATE_WEIGHT_MAX == ROUNDS - 1, "a flow's turn is within the calendar");
static_assert(CHUNKS % 64 == 0 && SLOTS % 64 == 0 && SLOTS / 64 <= 64, "bits of words");

/* A new time of holding counts for 1/8 of the mean: after 20 of them 7 % of the old one is left. */
static const unsigned MEAN_SHARE = 8;
/* Ten hours. Longer ones count as this, so that position x mean fits. */
static const int64_t MEAN_NS_MAX = (int64_t)36000 * 1000000000;
/* Who only looks tries for so long: a holder is done in microseconds, if it runs. */
static const int64_t LOOK_NS = 5000000;

enum ticket_state {
    TICKET_FREE = 0,
    TICKET_WAITING, /* in the tree of its flow */
    TICKET_EXPIRED, /* was; its owner has yet to let it go */
    TICKET_GRANTED, /* holds a token, and its owner has yet to be told */
    TICKET_HELD,    /* holds a token */
};

struct ticket {
    _Atomic uint32_t state; /* enum ticket_state; written last */
    uint32_t weight;        /* 1 .. GATE_WEIGHT_MAX */
    struct gate_owner owner;
    uint64_t cookie;     /* the owner's */
    uint64_t key;        /* of its flow */
    uint64_t seq;        /* grows with each arrival at the route */
    int64_t deadline_ns; /* the order within the flow */
    int64_t until_ns;    /* after this it is not granted */
    int64_t since_ns;    /* it waits; GRANTED, HELD: it has the token */
    /* Made anew by a repair. While it waits: */
    uint32_t flow;
    uint32_t parent, left, right; /* of the treap */
    uint32_t size;                /* nodes of its subtree, itself included */
};

/* Tickets of one key that wait. */
struct flow {
    uint64_t key;
    uint64_t served;     /* the round in which it came, or was last granted a token */
    uint64_t due;        /* the round of its turn */
    uint32_t root;       /* of the treap; its size is the number that wait */
    uint32_t prev, next; /* in the calendar's round */
    uint32_t chain;      /* the next of the same bucket */
};

enum kind { KIND_TICKETS, KIND_FLOWS, KINDS };

struct chunk {
    _Atomic uint32_t route; /* number + 1; 0 = nobody's. Taken by compare-and-swap */
    struct {
        uint64_t used;       /* bits */
        uint32_t prev, next; /* on the route's list */
    } of[KINDS];
};

struct ends {
    uint32_t first, last;
};

struct route {
    struct robust lock;
    /* Under names. */
    uint64_t name[2];       /* its hash */
    _Atomic uint64_t asked; /* when it was last asked for, counted; 0 = not in use */
    /* Under the lock. These outlive a repair: */
    uint64_t seq;
    uint64_t round;       /* of the last grant */
    uint32_t concurrency; /* the newest that was told */
    int64_t limits_ns;    /* when it was decided */
    uint32_t samples;     /* of mean_ns, up to MEAN_SHARE */
    int64_t mean_ns;      /* 0 = unknown */
    uint64_t entered, queued, full, late, left;
    int64_t waited_ns;
    uint64_t repairs; /* how often that was; for tests and debuggers */
    /* And these are made anew: */
    uint32_t running, waiting, flows;
    uint32_t used;   /* tickets */
    uint32_t chunks; /* that it has */
    struct ends chunk[KINDS];
    uint64_t rounds; /* bits: rounds of the calendar, modulo ROUNDS, that are not empty */
    struct ends calendar[ROUNDS]; /* flows, in turn */
    uint32_t deep[DEPTHS];        /* [n]: flows of which more than n wait */
};

/* What a slot's worker is to be told: bits of granted tickets, and of words with such bits. */
struct box {
    _Atomic uint64_t words[CHUNKS / 64];
    _Atomic uint64_t granted[CHUNKS];
};

struct gates {
    struct robust names;
    uint64_t asked;                    /* counts calls of gates_route; under names */
    _Atomic uint32_t routes_n;         /* routes whose lock is made */
    _Atomic uint32_t hint;             /* where a free chunk may be */
    _Atomic uint64_t wake_words;       /* bits: words of `wake` that may have bits */
    _Atomic uint64_t wake[SLOTS / 64]; /* bits: slots to be woken */
    struct route routes[GATE_ROUTES_MAX];
    struct chunk chunks[CHUNKS];
    struct ticket tickets[GATE_TICKETS_MAX];
    struct flow flow[GATE_TICKETS_MAX];
    uint32_t buckets[GATE_ROUTES_MAX][BUCKETS]; /* first flow of each */
    struct box boxes[SLOTS];
};

/* ---- small things ---- */

static inline unsigned lowest(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits);
}

static inline uint64_t bit(uint32_t n)
{
    return (uint64_t)1 << (n % 64);
}

static inline uint64_t mix(uint64_t x)
{
    /* The finish of splitmix64. */
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
}

static inline int64_t add_ns(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static inline int64_t span_ns(int64_t from, int64_t to)
{
    return to > from ? to - from : 0;
}

static inline enum ticket_state state_of(const struct ticket *t)
{
    return (enum ticket_state)atomic_load_explicit(&t->state, memory_order_relaxed);
}

/* Release: what was written before is there for who repairs. */
static inline void state_set(struct ticket *t, enum ticket_state state)
{
    atomic_store_explicit(&t->state, (uint32_t)state, memory_order_release);
}

static inline uint32_t number_of(struct gates *g, const struct route *r)
{
    return (uint32_t)(r - g->routes);
}

static inline bool is_of(struct gates *g, uint32_t chunk, const struct route *r)
{
    return atomic_load_explicit(&g->chunks[chunk].route, memory_order_acquire) ==
           number_of(g, r) + 1;
}

/* ---- chunks ---- */

static void chunk_link(struct gates *g, struct route *r, enum kind k, uint32_t c, bool first)
{
    struct ends *ends = &r->chunk[k];
    uint32_t prev = first ? 0 : ends->last, next = first ? ends->first : 0;
    g->chunks[c].of[k].prev = prev;
    g->chunks[c].of[k].next = next;
    *(prev ? &g->chunks[prev].of[k].next : &ends->first) = c;
    *(next ? &g->chunks[next].of[k].prev : &ends->last) = c;
}

static void chunk_unlink(struct gates *g, struct route *r, enum kind k, uint32_t c)
{
    uint32_t prev = g->chunks[c].of[k].prev, next = g->chunks[c].of[k].next;
    *(prev ? &g->chunks[prev].of[k].next : &r->chunk[k].first) = next;
    *(next ? &g->chunks[next].of[k].prev : &r->chunk[k].last) = prev;
}

/* One more chunk for the route; false: there is none. */
static bool chunk_take(struct gates *g, struct route *r)
{
    uint32_t hint = atomic_load_explicit(&g->hint, memory_order_relaxed);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint32_t c = (hint + i) % CHUNKS, nobody = 0;
        if (c == 0 || atomic_load_explicit(&g->chunks[c].route, memory_order_relaxed) != 0 ||
            !atomic_compare_exchange_strong(&g->chunks[c].route, &nobody, number_of(g, r) + 1))
            continue;
        atomic_store_explicit(&g->hint, c + 1, memory_order_relaxed);
        for (enum kind k = KIND_TICKETS; k < KINDS; k++) {
            g->chunks[c].of[k].used = 0;
            chunk_link(g, r, k, c, true);
        }
        r->chunks++;
        return true;
    }
    return false;
}

static void chunk_give_back(struct gates *g, struct route *r, uint32_t c)
{
    for (enum kind k = KIND_TICKETS; k < KINDS; k++)
        chunk_unlink(g, r, k, c);
    r->chunks--;
    atomic_store_explicit(&g->chunks[c].route, 0, memory_order_release);
    atomic_store_explicit(&g->hint, c, memory_order_relaxed);
}

/* The number of a free record, now in use; 0 = there is none. */
static uint32_t record_new(struct gates *g, struct route *r, enum kind k)
{
    uint32_t c = r->chunk[k].first;
    if (WEIR_UNLIKELY(c == 0 || g->chunks[c].of[k].used == UINT64_MAX)) {
        if (!chunk_take(g, r))
            return 0;
        c = r->chunk[k].first;
    }
    uint64_t *used = &g->chunks[c].of[k].used;
    uint32_t n = c * CHUNK + lowest(~*used);
    *used |= bit(n);
    if (*used == UINT64_MAX && r->chunk[k].last != c) {
        chunk_unlink(g, r, k, c);
        chunk_link(g, r, k, c, false);
    }
    return n;
}

static void record_free(struct gates *g, struct route *r, enum kind k, uint32_t n)
{
    uint32_t c = n / CHUNK;
    struct chunk *at = &g->chunks[c];
    bool was_full = at->of[k].used == UINT64_MAX;
    at->of[k].used &= ~bit(n);
    if (was_full && r->chunk[k].first != c) {
        chunk_unlink(g, r, k, c);
        chunk_link(g, r, k, c, true);
    }
    if (WEIR_UNLIKELY((at->of[KIND_TICKETS].used | at->of[KIND_FLOWS].used) == 0 && r->chunks > 1))
        chunk_give_back(g, r, c);
}

/* ---- the treap of a flow ---- */

static inline bool before(const struct ticket *t, int64_t deadline_ns, uint64_t seq)
{
    return t->deadline_ns != deadline_ns ? t->deadline_ns < deadline_ns : t->seq < seq;
}

static inline uint32_t size_of(struct gates *g, uint32_t n)
{
    return g->tickets[n].size; /* of 0: 0 */
}

static inline void size_sum(struct gates *g, uint32_t n)
{
    struct ticket *t = &g->tickets[n];
    t->size = 1 + size_of(g, t->left) + size_of(g, t->right);
}

/* `n` takes the place of its parent, which goes below it. */
static void tree_rotate(struct gates *g, struct flow *f, uint32_t n)
{
    struct ticket *t = &g->tickets[n], *p = &g->tickets[t->parent];
    uint32_t parent = t->parent, above = p->parent, inner;
    if (p->left == n) {
        inner = p->left = t->right;
        t->right = parent;
    } else {
        inner = p->right = t->left;
        t->left = parent;
    }
    if (inner)
        g->tickets[inner].parent = parent;
    p->parent = n;
    t->parent = above;
    if (!above)
        f->root = n;
    else if (g->tickets[above].left == parent)
        g->tickets[above].left = n;
    else
        g->tickets[above].right = n;
    size_sum(g, parent);
    size_sum(g, n);
}

static inline uint64_t tree_priority(const struct ticket *t)
{
    return mix(t->seq);
}

static void tree_add(struct gates *g, struct flow *f, uint32_t n)
{
    struct ticket *t = &g->tickets[n];
    t->left = t->right = t->parent = 0;
    t->size = 1;
    uint32_t at = f->root;
    while (at) {
        struct ticket *p = &g->tickets[at];
        t->parent = at;
        p->size++;
        at = before(p, t->deadline_ns, t->seq) ? p->right : p->left;
    }
    if (!t->parent) {
        f->root = n;
        return;
    }
    struct ticket *p = &g->tickets[t->parent];
    *(before(p, t->deadline_ns, t->seq) ? &p->right : &p->left) = n;
    while (t->parent && tree_priority(&g->tickets[t->parent]) < tree_priority(t))
        tree_rotate(g, f, n);
}

static void tree_del(struct gates *g, struct flow *f, uint32_t n)
{
    struct ticket *t = &g->tickets[n];
    while (t->left && t->right) {
        bool left = tree_priority(&g->tickets[t->left]) > tree_priority(&g->tickets[t->right]);
        tree_rotate(g, f, left ? t->left : t->right);
    }
    uint32_t child = t->left ? t->left : t->right;
    if (child)
        g->tickets[child].parent = t->parent;
    if (!t->parent)
        f->root = child;
    else if (g->tickets[t->parent].left == n)
        g->tickets[t->parent].left = child;
    else
        g->tickets[t->parent].right = child;
    for (uint32_t at = t->parent; at; at = g->tickets[at].parent)
        g->tickets[at].size--;
}

static uint32_t tree_first(struct gates *g, const struct flow *f)
{
    uint32_t n = f->root;
    while (g->tickets[n].left)
        n = g->tickets[n].left;
    return n;
}

/* How many of the flow stand before one of this deadline and arrival. */
static uint32_t tree_rank(struct gates *g, const struct flow *f, int64_t deadline_ns, uint64_t seq)
{
    uint32_t rank = 0;
    for (uint32_t n = f->root; n;) {
        const struct ticket *t = &g->tickets[n];
        if (before(t, deadline_ns, seq)) {
            rank += size_of(g, t->left) + 1;
            n = t->right;
        } else {
            n = t->left;
        }
    }
    return rank;
}

/* ---- flows and their turns ---- */

static uint32_t *bucket_of(struct gates *g, struct route *r, uint64_t key)
{
    return &g->buckets[number_of(g, r)][mix(key) % BUCKETS];
}

static uint32_t flow_find(struct gates *g, struct route *r, uint64_t key)
{
    uint32_t n = *bucket_of(g, r, key);
    while (n && g->flow[n].key != key)
        n = g->flow[n].chain;
    return n;
}

static void calendar_add(struct gates *g, struct route *r, uint32_t n, uint64_t due)
{
    struct flow *f = &g->flow[n];
    struct ends *ends = &r->calendar[due % ROUNDS];
    f->due = due;
    f->prev = ends->last;
    f->next = 0;
    *(ends->last ? &g->flow[ends->last].next : &ends->first) = n;
    ends->last = n;
    r->rounds |= bit((uint32_t)(due % ROUNDS));
}

static void calendar_del(struct gates *g, struct route *r, uint32_t n)
{
    struct flow *f = &g->flow[n];
    struct ends *ends = &r->calendar[f->due % ROUNDS];
    *(f->prev ? &g->flow[f->prev].next : &ends->first) = f->next;
    *(f->next ? &g->flow[f->next].prev : &ends->last) = f->prev;
    if (!ends->first)
        r->rounds &= ~bit((uint32_t)(f->due % ROUNDS));
}

/* The flow whose turn it is; some flow waits. */
static uint32_t calendar_first(const struct route *r)
{
    unsigned now = (unsigned)(r->round % ROUNDS);
    uint64_t ahead = now ? r->rounds >> now | r->rounds << (ROUNDS - now) : r->rounds;
    return r->calendar[(now + lowest(ahead)) % ROUNDS].first;
}

/* When the flow's first ticket has its turn, given that it saves since f->served. */
static uint64_t flow_due(struct gates *g, const struct route *r, const struct flow *f)
{
    uint64_t due = f->served + g->tickets[tree_first(g, f)].weight;
    return due > r->round ? due : r->round;
}

/* The ticket, complete but for its state, waits. Its chunk has room for a flow. */
static void queue_add(struct gates *g, struct route *r, uint32_t n)
{
    struct ticket *t = &g->tickets[n];
    uint32_t at = flow_find(g, r, t->key);
    struct flow *f = &g->flow[at];
    bool is_new = at == 0;
    if (is_new) {
        at = record_new(g, r, KIND_FLOWS);
        must(at);
        f = &g->flow[at];
        uint32_t *bucket = bucket_of(g, r, t->key);
        *f = (struct flow){.key = t->key, .served = r->round, .chain = *bucket};
        *bucket = at;
        r->flows++;
    }
    t->flow = at;
    uint32_t depth = size_of(g, f->root);
    tree_add(g, f, n);
    if (depth < DEPTHS)
        r->deep[depth]++;
    r->waiting++;
    uint64_t due = flow_due(g, r, f);
    if (is_new) {
        calendar_add(g, r, at, due);
    } else if (due != f->due) {
        calendar_del(g, r, at);
        calendar_add(g, r, at, due);
    }
}

/* It waits no more. granted: its flow has had its turn, in the present round. */
static void queue_del(struct gates *g, struct route *r, uint32_t n, bool granted)
{
    uint32_t at = g->tickets[n].flow;
    struct flow *f = &g->flow[at];
    tree_del(g, f, n);
    r->waiting--;
    uint32_t depth = size_of(g, f->root);
    if (depth < DEPTHS)
        r->deep[depth]--;
    if (granted)
        f->served = r->round;
    if (!f->root) {
        calendar_del(g, r, at);
        uint32_t *link = bucket_of(g, r, f->key);
        while (*link != at)
            link = &g->flow[*link].chain;
        *link = f->chain;
        r->flows--;
        record_free(g, r, KIND_FLOWS, at);
        return;
    }
    uint64_t due = flow_due(g, r, f);
    if (granted || due != f->due) {
        calendar_del(g, r, at);
        calendar_add(g, r, at, due);
    }
}

/* How many start until one that has `rank` of its own flow before it, itself included: of each
 * other flow as many, and one more. `own`: how many of its flow wait. */
static uint32_t position_of(const struct route *r, uint32_t rank, uint32_t own)
{
    uint64_t others = 0;
    for (uint32_t n = 0; n <= rank && n < DEPTHS; n++)
        others += r->deep[n] - (n < own);
    if (rank >= DEPTHS)
        others += (uint64_t)(rank - DEPTHS + 1) * (r->deep[DEPTHS - 1] - (own >= DEPTHS));
    uint32_t most = r->waiting - own;
    return rank + 1 + (others < most ? (uint32_t)others : most);
}

static int64_t expected_of(const struct route *r, uint32_t position)
{
    return r->concurrency ? (int64_t)position * r->mean_ns / r->concurrency : 0;
}

static void mean_add(struct route *r, int64_t held_ns)
{
    held_ns = held_ns < 1 ? 1 : held_ns < MEAN_NS_MAX ? held_ns : MEAN_NS_MAX;
    r->samples += r->samples < MEAN_SHARE;
    r->mean_ns += (held_ns - r->mean_ns) / (int64_t)r->samples;
    r->mean_ns += r->mean_ns == 0;
}

/* ---- notice ---- */

static void notice(struct gates *g, uint32_t n)
{
    uint32_t slot = g->tickets[n].owner.slot, c = n / CHUNK;
    struct box *box = &g->boxes[slot];
    atomic_fetch_or(&box->granted[c], bit(n));
    atomic_fetch_or(&box->words[c / 64], bit(c));
    atomic_fetch_or(&g->wake[slot / 64], bit(slot));
    atomic_fetch_or(&g->wake_words, bit(slot / 64));
}

/* The word's bit goes before its slots' are looked at, and comes back if some are left. */
static void wakes_take(struct gates *g, struct gate_wakes *out)
{
    out->n = 0;
    uint64_t words;
    while (WEIR_UNLIKELY((words = atomic_load(&g->wake_words)) != 0)) {
        uint32_t w = lowest(words);
        atomic_fetch_and(&g->wake_words, ~bit(w));
        uint64_t slots;
        while ((slots = atomic_load(&g->wake[w])) != 0) {
            if (out->n == countof(out->slots)) {
                atomic_fetch_or(&g->wake_words, bit(w));
                return;
            }
            uint32_t slot = lowest(slots);
            if (atomic_fetch_and(&g->wake[w], ~bit(slot)) & bit(slot))
                out->slots[out->n++] = w * 64 + slot;
        }
    }
}

/* ---- a route ---- */

/* The next of the route's tickets that are in use, after `n`; 0 = no more. */
static uint32_t ticket_next(struct gates *g, const struct route *r, uint32_t n)
{
    for (n = n ? n + 1 : CHUNK; n < GATE_TICKETS_MAX;) {
        if (!is_of(g, n / CHUNK, r)) /* perhaps no more, since the last one ended */
            n = (n / CHUNK + 1) * CHUNK;
        else if (state_of(&g->tickets[n]) == TICKET_FREE)
            n++;
        else
            return n;
    }
    return 0;
}

/* A holder of the lock died: make everything anew from the tickets. The turns begin from the start.
 */
static WEIR_COLD void route_repair(struct gates *g, struct route *r)
{
    size_t from = offsetof(struct route, running);
    r->repairs++;
    memset((char *)r + from, 0, sizeof *r - from);
    memset(g->buckets[number_of(g, r)], 0, sizeof g->buckets[0]);
    for (uint32_t c = 1; c < CHUNKS; c++) {
        if (!is_of(g, c, r))
            continue;
        uint64_t used = 0;
        for (uint32_t i = 0; i < CHUNK; i++)
            if (state_of(&g->tickets[c * CHUNK + i]) != TICKET_FREE)
                used |= bit(i);
        if (!used) {
            atomic_store_explicit(&g->chunks[c].route, 0, memory_order_release);
            continue;
        }
        g->chunks[c].of[KIND_TICKETS].used = used;
        g->chunks[c].of[KIND_FLOWS].used = 0;
        chunk_link(g, r, KIND_TICKETS, c, used != UINT64_MAX);
        chunk_link(g, r, KIND_FLOWS, c, true);
        r->chunks++;
        r->used += (uint32_t)__builtin_popcountll(used);
    }
    for (uint32_t n = 0; (n = ticket_next(g, r, n)) != 0;) {
        switch (state_of(&g->tickets[n])) {
        case TICKET_FREE:
        case TICKET_EXPIRED:
            break;
        case TICKET_WAITING:
            queue_add(g, r, n);
            break;
        case TICKET_GRANTED:
            notice(g, n);
            r->running++;
            break;
        case TICKET_HELD:
            r->running++;
            break;
        }
    }
}

static inline void route_lock(struct gates *g, struct route *r)
{
    if (WEIR_UNLIKELY(robust_lock(&r->lock)))
        route_repair(g, r);
}

static inline void route_unlock(struct route *r)
{
    robust_unlock(&r->lock);
}

/* The route of a ticket, locked; NULL: the ticket is nobody's. */
static struct route *route_lock_of(struct gates *g, uint32_t n)
{
    if (n < CHUNK || n >= GATE_TICKETS_MAX)
        return NULL;
    uint32_t route = atomic_load_explicit(&g->chunks[n / CHUNK].route, memory_order_acquire);
    if (!route)
        return NULL;
    struct route *r = &g->routes[route - 1];
    route_lock(g, r);
    if (is_of(g, n / CHUNK, r) && state_of(&g->tickets[n]) != TICKET_FREE)
        return r;
    route_unlock(r);
    return NULL;
}

static struct route *route_of(struct gates *g, uint32_t route)
{
    must(route < atomic_load_explicit(&g->routes_n, memory_order_acquire));
    return &g->routes[route];
}

/* Who still has older limits changes nothing. */
static inline void limits_take(struct route *r, const struct gate_limits *limits)
{
    if (WEIR_UNLIKELY(limits->made_ns < r->limits_ns))
        return;
    r->limits_ns = limits->made_ns;
    r->concurrency = limits->concurrency;
}

/* Free tokens go to who waits. */
static void grant(struct gates *g, struct route *r, int64_t now_ns)
{
    while (r->running < r->concurrency && r->waiting > 0) {
        struct flow *f = &g->flow[calendar_first(r)];
        uint32_t n = tree_first(g, f);
        struct ticket *t = &g->tickets[n];
        if (now_ns > t->until_ns) {
            state_set(t, TICKET_EXPIRED);
            queue_del(g, r, n, false);
            continue;
        }
        r->round = f->due;
        queue_del(g, r, n, true);
        r->waited_ns = add_ns(r->waited_ns, span_ns(t->since_ns, now_ns));
        /* A repair that finds WAITING with this time counts the wait from here: harmless. */
        t->since_ns = now_ns;
        state_set(t, TICKET_GRANTED);
        r->running++;
        notice(g, n);
    }
}

/* The ticket ends; what it had goes back. */
static void ticket_end(struct gates *g, struct route *r, uint32_t n, bool held, int64_t now_ns)
{
    struct ticket *t = &g->tickets[n];
    enum ticket_state state = state_of(t);
    must(state != TICKET_FREE);
    state_set(t, TICKET_FREE);
    switch (state) {
    case TICKET_FREE:
        break;
    case TICKET_WAITING:
        queue_del(g, r, n, false);
        r->left++;
        break;
    case TICKET_EXPIRED:
        r->left++;
        break;
    case TICKET_GRANTED:
    case TICKET_HELD:
        r->running--;
        if (held)
            mean_add(r, span_ns(t->since_ns, now_ns));
        break;
    }
    r->used--;
    record_free(g, r, KIND_TICKETS, n);
}

/* A new ticket of the ask, still FREE; 0 = all are in use. */
static uint32_t ticket_new(struct gates *g, struct route *r, const struct gate_ask *ask,
                           int64_t now_ns)
{
    uint32_t n = record_new(g, r, KIND_TICKETS);
    if (!n)
        return 0;
    struct ticket *t = &g->tickets[n];
    t->weight = ask->weight < GATE_WEIGHT_MAX ? ask->weight : GATE_WEIGHT_MAX;
    t->owner = ask->owner;
    t->cookie = ask->cookie;
    t->key = ask->flow;
    t->seq = ++r->seq;
    t->deadline_ns = ask->deadline_ns;
    t->since_ns = now_ns;
    r->used++;
    return n;
}

/* No token is free: wait, if there is room and hope. */
static enum gate_verdict wait_in_queue(struct gates *g, struct route *r, const struct gate_ask *ask,
                                       int64_t now_ns, struct gate_answer *out)
{
    out->position = r->waiting + 1;
    out->expected_ns = expected_of(r, out->position);
    if (r->waiting >= ask->limits.queue_size) {
        r->full++;
        return GATE_FULL;
    }
    uint32_t at = flow_find(g, r, ask->flow);
    const struct flow *f = &g->flow[at];
    if (ask->shares && at &&
        size_of(g, f->root) / GATE_SHARE >= ask->limits.queue_size - r->waiting) {
        r->full++;
        return GATE_FULL;
    }
    uint32_t rank = at ? tree_rank(g, f, ask->deadline_ns, UINT64_MAX) : 0;
    uint32_t position = position_of(r, rank, at ? size_of(g, f->root) : 0);
    int64_t expected_ns = expected_of(r, position);
    int64_t until_ns = add_ns(now_ns, ask->limits.wait_ns);
    until_ns = until_ns < ask->deadline_ns ? until_ns : ask->deadline_ns;
    if (now_ns > until_ns || add_ns(now_ns, expected_ns) > until_ns) {
        out->expected_ns = expected_ns;
        r->late++;
        return GATE_LATE;
    }
    uint32_t n = ticket_new(g, r, ask, now_ns);
    if (!n) {
        r->full++;
        return GATE_FULL;
    }
    g->tickets[n].until_ns = until_ns;
    state_set(&g->tickets[n], TICKET_WAITING);
    queue_add(g, r, n);
    r->queued++;
    *out = (struct gate_answer){n, position, expected_ns};
    return GATE_QUEUED;
}

/* ---- public ---- */

struct gates *gates_new(void)
{
    struct gates *g = shared_map(sizeof *g);
    if (g && robust_init(&g->names) == 0)
        return g;
    gates_free(&g);
    return NULL;
}

void gates_free(struct gates **g)
{
    void *p = *g;
    shared_unmap(&p, sizeof **g);
    *g = NULL;
}

/* Two hashes of the name; equal ones are taken for the same name. */
static void name_hash(const char *name, uint64_t hash[2])
{
    /* FNV-1a, and one more of another start and a mixed step. */
    hash[0] = 0xCBF29CE484222325;
    hash[1] = 0x9E3779B97F4A7C15;
    for (; *name; name++) {
        hash[0] = (hash[0] ^ (unsigned char)*name) * 0x100000001B3;
        hash[1] = mix(hash[1] + (unsigned char)*name + 1);
    }
}

/* Nobody has a ticket of the route: forget what is known of it. True, or somebody has. */
static bool route_reset(struct gates *g, struct route *r)
{
    route_lock(g, r);
    bool idle = r->used == 0;
    if (idle) {
        r->concurrency = r->samples = 0;
        r->mean_ns = r->waited_ns = r->limits_ns = 0;
        r->entered = r->queued = r->full = r->late = r->left = 0;
        if (r->chunks > 0) /* the last one is kept else */
            chunk_give_back(g, r, r->chunk[KIND_TICKETS].first);
    }
    route_unlock(r);
    return idle;
}

/* A route for a new name; NULL: all are in use. */
static struct route *route_new_locked(struct gates *g)
{
    uint32_t n = atomic_load(&g->routes_n);
    if (n < GATE_ROUTES_MAX) {
        if (robust_init(&g->routes[n].lock) != 0)
            return NULL;
        atomic_store_explicit(&g->routes_n, n + 1, memory_order_release);
        return &g->routes[n];
    }
    uint64_t after = 0;
    for (uint32_t tries = 0; tries < n; tries++) {
        struct route *oldest = NULL;
        for (uint32_t i = 0; i < n; i++) {
            struct route *r = &g->routes[i];
            if (r->asked >= after && (!oldest || r->asked < oldest->asked))
                oldest = r;
        }
        if (!oldest)
            break;
        after = oldest->asked + 1;
        if (route_reset(g, oldest))
            return oldest;
    }
    return NULL;
}

/* NULL: nobody has asked for it. */
static struct route *route_find_locked(struct gates *g, const uint64_t hash[2])
{
    uint32_t n = atomic_load(&g->routes_n);
    for (uint32_t i = 0; i < n; i++)
        if (g->routes[i].asked && g->routes[i].name[0] == hash[0] &&
            g->routes[i].name[1] == hash[1])
            return &g->routes[i];
    return NULL;
}

uint32_t gates_route(struct gates *g, const char *name)
{
    uint64_t hash[2];
    name_hash(name, hash);
    bool died = robust_lock(&g->names);
    (void)died; /* a name is written while `asked` says that there is none: nothing to repair */
    struct route *r = route_find_locked(g, hash);
    if (!r && (r = route_new_locked(g)) != NULL) {
        atomic_store(&r->asked, 0);
        atomic_signal_fence(memory_order_seq_cst);
        memcpy(r->name, hash, sizeof hash);
    }
    if (r)
        atomic_store(&r->asked, ++g->asked);
    robust_unlock(&g->names);
    return r ? number_of(g, r) : GATE_NONE;
}

enum gate_verdict gates_enter(struct gates *g, const struct gate_ask *ask, int64_t now_ns,
                              struct gate_answer *out)
{
    must(ask->limits.concurrency >= 1 && ask->weight >= 1 && ask->owner.slot < SLOTS);
    struct route *r = route_of(g, ask->route);
    *out = (struct gate_answer){.ticket = GATE_NONE};
    enum gate_verdict verdict;
    route_lock(g, r);
    limits_take(r, &ask->limits);
    if (WEIR_UNLIKELY(r->waiting > 0 && r->running < r->concurrency))
        grant(g, r, now_ns); /* the limit grew; nobody passes those that wait */
    if (r->running >= r->concurrency) {
        verdict = wait_in_queue(g, r, ask, now_ns, out);
    } else if ((out->ticket = ticket_new(g, r, ask, now_ns)) != 0) {
        state_set(&g->tickets[out->ticket], TICKET_HELD);
        r->running++;
        r->entered++;
        verdict = GATE_ENTERED;
    } else {
        *out = (struct gate_answer){.ticket = GATE_NONE, .position = r->waiting + 1};
        r->full++;
        verdict = GATE_FULL;
    }
    route_unlock(r);
    return verdict;
}

void gates_leave(struct gates *g, uint32_t ticket, bool held, int64_t now_ns,
                 struct gate_wakes *wakes)
{
    struct route *r = route_lock_of(g, ticket);
    must(r);
    ticket_end(g, r, ticket, held, now_ns);
    if (r->waiting > 0)
        grant(g, r, now_ns);
    route_unlock(r);
    wakes_take(g, wakes);
}

void gates_wakes(struct gates *g, struct gate_wakes *wakes)
{
    wakes_take(g, wakes);
}

void gates_pump(struct gates *g, uint32_t route, const struct gate_limits *limits, int64_t now_ns,
                struct gate_wakes *wakes)
{
    must(limits->concurrency >= 1);
    struct route *r = route_of(g, route);
    route_lock(g, r);
    limits_take(r, limits);
    grant(g, r, now_ns);
    route_unlock(r);
    wakes_take(g, wakes);
}

/* Is this a grant that the owner has yet to learn of? Then it has. */
static bool granted_take(struct gates *g, uint32_t n, struct gate_owner owner, uint64_t *cookie)
{
    struct route *r = route_lock_of(g, n);
    if (!r)
        return false;
    struct ticket *t = &g->tickets[n];
    bool is = state_of(t) == TICKET_GRANTED && t->owner.slot == owner.slot &&
              t->owner.generation == owner.generation;
    if (is) {
        *cookie = t->cookie;
        state_set(t, TICKET_HELD);
    }
    route_unlock(r);
    return is;
}

unsigned gates_take_granted(struct gates *g, struct gate_owner owner, uint64_t *cookies,
                            unsigned most)
{
    must(owner.slot < SLOTS);
    struct box *box = &g->boxes[owner.slot];
    unsigned taken = 0;
    for (uint32_t w = 0; w < countof(box->words); w++) {
        uint64_t chunks;
        while ((chunks = atomic_load(&box->words[w])) != 0) {
            uint32_t c = w * 64 + lowest(chunks);
            if (taken == most)
                return taken;
            /* A bit goes before what it stands for is looked at: who sets it later is seen later.
             */
            atomic_fetch_and(&box->words[w], ~bit(c));
            uint64_t bits;
            while ((bits = atomic_load(&box->granted[c])) != 0) {
                if (taken == most) {
                    atomic_fetch_or(&box->words[w], bit(c));
                    return taken;
                }
                uint32_t n = c * CHUNK + lowest(bits);
                atomic_fetch_and(&box->granted[c], ~bit(n));
                taken += granted_take(g, n, owner, &cookies[taken]);
            }
        }
    }
    return taken;
}

void gates_sweep(struct gates *g, struct gate_owner owner, int64_t now_ns, struct gate_wakes *wakes)
{
    uint32_t routes = atomic_load_explicit(&g->routes_n, memory_order_acquire);
    for (uint32_t i = 0; i < routes; i++) {
        struct route *r = &g->routes[i];
        route_lock(g, r);
        for (uint32_t n = 0; r->used > 0 && (n = ticket_next(g, r, n)) != 0;) {
            const struct ticket *t = &g->tickets[n];
            if (t->owner.slot == owner.slot && t->owner.generation <= owner.generation)
                ticket_end(g, r, n, false, now_ns);
            else if (state_of(t) == TICKET_GRANTED)
                notice(g, n); /* who was to wake its owner may be the one that died */
        }
        grant(g, r, now_ns);
        route_unlock(r);
    }
    wakes_take(g, wakes);
}

static void stats_locked(struct gates *g, struct route *r, struct gate_stats *out)
{
    *out = (struct gate_stats){
        .running = r->running,
        .waiting = r->waiting,
        .mean_held_ns = r->mean_ns,
        .entered = r->entered,
        .queued = r->queued,
        .full = r->full,
        .late = r->late,
        .left = r->left,
        .waited_ns = r->waited_ns,
        .flows = r->flows,
    };
    for (uint32_t n = 0; r->waiting > 0 && (n = ticket_next(g, r, n)) != 0;) {
        const struct ticket *t = &g->tickets[n];
        if (state_of(t) == TICKET_WAITING && (!out->head_ns || t->since_ns < out->head_ns))
            out->head_ns = t->since_ns;
    }
}

void gates_stats(struct gates *g, uint32_t route, struct gate_stats *out)
{
    struct route *r = route_of(g, route);
    route_lock(g, r);
    stats_locked(g, r, out);
    route_unlock(r);
}

bool gates_look(struct gates *g, const char *name, struct gate_stats *out)
{
    uint64_t hash[2];
    bool died;
    *out = (struct gate_stats){0};
    name_hash(name, hash);
    if (!robust_try_for(&g->names, LOOK_NS, &died))
        return false;
    struct route *r = route_find_locked(g, hash);
    robust_unlock(&g->names);
    if (!r)
        return true;
    if (!robust_try_for(&r->lock, LOOK_NS, &died))
        return false;
    if (died)
        route_repair(g, r);
    stats_locked(g, r, out);
    route_unlock(r);
    return true;
}

unsigned gates_flows(struct gates *g, uint32_t route, struct gate_flow *out, unsigned most)
{
    struct route *r = route_of(g, route);
    unsigned n = 0;
    route_lock(g, r);
    for (uint32_t c = r->chunk[KIND_FLOWS].first; c && most; c = g->chunks[c].of[KIND_FLOWS].next) {
        for (uint64_t used = g->chunks[c].of[KIND_FLOWS].used; used; used &= used - 1) {
            const struct flow *f = &g->flow[c * CHUNK + lowest(used)];
            struct gate_flow flow = {f->key, size_of(g, f->root)};
            if (n == most && out[n - 1].waiting >= flow.waiting)
                continue;
            unsigned at = n < most ? n++ : n - 1;
            for (; at > 0 && out[at - 1].waiting < flow.waiting; at--)
                out[at] = out[at - 1];
            out[at] = flow;
        }
    }
    route_unlock(r);
    return n;
}

unsigned gates_places(struct gates *g, uint32_t route, uint64_t flow, struct gate_place *out,
                      unsigned most)
{
    struct route *r = route_of(g, route);
    route_lock(g, r);
    uint32_t at = flow_find(g, r, flow), own = at ? size_of(g, g->flow[at].root) : 0;
    unsigned n = own < most ? own : most;
    for (uint32_t rank = 0; rank < n; rank++) {
        out[rank].position = position_of(r, rank, own);
        out[rank].expected_ns = expected_of(r, out[rank].position);
    }
    route_unlock(r);
    return n;
}

uint32_t gates_position(struct gates *g, uint32_t ticket, int64_t *expected_ns)
{
    *expected_ns = 0;
    struct route *r = route_lock_of(g, ticket);
    if (!r)
        return 0;
    const struct ticket *t = &g->tickets[ticket];
    uint32_t position = 0;
    if (state_of(t) == TICKET_WAITING) {
        const struct flow *f = &g->flow[t->flow];
        uint32_t rank = tree_rank(g, f, t->deadline_ns, t->seq);
        position = position_of(r, rank, size_of(g, f->root));
        *expected_ns = expected_of(r, position);
    }
    route_unlock(r);
    return position;
}
