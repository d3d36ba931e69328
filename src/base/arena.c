/* arena: blocks of doubling size; one is kept over resets. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
/* The first block holds the small head of a program with its fields. */
static const size_t ARENA_BYTES_MIN = 1024;
static const size_t ARENA_BYTES_STEP_MAX = 64 * 1024;
/* The newest block is the one that is kept if it is no larger than this: heads of browsers (about
 * 1 KiB, and their fields) then need no second block the next time. */
static const size_t ARENA_BYTES_KEPT = 4096;

struct arena_block {
    struct arena_block *older;
    size_t bytes; /* of the payload */
    _Alignas(16) char payload[];
};

void *arena_alloc_slow(struct arena *a, size_t n)
{
    if (n > SIZE_MAX / 4)
        return NULL;
    size_t want = (n + 15) & ~(size_t)15;
    size_t bytes = a->blocks ? a->blocks->bytes * 2 : ARENA_BYTES_MIN;
    if (bytes > ARENA_BYTES_STEP_MAX)
        bytes = ARENA_BYTES_STEP_MAX;
    if (bytes < want)
        bytes = want;
    if (a->max && bytes > a->max - a->bytes) {
        bytes = want;
        if (bytes > a->max - a->bytes)
            return NULL;
    }
    struct arena_block *b = malloc(sizeof *b + bytes);
    if (!b)
        return NULL;
    b->older = a->blocks;
    b->bytes = bytes;
    a->blocks = b;
    a->bytes += bytes;
    a->next = b->payload + want;
    a->end = b->payload + bytes;
    return b->payload;
}

struct slice arena_copy(struct arena *a, struct slice s)
{
    char *p = s.n ? arena_alloc(a, s.n) : NULL;
    if (p)
        memcpy(p, s.p, s.n);
    return slice_of(p, p ? s.n : 0);
}

void arena_reset(struct arena *a)
{
    struct arena_block *b = a->blocks;
    if (!b)
        return;
    struct arena_block *older = b->older;
    while (WEIR_UNLIKELY(older != NULL)) {
        bool keep_newer = b->bytes <= ARENA_BYTES_KEPT && b->bytes > older->bytes;
        struct arena_block *rest = older->older;
        free(keep_newer ? older : b);
        b = keep_newer ? b : older;
        older = rest;
    }
    b->older = NULL;
    a->blocks = b;
    if (b->bytes > ARENA_BYTES_STEP_MAX) {
        arena_fini(a);
        return;
    }
    a->bytes = b->bytes;
    a->next = b->payload;
    a->end = b->payload + b->bytes;
#ifdef ARENA_ASAN
    /* Stale pointers into a finished request show up at their next use. */
    free(b);
    *a = (struct arena){.max = a->max};
#endif
}

void arena_fini(struct arena *a)
{
    for (struct arena_block *b = a->blocks; b;) {
        struct arena_block *older = b->older;
        free(b);
        b = older;
    }
    *a = (struct arena){.max = a->max};
}
