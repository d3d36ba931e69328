/* status: see the header. Requests and routes are written by status_flights, status_kept and
 * status_routes. */
#include "admin/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status_private.h"
#include "base/clock.h"
#include "conf/version.h"

static int32_t state_of(const struct admin_view *v, unsigned slot)
{
    return atomic_load_explicit(&v->board->slots[slot].state, memory_order_acquire);
}

/* ---- ready? ---- */

/* Is the word in a list that commas or blanks separate? */
static bool is_listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p;) {
        p += strspn(p, ", \t");
        size_t k = strcspn(p, ", \t");
        if (k == n && memcmp(p, word, n) == 0)
            return true;
        p += k;
    }
    return false;
}

const char *status_unready(const struct admin_view *v)
{
    const struct scoreboard *b = v->board;
    unsigned ready = 0, taking = 0, draining = 0, booting = 0, with_room = 0;
    bool waits = false;
    for (unsigned i = 0; i < b->n_slots; i++) {
        const struct scoreboard_slot *s = &b->slots[i];
        int32_t state = state_of(v, i);
        draining += state == WORKER_DRAINING;
        booting += state == WORKER_BOOTING;
        if (state != WORKER_READY)
            continue;
        ready++;
        taking += !atomic_load_explicit(&s->held, memory_order_relaxed);
        uint32_t busy = atomic_load_explicit(&s->busy, memory_order_relaxed);
        with_room += busy < atomic_load_explicit(&s->places, memory_order_relaxed);
        waits |= atomic_load_explicit(&s->waiting, memory_order_relaxed) > 0;
    }
    bool leaves = atomic_load_explicit(&b->stopping, memory_order_relaxed) ||
                  (!ready && draining && !booting) || (ready && !taking);
    if (leaves && is_listed(v->conf->ready_unless, "draining"))
        return "draining";
    if (!ready && is_listed(v->conf->ready_unless, "booting"))
        return "booting";
    if (!ready || with_room || !is_listed(v->conf->ready_unless, "saturated"))
        return NULL;
    for (unsigned i = 0; i < v->telemetry->n_slots && !waits; i++)
        waits = status_slot_serves(v, i) &&
                atomic_load_explicit(&telemetry_slot(v->telemetry, i)->states[FLIGHT_QUEUED],
                                     memory_order_relaxed) > 0;
    return waits ? "saturated" : NULL;
}

/* ---- the server as a whole ---- */

static void totals(struct json *j, const struct admin_view *v)
{
    static const char *const hundreds[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    uint64_t requests = 0, refused = 0, abandoned = 0, connections = 0, open = 0;
    uint64_t bytes_in = 0, bytes_out = 0, responses[countof(hundreds)] = {0};
    for (unsigned i = 0; i < v->board->n_slots; i++) {
        const struct scoreboard_slot *s = &v->board->slots[i];
        const struct counters *c = &s->counters;
        requests += atomic_load_explicit(&c->requests, memory_order_relaxed);
        refused += atomic_load_explicit(&c->refused, memory_order_relaxed);
        abandoned += atomic_load_explicit(&c->abandoned, memory_order_relaxed);
        connections += atomic_load_explicit(&c->connections, memory_order_relaxed);
        bytes_in += atomic_load_explicit(&c->bytes_in, memory_order_relaxed);
        bytes_out += atomic_load_explicit(&c->bytes_out, memory_order_relaxed);
        if (status_slot_serves(v, i))
            open += atomic_load_explicit(&s->open, memory_order_relaxed);
        for (unsigned k = 0; k < countof(hundreds); k++)
            responses[k] += atomic_load_explicit(&c->responses[k], memory_order_relaxed);
    }
    json_key(j, "totals");
    json_open(j, '{');
    const struct {
        const char *name;
        uint64_t n;
    } rows[] = {{"requests", requests},       {"refused", refused}, {"abandoned", abandoned},
                {"connections", connections}, {"open", open},       {"bytes_in", bytes_in},
                {"bytes_out", bytes_out}};
    for (size_t i = 0; i < countof(rows); i++) {
        json_key(j, rows[i].name);
        json_uint(j, rows[i].n);
    }
    json_key(j, "responses");
    json_open(j, '{');
    for (unsigned k = 0; k < countof(hundreds); k++) {
        json_key(j, hundreds[k]);
        json_uint(j, responses[k]);
    }
    json_close(j, '}');
    json_close(j, '}');
}

static void processes(struct json *j, const struct admin_view *v)
{
    unsigned workers = 0;
    for (unsigned i = 0; i < v->board->n_slots; i++)
        workers += state_of(v, i) != WORKER_NONE && state_of(v, i) != WORKER_DEAD;
    json_key(j, "processes");
    json_open(j, '{');
    json_key(j, "workers");
    json_uint(j, workers);
    json_key(j, "started");
    json_uint(j, atomic_load_explicit(&v->board->started, memory_order_relaxed));
    json_key(j, "crashed");
    json_uint(j, atomic_load_explicit(&v->board->crashed, memory_order_relaxed));
    json_key(j, "reloads");
    json_uint(j, atomic_load_explicit(&v->board->reloads, memory_order_relaxed));
    json_key(j, "recycled");
    json_open(j, '{');
    for (unsigned r = RECYCLE_NONE + 1; r < RECYCLE_REASONS; r++) {
        uint64_t n = atomic_load_explicit(&v->board->recycled[r], memory_order_relaxed);
        if (!n)
            continue;
        json_key(j, recycle_word((enum recycle_reason)r));
        json_uint(j, n);
    }
    json_close(j, '}');
    json_close(j, '}');
}

static void p99(struct json *j, const char *name, const struct telemetry_hist *h)
{
    struct telemetry_counts c = {0};
    telemetry_sum(&c, h);
    json_key(j, name);
    if (c.n)
        json_seconds(j, telemetry_quantile(&c, 0.99));
    else
        json_none(j);
}

static void number(struct json *j, const char *name, const _Atomic uint32_t *n)
{
    json_key(j, name);
    json_uint(j, atomic_load_explicit(n, memory_order_relaxed));
}

static void worker(struct json *j, const struct admin_view *v, unsigned slot, int32_t state,
                   const struct flights_seen *seen, const struct status_now *now)
{
    const struct scoreboard_slot *s = &v->board->slots[slot];
    const struct telemetry_worker *w = telemetry_slot(v->telemetry, slot);
    int64_t born_ns = atomic_load_explicit(&s->born_ns, memory_order_relaxed);
    int64_t beat_ns = atomic_load_explicit(&s->beat_ns, memory_order_relaxed);
    int32_t recycle = atomic_load_explicit(&s->recycle, memory_order_relaxed);
    json_open(j, '{');
    json_key(j, "slot");
    json_uint(j, slot);
    json_key(j, "pid");
    json_int(j, atomic_load_explicit(&s->pid, memory_order_relaxed));
    number(j, "generation", &s->generation);
    json_key(j, "state");
    json_str(j, worker_state_word((enum worker_state)state));
    json_key(j, "held");
    json_bool(j, atomic_load_explicit(&s->held, memory_order_relaxed) != 0);
    json_key(j, "recycle");
    json_str(j, recycle >= 0 && recycle < RECYCLE_REASONS
                    ? recycle_word((enum recycle_reason)recycle)
                    : "none");
    json_key(j, "started");
    json_seconds(j, now->wall_ns - (born_ns ? now->mono_ns - born_ns : 0));
    json_key(j, "beat_age");
    if (beat_ns)
        json_seconds(j, now->mono_ns > beat_ns ? now->mono_ns - beat_ns : 0);
    else
        json_none(j);
    number(j, "places", &s->places);
    number(j, "busy", &s->busy);
    number(j, "stuck", &s->stuck);
    number(j, "threads", &w->threads);
    number(j, "waiting", &s->waiting);
    json_key(j, "waiting_age");
    if (seen->ready_ns[slot])
        json_seconds(j, now->mono_ns - seen->ready_ns[slot]);
    else
        json_none(j);
    number(j, "open", &s->open);
    number(j, "in_flight", &w->in_flight);
    json_key(j, "requests");
    json_uint(j, atomic_load_explicit(&s->counters.requests, memory_order_relaxed));
    json_key(j, "rss_bytes");
    json_int(j, atomic_load_explicit(&w->rss_bytes, memory_order_relaxed));
    number(j, "descriptors", &w->descriptors);
    json_key(j, "buffered_bytes");
    json_int(j, atomic_load_explicit(&w->buffered_bytes, memory_order_relaxed));
    p99(j, "gil_wait_p99", &w->gil_wait);
    p99(j, "loop_lag_p99", &w->loop_lag);
    json_close(j, '}');
}

static void workers(struct json *j, const struct admin_view *v, const struct flights_seen *seen,
                    const struct status_now *now)
{
    json_key(j, "workers");
    json_open(j, '[');
    for (unsigned i = 0; i < v->board->n_slots && i < v->telemetry->n_slots; i++) {
        int32_t state = state_of(v, i);
        if (state > WORKER_NONE && state <= WORKER_DEAD)
            worker(j, v, i, state, seen, now);
    }
    json_close(j, ']');
}

static void limits(struct json *j, const struct admin_view *v, const struct status_now *now)
{
    struct rates *rates = v->parts ? v->parts->rates : NULL;
    json_key(j, "limits");
    json_open(j, '{');
    json_key(j, "rate_keys");
    if (rates) {
        struct rates_stats s;
        rates_stats(rates, now->mono_ns, &s);
        json_open(j, '{');
        json_key(j, "users");
        json_uint(j, s.keys[RATES_USERS]);
        json_key(j, "addresses");
        json_uint(j, s.keys[RATES_ADDRESSES]);
        json_key(j, "cells");
        json_uint(j, s.cells[RATES_USERS] + s.cells[RATES_ADDRESSES]);
        json_key(j, "evicted");
        json_uint(j, s.evicted[RATES_USERS] + s.evicted[RATES_ADDRESSES]);
        json_close(j, '}');
    } else {
        json_none(j);
    }
    json_close(j, '}');
}

/* ---- requests ---- */

static void queues(struct json *j, const struct admin_view *v, const struct flights_seen *seen)
{
    const struct group *top[STATUS_QUEUES];
    unsigned n = groups_largest(&seen->waiting, top, STATUS_QUEUES);
    json_key(j, "queues");
    json_open(j, '[');
    for (unsigned i = 0; i < n; i++) {
        json_open(j, '{');
        json_key(j, "route");
        json_str(j, status_route_name(v, top[i]->route));
        json_key(j, "user");
        status_text_or_null(j, top[i]->user);
        json_key(j, "address");
        status_text_or_null(j, top[i]->address);
        json_key(j, "waiting");
        json_uint(j, top[i]->n);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void flights(struct json *j, const struct admin_view *v, const struct flights_seen *seen,
                    const struct status_now *now)
{
    json_key(j, "flights_total");
    json_uint(j, seen->matched);
    json_key(j, "flights_listed");
    json_uint(j, seen->n_listed);
    json_key(j, "flights_unlisted");
    json_uint(j, seen->unlisted);
    json_key(j, "flights_by_state");
    json_open(j, '{');
    for (unsigned i = 1; i < FLIGHT_STATES; i++) {
        json_key(j, flight_state_word((enum flight_state)i));
        json_uint(j, seen->states[i]);
    }
    json_close(j, '}');
    json_key(j, "flights");
    json_open(j, '[');
    for (unsigned i = 0; i < seen->n_listed; i++)
        status_flight_live(j, v, &seen->listed[i], now);
    json_close(j, ']');
}

/* ---- settings ---- */

static void setting(void *arg, const char *name, const char *value, const char *source)
{
    struct json *j = arg;
    json_open(j, '{');
    json_key(j, "name");
    json_str(j, name);
    json_key(j, "value");
    json_str(j, value);
    json_key(j, "source");
    json_str(j, source);
    json_close(j, '}');
}

static int settings(struct json *j, const struct admin_view *v)
{
    json_key(j, "settings");
    json_open(j, '[');
    conf_each(v->conf, setting, j);
    json_close(j, ']');
    json_key(j, "policy");
    if (!policy_is_given(&v->conf->policy)) {
        json_none(j);
        return 0;
    }
    char *text = NULL; /* malloc'ed by the stream */
    size_t n = 0;
    FILE *stream = open_memstream(&text, &n);
    if (!stream)
        return -ENOMEM;
    conf_policy_print(&v->conf->policy, stream);
    int rc = fclose(stream) ? -ENOMEM : 0;
    if (!rc)
        json_text(j, slice_of(text, n));
    free(text);
    return rc;
}

int status_write(struct buf *out, const struct admin_view *v, const struct status_ask *ask)
{
    struct json j = json_begin(out);
    struct status_now now = {clock_mono_ns(), clock_wall_ns()};
    struct flights_seen seen = {.matched = 0};
    const char *unready = status_unready(v);
    int rc = flights_look(&seen, v, ask);
    if (rc)
        goto out;
    json_open(&j, '{');
    json_key(&j, "weir");
    json_str(&j, WEIR_VERSION);
    json_key(&j, "now");
    json_seconds(&j, now.wall_ns);
    json_key(&j, "started");
    json_seconds(&j, v->telemetry->started_wall_ns);
    json_key(&j, "ready");
    json_bool(&j, !unready);
    json_key(&j, "unready");
    json_str(&j, unready);
    json_key(&j, "alone");
    json_bool(&j, v->alone);
    totals(&j, v);
    processes(&j, v);
    workers(&j, v, &seen, &now);
    status_routes(&j, v, &seen, &now);
    queues(&j, v, &seen);
    flights(&j, v, &seen, &now);
    limits(&j, v, &now);
    if (!ask->brief)
        rc = status_kept(&j, v, &now);
    if (!ask->brief && !rc)
        rc = settings(&j, v);
    json_close(&j, '}');
out:
    flights_seen_fini(&seen);
    return rc ? rc : json_end(&j);
}
