/*
 * history: figures over time, from differences of what telemetry has counted.
 *
 * Two rings of fixed size. A point of the seconds is made only where the tick before was a moment
 * ago; a step is made when the last one is 10 s old, so that it is there without anybody looking.
 */
#include <stdlib.h>

#include "admin/status_private.h"

#define SECONDS 600
#define STEPS 360
#define SECOND_NS INT64_C(1000000000)
#define STEP_NS (10 * SECOND_NS)
/* Timers come a little early or late. */
#define SLACK_NS (SECOND_NS / 2)
/* A tick after a longer pause is no second. */
#define SECOND_LONGEST_NS (5 * SECOND_NS)

/* What is counted since the start. */
struct sums {
    int64_t at_ns; /* monotonic; 0: there are none yet */
    uint64_t requests, failed, refused;
    struct telemetry_counts total, lag;
};

struct point {
    int64_t at_ns, wall_ns;
    double requests, failed, refused; /* a second */
    int64_t p50_ns, p95_ns, p99_ns;   /* -1: there were no requests */
    uint32_t in_flight, queued, waiting, busy, places, open;
    int64_t lag_ns; /* -1: no heartbeat */
};

struct ring {
    struct point *points; /* of the struct history */
    unsigned size;
    uint64_t n; /* ever written */
};

struct history {
    struct sums last, last_step;
    struct point newest;
    struct ring seconds, steps;
    struct point room[SECONDS + STEPS];
};

struct history *history_new(void)
{
    struct history *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->seconds = (struct ring){.points = h->room, .size = SECONDS};
    h->steps = (struct ring){.points = h->room + SECONDS, .size = STEPS};
    return h;
}

void history_free(struct history **h)
{
    free(*h);
    *h = NULL;
}

static void ring_push(struct ring *r, const struct point *p)
{
    r->points[r->n++ % r->size] = *p;
}

/* ---- counting ---- */

static void sum_up(struct sums *s, const struct telemetry *t, int64_t now_ns)
{
    uint32_t n_routes = atomic_load_explicit(&t->n_routes, memory_order_acquire);
    *s = (struct sums){.at_ns = now_ns};
    for (unsigned slot = 0; slot < t->n_slots; slot++) {
        const struct telemetry_worker *w = telemetry_slot(t, slot);
        telemetry_sum(&s->lag, &w->loop_lag);
        for (unsigned i = 0; i < n_routes && i < TELEMETRY_ROUTES_MAX; i++) {
            const struct telemetry_route *r = &w->routes[i];
            uint64_t before = s->requests;
            if (i == TELEMETRY_ROUTE_OWN)
                continue;
            for (unsigned k = 0; k < TELEMETRY_STATUSES; k++) {
                uint64_t n = atomic_load_explicit(&r->statuses[k], memory_order_relaxed);
                s->requests += n;
                s->failed += n && telemetry_status_text(k)[0] == '5' ? n : 0;
            }
            if (s->requests == before)
                continue;
            for (unsigned k = 0; k < TELEMETRY_REFUSALS; k++)
                s->refused += atomic_load_explicit(&r->refused[k], memory_order_relaxed);
            telemetry_sum(&s->total, &r->total);
        }
    }
}

static void gauges(struct point *p, const struct admin_view *v)
{
    for (unsigned i = 0; i < v->board->n_slots; i++) {
        const struct scoreboard_slot *s = &v->board->slots[i];
        if (!status_slot_serves(v, i))
            continue;
        const struct telemetry_worker *w = telemetry_slot(v->telemetry, i);
        p->in_flight += atomic_load_explicit(&w->in_flight, memory_order_relaxed);
        p->queued += atomic_load_explicit(&w->states[FLIGHT_QUOTA], memory_order_relaxed) +
                     atomic_load_explicit(&w->states[FLIGHT_QUEUED], memory_order_relaxed);
        p->waiting += atomic_load_explicit(&w->states[FLIGHT_READY], memory_order_relaxed);
        p->busy += atomic_load_explicit(&s->busy, memory_order_relaxed);
        p->places += atomic_load_explicit(&s->places, memory_order_relaxed);
        p->open += atomic_load_explicit(&s->open, memory_order_relaxed);
    }
}

/* Since the last one; counts that went back (nothing should) are no rates. */
static double rate(uint64_t now, uint64_t before, double seconds)
{
    return now > before ? (double)(now - before) / seconds : 0;
}

static void differences(struct point *p, const struct sums *now, const struct sums *before)
{
    double seconds = (double)(now->at_ns - before->at_ns) / (double)SECOND_NS;
    struct telemetry_counts total = now->total, lag = now->lag;
    telemetry_minus(&total, &before->total);
    telemetry_minus(&lag, &before->lag);
    p->requests = rate(now->requests, before->requests, seconds);
    p->failed = rate(now->failed, before->failed, seconds);
    p->refused = rate(now->refused, before->refused, seconds);
    p->p50_ns = total.n ? telemetry_quantile(&total, 0.5) : -1;
    p->p95_ns = total.n ? telemetry_quantile(&total, 0.95) : -1;
    p->p99_ns = total.n ? telemetry_quantile(&total, 0.99) : -1;
    p->lag_ns = lag.n ? (int64_t)(lag.sum_ns / lag.n) : -1;
}

int history_tick(struct history *h, const struct admin_view *v, int64_t now_ns, int64_t wall_ns)
{
    struct sums now;
    struct point p = {.at_ns = now_ns, .wall_ns = wall_ns};
    if (h->last.at_ns && now_ns <= h->last.at_ns)
        return 0;
    /* Somebody came just after a tick: one request in a millisecond is not a thousand a second. */
    if (h->newest.at_ns && now_ns - h->last.at_ns < SLACK_NS)
        return 0;
    sum_up(&now, v->telemetry, now_ns);
    if (!h->last.at_ns) {
        h->last = h->last_step = now;
        return 0;
    }
    gauges(&p, v);
    differences(&p, &now, &h->last);
    h->newest = p;
    if (now_ns - h->last.at_ns <= SECOND_LONGEST_NS)
        ring_push(&h->seconds, &p);
    if (now_ns - h->last_step.at_ns >= STEP_NS - SLACK_NS) {
        differences(&p, &now, &h->last_step);
        ring_push(&h->steps, &p);
        h->last_step = now;
    }
    h->last = now;
    return 0;
}

/* ---- writing ---- */

static const char *const COLUMNS[] = {"at",   "requests", "failed",    "refused", "p50",
                                      "p95",  "p99",      "in_flight", "queued",  "waiting",
                                      "busy", "places",   "open",      "loop_lag"};

/* To a thousandth. */
static void write_rate(struct json *j, double value)
{
    json_seconds(j, (int64_t)(value * 1000 + 0.5) * 1000000);
}

static void write_time(struct json *j, int64_t ns)
{
    if (ns < 0)
        json_none(j);
    else
        json_seconds(j, ns);
}

static void write_column(struct json *j, const struct point *p, unsigned column)
{
    switch (column) {
    case 0:
        json_seconds(j, p->wall_ns / 1000000 * 1000000);
        return;
    case 1:
        write_rate(j, p->requests);
        return;
    case 2:
        write_rate(j, p->failed);
        return;
    case 3:
        write_rate(j, p->refused);
        return;
    case 4:
        write_time(j, p->p50_ns);
        return;
    case 5:
        write_time(j, p->p95_ns);
        return;
    case 6:
        write_time(j, p->p99_ns);
        return;
    case 7:
        json_uint(j, p->in_flight);
        return;
    case 8:
        json_uint(j, p->queued);
        return;
    case 9:
        json_uint(j, p->waiting);
        return;
    case 10:
        json_uint(j, p->busy);
        return;
    case 11:
        json_uint(j, p->places);
        return;
    case 12:
        json_uint(j, p->open);
        return;
    default:
        write_time(j, p->lag_ns);
    }
}

int history_write_last(struct buf *out, const struct history *h)
{
    struct json j = json_begin(out);
    json_open(&j, '{');
    for (unsigned i = 0; h->newest.at_ns && i < countof(COLUMNS); i++) {
        json_key(&j, COLUMNS[i]);
        write_column(&j, &h->newest, i);
    }
    json_close(&j, '}');
    return json_end(&j);
}

/* Points that are not older than the ring shall hold; it may have been left alone for a while. */
static void write_ring(struct json *j, const char *name, const struct ring *r, int64_t oldest_ns)
{
    json_key(j, name);
    json_open(j, '[');
    for (uint64_t i = r->n > r->size ? r->n - r->size : 0; i < r->n; i++) {
        const struct point *p = &r->points[i % r->size];
        if (p->at_ns < oldest_ns)
            continue;
        json_open(j, '[');
        for (unsigned k = 0; k < countof(COLUMNS); k++)
            write_column(j, p, k);
        json_close(j, ']');
    }
    json_close(j, ']');
}

int history_write(struct buf *out, const struct history *h)
{
    struct json j = json_begin(out);
    json_open(&j, '{');
    json_key(&j, "columns");
    json_open(&j, '[');
    for (unsigned i = 0; i < countof(COLUMNS); i++)
        json_str(&j, COLUMNS[i]);
    json_close(&j, ']');
    write_ring(&j, "seconds", &h->seconds, h->last.at_ns - SECONDS * SECOND_NS);
    write_ring(&j, "steps", &h->steps, h->last.at_ns - STEPS * STEP_NS);
    json_close(&j, '}');
    return json_end(&j);
}
