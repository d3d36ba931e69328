/* Makes tokens and JWK sets with OpenSSL, for tests. Keys are made once; texts live until the test
 * program ends. */
#ifndef WEIR_TESTS_TOKEN_HELPER_H
#define WEIR_TESTS_TOKEN_HELPER_H

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/must.h"
#include "base/slice.h"

/* Printed, for ever. */
static inline char *text(const char *fmt, ...) WEIR_PRINTF(1, 2);

static inline char *text(const char *fmt, ...)
{
    char *out;
    va_list args;
    va_start(args, fmt);
    must(vasprintf(&out, fmt, args) >= 0);
    va_end(args);
    return out;
}

static inline char *b64(const void *data, size_t n)
{
    static const char ALPHABET[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *p = data;
    char *out = calloc(1, n * 2 + 4), *to = out;
    must(out);
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? (unsigned)p[i + 2] : 0);
        for (size_t k = 0; k < 4 && k <= n - i; k++)
            *to++ = ALPHABET[v >> (18 - 6 * k) & 63];
    }
    return out;
}

static inline char *b64_text(const char *s)
{
    return b64(s, strlen(s));
}

static inline char *b64_number(const EVP_PKEY *key, const char *name)
{
    unsigned char bytes[2048];
    BIGNUM *bn = NULL;
    must(EVP_PKEY_get_bn_param(key, name, &bn) == 1);
    int n =
        strcmp(name, OSSL_PKEY_PARAM_EC_PUB_X) == 0 || strcmp(name, OSSL_PKEY_PARAM_EC_PUB_Y) == 0
            ? BN_bn2binpad(bn, bytes, 32)
            : BN_bn2bin(bn, bytes);
    BN_free(bn);
    must(n >= 0);
    return b64(bytes, (size_t)n);
}

/* `more` begins with a comma, or is "". */
static inline char *jwk_rsa(const EVP_PKEY *key, const char *more)
{
    return text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"%s}",
                b64_number(key, OSSL_PKEY_PARAM_RSA_N), b64_number(key, OSSL_PKEY_PARAM_RSA_E),
                more);
}

static inline char *jwk_ec(const EVP_PKEY *key, const char *more)
{
    return text("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\",\"y\":\"%s\"%s}",
                b64_number(key, OSSL_PKEY_PARAM_EC_PUB_X),
                b64_number(key, OSSL_PKEY_PARAM_EC_PUB_Y), more);
}

static inline char *jwk_oct(struct slice secret, const char *more)
{
    return text("{\"kty\":\"oct\",\"k\":\"%s\"%s}", b64(secret.p, secret.n), more);
}

static inline char *token_hs(struct slice secret, const char *header, const char *claims)
{
    unsigned char mac[32];
    unsigned n = 0;
    char *signed_text = text("%s.%s", b64_text(header), b64_text(claims));
    must(HMAC(EVP_sha256(), secret.p, (int)secret.n, (unsigned char *)signed_text,
              strlen(signed_text), mac, &n));
    return text("%s.%s", signed_text, b64(mac, n));
}

/* RS256 or ES256 by the key's kind. `raw` (may be NULL) gets r and s of ES256. */
static inline char *token_signed(EVP_PKEY *key, const char *header, const char *claims,
                                 unsigned char *raw)
{
    unsigned char sig[2048], both[64];
    size_t n = sizeof sig;
    char *signed_text = text("%s.%s", b64_text(header), b64_text(claims));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    must(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1);
    must(EVP_DigestSign(ctx, sig, &n, (unsigned char *)signed_text, strlen(signed_text)) == 1);
    EVP_MD_CTX_free(ctx);
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC) {
        const unsigned char *p = sig;
        ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &p, (long)n);
        must(BN_bn2binpad(ECDSA_SIG_get0_r(pair), both, 32) == 32);
        must(BN_bn2binpad(ECDSA_SIG_get0_s(pair), both + 32, 32) == 32);
        ECDSA_SIG_free(pair);
        memcpy(sig, both, n = sizeof both);
        if (raw)
            memcpy(raw, both, sizeof both);
    }
    return text("%s.%s", signed_text, b64(sig, n));
}

#endif
