/* cors: see the header. */
#include "handler/cors.h"

#include <stdio.h>

#include "http/req.h"

/* What Weir itself says to programs in fields, so that scripts can read it. */
#define EXPOSED "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"

/* ---- origins ---- */

static bool is_port(struct slice s)
{
    if (s.n < 1 || s.n > 5)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return true;
}

/* One or more labels in front of a name; what a host name can hold. */
static bool is_labels(struct slice s)
{
    bool start = true;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = slice_lower((unsigned char)s.p[i]);
        bool letter = (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b == '-' || b == '_';
        if (!letter && (b != '.' || start))
            return false;
        start = b == '.';
    }
    return s.n && !start;
}

static struct slice cut(struct slice s, size_t from, size_t to)
{
    return slice_of(s.p + from, to - from);
}

static bool entry_matches(struct slice entry, struct slice origin)
{
    const char *star = memchr(entry.p, '*', entry.n);
    if (!star)
        return slice_eq(entry, origin) || slice_ieq(entry, origin);
    if (entry.n == 1)
        return true;
    size_t at = (size_t)(star - entry.p), behind = entry.n - at - 1;
    struct slice head = cut(entry, 0, at), tail = cut(entry, at + 1, entry.n);
    if (!behind) { /* the port; none is a port, too */
        if (origin.n == at - 1)
            return slice_ieq(cut(entry, 0, at - 1), origin);
        return origin.n > at && slice_ieq(head, cut(origin, 0, at)) &&
               is_port(cut(origin, at, origin.n));
    }
    return origin.n > at + behind && slice_ieq(head, cut(origin, 0, at)) &&
           slice_ieq(tail, cut(origin, origin.n - behind, origin.n)) &&
           is_labels(cut(origin, at, origin.n - behind));
}

bool cors_allows(const struct policy_cors *p, struct slice origin)
{
    if (!origin.n || origin.n > CORS_ORIGIN_BYTES_MAX)
        return false;
    for (unsigned i = 0; i < p->n_origins; i++)
        if (entry_matches(slice_str(p->origins[i]), origin))
            return true;
    return false;
}

static bool is_any(const struct policy_cors *p)
{
    for (unsigned i = 0; i < p->n_origins; i++)
        if (strcmp(p->origins[i], "*") == 0)
            return true;
    return false;
}

/* ---- answers ---- */

static char *put(char *to, struct slice s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

struct slice cors_lines(const struct policy_cors *p, struct slice origin, struct arena *arena)
{
    struct slice none = {0};
    const bool any = is_any(p) && !p->credentials, allowed = cors_allows(p, origin);
    if (any && !origin.n)
        return none;
    if (!allowed) /* another origin's answer is not this one's: caches have to know */
        return any ? none : SLICE("Vary: Origin\r\n");
    struct slice more = slice_str(p->expose);
    char *start = arena_alloc(arena, origin.n + more.n + 320), *to = start;
    if (!start)
        return none;
    to = put(to, SLICE("Access-Control-Allow-Origin: "));
    to = put(to, any ? SLICE("*") : origin);
    to = put(to, any ? SLICE("\r\n") : SLICE("\r\nVary: Origin\r\n"));
    if (p->credentials)
        to = put(to, SLICE("Access-Control-Allow-Credentials: true\r\n"));
    to = put(to, SLICE("Access-Control-Expose-Headers: "));
    to = put(to, SLICE(EXPOSED));
    if (more.n)
        to = put(put(to, SLICE(", ")), more);
    to = put(to, SLICE("\r\n"));
    return slice_of(start, (size_t)(to - start));
}

bool cors_is_preflight(const struct req *r, struct cors_ask *out)
{
    if (!slice_eq(r->method, SLICE("OPTIONS")))
        return false;
    out->origin = req_field(r, SLICE("origin"));
    out->method = req_field(r, SLICE("access-control-request-method"));
    out->headers = req_field(r, SLICE("access-control-request-headers"));
    return out->origin.n && out->method.n;
}

/* Names of fields with commas between: what may be sent back. */
static bool is_names(struct slice s)
{
    static const char MORE[] = "!#$%&'*+-.^_`|~, \t";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = slice_lower((unsigned char)s.p[i]);
        if (!((b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || memchr(MORE, b, sizeof MORE - 1)))
            return false;
    }
    return s.n > 0 && s.n <= 4096;
}

static bool field(struct call *c, struct slice name, struct slice value)
{
    return call_field(c, name, value) == CALL_OK;
}

void cors_preflight(const struct policy_cors *p, const struct cors_ask *ask, struct call *c)
{
    if (!cors_allows(p, ask->origin)) {
        call_error(c, 403, "pages of this origin may not ask here: it is not among cors.origins");
        return;
    }
    struct slice headers = *p->headers              ? slice_str(p->headers)
                           : is_names(ask->headers) ? ask->headers
                                                    : (struct slice){0};
    char age[32];
    snprintf(age, sizeof age, "%lld", (long long)p->max_age_s);
    bool good = call_status(c, SLICE("204 No Content")) == CALL_OK &&
                field(c, SLICE("Access-Control-Allow-Methods"), slice_str(p->methods)) &&
                (!headers.n || field(c, SLICE("Access-Control-Allow-Headers"), headers)) &&
                field(c, SLICE("Access-Control-Max-Age"), slice_str(age)) &&
                field(c, SLICE("Vary"),
                      SLICE("Access-Control-Request-Method, Access-Control-Request-Headers")) &&
                !call_begin(c, 0) && !call_end(c);
    if (!good)
        call_abort(c, "no memory for a preflight");
}
