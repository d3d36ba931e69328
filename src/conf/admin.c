/*
 * admin: what must be true of the settings of the admin listener, and of those about where traces
 * go.
 *
 * Stacks and users are secrets: without a token only this machine may ask.
 */
#include "conf/conf_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_CURE "make one with: openssl rand -hex 32"

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (slice_ieq(slice_str(host), SLICE("localhost")))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static int check_address(struct conf *c, struct err *e)
{
    static const struct conf_bind_rules rules = {.host = "127.0.0.1", .port = ""};
    const char *source = conf_mark(c, CONF_ROW_admin)->source;
    struct conf_bind *b = &c->admin_bind;
    if (conf_bind_parse(c, c->admin, source, &rules, b, e))
        return -1;
    if (b->kind == CONF_BIND_FD || (b->kind == CONF_BIND_TCP && !*b->port))
        return err_set(
            e, "%s: '%.200s' names no place of its own; give HOST:PORT, [IPv6]:PORT or unix:PATH",
            source, b->text);
    if (b->kind == CONF_BIND_UNIX || is_loopback(b->host) || *c->admin_token ||
        *c->admin_token_file)
        return 0;
    return err_set(
        e,
        "%s: other machines can ask %.200s, and the admin listener shows stacks and users: name "
        "a file with a token by admin-token-file (or set WEIR_ADMIN_TOKEN), or listen on "
        "127.0.0.1",
        source, b->text);
}

/* The bytes that fit into a field of HTTP and into the password of a URL. */
static int check_token(const char *token, const char *source, struct err *e)
{
    size_t n = strlen(token);
    for (const char *p = token; *p; p++)
        if (*p <= ' ' || *p >= 0x7f)
            return err_set(
                e, "%s: the token holds a space or a character beyond ASCII; " TOKEN_CURE, source);
    if (n < CONF_TOKEN_BYTES_MIN)
        return err_set(e,
                       "%s: the token has %zu bytes, and less than %d can be guessed; " TOKEN_CURE,
                       source, n, CONF_TOKEN_BYTES_MIN);
    if (n > CONF_TOKEN_BYTES_MAX)
        return err_set(e, "%s: the token is longer than %d bytes; " TOKEN_CURE, source,
                       CONF_TOKEN_BYTES_MAX);
    return 0;
}

static int check_tokens(const struct conf *c, struct err *e)
{
    const char *source = conf_mark(c, CONF_ROW_admin_token)->source;
    if (!*c->admin_token)
        return 0;
    if (*c->admin_token_file)
        return err_set(e, "%s: there is %s, too; give one of the two", source,
                       conf_mark(c, CONF_ROW_admin_token_file)->source);
    return check_token(c->admin_token, source, e);
}

static int check_hosts(const struct conf *c, struct err *e)
{
    const char *source = conf_mark(c, CONF_ROW_admin_hosts)->source;
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    for (unsigned i = 0; i < c->admin_hosts.n; i++) {
        const char *host = c->admin_hosts.items[i];
        if (!*host || host[strspn(host, name)] || strlen(host) > 253)
            return err_set(e,
                           "%s: '%.200s' is not a host name; give it without scheme and port, as "
                           "weir.example.org",
                           source, host);
    }
    return 0;
}

static int check_ready(const struct conf *c, struct err *e)
{
    static const char *const words[] = {"booting", "draining", "saturated"};
    for (const char *p = c->ready_unless; *p; p += strspn(p, ", \t")) {
        struct slice word = slice_of(p, strcspn(p, ", \t"));
        bool known = !word.n;
        for (size_t i = 0; i < countof(words); i++)
            known |= slice_eq(word, slice_str(words[i]));
        if (!known)
            return err_set(e, "%s: '%.*s' is not known; give some of booting, draining, saturated",
                           conf_mark(c, CONF_ROW_ready_unless)->source,
                           (int)(word.n < 80 ? word.n : 80), word.p);
        p += word.n;
    }
    return 0;
}

static int check_otlp(const struct conf *c, struct err *e)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const char *url = c->otlp_endpoint;
    if (*url) {
        size_t scheme = strncmp(url, "http://", 7) == 0    ? 7
                        : strncmp(url, "https://", 8) == 0 ? 8
                                                           : 0;
        bool good = scheme && url[scheme] && !strchr("/:?#", url[scheme]);
        for (const char *p = url; *p; p++)
            good = good && *p > ' ' && *p < 0x7f;
        if (!good)
            return err_set(e,
                           "%s: '%.200s' is not the URL of a collector; give one as "
                           "http://localhost:4318/v1/traces",
                           conf_mark(c, CONF_ROW_otlp_endpoint)->source, url);
    }
    for (unsigned i = 0; i < c->otlp_headers.n; i++) {
        const char *text = c->otlp_headers.items[i];
        size_t n = strspn(text, token);
        bool good = n && text[n] == '=';
        for (const char *p = text; *p; p++)
            good = good && (unsigned char)*p >= ' ' && *p != 0x7f;
        if (!good) /* the value may be a key: it is not shown */
            return err_set(e, "%s: item %u is not NAME=VALUE, as Authorization=Bearer ...",
                           conf_mark(c, CONF_ROW_otlp_headers)->source, i + 1);
    }
    return 0;
}

int conf_admin_check(struct conf *c, struct err *e)
{
    if ((*c->admin && check_address(c, e)) || check_tokens(c, e) || check_hosts(c, e) ||
        check_ready(c, e) || check_otlp(c, e))
        return -1;
    return 0;
}

/* ---- the token ---- */

static int read_file(const char *path, char out[CONF_TOKEN_BYTES_MAX + 1], const char *source,
                     struct err *e)
{
    char text[CONF_TOKEN_BYTES_MAX + 64]; /* with what is trimmed */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    int failed = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return err_set(e, "%s: cannot read '%.400s': %s", source, path, strerror(failed));
    struct slice s = slice_of(text, (size_t)n);
    while (s.n && strchr(" \t\r\n", s.p[s.n - 1]))
        s.n--;
    while (s.n && strchr(" \t\r\n", s.p[0]))
        s = slice_of(s.p + 1, s.n - 1);
    bool fits = s.n <= CONF_TOKEN_BYTES_MAX && (size_t)n < sizeof text && !memchr(s.p, 0, s.n);
    if (fits) {
        memcpy(out, s.p, s.n);
        out[s.n] = 0;
    }
    explicit_bzero(text, sizeof text);
    return fits ? check_token(out, source, e)
                : err_set(e, "%s: '%.400s' holds no token; " TOKEN_CURE, source, path);
}

int conf_admin_token(const struct conf *c, const char *folder, char out[CONF_TOKEN_BYTES_MAX + 1],
                     struct err *e)
{
    char path[PATH_MAX], source[200];
    const char *file = c->admin_token_file;
    out[0] = 0;
    if (!*c->admin)
        return 0;
    if (!*file) {
        snprintf(out, CONF_TOKEN_BYTES_MAX + 1, "%s", c->admin_token);
        return 0;
    }
    bool below = *folder && file[0] != '/';
    snprintf(source, sizeof source, "%s", conf_mark(c, CONF_ROW_admin_token_file)->source);
    if (snprintf(path, sizeof path, "%s%s%s", below ? folder : "", below ? "/" : "", file) >=
        (int)sizeof path)
        return err_set(e, "%s: the path is too long", source);
    int rc = read_file(path, out, source, e);
    if (rc)
        out[0] = 0;
    return conf_plain_error(rc, e);
}
