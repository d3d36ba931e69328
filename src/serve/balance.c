/* balance: see the header. */
#include "serve/balance.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

/* For so long a connection is left to one that has fewer of them … */
static const unsigned FEWER_MS = 20;
/* … and for so long to one that has a free place, when we have none. */
static const unsigned PLACE_MS = 100;
/* Pauses between two looks: as long as it has been left already, within these. */
static const unsigned PAUSE_MS_MIN = 1;
static const unsigned PAUSE_MS_MAX = 5;

int balance_init(struct balance *b, const struct scoreboard *board, unsigned own)
{
    *b = (struct balance){.board = board, .own = own};
    b->deaf = calloc(board->n_slots, sizeof *b->deaf);
    return b->deaf ? 0 : -ENOMEM;
}

void balance_fini(struct balance *b)
{
    free(b->deaf);
    b->deaf = NULL;
}

static uint32_t get(const _Atomic uint32_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static bool has_place(const struct scoreboard_slot *s)
{
    return (uint64_t)get(&s->busy) + get(&s->waiting) < get(&s->places);
}

/* May this worker be expected to take a connection? */
static bool listens(struct balance *b, unsigned slot)
{
    const struct scoreboard_slot *s = &b->board->slots[slot];
    struct balance_deaf *d = &b->deaf[slot];
    if (slot == b->own || atomic_load_explicit(&s->state, memory_order_relaxed) != WORKER_READY)
        return false;
    if (!d->beat_ns)
        return true;
    if (d->beat_ns == atomic_load_explicit(&s->beat_ns, memory_order_relaxed) &&
        d->connections == atomic_load_explicit(&s->counters.connections, memory_order_relaxed))
        return false;
    d->beat_ns = 0;
    return true;
}

/* Has it clearly fewer connections than we have? */
static bool has_fewer(const struct balance *b, const struct scoreboard_slot *s)
{
    uint32_t open = get(&s->open), slack = open / 8 > 1 ? open / 8 : 1;
    return get(&b->board->slots[b->own].open) > open + slack;
}

unsigned balance_hold(struct balance *b, unsigned held_ms)
{
    bool own_place = has_place(&b->board->slots[b->own]), other_place = false;
    for (unsigned i = 0; i < b->board->n_slots && !own_place && !other_place; i++)
        other_place = listens(b, i) && has_place(&b->board->slots[i]);
    unsigned limit_ms = other_place ? PLACE_MS : FEWER_MS;
    bool better = false;
    for (unsigned i = 0; i < b->board->n_slots; i++) {
        const struct scoreboard_slot *s = &b->board->slots[i];
        if (!listens(b, i))
            continue;
        bool first;
        if (other_place)
            first = has_place(s);
        else if (own_place)
            /* One without a place may just be in the middle of a short request: look twice. */
            first = has_fewer(b, s) && (held_ms == 0 || has_place(s));
        else
            first = has_fewer(b, s);
        if (first && held_ms >= limit_ms)
            b->deaf[i] = (struct balance_deaf){
                .beat_ns = atomic_load_explicit(&s->beat_ns, memory_order_relaxed),
                .connections = atomic_load_explicit(&s->counters.connections, memory_order_relaxed)};
        better |= first;
    }
    if (!better || held_ms >= limit_ms)
        return 0;
    return held_ms < PAUSE_MS_MIN ? PAUSE_MS_MIN : held_ms < PAUSE_MS_MAX ? held_ms : PAUSE_MS_MAX;
}
