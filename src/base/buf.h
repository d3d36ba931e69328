/*
 * buf: growable bytes with a ceiling.
 *
 * Owner:   whoever holds the struct owns the memory; buf_fini gives it back.
 * Errors:  0 or -ENOMEM; -EMSGSIZE when the ceiling would be passed.
 * Threads: none inside.
 */
#ifndef WEIR_BASE_BUF_H
#define WEIR_BASE_BUF_H

#include <stdint.h>
#include <string.h>

#include "base/attr.h"
#include "base/slice.h"

struct buf {
    char *p;    /* owned; NULL while cap == 0 */
    size_t n;   /* bytes in use */
    size_t cap; /* bytes allocated */
    size_t max; /* ceiling of n; 0 = SIZE_MAX / 2 */
};

/* Make room for `more` bytes behind the ones in use. */
WEIR_MUST_USE int buf_reserve_slow(struct buf *b, size_t more);

WEIR_MUST_USE static inline int buf_reserve(struct buf *b, size_t more)
{
    return WEIR_LIKELY(b->cap - b->n >= more) ? 0 : buf_reserve_slow(b, more);
}

WEIR_MUST_USE static inline int buf_add(struct buf *b, const void *p, size_t n)
{
    int rc = buf_reserve(b, n);
    if (rc)
        return rc;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

WEIR_MUST_USE static inline int buf_add_slice(struct buf *b, struct slice s)
{
    return buf_add(b, s.p, s.n);
}

/* Takes one byte more than the text for its NUL, also from the ceiling. */
WEIR_MUST_USE int buf_addf(struct buf *b, const char *fmt, ...) WEIR_PRINTF(2, 3);

/* Drop the first `n` bytes (n <= b->n). */
void buf_drop(struct buf *b, size_t n);

/* Forget the bytes but keep the memory, unless it is more than `keep_bytes`. */
void buf_clear(struct buf *b, size_t keep_bytes);

void buf_fini(struct buf *b);

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->p, b->n);
}

#endif
