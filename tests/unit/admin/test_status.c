/* status: what is in shared memory is what the object says, whoever wrote it there, and however
 * much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "admin/status.h"
#include "base/clock.h"
#include "conf/version.h"
#include "conf/yaml.h"

#define MS INT64_C(1000000)
#define S (1000 * MS)

enum { SLOTS = 4 };

struct world {
    struct conf conf;
    struct policy_shared parts;
    struct admin_view view;
};

/* Two workers that serve, in slots 0 and 1; the rest is free. */
static struct world *world_of(const char *yaml)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e = {{0}};
    assert_non_null(w);
    assert_int_equal(conf_init(&w->conf, CONF_WEIR, &e), 0);
    if (yaml && conf_yaml_parse(&w->conf, "weir.yaml", yaml, strlen(yaml), &e))
        fail_msg("%s", e.text);
    assert_int_equal(conf_set(&w->conf, "admin-token", "hush-hush-hush-hush", "--admin-token", &e), 0);
    assert_int_equal(conf_set(&w->conf, "env", "KEY=hush", "--env", &e), 0);
    if (conf_finish(&w->conf, &e))
        fail_msg("%s", e.text);
    w->view = (struct admin_view){.conf = &w->conf,
                                  .board = scoreboard_new(SLOTS),
                                  .telemetry = telemetry_new(SLOTS, false),
                                  .parts = &w->parts};
    assert_true(w->view.board && w->view.telemetry);
    for (unsigned i = 0; i < 2; i++) {
        struct scoreboard_slot *s = &w->view.board->slots[i];
        atomic_store(&s->pid, 4711 + (int)i);
        atomic_store(&s->generation, 1);
        atomic_store(&s->state, WORKER_READY);
        atomic_store(&s->places, 8);
        atomic_store(&s->born_ns, clock_mono_ns());
        atomic_store(&s->beat_ns, clock_mono_ns());
    }
    return w;
}

static void world_end(struct world *w)
{
    rates_free(w->parts.rates);
    gates_free(&w->parts.gates);
    scoreboard_free(&w->view.board);
    telemetry_free(&w->view.telemetry);
    conf_fini(&w->conf);
    free(w);
}

struct wanted {
    unsigned slot;
    uint64_t id;
    const char *route, *user, *path, *address, *request_id;
    enum flight_state state; /* NONE: reading */
    int64_t age_ns;
};

static struct flight *depart(struct world *w, struct wanted x)
{
    struct telemetry *t = w->view.telemetry;
    int64_t now_ns = clock_mono_ns();
    struct flight *f = flight_begin(t, x.slot, now_ns - x.age_ns);
    assert_non_null(f);
    flight_edit(f);
    f->id = x.id;
    f->pid = 4711 + (int)x.slot;
    f->route = (uint16_t)(x.route ? telemetry_route(t, x.route) : TELEMETRY_ROUTE_OTHER);
    f->wall_ns = clock_wall_ns() - x.age_ns;
    snprintf(f->method, sizeof f->method, "GET");
    snprintf(f->path, sizeof f->path, "%s", x.path ? x.path : "/");
    snprintf(f->user, sizeof f->user, "%s", x.user ? x.user : "");
    snprintf(f->address, sizeof f->address, "%s", x.address ? x.address : "192.0.2.1");
    snprintf(f->request_id, sizeof f->request_id, "%s", x.request_id ? x.request_id : "");
    flight_edited(f);
    if (x.state > FLIGHT_READING)
        flight_enter(telemetry_slot(t, x.slot), f, x.state, now_ns - x.age_ns / 2);
    return f;
}

static json_t *parsed(struct buf *b)
{
    json_error_t error;
    json_t *o = json_loadb(b->p, b->n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!o)
        fail_msg("%s at byte %d", error.text, error.position);
    buf_fini(b);
    return o;
}

static json_t *status(struct world *w, const char *query)
{
    struct status_ask ask;
    struct err e = {{0}};
    struct buf b = {0};
    if (status_ask_parse(&ask, slice_str(query), &e))
        fail_msg("%s", e.text);
    assert_int_equal(status_write(&b, &w->view, &ask), 0);
    return parsed(&b);
}

/* The member at a path as "flights.0.user". */
static json_t *at(json_t *o, const char *path)
{
    while (*path) {
        char name[64];
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(name)) : json_object_get(o, name);
        if (!o)
            fail_msg("nothing at %s", path);
        path += n + (path[n] == '.');
    }
    return o;
}

static const char *text_at(json_t *o, const char *path)
{
    assert_true(json_is_string(at(o, path)));
    return json_string_value(at(o, path));
}

static double number_at(json_t *o, const char *path)
{
    assert_true(json_is_number(at(o, path)));
    return json_number_value(at(o, path));
}

static void assert_near(double is, double wanted, double by)
{
    if (is < wanted - by || is > wanted + by)
        fail_msg("%f is not near %f", is, wanted);
}

/* The row of `route` in "routes". */
static json_t *route_of(json_t *o, const char *name)
{
    for (size_t i = 0; i < json_array_size(at(o, "routes")); i++) {
        json_t *r = json_array_get(at(o, "routes"), i);
        if (strcmp(text_at(r, "route"), name) == 0)
            return r;
    }
    fail_msg("no route %s", name);
    return NULL;
}

static void finish(struct world *w, struct flight *f, int status, int refusal, unsigned keep)
{
    flight_edit(f);
    f->status = (uint16_t)status;
    f->refusal = (uint8_t)refusal;
    flight_edited(f);
    flight_finish(w->view.telemetry, f, keep, clock_mono_ns());
    flight_free(w->view.telemetry, f);
}

/* ---- the object ---- */

static void an_idle_server_has_an_object_with_all_members(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    json_t *o = status(w, "");
    static const char *const members[] = {"weir",
                                          "now",
                                          "started",
                                          "ready",
                                          "unready",
                                          "alone",
                                          "totals",
                                          "processes",
                                          "workers",
                                          "routes",
                                          "queues",
                                          "flights_total",
                                          "flights_listed",
                                          "flights_unlisted",
                                          "flights_by_state",
                                          "flights",
                                          "limits",
                                          "refusals",
                                          "slowest",
                                          "failed",
                                          "settings",
                                          "policy"};
    for (size_t i = 0; i < countof(members); i++)
        assert_non_null(json_object_get(o, members[i]));
    assert_int_equal(json_object_size(o), countof(members));
    assert_string_equal(text_at(o, "weir"), WEIR_VERSION);
    assert_true(json_is_true(at(o, "ready")) && json_is_null(at(o, "unready")));
    assert_int_equal(json_array_size(at(o, "workers")), 2); /* free slots are left out */
    assert_string_equal(text_at(o, "workers.1.state"), "ready");
    assert_int_equal((int)number_at(o, "workers.1.pid"), 4712);
    assert_near(number_at(o, "now"), (double)clock_wall_ns() / 1e9, 60);
    assert_near(number_at(o, "workers.0.started"), (double)clock_wall_ns() / 1e9, 60);
    assert_int_equal(json_object_size(at(o, "flights_by_state")), FLIGHT_STATES - 1);
    json_decref(o);
    o = status(w, "brief=yes");
    assert_null(json_object_get(o, "settings"));
    assert_null(json_object_get(o, "failed"));
    assert_non_null(json_object_get(o, "flights"));
    json_decref(o);
    world_end(w);
}

static void totals_are_of_all_workers_and_of_those_that_ended(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct scoreboard *b = w->view.board;
    for (unsigned i = 0; i < SLOTS; i++) {
        counter_add(&b->slots[i].counters.requests, 10);
        counter_add(&b->slots[i].counters.responses[5], 1);
        atomic_store(&b->slots[i].open, 7);
    }
    atomic_store(&b->started, 5);
    atomic_store(&b->crashed, 1);
    atomic_store(&b->recycled[RECYCLE_MAX_RSS], 2);
    atomic_store(&b->slots[1].recycle, RECYCLE_STUCK);
    atomic_store(&b->slots[1].held, 1);
    json_t *o = status(w, "");
    assert_int_equal((int)number_at(o, "totals.requests"), 10 * SLOTS);
    assert_int_equal((int)number_at(o, "totals.responses.5xx"), SLOTS);
    assert_int_equal((int)number_at(o, "totals.open"), 14); /* of those that live */
    assert_int_equal((int)number_at(o, "processes.workers"), 2);
    assert_int_equal((int)number_at(o, "processes.started"), 5);
    assert_int_equal((int)number_at(o, "processes.crashed"), 1);
    assert_int_equal((int)number_at(o, "processes.recycled.max_rss"), 2);
    assert_int_equal(json_object_size(at(o, "processes.recycled")), 1);
    assert_string_equal(text_at(o, "workers.1.recycle"), "stuck");
    assert_true(json_is_true(at(o, "workers.1.held")) && json_is_false(at(o, "workers.0.held")));
    json_decref(o);
    world_end(w);
}

static void settings_are_told_with_their_sources_and_without_secrets(void **state)
{
    (void)state;
    struct world *w = world_of("threads: 8\nroutes:\n- {match: GET /a, name: a}\n");
    struct buf b = {0};
    assert_int_equal(status_write(&b, &w->view, &(struct status_ask){0}), 0);
    assert_null(memmem(b.p, b.n, "hush", 4));
    json_t *o = parsed(&b), *row;
    size_t i;
    unsigned found = 0;
    json_array_foreach(at(o, "settings"), i, row)
    {
        const char *name = text_at(row, "name"), *value = text_at(row, "value");
        if (strcmp(name, "threads") == 0) {
            assert_string_equal(text_at(row, "source"), "weir.yaml:1");
            found++;
        } else if (strcmp(name, "admin-token") == 0) {
            assert_string_equal(value, "(set)");
            found++;
        } else if (strcmp(name, "env") == 0) {
            assert_string_equal(value, "KEY=(set)");
            found++;
        } else if (strcmp(name, "bind") == 0) {
            assert_string_equal(value, "127.0.0.1:8000");
            found++;
        }
    }
    assert_int_equal(found, 4);
    assert_non_null(strstr(text_at(o, "policy"), "match: [\"GET /a\"]"));
    json_decref(o);
    world_end(w);
}

/* ---- routes ---- */

static const char POLICY[] =
    "identify: [{jwt: {secret_file: secret}}]\n"
    "tiers: {from: jwt.tier, default: test}\n"
    "routes:\n"
    "- match: POST /ai\n"
    "  name: ai\n"
    "  deadline: 90s\n"
    "  concurrency: 1\n"
    "  queue: {size: 100, wait: 30s}\n"
    "  rate: {user: {test: 10/min burst 3, default: 5/s}, address: 30/min}\n"
    "  quota: {test: 20/day, premium: 200/day and 2000/month, pro: unlimited, free: 0}\n"
    "- {match: GET /quiet, name: quiet}\n";

static void a_route_shows_its_requests_times_and_limits(void **state)
{
    (void)state;
    struct world *w = world_of(POLICY);
    for (int i = 0; i < 10; i++) {
        struct flight *f = depart(w, (struct wanted){.slot = (unsigned)i % 2,
                                                     .id = 1 + (uint64_t)i,
                                                     .route = "ai",
                                                     .state = FLIGHT_QUEUED,
                                                     .age_ns = 4 * S});
        flight_enter(telemetry_slot(w->view.telemetry, f->slot), f, FLIGHT_APPLICATION,
                     clock_mono_ns() - S);
        finish(w, f, i ? 200 : 503, 0, 0);
    }
    struct flight *refused = depart(w, (struct wanted){.id = 20, .route = "ai"});
    finish(w, refused, 429, 1 + REFUSAL_RATE, KEEP_REFUSED);
    (void)depart(w, (struct wanted){.id = 21, .route = "ai"});
    (void)telemetry_route(w->view.telemetry, "quiet");
    json_t *o = status(w, ""), *ai = route_of(o, "ai");
    assert_int_equal((int)number_at(ai, "requests"), 11);
    assert_int_equal((int)number_at(ai, "in_flight"), 1);
    assert_int_equal((int)number_at(ai, "statuses.200"), 9);
    assert_int_equal(json_object_size(at(ai, "statuses")), 3);
    assert_int_equal((int)number_at(ai, "refused.rate_limited"), 1);
    assert_near(number_at(ai, "total.p95"), 4, 1.1);
    assert_near(number_at(ai, "queue.p50"), 1, 0.35);
    assert_near(number_at(ai, "application.mean"), 1, 0.1);
    static const char *const limits[] = {"user test 10/min burst 3",
                                         "user 5/s",
                                         "address 30/min",
                                         "quota test 20/day",
                                         "quota premium 200/day and 2000/month",
                                         "quota pro unlimited",
                                         "quota free 0",
                                         "concurrency 1",
                                         "queue 100 for 30s",
                                         "deadline 90s"};
    assert_int_equal(json_array_size(at(ai, "limits")), countof(limits));
    for (size_t i = 0; i < countof(limits); i++)
        assert_string_equal(json_string_value(json_array_get(at(ai, "limits"), i)), limits[i]);
    json_t *quiet = route_of(o, "quiet"); /* of the configuration, though nobody asked for it */
    assert_true(json_is_null(at(quiet, "total.p99")) && json_is_null(at(quiet, "gate")));
    json_decref(o);
    world_end(w);
}

static void a_route_with_places_shows_who_runs_and_how_long_others_wait(void **state)
{
    (void)state;
    struct world *w = world_of(POLICY);
    telemetry_route(w->view.telemetry, "ai");
    w->parts.gates = gates_new();
    assert_non_null(w->parts.gates);
    json_t *o = status(w, "");
    assert_int_equal((int)number_at(route_of(o, "ai"), "gate.expected"), 0); /* a place is free */
    assert_true(json_is_null(at(route_of(o, "ai"), "gate.head_age")));
    json_decref(o);

    uint32_t route = gates_route(w->parts.gates, "ai");
    int64_t now_ns = clock_mono_ns();
    struct gate_ask ask = {.route = route,
                           .limits = {1, 100, 3600 * S, 1},
                           .owner = {0, 1},
                           .flow = 1,
                           .weight = 1,
                           .deadline_ns = INT64_MAX};
    struct gate_answer held, answer;
    struct gate_wakes wakes;
    assert_int_equal(gates_enter(w->parts.gates, &ask, now_ns - 12 * S, &held), GATE_ENTERED);
    gates_leave(w->parts.gates, held.ticket, true, now_ns - 10 * S, &wakes); /* held for 2 s */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(gates_enter(w->parts.gates, &ask, now_ns - 5 * S, &answer),
                         i ? GATE_QUEUED : GATE_ENTERED);
    o = status(w, "");
    json_t *ai = route_of(o, "ai");
    assert_int_equal((int)number_at(ai, "gate.running"), 1);
    assert_int_equal((int)number_at(ai, "gate.concurrency"), 1);
    assert_int_equal((int)number_at(ai, "gate.waiting"), 2);
    assert_int_equal((int)number_at(ai, "gate.size"), 100);
    assert_near(number_at(ai, "gate.head_age"), 5, 2);
    assert_near(number_at(ai, "gate.mean_held"), 2, 0.1);
    assert_near(number_at(ai, "gate.expected"), 6, 0.5); /* the third, each 2 s */
    json_decref(o);

    /* A process that is stopped inside holds up nobody who looks. */
    struct robust *names = (struct robust *)w->parts.gates; /* it stands first */
    assert_false(robust_lock(names));
    o = status(w, "");
    ai = route_of(o, "ai");
    assert_int_equal((int)number_at(ai, "gate.concurrency"), 1);
    assert_true(json_is_null(at(ai, "gate.running")) && json_is_null(at(ai, "gate.waiting")));
    assert_true(json_is_null(at(ai, "gate.head_age")) && json_is_null(at(ai, "gate.expected")));
    json_decref(o);
    robust_unlock(names);
    world_end(w);
}

static void the_table_of_rates_is_told(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    json_t *o = status(w, "");
    assert_true(json_is_null(at(o, "limits.rate_keys")));
    json_decref(o);
    w->parts.rates = rates_new(1000);
    assert_non_null(w->parts.rates);
    o = status(w, "");
    assert_int_equal((int)number_at(o, "limits.rate_keys.users"), 0);
    assert_true(number_at(o, "limits.rate_keys.cells") >= 2000);
    json_decref(o);
    world_end(w);
}

/* ---- requests in flight ---- */

static void a_request_in_flight_shows_where_it_is_and_where_it_was(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct flight *f = depart(w, (struct wanted){.slot = 1,
                                                 .id = 1234,
                                                 .route = "ai",
                                                 .user = "jwt:42",
                                                 .path = "/api/ai",
                                                 .request_id = "r-1",
                                                 .age_ns = 12 * S});
    struct telemetry_worker *of = telemetry_slot(w->view.telemetry, 1);
    int64_t begun = f->at_ns[FLIGHT_READING];
    flight_enter(of, f, FLIGHT_QUEUED, begun + 100 * MS);
    flight_enter(of, f, FLIGHT_APPLICATION, begun + 2 * S);
    flight_edit(f);
    f->trace_id[0] = 0x4b, f->trace_id[15] = 0x01;
    f->bytes_in = 300;
    flight_edited(f);
    atomic_store(&f->thread, 4720);

    json_t *o = status(w, "");
    assert_int_equal((int)number_at(o, "flights_total"), 1);
    assert_int_equal((int)number_at(o, "flights_listed"), 1);
    assert_int_equal((int)number_at(o, "flights_by_state.application"), 1);
    json_t *x = at(o, "flights.0");
    assert_string_equal(text_at(x, "state"), "application");
    assert_string_equal(text_at(x, "user"), "jwt:42");
    assert_string_equal(text_at(x, "route"), "ai");
    assert_string_equal(text_at(x, "request_id"), "r-1");
    assert_string_equal(text_at(x, "trace_id"), "4b000000000000000000000000000001");
    assert_int_equal((int)number_at(x, "worker"), 1);
    assert_int_equal((int)number_at(x, "thread"), 4720);
    assert_int_equal((int)number_at(x, "bytes_in"), 300);
    assert_near(number_at(x, "age"), 12, 2);
    assert_near(number_at(x, "in_state"), 10, 2);
    assert_int_equal(json_array_size(at(x, "waterfall")), 3);
    assert_string_equal(text_at(x, "waterfall.1.0"), "queued");
    assert_near(number_at(x, "waterfall.1.1"), 0.1, 0.0001);
    assert_near(number_at(x, "waterfall.1.2"), 1.9, 0.0001);
    assert_true(json_is_null(at(x, "waterfall.2.2")));
    json_decref(o);

    struct buf b = {0};
    assert_int_equal(status_write_flight(&b, &w->view, 1, 1234), 0);
    o = parsed(&b);
    assert_string_equal(text_at(o, "path"), "/api/ai");
    json_decref(o);
    static const struct {
        unsigned slot;
        uint64_t id;
    } nobody[] = {{0, 1234}, {1, 1}, {3, 1234}, {4000, 1234}};
    for (size_t i = 0; i < countof(nobody); i++) {
        struct buf none = {0};
        assert_int_equal(status_write_flight(&none, &w->view, nobody[i].slot, nobody[i].id), 0);
        assert_true(none.n == 4 && memcmp(none.p, "null", 4) == 0);
        buf_fini(&none);
    }
    world_end(w);
}

static void a_thread_that_runs_a_request_or_comes_back_late_is_told(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct telemetry_worker *of = telemetry_slot(w->view.telemetry, 0);
    struct flight *f = depart(w, (struct wanted){.id = 1, .state = FLIGHT_READY, .age_ns = 10 * S});
    json_t *o = status(w, "state=thread");
    assert_int_equal(json_array_size(at(o, "flights")), 1);
    json_decref(o);
    flight_run(of, f, 4720, f->at_ns[FLIGHT_READING] + 6 * S);
    o = status(w, "state=application");
    assert_int_equal((int)number_at(o, "flights_by_state.application"), 1);
    assert_string_equal(text_at(o, "flights.0.state"), "application");
    assert_int_equal((int)number_at(o, "flights.0.thread"), 4720);
    assert_near(number_at(o, "flights.0.in_state"), 4, 2);
    json_decref(o);
    flight_enter(of, f, FLIGHT_WRITING, f->at_ns[FLIGHT_READING] + 8 * S);
    flight_enter(of, f, FLIGHT_LATE, f->at_ns[FLIGHT_READING] + 9 * S);
    flight_finish(w->view.telemetry, f, KEEP_FAILED, f->at_ns[FLIGHT_READING] + 9 * S);
    o = status(w, "");
    assert_string_equal(text_at(o, "flights.0.state"), "late");
    assert_string_equal(text_at(o, "flights.0.waterfall.4.0"), "late");
    assert_true(json_is_null(at(o, "flights.0.waterfall.4.2"))); /* it goes on */
    assert_near(number_at(o, "failed.0.total"), 9, 0.001);       /* for its client it is over */
    json_decref(o);
    world_end(w);
}

static void what_is_not_known_of_a_request_is_null(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct flight *f = depart(w, (struct wanted){.id = 1});
    flight_edit(f);
    f->address[0] = '\0';
    flight_edited(f);
    json_t *o = status(w, "");
    static const char *const names[] = {"user", "address", "thread", "trace_id", "request_id"};
    for (size_t i = 0; i < countof(names); i++)
        assert_true(json_is_null(json_object_get(at(o, "flights.0"), names[i])));
    json_decref(o);
    world_end(w);
}

static void hostile_texts_stay_inside_their_quotes(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    static const char path[] = "/\"}],\\\x01\n\x7f</script>\xff\xc3\xa4\xe2\x80\xa8";
    (void)depart(
        w, (struct wanted){
               .id = 1, .path = path, .user = "jwt:\"\r\n\xed\xa0\x80", .request_id = "\x1b[2J\""});
    struct buf b = {0};
    assert_int_equal(status_write(&b, &w->view, &(struct status_ask){0}), 0);
    for (size_t i = 0; i < b.n; i++)
        assert_true((unsigned char)b.p[i] >= ' ' && b.p[i] != 0x7f);
    json_t *o = parsed(&b);
    /* Bytes that are no UTF-8 are read as Latin-1, as the application is shown them. */
    assert_string_equal(text_at(o, "flights.0.path"),
                        "/\"}],\\\x01\n\x7f</script>\xc3\xbf\xc3\xa4\xe2\x80\xa8");
    assert_string_equal(text_at(o, "flights.0.user"), "jwt:\"\r\n\xc3\xad\xc2\xa0\xc2\x80");
    assert_string_equal(text_at(o, "flights.0.request_id"), "\x1b[2J\"");
    json_decref(o);
    world_end(w);
}

static void texts_without_an_end_are_cut_to_their_room(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct flight *f = depart(w, (struct wanted){.id = 1});
    flight_edit(f);
    memset(f->path, 'p', sizeof f->path);
    memset(f->user, 'u', sizeof f->user);
    f->route = 60000;
    f->cut = f->refusal = 255;
    flight_edited(f);
    json_t *o = status(w, "");
    assert_int_equal(strlen(text_at(o, "flights.0.path")), sizeof f->path - 1);
    assert_int_equal(strlen(text_at(o, "flights.0.user")), sizeof f->user - 1);
    assert_string_equal(text_at(o, "flights.0.route"), "*");
    json_decref(o);
    finish(w, f, 500, 255, KEEP_FAILED);
    o = status(w, "");
    assert_true(json_is_null(at(o, "failed.0.cut")) && json_is_null(at(o, "failed.0.refusal")));
    json_decref(o);
    world_end(w);
}

static void a_record_that_is_being_written_is_left_out(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct flight *f = depart(w, (struct wanted){.id = 1});
    (void)depart(w, (struct wanted){.id = 2});
    flight_edit(f);
    json_t *o = status(w, "");
    assert_int_equal(json_array_size(at(o, "flights")), 1);
    assert_int_equal((int)number_at(o, "flights.0.id"), 2);
    json_decref(o);
    flight_edited(f);
    o = status(w, "");
    assert_int_equal(json_array_size(at(o, "flights")), 2);
    json_decref(o);
    world_end(w);
}

static void what_a_dead_worker_left_is_not_in_flight(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    (void)depart(w, (struct wanted){.slot = 0, .id = 1});
    (void)depart(w, (struct wanted){.slot = 1, .id = 2});
    static const struct {
        enum worker_state state;
        size_t workers, flights;
    } cases[] = {
        {WORKER_DRAINING, 2, 2}, {WORKER_DEAD, 2, 1}, {WORKER_NONE, 1, 1}, {WORKER_BOOTING, 2, 1}};
    for (size_t i = 0; i < countof(cases); i++) {
        atomic_store(&w->view.board->slots[0].state, cases[i].state);
        json_t *o = status(w, "");
        assert_int_equal(json_array_size(at(o, "workers")), cases[i].workers);
        assert_int_equal(json_array_size(at(o, "flights")), cases[i].flights);
        json_decref(o);
    }
    world_end(w);
}

/* ---- what is asked for ---- */

/* The ids of the flights in their order, "3 1 2". */
static void assert_ids(struct world *w, const char *query, const char *wanted)
{
    char text[256] = "";
    json_t *o = status(w, query);
    for (size_t i = 0, n = 0; i < json_array_size(at(o, "flights")); i++)
        n += (size_t)snprintf(
            text + n, sizeof text - n, "%s%d", i ? " " : "",
            (int)json_integer_value(json_object_get(json_array_get(at(o, "flights"), i), "id")));
    if (strcmp(text, wanted) != 0)
        fail_msg("%s: '%s' is not '%s'", query, text, wanted);
    assert_int_equal((size_t)number_at(o, "flights_listed"), json_array_size(at(o, "flights")));
    json_decref(o);
}

static void every_order_and_every_filter_is_followed(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    (void)depart(w, (struct wanted){.slot = 0,
                                    .id = 1,
                                    .route = "b",
                                    .user = "mia",
                                    .path = "/x",
                                    .state = FLIGHT_WRITING,
                                    .age_ns = 3 * S});
    (void)depart(w, (struct wanted){.slot = 1,
                                    .id = 2,
                                    .route = "a",
                                    .user = "",
                                    .path = "/Board",
                                    .state = FLIGHT_READING,
                                    .age_ns = 9 * S});
    (void)depart(w, (struct wanted){.slot = 0,
                                    .id = 3,
                                    .route = "c",
                                    .user = "ann",
                                    .path = "/y",
                                    .state = FLIGHT_QUEUED,
                                    .age_ns = 5 * S,
                                    .request_id = "ABCDEF"});
    (void)depart(w, (struct wanted){.slot = 1,
                                    .id = 4,
                                    .route = "a",
                                    .user = "mia",
                                    .path = "/z",
                                    .state = FLIGHT_QUOTA,
                                    .age_ns = 7 * S,
                                    .address = "203.0.113.9"});
    assert_ids(w, "", "2 4 3 1");
    assert_ids(w, "sort=age", "2 4 3 1");
    assert_ids(w, "sort=user", "3 4 1 2"); /* nobody comes last */
    assert_ids(w, "sort=route", "2 4 1 3");
    assert_ids(w, "sort=state", "2 4 3 1");
    assert_ids(w, "flights=2", "2 4");
    assert_ids(w, "flights=1&sort=user", "3");
    assert_ids(w, "flights=0", "");
    assert_ids(w, "state=queued", "3");
    assert_ids(w, "worker=1", "2 4");
    assert_ids(w, "worker=3", "");
    assert_ids(w, "route=a", "2 4");
    assert_ids(w, "route=nothere", "");
    assert_ids(w, "find=MIA", "4 1");
    assert_ids(w, "find=%62oARD", "2"); /* in the path */
    assert_ids(w, "find=cde", "3");     /* in the request id */
    assert_ids(w, "find=113.9", "4");   /* in the address */
    assert_ids(w, "find=mia&worker=0&state=writing&route=b&sort=age&flights=5", "1");
    assert_ids(w, "find=nobody+at+all", "");
    json_t *o = status(w, "flights=1&find=mia");
    assert_int_equal((int)number_at(o, "flights_total"), 2); /* that are asked for, listed or not */
    assert_int_equal((int)number_at(o, "flights_by_state.queued"), 1); /* of all */
    json_decref(o);
    world_end(w);
}

static void a_wrong_query_is_told_in_a_sentence(void **state)
{
    (void)state;
    char text[200], *p = text + 6;
    memcpy(text, "route=", 6);
    memset(p, 'x', 128), p[128] = '\0';
    const struct {
        const char *query, *says;
    } cases[] = {
        {"flights=many", "flights: 'many' is not a number of requests; give 0 to 1000"},
        {"flights=1001", "flights: '1001' is not a number of requests; give 0 to 1000"},
        {"flights=-1", "flights: '-1'"},
        {"flights=", "flights: ''"},
        {"flights", "flights: ''"},
        {"worker=4096", "worker: '4096' is not the slot of a worker; give 0 to 4095"},
        {"sort=size", "sort: 'size' is unknown; give age, user, route or state"},
        {"state=slow", "state: 'slow' is unknown; give one of reading, quota, queued, thread, "},
        {"brief=maybe", "brief: 'maybe' is neither yes nor no"},
        {"colour=red",
         "'colour' is unknown; give flights, sort, state, worker, route, find or brief"},
        {"find=%", "'find=%' of the query cannot be read"},
        {"find=%0", "cannot be read"},
        {"find=%zz", "cannot be read"},
        {"find=a%00b", "cannot be read"},
        {"sort=a%0a\x1b", "sort: 'a?\?' is unknown"},
        {text, "route: the text has 128 bytes; the most is 127"},
        {"&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&&", "the query has more than 32 parts"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct status_ask ask;
        struct err e = {{0}};
        assert_int_equal(status_ask_parse(&ask, slice_str(cases[i].query), &e), -1);
        if (!strstr(e.text, cases[i].says))
            fail_msg("%s: %s", cases[i].query, e.text);
    }
    struct status_ask ask;
    p[127] = '\0'; /* the longest that there may be */
    assert_int_equal(status_ask_parse(&ask, slice_str(text), NULL), 0);
    assert_int_equal(status_ask_parse(&ask, SLICE("&flights=7&&brief=no&find="), NULL), 0);
    assert_int_equal(ask.flights, 7);
}

static void ten_thousand_requests_are_listed_in_milliseconds_and_within_bounds(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    for (unsigned i = 2; i < SLOTS; i++)
        atomic_store(&w->view.board->slots[i].state, WORKER_READY);
    char user[32];
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(user, sizeof user, "jwt:%u", i % 10 ? i % 4 : i);
        /* The newest first: each one that comes is older than all before. */
        (void)depart(w, (struct wanted){.slot = i % SLOTS,
                                        .id = i + 1,
                                        .route = "ai",
                                        .user = user,
                                        .state = FLIGHT_QUEUED,
                                        .age_ns = (int64_t)(i + 1) * S});
    }
    int64_t best_ns = INT64_MAX;
    struct buf b = {0};
    for (int i = 0; i < 5; i++) {
        int64_t begin_ns = clock_mono_ns();
        b.n = 0;
        assert_int_equal(status_write(&b, &w->view, &(struct status_ask){.brief = true}), 0);
        int64_t took_ns = clock_mono_ns() - begin_ns;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    print_message("# 10,000 in flight: %lld us, %zu bytes\n", (long long)best_ns / 1000, b.n);
    assert_true(best_ns < 100 * MS); /* sanitizers take their time */
    assert_true(b.n < 128 * 1024);
    json_t *o = parsed(&b);
    assert_int_equal((int)number_at(o, "flights_total"), 10000);
    assert_int_equal((int)number_at(o, "flights_listed"), 100);
    assert_int_equal((int)number_at(o, "flights.0.id"), 10000);
    assert_int_equal((int)number_at(o, "flights.99.id"), 9901);
    assert_int_equal(json_array_size(at(o, "queues")), 50);
    assert_int_equal((int)number_at(o, "queues.0.waiting"), 2500);
    json_decref(o);

    b = (struct buf){0};
    assert_int_equal(status_write(&b, &w->view,
                                  &(struct status_ask){.flights = 1000000, .sort = STATUS_BY_USER}),
                     0);
    assert_true(b.n < 1024 * 1024);
    o = parsed(&b);
    assert_int_equal(json_array_size(at(o, "flights")), STATUS_FLIGHTS_MAX);
    json_decref(o);
    world_end(w);
}

static void who_waits_is_counted_by_route_and_user(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    for (unsigned i = 0; i < 6; i++)
        (void)depart(w, (struct wanted){.id = 1 + i,
                                        .route = i < 4 ? "ai" : "other",
                                        .user = "mia",
                                        .state = i % 2 ? FLIGHT_QUEUED : FLIGHT_QUOTA});
    (void)depart(w, (struct wanted){
                        .id = 10, .route = "ai", .state = FLIGHT_QUEUED, .address = "192.0.2.7"});
    (void)depart(w, (struct wanted){
                        .id = 11, .route = "ai", .state = FLIGHT_QUEUED, .address = "192.0.2.8"});
    (void)depart(
        w, (struct wanted){.id = 12, .route = "ai", .user = "mia", .state = FLIGHT_APPLICATION});
    json_t *o = status(w, "");
    assert_int_equal(json_array_size(at(o, "queues")), 4);
    assert_string_equal(text_at(o, "queues.0.user"), "mia");
    assert_string_equal(text_at(o, "queues.0.route"), "ai");
    assert_int_equal((int)number_at(o, "queues.0.waiting"), 4);
    assert_string_equal(text_at(o, "queues.1.route"), "other");
    assert_true(json_is_null(at(o, "queues.2.user")));
    assert_non_null(strstr("192.0.2.7 192.0.2.8", text_at(o, "queues.2.address")));
    json_decref(o);
    world_end(w);
}

/* ---- requests that are over ---- */

static void slow_and_failed_and_refused_requests_of_the_last_hour_are_kept(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    for (int i = 0; i < 60; i++) {
        struct flight *f = depart(w, (struct wanted){.slot = (unsigned)i % 2,
                                                     .id = 1 + (uint64_t)i,
                                                     .route = "ai",
                                                     .user = "mia",
                                                     .age_ns = (i + 1) * MS});
        flight_edit(f);
        f->cut = 1 + CLOSE_CLIENT_LEFT;
        flight_edited(f);
        finish(w, f, i == 59 ? 0 : 500, 0, KEEP_FAILED);
    }
    for (int i = 0; i < 5; i++) {
        struct flight *f = depart(w, (struct wanted){.slot = (unsigned)i % 2,
                                                     .id = 100 + (uint64_t)i,
                                                     .route = "ai",
                                                     .user = i < 3 ? "mia" : "ann"});
        finish(w, f, 429, 1 + (i == 4 ? REFUSAL_QUOTA_DAY : REFUSAL_RATE), KEEP_REFUSED);
    }
    struct flight *old = depart(w, (struct wanted){.id = 200, .age_ns = 100 * S});
    flight_edit(old);
    old->wall_ns -= 3700 * S;
    flight_edited(old);
    finish(w, old, 500, 0, KEEP_FAILED);

    json_t *o = status(w, "");
    assert_int_equal(json_array_size(at(o, "failed")), 50);
    assert_string_equal(text_at(o, "failed.0.cut"), "client_left");
    assert_true(json_is_null(at(o, "failed.0.refusal")));
    assert_null(json_object_get(at(o, "failed.0"), "state"));
    size_t i;
    json_t *row;
    json_array_foreach(at(o, "failed"), i, row)
        assert_true(json_integer_value(json_object_get(row, "id")) < 200);
    /* Four of each worker and minute are kept; a minute may have ended between them. */
    assert_true(json_array_size(at(o, "slowest")) >= 8 && json_array_size(at(o, "slowest")) <= 20);
    assert_int_equal((int)number_at(o, "slowest.0.id"), 60);
    assert_true(json_is_null(at(o, "slowest.0.status")));
    assert_near(number_at(o, "slowest.0.total"), 0.06, 0.05);
    assert_int_equal(json_array_size(at(o, "refusals")), 3);
    assert_int_equal((int)number_at(o, "refusals.0.count"), 3);
    assert_string_equal(text_at(o, "refusals.0.reason"), "rate_limited");
    assert_string_equal(text_at(o, "refusals.0.user"), "mia");
    assert_near(number_at(o, "refusals.0.last"), (double)clock_wall_ns() / 1e9, 60);
    json_decref(o);
    world_end(w);
}

/* ---- ready? ---- */

static void assert_unready(struct world *w, const char *unless, const char *wanted)
{
    struct err e = {{0}};
    assert_int_equal(conf_set(&w->conf, "ready-unless", unless, NULL, &e), 0);
    const char *is = status_unready(&w->view);
    if (!wanted ? is != NULL : !is || strcmp(is, wanted) != 0)
        fail_msg("%s: %s is not %s", unless, is ? is : "ready", wanted ? wanted : "ready");
}

static void a_server_is_not_ready_for_the_reasons_that_count(void **state)
{
    (void)state;
    static const char all[] = "booting, draining,saturated";
    struct world *w = world_of(NULL);
    struct scoreboard_slot *a = &w->view.board->slots[0], *b = &w->view.board->slots[1];
    assert_unready(w, all, NULL);
    atomic_store(&a->state, WORKER_BOOTING);
    assert_unready(w, all, NULL); /* the other serves */
    atomic_store(&b->state, WORKER_BOOTING);
    assert_unready(w, all, "booting");
    assert_unready(w, "draining,saturated", NULL);
    atomic_store(&a->state, WORKER_DRAINING);
    assert_unready(w, all, "booting"); /* a reload: the next ones come */
    atomic_store(&b->state, WORKER_DRAINING);
    assert_unready(w, all, "draining");
    atomic_store(&a->state, WORKER_READY);
    atomic_store(&b->state, WORKER_READY);
    atomic_store(&w->view.board->stopping, 1);
    assert_unready(w, all, "draining");
    assert_unready(w, "booting", NULL);
    atomic_store(&w->view.board->stopping, 0);
    atomic_store(&a->held, 1);
    assert_unready(w, all, NULL);
    atomic_store(&b->held, 1);
    assert_unready(w, all, "draining"); /* nobody takes a connection */
    atomic_store(&a->held, 0);
    atomic_store(&b->held, 0);

    atomic_store(&a->busy, 8);
    atomic_store(&b->busy, 8);
    assert_unready(w, all, NULL); /* nobody waits */
    atomic_store(&a->waiting, 1);
    assert_unready(w, all, "saturated");
    assert_unready(w, "booting,draining", NULL);
    atomic_store(&b->busy, 7);
    assert_unready(w, all, NULL);
    atomic_store(&b->busy, 8);
    atomic_store(&a->waiting, 0);
    (void)depart(w, (struct wanted){.id = 1, .state = FLIGHT_QUEUED}); /* in the queue of a route */
    assert_unready(w, all, "saturated");
    world_end(w);
}

/* ---- history ---- */

static json_t *history(const struct history *h, bool last)
{
    struct buf b = {0};
    assert_int_equal(last ? history_write_last(&b, h) : history_write(&b, h), 0);
    return parsed(&b);
}

static void figures_over_time_are_differences(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct history *h = history_new();
    assert_non_null(h);
    json_t *o = history(h, true);
    assert_int_equal(json_object_size(o), 0);
    json_decref(o);

    int64_t now_ns = 100 * S, wall_ns = 1764442000 * S;
    finish(w, depart(w, (struct wanted){.id = 1}), 200, 0,
           0); /* before the first tick: not of it */
    assert_int_equal(history_tick(h, &w->view, now_ns, wall_ns), 0);
    for (int i = 0; i < 20; i++) {
        struct flight *f = depart(
            w, (struct wanted){.slot = (unsigned)i % 2, .id = 2 + (uint64_t)i, .age_ns = 2 * S});
        finish(w, f, i < 4 ? 503 : 200, i < 2 ? 1 + REFUSAL_QUEUE_FULL : 0, 0);
    }
    for (int i = 0; i < 100; i++) /* whoever looks whether it lives does not count */
        finish(w, depart(w, (struct wanted){.id = 50, .route = "/-/"}), 200, 0, 0);
    (void)depart(w, (struct wanted){.id = 200, .state = FLIGHT_QUEUED});
    (void)depart(w, (struct wanted){.id = 201, .state = FLIGHT_READY});
    atomic_store(&w->view.board->slots[1].busy, 3);
    telemetry_observe(&telemetry_slot(w->view.telemetry, 0)->loop_lag, 2 * MS);
    assert_int_equal(history_tick(h, &w->view, now_ns + 2 * S, wall_ns + 2 * S), 0);
    o = history(h, true);
    assert_near(number_at(o, "at"), 1764442002, 0.001);
    assert_near(number_at(o, "requests"), 10, 0.001);
    assert_near(number_at(o, "failed"), 2, 0.001);
    assert_near(number_at(o, "refused"), 1, 0.001);
    assert_near(number_at(o, "p50"), 2, 1.1);
    assert_int_equal((int)number_at(o, "in_flight"), 2);
    assert_int_equal((int)number_at(o, "queued"), 1);
    assert_int_equal((int)number_at(o, "waiting"), 1);
    assert_int_equal((int)number_at(o, "busy"), 3);
    assert_int_equal((int)number_at(o, "places"), 16);
    assert_near(number_at(o, "loop_lag"), 0.002, 0.0001);
    json_decref(o);

    assert_int_equal(history_tick(h, &w->view, now_ns + 3 * S, wall_ns + 3 * S), 0);
    o = history(h, true);
    assert_true(json_is_null(at(o, "p50")) && json_is_null(at(o, "loop_lag")));
    assert_near(number_at(o, "requests"), 0, 0.001);
    json_decref(o);
    /* The step of 10 s is the mean of all of it. */
    assert_int_equal(history_tick(h, &w->view, now_ns + 10 * S, wall_ns + 10 * S), 0);
    o = history(h, false);
    assert_int_equal(json_array_size(at(o, "columns")), json_array_size(at(o, "steps.0")));
    assert_int_equal(json_array_size(at(o, "steps")), 1);
    assert_near(number_at(o, "steps.0.1"), 2, 0.001);
    assert_int_equal(json_array_size(at(o, "seconds")), 2); /* 7 s after the last: no second */
    json_decref(o);
    history_free(&h);
    assert_null(h);
    world_end(w);
}

static void a_tick_just_after_another_makes_no_rate_of_a_single_request(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct history *h = history_new();
    int64_t now_ns = 100 * S;
    for (int i = 0; i < 2; i++, now_ns += S)
        assert_int_equal(history_tick(h, &w->view, now_ns, now_ns), 0);
    now_ns -= S;
    finish(w, depart(w, (struct wanted){.id = 1}), 200, 0, 0);
    /* Pages that are loaded again and again. */
    for (int i = 0; i < 300; i++)
        assert_int_equal(history_tick(h, &w->view, now_ns + (1 + i) * MS, now_ns + (1 + i) * MS),
                         0);
    json_t *o = history(h, true);
    assert_near(number_at(o, "requests"), 0, 0.001);
    json_decref(o);
    assert_int_equal(history_tick(h, &w->view, now_ns + S, now_ns + S), 0);
    o = history(h, true);
    assert_near(number_at(o, "requests"), 1, 0.001);
    json_decref(o);
    o = history(h, false);
    assert_int_equal(json_array_size(at(o, "seconds")), 2);
    json_decref(o);
    history_free(&h);
    world_end(w);
}

static void history_is_bounded_and_forgets_what_is_old(void **state)
{
    (void)state;
    struct world *w = world_of(NULL);
    struct history *h = history_new();
    int64_t now_ns = 100 * S;
    for (int i = 0; i < 5000; i++, now_ns += S)
        assert_int_equal(history_tick(h, &w->view, now_ns, now_ns), 0);
    json_t *o = history(h, false);
    assert_int_equal(json_array_size(at(o, "seconds")), 600);
    assert_int_equal(json_array_size(at(o, "steps")), 360);
    assert_near(number_at(o, "seconds.599.0"), 100 + 4999, 0.001);
    json_decref(o);
    for (int i = 0; i < 40; i++, now_ns += 10 * S) /* nobody looks */
        assert_int_equal(history_tick(h, &w->view, now_ns, now_ns), 0);
    o = history(h, false);
    assert_near((double)json_array_size(at(o, "seconds")), 200, 15);
    assert_int_equal(json_array_size(at(o, "steps")), 360);
    json_decref(o);
    history_free(&h);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_server_has_an_object_with_all_members),
        cmocka_unit_test(totals_are_of_all_workers_and_of_those_that_ended),
        cmocka_unit_test(settings_are_told_with_their_sources_and_without_secrets),
        cmocka_unit_test(a_route_shows_its_requests_times_and_limits),
        cmocka_unit_test(a_route_with_places_shows_who_runs_and_how_long_others_wait),
        cmocka_unit_test(the_table_of_rates_is_told),
        cmocka_unit_test(a_request_in_flight_shows_where_it_is_and_where_it_was),
        cmocka_unit_test(a_thread_that_runs_a_request_or_comes_back_late_is_told),
        cmocka_unit_test(what_is_not_known_of_a_request_is_null),
        cmocka_unit_test(hostile_texts_stay_inside_their_quotes),
        cmocka_unit_test(texts_without_an_end_are_cut_to_their_room),
        cmocka_unit_test(a_record_that_is_being_written_is_left_out),
        cmocka_unit_test(what_a_dead_worker_left_is_not_in_flight),
        cmocka_unit_test(every_order_and_every_filter_is_followed),
        cmocka_unit_test(a_wrong_query_is_told_in_a_sentence),
        cmocka_unit_test(ten_thousand_requests_are_listed_in_milliseconds_and_within_bounds),
        cmocka_unit_test(who_waits_is_counted_by_route_and_user),
        cmocka_unit_test(slow_and_failed_and_refused_requests_of_the_last_hour_are_kept),
        cmocka_unit_test(a_server_is_not_ready_for_the_reasons_that_count),
        cmocka_unit_test(figures_over_time_are_differences),
        cmocka_unit_test(a_tick_just_after_another_makes_no_rate_of_a_single_request),
        cmocka_unit_test(history_is_bounded_and_forgets_what_is_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
