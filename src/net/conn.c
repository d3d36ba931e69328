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
#include "net/forks.h"

/* An idle connection keeps no input buffer; a busy one keeps up to this. */
static const size_t CONN_KEEP_BYTES = 0;
/* Plaintext that is sealed in one go, then written: large enough that a system call costs little beside it,
 * small enough to stay in the processor's cache. */
static const size_t CONN_SEAL_BYTES = 64 * 1024;
/* What the frames of its records take, generously. */
static const size_t CONN_FRAME_BYTES = 512;
/* So much of an answer goes in small records, of which a client can use the first while the rest is on its
 * way: what TCP sends at once, after a pause, is about one large record. */
static const uint32_t CONN_SMALL_BYTES = 64 * 1024;
/* After a pause of this TCP begins anew with few segments (RFC 6298: a retransmission timeout is at least a second). */
static const uint64_t CONN_PAUSE_MS = 1000;
/* Plaintext that one connection may have sealed in a turn before others get theirs. */
static const size_t CONN_SEAL_BYTES_TURN = 1024 * 1024;
/* The largest buffer kept for the next ciphertext: one sealing, and its records' frames. */
static const size_t CONN_SPARE_BYTES = 128 * 1024;
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

/* New bytes of the application. */
static void take_plain(struct conn *c, const char *p, size_t n)
{
    if (c->in.n == 0) {
        offer(c, p, n, false);
    } else if (buf_add(&c->in, p, n)) {
        c->pool->ops->broken(c, -ENOMEM);
    } else {
        struct slice kept = conn_kept(c);
        offer(c, kept.p, kept.n, true);
    }
}

/* No more will come from the peer. */
static void take_eof(struct conn *c)
{
    c->reading = false;
    uv_read_stop((uv_stream_t *)&c->uv);
    if (c->eof)
        return;
    c->eof = true;
    c->pool->ops->eof(c);
}

/* Nothing of `out` leaves. */
static void out_drop(struct conn *c)
{
    c->out.n = 0;
    if (c->tls)
        c->tls->out_off = 0;
}

static void tls_end(struct conn *c, const char *why)
{
    out_drop(c); /* what was for this client alone is not sent in the clear */
    c->pool->ops->tls_failed(c, why);
}

/* No record of TLS begins with a letter or an end of line, every request of HTTP does. */
static bool is_text(char first)
{
    return (first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z') || first == '\r' ||
           first == '\n';
}

/* The first bytes. False: there is nothing to go on with. */
static bool tls_begin(struct conn *c, const char *p, size_t n)
{
    struct conn_pool *pool = c->pool;
    if (is_text(*p)) {
        c->tls_ctx = NULL;
        pool->ops->not_tls(c, p, n);
        return false;
    }
    if (!pool->plain)
        pool->plain = malloc(TLS_PLAIN_BYTES(LOOP_READ_BYTES));
    struct conn_tls *t = pool->plain ? calloc(1, sizeof *t) : NULL;
    if (t)
        t->tls = tls_new(c->tls_ctx);
    if (t && t->tls) {
        c->tls = t;
        return true;
    }
    free(t);
    pool->ops->broken(c, -ENOMEM);
    return false;
}

static void tls_fini(struct conn *c)
{
    if (!c->tls)
        return;
    tls_free(&c->tls->tls);
    buf_fini(&c->tls->cipher);
    free(c->tls);
    c->tls = NULL;
}

/* Idle connections keep no buffer; the one given up last serves the next. */
static struct buf *cipher_borrow(struct conn *c)
{
    struct buf *b = &c->tls->cipher, *spare = &c->pool->spare_cipher;
    if (!b->cap) {
        *b = *spare;
        *spare = (struct buf){0};
    }
    return b;
}

/* It is empty. */
static void cipher_give_back(struct conn *c)
{
    struct buf *b = &c->tls->cipher, *spare = &c->pool->spare_cipher;
    if (!spare->cap && b->cap && b->cap <= CONN_SPARE_BYTES) {
        *spare = *b;
        *b = (struct buf){0};
    } else {
        buf_fini(b);
    }
}

/* What the protocol itself has to say goes out with the answers of this turn. */
static void cipher_want_flush(struct conn *c)
{
    if (c->flush.next == &c->flush && !c->closing)
        list_add(&c->pool->loop->flush, &c->flush);
}

/* New ciphertext, at most LOOP_READ_BYTES. */
static void take_records(struct conn *c, const char *p, size_t n)
{
    if (!c->tls && !tls_begin(c, p, n))
        return;
    struct conn_pool *pool = c->pool;
    struct tls *tls = c->tls->tls;
    size_t n_plain;
    if (tls_state(tls) == TLS_FAILED)
        return;
    struct buf *cipher = cipher_borrow(c);
    enum tls_state state = tls_take(tls, p, n, pool->plain, &n_plain, cipher);
    if (cipher->n)
        cipher_want_flush(c);
    else
        cipher_give_back(c);
    if (n_plain)
        take_plain(c, pool->plain, n_plain);
    if (c->closing)
        return;
    if (state == TLS_FAILED)
        tls_end(c, tls_reason(tls));
    else if (state == TLS_ENDED)
        take_eof(c);
}

/* New ciphertext. Behind the end of the connection, and of TLS, it has no meaning. */
static void take_cipher(struct conn *c, const char *p, size_t n)
{
    while (n && !c->closing && !c->eof && c->tls_ctx) {
        size_t piece = n < LOOP_READ_BYTES ? n : LOOP_READ_BYTES;
        take_records(c, p, piece);
        p += piece;
        n -= piece;
    }
}

void conn_start_tls(struct conn *c, struct tls_context *ctx)
{
    c->tls_ctx = ctx;
}

bool conn_in_handshake(const struct conn *c)
{
    return c->tls && tls_state(c->tls->tls) == TLS_HANDSHAKE;
}

const struct tls_facts *conn_tls_facts(struct conn *c)
{
    return c->tls ? tls_facts(c->tls->tls) : NULL;
}

/* New bytes of the socket. */
static void take(struct conn *c, const char *p, size_t n)
{
    if (c->tls_ctx) {
        take_cipher(c, p, n);
        return;
    }
    take_plain(c, p, n);
    if (c->tls_ctx && !c->closing && c->in.n) { /* TLS begins behind what was consumed */
        struct buf first = c->in;
        size_t off = c->in_off;
        c->in = (struct buf){0};
        c->in_off = 0;
        take_cipher(c, first.p + off, first.n - off);
        buf_fini(&first);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    if (n > 0) {
        take(c, buf->base, (size_t)n);
    } else if (n == UV_EOF) {
        if (conn_in_handshake(c)) {
            c->eof = true;
            c->reading = false;
            uv_read_stop(stream);
            tls_end(c, "the client closed the connection inside the handshake");
        } else {
            take_eof(c);
        }
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

int conn_give_input(struct conn *c, struct slice bytes)
{
    int rc = buf_add_slice(&c->in, bytes);
    if (!rc)
        conn_input_again(c);
    return rc;
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

/* Write `b` to the socket. What it does not take goes to libuv, and b is empty afterwards in any case. True:
 * the socket took all of it. */
static bool write_out(struct conn *c, struct buf *b)
{
    uv_buf_t bytes = uv_buf_init(b->p, (unsigned)b->n);
    int n = uv_try_write((uv_stream_t *)&c->uv, &bytes, 1);
    if (n == UV_EAGAIN)
        n = 0;
    if (n < 0) {
        c->pool->ops->broken(c, n);
        return false;
    }
    if ((size_t)n == b->n) {
        b->n = 0;
        return true;
    }
    /* The kernel's buffer is full. libuv gets bytes that nobody else may move. */
    struct conn_write *w = calloc(1, sizeof *w);
    if (!w) {
        c->pool->ops->broken(c, -ENOMEM);
        return false;
    }
    w->conn = c;
    w->p = b->p;
    w->n = b->n - (size_t)n;
    bytes = uv_buf_init(b->p + n, (unsigned)w->n);
    *b = (struct buf){.max = b->max};
    c->writing = w;
    int rc = uv_write(&w->req, (uv_stream_t *)&c->uv, &bytes, 1, on_written);
    if (rc) {
        c->writing = NULL;
        free(w->p);
        free(w);
        c->pool->ops->broken(c, rc);
    }
    return false;
}

/* Seal the next piece of `out` behind what waits already. 0 or -errno. */
static int seal_piece(struct conn *c)
{
    struct conn_tls *t = c->tls;
    uint64_t now = loop_now_ms(c->pool->loop);
    size_t left = c->out.n - t->out_off;
    size_t n = left < CONN_SEAL_BYTES ? left : CONN_SEAL_BYTES;
    if (now - t->sealed_ms >= CONN_PAUSE_MS)
        t->sealed = 0;
    bool small = t->sealed < CONN_SMALL_BYTES;
    if (small && n > CONN_SMALL_BYTES - t->sealed)
        n = CONN_SMALL_BYTES - t->sealed;
    t->sealed += small ? (uint32_t)n : 0;
    t->sealed_ms = now;
    struct buf *cipher = cipher_borrow(c);
    int rc = buf_reserve(cipher, n + CONN_FRAME_BYTES);
    if (!rc)
        rc = tls_seal(t->tls, c->out.p + t->out_off, n, small, cipher);
    t->out_off += n;
    if (rc || t->out_off == c->out.n)
        out_drop(c);
    return rc;
}

/* Seal and write what waits, as the socket takes it. */
static void flush_tls(struct conn *c)
{
    struct conn_tls *t = c->tls;
    size_t room = CONN_SEAL_BYTES_TURN;
    enum tls_state state = tls_state(t->tls);
    if (state != TLS_OPEN && state != TLS_ENDED)
        out_drop(c);
    for (;;) {
        if (c->out.n) {
            if (room == 0) {
                list_add(&c->pool->loop->flush, &c->flush); /* goes on in the next turn */
                return;
            }
            int rc = seal_piece(c);
            if (rc) {
                c->pool->ops->broken(c, rc);
                return;
            }
            room -= room < CONN_SEAL_BYTES ? room : CONN_SEAL_BYTES;
        }
        if (t->cipher.n == 0)
            break;
        if (!write_out(c, &t->cipher)) {
            if (!c->closing)
                c->drain_told = true; /* the deadline that is armed now has to be taken back */
            return;
        }
    }
    cipher_give_back(c);
    out_done(c);
}

void conn_flush(struct conn *c)
{
    list_del(&c->flush);
    if (c->closing || c->writing)
        return;
    if (c->tls) {
        flush_tls(c);
        return;
    }
    if (conn_is_tls(c))
        out_drop(c); /* before its first byte: nothing leaves in the clear */
    if (c->out.n == 0 || write_out(c, &c->out))
        out_done(c);
}

size_t conn_unsent(const struct conn *c)
{
    size_t n = c->out.n + (c->writing ? c->uv.write_queue_size : 0);
    return c->tls ? n - c->tls->out_off + c->tls->cipher.n : n;
}

/* Say close_notify, if the socket takes it at once; nothing waits before it. */
static void say_bye(struct conn *c)
{
    if (!c->tls || c->shut)
        return;
    struct buf *cipher = cipher_borrow(c);
    tls_bye(c->tls->tls, cipher);
    if (cipher->n) {
        ssize_t n = send(conn_fd(c), cipher->p, cipher->n, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n; /* the FIN that follows says it too */
    }
    cipher->n = 0;
    cipher_give_back(c);
}

void conn_shutdown(struct conn *c)
{
    if (c->shut || c->closing)
        return;
    must(conn_is_drained(c));
    say_bye(c);
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

/* A process that the application has forked may have the socket too: a close would not end it. */
static void end_for_all(const struct conn *c, bool reset)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (!reset || connect(conn_fd(c), &none, sizeof none)) /* that sends RST (TCP only) */
        shutdown(conn_fd(c), SHUT_RDWR);
}

void conn_close(struct conn *c, bool reset)
{
    if (c->closing)
        return;
    if (!reset && conn_is_drained(c))
        say_bye(c);
    if (forks_were() && !c->given_away)
        end_for_all(c, reset);
    c->closing = true;
    tls_fini(c);
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
    free(pool->plain);
    pool->plain = NULL;
    buf_fini(&pool->spare_cipher);
    if (pool->diag_fd >= 0)
        close(pool->diag_fd);
}
