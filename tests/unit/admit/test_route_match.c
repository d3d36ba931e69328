/* route_match: the first route that fits, and no spelling of a path that escapes its route. */
#include "../conf/conf_helper.h"

#include "admit/route_match.h"
#include "conf/yaml.h"

static struct conf conf;
static struct route_match *routes;

static int begin(void **state)
{
    (void)state;
    struct err e = {{0}};
    return conf_init(&conf, CONF_WEIR, &e);
}

static int drop(void **state)
{
    (void)state;
    route_match_free(&routes);
    conf_fini(&conf);
    return 0;
}

/* One route for each of the matches, which stand in a list of YAML. */
static void routes_are(const char *matches)
{
    char text[4096];
    unsigned k = 0;
    struct err e = {{0}};
    size_t at = (size_t)snprintf(text, sizeof text, "routes:\n");
    for (const char *p = matches; *p;) {
        size_t n = strcspn(p, ",");
        at += (size_t)snprintf(text + at, sizeof text - at, "- {match: \"%.*s\", name: r%u}\n",
                               (int)n, p, k++);
        p += n + (p[n] == ',');
    }
    if (conf_yaml_parse(&conf, "weir.yaml", text, at, &e))
        fail_msg("%s", e.text);
    route_match_free(&routes);
    routes = route_match_new(&conf.policy);
    assert_non_null(routes);
}

static unsigned found_bytes(const char *method, const char *path, size_t n)
{
    /* On the heap, so that a sanitizer sees what reads beyond. */
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n)
        memcpy(copy, path, n);
    unsigned route = route_match_find(routes, slice_str(method), slice_of(copy, n));
    free(copy);
    return route;
}

static unsigned found(const char *method, const char *path)
{
    return found_bytes(method, path, strlen(path));
}

static void first_route_that_fits_counts(void **state)
{
    (void)state;
    routes_are("POST /api/ai/chat,/api/ai/*,GET /,/health,PUT|PATCH /api/*");
    assert_int_equal(found("POST", "/api/ai/chat"), 0);
    assert_int_equal(found("GET", "/api/ai/chat"), 1);
    assert_int_equal(found("POST", "/api/ai/"), 1);
    assert_int_equal(found("POST", "/api/ai"), ROUTE_NONE);
    assert_int_equal(found("POST", "/api/ai/chat/"), 1);
    assert_int_equal(found("GET", "/"), 2);
    assert_int_equal(found("POST", "/"), ROUTE_NONE);
    assert_int_equal(found("BREW", "/health"), 3);
    assert_int_equal(found("BREW", "/healt"), ROUTE_NONE);
    assert_int_equal(found("BREW", "/healthy"), ROUTE_NONE);
    assert_int_equal(found("PATCH", "/api/x"), 4);
    assert_int_equal(found("PUT", "/api/"), 4);
    assert_int_equal(found("DELETE", "/api/x"), ROUTE_NONE);
    assert_int_equal(found("GET", "/API/ai/x"), ROUTE_NONE);
}

static void no_routes_match_nothing(void **state)
{
    (void)state;
    routes_are("");
    assert_int_equal(found("GET", "/"), ROUTE_NONE);
    routes_are("/*");
    assert_int_equal(found("OPTIONS", "*"), ROUTE_NONE);
    assert_int_equal(found("CONNECT", ""), ROUTE_NONE);
    assert_int_equal(found("GET", "//"), 0);
}

static void head_counts_as_get(void **state)
{
    (void)state;
    routes_are("HEAD /a,GET /a,GET /b");
    assert_int_equal(found("HEAD", "/a"), 0);
    assert_int_equal(found("GET", "/a"), 1);
    assert_int_equal(found("HEAD", "/b"), 2);
    assert_int_equal(found("HEA", "/b"), ROUTE_NONE);
}

static void methods_of_any_length_are_told_apart(void **state)
{
    (void)state;
    routes_are("PROPFIND /,PROPPATCH /,PROPPATCHES /,A /");
    assert_int_equal(found("PROPFIND", "/"), 0);
    assert_int_equal(found("PROPPATCH", "/"), 1);
    assert_int_equal(found("PROPPATCHES", "/"), 2);
    assert_int_equal(found("A", "/"), 3);
    assert_int_equal(found("", "/"), ROUTE_NONE);
    assert_int_equal(found("PROPPATC", "/"), ROUTE_NONE);
    assert_int_equal(found("PROPPATCHE", "/"), ROUTE_NONE);
}

static void as_many_methods_as_may_be_are_known(void **state)
{
    (void)state;
    char list[512] = "";
    size_t at = 0;
    for (unsigned i = 0; i < POLICY_METHODS_MAX; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s%c%c /x", i ? "," : "",
                               i ? "M" : "GE", i ? 'A' + (int)(i / 8) : 'T',
                               i ? 'A' + (int)(i % 8) : ' ');
    routes_are(list);
    assert_int_equal(found("HEAD", "/x"), 0);
    assert_int_equal(found("MDH", "/x"), 31);
    assert_int_equal(found("MDG", "/x"), 30);
    assert_int_equal(found("MZZ", "/x"), ROUTE_NONE);
}

static void no_spelling_of_a_method_escapes_its_route(void **state)
{
    (void)state;
    routes_are("POST /a,PROPPATCH-LONG /a,GET /a,/b");
    assert_int_equal(found("post", "/a"), 0);
    assert_int_equal(found("PosT", "/a"), 0);
    assert_int_equal(found("propPatch-Long", "/a"), 1);
    assert_int_equal(found("head", "/a"), 2);
    assert_int_equal(found("P_ST", "/a"), ROUTE_NONE);
    assert_int_equal(found("post", "/b"), 3);
    char longest[200];
    memset(longest, 'p', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(found(longest, "/a"), ROUTE_NONE);
}

static unsigned below(const char *prefix, const char *method, const char *path)
{
    return route_match_below(routes, slice_str(method), slice_str(path), slice_str(prefix));
}

static void a_prefix_is_no_way_around_a_route(void **state)
{
    (void)state;
    routes_are("POST /api/*,/foo/old/*,GET /,/foo/*");
    for (const char *const *prefix = (const char *const[]){"/foo", "/foo/", NULL}; *prefix;
         prefix++) {
        assert_int_equal(below(*prefix, "POST", "/api/x"), 0);
        assert_int_equal(below(*prefix, "POST", "/foo/api/x"), 0);
        assert_int_equal(below(*prefix, "POST", "/%66oo//%61pi/x"), 0);
        assert_int_equal(below(*prefix, "POST", "//foo/api/x"), 0);
        assert_int_equal(below(*prefix, "POST", "/food/api/x"), 3);
        assert_int_equal(below(*prefix, "POST", "/foo/old/x"), 1);
        assert_int_equal(below(*prefix, "POST", "/old/x"), 1);
        assert_int_equal(below(*prefix, "GET", "/foo"), 2);
        assert_int_equal(below(*prefix, "GET", "/"), 2);
        assert_int_equal(below(*prefix, "OPTIONS", "*"), ROUTE_NONE);
    }
    assert_int_equal(below("", "POST", "/foo/api/x"), 3);
    char longest[ROUTE_PREFIX_MAX + 2], path[ROUTE_PREFIX_MAX + 600];
    memset(longest, 'p', sizeof longest);
    longest[0] = '/';
    longest[ROUTE_PREFIX_MAX] = '\0';
    snprintf(path, sizeof path, "%s/api/%0500d", longest, 0);
    assert_int_equal(below(longest, "POST", path), 0);
    assert_int_equal(below(longest, "POST", path + ROUTE_PREFIX_MAX), 0);
}

static void escapes_are_decoded_once(void **state)
{
    (void)state;
    routes_are("/api/chat,/a%20b,/p%2Fq,/100%25");
    assert_int_equal(found("GET", "/api%2fchat"), 0);
    assert_int_equal(found("GET", "%2Fapi%2Fch%61t"), 0);
    assert_int_equal(found("GET", "/api/chat%00"), ROUTE_NONE);
    assert_int_equal(found("GET", "/api/%63hat"), 0);
    assert_int_equal(found("GET", "/api/%2563hat"), ROUTE_NONE);
    assert_int_equal(found("GET", "/a%20b"), 1);
    assert_int_equal(found("GET", "/a b"), 1);
    assert_int_equal(found("GET", "/p/q"), 2);
    assert_int_equal(found("GET", "/100%25"), 3);
}

static void malformed_escapes_stand_for_themselves(void **state)
{
    (void)state;
    routes_are("/100%25,/a%25zz/*,/%25");
    assert_int_equal(found("GET", "/100%"), 0);
    assert_int_equal(found("GET", "/a%zz/b"), 1);
    assert_int_equal(found("GET", "/a%zz"), ROUTE_NONE);
    assert_int_equal(found("GET", "/%"), 2);
    assert_int_equal(found("GET", "/%2"), ROUTE_NONE);
}

static void runs_of_slashes_are_one(void **state)
{
    (void)state;
    routes_are("/api/chat/completions,/x/");
    assert_int_equal(found("GET", "//api/chat/completions"), 0);
    assert_int_equal(found("GET", "/api////chat/completions"), 0);
    assert_int_equal(found("GET", "/api/%2F%2f/chat/completions"), 0);
    assert_int_equal(found("GET", "/api/chat/completions//"), ROUTE_NONE);
    assert_int_equal(found("GET", "/x//"), 1);
    assert_int_equal(found("GET", "////x//////////////////////////////////////////////////"), 1);
}

static void long_paths_are_compared_as_far_as_matches_go(void **state)
{
    (void)state;
    char path[70000], list[POLICY_PATH_MAX + 16];
    memset(list, 'a', sizeof list);
    list[0] = '/';
    list[POLICY_PATH_MAX] = 0;
    routes_are(list);
    assert_int_equal(found("GET", list), 0);
    memset(path, 'a', sizeof path);
    path[0] = '/';
    assert_int_equal(found_bytes("GET", path, POLICY_PATH_MAX + 1), ROUTE_NONE);
    assert_int_equal(found_bytes("GET", path, sizeof path), ROUTE_NONE);
    path[3] = '%', path[4] = '6', path[5] = '1';
    assert_int_equal(found_bytes("GET", path, POLICY_PATH_MAX + 2), 0);
    assert_int_equal(found_bytes("GET", path, POLICY_PATH_MAX + 3), ROUTE_NONE);
    assert_int_equal(found_bytes("GET", path, sizeof path), ROUTE_NONE);
    routes_are("/aaaa*");
    assert_int_equal(found_bytes("GET", path, sizeof path), 0);
}

/* xorshift64*, so that a failure can be had again. */
static uint64_t next_random(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 0x2545F4914F6CDD1Du;
}

/* Another spelling of `path`: bytes escaped, slashes doubled. */
static size_t respell(const char *path, char *out, uint64_t *seed)
{
    size_t n = 0;
    for (; *path; path++) {
        unsigned times = *path == '/' ? 1 + (unsigned)(next_random(seed) % 3) : 1;
        for (; times; times--) {
            if (next_random(seed) % 2)
                out[n++] = *path;
            else
                n += (size_t)sprintf(out + n, next_random(seed) % 2 ? "%%%02x" : "%%%02X",
                                     (unsigned char)*path);
        }
    }
    return n;
}

static void no_spelling_of_a_path_escapes_its_route(void **state)
{
    (void)state;
    static const char *const paths[] = {"/api/ai/chat", "/api/ai/",   "/api/ai/a/b/c/d/e/f/g",
                                        "/x",           "/",          "/admin",
                                        "/a%b",         "/api/ai/%zz"};
    routes_are("POST /api/ai/chat,/api/ai/*,/x,/,/admin*,/a%25b");
    uint64_t seed = 42;
    for (size_t i = 0; i < countof(paths); i++) {
        unsigned plain = found("POST", paths[i]);
        assert_int_not_equal(plain, ROUTE_NONE);
        for (unsigned k = 0; k < 3000; k++) {
            char other[512];
            size_t n = respell(paths[i], other, &seed);
            /* A % that stands for itself may become the begin of an escape with what follows. */
            unsigned route = found_bytes("POST", other, n);
            if (route != plain)
                fail_msg("%.*s is for %u, %s for %u", (int)n, other, route, paths[i], plain);
        }
    }
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, begin, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(first_route_that_fits_counts),
        ONE(no_routes_match_nothing),
        ONE(head_counts_as_get),
        ONE(methods_of_any_length_are_told_apart),
        ONE(as_many_methods_as_may_be_are_known),
        ONE(escapes_are_decoded_once),
        ONE(malformed_escapes_stand_for_themselves),
        ONE(runs_of_slashes_are_one),
        ONE(long_paths_are_compared_as_far_as_matches_go),
        ONE(no_spelling_of_a_method_escapes_its_route),
        ONE(no_spelling_of_a_path_escapes_its_route),
        ONE(a_prefix_is_no_way_around_a_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
