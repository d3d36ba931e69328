/* admission: see the header. */
#include "serve/admission.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/log.h"
#include "base/must.h"
#include "handler/refuse.h"
#include "serve/exchange.h"
#include "serve/server.h"

/* A queue in which somebody waits longer is told in the log. */
static const int64_t LONG_WAIT_MS = 1000;
/* Such a line is written no more often than this. */
static const int64_t TOLD_MS = 10000;
/* Nobody is told to come back later than this for a place. */
static const int64_t RETRY_S_MAX = 60;
/* Grants that are taken at once. */
#define GRANTS 64

static int64_t loop_ms(const struct exchange *x)
{
    return (int64_t)loop_now_ms(&x->server->loop);
}

/* ---- the server's part ---- */

int admission_alone(struct server *s, struct err *e)
{
    struct server_admission *m = &s->admission;
    if (!m->shared && !(m->shared = shared_new(1)))
        return err_set(e, "out of memory");
    m->own = true;
    policy_free(&m->policy);
    if (shared_need(m->shared, s->conf, e))
        return -1;
    return policy_new(&m->policy, s->conf, &m->shared->parts, e);
}

struct shared *admission_give_shared(struct server *s)
{
    must(s->admission.own);
    s->admission.own = false;
    return s->admission.shared;
}

/* A request found its place soon. With users that take turns there may be others that did not, so
 * this counts some time after the line. */
static void is_short(const struct exchange *x)
{
    int64_t *told = &x->server->admission.told_ms[x->admitted.found.index];
    if (WEIR_UNLIKELY(*told && loop_ms(x) - *told >= TOLD_MS))
        *told = 0;
}

/* A line where requests wait long, with the cure; one until the queue is short again. */
static void look_at_wait(struct exchange *x)
{
    struct server_admission *m = &x->server->admission;
    const struct policy_route *r = x->admitted.found.route;
    int64_t waited = loop_ms(x) - x->admitted.parked_ms;
    int64_t *told = &m->told_ms[x->admitted.found.index];
    if (waited < LONG_WAIT_MS)
        is_short(x);
    if (waited < LONG_WAIT_MS || *told)
        return;
    *told = loop_ms(x);
    log_line(LOG_WARNING, x->call.id,
             "requests of %s wait %.1f s for one of its %lld places; raise its concurrency if what "
             "it waits for can take more, or lower its users' rates",
             r->name, (double)waited / 1000, (long long)r->concurrency);
}

/* Others, or we ourselves, gave places to requests that are parked here. */
static void take_granted(struct server *s)
{
    struct server_admission *m = &s->admission;
    uint64_t cookies[GRANTS];
    unsigned n;
    do {
        n = gates_take_granted(m->shared->parts.gates, m->owner, cookies, GRANTS);
        for (unsigned i = 0; i < n; i++) {
            struct exchange *x = (struct exchange *)(uintptr_t)cookies[i];
            if (x->admitted.park != PARK_QUEUE) /* a dry run: it has not waited */
                continue;
            x->admitted.park = PARK_NOT;
            look_at_wait(x);
            exchange_go(x);
        }
    } while (n == GRANTS);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct server *s = poll->data;
    uint64_t count;
    ssize_t n = read(s->admission.shared->wakes[s->admission.owner.slot], &count, sizeof count);
    (void)n;
    take_granted(s);
}

static void wake(struct server *s, const struct gate_wakes *wakes)
{
    if (wakes->n)
        shared_wake(s->admission.shared, wakes);
}

int admission_start(struct server *s, struct err *e)
{
    struct server_admission *m = &s->admission;
    if (!m->policy)
        return 0;
    if (m->shared->parts.gates) {
        int rc = uv_poll_init(&s->loop.uv, &m->wake, m->shared->wakes[m->owner.slot]);
        if (rc)
            return err_set(e, "cannot watch the queue: %s", uv_strerror(rc));
        m->wake.data = s;
        m->wake_made = true;
        uv_poll_start(&m->wake, UV_READABLE, on_wake);
        /* Limits of a reload hold at once, also for those that wait. */
        struct gate_wakes wakes;
        unsigned route = 0;
        while (policy_pump(m->policy, &route, clock_mono_ns(), &wakes))
            shared_wake(m->shared, &wakes);
    }
    if (!m->shared->door)
        return 0;
    struct keeper_link_settings set = {
        .door = m->shared->door, .slot = m->owner.slot, .generation = m->owner.generation};
    return keeper_link_new(&m->link, &s->loop, &set) ? err_set(e, "out of memory") : 0;
}

void admission_close(struct server *s)
{
    struct server_admission *m = &s->admission;
    if (m->link)
        keeper_link_free(&m->link);
    if (m->wake_made)
        uv_close((uv_handle_t *)&m->wake, NULL);
    m->wake_made = false;
}

void admission_free(struct server *s)
{
    struct server_admission *m = &s->admission;
    policy_free(&m->policy);
    if (m->own)
        shared_free(&m->shared);
}

/* ---- the head ---- */

static struct refusal *keep_refusal(struct exchange *x, const struct refusal *why)
{
    static struct refusal no_memory = {
        .id = REFUSAL_QUEUE_FULL, .detail = "the server is out of memory", .retry_after_s = 1};
    struct refusal *r = arena_alloc(&x->arena, sizeof *r);
    if (!r)
        return &no_memory;
    *r = *why;
    r->openai = policy_speaks_openai(&x->admitted.found, &x->req);
    return r;
}

static void log_refusal(const struct exchange *x, const struct refusal *why)
{
    char whose[88 * 4 + 1];
    struct slice s =
        x->admitted.found.account.n ? x->admitted.found.account : slice_str(x->peer.remote_addr);
    s.n = s.n < 88 ? s.n : 88;
    *escape_text(whose, s) = '\0';
    log_flood(LOG_INFO, x->call.id, "refused a request of %s with %d: %s%s%s",
              *whose ? whose : "a Unix socket", refusal_status(why->id), refusal_word(why->id),
              why->limit ? " of " : "", why->limit ? why->limit : "");
}

static struct slice client_of(const struct exchange *x)
{
    const struct proxy_facts *p = x->call.proxy;
    return slice_str(p && *p->client.host ? p->client.host : x->peer.remote_addr);
}

static struct slice script_name_of(const struct exchange *x)
{
    return x->call.proxy ? x->call.proxy->script_name : (struct slice){0};
}

static struct policy_now now_of(const struct exchange *x)
{
    int64_t head_ns = x->call.start_ns; /* a moment ago, where it was looked at */
    return (struct policy_now){.mono_ns = head_ns ? head_ns : clock_mono_ns(),
                               .wall_s = clock_wall_s()};
}

void admission_head(struct exchange *x)
{
    struct server *s = x->server;
    struct policy *p = s->admission.policy;
    struct admitted *a = &x->admitted;
    if (exchange_path_is(x, SLICE("ping"))) /* a route for everything is none for health checks */
        return;
    if (policy_has_cors(p)) {
        bool asks = cors_is_preflight(&x->req, &a->ask);
        const struct policy_cors *c =
            policy_cors_of(p, asks ? a->ask.method : x->req.method, x->req.path, script_name_of(x));
        if (c)
            x->call.cors = cors_lines(c, asks ? a->ask.origin : req_field(&x->req, SLICE("origin")),
                                      &x->arena);
        if (c && asks) {
            a->preflight = c;
            return;
        }
    }
    struct refusal why = {0};
    a->usage = exchange_path_is(x, SLICE("usage")) && policy_has_usage(p);
    bool good = a->usage
                    ? policy_who(p, &a->found, &x->req, client_of(x), &x->arena, now_of(x), &why)
                    : policy_admit(p, &a->found, &x->req, script_name_of(x), client_of(x),
                                   &x->arena, now_of(x), &why);
    x->call.extra = a->found.fields;
    if (a->found.who.by)
        x->call.who = &a->found.who;
    if (a->found.route)
        x->job.reserved = a->found.route->lane == LANE_RESERVED;
    int wanted = policy_wanted_keys(p);
    if (WEIR_UNLIKELY(wanted >= 0) && s->admission.link)
        keeper_link_refetch(s->admission.link, (unsigned)wanted);
    if (good)
        return;
    a->refused = keep_refusal(x, &why);
    log_refusal(x, &why);
}

/* ---- refusals that come later ---- */

/* It is refused by what comes behind the rates: they are given back. */
static enum admission_next refused(struct exchange *x, const struct refusal *why)
{
    struct admitted *a = &x->admitted;
    policy_refund(x->server->admission.policy, &a->found, clock_mono_ns());
    a->refused = keep_refusal(x, why);
    log_refusal(x, why);
    return ADMISSION_REFUSED;
}

/* `dry_run`: only say so. */
static bool is_dry(struct exchange *x, const struct refusal *why)
{
    const struct policy_route *r = x->admitted.found.route;
    if (!r->dry_run)
        return false;
    log_flood(LOG_INFO, x->call.id, "dry run: %s would have refused a request with %d: %s", r->name,
              refusal_status(why->id), refusal_word(why->id));
    flights_dry_run(x, why->id);
    return true;
}

/* Up to a quarter more, so that not all come back together. */
static int64_t with_chance(const struct exchange *x, int64_t s)
{
    uint64_t h = ((uint64_t)clock_mono_ns() ^ x->call.id) * 0x9e3779b97f4a7c15u;
    s += (int64_t)((h >> 33) % (uint64_t)(s / 4 + 1));
    return s < 1 ? 1 : s > RETRY_S_MAX ? RETRY_S_MAX : s;
}

/* ---- the place ---- */

static enum admission_next enter_gate(struct exchange *x)
{
    struct server_admission *m = &x->server->admission;
    struct admitted *a = &x->admitted;
    const struct policy_route *r = a->found.route;
    uint32_t route = policy_gate(m->policy, &a->found);
    if (route == GATE_NONE)
        return ADMISSION_GO;
    struct gate_ask ask = {
        .route = route,
        .limits = policy_gate_limits(m->policy, r),
        .owner = m->owner,
        .flow = a->found.flow,
        .shares = r->queue_fair_by != BY_ROUTE,
        .weight = 1,
        .deadline_ns = x->deadline_ms ? x->deadline_ms * 1000000 : INT64_MAX,
        .cookie = (uint64_t)(uintptr_t)x,
    };
    struct gate_answer answer;
    WEIR_UNINITIALIZED struct gate_wakes wakes;
    struct refusal why = {0};
    enum gate_verdict v = gates_enter(m->shared->parts.gates, &ask, clock_mono_ns(), &answer);
    /* Where another generation's limits were smaller, it may have granted to those that wait. */
    gates_wakes(m->shared->parts.gates, &wakes);
    wake(x->server, &wakes);
    switch (v) {
    case GATE_ENTERED:
        a->ticket = answer.ticket;
        is_short(x);
        return ADMISSION_GO;
    case GATE_QUEUED:
        a->ticket = answer.ticket;
        if (r->dry_run) /* its ticket waits, so that the queue has the length that it would have */
            return ADMISSION_GO;
        a->park = PARK_QUEUE;
        a->parked_ms = loop_ms(x);
        a->wait_ends_ms = a->parked_ms + r->queue_wait_ms;
        return ADMISSION_PARKED;
    case GATE_FULL:
        why.id = REFUSAL_QUEUE_FULL;
        break;
    case GATE_LATE:
        why.id = REFUSAL_QUEUE_LATE;
        break;
    }
    if (is_dry(x, &why))
        return ADMISSION_GO;
    why.position = answer.position;
    why.expected_ms = answer.expected_ns / 1000000;
    int64_t later_ms = why.expected_ms - (r->queue_size ? r->queue_wait_ms : 0);
    why.retry_after_s = with_chance(x, later_ms > 0 ? (later_ms + 999) / 1000 : 1);
    return refused(x, &why);
}

/* ---- the quota ---- */

static const char MONTH_LINE[] =
    "RateLimit-Policy: \"%s\";q=%lld;w=%lld\r\nRateLimit: \"%s\";r=%lld;t=%lld\r\n";

/* Append what is left of the tighter of day and month to the answer's fields. */
static void add_quota_fields(struct exchange *x, const struct policy_quota *q,
                             const struct quota_use *u, int64_t now_s)
{
    bool day = q->day != QUOTA_UNLIMITED &&
               (q->month == QUOTA_UNLIMITED || q->day - u->day <= q->month - u->month);
    int64_t limit = day ? q->day : q->month, used = day ? u->day : u->month;
    int64_t ends = day ? u->day_ends_s : u->month_ends_s;
    size_t room = x->call.extra.n + 200;
    char *text =
        policy_draft_fields(x->server->admission.policy) ? arena_alloc(&x->arena, room) : NULL;
    if (!text)
        return;
    if (x->call.extra.n)
        memcpy(text, x->call.extra.p, x->call.extra.n);
    int n = snprintf(text + x->call.extra.n, 200, MONTH_LINE, day ? "day" : "month",
                     (long long)limit, day ? 86400LL : 2592000LL, day ? "day" : "month",
                     (long long)(used < limit ? limit - used : 0),
                     (long long)(ends > now_s ? ends - now_s : 0));
    x->call.extra = slice_of(text, x->call.extra.n + (size_t)n);
}

static void on_spent(void *arg, int error, const enum quota_verdict *verdict,
                     const struct quota_use *use)
{
    struct exchange *x = arg;
    struct admitted *a = &x->admitted;
    const struct policy_route *r = a->found.route;
    struct refusal why = {0};
    const struct policy_quota *limits = NULL;
    int64_t now_s = clock_wall_ns() / 1000000000;
    a->park = PARK_NOT;
    a->question = 0;
    (void)policy_quota(&a->found, &limits);
    if (error) {
        bool open = r->quota_store_down == STORE_DOWN_OPEN || r->dry_run;
        if (open) { /* a line of its own: a closed route's lines must not leave it out */
            log_flood(LOG_ERROR, x->call.id,
                      "the store of quotas cannot be asked: %s; %s is open meanwhile",
                      strerror(-error), r->name);
            exchange_go_on(x);
            return;
        }
        log_flood(LOG_ERROR, x->call.id,
                  "the store of quotas cannot be asked: %s; %s is closed meanwhile",
                  strerror(-error), r->name);
        why.id = REFUSAL_STORE_DOWN;
        why.retry_after_s = with_chance(x, 4);
        (void)refused(x, &why);
        exchange_refuse(x);
        return;
    }
    add_quota_fields(x, limits, use, now_s);
    if (*verdict == QUOTA_SPENT) {
        a->spent = true;
        exchange_go_on(x);
        return;
    }
    bool day = *verdict == QUOTA_DAY_OVER;
    why.id = day ? REFUSAL_QUOTA_DAY : REFUSAL_QUOTA_MONTH;
    why.limit = *limits->tier ? limits->tier : NULL;
    why.retry_after_s = (day ? use->day_ends_s : use->month_ends_s) - now_s;
    if (is_dry(x, &why)) {
        exchange_go_on(x);
        return;
    }
    (void)refused(x, &why);
    exchange_refuse(x);
}

/* ADMISSION_GO: no quota, or it is spent. */
static enum admission_next enter_quota(struct exchange *x)
{
    struct server_admission *m = &x->server->admission;
    struct admitted *a = &x->admitted;
    const struct policy_quota *limits;
    struct refusal why = {0};
    switch (policy_quota(&a->found, &limits)) {
    case POLICY_QUOTA_NONE:
        return ADMISSION_GO;
    case POLICY_QUOTA_NEVER:
        why.id = REFUSAL_TIER;
        return is_dry(x, &why) ? ADMISSION_GO : refused(x, &why);
    case POLICY_QUOTA_ASK:
        break;
    }
    must(m->link);
    a->op = keeper_link_op(m->link);
    struct keeper_spend spend = {
        .op = a->op,
        .user = a->found.account,
        .route = slice_str(a->found.route->name),
        .limits = {.day = limits->day, .month = limits->month},
    };
    a->park = PARK_QUOTA;
    a->parked_ms = loop_ms(x);
    int rc = keeper_link_spend(m->link, &spend, on_spent, x, &a->question);
    if (!rc)
        return ADMISSION_PARKED;
    a->park = PARK_NOT;
    if (a->found.route->quota_store_down == STORE_DOWN_OPEN || a->found.route->dry_run)
        return ADMISSION_GO;
    why.id = REFUSAL_STORE_DOWN;
    why.retry_after_s = with_chance(x, 4);
    return refused(x, &why);
}

enum admission_next admission_enter(struct exchange *x)
{
    struct admitted *a = &x->admitted;
    if (!a->found.route)
        return ADMISSION_GO;
    if (!a->quota_done) {
        a->quota_done = true;
        enum admission_next next = enter_quota(x);
        if (next != ADMISSION_GO)
            return next;
    }
    return enter_gate(x);
}

/* ---- the end ---- */

void admission_leave(struct exchange *x)
{
    struct admitted *a = &x->admitted;
    if (a->ticket == GATE_NONE)
        return;
    struct gate_wakes wakes = {0};
    gates_leave(x->server->admission.shared->parts.gates, a->ticket, a->park == PARK_NOT,
                clock_mono_ns(), &wakes);
    a->ticket = GATE_NONE;
    wake(x->server, &wakes);
}

void admission_end(struct exchange *x, bool began)
{
    struct admitted *a = &x->admitted;
    struct keeper_link *link = x->server->admission.link;
    if (a->found.n_spent && !began && x->state != X_SENDING) /* nothing has answered it */
        policy_refund(x->server->admission.policy, &a->found, clock_mono_ns());
    if (a->question && link)
        keeper_link_forget(link, a->question);
    if (a->quota_done && !began) /* queued, and never run: left, late, or stopped */
        policy_refund(x->server->admission.policy, &a->found, clock_mono_ns());
    if (a->spent && !began && link && keeper_link_refund(link, a->op))
        log_flood(LOG_WARNING, x->call.id, "%s",
                  "a request that was not served stays counted: too many refunds are under way");
    if (a->ticket != GATE_NONE) {
        struct gate_wakes wakes = {0};
        gates_leave(x->server->admission.shared->parts.gates, a->ticket, false, clock_mono_ns(),
                    &wakes);
        wake(x->server, &wakes);
    }
    memset(a, 0, sizeof *a);
    a->ticket = GATE_NONE;
    x->job.reserved = false;
    x->call.extra = x->call.cors = (struct slice){0};
    x->call.who = NULL;
}

int64_t admission_wait_ends(const struct exchange *x)
{
    return x->admitted.park == PARK_QUEUE ? x->admitted.wait_ends_ms : INT64_MAX;
}

int64_t admission_look_at(const struct exchange *x)
{
    const struct admitted *a = &x->admitted;
    int64_t at = a->parked_ms + LONG_WAIT_MS;
    return a->park == PARK_QUEUE && loop_ms(x) < at ? at : 0;
}

bool admission_look(struct exchange *x)
{
    if (x->admitted.park != PARK_QUEUE)
        return true;
    take_granted(x->server);
    if (x->admitted.park != PARK_QUEUE)
        return false;
    if (loop_ms(x) - x->admitted.parked_ms >= LONG_WAIT_MS)
        look_at_wait(x);
    return true;
}

bool admission_wait_over(struct exchange *x, int64_t now_ms)
{
    struct server_admission *m = &x->server->admission;
    struct admitted *a = &x->admitted;
    if (a->park != PARK_QUEUE || now_ms < a->wait_ends_ms)
        return false;
    struct refusal why = {.id = REFUSAL_QUEUE_WAIT};
    int64_t expected_ns = 0;
    look_at_wait(x);
    why.position = gates_position(m->shared->parts.gates, a->ticket, &expected_ns);
    why.expected_ms = expected_ns / 1000000;
    why.retry_after_s = with_chance(x, why.expected_ms > 0 ? (why.expected_ms + 999) / 1000 : 1);
    (void)refused(x, &why);
    return true;
}

bool admission_explains(const struct exchange *x, enum refusal_id id, struct refusal *r)
{
    if (!x->admitted.found.route)
        return false;
    *r = (struct refusal){.id = id, .openai = policy_speaks_openai(&x->admitted.found, &x->req)};
    if (refusal_status(id) == 503)
        r->retry_after_s = with_chance(x, 1);
    return true;
}

/* ---- what is answered here ---- */

/* "2026-11-30T00:00:00Z". */
static void utc_text(char to[32], int64_t s)
{
    struct tm tm;
    time_t t = (time_t)s;
    if (!gmtime_r(&t, &tm) || !strftime(to, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        to[0] = '\0';
}

static int add_json(struct buf *b, const char *text, size_t n)
{
    if (buf_reserve(b, n * ESCAPE_GROWTH))
        return -ENOMEM;
    b->n = (size_t)(escape_json(b->p + b->n, slice_of(text, n)) - b->p);
    return 0;
}

static int add_count(struct buf *b, const char *name, int64_t used, int64_t limit, int64_t ends_s)
{
    char ends[32], most[24] = "null";
    utc_text(ends, ends_s);
    if (limit != QUOTA_UNLIMITED)
        snprintf(most, sizeof most, "%lld", (long long)limit);
    return buf_addf(b, ",\"%s\":{\"used\":%lld,\"limit\":%s,\"ends\":\"%s\"}", name,
                    (long long)used, most, ends);
}

/* What the user has spent of the quota of a route, and may. */
static int add_quota(struct buf *b, const struct exchange *x, const struct policy_route *r,
                     const struct quota_row *rows, unsigned n)
{
    struct admission as = x->admitted.found;
    const struct policy_quota *q = NULL;
    as.route = r;
    enum policy_quota_kind kind = policy_quota(&as, &q);
    struct quota_use none = {0};
    const struct quota_use *use = &none;
    policy_periods(clock_wall_ns() / 1000000000, &none.day_ends_s, &none.month_ends_s);
    for (unsigned i = 0; i < n; i++)
        if (strncmp(rows[i].route, r->name, sizeof rows[i].route - 1) == 0)
            use = &rows[i].use;
    int64_t never = kind == POLICY_QUOTA_NEVER ? 0 : QUOTA_UNLIMITED;
    return add_count(b, "day", use->day, q ? q->day : never, use->day_ends_s) ||
                   add_count(b, "month", use->month, q ? q->month : never, use->month_ends_s)
               ? -ENOMEM
               : 0;
}

/* Which of his requests wait for a place, where they stand, and for how long they will; null: not
 * known yet. */
#define PLACES_MAX 32
static int add_places(struct buf *b, const struct exchange *x, unsigned route)
{
    const struct server_admission *m = &x->server->admission;
    struct gate_place places[PLACES_MAX];
    uint64_t flow;
    uint32_t gate = policy_turn(m->policy, &x->admitted.found, route, client_of(x), &flow);
    unsigned n = gate == GATE_NONE
                     ? 0
                     : gates_places(m->shared->parts.gates, gate, flow, places, PLACES_MAX);
    if (buf_addf(b, ",\"waiting\":["))
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        char expected[32] = "null";
        if (places[i].expected_ns)
            snprintf(expected, sizeof expected, "%.3f", (double)places[i].expected_ns / 1e9);
        if (buf_addf(b, "%s{\"position\":%u,\"expected_wait\":%s}", i ? "," : "",
                     places[i].position, expected))
            return -ENOMEM;
    }
    return buf_addf(b, "]");
}

/* One route of the policy: what is the user's own in it. */
static int add_route(struct buf *b, const struct exchange *x, unsigned route,
                     const struct quota_row *rows, unsigned n)
{
    const struct policy_route *r = &x->server->conf->policy.routes[route];
    if (!r->n_quotas && !r->concurrency)
        return 0;
    if (buf_addf(b, "%s{\"route\":\"", b->p[b->n - 1] == '[' ? "" : ",") ||
        add_json(b, r->name, strlen(r->name)) || buf_addf(b, "\"") ||
        (r->n_quotas && add_quota(b, x, r, rows, n)) || (r->concurrency && add_places(b, x, route)))
        return -ENOMEM;
    return buf_addf(b, "}");
}

static void answer_json(struct call *c, struct slice body)
{
    bool good = call_status(c, SLICE("200 OK")) == CALL_OK &&
                call_field(c, SLICE("Content-Type"), SLICE("application/json")) == CALL_OK &&
                call_field(c, SLICE("Cache-Control"), SLICE("no-store")) == CALL_OK &&
                !call_begin(c, (int64_t)body.n) && !call_data(c, body) && !call_end(c);
    if (!good)
        call_abort(c, "no memory for an answer");
}

static void write_usage(struct exchange *x, const struct quota_row *rows, unsigned n)
{
    const struct who *who = &x->admitted.found.who;
    struct buf b = {.max = (size_t)256 * 1024};
    int rc = buf_addf(&b, "{\"user\":\"") || add_json(&b, who->user.p, who->user.n) ||
             buf_addf(&b, "\",\"tier\":\"") || add_json(&b, who->tier.p, who->tier.n) ||
             buf_addf(&b, "\",\"routes\":[");
    for (unsigned i = 0; !rc && i < x->server->conf->policy.n_routes; i++)
        rc = add_route(&b, x, i, rows, n);
    if (rc || buf_addf(&b, "]}\n"))
        call_error(&x->call, 503, "out of memory");
    else
        answer_json(&x->call, buf_slice(&b));
    buf_fini(&b);
}

static void on_used(void *arg, int error, const struct quota_row *rows, unsigned n)
{
    struct exchange *x = arg;
    x->admitted.park = PARK_NOT;
    x->admitted.question = 0;
    if (error) {
        struct refusal why = {.id = REFUSAL_STORE_DOWN, .retry_after_s = with_chance(x, 4)};
        refuse(&x->call, &why);
    } else {
        write_usage(x, rows, n);
    }
    exchange_answered(x);
}

static bool has_quotas(const struct conf_policy *said)
{
    for (unsigned i = 0; i < said->n_routes; i++)
        if (said->routes[i].n_quotas)
            return true;
    return false;
}

static void answer_usage(struct exchange *x)
{
    struct admitted *a = &x->admitted;
    struct call *c = &x->call;
    if (!slice_eq(x->req.method, SLICE("GET")) && !x->req.head) {
        call_error(c, 405, "ask with GET");
        return;
    }
    if (!a->found.who.user.n) {
        struct refusal why = {.id = REFUSAL_NO_CREDENTIALS,
                              .authenticate = policy_challenge(x->server->admission.policy)};
        refuse(c, &why);
        return;
    }
    if (!has_quotas(&x->server->conf->policy)) { /* nobody is to be asked */
        write_usage(x, NULL, 0);
        return;
    }
    a->park = PARK_USAGE;
    if (keeper_link_usage(x->server->admission.link, a->found.account, on_used, x, &a->question)) {
        struct refusal why = {.id = REFUSAL_STORE_DOWN, .retry_after_s = with_chance(x, 4)};
        a->park = PARK_NOT;
        refuse(c, &why);
    }
}

bool admission_native(struct exchange *x)
{
    struct admitted *a = &x->admitted;
    if (a->preflight)
        cors_preflight(a->preflight, &a->ask, &x->call);
    else if (a->refused)
        refuse(&x->call, a->refused);
    else if (a->usage)
        answer_usage(x);
    else
        return false;
    return true;
}
