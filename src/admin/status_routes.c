/* status_routes: what each route did and does, and what it allows. */
#include <string.h>

#include "admin/status_private.h"

static void times(struct json *j, const char *name, const struct telemetry_counts *c)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}};
    json_key(j, name);
    json_open(j, '{');
    for (size_t i = 0; i < countof(quantiles); i++) {
        json_key(j, quantiles[i].name);
        if (c->n)
            json_seconds(j, telemetry_quantile(c, quantiles[i].q));
        else
            json_none(j);
    }
    json_key(j, "mean");
    if (c->n)
        json_seconds(j, (int64_t)(c->sum_ns / c->n));
    else
        json_none(j);
    json_close(j, '}');
}

/* One route's figures of all workers. */
struct figures {
    uint64_t requests, statuses[TELEMETRY_STATUSES];
    uint64_t refused[TELEMETRY_REFUSALS], dry_run[TELEMETRY_REFUSALS];
    struct telemetry_counts total, queue, app;
};

static void add_up(struct figures *f, const struct telemetry *t, unsigned route)
{
    *f = (struct figures){0};
    for (unsigned slot = 0; slot < t->n_slots; slot++) {
        const struct telemetry_route *r = &telemetry_slot(t, slot)->routes[route];
        uint64_t before = f->requests;
        for (unsigned i = 0; i < TELEMETRY_STATUSES; i++) {
            uint64_t n = atomic_load_explicit(&r->statuses[i], memory_order_relaxed);
            f->statuses[i] += n;
            f->requests += n;
        }
        for (unsigned i = 0; i < TELEMETRY_REFUSALS; i++) {
            f->refused[i] += atomic_load_explicit(&r->refused[i], memory_order_relaxed);
            f->dry_run[i] += atomic_load_explicit(&r->dry_run[i], memory_order_relaxed);
        }
        if (f->requests == before)
            continue;
        telemetry_sum(&f->total, &r->total);
        telemetry_sum(&f->queue, &r->queue);
        telemetry_sum(&f->app, &r->app);
    }
}

static void reasons(struct json *j, const char *name, const uint64_t *counts)
{
    json_key(j, name);
    json_open(j, '{');
    for (unsigned i = 0; i < TELEMETRY_REFUSALS && i < REFUSALS; i++) {
        if (!counts[i])
            continue;
        json_key(j, refusal_word((enum refusal_id)i));
        json_uint(j, counts[i]);
    }
    json_close(j, '}');
}

static const struct policy_route *policy_of(const struct admin_view *v, const char *name)
{
    for (unsigned i = 0; i < v->conf->policy.n_routes; i++)
        if (strcmp(v->conf->policy.routes[i].name, name) == 0)
            return &v->conf->policy.routes[i];
    return NULL;
}

static void count(struct json *j, const char *name, bool seen, uint32_t n)
{
    json_key(j, name);
    if (seen)
        json_uint(j, n);
    else
        json_none(j);
}

/* What cannot be seen, since somebody is stopped who holds the lock, is null. */
static void gate(struct json *j, const struct admin_view *v, const struct policy_route *r,
                 const struct status_now *now)
{
    struct gates *gates = v->parts ? v->parts->gates : NULL;
    json_key(j, "gate");
    if (!gates || !r || !r->concurrency) {
        json_none(j);
        return;
    }
    struct gate_stats s;
    bool seen = gates_look(gates, r->name, &s);
    bool must_wait = s.running >= r->concurrency || s.waiting;
    json_open(j, '{');
    count(j, "running", seen, s.running);
    json_key(j, "concurrency");
    json_int(j, r->concurrency);
    count(j, "waiting", seen, s.waiting);
    json_key(j, "size");
    json_int(j, r->queue_size);
    json_key(j, "head_age");
    if (s.head_ns)
        json_seconds(j, now->mono_ns > s.head_ns ? now->mono_ns - s.head_ns : 0);
    else
        json_none(j);
    json_key(j, "mean_held");
    if (s.mean_held_ns)
        json_seconds(j, s.mean_held_ns);
    else
        json_none(j);
    /* Of one that comes now and waits behind all others, as admit/gate.h estimates it. */
    json_key(j, "expected");
    if (!seen)
        json_none(j);
    else if (!must_wait)
        json_int(j, 0);
    else if (s.mean_held_ns)
        json_seconds(j, (int64_t)((double)(s.waiting + 1) * (double)s.mean_held_ns /
                                  (double)r->concurrency));
    else
        json_none(j);
    count(j, "flows", seen, s.flows);
    json_close(j, '}');
}

static void one(struct json *j, const struct admin_view *v, unsigned route, const struct figures *f,
                uint32_t in_flight, const struct status_now *now)
{
    const char *name = status_route_name(v, route);
    const struct policy_route *r = policy_of(v, name);
    json_open(j, '{');
    json_key(j, "route");
    json_str(j, name);
    json_key(j, "requests");
    json_uint(j, f->requests);
    json_key(j, "in_flight");
    json_uint(j, in_flight);
    json_key(j, "statuses");
    json_open(j, '{');
    for (unsigned i = 0; i < TELEMETRY_STATUSES; i++) {
        if (!f->statuses[i])
            continue;
        json_key(j, telemetry_status_text(i));
        json_uint(j, f->statuses[i]);
    }
    json_close(j, '}');
    reasons(j, "refused", f->refused);
    reasons(j, "dry_run", f->dry_run);
    times(j, "total", &f->total);
    times(j, "queue", &f->queue);
    times(j, "application", &f->app);
    gate(j, v, r, now);
    json_key(j, "limits");
    json_open(j, '[');
    char text[200];
    for (unsigned i = 0; r && conf_policy_limit(r, i, text, sizeof text); i++)
        json_str(j, text);
    json_close(j, ']');
    json_close(j, '}');
}

void status_routes(struct json *j, const struct admin_view *v, const struct flights_seen *seen,
                   const struct status_now *now)
{
    uint32_t n = atomic_load_explicit(&v->telemetry->n_routes, memory_order_acquire);
    json_key(j, "routes");
    json_open(j, '[');
    for (unsigned route = 0; route < n && route < TELEMETRY_ROUTES_MAX; route++) {
        struct figures f;
        add_up(&f, v->telemetry, route);
        /* Routes of an earlier configuration that nobody asked for need not be shown. */
        if (f.requests || seen->routes[route] || policy_of(v, v->telemetry->routes[route]))
            one(j, v, route, &f, seen->routes[route], now);
    }
    json_close(j, ']');
}
