/* exchange: see the header. */
#include "serve/exchange.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "handler/refuse.h"

/* Exchanges kept for reuse; each holds 3 to 20 KiB. */
static const unsigned FREE_MAX = 256;
/* A reused exchange keeps an output buffer of up to this. */
static const size_t KEEP_OUT_BYTES = 16 * 1024;
/* A body that is read while it comes: the leader stops reading above this. */
static const size_t INTAKE_BYTES_MAX = 256 * 1024;
/* How much of a spill file, or of a file, is sent in one go. */
static const size_t FILE_STEP_BYTES = 1024 * 1024;
static const size_t FILE_COPY_BYTES = 64 * 1024;
/* A thread that is still inside so long after the time of its request was over does not come back. */
static const int64_t LOST_MS = 5000;
/* A look at a thread that has taken so long is given up. */
static const int64_t LOOK_MS = 1000;
/* When too many looks at threads wait already: try again after this. */
static const int64_t LOOK_AGAIN_MS = 20;
/* A path in a line of the log. */
static const size_t PATH_BYTES_MAX = 200;
/* Requests of one connection that run in a row before others get their turn. */
static const unsigned STREAK_MAX = 15;
/* request-buffering auto: a chunked body not complete after this is handed over as it comes. */
static const uint64_t SLOW_BODY_MS = 250;
/* The body of a refused request is read and dropped up to this, so that the connection can go on; above it the answer
 * comes at once, and the connection closes. */
static const uint64_t DROP_BYTES_MAX = 64 * 1024;

static void pump(struct exchange *x);
static void complete(struct exchange *x);

static struct exchange *of_call(const struct call *c)
{
    return (struct exchange *)(void *)(uintptr_t)c;
}

struct exchange *exchange_of_job(struct lead_job *job)
{
    return container_of(job, struct exchange, job);
}

/* ---- spill files ---- */

/* An unlinked file in the temp folder; -errno. */
static int spill_open(const struct server *s)
{
    const char *dir = s->conf->temp_dir;
    if (!dir || !*dir)
        dir = getenv("TMPDIR");
    if (!dir || !*dir)
        dir = "/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    char path[4096];
    if (snprintf(path, sizeof path, "%s/weir-XXXXXX", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

static int write_at(int fd, const char *p, size_t n, uint64_t offset)
{
    while (n) {
        ssize_t done = pwrite(fd, p, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            return -ENOSPC;
        p += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static bool over_budget(struct server *s, size_t more)
{
    return atomic_load_explicit(&s->memory, memory_order_relaxed) + (int64_t)more >
           s->conf->memory_budget;
}

/* ---- life ---- */

static const struct call_ops CALL_OPS;
static void on_flush_mail(struct mail *m);
static void on_done_mail(struct mail *m);

static struct exchange *take(struct server *s)
{
    struct exchange *x = s->free;
    if (x) {
        s->free = x->next_free;
        s->n_free--;
    } else {
        x = calloc(1, sizeof *x);
        if (!x)
            return NULL;
        x->server = s;
        x->body.fd = x->outq.fd = x->call.file_fd = -1;
        x->call.ops = &CALL_OPS;
        x->call.ident = &s->ident;
        x->call.last = &s->draining;
        x->call.ends_early = &s->streams_end;
        x->call.close_unknown = s->conf->dialect == CONF_WAITRESS;
        x->call.drop_reserved = server_is_gunicorn(s);
        x->call.server_timing = s->conf->server_timing;
        if (s->access)
            x->call.n_watch = access_environ(s->access, &x->call.watch);
        pthread_mutex_init(&x->lock, NULL);
        pthread_cond_init(&x->changed, NULL);
        list_init(&x->job.node);
        list_init(&x->slow);
        list_init(&x->all);
        x->admitted.ticket = GATE_NONE;
        x->flush_mail.deliver = on_flush_mail;
        x->done_mail.deliver = on_done_mail;
    }
    list_add(&s->exchanges, &x->all);
    return x;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void exchange_free(struct exchange *x)
{
    close_fd(&x->body.fd);
    close_fd(&x->outq.fd);
    close_fd(&x->call.file_fd);
    buf_fini(&x->call.out);
    buf_fini(&x->body.mem);
    buf_fini(&x->outq.mem);
    buf_fini(&x->intake_mem);
    arena_fini(&x->arena);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->changed);
    free(x);
}

/* Back to the free list: nobody runs it, no connection knows it. */
static void recycle(struct exchange *x)
{
    struct server *s = x->server;
    must(x->state != X_IDLE);
    list_del(&x->all);
    list_del(&x->slow);
    heap_del(&s->alarms, &x->alarm);
    flights_end(x);
    if (s->admission.policy)
        admission_end(x, atomic_load_explicit(&x->begun_ms, memory_order_acquire) != 0);
    if (x->budget)
        server_memory(s, -x->budget);
    x->budget = 0;
    close_fd(&x->body.fd);
    close_fd(&x->call.file_fd);
    if (x->flushed || x->hinted) {
        server_memory(s, -(int64_t)x->outq.mem.n);
        close_fd(&x->outq.fd);
        buf_fini(&x->outq.mem);
        x->outq.file_start = x->outq.file_end = 0;
        x->unsent = x->inflight = 0;
    }
    if (x->body.size) {
        buf_fini(&x->body.mem);
        x->body.size = 0;
    }
    if (x->intake != INTAKE_WHOLE) {
        server_memory(s, -(int64_t)x->intake_mem.n);
        buf_fini(&x->intake_mem);
        x->intake_full = false;
        x->intake = INTAKE_WHOLE;
    }
    x->body.complete = false;
    x->read_pos = 0;
    x->hc = NULL;
    x->state = X_IDLE;
    atomic_store_explicit(&x->flushed, false, memory_order_relaxed);
    atomic_store_explicit(&x->hinted, false, memory_order_relaxed);
    atomic_store_explicit(&x->begun_ms, 0, memory_order_relaxed);
    x->late = LATE_NOT;
    x->deadline_ms = x->slow_ms = 0;
    x->slow_told = false;
    x->recorded = false;
    x->run_over = x->head_saved = x->wants_body = x->end_handed = false;
    x->head_copy = (struct slice){0};
    x->wire_bytes = 0;
    atomic_store_explicit(&x->gone, false, memory_order_relaxed);
    buf_clear(&x->call.out, KEEP_OUT_BYTES);
    arena_reset(&x->arena);
    if (s->n_free < FREE_MAX) {
        x->next_free = s->free;
        s->free = x;
        s->n_free++;
    } else {
        exchange_free(x);
    }
}

/* ---- the head ---- */

static inline void shift(struct slice *v, ptrdiff_t delta)
{
    if (v->n)
        v->p += delta;
}

/* Copy the head's bytes into the exchange and make all slices point there. *seen gets a bit for each
 * enum hdr among the fields. */
static bool adopt_head(struct exchange *x, const struct req *req, struct slice bytes, uint32_t *seen)
{
    struct field *fields = arena_alloc(&x->arena, req->n_fields * sizeof *fields + bytes.n);
    if (!fields)
        return false;
    char *copied = (char *)(fields + req->n_fields);
    memcpy(copied, bytes.p, bytes.n);
    struct slice copy = slice_of(copied, bytes.n);
    x->raw = copy;
    x->req = *req;
    ptrdiff_t delta = copy.p - bytes.p;
    struct req *r = &x->req;
    struct slice *parts[] = {&r->method, &r->target, &r->path, &r->query, &r->host, &r->scheme};
    for (unsigned i = 0; i < countof(parts); i++)
        if (parts[i]->p >= bytes.p && parts[i]->p < bytes.p + bytes.n) /* not a literal */
            shift(parts[i], delta);
    for (unsigned i = 0; i < req->n_fields; i++) {
        fields[i] = req->fields[i];
        *seen |= 1u << req->fields[i].id;
        shift(&fields[i].name, delta);
        shift(&fields[i].value, delta);
    }
    r->fields = fields;
    return true;
}

/* What the parser left to who owns the bytes: capitals for the method, folded values on one line. */
static void tidy_head(struct exchange *x)
{
    struct req *r = &x->req;
    char *method = (char *)(uintptr_t)r->method.p; /* in x->arena */
    for (size_t i = 0; x->server->conf->casefold_method && i < r->method.n; i++)
        if (method[i] >= 'a' && method[i] <= 'z')
            method[i] = (char)(method[i] & ~0x20);
    for (unsigned i = 0; r->folded && i < r->n_fields; i++) {
        struct slice *v = &r->fields[i].value;
        v->n = h1_unfold((char *)(uintptr_t)v->p, v->n);
    }
}

/* Decimal text of a port. */
static void port_text(char out[8], uint16_t port)
{
    char tmp[8];
    unsigned n = 0;
    do {
        tmp[n++] = (char)('0' + port % 10);
        port = (uint16_t)(port / 10);
    } while (port);
    for (unsigned i = 0; i < n; i++)
        out[i] = tmp[n - 1 - i];
    out[n] = '\0';
}

static void ipv4_text(char *out, struct in_addr a)
{
    const unsigned char *b = (const unsigned char *)&a;
    for (unsigned i = 0; i < 4; i++) {
        if (b[i] >= 100)
            *out++ = (char)('0' + b[i] / 100);
        if (b[i] >= 10)
            *out++ = (char)('0' + b[i] / 10 % 10);
        *out++ = (char)('0' + b[i] % 10);
        *out++ = i < 3 ? '.' : '\0';
    }
}

static void fill_peer(struct exchange *x, const struct h1_conn *hc)
{
    struct call_peer *p = &x->peer;
    if (x->peer_of != hc->listener) {
        x->peer_of = hc->listener;
        snprintf(p->server_addr, sizeof p->server_addr, "%s", hc->listener->host);
        snprintf(p->server_port, sizeof p->server_port, "%s", hc->listener->port);
        p->is_unix = hc->listener->is_unix;
    }
    p->is_tls = conn_is_tls(&hc->conn);
    /* An exchange that serves the same client again has its texts already. */
    uint64_t key = 0;
    if (hc->peer_family == AF_INET)
        key = (uint64_t)1 << 63 | (uint64_t)hc->peer.v4.s_addr << 16 | hc->peer_port;
    if (key && key == x->peer_key)
        return;
    x->peer_key = key;
    switch (hc->peer_family) {
    case AF_INET:
        ipv4_text(p->remote_addr, hc->peer.v4);
        port_text(p->remote_port, hc->peer_port);
        break;
    case AF_INET6:
        if (IN6_IS_ADDR_V4MAPPED(&hc->peer.v6))
            ipv4_text(p->remote_addr, *(const struct in_addr *)(const void *)&hc->peer.v6.s6_addr[12]);
        else
            inet_ntop(AF_INET6, &hc->peer.v6, p->remote_addr, sizeof p->remote_addr);
        port_text(p->remote_port, hc->peer_port);
        break;
    default:
        p->remote_addr[0] = p->remote_port[0] = '\0';
    }
}

/* What the application may know of the client's TLS. The connection may close before the run ends, so what is
 * not a literal is copied. */
static bool fill_tls(struct exchange *x, struct h1_conn *hc)
{
    const struct tls_facts *f = conn_tls_facts(&hc->conn);
    x->call.tls = NULL;
    x->call.last = f ? &x->server->leaving : &x->server->draining;
    if (WEIR_LIKELY(!f))
        return true;
    x->tls = *f;
    x->call.tls = &x->tls;
    if (WEIR_LIKELY(strcmp(f->verify, "NONE") == 0))
        return true;
    struct slice verify = arena_copy(&x->arena, slice_of(f->verify, strlen(f->verify) + 1));
    x->tls.verify = verify.p;
    x->tls.subject = arena_copy(&x->arena, f->subject);
    x->tls.issuer = arena_copy(&x->arena, f->issuer);
    x->tls.cert = arena_copy(&x->arena, f->cert);
    return verify.p && x->tls.subject.n == f->subject.n && x->tls.issuer.n == f->issuer.n &&
           x->tls.cert.n == f->cert.n;
}

/* May its connection stay open after the answer? */
static bool may_keep(const struct exchange *x)
{
    const struct server *s = x->server;
    return x->req.keep_alive && s->h1.keep_alive_ms > 0 &&
           (s->h1.leave == H1_STAYS || (s->h1.leave == H1_HANDS_OVER && !x->peer.is_tls));
}

static void start_call(struct exchange *x)
{
    struct server *s = x->server;
    struct call *c = &x->call;
    c->req = &x->req;
    c->peer = &x->peer;
    c->proxy = NULL;
    c->body = &x->body;
    c->arena = &x->arena;
    c->id = ++s->next_id;
    if (WEIR_UNLIKELY(c->id == s->worker.last_request))
        worker_recycle(s, RECYCLE_MAX_REQUESTS);
    c->out.n = 0;
    c->state = CALL_NEW;
    c->framing = CALL_LENGTH;
    c->status = 0;
    c->keep_alive = may_keep(x);
    c->has_length = c->has_date = c->has_server = c->has_via = c->close_wanted = false;
    c->bodyless = x->req.head;
    c->length = c->sent = c->excess = 0;
    c->hint_bytes = 0;
    c->watched = NULL;
    c->fields_end = 0;
    c->file_offset = 0;
    c->file_length = 0;
    c->abort_reason = NULL;
    c->start_ns = 0;
    x->wall_ns = 0;
    x->end_ns = 0;
    c->ready_ns = c->run_ns = 0;
    if (s->timed) {
        c->start_ns = clock_mono_ns();
        if (s->access)
            x->wall_ns = clock_wall_ns();
    }
    if (s->identifies) {
        identity_take(&x->identity, &x->req, &s->identity, &s->ids);
        c->request_id = x->identity.request_id;
        c->trace = x->identity.traced ? &x->identity.trace : NULL;
    }
}

/* What trusted front-ends say. false: refused. */
static bool apply_proxy(struct exchange *x, struct h1_conn *hc)
{
    struct server *s = x->server;
    if (!hc->trust_known) {
        hc->direct_trusted = proxy_set_has(&s->trusted, x->peer.remote_addr);
        hc->trust_known = true;
    }
    struct h1_error why = {0};
    memset(&x->facts, 0, sizeof x->facts);
    if (proxy_apply(&x->req, &s->rules, hc->direct_trusted, &x->arena, &x->facts, &why) == H1_BAD) {
        h1_refuse(hc, why.status, why.reason);
        return false;
    }
    if (x->facts.cleared && s->rules.log_untrusted)
        log_flood(LOG_WARNING, x->call.id, "forwarding headers of the untrusted peer %s were dropped",
                  *x->peer.remote_addr ? x->peer.remote_addr : "on a Unix socket");
    x->call.proxy = &x->facts;
    return true;
}

/* ---- its time ---- */

static WEIR_COLD void set_alarm(struct exchange *x, int64_t at_ms)
{
    struct server *s = x->server;
    heap_del(&s->alarms, &x->alarm);
    heap_add(&s->alarms, &x->alarm, at_ms);
    server_alarm(s, at_ms);
}

/* How long the request has from its complete head; 0: without end. */
static int64_t deadline_of(const struct exchange *x)
{
    const struct policy_route *r = x->admitted.found.route;
    return r && r->deadline_ms ? r->deadline_ms : x->server->conf->deadline;
}

/* The head is complete. A request that another worker hands over begins anew here. */
static void start_deadline(struct exchange *x)
{
    int64_t allowed_ms = deadline_of(x), slow_ms = x->server->conf->slow_request;
    if (allowed_ms)
        x->deadline_ms = (int64_t)x->received_ms + allowed_ms;
    if (slow_ms)
        x->slow_ms = (int64_t)x->received_ms + slow_ms;
    if (allowed_ms && (!slow_ms || allowed_ms < slow_ms))
        set_alarm(x, x->deadline_ms);
    else if (slow_ms)
        set_alarm(x, x->slow_ms);
}

/* Loop time at which its time is over, as far as can be said now; INT64_MAX: never. With run-timeout the
 * answer of a run that has not begun is the earliest possible. */
static int64_t due_ms(const struct exchange *x)
{
    int64_t due = x->deadline_ms ? x->deadline_ms : INT64_MAX, limit = x->server->conf->run_timeout;
    if (x->slow_ms && x->slow_ms < due)
        due = x->slow_ms;
    if (x->state == X_PARKED) {
        int64_t wait = admission_wait_ends(x);
        return wait < due ? wait : due;
    }
    if (!limit || (x->state != X_IN_WORK && x->state != X_ORPHAN))
        return due;
    int64_t begun = atomic_load_explicit(&x->begun_ms, memory_order_acquire);
    int64_t over = (begun ? begun : (int64_t)loop_now_ms(&x->server->loop)) + limit;
    return over < due ? over : due;
}

/* With run-timeout. Not inline, as others here: most requests have no alarm, and should not save registers
 * for one. */
static WEIR_COLD void watch_run(struct exchange *x)
{
    set_alarm(x, due_ms(x));
}

/* The moment in which it begins to wait; without a body that of its head. */
static int64_t now_or_start(const struct exchange *x)
{
    return x->req.framing == REQ_BODY_NONE ? x->call.start_ns : clock_mono_ns();
}

/* It goes on the ready queue. */
static inline void start_waiting(struct exchange *x)
{
    struct server *s = x->server;
    x->state = X_IN_WORK;
    if (s->timed && !x->call.ready_ns)
        x->call.ready_ns = now_or_start(x);
    if (WEIR_UNLIKELY(x->flight != NULL))
        flights_enter_at(x, FLIGHT_READY, x->flight->state == FLIGHT_READING ? x->call.ready_ns : 0);
    if (WEIR_UNLIKELY(!s->ready_watched))
        server_watch_ready(s);
    if (WEIR_UNLIKELY(s->conf->run_timeout))
        watch_run(x);
}

/* How many threads are still inside though the time of their requests is over. */
static void count_late(struct server *s, int more)
{
    s->late = (unsigned)((int)s->late + more);
    if (s->worker.slot)
        atomic_store_explicit(&s->worker.slot->stuck, s->late, memory_order_relaxed);
}

/* More threads do not come back than a worker can spare. */
static bool too_many_lost(const struct server *s)
{
    return (int64_t)s->lost * 4 > s->conf->threads.max;
}

/* The run is over, and its time was, too. */
static void come_back(struct exchange *x)
{
    struct server *s = x->server;
    count_late(s, -1);
    if (x->late == LATE_LOST)
        s->lost--;
    if (!too_many_lost(s))
        s->told_lost = false;
}

static void dispatch_open(struct exchange *x);

/* HTTP/1.0 has no chunks, and content without a length would end with the connection, which only a
 * response may do (RFC 9112 §6.3): a client that announces content has to give its length. */
static bool lacks_length(const struct req *r)
{
    if (r->minor || r->has_content_length || r->framing != REQ_BODY_NONE)
        return false;
    for (unsigned i = 0; i < r->n_fields; i++)
        if (r->fields[i].id == HDR_CONTENT_TYPE)
            return slice_eq(r->method, SLICE("POST")) || slice_eq(r->method, SLICE("PUT")) ||
                   slice_eq(r->method, SLICE("PATCH"));
    return false;
}

/* With checks_heads: those of the policy, and the deadline. False: it was refused at once. */
__attribute__((noinline)) static bool check_head(struct exchange *x, struct h1_conn *hc)
{
    struct server *s = x->server;
    x->received_ms = loop_now_ms(&s->loop);
    if (s->admission.policy) {
        admission_head(x);
        flights_admitted(x);
    }
    const struct refusal *refused = x->admitted.refused;
    if (!refused || x->req.framing == REQ_BODY_NONE ||
        (x->req.framing == REQ_BODY_LENGTH && x->req.content_length <= DROP_BYTES_MAX &&
         !x->req.expect_continue)) {
        start_deadline(x);
        return true;
    }
    h1_refuse(hc, refusal_status(refused->id), refusal_word(refused->id));
    return false;
}

static void on_head(struct h1_conn *hc, const struct req *req, struct slice bytes)
{
    struct server *s = hc->conn.pool ? ((struct h1_server *)(void *)hc->conn.pool)->arg : NULL;
    must(s);
    if (req->form == REQ_AUTHORITY) {
        h1_refuse(hc, 501, "CONNECT is not supported");
        return;
    }
    if (!s->conf->lax_host && lacks_length(req)) { /* other servers serve it */
        h1_refuse(hc, 411, "an HTTP/1.0 request with content needs a Content-Length");
        return;
    }
    struct exchange *x = take(s);
    if (x)
        x->state = X_RECEIVING;
    uint32_t seen = 0;
    if (!x || !adopt_head(x, req, bytes, &seen)) {
        if (x)
            recycle(x);
        h1_refuse(hc, 503, "out of memory");
        return;
    }
    if (WEIR_UNLIKELY(req->folded || s->conf->casefold_method))
        tidy_head(x);
    fill_peer(x, hc);
    start_call(x);
    x->hc = hc;
    hc->user = x;
    if (!fill_tls(x, hc)) {
        h1_refuse(hc, 503, "out of memory");
        return;
    }
    seen |= (uint32_t)req->underscores << SERVER_LOOK_UNDERSCORES;
    if ((seen & s->look) && !apply_proxy(x, hc))
        return;
    if (WEIR_UNLIKELY(s->flights.telemetry != NULL))
        flights_head(x);
    if (WEIR_UNLIKELY(s->checks_heads) && !check_head(x, hc))
        return;
    if (req->content_length > (uint64_t)s->conf->max_body_size) {
        h1_refuse(hc, 413, "the request body is larger than max-body-size");
        return;
    }
    if (req->framing == REQ_BODY_NONE)
        return;
    x->received_ms = loop_now_ms(&s->loop);
    const char *mode = admission_needs_whole(&x->admitted) ? "on" : s->conf->request_buffering;
    if (s->app && mode[0] == 'o' && mode[1] == 'f') {
        dispatch_open(x);
        return;
    }
    h1_continue(hc);
    if (s->app && mode[0] == 'a' && req->framing == REQ_BODY_CHUNKED) {
        list_add(&s->slow_bodies, &x->slow);
        if (!s->slow_running) {
            s->slow_running = true;
            uv_timer_again(&s->slow_timer);
        }
    }
}

/* ---- the body ---- */

static void count_budget(struct exchange *x, int64_t bytes)
{
    x->budget += bytes;
    server_memory(x->server, bytes);
}

/* Keep content until the application runs. 0 or -errno. */
static int body_keep(struct exchange *x, struct slice data)
{
    struct body *b = &x->body;
    struct server *s = x->server;
    if (b->fd < 0) {
        if (b->mem.n + data.n <= (size_t)s->conf->body_memory && !over_budget(s, data.n)) {
            int rc = buf_add_slice(&b->mem, data);
            if (rc)
                return rc;
            count_budget(x, (int64_t)data.n);
            b->size += data.n;
            return 0;
        }
        int fd = spill_open(s);
        if (fd < 0)
            return fd;
        int rc = write_at(fd, b->mem.p, b->mem.n, 0);
        if (rc) {
            close(fd);
            return rc;
        }
        b->fd = fd;
        count_budget(x, -(int64_t)b->mem.n);
        buf_fini(&b->mem);
    }
    int rc = write_at(b->fd, data.p, data.n, b->size);
    if (!rc)
        b->size += data.n;
    return rc;
}

/* The body cannot be taken: the application, if it reads it already, is told; otherwise the client. */
static void body_fail(struct exchange *x, int err, int status, const char *reason)
{
    struct h1_conn *hc = x->hc;
    if (x->intake == INTAKE_OPEN) {
        pthread_mutex_lock(&x->lock);
        x->intake = INTAKE_FAILED;
        x->intake_error = err;
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
        h1_stop_body(hc);
        log_flood(LOG_INFO, x->call.id, "%s; the application reads it and is told", reason);
    }
    if (x->intake == INTAKE_WHOLE)
        h1_refuse(hc, status, reason);
}

static void on_body(struct h1_conn *hc, struct slice data)
{
    struct exchange *x = hc->user;
    struct server *s = x->server;
    counter_add(&s->counters->bytes_in, data.n);
    if (WEIR_UNLIKELY(x->admitted.refused != NULL))
        return;
    if (x->intake == INTAKE_OPEN) {
        x->body.size += data.n;
        if (x->body.size > (uint64_t)s->conf->max_body_size) {
            body_fail(x, -EMSGSIZE, 413, "the request body is larger than max-body-size");
            return;
        }
        pthread_mutex_lock(&x->lock);
        int rc = x->run_over ? 0 : buf_add_slice(&x->intake_mem, data);
        if (!rc && !x->run_over)
            server_memory(s, (int64_t)data.n);
        bool full = x->intake_mem.n > INTAKE_BYTES_MAX || (x->intake_mem.n && over_budget(s, 0));
        x->intake_full = full;
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
        if (rc)
            body_fail(x, rc, 503, "out of memory");
        else if (full)
            h1_pause_body(hc, true);
        return;
    }
    if (x->intake != INTAKE_WHOLE || x->state == X_SENDING)
        return;
    if (x->body.size + data.n > (uint64_t)s->conf->max_body_size) {
        h1_refuse(hc, 413, "the request body is larger than max-body-size");
        return;
    }
    int rc = body_keep(x, data);
    if (rc) {
        log_flood(LOG_ERROR, x->call.id, "cannot keep a request body: %s; look at temp-dir", strerror(-rc));
        h1_refuse(hc, 503, "the server cannot keep the request body now");
    }
}

static void on_body_bad(struct h1_conn *hc, const struct h1_error *why)
{
    struct exchange *x = hc->user;
    int err = why->status == 408   ? -ETIMEDOUT
              : why->status == 413 ? -EMSGSIZE
              : hc->conn.eof       ? -EPIPE
                                   : -EPROTO;
    if (x)
        body_fail(x, err, why->status, why->reason);
    else
        h1_refuse(hc, why->status, why->reason);
}

/* ---- C handlers ---- */

bool exchange_path_is(const struct exchange *x, struct slice rest)
{
    const struct req *r = &x->req;
    struct slice prefix = x->server->internal;
    return prefix.n && r->path.n == prefix.n + rest.n && slice_starts(r->path, prefix) &&
           memcmp(r->path.p + prefix.n, rest.p, rest.n) == 0;
}

static void ping(struct call *c)
{
    bool get = slice_eq(c->req->method, SLICE("GET")) || c->req->head;
    enum call_verdict v = call_status(c, get ? SLICE("200 OK") : SLICE("405 Method Not Allowed"));
    if (v == CALL_OK && !get)
        v = call_field(c, SLICE("Allow"), SLICE("GET, HEAD"));
    if (v == CALL_OK)
        v = call_field(c, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8"));
    if (v == CALL_OK)
        v = call_field(c, SLICE("Cache-Control"), SLICE("no-store"));
    struct slice text = get ? SLICE("pong\n") : SLICE("405 Method Not Allowed: ask with GET or HEAD\n");
    if (v != CALL_OK || call_begin(c, (int64_t)text.n) || call_data(c, text) || call_end(c))
        call_abort(c, "out of memory");
}

/* Answer here and now what is not the application's; false: it is. */
static bool native(struct exchange *x)
{
    if (exchange_path_is(x, SLICE("ping"))) {
        flights_own(x);
        ping(&x->call);
    } else if (routes_answer(x->server->routes, &x->call))
        ;
    else if (!x->server->app)
        call_error(&x->call, 404, "nothing is served here");
    else
        return false;
    exchange_answered(x);
    return true;
}

/* The same, where the checks of the policy may have an answer. */
static bool checked_native(struct exchange *x)
{
    if (!admission_native(x))
        return native(x);
    if (x->admitted.park) {
        x->state = X_PARKED; /* exchange_answered follows */
        flights_own(x);
        flights_enter(x, FLIGHT_QUOTA);
    } else {
        exchange_answered(x);
    }
    return true;
}

void exchange_answered(struct exchange *x)
{
    x->state = X_SENDING;
    x->run_over = true;
    heap_del(&x->server->alarms, &x->alarm);
    flights_enter(x, FLIGHT_WRITING);
    pump(x);
}

void exchange_refuse(struct exchange *x)
{
    refuse(&x->call, x->admitted.refused);
    exchange_answered(x);
}

/* On the ready queue. */
static inline void make_ready(struct exchange *x)
{
    struct server *s = x->server;
    struct h1_conn *hc = x->hc;
    start_waiting(x);
    /* Pipelined requests run one after the other, so that their answers leave in one write. */
    if (s->in_done && hc->streak < STREAK_MAX) {
        hc->streak++;
        lead_push_next(s->lead, &x->job);
    } else {
        hc->streak = 0;
        lead_push(s->lead, &x->job);
    }
}

void exchange_go(struct exchange *x)
{
    make_ready(x);
}

/* When its time is over, or something is to be said of the queue. */
static void set_parked_alarm(struct exchange *x)
{
    int64_t due = due_ms(x), look = admission_look_at(x);
    if (look && look < due)
        due = look;
    if (due != INT64_MAX)
        set_alarm(x, due);
}

void exchange_go_on(struct exchange *x)
{
    switch (admission_enter(x)) {
    case ADMISSION_GO:
        make_ready(x);
        break;
    case ADMISSION_PARKED:
        x->state = X_PARKED;
        if (x->server->timed && !x->call.ready_ns)
            x->call.ready_ns = clock_mono_ns();
        flights_enter(x, x->admitted.park == PARK_QUOTA ? FLIGHT_QUOTA : FLIGHT_QUEUED);
        buf_fini(&x->call.out); /* of its last request: it may wait long, and with many */
        set_parked_alarm(x);
        break;
    case ADMISSION_REFUSED:
        exchange_refuse(x);
    }
}

/* The same behind the checks of the policy. */
__attribute__((noinline)) static void checked_ready(struct exchange *x)
{
    if (!checked_native(x))
        exchange_go_on(x);
}

static void on_body_end(struct h1_conn *hc)
{
    struct exchange *x = hc->user;
    if (!x)
        return;
    if (x->intake != INTAKE_WHOLE) {
        pthread_mutex_lock(&x->lock);
        if (x->intake == INTAKE_OPEN)
            x->intake = INTAKE_ENDED;
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
        return;
    }
    if (x->state == X_SENDING) /* answered here before its body was whole, and not yet sent */
        return;
    x->body.complete = true;
    list_del(&x->slow);
    if (WEIR_UNLIKELY(x->server->admission.policy != NULL))
        checked_ready(x);
    else if (!native(x))
        make_ready(x);
}

/* Hand over a request whose body is still coming. */
static void dispatch_open(struct exchange *x)
{
    list_del(&x->slow);
    if (x->server->admission.policy ? checked_native(x) : native(x))
        return;
    x->intake = INTAKE_OPEN;
    struct buf kept = x->body.mem; /* what came so far */
    x->body.mem = (struct buf){0};
    x->intake_mem = kept;
    x->budget -= (int64_t)kept.n; /* counted as intake_mem from now on */
    start_waiting(x);
    lead_push(x->server->lead, &x->job);
}

void exchange_slow_bodies(struct server *s)
{
    struct lead_stats stats;
    lead_stats(s->lead, &stats);
    unsigned places = (unsigned)s->conf->threads.max;
    uint64_t now = loop_now_ms(&s->loop);
    for (struct list *n = s->slow_bodies.next; n != &s->slow_bodies;) {
        struct exchange *x = container_of(n, struct exchange, slow);
        n = n->next;
        if (now - x->received_ms < SLOW_BODY_MS)
            break; /* oldest first */
        /* A body that spilled is large, not live; and half of the places stay for others. */
        if (x->body.fd >= 0 || (stats.busy + 1) * 2 > places) {
            list_del(&x->slow);
            continue;
        }
        stats.busy++;
        dispatch_open(x);
        loop_wake(&s->loop); /* this may be a timer that libuv calls before it waits */
    }
    if (list_empty(&s->slow_bodies)) {
        s->slow_running = false;
        uv_timer_stop(&s->slow_timer);
    }
}

/* ---- what the executor calls (struct call_ops) ---- */

static int stopped(const struct exchange *x)
{
    if (atomic_load_explicit(&x->gone, memory_order_acquire))
        return -EPIPE;
    if (atomic_load_explicit(&x->server->cancelled, memory_order_relaxed))
        return -ECANCELED;
    return 0;
}

/* Nobody takes the answer: the client has left, or the grace of a stop is over. */
static bool op_gone(const struct call *c)
{
    return stopped(of_call(c)) != 0;
}

/* Append to the queue between executor and loop; spills above the bounds. Under lock. */
static int outq_add(struct exchange *x, struct buf *b)
{
    struct server *s = x->server;
    struct outq *q = &x->outq;
    int64_t n = (int64_t)b->n;
    bool file = q->file_end > q->file_start;
    if (!file && q->mem.n + b->n <= (size_t)s->conf->response_memory &&
        (q->mem.n + b->n <= 4096 || !over_budget(s, b->n))) {
        if (q->mem.n) {
            int rc = buf_add(&q->mem, b->p, b->n);
            if (rc)
                return rc;
        } else {
            struct buf old = q->mem;
            q->mem = *b;
            *b = old;
        }
        server_memory(s, n);
        return 0;
    }
    if (q->fd < 0) {
        q->fd = spill_open(s);
        if (q->fd < 0)
            return q->fd;
    }
    int rc = write_at(q->fd, b->p, b->n, q->file_end);
    if (!rc)
        q->file_end += b->n;
    return rc;
}

/* Keep the response head for the access log, before it leaves the executor's hands. */
static void save_head(struct exchange *x)
{
    x->head_saved = true;
    const char *end = memmem(x->call.out.p, x->call.out.n, "\r\n\r\n", 4);
    if (end)
        x->head_copy = arena_copy(&x->arena, slice_of(x->call.out.p, (size_t)(end - x->call.out.p) + 2));
}

static int op_flush(struct call *c)
{
    struct exchange *x = of_call(c);
    if (c->state != CALL_BODY && c->state != CALL_ENDED && c->state != CALL_ABORTED)
        return stopped(x);
    if (x->server->access && !x->head_saved && c->out.n)
        save_head(x);
    pthread_mutex_lock(&x->lock);
    int rc = stopped(x);
    if (!rc && c->out.n) {
        int64_t n = (int64_t)c->out.n;
        rc = outq_add(x, &c->out);
        if (!rc) {
            x->unsent += n;
            x->end_handed = c->state == CALL_ENDED;
            x->flushed = true; /* under the lock: see pump */
        }
    }
    if (!rc && x->unsent > x->server->conf->response_backlog)
        rc = -EAGAIN;
    x->flushed = true; /* under the lock: the leader may want to give another answer */
    pthread_mutex_unlock(&x->lock);
    c->out.n = 0;
    if (rc == 0 || rc == -EAGAIN) {
        loop_post(&x->server->loop, &x->flush_mail);
        return rc;
    }
    if (rc != -EPIPE && rc != -ECANCELED) {
        log_flood(LOG_ERROR, c->id, "cannot keep a response that its client takes slowly: %s; look at temp-dir",
                  strerror(-rc));
        call_abort(c, "the server cannot keep the response");
        rc = -EPIPE;
    }
    return rc;
}

/* Bytes before the head. They go through the queue, and so must all that follows. */
static int op_hint(struct call *c, struct slice bytes)
{
    struct exchange *x = of_call(c);
    struct buf b = {0};
    if (buf_add_slice(&b, bytes))
        return -ENOMEM;
    pthread_mutex_lock(&x->lock);
    int rc = stopped(x);
    if (!rc)
        rc = outq_add(x, &b);
    if (!rc) {
        x->unsent += (int64_t)bytes.n;
        x->hinted = true;
    }
    pthread_mutex_unlock(&x->lock);
    buf_fini(&b); /* what the queue gave back for it */
    if (!rc)
        loop_post(&x->server->loop, &x->flush_mail);
    return rc;
}

static int op_wait(struct call *c)
{
    struct exchange *x = of_call(c);
    int rc;
    pthread_mutex_lock(&x->lock);
    while (!(rc = stopped(x)) && x->unsent > x->server->conf->response_backlog / 2)
        pthread_cond_wait(&x->changed, &x->lock);
    pthread_mutex_unlock(&x->lock);
    return rc;
}

static ssize_t op_body_read(struct call *c, void *p, size_t n)
{
    struct exchange *x = of_call(c);
    if (x->body.complete) {
        uint64_t left = x->body.size - x->read_pos;
        if (n > left)
            n = (size_t)left;
        if (n == 0)
            return 0;
        ssize_t got = (ssize_t)n;
        if (x->body.fd < 0)
            memcpy(p, x->body.mem.p + x->read_pos, n);
        else
            got = pread(x->body.fd, p, n, (off_t)x->read_pos);
        if (got <= 0)
            return got < 0 && errno == EINTR ? -EAGAIN : -EIO;
        x->read_pos += (uint64_t)got;
        return got;
    }
    if (n == 0)
        return 0;
    ssize_t rc;
    bool ask = false;
    pthread_mutex_lock(&x->lock);
    if (x->intake_mem.n) {
        if (n > x->intake_mem.n)
            n = x->intake_mem.n;
        memcpy(p, x->intake_mem.p, n);
        buf_drop(&x->intake_mem, n);
        server_memory(x->server, -(int64_t)n);
        rc = (ssize_t)n;
        ask = x->intake_full &&
              (!x->intake_mem.n ||
               (x->intake_mem.n <= INTAKE_BYTES_MAX && !over_budget(x->server, 0)));
    } else if (x->intake == INTAKE_FAILED) {
        rc = x->intake_error;
        c->keep_alive = false; /* what follows is no request: an answer that comes now says so */
    } else if (x->intake != INTAKE_OPEN) {
        rc = 0;
    } else if (stopped(x)) {
        rc = -EPIPE;
    } else {
        rc = -EAGAIN;
        ask = true; /* for 100 Continue */
    }
    ask = ask && !x->wants_body;
    if (ask) {
        x->wants_body = true;
        x->intake_full = false;
    }
    pthread_mutex_unlock(&x->lock);
    if (ask)
        loop_post(&x->server->loop, &x->flush_mail);
    return rc;
}

static int op_body_wait(struct call *c)
{
    struct exchange *x = of_call(c);
    pthread_mutex_lock(&x->lock);
    while (!x->intake_mem.n && x->intake == INTAKE_OPEN && !stopped(x))
        pthread_cond_wait(&x->changed, &x->lock);
    pthread_mutex_unlock(&x->lock);
    return 0;
}

static const struct call_ops CALL_OPS = {
    .flush = op_flush,
    .wait = op_wait,
    .body_read = op_body_read,
    .body_wait = op_body_wait,
    .gone = op_gone,
    .hint = op_hint,
};

/* ---- the run ---- */

void exchange_run(struct server *s, void *local, struct lead_job *job)
{
    struct exchange *x = exchange_of_job(job);
    if (atomic_load_explicit(&x->gone, memory_order_acquire)) {
        x->call.state = CALL_ABORTED;
        return;
    }
    /* Release: who sees it sees run_ns. */
    int64_t begun_ms = s->conf->run_timeout ? clock_mono_ms() : 1;
    bool timed = s->timed;
    if (timed)
        x->call.run_ns = clock_mono_ns();
    flights_run(x, x->call.run_ns);
    atomic_store_explicit(&x->begun_ms, begun_ms, memory_order_release);
    s->app->run(s->app, local, &x->call);
    if (timed)
        x->end_ns = clock_mono_ns();
    if ((x->flushed || x->hinted) && x->call.out.n)
        (void)op_flush(&x->call); /* the rest goes the way of the first part */
}

/* Leader: the run is over and its result visible here. */
static void run_ended(struct exchange *x)
{
    x->run_over = true;
    heap_del(&x->server->alarms, &x->alarm);
    if (WEIR_UNLIKELY(x->admitted.ticket != GATE_NONE))
        admission_leave(x);
    if (WEIR_UNLIKELY(x->late != LATE_NOT))
        come_back(x);
    if (x->state == X_ORPHAN) {
        complete(x);
        return;
    }
    x->state = X_SENDING;
    flights_enter_at(x, FLIGHT_WRITING, x->end_ns);
    pump(x);
}

void exchange_done_leading(struct lead_job *job)
{
    struct exchange *x = exchange_of_job(job);
    /* A message about its first bytes is still in the mailbox: it must not outlive the exchange. */
    if (atomic_load_explicit(&x->flush_mail.posted, memory_order_relaxed)) {
        loop_post(&x->server->loop, &x->done_mail);
    } else {
        struct server *s = x->server;
        s->in_done = true;
        run_ended(x);
        s->in_done = false;
    }
}

void exchange_done_away(struct lead_job *job)
{
    struct exchange *x = exchange_of_job(job);
    loop_post(&x->server->loop, &x->done_mail);
}

static void on_done_mail(struct mail *m)
{
    run_ended(container_of(m, struct exchange, done_mail));
}

static void on_flush_mail(struct mail *m)
{
    struct exchange *x = container_of(m, struct exchange, flush_mail);
    if (!x->hc)
        return;
    pthread_mutex_lock(&x->lock);
    bool wants_body = x->wants_body;
    x->wants_body = false;
    pthread_mutex_unlock(&x->lock);
    struct h1_conn *hc = x->hc;
    if (wants_body) {
        h1_continue(hc);
        h1_pause_body(hc, false);
    }
    if (x->hc == hc && x->state != X_IDLE)
        pump(x);
}

/* ---- sending ---- */

/* Move the next bytes of the queue to the connection. False: nothing was there. Under lock. */
static bool pump_queue_locked(struct exchange *x, int *err)
{
    struct outq *q = &x->outq;
    if (q->mem.n) {
        size_t n = q->mem.n;
        server_memory(x->server, -(int64_t)n);
        x->inflight += (int64_t)n;
        x->wire_bytes += n;
        *err = h1_write_buf(x->hc, &q->mem);
        return true;
    }
    if (q->file_end > q->file_start) {
        char *copy = malloc(FILE_COPY_BYTES);
        if (!copy) {
            *err = -ENOMEM;
            return true;
        }
        uint64_t left = q->file_end - q->file_start;
        ssize_t n = pread(q->fd, copy, left < FILE_COPY_BYTES ? (size_t)left : FILE_COPY_BYTES,
                          (off_t)q->file_start);
        if (n > 0) {
            q->file_start += (uint64_t)n;
            x->inflight += n;
            x->wire_bytes += (uint64_t)n;
            *err = h1_write(x->hc, copy, (size_t)n);
        } else {
            *err = -EIO;
        }
        free(copy);
        if (q->file_start == q->file_end) { /* give the disk its space back */
            q->file_start = q->file_end = 0;
            if (ftruncate(q->fd, 0))
                *err = -EIO;
        }
        return true;
    }
    return false;
}

/* Send the file that ends the response. The socket has taken everything before it. */
static void pump_file(struct exchange *x)
{
    struct call *c = &x->call;
    struct h1_conn *hc = x->hc;
    size_t step = c->file_length < FILE_STEP_BYTES ? (size_t)c->file_length : FILE_STEP_BYTES;
    off_t offset = c->file_offset;
    ssize_t n = -1;
    errno = EINVAL; /* under TLS the bytes have to pass through here */
    if (x->server->conf->sendfile && !conn_is_tls(&hc->conn))
        n = sendfile(conn_fd(&hc->conn), c->file_fd, &offset, step);
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == EINVAL || errno == ENOSYS)) {
        /* Copy a piece: libuv tells when the socket has taken it. */
        char *copy = malloc(FILE_COPY_BYTES);
        n = copy ? pread(c->file_fd, copy, step < FILE_COPY_BYTES ? step : FILE_COPY_BYTES,
                         c->file_offset)
                 : -1;
        if (n > 0 && h1_write(hc, copy, (size_t)n))
            n = -1;
        free(copy);
    } else if (n > 0) {
        hc->responded = true;
        conn_want_flush(&hc->conn); /* on_drained continues, in the next turn */
    }
    if (n <= 0) {
        if (n == 0)
            log_flood(LOG_WARNING, c->id, "a file became shorter while it was sent (%llu bytes missing)",
                      (unsigned long long)c->file_length);
        h1_fail(hc, n == 0 ? CLOSE_ABORTED : CLOSE_CLIENT_RESET);
        return;
    }
    c->file_offset += n;
    c->file_length -= (uint64_t)n;
    x->wire_bytes += (uint64_t)n;
    if (c->file_length == 0)
        close_fd(&c->file_fd);
}

/* Move what can be moved towards the socket; end the exchange when all of it is there. */
static void pump(struct exchange *x)
{
    struct call *c = &x->call;
    struct h1_conn *hc = x->hc;
    if (x->flushed || x->hinted) {
        if (!conn_is_drained(&hc->conn))
            return; /* on_drained comes back */
        int err = 0;
        bool responded = hc->responded;
        pthread_mutex_lock(&x->lock);
        bool interim = !x->flushed; /* nothing of the head is in the queue yet */
        bool moved = pump_queue_locked(x, &err);
        pthread_mutex_unlock(&x->lock);
        if (interim) /* 100 Continue may still follow */
            hc->responded = responded;
        if (err) {
            h1_fail(hc, err == -ENOMEM ? CLOSE_NO_MEMORY : CLOSE_ABORTED);
            return;
        }
        if (moved || !x->run_over)
            return;
    } else if (!x->run_over) {
        return;
    } else if (c->out.n) {
        if (x->server->access && !x->head_saved)
            save_head(x);
        x->wire_bytes += c->out.n;
        if (h1_write_buf(hc, &c->out)) {
            h1_fail(hc, CLOSE_NO_MEMORY);
            return;
        }
    }
    if (c->file_fd >= 0 && c->state == CALL_ENDED) {
        if (c->file_length == 0) {
            close_fd(&c->file_fd);
        } else if (conn_is_drained(&hc->conn)) {
            pump_file(x);
            return;
        } else {
            return; /* on_drained comes back */
        }
    }
    complete(x);
}

static void on_drained(struct h1_conn *hc)
{
    struct exchange *x = hc->user;
    if (x->inflight) {
        pthread_mutex_lock(&x->lock);
        x->unsent -= x->inflight;
        x->inflight = 0;
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
    }
    if (x->flushed || x->hinted || x->state == X_SENDING)
        pump(x);
}

/* ---- the record ---- */

static struct slice find_request_field(const void *arg, struct slice name)
{
    const struct exchange *x = arg;
    for (unsigned i = x->req.n_fields; i-- > 0;) /* of several, the one of the nearest proxy */
        if (slice_ieq(x->req.fields[i].name, name))
            return x->req.fields[i].value;
    return (struct slice){0};
}

enum { NOT_CUT = -1 };

/* What was answered, for the record. */
struct answer {
    struct exchange *x;
    const struct call *call;
    struct slice head; /* status line and fields; empty: unknown, or nothing was sent */
    uint64_t wire_bytes;
};

static struct slice find_asked_field(const void *arg, struct slice name)
{
    return find_request_field(((const struct answer *)arg)->x, name);
}

static struct slice find_response_field(const void *arg, struct slice name)
{
    const struct answer *a = arg;
    const char *p = a->head.p, *end = p + a->head.n;
    struct slice last = {0};
    while (p && p < end) {
        const char *eol = memchr(p, '\r', (size_t)(end - p));
        if (!eol)
            break;
        const char *colon = memchr(p, ':', (size_t)(eol - p));
        if (colon && slice_ieq(slice_of(p, (size_t)(colon - p)), name))
            last = slice_trim(slice_of(colon + 1, (size_t)(eol - colon) - 1));
        p = eol + 2;
    }
    return last;
}

/* cut: enum close_reason of an answer that is not whole; NOT_CUT. */
static void record_answer(const struct answer *a, int cut)
{
    struct exchange *x = a->x;
    const struct call *c = a->call;
    struct server *s = x->server;
    unsigned hundred = a->wire_bytes ? (unsigned)c->status / 100 : 0;
    counter_add(&s->counters->responses[hundred < 6 ? hundred : 0], 1);
    counter_add(&s->counters->bytes_out, a->wire_bytes);
    if (!s->access && !x->flight)
        return;
    /* An answer that goes out behind its run is over with it. */
    int64_t now = s->in_done && x->end_ns ? x->end_ns : clock_mono_ns();
    int status = a->wire_bytes || cut == NOT_CUT ? c->status : 0;
    flights_answered(x, status, cut, a->wire_bytes, now);
    if (!s->access)
        return;
    const struct proxy_facts *p = x->call.proxy;
    bool other = p && *p->client.host;
    char port[8] = "";
    if (other && p->client.port)
        port_text(port, p->client.port);
    uint64_t head = a->head.n ? a->head.n + 2 : 0;
    bool ran = atomic_load_explicit(&x->begun_ms, memory_order_acquire) != 0;
    struct access_facts f = {
        .remote_addr = slice_str(other ? p->client.host : x->peer.remote_addr),
        .remote_port = slice_str(other ? port : x->peer.remote_port),
        .method = x->req.method,
        .path = x->req.path,
        .query = x->req.query,
        .target = x->req.target,
        .protocol = x->req.minor ? SLICE("HTTP/1.1") : SLICE("HTTP/1.0"),
        .status = status,
        .body_bytes = c->bodyless || a->wire_bytes < head ? 0 : c->sent,
        .request_id = x->call.id,
        .x_request_id = x->call.request_id,
        .trace_id = x->call.trace ? x->call.trace->trace_id : NULL,
        .wall_ns = x->wall_ns,
        .total_ns = now - x->call.start_ns,
        .queue_ns = ran ? x->call.run_ns - x->call.start_ns : 0,
        .app_ns = !ran ? 0 : x->run_over ? x->end_ns - x->call.run_ns : now - x->call.run_ns,
        .close_reason = cut == NOT_CUT ? NULL : close_reason_word((enum close_reason)cut),
        .request_field = find_asked_field,
        .response_field = find_response_field,
        .arg = a,
        .environ_values = c->watched,
    };
    access_write(s->access, &f);
}

static void record(struct exchange *x, int cut)
{
    struct answer a = {.x = x, .call = &x->call, .head = x->head_copy, .wire_bytes = x->wire_bytes};
    record_answer(&a, cut);
}

/* All bytes are with the connection, or the connection is gone and the run is over. */
static void complete(struct exchange *x)
{
    struct server *s = x->server;
    struct h1_conn *hc = x->hc;
    struct call *c = &x->call;
    bool orderly = c->state == CALL_ENDED;
    if (!hc) {
        if (!x->recorded)
            record(x, x->left);
        recycle(x);
        server_check_drained(s);
        return;
    }
    bool keep = orderly && c->keep_alive && !c->close_wanted;
    bool reset = !orderly && c->framing == CALL_CLOSE;
    if (!orderly)
        log_flood(LOG_INFO, c->id, "the response was broken off: %s",
                  c->abort_reason ? c->abort_reason : "unknown");
    record(x, orderly ? NOT_CUT : CLOSE_ABORTED);
    hc->user = NULL;
    recycle(x);
    if (orderly)
        h1_next(hc, keep, CLOSE_COMPLETE);
    else
        h1_cut(hc, CLOSE_ABORTED, reset);
    if (WEIR_UNLIKELY(s->listeners.paused)) /* an idle connection can make room */
        server_accept_again(s);
}

/* ---- the connection's end ---- */

static void on_gone(struct h1_conn *hc)
{
    struct exchange *x = hc->user;
    struct server *s = x->server;
    hc->user = NULL;
    x->hc = NULL;
    pthread_mutex_lock(&x->lock);
    atomic_store_explicit(&x->gone, true, memory_order_release);
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    x->left = hc->reason < CLOSE_REASONS ? hc->reason : CLOSE_CLIENT_LEFT;
    switch (x->state) {
    case X_IN_WORK:
        if (!lead_cancel(s->lead, &x->job)) {
            x->state = X_ORPHAN;
            flights_enter(x, FLIGHT_LATE);
            break;
        }
        counter_add(&s->counters->abandoned, 1);
        record(x, x->left);
        recycle(x);
        break;
    case X_PARKED:
        counter_add(&s->counters->abandoned, 1);
        WEIR_FALLTHROUGH;
    case X_RECEIVING:
    case X_SENDING:
        record(x, x->left);
        recycle(x);
        break;
    case X_ORPHAN:
    case X_IDLE:
        must(false);
    }
}

/* ---- answers in place of the application's ---- */

/* A call for an answer that is not the application's. */
static struct call other_call(const struct exchange *x)
{
    bool begun = atomic_load_explicit(&x->begun_ms, memory_order_acquire) != 0;
    return (struct call){.req = &x->req,
                         .file_fd = -1,
                         .ops = &CALL_OPS,
                         .ident = &x->server->ident,
                         .last = x->call.last,
                         .extra = x->call.extra,
                         .cors = x->call.cors,
                         .request_id = x->call.request_id,
                         .server_timing = x->call.server_timing,
                         .start_ns = x->call.start_ns,
                         .ready_ns = x->call.ready_ns,
                         .run_ns = begun ? x->call.run_ns : 0,
                         .bodyless = x->req.head};
}

/* Answer a request that is in the application or waits for it; nothing of an answer may be out. `c` has the
 * answer, and is empty afterwards. The run, if there is one, goes on as that of an orphan. */
static void answer_instead(struct exchange *x, struct call *c)
{
    struct h1_conn *hc = x->hc;
    struct answer a = {.x = x, .call = c, .wire_bytes = c->out.n};
    const char *end = c->out.n ? memmem(c->out.p, c->out.n, "\r\n\r\n", 4) : NULL;
    if (end)
        a.head = slice_of(c->out.p, (size_t)(end - c->out.p) + 2);
    hc->user = NULL;
    x->hc = NULL;
    x->recorded = true;
    x->state = X_ORPHAN;
    record_answer(&a, NOT_CUT);
    flights_enter(x, FLIGHT_LATE); /* or it is recycled at once */
    bool written = c->out.n && h1_write(hc, c->out.p, c->out.n) == 0;
    buf_fini(&c->out);
    if (written)
        h1_next(hc, c->keep_alive, CLOSE_COMPLETE); /* last: it may begin the next request */
    else
        h1_fail(hc, CLOSE_NO_MEMORY);
}

/* ---- when its time is over ---- */

/* The answer to a request whose time is over, of which the application has begun, or has not. */
static void late_answer(struct exchange *x, struct call *c, bool begun)
{
    flights_why(x, REFUSAL_DEADLINE);
    const char *text = begun ? "the application took too long; the server's log says more"
                             : "the request waited for its turn until its time was over; try again later";
    struct refusal why;
    if (admission_explains(x, REFUSAL_DEADLINE, &why)) {
        why.detail = text;
        refuse(c, &why);
    } else {
        call_error(c, 504, text);
    }
}

/* "the deadline of 3 s has passed for /path": the beginning of its lines in the log. */
static void late_text(const struct exchange *x, char *to, size_t size)
{
    int64_t now = (int64_t)loop_now_ms(&x->server->loop);
    bool all = x->deadline_ms && now >= x->deadline_ms;
    int64_t limit_ms = all ? x->deadline_ms - (int64_t)x->received_ms : x->server->conf->run_timeout;
    struct slice path = x->req.path;
    snprintf(to, size, "%s of %.3g s for %.*s", all ? "a request takes longer than its deadline"
                                                    : "the application takes longer than run-timeout",
             (double)limit_ms / 1000, (int)(path.n < PATH_BYTES_MAX ? path.n : PATH_BYTES_MAX), path.p);
}

/* Its body is still coming. */
static void late_body(struct exchange *x)
{
    struct h1_conn *hc = x->hc;
    h1_refuse(hc, 408, "the request body was not complete when the time for the request was over");
    if (hc->state != H1_CLOSED)
        hc->reason = CLOSE_DEADLINE;
}

/* It has waited for a place in vain, and will never start. */
static void late_queue(struct exchange *x)
{
    char text[320];
    late_text(x, text, sizeof text);
    log_flood(LOG_WARNING, x->call.id, "%s: it has waited for a place, and is answered 504", text);
    struct call c = other_call(x);
    c.keep_alive = may_keep(x);
    late_answer(x, &c, false);
    answer_instead(x, &c);
    recycle(x);
}

/* Tell the client of a run, and the application; what was done with the client. */
static const char *late_tell(struct exchange *x)
{
    if (x->state != X_IN_WORK)
        return "its client has left";
    pthread_mutex_lock(&x->lock);
    bool begun = x->flushed, whole = x->end_handed;
    /* If it has not begun, nothing of it can go out from now on. */
    atomic_store_explicit(&x->gone, true, memory_order_release);
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    if (whole)
        return "its answer is complete, but not its close()";
    if (begun) {
        h1_fail(x->hc, CLOSE_DEADLINE);
        return "the connection is cut";
    }
    struct call c = other_call(x);
    /* After run-timeout a client does better elsewhere: the only thread here may be stuck. */
    c.keep_alive = x->deadline_ms && (int64_t)loop_now_ms(&x->server->loop) >= x->deadline_ms && may_keep(x);
    late_answer(x, &c, true);
    answer_instead(x, &c);
    return "the client is told 504";
}

/* Is an exception to be raised in a run whose time is over? */
static bool is_to_interrupt(const struct exchange *x)
{
    const struct policy_route *r = x->admitted.found.route;
    return r ? r->on_deadline == ON_DEADLINE_INTERRUPT : x->server->conf->on_deadline[0] == 'i';
}

/* Have the application look where the thread of a run is, and interrupt it. False: not now. */
static bool look(struct exchange *x, const struct inspect_ask *ask)
{
    struct app *app = x->server->app;
    if (app->inspect && (ask->log || ask->interrupt))
        return app->inspect(app, ask);
    if (ask->log)
        log_line(LOG_WARNING, ask->id, "%s", ask->text);
    return true;
}

/* The application is inside. */
static void late_run(struct exchange *x, int64_t now)
{
    static struct log_site site;
    struct inspect_ask ask = {.id = x->call.id, .interrupt = is_to_interrupt(x)};
    unsigned left_out = 0;
    x->late = LATE_TOLD;
    x->late_ms = now;
    count_late(x->server, 1);
    late_text(x, ask.text, sizeof ask.text);
    const char *done = late_tell(x); /* the client first */
    size_t n = strlen(ask.text);
    snprintf(ask.text + n, sizeof ask.text - n, ": %s", done);
    ask.log = log_wants(LOG_WARNING) && log_site_pass(&site, &left_out);
    if (left_out)
        log_line(LOG_WARNING, 0, "%u more requests were late, without a line of their own", left_out);
    if (look(x, &ask)) {
        x->late = LATE_LOOKED;
        set_alarm(x, now + LOOK_MS);
        return;
    }
    if (ask.log)
        log_line(LOG_WARNING, ask.id, "%s", ask.text);
    set_alarm(x, now + LOOK_AGAIN_MS);
}

/* Its thread does not come back. */
static void lost(struct exchange *x)
{
    struct server *s = x->server;
    x->late = LATE_LOST;
    s->lost++;
    if (!too_many_lost(s))
        return;
    if (!s->told_lost)
        log_line(LOG_WARNING, 0,
                 "%u of %lld threads are still inside the application %.3g s after the time of their requests was "
                 "over: %s; give the calls in which they wait a timeout of their own",
                 s->lost, (long long)s->conf->threads.max, (double)LOST_MS / 1000,
                 s->worker.slot ? "asking to be replaced" : "nobody can replace this process, restart it");
    s->told_lost = true;
    worker_recycle(s, RECYCLE_STUCK);
}

/* It takes longer than slow-request: say where it is. */
static void slow(struct exchange *x, int64_t now)
{
    static struct log_site site;
    unsigned left_out = 0;
    struct server *s = x->server;
    bool runs = x->state == X_IN_WORK || x->state == X_ORPHAN;
    bool begun = runs && atomic_load_explicit(&x->begun_ms, memory_order_acquire) != 0;
    struct inspect_ask ask = {.id = x->call.id,
                              .log = log_wants(LOG_WARNING) && log_site_pass(&site, &left_out)};
    struct slice path = x->req.path, method = x->req.method;
    const char *where = x->state == X_RECEIVING ? "its body is still coming"
                        : x->state == X_PARKED ? x->admitted.park == PARK_QUEUE
                                                     ? "it waits for a place of its route"
                                                     : "the quota store is asked"
                        : begun                ? "it is in the application"
                                               : "it waits for a thread";
    x->slow_ms = 0;
    x->slow_told = true;
    flights_slow(x);
    snprintf(ask.text, sizeof ask.text, "a request takes longer than slow-request of %.3g s for %.*s %.*s: %s",
             (double)s->conf->slow_request / 1000, (int)(method.n < 20 ? method.n : 20), method.p,
             (int)(path.n < PATH_BYTES_MAX ? path.n : PATH_BYTES_MAX), path.p, where);
    if (left_out)
        log_line(LOG_WARNING, 0, "%u more requests were slow, without a line of their own", left_out);
    if (!ask.log)
        return;
    if (begun && s->app->inspect && s->app->inspect(s->app, &ask))
        x->slow_ms = now + LOOK_MS;
    else
        log_line(LOG_WARNING, ask.id, "%s", ask.text);
}

/* The look at its thread had its time. */
static void slow_look_ends(struct exchange *x)
{
    struct app *app = x->server->app;
    x->slow_ms = 0;
    if (app->inspect_late)
        app->inspect_late(app, x->call.id);
}

static void on_alarm(struct exchange *x, int64_t now)
{
    struct server *s = x->server;
    int64_t due;
    switch (x->late) {
    case LATE_NOT:
        if (x->state == X_PARKED && admission_look(x) && due_ms(x) > now) {
            set_parked_alarm(x);
            break;
        }
        if (x->slow_ms && x->slow_ms <= now) {
            if (x->slow_told)
                slow_look_ends(x);
            else
                slow(x, now);
        }
        due = due_ms(x);
        if (due == INT64_MAX)
            break; /* what it was set for is over: it has got its place */
        if (due > now && x->state == X_PARKED)
            set_parked_alarm(x);
        else if (due > now)
            set_alarm(x, due);
        else if (x->state == X_RECEIVING)
            late_body(x);
        else if (x->state == X_PARKED && admission_wait_over(x, now))
            exchange_refuse(x);
        else if (x->state == X_PARKED || (x->state == X_IN_WORK && lead_cancel(s->lead, &x->job)))
            late_queue(x);
        else
            late_run(x, now);
        break;
    case LATE_TOLD:
        if (look(x, &(struct inspect_ask){.id = x->call.id, .interrupt = is_to_interrupt(x)}))
            x->late = LATE_LOOKED;
        set_alarm(x, x->late == LATE_LOOKED ? now + LOOK_MS : now + LOOK_AGAIN_MS);
        break;
    case LATE_LOOKED:
        if (s->app->inspect_late)
            s->app->inspect_late(s->app, x->call.id);
        x->late = LATE_WAITED;
        set_alarm(x, x->late_ms + LOST_MS);
        break;
    case LATE_WAITED:
        lost(x);
        break;
    case LATE_LOST:
        must(false);
    }
}

void exchange_alarms(struct server *s)
{
    int64_t now = (int64_t)loop_now_ms(&s->loop);
    struct heap_node *first;
    s->alarm_ms = 0;
    while ((first = s->alarms.top) && first->key <= now) {
        heap_del(&s->alarms, first);
        on_alarm(container_of(first, struct exchange, alarm), now);
    }
    if (first)
        server_alarm(s, first->key);
}

/* All bytes of a request that has not started, and of those behind it. n = 0: not possible. */
static struct slice bytes_of(const struct exchange *x, char *room)
{
    struct slice ahead = conn_kept(&x->hc->conn), none = {0};
    size_t body = x->body.mem.n;
    if (x->intake != INTAKE_WHOLE || x->body.fd >= 0 || x->req.framing == REQ_BODY_CHUNKED ||
        x->raw.n + body + ahead.n > HANDOVER_INPUT_MAX)
        return none;
    memcpy(room, x->raw.p, x->raw.n);
    if (body)
        memcpy(room + x->raw.n, x->body.mem.p, body);
    if (ahead.n)
        memcpy(room + x->raw.n + body, ahead.p, ahead.n);
    return slice_of(room, x->raw.n + body + ahead.n);
}

void exchange_hand_waiting(struct server *s)
{
    for (struct list *n = s->exchanges.next; n != &s->exchanges && !s->h1.hand_full;) {
        struct exchange *x = container_of(n, struct exchange, all);
        n = n->next;
        /* What was spent for it here would be spent once more there. */
        if (x->state != X_IN_WORK || !admission_is_free(&x->admitted) || !h1_can_hand_waiting(x->hc))
            continue;
        struct h1_conn *hc = x->hc;
        struct slice bytes = bytes_of(x, s->loop.read_buf);
        if (!bytes.n || !lead_cancel(s->lead, &x->job))
            continue;
        int rc = worker_hand_input(hc, bytes);
        if (rc) {
            lead_push(s->lead, &x->job);
            s->h1.hand_full = rc == -EAGAIN;
            continue;
        }
        hc->user = NULL;
        recycle(x);
        h1_handed(hc);
    }
}

void exchange_turn_away(struct server *s)
{
    for (struct list *n = s->exchanges.next; n != &s->exchanges;) {
        struct exchange *x = container_of(n, struct exchange, all);
        n = n->next;
        bool waits = x->state == X_PARKED ||
                     (x->state == X_IN_WORK && !x->flushed && lead_cancel(s->lead, &x->job));
        if (!waits)
            continue;
        counter_add(&s->counters->abandoned, 1);
        struct call c = other_call(x);
        struct refusal why;
        flights_why(x, REFUSAL_STOPPING);
        if (admission_explains(x, REFUSAL_STOPPING, &why))
            refuse(&c, &why);
        else
            call_error(&c, 503, "the server stops; try again");
        answer_instead(x, &c);
        recycle(x);
    }
}

static bool on_is_queued(struct h1_conn *hc)
{
    const struct exchange *x = hc->user;
    if (x && x->state == X_PARKED)
        return true;
    return x && x->state == X_IN_WORK && !atomic_load_explicit(&x->begun_ms, memory_order_relaxed);
}

/*
 * A byte that every client must ignore, between two chunks of a stream: a leading zero of the next
 * chunk's size (RFC 9112 §7.1: chunk-size = 1*HEXDIG). A peer that has closed answers it with a reset.
 */
static bool on_probe(struct h1_conn *hc)
{
    struct exchange *x = hc->user;
    if (x->state != X_IN_WORK || !x->flushed || x->call.framing != CALL_CHUNKED ||
        !conn_is_drained(&hc->conn))
        return false;
    pthread_mutex_lock(&x->lock);
    bool between = !x->end_handed && !x->outq.mem.n && x->outq.file_start == x->outq.file_end;
    pthread_mutex_unlock(&x->lock);
    if (!between || h1_write(hc, "0", 1))
        return false;
    x->wire_bytes++;
    return true;
}

/* The server's own answer, built as any other; there may be no exchange. */
static void on_refuse(struct h1_conn *hc, const struct h1_error *why, struct buf *out)
{
    struct server *s = ((struct h1_server *)(void *)hc->conn.pool)->arg;
    struct exchange *x = hc->user;
    struct req unknown = {.minor = 1, .head = hc->is_head};
    struct h1_error other;
    if (s->conf->dialect == CONF_WAITRESS && hc->state != H1_BODY && hc->state != H1_BUSY) {
        /* A head that was not understood: Waitress counts it as HTTP/1.0, and has no 414. */
        unknown.minor = 0;
        other = (struct h1_error){why->status == 414 ? 431 : why->status, why->reason};
        why = &other;
    }
    struct call c = {.req = x ? &x->req : &unknown, .file_fd = -1, .ops = &CALL_OPS, .ident = &s->ident};
    c.out = (struct buf){0};
    c.bodyless = x && x->req.head;
    const struct refusal *refused = x ? x->admitted.refused : NULL;
    if (x) {
        c.extra = x->call.extra;
        c.cors = x->call.cors;
        c.request_id = x->call.request_id;
        c.server_timing = x->call.server_timing;
        c.start_ns = x->call.start_ns;
        c.ready_ns = x->call.ready_ns;
    }
    if (refused && refusal_status(refused->id) == why->status)
        refuse(&c, refused);
    else
        call_error(&c, why->status, why->reason);
    if (!x) /* else record counts it */
        counter_add(&s->counters->responses[why->status / 100], 1);
    if (!x || !x->flight)
        flights_refused(s, why->status);
    if (buf_add(out, c.out.p, c.out.n))
        out->n = 0;
    char peer[64] = "a Unix socket";
    if (hc->peer_family != AF_UNIX)
        inet_ntop(hc->peer_family, &hc->peer, peer, sizeof peer);
    log_flood(LOG_INFO, x ? x->call.id : 0, "refused a request of %s with %d: %s", peer, why->status,
              why->reason);
    if (x) {
        x->call.status = why->status;
        x->wire_bytes = c.out.n;
        x->call.sent = 0;
        if (s->access) {
            x->call.out.n = 0;
            if (buf_add(&x->call.out, c.out.p, c.out.n) == 0)
                save_head(x);
        }
        x->hc = NULL;
        hc->user = NULL;
        atomic_store_explicit(&x->gone, true, memory_order_release);
        must(x->state == X_RECEIVING);
        record(x, NOT_CUT);
        recycle(x);
    }
    buf_fini(&c.out);
}

static void on_closed(struct h1_conn *hc)
{
    struct server *s = ((struct h1_server *)(void *)hc->conn.pool)->arg;
    enum close_reason r = hc->reason;
    if (r < CLOSE_REASONS && log_wants(close_reason_quiet(r) ? LOG_DEBUG : LOG_INFO) &&
        (close_reason_quiet(r) || s->h1.log_socket_errors)) {
        char peer[64] = "unix";
        if (hc->peer_family != AF_UNIX)
            inet_ntop(hc->peer_family, &hc->peer, peer, sizeof peer);
        log_flood(close_reason_quiet(r) ? LOG_DEBUG : LOG_INFO, 0,
                  "connection closed reason=%s peer=%s port=%u served=%u", close_reason_word(r), peer,
                  hc->peer_port, hc->served);
    }
    if (s->listeners.paused)
        server_accept_again(s);
    listen_look(&s->listeners);
    server_check_drained(s);
}

void exchange_cancel_all(struct server *s)
{
    for (struct list *n = s->exchanges.next; n != &s->exchanges; n = n->next) {
        struct exchange *x = container_of(n, struct exchange, all);
        pthread_mutex_lock(&x->lock);
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
    }
}

const struct h1_up EXCHANGE_UP = {
    .head = on_head,
    .body = on_body,
    .body_end = on_body_end,
    .body_bad = on_body_bad,
    .gone = on_gone,
    .drained = on_drained,
    .refuse = on_refuse,
    .is_queued = on_is_queued,
    .probe = on_probe,
    .hand = worker_hand,
    .closed = on_closed,
};
