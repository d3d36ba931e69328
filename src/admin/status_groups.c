/* status_groups: counts by route, reason and user, in a table of fixed size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status_private.h"

/* Places that are looked at for one group. */
#define PROBES 64

int groups_init(struct groups *g, uint32_t size)
{
    g->size = size;
    return (g->all = calloc(size, sizeof *g->all)) ? 0 : -ENOMEM;
}

void groups_fini(struct groups *g)
{
    free(g->all);
    *g = (struct groups){0};
}

/* FNV-1a, 64 bits. Who chooses his name so that it falls together with others finds no place. */
static uint64_t hash_of(const char *who, unsigned route, unsigned reason)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *who; who++)
        h = (h ^ (unsigned char)*who) * 0x100000001b3u;
    h = (h ^ route) * 0x100000001b3u;
    h = (h ^ reason) * 0x100000001b3u;
    h ^= h >> 32;
    return h ? h : 1;
}

static bool is_of(const struct group *x, const struct flight *f, unsigned reason)
{
    return x->route == f->route && x->reason == reason && strcmp(x->user, f->user) == 0 &&
           (*f->user || strcmp(x->address, f->address) == 0);
}

void groups_add(struct groups *g, const struct flight *f, unsigned reason, int64_t at_ns)
{
    uint64_t hash = hash_of(*f->user ? f->user : f->address, f->route, reason);
    for (uint32_t i = 0; i < PROBES; i++) {
        struct group *x = &g->all[(hash + i) & (g->size - 1)];
        if (!x->hash) {
            *x = (struct group){.hash = hash, .route = f->route, .reason = (uint8_t)reason};
            memcpy(x->user, f->user, sizeof x->user);
        } else if (x->hash != hash || !is_of(x, f, reason)) {
            continue;
        }
        x->n++;
        if (at_ns >= x->last_ns) {
            x->last_ns = at_ns;
            memcpy(x->address, f->address, sizeof x->address);
        }
        return;
    }
}

unsigned groups_largest(const struct groups *g, const struct group **out, unsigned most)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < g->size; i++) {
        const struct group *x = &g->all[i];
        if (!x->hash || (n == most && out[n - 1]->n >= x->n))
            continue;
        unsigned at = n < most ? n++ : n - 1;
        for (; at > 0 && out[at - 1]->n < x->n; at--)
            out[at] = out[at - 1];
        out[at] = x;
    }
    return n;
}
