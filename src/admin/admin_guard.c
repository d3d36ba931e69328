/* admin_guard: see the header. */
#include "admin/admin_guard.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/base64url.h"
#include "base/secret.h"

/* ---- Host ---- */

/* The host of "host:port", without the brackets of IPv6. */
static struct slice without_port(struct slice host, bool *brackets)
{
    *brackets = host.n && host.p[0] == '[';
    if (*brackets) {
        const char *end = memchr(host.p, ']', host.n);
        return end ? slice_of(host.p + 1, (size_t)(end - host.p - 1)) : (struct slice){0};
    }
    const char *colon = memchr(host.p, ':', host.n);
    return colon ? slice_of(host.p, (size_t)(colon - host.p)) : host;
}

static bool is_ip(struct slice host, bool brackets)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char address[sizeof(struct in6_addr)];
    if (host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    return inet_pton(brackets ? AF_INET6 : AF_INET, text, address) == 1;
}

bool guard_host(struct slice host, const struct conf_list *names)
{
    bool brackets;
    if (!host.n)
        return true;
    struct slice name = without_port(host, &brackets);
    if (!name.n)
        return false;
    if (is_ip(name, brackets))
        return true;
    if (brackets)
        return false;
    bool known = slice_ieq(name, SLICE("localhost"));
    for (unsigned i = 0; i < names->n; i++)
        known |= slice_ieq(name, slice_str(names->items[i]));
    return known;
}

/* ---- Origin ---- */

bool guard_origin(const struct req *r)
{
    struct slice site = req_field(r, SLICE("sec-fetch-site"));
    struct slice origin = req_field(r, SLICE("origin"));
    if (site.n && !slice_ieq(site, SLICE("same-origin")) && !slice_ieq(site, SLICE("none")))
        return false;
    if (!origin.n)
        return true;
    /* TLS may end at a proxy, so the scheme is not compared. */
    size_t scheme = slice_starts(origin, SLICE("http://"))    ? 7
                    : slice_starts(origin, SLICE("https://")) ? 8
                                                              : 0;
    return scheme && slice_ieq(slice_of(origin.p + scheme, origin.n - scheme), r->host);
}

/* ---- the token ---- */

/* "user:password" in base64 (RFC 4648 §4) to the password, inside `room`. */
static bool password_of(struct slice text, char *room, size_t n, struct slice *password)
{
    char plain[1024];
    while (text.n && text.p[text.n - 1] == '=')
        text.n--;
    if (text.n > sizeof plain || base64url_bytes(text.n) > n)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '-' || c == '_')
            return false;
        plain[i] = c == '+' ? '-' : c == '/' ? '_' : c;
    }
    if (!base64url_decode(slice_of(plain, text.n), (unsigned char *)room))
        return false;
    size_t bytes = base64url_bytes(text.n);
    const char *colon = bytes ? memchr(room, ':', bytes) : NULL;
    if (!colon)
        return false;
    *password = slice_of(colon + 1, bytes - (size_t)(colon + 1 - room));
    return true;
}

enum guard_verdict guard_token(const struct req *r, struct slice token)
{
    char room[1024];
    struct slice given = req_field(r, SLICE("authorization"));
    if (!given.n)
        return GUARD_NONE;
    const char *space = memchr(given.p, ' ', given.n);
    if (!space)
        return GUARD_WRONG;
    struct slice scheme = slice_of(given.p, (size_t)(space - given.p));
    struct slice rest = slice_trim(slice_of(space, given.n - scheme.n));
    enum guard_verdict verdict = GUARD_WRONG;
    if (slice_ieq(scheme, SLICE("bearer")))
        verdict = secret_same(rest, token) ? GUARD_RIGHT : GUARD_WRONG;
    else if (slice_ieq(scheme, SLICE("basic")) && password_of(rest, room, sizeof room, &given))
        verdict = secret_same(given, token) ? GUARD_RIGHT : GUARD_WRONG;
    explicit_bzero(room, sizeof room);
    return verdict;
}

/* ---- wrong tokens ---- */

static const struct guard_address *find(const struct guard_tries *t, const unsigned char *key)
{
    for (unsigned i = 0; i < GUARD_ADDRESSES; i++)
        if (t->rows[i].paid_ns && memcmp(t->rows[i].key, key, GUARD_KEY_BYTES) == 0)
            return &t->rows[i];
    return NULL;
}

bool guard_may_try(const struct guard_tries *t, const unsigned char key[GUARD_KEY_BYTES],
                   int64_t now_ns)
{
    const struct guard_address *a = find(t, key);
    return !a || a->paid_ns - now_ns <= (GUARD_BURST - 1) * GUARD_STEP_NS;
}

void guard_was_wrong(struct guard_tries *t, const unsigned char key[GUARD_KEY_BYTES],
                     int64_t now_ns)
{
    struct guard_address *a = (struct guard_address *)find(t, key);
    for (unsigned i = 0; !a && i < GUARD_ADDRESSES; i++)
        if (!t->rows[i].paid_ns)
            a = &t->rows[i];
    if (!a) {
        a = &t->rows[0];
        for (unsigned i = 1; i < GUARD_ADDRESSES; i++)
            if (t->rows[i].paid_ns < a->paid_ns)
                a = &t->rows[i];
        a->paid_ns = 0;
    }
    memcpy(a->key, key, GUARD_KEY_BYTES);
    a->paid_ns = (a->paid_ns > now_ns ? a->paid_ns : now_ns) + GUARD_STEP_NS;
}
