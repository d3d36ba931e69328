/*
 * fuzz_json_read: any bytes as JSON.
 *
 * Beyond "no crash": what is whole is walked to its end, in pieces that lie inside it and are whole
 * themselves; a string that is taken can be read.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_read.h"
#include "base/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(struct slice value)
{
    struct json_walk w = json_walk(value);
    struct slice key, inner;
    char bracket = w.close;
    while (json_next(&w, &key, &inner)) {
        must(inner.p >= value.p && inner.p + inner.n <= value.p + value.n && json_whole(inner));
        must((bracket == '}') == (key.n > 0));
        walk(inner);
    }
    must(!bracket || !w.rest.n); /* it has ended with its bracket, and not with an error */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of((const char *)data, size), value;
    struct buf out = {0};
    int64_t number;
    bool whole = json_whole(text);
    struct slice rest = text;
    bool taken = json_take(&rest, &value);
    must(!whole || taken);
    if (taken) {
        walk(value);
        (void)!json_to_integer(value, &number);
        int rc = json_unescape(value, &out);
        must(rc == (*value.p == '"' ? 0 : -EINVAL) && out.n <= value.n);
    }
    (void)json_member(text, "thread", &value);
    (void)!json_unescape(text, &out);
    buf_fini(&out);
    return 0;
}
