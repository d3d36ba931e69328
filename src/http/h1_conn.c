/*
 * h1_conn: see the header.
 *
 * Clients that left. A FIN does not tell whether the client closed or only finished sending
 * (RFC 9112 §9.6 knows both). So while a request is in work and the client's FIN is here, we
 * look at the socket every 100 ms: a reset, or a Unix peer that closed, is the end. Of a TCP peer on
 * this machine the kernel tells whether anybody still holds its socket. Any other closed TCP
 * peer resets only when it is sent something; an HTTP/1.1 client that waits is therefore sent one
 * interim response, 100 (Continue), which every such client must be able to ignore
 * (RFC 9110 §15.2): at once for a request that still waits in the queue, after 100 ms otherwise.
 * Inside a chunked response the upper layer writes a byte that changes nothing.
 */
#include "http/h1_conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"

/* Input kept while a request is in work: the next pipelined requests. More stays in the kernel. */
static const size_t H1_AHEAD_BYTES = 64 * 1024;
/* With more unsent than this, the next pipelined request waits until it has gone. */
static const size_t H1_UNSENT_BYTES = 256 * 1024;
/* An answer of so much is written at once, not at the end of the turn: its bytes are in the processor's cache
 * still, and its memory serves the next one. */
static const size_t H1_LARGE_BYTES = 64 * 1024;
/* How long to wait for the client's FIN after ours; it keeps sending what will not be read. */
static const uint64_t H1_LINGER_MS = 2000;
/* The same while the server stops: those who keep their end open must not hold it up. */
static const uint64_t H1_LINGER_DRAIN_MS = 500;
/* The largest output buffer kept for the next answer. */
static const size_t H1_SPARE_BYTES = 64 * 1024;
/* An idle connection is closed later than promised by half to all of this, or by half to all of keep-alive
 * where that is less: a client that idles for as long as it may has its request here by then. */
static const uint64_t H1_KEEP_LATE_MS = 1000;
/* How often to look at clients whose FIN came while their request is in work. */
static const uint64_t H1_LIMBO_MS = 100;

/* So many bytes of the PROXY protocol are no other request. */
static const size_t PROXY_BEGIN_BYTES = 6;

static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";

static struct h1_server *server_of(struct h1_conn *hc)
{
    return (struct h1_server *)(void *)hc->conn.pool;
}

static struct h1_conn *hc_of(struct conn *c)
{
    return (struct h1_conn *)(void *)c;
}

/* Let others see how many are open. */
static void tell_open(struct h1_server *s)
{
    atomic_store_explicit(&s->counters->open, s->pool.open, memory_order_relaxed);
    if (s->open_gauge)
        atomic_store_explicit(s->open_gauge, s->pool.open, memory_order_relaxed);
}

/* ---- deadlines ---- */

/* Is the send deadline running, with bytes that the kernel does not take? Then it goes before all
 * others; on_drained arms what the state wants. */
static bool is_stuck(const struct conn *c)
{
    return c->writing && c->list == H1_L_SEND && !list_empty(&c->deadline);
}

static void arm(struct h1_conn *hc, enum h1_list list)
{
    if (!is_stuck(&hc->conn))
        conn_arm(&hc->conn, list);
}

static void disarm(struct h1_conn *hc)
{
    if (!is_stuck(&hc->conn))
        conn_disarm(&hc->conn);
}

/* ---- the end ---- */

static void finish(struct h1_conn *hc, enum close_reason reason, bool reset)
{
    if (hc->state == H1_CLOSED)
        return;
    if (hc->reason == CLOSE_REASONS)
        hc->reason = (uint8_t)reason;
    if (hc->user)
        server_of(hc)->up->gone(hc);
    hc->user = NULL;
    hc->state = H1_CLOSED;
    conn_close(&hc->conn, reset);
}

void h1_fail(struct h1_conn *hc, enum close_reason reason)
{
    /* A response that is cut must not look complete: RST where it has no framing of its own. */
    bool sent = hc->state >= H1_CLOSING && conn_is_drained(&hc->conn) && !hc->reset_at_end;
    finish(hc, reason, hc->responded && !sent);
}

/* Our bytes are out: send FIN, then read until the client's FIN (RFC 9112 §9.6). */
static void linger(struct h1_conn *hc)
{
    if (hc->reset_at_end) {
        finish(hc, hc->reason, true);
        return;
    }
    conn_shutdown(&hc->conn);
    if (hc->conn.eof) {
        finish(hc, hc->reason, false);
        return;
    }
    hc->state = H1_LINGER;
    buf_fini(&hc->conn.in);
    hc->conn.in_off = 0;
    conn_read(&hc->conn, true);
    conn_arm(&hc->conn, H1_L_LINGER);
}

static void close_after_flush(struct h1_conn *hc, enum close_reason reason)
{
    hc->reason = (uint8_t)reason;
    hc->state = H1_CLOSING;
    free(hc->chunked);
    hc->chunked = NULL;
    conn_read(&hc->conn, false);
    conn_arm(&hc->conn, H1_L_SEND);
    hc->send_mark = conn_unsent(&hc->conn);
    conn_want_flush(&hc->conn);
}

void h1_cut(struct h1_conn *hc, enum close_reason reason, bool reset)
{
    must(hc->user == NULL);
    if (hc->state == H1_CLOSED)
        return;
    hc->reset_at_end = reset;
    close_after_flush(hc, reason);
}

void h1_refuse(struct h1_conn *hc, int status, const char *reason)
{
    if (hc->state >= H1_CLOSING)
        return;
    if (hc->responded) {
        h1_fail(hc, CLOSE_ABORTED);
        return;
    }
    struct h1_error why = {.status = status, .reason = reason};
    struct h1_server *s = server_of(hc);
    counter_add(&s->counters->refused, 1);
    s->up->refuse(hc, &why, &hc->conn.out);
    enum close_reason end = CLOSE_BAD_REQUEST;
    if (status == 408)
        end = hc->state == H1_BODY ? CLOSE_BODY_TIMEOUT : CLOSE_HEADER_TIMEOUT;
    else if (hc->state == H1_PROXY)
        end = CLOSE_PROXY_REFUSED;
    close_after_flush(hc, end);
}

/* ---- idling ---- */

/* The deadline of a connection that waits for the first byte of a request. */
static enum h1_list idle_list(const struct h1_conn *hc)
{
    if (WEIR_UNLIKELY(server_of((struct h1_conn *)(uintptr_t)hc)->leave == H1_DRAINS))
        return conn_in_handshake(&hc->conn) ? H1_L_HEAD : H1_L_LAST;
    return hc->served ? H1_L_KEEP : H1_L_HEAD;
}

static void become_idle(struct h1_conn *hc)
{
    hc->state = H1_IDLE;
    hc->seen = 0;
    hc->responded = hc->probed = hc->expecting = false;
    arm(hc, idle_list(hc));
}

/* Empty lines before a request are ignored (RFC 9112 §2.2): nothing has begun. */
static bool is_empty_lines(struct slice s)
{
    while (s.n && (*s.p == '\r' || *s.p == '\n'))
        s.p++, s.n--;
    return s.n == 0;
}

/* Whole empty lines and nothing else: no request has begun. */
static void forget_empty_lines(struct h1_conn *hc)
{
    struct slice kept = conn_kept(&hc->conn);
    if (hc->state != H1_HEAD || !kept.n || kept.p[kept.n - 1] != '\n' || !is_empty_lines(kept))
        return;
    buf_fini(&hc->conn.in);
    hc->conn.in_off = 0;
    become_idle(hc);
}

/* Is it between two requests, with nothing of either in our hands? */
static bool is_idle(const struct h1_conn *hc)
{
    return (hc->state == H1_IDLE || hc->state == H1_PROXY) && conn_is_drained(&hc->conn) &&
           conn_kept(&hc->conn).n == 0 && !hc->conn.eof;
}

/* What TLS has agreed on stands in this process' memory alone. */
static bool can_hand(const struct h1_conn *hc)
{
    return is_idle(hc) && !conn_tls_begun(&hc->conn);
}

/* No request is in work: close, unless one has arrived that we have not read yet. That one is served. */
static bool close_idle(struct h1_conn *hc, enum close_reason reason)
{
    if (conn_has_input(&hc->conn)) {
        conn_arm(&hc->conn, H1_L_HEAD);
        return false;
    }
    finish(hc, reason, false);
    return true;
}

void h1_handed(struct h1_conn *hc)
{
    must(hc->user == NULL);
    finish(hc, CLOSE_HANDED_OVER, false);
}

/* Another process goes on with it. False: it stays for now. */
static bool hand_over(struct h1_conn *hc)
{
    struct h1_server *s = server_of(hc);
    forget_empty_lines(hc);
    if (s->hand_full || !can_hand(hc))
        return false;
    int rc = s->up->hand(hc);
    hc->conn.given_away = rc == 0;
    if (rc == 0)
        h1_handed(hc);
    s->hand_full = rc == -EAGAIN;
    return rc == 0;
}

/* ---- reading ---- */

static bool peer_is_of(const struct h1_conn *hc, const struct proxy_set *set)
{
    char host[64] = "";
    if (hc->peer_family == AF_INET)
        inet_ntop(AF_INET, &hc->peer.v4, host, sizeof host);
    else if (hc->peer_family == AF_INET6)
        inet_ntop(AF_INET6, &hc->peer.v6, host, sizeof host);
    return proxy_set_has(set, host);
}

/* May the peer speak the PROXY protocol? */
static bool proxy_allowed(const struct h1_conn *hc, const struct h1_server *s)
{
    return peer_is_of(hc, s->proxy_from);
}

static void refuse_proxy(struct h1_conn *hc)
{
    h1_refuse(hc, 403, "the PROXY protocol is not accepted from this address");
}

/* The PROXY protocol's line or header. Returns the bytes used; stops the caller's loop through *more. */
/* What the PROXY protocol has to say is said, or will not be: what follows is the client's. */
static void proxy_over(struct h1_conn *hc, bool *more)
{
    struct h1_server *s = server_of(hc);
    hc->state = H1_IDLE;
    if (s->tls) {
        conn_start_tls(&hc->conn, s->tls);
        *more = false;
    }
}

static size_t read_proxy(struct h1_conn *hc, const char *p, size_t n, bool *more)
{
    struct h1_server *s = server_of(hc);
    struct proxy_addr client = {0}, local = {0};
    struct h1_error why = {0};
    size_t used = 0;
    if (s->proxy_optional) {
        if (!proxy_protocol_begins(p, n, s->proxy_mode)) {
            proxy_over(hc, more);
            return 0;
        }
        if (n >= PROXY_BEGIN_BYTES && !proxy_allowed(hc, s)) {
            refuse_proxy(hc);
            return n;
        }
    }
    switch (proxy_protocol(p, n, s->proxy_mode, &used, &client, &local, &why)) {
    case H1_MORE:
        *more = false;
        return 0;
    case H1_BAD:
        h1_refuse(hc, why.status, why.reason);
        return n;
    case H1_DONE:
        break;
    }
    if (s->front_ends) {
        hc->direct_trusted = peer_is_of(hc, s->front_ends);
        hc->trust_known = true;
    }
    struct in_addr v4;
    struct in6_addr v6;
    if (*client.host && inet_pton(AF_INET, client.host, &v4) == 1) {
        hc->peer.v4 = v4;
        hc->peer_family = AF_INET;
        hc->proxied = true;
    } else if (*client.host && inet_pton(AF_INET6, client.host, &v6) == 1) {
        hc->peer.v6 = v6;
        hc->peer_family = AF_INET6;
        hc->proxied = true;
    }
    if (hc->proxied)
        hc->peer_port = client.port;
    proxy_over(hc, more);
    return used;
}

/* Is a head that is refused one of HEAD? Its answer has no content either (RFC 9110 §9.3.2). */
static bool says_head(const char *p, size_t n)
{
    while (n && (*p == '\r' || *p == '\n'))
        p++, n--;
    return n >= 5 && memcmp(p, "HEAD ", 5) == 0;
}

/* One head, if it is complete. Returns the bytes used; stops the caller's loop through *more. */
static size_t read_head(struct h1_conn *hc, const char *p, size_t n, bool *more)
{
    struct h1_server *s = server_of(hc);
    struct req req;
    struct h1_error why = {0};
    size_t used = 0, seen = hc->seen;
    hc->is_head = false;
    switch (h1_head(p, n, &seen, &s->limits, s->fields, &req, &used, &why)) {
    case H1_MORE:
        if (hc->state == H1_IDLE) {
            hc->state = H1_HEAD;
            if (hc->served)
                arm(hc, H1_L_HEAD);
        }
        hc->seen = (uint32_t)seen;
        *more = false;
        return 0;
    case H1_BAD:
        hc->is_head = says_head(p, n);
        h1_refuse(hc, why.status, why.reason);
        return n;
    case H1_DONE:
        break;
    }
    hc->seen = 0;
    hc->is_11 = req.minor >= 1;
    hc->is_head = req.head;
    /* With content behind the head the client did not wait. */
    hc->expecting = req.expect_continue && (used == n || s->continue_always);
    hc->responded = hc->probed = hc->body_paused = false;
    disarm(hc);
    counter_add(&s->counters->requests, 1);
    hc->left = req.content_length;
    hc->state = req.framing == REQ_BODY_NONE ? H1_BUSY : H1_BODY;
    if (req.framing == REQ_BODY_CHUNKED) {
        hc->chunked = calloc(1, sizeof *hc->chunked);
        if (!hc->chunked) {
            h1_refuse(hc, 503, "out of memory");
            return n;
        }
    }
    s->up->head(hc, &req, slice_of(p, used));
    if (hc->state == H1_BUSY)
        s->up->body_end(hc);
    else if (hc->state == H1_BODY)
        arm(hc, H1_L_BODY);
    return used;
}

static size_t read_body(struct h1_conn *hc, const char *p, size_t n, bool *more)
{
    struct h1_server *s = server_of(hc);
    size_t used = 0;
    bool done = false;
    if (hc->body_paused) {
        *more = false;
        return 0;
    }
    hc->expecting = false;
    if (hc->chunked) {
        struct h1_error why = {0};
        struct slice data = {0};
        switch (h1_chunked(hc->chunked, p, n, &used, &data, &why)) {
        case H1_MORE:
            if (!used && !data.n)
                *more = false;
            break;
        case H1_DONE:
            done = true;
            break;
        case H1_BAD:
            if (s->raw_counts && n >= s->body_max)
                why = (struct h1_error){413, "The request body is too large, and malformed."};
            s->up->body_bad(hc, &why);
            return n;
        }
        if (data.n)
            s->up->body(hc, data);
        if (hc->state == H1_BODY && h1_chunk_left(hc->chunked) > s->body_max) {
            s->up->body_bad(hc, &(struct h1_error){413, "A chunk is larger than max-body-size."});
            return n;
        }
    } else {
        used = n < hc->left ? n : (size_t)hc->left;
        hc->left -= used;
        done = hc->left == 0;
        s->up->body(hc, slice_of(p, used));
    }
    if (hc->state != H1_BODY)
        return hc->state == H1_BUSY || hc->state == H1_IDLE ? used : n;
    if (done) {
        free(hc->chunked);
        hc->chunked = NULL;
        hc->state = H1_BUSY;
        disarm(hc);
        s->up->body_end(hc);
    } else if (!hc->body_paused) {
        arm(hc, H1_L_BODY);
    }
    return used;
}

static size_t on_input(struct conn *c, const char *p, size_t n)
{
    struct h1_conn *hc = hc_of(c);
    size_t used = 0;
    bool more = true;
    while (used < n && more) {
        switch ((enum h1_state)hc->state) {
        case H1_PROXY:
            used += read_proxy(hc, p + used, n - used, &more);
            break;
        case H1_IDLE:
        case H1_HEAD:
            if (conn_unsent(c) > H1_UNSENT_BYTES) {
                more = false; /* on_drained goes on */
                conn_read(c, false);
                break;
            }
            used += read_head(hc, p + used, n - used, &more);
            break;
        case H1_BODY:
            used += read_body(hc, p + used, n - used, &more);
            break;
        case H1_BUSY:
            if (n - used >= H1_AHEAD_BYTES) {
                conn_read(c, false);
                if (server_of(hc)->detect_gone)
                    arm(hc, H1_L_LIMBO);
            }
            more = false;
            break;
        case H1_CLOSING:
        case H1_LINGER:
        case H1_CLOSED:
            used = n;
            break;
        }
    }
    return used;
}

void h1_continue(struct h1_conn *hc)
{
    if (!hc->expecting || hc->state != H1_BODY || hc->responded)
        return;
    hc->expecting = false;
    if (conn_kept(&hc->conn).n && !server_of(hc)->continue_always)
        return; /* it did not wait */
    if (buf_add(&hc->conn.out, CONTINUE, sizeof CONTINUE - 1) == 0)
        conn_want_flush(&hc->conn);
}

static void on_eof(struct conn *c);

/* Go on with the kept input. Where the client's FIN is behind it, nothing more will complete what
 * is left of it. */
static void go_on(struct h1_conn *hc)
{
    struct conn *c = &hc->conn;
    conn_input_again(c);
    if (c->eof && !c->in_input && hc->state <= H1_BODY && !hc->body_paused &&
        conn_unsent(c) <= H1_UNSENT_BYTES)
        on_eof(c);
}

void h1_pause_body(struct h1_conn *hc, bool paused)
{
    if (hc->state != H1_BODY || hc->body_paused == paused)
        return;
    hc->body_paused = paused;
    conn_read(&hc->conn, !paused);
    if (paused) {
        disarm(hc);
    } else {
        arm(hc, H1_L_BODY);
        go_on(hc);
    }
}

void h1_stop_body(struct h1_conn *hc)
{
    conn_read(&hc->conn, false);
    disarm(hc);
}

/* ---- writing ---- */

/* At the end of a turn. What the kernel does not take must make progress within send-timeout. */
static void flush_one(struct list *node)
{
    struct conn *c = container_of(node, struct conn, flush);
    struct h1_conn *hc = hc_of(c);
    conn_flush(c);
    if (c->writing && !c->closing && (c->list != H1_L_SEND || list_empty(&c->deadline))) {
        hc->send_mark = conn_unsent(c);
        conn_arm(c, H1_L_SEND);
    }
}

static void note_write(struct h1_conn *hc)
{
    hc->responded = true;
    conn_want_flush(&hc->conn);
}

/* Idle connections keep no output buffer; the one given up last serves the next answer. */
static void out_borrow(struct h1_conn *hc)
{
    struct h1_server *s = server_of(hc);
    if (!hc->conn.out.cap) {
        hc->conn.out = s->spare_out;
        s->spare_out = (struct buf){0};
    }
}

static void out_give_back(struct h1_conn *hc)
{
    struct h1_server *s = server_of(hc);
    struct buf *out = &hc->conn.out;
    if (!s->spare_out.cap && out->cap && out->cap <= H1_SPARE_BYTES) {
        s->spare_out = *out;
        *out = (struct buf){0};
    } else {
        buf_clear(out, 0);
    }
}

int h1_write(struct h1_conn *hc, const char *p, size_t n)
{
    out_borrow(hc);
    int rc = buf_add(&hc->conn.out, p, n);
    note_write(hc);
    return rc;
}

int h1_write_buf(struct h1_conn *hc, struct buf *b)
{
    /* Below 4 KiB a copy is cheaper than giving up a warm buffer. */
    if (hc->conn.out.n || b->n < 4096) {
        out_borrow(hc);
        int rc = buf_add(&hc->conn.out, b->p, b->n);
        b->n = 0;
        note_write(hc);
        return rc;
    }
    struct buf old = hc->conn.out;
    size_t max = b->max;
    hc->conn.out = *b;
    hc->conn.out.max = 0;
    *b = old;
    b->n = 0;
    b->max = max;
    note_write(hc);
    return 0;
}

void h1_next(struct h1_conn *hc, bool keep, enum close_reason reason)
{
    must(hc->user == NULL);
    struct h1_server *s = server_of(hc);
    hc->served++;
    if (hc->state == H1_CLOSED)
        return;
    if (hc->state == H1_BODY) {
        /* The body was not read to its end: what follows cannot be told from it. */
        close_after_flush(hc, reason == CLOSE_COMPLETE ? CLOSE_UNREAD_BODY : reason);
        return;
    }
    if (!keep || s->keep_alive_ms == 0) {
        close_after_flush(hc, reason);
        return;
    }
    if (hc->conn.eof && conn_kept(&hc->conn).n == 0) {
        close_after_flush(hc, CLOSE_CLIENT_CLOSED);
        return;
    }
    become_idle(hc);
    conn_want_flush(&hc->conn);
    if (hc->conn.out.n >= H1_LARGE_BYTES) {
        flush_one(&hc->conn.flush);
        if (hc->state != H1_IDLE) /* it broke, or has gone on with the next request */
            return;
    }
    conn_read(&hc->conn, true);
    go_on(hc);
}

/* ---- what the connection tells ---- */

static void on_drained(struct conn *c)
{
    struct h1_conn *hc = hc_of(c);
    if (hc->state == H1_CLOSING) {
        linger(hc);
        return;
    }
    if (c->list == H1_L_SEND) {
        if (hc->state == H1_IDLE)
            conn_arm(c, idle_list(hc));
        else if (hc->state == H1_HEAD)
            conn_arm(c, H1_L_HEAD);
        else if (hc->state == H1_BODY && !hc->body_paused)
            conn_arm(c, H1_L_BODY);
        else
            conn_disarm(c);
    }
    if (hc->user)
        server_of(hc)->up->drained(hc);
    if ((hc->state == H1_IDLE || hc->state == H1_HEAD) && (conn_kept(c).n || c->eof)) {
        conn_read(c, true);
        go_on(hc);
    }
    if (hc->state == H1_BUSY && hc->user && (c->eof || !c->reading) && server_of(hc)->detect_gone)
        conn_arm(c, H1_L_LIMBO);
    if (hc->state == H1_IDLE && conn_is_drained(c)) {
        out_give_back(hc);
        if (WEIR_UNLIKELY(server_of(hc)->leave == H1_HANDS_OVER))
            hand_over(hc);
    }
}

/* Send, once, what makes a closed peer answer with a reset and means nothing to one that reads. */
static void probe(struct h1_conn *hc)
{
    switch (conn_ask_peer(&hc->conn)) {
    case CONN_PEER_HELD:
        return; /* it has only finished sending */
    case CONN_PEER_LEFT:
        finish(hc, CLOSE_CLIENT_LEFT, false);
        return;
    case CONN_PEER_UNKNOWN:
        break;
    }
    if (hc->probed || !hc->is_11 || hc->conn.is_unix)
        return;
    if (hc->responded) {
        hc->probed = server_of(hc)->up->probe(hc);
        return;
    }
    hc->probed = true;
    if (buf_add(&hc->conn.out, CONTINUE, sizeof CONTINUE - 1) == 0)
        conn_want_flush(&hc->conn);
}

static void on_eof(struct conn *c)
{
    struct h1_conn *hc = hc_of(c);
    struct h1_server *s = server_of(hc);
    switch ((enum h1_state)hc->state) {
    case H1_HEAD:
        if (!is_empty_lines(conn_kept(c))) {
            h1_refuse(hc, 400, "the connection ended inside the request head");
            if (hc->state != H1_CLOSED)
                hc->reason = CLOSE_CLIENT_LEFT;
            break;
        }
        WEIR_FALLTHROUGH;
    case H1_PROXY:
    case H1_IDLE:
        if (conn_is_drained(c))
            finish(hc, CLOSE_CLIENT_CLOSED, false);
        else
            close_after_flush(hc, CLOSE_CLIENT_CLOSED);
        break;
    case H1_BODY:
        s->up->body_bad(hc, &(struct h1_error){400, "the connection ended inside the request body"});
        break;
    case H1_BUSY:
        if (!s->detect_gone)
            break;
        if (conn_is_dead(c)) {
            finish(hc, CLOSE_CLIENT_LEFT, false);
            break;
        }
        if (s->up->is_queued(hc))
            probe(hc);
        if (conn_is_drained(c) || hc->probed)
            arm(hc, H1_L_LIMBO);
        break;
    case H1_CLOSING:
        break;
    case H1_LINGER:
        finish(hc, hc->reason, false);
        break;
    case H1_CLOSED:
        break;
    }
}

static void tell_tls(const struct h1_conn *hc, const char *why)
{
    char peer[64] = "a Unix socket";
    if (hc->peer_family != AF_UNIX)
        inet_ntop(hc->peer_family, &hc->peer, peer, sizeof peer);
    /* A client that does not like what it sees says so by an alert. One that goes without a word only looked
     * whether somebody answers, as health checks do all day. */
    log_flood(hc->conn.eof ? LOG_DEBUG : LOG_INFO, 0, "TLS with %s failed: %s", peer, why);
}

static void on_tls_failed(struct conn *c, const char *why)
{
    struct h1_conn *hc = hc_of(c);
    if (hc->state < H1_CLOSING)
        tell_tls(hc, why);
    if (hc->user || hc->state >= H1_CLOSING || c->eof)
        finish(hc, CLOSE_TLS_FAILED, false);
    else
        close_after_flush(hc, CLOSE_TLS_FAILED); /* an alert says it to the client */
}

static void on_not_tls(struct conn *c, const char *p, size_t n)
{
    struct h1_conn *hc = hc_of(c);
    hc->is_head = says_head(p, n);
    h1_refuse(hc, 400, "The plain HTTP request was sent to an HTTPS port");
    if (hc->state != H1_CLOSED)
        hc->reason = CLOSE_TLS_FAILED;
}

static void look_for_death(struct h1_conn *hc)
{
    struct conn *c = &hc->conn;
    if (hc->state != H1_BUSY || !hc->user)
        return;
    struct pollfd p = {.fd = conn_fd(c), .events = POLLRDHUP};
    if (poll(&p, 1, 0) > 0) {
        if (p.revents & (POLLHUP | POLLERR)) {
            finish(hc, CLOSE_CLIENT_LEFT, false);
            return;
        }
        probe(hc); /* its FIN is here */
    }
    conn_arm(c, H1_L_LIMBO);
}

static void on_deadline(struct conn *c, unsigned list)
{
    struct h1_conn *hc = hc_of(c);
    switch ((enum h1_list)list) {
    case H1_L_KEEP:
        close_idle(hc, CLOSE_KEEP_ALIVE_TIMEOUT);
        break;
    case H1_L_LAST:
        if (conn_in_handshake(c))
            conn_arm(c, H1_L_HEAD);
        else
            close_idle(hc, CLOSE_DRAINING);
        break;
    case H1_L_HEAD:
        if (hc->state == H1_HEAD && !is_empty_lines(conn_kept(c)))
            h1_refuse(hc, 408, "the request head was not complete in time");
        else if (conn_in_handshake(c))
            on_tls_failed(c, "the handshake was not complete within header-timeout");
        else
            close_idle(hc, CLOSE_NO_REQUEST);
        break;
    case H1_L_BODY:
        server_of(hc)->up->body_bad(
            hc, &(struct h1_error){408, "the request body paused for too long"});
        break;
    case H1_L_SEND:
        if (conn_unsent(c) != hc->send_mark) {
            hc->send_mark = conn_unsent(c);
            conn_arm(c, H1_L_SEND);
        } else {
            finish(hc, CLOSE_SEND_TIMEOUT, true);
        }
        break;
    case H1_L_LINGER:
        finish(hc, hc->reason, false);
        break;
    case H1_L_LIMBO:
        look_for_death(hc);
        break;
    }
}

static void on_broken(struct conn *c, int err)
{
    struct h1_conn *hc = hc_of(c);
    enum close_reason reason = err == -ENOMEM ? CLOSE_NO_MEMORY : CLOSE_CLIENT_RESET;
    /* An idle connection that is reset, or one that lingers, has lost nothing. */
    if (hc->state == H1_IDLE || hc->state == H1_LINGER)
        reason = CLOSE_CLIENT_CLOSED;
    finish(hc, reason, false);
}

static void on_closed(struct conn *c)
{
    struct h1_conn *hc = hc_of(c);
    struct h1_server *s = server_of(hc);
    list_del(&hc->all);
    free(hc->chunked);
    enum close_reason reason = hc->reason;
    if (reason < CLOSE_REASONS)
        counter_add(&s->counters->closed[reason], 1);
    tell_open(s);
    s->up->closed(hc);
    free(hc);
}

/* ---- a server's connections ---- */

static const struct conn_ops CONN_OPS = {
    .input = on_input,
    .eof = on_eof,
    .drained = on_drained,
    .deadline = on_deadline,
    .broken = on_broken,
    .tls_failed = on_tls_failed,
    .not_tls = on_not_tls,
    .closed = on_closed,
};

int h1_server_init(struct h1_server *s, struct loop *loop, const struct h1_up *up,
                   const struct h1_limits *limits)
{
    loop->flush_one = flush_one;
    s->up = up;
    s->limits = *limits;
    list_init(&s->all);
    s->fields = calloc(limits->fields, sizeof *s->fields);
    if (!s->fields)
        return -ENOMEM;
    int rc = conn_pool_init(&s->pool, loop, &CONN_OPS);
    s->pool.lists[H1_L_LINGER].timeout_ms = H1_LINGER_MS;
    s->pool.lists[H1_L_LIMBO].timeout_ms = H1_LIMBO_MS;
    return rc;
}

void h1_server_fini(struct h1_server *s)
{
    conn_pool_fini(&s->pool);
    buf_fini(&s->spare_out);
    free(s->fields);
    s->fields = NULL;
}

/* A connection with what is known of its peer; takes fd. NULL: no memory. The caller says how it goes on. */
static struct h1_conn *add(struct h1_server *s, struct listener *l, int fd, bool is_unix)
{
    struct h1_conn *hc = calloc(1, sizeof *hc);
    if (!hc) {
        close(fd);
        counter_add(&s->counters->closed[CLOSE_NO_MEMORY], 1);
        return NULL;
    }
    hc->listener = l;
    hc->reason = CLOSE_REASONS;
    list_add(&s->all, &hc->all);
    counter_add(&s->counters->connections, 1);
    hc->state = H1_CLOSED;
    if (conn_open(&hc->conn, &s->pool, fd, is_unix))
        return NULL; /* closing already; on_closed frees */
    tell_open(s);
    return hc;
}

/* The PROXY protocol's line comes first, if this peer may send one. */
static void expect_proxy(struct h1_conn *hc)
{
    const struct h1_server *s = server_of(hc);
    hc->state = H1_PROXY;
    if (!s->proxy_optional && !proxy_allowed(hc, s))
        refuse_proxy(hc);
}

void h1_accept(struct h1_server *s, struct listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct h1_conn *hc = add(s, l, fd, l->is_unix);
    if (!hc)
        return;
    hc->peer_family = peer->ss_family;
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)peer;
        hc->peer.v4 = in->sin_addr;
        hc->peer_port = ntohs(in->sin_port);
    } else if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)peer;
        hc->peer.v6 = in6->sin6_addr;
        hc->peer_port = ntohs(in6->sin6_port);
    }
    become_idle(hc);
    if (s->proxy_mode != PROXY_OFF)
        expect_proxy(hc);
    else if (s->tls)
        conn_start_tls(&hc->conn, s->tls);
}

void h1_adopt(struct h1_server *s, struct listener *l, int fd, const struct handover *h)
{
    struct h1_conn *hc = add(s, l, fd, h->peer_family == AF_UNIX);
    if (!hc)
        return;
    static_assert(sizeof hc->peer <= sizeof h->peer, "an address fits");
    hc->peer_family = h->peer_family;
    hc->peer_port = h->peer_port;
    memcpy(&hc->peer, h->peer, sizeof hc->peer);
    hc->proxied = h->proxied;
    if (s->front_ends && h->proxied) {
        hc->direct_trusted = h->front_trusted;
        hc->trust_known = true;
    }
    hc->served = h->served;
    become_idle(hc);
    if (s->leave != H1_DRAINS)
        conn_arm_ago(&hc->conn, hc->served ? H1_L_KEEP : H1_L_HEAD, h->idle_ms);
    if (s->proxy_mode != PROXY_OFF && h->awaits_proxy)
        expect_proxy(hc);
    else if (s->tls && strncmp(h->url, "https:", 6) == 0)
        conn_start_tls(&hc->conn, s->tls); /* it came before its first byte */
    if (h->input.n && conn_give_input(&hc->conn, h->input))
        h1_fail(hc, CLOSE_NO_MEMORY);
}

bool h1_can_hand_waiting(const struct h1_conn *hc)
{
    return hc->state == H1_BUSY && !hc->responded && conn_is_drained(&hc->conn) && !conn_tls_begun(&hc->conn);
}

void h1_describe(const struct h1_conn *hc, struct handover *out)
{
    struct conn_pool *pool = hc->conn.pool;
    memset(out, 0, sizeof *out);
    snprintf(out->url, sizeof out->url, "%s", hc->listener->url);
    out->peer_family = hc->peer_family;
    out->peer_port = hc->peer_port;
    memcpy(out->peer, &hc->peer, sizeof hc->peer);
    out->proxied = hc->proxied;
    out->front_trusted = hc->direct_trusted;
    out->awaits_proxy = hc->state == H1_PROXY;
    out->served = hc->served;
    uint64_t idle_ms = loop_now_ms(pool->loop) - hc->conn.armed_ms;
    out->idle_ms = idle_ms < UINT32_MAX ? (uint32_t)idle_ms : UINT32_MAX;
}

void h1_keep_alive(struct h1_server *s, uint64_t ms)
{
    uint64_t late = ms < H1_KEEP_LATE_MS ? ms : H1_KEEP_LATE_MS;
    s->keep_alive_ms = ms;
    s->pool.lists[H1_L_KEEP].timeout_ms = ms + late / 2;
}

void h1_drain(struct h1_server *s, enum h1_leave how)
{
    if (s->leave >= how)
        return;
    s->leave = how;
    s->pool.lists[H1_L_LINGER].timeout_ms = H1_LINGER_DRAIN_MS;
    if (how == H1_HANDS_OVER) {
        h1_hand_idle(s);
        return;
    }
    for (struct list *n = s->all.next; n != &s->all;) {
        struct h1_conn *hc = container_of(n, struct h1_conn, all);
        n = n->next;
        forget_empty_lines(hc);
        if (hc->state == H1_PROXY || hc->state == H1_IDLE)
            arm(hc, idle_list(hc));
    }
}

unsigned h1_close_idle(struct h1_server *s)
{
    unsigned left = 0;
    for (struct list *n = s->all.next; n != &s->all;) {
        struct h1_conn *hc = container_of(n, struct h1_conn, all);
        n = n->next;
        forget_empty_lines(hc);
        if (hc->state != H1_CLOSED && hc->state != H1_LINGER && !(is_idle(hc) && close_idle(hc, CLOSE_DRAINING)))
            left++;
    }
    return left;
}

/* Those on a list of idle ones; only some of them may idle in truth. */
static void hand_list(struct h1_server *s, enum h1_list list)
{
    struct list *idle = &s->pool.lists[list].conns;
    for (struct list *n = idle->next; n != idle && !s->hand_full;) {
        struct conn *c = container_of(n, struct conn, deadline);
        n = n->next;
        hand_over(hc_of(c));
    }
}

void h1_hand_idle(struct h1_server *s)
{
    s->hand_full = false;
    hand_list(s, H1_L_KEEP);
    hand_list(s, H1_L_HEAD);
}

bool h1_evict_idle(struct h1_server *s)
{
    struct list *idle = &s->pool.lists[H1_L_KEEP].conns;
    for (struct list *n = idle->next; n != idle;) {
        struct conn *c = container_of(n, struct conn, deadline);
        n = n->next;
        /* One that is not drained has its answer leave at the end of this turn. */
        if (conn_is_drained(c) && close_idle(hc_of(c), CLOSE_EVICTED))
            return true;
    }
    return false;
}
