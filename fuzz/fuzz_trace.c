/*
 * fuzz_trace: any bytes as a traceparent and as an X-Request-Id.
 *
 * Oracles: what is taken has ids that are not zero; written again with its parent it is the first
 * 55 bytes of what came, but for the version and the flags that nobody knows; and what we write is
 * taken and means the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "obs/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static void look_at_parent(struct slice s)
{
    static struct trace_source source = {.s = {1, 2, 3, 4}};
    static const struct trace_context nothing;
    struct trace_context t, again;
    char out[TRACE_PARENT_BYTES];
    if (!trace_parse(&t, s)) {
        must(memcmp(&t, &nothing, sizeof t) == 0);
        return;
    }
    must(s.n >= TRACE_PARENT_BYTES && !is_zero(t.trace_id, 16) && !is_zero(t.parent_id, 8));
    must(is_zero(t.span_id, 8) && memcmp(s.p, "ff", 2) != 0);
    must(s.n == TRACE_PARENT_BYTES ||
         (memcmp(s.p, "00", 2) != 0 && s.p[TRACE_PARENT_BYTES] == '-'));
    trace_pass(&t);
    trace_write(out, &t);
    must(memcmp(out + 2, s.p + 2, TRACE_PARENT_BYTES - 4) == 0);
    trace_span(&t, &source);
    trace_write(out, &t);
    must(trace_parse(&again, slice_of(out, sizeof out)));
    must(again.sampled == t.sampled && memcmp(again.trace_id, t.trace_id, 16) == 0 &&
         memcmp(again.parent_id, t.span_id, 8) == 0);
}

static void look_at_id(struct slice s)
{
    if (!request_id_is_good(s))
        return;
    must(s.n >= 1 && s.n <= REQUEST_ID_BYTES_MAX);
    for (size_t i = 0; i < s.n; i++)
        must(s.p[i] > ' ' && s.p[i] < 0x7f && !strchr("\"\\,;<>%", s.p[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size ? size : 1); /* of its exact length */
    must(text);
    if (size)
        memcpy(text, data, size);
    look_at_parent(slice_of(text, size));
    look_at_id(slice_of(text, size));
    free(text);
    return 0;
}
