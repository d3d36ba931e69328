/* cors: origins, the fields of answers, preflights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "handler/cors.h"
#include "handler/reply.h"

static const char *const LISTED[] = {"https://app.example.org", "http://localhost:*",
                                     "https://*.example.net"};
static const struct policy_cors SOME = {
    .given = true,
    .origins = LISTED,
    .n_origins = countof(LISTED),
    .credentials = true,
    .methods = "GET, POST",
    .headers = "",
    .expose = "X-Cost",
    .max_age_s = 600,
};
static const char *const STAR[] = {"*"};
static const struct policy_cors ANY = {.given = true,
                                       .origins = STAR,
                                       .n_origins = 1,
                                       .methods = "GET",
                                       .headers = "Authorization",
                                       .expose = "",
                                       .max_age_s = 5};

static void only_listed_origins_are_allowed(void **state)
{
    (void)state;
    static const struct {
        const char *origin;
        bool allowed;
    } cases[] = {
        {"https://app.example.org", true},
        {"HTTPS://APP.EXAMPLE.ORG", true},
        {"https://app.example.org:443", false},
        {"https://app.example.org.evil.net", false},
        {"https://xapp.example.org", false},
        {"http://app.example.org", false},
        {"http://localhost", true},
        {"http://localhost:3000", true},
        {"http://localhost:65535", true},
        {"http://localhost:", false},
        {"http://localhost:123456", false},
        {"http://localhost:80.evil.net", false},
        {"http://localhost:80@evil.net", false},
        {"http://localhostx", false},
        {"https://a.example.net", true},
        {"https://a.b.example.net", true},
        {"https://example.net", false},
        {"https://.example.net", false},
        {"https://evil.net/.example.net", false},
        {"https://evil.net?.example.net", false},
        {"https://a..example.net", false},
        {"null", false},
        {"", false},
    };
    for (size_t i = 0; i < countof(cases); i++)
        if (cors_allows(&SOME, slice_str(cases[i].origin)) != cases[i].allowed)
            fail_msg("%s", cases[i].origin);
    assert_true(cors_allows(&ANY, SLICE("https://anything.example")));
}

static void an_answer_names_the_origin_and_varies_by_it(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct slice lines = cors_lines(&SOME, SLICE("http://localhost:5173"), &arena);
    assert_non_null(lines.p);
    char text[1024];
    snprintf(text, sizeof text, "%.*s", (int)lines.n, lines.p);
    assert_string_equal(text,
                        "Access-Control-Allow-Origin: http://localhost:5173\r\n"
                        "Vary: Origin\r\n"
                        "Access-Control-Allow-Credentials: true\r\n"
                        "Access-Control-Expose-Headers: Retry-After, RateLimit, RateLimit-Policy, "
                        "X-Request-Id, X-Cost\r\n");
    lines = cors_lines(&SOME, SLICE("https://evil.example"), &arena);
    assert_true(slice_eq(lines, SLICE("Vary: Origin\r\n")));
    lines = cors_lines(&SOME, (struct slice){0}, &arena);
    assert_true(slice_eq(lines, SLICE("Vary: Origin\r\n")));
    lines = cors_lines(&ANY, SLICE("https://x.example"), &arena);
    assert_true(
        slice_starts(lines, SLICE("Access-Control-Allow-Origin: *\r\nAccess-Control-Expose")));
    assert_int_equal(cors_lines(&ANY, (struct slice){0}, &arena).n, 0);
    arena_fini(&arena);
}

/* The answer to a preflight with these fields, as text. */
static const char *preflight(const struct policy_cors *p, const char *origin, const char *headers)
{
    static char text[2048];
    struct arena arena = {0};
    struct field fields[] = {
        {.name = SLICE("Origin"), .value = slice_str(origin)},
        {.name = SLICE("Access-Control-Request-Method"), .value = SLICE("POST")},
        {.name = SLICE("Access-Control-Request-Headers"), .value = slice_str(headers)},
    };
    struct req req = {.minor = 1, .method = SLICE("OPTIONS"), .fields = fields, .n_fields = 3};
    struct call c = {.req = &req, .file_fd = -1, .keep_alive = true};
    struct cors_ask ask;
    assert_true(cors_is_preflight(&req, &ask));
    c.cors = cors_lines(p, ask.origin, &arena);
    cors_preflight(p, &ask, &c);
    assert_int_equal(c.state, CALL_ENDED);
    snprintf(text, sizeof text, "%.*s", (int)c.out.n, c.out.p);
    buf_fini(&c.out);
    arena_fini(&arena);
    return text;
}

static void a_preflight_is_answered_with_what_may_be_sent(void **state)
{
    (void)state;
    const char *text = preflight(&SOME, "https://app.example.org", "authorization, content-type");
    assert_non_null(strstr(text, "HTTP/1.1 204 No Content\r\n"));
    assert_non_null(strstr(text, "\r\nAccess-Control-Allow-Origin: https://app.example.org\r\n"));
    assert_non_null(strstr(text, "\r\nAccess-Control-Allow-Methods: GET, POST\r\n"));
    assert_non_null(
        strstr(text, "\r\nAccess-Control-Allow-Headers: authorization, content-type\r\n"));
    assert_non_null(strstr(text, "\r\nAccess-Control-Max-Age: 600\r\n"));
    text = preflight(&ANY, "https://x.example", "x-other");
    assert_non_null(strstr(text, "\r\nAccess-Control-Allow-Headers: Authorization\r\n"));
}

static void what_is_no_list_of_names_is_not_sent_back(void **state)
{
    (void)state;
    const char *text = preflight(&SOME, "https://app.example.org", "a\"b<script>");
    assert_non_null(strstr(text, "HTTP/1.1 204 No Content\r\n"));
    assert_null(strstr(text, "Access-Control-Allow-Headers"));
}

static void a_preflight_of_another_origin_is_told_why(void **state)
{
    (void)state;
    const char *text = preflight(&SOME, "https://evil.example", "");
    assert_non_null(strstr(text, "HTTP/1.1 403 Forbidden\r\n"));
    assert_null(strstr(text, "Access-Control-Allow-Origin"));
    assert_non_null(strstr(text, "cors.origins"));
}

static void options_without_a_method_to_ask_for_is_no_preflight(void **state)
{
    (void)state;
    struct field fields[] = {{.name = SLICE("Origin"), .value = SLICE("https://app.example.org")}};
    struct req req = {.method = SLICE("OPTIONS"), .fields = fields, .n_fields = 1};
    struct cors_ask ask;
    assert_false(cors_is_preflight(&req, &ask));
    req.method = SLICE("GET");
    assert_false(cors_is_preflight(&req, &ask));
}

/* The application's own Access-Control-Allow-Origin stays alone. */
static void a_handler_that_sets_its_own_origin_keeps_it(void **state)
{
    (void)state;
    struct req req = {.minor = 1, .method = SLICE("GET")};
    struct call c = {.req = &req,
                     .file_fd = -1,
                     .keep_alive = true,
                     .extra = SLICE("RateLimit: \"user\";r=1\r\n"),
                     .cors = SLICE("Access-Control-Allow-Origin: https://a.example\r\n")};
    assert_int_equal(call_status(&c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(&c, SLICE("Access-Control-Allow-Origin"), SLICE("*")), CALL_OK);
    assert_int_equal(call_end(&c), 0);
    assert_non_null(memmem(c.out.p, c.out.n, "\r\nAccess-Control-Allow-Origin: *\r\n", 34));
    assert_null(memmem(c.out.p, c.out.n, "a.example", 9));
    assert_non_null(memmem(c.out.p, c.out.n, "\r\nRateLimit: \"user\";r=1\r\n", 25));
    buf_fini(&c.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_listed_origins_are_allowed),
        cmocka_unit_test(an_answer_names_the_origin_and_varies_by_it),
        cmocka_unit_test(a_preflight_is_answered_with_what_may_be_sent),
        cmocka_unit_test(what_is_no_list_of_names_is_not_sent_back),
        cmocka_unit_test(a_preflight_of_another_origin_is_told_why),
        cmocka_unit_test(options_without_a_method_to_ask_for_is_no_preflight),
        cmocka_unit_test(a_handler_that_sets_its_own_origin_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
