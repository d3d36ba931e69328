/*
 * test_h1_parse: the wire cases of tests/wire, whole and cut at every place, and what they cannot
 * say: helpers, early refusals, limits of arrays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <dirent.h>

#include "base/buf.h"
#include "http/h1_parse.h"

/* cmocka's assertions read better with a reason. */
#define check(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            print_error(__VA_ARGS__);                                                              \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

enum { FIELDS_MAX = 1100, EXPECT_MAX = 24 };

static void add(struct buf *b, const void *p, size_t n)
{
    assert_int_equal(buf_add(b, p, n), 0);
}

static void add_line(struct buf *b, const char *key, struct slice value)
{
    add(b, key, strlen(key));
    add(b, " ", 1);
    add(b, value.p, value.n);
    add(b, "\n", 1);
}

/* ---- what comes out of some bytes ---- */

enum what { OK, MORE, BAD };

struct outcome {
    enum what what;
    bool in_body;
    struct h1_error error; /* of BAD */
    struct buf text;       /* the request as lines "key value", as in a wire file */
    struct buf content;
    size_t used; /* of OK: bytes that belong to the request */
};

static void outcome_fini(struct outcome *o)
{
    buf_fini(&o->text);
    buf_fini(&o->content);
}

static void describe(struct buf *out, const struct req *req)
{
    static const char *const forms[] = {"origin", "absolute", "authority", "asterisk"};
    char framing[64];
    add(out, "\n", 1);
    add_line(out, "method", req->method);
    add_line(out, "target", req->target);
    add_line(out, "path", req->path);
    add_line(out, "query", req->query);
    add_line(out, "host", req->host);
    add_line(out, "scheme", req->scheme);
    add_line(out, "form", slice_str(forms[req->form]));
    add_line(out, "version", req->minor ? SLICE("1.1") : SLICE("1.0"));
    add_line(out, "keep-alive", req->keep_alive ? SLICE("yes") : SLICE("no"));
    add_line(out, "continue", req->expect_continue ? SLICE("yes") : SLICE("no"));
    snprintf(framing, sizeof framing, "%s", req->framing == REQ_BODY_NONE ? "none" : "chunked");
    if (req->framing == REQ_BODY_LENGTH)
        snprintf(framing, sizeof framing, "length %llu", (unsigned long long)req->content_length);
    add_line(out, "framing", slice_str(framing));
    for (unsigned i = 0; i < req->n_fields; i++) {
        const struct field *f = &req->fields[i];
        add(out, "field ", 6);
        add(out, f->name.p, f->name.n);
        if (req->folded) {
            struct buf value = {0};
            add(&value, f->value.p, f->value.n);
            value.n = h1_unfold(value.p, value.n);
            assert_true(h1_is_value(buf_slice(&value)));
            add_line(out, ":", buf_slice(&value));
            buf_fini(&value);
        } else {
            add_line(out, ":", f->value);
        }
        if (f->dropped)
            add_line(out, "hidden", f->name);
    }
    assert_int_equal(req->head, slice_ieq(req->method, SLICE("HEAD")));
    assert_true(req->framing == REQ_BODY_LENGTH ? req->content_length > 0 && req->has_content_length
                                                : req->content_length == 0);
}

/* A copy of exactly these bytes, so that the sanitizer sees a read beyond them; large inputs are
 * looked at in place. */
static const char *lend(const char *p, size_t n, char **owned)
{
    *owned = NULL;
    if (n > 4096)
        return p;
    *owned = malloc(n ? n : 1);
    assert_non_null(*owned);
    if (n)
        memcpy(*owned, p, n);
    return *owned;
}

struct run {
    struct outcome *out;
    const struct h1_limits *limits;
    bool head_done;
    size_t seen, pos;
    enum req_framing framing;
    uint64_t left;
    struct h1_chunked chunked;
};

/* Feed the chunked bytes [r->pos, n) of p. True when the body is over, one way or the other. */
static bool feed_chunked(struct run *r, const char *p, size_t n)
{
    char *owned;
    const char *in = lend(p + r->pos, n - r->pos, &owned);
    size_t at = 0, len = n - r->pos;
    bool over = false;
    for (;;) {
        size_t used;
        struct slice data;
        struct h1_error error = {0};
        enum h1_verdict v = h1_chunked(&r->chunked, in + at, len - at, &used, &data, &error);
        assert_true(used <= len - at);
        if (v == H1_BAD) {
            r->out->what = BAD;
            r->out->error = error;
            over = true;
            break;
        }
        assert_true(data.n == 0 || (data.p >= in + at && data.p + data.n <= in + at + used));
        add(&r->out->content, data.p, data.n);
        at += used;
        if (v == H1_DONE) {
            r->out->what = OK;
            r->out->used = r->pos + at;
            over = true;
            break;
        }
        if (at == len && data.n == 0)
            break;
        assert_true(used > 0);
    }
    r->pos += at;
    free(owned);
    return over;
}

/* The connection has now read `n` bytes in all. True when the outcome is final. */
static bool feed(struct run *r, const char *p, size_t n)
{
    struct outcome *o = r->out;
    if (!r->head_done) {
        static struct field fields[FIELDS_MAX];
        struct req req;
        size_t used = 0;
        char *owned;
        const char *in = lend(p, n, &owned);
        struct h1_error error = {0};
        enum h1_verdict v = h1_head(in, n, &r->seen, r->limits, fields, &req, &used, &error);
        if (v == H1_DONE) {
            assert_true(used > 0 && used <= n);
            describe(&o->text, &req);
            r->head_done = o->in_body = true;
            r->pos = used;
            r->framing = req.framing;
            r->left = req.content_length;
        } else if (v == H1_BAD) {
            o->what = BAD;
            o->error = error;
            assert_non_null(error.reason);
        }
        free(owned);
        if (v != H1_DONE)
            return v == H1_BAD;
    }
    if (r->framing == REQ_BODY_CHUNKED)
        return feed_chunked(r, p, n);
    size_t take = r->left < n - r->pos ? (size_t)r->left : n - r->pos;
    add(&o->content, p + r->pos, take);
    r->pos += take;
    r->left -= take;
    if (r->left)
        return false;
    o->what = OK;
    o->used = r->pos;
    return true;
}

/* Read [0, n) in pieces: up to `first`, then `step` bytes at a time. */
static void run_pieces(struct slice bytes, size_t first, size_t step,
                       const struct h1_limits *limits, struct outcome *out)
{
    struct run r = {.out = out, .limits = limits};
    *out = (struct outcome){.what = MORE};
    for (size_t n = first;; n = bytes.n - n < step ? bytes.n : n + step) {
        if (feed(&r, bytes.p, n) || n == bytes.n)
            break;
    }
    if (out->what == OK)
        out->in_body = false;
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
    return a->what == b->what && a->in_body == b->in_body && a->used == b->used &&
           a->error.status == b->error.status && a->error.reason == b->error.reason &&
           slice_eq(buf_slice(&a->text), buf_slice(&b->text)) &&
           (a->what == BAD || slice_eq(buf_slice(&a->content), buf_slice(&b->content)));
}

static void print_outcome(const char *title, const struct outcome *o)
{
    static const char *const words[] = {"ok", "more", "refused"};
    print_error("  %s: %s%s %d %s, used %zu%.*s\n", title, words[o->what],
                o->in_body ? " in body" : "", o->error.status,
                o->error.reason ? o->error.reason : "", o->used, (int)o->text.n,
                o->text.p ? o->text.p : "");
}

/* Cut in every way, the bytes mean the same. Returns false and says so otherwise. */
static bool same_in_pieces(const char *name, struct slice bytes, const struct h1_limits *limits,
                           const struct outcome *whole)
{
    size_t stride = bytes.n > 1000 ? bytes.n / 100 : 1;
    for (size_t cut = 0; cut <= bytes.n; cut += cut == 0 ? 1 : stride) {
        struct outcome o;
        /* Cut 0 stands for one byte at a time. */
        run_pieces(bytes, cut, cut == 0 ? 1 : SIZE_MAX / 2, limits, &o);
        bool same = same_outcome(whole, &o);
        if (!same) {
            print_error("%s: cut at %zu it is another thing\n", name, cut);
            print_outcome("whole", whole);
            print_outcome("cut", &o);
        }
        outcome_fini(&o);
        if (!same)
            return false;
    }
    return true;
}

/* ---- wire files (format: tests/wire/README.md) ---- */

struct verdict {
    enum what what;
    int status;
    bool in_body;
};

struct wire_case {
    char name[160];
    int line;
    bool has_rfc, has_verdict, has_gunicorn;
    struct verdict own, gunicorn; /* the latter under `weir gunicorn`, where it differs */
    struct h1_limits limits;
    struct buf bytes;
    struct buf expect[EXPECT_MAX]; /* "key value", unescaped */
    unsigned n_expect;
};

static const struct h1_limits USUAL = {.head_bytes = 32768, .fields = 100};
/* What `weir gunicorn` sets beside limits. */
static const unsigned GUNICORN = H1_PLAIN_METHODS | H1_VERSION_400 | H1_OUTER_CODINGS;

static int hex(char c)
{
    return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

static void unescape(struct buf *out, const char *p, const char *end)
{
    while (p < end) {
        if (*p != '\\') {
            add(out, p++, 1);
            continue;
        }
        char c = p[1];
        if (c == '{') {
            char *text;
            unsigned long count = strtoul(p + 2, &text, 10);
            const char *close = memchr(text, '}', (size_t)(end - text));
            assert_true(close && *text == '*');
            while (count--)
                unescape(out, text + 1, close);
            p = close + 1;
        } else if (c == 'x') {
            char byte = (char)(hex(p[2]) << 4 | hex(p[3]));
            add(out, &byte, 1);
            p += 4;
        } else {
            assert_non_null(strchr("rnt\\", c));
            add(out, c == 'r' ? "\r" : c == 'n' ? "\n" : c == 't' ? "\t" : "\\", 1);
            p += 2;
        }
    }
}

static void read_limits(struct h1_limits *limits, char *text)
{
    char *rest = NULL;
    for (char *item = strtok_r(text, " ", &rest); item; item = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(item, '=');
        size_t value = equals ? strtoul(equals + 1, NULL, 10) : 0;
        if (strncmp(item, "line=", 5) == 0)
            limits->line_bytes = value;
        else if (strncmp(item, "head=", 5) == 0)
            limits->head_bytes = value;
        else if (strncmp(item, "field=", 6) == 0)
            limits->field_bytes = value;
        else if (strncmp(item, "fields=", 7) == 0)
            limits->fields = (unsigned)value;
        else if (strcmp(item, "lax") == 0)
            limits->lax_host = true;
        else if (strcmp(item, "fold") == 0)
            limits->rules |= H1_OBS_FOLD;
        else if (strcmp(item, "fold-method") == 0)
            limits->rules |= H1_FOLD_METHOD;
        else if (strcmp(item, "any-version") == 0)
            limits->rules |= H1_ANY_VERSION;
        else
            check(false, "unknown limit %s\n", item);
    }
}

static void read_verdict(struct verdict *v, const char *text)
{
    v->in_body = strstr(text, " in body") != NULL;
    v->status = atoi(text);
    v->what = v->status ? BAD : strncmp(text, "ok", 2) == 0 ? OK : MORE;
}

/* Add one line of a file to the case that it belongs to. */
static void read_line(struct wire_case *c, char *line, size_t n)
{
    char *end = line + n, *value = memchr(line, ' ', n);
    value = value ? value + 1 : end;
    if (line[0] == '|') {
        unescape(&c->bytes, value, end);
    } else if (strncmp(line, "rfc ", 4) == 0) {
        c->has_rfc = true;
    } else if (strncmp(line, "limits ", 7) == 0) {
        read_limits(&c->limits, value);
    } else if (strncmp(line, "-> ", 3) == 0) {
        c->has_verdict = true;
        read_verdict(&c->own, value);
    } else if (strncmp(line, "gunicorn ", 9) == 0) {
        c->has_gunicorn = true;
        value[strcspn(value, ";")] = '\0';
        read_verdict(&c->gunicorn, value);
    } else if (strncmp(line, "unlike-gunicorn ", 16) == 0) {
        check(strchr(value, ';') != NULL, "%s: unlike-gunicorn without a reason\n", c->name);
    } else {
        assert_true(c->n_expect < EXPECT_MAX);
        struct buf *expect = &c->expect[c->n_expect++];
        add(expect, "\n", 1);
        unescape(expect, line, end);
        add(expect, "\n", 1);
    }
}

static bool run_with(const char *name, const struct wire_case *c, const struct h1_limits *limits,
                     const struct verdict *wanted)
{
    struct slice bytes = buf_slice(&c->bytes);
    struct outcome o;
    run_pieces(bytes, bytes.n, 1, limits, &o);
    bool good =
        o.what == wanted->what && o.in_body == wanted->in_body && o.error.status == wanted->status;
    if (!good) {
        print_error("%s\n", name);
        print_outcome("got", &o);
    }
    if (o.what != BAD)
        add_line(&o.text, "content", buf_slice(&o.content));
    if (o.what == OK)
        add_line(&o.text, "rest", slice_of(bytes.p + o.used, bytes.n - o.used));
    /* What is expected of the request was written for the verdict of Weir itself. */
    for (unsigned i = 0; i < c->n_expect && wanted->what == c->own.what; i++) {
        const struct buf *e = &c->expect[i];
        if (good && (!o.text.n || !memmem(o.text.p, o.text.n, e->p, e->n))) {
            print_error("%s: expected%.*s", name, (int)e->n, e->p);
            print_outcome("got", &o);
            good = false;
        }
    }
    outcome_fini(&o);
    run_pieces(bytes, bytes.n, 1, limits, &o);
    good = same_in_pieces(name, bytes, limits, &o) && good;
    outcome_fini(&o);
    return good;
}

static bool run_case(const char *file, struct wire_case *c)
{
    char name[512];
    snprintf(name, sizeof name, "%s:%d: %s", file, c->line, c->name);
    check(c->has_rfc && c->has_verdict, "%s: no rfc line or no verdict\n", name);
    bool good = run_with(name, c, &c->limits, &c->own);
    struct h1_limits gunicorn = c->limits;
    gunicorn.rules |= GUNICORN;
    gunicorn.lax_host = true;
    snprintf(name, sizeof name, "%s:%d: %s (under weir gunicorn)", file, c->line, c->name);
    return run_with(name, c, &gunicorn, c->has_gunicorn ? &c->gunicorn : &c->own) && good;
}

static void case_start(struct wire_case *c, const char *name, int line)
{
    buf_fini(&c->bytes);
    for (unsigned i = 0; i < c->n_expect; i++)
        buf_fini(&c->expect[i]);
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s", name);
    c->line = line;
    c->limits = USUAL;
}

/* Run all cases of one file; the number of those that fail. */
static unsigned run_file(const char *path, unsigned *n_cases)
{
    static struct wire_case c;
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    unsigned bad = 0;
    bool open = false;
    assert_non_null(f);
    const char *file = strrchr(path, '/') + 1;
    for (int number = 1; (n = getline(&line, &room, f)) > 0; number++) {
        if (line[n - 1] == '\n')
            line[--n] = '\0';
        if (n == 0 || line[0] == '#')
            continue;
        if (line[0] == '=') {
            if (open)
                bad += !run_case(file, &c);
            case_start(&c, line + 2, number);
            open = true;
            ++*n_cases;
        } else {
            read_line(&c, line, (size_t)n);
        }
    }
    if (open)
        bad += !run_case(file, &c);
    case_start(&c, "", 0);
    free(line);
    fclose(f);
    return bad;
}

static DIR *wire_folder(char *path, size_t room)
{
#ifdef WEIR_SOURCE_ROOT
    snprintf(path, room, "%s/tests/wire", WEIR_SOURCE_ROOT);
#else
    snprintf(path, room, "tests/wire");
#endif
    return opendir(path);
}

static void wire_cases_have_their_verdict_however_they_are_cut(void **state)
{
    (void)state;
    char folder[512], path[1024];
    unsigned bad = 0, n_cases = 0;
    DIR *d = wire_folder(folder, sizeof folder);
    check(d != NULL, "%s is not found\n", folder);
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".wire") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        bad += run_file(path, &n_cases);
    }
    closedir(d);
    assert_true(n_cases > 400);
    check(bad == 0, "%u of %u wire cases fail\n", bad, n_cases);
}

/* ---- heads ---- */

static enum h1_verdict head_of(const char *text, struct req *req, struct h1_error *error)
{
    static struct field fields[FIELDS_MAX];
    size_t seen = 0, used;
    return h1_head(text, strlen(text), &seen, &USUAL, fields, req, &used, error);
}

static int status_of(const char *text)
{
    struct req req;
    struct h1_error error = {0};
    return head_of(text, &req, &error) == H1_BAD ? error.status : 0;
}

static void any_byte_at_any_place_of_a_head_means_the_same_whole_and_in_bytes(void **state)
{
    (void)state;
    const char base[] = "GET /a?b HTTP/1.1\r\nHost: a:1\r\nX: y\r\nContent-Length: 0\r\n\r\n";
    char bytes[sizeof base - 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        for (int value = 0; value < 256; value++) {
            struct outcome whole, pieces;
            memcpy(bytes, base, sizeof bytes);
            bytes[i] = (char)value;
            struct slice s = slice_of(bytes, sizeof bytes);
            run_pieces(s, s.n, 1, &USUAL, &whole);
            run_pieces(s, 1, 1, &USUAL, &pieces);
            check(same_outcome(&whole, &pieces), "byte %d at %zu\n", value, i);
            outcome_fini(&whole);
            outcome_fini(&pieces);
        }
}

static void any_byte_at_any_place_of_chunks_means_the_same_whole_and_in_bytes(void **state)
{
    (void)state;
    const char base[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5;a=\"b\\c\"\r\nhello\r\n1 ; d = e\r\n!\r\n0\r\nX: y\r\n\r\n";
    size_t start = (size_t)(strstr(base, "\r\n\r\n") - base) + 4;
    char bytes[sizeof base - 1];
    for (size_t i = start; i < sizeof bytes; i++)
        for (int value = 0; value < 256; value++) {
            struct outcome whole, pieces;
            memcpy(bytes, base, sizeof bytes);
            bytes[i] = (char)value;
            struct slice s = slice_of(bytes, sizeof bytes);
            run_pieces(s, s.n, 1, &USUAL, &whole);
            run_pieces(s, 1, 1, &USUAL, &pieces);
            check(same_outcome(&whole, &pieces), "byte %d at %zu\n", value, i);
            outcome_fini(&whole);
            outcome_fini(&pieces);
        }
}

static void what_cannot_become_a_head_is_refused_before_it_is_whole(void **state)
{
    (void)state;
    assert_int_equal(status_of("\x16\x03\x01"), 400);
    assert_int_equal(status_of(" "), 400);
    assert_int_equal(status_of("GET /\x01"), 400);
    assert_int_equal(status_of("GET /\n"), 400);
    assert_int_equal(status_of("GET /\r\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\n"), 400);
    assert_int_equal(status_of("GET / HTTP/2.0\r\n"), 505);
    assert_int_equal(status_of("GET / HTTP/1.1\r\n "), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\n:"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nX : y\r\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nX: y\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nX: y\r\n z"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nX: y"), 0);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nX: y\r"), 0);
}

static void known_fields_are_recognised_in_any_case(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum hdr id;
    } names[] = {
        {"content-length", HDR_CONTENT_LENGTH},
        {"content-type", HDR_CONTENT_TYPE},
        {"connection", HDR_CONNECTION},
        {"upgrade", HDR_UPGRADE},
        {"cookie", HDR_COOKIE},
        {"user-agent", HDR_USER_AGENT},
        {"referer", HDR_REFERER},
        {"forwarded", HDR_FORWARDED},
        {"x-forwarded-for", HDR_X_FORWARDED_FOR},
        {"x-forwarded-proto", HDR_X_FORWARDED_PROTO},
        {"x-forwarded-host", HDR_X_FORWARDED_HOST},
        {"x-forwarded-port", HDR_X_FORWARDED_PORT},
        {"x-forwarded-by", HDR_X_FORWARDED_BY},
        {"trailer", HDR_TRAILER},
        {"te", HDR_TE},
        {"authorization", HDR_AUTHORIZATION},
    };
    for (size_t i = 0; i < countof(names); i++) {
        for (int round = 0; round < 4; round++) {
            char name[32], text[128];
            struct req req;
            struct h1_error error;
            size_t n = strlen(names[i].name);
            snprintf(name, sizeof name, "%s", names[i].name);
            for (size_t k = 0; k < n; k++) /* as it is, capitals, mixed */
                if ((round == 1 || (round == 2 && k % 2)) && name[k] >= 'a')
                    name[k] = (char)(name[k] - 32);
            if (round == 3) /* and one letter wrong */
                name[n - 1] = 'q';
            snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n%s: 0\r\n\r\n", name);
            assert_int_equal(head_of(text, &req, &error), H1_DONE);
            assert_int_equal(req.fields[0].id, HDR_HOST);
            check(req.fields[1].id == (round == 3 ? HDR_OTHER : names[i].id), "%s\n", name);
        }
    }
}

static void fields_beyond_the_limit_are_not_written(void **state)
{
    (void)state;
    const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    struct h1_limits limits = {.head_bytes = 1000, .fields = 2};
    struct field *fields = malloc(2 * sizeof *fields); /* the sanitizer watches its end */
    struct req req;
    struct h1_error error;
    size_t seen = 0, used = 0;
    assert_non_null(fields);
    assert_int_equal(h1_head(text, sizeof text - 1, &seen, &limits, fields, &req, &used, &error),
                     H1_BAD);
    assert_int_equal(error.status, 431);
    free(fields);
}

static void no_limit_means_no_limit(void **state)
{
    (void)state;
    struct h1_limits limits = {.fields = 10};
    struct buf b = {0};
    add(&b, "GET /", 5);
    for (int i = 0; i < 100000; i++)
        add(&b, "a", 1);
    add(&b, " HTTP/1.0\r\n\r\n", 13);
    struct outcome o;
    run_pieces(buf_slice(&b), b.n, 1, &limits, &o);
    assert_int_equal(o.what, OK);
    outcome_fini(&o);
    buf_fini(&b);
}

/* ---- chunked ---- */

static void content_pays_for_the_extensions_of_its_chunks(void **state)
{
    (void)state;
    struct h1_chunked c = {0};
    const char chunk[] = "40;chunk-signature=0123456789abcdef0123456789abcdef\r\n"
                         "0123456789012345678901234567890123456789012345678901234567890123\r\n";
    for (int round = 0; round < 10000; round++) {
        size_t at = 0, used;
        while (at < sizeof chunk - 1) {
            struct slice data;
            struct h1_error error;
            assert_int_equal(
                h1_chunked(&c, chunk + at, sizeof chunk - 1 - at, &used, &data, &error), H1_MORE);
            at += used;
        }
    }
}

static void a_finished_body_stays_finished(void **state)
{
    (void)state;
    struct h1_chunked c = {0};
    struct slice data;
    struct h1_error error;
    size_t used;
    assert_int_equal(h1_chunked(&c, "0\r\n\r\nGET", 8, &used, &data, &error), H1_DONE);
    assert_int_equal(used, 5);
    assert_int_equal(h1_chunked(&c, "GET", 3, &used, &data, &error), H1_DONE);
    assert_int_equal(used, 0);
    assert_int_equal(data.n, 0);
}

/* ---- helpers ---- */

static void tokens_and_values_are_told_apart(void **state)
{
    (void)state;
    assert_true(h1_is_token(SLICE("x-A9!")));
    assert_false(h1_is_token(SLICE("")));
    assert_false(h1_is_token(SLICE("a b")));
    assert_false(h1_is_token(SLICE("a:")));
    assert_true(h1_is_value(SLICE("")));
    assert_true(h1_is_value(SLICE("a \t\xff and something longer than a word")));
    for (int c = 0; c < 256; c++)
        for (size_t at = 0; at < 20; at++) {
            char text[20];
            memset(text, 'a', sizeof text);
            text[at] = (char)c;
            bool good = c == '\t' || (c >= 0x20 && c != 0x7f);
            check(h1_is_value(slice_of(text, sizeof text)) == good, "byte %d at %zu\n", c, at);
        }
}

static void numbers_are_digits_that_fit(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(h1_number(SLICE("0"), &v));
    assert_int_equal(v, 0);
    assert_true(h1_number(SLICE("18446744073709551615"), &v));
    assert_true(v == UINT64_MAX);
    assert_false(h1_number(SLICE("18446744073709551616"), &v));
    assert_false(h1_number(SLICE("99999999999999999999"), &v));
    assert_false(h1_number(SLICE(""), &v));
    assert_false(h1_number(SLICE("+1"), &v));
    assert_false(h1_number(SLICE("1 "), &v));
    assert_true(v == UINT64_MAX);
}

static void lists_are_searched_element_by_element(void **state)
{
    (void)state;
    assert_true(h1_list_has(SLICE("a, CLOSE ,b"), SLICE("close")));
    assert_true(h1_list_has(SLICE("close"), SLICE("close")));
    assert_true(h1_list_has(SLICE(",\t,close"), SLICE("close")));
    assert_false(h1_list_has(SLICE(""), SLICE("close")));
    assert_false(h1_list_has(SLICE("closed"), SLICE("close")));
    assert_false(h1_list_has(SLICE("a close"), SLICE("close")));
    assert_false(h1_list_has(slice_of(NULL, 0), SLICE("close")));
}

static void hosts_are_checked(void **state)
{
    (void)state;
    assert_true(h1_is_host(SLICE("")));
    assert_true(h1_is_host(SLICE("a.example:80")));
    assert_true(h1_is_host(SLICE("[::1]:80")));
    assert_false(h1_is_host(SLICE(":80")));
    assert_false(h1_is_host(SLICE("[::1")));
    assert_false(h1_is_host(SLICE("[")));
    assert_false(h1_is_host(SLICE("[]")));
    assert_false(h1_is_host(SLICE("%")));
    assert_false(h1_is_host(SLICE("a:65536")));
    assert_false(h1_is_host(SLICE("a,b")));
    assert_false(h1_is_host(SLICE("a\0b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_values_are_told_apart),
        cmocka_unit_test(numbers_are_digits_that_fit),
        cmocka_unit_test(lists_are_searched_element_by_element),
        cmocka_unit_test(hosts_are_checked),
        cmocka_unit_test(wire_cases_have_their_verdict_however_they_are_cut),
        cmocka_unit_test(known_fields_are_recognised_in_any_case),
        cmocka_unit_test(what_cannot_become_a_head_is_refused_before_it_is_whole),
        cmocka_unit_test(any_byte_at_any_place_of_a_head_means_the_same_whole_and_in_bytes),
        cmocka_unit_test(any_byte_at_any_place_of_chunks_means_the_same_whole_and_in_bytes),
        cmocka_unit_test(fields_beyond_the_limit_are_not_written),
        cmocka_unit_test(no_limit_means_no_limit),
        cmocka_unit_test(content_pays_for_the_extensions_of_its_chunks),
        cmocka_unit_test(a_finished_body_stays_finished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
