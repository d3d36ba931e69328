/*
 * fuzz_jwt: any bytes as a token, as the header or the claims of a token that is signed, and as a
 * JWK set. The first byte says as which.
 *
 * Oracles: bytes that verify under keys that the fuzzer does not have are one of the two good
 * tokens, bit for bit; what is given out is as the header promises; a set that is accepted has
 * keys, and verifying with them ends.
 */
#include <openssl/hmac.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admit/jwt.h"
#include "base/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* RFC 7515 appendices A.1 and A.3, keys and tokens. */
#define PAYLOAD                                                                                    \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"
static const char HS256[] = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." PAYLOAD
                            ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
static const char ES256[] =
    "eyJhbGciOiJFUzI1NiJ9." PAYLOAD
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
static const char JWKS[] =
    "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-"
    "1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"},"
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":"
    "\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";
static const char SECRET[] = "0123456789abcdef0123456789abcdef";
static const char *const AUDIENCES[] = {"us"};
static const int64_t NOW_S = 1300819379;

static struct jwt_keys *g_good, *g_own;
static struct policy_identifier g_rules = {.issuer = "", .user_claim = "iss"};

static void prepare(void)
{
    struct err e;
    if (g_good)
        return;
    must(weir_jwt_lib.keys_jwks(&g_good, slice_str(JWKS), 0, &e) == 0);
    must(weir_jwt_lib.keys_secret(&g_own, slice_str(SECRET), &e) == 0);
}

/* Returns whether it verifies. */
static bool verify(const struct jwt_keys *keys, const struct policy_identifier *rules,
                   struct slice token)
{
    struct jwt_claims c;
    char text[64];
    enum jwt_verdict v = weir_jwt_lib.verify(keys, rules, token, NOW_S, &c);
    must(v < JWT_VERDICTS);
    if (v == JWT_OK) {
        must(c.user.n >= 1 && c.user.n <= JWT_USER_BYTES_MAX && c.json.n &&
             c.exp_s > NOW_S - rules->leeway_s);
        for (size_t i = 0; i < c.user.n; i++)
            must((unsigned char)c.user.p[i] >= ' ');
        (void)!weir_jwt_lib.claim_text(c.json, "a.b.c", text, sizeof text);
    } else {
        must(!c.user.p && !c.json.p);
    }
    jwt_claims_fini(&c);
    return v == JWT_OK;
}

static char *append_base64url(char *to, const uint8_t *p, size_t n)
{
    static const char ALPHABET[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned bits = 0, n_bits = 0;
    for (size_t i = 0; i < n; i++) {
        bits = (bits << 8 | p[i]) & 0xffff;
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            *to++ = ALPHABET[bits >> (n_bits - 6) & 63];
    }
    if (n_bits)
        *to++ = ALPHABET[bits << (6 - n_bits) & 63];
    return to;
}

static void signed_token(const uint8_t *header, size_t n_header, const uint8_t *claims,
                         size_t n_claims)
{
    unsigned char mac[32];
    unsigned n_mac = 0;
    char *token = malloc((n_header + n_claims) * 4 / 3 + 64), *to = token;
    must(token);
    to = append_base64url(to, header, n_header);
    *to++ = '.';
    to = append_base64url(to, claims, n_claims);
    must(HMAC(EVP_sha256(), SECRET, sizeof SECRET - 1, (unsigned char *)token, (size_t)(to - token),
              mac, &n_mac));
    *to++ = '.';
    to = append_base64url(to, mac, n_mac);
    struct policy_identifier strict = g_rules;
    strict.audiences = AUDIENCES;
    strict.n_audiences = 1;
    strict.user_claim = "app.id";
    strict.leeway_s = 30;
    verify(g_own, &g_rules, slice_of(token, (size_t)(to - token)));
    verify(g_own, &strict, slice_of(token, (size_t)(to - token)));
    free(token);
}

static void key_set(struct slice json)
{
    struct jwt_keys *keys;
    struct err e = {{0}};
    if (weir_jwt_lib.keys_jwks(&keys, json, 0, &e)) {
        must(!keys && e.text[0]);
        return;
    }
    must(weir_jwt_lib.keys_count(keys) >= 1 && weir_jwt_lib.keys_count(keys) <= JWT_KEYS_MAX);
    verify(keys, &g_rules, slice_str(HS256));
    verify(keys, &g_rules, slice_str(ES256));
    weir_jwt_lib.keys_free(&keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char HEADER[] = "{\"alg\":\"HS256\"}";
    static const char CLAIMS[] = "{\"iss\":\"joe\"}";
    prepare();
    if (!size)
        return 0;
    struct slice rest = slice_of((const char *)data + 1, size - 1);
    switch (data[0] % 4) {
    case 0:
        if (verify(g_good, &g_rules, rest))
            must(slice_eq(rest, slice_str(HS256)) || slice_eq(rest, slice_str(ES256)));
        break;
    case 1:
        signed_token(data + 1, size - 1, (const uint8_t *)CLAIMS, sizeof CLAIMS - 1);
        break;
    case 2:
        signed_token((const uint8_t *)HEADER, sizeof HEADER - 1, data + 1, size - 1);
        break;
    case 3:
        key_set(rest);
        break;
    }
    return 0;
}
