/*
 * secret: memory for keys, and random bytes to make keys of.
 *
 * Owner:   secret_map maps, secret_unmap zeroes and gives back.
 * Threads: none inside.
 */
#ifndef WEIR_BASE_SECRET_H
#define WEIR_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"
#include "base/slice.h"

/* `n` (>= 1) zeroed bytes that are in no core dump, or NULL. `shared`: with all processes that this
 * one forks. */
void *secret_map(size_t n, bool shared);
/* *p becomes NULL; NULL is nothing. */
void secret_unmap(void **p, size_t n);

/* From the kernel. False: it has none to give (no such call, or it is not permitted). */
WEIR_MUST_USE bool secret_random(void *to, size_t n);

/* Are they equal? The time it takes tells nothing but the lengths. */
WEIR_MUST_USE bool secret_same(struct slice given, struct slice secret);

#endif
