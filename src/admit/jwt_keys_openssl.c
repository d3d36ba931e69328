/*
 * jwt_keys_openssl: keys of tokens, from a secret or a JWK set (RFC 7517, RFC 7518 section 6).
 *
 * A set is somebody else's document, and grows members that we do not know: a key that cannot be
 * used is passed over with its reason, and only a set without a key that can is an error. What is
 * private in a key ("d", "p", …) is not looked at.
 */
#include "admit/jwt_private.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64url.h"
#include "base/must.h"

static const size_t SECRET_BYTES_MIN = JWT_SHA256_BYTES;
static const size_t SECRET_BYTES_MAX = 4096;
static const size_t KID_BYTES_MAX = 1024;
/* Exponents are 3 or 65537; OpenSSL takes no longer one for a large modulus. */
static const size_t EXPONENT_BYTES_MAX = 8;

unsigned jwt_alg_of(const char *word)
{
    return strcmp(word, "HS256") == 0   ? ALG_HS256
           : strcmp(word, "RS256") == 0 ? ALG_RS256
           : strcmp(word, "ES256") == 0 ? ALG_ES256
                                        : 0;
}

/* ---- the three kinds; each returns NULL, or why it cannot be used ---- */

static const char *make_oct(struct jwt_key *out, const unsigned char *p, size_t n)
{
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, OSSL_MAC_NAME_HMAC, NULL);
    EVP_MAC_CTX *ctx = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC_free(hmac);
    if (!ctx || EVP_MAC_init(ctx, p, n, params) != 1) {
        EVP_MAC_CTX_free(ctx);
        return "OpenSSL offers no HMAC with SHA-256, or memory is exhausted";
    }
    out->keyed = ctx;
    out->signature_bytes = JWT_SHA256_BYTES;
    return NULL;
}

/* A public key of what the builder has got. */
static EVP_PKEY *pkey_of(const char *kind, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, kind, NULL);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    if (!ctx || !params || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
        pkey = NULL;
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static struct slice without_zeros(struct slice number)
{
    while (number.n && !*number.p)
        number.p++, number.n--;
    return number;
}

static const char *make_rsa(struct jwt_key *out, struct slice modulus, struct slice exponent)
{
    const unsigned char *n = (const unsigned char *)modulus.p;
    const unsigned char *e = (const unsigned char *)exponent.p;
    size_t bits = modulus.n * 8;
    if (modulus.n)
        for (unsigned char top = n[0]; !(top & 0x80); top = (unsigned char)(top << 1))
            bits--;
    if (bits < JWT_RSA_BITS_MIN || bits > JWT_RSA_BITS_MAX)
        return "its modulus has fewer than 2048 or more than 8192 bits";
    /* With 1 every text is its own signature; even numbers are no exponents and no moduli. */
    if (!exponent.n || exponent.n > EXPONENT_BYTES_MAX || !(e[exponent.n - 1] & 1) ||
        (exponent.n == 1 && e[0] < 3) || !(n[modulus.n - 1] & 1))
        return "its exponent or modulus is none of RSA";

    BIGNUM *bn_n = BN_bin2bn(n, (int)modulus.n, NULL);
    BIGNUM *bn_e = BN_bin2bn(e, (int)exponent.n, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (bn_n && bn_e && build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, bn_n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, bn_e) == 1)
        out->pkey = pkey_of("RSA", build);
    OSSL_PARAM_BLD_free(build);
    BN_free(bn_n);
    BN_free(bn_e);
    out->signature_bytes = modulus.n;
    return out->pkey ? NULL : "OpenSSL does not take it";
}

static const char *make_p256(struct jwt_key *out, struct slice x, struct slice y)
{
    /* The uncompressed form of SEC 1 section 2.3.3. */
    unsigned char point[1 + 2 * JWT_P256_BYTES] = {4};
    if (x.n != JWT_P256_BYTES || y.n != JWT_P256_BYTES)
        return "its x or y has not 32 bytes";
    memcpy(point + 1, x.p, JWT_P256_BYTES);
    memcpy(point + 1 + JWT_P256_BYTES, y.p, JWT_P256_BYTES);

    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point) == 1)
        out->pkey = pkey_of("EC", build);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX *ctx = out->pkey ? EVP_PKEY_CTX_new_from_pkey(NULL, out->pkey, NULL) : NULL;
    bool good = ctx && EVP_PKEY_public_check(ctx) == 1;
    EVP_PKEY_CTX_free(ctx);
    out->signature_bytes = 2 * (size_t)JWT_P256_BYTES;
    return good ? NULL : "its x and y are no point of P-256";
}

/* ---- JWK ---- */

static const char *text_of(const json_t *jwk, const char *name)
{
    const char *text = json_string_value(json_object_get(jwk, name));
    return text ? text : "";
}

/* The bytes of a base64url member: at most `room`, written to `to`. .p NULL: not there, not
 * canonical, or longer. */
static struct slice bytes_of(const json_t *jwk, const char *name, unsigned char *to, size_t room)
{
    const json_t *member = json_object_get(jwk, name);
    struct slice text = slice_of(json_string_value(member), json_string_length(member));
    size_t n = base64url_bytes(text.n);
    if (!text.n || n > room || !base64url_decode(text, to))
        return slice_of(NULL, 0);
    return slice_of((const char *)to, n);
}

/* Is the key for verifying signatures? (RFC 7517 sections 4.2 and 4.3) */
static bool for_signatures(const json_t *jwk)
{
    const json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops");
    if (use && (!json_is_string(use) || strcmp(json_string_value(use), "sig") != 0))
        return false;
    if (!ops)
        return true;
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));
        if (op && strcmp(op, "verify") == 0)
            return true;
    }
    return false;
}

static unsigned alg_of_kind(const json_t *jwk)
{
    const char *kty = text_of(jwk, "kty");
    if (strcmp(kty, "RSA") == 0)
        return ALG_RS256;
    if (strcmp(kty, "EC") == 0 && strcmp(text_of(jwk, "crv"), "P-256") == 0)
        return ALG_ES256;
    return strcmp(kty, "oct") == 0 ? ALG_HS256 : 0;
}

/* `scratch` has room for the two largest numbers. */
static const char *make_key(struct jwt_key *out, const json_t *jwk, unsigned algorithms,
                            unsigned char *scratch)
{
    const size_t room = JWT_RSA_BITS_MAX / 8;
    const json_t *alg = json_object_get(jwk, "alg"), *kid = json_object_get(jwk, "kid");
    unsigned kind = json_is_object(jwk) ? alg_of_kind(jwk) : 0;
    if (!kind)
        return "it is none of RSA, EC with P-256, and oct";
    if (!for_signatures(jwk))
        return "it is not for verifying signatures (use, key_ops)";
    if (alg && (!json_is_string(alg) || jwt_alg_of(json_string_value(alg)) != kind))
        return "its alg is none of RS256, ES256 and HS256, or not one of its kty";
    if (algorithms && !(algorithms & kind))
        return "its algorithm is not in `algorithms`";
    if (kid && (!json_is_string(kid) || json_string_length(kid) > KID_BYTES_MAX))
        return "its kid is no text of at most 1024 bytes";

    const char *why = NULL;
    struct slice a;
    out->alg = (enum policy_alg)kind;
    switch (out->alg) {
    case ALG_RS256:
        /* One byte more each: zeros in front are common, though RFC 7518 section 2 forbids them. */
        a = without_zeros(bytes_of(jwk, "n", scratch, room + 1));
        why = make_rsa(out, a, without_zeros(bytes_of(jwk, "e", scratch + room + 1, room)));
        break;
    case ALG_ES256:
        a = bytes_of(jwk, "x", scratch, room);
        why = make_p256(out, a, bytes_of(jwk, "y", scratch + room, room));
        break;
    case ALG_HS256:
        a = bytes_of(jwk, "k", scratch, 2 * room);
        why = a.n < SECRET_BYTES_MIN ? "its k is shorter than 32 bytes, or longer than 2048"
                                     : make_oct(out, scratch, a.n);
        break;
    }
    if (!why && kid) {
        out->kid = slice_of(strdup(json_string_value(kid)), json_string_length(kid));
        if (!out->kid.p)
            why = "memory is exhausted";
    }
    return why;
}

static void key_fini(struct jwt_key *key)
{
    free((char *)(uintptr_t)key->kid.p);
    EVP_PKEY_free(key->pkey);
    EVP_MAC_CTX_free(key->keyed);
    *key = (struct jwt_key){0};
}

static int take_set(struct jwt_keys *keys, const json_t *list, unsigned algorithms, struct err *e)
{
    const char *why = NULL;
    unsigned char *scratch = malloc(2 * (size_t)(JWT_RSA_BITS_MAX / 8) + 1);
    if (!scratch)
        return err_set(e, "the JWK set: memory is exhausted");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct jwt_key key = {0};
        const char *fault = make_key(&key, json_array_get(list, i), algorithms, scratch);
        if (!fault && keys->n == JWT_KEYS_MAX) {
            key_fini(&key);
            free(scratch);
            return err_set(e,
                           "the JWK set has more than %d keys that could be used; give one with "
                           "the keys of this issuer alone",
                           JWT_KEYS_MAX);
        }
        if (fault) {
            key_fini(&key);
            why = fault;
        } else {
            keys->keys[keys->n++] = key;
        }
    }
    OPENSSL_cleanse(scratch, 2 * (size_t)(JWT_RSA_BITS_MAX / 8) + 1);
    free(scratch);
    if (!keys->n && why)
        return err_set(e,
                       "the JWK set has no key that can be used (of the last: %s); it needs one "
                       "for RS256, ES256 or HS256 that the setting `algorithms` allows",
                       why);
    if (!keys->n)
        return err_set(e, "the JWK set is empty; the issuer has to publish a key in `keys`");
    return 0;
}

/* ---- public ---- */

/* What people put into a secret's file by mistake; everybody may know it, so it is no secret. */
static bool looks_public(struct slice s)
{
    static const char *const MARKS[] = {"-----BEGIN ", "ssh-rsa ", "ssh-ed25519 ", "ecdsa-sha2-"};
    while (s.n && (*s.p == ' ' || *s.p == '\t' || *s.p == '\r' || *s.p == '\n'))
        s.p++, s.n--;
    for (unsigned i = 0; i < countof(MARKS); i++)
        if (slice_starts(s, slice_str(MARKS[i])))
            return true;
    return false;
}

static struct jwt_keys *keys_new(struct err *e)
{
    struct jwt_keys *keys = calloc(1, sizeof *keys);
    if (!keys)
        err_set(e, "keys of tokens: memory is exhausted");
    return keys;
}

int jwt_openssl_keys_secret(struct jwt_keys **out, struct slice secret, struct err *e)
{
    *out = NULL;
    if (secret.n < SECRET_BYTES_MIN)
        return err_set(e,
                       "the secret has %zu bytes and HS256 needs 32 at least; make one with "
                       "`openssl rand -base64 48`, and give it to who signs the tokens too",
                       secret.n);
    if (secret.n > SECRET_BYTES_MAX)
        return err_set(e, "the secret has more than 4096 bytes; give the file of the secret alone");
    if (looks_public(secret))
        return err_set(e, "the secret is a key or a certificate in a file, which others may know, "
                          "so anybody could sign; give public keys as `jwks` instead");
    struct jwt_keys *keys = keys_new(e);
    if (!keys)
        return -1;
    const char *why = make_oct(&keys->keys[0], (const unsigned char *)secret.p, secret.n);
    ERR_clear_error();
    if (why) {
        free(keys);
        return err_set(e, "the secret: %s", why);
    }
    keys->keys[0].alg = ALG_HS256;
    keys->n = 1;
    *out = keys;
    return 0;
}

int jwt_openssl_keys_jwks(struct jwt_keys **out, struct slice json, unsigned algorithms,
                          struct err *e)
{
    char why[200];
    *out = NULL;
    if (json.n > JWT_JWKS_BYTES_MAX)
        return err_set(e, "the JWK set is larger than %d bytes; is it one?", JWT_JWKS_BYTES_MAX);
    json_t *set = jwt_json_object(json, why, sizeof why);
    const json_t *list = json_object_get(set, "keys");
    if (!set || !json_is_array(list)) {
        json_decref(set);
        return err_set(e,
                       "this is no JWK set: %s; give what the issuer publishes, {\"keys\": [...]} "
                       "(often .well-known/jwks.json)",
                       set ? "it has no array `keys`" : why);
    }
    struct jwt_keys *keys = keys_new(e);
    int rc = keys ? take_set(keys, list, algorithms, e) : -1;
    json_decref(set);
    ERR_clear_error();
    if (rc)
        jwt_openssl_keys_free(&keys);
    else
        *out = keys;
    return rc;
}

void jwt_openssl_keys_free(struct jwt_keys **k)
{
    if (!*k)
        return;
    for (unsigned i = 0; i < (*k)->n; i++)
        key_fini(&(*k)->keys[i]);
    free(*k);
    *k = NULL;
}

unsigned jwt_openssl_keys_count(const struct jwt_keys *k)
{
    return k->n;
}
