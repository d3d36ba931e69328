/*
 * jwt: is this token signed by a key that we trust, still good, and meant for us?
 *
 * Compact JWS (RFC 7515) with claims (RFC 7519), checked as RFC 8725 asks: a key is bound to its
 * algorithm, "none" and any other algorithm are refused before anything is computed, `crit` is
 * refused, sizes are bounded. Keys come from a secret (HS256) or a JWK set (RFC 7517): RSA from
 * 2048 bits (RS256), EC P-256 (ES256), oct (HS256).
 *
 * Nothing of a token that failed is given out, but why it failed.
 *
 * Owner:   jwt_keys are counted by nobody: who made them frees them. struct jwt_claims owns its
 * memory. Threads: keys are read-only once made and may be shared by threads. Crypto:  OpenSSL 3
 * EVP, in the library that is loaded when it is needed (net/tls.c).
 */
#ifndef WEIR_ADMIT_JWT_H
#define WEIR_ADMIT_JWT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"
#include "conf/policy.h"

#define JWT_BYTES_MAX 8192 /* a whole token */
#define JWT_JWKS_BYTES_MAX 65536
#define JWT_KEYS_MAX 64

struct jwt_keys;

/* HS256 of a shared secret, at least 32 bytes (RFC 7518 §3.2; shorter: an error with the cure). */
WEIR_MUST_USE int jwt_keys_secret(struct jwt_keys **out, struct slice secret, struct err *e);
/* A JWK set. Keys of a kind, use or algorithm that is not known are left out; none left: an error.
 */
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
    struct slice user; /* the user claim, a text (a number as its text); owned */
    struct slice json; /* the claims as they were signed, decoded; owned */
    int64_t exp_s;     /* wall clock; INT64_MAX: none */
};
void jwt_claims_fini(struct jwt_claims *c);

/* Verify. On JWT_OK *out is filled and the caller's. `rules`: issuer, audiences, algorithms,
 * leeway_s, user_claim. */
WEIR_MUST_USE enum jwt_verdict jwt_verify(const struct jwt_keys *keys,
                                          const struct policy_identifier *rules, struct slice token,
                                          int64_t now_s, struct jwt_claims *out);

/* The text at a path of the claims ("app_metadata.tier"), copied into `to` (at most `n` bytes with
 * NUL): true; a number is its text; false: not there, another kind, or too long. */
WEIR_MUST_USE bool jwt_claim_text(struct slice claims_json, const char *path, char *to, size_t n);

#endif
