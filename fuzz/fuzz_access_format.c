/*
 * Any format and any facts: exactly one line comes out, and in the JSON format a valid object.
 *
 * Input: selector byte, format, NUL, then values separated by NUL: remote address, port, method,
 * path, query, target, protocol, authorization, referer, user agent, any other field, X-Request-Id;
 * eight bytes at the end of the input are the numbers.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/must.h"
#include "obs/access.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice g_authorization, g_referer, g_agent, g_other;

static struct slice find_field(const void *arg, struct slice name)
{
    (void)arg;
    if (slice_eq(name, SLICE("authorization")))
        return g_authorization;
    if (slice_eq(name, SLICE("referer")))
        return g_referer;
    return slice_eq(name, SLICE("user-agent")) ? g_agent : g_other;
}

static struct slice next_text(struct slice *rest)
{
    const char *end = rest->n ? memchr(rest->p, '\0', rest->n) : NULL;
    struct slice s = slice_of(rest->p, end ? (size_t)(end - rest->p) : rest->n);
    size_t used = s.n + (end ? 1 : 0);
    rest->p += used;
    rest->n -= used;
    return s;
}

/* ---- a strict reader of one flat JSON object (RFC 8259), written apart from the escaper ---- */

static const unsigned char *json_utf8(const unsigned char *p, const unsigned char *end)
{
    static const struct {
        unsigned char low, high;
        int more;
        uint32_t least;
    } kinds[] = {{0xc0, 0xdf, 1, 0x80}, {0xe0, 0xef, 2, 0x800}, {0xf0, 0xf7, 3, 0x10000}};
    for (size_t i = 0; i < 3; i++) {
        if (*p < kinds[i].low || *p > kinds[i].high)
            continue;
        must(end - p > kinds[i].more);
        uint32_t code = *p & (0x3fu >> kinds[i].more);
        for (int k = 1; k <= kinds[i].more; k++) {
            must((p[k] & 0xc0) == 0x80);
            code = code << 6 | (p[k] & 0x3fu);
        }
        must(code >= kinds[i].least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff));
        must(code > 0x9f && code != 0x2028 && code != 0x2029); /* nobody's line end */
        return p + kinds[i].more + 1;
    }
    must_fail("a byte that starts no UTF-8", __FILE__, __LINE__);
}

static const unsigned char *json_string(const unsigned char *p, const unsigned char *end)
{
    must(p < end && *p == '"');
    for (p++; p < end && *p != '"';) {
        must(*p >= 0x20 && *p != 0x7f);
        if (*p >= 0x80) {
            p = json_utf8(p, end);
        } else if (*p == '\\') {
            must(end - p >= 2);
            if (p[1] == 'u') {
                must(end - p >= 6);
                for (int i = 2; i < 6; i++)
                    must((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f'));
                p += 6;
            } else {
                must(p[1] == '"' || p[1] == '\\' || p[1] == 'n');
                p += 2;
            }
        } else {
            p++;
        }
    }
    must(p < end);
    return p + 1;
}

static const unsigned char *json_value(const unsigned char *p, const unsigned char *end)
{
    if (p < end && *p == '"')
        return json_string(p, end);
    if (end - p >= 4 && memcmp(p, "null", 4) == 0)
        return p + 4;
    must(p < end && *p >= '0' && *p <= '9');
    must(*p != '0' || end - p < 2 || p[1] < '0' || p[1] > '9');
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

static void check_json(const unsigned char *p, const unsigned char *end)
{
    must(p < end && *p == '{');
    int keys = 0;
    do {
        p = json_string(p + 1, end);
        must(p < end && *p == ':');
        p = json_value(p + 1, end);
        keys++;
        must(p < end);
    } while (*p == ',');
    must(*p == '}' && p + 1 == end && keys == 19);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static unsigned char out[2 * 512 * 1024 + 2]; /* two lines at their ceiling */
    if (fd < 0)
        fd = memfd_create("line", 0);
    must(fd >= 0);
    if (size < 9)
        return 0;

    int64_t number;
    memcpy(&number, data + size - 8, 8);
    struct slice rest = slice_of((const char *)data + 1, size - 9);
    struct slice text = next_text(&rest);
    char *format = strndup(text.p, text.n);
    must(format != NULL);
    bool json = data[0] % 4 == 0;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    must(ftruncate(fd, 0) == 0);

    struct access_log *a;
    struct err e = {{0}};
    static const char *const named[] = {"json", "common", "combined"};
    const char *used = data[0] % 4 < 3 ? named[data[0] % 4] : format;
    bool gunicorn = (data[0] & 4) != 0;
    if (access_new(&a, path, used, gunicorn, &e)) {
        must(e.text[0] && used == format);
        free(format);
        return 0;
    }
    struct access_facts f = {
        .status = (int)number,
        .body_bytes = (uint64_t)number,
        .request_id = (uint64_t)number,
        .wall_ns = number,
        .total_ns = number,
        .queue_ns = number >> 3,
        .app_ns = -(number / 2),
        .close_reason = number & 1 ? "client_left" : NULL,
        .request_field = find_field,
        .response_field = find_field,
        .trace_id = number & 2 ? (const unsigned char *)"0123456789abcdef" : NULL,
    };
    struct slice *texts[] = {&f.remote_addr, &f.remote_port, &f.method,   &f.path,
                             &f.query,       &f.target,      &f.protocol, &g_authorization,
                             &g_referer,     &g_agent,       &g_other,    &f.x_request_id};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i] = next_text(&rest);
    struct slice values[32];
    const char *const *names;
    unsigned n_values = access_environ(a, &names);
    for (unsigned i = 0; i < n_values; i++)
        values[i] = next_text(&rest);
    if (data[0] & 8)
        f.environ_values = values;
    bool empty_allowed = !json && used == format; /* %(q)s alone, and no query */
    /* The second line is written into memory that the first one left. */
    access_write(a, &f);
    access_write(a, &f);
    access_free(&a);

    ssize_t n = pread(fd, out, sizeof out, 0);
    must(n > 0 && n % 2 == 0);
    size_t half = (size_t)n / 2;
    must(memcmp(out, out + half, half) == 0);
    must(out[half - 1] == '\n' && memchr(out, '\n', half) == out + half - 1);
    must(half > 1 || empty_allowed);
    for (size_t i = 0; i < half - 1; i++)
        must(out[i] >= 0x20 || (out[i] == '\t' && used == format));
    if (json)
        check_json(out, out + half - 1);
    free(format);
    return 0;
}
