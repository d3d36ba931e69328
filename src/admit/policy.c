/* policy: see the header. */
#include "admit/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "admit/identify.h"
#include "admit/route_match.h"
#include "base/log.h"
#include "base/must.h"

/* One GCRA rate of a route, ready to be asked. */
struct limit {
    struct gcra_rate rate;
    uint64_t id; /* names it in the shared table: the same in every process and after a reload */
    struct slice text; /* "\"user\";q=10;w=60" */
    struct slice name; /* "user" */
    const struct policy_rate *said;
};

struct route {
    const struct policy_route *said;
    struct limit *limits; /* owned; said->n_rates of them */
    uint32_t gate;        /* GATE_NONE: no bound */
    bool asks_who;
};

struct policy {
    const struct conf_policy *said; /* lent */
    struct policy_shared shared;
    struct route_match *match; /* owned */
    struct identify *identify; /* owned */
    struct arena arena;
    struct route *routes;
    struct slice prefix;         /* url-prefix; lent by the conf */
    bool draft_fields, x_fields; /* rate-headers */
    bool has_cors;
};

/* ---- making ---- */

/* FNV-1a of texts with their ends: a name for the shared table, no secret. */
static uint64_t name_hash(uint64_t h, const char *text)
{
    for (;; text++) {
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
        if (!*text)
            return h;
    }
}

static const char *by_word(enum policy_by by)
{
    static const char *const WORDS[] = {
        [BY_ROUTE] = "route", [BY_USER] = "user", [BY_ADDRESS] = "address"};
    must((unsigned)by < countof(WORDS));
    return WORDS[by];
}

static int limit_make(struct policy *p, struct limit *l, const struct policy_route *route,
                      const struct policy_rate *said, struct err *e)
{
    l->said = said;
    if (gcra_rate_make(&l->rate, said->units, said->period_ns, said->burst))
        return err_set(e, "%s:%u: the rate of %s is out of range", p->said->file, route->line,
                       route->name);
    /* Not the numbers: who was in debt stays so when a reload changes them. */
    l->id = name_hash(name_hash(name_hash(0xcbf29ce484222325u, route->name), by_word(said->by)),
                      said->tier);
    char text[96];
    int n = snprintf(text, sizeof text, "\"%s\";q=%lld;w=%lld", by_word(said->by),
                     (long long)said->units, (long long)(said->period_ns / 1000000000));
    l->text = arena_copy(&p->arena, slice_of(text, (size_t)n));
    l->name = slice_str(by_word(said->by));
    return l->text.p ? 0 : err_set(e, "out of memory");
}

static int route_make(struct policy *p, struct route *r, const struct policy_route *said,
                      struct err *e)
{
    r->said = said;
    r->gate = GATE_NONE;
    if (said->n_rates) {
        r->limits = arena_alloc(&p->arena, said->n_rates * sizeof *r->limits);
        if (!r->limits)
            return err_set(e, "out of memory");
        memset(r->limits, 0, said->n_rates * sizeof *r->limits);
    }
    for (unsigned i = 0; i < said->n_rates; i++)
        if (limit_make(p, &r->limits[i], said, &said->rates[i], e))
            return -1;
    /* A health check costs nothing: a reserved route asks who only where it needs to know. */
    r->asks_who = said->lane == LANE_COMMON || said->require == REQUIRE_USER || said->n_rates ||
                  said->n_quotas;
    if (said->concurrency) {
        must(p->shared.gates);
        r->gate = gates_route(p->shared.gates, said->name);
        if (r->gate == GATE_NONE)
            return err_set(e,
                           "%s:%u: too many routes with concurrency are in use; restart the "
                           "server, or name routes as before",
                           p->said->file, said->line);
    }
    return 0;
}

int policy_new(struct policy **out, const struct conf *conf, const struct policy_shared *shared,
               struct err *e)
{
    *out = NULL;
    const struct conf_policy *said = &conf->policy;
    if (!policy_is_given(said))
        return 0;
    struct policy *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, "out of memory");
    p->said = said;
    p->shared = *shared;
    p->prefix = slice_str(conf->url_prefix);
    p->x_fields = strcmp(conf->rate_headers, "x") == 0 || strcmp(conf->rate_headers, "both") == 0;
    p->draft_fields =
        strcmp(conf->rate_headers, "draft") == 0 || strcmp(conf->rate_headers, "both") == 0;
    p->routes = arena_alloc(&p->arena, (said->n_routes + 1) * sizeof *p->routes);
    if (!p->routes) {
        policy_free(&p);
        return err_set(e, "out of memory");
    }
    memset(p->routes, 0, (said->n_routes + 1) * sizeof *p->routes);
    p->has_cors = said->cors.given;
    for (unsigned i = 0; i < said->n_routes; i++)
        p->has_cors |= said->routes[i].cors.given;
    for (unsigned i = 0; i < said->n_routes; i++)
        if (route_make(p, &p->routes[i], &said->routes[i], e)) {
            policy_free(&p);
            return -1;
        }
    p->match = route_match_new(said);
    if (!p->match) {
        policy_free(&p);
        return err_set(e, "out of memory");
    }
    if (identify_new(&p->identify, said, shared->rates, shared->keys, e)) {
        policy_free(&p);
        return -1;
    }
    *out = p;
    return 0;
}

void policy_free(struct policy **pp)
{
    struct policy *p = *pp;
    *pp = NULL;
    if (!p)
        return;
    route_match_free(&p->match);
    identify_free(&p->identify);
    arena_fini(&p->arena);
    free(p);
}

/* ---- rates ---- */

/* Whose limits count, hashed once for each: the account, and the address. */
struct whose {
    const struct rates *rates;
    struct slice text[2];
    struct rates_key key[2]; /* 0: not made yet */
};
enum whose_of { OF_ACCOUNT = 0, OF_ADDRESS };

static const struct rates_key *whose_key(struct whose *w, enum whose_of of)
{
    if (!w->key[of].h[0])
        w->key[of] = rates_who(w->rates, w->text[of]);
    return &w->key[of];
}

/* Of the limits by `by` the one that counts for the tier; NULL: none. */
static const struct limit *limit_for(const struct route *r, enum policy_by by, struct slice tier)
{
    const struct limit *common = NULL;
    for (unsigned i = 0; i < r->said->n_rates; i++) {
        const struct limit *l = &r->limits[i];
        if (l->said->by != by)
            continue;
        if (!*l->said->tier)
            common = l;
        else if (tier.n && slice_eq(tier, slice_str(l->said->tier)))
            return l;
    }
    return common;
}

static char *put(char *to, struct slice s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

#define PUT(to, lit) put(to, SLICE(lit))

static char *put_number(char *to, int64_t v)
{
    WEIR_UNINITIALIZED char digits[20];
    unsigned n = 0;
    uint64_t rest = v > 0 ? (uint64_t)v : 0;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    while (n)
        *to++ = digits[--n];
    return to;
}

static int64_t seconds_up(int64_t ns)
{
    return ns <= 0 ? 0 : (ns - 1) / 1000000000 + 1;
}

#define FIELD_BYTES_MAX 160 /* of one limit in both fields, see limit_make and put_number */

/* RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11, X-RateLimit-* of the
 * limit that has least left. */
static struct slice fields_of(const struct policy *p, const struct limit *const *limits,
                              const struct rates_ask *asks, unsigned n, struct arena *arena)
{
    char *start = arena_alloc(arena, n * FIELD_BYTES_MAX + 256), *to = start;
    if (!start)
        return (struct slice){0};
    unsigned least = 0;
    for (unsigned i = 1; i < n; i++)
        if (asks[i].left < asks[least].left)
            least = i;
    if (p->draft_fields) {
        to = PUT(to, "RateLimit-Policy: ");
        for (unsigned i = 0; i < n; i++) {
            to = put(to, limits[i]->text);
            to = i + 1 < n ? PUT(to, ", ") : PUT(to, "\r\nRateLimit: ");
        }
        for (unsigned i = 0; i < n; i++) {
            *to++ = '"';
            to = put(to, limits[i]->name);
            to = PUT(to, "\";r=");
            to = put_number(to, asks[i].left);
            to = PUT(to, ";t=");
            to = put_number(to, seconds_up(asks[i].reset_ns));
            to = i + 1 < n ? PUT(to, ", ") : PUT(to, "\r\n");
        }
    }
    if (p->x_fields) {
        to = PUT(to, "X-RateLimit-Limit: ");
        to = put_number(to, limits[least]->said->units);
        to = PUT(to, "\r\nX-RateLimit-Remaining: ");
        to = put_number(to, asks[least].left);
        to = PUT(to, "\r\nX-RateLimit-Reset: ");
        to = put_number(to, seconds_up(asks[least].reset_ns));
        to = PUT(to, "\r\n");
    }
    return slice_of(start, (size_t)(to - start));
}

/* The limit that is hardest to wait for. */
static void explain(const struct limit *const *limits, const struct rates_ask *asks, unsigned n,
                    struct arena *arena, struct refusal *why)
{
    unsigned worst = 0;
    for (unsigned i = 0; i < n; i++)
        if (asks[i].verdict != GCRA_SPENT && asks[i].wait_ns >= asks[worst].wait_ns)
            worst = i;
    const struct policy_rate *said = limits[worst]->said;
    why->id = REFUSAL_RATE;
    why->limit = by_word(said->by);
    why->retry_after_s = seconds_up(asks[worst].wait_ns);
    if (why->retry_after_s < 1)
        why->retry_after_s = 1;
    char *text = arena_alloc(arena, 160);
    if (text)
        snprintf(
            text, 160,
            "at most %lld requests in %lld s and %lld at once for each %s; ask again in %lld s",
            (long long)said->units, (long long)(said->period_ns / 1000000000),
            (long long)said->burst, by_word(said->by), (long long)why->retry_after_s);
    why->detail = text;
}

static bool out_of_memory(struct refusal *why)
{
    why->id = REFUSAL_QUEUE_FULL;
    why->detail = "the server is out of memory";
    why->retry_after_s = 1;
    return false;
}

static bool check_rates(struct policy *p, struct admission *a, const struct route *r,
                        struct whose *whose, struct arena *arena, int64_t now_ns,
                        struct refusal *why)
{
    static const enum policy_by ORDER[] = {BY_USER, BY_ADDRESS, BY_ROUTE};
    const struct limit *limits[countof(ORDER)];
    WEIR_UNINITIALIZED struct rates_ask asks[countof(ORDER)];
    unsigned n = 0;
    for (unsigned i = 0; i < countof(ORDER); i++) {
        const struct limit *l = limit_for(r, ORDER[i], a->who.tier);
        if (!l)
            continue;
        bool by_address = ORDER[i] == BY_ADDRESS || (ORDER[i] == BY_USER && !a->who.user.n);
        limits[n] = l;
        asks[n++] = (struct rates_ask){
            .kind = by_address ? RATES_ADDRESSES : RATES_USERS,
            .key =
                ORDER[i] == BY_ROUTE
                    ? rates_key(p->shared.rates, l->id, SLICE(""))
                    : rates_key_of(whose_key(whose, by_address ? OF_ADDRESS : OF_ACCOUNT), l->id),
            .rate = &l->rate,
            .cost = 1};
    }
    if (!n)
        return true;
    bool good = rates_spend(p->shared.rates, asks, n, now_ns);
    if (p->draft_fields || p->x_fields)
        a->fields = fields_of(p, limits, asks, n, arena);
    if (!good) {
        explain(limits, asks, n, arena, why);
        return false;
    }
    a->spent = arena_alloc(arena, n * sizeof *asks);
    if (!a->spent) {
        rates_refund(p->shared.rates, asks, n, now_ns);
        return out_of_memory(why);
    }
    memcpy(a->spent, asks, n * sizeof *asks);
    a->n_spent = n;
    return true;
}

void policy_refund(struct policy *p, struct admission *a, int64_t now_ns)
{
    if (a->n_spent)
        rates_refund(p->shared.rates, a->spent, a->n_spent, now_ns);
    a->n_spent = 0;
}

/* ---- the checks ---- */

/* Whose turn it is in the queue of the route; 0: there are no turns. */
static uint64_t flow_of(const struct policy *p, const struct route *r, struct whose *whose)
{
    if (!p->shared.rates || !r->said->queue_size || r->said->queue_fair_by == BY_ROUTE)
        return 0;
    return whose_key(whose, r->said->queue_fair_by == BY_USER ? OF_ACCOUNT : OF_ADDRESS)->h[0];
}

static void told_dry(const struct admission *a, const struct refusal *why)
{
    log_flood(LOG_INFO, 0, "dry run: %s would have refused a request of %.*s: %s", a->route->name,
              (int)(a->account.n < 64 ? a->account.n : 64), a->account.p, refusal_word(why->id));
}

static unsigned find_route(const struct policy *p, struct slice method, struct slice path,
                           struct slice script_name)
{
    return route_match_below(p->match, method, path, script_name.n ? script_name : p->prefix);
}

bool policy_admit(struct policy *p, struct admission *a, const struct req *req,
                  struct slice script_name, struct slice address, struct arena *arena,
                  struct policy_now now, struct refusal *why)
{
    unsigned i = find_route(p, req->method, req->path, script_name);
    if (i == ROUTE_NONE)
        return true;
    const struct route *r = &p->routes[i];
    a->route = r->said;
    a->index = i;
    if (!r->asks_who)
        return true;
    char network[64];
    struct slice address_key = identify_network(address, network, sizeof network);
    enum identify_verdict v = identify_who(p->identify, a, req, address_key, arena, now, why);
    switch (v) {
    case IDENTIFY_KNOWN:
    case IDENTIFY_NOBODY:
        break;
    case IDENTIFY_REFUSED: /* a wrong token where nobody needs one is no token */
        if (r->said->require == REQUIRE_USER || why->id == REFUSAL_BAD_CREDENTIALS_OFTEN)
            return false;
        *why = (struct refusal){0};
        break;
    case IDENTIFY_NO_MEMORY:
        return out_of_memory(why);
    }
    if (r->said->require == REQUIRE_USER && !a->who.user.n) {
        why->id = REFUSAL_NO_CREDENTIALS;
        why->authenticate = identify_challenge(p->identify);
        return false;
    }
    if (!a->account.n)
        a->account = arena_copy(arena, address_key);
    if (address_key.n && !a->account.p)
        return out_of_memory(why);
    struct whose whose = {.rates = p->shared.rates,
                          .text = {[OF_ACCOUNT] = a->account, [OF_ADDRESS] = address_key},
                          .key = {[OF_ACCOUNT] = a->account_key}};
    a->flow = flow_of(p, r, &whose);
    if (!r->said->n_rates || check_rates(p, a, r, &whose, arena, now.mono_ns, why))
        return true;
    if (!r->said->dry_run)
        return false;
    told_dry(a, why);
    a->dry = why->id + 1u;
    return true;
}

/* ---- what others ask ---- */

bool policy_has_usage(const struct policy *p)
{
    for (unsigned i = 0; i < p->said->n_routes; i++)
        if (p->said->routes[i].n_quotas || p->said->routes[i].concurrency)
            return true;
    return false;
}

uint32_t policy_turn(const struct policy *p, const struct admission *a, unsigned route,
                     struct slice address, uint64_t *flow)
{
    const struct route *r = &p->routes[route];
    char network[64];
    struct whose whose = {
        .rates = p->shared.rates,
        .text = {[OF_ACCOUNT] = a->account,
                 [OF_ADDRESS] = identify_network(address, network, sizeof network)},
        .key = {[OF_ACCOUNT] = a->account_key}};
    *flow = flow_of(p, r, &whose);
    return *flow ? r->gate : GATE_NONE;
}

const struct policy_cors *policy_cors_of(const struct policy *p, struct slice method,
                                         struct slice path, struct slice script_name)
{
    unsigned i = find_route(p, method, path, script_name);
    if (i != ROUTE_NONE && p->routes[i].said->cors.given)
        return &p->routes[i].said->cors;
    return p->said->cors.given ? &p->said->cors : NULL;
}

enum policy_quota_kind policy_quota(const struct admission *a, const struct policy_quota **limits)
{
    const struct policy_route *r = a->route;
    const struct policy_quota *q = NULL;
    if (!r || !r->n_quotas)
        return POLICY_QUOTA_NONE;
    for (unsigned i = 0; i < r->n_quotas; i++) {
        const char *tier = r->quotas[i].tier; /* "" = those that are not named */
        if (a->who.tier.n && slice_eq(a->who.tier, slice_str(tier))) {
            q = &r->quotas[i];
            break;
        }
        if (!*tier)
            q = &r->quotas[i];
    }
    if (!q || q->day == 0 || q->month == 0)
        return POLICY_QUOTA_NEVER;
    *limits = q;
    return q->day == QUOTA_UNLIMITED && q->month == QUOTA_UNLIMITED ? POLICY_QUOTA_NONE
                                                                    : POLICY_QUOTA_ASK;
}

bool policy_has_cors(const struct policy *p)
{
    return p->has_cors;
}

bool policy_who(struct policy *p, struct admission *a, const struct req *req, struct slice address,
                struct arena *arena, struct policy_now now, struct refusal *why)
{
    char network[64];
    struct slice key = identify_network(address, network, sizeof network);
    enum identify_verdict v = identify_who(p->identify, a, req, key, arena, now, why);
    return v == IDENTIFY_NO_MEMORY ? out_of_memory(why) : v != IDENTIFY_REFUSED;
}

const char *policy_challenge(const struct policy *p)
{
    return identify_challenge(p->identify);
}

bool policy_draft_fields(const struct policy *p)
{
    return p->draft_fields;
}

void policy_periods(int64_t now_s, int64_t *day_ends_s, int64_t *month_ends_s)
{
    time_t t = (time_t)now_s;
    struct tm tm;
    *day_ends_s = (now_s / 86400 + 1) * 86400;
    *month_ends_s = *day_ends_s;
    if (!gmtime_r(&t, &tm))
        return;
    struct tm next = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1};
    *month_ends_s = (int64_t)timegm(&next);
}

struct gate_limits policy_gate_limits(const struct policy *p, const struct policy_route *r)
{
    return (struct gate_limits){.concurrency = (uint32_t)r->concurrency,
                                .queue_size = (uint32_t)r->queue_size,
                                .wait_ns = r->queue_wait_ms * 1000000,
                                .made_ns = p->said->read_ns};
}

bool policy_pump(const struct policy *p, unsigned *route, int64_t now_ns, struct gate_wakes *wakes)
{
    wakes->n = 0;
    while (*route < p->said->n_routes) {
        const struct route *r = &p->routes[*route];
        struct gate_limits limits = policy_gate_limits(p, r->said);
        if (r->gate != GATE_NONE)
            gates_pump(p->shared.gates, r->gate, &limits, now_ns, wakes);
        if (wakes->n < countof(wakes->slots)) /* this route is done */
            ++*route;
        if (wakes->n)
            return true;
    }
    return false;
}

uint32_t policy_gate(const struct policy *p, const struct admission *a)
{
    return a->route ? p->routes[a->index].gate : GATE_NONE;
}

bool policy_speaks_openai(const struct admission *a, const struct req *req)
{
    if (!a->route)
        return false;
    switch (a->route->errors) {
    case ERRORS_PROBLEM:
        return false;
    case ERRORS_OPENAI:
        return true;
    case ERRORS_AUTO:
        break;
    }
    return slice_starts(req->path, SLICE("/v1/"));
}

int policy_wanted_keys(struct policy *p)
{
    return identify_wanted(p->identify);
}
