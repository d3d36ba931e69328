/*
 * fuzz_chunked: any bytes as a chunked body.
 *
 * Beyond "no crash": content lies inside the input; it is the same whole, byte by byte and cut
 * once; every call moves on or asks for more; the sum of content is what a second, much simpler
 * reading of the sizes says; and content put into one chunk decodes to itself.
 *
 * The first byte of the input says where the body is cut.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/must.h"
#include "http/h1_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    enum h1_verdict v;
    struct h1_error error;
    struct buf content;
    size_t used;
};

static void decode(const char *p, size_t n, size_t first, size_t step, struct result *r)
{
    struct h1_chunked c = {0};
    *r = (struct result){.v = H1_MORE};
    for (size_t have = first;; have = n - have < step ? n : have + step) {
        size_t len = have - r->used, at = 0;
        char *copy = malloc(len + 1);
        must(copy);
        memcpy(copy, p + r->used, len);
        for (;;) {
            size_t used = SIZE_MAX;
            struct slice run = {0};
            r->v = h1_chunked(&c, copy + at, len - at, &used, &run, &r->error);
            must(used <= len - at);
            if (r->v != H1_BAD && run.n) {
                must(run.p >= copy + at && run.p + run.n <= copy + at + used);
                must(buf_add_slice(&r->content, run) == 0);
            }
            at += used;
            if (r->v != H1_MORE || (at == len && run.n == 0))
                break;
            must(used > 0); /* else it would ask forever */
        }
        free(copy);
        r->used += at;
        if (r->v != H1_MORE || have == n)
            return;
    }
}

/* Content of an accepted body, by the sizes alone. */
static void must_add_up(const char *p, const struct result *r)
{
    size_t at = 0, sum = 0;
    for (;;) {
        char *end;
        unsigned long long size = strtoull(p + at, &end, 16);
        const char *lf = memchr(p + at, '\n', r->used - at);
        must(lf);
        at = (size_t)(lf - p) + 1;
        if (size == 0)
            break;
        must(size <= r->used - at && sum + size <= r->content.n);
        must(memcmp(r->content.p + sum, p + at, size) == 0);
        sum += size;
        at += size;
        must(p[at] == '\r' && p[at + 1] == '\n');
        at += 2;
    }
    must(sum == r->content.n);
    must(memcmp(p + r->used - 2, "\r\n", 2) == 0);
}

static void must_be_same(const struct result *a, const struct result *b)
{
    must(a->v == b->v && a->used == b->used);
    if (a->v == H1_BAD)
        must(a->error.status == b->error.status && a->error.reason == b->error.reason);
    must(slice_eq(buf_slice(&a->content), buf_slice(&b->content)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole, pieces;
    if (size < 1 || size > 65536)
        return 0;
    char *p = malloc(size); /* with a NUL, for strtoull */
    size_t n = size - 1;
    must(p);
    memcpy(p, data + 1, n);
    p[n] = '\0';

    decode(p, n, n, 1, &whole);
    if (n <= 2048) {
        decode(p, n, 0, 1, &pieces);
        must_be_same(&whole, &pieces);
        buf_fini(&pieces.content);
    }
    decode(p, n, n * data[0] / 256, n + 1, &pieces);
    must_be_same(&whole, &pieces);
    buf_fini(&pieces.content);
    if (whole.v == H1_DONE)
        must_add_up(p, &whole);

    struct buf again = {0};
    if (whole.content.n)
        must(buf_addf(&again, "%zx\r\n", whole.content.n) == 0);
    must(buf_add_slice(&again, buf_slice(&whole.content)) == 0);
    must(buf_addf(&again, "%s0\r\n\r\n", whole.content.n ? "\r\n" : "") == 0);
    decode(again.p, again.n, again.n, 1, &pieces);
    must(pieces.v == H1_DONE && pieces.used == again.n);
    must(slice_eq(buf_slice(&pieces.content), buf_slice(&whole.content)));
    buf_fini(&pieces.content);
    buf_fini(&again);
    buf_fini(&whole.content);
    free(p);
    return 0;
}
