/* listen: see the header. */
#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
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
    const char *scheme = l->set->tls ? "https" : "http";
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
        snprintf(l->url, sizeof l->url, "%s://unix:%s", scheme, l->host);
    } else if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&ss;
        inet_ntop(AF_INET, &in->sin_addr, l->host, sizeof l->host);
        snprintf(l->port, sizeof l->port, "%u", ntohs(in->sin_port));
        snprintf(l->url, sizeof l->url, "%s://%s:%s", scheme, l->host, l->port);
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, l->host, sizeof l->host);
        snprintf(l->port, sizeof l->port, "%u", ntohs(in6->sin6_port));
        snprintf(l->url, sizeof l->url, "%s://[%s]:%s", scheme, l->host, l->port);
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
        if (set->shares_port)
            set_on(fd, SOL_SOCKET, SO_REUSEPORT);
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
        l->is_own = true;
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

void listener_share_port(const struct listener *l, bool on)
{
    int value = on;
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof value);
}

int listen_change(struct listen_set *set, int backlog, unsigned mode)
{
    int failed = 0;
    for (unsigned i = 0; i < set->n; i++) {
        const struct listener *l = set->items[i];
        if (l->closed || (!l->is_own && !l->owns_path))
            continue;
        /* What waits goes on waiting: only the bound is another one. */
        if ((listen(l->fd, backlog) || (l->owns_path && chmod(l->path, mode))) && !failed)
            failed = -errno;
    }
    return failed;
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

/* The n-th listener of the set; the last one is `hand`. */
static struct listener *nth(struct listen_set *set, unsigned n)
{
    return n < set->n ? set->items[n] : &set->hand;
}

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_edges(uv_poll_t *poll, int status, int events);
static void take(struct listener *l);

static void poll_one(uv_poll_t *poll, bool on, uv_poll_cb cb)
{
    if (on)
        uv_poll_start(poll, UV_READABLE, cb);
    else
        uv_poll_stop(poll);
}

static void poll_all(struct listen_set *set, bool on)
{
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        if (l->closed)
            continue;
        l->polling = on;
        if (l->watched)
            poll_one(&l->poll, on, on_poll);
    }
    if (set->edges_watched)
        poll_one(&set->edges, on, on_edges);
}

/* Is one of them readable? Takes what it may. */
static bool look(struct listen_set *set)
{
    bool waits = false;
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        struct pollfd p = {.fd = l->polling ? l->fd : -1, .events = POLLIN};
        if (poll(&p, 1, 0) > 0) {
            waits = true;
            take(l);
        }
    }
    return waits;
}

/* Accept again. Edges may have come and gone meanwhile. */
static void go_on(struct listen_set *set)
{
    poll_all(set, true);
    if (set->edges_watched)
        look(set);
}

static void on_rest_over(uv_timer_t *timer)
{
    struct listen_set *set = timer->data;
    if (set->paused)
        set->holding = false;
    else if (set->holding)
        listen_look(set);
    else
        go_on(set);
}

void listen_look(struct listen_set *set)
{
    if (!set->holding)
        return;
    set->holding = false;
    uv_timer_stop(&set->rest);
    if (!look(set))
        set->held_since_ms = 0;
}

/* Connections wait and none can be taken, not even to refuse it: looking again at once would only
 * burn the processor. */
static void rest(struct listen_set *set, int err)
{
    if (err != EAGAIN) /* otherwise only because too many are open */
        log_flood(LOG_WARNING, 0, "cannot accept connections: %s; trying again every %d ms",
                  strerror(err), REST_MS);
    set->holding = false;
    poll_all(set, false);
    uv_timer_start(&set->rest, on_rest_over, REST_MS, 0);
}

/* Is the connection that waits to be left to others for now? */
static bool is_held(struct listen_set *set)
{
    if (!set->hold)
        return false;
    uint64_t now = loop_now_ms(set->loop);
    uint64_t held_ms = set->held_since_ms ? now - set->held_since_ms : 0;
    unsigned ms = set->hold(set->arg, held_ms < UINT_MAX ? (unsigned)held_ms : UINT_MAX);
    if (WEIR_LIKELY(!ms)) {
        set->held_since_ms = 0;
        return false;
    }
    if (!set->held_since_ms)
        set->held_since_ms = now ? now : 1;
    if (!set->holding)
        uv_timer_start(&set->rest, on_rest_over, ms, 0);
    set->holding = true;
    return true;
}

/* Take one connection from `hand`; false: no more for now. */
static bool receive_one(struct listen_set *set)
{
    int rc = set->receive(set->arg);
    if (rc == -EPIPE) {
        set->hand.closed = true;
        set->hand.polling = false;
        if (set->edges_watched)
            epoll_ctl(set->edge_fd, EPOLL_CTL_DEL, set->hand.fd, NULL);
        if (set->hand.watched)
            uv_poll_stop(&set->hand.poll);
    } else if (rc < 0) {
        rest(set, -rc);
    }
    return rc > 0;
}

/* Accept one connection; false: no more for now. */
static bool accept_one(struct listener *l)
{
    struct listen_set *set = l->set;
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    int fd = accept4(l->fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        if (l->is_unix)
            ss.ss_family = AF_UNIX;
        if (!set->accepted(set->arg, l, fd, &ss))
            listen_pause(set, true);
        return true;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        int rc = refuse_one(l);
        if (rc != 0 && rc != EAGAIN)
            rest(set, rc);
        return rc == 0;
    }
    return errno == EINTR || errno == ECONNABORTED || errno == EPROTO;
}

static struct epoll_event edge_of(struct listener *l)
{
    return (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.ptr = l};
}

static void take(struct listener *l)
{
    struct listen_set *set = l->set;
    for (unsigned i = 0; l->polling && !is_held(set); i++) {
        if (i == ACCEPTS_PER_TURN) { /* to be told again if more wait */
            struct epoll_event ev = edge_of(l);
            if (set->edges_watched)
                epoll_ctl(set->edge_fd, EPOLL_CTL_MOD, l->fd, &ev);
            break;
        }
        if (!(l == &set->hand ? receive_one(set) : accept_one(l)))
            break;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)events;
    if (status >= 0)
        take(poll->data);
}

static void on_edges(uv_poll_t *poll, int status, int events)
{
    struct listen_set *set = poll->data;
    struct epoll_event ready[LISTENERS_MAX + 1];
    int n = epoll_wait(set->edge_fd, ready, countof(ready), 0);
    (void)status;
    (void)events;
    for (int i = 0; i < n; i++)
        take(ready[i].data.ptr);
}

void listen_init(struct listen_set *set)
{
    set->spare_fd = -1;
    set->hand.fd = -1;
    set->hand.closed = true;
    set->hand.set = set;
    set->edge_fd = -1;
}

static int watch(struct listen_set *set, uv_poll_t *poll, int fd, void *data)
{
    int rc = uv_poll_init(&set->loop->uv, poll, fd);
    poll->data = data;
    return rc;
}

/*
 * Where connections may be left to others, a socket stays readable that is not to be looked at. So
 * its edges are watched instead: each connection that comes is one moment to decide, and nothing turns
 * meanwhile. libuv knows no edges; a descriptor of epoll that collects them does.
 */
static int watch_edges(struct listen_set *set)
{
    set->edge_fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->edge_fd < 0)
        return -errno;
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        struct epoll_event ev = edge_of(l);
        if (!l->closed && epoll_ctl(set->edge_fd, EPOLL_CTL_ADD, l->fd, &ev))
            return -errno;
    }
    int rc = watch(set, &set->edges, set->edge_fd, set);
    set->edges_watched = rc == 0;
    return rc;
}

static void forget_in_child(struct forks_entry *e)
{
    struct listen_set *set = container_of(e, struct listen_set, forks);
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        l->polling = l->owns_path = false;
        if (!l->closed)
            close(l->fd);
        l->closed = true;
    }
}

int listen_start(struct listen_set *set, struct loop *loop, struct err *e)
{
    int rc = 0;
    set->loop = loop;
    set->spare_fd = spare_open();
    uv_timer_init(&loop->uv, &set->rest);
    set->rest.data = set;
    if (set->hold)
        rc = watch_edges(set);
    for (unsigned i = 0; i <= set->n && !rc && !set->hold; i++) {
        struct listener *l = nth(set, i);
        if (l->closed)
            continue;
        rc = watch(set, &l->poll, l->fd, l);
        l->watched = rc == 0;
    }
    if (rc)
        return err_set(e, "cannot watch for connections: %s", uv_strerror(rc));
    forks_join(&set->forks, forget_in_child);
    set->paused = true;
    listen_pause(set, false);
    return 0;
}

void listen_pause(struct listen_set *set, bool paused)
{
    if (set->paused == paused || !set->loop)
        return;
    set->paused = paused;
    if (paused)
        poll_all(set, false);
    else
        go_on(set);
}

void listen_hand(struct listen_set *set, int fd)
{
    set->hand.fd = fd;
    set->hand.closed = false;
}

struct listener *listen_find(struct listen_set *set, const char *url, int fd)
{
    for (unsigned i = 0; i < set->n; i++)
        if (strcmp(set->items[i]->url, url) == 0)
            return set->items[i];
    for (unsigned i = 0; i < set->n_foreign; i++)
        if (strcmp(set->foreign[i]->url, url) == 0)
            return set->foreign[i];
    if (set->n_foreign == LISTENERS_MAX)
        return set->foreign[0]; /* so many other addresses: the texts will not be exact */
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->set = set;
    l->closed = true;
    l->fd = fd;
    describe(l);
    l->fd = -1;
    snprintf(l->url, sizeof l->url, "%s", url);
    return set->foreign[set->n_foreign++] = l;
}

void listener_quench(const struct listener *l)
{
    /* A packet is seen from its TCP header on: the flags are its byte 13, SYN among them is 2. */
    struct sock_filter steps[] = {
        {BPF_LD | BPF_B | BPF_ABS, 0, 0, 13},
        {BPF_JMP | BPF_JSET | BPF_K, 0, 1, 2},
        {BPF_RET | BPF_K, 0, 0, 0},
        {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
    };
    struct sock_fprog filter = {.len = countof(steps), .filter = steps};
    (void)setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

void listen_quench(struct listen_set *set)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->items[i]->is_own && !set->items[i]->closed)
            listener_quench(set->items[i]);
}

static bool is_quenched(const struct listener *l)
{
    socklen_t n = 0; /* of steps, when it returns */
    return getsockopt(l->fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) == 0 && n > 0;
}

void listen_take_quenched(struct listen_set *set)
{
    for (unsigned i = 0; i < set->n; i++)
        while (!set->items[i]->closed && is_quenched(set->items[i]) && accept_one(set->items[i]))
            ;
}

static void remove_path(struct listener *l)
{
    if (l->owns_path)
        unlink(l->path);
    l->owns_path = false;
}

void listen_take_all(struct listen_set *set)
{
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        remove_path(l); /* nobody comes by it any more */
        while (!l->closed && (l == &set->hand ? receive_one(set) : accept_one(l)))
            ;
    }
}

void listen_close(struct listen_set *set)
{
    forks_leave(&set->forks);
    for (unsigned i = 0; i <= set->n; i++) {
        struct listener *l = nth(set, i);
        l->polling = false;
        if (l->watched) {
            uv_poll_stop(&l->poll);
            uv_close((uv_handle_t *)&l->poll, NULL);
            l->watched = false;
        }
        if (l->closed)
            continue;
        l->closed = true;
        remove_path(l);
        if (l != &set->hand) /* that one is lent */
            close(l->fd);
    }
    if (set->edges_watched)
        uv_close((uv_handle_t *)&set->edges, NULL);
    set->edges_watched = false;
    if (set->edge_fd >= 0 && set->loop)
        close(set->edge_fd);
    set->edge_fd = -1;
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
    for (unsigned i = 0; i < set->n_foreign; i++)
        free(set->foreign[i]);
    set->n = set->n_foreign = 0;
}
