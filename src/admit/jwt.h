/*
 * jwt: is this token signed by a key that we trust, still good, and meant for us?
 *
 * Compact JWS (RFC 7515) with claims (RFC 7519), checked as RFC 8725 asks: a key is bound to its
 * algorithm, "none" and any other algorithm are refused before anything is computed, `crit` is
 * refused, sizes are bounded, JSON must not name a member twice. Keys come from a secret (HS256) or
 * a JWK set (RFC 7517): RSA of 2048 to 8192 bits (RS256), EC P-256 (ES256), oct (HS256).
 *
 * Which key:  those of the token's algorithm that have its `kid`; if none has it, those without a
 * kid. A token without kid: all of its algorithm. At most JWT_TRIES are tried.
 *
 * Nothing of a token that failed is given out, but why it failed.
 *
 * Owner:   jwt_keys are counted by nobody: who made them frees them. struct jwt_claims owns its
 *          memory.
 * Threads: keys are read-only once made and may be shared by threads. jwt_load: one thread, before
 *          the loop runs.
 * Crypto:  OpenSSL 3 EVP; JSON: jansson. Both in _jwt.so, which is loaded when it is needed
 *          (base/library.h).
 */
#ifndef WEIR_ADMIT_JWT_H
#define WEIR_ADMIT_JWT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/library.h"
#include "base/slice.h"
#include "conf/policy.h"

#define JWT_BYTES_MAX 8192 /* a whole token */
#define JWT_JWKS_BYTES_MAX 65536
#define JWT_KEYS_MAX 64
#define JWT_TRIES 4
#define JWT_DEPTH_MAX 32 /* of arrays and objects in each other, in a token and in a JWK set */
/* Of the user: what the store of quotas takes, and long enough for any subject (OpenID: 255). */
#define JWT_USER_BYTES_MAX 512

struct jwt_keys;

/* HS256 of a shared secret, 32 to 4096 bytes (RFC 7518 §3.2). A public key or a certificate is
 * refused: whoever knows it could sign. The first two load _jwt.so where it is not loaded yet. -1
 * and a sentence, without the place that the bytes are from. */
WEIR_MUST_USE int jwt_keys_secret(struct jwt_keys **out, struct slice secret, struct err *e);
/* A JWK set. Keys that cannot be used (kind, use, algorithm, length, not in `algorithms`, of enum
 * policy_alg, where 0 is all) are left out; none left: an error that says why the last was. Keys
 * of one kid are all tried. */
WEIR_MUST_USE int jwt_keys_jwks(struct jwt_keys **out, struct slice json, unsigned algorithms,
                                struct err *e);
void jwt_keys_free(struct jwt_keys **k);
unsigned jwt_keys_count(const struct jwt_keys *k);

enum jwt_verdict {
#define JWT_VERDICT(id, word, description) JWT_##id,
#include "admit/jwt_verdicts.def"
#undef JWT_VERDICT
    JWT_VERDICTS
};
/* "expired", … for logs and metrics; and the error_description of WWW-Authenticate (RFC 6750 §3).
 */
const char *jwt_word(enum jwt_verdict v);
const char *jwt_description(enum jwt_verdict v);

struct jwt_claims {
    /* The user claim, a text (an integer as its text), 1 to JWT_USER_BYTES_MAX bytes of UTF-8
     * without control characters; owned. */
    struct slice user;
    struct slice json; /* the claims as they were signed, decoded; owned */
    int64_t exp_s;     /* wall clock, rounded up; INT64_MAX: none */
};
void jwt_claims_fini(struct jwt_claims *c);

/* Verify. On JWT_OK *out is filled and the caller's, else it is empty. `rules`: issuer, audiences,
 * algorithms (0: all that suit the keys), leeway_s (>= 0), user_claim (a path as for
 * jwt_claim_text). exp counts where it is there; the token is good before exp + leeway, from
 * nbf - leeway on. Memory exhausted: JWT_MALFORMED. */
WEIR_MUST_USE enum jwt_verdict jwt_verify(const struct jwt_keys *keys,
                                          const struct policy_identifier *rules, struct slice token,
                                          int64_t now_s, struct jwt_claims *out);

/* The text at a path of the claims ("app_metadata.tier"; a name that holds points itself, such as
 * "https://example.org/tier", is found too), copied into `to` (at most `n` bytes with NUL): true; a
 * number is its text; false: not there, another kind, or too long. Needs the library: only after
 * keys were made. */
WEIR_MUST_USE bool jwt_claim_text(struct slice claims_json, const char *path, char *to, size_t n);

/* ---- what _jwt.so offers ---- */

struct jwt_lib {
    struct library_head head; /* its WEIR_VERSION and sizeof(struct policy_identifier) */
    int (*keys_secret)(struct jwt_keys **out, struct slice secret, struct err *e);
    int (*keys_jwks)(struct jwt_keys **out, struct slice json, unsigned algorithms, struct err *e);
    void (*keys_free)(struct jwt_keys **k);
    unsigned (*keys_count)(const struct jwt_keys *k);
    enum jwt_verdict (*verify)(const struct jwt_keys *keys, const struct policy_identifier *rules,
                               struct slice token, int64_t now_s, struct jwt_claims *out);
    bool (*claim_text)(struct slice claims_json, const char *path, char *to, size_t n);
};

/* The name of the table in _jwt.so, and the table for those that are linked with it. */
#define JWT_LIB_SYMBOL "weir_jwt_lib"
extern const struct jwt_lib weir_jwt_lib;

/* Load the shared object, once; `path` NULL: beside the core. */
WEIR_MUST_USE int jwt_load(const char *path, struct err *e);

#endif
