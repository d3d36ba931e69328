/*
 * h1_parse: strict HTTP/1.1 heads and chunked bodies.
 *
 * How a head is read. A whole head, the ordinary case, takes one pass: request line, field
 * lines, the empty line, then the checks that need all fields (Host, framing). This pass only
 * says "good" or "look again". Whatever is not plainly good - incomplete, broken, too long -
 * goes to scan(), which walks from where it stopped last time and refuses at the first byte
 * that cannot belong to a head, at the end of the first line that is malformed, or at a limit.
 * What scan() refuses depends on the bytes alone and never on how they were cut into reads, so
 * a head has one verdict; and a peer that sends one byte at a time costs one look per byte.
 *
 * Order of the refusals: bytes, limits and lines in the order sent; then, of a head that is
 * whole, the number of fields, Host, framing, Expect.
 *
 * A folded field is not plainly good either: its second line looks like one without a name.
 */
#include "http/h1_parse.h"

#include <arpa/inet.h>

#include "base/must.h"

/* RFC 9112 §2.2: "at least one" empty line before the request line; more than this is no client. */
static const unsigned EMPTY_LINES_MAX = 16;
/* Lengths beyond it do not fit the signed 64 bits of files and sockets. */
static const uint64_t LENGTH_MAX = INT64_MAX;
static const unsigned PORT_MAX = 65535;

/* ---- byte classes ---- */

enum {
    CLS_TOKEN = 1,  /* RFC 9110 §5.6.2 tchar */
    CLS_NAME = 2,   /* the same but '_' */
    CLS_TARGET = 4, /* visible ASCII but '?' and '#', which part a target */
    CLS_LINE = 8,   /* may stand in a request line: visible ASCII and SP */
    CLS_VALUE = 16, /* may stand in a field line: HTAB, SP, visible ASCII, obs-text */
    CLS_HOST = 32,  /* reg-name of RFC 3986 §3.2.2 but '%' and ',' */
    CLS_HEX = 64,
    CLS_QUOTED = 128, /* qdtext of RFC 9110 §5.6.4: as CLS_VALUE but '"' and '\' */
};

#define PUNCT (CLS_TARGET | CLS_LINE | CLS_VALUE | CLS_QUOTED)
#define TPUNCT (PUNCT | CLS_TOKEN | CLS_NAME) /* ^ ` | # */
#define HPUNCT (PUNCT | CLS_HOST)             /* ( ) ; = */
#define THPUNCT (TPUNCT | CLS_HOST)           /* ! $ & ' * + - . ~ */
#define ALPHA THPUNCT
#define HEX (ALPHA | CLS_HEX)

/* clang-format off */
static const uint8_t cls[256] = {
    ['\t'] = CLS_VALUE | CLS_QUOTED,
    [' '] = CLS_LINE | CLS_VALUE | CLS_QUOTED,
    ['!'] = THPUNCT, ['"'] = PUNCT & ~CLS_QUOTED, ['#'] = TPUNCT & ~CLS_TARGET, ['$'] = THPUNCT,
    ['%'] = TPUNCT, ['&'] = THPUNCT, ['\''] = THPUNCT, ['('] = HPUNCT, [')'] = HPUNCT,
    ['*'] = THPUNCT, ['+'] = THPUNCT, [','] = PUNCT, ['-'] = THPUNCT, ['.'] = THPUNCT,
    ['/'] = PUNCT, ['0' ... '9'] = HEX, [':'] = PUNCT, [';'] = HPUNCT, ['<'] = PUNCT,
    ['='] = HPUNCT, ['>'] = PUNCT, ['?'] = PUNCT & ~CLS_TARGET, ['@'] = PUNCT,
    ['A' ... 'F'] = HEX, ['G' ... 'Z'] = ALPHA, ['['] = PUNCT, ['\\'] = PUNCT & ~CLS_QUOTED,
    [']'] = PUNCT, ['^'] = TPUNCT, ['_'] = THPUNCT & ~CLS_NAME, ['`'] = TPUNCT,
    ['a' ... 'f'] = HEX, ['g' ... 'z'] = ALPHA, ['{'] = PUNCT, ['|'] = TPUNCT, ['}'] = PUNCT,
    ['~'] = THPUNCT, [0x80 ... 0xff] = CLS_VALUE | CLS_QUOTED,
};
/* clang-format on */

static inline unsigned cls_of(char c)
{
    return cls[(unsigned char)c];
}

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

static inline bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* The first byte in [p, end) that may not stand in a field value; end when all may. */
static inline const char *value_end(const char *p, const char *end)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* Eight bytes at a time: the high bit of each byte that is < 0x20 or 0x7f. A borrow spoils
     * only bits above a true one, so the lowest bit set is right. HTAB is sorted out below. */
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    while (end - p >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        uint64_t del = w ^ (ones * 0x7f);
        uint64_t hit = (((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & high;
        if (!hit) {
            p += 8;
            continue;
        }
        p += __builtin_ctzll(hit) / 8;
        if (*p != '\t')
            return p;
        p++;
    }
#endif
    while (p < end && (cls_of(*p) & CLS_VALUE))
        p++;
    return p;
}

/* Are the `n` bytes of a token at `p` the lower-case letters and dashes of `lit`? Setting bit 5
 * maps no other tchar onto those. With `n` constant this compiles to a few loads. */
static inline __attribute__((always_inline)) bool token_is(const char *p, const char *lit, size_t n)
{
    const uint64_t fold = 0x2020202020202020u;
    uint64_t a = 0, b = 0;
    if (n < 8) {
        memcpy(&a, p, n & 7); /* "& 7" for the compiler's bounds check alone */
        memcpy(&b, lit, n & 7);
        return (a | fold) == (b | fold);
    }
    for (size_t i = 0; i + 8 <= n; i += 8) {
        memcpy(&a, p + i, 8);
        memcpy(&b, lit + i, 8);
        if ((a | fold) != b)
            return false;
    }
    memcpy(&a, p + n - 8, 8);
    memcpy(&b, lit + n - 8, 8);
    return (a | fold) == b;
}

#define IS(lit) token_is(p, lit, sizeof(lit) - 1)

static enum hdr identify(const char *p, size_t n)
{
    switch (n) {
    case 2:
        return IS("te") ? HDR_TE : HDR_OTHER;
    case 4:
        return IS("host") ? HDR_HOST : HDR_OTHER;
    case 6:
        return IS("cookie") ? HDR_COOKIE : IS("expect") ? HDR_EXPECT : HDR_OTHER;
    case 7:
        return IS("referer")   ? HDR_REFERER
               : IS("upgrade") ? HDR_UPGRADE
               : IS("trailer") ? HDR_TRAILER
                               : HDR_OTHER;
    case 9:
        return IS("forwarded") ? HDR_FORWARDED : HDR_OTHER;
    case 10:
        return IS("connection") ? HDR_CONNECTION : IS("user-agent") ? HDR_USER_AGENT : HDR_OTHER;
    case 12:
        return IS("content-type") ? HDR_CONTENT_TYPE : HDR_OTHER;
    case 13:
        return IS("authorization") ? HDR_AUTHORIZATION : HDR_OTHER;
    case 14:
        return IS("content-length")   ? HDR_CONTENT_LENGTH
               : IS("x-forwarded-by") ? HDR_X_FORWARDED_BY
                                      : HDR_OTHER;
    case 15:
        return IS("x-forwarded-for") ? HDR_X_FORWARDED_FOR : HDR_OTHER;
    case 16:
        return IS("x-forwarded-host")   ? HDR_X_FORWARDED_HOST
               : IS("x-forwarded-port") ? HDR_X_FORWARDED_PORT
                                        : HDR_OTHER;
    case 17:
        return IS("transfer-encoding")   ? HDR_TRANSFER_ENCODING
               : IS("x-forwarded-proto") ? HDR_X_FORWARDED_PROTO
                                         : HDR_OTHER;
    default:
        return HDR_OTHER;
    }
}

/* ---- small grammars ---- */

bool h1_is_token(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(cls_of(s.p[i]) & CLS_TOKEN))
            return false;
    return s.n > 0;
}

bool h1_is_value(struct slice s)
{
    return s.n == 0 || value_end(s.p, s.p + s.n) == s.p + s.n;
}

bool h1_number(struct slice s, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    if (s.n)
        *out = v;
    return s.n > 0;
}

/* The next element of a comma-separated list without its OWS; elements may be empty. False at
 * the end. Not for lists with quoted strings. */
static bool list_next(struct slice *rest, struct slice *element)
{
    if (!rest->p)
        return false;
    const char *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
    size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
    *element = slice_trim(slice_of(rest->p, n));
    *rest = comma ? slice_of(comma + 1, rest->n - n - 1) : slice_of(NULL, 0);
    return true;
}

bool h1_list_has(struct slice list, struct slice token)
{
    struct slice element;
    while (list_next(&list, &element))
        if (slice_ieq(element, token))
            return true;
    return false;
}

/* IP-literal of RFC 3986 §3.2.2 without its brackets. */
static bool is_ip_literal(struct slice s)
{
    if (s.n >= 1 && (s.p[0] | 0x20) == 'v') { /* "v" 1*HEXDIG "." 1*( reg-name byte / ":" ) */
        size_t i = 1;
        while (i < s.n && (cls_of(s.p[i]) & CLS_HEX))
            i++;
        if (i == 1 || i + 1 >= s.n || s.p[i] != '.')
            return false;
        for (i++; i < s.n; i++)
            if (!(cls_of(s.p[i]) & CLS_HOST) && s.p[i] != ':')
                return false;
        return true;
    }
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (s.n == 0 || s.n >= sizeof text || memchr(s.p, 0, s.n))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, &addr) == 1;
}

/* Where the uri-host at the start of `s` ends; SIZE_MAX when it is malformed. A comma is legal
 * in a reg-name but in practice shows two hosts joined, which is one too many. */
static size_t host_end(struct slice s)
{
    const char *p = s.p, *end = s.p + s.n;
    if (s.n && *p == '[') {
        const char *close = memchr(p, ']', s.n);
        if (!close || !is_ip_literal(slice_of(p + 1, (size_t)(close - p) - 1)))
            return SIZE_MAX;
        return (size_t)(close - p) + 1;
    }
    for (;;) {
        while (p < end && (cls_of(*p) & CLS_HOST))
            p++;
        if (p == end || *p != '%')
            return (size_t)(p - s.p);
        if (end - p < 3 || !(cls_of(p[1]) & cls_of(p[2]) & CLS_HEX))
            return SIZE_MAX;
        p += 3;
    }
}

/* `s` is what follows the host: nothing, or ":" and a port that may be empty (RFC 3986 §3.2.3). */
static bool port_ok(struct slice s, bool may_be_empty)
{
    if (s.n <= 1)
        return may_be_empty && (s.n == 0 || s.p[0] == ':');
    unsigned port = 0;
    for (size_t i = 1; i < s.n; i++) {
        port = port * 10 + (unsigned)(s.p[i] - '0');
        if (!is_digit(s.p[i]) || port > PORT_MAX)
            return false;
    }
    return s.p[0] == ':';
}

bool h1_is_host(struct slice s)
{
    if (s.n == 0)
        return true;
    size_t n = host_end(s);
    /* A port without a host names nothing: RFC 9112 §3.3 lets a server refuse it. */
    return n != SIZE_MAX && n > 0 && port_ok(slice_of(s.p + n, s.n - n), true);
}

/* ---- refusals ---- */

WEIR_COLD static enum h1_verdict refuse(struct h1_error *error, int status, const char *reason)
{
    *error = (struct h1_error){status, reason};
    return H1_BAD;
}

/* The same for the readers of one line, which return where the next line starts. */
WEIR_COLD static const char *refuse_line(struct h1_error *error, int status, const char *reason)
{
    *error = (struct h1_error){status, reason};
    return NULL;
}

WEIR_COLD static bool refuse_target(struct h1_error *error, const char *reason)
{
    *error = (struct h1_error){400, reason};
    return false;
}

/* ---- request line: RFC 9112 §3 ---- */

static bool method_is(const struct req *req, struct slice name, unsigned rules)
{
    return rules & H1_FOLD_METHOD ? slice_ieq(req->method, name) : slice_eq(req->method, name);
}

static bool absolute_form(struct slice t, unsigned rules, struct req *req, struct h1_error *error)
{
    struct slice scheme;
    if (t.n >= 7 && memcmp(t.p + 4, "://", 3) == 0 && token_is(t.p, "http", 4))
        scheme = SLICE("http");
    else if (t.n >= 8 && memcmp(t.p + 5, "://", 3) == 0 && token_is(t.p, "https", 5))
        scheme = SLICE("https");
    else
        return refuse_target(error, "The request target is neither a path nor an http URI.");

    const char *authority = t.p + scheme.n + 3, *end = t.p + t.n, *p = authority;
    while (p < end && *p != '/' && *p != '?' && *p != '#')
        p++;
    req->form = REQ_ABSOLUTE;
    req->scheme = scheme;
    req->host = slice_of(authority, (size_t)(p - authority));
    if (req->host.n && memchr(req->host.p, '@', req->host.n))
        return refuse_target(error, "The request target contains user information.");
    /* RFC 9110 §4.2.1: an http URI with an empty host MUST be rejected. */
    if (req->host.n == 0 || !h1_is_host(req->host))
        return refuse_target(error, "The host of the request target is malformed.");

    const char *path = p;
    while (p < end && *p != '?' && *p != '#')
        p++;
    req->path = slice_of(path, (size_t)(p - path));
    if (p < end && *p == '?') {
        const char *query = ++p;
        while (p < end && *p != '#')
            p++;
        req->query = slice_of(query, (size_t)(p - query));
    }
    /* RFC 9112 §3.2.4: OPTIONS for a URI without path and query is the asterisk form. */
    if (req->path.n == 0)
        req->path =
            method_is(req, SLICE("OPTIONS"), rules) && !req->query.p ? SLICE("*") : SLICE("/");
    return true;
}

/* The forms other than a plain path, RFC 9112 §3.2.2 to §3.2.4. */
WEIR_COLD static bool other_form(struct req *req, unsigned rules, struct h1_error *error)
{
    struct slice t = req->target;
    if (method_is(req, SLICE("CONNECT"), rules)) {
        size_t n = host_end(t);
        uint64_t port = 0;
        req->form = REQ_AUTHORITY;
        req->host = t;
        req->path = req->query = slice_of(t.p, 0);
        /* RFC 9110 §9.3.6: an empty or invalid port MUST be rejected. */
        if (n == 0 || n == SIZE_MAX || !port_ok(slice_of(t.p + n, t.n - n), false) ||
            !h1_number(slice_of(t.p + n + 1, t.n - n - 1), &port) || port == 0)
            return refuse_target(error, "The target of CONNECT is not host:port.");
        return true;
    }
    req->query = slice_of(NULL, 0);
    if (slice_eq(t, SLICE("*"))) {
        req->form = REQ_ASTERISK;
        req->path = t;
        if (!method_is(req, SLICE("OPTIONS"), rules))
            return refuse_target(error, "The target * is for OPTIONS alone.");
        return true;
    }
    return absolute_form(t, rules, req, error);
}

/* Any version but HTTP/1.1. */
WEIR_COLD static bool version(const char *p, const char *end, unsigned rules, struct req *req,
                              struct h1_error *error)
{
    if (end - p < 10 || memcmp(p, "HTTP/", 5) != 0 || !is_digit(p[5]) || p[6] != '.' ||
        !is_digit(p[7]) || p[8] != '\r' || p[9] != '\n') {
        refuse(error, 400, "The request line does not end with an HTTP version.");
        return false;
    }
    if (p[5] != '1' && !(rules & H1_ANY_VERSION)) {
        refuse(error, rules & H1_VERSION_400 ? 400 : 505,
               "This server speaks HTTP/1.1 and HTTP/1.0.");
        return false;
    }
    /* RFC 9110 §2.5: higher ones are read as the highest known */
    req->minor = p[5] == '1' ? p[7] != '0' : p[5] != '0';
    return true;
}

/* The rules about methods beyond "a token", which RFC 9110 §9.1 says they are. */
WEIR_COLD static bool method_ok(const struct req *req, unsigned rules, struct h1_error *error)
{
    if (!(rules & H1_PLAIN_METHODS))
        return true;
    bool odd = req->method.n < 3 || req->method.n > 20;
    for (size_t i = 0; i < req->method.n; i++)
        odd |= req->method.p[i] == '#' || (req->method.p[i] >= 'a' && req->method.p[i] <= 'z');
    if (odd)
        refuse(error, 400, "The method is none of 3 to 20 capital letters, digits and signs.");
    return !odd;
}

/*
 * Read the request line at `p`. The last byte before `end` is an LF: no class of bytes above holds
 * it, so the loops need not look for the end. Returns the start of the next line, or NULL when the
 * line is malformed or not whole. The two are told apart by scan(), which calls this only with
 * whole lines; then *error is right.
 */
static inline __attribute__((always_inline)) const char *
request_line(const char *p, const char *end, unsigned rules, struct req *req,
             struct h1_error *error)
{
    const char *start = p;
    if (end - p >= 4 && memcmp(p, "GET ", 4) == 0)
        p += 3;
    while (cls_of(*p) & CLS_TOKEN)
        p++;
    if (p == start || *p != ' ')
        return refuse_line(error, 400,
                           "The request line does not start with a method and a space.");
    req->method = slice_of(start, (size_t)(p - start));

    const char *target = ++p;
    while (cls_of(*p) & CLS_TARGET)
        p++;
    req->path = slice_of(target, (size_t)(p - target));
    if (*p == '?') {
        const char *query = ++p;
        while ((cls_of(*p) & CLS_TARGET) || *p == '?')
            p++;
        req->query = slice_of(query, (size_t)(p - query));
    }
    if (*p == '#') /* the fragment is no part of a target; the peers cut it off too */
        while ((cls_of(*p) & CLS_TARGET) || *p == '?' || *p == '#')
            p++;
    if (p == target || *p != ' ')
        return refuse_line(
            error, 400, "The request line is not method, target and version with single spaces.");
    req->target = slice_of(target, (size_t)(p - target));

    p++;
    if (WEIR_LIKELY(end - p >= 10 && memcmp(p, "HTTP/1.1\r\n", 10) == 0))
        req->minor = 1;
    else if (!version(p, end, rules, req, error))
        return NULL;

    bool origin = *target == '/' && !slice_eq(req->method, SLICE("CONNECT"));
    if (WEIR_UNLIKELY(rules & (H1_PLAIN_METHODS | H1_FOLD_METHOD))) {
        origin = origin && !method_is(req, SLICE("CONNECT"), rules);
        if (!method_ok(req, rules, error))
            return NULL;
    }
    if (WEIR_UNLIKELY(!origin) && !other_form(req, rules, error))
        return NULL;
    return p + 10;
}

/* ---- field lines: RFC 9112 §5 ---- */

/* Read the field line at `p` into *f; arguments and result as of request_line. *underscores becomes
 * true where the name holds one. */
static inline __attribute__((always_inline)) const char *
field_line(const char *p, const char *end, struct field *f, bool *underscores,
           struct h1_error *error)
{
    const char *start = p;
    while (cls_of(*p) & CLS_NAME)
        p++;
    /* CGI names know no dash, so X_Forwarded_For would pass for X-Forwarded-For. */
    f->dropped = *p == '_';
    if (WEIR_UNLIKELY(f->dropped)) {
        *underscores = true;
        while (cls_of(*p) & CLS_TOKEN)
            p++;
    }
    if (p == start || *p != ':')
        return refuse_line(error, 400, "A field line does not start with a name and a colon.");
    size_t name_bytes = (size_t)(p - start);
    f->name = slice_of(start, name_bytes);
    f->id = identify(start, name_bytes);

    p++;
    while (is_ows(*p))
        p++;
    const char *value = p;
    p = value_end(p, end);
    if (p[0] != '\r' || p[1] != '\n')
        return refuse_line(error, 400, "A field value contains a control character.");
    const char *value_stop = p;
    while (value_stop > value && is_ows(value_stop[-1]))
        value_stop--;
    f->value = slice_of(value, (size_t)(value_stop - value));
    return p + 2;
}

/* Does the framing or the routing of the message depend on it? */
WEIR_COLD static bool decides(enum hdr id)
{
    return id == HDR_HOST || id == HDR_CONTENT_LENGTH || id == HDR_TRANSFER_ENCODING ||
           id == HDR_CONNECTION || id == HDR_EXPECT || id == HDR_UPGRADE || id == HDR_TE ||
           id == HDR_TRAILER;
}

/* Read the line at `p`, which starts with white space, as more of the value of *f; the start of the
 * next line, or NULL (RFC 9112 §5.2). */
WEIR_COLD static const char *folded_line(const char *p, const char *end, struct field *f,
                                         bool *folded)
{
    while (is_ows(*p))
        p++;
    const char *value = p;
    p = value_end(p, end);
    if (p[0] != '\r' || p[1] != '\n')
        return NULL;
    const char *stop = p;
    while (stop > value && is_ows(stop[-1]))
        stop--;
    if (stop == value) /* white space alone */
        return p + 2;
    if (f->value.n == 0) {
        f->value = slice_of(value, (size_t)(stop - value));
    } else {
        f->value.n = (size_t)(stop - f->value.p);
        *folded = true;
    }
    return p + 2;
}

size_t h1_unfold(char *p, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\r') {
            p[out++] = p[i];
            continue;
        }
        while (out && is_ows(p[out - 1]))
            out--;
        while (i + 1 < n && (is_ows(p[i + 1]) || p[i + 1] == '\r' || p[i + 1] == '\n'))
            i++;
        p[out++] = ' ';
    }
    return out;
}

/* ---- the fields that decide about the message ---- */

/* What is collected while the fields are read; the rare ones are only counted, and looked for
 * again when they are there. */
struct facts {
    const struct field *host, *length;
    unsigned hosts, lengths, types, codings, connections, expects;
    unsigned over; /* what is wrong with all of them, as bits */
};

enum { OVER_COUNT = 1, OVER_BYTES = 2, OVER_FOLD = 4 };

static inline void note(struct facts *facts, const struct field *f)
{
    switch (f->id) {
    case HDR_HOST:
        facts->host = f;
        facts->hosts++;
        break;
    case HDR_CONTENT_LENGTH:
        facts->length = f;
        facts->lengths++;
        break;
    case HDR_CONTENT_TYPE:
        facts->types++;
        break;
    case HDR_TRANSFER_ENCODING:
        facts->codings++;
        break;
    case HDR_CONNECTION:
        facts->connections++;
        break;
    case HDR_EXPECT:
        facts->expects++;
        break;
    case HDR_OTHER:
    case HDR_UPGRADE:
    case HDR_COOKIE:
    case HDR_USER_AGENT:
    case HDR_REFERER:
    case HDR_FORWARDED:
    case HDR_X_FORWARDED_FOR:
    case HDR_X_FORWARDED_PROTO:
    case HDR_X_FORWARDED_HOST:
    case HDR_X_FORWARDED_PORT:
    case HDR_X_FORWARDED_BY:
    case HDR_TRAILER:
    case HDR_TE:
    case HDR_AUTHORIZATION:
        break;
    }
}

/* Skip a quoted-string (RFC 9110 §5.6.4) at `i`; the index behind it, or 0 when malformed. */
static size_t quoted_end(struct slice s, size_t i)
{
    for (i++; i < s.n; i++) {
        if (s.p[i] == '"')
            return i + 1;
        if (s.p[i] == '\\' && ++i == s.n)
            return 0;
        if (!(cls_of(s.p[i]) & CLS_VALUE))
            return 0;
    }
    return 0;
}

static size_t ows_end(struct slice s, size_t i)
{
    while (i < s.n && is_ows(s.p[i]))
        i++;
    return i;
}

static size_t token_end(struct slice s, size_t i)
{
    while (i < s.n && (cls_of(s.p[i]) & CLS_TOKEN))
        i++;
    return i;
}

/* One transfer-coding of RFC 9112 §7 at `i`, with its parameters; the index behind it, or 0. */
static size_t coding_end(struct slice s, size_t i, struct slice *name, bool *has_parameters)
{
    size_t end = token_end(s, i);
    if (end == i)
        return 0;
    *name = slice_of(s.p + i, end - i);
    *has_parameters = false;
    for (;;) {
        i = ows_end(s, end);
        if (i == s.n || s.p[i] != ';')
            return i;
        *has_parameters = true;
        i = ows_end(s, i + 1);
        end = token_end(s, i);
        if (end == i)
            return 0;
        i = ows_end(s, end);
        if (i == s.n || s.p[i] != '=')
            return 0;
        i = ows_end(s, i + 1);
        end = i < s.n && s.p[i] == '"' ? quoted_end(s, i) : token_end(s, i);
        if (end == 0 || end == i)
            return 0;
    }
}

/* Codings inside chunked that an application may be left to decode. */
static bool outer_coding(struct slice name)
{
    return slice_ieq(name, SLICE("gzip")) || slice_ieq(name, SLICE("deflate")) ||
           slice_ieq(name, SLICE("compress")) || slice_ieq(name, SLICE("identity"));
}

/* Transfer-Encoding over all its lines. Only "chunked" can be decoded here. */
static enum h1_verdict check_codings(struct req *req, unsigned rules, struct h1_error *error)
{
    bool chunked = false, other = false, unknown = false;
    for (unsigned k = 0; k < req->n_fields; k++) {
        if (req->fields[k].id != HDR_TRANSFER_ENCODING)
            continue;
        struct slice s = req->fields[k].value;
        for (size_t i = 0;;) {
            struct slice name;
            bool has_parameters;
            i = ows_end(s, i);
            if (i < s.n && s.p[i] != ',') {
                i = coding_end(s, i, &name, &has_parameters);
                if (i == 0 || (i < s.n && s.p[i] != ','))
                    return refuse(error, 400, "Transfer-Encoding is malformed.");
                if (chunked)
                    return refuse(error, 400, "Transfer-Encoding continues after chunked.");
                if (!slice_ieq(name, SLICE("chunked"))) {
                    other = true;
                    unknown |= has_parameters || !outer_coding(name);
                } else if (has_parameters)
                    return refuse(error, 400, "The coding chunked has no parameters.");
                else
                    chunked = true;
            }
            if (i == s.n)
                break;
            i++; /* the comma; RFC 9110 §5.6.1.2: empty elements are ignored */
        }
    }
    if (!chunked)
        return refuse(error, 400, "Transfer-Encoding does not end with chunked.");
    if (other && (unknown || !(rules & H1_OUTER_CODINGS)))
        return refuse(error, 501, "The only transfer coding known here is chunked.");
    req->keep_alive &= !other; /* what others make of such a message is uncertain */
    return H1_DONE;
}

/* RFC 9110 §10.1.1. */
static enum h1_verdict check_expect(struct req *req, struct h1_error *error)
{
    for (unsigned k = 0; k < req->n_fields; k++) {
        struct slice list = req->fields[k].value, element;
        if (req->fields[k].id != HDR_EXPECT)
            continue;
        while (list_next(&list, &element)) {
            if (element.n == 0)
                continue;
            if (!slice_ieq(element, SLICE("100-continue")))
                return refuse(error, 417, "The only expectation known here is 100-continue.");
            /* Without content there is nothing to ask for; HTTP/1.0 does not know the answer. */
            req->expect_continue = req->minor == 1 && req->framing != REQ_BODY_NONE;
        }
    }
    return H1_DONE;
}

/* RFC 9112 §9.3: "close" wins, HTTP/1.1 persists, HTTP/1.0 only when it asks. */
static bool check_connection(const struct req *req)
{
    bool keep = req->minor == 1, close = false;
    for (unsigned k = 0; k < req->n_fields; k++) {
        if (req->fields[k].id != HDR_CONNECTION)
            continue;
        close = close || h1_list_has(req->fields[k].value, SLICE("close"));
        keep = keep || h1_list_has(req->fields[k].value, SLICE("keep-alive"));
    }
    return keep && !close;
}

static enum h1_verdict check_host(struct req *req, const struct facts *facts, bool lax,
                                  struct h1_error *error)
{
    if (WEIR_UNLIKELY(facts->hosts != 1)) {
        if (facts->hosts > 1)
            return refuse(error, 400, "Host is given more than once.");
        if (req->minor >= 1 && !lax)
            return refuse(error, 400, "Host is missing.");
        return H1_DONE;
    }
    struct slice host = facts->host->value;
    if (!lax && !h1_is_host(host))
        return refuse(error, 400, "Host is malformed.");
    /* RFC 9112 §3.2.2: the host of the target wins. */
    if (req->form != REQ_ABSOLUTE && req->form != REQ_AUTHORITY)
        req->host = host;
    return H1_DONE;
}

/* RFC 9112 §6.3: how long is the body? */
static enum h1_verdict check_framing(struct req *req, const struct facts *facts, unsigned rules,
                                     struct h1_error *error)
{
    if (facts->codings) {
        if (facts->lengths)
            return refuse(error, 400, "Content-Length and Transfer-Encoding exclude each other.");
        if (req->minor == 0)
            return refuse(error, 400, "HTTP/1.0 has no Transfer-Encoding.");
        req->framing = REQ_BODY_CHUNKED;
        return check_codings(req, rules, error);
    }
    if (facts->lengths) {
        if (facts->lengths > 1)
            return refuse(error, 400, "Content-Length is given more than once.");
        if (!h1_number(facts->length->value, &req->content_length) ||
            req->content_length > LENGTH_MAX) {
            req->content_length = 0;
            return refuse(error, 400, "Content-Length is not a number of bytes.");
        }
        req->has_content_length = true;
        if (req->content_length)
            req->framing = REQ_BODY_LENGTH;
    }
    return H1_DONE;
}

static inline enum h1_verdict check_message(struct req *req, const struct facts *facts,
                                            const struct h1_limits *limits, struct h1_error *error)
{
    if (WEIR_UNLIKELY(facts->over))
        return facts->over & OVER_COUNT ? refuse(error, 431, "The request has too many fields.")
               : facts->over & OVER_BYTES
                   ? refuse(error, 431, "A field line is too long.")
                   : refuse(error, 400, "A field that decides about the message is folded.");
    enum h1_verdict v = check_host(req, facts, limits->lax_host, error);
    if (v != H1_DONE)
        return v;
    req->keep_alive = facts->connections ? check_connection(req) : req->minor == 1;
    if (facts->lengths | facts->codings) {
        v = check_framing(req, facts, limits->rules, error);
        if (v != H1_DONE)
            return v;
    }
    if (facts->types > 1)
        return refuse(error, 400, "Content-Type is given more than once.");
    return facts->expects ? check_expect(req, error) : H1_DONE;
}

/* ---- one pass over a whole head ---- */

/* The size limit of one line: `most` unless 0. */
static inline size_t line_max(size_t most)
{
    return most ? most : SIZE_MAX;
}

/*
 * The head at [p, end). H1_MORE means "not plainly good", for scan() to look into; H1_BAD is
 * final, for the syntax of the whole head was good. Only then or on H1_DONE *used is set.
 */
static inline enum h1_verdict parse(const char *p, const char *end, const struct h1_limits *limits,
                                    struct field *fields, struct req *req, const char **used,
                                    struct h1_error *error)
{
    struct facts facts = {0};
    struct field spare; /* takes the fields beyond the limit, whose syntax still matters */
    unsigned n = 0;
    bool underscores = false;
    const char *line = p;

    *req = (struct req){.scheme = {"http", 4}, .fields = fields};
    if (end[-1] != '\n') { /* content or half a line follows; see request_line */
        const char *lf = memrchr(p, '\n', (size_t)(end - p));
        if (!lf)
            return H1_MORE;
        end = lf + 1;
    }
    p = request_line(p, end, limits->rules, req, error);
    if (!p || (size_t)(p - line) - 2 > line_max(limits->line_bytes))
        return H1_MORE;
    const size_t most = line_max(limits->field_bytes);
    while (p < end && *p != '\r') {
        struct field *f = n < limits->fields ? &fields[n] : &spare;
        line = p;
        p = field_line(p, end, f, &underscores, error);
        if (WEIR_UNLIKELY(!p || (size_t)(p - line) - 2 > most)) {
            struct field *last = facts.over & OVER_COUNT ? &spare : n ? &fields[n - 1] : NULL;
            if (p || !last || !(limits->rules & H1_OBS_FOLD) || !is_ows(*line))
                return H1_MORE;
            p = folded_line(line, end, last, &req->folded);
            if (!p || (size_t)(p - line) - 2 > most)
                return H1_MORE;
            facts.over |= (size_t)(p - last->name.p) - 2 > most ? OVER_BYTES : 0;
            facts.over |= decides(last->id) ? OVER_FOLD : 0;
            continue;
        }
        if (WEIR_UNLIKELY(f == &spare)) {
            facts.over |= OVER_COUNT;
            continue;
        }
        note(&facts, f);
        n++;
    }
    if (p == end || p[1] != '\n')
        return H1_MORE;
    *used = p + 2;
    req->n_fields = n;
    req->underscores = underscores;
    req->head = req->method.n == 4 && memcmp(req->method.p, "HEAD", 4) == 0;
    if (WEIR_UNLIKELY(limits->rules & H1_FOLD_METHOD))
        req->head = slice_ieq(req->method, SLICE("HEAD"));
    return check_message(req, &facts, limits, error);
}

/* ---- the careful walk ---- */

WEIR_COLD static enum h1_verdict refuse_long(struct h1_error *error, bool first_line)
{
    return first_line ? refuse(error, 414, "The request line is too long.")
                      : refuse(error, 431, "The request head is too long.");
}

/* May the byte at `c` stand at this place of a line? */
static inline bool byte_ok(const char *c, const char *line, bool first_line)
{
    if (c == line)
        return (cls_of(*c) & CLS_TOKEN) != 0;
    return (cls_of(*c) & (first_line ? CLS_LINE : CLS_VALUE)) != 0;
}

/* Why not? */
WEIR_COLD static enum h1_verdict refuse_byte(struct h1_error *error, const char *c,
                                             const char *line, bool first_line)
{
    if (*c == '\n')
        return refuse(error, 400, "A line ends with LF alone.");
    if (*c == '\r')
        return refuse(error, 400, "A CR is not followed by LF.");
    if (first_line)
        return refuse(error, 400,
                      c == line ? "This is not an HTTP request."
                                : "The request line contains a forbidden character.");
    if (c == line && is_ows(*c))
        return refuse(error, 400, "A field line starts with white space.");
    return refuse(error, 400,
                  c == line ? "A field name is missing or malformed."
                            : "A field line contains a control character.");
}

/* May the line at `line`, which starts with white space, continue a field? Not the request line. */
WEIR_COLD static bool may_fold(const char *start, const char *line, const struct h1_limits *limits)
{
    return (limits->rules & H1_OBS_FOLD) && line - start > 2 &&
           memrchr(start, '\n', (size_t)(line - start) - 1);
}

/*
 * Walk over [start, end) from start + *seen, a place between two bytes of some line. H1_DONE:
 * the syntax is good up to and with the empty line. H1_MORE: *seen is where to go on.
 */
WEIR_COLD static enum h1_verdict scan(const char *start, const char *end, bool full, size_t *seen,
                                      const struct h1_limits *limits, struct h1_error *error)
{
    const char *p = start + *seen;
    /* Looking back for the start of the line is a fast search over at most one line. */
    const char *lf = *seen ? memrchr(start, '\n', *seen) : NULL;
    const char *line = lf ? lf + 1 : start;

    int fold = -1; /* does `line` continue a field? -1: not looked at yet */

    for (; p < end; p++) {
        bool first_line = line == start;
        if (fold < 0)
            fold = is_ows(*line) && may_fold(start, line, limits);
        if (*p == '\r' && p + 1 == end)
            break; /* its LF may follow */
        if (*p == '\r' && p[1] == '\n') {
            if (p == line) /* not the first: empty lines before a request were skipped */
                return H1_DONE;
            struct req req = {0};
            struct field field;
            bool underscores;
            const char *next = fold         ? p + 2 /* its bytes were looked at */
                               : first_line ? request_line(line, p + 2, limits->rules, &req, error)
                                            : field_line(line, p + 2, &field, &underscores, error);
            if (!next)
                return H1_BAD;
            must(next == p + 2);
            line = next;
            fold = -1;
            p++;
            continue;
        }
        size_t most = line_max(first_line ? limits->line_bytes : limits->field_bytes);
        if ((size_t)(p - line) >= most)
            return first_line ? refuse(error, 414, "The request line is too long.")
                              : refuse(error, 431, "A field line is too long.");
        if (!(fold ? cls_of(*p) & CLS_VALUE : byte_ok(p, line, first_line)))
            return refuse_byte(error, p, line, first_line);
    }
    if (full)
        return refuse_long(error, line == start);
    *seen = (size_t)(p - start);
    return H1_MORE;
}

enum h1_verdict h1_head(const char *p, size_t n, size_t *seen, const struct h1_limits *limits,
                        struct field *fields, struct req *req, size_t *used, struct h1_error *error)
{
    size_t skip = 0;
    if (n == 0)
        return H1_MORE;
    if (WEIR_UNLIKELY(*p == '\r' || *p == '\n')) {
        for (unsigned lines = 0; skip < n && (p[skip] == '\r' || p[skip] == '\n'); skip += 2) {
            if (p[skip] == '\n')
                return refuse(error, 400, "A line ends with LF alone.");
            if (lines++ == EMPTY_LINES_MAX)
                return refuse(error, 400, "Too many empty lines before a request.");
            if (skip + 1 == n)
                return H1_MORE;
            if (p[skip + 1] != '\n')
                return refuse(error, 400, "A CR is not followed by LF.");
        }
        if (skip == n)
            return H1_MORE;
    }
    const char *start = p + skip, *end = p + n, *stop = NULL;
    /* A head of the full size that is not complete will never be. */
    bool full = limits->head_bytes && n - skip >= limits->head_bytes;
    if (full)
        end = start + limits->head_bytes;

    enum h1_verdict v = H1_MORE;
    size_t looked = *seen > skip ? *seen - skip : 0;
    if (looked == 0) {
        v = parse(start, end, limits, fields, req, &stop, error);
        if (WEIR_LIKELY(v != H1_MORE)) {
            *used = (size_t)(stop - p);
            return v;
        }
    }
    v = scan(start, end, full, &looked, limits, error);
    if (v == H1_DONE) {
        v = parse(start, end, limits, fields, req, &stop, error);
        must(v != H1_MORE);
        *used = (size_t)(stop - p);
    }
    *seen = skip + looked;
    return v;
}

/* ---- chunked bodies: RFC 9112 §7.1 ---- */

static const uint32_t SIZE_DIGITS_MAX = 16;
/* Extensions and trailers together, beyond what the content itself pays for. */
static const uint32_t EXTRA_BYTES_MAX = 16 * 1024;
static const uint32_t TRAILERS_MAX = 100;

enum {
    CH_SIZE = 0,     /* before or inside the digits of a size */
    CH_BEFORE_EXT,   /* white space; must lead to ';' */
    CH_EXT,          /* behind ';': white space or a name */
    CH_EXT_NAME,     /* inside a name */
    CH_AFTER_NAME,   /* white space behind a name; must lead to '=' or ';' */
    CH_EXT_EQUALS,   /* behind '=': white space or a value */
    CH_EXT_TOKEN,    /* inside a value that is a token */
    CH_EXT_QUOTED,   /* inside a value in quotes */
    CH_EXT_ESCAPED,  /* behind a backslash in quotes */
    CH_EXT_END,      /* behind the closing quote */
    CH_SIZE_LF,      /* behind the CR of a size line */
    CH_DATA,         /* inside the content of a chunk */
    CH_DATA_CR,      /* behind the content */
    CH_DATA_LF,      /* behind the CR behind the content */
    CH_TRAILER,      /* at the start of a trailer line or of the empty line */
    CH_TRAILER_NAME, /* inside a trailer's name */
    CH_TRAILER_VALUE,
    CH_TRAILER_LF, /* behind the CR of a trailer line */
    CH_END_LF,     /* behind the CR of the empty line */
    CH_DONE,
};

static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
}

/*
 * RFC 9110 §6.5.1: fields about framing, routing, authentication, request modifiers and content
 * format have no business in a trailer. They would be dropped like all trailers; but a peer that
 * sends one tries something, or believes that it counts.
 */
static bool trailer_forbidden(struct slice name)
{
    static const char *const names[] = {
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    };
    for (size_t i = 0; i < countof(names); i++)
        if (slice_ieq(name, slice_str(names[i])))
            return true;
    return slice_starts(name, SLICE("x-forwarded-")); /* `name` is in lower case */
}

/* The state behind the byte `c` of a size line, or -1. */
static int size_line_step(struct h1_chunked *c, char b)
{
    unsigned k = cls_of(b);
    switch (c->state) {
    case CH_BEFORE_EXT:
        return is_ows(b) ? CH_BEFORE_EXT : b == ';' ? CH_EXT : -1;
    case CH_EXT:
        return is_ows(b) ? CH_EXT : (k & CLS_TOKEN) ? CH_EXT_NAME : -1;
    case CH_EXT_NAME:
        if (k & CLS_TOKEN)
            return CH_EXT_NAME;
        if (is_ows(b))
            return CH_AFTER_NAME;
        return b == '=' ? CH_EXT_EQUALS : b == ';' ? CH_EXT : b == '\r' ? CH_SIZE_LF : -1;
    case CH_AFTER_NAME:
        return is_ows(b) ? CH_AFTER_NAME : b == '=' ? CH_EXT_EQUALS : b == ';' ? CH_EXT : -1;
    case CH_EXT_EQUALS:
        if (is_ows(b))
            return CH_EXT_EQUALS;
        return b == '"' ? CH_EXT_QUOTED : (k & CLS_TOKEN) ? CH_EXT_TOKEN : -1;
    case CH_EXT_TOKEN:
        if (k & CLS_TOKEN)
            return CH_EXT_TOKEN;
        break;
    case CH_EXT_QUOTED:
        if (b == '"')
            return CH_EXT_END;
        return b == '\\' ? CH_EXT_ESCAPED : (k & CLS_QUOTED) ? CH_EXT_QUOTED : -1;
    case CH_EXT_ESCAPED:
        return (k & CLS_VALUE) ? CH_EXT_QUOTED : -1;
    default: /* CH_EXT_END, and CH_SIZE behind its digits */
        break;
    }
    return is_ows(b) ? CH_BEFORE_EXT : b == ';' ? CH_EXT : b == '\r' ? CH_SIZE_LF : -1;
}

/* A digit, or the first byte behind the digits. */
static enum h1_verdict size_step(struct h1_chunked *c, char b, struct h1_error *error)
{
    if (cls_of(b) & CLS_HEX) {
        if (++c->line_bytes > SIZE_DIGITS_MAX || c->left >> 59)
            return refuse(error, 400, "A chunk is too large.");
        c->left = c->left << 4 | (uint64_t)hex_value(b);
        return H1_MORE;
    }
    if (c->line_bytes == 0)
        return refuse(error, 400, "A chunk size is missing.");
    int next = size_line_step(c, b);
    if (next < 0)
        return refuse(error, 400, "Invalid chunk size.");
    c->extra_bytes += next != CH_SIZE_LF;
    c->state = next;
    return H1_MORE;
}

/* The LF of a size line: content or trailers follow. */
static void size_done(struct h1_chunked *c)
{
    c->line_bytes = 0;
    if (c->left == 0) {
        c->state = CH_TRAILER;
        return;
    }
    /* Content pays for its extensions: a long upload with a signature on each chunk is fine,
     * many tiny chunks with long extensions are not. */
    c->extra_bytes -= c->left < c->extra_bytes ? (uint32_t)c->left : c->extra_bytes;
    c->state = CH_DATA;
}

static enum h1_verdict trailer_step(struct h1_chunked *c, char b, struct h1_error *error)
{
    if (b != '\r' && ++c->extra_bytes > EXTRA_BYTES_MAX)
        return refuse(error, 431, "The trailers are too long.");
    switch (c->state) {
    case CH_TRAILER:
        if (b == '\r') {
            c->state = CH_END_LF;
            return H1_MORE;
        }
        if (!(cls_of(b) & CLS_TOKEN))
            return refuse(error, 400, "A trailer does not start with a name.");
        if (++c->trailers > TRAILERS_MAX)
            return refuse(error, 431, "There are too many trailers.");
        c->name_bytes = 0;
        c->state = CH_TRAILER_NAME;
        __attribute__((fallthrough));
    case CH_TRAILER_NAME:
        if (cls_of(b) & CLS_TOKEN) {
            if (c->name_bytes < sizeof c->name)
                c->name[c->name_bytes] = (char)slice_lower((unsigned char)b);
            c->name_bytes++; /* bounded by EXTRA_BYTES_MAX */
            return H1_MORE;
        }
        if (b != ':')
            return refuse(error, 400, "A trailer's name is not followed by a colon.");
        /* What was cut off at the end of name[] is too long to be one of them. */
        if (c->name_bytes <= sizeof c->name && trailer_forbidden(slice_of(c->name, c->name_bytes)))
            return refuse(error, 400, "This field must not be sent as a trailer.");
        c->state = CH_TRAILER_VALUE;
        return H1_MORE;
    default: /* CH_TRAILER_VALUE */
        if (b == '\r')
            c->state = CH_TRAILER_LF;
        else if (!(cls_of(b) & CLS_VALUE))
            return refuse(error, 400, "A trailer contains a control character.");
        return H1_MORE;
    }
}

enum h1_verdict h1_chunked(struct h1_chunked *c, const char *p, size_t n, size_t *used,
                           struct slice *data, struct h1_error *error)
{
    size_t i = 0;
    enum h1_verdict v = H1_MORE;
    *data = slice_of(p, 0);
    *used = 0;
    while (c->state != CH_DONE && i < n) {
        switch (c->state) {
        case CH_SIZE:
            v = size_step(c, p[i], error);
            break;
        case CH_DATA: {
            size_t run = c->left < n - i ? (size_t)c->left : n - i;
            c->left -= run;
            if (c->left == 0)
                c->state = CH_DATA_CR;
            *data = slice_of(p + i, run);
            *used = i + run;
            return H1_MORE;
        }
        case CH_SIZE_LF:
        case CH_DATA_LF:
        case CH_TRAILER_LF:
        case CH_END_LF:
            if (p[i] != '\n')
                v = refuse(error, 400, "A CR in a chunked body is not followed by LF.");
            else if (c->state == CH_SIZE_LF)
                size_done(c);
            else
                c->state = c->state == CH_DATA_LF      ? CH_SIZE
                           : c->state == CH_TRAILER_LF ? CH_TRAILER
                                                       : CH_DONE;
            break;
        case CH_DATA_CR:
            if (p[i] != '\r')
                v = refuse(error, 400, "Chunk not properly terminated: it is longer than its size.");
            c->state = CH_DATA_LF;
            break;
        case CH_TRAILER:
        case CH_TRAILER_NAME:
        case CH_TRAILER_VALUE:
            v = trailer_step(c, p[i], error);
            break;
        default: { /* the extensions of a size line */
            int next = size_line_step(c, p[i]);
            if (next < 0)
                v = refuse(error, 400, "Invalid chunk extension.");
            else if (++c->extra_bytes > EXTRA_BYTES_MAX)
                v = refuse(error, 400, "The chunk extensions are too long.");
            else
                c->state = next;
            break;
        }
        }
        if (v == H1_BAD) {
            *used = i;
            return H1_BAD;
        }
        i++;
    }
    *used = i;
    return c->state == CH_DONE ? H1_DONE : H1_MORE;
}

uint64_t h1_chunk_left(const struct h1_chunked *c)
{
    return c->state == CH_DATA ? c->left : 0;
}
