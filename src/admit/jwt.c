/* jwt: the words of verdicts, and the loader of _jwt.so. See the header. */
#include "admit/jwt.h"

#include <stdlib.h>

#include "base/must.h"
#include "conf/version.h"

static const struct jwt_lib *lib; /* lent by the loaded object, which stays */

int jwt_load(const char *path, struct err *e)
{
    static const struct library JWT = {
        .what = "JWT",
        .file = "_jwt.so",
        .symbol = JWT_LIB_SYMBOL,
        .cure = "install jansson and OpenSSL 3 (Debian: libjansson4, libssl3), and Weir from a "
                "build with OpenSSL",
        .head = {WEIR_VERSION, sizeof(struct policy_identifier)},
    };
    const void *table;
    if (lib)
        return 0;
    if (library_load(&table, &JWT, path, e))
        return -1;
    lib = table;
    return 0;
}

/* ---- keys ---- */

int jwt_keys_secret(struct jwt_keys **out, struct slice secret, struct err *e)
{
    *out = NULL;
    return jwt_load(NULL, e) ? -1 : lib->keys_secret(out, secret, e);
}

int jwt_keys_jwks(struct jwt_keys **out, struct slice json, unsigned algorithms, struct err *e)
{
    *out = NULL;
    return jwt_load(NULL, e) ? -1 : lib->keys_jwks(out, json, algorithms, e);
}

void jwt_keys_free(struct jwt_keys **k)
{
    if (*k)
        lib->keys_free(k);
}

unsigned jwt_keys_count(const struct jwt_keys *k)
{
    return lib->keys_count(k);
}

/* ---- verdicts ---- */

const char *jwt_word(enum jwt_verdict v)
{
    static const char *const WORDS[] = {
#define JWT_VERDICT(id, word, description) [JWT_##id] = (word),
#include "admit/jwt_verdicts.def"
#undef JWT_VERDICT
    };
    must(v < JWT_VERDICTS);
    return WORDS[v];
}

const char *jwt_description(enum jwt_verdict v)
{
    static const char *const DESCRIPTIONS[] = {
#define JWT_VERDICT(id, word, description) [JWT_##id] = (description),
#include "admit/jwt_verdicts.def"
#undef JWT_VERDICT
    };
    must(v < JWT_VERDICTS);
    return DESCRIPTIONS[v];
}

/* ---- tokens ---- */

void jwt_claims_fini(struct jwt_claims *c)
{
    free((char *)(uintptr_t)c->user.p);
    free((char *)(uintptr_t)c->json.p);
    *c = (struct jwt_claims){0};
}

enum jwt_verdict jwt_verify(const struct jwt_keys *keys, const struct policy_identifier *rules,
                            struct slice token, int64_t now_s, struct jwt_claims *out)
{
    return lib->verify(keys, rules, token, now_s, out);
}

bool jwt_claim_text(struct slice claims_json, const char *path, char *to, size_t n)
{
    must(lib);
    return lib->claim_text(claims_json, path, to, n);
}
