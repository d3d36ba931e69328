/*
 * base64url: bytes as text for URLs and tokens, in its one canonical form.
 *
 * No padding, no line ends, no other character, and the bits that are left over in the last
 * character are zero: so two different texts never stand for the same bytes.
 *
 * Source:  RFC 4648 section 5; section 3.5 on the bits left over; RFC 7515 section 2.
 * Threads: none inside.
 */
#ifndef WEIR_BASE_BASE64URL_H
#define WEIR_BASE_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"
#include "base/slice.h"

/* Bytes that n characters stand for. */
static inline size_t base64url_bytes(size_t n)
{
    return n / 4 * 3 + (n % 4 ? n % 4 - 1 : 0);
}

/* Write base64url_bytes(text.n) bytes to `to`. False: text is not canonical base64url, and `to`
 * holds anything. */
WEIR_MUST_USE bool base64url_decode(struct slice text, unsigned char *to);

#endif
