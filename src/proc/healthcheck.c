/* healthcheck: see the header. */
#include "proc/healthcheck.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/conf.h"
#include "net/tls.h"

static const double TIMEOUT_S = 2;
static const double TIMEOUT_S_MAX = 3600;
/* What is read of an answer: a ping has some 200 bytes. */
#define ANSWER_BYTES_MAX ((size_t)64 * 1024)
#define ARGS_MAX 256

/* A handshake's first message, TLS 1.2, that every server must answer or refuse (RFC 5246
 * §7.4.1.2): six common ciphers, the groups x25519 and secp256r1, the usual signatures. */
// clang-format off
static const unsigned char CLIENT_HELLO[] = {
    0x16, 0x03, 0x01, 0x00, 0x64,       /* record: handshake, 100 bytes */
    0x01, 0x00, 0x00, 0x60, 0x03, 0x03, /* ClientHello, 96 bytes, TLS 1.2 */
    /* Random: nothing follows that it would protect. */
    'w', 'e', 'i', 'r', ' ', 'h', 'e', 'a', 'l', 't', 'h', 'c', 'h', 'e', 'c', 'k',
    'w', 'e', 'i', 'r', ' ', 'h', 'e', 'a', 'l', 't', 'h', 'c', 'h', 'e', 'c', 'k',
    0x00,                                                                   /* no session */
    0x00, 0x0c, 0xc0, 0x2f, 0xc0, 0x30, 0xc0, 0x2b, 0xc0, 0x2c, 0xcc, 0xa8, 0xcc, 0xa9, /* ciphers */
    0x01, 0x00,                                                             /* no compression */
    0x00, 0x2b,                                                             /* extensions: 43 bytes */
    0x00, 0x0a, 0x00, 0x06, 0x00, 0x04, 0x00, 0x1d, 0x00, 0x17,             /* groups */
    0x00, 0x0b, 0x00, 0x02, 0x01, 0x00,                                     /* point formats */
    0x00, 0x0d, 0x00, 0x0e, 0x00, 0x0c, 0x04, 0x03, 0x08, 0x04, 0x04, 0x01, /* signatures: ECDSA, PSS, */
    0x05, 0x03, 0x08, 0x05, 0x05, 0x01,                                     /* RSA; SHA-256 and -384 */
    0x00, 0x17, 0x00, 0x00,                                                 /* extended master secret */
    0xff, 0x01, 0x00, 0x01, 0x00,                                           /* renegotiation: first one */
};
// clang-format on
static_assert(sizeof CLIENT_HELLO == 5 + 100, "the lengths inside are the sum of the parts");

/* Whom to ask, and how. */
struct target {
    struct conf_bind bind;
    const char *host_field; /* Host: */
    const char *path;       /* of the request */
    const char *proxy;      /* proxy-protocol: "off", "v1", … */
    bool tls;
    int64_t deadline_ns; /* monotonic */
    char name[400];      /* for the verdict */
    char ping[300];      /* the internal path's, unless the address has one */
};

/* ---- what is asked for ---- */

static void usage(FILE *out)
{
    fputs("Usage: weir healthcheck [ADDRESS] [--timeout TIME] [settings of weir]\n"
          "\n"
          "Ask a running server GET /-/ping: exit code 0 when it answers, 1 when it does not.\n"
          "ADDRESS is http://HOST:PORT[/PATH], or as for --bind: HOST:PORT, PORT, unix:PATH.\n"
          "Without it the settings that the server was started with tell the address: --bind, "
          "--port,\n"
          "--config, WEIR_BIND, PORT, weir.yaml. TIME is for the whole check [2s].\n",
          out);
}

/* 2, 0.5, 500ms, 2s, 1m. */
static bool parse_timeout(const char *text, int64_t *out_ms)
{
    char *end;
    double n = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;
    if (n < 0)
        return false;
    double unit = strcmp(end, "ms") == 0           ? 0.001
                  : !*end || strcmp(end, "s") == 0 ? 1
                  : strcmp(end, "m") == 0          ? 60
                                                   : -1;
    if (unit < 0 || n * unit > TIMEOUT_S_MAX || n * unit < 0.001)
        return false;
    *out_ms = (int64_t)(n * unit * 1000);
    return true;
}

/* What is left for conf: options, and an address as --bind. */
struct args {
    char *items[ARGS_MAX + 4];
    int n;
    const char *address; /* as given; NULL: none */
    char *owned;         /* --bind=ADDRESS */
    const char *path;    /* of a URL; NULL */
    int64_t timeout_ms;
    bool help;
};

static int take_url(struct args *a, const char *rest, struct err *e)
{
    size_t n = strcspn(rest, "/?#");
    if (n == 0)
        return err_set(e, "'%.200s' names no host; give http://HOST:PORT", a->address);
    if (rest[n] == '/')
        a->path = rest + n;
    bool has_port = memchr(rest, ':', n) && rest[n - 1] != ']';
    if (asprintf(&a->owned, "--bind=%.*s%s", (int)n, rest, has_port ? "" : ":80") < 0)
        return err_set(e, "out of memory");
    return 0;
}

static int take_address(struct args *a, const char *text, struct err *e)
{
    if (a->address)
        return err_set(e, "two addresses given, '%.100s' and '%.100s'; give one", a->address, text);
    a->address = text;
    if (strncmp(text, "https://", 8) == 0)
        return err_set(e,
                       "'%.200s': a certificate is not checked here; give the address alone and "
                       "--certfile, as the server has it",
                       text);
    if (strncmp(text, "http://", 7) == 0 && strncmp(text, "http://unix:", 12) != 0)
        return take_url(a, text + 7, e);
    if (asprintf(&a->owned, "--bind=%s", strncmp(text, "http://", 7) == 0 ? text + 7 : text) < 0)
        return err_set(e, "out of memory");
    return 0;
}

/* Options of weir with a value of their own word keep it: `--bind X`, `-b X`. */
static bool takes_next(const char *option)
{
    static const char *const WITH_VALUE[] = {
        "-b",         "--bind",          "--host",     "--port",           "--config",
        "--env-file", "--internal-path", "--certfile", "--proxy-protocol", "--chdir"};
    for (size_t i = 0; i < countof(WITH_VALUE); i++)
        if (strcmp(option, WITH_VALUE[i]) == 0)
            return true;
    return false;
}

static int sort_args(struct args *a, int argc, char *const *argv, struct err *e)
{
    static char print[] = "--print-config"; /* the settings without an application */
    a->timeout_ms = (int64_t)(TIMEOUT_S * 1000);
    a->items[a->n++] = argv[0];
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (a->n >= ARGS_MAX)
            return err_set(e, "too many arguments");
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            a->help = true;
        } else if (strncmp(arg, "--timeout", 9) == 0 && (!arg[9] || arg[9] == '=')) {
            const char *value = arg[9] ? arg + 10 : i + 1 < argc ? argv[++i] : "";
            if (!parse_timeout(value, &a->timeout_ms))
                return err_set(e, "--timeout: '%.80s' is not a time; give 1ms to 1h, as 2 or 500ms",
                               value);
        } else if (arg[0] == '-' && arg[1]) {
            a->items[a->n++] = arg;
            if (takes_next(arg) && i + 1 < argc)
                a->items[a->n++] = argv[++i];
        } else if (take_address(a, arg, e)) {
            return -1;
        }
    }
    if (a->owned)
        a->items[a->n++] = a->owned;
    a->items[a->n++] = print;
    return 0;
}

/* ---- the address ---- */

/* Where a client of this machine finds what listens there. */
static const char *reachable(const char *host)
{
    if (!*host || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(host, "::") == 0 ? "::1" : host;
}

static int make_target(struct target *t, const struct conf *c, const struct args *a, struct err *e)
{
    *t = (struct target){.bind = c->binds[0], .proxy = c->proxy_protocol, .tls = tls_wanted(c)};
    const struct conf_bind *b = &t->bind;
    switch (b->kind) {
    case CONF_BIND_FD:
        return err_set(e,
                       "the server listens on an inherited descriptor (%s), which says no address; "
                       "name one: weir healthcheck HOST:PORT",
                       b->text);
    case CONF_BIND_UNIX:
        snprintf(t->name, sizeof t->name, "unix:%s", b->path);
        t->host_field = "localhost";
        break;
    case CONF_BIND_TCP:
        t->bind.host = t->host_field = reachable(b->host);
        if (strcmp(b->port, "0") == 0)
            return err_set(
                e, "port 0 is chosen anew at each start; name the address: weir healthcheck "
                   "HOST:PORT");
        snprintf(t->name, sizeof t->name, strchr(t->bind.host, ':') ? "[%s]:%s" : "%s:%s",
                 t->bind.host, b->port);
        break;
    }
    snprintf(t->ping, sizeof t->ping, "%.250sping", *c->internal_path ? c->internal_path : "/");
    t->path = a->path ? a->path : *c->internal_path ? t->ping : "/";
    for (const char *p = t->path; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return err_set(e, "the path of the address contains a space or control character");
    t->deadline_ns = clock_mono_ns() + a->timeout_ms * 1000000;
    return 0;
}

/* ---- asking ---- */

/* Wait until fd is ready; 0, -ETIMEDOUT or another negative errno. */
static int await(const struct target *t, int fd, short events)
{
    for (;;) {
        int64_t left_ms = (t->deadline_ns - clock_mono_ns() + 999999) / 1000000;
        struct pollfd p = {.fd = fd, .events = events};
        if (left_ms <= 0)
            return -ETIMEDOUT;
        int n = poll(&p, 1, (int)left_ms);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* A connected socket, or a negative errno. */
static int dial(const struct target *t, int family, const struct sockaddr *sa, socklen_t n)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int rc = connect(fd, sa, n) ? -errno : 0;
    if (rc == -EINPROGRESS) {
        int failed = 0;
        socklen_t len = sizeof failed;
        rc = await(t, fd, POLLOUT);
        if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) == 0)
            rc = -failed;
    }
    if (rc == -EAGAIN) /* a Unix socket whose backlog is full */
        rc = -ETIMEDOUT;
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

static int dial_unix(const struct target *t)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(t->bind.path);
    bool abstract = t->bind.path[0] == '@';
    if (n >= sizeof un.sun_path)
        return -ENAMETOOLONG;
    memcpy(un.sun_path, t->bind.path, n);
    if (abstract)
        un.sun_path[0] = '\0';
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (abstract ? 0 : 1));
    return dial(t, AF_UNIX, (struct sockaddr *)&un, len);
}

static int dial_tcp(const struct target *t, const char **why)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(t->bind.host, t->bind.port, &hints, &found);
    if (rc) {
        *why = gai_strerror(rc);
        return -EINVAL;
    }
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = dial(t, a->ai_family, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(found);
    return fd;
}

static int send_all(const struct target *t, int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else {
            int rc = await(t, fd, POLLOUT);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* What the front-end would write before the request: a connection of its own (the PROXY protocol,
 * §2.1 UNKNOWN, §2.2 LOCAL). */
static int send_proxy(const struct target *t, int fd)
{
    static const char V1[] = "PROXY UNKNOWN\r\n";
    static const char V2[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0";
    if (strcmp(t->proxy, "off") == 0)
        return 0;
    if (strcmp(t->proxy, "v2") == 0)
        return send_all(t, fd, V2, 16);
    return send_all(t, fd, V1, sizeof V1 - 1);
}

/* Read until the server closes, the buffer is full, or `enough` says that no more is needed.
 * Returns the bytes, or a negative errno when nothing came. */
static ssize_t receive(const struct target *t, int fd, char *out, size_t n, bool first_only)
{
    size_t got = 0;
    int rc = 0;
    while (got < n && !(first_only && got > 0)) {
        ssize_t k = recv(fd, out + got, n - got, 0);
        if (k > 0) {
            got += (size_t)k;
            continue;
        }
        if (k == 0)
            break;
        rc = errno == EAGAIN ? await(t, fd, POLLIN) : errno == EINTR ? 0 : -errno;
        if (rc)
            break;
    }
    return got ? (ssize_t)got : rc ? rc : 0;
}

static const char *reason(int rc)
{
    return rc == -ETIMEDOUT ? "no answer in time" : strerror(-rc);
}

/* 0: healthy, and `said` tells how; otherwise *e. */
static int ask_tls(const struct target *t, int fd, char *said, size_t said_n, struct err *e)
{
    unsigned char answer[16];
    int rc = send_all(t, fd, CLIENT_HELLO, sizeof CLIENT_HELLO);
    ssize_t n = rc ? rc : receive(t, fd, (char *)answer, sizeof answer, true);
    if (n < 0)
        return err_set(e, "%s: %s", t->name, reason((int)n));
    if (n == 0)
        return err_set(e, "%s: closed without an answer", t->name);
    if (answer[0] != 0x16 && answer[0] != 0x15) /* a handshake, or an alert */
        return err_set(e, "%s: certfile is set, but what answers there is no TLS", t->name);
    snprintf(said, said_n, "answers TLS handshakes");
    return 0;
}

static int ask_http(const struct target *t, int fd, char *said, size_t said_n, struct err *e)
{
    static char answer[ANSWER_BYTES_MAX + 1];
    char request[1024];
    bool six = strchr(t->host_field, ':') != NULL;
    int k = snprintf(request, sizeof request,
                     "GET %.500s HTTP/1.1\r\nHost: %s%.200s%s\r\nUser-Agent: weir-healthcheck\r\n"
                     "Connection: close\r\n\r\n",
                     t->path, six ? "[" : "", t->host_field, six ? "]" : "");
    int rc = send_all(t, fd, request, (size_t)k);
    ssize_t n = rc ? rc : receive(t, fd, answer, ANSWER_BYTES_MAX, false);
    if (n < 0)
        return err_set(e, "%s: %s", t->name, reason((int)n));
    answer[n] = 0;
    if (n == 0)
        return err_set(e, "%s: closed without an answer", t->name);
    if (strncmp(answer, "HTTP/1.", 7) != 0 || n < 13 || answer[8] != ' ')
        return err_set(e, "%s: what answers there is no HTTP server", t->name);
    long status = strtol(answer + 9, NULL, 10);
    if (status < 200 || status > 299)
        return err_set(e, "%s: GET %.200s is answered with %ld", t->name, t->path, status);
    snprintf(said, said_n, "GET %.200s is answered with %ld", t->path, status);
    return 0;
}

static int ask(const struct target *t, char *said, size_t said_n, struct err *e)
{
    const char *why = NULL;
    int fd = t->bind.kind == CONF_BIND_UNIX ? dial_unix(t) : dial_tcp(t, &why);
    if (fd < 0)
        return err_set(e, "%s: %s", t->name, why ? why : reason(fd));
    int rc = send_proxy(t, fd);
    if (rc)
        rc = err_set(e, "%s: %s", t->name, reason(rc));
    else
        rc = (t->tls ? ask_tls : ask_http)(t, fd, said, said_n, e);
    close(fd);
    return rc;
}

static int check(struct conf *c, const struct args *a, char *const *environ_, struct err *e,
                 FILE *out)
{
    enum conf_action action;
    int status;
    struct target t;
    char said[300];
    if (conf_init(c, CONF_WEIR, e) ||
        conf_load(c, a->n, a->items, environ_, out, &action, &status, e))
        return -1;
    if (action == CONF_EXIT) /* --version */
        return 0;
    if (make_target(&t, c, a, e))
        return -1;
    int64_t begin_ns = clock_mono_ns();
    if (ask(&t, said, sizeof said, e))
        return -1;
    fprintf(out, "weir: healthy: %s: %s in %.1f ms\n", t.name, said,
            (double)(clock_mono_ns() - begin_ns) / 1e6);
    return 0;
}

int healthcheck_main(int argc, char *const *argv, char *const *environ_, FILE *out, FILE *out_err)
{
    struct args a = {.n = 0};
    struct conf c = {.n_binds = 0};
    struct err e = {{0}};
    int rc = sort_args(&a, argc, argv, &e);
    if (!rc && a.help)
        usage(out);
    else if (!rc)
        rc = check(&c, &a, environ_, &e, out);
    if (c.priv)
        conf_fini(&c);
    free(a.owned);
    if (rc)
        fprintf(out_err, "weir: unhealthy: %s\n", e.text);
    return rc ? 1 : 0;
}
