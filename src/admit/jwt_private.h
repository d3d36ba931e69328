/* jwt_private: what the two files of _jwt.so share. OpenSSL's types by their tags alone. */
#ifndef WEIR_ADMIT_JWT_PRIVATE_H
#define WEIR_ADMIT_JWT_PRIVATE_H

#include <jansson.h>

#include "admit/jwt.h"

struct evp_pkey_st;
struct evp_mac_ctx_st;

#define JWT_SHA256_BYTES 32
#define JWT_RSA_BITS_MIN 2048
#define JWT_RSA_BITS_MAX 8192
#define JWT_P256_BYTES 32 /* a coordinate, and each half of a signature */

struct jwt_key {
    enum policy_alg alg;          /* the only one that it is good for */
    struct slice kid;             /* owned; .p NULL: it has none */
    struct evp_pkey_st *pkey;     /* owned; RS256, ES256; else NULL */
    struct evp_mac_ctx_st *keyed; /* owned; HS256: begun with the key, to be copied; else NULL */
    size_t signature_bytes;       /* how long its signatures are */
};

struct jwt_keys {
    unsigned n;
    struct jwt_key keys[JWT_KEYS_MAX]; /* the first n */
};

/* An object with at most JWT_DEPTH_MAX levels, no member twice, nothing behind it; else NULL and,
 * if asked for, why, as the end of a sentence. The caller has to json_decref it. */
json_t *jwt_json_object(struct slice text, char *why, size_t room);

/* The word of RFC 7518, or 0. */
unsigned jwt_alg_of(const char *word);

int jwt_openssl_keys_secret(struct jwt_keys **out, struct slice secret, struct err *e);
int jwt_openssl_keys_jwks(struct jwt_keys **out, struct slice json, unsigned algorithms,
                          struct err *e);
void jwt_openssl_keys_free(struct jwt_keys **k);
unsigned jwt_openssl_keys_count(const struct jwt_keys *k);

#endif
