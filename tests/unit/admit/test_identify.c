/* Who asks: the first identifier that applies, keys that come later, and wrong tokens without end.
 */
#include "admit_helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admit/identify.h"
#include "admit/keybox.h"
#include "base/slice.h"
#include "token_helper.h"

static const struct slice SECRET = {"a secret of the tests, long enough for it", 41};
static const struct slice OTHER = {"another secret of the tests, long enough..", 42};
#define WALL_S 1700000000

/* One identify of up to eight entries, its shared parts, and the virtual clock. */
struct world {
    struct policy_identifier said[POLICY_IDENTIFIERS_MAX];
    struct conf_policy policy;
    struct identify *id;
    struct rates *rates;
    struct keybox *box;
    struct policy_now now;
    struct asked q;
};

static const char *temp_file(const char *name, const char *bytes)
{
    char *path = text("/tmp/weir-test-identify-%d-%s", (int)getpid(), name);
    FILE *f = fopen(path, "we");
    must(f && fputs(bytes, f) >= 0 && fclose(f) == 0);
    return path;
}

static void begin(struct world *w, unsigned n)
{
    struct err e = {{0}};
    w->policy.file = "weir.yaml";
    w->policy.identifiers = w->said;
    w->policy.n_identifiers = n;
    if (!w->policy.tier_from)
        w->policy.tier_from = "";
    if (!w->policy.tier_default)
        w->policy.tier_default = "";
    for (unsigned i = 0; i < n; i++) {
        struct policy_identifier *p = &w->said[i];
        const char **texts[] = {&p->secret_file, &p->jwks, &p->issuer, &p->cookie, &p->file};
        for (size_t k = 0; k < countof(texts); k++)
            if (!*texts[k])
                *texts[k] = "";
        if (!p->user_claim)
            p->user_claim = "sub";
        if (!p->header)
            p->header = "X-API-Key";
    }
    w->rates = rates_new(1000);
    w->box = keybox_new();
    w->now = (struct policy_now){.mono_ns = 1000 * SECOND_NS, .wall_s = WALL_S};
    must(w->rates && w->box);
    if (identify_new(&w->id, &w->policy, w->rates, w->box, &e))
        fail_msg("%s", e.text);
    asked_begin(&w->q, "GET", "/");
}

static void end(struct world *w)
{
    asked_end(&w->q);
    identify_free(&w->id);
    keybox_free(&w->box);
    rates_free(w->rates);
    for (unsigned i = 0; i < w->policy.n_identifiers; i++) {
        const char *made[] = {w->said[i].secret_file, w->said[i].file};
        for (size_t k = 0; k < countof(made); k++)
            if (*made[k])
                unlink(made[k]);
    }
}

/* A request of `address` with these two fields (NULL: none). */
static enum identify_verdict asks_of(struct world *w, const char *address, const char *name,
                                     const char *value)
{
    asked_end(&w->q);
    asked_begin(&w->q, "GET", "/");
    if (name)
        asked_field(&w->q, name, value);
    return identify_who(w->id, &w->q.found, &w->q.req, slice_str(address), &w->q.arena, w->now,
                        &w->q.why);
}

static enum identify_verdict asks(struct world *w, const char *name, const char *value)
{
    return asks_of(w, "192.0.2.1", name, value);
}

static enum identify_verdict bears(struct world *w, const char *token)
{
    return asks(w, "Authorization", text("Bearer %s", token));
}

static const char *claims(const char *user)
{
    return text("{\"sub\":\"%s\",\"exp\":%d,\"app\":{\"tier\":\"pro\"}}", user, WALL_S + 100);
}

static char *hs(struct slice secret, const char *said)
{
    return token_hs(secret, "{\"alg\":\"HS256\"}", said);
}

static void assert_user(const struct world *w, const char *by, const char *user)
{
    assert_string_equal(w->q.found.who.by, by);
    assert_slice(w->q.found.who.user, user);
    assert_slice(w->q.found.account, text("%s:%s", by, user));
}

/* ---- what applies ---- */

static void without_a_credential_it_is_nobody(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_BEARER}, {.kind = IDENTIFY_ADDRESS}}};
    begin(&w, 2);
    assert_int_equal(asks(&w, NULL, NULL), IDENTIFY_NOBODY);
    assert_string_equal(w.q.found.who.by, "address");
    assert_int_equal(w.q.found.who.user.n, 0);
    assert_int_equal(asks(&w, "Authorization", "Basic YTpi"), IDENTIFY_NOBODY);
    assert_int_equal(asks(&w, "Authorization", "Bearer"), IDENTIFY_NOBODY);
    assert_int_equal(asks(&w, "Authorization", "Bearer "), IDENTIFY_NOBODY);
    assert_int_equal(asks(&w, "Proxy-Authorization", "Bearer x"), IDENTIFY_NOBODY);
    assert_string_equal(identify_challenge(w.id), "Bearer realm=\"api\"");
    end(&w);
}

static void a_bearer_is_named_by_a_hash_that_is_the_same_everywhere(void **state)
{
    (void)state;
    struct world a = {.said = {{.kind = IDENTIFY_BEARER}}}, b = a;
    begin(&a, 1);
    begin(&b, 1);
    assert_int_equal(asks(&a, "Authorization", "Bearer one"), IDENTIFY_KNOWN);
    assert_int_equal(asks(&b, "authorization", "bEARER   one"), IDENTIFY_KNOWN);
    assert_true(slice_eq(a.q.found.who.user, b.q.found.who.user));
    assert_int_equal(a.q.found.who.user.n, 32);
    assert_int_equal(asks(&b, "Authorization", "Bearer onf"), IDENTIFY_KNOWN);
    assert_false(slice_eq(a.q.found.who.user, b.q.found.who.user));
    end(&a);
    end(&b);
}

static void a_key_of_the_file_has_its_name_and_tier(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_API_KEY,
                                .header = "X-Key",
                                .file = temp_file("keys", "robot 0123456789abcdef pro\n"
                                                          "guest 0123456789ghijkl\n")},
                               {.kind = IDENTIFY_ADDRESS}},
                      .policy = {.tier_default = "free"}};
    begin(&w, 2);
    assert_string_equal(identify_challenge(w.id), "ApiKey realm=\"api\"");
    assert_int_equal(asks(&w, "x-key", "0123456789abcdef"), IDENTIFY_KNOWN);
    assert_user(&w, "api_key", "robot");
    assert_slice(w.q.found.who.tier, "pro");
    assert_int_equal(asks(&w, "X-Key", "0123456789ghijkl"), IDENTIFY_KNOWN);
    assert_slice(w.q.found.who.tier, "free");
    assert_int_equal(asks(&w, "X-Key", "0123456789abcdeX"), IDENTIFY_REFUSED);
    assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    assert_string_equal(w.q.why.authenticate, "ApiKey realm=\"api\"");
    assert_int_equal(asks(&w, "X-API-Key", "0123456789abcdef"), IDENTIFY_NOBODY);
    end(&w);
}

static void a_token_names_user_tier_and_claims_and_expires_by_the_clock(void **state)
{
    (void)state;
    struct world w = {
        .said = {{.kind = IDENTIFY_JWT,
                  .secret_file = temp_file("secret", text("%.*s\n", (int)SECRET.n, SECRET.p)),
                  .leeway_s = 30}},
        .policy = {.tier_from = "app.tier", .tier_default = "free"}};
    begin(&w, 1);
    char *token = hs(SECRET, claims("ann"));
    for (int i = 0; i < 2; i++) { /* the second time it is known */
        assert_int_equal(bears(&w, token), IDENTIFY_KNOWN);
        assert_user(&w, "jwt", "ann");
        assert_slice(w.q.found.who.tier, "pro");
        assert_slice(w.q.found.who.claims, claims("ann"));
        w.now.wall_s = WALL_S + 129;
    }
    w.now.wall_s = WALL_S + 130;
    assert_int_equal(bears(&w, token), IDENTIFY_REFUSED);
    assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    assert_string_equal(w.q.why.authenticate, "Bearer realm=\"api\", error=\"invalid_token\", "
                                              "error_description=\"the token has expired\"");
    assert_int_equal(w.q.found.who.user.n, 0);
    assert_int_equal(w.q.found.account.n, 0);
    w.now.wall_s = WALL_S;
    assert_int_equal(bears(&w, hs(SECRET, "{\"sub\":\"bob\"}")), IDENTIFY_KNOWN);
    assert_slice(w.q.found.who.tier, "free");
    end(&w);
}

static void a_cookie_holds_a_token_where_no_bearer_is_there(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_JWT,
                                .secret_file = temp_file("cookie", SECRET.p),
                                .cookie = "session"}}};
    begin(&w, 1);
    char *ann = hs(SECRET, "{\"sub\":\"ann\"}"), *bob = hs(SECRET, "{\"sub\":\"bob\"}");
    assert_int_equal(asks(&w, "Cookie", text("session=%s", ann)), IDENTIFY_KNOWN);
    assert_int_equal(asks(&w, "Cookie", text("a=b;session=%s ; c", ann)), IDENTIFY_KNOWN);
    assert_user(&w, "jwt", "ann");
    const char *none[] = {"session", "session=", "xsession=", "sessionx=a", "", ";;=", "Session="};
    for (size_t i = 0; i < countof(none); i++)
        assert_int_equal(asks(&w, "Cookie", none[i]), IDENTIFY_NOBODY);
    assert_int_equal(asks(&w, "Cookie", text("xsession=%s; session=%s", ann, bob)), IDENTIFY_KNOWN);
    assert_user(&w, "jwt", "bob");
    asked_field(&w.q, "Authorization", text("Bearer %s", ann));
    assert_int_equal(
        identify_who(w.id, &w.q.found, &w.q.req, SLICE("::"), &w.q.arena, w.now, &w.q.why),
        IDENTIFY_KNOWN);
    assert_user(&w, "jwt", "ann");
    end(&w);
}

static void a_token_is_tried_with_every_issuer_and_the_furthest_verdict_told(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_JWT, .secret_file = temp_file("one", SECRET.p)},
                               {.kind = IDENTIFY_API_KEY},
                               {.kind = IDENTIFY_JWT, .secret_file = temp_file("two", OTHER.p)},
                               {.kind = IDENTIFY_BEARER}}};
    begin(&w, 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bears(&w, hs(OTHER, claims("bob"))), IDENTIFY_KNOWN);
        assert_user(&w, "jwt", "bob");
        assert_int_equal(bears(&w, hs(SECRET, claims("ann"))), IDENTIFY_KNOWN);
        assert_user(&w, "jwt", "ann");
        /* Of the second: the first says only that the signature is wrong. */
        assert_int_equal(bears(&w, hs(OTHER, "{\"sub\":\"x\",\"exp\":1}")), IDENTIFY_REFUSED);
        assert_string_equal(w.q.why.detail, "the token has expired");
        assert_int_equal(bears(&w, hs(SLICE("0123456789abcdef0123456789abcdef"), claims("x"))),
                         IDENTIFY_REFUSED);
        assert_string_equal(w.q.why.detail, "the token's signature is wrong");
    }
    /* What is no such token is a bearer's. */
    assert_int_equal(bears(&w, "me"), IDENTIFY_KNOWN);
    assert_string_equal(w.q.found.who.by, "bearer");
    end(&w);
}

/* ---- keys that come later ---- */

static struct slice set_of(struct slice secret, const char *kid)
{
    return slice_str(text("{\"keys\":[%s]}", jwk_oct(secret, text(",\"kid\":\"%s\"", kid))));
}

static char *with_kid(struct slice secret, const char *kid, const char *user)
{
    return token_hs(secret, text("{\"alg\":\"HS256\",\"kid\":\"%s\"}", kid),
                    text("{\"sub\":\"%s\"}", user));
}

static void assert_not_ready(struct world *w, const char *token)
{
    assert_int_equal(bears(w, token), IDENTIFY_REFUSED);
    assert_int_equal(w->q.why.id, REFUSAL_NOT_READY);
    assert_int_equal(w->q.why.retry_after_s, 1);
    assert_int_equal(identify_wanted(w->id), 0);
    assert_int_equal(identify_wanted(w->id), -1);
}

static void keys_of_a_url_are_waited_for_and_asked_for_once_a_minute(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_JWT, .jwks = "https://id.example/keys"}}};
    begin(&w, 1);
    char *ann = with_kid(SECRET, "a", "ann"), *bob = with_kid(OTHER, "b", "bob");
    assert_not_ready(&w, ann);
    keybox_begin(w.box, 0, w.now.mono_ns);
    assert_not_ready(&w, ann); /* the fetch is under way */
    keybox_publish(w.box, 0, set_of(SECRET, "a"), WALL_S);
    assert_int_equal(bears(&w, ann), IDENTIFY_KNOWN);

    /* Less than a minute after the fetch: it is wrong, and a fetch is wished for all the same. */
    w.now.mono_ns += 59 * SECOND_NS;
    assert_int_equal(bears(&w, bob), IDENTIFY_REFUSED);
    assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    assert_int_equal(identify_wanted(w.id), 0);
    /* Then its key may be on its way; what is known goes on meanwhile. */
    w.now.mono_ns += SECOND_NS;
    w.now.wall_s += 60;
    assert_not_ready(&w, bob);
    assert_int_equal(bears(&w, ann), IDENTIFY_KNOWN);
    /* The fetch fails, or what it brings cannot be used: the old keys stay. */
    keybox_begin(w.box, 0, w.now.mono_ns);
    keybox_failed(w.box, 0, "no route", w.now.wall_s);
    assert_int_equal(bears(&w, ann), IDENTIFY_KNOWN);
    keybox_publish(w.box, 0, SLICE("{\"keys\":[{\"kty\":\"OKP\"}]}"), w.now.wall_s);
    assert_int_equal(bears(&w, with_kid(SECRET, "a", "ann2")), IDENTIFY_KNOWN);
    assert_int_equal(bears(&w, bob), IDENTIFY_REFUSED);
    assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    /* New keys count at once: for what was wrong, and against what was known. */
    keybox_publish(w.box, 0, set_of(OTHER, "b"), w.now.wall_s);
    assert_int_equal(bears(&w, bob), IDENTIFY_KNOWN);
    assert_int_equal(bears(&w, ann), IDENTIFY_REFUSED);
    end(&w);
}

static void keys_that_have_not_come_hold_up_no_other_issuer(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_JWT, .jwks = "https://id.example/keys"},
                               {.kind = IDENTIFY_JWT, .secret_file = temp_file("late", SECRET.p)}}};
    begin(&w, 2);
    assert_int_equal(bears(&w, hs(SECRET, claims("ann"))), IDENTIFY_KNOWN);
    assert_int_equal(bears(&w, hs(SECRET, "{\"sub\":\"x\",\"exp\":1}")), IDENTIFY_REFUSED);
    assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS); /* it is the second's, and expired */
    assert_int_equal(identify_wanted(w.id), 0);
    assert_not_ready(&w, hs(OTHER, claims("x")));
    end(&w);
}

/* ---- wrong ones without end ---- */

static void an_address_may_have_a_hundred_wrong_tokens_verified_and_ten_a_second(void **state)
{
    (void)state;
    struct world w = {.said = {{.kind = IDENTIFY_JWT, .secret_file = temp_file("bad", SECRET.p)}}};
    begin(&w, 1);
    char *known = hs(SECRET, claims("ann"));
    assert_int_equal(bears(&w, known), IDENTIFY_KNOWN);
    char *wrong = hs(OTHER, claims("x"));
    for (int i = 0; i < 300; i++) { /* one and the same costs nothing again */
        assert_int_equal(bears(&w, wrong), IDENTIFY_REFUSED);
        assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    }
    for (int i = 1; i < 100; i++) {
        assert_int_equal(bears(&w, hs(OTHER, claims(text("u%d", i)))), IDENTIFY_REFUSED);
        assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bears(&w, hs(OTHER, claims(text("v%d", i)))), IDENTIFY_REFUSED);
        assert_int_equal(w.q.why.id, REFUSAL_BAD_CREDENTIALS_OFTEN);
        assert_int_equal(w.q.why.retry_after_s, 1);
        assert_string_equal(w.q.why.limit, "address");
    }
    /* A good one that is not known waits with them; one that is known does not, nor others. */
    char *good = hs(SECRET, claims("bob"));
    assert_int_equal(bears(&w, good), IDENTIFY_REFUSED);
    assert_int_equal(bears(&w, known), IDENTIFY_KNOWN);
    assert_int_equal(asks_of(&w, "192.0.2.2", "Authorization", text("Bearer %s", good)),
                     IDENTIFY_KNOWN);
    good = hs(SECRET, claims("cyd"));
    w.now.mono_ns += SECOND_NS / 10 - 1;
    assert_int_equal(bears(&w, good), IDENTIFY_REFUSED);
    w.now.mono_ns++;
    assert_int_equal(bears(&w, good), IDENTIFY_KNOWN);
    end(&w);
}

/* ---- addresses ---- */

static void a_network_is_what_limits_know(void **state)
{
    (void)state;
    static const struct {
        const char *address, *network;
    } rows[] = {{"192.0.2.1", "192.0.2.1"},
                {"2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"},
                {"2001:db8:1:2::", "2001:0db8:0001:0002::/64"},
                {"::1", "0000:0000:0000:0000::/64"},
                {"::ffff:192.0.2.1", "192.0.2.1"},
                {"fe80::1%eth0", "fe80:0000:0000:0000::/64"},
                {"", "unix"},
                {"unknown", "unknown"}};
    char to[64];
    for (size_t i = 0; i < countof(rows); i++)
        assert_slice(identify_network(slice_str(rows[i].address), to, sizeof to), rows[i].network);
    assert_slice(identify_network((struct slice){0}, to, sizeof to), "unix");
}

int main(void)
{
    struct err e = {{0}};
    if (jwt_load(WEIR_JWT_LIBRARY, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_credential_it_is_nobody),
        cmocka_unit_test(a_bearer_is_named_by_a_hash_that_is_the_same_everywhere),
        cmocka_unit_test(a_key_of_the_file_has_its_name_and_tier),
        cmocka_unit_test(a_token_names_user_tier_and_claims_and_expires_by_the_clock),
        cmocka_unit_test(a_cookie_holds_a_token_where_no_bearer_is_there),
        cmocka_unit_test(a_token_is_tried_with_every_issuer_and_the_furthest_verdict_told),
        cmocka_unit_test(keys_of_a_url_are_waited_for_and_asked_for_once_a_minute),
        cmocka_unit_test(keys_that_have_not_come_hold_up_no_other_issuer),
        cmocka_unit_test(an_address_may_have_a_hundred_wrong_tokens_verified_and_ten_a_second),
        cmocka_unit_test(a_network_is_what_limits_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
