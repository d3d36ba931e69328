/* policy_routes: what each route allows. */
#include "conf/policy_yaml.h"

#include <string.h>

static const int64_t QUEUE_WAIT_MS = 30000;

/* A route in the making. */
struct work {
    struct policy_route route;
    struct policy_match matches[POLICY_MATCHES_MAX];
    struct policy_rate rates[POLICY_RATES_MAX];
    struct policy_quota quotas[POLICY_TIERS_MAX];
    const char *first; /* the text of the first match */
    enum policy_by by; /* of the rate that is being read */
    struct policy_route_lines *lines;
};

static int add_match(struct reader *r, const char *text, void *arg)
{
    struct work *w = arg;
    struct err why = {{0}};
    if (policy_value_match(r->c, text, w->matches, &w->route.n_matches, &why))
        return reader_complain(r, reader_line(r), "match: %s", why.text);
    if (!w->first)
        w->first = text;
    return 0;
}

static int take_route_name(struct reader *r, struct work *w)
{
    const char *name = w->route.name = policy_take_text(r, "name");
    if (!name)
        return -1;
    for (const char *p = name; *p; p++)
        if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
            return reader_complain_here(
                r,
                "name: it stands in logs and metrics, so it has ASCII letters, digits, blanks and "
                "marks only, without \" and \\");
    return strlen(name) <= POLICY_NAME_MAX
               ? 0
               : reader_complain(r, reader_line(r), "name: longer than %d bytes", POLICY_NAME_MAX);
}

/* One value, or a mapping of tiers to values. `tier` "" stands for all that are not named. */
typedef int take_tiered_fn(struct reader *r, const char *tier, struct work *w);
static int take_tiered(struct reader *r, const char *name, take_tiered_fn *fn, struct work *w)
{
    const char *tiers[POLICY_TIERS_MAX];
    unsigned n = 0;
    if (r->ev.type == YAML_SEQUENCE_START_EVENT)
        return policy_wrong_shape(r, name, "one value, or a mapping of tiers to values");
    if (reader_is_scalar(r))
        return fn(r, "", w);
    size_t begun = reader_line(r);
    if (reader_next(r))
        return -1;
    while (r->ev.type != YAML_MAPPING_END_EVENT) {
        const char *tier;
        size_t line = reader_line(r);
        if (policy_take_tier(r, name, &tier))
            return -1;
        if (strcmp(tier, "default") == 0)
            tier = "";
        else if (!w->lines->tier)
            w->lines->tier = line, w->lines->tier_name = tier;
        for (unsigned i = 0; i < n; i++)
            if (strcmp(tiers[i], tier) == 0)
                return reader_complain(r, line, "%s: the tier '%s' is given twice; leave one out",
                                       name, *tier ? tier : "default");
        if (n == countof(tiers))
            return reader_complain(r, line, "%s: more than %d tiers", name, POLICY_TIERS_MAX);
        tiers[n++] = tier;
        if (reader_next(r))
            return -1;
        if (!reader_is_scalar(r) || reader_is_null(r))
            return reader_complain(r, line, "%s: the tier '%s' has no value; write it as %s", name,
                                   *tier ? tier : "default",
                                   strcmp(name, "quota") == 0 ? "20/day" : "10/min");
        if (fn(r, tier, w) || reader_next(r))
            return -1;
    }
    return n ? 0 : reader_complain(r, begun, "%s: the mapping is empty; leave it out", name);
}

static int add_rate(struct reader *r, const char *tier, struct work *w)
{
    static const char *const names[] = {
        [BY_ROUTE] = "route", [BY_USER] = "user", [BY_ADDRESS] = "address"};
    struct err why = {{0}};
    const char *text = reader_text(r, "rate");
    if (!text)
        return -1;
    if (w->route.n_rates == POLICY_RATES_MAX)
        return reader_complain(r, reader_line(r), "rate: more than %d in one route",
                               POLICY_RATES_MAX);
    struct policy_rate *rate = &w->rates[w->route.n_rates++];
    *rate = (struct policy_rate){.by = w->by, .tier = tier};
    return policy_value_rate(text, rate, &why)
               ? reader_complain(r, reader_line(r), "rate: %s: %s", names[w->by], why.text)
               : 0;
}

static int add_quota(struct reader *r, const char *tier, struct work *w)
{
    struct err why = {{0}};
    const char *text = reader_text(r, "quota");
    if (!text)
        return -1;
    /* take_tiered has counted. */
    struct policy_quota *quota = &w->quotas[w->route.n_quotas++];
    *quota = (struct policy_quota){.tier = tier};
    return policy_value_quota(text, quota, &why)
               ? reader_complain(r, reader_line(r), "quota: %s", why.text)
               : 0;
}

static int take_rate_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct work *w = arg;
    char name[32];
    w->by = key == POLICY_RATE_user ? BY_USER : key == POLICY_RATE_address ? BY_ADDRESS : BY_ROUTE;
    snprintf(name, sizeof name, "rate: %s", policy_keys[key].name);
    return take_tiered(r, name, add_rate, w);
}

static int take_rate(struct reader *r, struct work *w)
{
    size_t lines[POLICY_KEYS] = {0};
    if (reader_is_scalar(r))
        return reader_complain(r, reader_line(r),
                               "rate: whom does it limit? write it as rate: {user: 10/min}, with "
                               "user, address or route");
    if (policy_expect_mapping(r, "rate", "rate: {user: 10/min, address: 30/min}") ||
        policy_take_mapping(r, WHERE_RATE, lines, take_rate_key, w))
        return -1;
    w->lines->user_rate = lines[POLICY_RATE_user];
    return 0;
}

static int take_queue_size(struct reader *r, const char *name, struct policy_route *route)
{
    return policy_take_number(r, name, KIND_INT, "0", "65536", &route->queue_size);
}

static int take_queue_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct policy_route *route = arg;
    unsigned which = 0;
    if (key == POLICY_QUEUE_size)
        return take_queue_size(r, "queue: size", route);
    if (key == POLICY_QUEUE_wait)
        return policy_take_number(r, "queue: wait", KIND_TIME, "1ms", "1d", &route->queue_wait_ms);
    if (policy_take_choice(r, "queue: fair_by", "route|user|address", &which))
        return -1;
    route->queue_fair_by = (enum policy_by)which;
    return 0;
}

static int take_queue(struct reader *r, struct policy_route *route)
{
    size_t lines[POLICY_KEYS] = {0}, begun = reader_line(r);
    if (reader_is_scalar(r))
        return take_queue_size(r, "queue", route);
    if (policy_expect_mapping(r, "queue", "queue: {size: 100, wait: 30s}") ||
        policy_take_mapping(r, WHERE_QUEUE, lines, take_queue_key, route))
        return -1;
    return lines[POLICY_QUEUE_size]
               ? 0
               : reader_complain(r, begun,
                                 "queue has no size; say how many may wait, as size: 100");
}

static int take_route_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct work *w = arg;
    struct policy_route *route = &w->route;
    const char *name = policy_keys[key].name;
    unsigned which = 0;
    if (key == POLICY_ROUTE_match)
        return policy_take_texts(r, name, add_match, w);
    if (key == POLICY_ROUTE_name)
        return take_route_name(r, w);
    if (key == POLICY_ROUTE_deadline)
        return policy_take_number(r, name, KIND_TIME, "1ms", "1d", &route->deadline_ms);
    if (key == POLICY_ROUTE_concurrency)
        return policy_take_number(r, name, KIND_INT, "1", "65535", &route->concurrency);
    if (key == POLICY_ROUTE_queue)
        return take_queue(r, route);
    if (key == POLICY_ROUTE_rate)
        return take_rate(r, w);
    if (key == POLICY_ROUTE_quota)
        return take_tiered(r, name, add_quota, w);
    if (key == POLICY_ROUTE_dry_run)
        return policy_take_bool(r, name, &route->dry_run);
    if (key == POLICY_ROUTE_cors)
        return policy_take_cors(r, &route->cors);

    static const struct {
        enum policy_key_id key;
        const char *words; /* in the order of their enum */
    } choices[] = {{POLICY_ROUTE_require, "nobody|user"},
                   {POLICY_ROUTE_on_deadline, "tell|interrupt"},
                   {POLICY_ROUTE_quota_when_down, "closed|open"},
                   {POLICY_ROUTE_lane, "common|reserved"},
                   {POLICY_ROUTE_errors, "auto|problem|openai"}};
    for (size_t i = 0; i < countof(choices); i++)
        if (choices[i].key == key && policy_take_choice(r, name, choices[i].words, &which))
            return -1;
    if (key == POLICY_ROUTE_require)
        route->require = (enum policy_require)which;
    else if (key == POLICY_ROUTE_on_deadline)
        route->on_deadline = (enum policy_on_deadline)which, route->on_deadline_given = true;
    else if (key == POLICY_ROUTE_quota_when_down)
        route->quota_store_down = (enum policy_store_down)which;
    else if (key == POLICY_ROUTE_lane)
        route->lane = (enum policy_lane)which;
    else
        route->errors = (enum policy_errors)which;
    return 0;
}

/* What must be true of the keys of one route. */
static int check_route(struct reader *r, const struct work *w, const size_t *lines)
{
    const struct policy_route *route = &w->route;
    if (!route->n_matches)
        return reader_complain(r, route->line,
                               "routes: the entry has no match; say which requests it is for, as "
                               "match: POST /api/ai/*");
    if (strlen(route->name) > POLICY_NAME_MAX)
        return reader_complain(
            r, route->line, "routes: the first match is too long for a name; give name: as well");
    if (route->lane == LANE_RESERVED && (route->concurrency || lines[POLICY_ROUTE_queue]))
        return reader_complain(r, lines[POLICY_ROUTE_lane],
                               "lane: reserved never waits, so it has no %s; leave one of them out",
                               route->concurrency ? "concurrency" : "queue");
    if (lines[POLICY_ROUTE_queue] && !route->concurrency)
        return reader_complain(r, lines[POLICY_ROUTE_queue],
                               "queue has no meaning without concurrency; say how many may run, as "
                               "concurrency: 8");
    if (lines[POLICY_ROUTE_quota_when_down] && !route->n_quotas)
        return reader_complain(r, lines[POLICY_ROUTE_quota_when_down],
                               "quota_when_down has no meaning without quota; leave it out");
    return 0;
}

static int take_route(struct reader *r, struct policy_route *out, struct policy_route_lines *where)
{
    size_t lines[POLICY_KEYS] = {0};
    struct work w = {.lines = where,
                     .route = {.line = (unsigned)reader_line(r),
                               .name = "",
                               .queue_wait_ms = QUEUE_WAIT_MS,
                               .queue_fair_by = BY_USER,
                               .cors = policy_cors_none}};
    *where = (struct policy_route_lines){0};
    if (policy_expect_mapping(r, "an entry of routes", "match: POST /api/ai/*") ||
        policy_take_mapping(r, WHERE_ROUTE, lines, take_route_key, &w))
        return -1;
    if (!*w.route.name && w.first)
        w.route.name = w.first;
    if (check_route(r, &w, lines))
        return -1;
    where->require = lines[POLICY_ROUTE_require];
    where->quota = lines[POLICY_ROUTE_quota];
    w.route.matches = policy_keep(r, w.matches, w.route.n_matches, sizeof *w.matches);
    w.route.rates = policy_keep(r, w.rates, w.route.n_rates, sizeof *w.rates);
    w.route.quotas = policy_keep(r, w.quotas, w.route.n_quotas, sizeof *w.quotas);
    *out = w.route;
    return out->matches && out->rates && out->quotas ? 0 : -1;
}

int policy_take_routes(struct reader *r)
{
    struct policy_route routes[POLICY_ROUTES_MAX];
    struct conf_policy *p = &r->c->policy;
    unsigned n = 0;
    if (r->ev.type != YAML_SEQUENCE_START_EVENT)
        return policy_wrong_shape(r, "routes",
                                  "a list: entries with match and limits, each behind a dash");
    if (reader_next(r))
        return -1;
    for (; r->ev.type != YAML_SEQUENCE_END_EVENT; n++) {
        if (n == countof(routes))
            return reader_complain(r, reader_line(r), "routes: more than %d entries",
                                   POLICY_ROUTES_MAX);
        if (take_route(r, &routes[n], &r->policy.routes[n]) || reader_next(r))
            return -1;
    }
    p->n_routes = n;
    return (p->routes = policy_keep(r, routes, n, sizeof *routes)) ? 0 : -1;
}
