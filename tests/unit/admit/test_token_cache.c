/* token_cache: what it knows, for how long, and what makes room. And a model: never an answer that
 * was not put. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admit/token_cache.h"

#define NOW 1000000

static struct token_cache_key key(const char *token, uint32_t identifier, uint64_t generation)
{
    return (struct token_cache_key){slice_str(token), generation, identifier};
}

static void put(struct token_cache *c, const char *token, const char *user, int64_t exp_s)
{
    struct token_cache_key k = key(token, 0, 1);
    struct jwt_claims claims = {slice_str(user), SLICE("{\"some\":\"claims\"}"), exp_s};
    token_cache_put(c, &k, &claims, SLICE("pro"), 30, NOW);
}

static bool finds(struct token_cache *c, const char *token, int64_t now_s)
{
    struct token_cache_found found;
    struct token_cache_key k = key(token, 0, 1);
    return token_cache_find(c, &k, now_s, &found);
}

static void a_token_is_found_with_all_that_was_put(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 8192);
    struct token_cache_found found;
    struct token_cache_key k = key("head.claims.signature", 2, 7);
    struct jwt_claims claims = {SLICE("ada"), SLICE("{\"sub\":\"ada\"}"), INT64_MAX};
    assert_false(token_cache_find(c, &k, NOW, &found));
    assert_null(found.user.p);
    token_cache_put(c, &k, &claims, SLICE("pro"), 0, NOW);
    assert_true(token_cache_find(c, &k, NOW, &found));
    assert_int_equal(found.verdict, JWT_OK);
    assert_true(slice_eq(found.user, SLICE("ada")));
    assert_true(slice_eq(found.tier, SLICE("pro")));
    assert_true(slice_eq(found.json, SLICE("{\"sub\":\"ada\"}")));
    token_cache_put(c, &k, &claims, slice_of(NULL, 0), 0, NOW); /* again: replaced */
    assert_true(token_cache_find(c, &k, NOW, &found));
    assert_int_equal(found.tier.n, 0);
    struct token_cache_stats s;
    token_cache_stats(c, &s);
    assert_int_equal(s.good, 1);
    assert_int_equal(s.hits, 2);
    assert_int_equal(s.misses, 1);
    token_cache_free(&c);
    assert_null(c);
}

static void a_note_stays_with_its_token_until_another_takes_its_place(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 8192);
    struct token_cache_found found;
    struct token_cache_key ada = key("ada's", 0, 1), bob = key("bob's", 0, 1);
    put(c, "ada's", "ada", INT64_MAX);
    put(c, "bob's", "bob", INT64_MAX);
    assert_true(token_cache_find(c, &ada, NOW, &found));
    assert_int_equal(found.note[0] | found.note[1], 0);
    found.note[0] = 1;
    found.note[1] = 2;
    assert_true(token_cache_find(c, &bob, NOW, &found));
    assert_int_equal(found.note[0] | found.note[1], 0);
    assert_true(token_cache_find(c, &ada, NOW, &found));
    assert_int_equal(found.note[0], 1);
    assert_int_equal(found.note[1], 2);
    put(c, "ada's", "eve", INT64_MAX); /* anew: perhaps another user */
    assert_true(token_cache_find(c, &ada, NOW, &found));
    assert_int_equal(found.note[0] | found.note[1], 0);
    token_cache_free(&c);
}

static void every_byte_of_a_token_counts(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 1 << 20);
    char token[401];
    for (unsigned i = 0; i < 400; i++)
        token[i] = (char)('a' + i % 26);
    token[400] = '\0';
    put(c, token, "ada", INT64_MAX);
    for (unsigned i = 0; i < 400; i++) {
        token[i] ^= 1;
        assert_false(finds(c, token, NOW));
        token[i] ^= 1;
        assert_true(finds(c, token, NOW));
    }
    assert_false(finds(c, token + 1, NOW));
    assert_false(finds(c, "", NOW));
    token_cache_free(&c);
}

static void a_token_is_known_until_it_expires_and_ten_minutes_at_most(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 8192);
    put(c, "soon", "ada", NOW + 10); /* leeway 30 */
    assert_true(finds(c, "soon", NOW + 39));
    assert_false(finds(c, "soon", NOW + 40));
    put(c, "late", "ada", NOW + 100000);
    assert_true(finds(c, "late", NOW + TOKEN_CACHE_GOOD_S - 1));
    assert_false(finds(c, "late", NOW + TOKEN_CACHE_GOOD_S));
    put(c, "never", "ada", INT64_MAX);
    assert_false(finds(c, "never", NOW + TOKEN_CACHE_GOOD_S));
    put(c, "over", "ada", NOW - 30); /* not good any more: not kept */
    assert_false(finds(c, "over", NOW));
    put(c, "ancient", "ada", INT64_MIN);
    assert_false(finds(c, "ancient", NOW));
    put(c, "back", "ada", INT64_MAX);
    assert_false(finds(c, "back", NOW - 1)); /* the clock went back: verify again */
    token_cache_free(&c);
}

static void other_keys_or_rules_make_it_unknown(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 8192);
    struct token_cache_found found;
    struct jwt_claims claims = {SLICE("ada"), SLICE("{}"), INT64_MAX};
    struct token_cache_key one = key("token", 0, 1), two = key("token", 0, 2),
                           other = key("token", 1, 1);
    token_cache_put(c, &one, &claims, SLICE(""), 0, NOW);
    assert_false(token_cache_find(c, &other, NOW, &found));
    assert_true(token_cache_find(c, &one, NOW, &found));
    assert_false(token_cache_find(c, &two, NOW, &found));
    assert_false(token_cache_find(c, &one, NOW, &found)); /* it made room */
    token_cache_put_bad(c, &one, JWT_UNKNOWN_KEY, NOW);
    assert_true(token_cache_find(c, &one, NOW, &found));
    assert_false(token_cache_find(c, &two, NOW, &found)); /* the key may be known now */
    token_cache_free(&c);
}

static void a_bad_token_is_known_for_ten_seconds(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(8, 8192);
    struct token_cache_found found;
    struct token_cache_key k = key("bad", 0, 1);
    token_cache_put_bad(c, &k, JWT_BAD_SIGNATURE, NOW);
    assert_true(token_cache_find(c, &k, NOW + 9, &found));
    assert_int_equal(found.verdict, JWT_BAD_SIGNATURE);
    assert_int_equal(found.user.n, 0);
    assert_false(token_cache_find(c, &k, NOW + 10, &found));
    static const enum jwt_verdict NOT_KEPT[] = {JWT_MALFORMED, JWT_TOO_LARGE, JWT_ALG_REFUSED,
                                                JWT_NOT_YET, JWT_OK};
    for (unsigned i = 0; i < countof(NOT_KEPT); i++) {
        token_cache_put_bad(c, &k, NOT_KEPT[i], NOW);
        assert_false(token_cache_find(c, &k, NOW, &found));
    }
    token_cache_free(&c);
}

static void bad_tokens_do_not_drive_out_good_ones(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(16, 1 << 16);
    struct token_cache_stats s;
    char token[300];
    put(c, "good", "ada", INT64_MAX);
    for (int i = 0; i < 10000; i++) {
        snprintf(token, sizeof token, "%d %0200d", i, 7); /* with one end, too */
        struct token_cache_key k = key(token, 0, 1);
        token_cache_put_bad(c, &k, JWT_BAD_SIGNATURE, NOW);
        snprintf(token, sizeof token, "%0200d %d", 7, i);
        token_cache_put_bad(c, &k, JWT_BAD_SIGNATURE, NOW);
    }
    assert_true(finds(c, "good", NOW));
    token_cache_stats(c, &s);
    assert_int_equal(s.good, 1);
    assert_true(s.bad <= 2 && s.bad_bytes <= (1 << 16) / 8);
    token_cache_free(&c);
}

static void what_is_asked_for_stays_and_what_is_over_goes(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(4, 1 << 16);
    char token[16];
    put(c, "often", "ada", INT64_MAX);
    for (int i = 0; i < 100; i++) {
        assert_true(finds(c, "often", NOW));
        snprintf(token, sizeof token, "once %d", i);
        put(c, token, "bob", INT64_MAX);
    }
    assert_true(finds(c, "once 99", NOW));
    struct token_cache_stats s;
    token_cache_stats(c, &s);
    assert_int_equal(s.good, 4);
    assert_int_equal(s.evicted, 97);
    token_cache_free(&c);

    c = token_cache_new(3, 1 << 16);
    put(c, "a", "ada", INT64_MAX);
    put(c, "short", "ada", NOW - 20); /* 10 s */
    put(c, "b", "ada", INT64_MAX);
    assert_true(finds(c, "short", NOW + 1)); /* asked for, but over soon */
    assert_true(finds(c, "a", NOW + 1) && finds(c, "b", NOW + 1));
    struct token_cache_key k = key("new", 0, 1);
    struct jwt_claims claims = {SLICE("ada"), SLICE("{}"), INT64_MAX};
    token_cache_put(c, &k, &claims, SLICE(""), 0, NOW + 20);
    assert_true(finds(c, "a", NOW + 20) && finds(c, "b", NOW + 20) && finds(c, "new", NOW + 20));
    token_cache_free(&c);
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    struct token_cache *c = token_cache_new(1000, 20000);
    struct token_cache_stats s;
    static char token[JWT_BYTES_MAX + 1];
    for (unsigned i = 1; i < JWT_BYTES_MAX; i += 97) {
        memset(token, 'a' + (int)(i % 26), i);
        token[i] = '\0';
        put(c, token, "ada", INT64_MAX);
        assert_true(finds(c, token, NOW));
        token_cache_stats(c, &s);
        assert_true(s.good_bytes <= 20000);
    }
    token_cache_free(&c);
    c = token_cache_new(10, 300);
    memset(token, 'x', 400);
    token[400] = '\0';
    put(c, token, "ada", INT64_MAX); /* larger than all: not kept, and no loop */
    assert_false(finds(c, token, NOW));
    token_cache_free(&c);
}

/* The truth, beside it. */
struct known {
    int64_t until_s;
    uint64_t generation;
    unsigned user;
};

static void at_random_it_never_answers_what_was_not_put(void **state)
{
    (void)state;
    enum { TOKENS = 200, STEPS = 200000 };
    static struct known known[TOKENS];
    unsigned seed = 12345, hits = 0;
    uint64_t generation = 1;
    int64_t now_s = NOW;
    struct token_cache *c = token_cache_new(64, 64 * 400);
    memset(known, 0, sizeof known);
    for (int step = 0; step < STEPS; step++) {
        char token[200], user[16];
        struct token_cache_found found;
        unsigned t = (unsigned)rand_r(&seed) % TOKENS, what = (unsigned)rand_r(&seed) % 1000;
        /* Some share their end. */
        snprintf(token, sizeof token, "%u.%0*u", t, 10 + (int)(t % 90), t / 3);
        struct token_cache_key k = key(token, t % 3, generation);
        if (what < 2)
            generation++;
        else if (what < 20)
            now_s += rand_r(&seed) % 30;
        else if (what < 300) {
            unsigned n = (unsigned)rand_r(&seed) % 1000;
            int64_t exp_s = now_s + rand_r(&seed) % 900 - 100;
            snprintf(user, sizeof user, "%u", n);
            struct jwt_claims claims = {slice_str(user), SLICE("{}"), exp_s};
            token_cache_put(c, &k, &claims, SLICE("t"), 5, now_s);
            int64_t most = now_s + TOKEN_CACHE_GOOD_S;
            known[t] = (struct known){exp_s + 5 < most ? exp_s + 5 : most, generation, n};
        } else if (token_cache_find(c, &k, now_s, &found)) {
            hits++;
            snprintf(user, sizeof user, "%u", known[t].user);
            assert_true(slice_eq(found.user, slice_str(user)));
            assert_true(known[t].generation == generation && now_s < known[t].until_s);
        }
        struct token_cache_stats s;
        token_cache_stats(c, &s);
        assert_true(s.good <= 64 && s.good_bytes <= 64 * 400);
    }
    assert_true(hits > STEPS / 20);
    token_cache_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_found_with_all_that_was_put),
        cmocka_unit_test(a_note_stays_with_its_token_until_another_takes_its_place),
        cmocka_unit_test(every_byte_of_a_token_counts),
        cmocka_unit_test(a_token_is_known_until_it_expires_and_ten_minutes_at_most),
        cmocka_unit_test(other_keys_or_rules_make_it_unknown),
        cmocka_unit_test(a_bad_token_is_known_for_ten_seconds),
        cmocka_unit_test(bad_tokens_do_not_drive_out_good_ones),
        cmocka_unit_test(what_is_asked_for_stays_and_what_is_over_goes),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(at_random_it_never_answers_what_was_not_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
