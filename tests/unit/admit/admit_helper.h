/* admit_helper: a request with its fields, and what admission makes of it, without a server. */
#ifndef WEIR_TESTS_ADMIT_HELPER_H
#define WEIR_TESTS_ADMIT_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "admit/policy.h"
#include "base/must.h"

#define SECOND_NS 1000000000LL
#define ASKED_FIELDS_MAX 8

/* One request; begin it with asked_begin, end it with asked_end. */
struct asked {
    struct field fields[ASKED_FIELDS_MAX];
    struct req req;
    struct arena arena;
    struct admission found;
    struct refusal why;
};

static inline enum hdr asked_id(struct slice name)
{
    if (slice_ieq(name, SLICE("authorization")))
        return HDR_AUTHORIZATION;
    return slice_ieq(name, SLICE("cookie")) ? HDR_COOKIE : HDR_OTHER;
}

static inline void asked_begin(struct asked *q, const char *method, const char *path)
{
    memset(q, 0, sizeof *q);
    q->req.fields = q->fields;
    q->req.method = slice_str(method);
    q->req.path = q->req.target = slice_str(path);
    q->req.head = strcmp(method, "HEAD") == 0;
}

static inline void asked_field(struct asked *q, const char *name, const char *value)
{
    must(q->req.n_fields < ASKED_FIELDS_MAX);
    q->fields[q->req.n_fields++] = (struct field){
        .name = slice_str(name), .value = slice_str(value), .id = asked_id(slice_str(name))};
}

static inline void asked_end(struct asked *q)
{
    arena_fini(&q->arena);
}

static inline void assert_slice(struct slice got, const char *want)
{
    char text[1024];
    must(got.n < sizeof text);
    if (got.n)
        memcpy(text, got.p, got.n);
    text[got.n] = '\0';
    assert_string_equal(text, want);
}

#endif
