/*
 * metrics_helper: a server that only its shared memory knows of, filled in by hand. For the unit
 * test of the metrics, and for bench/seeing.
 */
#ifndef WEIR_TESTS_METRICS_HELPER_H
#define WEIR_TESTS_METRICS_HELPER_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/view.h"
#include "admit/keybox.h"
#include "admit/refusal.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/must.h"
#include "obs/metric.h" /* its table has an MS and an S of its own */

#define MS ((int64_t)1000000)
#define S (1000 * MS)

/* A server of its own: nothing has happened yet. */
struct fake {
    struct conf conf;
    struct policy_shared parts;
    struct policy_route routes[3];
    struct admin_view view;
    struct buf out;
};

static inline struct fake *fake_new(unsigned n_slots)
{
    struct fake *f = calloc(1, sizeof *f);
    struct err e;
    must(f);
    must(conf_init(&f->conf, CONF_WEIR, &e) == 0);
    f->view = (struct admin_view){.conf = &f->conf,
                                  .board = scoreboard_new(n_slots),
                                  .telemetry = telemetry_new(n_slots, true),
                                  .parts = &f->parts};
    must(f->view.board);
    must(f->view.telemetry);
    return f;
}

static inline void fake_free(struct fake *f)
{
    buf_fini(&f->out);
    gates_free(&f->parts.gates);
    rates_free(f->parts.rates);
    keybox_free(&f->parts.keys);
    telemetry_free(&f->view.telemetry);
    scoreboard_free(&f->view.board);
    f->conf.policy = (struct conf_policy){0};
    conf_fini(&f->conf);
    free(f);
}

static inline struct scoreboard_slot *worker_starts(struct fake *f, unsigned slot)
{
    struct scoreboard_slot *s = &f->view.board->slots[slot];
    s->pid = getpid();
    s->generation++;
    s->state = WORKER_READY;
    s->places = 8;
    s->born_ns = s->beat_ns = clock_mono_ns();
    telemetry_adopt(f->view.telemetry, slot);
    return s;
}

static inline void worker_dies(struct fake *f, unsigned slot)
{
    f->view.board->slots[slot].pid = 0;
    f->view.board->slots[slot].state = WORKER_NONE;
}

static inline struct telemetry_worker *worker(struct fake *f, unsigned slot)
{
    return telemetry_slot(f->view.telemetry, slot);
}

/* A request from begin to end: it waits, runs and writes for so long. */
static inline void request(struct fake *f, unsigned slot, const char *route, int status,
                           int64_t queue_ns, int64_t app_ns, int64_t write_ns)
{
    struct telemetry *t = f->view.telemetry;
    int64_t now_ns = 1000 * S;
    struct flight *r = flight_begin(t, slot, now_ns);
    must(r);
    flight_enter(worker(f, slot), r, FLIGHT_READY, now_ns);
    flight_enter(worker(f, slot), r, FLIGHT_APPLICATION, now_ns += queue_ns);
    flight_enter(worker(f, slot), r, FLIGHT_WRITING, now_ns += app_ns);
    flight_edit(r);
    r->status = (uint16_t)status;
    r->route = (uint16_t)telemetry_route(t, route);
    flight_edited(r);
    flight_finish(t, r, 0, now_ns + write_ns);
    flight_free(t, r);
}

#define MANY_ROUTES 50
#define MANY_WORKERS 4

/* 50 routes with places, all used, with five statuses and two refusals each, in four workers that
 * count in millions. */
static inline struct fake *busy_server(struct policy_route *routes, char (*names)[64])
{
    static const int statuses[] = {200, 304, 404, 429, 500};
    struct fake *f = fake_new(MANY_WORKERS);
    f->parts.gates = gates_new();
    f->parts.rates = rates_new(100000);
    must(f->parts.gates);
    must(f->parts.rates);
    for (unsigned w = 0; w < MANY_WORKERS; w++)
        worker_starts(f, w);
    for (unsigned i = 0; i < MANY_ROUTES; i++) {
        snprintf(names[i], sizeof names[i], "POST /api/v1/section-%02u/*", i);
        routes[i] = (struct policy_route){.name = names[i], .concurrency = 8, .queue_size = 100};
        unsigned r = telemetry_route(f->view.telemetry, names[i]);
        for (unsigned w = 0; w < MANY_WORKERS; w++) {
            for (unsigned s = 0; s < countof(statuses); s++)
                for (unsigned k = 0; k < 10; k++)
                    request(f, w, names[i], statuses[s], k * 300 * MS, k * S + 1234567,
                            k * 10 * MS);
            struct telemetry_route *t = &worker(f, w)->routes[r];
            for (unsigned s = 0; s < TELEMETRY_STATUSES; s++)
                t->statuses[s] *= 12345u;
            for (unsigned b = 0; b <= TELEMETRY_BOUNDS; b++) {
                t->total.counts[b] *= 12345u;
                t->queue.counts[b] *= 12345u;
                t->app.counts[b] *= 12345u;
                t->write.counts[b] *= 12345u;
            }
            t->refused[REFUSAL_RATE] = t->refused[REFUSAL_QUEUE_FULL] = 123456;
        }
    }
    f->conf.policy.routes = routes;
    f->conf.policy.n_routes = MANY_ROUTES;
    return f;
}

#endif
