/* conn: see the header. */
#include "net/conn.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/must.h"

/* An idle connection keeps no input buffer; a busy one keeps up to this. */
static const size_t CONN_KEEP_BYTES = 0;
/* Deadlines are looked at no more often than this; none is early, each is at most this late. */
static const uint64_t CONN_TIMER_MS_MIN = 50;

struct conn_write {
    uv_write_t req;
    struct conn *conn; /* NULL once the connection was closed */
    char *p;           /* owned */
    size_t n;
};

/* ---- deadlines ---- */

static void on_timer(uv_timer_t *timer);

static void timer_set(struct conn_pool *pool, uint64_t due_ms)
{
    uint64_t now = loop_now_ms(pool->loop);
    uint64_t in = due_ms > now ? due_ms - now : 0;
    if (in < CONN_TIMER_MS_MIN)
        in = CONN_TIMER_MS_MIN;
    pool->timer_due_ms = now + in;
    uv_timer_start(&pool->timer, on_timer, in, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct conn_pool *pool = timer->data;
    uint64_t now = loop_now_ms(pool->loop);
    uint64_t next = 0;
    pool->timer_due_ms = 0;
    for (unsigned i = 0; i < CONN_LISTS; i++) {
        struct conn_list *l = &pool->lists[i];
        while (!list_empty(&l->conns)) {
            struct conn *c = container_of(l->conns.next, struct conn, deadline);
            uint64_t due = c->armed_ms + l->timeout_ms;
            if (due > now) {
                if (!next || due < next)
                    next = due;
                break;
            }
            list_del(&c->deadline);
            pool->ops->deadline(c, i);
        }
    }
    if (next && (!pool->timer_due_ms || next < pool->timer_due_ms))
        timer_set(pool, next);
}

void conn_arm(struct conn *c, unsigned list)
{
    struct conn_pool *pool = c->pool;
    struct conn_list *l = &pool->lists[list];
    list_del(&c->deadline);
    c->list = (uint8_t)list;
    if (!l->timeout_ms || c->closing)
        return;
    c->armed_ms = loop_now_ms(pool->loop);
    list_add(&l->conns, &c->deadline);
    if (WEIR_UNLIKELY(!pool->timer_due_ms || c->armed_ms + l->timeout_ms < pool->timer_due_ms))
        timer_set(pool, c->armed_ms + l->timeout_ms);
}

void conn_arm_ago(struct conn *c, unsigned list, uint64_t ago_ms)
{
    struct conn_list *l = &c->pool->lists[list];
    conn_arm(c, list);
    if (list_empty(&c->deadline))
        return;
    c->armed_ms = c->armed_ms > ago_ms ? c->armed_ms - ago_ms : 0;
    /* The list stays in the order of arming. */
    struct list *before = c->deadline.prev;
    while (before != &l->conns && container_of(before, struct conn, deadline)->armed_ms > c->armed_ms)
        before = before->prev;
    list_del(&c->deadline);
    list_add(before->next, &c->deadline);
    if (!c->pool->timer_due_ms || c->armed_ms + l->timeout_ms < c->pool->timer_due_ms)
        timer_set(c->pool, c->armed_ms + l->timeout_ms);
}

void conn_disarm(struct conn *c)
{
    list_del(&c->deadline);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct conn *c = h->data;
    buf->base = c->pool->loop->read_buf;
    buf->len = LOOP_READ_BYTES;
}

/* Offer p[0..n) and keep what was not consumed. p may be the kept bytes themselves. */
static void offer(struct conn *c, const char *p, size_t n, bool kept)
{
    c->in_input = true;
    size_t used = c->pool->ops->input(c, p, n);
    c->in_input = false;
    must(used <= n);
    if (c->closing)
        return;
    if (kept) {
        c->in_off += (uint32_t)used;
        if (c->in_off == c->in.n) {
            c->in_off = 0;
            buf_clear(&c->in, CONN_KEEP_BYTES);
        } else if (c->in_off > c->in.n / 2) {
            buf_drop(&c->in, c->in_off);
            c->in_off = 0;
        }
    } else if (used < n && buf_add(&c->in, p + used, n - used)) {
        c->pool->ops->broken(c, -ENOMEM);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    if (n > 0) {
        if (c->in.n == 0) {
            offer(c, buf->base, (size_t)n, false);
        } else if (buf_add(&c->in, buf->base, (size_t)n)) {
            c->pool->ops->broken(c, -ENOMEM);
        } else {
            struct slice kept = conn_kept(c);
            offer(c, kept.p, kept.n, true);
        }
    } else if (n == UV_EOF) {
        c->reading = false;
        uv_read_stop(stream);
        c->eof = true;
        c->pool->ops->eof(c);
    } else if (n < 0) {
        c->reading = false;
        c->pool->ops->broken(c, (int)n);
    }
}

void conn_read(struct conn *c, bool on)
{
    if (on == c->reading || c->closing || (on && c->eof))
        return;
    c->reading = on;
    if (on)
        uv_read_start((uv_stream_t *)&c->uv, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&c->uv);
}

void conn_input_again(struct conn *c)
{
    struct slice kept = conn_kept(c);
    if (kept.n && !c->in_input && !c->closing)
        offer(c, kept.p, kept.n, true);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status)
{
    struct conn_write *w = (struct conn_write *)req;
    struct conn *c = w->conn;
    if (c)
        c->writing = NULL;
    free(w->p);
    free(w);
    if (!c || c->closing)
        return;
    if (status < 0)
        c->pool->ops->broken(c, status);
    else
        conn_flush(c);
}

static void out_done(struct conn *c)
{
    if (c->drain_told) {
        c->drain_told = false;
        c->pool->ops->drained(c);
    }
}

void conn_flush(struct conn *c)
{
    list_del(&c->flush);
    if (c->closing || c->writing)
        return;
    if (c->out.n == 0) {
        out_done(c);
        return;
    }
    uv_buf_t b = uv_buf_init(c->out.p, (unsigned)c->out.n);
    int n = uv_try_write((uv_stream_t *)&c->uv, &b, 1);
    if (n == UV_EAGAIN)
        n = 0;
    if (n < 0) {
        c->pool->ops->broken(c, n);
        return;
    }
    if ((size_t)n == c->out.n) {
        c->out.n = 0;
        out_done(c);
        return;
    }
    /* The kernel's buffer is full. libuv gets bytes that nobody else may move. */
    struct conn_write *w = calloc(1, sizeof *w);
    if (!w) {
        c->pool->ops->broken(c, -ENOMEM);
        return;
    }
    w->conn = c;
    w->p = c->out.p;
    w->n = c->out.n - (size_t)n;
    b = uv_buf_init(c->out.p + n, (unsigned)w->n);
    c->out = (struct buf){.max = c->out.max};
    c->writing = w;
    int rc = uv_write(&w->req, (uv_stream_t *)&c->uv, &b, 1, on_written);
    if (rc) {
        c->writing = NULL;
        free(w->p);
        free(w);
        c->pool->ops->broken(c, rc);
    }
}

size_t conn_unsent(const struct conn *c)
{
    return c->out.n + (c->writing ? c->uv.write_queue_size : 0);
}

void conn_shutdown(struct conn *c)
{
    if (c->shut || c->closing)
        return;
    must(conn_is_drained(c));
    c->shut = true;
    shutdown(conn_fd(c), SHUT_WR);
}

/* ---- life ---- */

static void on_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    c->pool->open--;
    buf_fini(&c->in);
    buf_fini(&c->out);
    c->pool->ops->closed(c);
}

void conn_close(struct conn *c, bool reset)
{
    if (c->closing)
        return;
    c->closing = true;
    list_del(&c->deadline);
    list_del(&c->flush);
    if (c->writing)
        c->writing->conn = NULL;
    c->writing = NULL;
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(conn_fd(c), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    uv_close((uv_handle_t *)&c->uv, on_closed);
}

int conn_open(struct conn *c, struct conn_pool *pool, int fd, bool is_unix)
{
    *c = (struct conn){.pool = pool, .is_unix = is_unix};
    list_init(&c->deadline);
    list_init(&c->flush);
    int rc = uv_tcp_init(&pool->loop->uv, &c->uv);
    must(rc == 0);
    c->uv.data = c;
    pool->open++;
    rc = uv_tcp_open(&c->uv, fd);
    if (rc) {
        close(fd);
        conn_close(c, false);
        return rc;
    }
    conn_read(c, true);
    return 0;
}

bool conn_is_dead(const struct conn *c)
{
    struct pollfd p = {.fd = conn_fd(c), .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

enum conn_peer conn_ask_peer(struct conn *c)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } ask = {
        .head = {.nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
        .body = {.sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0U},
    };
    struct sockaddr_storage here, there;
    socklen_t n = sizeof here, m = sizeof there;
    struct inet_diag_sockid *id = &ask.body.id;
    if (c->is_unix || getsockname(conn_fd(c), (struct sockaddr *)&here, &n) ||
        getpeername(conn_fd(c), (struct sockaddr *)&there, &m))
        return CONN_PEER_UNKNOWN;
    /* Seen from the peer: its own address is the source. */
    if (there.ss_family == AF_INET) {
        const struct sockaddr_in *src = (const void *)&there, *dst = (const void *)&here;
        memcpy(id->idiag_src, &src->sin_addr, sizeof src->sin_addr);
        memcpy(id->idiag_dst, &dst->sin_addr, sizeof dst->sin_addr);
        id->idiag_sport = src->sin_port;
        id->idiag_dport = dst->sin_port;
    } else {
        const struct sockaddr_in6 *src = (const void *)&there, *dst = (const void *)&here;
        memcpy(id->idiag_src, &src->sin6_addr, sizeof src->sin6_addr);
        memcpy(id->idiag_dst, &dst->sin6_addr, sizeof dst->sin6_addr);
        id->idiag_sport = src->sin6_port;
        id->idiag_dport = dst->sin6_port;
    }
    ask.body.sdiag_family = (uint8_t)there.ss_family;
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;

    struct conn_pool *pool = c->pool;
    if (pool->diag_fd < 0)
        return CONN_PEER_UNKNOWN;
    union {
        struct nlmsghdr head;
        char bytes[1024];
    } answer;
    /* The kernel answers inside send. */
    if (send(pool->diag_fd, &ask, sizeof ask, 0) != (ssize_t)sizeof ask)
        return CONN_PEER_UNKNOWN;
    ssize_t got = recv(pool->diag_fd, &answer, sizeof answer, 0);
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg)) ||
        answer.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
        return CONN_PEER_UNKNOWN;
    const struct inet_diag_msg *peer = NLMSG_DATA(&answer.head);
    return peer->idiag_inode ? CONN_PEER_HELD : CONN_PEER_LEFT;
}

bool conn_has_input(const struct conn *c)
{
    char byte;
    return recv(conn_fd(c), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

int conn_fd(const struct conn *c)
{
    return c->uv.io_watcher.fd;
}

int conn_pool_init(struct conn_pool *pool, struct loop *loop, const struct conn_ops *ops)
{
    *pool = (struct conn_pool){.loop = loop, .ops = ops};
    pool->diag_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    for (unsigned i = 0; i < CONN_LISTS; i++)
        list_init(&pool->lists[i].conns);
    int rc = uv_timer_init(&loop->uv, &pool->timer);
    pool->timer.data = pool;
    return rc;
}

void conn_pool_fini(struct conn_pool *pool)
{
    uv_close((uv_handle_t *)&pool->timer, NULL);
    if (pool->diag_fd >= 0)
        close(pool->diag_fd);
}
