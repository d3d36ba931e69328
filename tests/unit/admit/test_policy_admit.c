/* The order of the checks; rates that are spent together or not at all, against a plain reference;
 * what is told of them, by a virtual clock. */
#include "admit_helper.h"

#include <stdio.h>
#include <stdlib.h>

static const struct policy_match EVERY[] = {{.method = "", .path = "/*"}};
static const struct policy_identifier WHO[] = {
    {.kind = IDENTIFY_API_KEY, .header = "X-Key", .file = ""}, {.kind = IDENTIFY_ADDRESS}};

#define MS 1000000LL
#define BEGIN_NS (1000 * SECOND_NS)

static struct policy_rate rate(enum policy_by by, const char *tier, int64_t units, int64_t period_s,
                               int64_t burst)
{
    return (struct policy_rate){
        .by = by, .tier = tier, .units = units, .period_ns = period_s * SECOND_NS, .burst = burst};
}

/* A policy of one route, and the virtual clock. */
struct world {
    struct conf conf;
    struct policy_route routes[3];
    struct policy_shared shared;
    struct policy *policy;
    struct policy_now now;
    struct asked q;
};

static void begin(struct world *w, unsigned n)
{
    struct err e = {{0}};
    struct conf_policy *said = &w->conf.policy;
    said->file = "weir.yaml";
    said->identifiers = WHO;
    said->n_identifiers = countof(WHO);
    said->tier_from = "";
    if (!said->tier_default)
        said->tier_default = "";
    said->routes = w->routes;
    said->n_routes = n;
    for (unsigned i = 0; i < n; i++) {
        struct policy_route *r = &w->routes[i];
        if (!r->name)
            r->name = "every";
        if (!r->matches) {
            r->matches = EVERY;
            r->n_matches = 1;
        }
    }
    if (!w->conf.rate_headers)
        w->conf.rate_headers = "draft";
    w->now = (struct policy_now){.mono_ns = BEGIN_NS, .wall_s = 1700000000};
    if (!w->shared.rates)
        w->shared.rates = rates_new(10000);
    must(w->shared.rates);
    if (policy_new(&w->policy, &w->conf, &w->shared, &e))
        fail_msg("%s", e.text);
    asked_end(&w->q); /* of an earlier policy */
    asked_begin(&w->q, "GET", "/");
}

static void end(struct world *w)
{
    asked_end(&w->q);
    policy_free(&w->policy);
    rates_free(w->shared.rates);
    gates_free(&w->shared.gates);
}

/* A request with a key (NULL: none) of an address. */
static bool asks_path(struct world *w, const char *path, const char *user, const char *address)
{
    asked_end(&w->q);
    asked_begin(&w->q, "GET", path);
    if (user)
        asked_field(&w->q, "X-Key", user);
    return policy_admit(w->policy, &w->q.found, &w->q.req, (struct slice){0}, slice_str(address), &w->q.arena, w->now,
                        &w->q.why);
}

static bool asks(struct world *w, const char *user, const char *address)
{
    return asks_path(w, "/", user, address);
}

/* ---- the order ---- */

static void what_no_route_is_about_passes(void **state)
{
    (void)state;
    static const struct policy_match ONE[] = {{.method = "GET", .path = "/one"}};
    struct policy_rate rates[] = {rate(BY_ROUTE, "", 1, 86400, 1)};
    struct world w = {.routes = {{.matches = ONE, .n_matches = 1, .rates = rates, .n_rates = 1}}};
    begin(&w, 1);
    assert_true(asks_path(&w, "/one", "a", "::1"));
    assert_ptr_equal(w.q.found.route, &w.routes[0]);
    assert_false(asks_path(&w, "/one", "a", "::1"));
    for (int i = 0; i < 3; i++)
        assert_true(asks_path(&w, "/two", "a", "::1"));
    assert_null(w.q.found.route);
    assert_null(w.q.found.who.by);
    assert_int_equal(policy_gate(w.policy, &w.q.found), GATE_NONE);
    assert_false(policy_speaks_openai(&w.q.found, &w.q.req));
    end(&w);
}

static void who_is_required_is_looked_for_before_anything_is_spent(void **state)
{
    (void)state;
    struct policy_rate rates[] = {rate(BY_ADDRESS, "", 1, 86400, 1)};
    struct world w = {.routes = {{.require = REQUIRE_USER, .rates = rates, .n_rates = 1}}};
    begin(&w, 1);
    for (int i = 0; i < 3; i++) {
        assert_false(asks(&w, NULL, "192.0.2.1"));
        assert_int_equal(w.q.why.id, REFUSAL_NO_CREDENTIALS);
        assert_string_equal(w.q.why.authenticate, policy_challenge(w.policy));
        assert_int_equal(w.q.found.fields.n, 0);
    }
    assert_true(asks(&w, "ann", "192.0.2.1"));
    assert_true(slice_starts(w.q.found.account, SLICE("api_key:")));
    end(&w);
}

static void a_reserved_route_asks_nobody_who_he_is_without_need(void **state)
{
    (void)state;
    struct world w = {.routes = {{.lane = LANE_RESERVED}}};
    begin(&w, 1);
    assert_true(asks(&w, "ann", "192.0.2.1"));
    assert_null(w.q.found.who.by);
    end(&w);
}

static void a_dry_run_lets_pass_and_tells_what_is_left(void **state)
{
    (void)state;
    struct policy_rate rates[] = {rate(BY_USER, "", 1, 60, 1)};
    struct world w = {.routes = {{.dry_run = true, .rates = rates, .n_rates = 1}}};
    begin(&w, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(asks(&w, "ann", "192.0.2.1"));
        assert_slice(w.q.found.fields,
                     "RateLimit-Policy: \"user\";q=1;w=60\r\nRateLimit: \"user\";r=0;t=60\r\n");
    }
    assert_int_equal(w.q.found.n_spent, 0); /* nothing to be given back */
    end(&w);
}

/* ---- rates ---- */

static void the_rate_of_the_tier_counts(void **state)
{
    (void)state;
    struct policy_rate rates[] = {rate(BY_USER, "free", 1, 86400, 1),
                                  rate(BY_USER, "pro", 3, 86400, 3)};
    static const char *const TIERS[] = {"free", "pro", "gold", ""};
    static const int passes[] = {1, 3, 5, 5}; /* who is not named has none */
    for (size_t t = 0; t < countof(TIERS); t++) {
        struct world w = {.conf = {.policy = {.tier_default = TIERS[t]}},
                          .routes = {{.rates = rates, .n_rates = 2}}};
        begin(&w, 1);
        int passed = 0;
        for (int i = 0; i < 5; i++)
            passed += asks(&w, "ann", "192.0.2.1");
        assert_int_equal(passed, passes[t]);
        end(&w);
    }
}

static void retry_after_is_exact(void **state)
{
    (void)state;
    struct policy_rate rates[] = {rate(BY_USER, "", 10, 60, 3), rate(BY_ADDRESS, "", 30, 60, 30)};
    struct world w = {.routes = {{.rates = rates, .n_rates = 2}}};
    begin(&w, 1);
    for (int i = 0; i < 3; i++)
        assert_true(asks(&w, "ann", "192.0.2.1"));
    assert_false(asks(&w, "ann", "192.0.2.1"));
    assert_int_equal(w.q.why.id, REFUSAL_RATE);
    assert_string_equal(w.q.why.limit, "user");
    assert_int_equal(w.q.why.retry_after_s, 6);
    assert_string_equal(
        w.q.why.detail,
        "at most 10 requests in 60 s and 3 at once for each user; ask again in 6 s");
    assert_slice(w.q.found.fields, "RateLimit-Policy: \"user\";q=10;w=60, \"address\";q=30;w=60\r\n"
                                   "RateLimit: \"user\";r=0;t=18, \"address\";r=27;t=6\r\n");
    w.now.mono_ns = BEGIN_NS + 6 * SECOND_NS - 1;
    assert_false(asks(&w, "ann", "192.0.2.1"));
    assert_int_equal(w.q.why.retry_after_s, 1); /* never 0 */
    w.now.mono_ns++;
    assert_true(asks(&w, "ann", "192.0.2.1"));
    assert_false(asks(&w, "ann", "192.0.2.1"));
    end(&w);
}

static void fields_come_in_the_form_that_is_wanted(void **state)
{
    (void)state;
    static const struct {
        const char *form, *fields;
    } rows[] = {{"draft", "RateLimit-Policy: \"user\";q=10;w=60, \"route\";q=2;w=1\r\n"
                          "RateLimit: \"user\";r=2;t=6, \"route\";r=1;t=1\r\n"},
                {"x", "X-RateLimit-Limit: 2\r\nX-RateLimit-Remaining: 1\r\n"
                      "X-RateLimit-Reset: 1\r\n"},
                {"both", "RateLimit-Policy: \"user\";q=10;w=60, \"route\";q=2;w=1\r\n"
                         "RateLimit: \"user\";r=2;t=6, \"route\";r=1;t=1\r\n"
                         "X-RateLimit-Limit: 2\r\nX-RateLimit-Remaining: 1\r\n"
                         "X-RateLimit-Reset: 1\r\n"},
                {"off", ""}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_rate rates[] = {rate(BY_ROUTE, "", 2, 1, 2), rate(BY_USER, "", 10, 60, 3)};
        struct world w = {.conf = {.rate_headers = rows[i].form},
                          .routes = {{.rates = rates, .n_rates = 2}}};
        begin(&w, 1);
        assert_true(asks(&w, "ann", "192.0.2.1"));
        assert_slice(w.q.found.fields, rows[i].fields);
        end(&w);
    }
}

static void a_new_policy_over_the_same_table_keeps_the_counts(void **state)
{
    (void)state;
    struct policy_rate rates[] = {rate(BY_USER, "", 3, 86400, 3)};
    struct world w = {.routes = {{.rates = rates, .n_rates = 1}}};
    begin(&w, 1);
    assert_true(asks(&w, "ann", "::1"));
    assert_true(asks(&w, "ann", "::1"));
    policy_free(&w.policy);
    rates[0].burst = 5;
    begin(&w, 1);
    for (int i = 0; i < 3; i++)
        assert_true(asks(&w, "ann", "::1"));
    assert_false(asks(&w, "ann", "::1"));
    policy_free(&w.policy);
    w.routes[0].name = "another";
    begin(&w, 1);
    assert_true(asks(&w, "ann", "::1"));
    end(&w);
}

/* ---- all or nothing ---- */

/* The plain reference: an instant for each limit and key. */
enum { USERS = 5, ADDRESSES = 3 };
struct reference {
    int64_t user[USERS], nobody[ADDRESSES], address[ADDRESSES], route;
};

static bool may(int64_t paid_ns, const struct policy_rate *r, int64_t now_ns, int64_t *after_ns)
{
    int64_t step = (r->period_ns + r->units - 1) / r->units;
    *after_ns = (paid_ns > now_ns ? paid_ns : now_ns) + step;
    return *after_ns - now_ns <= r->burst * step;
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void model(uint64_t seed)
{
    struct policy_rate rates[] = {rate(BY_USER, "", 2, 1, 3), rate(BY_ADDRESS, "", 4, 1, 4),
                                  rate(BY_ROUTE, "", 8, 1, 5)};
    struct world w = {.routes = {{.rates = rates, .n_rates = 3}}};
    struct reference ref = {0};
    unsigned passed = 0, refused[3] = {0};
    begin(&w, 1);
    for (int i = 0; i < 20000; i++) {
        char user[32], address[32];
        unsigned u = (unsigned)(next_random(&seed) % USERS),
                 a = (unsigned)(next_random(&seed) % ADDRESSES);
        w.now.mono_ns += (int64_t)(next_random(&seed) % (120 * MS));
        snprintf(user, sizeof user, "user-%u", u);
        snprintf(address, sizeof address, "192.0.2.%u", a);
        bool somebody = u != 0;
        int64_t *cells[] = {somebody ? &ref.user[u] : &ref.nobody[a], &ref.address[a], &ref.route};
        int64_t after[3];
        bool each[3], all = true;
        for (unsigned k = 0; k < 3; k++)
            all &= each[k] = may(*cells[k], &rates[k], w.now.mono_ns, &after[k]);

        bool got = asks(&w, somebody ? user : NULL, address);
        assert_int_equal(got, all);
        if (!got) { /* told is one that refused, and the time is its */
            assert_int_equal(w.q.why.id, REFUSAL_RATE);
            unsigned k = w.q.why.limit[0] == 'u' ? 0 : w.q.why.limit[0] == 'a' ? 1 : 2;
            assert_false(each[k]);
            assert_int_equal(w.q.why.retry_after_s, 1);
            refused[k]++;
            continue;
        }
        passed++;
        if (next_random(&seed) % 5 == 0) { /* refused later, at once */
            policy_refund(w.policy, &w.q.found, w.now.mono_ns);
            policy_refund(w.policy, &w.q.found, w.now.mono_ns); /* again is nothing */
            /* The cell falls back by a step; of an idle one, to now: as good as it was. */
            continue;
        }
        for (unsigned k = 0; k < 3; k++)
            *cells[k] = after[k];
    }
    assert_true(passed > 1000 && refused[0] > 100 && refused[1] > 100 && refused[2] > 100);
    end(&w);
}

static void all_rates_are_spent_or_none_as_a_plain_reference_says(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        model(seed * 0x9e3779b97f4a7c15u);
}

/* ---- what others ask ---- */

static void quotas_go_by_tier(void **state)
{
    (void)state;
    static const struct policy_quota named[] = {{"free", 0, -1},
                                                {"test", 20, -1},
                                                {"pro", -1, -1},
                                                {"never", 5, 0}},
                                     other[] = {{"", 3, 9}, {"pro", -1, 7}};
    static const struct {
        const struct policy_quota *quotas;
        const char *tier;
        enum policy_quota_kind kind;
        int64_t day, month;
    } rows[] = {
        {NULL, "x", POLICY_QUOTA_NONE, 0, 0},       {named, "free", POLICY_QUOTA_NEVER, 0, 0},
        {named, "test", POLICY_QUOTA_ASK, 20, -1},  {named, "pro", POLICY_QUOTA_NONE, -1, -1},
        {named, "never", POLICY_QUOTA_NEVER, 0, 0}, {named, "x", POLICY_QUOTA_NEVER, 0, 0},
        {named, "", POLICY_QUOTA_NEVER, 0, 0},      {other, "", POLICY_QUOTA_ASK, 3, 9},
        {other, "x", POLICY_QUOTA_ASK, 3, 9},       {other, "pro", POLICY_QUOTA_ASK, -1, 7}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_route r = {.quotas = rows[i].quotas,
                                 .n_quotas = !rows[i].quotas           ? 0
                                             : rows[i].quotas == named ? 4
                                                                       : 2};
        struct admission a = {.route = &r, .who = {.tier = slice_str(rows[i].tier)}};
        const struct policy_quota *q = NULL;
        assert_int_equal(policy_quota(&a, &q), rows[i].kind);
        if (rows[i].kind == POLICY_QUOTA_ASK) {
            assert_int_equal(q->day, rows[i].day);
            assert_int_equal(q->month, rows[i].month);
        }
    }
    const struct policy_quota *q;
    assert_int_equal(policy_quota(&(struct admission){0}, &q), POLICY_QUOTA_NONE);
}

static void days_and_months_end_in_utc(void **state)
{
    (void)state;
    static const struct {
        int64_t now, day, month;
    } rows[] = {{0, 86400, 2678400},                   /* 1970-01-01 */
                {1709164799, 1709164800, 1709251200},  /* 2024-02-28 23:59:59 */
                {1709164800, 1709251200, 1709251200},  /* 2024-02-29 */
                {1735689599, 1735689600, 1735689600},  /* 2024-12-31 23:59:59 */
                {1735689600, 1735776000, 1738368000}}; /* 2025-01-01 */
    for (size_t i = 0; i < countof(rows); i++) {
        int64_t day, month;
        policy_periods(rows[i].now, &day, &month);
        assert_int_equal(day, rows[i].day);
        assert_int_equal(month, rows[i].month);
    }
}

static void errors_are_openais_below_v1_or_where_it_is_said(void **state)
{
    (void)state;
    static const struct {
        enum policy_errors errors;
        const char *path;
        bool openai;
    } rows[] = {{ERRORS_AUTO, "/v1/x", true},
                {ERRORS_AUTO, "/v1", false},
                {ERRORS_AUTO, "/v10/x", false},
                {ERRORS_OPENAI, "/x", true},
                {ERRORS_PROBLEM, "/v1/x", false}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_route r = {.errors = rows[i].errors};
        struct req req = {.path = slice_str(rows[i].path)};
        assert_int_equal(policy_speaks_openai(&(struct admission){.route = &r}, &req),
                         rows[i].openai);
    }
}

static void turns_in_the_queue_are_of_users_addresses_or_nobody(void **state)
{
    (void)state;
    static const enum policy_by FAIR[] = {BY_USER, BY_ADDRESS, BY_ROUTE};
    for (size_t i = 0; i < countof(FAIR); i++) {
        struct world w = {
            .routes = {{.concurrency = 2, .queue_size = 5, .queue_fair_by = FAIR[i]}}};
        w.shared.gates = gates_new();
        must(w.shared.gates);
        begin(&w, 1);
        assert_true(asks(&w, "ann", "192.0.2.1"));
        assert_int_not_equal(policy_gate(w.policy, &w.q.found), GATE_NONE);
        uint64_t first = w.q.found.flow;
        assert_true(asks(&w, "bob", "192.0.2.1"));
        assert_int_equal(w.q.found.flow == first, FAIR[i] != BY_USER);
        assert_true(asks(&w, "ann", "192.0.2.2"));
        assert_int_equal(w.q.found.flow == first, FAIR[i] != BY_ADDRESS);
        assert_true(asks(&w, NULL, "192.0.2.1"));
        assert_int_equal(w.q.found.flow == first, FAIR[i] != BY_USER);
        end(&w);
    }
}

static void a_file_without_admission_makes_no_policy(void **state)
{
    (void)state;
    struct conf conf = {.rate_headers = "draft"};
    struct policy_shared none = {0};
    struct policy *p = (struct policy *)(uintptr_t)1;
    struct err e = {{0}};
    conf.policy.tier_from = conf.policy.tier_default = conf.policy.file = "";
    assert_int_equal(policy_new(&p, &conf, &none, &e), 0);
    assert_null(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_no_route_is_about_passes),
        cmocka_unit_test(who_is_required_is_looked_for_before_anything_is_spent),
        cmocka_unit_test(a_reserved_route_asks_nobody_who_he_is_without_need),
        cmocka_unit_test(a_dry_run_lets_pass_and_tells_what_is_left),
        cmocka_unit_test(the_rate_of_the_tier_counts),
        cmocka_unit_test(retry_after_is_exact),
        cmocka_unit_test(fields_come_in_the_form_that_is_wanted),
        cmocka_unit_test(a_new_policy_over_the_same_table_keeps_the_counts),
        cmocka_unit_test(all_rates_are_spent_or_none_as_a_plain_reference_says),
        cmocka_unit_test(quotas_go_by_tier),
        cmocka_unit_test(days_and_months_end_in_utc),
        cmocka_unit_test(errors_are_openais_below_v1_or_where_it_is_said),
        cmocka_unit_test(turns_in_the_queue_are_of_users_addresses_or_nobody),
        cmocka_unit_test(a_file_without_admission_makes_no_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
