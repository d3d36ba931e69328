/*
 * api_keys: whose is this key? From a file of lines
 *
 *   NAME KEY [TIER]      # a comment, also behind a line
 *
 * A name may have several keys, so that one can be changed for the next; a key stands for one name.
 *
 * The keys themselves are not kept. What is kept is SipHash-2-4-128 of each under a random key of
 * this process: it finds the entry and stands for the key in the comparison, so a lookup needs no
 * key text, takes the same time for all keys, and guessing one is as hard as guessing 128 bits. A
 * cryptographic hash would only add something where hashes leave the machine; these are in memory
 * that is in no core dump.
 *
 * Bounds:  1 MiB, 10,000 keys; a key 16 to 512 visible ASCII characters, a name 1 to 128, a tier 1
 *          to 64.
 * Owner:   who made them frees them; names and tiers live as long. Read-only once made.
 * Threads: may be shared.
 */
#ifndef WEIR_ADMIT_API_KEYS_H
#define WEIR_ADMIT_API_KEYS_H

#include <stdbool.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

struct api_keys;

#define API_KEYS_FILE_BYTES_MAX ((size_t)1024 * 1024)
#define API_KEYS_MAX 10000
#define API_KEY_BYTES_MIN 16
#define API_KEY_BYTES_MAX 512
#define API_KEY_NAME_BYTES_MAX 128
#define API_KEY_TIER_BYTES_MAX 64

struct api_key {
    struct slice name; /* with a NUL behind */
    struct slice tier; /* with a NUL behind; "" = none */
};

/* -1 and a sentence that begins with FILE:LINE and holds no key. The file's bytes are zeroed after
 * reading. */
WEIR_MUST_USE int api_keys_read(struct api_keys **out, const char *path, struct err *e);
/* The same of bytes; `path` is for the sentences. */
WEIR_MUST_USE int api_keys_parse(struct api_keys **out, const char *path, struct slice text,
                                 struct err *e);
void api_keys_free(struct api_keys **k);

unsigned api_keys_count(const struct api_keys *k);
/* True: *out is filled. */
WEIR_MUST_USE bool api_keys_find(const struct api_keys *k, struct slice key, struct api_key *out);
/* All, in no order, for checks of tiers: from 0 to api_keys_count - 1. */
struct api_key api_keys_at(const struct api_keys *k, unsigned i);

#endif
