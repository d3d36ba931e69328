/*
 * tokens: what verifying a token costs, and finding it in the cache. Called by bench/tokens/run.
 *
 * usage: bench_tokens verify|hit|miss|bad|key LIBRARY JWKS TOKEN ROUNDS     (JWKS and TOKEN are
 * files)
 *
 * Prints nanoseconds of the processor a round: verify a token anew; find it; look for one that is
 * not there; find one that failed; find an API key.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admit/api_keys.h"
#include "admit/token_cache.h"
#include "base/clock.h"
#include "base/must.h"

static const int64_t NOW_S = 1700000000;

static struct slice file(const char *path)
{
    static char bytes[2][JWT_JWKS_BYTES_MAX];
    static unsigned n_files;
    must(n_files < 2);
    char *to = bytes[n_files++];
    FILE *f = fopen(path, "rb");
    must(f);
    size_t n = fread(to, 1, JWT_JWKS_BYTES_MAX, f);
    fclose(f);
    return slice_of(to, n);
}

int main(int argc, char **argv)
{
    struct err e = {{0}};
    struct jwt_keys *keys = NULL;
    struct jwt_claims claims;
    struct token_cache_found found;
    struct api_key whose;
    if (argc != 6) {
        fputs("usage: bench_tokens verify|hit|miss|bad|key LIBRARY JWKS TOKEN ROUNDS\n", stderr);
        return 2;
    }
    const char *what = argv[1];
    long rounds = strtol(argv[5], NULL, 10);
    struct slice jwks = file(argv[3]), token = file(argv[4]);
    if (jwt_load(argv[2], &e) || jwt_keys_jwks(&keys, jwks, 0, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const struct policy_identifier rules = {.issuer = "", .user_claim = "sub"};
    must(jwt_verify(keys, &rules, token, NOW_S, &claims) == JWT_OK);
    struct token_cache *cache = token_cache_new(10000, 16U << 20);
    must(cache);
    const struct token_cache_key key = {.token = token, .generation = 1};
    /* A full table, as far as it matters: chains, and a cache line that is not warm by chance. */
    for (unsigned i = 0; i < 5000; i++) {
        char other[64];
        snprintf(other, sizeof other, "%u.%u.%u", i, i * 7, i * 2654435761U);
        token_cache_put(cache, &(struct token_cache_key){slice_str(other), 1, 0}, &claims,
                        SLICE("pro"), 30, NOW_S);
    }
    if (strcmp(what, "hit") == 0)
        token_cache_put(cache, &key, &claims, SLICE("pro"), 30, NOW_S);
    if (strcmp(what, "bad") == 0)
        token_cache_put_bad(cache, &key, JWT_BAD_SIGNATURE, NOW_S);
    jwt_claims_fini(&claims);
    struct api_keys *api;
    must(api_keys_parse(&api, "",
                        SLICE("ada 0123456789abcdef0123456789abcdef0123456789abcdef pro\n"),
                        &e) == 0);

    int64_t from_ns = clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
    if (strcmp(what, "verify") == 0) {
        for (long i = 0; i < rounds; i++) {
            must(jwt_verify(keys, &rules, token, NOW_S, &claims) == JWT_OK);
            jwt_claims_fini(&claims);
        }
    } else if (strcmp(what, "key") == 0) {
        for (long i = 0; i < rounds; i++)
            must(api_keys_find(api, SLICE("0123456789abcdef0123456789abcdef0123456789abcdef"),
                               &whose));
    } else {
        bool expected = strcmp(what, "miss") != 0;
        for (long i = 0; i < rounds; i++)
            must(token_cache_find(cache, &key, NOW_S, &found) == expected);
    }
    int64_t ns = clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) - from_ns;
    if (rounds)
        printf("%.0f\n", (double)ns / (double)rounds);
    api_keys_free(&api);
    token_cache_free(&cache);
    jwt_keys_free(&keys);
    return 0;
}
