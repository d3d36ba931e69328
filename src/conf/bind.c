/* bind: where to listen, as people write it. */
#include "conf/conf_private.h"

#include <inttypes.h>
#include <string.h>
#include <sys/un.h>

/* More listeners than a server can hold (net/listen.h). */
static const unsigned BINDS_MAX = 64;
static const int64_t PORT_MAX = 65535;

#define BIND_FORMS "give HOST:PORT, [IPv6]:PORT, :PORT, unix:PATH or fd://N"

static bool all_digits(const char *s)
{
    return *s && s[strspn(s, "0123456789")] == 0;
}

int conf_port_check(const char *port, const char *source, struct err *e)
{
    int64_t n;
    char text[32];
    if (all_digits(port)) {
        snprintf(text, sizeof text, "%" PRId64, PORT_MAX);
        return conf_value_number(KIND_INT, port, "0", text, source, &n, e);
    }
    /* A service name, as of /etc/services; whether it exists shows when it is opened. */
    size_t n_name =
        strspn(port, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    if (n_name == 0 || port[n_name] || port[0] == '-' || n_name > 32)
        return err_set(e, "%s: '%.80s' is not a port; give 0 to 65535", source, port);
    return 0;
}

static int host_check(const char *host, const char *text, const char *source, struct err *e)
{
    for (const char *p = host; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("/[]@,?#", *p))
            return err_set(e, "%s: '%.200s' is not an address; " BIND_FORMS, source, text);
    if (strlen(host) > 253)
        return err_set(e, "%s: '%.60s...' is too long for a host name", source, host);
    return 0;
}

static int parse_unix(const char *path, const char *source, struct conf_bind *out, struct err *e)
{
    size_t max = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (!*path || (path[0] == '@' && !path[1]))
        return err_set(e, "%s: the path of the Unix socket is missing; give unix:PATH", source);
    if (strlen(path) > max)
        return err_set(e, "%s: the path of the Unix socket is longer than %zu bytes: %.200s",
                       source, max, path);
    out->kind = CONF_BIND_UNIX;
    out->path = path;
    return 0;
}

static int parse_fd(const char *number, const char *source, struct conf_bind *out, struct err *e)
{
    int64_t fd;
    if (conf_value_number(KIND_INT, number, "0", "1048576", source, &fd, e))
        return -1;
    out->kind = CONF_BIND_FD;
    out->fd = (int)fd;
    return 0;
}

/* Cut "host:port" in place; *port is NULL when there is none. */
static int cut(char *text, const struct conf_bind_rules *rules, const char *source, char **host,
               char **port, struct err *e)
{
    char *colon = strrchr(text, ':');
    char *close = strrchr(text, ']');
    *host = text;
    *port = NULL;
    if (text[0] == '[') {
        if (!close || (close[1] && close[1] != ':'))
            return err_set(e, "%s: '%.200s' is not an address; give [IPv6]:PORT", source, text);
        if (close[1])
            *port = close + 2;
        *close = 0;
        (*host)++;
        return 0;
    }
    if (!colon)
        return 0;
    if (!rules->last_colon && strchr(text, ':') != colon)
        return err_set(e,
                       "%s: '%.200s' has more than one colon; put an IPv6 address in brackets, "
                       "as [::1]:8000",
                       source, text);
    *colon = 0;
    *port = colon + 1;
    return 0;
}

int conf_bind_parse(struct conf *c, const char *text, const char *source,
                    const struct conf_bind_rules *rules, struct conf_bind *out, struct err *e)
{
    struct slice s = slice_trim(slice_str(text));
    char *copy, *host, *port;

    *out = (struct conf_bind){.fd = -1, .host = "", .port = "", .path = ""};
    if (!(out->text = copy = conf_copy(c, s.p, s.n, e)))
        return -1;
    if (s.n == 0)
        return err_set(e, "%s: the address is empty; " BIND_FORMS, source);
    if (slice_starts(s, SLICE("unix:")))
        return parse_unix(copy + 5, source, out, e);
    if (slice_starts(s, SLICE("fd://")))
        return parse_fd(copy + 5, source, out, e);
    if (strstr(copy, "://"))
        return err_set(e, "%s: '%.200s' is a URL; give HOST:PORT alone", source, copy);

    out->kind = CONF_BIND_TCP;
    if (!rules->last_colon && all_digits(copy)) {
        out->host = rules->host;
        out->port = copy;
        return conf_port_check(copy, source, e);
    }
    if (!(copy = conf_copy(c, s.p, s.n, e)) || cut(copy, rules, source, &host, &port, e))
        return -1;
    if (port && !*port)
        return err_set(e, "%s: '%.200s' has no port behind its colon", source, out->text);
    out->host = strcmp(host, "*") == 0 ? "" : host;
    out->port = port ? port : rules->port;
    if (host_check(out->host, out->text, source, e))
        return -1;
    return port ? conf_port_check(port, source, e) : 0;
}

static bool same_bind(const struct conf_bind *a, const struct conf_bind *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case CONF_BIND_TCP:
        /* Port 0 gives each its own. */
        return strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0 &&
               strcmp(a->port, "0") != 0;
    case CONF_BIND_UNIX:
        return strcmp(a->path, b->path) == 0;
    case CONF_BIND_FD:
        return a->fd == b->fd;
    }
    return false;
}

/* Append; the same address twice is one. */
static int add(struct conf *c, const struct conf_bind *bind, const char *source, struct err *e)
{
    for (unsigned i = 0; i < c->n_binds; i++)
        if (same_bind(&c->binds[i], bind))
            return 0;
    if (c->n_binds == BINDS_MAX)
        return err_set(e, "%s: more than %u addresses", source, BINDS_MAX);
    if (!c->binds && !(c->binds = arena_alloc(&c->arena, BINDS_MAX * sizeof *c->binds)))
        return err_set(e, "out of memory");
    c->binds[c->n_binds++] = *bind;
    return 0;
}

static int add_text(struct conf *c, const char *text, const char *source,
                    const struct conf_bind_rules *rules, struct err *e)
{
    struct conf_bind bind;
    if (conf_bind_parse(c, text, source, rules, &bind, e))
        return -1;
    return add(c, &bind, source, e);
}

/* Host and port that were given apart. A host needs no brackets here. */
static int add_pair(struct conf *c, const char *host, const char *port, const char *port_source,
                    struct err *e)
{
    struct conf_bind bind = {.kind = CONF_BIND_TCP, .fd = -1, .path = ""};
    size_t n = strlen(host);
    char text[400];
    if (n > 2 && host[0] == '[' && host[n - 1] == ']' && !(host = conf_copy(c, host + 1, n - 2, e)))
        return -1;
    if (strcmp(host, "*") == 0)
        host = "";
    if (host_check(host, host, "--host", e) || conf_port_check(port, port_source, e))
        return -1;
    snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    bind.host = host;
    bind.port = port;
    if (!(bind.text = conf_copy(c, text, strlen(text), e)))
        return -1;
    return add(c, &bind, "--host", e);
}

static int add_fds(struct conf *c, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    char text[32];
    for (unsigned i = 0; i < p->sockets.n; i++) {
        snprintf(text, sizeof text, "fd://%s", p->sockets.items[i]);
        if (add_text(c, text, "sockets", &(struct conf_bind_rules){0}, e))
            return -1;
    }
    for (int i = 0; i < p->systemd_fds; i++) {
        snprintf(text, sizeof text, "fd://%d", 3 + i);
        if (add_text(c, text, "LISTEN_FDS", &(struct conf_bind_rules){0}, e))
            return -1;
    }
    return 0;
}

bool conf_bind_is_weaker(const struct conf *c)
{
    const struct conf_priv *p = conf_priv(c);
    return conf_mark(c, CONF_ROW_bind)->level == LEVEL_FILE &&
           (p->host || p->port || p->port_env || p->systemd_fds || p->listen.n || p->unix_socket ||
            p->have_sockets);
}

int conf_binds_make(struct conf *c, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    bool waitress = c->dialect == CONF_WAITRESS;
    struct conf_bind_rules own = {.host = "127.0.0.1", .port = "8000"};
    struct conf_bind_rules theirs = {
        .host = "0.0.0.0", .port = p->port ? p->port : "8080", .last_colon = true};
    const struct conf_mark *bind = conf_mark(c, CONF_ROW_bind);

    c->binds = NULL;
    c->n_binds = 0;
    for (unsigned i = 0; i < c->bind.n && !conf_bind_is_weaker(c); i++)
        if (add_text(c, c->bind.items[i], bind->source, &own, e))
            return -1;
    if (c->n_binds)
        return 0;
    for (unsigned i = 0; i < p->listen.n; i++)
        if (add_text(c, p->listen.items[i], "listen", &theirs, e))
            return -1;
    if (p->unix_socket) {
        struct conf_bind b = {.fd = -1, .host = "", .port = ""};
        char text[128];
        if (parse_unix(p->unix_socket, "unix-socket", &b, e))
            return -1;
        snprintf(text, sizeof text, "unix:%s", p->unix_socket);
        if (!(b.text = conf_copy(c, text, strlen(text), e)) || add(c, &b, "unix-socket", e))
            return -1;
    }
    if (p->have_sockets || (p->systemd_fds && !p->host && !p->port && !p->port_env))
        if (add_fds(c, e))
            return -1;
    if (c->n_binds)
        return 0;

    const char *host = p->host, *port = p->port, *port_source = "--port";
    if (!port && p->port_env) {
        port = p->port_env;
        port_source = p->port_env_source;
        if (!host)
            host = "0.0.0.0";
    }
    if (!host)
        host = waitress ? theirs.host : own.host;
    if (!port)
        port = waitress ? theirs.port : own.port;
    return add_pair(c, host, port, port_source, e);
}
