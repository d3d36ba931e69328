/* flights: see the header. */
#include "serve/flights.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/exchange.h"
#include "serve/server.h"

/* How often the figures of the whole process are written. */
static const uint64_t BEAT_MS = 1000;
/* Counting descriptors costs a system call for some hundred of them. */
static const int64_t DESCRIPTORS_NS = INT64_C(10000000000);

static void put_text(char *to, size_t size, struct slice s)
{
    size_t n = s.n < size ? s.n : size - 1;
    memcpy(to, s.p, n);
    to[n] = '\0';
}

/* ---- the figures of the process ---- */

/* The kernel says it as a size (since Linux 6.2); else by counting, which needs one more. */
static uint32_t count_descriptors(void)
{
    uint32_t n = 0;
    struct stat st;
    struct rlimit most = {0};
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return (uint32_t)st.st_size;
    DIR *d = opendir("/proc/self/fd");
    if (!d) { /* EMFILE: all are open */
        if (errno == EMFILE)
            (void)!getrlimit(RLIMIT_NOFILE, &most);
        return (uint32_t)most.rlim_cur;
    }
    while (readdir(d))
        n++;
    closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", "..", and the folder's own */
}

static void look_at_process(struct server *s, int64_t now_ns)
{
    struct server_flights *f = &s->flights;
    struct telemetry_worker *w = f->worker;
    struct lead_stats stats;
    lead_stats(s->lead, &stats);
    atomic_store_explicit(&w->threads, stats.threads, memory_order_relaxed);
    atomic_store_explicit(&w->inline_runs, f->before.inline_runs + stats.inline_runs,
                          memory_order_relaxed);
    atomic_store_explicit(&w->away_runs, f->before.away_runs + stats.away_runs,
                          memory_order_relaxed);
    atomic_store_explicit(&w->deposed, f->before.deposed + stats.deposed + stats.deposed_gil,
                          memory_order_relaxed);
    atomic_store_explicit(&w->burst, f->before.burst + stats.burst, memory_order_relaxed);
    atomic_store_explicit(&w->rss_bytes, worker_rss_bytes(), memory_order_relaxed);
    atomic_store_explicit(&w->buffered_bytes, atomic_load_explicit(&s->memory, memory_order_relaxed),
                          memory_order_relaxed);
    f->wall_less_mono_ns = clock_wall_ns() - now_ns;
    if (f->descriptors_ns && now_ns - f->descriptors_ns < DESCRIPTORS_NS)
        return;
    f->descriptors_ns = now_ns;
    atomic_store_explicit(&w->descriptors, count_descriptors(), memory_order_relaxed);
}

static void on_beat(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct server_flights *f = &s->flights;
    int64_t now_ns = clock_mono_ns();
    telemetry_observe(&f->worker->loop_lag, now_ns - (int64_t)f->beat_ms * 1000000);
    look_at_process(s, now_ns);
    struct scoreboard_slot *slot = s->worker.slot ? s->worker.slot : f->alone_slot;
    atomic_store_explicit(&slot->beat_ns, now_ns, memory_order_relaxed);
    uv_update_time(&s->loop.uv);
    f->beat_ms = loop_now_ms(&s->loop) + BEAT_MS;
    uv_timer_start(timer, on_beat, BEAT_MS, 0);
}

/* ---- life ---- */

/* A process that serves alone has the only slot of its board. */
static void take_slot(struct server *s, struct shared *shared)
{
    struct scoreboard_slot *slot = &shared->board->slots[0];
    s->flights.alone_slot = slot;
    s->counters = &slot->counters;
    s->h1.open_gauge = &slot->open;
    atomic_store(&shared->board->top, 1);
    atomic_store(&shared->board->supervisor, 0);
    atomic_fetch_add(&shared->board->started, 1);
    atomic_fetch_add(&slot->generation, 1);
    atomic_store(&slot->pid, getpid());
    atomic_store(&slot->born_ns, clock_mono_ns());
    atomic_store(&slot->beat_ns, clock_mono_ns());
    atomic_store(&slot->places, (uint32_t)s->conf->threads.max);
    atomic_store(&slot->state, WORKER_READY);
}

void flights_join(struct server *s)
{
    struct shared *shared = s->admission.shared;
    struct server_flights *f = &s->flights;
    if (!shared || !shared->telemetry)
        return;
    f->telemetry = shared->telemetry;
    f->slot = s->worker.slot ? s->worker.given.slot : 0;
    if (!s->worker.slot)
        take_slot(s, shared);
    f->generation = atomic_load(&shared->board->slots[f->slot].generation);
    f->pid = getpid();
    f->worker = telemetry_slot(f->telemetry, f->slot);
    f->spans = *s->conf->otlp_endpoint != '\0';
    f->wall_less_mono_ns = clock_wall_ns() - clock_mono_ns();
    telemetry_adopt(f->telemetry, f->slot);
    f->before = (struct lead_stats){.inline_runs = atomic_load(&f->worker->inline_runs),
                                    .away_runs = atomic_load(&f->worker->away_runs),
                                    .deposed = atomic_load(&f->worker->deposed),
                                    .burst = atomic_load(&f->worker->burst)};
    for (unsigned i = 0; i < s->conf->policy.n_routes; i++)
        f->rows[i] =
            (uint16_t)telemetry_find_route(f->telemetry, s->conf->policy.routes[i].name);
}

void flights_start(struct server *s)
{
    struct server_flights *f = &s->flights;
    uv_timer_init(&s->loop.uv, &f->beat);
    f->beat.data = s;
    if (!f->telemetry)
        return;
    look_at_process(s, clock_mono_ns());
    f->beat_ms = loop_now_ms(&s->loop) + BEAT_MS;
    uv_timer_start(&f->beat, on_beat, BEAT_MS, 0);
}

void flights_drains(struct server *s)
{
    if (s->flights.alone_slot)
        atomic_store(&s->flights.alone_slot->state, WORKER_DRAINING);
}

void flights_close(struct server *s)
{
    if (s->flights.beat.data)
        uv_close((uv_handle_t *)&s->flights.beat, NULL);
}

/* ---- one request ---- */

void flights_head(struct exchange *x)
{
    struct server_flights *s = &x->server->flights;
    int64_t now_ns = x->call.start_ns;
    const struct identity *id = &x->identity;
    struct flight *f = x->flight = flight_begin(s->telemetry, s->slot, now_ns);
    if (WEIR_UNLIKELY(!f))
        return;
    const struct proxy_facts *p = x->call.proxy;
    flight_edit(f);
    f->id = x->call.id;
    f->generation = s->generation;
    f->pid = s->pid;
    f->wall_ns = now_ns + s->wall_less_mono_ns;
    put_text(f->method, sizeof f->method, x->req.method);
    put_text(f->path, sizeof f->path, x->req.path);
    if (WEIR_UNLIKELY(p && *p->client.host)) {
        put_text(f->address, sizeof f->address, slice_str(p->client.host));
    } else {
        memcpy(f->address, x->peer.remote_addr, sizeof f->address);
        f->address[sizeof f->address - 1] = '\0';
    }
    if (WEIR_LIKELY(x->call.request_id.n == REQUEST_ID_BYTES)) {
        memcpy(f->request_id, x->call.request_id.p, REQUEST_ID_BYTES);
        f->request_id[REQUEST_ID_BYTES] = '\0';
    } else {
        put_text(f->request_id, sizeof f->request_id, x->call.request_id);
    }
    if (x->call.trace) {
        memcpy(f->trace_id, id->trace.trace_id, sizeof f->trace_id);
        memcpy(f->parent_id, id->trace.parent_id, sizeof f->parent_id);
        memcpy(f->span_id, id->trace.span_id, sizeof f->span_id);
        f->sampled = id->trace.sampled;
    }
    flight_edited(f);
}

void flights_admitted(struct exchange *x)
{
    struct flight *f = x->flight;
    const struct admission *a = &x->admitted.found;
    if (!f)
        return;
    flight_edit(f);
    if (a->route)
        f->route = x->server->flights.rows[a->index];
    f->flow = a->flow;
    if (a->who.user.n)
        put_text(f->user, sizeof f->user, a->account);
    flight_edited(f);
    if (a->dry)
        flights_dry_run(x, (enum refusal_id)(a->dry - 1));
}

void flights_own(struct exchange *x)
{
    if (x->flight)
        x->flight->route = TELEMETRY_ROUTE_OWN;
}

void flights_slow(struct exchange *x)
{
    struct server_flights *s = &x->server->flights;
    if (!x->flight)
        return;
    x->flight->slow = true;
    counter_add(&s->worker->slow, 1);
}

void flights_dry_run(struct exchange *x, enum refusal_id id)
{
    struct server_flights *s = &x->server->flights;
    if (!s->telemetry || !x->admitted.found.route || id >= TELEMETRY_REFUSALS)
        return;
    counter_add(&s->worker->routes[s->rows[x->admitted.found.index]].dry_run[id], 1);
}

void flights_enter_at(struct exchange *x, enum flight_state state, int64_t now_ns)
{
    if (x->flight) /* 0: a run that did not begin */
        flight_enter(x->server->flights.worker, x->flight, state, now_ns ? now_ns : clock_mono_ns());
}

void flights_enter(struct exchange *x, enum flight_state state)
{
    if (x->flight)
        flight_enter(x->server->flights.worker, x->flight, state, clock_mono_ns());
}

/* Of a thread. */
static _Thread_local struct {
    int64_t asked_ns; /* when it asked for the application's lock; 0: the wait for it was counted */
    int32_t number;   /* the kernel's; 0: not known yet */
} self;

void flights_ask(void)
{
    self.asked_ns = clock_mono_ns();
}

void flights_run(struct exchange *x, int64_t now_ns)
{
    struct telemetry_worker *w = x->server->flights.worker;
    if (!w)
        return;
    if (self.asked_ns) /* the first of those that run with it */
        telemetry_observe_shared(&w->gil_wait, now_ns - self.asked_ns);
    self.asked_ns = 0;
    if (!x->flight)
        return;
    if (WEIR_UNLIKELY(!self.number))
        self.number = (int32_t)syscall(SYS_gettid);
    flight_run(w, x->flight, self.number, now_ns);
}

/* Is it the server's, or the application's, fault that there is no orderly answer? */
static bool is_fault(int cut)
{
    return cut == CLOSE_ABORTED || cut == CLOSE_DEADLINE || cut == CLOSE_NO_MEMORY;
}

void flights_answered(struct exchange *x, int status, int cut, uint64_t wire_bytes, int64_t now_ns)
{
    struct server_flights *s = &x->server->flights;
    struct flight *f = x->flight;
    if (!f)
        return;
    unsigned keep = s->spans && f->sampled ? KEEP_SPAN : 0;
    const struct refusal *refused = x->admitted.refused;
    /* None of these is shown before it is over; flight_finish closes the record. */
    f->status = (uint16_t)status;
    f->cut = (uint8_t)(cut < 0 ? 0 : cut + 1);
    if (!f->refusal && refused && refusal_status(refused->id) == status)
        f->refusal = (uint8_t)(refused->id + 1);
    f->bytes_in = x->raw.n + x->body.size;
    f->bytes_out = wire_bytes;
    if (f->refusal)
        keep |= KEEP_REFUSED;
    if ((status >= 500 && !f->refusal) || f->refusal == REFUSAL_DEADLINE + 1 || is_fault(cut))
        keep |= KEEP_FAILED;
    flight_finish(s->telemetry, f, keep, now_ns);
}

void flights_why(struct exchange *x, enum refusal_id id)
{
    if (x->flight)
        x->flight->refusal = (uint8_t)(id + 1);
}

void flights_refused(struct server *s, int status)
{
    if (!s->flights.telemetry)
        return;
    unsigned row = telemetry_status_index(status);
    counter_add(&s->flights.worker->routes[TELEMETRY_ROUTE_OTHER].statuses[row], 1);
}

void flights_end(struct exchange *x)
{
    if (!x->flight)
        return;
    flight_free(x->server->flights.telemetry, x->flight);
    x->flight = NULL;
}
