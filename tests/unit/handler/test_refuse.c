/* refuse: what a client reads when Weir answers in place of the application. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "handler/refuse.h"

/* The whole answer as text. */
static const char *answer(const struct refusal *r)
{
    static char text[8192];
    struct req req = {.minor = 1, .method = SLICE("POST")};
    struct call c = {.req = &req, .file_fd = -1, .keep_alive = true};
    refuse(&c, r);
    assert_int_equal(c.state, CALL_ENDED);
    assert_int_equal(c.status, refusal_status(r->id));
    snprintf(text, sizeof text, "%.*s", (int)c.out.n, c.out.p);
    buf_fini(&c.out);
    return text;
}

static void a_rate_limited_client_is_told_when_to_come_back(void **state)
{
    (void)state;
    const char *text = answer(&(struct refusal){.id = REFUSAL_RATE,
                                                .limit = "user",
                                                .retry_after_s = 12,
                                                .detail = "3 at once, 10 a minute"});
    assert_non_null(strstr(text, "HTTP/1.1 429 Too Many Requests\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Type: application/problem+json\r\n"));
    assert_non_null(strstr(text, "\r\nRetry-After: 12\r\n"));
    assert_non_null(strstr(text, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(text, "{\"type\":\"about:blank\",\"title\":\"Too Many Requests\","
                                 "\"status\":429,\"detail\":\"3 at once, 10 a minute\","
                                 "\"reason\":\"rate_limited\",\"limit\":\"user\","
                                 "\"retry_after\":12}\n"));
}

static void the_place_in_the_queue_is_told(void **state)
{
    (void)state;
    const char *text = answer(&(struct refusal){
        .id = REFUSAL_QUEUE_LATE, .retry_after_s = 3, .position = 7, .expected_ms = 45250});
    assert_non_null(strstr(text, "HTTP/1.1 503 Service Unavailable\r\n"));
    assert_non_null(strstr(text, "\"reason\":\"queue_late\",\"retry_after\":3,\"position\":7,"
                                 "\"expected_wait\":45.250}"));
}

static void a_client_of_openai_gets_its_error_object(void **state)
{
    (void)state;
    const char *text =
        answer(&(struct refusal){.id = REFUSAL_QUOTA_DAY, .retry_after_s = 60, .openai = true});
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\"type\":\"insufficient_quota\",\"param\":null,"
                                 "\"code\":\"insufficient_quota\"}}"));
    text = answer(&(struct refusal){.id = REFUSAL_RATE, .openai = true});
    assert_non_null(strstr(text, "\"type\":\"rate_limit_error\",\"param\":null,"
                                 "\"code\":\"rate_limit_exceeded\"}}"));
    assert_null(strstr(text, "Retry-After"));
}

static void a_wrong_token_is_told_how_to_sign_in(void **state)
{
    (void)state;
    const char *text = answer(&(struct refusal){.id = REFUSAL_BAD_CREDENTIALS,
                                                .authenticate = "Bearer error=\"invalid_token\""});
    assert_non_null(strstr(text, "HTTP/1.1 401 Unauthorized\r\n"));
    assert_non_null(strstr(text, "\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n"));
}

static void no_text_can_leave_its_quotes_or_grow_without_bound(void **state)
{
    (void)state;
    char huge[20000];
    memset(huge, '"', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    const char *text =
        answer(&(struct refusal){.id = REFUSAL_RATE, .detail = huge, .limit = "a\"\nb"});
    assert_non_null(strstr(text, "\"limit\":\"a\\\"\\nb\""));
    assert_null(strstr(text, "\"\"\""));
    assert_true(strlen(text) < 4096);
}

static void every_row_has_an_answer(void **state)
{
    (void)state;
    for (int i = 0; i < REFUSALS; i++) {
        for (int openai = 0; openai < 2; openai++) {
            const char *text =
                answer(&(struct refusal){.id = (enum refusal_id)i, .openai = openai != 0});
            assert_true(openai || strstr(text, refusal_word((enum refusal_id)i)) != NULL);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_limited_client_is_told_when_to_come_back),
        cmocka_unit_test(the_place_in_the_queue_is_told),
        cmocka_unit_test(a_client_of_openai_gets_its_error_object),
        cmocka_unit_test(a_wrong_token_is_told_how_to_sign_in),
        cmocka_unit_test(no_text_can_leave_its_quotes_or_grow_without_bound),
        cmocka_unit_test(every_row_has_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
