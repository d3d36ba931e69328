/*
 * fuzz_h1_head: any bytes as the head of a request.
 *
 * Beyond "no crash": the head means the same whole, byte by byte and cut once; what is accepted
 * keeps the promises of req.h; and a head that is accepted, written anew from struct req, is
 * accepted again and means the same.
 *
 * The first byte of the input chooses limits and rules, the second where the head is cut.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/must.h"
#include "http/h1_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS_MAX = 100 };

struct result {
    enum h1_verdict v;
    struct h1_error error;
    struct req req;
    struct field fields[FIELDS_MAX];
    size_t used;
};

/* Read up to `first`, then `step` bytes at a time; each piece is a copy of exact length. */
static void read_in_pieces(const char *p, size_t n, size_t first, size_t step,
                           const struct h1_limits *limits, struct result *r)
{
    size_t seen = 0;
    *r = (struct result){0};
    for (size_t have = first;; have = n - have < step ? n : have + step) {
        char *copy = malloc(have + 1);
        must(copy);
        memcpy(copy, p, have);
        r->v = h1_head(copy, have, &seen, limits, r->fields, &r->req, &r->used, &r->error);
        free(copy);
        if (r->v != H1_MORE || have == n)
            return;
    }
}

/* The same result, its slices at the same places of another copy or not. */
static void must_be_same(const struct result *a, const struct result *b)
{
    must(a->v == b->v);
    if (a->v == H1_BAD)
        must(a->error.status == b->error.status && a->error.reason == b->error.reason);
    if (a->v != H1_DONE)
        return;
    must(a->used == b->used);
    must(a->req.n_fields == b->req.n_fields);
    must(a->req.method.n == b->req.method.n && a->req.target.n == b->req.target.n);
    must(a->req.path.n == b->req.path.n && a->req.query.n == b->req.query.n);
    must(a->req.host.n == b->req.host.n && a->req.form == b->req.form);
    must(a->req.framing == b->req.framing && a->req.content_length == b->req.content_length);
    must(a->req.keep_alive == b->req.keep_alive && a->req.minor == b->req.minor);
    must(a->req.expect_continue == b->req.expect_continue);
    must(a->req.underscores == b->req.underscores && a->req.folded == b->req.folded);
    for (unsigned i = 0; i < a->req.n_fields; i++)
        must(a->fields[i].id == b->fields[i].id && a->fields[i].name.n == b->fields[i].name.n &&
             a->fields[i].value.n == b->fields[i].value.n);
}

static bool inside(struct slice s, const char *p, size_t n)
{
    return s.n == 0 || (s.p >= p && s.p + s.n <= p + n);
}

/* The fold of a value means white space, and nothing else is in it that may not stand in a value.
 */
static void must_unfold(const struct field *f, unsigned rules)
{
    must(rules & H1_OBS_FOLD);
    must(f->id != HDR_HOST && f->id != HDR_CONTENT_LENGTH && f->id != HDR_TRANSFER_ENCODING &&
         f->id != HDR_CONNECTION && f->id != HDR_EXPECT);
    char *copy = malloc(f->value.n);
    must(copy && f->value.n);
    memcpy(copy, f->value.p, f->value.n);
    size_t n = h1_unfold(copy, f->value.n);
    must(n > 0 && n < f->value.n && h1_is_value(slice_of(copy, n)));
    must(slice_trim(slice_of(copy, n)).n == n);
    free(copy);
}

/* What req.h promises of an accepted head at p[0..used). */
static void must_keep_promises(const struct result *r, const char *p, bool lax, unsigned rules)
{
    const struct req *req = &r->req;
    unsigned hosts = 0, lengths = 0, codings = 0;
    bool any_folded = false, any_dropped = false;
    must(h1_is_token(req->method) && inside(req->method, p, r->used));
    must(!(rules & H1_PLAIN_METHODS) || (req->method.n >= 3 && req->method.n <= 20));
    must(req->head == (rules & H1_FOLD_METHOD ? slice_ieq(req->method, SLICE("HEAD"))
                                              : slice_eq(req->method, SLICE("HEAD"))));
    must(req->target.n > 0 && inside(req->target, p, r->used));
    for (size_t i = 0; i < req->target.n; i++)
        must(req->target.p[i] > ' ' && req->target.p[i] < 0x7f);
    must(inside(req->query, p, r->used) && inside(req->host, p, r->used));
    must(!req->query.n || !memchr(req->query.p, '#', req->query.n));
    must(!req->path.n ||
         (!memchr(req->path.p, '#', req->path.n) && !memchr(req->path.p, '?', req->path.n)));
    must(req->minor <= 1);
    must(lax || h1_is_host(req->host));
    for (unsigned i = 0; i < req->n_fields; i++) {
        const struct field *f = &r->fields[i];
        must(h1_is_token(f->name) && inside(f->name, p, r->used));
        must(inside(f->value, p, r->used));
        bool folded = f->value.n && memchr(f->value.p, '\r', f->value.n);
        any_folded |= folded;
        any_dropped |= f->dropped;
        if (folded)
            must_unfold(f, rules);
        else
            must(h1_is_value(f->value));
        must(slice_trim(f->value).n == f->value.n);
        must(f->dropped == (memchr(f->name.p, '_', f->name.n) != NULL));
        hosts += slice_ieq(f->name, SLICE("host"));
        lengths += slice_ieq(f->name, SLICE("content-length"));
        codings += slice_ieq(f->name, SLICE("transfer-encoding"));
        if (slice_ieq(f->name, SLICE("connection")) && h1_list_has(f->value, SLICE("close")))
            must(!req->keep_alive);
    }
    must(any_folded == req->folded && any_dropped == req->underscores);
    must(hosts <= 1 && lengths <= 1 && !(lengths && codings));
    must(hosts == 1 || req->minor == 0 || lax);
    must((req->framing == REQ_BODY_CHUNKED) == (codings > 0));
    must(codings == 0 || req->minor == 1);
    must((req->framing == REQ_BODY_LENGTH) == (req->content_length > 0));
    must(req->has_content_length == (lengths == 1));
    must(!req->expect_continue || (req->minor == 1 && req->framing != REQ_BODY_NONE));
    must(r->used >= 4 && memcmp(p + r->used - 4, "\r\n\r\n", 4) == 0);
}

static void write_anew(struct buf *out, const struct result *r)
{
    int rc = buf_add_slice(out, r->req.method) | buf_add(out, " ", 1) |
             buf_add_slice(out, r->req.target) |
             buf_addf(out, " HTTP/1.%d\r\n", r->req.minor ? 1 : 0);
    for (unsigned i = 0; i < r->req.n_fields; i++)
        rc |= buf_add_slice(out, r->fields[i].name) | buf_add(out, ": ", 2) |
              buf_add_slice(out, r->fields[i].value) | buf_add(out, "\r\n", 2);
    rc |= buf_add(out, "\r\n", 2);
    must(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct result whole, pieces;
    if (size < 2 || size > 8192)
        return 0;
    unsigned choice = data[0];
    const char *p = (const char *)data + 2;
    size_t n = size - 2;
    struct h1_limits limits = {
        .line_bytes = choice & 1 ? 40 : 0,
        .head_bytes = choice & 2 ? 120 : 32768,
        .fields = choice & 4 ? 3 : FIELDS_MAX,
        .field_bytes = choice & 8 ? 30 : 0,
        .lax_host = (choice & 16) != 0,
        .rules = (choice & 32 ? H1_PLAIN_METHODS | H1_VERSION_400 | H1_OUTER_CODINGS : 0) |
                 (choice & 64 ? H1_OBS_FOLD | H1_ANY_VERSION : 0) |
                 (choice & 128 ? H1_FOLD_METHOD : 0),
    };

    /* The whole one is parsed in place: its slices are looked at. */
    size_t seen = 0;
    whole = (struct result){0};
    whole.v = h1_head(p, n, &seen, &limits, whole.fields, &whole.req, &whole.used, &whole.error);
    if (whole.v == H1_DONE)
        must_keep_promises(&whole, p, limits.lax_host, limits.rules);
    if (whole.v == H1_BAD)
        must(whole.error.status >= 400 && whole.error.status <= 505 && whole.error.reason);

    read_in_pieces(p, n, 0, 1, &limits, &pieces);
    must_be_same(&whole, &pieces);
    read_in_pieces(p, n, n * data[1] / 256, n + 1, &limits, &pieces);
    must_be_same(&whole, &pieces);

    if (whole.v == H1_DONE) {
        const struct h1_limits wide = {
            .fields = FIELDS_MAX, .lax_host = true, .rules = limits.rules};
        struct buf anew = {0};
        write_anew(&anew, &whole);
        read_in_pieces(anew.p, anew.n, anew.n, 1, &wide, &pieces);
        must(pieces.used == anew.n);
        pieces.used = whole.used;
        must_be_same(&whole, &pieces);
        buf_fini(&anew);
    }
    return 0;
}
