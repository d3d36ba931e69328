/*
 * fuzz_api_keys: any bytes as a file of NAME KEY [TIER] lines.
 *
 * Oracles: an error says why; names and tiers are within their bounds and visible; written again
 * with other keys, each name and tier is found by its key.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "admit/api_keys.h"
#include "base/buf.h"
#include "base/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(struct slice s, size_t most)
{
    must(s.n <= most && s.p[s.n] == '\0');
    for (size_t i = 0; i < s.n; i++)
        must(s.p[i] > ' ' && s.p[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_keys *k, *twin;
    struct err e = {{0}};
    struct buf again = {0};
    struct api_key found;
    char key[32];
    if (api_keys_parse(&k, "file", slice_of((const char *)data, size), &e)) {
        must(!k && e.text[0]);
        return 0;
    }
    unsigned n = api_keys_count(k);
    must(n >= 1 && n <= API_KEYS_MAX);
    for (unsigned i = 0; i < n; i++) {
        struct api_key one = api_keys_at(k, i);
        look_at(one.name, API_KEY_NAME_BYTES_MAX);
        look_at(one.tier, API_KEY_TIER_BYTES_MAX);
        must(one.name.n && *one.name.p != '#' && *one.tier.p != '#');
        must(buf_addf(&again, "%s key-%016u %s\n", one.name.p, i, one.tier.p) == 0);
    }
    must(api_keys_parse(&twin, "again", buf_slice(&again), &e) == 0);
    must(api_keys_count(twin) == n);
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "key-%016u", i);
        must(api_keys_find(twin, slice_str(key), &found));
        must(slice_eq(found.name, api_keys_at(k, i).name) &&
             slice_eq(found.tier, api_keys_at(k, i).tier));
    }
    buf_fini(&again);
    api_keys_free(&twin);
    api_keys_free(&k);
    return 0;
}
