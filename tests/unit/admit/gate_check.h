/* gate_check: gate.c itself, and a look at all of a route: does everything fit together? */
#ifndef WEIR_TESTS_GATE_CHECK_H
#define WEIR_TESTS_GATE_CHECK_H

#include "admit/gate.c"

/* Order, parents, sizes and priorities below `n`; how many are there. */
static uint32_t check_tree(struct gates *g, uint32_t flow, uint32_t n, uint32_t parent)
{
    if (!n)
        return 0;
    const struct ticket *t = &g->tickets[n];
    must(t->parent == parent && t->flow == flow && t->key == g->flow[flow].key);
    must(state_of(t) == TICKET_WAITING);
    must(!parent || tree_priority(&g->tickets[parent]) >= tree_priority(t));
    must(!t->left || before(&g->tickets[t->left], t->deadline_ns, t->seq));
    must(!t->right || before(t, g->tickets[t->right].deadline_ns, g->tickets[t->right].seq));
    uint32_t size = 1 + check_tree(g, flow, t->left, n) + check_tree(g, flow, t->right, n);
    must(size == t->size);
    return size;
}

/* The caller has the lock, or is alone. */
static void check_locked(struct gates *g, struct route *r)
{
    uint32_t states[TICKET_HELD + 1] = {0}, used = 0, chunks = 0, flows = 0, waiting = 0;
    for (uint32_t c = 1; c < CHUNKS; c++) {
        if (!is_of(g, c, r))
            continue;
        chunks++;
        for (uint32_t i = 0; i < CHUNK; i++) {
            enum ticket_state state = state_of(&g->tickets[c * CHUNK + i]);
            must((state != TICKET_FREE) == ((g->chunks[c].of[KIND_TICKETS].used & bit(i)) != 0));
            states[state]++;
        }
        used += (uint32_t)__builtin_popcountll(g->chunks[c].of[KIND_TICKETS].used);
        flows += (uint32_t)__builtin_popcountll(g->chunks[c].of[KIND_FLOWS].used);
    }
    must(used == r->used && chunks == r->chunks && flows == r->flows);
    must(states[TICKET_WAITING] == r->waiting);
    must(states[TICKET_GRANTED] + states[TICKET_HELD] == r->running);
    must(used || chunks <= 1);
    for (enum kind k = KIND_TICKETS; k < KINDS; k++) {
        uint32_t n = 0, last = 0;
        bool full = false;
        for (uint32_t c = r->chunk[k].first; c; last = c, c = g->chunks[c].of[k].next, n++) {
            must(is_of(g, c, r) && g->chunks[c].of[k].prev == last);
            bool is_full = g->chunks[c].of[k].used == UINT64_MAX;
            must(is_full || !full); /* those with room come first */
            full = is_full;
        }
        must(n == chunks && r->chunk[k].last == last);
    }
    uint32_t deep[DEPTHS] = {0}, turns = 0, chained = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        must((r->calendar[i].first != 0) == ((r->rounds & bit(i)) != 0));
        for (uint32_t at = r->calendar[i].first, last = 0; at; at = g->flow[at].next, turns++) {
            struct flow *f = &g->flow[at];
            must(f->prev == last && (f->next || r->calendar[i].last == at));
            last = at;
            must(f->due % ROUNDS == i && f->due >= r->round && f->due < r->round + ROUNDS);
            must(f->due == flow_due(g, r, f) && flow_find(g, r, f->key) == at);
            uint32_t size = check_tree(g, at, f->root, 0);
            must(size > 0);
            waiting += size;
            for (uint32_t d = 0; d < size && d < DEPTHS; d++)
                deep[d]++;
        }
    }
    for (unsigned b = 0; b < BUCKETS; b++)
        for (uint32_t at = g->buckets[number_of(g, r)][b]; at; at = g->flow[at].chain)
            chained++;
    must(turns == flows && chained == flows && waiting == r->waiting);
    must(memcmp(deep, r->deep, sizeof deep) == 0);
}

static inline void check_route(struct gates *g, uint32_t route)
{
    struct route *r = route_of(g, route);
    route_lock(g, r);
    check_locked(g, r);
    route_unlock(r);
}

/* Jain's index of fairness: 1 = all have the same. */
static inline double jain(const unsigned *x, unsigned n)
{
    double sum = 0, squares = 0;
    for (unsigned i = 0; i < n; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
    }
    return squares > 0 ? sum * sum / (n * squares) : 1;
}

#endif
