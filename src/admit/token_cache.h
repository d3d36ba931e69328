/*
 * token_cache: tokens that were verified a moment ago, so that the next request with one costs a
 * look and no cryptography; and tokens that failed, so that repeating one costs no more.
 *
 * A good token is kept until it expires (exp + leeway), and 10 minutes at most; a bad one 10 s at
 * most. What was verified with other keys or other rules does not count: the caller gives a
 * generation, a number that it changes with them. It counts as one that was never seen, and makes
 * room.
 *
 * Where a token lands is a keyed hash of its last 64 bytes, which are the signature or its end: no
 * two tokens share those by chance, and two bad ones that somebody makes alike take one place in
 * turn. A token is then compared as a whole.
 *
 * Bounds:  entries and bytes, of the caller; an eighth of both on top for bad tokens.
 * Evicts:  CLOCK: the first that the hand finds over, or not asked for since it last came by.
 * Units:   wall clock seconds. A clock that goes back makes what was verified later unknown.
 * Owner:   what is given is copied; what is found is lent until the next put or free. Freed tokens
 *          are zeroed.
 * Threads: one.
 */
#ifndef WEIR_ADMIT_TOKEN_CACHE_H
#define WEIR_ADMIT_TOKEN_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "admit/jwt.h"
#include "base/attr.h"
#include "base/slice.h"

struct token_cache;

#define TOKEN_CACHE_GOOD_S 600
#define TOKEN_CACHE_BAD_S 10

/* At most `entries` (1 to 2^24) tokens in `bytes`, which counts all that belongs to an entry. NULL:
 * no memory, or no random bytes. */
WEIR_MUST_USE struct token_cache *token_cache_new(uint32_t entries, size_t bytes);
void token_cache_free(struct token_cache **c);

/* A token, and what it was verified with. */
struct token_cache_key {
    struct slice token;
    uint64_t generation; /* of the keys and rules */
    uint32_t identifier; /* index in conf_policy.identifiers */
};

struct token_cache_found {
    enum jwt_verdict verdict; /* JWT_OK, or why it failed; then the texts are empty */
    struct slice user, tier;  /* tier "": none */
    struct slice json;        /* the claims */
    uint64_t *note;           /* two numbers of the caller's that stay with a good token, 0 at first;
                                 lent until the next put */
};

/* Is it known? Then *out is filled. */
WEIR_MUST_USE bool token_cache_find(struct token_cache *c, const struct token_cache_key *key,
                                    int64_t now_s, struct token_cache_found *out);

/* Keep a token that was verified at now_s with `leeway_s`. What is larger than all the room is not
 * kept, nor anything where memory is exhausted. */
void token_cache_put(struct token_cache *c, const struct token_cache_key *key,
                     const struct jwt_claims *claims, struct slice tier, int64_t leeway_s,
                     int64_t now_s);

/* Keep a token that failed. Only what cost a signature or the search for a key, and stays as it is,
 * is kept: not JWT_NOT_YET, nor what the token's form says. */
void token_cache_put_bad(struct token_cache *c, const struct token_cache_key *key,
                         enum jwt_verdict verdict, int64_t now_s);

struct token_cache_stats {
    uint32_t good, bad; /* entries; what is over counts until it makes room */
    size_t good_bytes, bad_bytes;
    uint64_t hits, misses; /* totals */
    uint64_t bad_hits;     /* of hits */
    uint64_t evicted;      /* that were not over */
};
void token_cache_stats(const struct token_cache *c, struct token_cache_stats *out);

#endif
