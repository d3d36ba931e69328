/* listen: see the header. */
#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"

/* So many connections are accepted from one listener before others get their turn. */
#define ACCEPTS_PER_TURN 64
/* How long to wait where no connection can be accepted. */
#define REST_MS 100

static int set_on(int fd, int level, int name)
{
    int on = 1;
    return setsockopt(fd, level, name, &on, sizeof on);
}

/* Fill in the textual address of a bound socket. */
static void describe(struct listener *l)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    memset(&ss, 0, sizeof ss);
    if (getsockname(l->fd, (struct sockaddr *)&ss, &len))
        return;
    if (ss.ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&ss;
        size_t n = len > offsetof(struct sockaddr_un, sun_path)
                       ? len - offsetof(struct sockaddr_un, sun_path)
                       : 0;
        l->is_unix = true;
        memcpy(l->host, un->sun_path, n < sizeof l->host ? n : sizeof l->host - 1);
        if (n > 1 && l->host[0] == '\0') /* an abstract name has no end of its own */
            l->host[0] = '@';
        snprintf(l->url, sizeof l->url, "http://unix:%s", l->host);
    } else if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&ss;
        inet_ntop(AF_INET, &in->sin_addr, l->host, sizeof l->host);
        snprintf(l->port, sizeof l->port, "%u", ntohs(in->sin_port));
        snprintf(l->url, sizeof l->url, "http://%s:%s", l->host, l->port);
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, l->host, sizeof l->host);
        snprintf(l->port, sizeof l->port, "%u", ntohs(in6->sin6_port));
        snprintf(l->url, sizeof l->url, "http://[%s]:%s", l->host, l->port);
    }
}

static struct listener *add(struct listen_set *set, int fd, struct err *e)
{
    struct listener *l = set->n < countof(set->items) ? calloc(1, sizeof *l) : NULL;
    if (!l) {
        err_set(e, "too many addresses to listen on (at most %zu)", countof(set->items));
        close(fd);
        return NULL;
    }
    l->set = set;
    l->fd = fd;
    set->items[set->n++] = l;
    describe(l);
    return l;
}

static int open_tcp(struct listen_set *set, const struct listen_spec *s, struct err *e)
{
    struct addrinfo hints = {
        .ai_family = s->ipv4 && s->ipv6 ? AF_UNSPEC : s->ipv6 ? AF_INET6 : AF_INET,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE,
    };
    struct addrinfo *found = NULL;
    bool all = !s->host || !*s->host || strcmp(s->host, "*") == 0;
    int rc = getaddrinfo(all ? NULL : s->host, s->port, &hints, &found);
    if (rc == EAI_SERVICE)
        return err_set(e, "cannot listen on %s: '%s' is no port; give a number from 0 to 65535 or the "
                          "name of a service", s->text, s->port);
    if (rc)
        return err_set(e, "cannot listen on %s: %s; give an address of this machine", s->text,
                       gai_strerror(rc));
    unsigned opened = 0;
    int failed = 0;
    char port[8] = ""; /* port 0 of several families: the first one decides */
    for (struct addrinfo *a = found; a && !failed; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            if (errno == EAFNOSUPPORT)
                continue; /* a machine without IPv6 */
            failed = errno;
            break;
        }
        set_on(fd, SOL_SOCKET, SO_REUSEADDR);
        set_on(fd, IPPROTO_TCP, TCP_NODELAY); /* accepted sockets inherit it on Linux */
        if (a->ai_family == AF_INET6)
            set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY);
        if (*port) {
            uint16_t p = htons((uint16_t)strtoul(port, NULL, 10));
            if (a->ai_family == AF_INET6)
                ((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_port = p;
            else
                ((struct sockaddr_in *)(void *)a->ai_addr)->sin_port = p;
        }
        if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, s->backlog)) {
            failed = errno;
            close(fd);
            /* "localhost" may name an IPv6 address that this machine has not. */
            if (failed == EADDRNOTAVAIL && (opened || a->ai_next)) {
                failed = 0;
                continue;
            }
            break;
        }
        struct listener *l = add(set, fd, e);
        if (!l) {
            freeaddrinfo(found);
            return -1;
        }
        snprintf(port, sizeof port, "%s", l->port);
        opened++;
    }
    freeaddrinfo(found);
    if (failed == EADDRINUSE)
        return err_set(e, "cannot listen on %s: address already in use: stop the process that "
                          "has this port, or choose another port", s->text);
    if (failed == EACCES)
        return err_set(e, "cannot listen on %s: ports below 1024 need privileges; choose a higher "
                          "one or grant CAP_NET_BIND_SERVICE", s->text);
    if (failed || !opened)
        return err_set(e, "cannot listen on %s: %s", s->text,
                       failed ? strerror(failed) : "no usable address");
    return 0;
}

/* Does anybody answer on this Unix socket? */
static bool unix_alive(const struct sockaddr_un *un, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool alive = connect(fd, (const struct sockaddr *)un, len) == 0 || errno == EAGAIN;
    close(fd);
    return alive;
}

static int open_unix(struct listen_set *set, const struct listen_spec *s, struct err *e)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(s->path);
    if (n == 0 || n >= sizeof un.sun_path)
        return err_set(e, "cannot listen on %s: the path must have 1 to %zu bytes", s->text,
                       sizeof un.sun_path - 1);
    memcpy(un.sun_path, s->path, n);
    bool abstract = s->path[0] == '@';
    if (abstract)
        un.sun_path[0] = '\0';
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (abstract ? 0 : 1));

    struct stat st;
    if (!abstract && lstat(s->path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return err_set(e, "cannot listen on %s: the path exists and is not a socket; remove it "
                              "or choose another", s->text);
        if (unix_alive(&un, len))
            return err_set(e, "cannot listen on %s: another process answers on this socket; stop "
                              "it or choose another path", s->text);
        unlink(s->path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(e, "cannot listen on %s: %s", s->text, strerror(errno));
    /* The mode is set on the descriptor before bind, so that there is no moment with a wider one. */
    if (!abstract)
        fchmod(fd, s->mode);
    if (bind(fd, (struct sockaddr *)&un, len) ||
        (!abstract && chmod(s->path, s->mode)) || listen(fd, s->backlog)) {
        int failed = errno;
        close(fd);
        return err_set(e, "cannot listen on %s: %s", s->text, strerror(failed));
    }
    struct listener *l = add(set, fd, e);
    if (!l)
        return -1;
    if (!abstract) {
        l->owns_path = true;
        memcpy(l->path, s->path, n + 1);
    }
    return 0;
}

static int open_fd(struct listen_set *set, const struct listen_spec *s, struct err *e)
{
    int listening = 0;
    socklen_t len = sizeof listening;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len))
        return err_set(e, "cannot listen on %s: descriptor %d is not a socket: %s", s->text, s->fd,
                       strerror(errno));
    if (!listening && listen(s->fd, s->backlog))
        return err_set(e, "cannot listen on %s: descriptor %d is not a bound stream socket: %s",
                       s->text, s->fd, strerror(errno));
    int fd = s->fd;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    struct listener *l = add(set, fd, e);
    if (!l)
        return -1;
    if (!l->is_unix)
        set_on(fd, IPPROTO_TCP, TCP_NODELAY);
    return 0;
}

int listen_open(struct listen_set *set, const struct listen_spec *spec, struct err *e)
{
    switch (spec->kind) {
    case LISTEN_TCP:
        return open_tcp(set, spec, e);
    case LISTEN_UNIX:
        return open_unix(set, spec, e);
    case LISTEN_FD:
        return open_fd(set, spec, e);
    }
    return -1;
}

static int spare_open(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Descriptors ran out: give up the spare one, take the connection, refuse it, get the spare back.
 * 0 or a positive errno. */
static int refuse_one(struct listener *l)
{
    struct listen_set *set = l->set;
    if (set->spare_fd < 0)
        set->spare_fd = spare_open();
    if (set->spare_fd < 0)
        return errno;
    close(set->spare_fd);
    set->spare_fd = -1;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int rc = fd < 0 ? errno : 0;
    if (fd >= 0)
        set->refused(set->arg, fd);
    set->spare_fd = spare_open();
    return rc;
}

static void poll_all(struct listen_set *set, bool on);

static void on_rest_over(uv_timer_t *timer)
{
    struct listen_set *set = timer->data;
    poll_all(set, !set->paused);
}

/* Connections wait and none can be taken, not even to refuse it: looking again at once would only
 * burn the processor. */
static void rest(struct listen_set *set, int err)
{
    log_flood(LOG_WARNING, 0, "cannot accept connections: %s; trying again every %d ms", strerror(err),
              REST_MS);
    poll_all(set, false);
    uv_timer_start(&set->rest, on_rest_over, REST_MS, 0);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct listener *l = poll->data;
    struct listen_set *set = l->set;
    (void)events;
    if (status < 0)
        return;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN && l->polling; i++) {
        struct sockaddr_storage ss;
        socklen_t len = sizeof ss;
        int fd = accept4(l->fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (l->is_unix)
                ss.ss_family = AF_UNIX;
            if (!set->accepted(set->arg, l, fd, &ss))
                listen_pause(set, true);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            int rc = refuse_one(l);
            if (rc == 0)
                continue;
            if (rc != EAGAIN)
                rest(set, rc);
            return;
        }
        if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
            continue;
        return;
    }
}

int listen_start(struct listen_set *set, struct loop *loop, struct err *e)
{
    set->loop = loop;
    set->spare_fd = spare_open();
    uv_timer_init(&loop->uv, &set->rest);
    set->rest.data = set;
    for (unsigned i = 0; i < set->n; i++) {
        struct listener *l = set->items[i];
        int rc = uv_poll_init(&loop->uv, &l->poll, l->fd);
        if (rc)
            return err_set(e, "cannot watch %s: %s", l->url, uv_strerror(rc));
        l->poll.data = l;
    }
    set->paused = true;
    listen_pause(set, false);
    return 0;
}

static void poll_all(struct listen_set *set, bool on)
{
    for (unsigned i = 0; i < set->n; i++) {
        struct listener *l = set->items[i];
        if (l->closed)
            continue;
        l->polling = on;
        if (on)
            uv_poll_start(&l->poll, UV_READABLE, on_poll);
        else
            uv_poll_stop(&l->poll);
    }
}

void listen_pause(struct listen_set *set, bool paused)
{
    if (set->paused == paused || !set->loop)
        return;
    set->paused = paused;
    poll_all(set, !paused);
}

void listen_close(struct listen_set *set)
{
    for (unsigned i = 0; i < set->n; i++) {
        struct listener *l = set->items[i];
        if (l->closed)
            continue;
        l->closed = true;
        l->polling = false;
        if (l->owns_path)
            unlink(l->path);
        if (set->loop) {
            uv_poll_stop(&l->poll);
            uv_close((uv_handle_t *)&l->poll, NULL);
        }
        close(l->fd);
    }
    if (set->loop && !uv_is_closing((uv_handle_t *)&set->rest))
        uv_close((uv_handle_t *)&set->rest, NULL);
    if (set->spare_fd >= 0)
        close(set->spare_fd);
    set->spare_fd = -1;
}

void listen_fini(struct listen_set *set)
{
    listen_close(set);
    for (unsigned i = 0; i < set->n; i++)
        free(set->items[i]);
    set->n = 0;
}
