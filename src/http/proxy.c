/*
 * proxy: facts about the client from the PROXY protocol, Forwarded and X-Forwarded-*.
 *
 * Trust is counted from the right: each proxy appends what it saw, so with N trusted proxies the
 * N rightmost elements are true and everything to their left is what the client made up. The
 * oldest trusted element describes the client. What an application gets to read of such a field
 * is the trusted part alone.
 */
#include "http/proxy.h"

#include <arpa/inet.h>

#include "base/must.h"

WEIR_COLD static enum h1_verdict refuse(struct h1_error *error, const char *reason)
{
    *error = (struct h1_error){400, reason};
    return H1_BAD;
}

WEIR_COLD static enum h1_verdict no_memory(struct h1_error *error)
{
    *error = (struct h1_error){503, "There is no memory for this request."};
    return H1_BAD;
}

/* Copy `s` with a NUL; false when it has one already or does not fit. */
static bool to_text(char *out, size_t room, struct slice s)
{
    if (s.n >= room || (s.n && memchr(s.p, '\0', s.n)))
        return false;
    if (s.n)
        memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}

static bool is_ip(int family, struct slice s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr; /* large enough for both families */
    return to_text(text, sizeof text, s) && inet_pton(family, text, &addr) == 1;
}

/* 0 to 65535 in decimal without leading zeros. */
static bool port_of(struct slice s, uint16_t *out)
{
    uint64_t port;
    if (s.n > 5 || (s.n > 1 && s.p[0] == '0') || !h1_number(s, &port) || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

/* ---- trusted addresses ---- */

static const unsigned V4_BITS = 96; /* what ::ffff:0:0/96 puts before an IPv4 address */

/* `text` to its 16 bytes, IPv4 as ::ffff:a.b.c.d; the bits of the family are added to *bits. */
static bool address_of(const char *text, uint8_t addr[16], unsigned *before)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    *before = 0;
    if (inet_pton(AF_INET6, text, addr) == 1)
        return true;
    memcpy(addr, mapped, sizeof mapped);
    *before = V4_BITS;
    return inet_pton(AF_INET, text, addr + sizeof mapped) == 1;
}

static bool net_of(struct slice item, struct proxy_net *out)
{
    char text[INET6_ADDRSTRLEN];
    const char *slash = item.n ? memchr(item.p, '/', item.n) : NULL;
    size_t n = slash ? (size_t)(slash - item.p) : item.n;
    unsigned before;
    if (!to_text(text, sizeof text, slice_of(item.p, n)) || !address_of(text, out->addr, &before))
        return false;
    uint64_t bits = 128 - before;
    if (slash && (!h1_number(slice_of(slash + 1, item.n - n - 1), &bits) || bits > 128 - before))
        return false;
    out->bits = (uint8_t)(bits + before);
    return true;
}

int proxy_set_parse(struct proxy_set *out, struct slice list, struct err *e)
{
    *out = (struct proxy_set){0};
    for (size_t i = 0; i < list.n;) {
        size_t start = i;
        while (i < list.n && list.p[i] != ',' && list.p[i] != ' ' && list.p[i] != '\t')
            i++;
        struct slice item = slice_of(list.p + start, i - start);
        i++;
        if (item.n == 0)
            continue;
        if (slice_eq(item, SLICE("*"))) {
            out->any = out->unix_peers = true;
        } else if (slice_ieq(item, SLICE("localhost")) || slice_ieq(item, SLICE("unix"))) {
            out->unix_peers = true;
        } else if (out->n == countof(out->nets)) {
            return err_set(
                e, "more than %zu trusted addresses; join them to networks, as in 10.0.0.0/8",
                countof(out->nets));
        } else if (!net_of(item, &out->nets[out->n])) {
            return err_set(e,
                           "'%.*s' is not a trusted address; give an IP address, a network as in "
                           "10.0.0.0/8, 'localhost' for Unix sockets, or '*'",
                           (int)(item.n < 64 ? item.n : 64), item.p);
        } else {
            out->n++;
        }
    }
    return 0;
}

static bool net_has(const struct proxy_net *net, const uint8_t addr[16])
{
    size_t bytes = net->bits / 8;
    unsigned rest = net->bits % 8;
    if (memcmp(net->addr, addr, bytes) != 0)
        return false;
    return rest == 0 || (net->addr[bytes] ^ addr[bytes]) >> (8 - rest) == 0;
}

bool proxy_set_has(const struct proxy_set *set, const char *host)
{
    char text[INET6_ADDRSTRLEN];
    uint8_t addr[16];
    unsigned before;
    if (host[0] == '\0')
        return set->unix_peers;
    if (set->any)
        return true;
    size_t n = strcspn(host, "%"); /* fe80::1%eth0 */
    if (!to_text(text, sizeof text, slice_of(host, n)) || !address_of(text, addr, &before))
        return false;
    struct proxy_net v4 = {.addr = {[10] = 0xff, [11] = 0xff}, .bits = (uint8_t)V4_BITS};
    bool is_v4 = net_has(&v4, addr);
    for (unsigned i = 0; i < set->n; i++)
        /* ::/0 means all of IPv6; it must not let IPv4 in by way of the mapped form. */
        if ((!is_v4 || set->nets[i].bits >= V4_BITS) && net_has(&set->nets[i], addr))
            return true;
    return false;
}

/* ---- PROXY protocol, by the HAProxy specification ---- */

static const size_t V1_BYTES_MAX = 107; /* §2.1, with CRLF */
static const size_t V2_HEAD_BYTES = 16;
/* Addresses and TLVs; the largest TLV in use is a client certificate. */
static const size_t V2_BYTES_MAX = 16 * 1024;
static const char v1_prefix[] = "PROXY ";
static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* The next word of a v1 line, parted by exactly one space. */
static struct slice word(struct slice *rest)
{
    const char *space = rest->n ? memchr(rest->p, ' ', rest->n) : NULL;
    size_t n = space ? (size_t)(space - rest->p) : rest->n;
    struct slice out = slice_of(rest->p, n);
    *rest = space ? slice_of(space + 1, rest->n - n - 1) : slice_of(rest->p + n, 0);
    return out;
}

static enum h1_verdict protocol_v1(const char *p, size_t n, size_t *used, struct proxy_addr *client,
                                   struct proxy_addr *server, struct h1_error *error)
{
    size_t len = n < V1_BYTES_MAX ? n : V1_BYTES_MAX, lead = sizeof v1_prefix - 1;
    if (memcmp(p, v1_prefix, len < lead ? len : lead) != 0)
        return refuse(error, "The connection does not start with a PROXY line.");
    const char *lf = memchr(p, '\n', len);
    if (!lf && n < V1_BYTES_MAX)
        return H1_MORE;
    if (!lf || lf[-1] != '\r')
        return refuse(error, "The PROXY line does not end with CRLF.");

    struct slice rest = slice_of(p + lead, (size_t)(lf - p) - lead - 1);
    bool trailing_space = rest.n && rest.p[rest.n - 1] == ' ';
    struct slice family = word(&rest);
    *used = (size_t)(lf - p) + 1;
    if (slice_eq(family, SLICE("UNKNOWN")))
        return H1_DONE;
    int af = slice_eq(family, SLICE("TCP4")) ? AF_INET : AF_INET6;
    if (af == AF_INET6 && !slice_eq(family, SLICE("TCP6")))
        return refuse(error, "The PROXY line names an unknown protocol.");
    struct slice from = word(&rest), to = word(&rest), from_port = word(&rest),
                 to_port = word(&rest);
    struct proxy_addr c, s;
    if (!is_ip(af, from) || !is_ip(af, to) || !port_of(from_port, &c.port) ||
        !port_of(to_port, &s.port) || rest.n || trailing_space ||
        !to_text(c.host, sizeof c.host, from) || !to_text(s.host, sizeof s.host, to))
        return refuse(error, "The PROXY line has a malformed address or port.");
    *client = c;
    *server = s;
    return H1_DONE;
}

static void v2_address(struct proxy_addr *out, int af, const uint8_t *addr, const uint8_t *port)
{
    *out = (struct proxy_addr){.port = (uint16_t)(port[0] << 8 | port[1])};
    must(inet_ntop(af, addr, out->host, sizeof out->host));
}

static enum h1_verdict protocol_v2(const char *p, size_t n, size_t *used, struct proxy_addr *client,
                                   struct proxy_addr *server, struct h1_error *error)
{
    const uint8_t *b = (const uint8_t *)p;
    if (memcmp(p, v2_signature, n < sizeof v2_signature ? n : sizeof v2_signature) != 0)
        return refuse(error, "The connection does not start with a PROXY header.");
    if (n > 12 && b[12] != 0x20 && b[12] != 0x21)
        return refuse(error, "The PROXY header has an unknown version or command.");
    /* High nibble: unspecified, IPv4, IPv6, Unix. Low nibble: unspecified, stream, datagram. */
    if (n > 13 && (b[13] >> 4 > 3 || (b[13] & 15) > 2))
        return refuse(error, "The PROXY header names an unknown protocol.");
    if (n < V2_HEAD_BYTES)
        return H1_MORE;
    static const size_t address_bytes[] = {0, 12, 36, 216};
    size_t len = (size_t)(b[14] << 8 | b[15]);
    bool local = b[12] == 0x20;
    unsigned family = (b[13] & 15) ? b[13] >> 4 : 0; /* without a protocol it is unspecified */
    if (V2_HEAD_BYTES + len > V2_BYTES_MAX)
        return refuse(error, "The PROXY header is too long.");
    if (!local && len < address_bytes[family])
        return refuse(error, "The PROXY header is too short for its addresses.");
    if (n < V2_HEAD_BYTES + len)
        return H1_MORE;
    *used = V2_HEAD_BYTES + len; /* the TLVs behind the addresses are not looked at */
    if (local || family == 0)
        return H1_DONE;
    const uint8_t *a = b + V2_HEAD_BYTES;
    if (family == 3) {
        *client = *server = (struct proxy_addr){0};
    } else {
        int af = family == 1 ? AF_INET : AF_INET6;
        size_t size = family == 1 ? 4 : 16;
        v2_address(client, af, a, a + 2 * size);
        v2_address(server, af, a + size, a + 2 * size + 2);
    }
    return H1_DONE;
}

bool proxy_protocol_begins(const char *p, size_t n, enum proxy_mode mode)
{
    size_t lead = sizeof v1_prefix - 1;
    bool v1 = memcmp(p, v1_prefix, n < lead ? n : lead) == 0;
    bool v2 = memcmp(p, v2_signature, n < sizeof v2_signature ? n : sizeof v2_signature) == 0;
    return (v1 && mode != PROXY_V2) || (v2 && mode != PROXY_V1);
}

enum h1_verdict proxy_protocol(const char *p, size_t n, enum proxy_mode mode, size_t *used,
                               struct proxy_addr *client, struct proxy_addr *server,
                               struct h1_error *error)
{
    *used = 0;
    if (mode == PROXY_OFF)
        return H1_DONE;
    if (n == 0)
        return H1_MORE;
    if (mode == PROXY_V1 || (mode == PROXY_AUTO && *p == 'P'))
        return protocol_v1(p, n, used, client, server, error);
    return protocol_v2(p, n, used, client, server, error);
}

/* ---- the names of the fields ---- */

static const struct {
    const char *name;
    enum hdr id;
    enum proxy_header bit;
} known[] = {
    {"forwarded", HDR_FORWARDED, PROXY_FORWARDED},
    {"x-forwarded-for", HDR_X_FORWARDED_FOR, PROXY_X_FOR},
    {"x-forwarded-host", HDR_X_FORWARDED_HOST, PROXY_X_HOST},
    {"x-forwarded-proto", HDR_X_FORWARDED_PROTO, PROXY_X_PROTO},
    {"x-forwarded-port", HDR_X_FORWARDED_PORT, PROXY_X_PORT},
    {"x-forwarded-by", HDR_X_FORWARDED_BY, PROXY_X_BY},
};

static unsigned bit_of(enum hdr id)
{
    for (size_t i = 0; i < countof(known); i++)
        if (known[i].id == id)
            return known[i].bit;
    return 0;
}

int proxy_headers_parse(unsigned *bits, struct slice list, struct err *e)
{
    *bits = 0;
    for (size_t i = 0; i < list.n;) {
        size_t start = i;
        while (i < list.n && list.p[i] != ',' && list.p[i] != ' ' && list.p[i] != '\t')
            i++;
        struct slice item = slice_of(list.p + start, i - start);
        i++;
        unsigned bit = 0;
        for (size_t k = 0; k < countof(known); k++)
            if (slice_ieq(item, slice_str(known[k].name)))
                bit = known[k].bit;
        if (item.n && !bit && !slice_ieq(item, SLICE("none")))
            return err_set(e,
                           "'%.*s' is not a proxy header; known are forwarded and "
                           "x-forwarded-for, -host, -proto, -port and -by",
                           (int)(item.n < 64 ? item.n : 64), item.p);
        *bits |= bit;
    }
    if ((*bits & PROXY_FORWARDED) && *bits != PROXY_FORWARDED)
        return err_set(e, "forwarded cannot be trusted together with x-forwarded-* headers: "
                          "the two may contradict each other; name those that the proxy sets");
    return 0;
}

int proxy_names_parse(struct proxy_rules *rules, struct slice list, struct err *e)
{
    for (size_t i = 0; i < list.n;) {
        size_t start = i;
        while (i < list.n && list.p[i] != ',' && list.p[i] != ' ' && list.p[i] != '\t')
            i++;
        struct slice item = slice_of(list.p + start, i - start);
        i++;
        if (slice_eq(item, SLICE("*")))
            rules->any_name = true;
        else if (item.n && (!h1_is_token(item) || rules->n_names == PROXY_NAMES_MAX))
            return err_set(e, "'%.*s' is one field name too many, or none",
                           (int)(item.n < 64 ? item.n : 64), item.p);
        else if (item.n)
            rules->names[rules->n_names++] = item;
    }
    return 0;
}

int proxy_scheme_add(struct proxy_rules *rules, struct slice pair, struct err *e)
{
    const char *equals = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
    size_t n = equals ? (size_t)(equals - pair.p) : 0;
    if (!h1_is_token(slice_of(pair.p, n)) || rules->n_schemes == PROXY_SCHEMES_MAX)
        return err_set(e, "'%.*s' is one NAME=VALUE too many, or none",
                       (int)(pair.n < 64 ? pair.n : 64), pair.p);
    rules->schemes[rules->n_schemes].name = slice_of(pair.p, n);
    rules->schemes[rules->n_schemes++].value = slice_of(equals + 1, pair.n - n - 1);
    return 0;
}

/* ---- values ---- */

/*
 * Make *holder the one field `id`, NULL without any. Several lines are joined as RFC 9110 §5.3
 * says: the first takes the whole, the others are dropped. False when memory is out.
 */
static bool gather(struct req *req, enum hdr id, struct arena *arena, struct field **holder)
{
    struct field *first = NULL;
    size_t bytes = 0;
    unsigned lines = 0;
    for (unsigned i = 0; i < req->n_fields; i++) {
        if (req->fields[i].id != id || req->fields[i].dropped)
            continue;
        first = first ? first : &req->fields[i];
        bytes += req->fields[i].value.n + 2;
        lines++;
    }
    *holder = first;
    if (lines < 2)
        return true;
    char *p = arena_alloc(arena, bytes), *start = p;
    if (!p)
        return false;
    for (unsigned i = 0; i < req->n_fields; i++) {
        struct field *f = &req->fields[i];
        if (f->id != id || f->dropped)
            continue;
        if (f != first) {
            memcpy(p, ", ", 2);
            p += 2;
            f->dropped = true;
        }
        if (f->value.n)
            memcpy(p, f->value.p, f->value.n);
        p += f->value.n;
    }
    first->value = slice_of(start, (size_t)(p - start));
    return true;
}

/*
 * A quoted-string (RFC 9110 §5.6.4) without its quotes, in the arena if it has escapes; other
 * values as they are. False when the quotes do not match, or memory is out.
 */
static bool unquote(struct slice *s, struct arena *arena)
{
    if (s->n == 0 || (s->p[0] != '"' && s->p[s->n - 1] != '"'))
        return true;
    if (s->n < 2 || s->p[0] != '"' || s->p[s->n - 1] != '"')
        return false;
    struct slice in = slice_of(s->p + 1, s->n - 2);
    if (in.n == 0 || !(memchr(in.p, '\\', in.n) || memchr(in.p, '"', in.n))) {
        *s = in;
        return true;
    }
    char *out = arena_alloc(arena, in.n);
    size_t n = 0;
    if (!out)
        return false;
    for (size_t i = 0; i < in.n; i++) {
        if (in.p[i] == '"' || (in.p[i] == '\\' && ++i == in.n))
            return false;
        out[n++] = in.p[i];
    }
    *s = slice_of(out, n);
    return true;
}

/* "_" 1*( ALPHA / DIGIT / "." / "_" / "-" ), RFC 7239 §6.3. */
static bool is_obfuscated(struct slice s)
{
    for (size_t i = 1; i < s.n; i++) {
        unsigned char c = slice_lower((unsigned char)s.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return s.n > 1 && s.p[0] == '_';
}

/*
 * A node of RFC 7239 §6: an address, "unknown" or an obfuscated name, perhaps with a port. IPv6
 * stands in brackets, except where `bare_v6` says that it may come alone.
 */
static bool node_of(struct slice s, bool bare_v6, struct proxy_addr *out)
{
    struct slice host = s, port = {0};
    *out = (struct proxy_addr){0};
    if (s.n && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (!close)
            return false;
        size_t n = (size_t)(close - s.p);
        host = slice_of(s.p + 1, n - 1);
        port = slice_of(close + 1, s.n - n - 1);
        if (!is_ip(AF_INET6, host))
            return false;
    } else if (!bare_v6 || !is_ip(AF_INET6, s)) {
        const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
        if (colon) {
            host.n = (size_t)(colon - s.p);
            port = slice_of(colon, s.n - host.n);
        }
        if (!is_ip(AF_INET, host) && !slice_ieq(host, SLICE("unknown")) && !is_obfuscated(host))
            return false;
    }
    if (port.n) {
        struct slice digits = slice_of(port.p + 1, port.n - 1);
        if (port.p[0] != ':' || !(is_obfuscated(digits) || port_of(digits, &out->port)))
            return false;
    }
    return to_text(out->host, sizeof out->host, host);
}

/* What the fields say, before it is brought together. */
struct claims {
    struct slice node, host, proto; /* unquoted; .n == 0 = not said */
    uint32_t port;                  /* 0 = not said */
};

/* ---- Forwarded, RFC 7239 §4 ---- */

/* A pair's value: a token or quoted-string. Addresses with ports come without quotes too. */
static size_t value_end(struct slice s, size_t i)
{
    if (i < s.n && s.p[i] == '"') {
        for (i++; i < s.n && s.p[i] != '"'; i++)
            if (s.p[i] == '\\')
                i++;
        return i < s.n ? i + 1 : 0;
    }
    size_t start = i;
    while (i < s.n && s.p[i] > ' ' && s.p[i] != 0x7f && !strchr("\",;=\\", s.p[i]))
        i++;
    return i > start ? i : 0;
}

/*
 * Read the element at s[*i] into *said and move *i to the comma behind it or the end. False when
 * malformed. RFC 7239 allows no white space around ";" and "=".
 */
static bool forwarded_element(struct slice s, size_t *i, struct claims *said, struct arena *arena)
{
    *said = (struct claims){0};
    unsigned seen = 0;
    size_t at = *i;
    while (at < s.n && s.p[at] != ',' && s.p[at] != ' ' && s.p[at] != '\t') {
        if (s.p[at] == ';') {
            at++;
            continue;
        }
        size_t equals = at;
        while (equals < s.n && h1_is_token(slice_of(s.p + equals, 1)))
            equals++;
        struct slice name = slice_of(s.p + at, equals - at);
        size_t end = equals < s.n && s.p[equals] == '=' ? value_end(s, equals + 1) : 0;
        if (name.n == 0 || end == 0)
            return false;
        struct slice value = slice_of(s.p + equals + 1, end - equals - 1);
        struct slice *into = NULL;
        if (slice_ieq(name, SLICE("for")))
            into = &said->node;
        else if (slice_ieq(name, SLICE("host")))
            into = &said->host;
        else if (slice_ieq(name, SLICE("proto")))
            into = &said->proto;
        if (into) {
            unsigned bit = into == &said->node ? 1 : into == &said->host ? 2 : 4;
            if (seen & bit) /* "MUST NOT occur more than once" */
                return false;
            seen |= bit;
            if (!unquote(&value, arena))
                return false;
            *into = value;
        }
        at = end;
        if (at < s.n && s.p[at] != ';' && s.p[at] != ',' && s.p[at] != ' ' && s.p[at] != '\t')
            return false;
    }
    while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\t'))
        at++;
    *i = at;
    return at == s.n || s.p[at] == ',';
}

/* Skip to the start of the element behind the comma at s[i]. */
static size_t next_element(struct slice s, size_t i)
{
    i++;
    while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t'))
        i++;
    return i;
}

static enum h1_verdict forwarded(struct field *holder, unsigned hops, struct arena *arena,
                                 struct claims *out, struct h1_error *error)
{
    static const char bad[] = "Header \"Forwarded\" malformed.";
    const struct slice s = holder->value;
    struct claims said;
    size_t elements = 0;
    for (size_t i = 0;; i = next_element(s, i)) {
        if (!forwarded_element(s, &i, &said, arena))
            return refuse(error, bad);
        elements++;
        if (i == s.n)
            break;
    }
    size_t index = 0;
    for (size_t i = 0;; i = next_element(s, i), index++) {
        size_t start = i;
        if (!forwarded_element(s, &i, &said, arena))
            return refuse(error, bad);
        if (index + hops >= elements) {
            if (index + hops == elements)
                holder->value = slice_of(s.p + start, s.n - start);
            /* The oldest that says something is right: later proxies may have rewritten. */
            if (!out->node.n)
                out->node = said.node;
            if (!out->host.n)
                out->host = said.host;
            if (!out->proto.n)
                out->proto = said.proto;
        }
        if (i == s.n)
            return H1_DONE;
    }
}

/* ---- X-Forwarded-* ---- */

/* The `hops`-th element from the right, or the first; the field keeps it and what follows. */
static struct slice nth_from_right(struct field *holder, unsigned hops)
{
    struct slice s = holder->value;
    size_t start = s.n + 1, end; /* as if a comma stood behind the last */
    do {
        end = start - 1;
        start = end;
        while (start > 0 && s.p[start - 1] != ',')
            start--;
    } while (--hops && start > 0);
    holder->value = slice_trim(slice_of(s.p + start, s.n - start));
    return slice_trim(slice_of(s.p + start, end - start));
}

static enum h1_verdict x_forwarded(struct req *req, const struct proxy_rules *rules,
                                   struct arena *arena, struct claims *out, struct h1_error *error)
{
    struct field *holder;

    if (rules->headers & PROXY_X_FOR) {
        if (!gather(req, HDR_X_FORWARDED_FOR, arena, &holder))
            return no_memory(error);
        if (holder)
            out->node = nth_from_right(holder, rules->hops);
        if (!unquote(&out->node, arena))
            return refuse(error, "Header \"X-Forwarded-For\" malformed.");
    }
    if (rules->headers & PROXY_X_HOST) {
        if (!gather(req, HDR_X_FORWARDED_HOST, arena, &holder))
            return no_memory(error);
        if (holder)
            out->host = nth_from_right(holder, rules->hops);
        if (!unquote(&out->host, arena))
            return refuse(error, "Header \"X-Forwarded-Host\" malformed.");
    }
    if (rules->headers & PROXY_X_PROTO) {
        if (!gather(req, HDR_X_FORWARDED_PROTO, arena, &holder))
            return no_memory(error);
        if (holder)
            out->proto = holder->value;
        if (!unquote(&out->proto, arena))
            return refuse(error, "Header \"X-Forwarded-Proto\" malformed.");
    }
    if (rules->headers & PROXY_X_PORT) {
        uint16_t number = 0;
        if (!gather(req, HDR_X_FORWARDED_PORT, arena, &holder))
            return no_memory(error);
        struct slice port = holder ? holder->value : slice_of(NULL, 0);
        if (!unquote(&port, arena) || (port.n && (!port_of(port, &number) || number == 0)))
            return refuse(error, "Header \"X-Forwarded-Port\" malformed.");
        out->port = number;
    }
    return H1_DONE;
}

/* ---- bringing it together ---- */

/* The host with and without its port, and the port that goes with scheme and host. */
static enum h1_verdict settle_host(const struct req *req, const struct claims *said,
                                   struct arena *arena, struct proxy_facts *out,
                                   struct h1_error *error)
{
    struct slice host = said->host;
    size_t n = host.n;
    uint64_t port = 0;
    while (n && host.p[n - 1] >= '0' && host.p[n - 1] <= '9')
        n--;
    bool has_port = n && host.p[n - 1] == ':';
    out->host = host;
    if (has_port) { /* it is nearer to what the user typed than any other port */
        out->server_name = slice_of(host.p, n - 1);
        if (h1_number(slice_of(host.p + n, host.n - n), &port) && port)
            out->server_port = (uint32_t)port;
        return H1_DONE;
    }
    out->server_name = host;
    struct slice scheme = out->scheme.n ? out->scheme : req->scheme;
    uint32_t usual = slice_eq(scheme, SLICE("https")) ? 443 : 80;
    if (out->server_port == 0 || out->server_port == usual)
        return H1_DONE;
    char digits[8], *text;
    size_t k = sizeof digits;
    for (uint32_t v = out->server_port; v; v /= 10)
        digits[--k] = (char)('0' + v % 10);
    text = arena_alloc(arena, host.n + 1 + sizeof digits - k);
    if (!text)
        return no_memory(error);
    memcpy(text, host.p, host.n);
    text[host.n] = ':';
    memcpy(text + host.n + 1, digits + k, sizeof digits - k);
    out->host = slice_of(text, host.n + 1 + sizeof digits - k);
    return H1_DONE;
}

static enum h1_verdict settle(struct req *req, const struct claims *said, bool is_forwarded,
                              struct arena *arena, struct proxy_facts *out, struct h1_error *error)
{
    if (said->node.n && !node_of(said->node, !is_forwarded, &out->client))
        return refuse(error, is_forwarded ? "Header \"Forwarded\" malformed."
                                          : "Header \"X-Forwarded-For\" malformed.");
    if (said->proto.n) {
        if (slice_ieq(said->proto, SLICE("https")))
            out->scheme = SLICE("https");
        else if (slice_ieq(said->proto, SLICE("http")))
            out->scheme = SLICE("http");
        else
            return refuse(error, is_forwarded ? "Header \"Forwarded\" malformed."
                                              : "Header \"X-Forwarded-Proto\" malformed.");
    }
    out->server_port = said->port;
    if (!out->server_port && out->scheme.n)
        out->server_port = out->scheme.n == 5 ? 443 : 80;
    if (said->host.n) {
        if (!h1_is_host(said->host))
            return refuse(error, is_forwarded ? "Header \"Forwarded\" malformed."
                                              : "Header \"X-Forwarded-Host\" malformed.");
        enum h1_verdict v = settle_host(req, said, arena, out, error);
        if (v != H1_DONE)
            return v;
        req->host = out->host;
    }
    if (out->scheme.n)
        req->scheme = out->scheme;
    return H1_DONE;
}

/* ---- names with underscores; fields that tell the scheme ---- */

static bool name_allowed(const struct proxy_rules *rules, struct slice name)
{
    bool allowed = rules->any_name;
    for (unsigned i = 0; i < rules->n_names && !allowed; i++)
        allowed = slice_ieq(name, rules->names[i]);
    return allowed;
}

static enum h1_verdict underscores(struct req *req, const struct proxy_rules *rules,
                                   bool peer_trusted, struct proxy_facts *out,
                                   struct h1_error *error)
{
    for (unsigned i = 0; i < req->n_fields; i++) {
        struct field *f = &req->fields[i];
        if (!f->dropped)
            continue; /* no underscore: nothing else has been dropped yet */
        bool allowed = peer_trusted && name_allowed(rules, f->name);
        if (allowed && slice_ieq(f->name, SLICE("SCRIPT_NAME")))
            out->script_name = f->value;
        if (allowed || rules->underscores == PROXY_SHOW)
            f->dropped = false;
        else if (rules->underscores == PROXY_REFUSE)
            return refuse(error, "The name of a field holds an underscore.");
    }
    return H1_DONE;
}

static enum h1_verdict scheme_of(struct req *req, const struct proxy_rules *rules,
                                 struct proxy_facts *out, struct h1_error *error)
{
    for (unsigned i = 0; i < req->n_fields; i++) {
        const struct field *f = &req->fields[i];
        for (unsigned k = 0; k < rules->n_schemes; k++) {
            if (f->dropped || !slice_ieq(f->name, rules->schemes[k].name))
                continue;
            bool secure = slice_eq(f->value, rules->schemes[k].value);
            struct slice scheme = secure ? SLICE("https") : SLICE("http");
            if (out->scheme.n && !slice_eq(out->scheme, scheme))
                return refuse(error, "The fields about the scheme contradict each other.");
            out->scheme = req->scheme = scheme;
        }
    }
    return H1_DONE;
}

enum h1_verdict proxy_apply(struct req *req, const struct proxy_rules *rules, bool peer_trusted,
                            struct arena *arena, struct proxy_facts *out, struct h1_error *error)
{
    struct claims said = {0};
    unsigned trusted = peer_trusted ? rules->headers : 0;
    bool is_forwarded = (trusted & PROXY_FORWARDED) != 0;
    enum h1_verdict v = H1_DONE;
    *out = (struct proxy_facts){0};

    if (req->underscores)
        v = underscores(req, rules, peer_trusted, out, error);
    if (v == H1_DONE && peer_trusted && rules->n_schemes)
        v = scheme_of(req, rules, out, error);
    if (v != H1_DONE)
        return v;
    for (unsigned i = 0; i < req->n_fields && rules->clear; i++) {
        struct field *f = &req->fields[i];
        unsigned bit = f->id == HDR_OTHER || f->dropped ? 0 : bit_of(f->id);
        if (bit && !(bit & trusted))
            f->dropped = out->cleared = true;
    }
    if (!trusted)
        return H1_DONE;
    must(rules->hops >= 1);
    if (is_forwarded) {
        struct field *holder;
        if (!gather(req, HDR_FORWARDED, arena, &holder))
            return no_memory(error);
        if (holder)
            v = forwarded(holder, rules->hops, arena, &said, error);
    } else {
        v = x_forwarded(req, rules, arena, &said, error);
    }
    return v == H1_DONE ? settle(req, &said, is_forwarded, arena, out, error) : v;
}
