/*
 * keybox: the JWK sets of issuers, in memory that all processes of a server share. One process (the
 * keeper) fetches and publishes them; workers read them, and say when a token names a key that is
 * not there.
 *
 * A text has two halves. The writer fills the one that nobody reads and then changes one word, so
 * that a reader sees the text before or the text after, also where the writer was killed or stopped
 * in the middle; a reader that was overtaken twice while it copied notices and copies again. Nobody
 * waits for anybody.
 *
 * When a fetch fails, what was published last stays good: an issuer that cannot be reached stops
 * nobody.
 *
 * Bounds:  POLICY_IDENTIFIERS_MAX texts of JWT_JWKS_BYTES_MAX bytes. 1 MiB in all, of which only
 *          what is written takes memory.
 * Units:   _s wall clock seconds, _ns of the monotonic clock.
 * Owner:   keybox_new maps, keybox_free unmaps; inherited by fork.
 * Threads: one writer at a time (publish, failed, begin); readers without number, of any process.
 */
#ifndef WEIR_ADMIT_KEYBOX_H
#define WEIR_ADMIT_KEYBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admit/jwt.h"
#include "base/attr.h"
#include "base/slice.h"

struct keybox;

#define KEYBOX_WHY_BYTES_MAX 256
/* Between two fetches that workers asked for: tokens with invented kids cost the issuer no more. */
#define KEYBOX_WANTED_NS (60LL * 1000000000)

/* NULL: no memory. */
WEIR_MUST_USE struct keybox *keybox_new(void);
void keybox_free(struct keybox **b);

/* ---- the writer; `identifier` is the index in conf_policy.identifiers ---- */

/* A fetch begins: what workers wanted until now is being done. */
void keybox_begin(struct keybox *b, unsigned identifier, int64_t now_ns);
/* Does a worker want a fetch, and has the last one begun KEYBOX_WANTED_NS ago? */
WEIR_MUST_USE bool keybox_wanted(const struct keybox *b, unsigned identifier, int64_t now_ns);

/* The fetch was good: at most JWT_JWKS_BYTES_MAX bytes, which the writer has found to be a JWK set.
 * The generation moves only if the text is another than before. */
void keybox_publish(struct keybox *b, unsigned identifier, struct slice jwks, int64_t now_s);
/* It failed. A longer text is cut. */
void keybox_failed(struct keybox *b, unsigned identifier, const char *why, int64_t now_s);

/* ---- readers ---- */

/* Moves with each new text; 0: none yet. One load, to be compared before each request. */
uint64_t keybox_generation(const struct keybox *b, unsigned identifier);

/* Copy the text to `to`, which has room for JWT_JWKS_BYTES_MAX bytes. False: there is none yet, or
 * the writer was faster several times (ask again later). */
WEIR_MUST_USE bool keybox_read(const struct keybox *b, unsigned identifier, char *to, size_t *n,
                               uint64_t *generation);

/* A token names a key that is not in the text. */
void keybox_want(struct keybox *b, unsigned identifier);

struct keybox_state {
    int64_t good_s;                 /* the last good fetch; 0 = none */
    int64_t failed_s;               /* the last failed one; 0 = none */
    char why[KEYBOX_WHY_BYTES_MAX]; /* of that, NUL-terminated */
};
/* For the status page. False as of keybox_read; then *out is zero. */
bool keybox_look(const struct keybox *b, unsigned identifier, struct keybox_state *out);

#endif
