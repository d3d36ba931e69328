/*
 * fuzz_keeper_wire: any bytes as a packet to the keeper, and from it.
 *
 * Beyond "no crash": what is accepted points into the packet, and written anew it is the same bytes
 * but for what no reader looks at.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "store/keeper_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(struct slice s, const uint8_t *data, size_t size)
{
    return !s.n || ((const uint8_t *)s.p >= data && (const uint8_t *)s.p + s.n <= data + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keeper_said a, b;
    struct keeper_told t;
    if (keeper_wire_told(data, size, &t))
        must(t.error <= 0 && t.n_rows <= KEEPER_ROWS_MAX &&
             (t.kind != KEEPER_USED ||
              (const uint8_t *)t.rows + t.n_rows * sizeof(struct quota_row) == data + size));
    if (!keeper_wire_said(data, size, &a))
        return 0;
    must(size <= KEEPER_ASK_BYTES_MAX && a.kind < KEEPER_ANSWER);
    must(inside(a.cookie, data, size) && inside(a.user, data, size) && inside(a.route, data, size));
    unsigned char *again = malloc(KEEPER_ASK_BYTES_MAX);
    must(again);
    size_t n = keeper_wire_say(&a, again);
    must(n == size && keeper_wire_said(again, n, &b));
    must(a.kind == b.kind && a.question == b.question && slice_eq(a.user, b.user) &&
         slice_eq(a.route, b.route) && memcmp(&a.op, &b.op, sizeof a.op) == 0 &&
         a.limits.day == b.limits.day && a.limits.month == b.limits.month && a.slot == b.slot &&
         a.identifier == b.identifier);
    free(again);
    return 0;
}
