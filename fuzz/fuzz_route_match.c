/*
 * fuzz_route_match: matches as a user writes them, a method and a path.
 *
 * Input: one match a line, each a route; an empty line; a method; the path is the rest.
 * Oracle: a second, plain way: the whole path decoded into a buffer of its own, slashes merged in
 * a pass of their own, every match compared byte by byte. And: escaping every byte of the path
 * and doubling every slash of it changes nothing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admit/route_match.h"
#include "base/must.h"
#include "conf/policy_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The line at *s, without its end; *s moves behind it. */
static struct slice take_line(struct slice *s)
{
    const char *newline = s->n ? memchr(s->p, '\n', s->n) : NULL;
    size_t n = newline ? (size_t)(newline - s->p) : s->n;
    struct slice line = slice_of(s->p, n);
    *s = slice_of(s->p + n + (newline != NULL), s->n - n - (newline != NULL));
    return line;
}

static bool take_escape(const char *p, size_t left, char *out)
{
    char digits[3] = {0}, *end;
    if (left < 3 || p[0] != '%')
        return false;
    memcpy(digits, p + 1, 2);
    if (strspn(digits, "0123456789abcdefABCDEF") != 2)
        return false;
    *out = (char)strtol(digits, &end, 16);
    return true;
}

/* What the application would see, with runs of slashes as one. Owned by the caller. */
static char *plain_path(struct slice path, size_t *n_out)
{
    char *decoded = malloc(path.n + 1), *merged = malloc(path.n + 1);
    size_t n = 0, m = 0;
    must(decoded && merged);
    for (size_t i = 0; i < path.n; i++, n++) {
        if (take_escape(path.p + i, path.n - i, decoded + n))
            i += 2;
        else
            decoded[n] = path.p[i];
    }
    for (size_t i = 0; i < n; i++)
        if (!(decoded[i] == '/' && i && decoded[i - 1] == '/'))
            merged[m++] = decoded[i];
    free(decoded);
    *n_out = m;
    return merged;
}

static bool fits(const struct policy_match *m, struct slice method, const char *path, size_t n)
{
    struct slice wanted = slice_str(m->method); /* in capitals */
    bool head = slice_eq(wanted, SLICE("GET")) && slice_ieq(method, SLICE("HEAD"));
    bool same = method.n > 64 ? slice_eq(wanted, method) : slice_ieq(wanted, method);
    if (wanted.n && !same && !head)
        return false;
    size_t i = 0;
    for (; m->path[i]; i++) {
        if (m->path[i] == '*' && !m->path[i + 1])
            return true;
        if (i == n || path[i] != m->path[i])
            return false;
    }
    return i == n;
}

static unsigned plainly(const struct conf_policy *p, struct slice method, struct slice path)
{
    size_t n;
    unsigned found = ROUTE_NONE;
    char *plain = plain_path(path, &n);
    for (unsigned i = 0; i < p->n_routes && found == ROUTE_NONE; i++)
        for (unsigned k = 0; k < p->routes[i].n_matches; k++)
            if (fits(&p->routes[i].matches[k], method, plain, n))
                found = i;
    free(plain);
    return found;
}

/* Every byte of what the application would see as an escape, slashes twice. */
static unsigned respelt(const struct route_match *m, struct slice method, struct slice path)
{
    size_t n, at = 0;
    char *plain = plain_path(path, &n), *other = malloc(n * 6 + 1);
    must(other);
    for (size_t i = 0; i < n; i++)
        for (int times = plain[i] == '/' ? 2 : 1; times; times--)
            at += (size_t)sprintf(other + at, "%%%02x", (unsigned char)plain[i]);
    unsigned found = route_match_find(m, method, slice_of(other, at));
    free(other);
    free(plain);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size), line;
    struct policy_match matches[POLICY_ROUTES_MAX][POLICY_MATCHES_MAX];
    struct policy_route routes[POLICY_ROUTES_MAX] = {0};
    struct conf_policy p = {.routes = routes};
    struct conf c;
    struct err e = {{0}};
    must(conf_init(&c, CONF_WEIR, &e) == 0);
    /* Fewer than POLICY_METHODS_MAX methods, which the file's reader counts. */
    for (line = take_line(&in); line.n; line = take_line(&in)) {
        char *text = conf_copy(&c, line.p, line.n, &e);
        struct policy_route *r = &routes[p.n_routes];
        must(text);
        if (p.n_routes == 2 || strlen(text) != line.n)
            continue;
        if (policy_value_match(&c, text, matches[p.n_routes], &r->n_matches, &e)) {
            must(e.text[0]);
            r->n_matches = 0;
            continue;
        }
        r->matches = matches[p.n_routes++];
    }
    line = take_line(&in);
    struct slice method = policy_is_token(line) ? line : SLICE("POST");
    struct route_match *m = route_match_new(&p);
    must(m);
    unsigned found = route_match_find(m, method, in);
    must(found == plainly(&p, method, in));
    must(found == respelt(m, method, in));
    route_match_free(&m);
    conf_fini(&c);
    return 0;
}
