/*
 * fuzz_proxy: any bytes as the start of a connection with the PROXY protocol.
 *
 * Beyond "no crash": the verdict on the whole is the verdict on its shortest prefix that has one;
 * an address that comes out is an address; it never takes more than the specification allows, and
 * what it takes of a v1 line, written anew, is taken again.
 *
 * The first byte of the input chooses the mode.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/must.h"
#include "http/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    enum h1_verdict v;
    size_t used;
    struct proxy_addr client, server;
    struct h1_error error;
};

static struct result read_prefix(const char *p, size_t n, enum proxy_mode mode)
{
    struct result r = {.client = {"old", 1}, .server = {"old", 1}};
    char *copy = malloc(n + 1);
    must(copy);
    memcpy(copy, p, n);
    r.v = proxy_protocol(copy, n, mode, &r.used, &r.client, &r.server, &r.error);
    free(copy);
    return r;
}

static int family_of(const char *host)
{
    struct in6_addr addr;
    return inet_pton(AF_INET, host, &addr) == 1    ? AF_INET
           : inet_pton(AF_INET6, host, &addr) == 1 ? AF_INET6
                                                   : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 20000)
        return 0;
    enum proxy_mode mode = (enum proxy_mode)(data[0] & 3);
    const char *p = (const char *)data + 1;
    size_t n = size - 1;
    struct result r = read_prefix(p, n, mode);

    /* All prefixes of the part that matters; of a long one only the first and last. */
    for (size_t k = 0; k<n; k += k> 300 && n - k > 300 ? n - k - 300 : 1) {
        struct result part = read_prefix(p, k, mode);
        if (part.v == H1_MORE)
            continue;
        must(part.v == r.v && part.used == r.used);
        must(strcmp(part.client.host, r.client.host) == 0 && part.client.port == r.client.port);
        must(part.v != H1_BAD || part.error.reason == r.error.reason);
        must(part.v != H1_DONE || part.used <= k);
        break;
    }
    if (r.v == H1_BAD)
        must(r.error.status == 400 && r.error.reason);
    if (r.v != H1_DONE || strcmp(r.client.host, "old") == 0) {
        must(strcmp(r.client.host, "old") == 0 && strcmp(r.server.host, "old") == 0);
        return 0;
    }
    must(r.used <= n && mode != PROXY_OFF);
    int family = family_of(r.client.host);
    if (r.client.host[0] == '\0')
        must(r.client.port == 0 && r.server.host[0] == '\0'); /* a Unix socket */
    else
        must(family && family == family_of(r.server.host));
    if (*p == 'P') {
        char line[120];
        int len =
            snprintf(line, sizeof line, "PROXY TCP%d %s %s %u %u\r\n", family == AF_INET ? 4 : 6,
                     r.client.host, r.server.host, r.client.port, r.server.port);
        must(r.used <= 107 && len == (int)r.used && memcmp(line, p, r.used) == 0);
    }
    return 0;
}
