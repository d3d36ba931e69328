/*
 * keeper_main: the keeper's loop. See keeper.h.
 *
 * In a turn of the loop each connection that is readable gives its questions to the group; at the
 * end of the turn (uv_check) the group is one transaction, and then its answers are sent. While
 * that waits for the disk the next questions gather in the sockets, so the group grows with the
 * load.
 *
 * A connection whose answers do not fit in its socket is not read until they do.
 */
#include "proc/keeper_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/must.h"
#include "conf/version.h"
#include "store/keeper_wire.h"
#include "store/quota.h"

/* Workers of the largest board have one each; and the board before it during a reload. */
#define CONNS_MAX 8192
/* Questions of one transaction: some 20 ms of work. */
#define GROUP_MAX 1024
/* Of them from one connection, so that each has its turn. */
#define CONN_TURN_MAX 256
/* Connections that are accepted in a turn of the loop: anybody on this machine may knock, and shall
 * not keep the keeper at its door. */
#define ACCEPT_TURN_MAX 64
/* Who connects says hello within this time. */
static const uint64_t HELLO_MS = 5000;
/* accept failed (no descriptors): again after this. */
static const uint64_t ACCEPT_AGAIN_MS = 100;
static const uint64_t TIDY_MS = 60000;    /* when nothing was left to do */
static const uint64_t TIDY_MORE_MS = 100; /* when there was */
static const uint64_t TIDY_FIRST_MS = 1000;
static const int64_t REOPEN_NS = INT64_C(1000000000);
static const int64_t TELL_NS = INT64_C(1000000000);

struct keeper;

/* An answer that did not fit in its socket. */
struct unsent {
    struct unsent *next;
    size_t n;
    unsigned char bytes[];
};

struct conn {
    struct list node; /* k->conns */
    struct keeper *k;
    int fd; /* owned; -1: closing */
    uv_poll_t poll;
    uint64_t hello_ms; /* loop time until which it has to say hello; 0: it has */
    bool reset;        /* ECONNRESET was read: what comes behind it is the rest */
    struct unsent *first, **last;
};

/* One question of the group. */
struct item {
    struct conn *conn; /* NULL: closed meanwhile; it is done all the same */
    enum keeper_kind kind;
    uint64_t question;
    struct quota_op op;
    struct quota_limits limits;
    size_t user_bytes, route_bytes;
    char text[KEEPER_USER_MAX + KEEPER_ROUTE_MAX]; /* the user, then the route */
    int error;
    enum quota_verdict verdict;
    struct quota_use use;
};

struct keeper {
    const struct keeper_config *c;
    uv_loop_t loop;
    uv_poll_t listen, stop, signal;
    int signal_fd; /* owned; -1: none */
    uv_check_t turn_end;
    uv_idle_t hurry; /* active: the next turn does not wait */
    uv_timer_t tidy, accept_again, hello, drain;
    struct fetcher *fetcher;   /* owned; NULL: no key sets */
    struct exporter *exporter; /* owned; NULL: no spans */
    struct list conns;
    unsigned n_conns;
    struct quota_store *store; /* owned; NULL: cannot be opened now */
    int store_error;           /* why; 0: it could be used, as far as was told */
    int64_t told_ns;           /* when */
    int64_t reopen_ns;         /* not before */
    struct item *items;        /* owned; GROUP_MAX */
    unsigned n_items;
    bool stopping, drained; /* it waits for nobody any more */
    bool exported;          /* the last spans are out, or will not be */
    bool over;
    bool has_guest;                          /* c->begin has succeeded, and c->end was not called */
    unsigned char packet[KEEPER_PACKET_MAX]; /* of an answer */
    struct quota_row rows[KEEPER_ROWS_MAX];
};

static int64_t now_s(const struct keeper *k)
{
    return k->c->now_s ? k->c->now_s() : clock_wall_ns() / 1000000000;
}

/* ---- the store ---- */

/* One line when it fails, and one when that is over; at most one a second. */
static void tell_store(struct keeper *k, int error, const char *why)
{
    int64_t now_ns = clock_mono_ns();
    if (!error == !k->store_error) {
        k->store_error = error;
        return;
    }
    if (k->told_ns && now_ns - k->told_ns < TELL_NS)
        return;
    k->told_ns = now_ns;
    k->store_error = error;
    if (error)
        k->c->log(LOG_ERROR, why);
    else
        k->c->log(LOG_INFO, "the quota store can be used again");
}

static void close_store(struct keeper *k)
{
    quota_close(&k->store);
    k->reopen_ns = 0;
}

/* Is there a store? Where it could not be opened it is tried again from time to time. */
static int need_store(struct keeper *k)
{
    struct err e = {{0}};
    int64_t now_ns = clock_mono_ns();
    if (k->store)
        return 0;
    if (!*k->c->store)
        return -ENOENT;
    if (k->reopen_ns && now_ns < k->reopen_ns)
        return k->store_error ? k->store_error : -EAGAIN;
    int error = quota_open(&k->store, k->c->store, &e);
    k->reopen_ns = now_ns + REOPEN_NS;
    tell_store(k, error, e.text);
    return error;
}

/* ---- connections ---- */

static void on_conn_closed(uv_handle_t *h)
{
    free(h->data);
}

static void conn_close(struct conn *c)
{
    struct keeper *k = c->k;
    if (c->fd < 0)
        return;
    for (unsigned i = 0; i < k->n_items; i++)
        if (k->items[i].conn == c)
            k->items[i].conn = NULL;
    while (c->first) {
        struct unsent *u = c->first;
        c->first = u->next;
        free(u);
    }
    list_del(&c->node);
    k->n_conns--;
    uv_close((uv_handle_t *)&c->poll, on_conn_closed);
    close(c->fd);
    c->fd = -1;
}

static void on_conn(uv_poll_t *poll, int status, int events);

static void conn_watch(struct conn *c)
{
    int rc = uv_poll_start(&c->poll, c->first ? UV_WRITABLE : UV_READABLE, on_conn);
    must(rc == 0);
}

/* Send, or keep it for later. The connection may be closed by it. */
static void conn_send(struct conn *c, const void *p, size_t n)
{
    if (!c->first) {
        if (send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n)
            return;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS && errno != EINTR) {
            if (errno != EPIPE && errno != ECONNRESET)
                conn_close(c);
            return; /* its end: what it has said before is still read */
        }
    }
    struct unsent *u = malloc(sizeof *u + n);
    if (!u) {
        conn_close(c); /* it connects again and asks again */
        return;
    }
    u->next = NULL;
    u->n = n;
    memcpy(u->bytes, p, n);
    if (!c->first)
        c->last = &c->first;
    *c->last = u;
    c->last = &u->next;
    conn_watch(c);
}

static void conn_flush(struct conn *c, bool ended)
{
    while (c->first) {
        struct unsent *u = c->first;
        if (!ended && send(c->fd, u->bytes, u->n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)u->n) {
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == EINTR)
                return;
            /* Nobody reads it any more; questions before its end are still there. */
        }
        c->first = u->next;
        free(u);
    }
    conn_watch(c);
}

/* ---- questions ---- */

static bool same_cookie(struct slice a, const unsigned char *b)
{
    unsigned char differs = 0;
    for (size_t i = 0; i < KEEPER_COOKIE_BYTES; i++)
        differs = (unsigned char)(differs | ((unsigned char)a.p[i] ^ b[i]));
    return !differs;
}

static void add_item(struct conn *c, const struct keeper_said *s)
{
    struct keeper *k = c->k;
    struct item *i = &k->items[k->n_items++];
    i->conn = c;
    i->kind = s->kind;
    i->question = s->question;
    i->op = s->op;
    i->limits = s->limits;
    i->user_bytes = s->user.n;
    i->route_bytes = s->route.n;
    memcpy(i->text, s->user.p, s->user.n);
    memcpy(i->text + s->user.n, s->route.p, s->route.n);
}

/* False: the connection is to end. */
static bool hear(struct conn *c, const void *p, size_t n)
{
    struct keeper_said s;
    if (!keeper_wire_said(p, n, &s))
        return false;
    if (c->hello_ms) {
        if (s.kind != KEEPER_HELLO || !same_cookie(s.cookie, c->k->c->door->cookie))
            return false;
        c->hello_ms = 0;
        return true;
    }
    switch (s.kind) {
    case KEEPER_SPEND:
    case KEEPER_REFUND:
    case KEEPER_USAGE:
        add_item(c, &s);
        return true;
    case KEEPER_REFETCH:
        if (c->k->fetcher)
            fetcher_again(c->k->fetcher, s.identifier);
        return true;
    case KEEPER_HELLO:
    case KEEPER_ANSWER:
    case KEEPER_USED:
        break;
    }
    return false;
}

/* Read what it has said, as much as has room. */
static void conn_read(struct conn *c)
{
    unsigned char packet[KEEPER_ASK_BYTES_MAX + 1];
    for (unsigned i = 0; i < CONN_TURN_MAX && c->k->n_items < GROUP_MAX; i++) {
        ssize_t n = recv(c->fd, packet, sizeof packet, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        /* It ended with answers unread. What it said before stands behind this error. */
        if (n < 0 && errno == ECONNRESET && !c->reset) {
            c->reset = true;
            continue;
        }
        if (n <= 0 || !hear(c, packet, (size_t)n)) {
            conn_close(c);
            return;
        }
    }
}

static void on_conn(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;
    (void)events;
    /* libuv stops to watch a socket with an error, which here is ECONNRESET. */
    bool ended = status != 0;
    if (c->first || ended)
        conn_flush(c, ended);
    if (!c->first)
        conn_read(c);
}

/* ---- the group ---- */

static int do_item(struct keeper *k, struct item *i)
{
    struct slice user = slice_of(i->text, i->user_bytes);
    struct slice route = slice_of(i->text + i->user_bytes, i->route_bytes);
    if (i->kind == KEEPER_REFUND)
        return quota_refund(k->store, i->op, now_s(k));
    int error =
        quota_spend(k->store, i->op, user, route, i->limits, now_s(k), &i->verdict, &i->use);
    if (error != -ERANGE) /* nothing was written: the clock is wrong, the store is not */
        return error;
    i->error = error;
    return 0;
}

/* All of them in one transaction, or none. */
static int do_group(struct keeper *k, struct item *first, unsigned n)
{
    int error = quota_begin(k->store);
    for (unsigned i = 0; !error && i < n; i++)
        if (first[i].kind != KEEPER_USAGE)
            error = do_item(k, &first[i]);
    error = error ? error : quota_commit(k->store);
    tell_store(k, error, quota_trouble(k->store));
    if (error)
        quota_rollback(k->store);
    return error;
}

/* The same; each knows what came of it. */
static int do_items(struct keeper *k, struct item *first, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        first[i].error = 0;
    int error = need_store(k);
    error = error ? error : do_group(k, first, n);
    for (unsigned i = 0; error && i < n; i++)
        first[i].error = error;
    return error;
}

static void answer(struct keeper *k, const struct item *i)
{
    if (!i->conn)
        return;
    struct keeper_answer a = {
        .head = {.kind = KEEPER_ANSWER, .size = sizeof a, .question = i->question},
        .error = i->error,
    };
    if (!i->error && i->kind == KEEPER_SPEND) {
        a.verdict = (int32_t)i->verdict;
        a.use = i->use;
    }
    if (i->kind != KEEPER_USAGE) {
        conn_send(i->conn, &a, sizeof a);
        return;
    }
    struct keeper_usage u = {
        .head = {.kind = KEEPER_USED, .question = i->question},
        .error = need_store(k),
    };
    unsigned n = 0;
    if (!u.error)
        u.error = quota_usage(k->store, slice_of(i->text, i->user_bytes), now_s(k), k->rows,
                              KEEPER_ROWS_MAX, &n);
    u.n = u.error ? 0 : n;
    size_t bytes = u.n * sizeof k->rows[0];
    u.head.size = (uint32_t)(sizeof u + bytes);
    memcpy(k->packet, &u, sizeof u);
    if (bytes)
        memcpy(k->packet + sizeof u, k->rows, bytes);
    conn_send(i->conn, k->packet, sizeof u + bytes);
}

static bool has_conns(const struct keeper *k)
{
    return !list_empty(&k->conns);
}

static void on_turn_end(uv_check_t *check)
{
    struct keeper *k = check->data;
    unsigned n = k->n_items, writes = 0;
    (void)uv_idle_stop(&k->hurry);
    for (unsigned i = 0; i < n; i++)
        writes += k->items[i].kind != KEEPER_USAGE;
    /* One damaged page shall refuse only whom it concerns. */
    if (writes && do_items(k, k->items, n) == -EUCLEAN && n > 1 && k->store)
        for (unsigned i = 0; i < n; i++)
            (void)do_items(k, &k->items[i], 1);
    for (unsigned i = 0; i < n; i++)
        answer(k, &k->items[i]);
    k->n_items = 0;
    if (!k->stopping || (has_conns(k) && !k->drained))
        return;
    if (k->exporter)
        exporter_finish(k->exporter);
    k->over = k->exported || !k->exporter;
}

/* ---- accept ---- */

static bool may_connect(const struct keeper *k, int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == k->c->uid || who.uid == geteuid());
}

static void take_conn(struct keeper *k, int fd)
{
    struct conn *c = k->n_conns < CONNS_MAX && may_connect(k, fd) ? calloc(1, sizeof *c) : NULL;
    if (!c || uv_poll_init(&k->loop, &c->poll, fd)) {
        free(c);
        close(fd);
        return;
    }
    c->k = k;
    c->fd = fd;
    c->poll.data = c;
    c->hello_ms = uv_now(&k->loop) + HELLO_MS;
    list_add(&k->conns, &c->node);
    k->n_conns++;
    conn_watch(c);
}

static void on_accept_again(uv_timer_t *t);

/* Take those that wait, at most so many. */
static void accept_some(struct keeper *k, unsigned most)
{
    for (unsigned i = 0; i < most; i++) {
        int fd = accept4(k->c->door->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_conn(k, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK && !k->stopping) {
            (void)uv_poll_stop(&k->listen);
            (void)uv_timer_start(&k->accept_again, on_accept_again, ACCEPT_AGAIN_MS, 0);
        }
        return;
    }
}

static void on_listen(uv_poll_t *poll, int status, int events)
{
    (void)events;
    if (status == 0)
        accept_some(poll->data, ACCEPT_TURN_MAX);
}

static void on_accept_again(uv_timer_t *t)
{
    struct keeper *k = t->data;
    if (!k->stopping)
        (void)uv_poll_start(&k->listen, UV_READABLE, on_listen);
}

/* Who has not said hello in time. */
static void on_hello(uv_timer_t *t)
{
    struct keeper *k = t->data;
    struct list *node = k->conns.next;
    while (node != &k->conns) {
        struct conn *c = container_of(node, struct conn, node);
        node = node->next;
        if (c->hello_ms && uv_now(&k->loop) >= c->hello_ms)
            conn_close(c);
    }
}

/* ---- stop ---- */

static void on_hurry(uv_idle_t *idle)
{
    (void)idle; /* that it is active is all */
}

static void on_drained(uv_timer_t *t)
{
    struct keeper *k = t->data;
    k->drained = true;
    (void)uv_idle_start(&k->hurry, on_hurry);
}

static void on_exported(void *arg)
{
    struct keeper *k = arg;
    k->exported = true;
    (void)uv_idle_start(&k->hurry, on_hurry);
}

static void end_guest(struct keeper *k)
{
    if (k->has_guest && k->c->end)
        k->c->end(k->c->host);
    k->has_guest = false;
}

static void stop(struct keeper *k)
{
    if (k->stopping)
        return;
    k->stopping = true;
    end_guest(k); /* another keeper listens in its place, or nobody shall */
    (void)uv_poll_stop(&k->listen);
    accept_some(k, CONNS_MAX); /* all that its backlog holds */
    int64_t drain_ms = k->c->drain_ms > 0 ? k->c->drain_ms : 0;
    (void)uv_timer_start(&k->drain, on_drained, (uint64_t)drain_ms, 0);
    (void)uv_idle_start(&k->hurry,
                        on_hurry); /* one turn at least: uv_check looks whether all have left */
}

static void on_stop(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct keeper *k = poll->data;
    (void)uv_poll_stop(poll);
    stop(k);
}

static void on_signal(uv_poll_t *poll, int status, int events)
{
    struct keeper *k = poll->data;
    struct signalfd_siginfo info;
    (void)status;
    (void)events;
    while (read(k->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGTERM)
            stop(k);
        else if (k->c->reopen)
            k->c->reopen();
}

/* ---- tidying ---- */

static void on_tidy(uv_timer_t *t)
{
    struct keeper *k = t->data;
    int more = need_store(k);
    if (!more) {
        more = quota_tidy(k->store, now_s(k));
        tell_store(k, more < 0 ? more : 0, quota_trouble(k->store));
        if (more == -ESTALE)
            close_store(k);
    }
    (void)uv_timer_start(t, on_tidy, more == 1 ? TIDY_MORE_MS : more < 0 ? 1000 : TIDY_MS, 0);
}

/* ---- life ---- */

/* Signals of a process that follows its supervisor: only TERM and USR1 mean it. */
static int take_signals(struct keeper *k, struct err *e)
{
    static const int IGNORED[] = {SIGINT,  SIGQUIT, SIGHUP,  SIGUSR2,
                                  SIGPIPE, SIGTTIN, SIGTTOU, SIGXFSZ};
    sigset_t taken;
    if (!k->c->process)
        return 0;
    for (size_t i = 0; i < countof(IGNORED); i++)
        (void)signal(IGNORED[i], SIG_IGN);
    sigemptyset(&taken);
    sigaddset(&taken, SIGTERM);
    sigaddset(&taken, SIGUSR1);
    sigprocmask(SIG_BLOCK, &taken, NULL);
    k->signal_fd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    return k->signal_fd < 0 ? err_set(e, "the keeper cannot take signals: %s", strerror(errno)) : 0;
}

static int watch(struct keeper *k, uv_poll_t *poll, int fd, uv_poll_cb cb)
{
    int rc = uv_poll_init(&k->loop, poll, fd);
    if (rc)
        return rc;
    poll->data = k;
    return uv_poll_start(poll, UV_READABLE, cb);
}

static int begin(struct keeper *k, struct err *e)
{
    uv_timer_t *timers[] = {&k->tidy, &k->accept_again, &k->hello, &k->drain};
    for (size_t i = 0; i < countof(timers); i++) {
        (void)uv_timer_init(&k->loop, timers[i]);
        timers[i]->data = k;
    }
    (void)uv_check_init(&k->loop, &k->turn_end);
    (void)uv_idle_init(&k->loop, &k->hurry);
    k->turn_end.data = k->hurry.data = k;
    (void)uv_check_start(&k->turn_end, on_turn_end);
    int rc = watch(k, &k->listen, k->c->door->listen_fd, on_listen);
    if (!rc && k->c->stop_fd >= 0)
        rc = watch(k, &k->stop, k->c->stop_fd, on_stop);
    if (!rc && k->signal_fd >= 0)
        rc = watch(k, &k->signal, k->signal_fd, on_signal);
    if (rc)
        return err_set(e, "the keeper cannot wait for its sockets: %s", uv_strerror(rc));
    (void)uv_timer_start(&k->hello, on_hello, HELLO_MS, HELLO_MS);
    if (*k->c->store) {
        (void)need_store(k); /* where it cannot be used that is said now */
        (void)uv_timer_start(&k->tidy, on_tidy, TIDY_FIRST_MS, 0);
    }
    rc = fetcher_new(&k->fetcher, &k->loop, k->c, e);
    return rc ? rc : exporter_new(&k->exporter, &k->loop, k->c, on_exported, k, e);
}

static void begin_guest(struct keeper *k)
{
    struct err e = {{0}};
    if (!k->c->begin)
        return;
    k->has_guest = k->c->begin(k->c->host, &k->loop, &e) == 0;
    if (!k->has_guest)
        k->c->log(LOG_ERROR, e.text);
}

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void end(struct keeper *k)
{
    while (has_conns(k))
        conn_close(container_of(k->conns.next, struct conn, node));
    end_guest(k);
    if (k->fetcher)
        fetcher_stop(k->fetcher);
    if (k->exporter)
        exporter_stop(k->exporter);
    uv_walk(&k->loop, close_handle, NULL);
    (void)uv_run(&k->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&k->loop);
    must(rc == 0);
    fetcher_free(&k->fetcher);
    exporter_free(&k->exporter);
    close_store(k);
    if (k->signal_fd >= 0)
        close(k->signal_fd);
    free(k->items);
    free(k);
}

static int run(const struct keeper_config *c, struct err *e)
{
    struct keeper *k = calloc(1, sizeof *k);
    if (k)
        k->items = calloc(GROUP_MAX, sizeof *k->items);
    if (!k || !k->items || uv_loop_init(&k->loop)) {
        if (k)
            free(k->items);
        free(k);
        return err_set(e, "the keeper has no memory");
    }
    k->c = c;
    k->signal_fd = -1;
    list_init(&k->conns);
    int rc = take_signals(k, e);
    rc = rc ? rc : begin(k, e);
    if (!rc)
        begin_guest(k);
    while (!rc && !k->over)
        (void)uv_run(&k->loop, UV_RUN_ONCE);
    end(k);
    return rc;
}

/* ---- the table ---- */

extern const struct keeper_lib weir_keeper_lib;

__attribute__((visibility("default"))) const struct keeper_lib weir_keeper_lib = {
    .version = WEIR_VERSION,
    .config_bytes = sizeof(struct keeper_config),
    .run = run,
};
