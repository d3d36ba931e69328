/*
 * admin_http: connections of the admin listener. One request of a connection is in work at a time;
 * what comes behind it waits in the connection's buffer, which is not read on when it is full.
 *
 * After the last answer the sending half is closed and what still comes is thrown away for a
 * moment: a socket that is closed with unread bytes takes the answer back from who has not read it.
 */
#include "admin/admin_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/must.h"
#include "handler/date.h"
#include "http/h1_parse.h"

static const uint64_t HEAD_MS = 10000;
static const uint64_t IDLE_MS = 60000;
static const uint64_t BUSY_MS = 10000;
static const uint64_t WRITE_MS = 10000;
static const uint64_t LINGER_MS = 2000;
static const uint64_t SWEEP_MS = 1000;
static const uint64_t ACCEPT_AGAIN_MS = 100;
/* What the kernel keeps for a viewer who does not read, so that he gets news and no history. */
static const int VIEWER_SEND_BYTES = 128 * 1024;

static void next_request(struct admin_conn *c);

/* ---- blocks ---- */

struct block *block_new(void)
{
    struct block *b = calloc(1, sizeof *b);
    if (b)
        b->refs = 1;
    return b;
}

void block_unref(struct block **bp)
{
    struct block *b = *bp;
    *bp = NULL;
    if (!b || --b->refs)
        return;
    buf_fini(&b->bytes);
    free(b);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *h)
{
    struct admin_conn *c = h->data;
    struct admin *a = c->a;
    buf_fini(&c->out);
    block_unref(&c->body);
    block_unref(&c->flight);
    free(c->query);
    free(c);
    admin_handle_closed(a);
}

void admin_conn_close(struct admin_conn *c)
{
    if (c->closing)
        return;
    c->closing = true;
    if (c->ask != ASK_NONE)
        probes_forget(c->a->probes, c->ticket);
    c->ask = ASK_NONE;
    if (c->state == CONN_EVENTS)
        events_end(c);
    list_del(&c->node);
    c->a->n_conns--;
    if (!c->a->n_conns)
        (void)uv_timer_stop(&c->a->sweep);
    uv_close(&c->uv.handle, on_closed);
}

static void wait_in(struct admin_conn *c, enum conn_state state, uint64_t ms)
{
    c->state = state;
    c->since_ms = uv_now(c->a->loop);
    c->deadline_ms = ms == UINT64_MAX ? ms : uv_now(c->a->loop) + ms;
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct admin_conn *c = req->data;
    if (status && !c->closing)
        admin_conn_close(c);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf);

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
    (void)hint;
    struct admin_conn *c = h->data;
    *buf = uv_buf_init(c->in + c->n_in, (unsigned)(sizeof c->in - c->n_in));
}

static void read_on(struct admin_conn *c)
{
    if (c->reading || c->eof || c->n_in == sizeof c->in)
        return;
    c->reading = uv_read_start(&c->uv.stream, on_alloc, on_read) == 0;
    if (!c->reading)
        admin_conn_close(c);
}

static void linger(struct admin_conn *c)
{
    wait_in(c, CONN_LINGER, LINGER_MS);
    c->n_in = 0;
    c->shutdown.data = c;
    if (c->eof || uv_shutdown(&c->shutdown, &c->uv.stream, on_shutdown)) {
        admin_conn_close(c);
        return;
    }
    read_on(c);
}

/* ---- out ---- */

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {200, "OK"},
        {302, "Found"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < countof(known); i++)
        if (known[i].status == status)
            return known[i].text;
    return "Unknown";
}

static void on_written(uv_write_t *w, int status)
{
    struct admin_conn *c = w->data;
    c->unsent = false;
    block_unref(&c->body);
    if (c->closing)
        return;
    if (status) {
        admin_conn_close(c);
        return;
    }
    if (c->state == CONN_EVENTS) {
        c->deadline_ms = UINT64_MAX;
        return;
    }
    if (!c->keep) {
        linger(c);
        return;
    }
    memmove(c->in, c->in + c->n_request, c->n_in - c->n_request);
    c->n_in -= c->n_request;
    c->n_request = c->seen = 0;
    c->continued = false;
    wait_in(c, c->n_in ? CONN_HEAD : CONN_IDLE, c->n_in ? HEAD_MS : IDLE_MS);
    next_request(c);
}

/* Send c->out and c->body. */
static void send_both(struct admin_conn *c)
{
    uv_buf_t bufs[2];
    unsigned n = 0;
    must(!c->unsent);
    if (c->out.n)
        bufs[n++] = uv_buf_init(c->out.p, (unsigned)c->out.n);
    if (c->body && c->body->bytes.n)
        bufs[n++] = uv_buf_init(c->body->bytes.p, (unsigned)c->body->bytes.n);
    c->write.data = c;
    if (uv_write(&c->write, &c->uv.stream, bufs, n, on_written)) {
        admin_conn_close(c);
        return;
    }
    c->unsent = true;
    c->unsent_bytes = uv_stream_get_write_queue_size(&c->uv.stream);
    c->deadline_ms = uv_now(c->a->loop) + WRITE_MS;
}

static int write_head(struct admin_conn *c, int status, const char *type, const char *more)
{
    char date[DATE_BYTES];
    date_format(clock_wall_ns() / 1000000000, date);
    c->out.n = 0;
    int rc =
        buf_addf(&c->out,
                 "HTTP/1.1 %d %s\r\nDate: %.*s\r\n%s%s%s"
                 "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n"
                 "Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n%s",
                 status, reason(status), DATE_BYTES, date, type ? "Content-Type: " : "",
                 type ? type : "", type ? "\r\n" : "", more);
    if (!rc && !strstr(more, "Cache-Control:"))
        rc = buf_addf(&c->out, "Cache-Control: no-store\r\n");
    return rc;
}

void admin_answer(struct admin_conn *c, int status, const char *type, const char *more,
                  struct block *body)
{
    must(c->state != CONN_WRITING && c->state != CONN_EVENTS && !c->unsent);
    bool empty = status == 304;
    wait_in(c, CONN_WRITING, WRITE_MS);
    c->body = body;
    size_t n = body ? body->bytes.n : 0;
    int rc = write_head(c, status, type, more);
    if (!rc && !empty)
        rc = buf_addf(&c->out, "Content-Length: %zu\r\n", n);
    if (!rc)
        rc = buf_addf(&c->out, "%s\r\n",
                      !c->keep    ? "Connection: close\r\n"
                      : c->http10 ? "Connection: keep-alive\r\n"
                                  : "");
    if (rc) {
        admin_conn_close(c);
        return;
    }
    if (c->head || empty)
        block_unref(&c->body);
    send_both(c);
}

void admin_say(struct admin_conn *c, int status, const char *more, const char *fmt, ...)
{
    char text[1200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct block *b = block_new();
    if (!b || buf_addf(&b->bytes, "%s\n", text)) {
        block_unref(&b);
        admin_conn_close(c);
        return;
    }
    admin_answer(c, status, "text/plain; charset=utf-8", more, b);
}

void admin_fail(struct admin_conn *c, int status, const char *error)
{
    struct block *b = block_new();
    struct json j = json_begin(b ? &b->bytes : NULL);
    if (b) {
        json_open(&j, '{');
        json_key(&j, "error");
        json_str(&j, error);
        json_close(&j, '}');
    }
    if (!b || json_end(&j) || buf_add(&b->bytes, "\n", 1)) {
        block_unref(&b);
        admin_conn_close(c);
        return;
    }
    admin_answer(c, status, "application/json", "", b);
}

void admin_stream(struct admin_conn *c, const char *type)
{
    int bytes = VIEWER_SEND_BYTES;
    c->keep = false;
    c->state = CONN_EVENTS;
    c->n_in = 0;
    (void)uv_send_buffer_size(&c->uv.handle, &bytes);
    if (write_head(c, 200, type, "X-Accel-Buffering: no\r\n") ||
        buf_addf(&c->out, "Connection: close\r\n\r\nretry: 2000\n\n"))
        admin_conn_close(c);
    else
        read_on(c); /* to see him leave */
}

void admin_send(struct admin_conn *c, struct block *b)
{
    b->refs++;
    c->body = b;
    send_both(c);
    c->out.n = 0; /* libuv keeps its own list of what is left; the bytes stay where they are */
}

/* ---- in ---- */

/* The bytes are no request that can be answered: the last word on this connection. */
static void refuse(struct admin_conn *c, int status, const char *why)
{
    c->keep = false;
    c->head = false;
    c->n_request = c->n_in;
    admin_say(c, status, "", "%s", why);
}

/* Is all of its body there? It is thrown away: what an action is about stands in its path. */
static bool body_is_there(struct admin_conn *c, const struct req *r, size_t head_bytes)
{
    if (r->framing == REQ_BODY_CHUNKED) {
        refuse(c, 411, "a body needs Content-Length here");
        return false;
    }
    uint64_t body = r->framing == REQ_BODY_LENGTH ? r->content_length : 0;
    if (body > ADMIN_BODY_BYTES) {
        refuse(c, 413, "the body is larger than 4096 bytes");
        return false;
    }
    c->n_request = head_bytes + (size_t)body;
    if (c->n_in >= c->n_request)
        return true;
    if (r->expect_continue && !c->continued) {
        uv_buf_t b = uv_buf_init((char *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25);
        if (uv_try_write(&c->uv.stream, &b, 1) != (int)b.len)
            admin_conn_close(c);
        c->continued = true;
    }
    return false;
}

/* Answer what is in the buffer, as far as it goes. */
static void next_request(struct admin_conn *c)
{
    static const struct h1_limits limits = {.head_bytes = ADMIN_HEAD_BYTES, .fields = ADMIN_FIELDS};
    struct field fields[ADMIN_FIELDS];
    struct req r;
    size_t used = 0;
    struct h1_error error;
    if (c->n_in && (c->state == CONN_IDLE || c->state == CONN_HEAD)) {
        if (c->state == CONN_IDLE)
            wait_in(c, CONN_HEAD, HEAD_MS);
        switch (h1_head(c->in, c->n_in, &c->seen, &limits, fields, &r, &used, &error)) {
        case H1_MORE:
            if (c->n_in == sizeof c->in)
                refuse(c, 431, "the head is larger than 8192 bytes");
            break;
        case H1_BAD:
            refuse(c, error.status, error.reason);
            break;
        case H1_DONE:
            c->seen = 0;
            if (!body_is_there(c, &r, used))
                break;
            c->keep = r.keep_alive;
            c->head = r.head;
            c->http10 = r.minor == 0;
            wait_in(c, CONN_BUSY, BUSY_MS);
            admin_route(c, &r);
            break;
        }
    }
    if (c->closing)
        return;
    if (c->eof && (c->state == CONN_IDLE || c->state == CONN_HEAD))
        admin_conn_close(c);
    else
        read_on(c);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    struct admin_conn *c = s->data;
    if (n == 0)
        return;
    if (n < 0) {
        c->reading = false;
        (void)uv_read_stop(s);
        c->eof = true;
        /* Half of it is closed: the answer on its way is still wanted, maybe. */
        if (n != UV_EOF || c->state == CONN_IDLE || c->state == CONN_HEAD ||
            c->state == CONN_EVENTS || c->state == CONN_LINGER)
            admin_conn_close(c);
        return;
    }
    if (c->state == CONN_EVENTS || c->state == CONN_LINGER)
        return; /* into the same room again */
    c->n_in += (size_t)n;
    if (c->n_in == sizeof c->in) {
        c->reading = false;
        (void)uv_read_stop(s);
    }
    next_request(c);
}

/* ---- deadlines ---- */

static void overdue(struct admin_conn *c)
{
    switch (c->state) {
    case CONN_HEAD:
        refuse(c, 408, "the request did not come in time");
        return;
    case CONN_BUSY:
        probes_forget(c->a->probes, c->ticket);
        c->ask = ASK_NONE;
        admin_say(c, 504, "", "no worker has told in time");
        return;
    case CONN_WRITING:
    case CONN_EVENTS:
        if (uv_stream_get_write_queue_size(&c->uv.stream) < c->unsent_bytes) {
            c->unsent_bytes = uv_stream_get_write_queue_size(&c->uv.stream);
            c->deadline_ms = uv_now(c->a->loop) + WRITE_MS;
            return;
        }
        break;
    case CONN_IDLE:
    case CONN_LINGER:
        break;
    }
    admin_conn_close(c);
}

static void on_sweep(uv_timer_t *t)
{
    struct admin *a = t->data;
    struct list *node = a->conns.next;
    while (node != &a->conns) {
        struct admin_conn *c = container_of(node, struct admin_conn, node);
        node = node->next;
        if (uv_now(a->loop) >= c->deadline_ms)
            overdue(c);
    }
}

/* ---- accept ---- */

/* One that nobody misses: all is said there, or nothing was for the longest time, or he who is slow
 * to take his answers has not shown the token. */
static struct admin_conn *dispensable(struct admin *a)
{
    static const enum conn_state order[] = {CONN_LINGER, CONN_IDLE, CONN_HEAD, CONN_WRITING};
    for (size_t i = 0; i < countof(order); i++) {
        struct admin_conn *found = NULL;
        for (struct list *n = a->conns.next; n != &a->conns; n = n->next) {
            struct admin_conn *c = container_of(n, struct admin_conn, node);
            bool may = c->state != CONN_WRITING || (a->token.n && !c->proven);
            if (c->state == order[i] && may && (!found || c->since_ms < found->since_ms))
                found = c;
        }
        if (found)
            return found;
    }
    return NULL;
}

static void describe(struct admin_conn *c, const struct sockaddr_storage *peer)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)peer;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)peer;
    if (peer->ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &v4->sin_addr, c->address, sizeof c->address);
        memcpy(c->key, &v4->sin_addr, sizeof v4->sin_addr);
    } else if (peer->ss_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, c->address, sizeof c->address);
        memcpy(c->key, &v6->sin6_addr, sizeof c->key);
    } else {
        snprintf(c->address, sizeof c->address, "a Unix socket");
    }
}

static int begin_stream(struct admin_conn *c, int fd, bool is_unix)
{
    struct admin *a = c->a;
    int rc = is_unix ? uv_pipe_init(a->loop, &c->uv.pipe, 0) : uv_tcp_init(a->loop, &c->uv.tcp);
    if (rc)
        return rc;
    c->uv.handle.data = c;
    a->n_handles++;
    a->n_conns++;
    list_add(&a->conns, &c->node);
    rc = is_unix ? uv_pipe_open(&c->uv.pipe, fd) : uv_tcp_open(&c->uv.tcp, fd);
    if (rc) {
        close(fd);
        admin_conn_close(c); /* frees it later */
        return 0;
    }
    if (!is_unix)
        (void)uv_tcp_nodelay(&c->uv.tcp, 1);
    return 0;
}

static void take(struct admin *a, int fd, const struct sockaddr_storage *peer)
{
    static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                               "Connection: close\r\nRetry-After: 1\r\n\r\n";
    struct admin_conn *c = NULL;
    bool room = a->n_conns < ADMIN_CONNS_MAX;
    struct admin_conn *goes = room ? NULL : dispensable(a);
    if (goes)
        admin_conn_close(goes);
    if (room || goes)
        c = calloc(1, sizeof *c);
    if (!c) {
        (void)send(fd, full, sizeof full - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    c->a = a;
    list_init(&c->node);
    describe(c, peer);
    if (begin_stream(c, fd, peer->ss_family == AF_UNIX)) {
        close(fd);
        free(c);
        return;
    }
    if (c->closing)
        return;
    wait_in(c, CONN_IDLE, HEAD_MS); /* the first one has to begin soon */
    if (!uv_is_active((uv_handle_t *)&a->sweep))
        (void)uv_timer_start(&a->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    read_on(c);
}

static void on_accept_again(uv_timer_t *t)
{
    struct admin *a = t->data;
    (void)uv_poll_start(&a->listen, UV_READABLE, admin_on_listen);
}

void admin_on_listen(uv_poll_t *poll, int status, int events)
{
    struct admin *a = poll->data;
    (void)status;
    (void)events;
    /* A bounded turn: the keeper has other things to do. */
    for (int i = 0; i < ADMIN_CONNS_MAX; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t n = sizeof peer;
        int fd = accept4(a->listen_fd, (struct sockaddr *)&peer, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (peer.ss_family == AF_UNSPEC || n == 0)
                peer.ss_family = AF_UNIX;
            take(a, fd, &peer);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            (void)uv_poll_stop(&a->listen);
            (void)uv_timer_start(&a->accept_again, on_accept_again, ACCEPT_AGAIN_MS, 0);
        }
        return;
    }
}
