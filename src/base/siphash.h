/*
 * siphash: a short keyed hash, so that whoever does not know the key cannot choose where his bytes
 * land in a table.
 *
 * Not for signing, and not where a hash leaves this machine. The 128-bit form is for tables that
 * keep no key to compare with: equal hashes count as equal keys there.
 *
 * Source:  Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), SipHash-2-4; the
 *          128-bit form is its authors' later addition.
 * Threads: none inside.
 */
#ifndef WEIR_BASE_SIPHASH_H
#define WEIR_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY_BYTES 16

/* Two little-endian halves of the 16 bytes that are the key. */
struct siphash_key {
    uint64_t k[2];
};

struct siphash_key siphash_key(const unsigned char bytes[SIPHASH_KEY_BYTES]);

/* data may be NULL when n == 0. */
uint64_t siphash64(const struct siphash_key *key, const void *data, size_t n);
void siphash128(const struct siphash_key *key, const void *data, size_t n, uint64_t out[2]);

#endif
