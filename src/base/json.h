/*
 * json: writing JSON into a buf, without a tree. Commas are set by what stands before.
 *
 * A failed allocation is remembered and told by json_end; calls after it do nothing.
 * No name here is one of jansson's, which _keeper.so has beside these.
 *
 * Source:  RFC 8259.
 * Owner:   the buf is the caller's.
 * Threads: one.
 */
#ifndef WEIR_BASE_JSON_H
#define WEIR_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/slice.h"

struct json {
    struct buf *out;
    bool comma; /* before the next value or key */
    int error;  /* 0 or -ENOMEM */
};

static inline struct json json_begin(struct buf *out)
{
    return (struct json){.out = out};
}
/* 0 or -ENOMEM: what stands in the buf is not whole. */
WEIR_MUST_USE static inline int json_end(const struct json *j)
{
    return j->error;
}

void json_open(struct json *j, char bracket);   /* '{' or '[' */
void json_close(struct json *j, char bracket);  /* '}' or ']' */
void json_key(struct json *j, const char *key); /* printable ASCII without " and \ */
void json_text(struct json *j, struct slice s); /* any bytes: base/escape.h */
void json_str(struct json *j, const char *s);   /* NULL: null */
void json_int(struct json *j, int64_t v);
void json_uint(struct json *j, uint64_t v);
void json_bool(struct json *j, bool v);
void json_none(struct json *j);
/* Seconds with microseconds, without needless zeros: 1.5 */
void json_seconds(struct json *j, int64_t ns);
/* Bytes that are JSON already. */
void json_raw(struct json *j, struct slice s);

#endif
