/*
 * json_read: reading JSON in place, without a tree: values are slices of the text.
 *
 * Check a text from outside with json_whole first; then walk its objects and arrays. Everything is
 * bounded by the text, and nesting by JSON_DEPTH_MAX.
 *
 * Source:  RFC 8259. Bytes inside of strings are not checked to be UTF-8.
 * Owner:   slices are lent from the text.
 * Threads: pure functions.
 */
#ifndef WEIR_BASE_JSON_READ_H
#define WEIR_BASE_JSON_READ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/slice.h"

#define JSON_DEPTH_MAX 32

/* One value, with nothing but blanks around it? */
WEIR_MUST_USE bool json_whole(struct slice text);

/* Take the value at the front of *rest, with blanks before it. False: there is none. */
WEIR_MUST_USE bool json_take(struct slice *rest, struct slice *value);

/* The members of an object, the elements of an array. */
struct json_walk {
    struct slice rest;
    char close; /* the bracket; 0: it is over */
    bool begun;
};
/* Of a value as json_take gives it; of one that is neither: none. */
struct json_walk json_walk(struct slice value);
/* The next; *key is the raw string of a member, quotes included, and empty in an array. False: the
 * end, or what follows is not JSON. */
WEIR_MUST_USE bool json_next(struct json_walk *w, struct slice *key, struct slice *value);

/* The member of that name (ASCII without escapes): false, and empty: there is none. */
bool json_member(struct slice object, const char *name, struct slice *value);

/* Append the text of a string as UTF-8; half of a surrogate pair becomes U+FFFD. 0, -ENOMEM;
 * -EINVAL: it is no string. */
WEIR_MUST_USE int json_unescape(struct slice string, struct buf *out);
/* An integer without fraction and exponent. */
WEIR_MUST_USE bool json_to_integer(struct slice value, int64_t *out);

#endif
