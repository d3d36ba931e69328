/* server: see the header. */
#include "serve/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "serve/exchange.h"

/* Descriptors that are left to the application, the log and the spill files. */
static const rlim_t DESCRIPTORS_KEPT = 256;
/* request-buffering auto: how often slow bodies are looked at, while there are any. */
static const uint64_t SLOW_TICK_MS = 50;
/* A request that waits longer for a thread is told in the log, once until none waits for half of that. */
static const int64_t READY_LONG_NS = 1000000000;
static const int64_t READY_SHORT_NS = 500000000;
/* How often that is looked at while requests wait; so long after the first request of some, too. */
static const uint64_t READY_TICK_MS = 500;

static const char REFUSED[] = "HTTP/1.1 503 Service Unavailable\r\n"
                              "Content-Type: text/plain; charset=utf-8\r\n"
                              "Content-Length: 65\r\n"
                              "Retry-After: 1\r\n"
                              "Connection: close\r\n"
                              "\r\n"
                              "503 Service Unavailable: too many connections are open; try again";

/* ---- accepting ---- */

/* Tell a client that there is no room. The socket is new: its buffer takes the few bytes. */
static void refuse(struct server *s, int fd)
{
    char unread[4096];
    ssize_t n = s->tls ? 0 : send(fd, REFUSED, sizeof REFUSED - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
    shutdown(fd, SHUT_WR);
    /* What is left unread would turn the close into a reset that destroys the answer. */
    while (recv(fd, unread, sizeof unread, MSG_DONTWAIT) > 0)
        ;
    close(fd);
    counter_add(&s->counters->refused, 1);
    counter_add(&s->counters->closed[CLOSE_OVER_LIMIT], 1);
    log_flood(LOG_WARNING, 0, "refused a connection with 503: %u are open and none is idle; raise connections or the "
                        "descriptor limit", s->h1.pool.open);
}

static void on_refused(void *arg, int fd)
{
    struct server *s = arg;
    h1_evict_idle(&s->h1); /* room for the next one */
    refuse(s, fd);
}

static unsigned on_hold(void *arg, unsigned held_ms)
{
    struct server *s = arg;
    return balance_hold(&s->worker.balance, held_ms);
}

static bool is_idle_there(const struct server *s)
{
    return !list_empty(&s->h1.pool.lists[H1_L_KEEP].conns);
}

static bool on_accepted(void *arg, struct listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct server *s = arg;
    /* Under Waitress' command line connections above the limit wait in the backlog, as there; the one
     * that shows that no room is left is taken. */
    bool waitress = s->conf->dialect == CONF_WAITRESS;
    if (s->h1.pool.open >= s->connections_max && !h1_evict_idle(&s->h1) && !waitress) {
        refuse(s, fd);
        return true;
    }
    h1_accept(&s->h1, l, fd, peer);
    return !waitress || s->h1.pool.open < s->connections_max || is_idle_there(s);
}

void server_accept_again(struct server *s)
{
    if (s->h1.leave == H1_STAYS && (s->h1.pool.open < s->connections_max || is_idle_there(s)))
        listen_pause(&s->listeners, false);
}

/* ---- the glue to serve/lead ---- */

static void lead_turn(void *ctx, bool may_block)
{
    struct server *s = ctx;
    loop_turn(&s->loop, may_block);
}

static void lead_wake(void *ctx)
{
    struct server *s = ctx;
    loop_wake(&s->loop);
}

static int lead_thread_start(void *ctx, void **local)
{
    struct server *s = ctx;
    return s->app ? s->app->thread_start(s->app, local) : 0;
}

static void lead_thread_stop(void *ctx, void *local)
{
    struct server *s = ctx;
    if (s->app)
        s->app->thread_stop(s->app, local);
}

static void lead_enter(void *ctx, void *local)
{
    struct server *s = ctx;
    if (WEIR_LIKELY(!s->flights.telemetry)) {
        s->app->enter(s->app, local);
        return;
    }
    flights_ask();
    s->app->enter(s->app, local);
}

static void lead_leave(void *ctx, void *local)
{
    struct server *s = ctx;
    s->app->leave(s->app, local);
}

static void lead_run(void *ctx, void *local, struct lead_job *job)
{
    exchange_run(ctx, local, job);
}

static void lead_done_leading(void *ctx, struct lead_job *job)
{
    (void)ctx;
    exchange_done_leading(job);
}

static void lead_done_away(void *ctx, struct lead_job *job)
{
    (void)ctx;
    exchange_done_away(job);
}

static const struct lead_ops LEAD_OPS = {
    .turn = lead_turn,
    .wake = lead_wake,
    .thread_start = lead_thread_start,
    .thread_stop = lead_thread_stop,
    .enter = lead_enter,
    .leave = lead_leave,
    .run = lead_run,
    .done_leading = lead_done_leading,
    .done_away = lead_done_away,
};

/* ---- the end ---- */

static void tell_done(struct server *s)
{
    lead_stop(s->lead);
    uint64_t one = 1;
    ssize_t n = write(s->done_fd, &one, sizeof one);
    (void)n;
}

static void end_now(struct server *s)
{
    if (s->stop_done >= SERVER_NOW)
        return;
    s->stop_done = SERVER_NOW;
    atomic_store(&s->cancelled, true);
    atomic_store(&s->cut, !list_empty(&s->exchanges));
    exchange_cancel_all(s);
    tell_done(s);
}

static void on_grace(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct lead_stats stats;
    unsigned left = h1_close_idle(&s->h1);
    if (!left && list_empty(&s->exchanges))
        return; /* server_check_drained when they are closed */
    lead_stats(s->lead, &stats);
    log_line(LOG_WARNING, 0, "the grace of %.3g s is over: %u connections are cut, %u requests still run",
             (double)s->conf->grace / 1000, left, stats.busy);
    exchange_turn_away(s);
    end_now(s);
}

void server_check_drained(struct server *s)
{
    if ((s->stop_done != SERVER_DRAIN && s->stop_done != SERVER_HANDOVER) || s->h1.pool.open ||
        !list_empty(&s->exchanges))
        return;
    /* Nobody else will care for what was handed over. */
    if (s->stop_done == SERVER_DRAIN && worker_take_handed(s))
        return;
    s->stop_done = SERVER_NOW;
    uv_timer_stop(&s->grace_timer);
    tell_done(s);
}

/* From now on no connection is accepted here. */
static void stop_begins(struct server *s, enum server_stop_how how)
{
    worker_drains(s);
    flights_drains(s);
    atomic_store(&s->leaving, true);
    if (how == SERVER_DRAIN) { /* nobody else takes what waits at the door */
        listen_quench(&s->listeners);
        listen_take_all(&s->listeners);
    } else if (how == SERVER_HANDOVER) { /* others do, but not at an address that a reload has given up */
        listen_take_quenched(&s->listeners);
    }
    listen_close(&s->listeners);
    if (how != SERVER_NOW)
        uv_timer_start(&s->grace_timer, on_grace, (uint64_t)s->conf->grace, 0);
}

static void on_stop_mail(struct mail *m)
{
    struct server *s = container_of(m, struct server, stop_mail);
    enum server_stop_how how = (enum server_stop_how)atomic_load(&s->stop_asked);
    if (how == SERVER_HANDOVER && !worker_can_hand(s))
        how = SERVER_DRAIN;
    if ((int)how <= s->stop_done)
        return;
    if (s->stop_done == 0)
        stop_begins(s, how);
    if (how == SERVER_NOW) {
        end_now(s);
        return;
    }
    s->stop_done = (int)how;
    if (strcmp(s->conf->drain_streams, "end") == 0)
        atomic_store(&s->streams_end, true);
    if (how == SERVER_DRAIN)
        atomic_store(&s->draining, true);
    unsigned open = s->h1.pool.open;
    h1_drain(&s->h1, how == SERVER_DRAIN ? H1_DRAINS : H1_HANDS_OVER);
    if (how == SERVER_HANDOVER)
        exchange_hand_waiting(s);
    if (how == SERVER_HANDOVER && open)
        log_line(LOG_INFO, 0, "stopping: %u connections go to other workers, %u have work left, at most %.3g s",
                 s->worker.handed, open - s->worker.handed, (double)s->conf->grace / 1000);
    else if (open)
        log_line(LOG_INFO, 0, "stopping: %u connections are open, at most %.3g s", open,
                 (double)s->conf->grace / 1000);
    server_check_drained(s);
}

void server_stop(struct server *s, enum server_stop_how how)
{
    int old = atomic_load(&s->stop_asked);
    while (old < (int)how && !atomic_compare_exchange_weak(&s->stop_asked, &old, (int)how))
        ;
    loop_post(&s->loop, &s->stop_mail);
}

unsigned server_join(struct server *s, int timeout_ms)
{
    return lead_join(s->lead, timeout_ms);
}

/* ---- life ---- */

/* Fields by which front-ends speak, as bits of their enum hdr. */
static const uint32_t FORWARDING = 1u << HDR_FORWARDED | 1u << HDR_X_FORWARDED_FOR |
                                   1u << HDR_X_FORWARDED_PROTO | 1u << HDR_X_FORWARDED_HOST |
                                   1u << HDR_X_FORWARDED_PORT | 1u << HDR_X_FORWARDED_BY;

static int make_rules(struct server *s, struct err *e)
{
    const struct conf *c = s->conf;
    if (proxy_set_parse(&s->trusted, slice_str(c->trusted_proxy), e) ||
        proxy_set_parse(&s->proxy_from, slice_str(c->proxy_protocol_from), e))
        return -1;
    if (proxy_headers_parse(&s->rules.headers, slice_str(c->trusted_proxy_headers), e))
        return -1;
    if (proxy_names_parse(&s->rules, slice_str(c->forwarder_headers), e))
        return -1;
    for (unsigned i = 0; i < c->secure_scheme_headers.n; i++)
        if (proxy_scheme_add(&s->rules, slice_str(c->secure_scheme_headers.items[i]), e))
            return -1;
    if (c->header_map[0] == 'r')
        s->rules.underscores = PROXY_REFUSE;
    else if (c->header_map[1] == 'a')
        s->rules.underscores = PROXY_SHOW;
    s->look = FORWARDING;
    if (s->rules.underscores || s->rules.n_names || s->rules.any_name)
        s->look |= 1u << SERVER_LOOK_UNDERSCORES;
    if (s->rules.n_schemes) /* their names are any */
        s->look |= ((1u << SERVER_LOOK_UNDERSCORES) - 1) & ~(1u << HDR_HOST);
    s->rules.hops = (unsigned)c->trusted_proxy_count;
    s->rules.clear = c->clear_untrusted_proxy_headers;
    s->rules.log_untrusted = c->log_untrusted_proxy_headers;
    static const char *const MODES[] = {"off", "v1", "v2", "auto"};
    for (unsigned i = 0; i < countof(MODES); i++)
        if (strcmp(c->proxy_protocol, MODES[i]) == 0)
            s->h1.proxy_mode = (enum proxy_mode)i;
    return 0;
}

/* Raise the soft limit of descriptors and say how many connections that allows. */
static unsigned connections_allowed(int64_t wanted)
{
    struct rlimit lim = {0};
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        struct rlimit raised = {.rlim_cur = lim.rlim_max, .rlim_max = lim.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            lim = raised;
    }
    rlim_t keep = lim.rlim_cur / 2 < DESCRIPTORS_KEPT ? lim.rlim_cur / 2 : DESCRIPTORS_KEPT;
    rlim_t can = lim.rlim_cur - keep;
    if (can > 1000000)
        can = 1000000;
    if (wanted > 0 && (rlim_t)wanted < can)
        return (unsigned)wanted;
    return (unsigned)can;
}

int server_new(struct server **out, const struct conf *conf, struct app *app, struct err *e)
{
    *out = NULL;
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, "out of memory");
    s->conf = conf;
    s->app = app;
    s->counters = &s->own_counters;
    s->internal = slice_str(conf->internal_path);
    s->done_fd = -1;
    listen_init(&s->listeners);
    s->listeners.arg = s;
    s->listeners.accepted = on_accepted;
    s->listeners.refused = on_refused;
    s->listeners.receive = worker_receive;
    s->stop_mail.deliver = on_stop_mail;
    list_init(&s->exchanges);
    list_init(&s->slow_bodies);
    reply_ident_set(&s->ident, conf->ident);
    s->listeners.tls = tls_wanted(conf);
    if (make_rules(s, e) || routes_new(&s->routes, conf, e) ||
        (s->listeners.tls && tls_context_new(&s->tls, conf, e)) ||
        (*conf->access_log && access_new(&s->access, conf->access_log, conf->access_log_format,
                                            server_is_gunicorn(s), e))) {
        server_free(&s);
        return -1;
    }
    *out = s;
    return 0;
}

int server_bind(struct listen_set *set, const struct conf *c, const struct conf_bind *b,
                struct err *e)
{
    struct listen_spec spec = {
        .kind = b->kind == CONF_BIND_TCP    ? LISTEN_TCP
                : b->kind == CONF_BIND_UNIX ? LISTEN_UNIX
                                            : LISTEN_FD,
        .host = b->host,
        .port = b->port,
        .path = b->path,
        .fd = b->fd,
        .text = b->text,
        .ipv4 = c->ipv4,
        .ipv6 = c->ipv6,
        .backlog = (int)c->backlog,
        .mode = (unsigned)c->unix_socket_perms,
    };
    return listen_open(set, &spec, e);
}

int server_listen(struct server *s, const int *fds, unsigned n_fds, struct err *e)
{
    if (admission_alone(s, e))
        return -1;
    for (unsigned i = 0; i < n_fds; i++) {
        char text[32];
        snprintf(text, sizeof text, "fd://%d", fds[i]);
        struct conf_bind b = {.kind = CONF_BIND_FD, .fd = fds[i], .text = text};
        if (server_bind(&s->listeners, s->conf, &b, e))
            return -1;
    }
    /* Sockets that were handed over take the place of addresses. */
    for (unsigned i = 0; !n_fds && i < s->conf->n_binds; i++)
        if (server_bind(&s->listeners, s->conf, &s->conf->binds[i], e))
            return -1;
    return 0;
}

void server_join_board(struct server *s, const struct server_worker *w)
{
    s->worker.given = *w;
    s->worker.slot = &w->board->slots[w->slot];
    s->counters = &s->worker.slot->counters;
    s->admission.shared = w->shared;
    s->admission.policy = w->policy;
    s->worker.given.policy = NULL;
    s->admission.owner = (struct gate_owner){
        .slot = w->slot, .generation = atomic_load(&s->worker.slot->generation)};
    s->h1.open_gauge = &s->worker.slot->open;
    if (w->hand_recv >= 0)
        listen_hand(&s->listeners, w->hand_recv);
}

int server_share_listeners(struct server *s, const struct listen_set *set, struct err *e)
{
    for (unsigned i = 0; i < set->n; i++) {
        int fd = fcntl(set->items[i]->fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return err_set(e, "cannot share %s: %s", set->items[i]->url, strerror(errno));
        struct listen_spec spec = {.kind = LISTEN_FD, .fd = fd, .text = set->items[i]->url};
        if (listen_open(&s->listeners, &spec, e)) {
            close(fd);
            return -1;
        }
    }
    return 0;
}

static void on_alarm_timer(uv_timer_t *timer)
{
    exchange_alarms(timer->data);
}

void server_alarm(struct server *s, int64_t at_ms)
{
    if (s->alarm_ms && s->alarm_ms <= at_ms)
        return;
    int64_t now = (int64_t)loop_now_ms(&s->loop);
    s->alarm_ms = at_ms;
    uv_timer_start(&s->alarm_timer, on_alarm_timer, at_ms > now ? (uint64_t)(at_ms - now) : 0, 0);
}

/* ---- requests that wait for a thread ---- */

/* One line, with the cure, until the queue is short again. */
static void tell_ready(struct server *s, const struct lead_stats *stats, int64_t age_ns)
{
    const struct conf *c = s->conf;
    bool one = c->dialect == CONF_WAITRESS || !s->worker.slot; /* where there are no workers */
    s->told_ready = true;
    if (stats->busy >= (uint64_t)c->threads.max)
        log_line(LOG_WARNING, 0,
                 "%u requests wait for a thread, the first for %.1f s: all of %lld are inside the application; if it is "
                 "safe with more, give it --threads N or --threads auto, or %s",
                 stats->waiting, (double)age_ns / 1e9, (long long)c->threads.max,
                 one ? "run it under weir with --workers N" : "more processes with --workers N");
    else
        log_line(LOG_WARNING, 0,
                 "%u requests wait for a thread, the first for %.1f s, though only %u of %lld are inside the application: "
                 "it computes, which more threads (--threads) do not help; %s",
                 stats->waiting, (double)age_ns / 1e9, stats->busy, (long long)c->threads.max,
                 one ? "run it under weir with --workers N" : "give it more processes with --workers N");
}

static void on_ready_timer(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct lead_stats stats;
    lead_stats(s->lead, &stats);
    int64_t age_ns = stats.oldest_ns ? clock_mono_ns() - stats.oldest_ns : 0;
    if (age_ns >= READY_LONG_NS && !s->told_ready)
        tell_ready(s, &stats, age_ns);
    else if (age_ns < READY_SHORT_NS)
        s->told_ready = false;
    if (stats.waiting)
        return;
    s->ready_watched = false;
    uv_timer_stop(timer);
}

void server_watch_ready(struct server *s)
{
    s->ready_watched = true;
    uv_timer_again(&s->ready_timer);
}

static void on_slow_timer(uv_timer_t *timer)
{
    exchange_slow_bodies(timer->data);
}

/* It does not run yet; uv_timer_again starts it with its period. */
static void make_timer(struct server *s, uv_timer_t *timer, uv_timer_cb cb, uint64_t period_ms)
{
    uv_timer_init(&s->loop.uv, timer);
    timer->data = s;
    uv_timer_start(timer, cb, period_ms, period_ms);
    uv_timer_stop(timer);
}

static bool has_reserved(const struct conf *c)
{
    for (unsigned i = 0; i < c->policy.n_routes; i++)
        if (c->policy.routes[i].lane == LANE_RESERVED)
            return true;
    return false;
}

int server_start(struct server *s, struct err *e)
{
    const struct conf *c = s->conf;
    s->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->done_fd < 0)
        return err_set(e, "cannot start: %s", strerror(errno));
    flights_join(s);
    int rc = loop_init(&s->loop);
    if (rc)
        return err_set(e, "cannot start the event loop: %s", uv_strerror(rc));
    struct h1_limits limits = {
        .line_bytes = (size_t)c->max_line_size,
        .head_bytes = (size_t)c->max_head_size,
        .fields = (unsigned)c->max_fields,
        .field_bytes = (size_t)c->max_field_size,
        .lax_host = c->lax_host,
        .rules = (server_is_gunicorn(s) ? H1_VERSION_400 | H1_OUTER_CODINGS : 0) |
                 (c->permit_unconventional_method ? 0 : H1_PLAIN_METHODS) |
                 (c->permit_unconventional_version ? H1_ANY_VERSION : 0) |
                 (c->permit_obsolete_folding ? H1_OBS_FOLD : 0) |
                 (c->casefold_method ? H1_FOLD_METHOD : 0),
    };
    s->looped = true;
    make_timer(s, &s->grace_timer, on_grace, 0);
    make_timer(s, &s->slow_timer, on_slow_timer, SLOW_TICK_MS);
    make_timer(s, &s->ready_timer, on_ready_timer, READY_TICK_MS);
    uv_timer_init(&s->loop.uv, &s->alarm_timer);
    s->alarm_timer.data = s;
    worker_init(s);
    s->identity = (struct identity_rules){.request_id = c->request_id,
                                          .trace = c->trace_context,
                                          .export = *c->otlp_endpoint != '\0',
                                          .permille = (unsigned)c->trace_sample * 10};
    s->identifies = c->request_id || c->trace_context;
    s->timed = s->access || s->flights.telemetry || c->server_timing;
    if (s->identifies && (rc = trace_source_init(&s->ids)))
        return err_set(e, "cannot start: no random numbers: %s", strerror(-rc));
    s->checks_heads = s->admission.policy || s->conf->deadline || s->conf->slow_request;
    if (admission_start(s, e))
        return -1;
    rc = h1_server_init(&s->h1, &s->loop, &EXCHANGE_UP, &limits);
    if (rc)
        return err_set(e, "cannot start: %s", uv_strerror(rc));
    s->h1.arg = s;
    s->h1.counters = s->counters;
    s->h1.proxy_from = &s->proxy_from;
    s->h1.proxy_optional = c->proxy_protocol_optional;
    s->h1.front_ends = server_is_gunicorn(s) ? &s->trusted : NULL;
    s->h1.tls = s->tls;
    s->h1.detect_gone = c->disconnect_detection;
    s->h1.log_socket_errors = c->log_socket_errors;
    s->h1.continue_always = c->dialect == CONF_WAITRESS;
    s->h1.raw_counts = c->dialect == CONF_WAITRESS;
    s->h1.body_max = (uint64_t)c->max_body_size;
    h1_keep_alive(&s->h1, (uint64_t)c->keep_alive);
    s->h1.pool.lists[H1_L_LAST].timeout_ms = c->drain_idle ? (uint64_t)c->drain_idle : 1;
    s->h1.pool.lists[H1_L_HEAD].timeout_ms = (uint64_t)c->header_timeout;
    s->h1.pool.lists[H1_L_BODY].timeout_ms = (uint64_t)c->body_timeout;
    s->h1.pool.lists[H1_L_SEND].timeout_ms = (uint64_t)c->send_timeout;
    s->connections_max = connections_allowed(c->connections);
    const char *monitor = getenv("WEIR_MONITOR");
    struct lead_config lead = {
        .places_min = (unsigned)c->threads.min,
        .places_max = (unsigned)c->threads.max,
        .stack_bytes = (unsigned)c->thread_stack,
        .monitor_off = monitor && strcmp(monitor, "off") == 0,
        .reserved_lane = has_reserved(c),
    };
    if (lead.reserved_lane && lead.places_max == 1)
        log_line(LOG_WARNING, 0,
                 "lane: reserved does nothing with one thread, because the application may not be safe with two; "
                 "raise --threads, or let health checks ask %sping", *c->internal_path ? c->internal_path : "/-/");
    if (s->worker.slot) {
        lead.busy = &s->worker.slot->busy;
        lead.waiting = &s->worker.slot->waiting;
        if (balance_init(&s->worker.balance, s->worker.given.board, s->worker.given.slot))
            return err_set(e, "out of memory");
        s->listeners.hold = on_hold;
    } else if (s->flights.alone_slot) {
        lead.busy = &s->flights.alone_slot->busy;
        lead.waiting = &s->flights.alone_slot->waiting;
    }
    if (lead_new(&s->lead, &lead, &LEAD_OPS, s, e) || listen_start(&s->listeners, &s->loop, e))
        return -1;
    worker_start(s);
    flights_start(s);
    int failed = lead_start(s->lead, e);
    if (failed) /* no thread was made, but maybe the monitor */
        must(lead_join(s->lead, -1) == 0);
    return failed;
}

static void close_connections(struct server *s)
{
    for (struct list *n = s->h1.all.next; n != &s->h1.all;) {
        struct h1_conn *hc = container_of(n, struct h1_conn, all);
        n = n->next;
        h1_fail(hc, CLOSE_DRAINING);
    }
}

void server_free(struct server **sp)
{
    struct server *s = *sp;
    *sp = NULL;
    listen_close(&s->listeners);
    if (s->looped) {
        s->stop_done = SERVER_NOW;
        if (s->h1.fields) {
            close_connections(s);
            loop_turn(&s->loop, false); /* messages of the last runs */
            h1_server_fini(&s->h1);
        }
        uv_close((uv_handle_t *)&s->slow_timer, NULL);
        uv_close((uv_handle_t *)&s->ready_timer, NULL);
        uv_close((uv_handle_t *)&s->alarm_timer, NULL);
        uv_close((uv_handle_t *)&s->grace_timer, NULL);
        worker_close(s);
        flights_close(s);
        admission_close(s);
        loop_fini(&s->loop);
    }
    admission_free(s);
    listen_fini(&s->listeners);
    if (s->lead)
        lead_free(&s->lead);
    while (!list_empty(&s->exchanges)) { /* ended at once with requests in work */
        struct exchange *x = container_of(s->exchanges.next, struct exchange, all);
        list_del(&x->all);
        exchange_free(x);
    }
    while (s->free) {
        struct exchange *x = s->free;
        s->free = x->next_free;
        exchange_free(x);
    }
    routes_free(&s->routes);
    balance_fini(&s->worker.balance);
    if (s->access)
        access_free(&s->access);
    tls_context_free(&s->tls);
    if (s->done_fd >= 0)
        close(s->done_fd);
    free(s);
}
