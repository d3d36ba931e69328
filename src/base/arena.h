/*
 * arena: many allocations, one lifetime, one release.
 *
 * Owner:   what arena_alloc returns belongs to the arena and goes with it.
 * Errors:  NULL when memory or the ceiling is exhausted.
 * Threads: none inside.
 */
#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* owned; the newest first */
    char *next;                 /* free space of the newest block */
    char *end;                  /* its end */
    size_t bytes;               /* allocated in blocks, to hold against max */
    size_t max;                 /* ceiling of `bytes`; 0 = none */
};

WEIR_MUST_USE void *arena_alloc_slow(struct arena *a, size_t n);

/* `n` (>= 1) bytes aligned for any object of up to 16 bytes' alignment, not zeroed. */
WEIR_MUST_USE static inline void *arena_alloc(struct arena *a, size_t n)
{
    size_t want = (n + 15) & ~(size_t)15;
    if (WEIR_UNLIKELY(want < n || (size_t)(a->end - a->next) < want))
        return arena_alloc_slow(a, n);
    void *p = a->next;
    a->next += want;
    return p;
}

/* A copy of `s`; .p is NULL when memory is exhausted (and s.n > 0). */
struct slice arena_copy(struct arena *a, struct slice s);

/* Drop all allocations but keep one block for the next use: the largest of ordinary size, or the
 * oldest, unless one huge allocation made that larger than 64 KiB. */
void arena_reset(struct arena *a);

void arena_fini(struct arena *a);

#endif
