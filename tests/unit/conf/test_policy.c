/* policy: identify, tiers, cors and routes of weir.yaml. */
#include "conf_helper.h"

#include <sys/stat.h>
#include <unistd.h>

#include "conf/policy_private.h"
#include "conf/yaml.h"

static struct conf conf;

static int begin(void **state)
{
    (void)state;
    struct err e = {{0}};
    return conf_init(&conf, CONF_WEIR, &e);
}

static int drop(void **state)
{
    (void)state;
    conf_fini(&conf);
    return 0;
}

static const struct conf_policy *reads(const char *text)
{
    struct err e = {{0}};
    if (conf_yaml_parse(&conf, "weir.yaml", text, strlen(text), &e))
        fail_msg("%s", e.text);
    return &conf.policy;
}

/* The whole message, behind "weir.yaml:". */
static void refuses_text(const char *text, const char *message)
{
    struct conf c;
    struct err e = {{0}};
    assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
    if (conf_yaml_parse(&c, "weir.yaml", text, strlen(text), &e) == 0)
        fail_msg("was accepted: %s", text);
    assert_int_equal(strncmp(e.text, "weir.yaml:", 10), 0);
    assert_string_equal(e.text + 10, message);
    conf_fini(&c);
}

/* What stands behind `match: /x` in a route; the message behind "weir.yaml:2: ". */
static void route_refuses(const char *keys, const char *message)
{
    char text[2048], whole[2048];
    snprintf(text, sizeof text, "routes:\n- {match: /x, %s}\n", keys);
    snprintf(whole, sizeof whole, "2: %s", message);
    refuses_text(text, whole);
}

/* ---- what is read ---- */

static void example_of_the_header_is_read(void **state)
{
    (void)state;
    const struct conf_policy *p = reads(
        "identify:\n"
        "  - jwt: {secret_file: /run/secrets/jwt, issuer: https://x/auth/v1, audience: "
        "authenticated}\n"
        "  - api_key: {header: X-Key, file: keys.txt}\n"
        "  - address\n"
        "tiers: {from: jwt.app_metadata.tier, default: free}\n"
        "cors: {origins: [https://app.example.org, \"http://localhost:3000\"], credentials: true}\n"
        "routes:\n"
        "  - match: POST /api/ai/*\n"
        "    require: user\n"
        "    deadline: 90s\n"
        "    concurrency: 8\n"
        "    queue: {size: 100, wait: 20s, fair_by: address}\n"
        "    rate: {user: 10/min burst 3, address: 30/min}\n"
        "    quota: {free: 0, test: 20/day, premium: 200/day and 2000/month, pro: unlimited}\n");
    assert_string_equal(p->file, "weir.yaml");
    assert_int_equal(p->n_identifiers, 3);
    const struct policy_identifier *jwt = &p->identifiers[0];
    assert_int_equal(jwt->kind, IDENTIFY_JWT);
    assert_int_equal(jwt->line, 2);
    assert_string_equal(jwt->secret_file, "/run/secrets/jwt");
    assert_string_equal(jwt->jwks, "");
    assert_string_equal(jwt->issuer, "https://x/auth/v1");
    assert_int_equal(jwt->n_audiences, 1);
    assert_string_equal(jwt->audiences[0], "authenticated");
    assert_int_equal(jwt->algorithms, ALG_HS256);
    assert_int_equal(jwt->leeway_s, 30);
    assert_string_equal(jwt->user_claim, "sub");
    assert_string_equal(jwt->cookie, "");
    assert_int_equal(p->identifiers[1].kind, IDENTIFY_API_KEY);
    assert_string_equal(p->identifiers[1].header, "X-Key");
    assert_string_equal(p->identifiers[1].file, "keys.txt");
    assert_int_equal(p->identifiers[2].kind, IDENTIFY_ADDRESS);
    assert_string_equal(p->tier_from, "app_metadata.tier");
    assert_string_equal(p->tier_default, "free");
    assert_true(p->cors.given && p->cors.credentials);
    assert_int_equal(p->cors.n_origins, 2);
    assert_string_equal(p->cors.methods, "GET, HEAD, POST, PUT, PATCH, DELETE");
    assert_int_equal(p->cors.max_age_s, 600);

    assert_int_equal(p->n_routes, 1);
    const struct policy_route *r = &p->routes[0];
    assert_string_equal(r->name, "POST /api/ai/*");
    assert_int_equal(r->line, 8);
    assert_int_equal(r->n_matches, 1);
    assert_string_equal(r->matches[0].method, "POST");
    assert_string_equal(r->matches[0].path, "/api/ai/*");
    assert_int_equal(r->require, REQUIRE_USER);
    assert_int_equal(r->deadline_ms, 90000);
    assert_int_equal(r->concurrency, 8);
    assert_int_equal(r->queue_size, 100);
    assert_int_equal(r->queue_wait_ms, 20000);
    assert_int_equal(r->queue_fair_by, BY_ADDRESS);
    assert_int_equal(r->n_rates, 2);
    assert_int_equal(r->rates[0].by, BY_USER);
    assert_string_equal(r->rates[0].tier, "");
    assert_int_equal(r->rates[0].units, 10);
    assert_int_equal(r->rates[0].period_ns, 60000000000);
    assert_int_equal(r->rates[0].burst, 3);
    assert_int_equal(r->rates[1].by, BY_ADDRESS);
    assert_int_equal(r->rates[1].burst, 30);
    assert_int_equal(r->n_quotas, 4);
    assert_string_equal(r->quotas[2].tier, "premium");
    assert_int_equal(r->quotas[2].day, 200);
    assert_int_equal(r->quotas[2].month, 2000);
    assert_false(r->cors.given);
}

static void nothing_given_is_no_policy(void **state)
{
    (void)state;
    const struct conf_policy *p = reads("threads: 4\nidentify:\ntiers: ~\ncors: null\nroutes:\n");
    assert_false(policy_is_given(p));
    assert_int_equal(p->n_routes, 0);
    assert_string_equal(p->file, "");
    assert_string_equal(p->tier_from, "");
    assert_string_equal(p->cors.headers, "");
    p = reads("routes: [{match: /x, rate: ~, queue: ~, quota: ~, deadline: ~, cors: ~}]\n");
    assert_int_equal(p->routes[0].n_rates, 0);
    assert_int_equal(p->routes[0].queue_size, 0);
    assert_int_equal(p->routes[0].queue_wait_ms, 30000);
}

static void names_may_have_dashes_and_short_forms_are_read(void **state)
{
    (void)state;
    const struct conf_policy *p =
        reads("identify: bearer\nroutes:\n"
              "- {match: /x, concurrency: 2, queue: 5, dry-run: yes, on-deadline: interrupt,\n"
              "   deadline: 500ms, quota: 20/day, quota-when-down: open, errors: openai}\n"
              "- {match: [GET|POST /y, /z], name: two, lane: reserved}\n");
    assert_int_equal(p->identifiers[0].kind, IDENTIFY_BEARER);
    const struct policy_route *r = p->routes;
    assert_int_equal(r->queue_size, 5);
    assert_int_equal(r->queue_fair_by, BY_USER);
    assert_true(r->dry_run);
    assert_int_equal(r->on_deadline, ON_DEADLINE_INTERRUPT);
    assert_int_equal(r->deadline_ms, 500);
    assert_int_equal(r->n_quotas, 1);
    assert_string_equal(r->quotas[0].tier, "");
    assert_int_equal(r->quota_store_down, STORE_DOWN_OPEN);
    assert_int_equal(r->errors, ERRORS_OPENAI);
    assert_int_equal(r[1].n_matches, 3);
    assert_string_equal(r[1].matches[1].method, "POST");
    assert_string_equal(r[1].matches[1].path, "/y");
    assert_string_equal(r[1].matches[2].method, "");
    assert_string_equal(r[1].name, "two");
    assert_int_equal(r[1].lane, LANE_RESERVED);
}

static void rates_may_differ_by_tier(void **state)
{
    (void)state;
    const struct policy_route *r =
        reads(
            "identify: [jwt: {jwks: k.json}]\ntiers: {from: jwt.tier}\nroutes:\n"
            "- {match: /x, rate: {user: {free: 5/min, pro: 60/min burst 10, default: 1/h}, route: "
            "100/s}}\n")
            ->routes;
    assert_int_equal(r->n_rates, 4);
    assert_string_equal(r->rates[1].tier, "pro");
    assert_int_equal(r->rates[1].burst, 10);
    assert_string_equal(r->rates[2].tier, "");
    assert_int_equal(r->rates[2].period_ns, 3600000000000);
    assert_int_equal(r->rates[3].by, BY_ROUTE);
    assert_int_equal(r->rates[3].burst, 100);
}

static void escapes_of_a_match_are_decoded(void **state)
{
    (void)state;
    const struct policy_match *m =
        reads("routes: [{match: ['/a%20b', '/%C3%A4/*', '/100%25', '/', '/*']}]")
            ->routes[0]
            .matches;
    assert_string_equal(m[0].path, "/a b");
    assert_string_equal(m[1].path, "/\xc3\xa4/*");
    assert_string_equal(m[2].path, "/100%");
    assert_string_equal(m[3].path, "/");
    assert_string_equal(m[4].path, "/*");
}

static void algorithms_are_those_that_suit(void **state)
{
    (void)state;
    const struct policy_identifier *id =
        reads("identify:\n- jwt: {jwks: k.json}\n- jwt: {jwks: k2.json, algorithms: es256, leeway: "
              "0, "
              "user_claim: email, cookie: token, audience: [a, b]}\n")
            ->identifiers;
    assert_int_equal(id[0].algorithms, ALG_HS256 | ALG_RS256 | ALG_ES256);
    assert_int_equal(id[1].algorithms, ALG_ES256);
    assert_int_equal(id[1].leeway_s, 0);
    assert_string_equal(id[1].cookie, "token");
    assert_int_equal(id[1].n_audiences, 2);
}

/* ---- rates and quotas ---- */

static void default_burst_is_all_that_is_allowed_in_the_time(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t burst;
    } rows[] = {{"1/s", 1},        {"5/s", 5},           {"10/min", 10},    {"7200/hour", 7200},
                {"1/day", 1},      {"10 / MIN", 10},     {"20/min burst 1", 1},
                {"1/s burst 9", 9}, {"10/minburst4", -1}, {"1000000000/day", 1000000000}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_rate r = {0};
        struct err e = {{0}};
        int rc = policy_value_rate(rows[i].text, &r, &e);
        assert_int_equal(rc, rows[i].burst < 0 ? -1 : 0);
        if (!rc)
            assert_int_equal(r.burst, rows[i].burst);
    }
}

static void rate_refuses(const char *text, const char *message)
{
    struct policy_rate r = {0};
    struct err e = {{0}};
    assert_int_equal(policy_value_rate(text, &r, &e), -1);
    assert_string_equal(e.text, message);
}

static void wrong_rates_are_explained(void **state)
{
    (void)state;
    static const char *const none[] = {"",
                                       "10",
                                       "/min",
                                       "10/",
                                       "-1/min",
                                       "1.5/min",
                                       "10 min",
                                       "ten/min",
                                       "10/min burst",
                                       "10/min burst x",
                                       "10/min 3",
                                       "10/min burst 3 4",
                                       "10//min",
                                       "10/min bursts 3"};
    for (size_t i = 0; i < countof(none); i++) {
        char message[200];
        snprintf(message, sizeof message, "'%s' is no rate; write it as 10/min or 10/min burst 3",
                 none[i]);
        rate_refuses(none[i], message);
    }
    rate_refuses("10/month", "'10/month': the unit 'month' is unknown; give s, min, h or day");
    rate_refuses("0/min", "'0/min' lets nothing pass; give 1 or more, or leave the limit out");
    rate_refuses("1/min burst 0",
                 "'1/min burst 0': a burst of 0 lets nothing pass; give 1 or more");
    rate_refuses("1000000001/s", "'1000000001/s' is too large; the most is 1000000000");
    rate_refuses("1/s burst 99999999999999999999",
                 "'1/s burst 99999999999999999999' is too large; the most is 1000000000");
    rate_refuses("1/day burst 4000",
                 "'1/day burst 4000': the burst takes more than ten years to come back; lower it");
}

static void every_form_of_a_quota_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t day, month;
    } rows[] = {{"0", 0, -1},
                {"00", 0, -1},
                {"20/day", 20, -1},
                {"2000/month", -1, 2000},
                {"2/day and 5/month", 2, 5},
                {"5/month AND 2/day", 2, 5},
                {"unlimited", -1, -1},
                {"0/month", 0, -1},
                {"0/day and 7/month", 0, -1}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_quota q = {0};
        struct err e = {{0}};
        if (policy_value_quota(rows[i].text, &q, &e))
            fail_msg("%s", e.text);
        assert_int_equal(q.day, rows[i].day);
        assert_int_equal(q.month, rows[i].month);
    }
}

static void wrong_quotas_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"20",
         "'20' is no quota; write 0, 20/day, 2000/month, 200/day and 2000/month, or unlimited"},
        {"20/day and", "'20/day and' is no quota; write 0, 20/day, 2000/month, 200/day and "
                       "2000/month, or unlimited"},
        {"20/day or 3/month",
         "'20/day or 3/month' is no quota; write 0, 20/day, 2000/month, 200/day "
         "and 2000/month, or unlimited"},
        {"", "'' is no quota; write 0, 20/day, 2000/month, 200/day and 2000/month, or unlimited"},
        {"20/hour",
         "'20/hour': the unit 'hour' is unknown; quotas count by day and month, and a rate "
         "counts what is shorter"},
        {"1/day and 2/day", "'1/day and 2/day' gives the day twice; leave one out"},
        {"9999999999/day", "'9999999999/day' is too large; the most is 1000000000"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct policy_quota q = {0};
        struct err e = {{0}};
        assert_int_equal(policy_value_quota(rows[i].text, &q, &e), -1);
        assert_string_equal(e.text, rows[i].message);
    }
}

/* ---- what is refused ---- */

static void unknown_keys_tell_the_nearest(void **state)
{
    (void)state;
    refuses_text("route: []", "1:1: 'route' is no setting; did you mean routes?");
    refuses_text("identity: []", "1:1: 'identity' is no setting; did you mean identify?");
    refuses_text("identify: [jwtt: {}]", "1: identify: 'jwtt' is unknown; did you mean jwt?");
    refuses_text("identify: [cookie]",
                 "1: identify: 'cookie' is unknown; it has jwt, bearer, api_key, address");
    refuses_text("identify:\n- jwt:\n    secret: x\n",
                 "3: jwt: 'secret' is unknown; did you mean secret_file?");
    refuses_text("identify: [api_key: {name: x}]",
                 "1: api_key: 'name' is unknown; it has header, file");
    refuses_text("tiers: {form: x}", "1: tiers: 'form' is unknown; did you mean from?");
    refuses_text("cors: {origin: x}", "1: cors: 'origin' is unknown; did you mean origins?");
    route_refuses("rates: 5/min", "routes: 'rates' is unknown; did you mean rate?");
    route_refuses("rate: {ip: 5/min}", "rate: 'ip' is unknown; it has user, address, route");
    route_refuses("concurrency: 1, queue: {sise: 5}",
                  "queue: 'sise' is unknown; did you mean size?");
    route_refuses("zzzz: 1",
                  "routes: 'zzzz' is unknown; it has match, name, require, deadline, on_deadline, "
                  "concurrency, queue, rate, quota, quota_when_down, lane, dry_run, errors, cors");
}

static void keys_given_twice_are_refused(void **state)
{
    (void)state;
    refuses_text("routes: []\nroutes: []\n", "2: routes is given twice; the first is in line 1");
    refuses_text("routes:\n- match: /x\n  dry_run: yes\n  dry-run: no\n",
                 "4: routes: dry_run is given twice; the first is in line 3");
    refuses_text("routes:\n- match: /x\n  name:\n  name: a\n",
                 "4: routes: name is given twice; the first is in line 3");
}

static void wrong_shapes_are_told(void **state)
{
    (void)state;
    refuses_text("routes: {match: /x}",
                 "1: routes takes a list: entries with match and limits, each "
                 "behind a dash, not a mapping");
    refuses_text("routes: x",
                 "1: routes takes a list: entries with match and limits, each behind a dash");
    refuses_text("routes: [/x]", "1: an entry of routes takes a mapping, as match: POST /api/ai/*");
    refuses_text("routes: [[]]",
                 "1: an entry of routes takes a mapping, as match: POST /api/ai/*, not a list");
    refuses_text("tiers: free",
                 "1: tiers takes a mapping, as tiers: {from: jwt.CLAIM, default: free}");
    refuses_text("cors: '*'",
                 "1: cors takes a mapping, as cors: {origins: [https://app.example.org]}");
    refuses_text("identify: [[x]]",
                 "1: identify: an entry is jwt, bearer, api_key or address, with "
                 "its options behind a colon");
    refuses_text("identify: [{jwt: {jwks: a}, address: }]",
                 "1: identify: a second word in one entry; put it behind a dash of its own");
    refuses_text("identify: [bearer: {x: y}]", "1: bearer takes no options; write the word alone");
    refuses_text("identify: [address: 64]", "1: address takes no options; write the word alone");
    refuses_text("identify: [api_key: x]",
                 "1: api_key takes a mapping, as api_key: {header: NAME, file: FILE}");
    route_refuses("deadline: [1]", "deadline takes one value, not a list");
    route_refuses("deadline: {a: b}", "deadline takes one value, not a mapping");
    route_refuses("require: []", "require takes one value, not a list");
    route_refuses("dry_run: []", "dry_run takes yes or no, not a list");
    route_refuses("name: on",
                  "name takes a text, not yes or no; leave it out, or put on in quotes if that is "
                  "the text");
    route_refuses("name: ''", "name is empty; give a text, or leave it out");
    route_refuses("[a]: b", "routes: a name is missing; write NAME: VALUE");
    route_refuses("rate: 10/min",
                  "rate: whom does it limit? write it as rate: {user: 10/min}, with "
                  "user, address or route");
    route_refuses("rate: {user: [1/s]}",
                  "rate: user takes one value, or a mapping of tiers to values, not a list");
    route_refuses("rate: {user: {}}", "rate: user: the mapping is empty; leave it out");
    route_refuses("quota: {free: }", "quota: the tier 'free' has no value; write it as 20/day");
    route_refuses("rate: {address: {free: {a: b}}}",
                  "rate: address: the tier 'free' has no value; write it as 10/min");
}

static void wrong_values_tell_the_cure(void **state)
{
    (void)state;
    route_refuses("deadline: soon",
                  "deadline: 'soon' is not a time; give seconds, or a number with "
                  "ms, s, m, h or d, as 250ms");
    route_refuses("deadline: 0", "deadline: 0 is too small; the range is 1ms to 1d");
    route_refuses("deadline: 2d", "deadline: 2d is too large; the range is 1ms to 1d");
    route_refuses("concurrency: 0", "concurrency: 0 is too small; the range is 1 to 65535");
    route_refuses("concurrency: many", "concurrency: 'many' is not a whole number");
    route_refuses("concurrency: 1, queue: x", "queue: 'x' is not a whole number");
    route_refuses("concurrency: 1, queue: 65537",
                  "queue: 65537 is too large; the range is 0 to 65536");
    route_refuses("concurrency: 1, queue: {size: 1, wait: 0}",
                  "queue: wait: 0 is too small; the range is 1ms to 1d");
    route_refuses("concurrency: 1, queue: {size: 1, fair_by: tier}",
                  "queue: fair_by: 'tier' is unknown; give one of route|user|address");
    route_refuses("require: admin", "require: 'admin' is unknown; give one of nobody|user");
    route_refuses("lane: fast", "lane: 'fast' is unknown; give one of common|reserved");
    route_refuses("on_deadline: kill",
                  "on_deadline: 'kill' is unknown; give one of tell|interrupt");
    route_refuses("errors: json", "errors: 'json' is unknown; give one of auto|problem|openai");
    route_refuses("quota_when_down: x", "quota_when_down: 'x' is unknown; give one of closed|open");
    route_refuses("dry_run: maybe", "dry_run: 'maybe' is neither yes nor no; give yes or no");
    route_refuses("rate: {user: 10}",
                  "rate: user: '10' is no rate; write it as 10/min or 10/min burst 3");
    route_refuses("rate: {address: {x y: 1/s}}",
                  "rate: address: the tier 'x y' holds a blank or control character; take it out");
    route_refuses("quota: 7", "quota: '7' is no quota; write 0, 20/day, 2000/month, 200/day and "
                              "2000/month, or unlimited");
    route_refuses("rate: {user: {a: 1/s, a: 2/s}}",
                  "rate: user: the tier 'a' is given twice; leave one out");
    route_refuses("quota: {default: 1/day, default: 2/day}",
                  "quota: the tier 'default' is given twice; leave one out");
    route_refuses("name: \"a\\\"b\"",
                  "name: it stands in logs and metrics, so it has ASCII letters, "
                  "digits, blanks and marks only, without \" and \\");
    refuses_text(
        "tiers: {default: default}",
        "1: tiers: 'default' stands for tiers that are not named, so no tier has this name; "
        "give another");
    refuses_text("tiers: {from: app_metadata.tier}",
                 "1: tiers: from: 'app_metadata.tier' is no place of a tier; name a claim of the "
                 "token, as jwt.app_metadata.tier");
    refuses_text("tiers: {from: jwt.a..b}",
                 "1: tiers: from: 'jwt.a..b' is no path of claims; write "
                 "names with one dot between them");
    refuses_text("identify: [jwt: {secret_file: s, leeway: 500ms}]",
                 "1: leeway: the time has whole seconds only; round it");
    refuses_text("identify: [jwt: {secret_file: s, leeway: 2h}]",
                 "1: leeway: 2h is too large; the range is 0 to 1h");
    refuses_text("identify: [jwt: {jwks: k, algorithms: [RS256, HS512]}]",
                 "1: algorithms: 'HS512' is not supported; give HS256, RS256 or ES256");
    refuses_text("identify: [jwt: {jwks: k, algorithms: none}]",
                 "1: algorithms: 'none' is not supported; give HS256, RS256 or ES256");
    refuses_text("identify: [jwt: {jwks: k, cookie: 'a b'}]",
                 "1: cookie: 'a b' holds a byte that such a name cannot have; give letters, digits "
                 "and -");
    refuses_text("identify: [jwt: {jwks: k, audience: [a, a]}]",
                 "1: audience: 'a' is given twice; leave one out");
}

static void wrong_matches_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *match, *message;
    } rows[] = {
        {"POST", "'POST' has no path; write PATH or METHOD PATH, as POST /api/ai/*"},
        {"POST api/x", "'POST api/x': the path must begin with /"},
        {"post /x", "'post /x': a method is written in capitals"},
        {"* /x", "'* /x' is no match; write PATH, METHOD PATH or METHOD|METHOD PATH, as POST "
                 "/api/ai/*"},
        {"GET| /x", "'GET| /x' is no match; write PATH, METHOD PATH or METHOD|METHOD PATH, as POST "
                    "/api/ai/*"},
        {"|GET /x", "'|GET /x' is no match; write PATH, METHOD PATH or METHOD|METHOD PATH, as POST "
                    "/api/ai/*"},
        {"https://x/y z", "'https://x/y z' is no match; write PATH, METHOD PATH or METHOD|METHOD "
                          "PATH, as POST /api/ai/*"},
        {"/a/*/b", "'/a/*/b' has a star inside; it may stand at the end only"},
        {"/a%2Ab", "'/a%2Ab' asks for a star itself, which cannot be told apart; match what stands "
                   "before it"},
        {"/a%zz", "'/a%zz' has a % without two hex digits; write a percent sign as %25"},
        {"/a%2", "'/a%2' has a % without two hex digits; write a percent sign as %25"},
        {"/a%", "'/a%' has a % without two hex digits; write a percent sign as %25"},
        {"/a%00", "'/a%00' holds a control character; take it out"},
        {"/a//b", "'/a//b' has a double slash; write one, it stands for any number of them"},
        {"/a%2F/b", "'/a%2F/b' has a double slash; write one, it stands for any number of them"},
        {"/a?b=c", "'/a?b=c' holds a ?; a match looks at the path only, so take the rest away"},
        {"/a b", "'/a b' holds a byte that must be written as an escape; write it as %20"},
        {"/\xc3\xa4",
         "'/\xc3\xa4' holds a byte that must be written as an escape; write it as %C3"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        char text[256], message[512];
        snprintf(text, sizeof text, "routes: [{match: '%s'}]", rows[i].match);
        snprintf(message, sizeof message, "1: match: %s", rows[i].message);
        refuses_text(text, message);
    }
    refuses_text("routes: [{match: [/a, '']}]", "1: match is empty; give a text, or leave it out");
    refuses_text("routes:\n- match: []\n",
                 "2: routes: the entry has no match; say which requests it "
                 "is for, as match: POST /api/ai/*");
}

static void wrong_origins_are_explained(void **state)
{
    (void)state;
    static const char host[] =
        "the host is a name, with other letters in its xn-- form; a star may "
        "stand for its first label";
    static const struct {
        const char *origin, *cure;
    } rows[] = {
        {"app.example.org",
         "write SCHEME://HOST or SCHEME://HOST:PORT, as https://app.example.org"},
        {"https://app.example.org/", "take away the path and the final slash"},
        {"https://app.example.org/x", "take away the path and the final slash"},
        {"https://App.example.org", "write it in small letters"},
        {"https://app.example.org:443", "they leave the usual port out, so take it away"},
        {"http://localhost:80", "they leave the usual port out, so take it away"},
        {"http://localhost:0", "the port is a number from 1 to 65535, or a star"},
        {"http://localhost:", "the port is a number from 1 to 65535, or a star"},
        {"http://localhost:3000*", "the port is a number from 1 to 65535, or a star"},
        {"http://localhost?x", "the port is a number from 1 to 65535, or a star"},
        {"https://", host},
        {"https://*", host},
        {"https://a.*.org", host},
        {"https://*app.org", host},
        {"https://u@example.org", host},
        {"https://a..b", host},
        {"*://a", "write SCHEME://HOST or SCHEME://HOST:PORT, as https://app.example.org"},
        {"null", NULL},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        char text[256], message[512];
        snprintf(text, sizeof text, "cors: {origins: '%s'}", rows[i].origin);
        snprintf(message, sizeof message, "1: origins: '%s' is no origin as browsers send it; %s",
                 rows[i].origin,
                 rows[i].cure ? rows[i].cure
                              : "null is any page in a sandbox or a file, so it names nobody");
        refuses_text(text, message);
    }
    const struct conf_policy *p = reads(
        "cors: {origins: ['https://*.example.org', 'http://localhost:*', 'http://[::1]:3000', "
        "'http://127.0.0.1:5173', 'capacitor://localhost', 'https://*.example.org:*'], expose: "
        "[X-A, 'X-B,X-C'], headers: 'A, B', max_age: 1h}");
    assert_int_equal(p->cors.n_origins, 6);
    assert_string_equal(p->cors.expose, "X-A, X-B, X-C");
    assert_string_equal(p->cors.headers, "A, B");
    assert_int_equal(p->cors.max_age_s, 3600);
}

static void urls_of_keys_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {
        "https://x.example/jwks.json", "http://localhost/k", "http://127.9.0.1:99/k",
        "http://[::1]:80/k",           "keys/jwks.json",     "/etc/jwks.json"};
    static const struct {
        const char *url, *cure;
    } bad[] = {{"http://x.example/k", "is fetched without TLS"},
               {"http://127.0.0.1.x.example/k", "is fetched without TLS"},
               {"http://localhost.x.example/k", "is fetched without TLS"},
               {"http://localhost@x.example/k", "write https://HOST/PATH"},
               {"https://", "write https://HOST/PATH"},
               {"https:///k", "write https://HOST/PATH"},
               {"https://a b/k", "write https://HOST/PATH"},
               {"ftp://x/k", "give https://…, or the path of a file"}};
    struct err e = {{0}};
    for (size_t i = 0; i < countof(good); i++)
        if (policy_value_jwks(good[i], &e))
            fail_msg("%s", e.text);
    for (size_t i = 0; i < countof(bad); i++) {
        assert_int_equal(policy_value_jwks(bad[i].url, &e), -1);
        assert_text_in(e.text, bad[i].cure);
    }
}

/* ---- what must be true together ---- */

static void jwt_has_keys_of_one_source(void **state)
{
    (void)state;
    static const char none[] =
        "2: jwt has no key; give secret_file: FILE (HS256) or jwks: URL (RS256, ES256)";
    refuses_text("identify:\n- jwt: {issuer: x}\n", none);
    refuses_text("identify:\n- jwt: {}\n", none);
    refuses_text("identify:\n- jwt\n",
                 "2: jwt takes a mapping, as jwt: {secret_file: FILE} or jwt: {jwks: URL}");
    refuses_text("identify:\n- jwt:\n",
                 "2: jwt takes a mapping, as jwt: {secret_file: FILE} or jwt: {jwks: URL}");
    refuses_text("identify:\n- jwt:\n    secret_file: a\n    jwks: b\n",
                 "4: jwt: secret_file and jwks exclude each other; for both write two entries of "
                 "identify");
    refuses_text("identify: [jwt: {secret_file: a, algorithms: [HS256, RS256]}]",
                 "1: jwt: a secret signs with HS256 only; leave algorithms out, or give jwks");
}

static void ways_that_never_count_are_refused(void **state)
{
    (void)state;
    refuses_text("identify:\n- address\n- jwt: {jwks: a}\n",
                 "3: identify: address is always there, so nothing behind it counts; put it last");
    refuses_text(
        "identify:\n- bearer\n- jwt: {jwks: a}\n",
        "3: identify: bearer takes every token, so jwt behind it never counts; put it first");
    refuses_text(
        "identify: [bearer, bearer]",
        "1: identify: bearer takes every token, so a second one behind it never counts; put "
        "it first");
    refuses_text("identify: [api_key: {header: X-A}, api_key: {header: x-a}]",
                 "1: identify: two api_key look at the field x-a; give one another header");
    assert_int_equal(reads("identify: [jwt: {jwks: a}, jwt: {secret_file: b}, api_key, bearer, "
                           "address]")
                         ->n_identifiers,
                     5);
}

static void limits_of_users_need_users(void **state)
{
    (void)state;
    route_refuses("require: user",
                  "require: user, but nobody is a user: identify names no jwt, bearer or api_key");
    route_refuses("quota: 20/day", "quota counts by user, but nobody is a user: identify names no "
                                   "jwt, bearer or api_key");
    refuses_text("routes:\n- match: /x\n  quota: 20/day\nidentify: [address]\n",
                 "3: quota counts by user, but nobody is a user: identify names no jwt, bearer or "
                 "api_key");
    reads("routes: [{match: /x, quota: 20/day, require: user}]\nidentify: [api_key]\n");
}

static void tiers_come_from_somewhere(void **state)
{
    (void)state;
    refuses_text("tiers:\n  from: jwt.tier\nidentify: [bearer]\n",
                 "2: tiers: from reads a claim of a token, but identify names no jwt; add one, or "
                 "leave from out");
    route_refuses(
        "rate: {address: {default: 1/s, free: 5/min}}",
        "the tier 'free' is nobody's; give tiers: {from: jwt.CLAIM, default: TIER}, or an "
        "api_key with a file");
    reads("routes: [{match: /x, rate: {user: {free: 5/min}}}]\nidentify: [api_key: {file: k}]\n");
}

static void routes_contradict_nothing(void **state)
{
    (void)state;
    route_refuses(
        "queue: 5",
        "queue has no meaning without concurrency; say how many may run, as concurrency: 8");
    route_refuses(
        "queue: {size: 0}",
        "queue has no meaning without concurrency; say how many may run, as concurrency: 8");
    route_refuses("concurrency: 2, queue: {wait: 5s}",
                  "queue has no size; say how many may wait, as size: 100");
    route_refuses("lane: reserved, concurrency: 5",
                  "lane: reserved never waits, so it has no concurrency; leave one of them out");
    route_refuses("lane: reserved, queue: 5",
                  "lane: reserved never waits, so it has no queue; leave one of them out");
    route_refuses("quota_when_down: open",
                  "quota_when_down has no meaning without quota; leave it out");
    route_refuses("cors: {credentials: yes}", "cors has no origins; give those of your pages, as "
                                              "origins: [https://app.example.org]");
    refuses_text("cors:\n  origins: '*'\n  credentials: yes\n",
                 "3: cors: credentials with origins: \"*\" would hand every page the user's data; "
                 "name the origins");
    refuses_text("cors:\n  origins: ['*', 'https://x']\n",
                 "2: cors: the origin \"*\" is every origin; leave the others out, or it");
    refuses_text("routes:\n- match: /x\n- {match: /y, name: /x}\n",
                 "3: routes: the route in line 2 is called '/x', too; give one of them another "
                 "name:");
}

static void bounds_are_told(void **state)
{
    (void)state;
    char text[16384];
    size_t at = (size_t)snprintf(text, sizeof text, "routes:\n");
    for (int i = 0; i < POLICY_ROUTES_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "- {match: M%c%c /%d}\n",
                               'A' + i / 20 % 2, 'A' + i % 10, i);
    assert_int_equal(reads(text)->n_routes, POLICY_ROUTES_MAX);
    assert_string_equal(conf.policy.routes[63].matches[0].path, "/63");
    snprintf(text + at, sizeof text - at, "- {match: /more}\n");
    refuses_text(text, "66: routes: more than 64 entries");

    at = (size_t)snprintf(text, sizeof text, "routes:\n");
    for (int i = 0; i <= POLICY_METHODS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "- {match: M%c%c /%d}\n", 'A' + i / 10,
                               'A' + i % 10, i);
    refuses_text(text,
                 "34: routes: more than 32 different methods; leave the method out where every "
                 "one is meant");

    at = (size_t)snprintf(text, sizeof text, "routes: [{match: [");
    for (int i = 0; i <= POLICY_MATCHES_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "/%d, ", i);
    snprintf(text + at, sizeof text - at, "]}]");
    refuses_text(text, "1: match: more than 16 matches; make two routes of it");

    at = (size_t)snprintf(text, sizeof text, "routes: [{match: /x, quota: {");
    for (int i = 0; i <= POLICY_TIERS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "t%d: 1/day, ", i);
    snprintf(text + at, sizeof text - at, "}}]");
    refuses_text(text, "1: quota: more than 32 tiers");

    at = (size_t)snprintf(text, sizeof text, "routes: [{match: /x, rate: {address: 1/s, user: {");
    for (int i = 0; i < POLICY_RATES_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "t%d: 1/s, ", i);
    snprintf(text + at, sizeof text - at, "}}}]");
    refuses_text(text, "1: rate: more than 32 in one route");

    refuses_text("identify: [jwt: {jwks: a}, jwt: {jwks: b}, jwt: {jwks: c}, jwt: {jwks: d}, jwt: "
                 "{jwks: e}, jwt: {jwks: f}, jwt: {jwks: g}, jwt: {jwks: h}, address]",
                 "1: identify: more than 8 entries");
    at = (size_t)snprintf(text, sizeof text, "routes: [{match: /");
    memset(text + at, 'a', POLICY_PATH_MAX - 1);
    at += POLICY_PATH_MAX - 1;
    snprintf(text + at, sizeof text - at, "}]");
    refuses_text(text, "1: routes: the first match is too long for a name; give name: as well");
    snprintf(text + at, sizeof text - at, ", name: x}]");
    assert_int_equal(strlen(reads(text)->routes[0].matches[0].path), POLICY_PATH_MAX);
    snprintf(text + at, sizeof text - at, "a, name: x}]");
    struct err e = {{0}};
    assert_int_equal(conf_yaml_parse(&conf, "f", text, strlen(text), &e), -1);
    assert_text_in(e.text, "is longer than 512 bytes; end it earlier with a star");
}

/* ---- notes ---- */

static char *notes_of(const char *text)
{
    static char said[4096];
    struct err e = {{0}};
    struct conf c;
    memset(said, 0, sizeof said);
    assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
    if (conf_yaml_parse(&c, "weir.yaml", text, strlen(text), &e))
        fail_msg("%s", e.text);
    FILE *out = fmemopen(said, sizeof said - 1, "w");
    assert_non_null(out);
    conf_notes(&c, out);
    fclose(out);
    conf_fini(&c);
    return said;
}

static void route_that_never_matches_is_noted(void **state)
{
    (void)state;
    assert_string_equal(
        notes_of("routes:\n- match: /api/*\n- match: POST /api/ai\n"),
        "weir: weir.yaml:3: the route 'POST /api/ai' never matches: '/api/*' in line 2 "
        "takes all of it; put the narrower one first\n");
    assert_string_equal(
        notes_of("routes:\n- match: [/a*, GET /b]\n- match: [HEAD /b, /abc/*, /a]\n"),
        "weir: weir.yaml:3: the route 'HEAD /b' never matches: '/a*' in line 2 takes "
        "all of it; put the narrower one first\n");
    assert_string_equal(
        notes_of("routes:\n- match: POST /api/*\n- match: [/api/ai, POST /api/x]\n"
                 "- match: /ap*\n- match: GET /\n- match: HEAD /\n  name: h\n"),
        "weir: weir.yaml:6: the route 'h' never matches: 'GET /' in line 5 takes all "
        "of it; put the narrower one first\n");
    assert_string_equal(notes_of("routes:\n- match: /x\n- match: /x/*\n- match: /x*\n"), "");
}

static void rate_of_users_without_users_is_noted(void **state)
{
    (void)state;
    assert_string_equal(
        notes_of("routes:\n- match: /x\n  rate:\n    user: 10/min\n"),
        "weir: weir.yaml:4: rate: user limits by address, because identify names no "
        "jwt, bearer or api_key\n");
}

/* ---- printing ---- */

/* The policy as YAML; owned by the caller. */
static char *print(const struct conf_policy *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    conf_policy_print(p, out);
    fclose(out);
    return text;
}

static void same_cors(const struct policy_cors *a, const struct policy_cors *b)
{
    assert_int_equal(a->given, b->given);
    assert_int_equal(a->n_origins, b->n_origins);
    for (unsigned i = 0; i < a->n_origins; i++)
        assert_string_equal(a->origins[i], b->origins[i]);
    assert_int_equal(a->credentials, b->credentials);
    assert_string_equal(a->methods, b->methods);
    assert_string_equal(a->headers, b->headers);
    assert_string_equal(a->expose, b->expose);
    assert_int_equal(a->max_age_s, b->max_age_s);
}

static void same_identifier(const struct policy_identifier *a, const struct policy_identifier *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_string_equal(a->secret_file, b->secret_file);
    assert_string_equal(a->jwks, b->jwks);
    assert_string_equal(a->issuer, b->issuer);
    assert_int_equal(a->n_audiences, b->n_audiences);
    for (unsigned i = 0; i < a->n_audiences; i++)
        assert_string_equal(a->audiences[i], b->audiences[i]);
    assert_int_equal(a->algorithms, b->algorithms);
    assert_int_equal(a->leeway_s, b->leeway_s);
    assert_string_equal(a->user_claim, b->user_claim);
    assert_string_equal(a->cookie, b->cookie);
    assert_string_equal(a->header, b->header);
    assert_string_equal(a->file, b->file);
}

static void same_route(const struct policy_route *a, const struct policy_route *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->n_matches, b->n_matches);
    for (unsigned i = 0; i < a->n_matches; i++) {
        assert_string_equal(a->matches[i].method, b->matches[i].method);
        assert_string_equal(a->matches[i].path, b->matches[i].path);
    }
    assert_int_equal(a->require, b->require);
    assert_int_equal(a->deadline_ms, b->deadline_ms);
    assert_int_equal(a->on_deadline, b->on_deadline);
    assert_int_equal(a->on_deadline_given, b->on_deadline_given);
    assert_int_equal(a->concurrency, b->concurrency);
    assert_int_equal(a->queue_size, b->queue_size);
    assert_int_equal(a->queue_wait_ms, b->queue_wait_ms);
    assert_int_equal(a->queue_fair_by, b->queue_fair_by);
    assert_int_equal(a->n_rates, b->n_rates);
    for (unsigned i = 0; i < a->n_rates; i++) {
        assert_int_equal(a->rates[i].by, b->rates[i].by);
        assert_string_equal(a->rates[i].tier, b->rates[i].tier);
        assert_int_equal(a->rates[i].units, b->rates[i].units);
        assert_int_equal(a->rates[i].period_ns, b->rates[i].period_ns);
        assert_int_equal(a->rates[i].burst, b->rates[i].burst);
    }
    assert_int_equal(a->n_quotas, b->n_quotas);
    for (unsigned i = 0; i < a->n_quotas; i++) {
        assert_string_equal(a->quotas[i].tier, b->quotas[i].tier);
        assert_int_equal(a->quotas[i].day, b->quotas[i].day);
        assert_int_equal(a->quotas[i].month, b->quotas[i].month);
    }
    assert_int_equal(a->quota_store_down, b->quota_store_down);
    assert_int_equal(a->lane, b->lane);
    assert_int_equal(a->dry_run, b->dry_run);
    assert_int_equal(a->errors, b->errors);
    same_cors(&a->cors, &b->cors);
}

static void same_when_read_again(const struct conf_policy *p)
{
    struct conf c;
    struct err e = {{0}};
    char *text = print(p);
    assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
    if (conf_yaml_parse(&c, "weir.yaml", text, strlen(text), &e))
        fail_msg("%s in\n%s", e.text, text);
    assert_int_equal(p->n_identifiers, c.policy.n_identifiers);
    for (unsigned i = 0; i < p->n_identifiers; i++)
        same_identifier(&p->identifiers[i], &c.policy.identifiers[i]);
    assert_string_equal(p->tier_from, c.policy.tier_from);
    assert_string_equal(p->tier_default, c.policy.tier_default);
    same_cors(&p->cors, &c.policy.cors);
    assert_int_equal(p->n_routes, c.policy.n_routes);
    for (unsigned i = 0; i < p->n_routes; i++)
        same_route(&p->routes[i], &c.policy.routes[i]);
    conf_fini(&c);
    free(text);
}

static void printed_policy_reads_to_the_same(void **state)
{
    (void)state;
    same_when_read_again(reads(
        "identify:\n"
        "  - jwt: {secret_file: \"a \\\"b\\\" \\\\ #: \\u2028\\U0001F600\\u00e4\", issuer: 'yes', "
        "audience: ['~', '123', '- x']}\n"
        "  - jwt: {jwks: 'https://x/y', algorithms: [ES256, RS256], leeway: 1m, cookie: c}\n"
        "  - api_key\n"
        "  - api_key: {header: X-A, file: 'null'}\n"
        "  - bearer\n"
        "  - address\n"
        "tiers: {from: jwt.\xc3\xa4.b, default: 'off'}\n"
        "cors: {origins: [https://a, 'http://localhost:*'], credentials: yes, headers: X, expose: "
        "Y}\n"
        "routes:\n"
        "  - {match: ['GET|POST /a%20b%22%5C%3F%23%25/*', '/%C3%A4'], require: user, deadline: "
        "1500ms,\n"
        "     on_deadline: interrupt, concurrency: 3, queue: {size: 0, wait: 250ms, fair_by: "
        "route},\n"
        "     rate: {route: 1/s, user: {default: 2/day, 'no': 3/h burst 7}, address: {a: 1/min}},\n"
        "     quota: {free: 0, a: 1/month, b: 2/day, c: 3/day and 4/month, default: unlimited},\n"
        "     quota_when_down: open, dry_run: yes, errors: problem, cors: {origins: [], max_age: "
        "0}}\n"
        "  - {match: /x, name: 'x: y # z', lane: reserved, errors: openai, cors: {origins: '*', "
        "methods: "
        "GET}}\n"
        "  - {match: /y, concurrency: 3}\n"));
    same_when_read_again(reads("threads: 4"));
    char *none = print(&policy_none);
    assert_string_equal(none, "");
    free(none);
}

static void every_example_of_the_reference_is_read_and_printed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < POLICY_KEYS; i++) {
        struct conf c;
        struct err e = {{0}};
        const char *example = policy_keys[i].example;
        assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
        if (conf_yaml_parse(&c, "weir.yaml", example, strlen(example), &e))
            fail_msg("%s: %s", policy_keys[i].name, e.text);
        assert_true(policy_is_given(&c.policy));
        assert_text_in(example, policy_keys[i].name);
        same_when_read_again(&c.policy);
        conf_fini(&c);
    }
}

/* ---- a start ---- */

static char folder[] = "/tmp/weir-policy-XXXXXX";
static char old_folder[1024];

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int enter(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    return getcwd(old_folder, sizeof old_folder) && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    unlink("weir.yaml");
    unlink("sub/weir.yaml");
    unlink("sub/secret");
    unlink("secret");
    rmdir("sub");
    return chdir(old_folder) || rmdir(folder);
}

/* What the start says of the files, "" for nothing. */
static const char *files_of(const char *words)
{
    static struct err e;
    e = (struct err){{0}};
    struct started *s = start(words);
    assert_int_equal(s->rc, 0);
    int rc = conf_policy_files_check(&s->conf, s->conf.chdir, &e);
    assert_int_equal(rc, e.text[0] ? -1 : 0);
    end(s);
    return e.text;
}

static void files_that_are_named_must_be_there(void **state)
{
    (void)state;
    write_file("weir.yaml", "identify:\n- jwt: {secret_file: secret}\n");
    assert_string_equal(
        files_of("weir a:b"),
        "weir.yaml:2: secret_file: cannot read 'secret': No such file or directory");
    write_file("secret", "x");
    assert_string_equal(files_of("weir a:b"), "");
    write_file("weir.yaml",
               "identify:\n- jwt: {jwks: 'https://x.example/k'}\n- api_key: {file: .}\n");
    assert_string_equal(files_of("weir a:b"), "weir.yaml:3: file: cannot read '.': Is a directory");
    write_file("weir.yaml", "identify:\n- jwt: {jwks: none.json}\n");
    assert_string_equal(files_of("weir a:b"),
                        "weir.yaml:2: jwks: cannot read 'none.json': No such file or directory");
}

static void files_are_looked_for_in_the_folder_of_chdir(void **state)
{
    (void)state;
    assert_int_equal(mkdir("sub", 0700), 0);
    write_file("sub/weir.yaml", "identify:\n- jwt: {secret_file: secret}\n");
    write_file("secret", "x");
    assert_text_in(files_of("weir a:b --chdir sub"), "sub/weir.yaml:2: secret_file: cannot read");
    write_file("sub/secret", "x");
    assert_string_equal(files_of("weir a:b --chdir sub"), "");
}

static void interrupt_needs_a_deadline_of_the_route_or_of_all(void **state)
{
    (void)state;
    write_file("weir.yaml", "routes:\n- {match: /x, on_deadline: interrupt}\n");
    refuses("weir a:b",
            "weir.yaml:2: on_deadline has no meaning without a deadline; give the route "
            "one, or --deadline");
    struct started *s = start("weir a:b --deadline 30s");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.deadline, 30000);
    assert_int_equal(s->conf.policy.routes[0].on_deadline, ON_DEADLINE_INTERRUPT);
    end(s);
}

static void route_that_says_nothing_of_deadlines_follows_the_setting(void **state)
{
    (void)state;
    write_file("weir.yaml",
               "routes:\n- match: /x\n- {match: /y, on_deadline: tell, deadline: 1s}\n");
    struct started *s = start("weir a:b --on-deadline interrupt");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.policy.routes[0].on_deadline, ON_DEADLINE_INTERRUPT);
    assert_int_equal(s->conf.policy.routes[1].on_deadline, ON_DEADLINE_TELL);
    end(s);
    s = start("weir a:b");
    assert_int_equal(s->conf.policy.routes[0].on_deadline, ON_DEADLINE_TELL);
    end(s);
}

static void settings_of_admission_have_their_defaults(void **state)
{
    (void)state;
    struct started *s = start("weir a:b");
    assert_int_equal(s->conf.deadline, 0);
    assert_string_equal(s->conf.store, "");
    assert_int_equal(s->conf.rate_keys, 100000);
    assert_string_equal(s->conf.rate_headers, "draft");
    end(s);
    refuses("weir a:b --rate-keys 10",
            "--rate-keys: 10 is too small; the range is 1000 to 10000000");
}

static void printed_settings_end_with_the_policy(void **state)
{
    (void)state;
    char text[65536] = "";
    write_file("weir.yaml", "routes:\n- {match: POST /x, rate: {address: 5/min}}\n");
    struct started *s = start("weir --print-config a:b");
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    conf_print(&s->conf, out);
    fclose(out);
    assert_text_in(text,
                   "\n\n# weir.yaml\nroutes:\n  - match: [\"POST /x\"]\n    name: \"POST /x\"\n"
                   "    require: nobody\n    rate:\n      address: {default: 5/min burst 5}\n"
                   "    errors: auto\n");
    end(s);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, begin, drop)
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(example_of_the_header_is_read),
        ONE(nothing_given_is_no_policy),
        ONE(names_may_have_dashes_and_short_forms_are_read),
        ONE(rates_may_differ_by_tier),
        ONE(escapes_of_a_match_are_decoded),
        ONE(algorithms_are_those_that_suit),
        cmocka_unit_test(default_burst_is_all_that_is_allowed_in_the_time),
        cmocka_unit_test(wrong_rates_are_explained),
        cmocka_unit_test(every_form_of_a_quota_is_read),
        cmocka_unit_test(wrong_quotas_are_explained),
        cmocka_unit_test(unknown_keys_tell_the_nearest),
        cmocka_unit_test(keys_given_twice_are_refused),
        cmocka_unit_test(wrong_shapes_are_told),
        cmocka_unit_test(wrong_values_tell_the_cure),
        cmocka_unit_test(wrong_matches_are_explained),
        ONE(wrong_origins_are_explained),
        cmocka_unit_test(urls_of_keys_are_checked),
        cmocka_unit_test(jwt_has_keys_of_one_source),
        ONE(ways_that_never_count_are_refused),
        ONE(limits_of_users_need_users),
        ONE(tiers_come_from_somewhere),
        cmocka_unit_test(routes_contradict_nothing),
        ONE(bounds_are_told),
        cmocka_unit_test(route_that_never_matches_is_noted),
        cmocka_unit_test(rate_of_users_without_users_is_noted),
        ONE(printed_policy_reads_to_the_same),
        cmocka_unit_test(every_example_of_the_reference_is_read_and_printed),
        IN_FOLDER(files_that_are_named_must_be_there),
        IN_FOLDER(files_are_looked_for_in_the_folder_of_chdir),
        IN_FOLDER(interrupt_needs_a_deadline_of_the_route_or_of_all),
        IN_FOLDER(route_that_says_nothing_of_deadlines_follows_the_setting),
        IN_FOLDER(settings_of_admission_have_their_defaults),
        IN_FOLDER(printed_settings_end_with_the_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
