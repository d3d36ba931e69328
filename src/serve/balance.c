/* balance: see the header. */
#include "serve/balance.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"

/* For so long a connection is left to one that has fewer of them … */
static const unsigned FEWER_MS = 20;
/* … and for so long to one that has a free place, when we have none. */
static const unsigned PLACE_MS = 100;
/* For so long one without a place looks whether others have one. */
static const unsigned LOOKS_MS = 5;
/* A held worker leaves nothing to one that has been silent for so long: beats are at most 5 s apart
 * (serve/worker.c). */
static const int64_t SILENT_NS = INT64_C(6000000000);
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

static unsigned slots_of(const struct balance *b)
{
    unsigned top = get(&b->board->top);
    return top < b->board->n_slots ? top : b->board->n_slots;
}

static bool is_held(const struct scoreboard_slot *s)
{
    return atomic_load_explicit(&s->held, memory_order_relaxed) != 0;
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
    if (slot == b->own || is_held(s) ||
        atomic_load_explicit(&s->state, memory_order_relaxed) != WORKER_READY)
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

/* Is another worker to be expected with a free place? One that runs short requests has none in the very moment, so that
 * several looks decide; what one of them has seen holds for as long as the connection waits. */
static bool others_have_place(struct balance *b, unsigned held_ms)
{
    if (held_ms == 0)
        b->place_seen = false;
    bool others = false;
    for (unsigned i = 0, n = slots_of(b); i < n && !b->place_seen; i++) {
        if (!listens(b, i))
            continue;
        others = true;
        b->place_seen = has_place(&b->board->slots[i]);
    }
    return b->place_seen || (others && held_ms < LOOKS_MS);
}

/* Does another one than this held worker take connections? */
static bool others_take(struct balance *b)
{
    int64_t since_ns = clock_mono_ns() - SILENT_NS;
    for (unsigned i = 0, n = slots_of(b); i < n; i++) {
        const struct scoreboard_slot *s = &b->board->slots[i];
        if (listens(b, i) && atomic_load_explicit(&s->beat_ns, memory_order_relaxed) > since_ns)
            return true;
    }
    return false;
}

unsigned balance_hold(struct balance *b, unsigned held_ms)
{
    const struct scoreboard_slot *own = &b->board->slots[b->own];
    bool own_place = has_place(own);
    if (is_held(own) && others_take(b))
        return PAUSE_MS_MAX;
    /* Nothing could run here before the replacement is there: let it wait in the kernel, for that one. */
    if (!own_place && atomic_load_explicit(&own->recycle, memory_order_relaxed) == RECYCLE_STUCK)
        return PAUSE_MS_MAX;
    bool other_place = !own_place && others_have_place(b, held_ms);
    unsigned limit_ms = other_place ? PLACE_MS : FEWER_MS;
    bool better = false;
    for (unsigned i = 0, n = slots_of(b); i < n; i++) {
        const struct scoreboard_slot *s = &b->board->slots[i];
        if (!listens(b, i))
            continue;
        bool first = other_place || has_fewer(b, s);
        if (own_place && held_ms > 0) /* the same, from the other side: was it a short request? */
            first = first && has_place(s);
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
