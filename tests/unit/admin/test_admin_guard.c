/* admin_guard: wrong tokens and their rate; hosts, origins and tokens are in
 * tests/e2e/test_admin.py, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "admin/admin_guard.h"
#include "base/secret.h"

#define SECOND INT64_C(1000000000)
static const int64_t NOW = 1000 * SECOND;

static void from(unsigned char key[GUARD_KEY_BYTES], unsigned n)
{
    memset(key, 0, GUARD_KEY_BYTES);
    memcpy(key, &n, sizeof n);
}

static void a_burst_of_wrong_tokens_is_looked_at_and_then_a_few_a_second(void **state)
{
    (void)state;
    struct guard_tries t = {0};
    unsigned char key[GUARD_KEY_BYTES];
    from(key, 1);
    for (int i = 0; i < GUARD_BURST; i++) {
        assert_true(guard_may_try(&t, key, NOW));
        guard_was_wrong(&t, key, NOW);
    }
    assert_false(guard_may_try(&t, key, NOW));
    assert_true(guard_may_try(&t, key, NOW + GUARD_STEP_NS));
    guard_was_wrong(&t, key, NOW + GUARD_STEP_NS);
    assert_false(guard_may_try(&t, key, NOW + GUARD_STEP_NS));
    /* A day later nothing is left of it. */
    int64_t later = NOW + 86400 * SECOND;
    for (int i = 0; i < GUARD_BURST; i++) {
        assert_true(guard_may_try(&t, key, later));
        guard_was_wrong(&t, key, later);
    }
    assert_false(guard_may_try(&t, key, later));
}

static void one_address_does_not_pay_for_another(void **state)
{
    (void)state;
    struct guard_tries t = {0};
    unsigned char bad[GUARD_KEY_BYTES], good[GUARD_KEY_BYTES];
    from(bad, 1);
    from(good, 2);
    for (int i = 0; i < 100; i++)
        guard_was_wrong(&t, bad, NOW);
    assert_false(guard_may_try(&t, bad, NOW));
    assert_true(guard_may_try(&t, good, NOW));
}

static void many_addresses_push_out_the_one_with_the_least_debt(void **state)
{
    (void)state;
    struct guard_tries t = {0};
    unsigned char worst[GUARD_KEY_BYTES], key[GUARD_KEY_BYTES];
    from(worst, 12345);
    for (int i = 0; i < 50; i++)
        guard_was_wrong(&t, worst, NOW);
    for (unsigned i = 1; i < 10 * GUARD_ADDRESSES; i++) {
        from(key, i);
        guard_was_wrong(&t, key, NOW + i);
    }
    assert_false(guard_may_try(&t, worst, NOW + SECOND));
}

static bool host(const char *text)
{
    static const char *items[] = {"weir.example"};
    static const struct conf_list names = {items, 1};
    return guard_host(slice_str(text), &names);
}

static void hosts_are_judged_whole(void **state)
{
    (void)state;
    static const char *const good[] = {"",          "localhost",    "localhost:1",
                                       "127.0.0.1", "1.2.3.4:80",   "[::1]",
                                       "[::1]:80",  "WEIR.example", "weir.example:5"};
    static const char *const bad[] = {"localhos",
                                      "localhost.",
                                      "localhost.evil",
                                      "1.2.3",
                                      "1.2.3.4.evil",
                                      "[::1",
                                      "[::1g]",
                                      "[]",
                                      ":80",
                                      "::1",
                                      "weir.example.evil",
                                      "[weir.example]",
                                      "evil.weir.example"};
    for (size_t i = 0; i < countof(good); i++)
        if (!host(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < countof(bad); i++)
        if (host(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void secrets_are_the_same_only_whole(void **state)
{
    (void)state;
    assert_true(secret_same(SLICE("abc"), SLICE("abc")));
    assert_true(secret_same(SLICE(""), SLICE("")));
    assert_false(secret_same(SLICE("ab"), SLICE("abc")));
    assert_false(secret_same(SLICE("abcabc"), SLICE("abc")));
    assert_false(secret_same(SLICE("abd"), SLICE("abc")));
    assert_false(secret_same(SLICE(""), SLICE("abc")));
    assert_false(secret_same(SLICE("abc"), SLICE("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_of_wrong_tokens_is_looked_at_and_then_a_few_a_second),
        cmocka_unit_test(one_address_does_not_pay_for_another),
        cmocka_unit_test(many_addresses_push_out_the_one_with_the_least_debt),
        cmocka_unit_test(hosts_are_judged_whole),
        cmocka_unit_test(secrets_are_the_same_only_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
