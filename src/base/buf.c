/* buf: growth by doubling, so that appending n bytes costs O(n). */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/must.h"

/* The smallest block: a typical response head with a short body. */
static const size_t BUF_BYTES_MIN = 512;

int buf_reserve_slow(struct buf *b, size_t more)
{
    size_t max = b->max ? b->max : SIZE_MAX / 2;
    if (more > max || b->n > max - more)
        return -EMSGSIZE;
    size_t want = b->n + more;
    if (want <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : BUF_BYTES_MIN;
    while (cap < want)
        cap *= 2;
    /* Never more than the ceiling, so that buf_reserve need not look at it. */
    if (cap > max)
        cap = max;
    char *p = realloc(b->p, cap);
    if (!p)
        return -ENOMEM;
    b->p = p;
    b->cap = cap;
    return 0;
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    must(n >= 0);
    int rc = buf_reserve(b, (size_t)n + 1);
    if (rc)
        return rc;
    va_start(args, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, args);
    va_end(args);
    b->n += (size_t)n;
    return 0;
}

void buf_drop(struct buf *b, size_t n)
{
    must(n <= b->n);
    b->n -= n;
    if (b->n && n)
        memmove(b->p, b->p + n, b->n);
}

void buf_clear(struct buf *b, size_t keep_bytes)
{
    b->n = 0;
    if (b->cap > keep_bytes)
        buf_fini(b);
}

void buf_fini(struct buf *b)
{
    free(b->p);
    b->p = NULL;
    b->n = b->cap = 0;
}
