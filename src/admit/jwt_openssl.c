/*
 * jwt_openssl: what jwt.h promises, by OpenSSL 3 and jansson: with jwt_keys_openssl.c the whole of
 * _jwt.so beside a few functions of base.
 *
 * In order: size and shape, header, algorithm, key, signature; only then the claims are parsed. So
 * what somebody without a key can reach is the search for two points, base64url, and the JSON of a
 * small header.
 *
 * The error queue of OpenSSL belongs to the thread, which may do TLS or run the application too: it
 * is left empty.
 */
#include "admit/jwt_private.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64url.h"
#include "base/must.h"
#include "conf/version.h"

/* Of RSA with the longest modulus; others are shorter. */
#define SIGNATURE_BYTES_MAX (JWT_RSA_BITS_MAX / 8)
/* SEQUENCE of two INTEGERs of 33 bytes (X.690): each 2 bytes of tag and length. */
#define DER_BYTES_MAX (2 + 2 * (2 + 1 + JWT_P256_BYTES))

/* ---- JSON ---- */

/* jansson calls itself for each level, so depth is bounded before it sees the text. */
static bool too_deep(struct slice text)
{
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (quoted) {
            if (c == '\\')
                i++;
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JWT_DEPTH_MAX)
                return true;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return false;
}

json_t *jwt_json_object(struct slice text, char *why, size_t room)
{
    json_error_t fault;
    if (too_deep(text)) {
        snprintf(why, room, "more than %d levels of arrays and objects", JWT_DEPTH_MAX);
        return NULL;
    }
    json_t *json = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &fault);
    if (!json)
        snprintf(why, room, "%.100s in line %d", fault.text, fault.line);
    if (json && !json_is_object(json)) {
        snprintf(why, room, "it is no JSON object");
        json_decref(json);
        json = NULL;
    }
    return json;
}

/* The member at a path. A name may hold points itself (as URLs do), so what is left of the path is
 * tried as one name first. */
static const json_t *claim_at(const json_t *claims, const char *path)
{
    char name[256];
    for (;;) {
        const json_t *found = json_object_get(claims, path);
        const char *point = strchr(path, '.');
        if (found || !point || (size_t)(point - path) >= sizeof name)
            return found;
        memcpy(name, path, (size_t)(point - path));
        name[point - path] = '\0';
        claims = json_object_get(claims, name);
        path = point + 1;
    }
}

/* ---- shape ---- */

struct parts {
    struct slice header, payload, signature; /* base64url, in the token */
    struct slice signed_text;                /* header, point, payload */
};

static bool split(struct slice token, struct parts *out)
{
    const char *end = token.p + token.n;
    const char *one = token.n ? memchr(token.p, '.', token.n) : NULL;
    const char *two = one ? memchr(one + 1, '.', (size_t)(end - one - 1)) : NULL;
    if (!two || memchr(two + 1, '.', (size_t)(end - two - 1)))
        return false;
    out->header = slice_of(token.p, (size_t)(one - token.p));
    out->payload = slice_of(one + 1, (size_t)(two - one - 1));
    out->signature = slice_of(two + 1, (size_t)(end - two - 1));
    out->signed_text = slice_of(token.p, (size_t)(two - token.p));
    return out->header.n && out->payload.n;
}

/* The bytes of a part, owned by the caller; .p NULL: not canonical. */
static struct slice decoded(struct slice part)
{
    size_t n = base64url_bytes(part.n);
    char *p = malloc(n + 1);
    if (p && !base64url_decode(part, (unsigned char *)p)) {
        free(p);
        p = NULL;
    }
    return slice_of(p, p ? n : 0);
}

struct header {
    json_t *json; /* owned; holds kid */
    unsigned alg; /* of enum policy_alg */
    struct slice kid;
};

static enum jwt_verdict read_header(struct slice part, struct header *out)
{
    char why[200];
    struct slice text = decoded(part);
    out->json = text.p ? jwt_json_object(text, why, sizeof why) : NULL;
    free((char *)(uintptr_t)text.p);
    const char *alg = json_string_value(json_object_get(out->json, "alg"));
    const json_t *kid = json_object_get(out->json, "kid");
    /* RFC 7515 section 4.1.11: who does not know what is critical refuses; we know nothing.
     * `b64` (RFC 7797) would be critical. */
    if (!alg || json_object_get(out->json, "crit") || json_object_get(out->json, "b64") ||
        (kid && !json_is_string(kid)))
        return JWT_MALFORMED;
    out->kid = slice_of(json_string_value(kid), json_string_length(kid));
    out->alg = jwt_alg_of(alg);
    return out->alg ? JWT_OK : JWT_ALG_REFUSED;
}

/* ---- signatures ---- */

static bool hmac_is(const struct jwt_key *key, struct slice text, const unsigned char *signature)
{
    unsigned char mac[JWT_SHA256_BYTES];
    size_t n = 0;
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(key->keyed);
    bool good = ctx && EVP_MAC_update(ctx, (const unsigned char *)text.p, text.n) == 1 &&
                EVP_MAC_final(ctx, mac, &n, sizeof mac) == 1 && n == sizeof mac &&
                CRYPTO_memcmp(mac, signature, sizeof mac) == 0;
    EVP_MAC_CTX_free(ctx);
    return good;
}

static bool digest_is_signed(const struct jwt_key *key, struct slice text,
                             const unsigned char *signature, size_t n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key->pkey) == 1 &&
                EVP_DigestVerify(ctx, signature, n, (const unsigned char *)text.p, text.n) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* An INTEGER of DER: no zeros in front but one that keeps it positive. Returns its length. */
static size_t der_integer(unsigned char *to, const unsigned char *p)
{
    size_t n = JWT_P256_BYTES;
    while (n > 1 && !*p)
        p++, n--;
    size_t positive = *p >> 7;
    to[0] = 0x02;
    to[1] = (unsigned char)(n + positive);
    to[2] = 0;
    memcpy(to + 2 + positive, p, n);
    return 2 + positive + n;
}

/* RFC 7518 section 3.4 writes r and s as 32 bytes each, OpenSSL wants SEQUENCE { r, s }. */
static size_t der_signature(unsigned char to[DER_BYTES_MAX], const unsigned char *raw)
{
    size_t n = der_integer(to + 2, raw);
    n += der_integer(to + 2 + n, raw + JWT_P256_BYTES);
    to[0] = 0x30;
    to[1] = (unsigned char)n;
    return 2 + n;
}

static bool is_signed(const struct jwt_key *key, struct slice text, const unsigned char *signature,
                      size_t n)
{
    unsigned char der[DER_BYTES_MAX];
    if (n != key->signature_bytes)
        return false;
    switch (key->alg) {
    case ALG_HS256:
        return hmac_is(key, text, signature);
    case ALG_RS256:
        return digest_is_signed(key, text, signature, n);
    case ALG_ES256:
        return digest_is_signed(key, text, der, der_signature(der, signature));
    }
    return false;
}

/* Those of the algorithm and kid; `kid` .p NULL: those without one. */
static unsigned pick(const struct jwt_keys *keys, unsigned alg, struct slice kid,
                     const struct jwt_key *found[JWT_TRIES])
{
    unsigned n = 0;
    for (unsigned i = 0; i < keys->n && n < JWT_TRIES; i++) {
        const struct jwt_key *key = &keys->keys[i];
        if (key->alg == alg && !key->kid.p == !kid.p && slice_eq(key->kid, kid))
            found[n++] = key;
    }
    return n;
}

static bool kid_is_known(const struct jwt_keys *keys, struct slice kid)
{
    for (unsigned i = 0; i < keys->n; i++)
        if (keys->keys[i].kid.p && slice_eq(keys->keys[i].kid, kid))
            return true;
    return false;
}

/* The keys that this token may be signed with. */
static enum jwt_verdict choose(const struct jwt_keys *keys, const struct header *h,
                               const struct jwt_key *found[JWT_TRIES], unsigned *n)
{
    if (!h->kid.p) {
        *n = 0;
        for (unsigned i = 0; i < keys->n && *n < JWT_TRIES; i++)
            if (keys->keys[i].alg == h->alg)
                found[(*n)++] = &keys->keys[i];
        return *n ? JWT_OK : JWT_ALG_REFUSED;
    }
    *n = pick(keys, h->alg, h->kid, found);
    if (*n)
        return JWT_OK;
    /* The key is there, for another algorithm. */
    if (kid_is_known(keys, h->kid))
        return JWT_ALG_REFUSED;
    /* A secret has no name, but who signs with it may give it one. */
    *n = pick(keys, h->alg, slice_of(NULL, 0), found);
    return *n ? JWT_OK : JWT_UNKNOWN_KEY;
}

static enum jwt_verdict check_signature(const struct jwt_keys *keys, const struct header *h,
                                        const struct parts *parts)
{
    unsigned char signature[SIGNATURE_BYTES_MAX];
    const struct jwt_key *found[JWT_TRIES];
    unsigned n;
    enum jwt_verdict v = choose(keys, h, found, &n);
    if (v != JWT_OK)
        return v;
    size_t bytes = base64url_bytes(parts->signature.n);
    if (bytes > sizeof signature)
        return JWT_BAD_SIGNATURE;
    if (!base64url_decode(parts->signature, signature))
        return JWT_MALFORMED;
    v = JWT_BAD_SIGNATURE;
    for (unsigned i = 0; i < n && v != JWT_OK; i++)
        if (is_signed(found[i], parts->signed_text, signature, bytes))
            v = JWT_OK;
    ERR_clear_error();
    return v;
}

/* ---- claims ---- */

/* A NumericDate (RFC 7519 section 2), rounded up: `now`, in whole seconds, is before the fraction
 * exactly where it is before that. False: it is there and no number. */
static bool take_date(const json_t *claims, const char *name, int64_t absent, int64_t *out)
{
    const double most = 9e18; /* fits int64_t */
    const json_t *claim = json_object_get(claims, name);
    *out = absent;
    if (!claim)
        return true;
    if (json_is_integer(claim)) {
        *out = json_integer_value(claim);
        return true;
    }
    if (!json_is_real(claim))
        return false;
    double value = json_real_value(claim);
    if (value >= most || value <= -most) {
        *out = value > 0 ? INT64_MAX : INT64_MIN;
    } else {
        *out = (int64_t)value;
        *out += (double)*out < value;
    }
    return true;
}

static bool is_text(const json_t *claim, const char *text)
{
    return json_is_string(claim) && strcmp(json_string_value(claim), text) == 0;
}

static bool is_an_audience(const struct policy_identifier *rules, const json_t *claim)
{
    for (unsigned i = 0; i < rules->n_audiences; i++)
        if (is_text(claim, rules->audiences[i]))
            return true;
    return false;
}

/* A text, or a list of texts of which one is an audience of ours (RFC 7519 section 4.1.3). */
static bool is_meant_for_us(const struct policy_identifier *rules, const json_t *aud)
{
    bool ours = false;
    if (!json_is_array(aud))
        return is_an_audience(rules, aud);
    for (size_t i = 0; i < json_array_size(aud); i++) {
        const json_t *one = json_array_get(aud, i);
        if (!json_is_string(one))
            return false;
        ours = ours || is_an_audience(rules, one);
    }
    return ours;
}

/* A name goes into logs, fields and files: no control characters. (UTF-8 is jansson's to check.) */
static bool good_user(struct slice user)
{
    for (size_t i = 0; i < user.n; i++)
        if ((unsigned char)user.p[i] < ' ' || user.p[i] == 0x7f)
            return false;
    return user.n && user.n <= JWT_USER_BYTES_MAX;
}

static enum jwt_verdict take_user(const json_t *claims, const char *path, struct slice *out)
{
    char digits[24];
    const json_t *claim = claim_at(claims, path);
    struct slice user = slice_of(json_string_value(claim), json_string_length(claim));
    if (json_is_integer(claim)) {
        int n = snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(claim));
        user = slice_of(digits, (size_t)n);
    }
    if (!good_user(user))
        return JWT_NO_USER;
    char *copy = malloc(user.n);
    if (!copy)
        return JWT_MALFORMED;
    memcpy(copy, user.p, user.n);
    *out = slice_of(copy, user.n);
    return JWT_OK;
}

static enum jwt_verdict check_claims(const json_t *claims, const struct policy_identifier *rules,
                                     int64_t now_s, struct jwt_claims *out)
{
    int64_t nbf_s;
    if (!take_date(claims, "exp", INT64_MAX, &out->exp_s) ||
        !take_date(claims, "nbf", INT64_MIN, &nbf_s))
        return JWT_MALFORMED;
    if (now_s - rules->leeway_s >= out->exp_s)
        return JWT_EXPIRED;
    if (now_s + rules->leeway_s < nbf_s)
        return JWT_NOT_YET;
    if (*rules->issuer && !is_text(json_object_get(claims, "iss"), rules->issuer))
        return JWT_ISSUER;
    if (rules->n_audiences && !is_meant_for_us(rules, json_object_get(claims, "aud")))
        return JWT_AUDIENCE;
    return take_user(claims, rules->user_claim, &out->user);
}

static enum jwt_verdict take_claims(struct slice part, const struct policy_identifier *rules,
                                    int64_t now_s, struct jwt_claims *out)
{
    char why[200];
    struct slice text = decoded(part);
    json_t *claims = text.p ? jwt_json_object(text, why, sizeof why) : NULL;
    enum jwt_verdict v = claims ? check_claims(claims, rules, now_s, out) : JWT_MALFORMED;
    json_decref(claims);
    if (v == JWT_OK) {
        out->json = text;
    } else {
        free((char *)(uintptr_t)text.p);
        *out = (struct jwt_claims){0};
    }
    return v;
}

/* ---- the table ---- */

static enum jwt_verdict verify(const struct jwt_keys *keys, const struct policy_identifier *rules,
                               struct slice token, int64_t now_s, struct jwt_claims *out)
{
    struct parts parts;
    struct header h = {0};
    *out = (struct jwt_claims){0};
    if (token.n > JWT_BYTES_MAX)
        return JWT_TOO_LARGE;
    if (!split(token, &parts))
        return JWT_MALFORMED;
    enum jwt_verdict v = read_header(parts.header, &h);
    if (v == JWT_OK && rules->algorithms && !(rules->algorithms & h.alg))
        v = JWT_ALG_REFUSED;
    if (v == JWT_OK)
        v = check_signature(keys, &h, &parts);
    if (v == JWT_OK)
        v = take_claims(parts.payload, rules, now_s, out);
    json_decref(h.json);
    return v;
}

static bool claim_text(struct slice claims_json, const char *path, char *to, size_t n)
{
    char why[200];
    int length = -1;
    json_t *claims = jwt_json_object(claims_json, why, sizeof why);
    const json_t *claim = claim_at(claims, path);
    if (json_is_string(claim))
        length = snprintf(to, n, "%s", json_string_value(claim));
    else if (json_is_integer(claim))
        length = snprintf(to, n, "%lld", (long long)json_integer_value(claim));
    else if (json_is_real(claim))
        length = snprintf(to, n, "%.15g", json_real_value(claim));
    json_decref(claims);
    return length >= 0 && (size_t)length < n;
}

__attribute__((visibility("default"))) const struct jwt_lib weir_jwt_lib = {
    .head = {WEIR_VERSION, sizeof(struct policy_identifier)},
    .keys_secret = jwt_openssl_keys_secret,
    .keys_jwks = jwt_openssl_keys_jwks,
    .keys_free = jwt_openssl_keys_free,
    .keys_count = jwt_openssl_keys_count,
    .verify = verify,
    .claim_text = claim_text,
};
