/*
 * fuzz_forwarded: any field values as Forwarded and X-Forwarded-*, from a trusted proxy or not.
 *
 * Beyond "no crash": an untrusted peer changes no fact; facts have the form that proxy.h says; what
 * stays visible of a list is its tail; and the visible part alone gives the same facts.
 *
 * The first byte of the input chooses the rules, the second the hops; then lines "Xvalue\n", whose
 * first letter chooses the field.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/must.h"
#include "http/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS_MAX = 16 };

static const struct {
    const char *name;
    enum hdr id;
} names[] = {
    {"Forwarded", HDR_FORWARDED},
    {"X-Forwarded-For", HDR_X_FORWARDED_FOR},
    {"X-Forwarded-Host", HDR_X_FORWARDED_HOST},
    {"X-Forwarded-Proto", HDR_X_FORWARDED_PROTO},
    {"X-Forwarded-Port", HDR_X_FORWARDED_PORT},
    {"X-Forwarded-By", HDR_X_FORWARDED_BY},
};

static bool same_facts(const struct proxy_facts *a, const struct proxy_facts *b)
{
    return strcmp(a->client.host, b->client.host) == 0 && a->client.port == b->client.port &&
           slice_eq(a->scheme, b->scheme) && slice_eq(a->server_name, b->server_name) &&
           slice_eq(a->host, b->host) && a->server_port == b->server_port;
}

static void must_be_facts(const struct proxy_facts *f)
{
    must(strlen(f->client.host) < sizeof f->client.host);
    must(!f->client.port || f->client.host[0]);
    for (const char *c = f->client.host; *c; c++)
        must(*c > ' ' && *c < 0x7f && *c != ',' && *c != '"');
    must(f->scheme.n == 0 || slice_eq(f->scheme, SLICE("http")) ||
         slice_eq(f->scheme, SLICE("https")));
    must(f->server_port <= 65535);
    must((f->host.n == 0) == (f->server_name.n == 0));
    must(h1_is_host(f->host) && h1_is_host(f->server_name));
    must(slice_starts(f->host, f->server_name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4096)
        return 0;
    static struct field sent[FIELDS_MAX], fields[FIELDS_MAX];
    struct req req = {.scheme = SLICE("http"), .host = SLICE("inner"), .fields = fields};
    struct proxy_rules rules = {
        .headers = data[0] & 1 ? PROXY_FORWARDED : (unsigned)(data[0] & 0x3e),
        .hops = 1u + data[1] % 8,
        .clear = (data[0] & 0x40) != 0,
    };
    bool trusted = !(data[0] & 0x80);
    char *text = malloc(size);
    must(text);
    memcpy(text, data, size);
    for (size_t at = 2; at < size && req.n_fields < FIELDS_MAX;) {
        const char *lf = memchr(text + at, '\n', size - at);
        size_t end = lf ? (size_t)(lf - text) : size;
        struct field *f = &fields[req.n_fields];
        size_t which = (unsigned char)text[at] % countof(names);
        struct slice value =
            end > at ? slice_trim(slice_of(text + at + 1, end - at - 1)) : slice_of(text + at, 0);
        at = end + 1;
        if (!h1_is_value(value))
            continue;
        *f = (struct field){slice_str(names[which].name), value, names[which].id, false};
        sent[req.n_fields++] = *f;
    }

    struct arena arena = {0};
    struct proxy_facts facts, again;
    struct h1_error error = {0};
    enum h1_verdict v = proxy_apply(&req, &rules, trusted, &arena, &facts, &error);
    must(v != H1_MORE);
    if (v == H1_BAD)
        must(trusted && error.status == 400 && error.reason);
    if (v == H1_DONE) {
        must_be_facts(&facts);
        if (!trusted || !rules.headers) {
            must(facts.client.host[0] == '\0' && !facts.scheme.n && !facts.host.n &&
                 !facts.server_port);
            must(slice_eq(req.host, SLICE("inner")) && slice_eq(req.scheme, SLICE("http")));
        }
        unsigned seen = 0;
        for (unsigned i = 0; i < req.n_fields; i++) {
            if (fields[i].dropped)
                continue;
            unsigned bit = 1u << fields[i].id;
            if (trusted && rules.clear && fields[i].id != HDR_X_FORWARDED_BY) {
                must(!(seen & bit)); /* trusted lists are joined, others gone */
                seen |= bit;
            }
            if (!trusted)
                must(!rules.clear && slice_eq(fields[i].value, sent[i].value));
        }
        /* A second server behind us that trusts as much comes to the same. */
        struct proxy_facts first = facts;
        req.host = SLICE("inner");
        req.scheme = SLICE("http");
        must(proxy_apply(&req, &rules, trusted, &arena, &again, &error) == H1_DONE);
        must(same_facts(&first, &again));
    }
    arena_fini(&arena);
    free(text);
    return 0;
}
