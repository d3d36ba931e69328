/*
 * jwt: the vectors of RFC 7515, tokens made here with OpenSSL, and tokens that lie: about their
 * algorithm, their key, their form, their time, and whom they are for. The clock is a number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "admit/jwt.c"
#include "base/attr.h"
#include "token_helper.h"

#define NOW 1700000000
#define CLAIMS "{\"sub\":\"ada\",\"exp\":1700000100}"

static const char SECRET[] = "not a secret: 0123456789 0123456789 abcdef";
static EVP_PKEY *g_rsa, *g_ec;
static struct jwt_keys *g_hs;  /* of SECRET */
static struct jwt_keys *g_all; /* RSA "r", EC "e", oct "o" */
static struct policy_identifier g_rules = {.issuer = "", .user_claim = "sub", .leeway_s = 0};

static struct slice secret(void)
{
    return slice_of(SECRET, sizeof SECRET - 1);
}

static struct jwt_keys *keys_of(const char *jwks)
{
    struct jwt_keys *keys;
    struct err e = {{0}};
    if (jwt_keys_jwks(&keys, slice_str(jwks), 0, &e))
        fail_msg("%s", e.text);
    return keys;
}

static int set_up(void **state)
{
    (void)state;
    struct err e = {{0}};
    if (jwt_load(WEIR_JWT_LIBRARY, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    g_rsa = EVP_RSA_gen(2048);
    g_ec = EVP_EC_gen("P-256");
    if (jwt_keys_secret(&g_hs, secret(), &e))
        return -1;
    g_all = keys_of(text("{\"keys\":[%s,%s,%s]}",
                         jwk_rsa(g_rsa, ",\"kid\":\"r\",\"use\":\"sig\",\"alg\":\"RS256\""),
                         jwk_ec(g_ec, ",\"kid\":\"e\",\"key_ops\":[\"verify\"]"),
                         jwk_oct(secret(), ",\"kid\":\"o\"")));
    return jwt_keys_count(g_all) == 3 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    jwt_keys_free(&g_hs);
    jwt_keys_free(&g_all);
    EVP_PKEY_free(g_rsa);
    EVP_PKEY_free(g_ec);
    return 0;
}

/* The word of the verdict; what it leaves behind is checked too. */
static const char *verdict_at(const struct jwt_keys *keys, const char *token, int64_t now_s)
{
    struct jwt_claims c = {.exp_s = 77};
    enum jwt_verdict v = jwt_verify(keys, &g_rules, slice_str(token), now_s, &c);
    if (v == JWT_OK) {
        assert_true(c.user.n && c.json.n);
    } else {
        assert_null(c.user.p);
        assert_null(c.json.p);
    }
    jwt_claims_fini(&c);
    assert_true(ERR_peek_error() == 0);
    return jwt_word(v);
}

static const char *verdict(const struct jwt_keys *keys, const char *token)
{
    return verdict_at(keys, token, NOW);
}

#define assert_verdict(keys, token, word) assert_string_equal(verdict(keys, token), word)

static const char *of_claims(const char *claims)
{
    return verdict(g_hs, token_hs(secret(), "{\"alg\":\"HS256\"}", claims));
}

static const char *of_header(const char *header)
{
    return verdict(g_hs, token_hs(secret(), header, CLAIMS));
}

/* ---- vectors ---- */

#define RFC7515_PAYLOAD                                                                            \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"

static void tokens_of_rfc_7515_appendix_a_verify(void **state)
{
    static const struct {
        const char *jwk, *token;
    } VECTORS[] = {
        /* A.1 */
        {"{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-"
         "1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9"
         "CAow\"}",
         "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC7515_PAYLOAD
         ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
        /* A.2 */
        {"{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_"
         "wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4"
         "d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
         "bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB"
         "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-"
         "DWNmoudF8NAco9_h9iaGNj8q2et"
         "hFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"}",
         "eyJhbGciOiJSUzI1NiJ9." RFC7515_PAYLOAD
         ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_"
         "O8W2Fp5jujGbds9uJdb"
         "F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
         "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383Lc"
         "OLn6_dO--xi12jzDwusC-"
         "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVm"
         "tVrBp0igcN_IoypGlUPQGe77Rw"},
        /* A.3 */
        {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
         "\"y\":\"x_FEzRu9m36HLN_tue659L"
         "NpXW6pCyStikYjKIWI5a0\"}",
         "eyJhbGciOiJFUzI1NiJ9." RFC7515_PAYLOAD
         ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
    };
    (void)state;
    g_rules.user_claim = "iss";
    for (unsigned i = 0; i < countof(VECTORS); i++) {
        struct jwt_keys *keys = keys_of(text("{\"keys\":[%s]}", VECTORS[i].jwk));
        assert_string_equal(verdict_at(keys, VECTORS[i].token, 1300819379), "ok");
        assert_string_equal(verdict_at(keys, VECTORS[i].token, 1300819380), "expired");
        assert_verdict(g_all, VECTORS[i].token, "bad_signature");
        /* Every other character of the token, replaced by another of the alphabet. */
        for (size_t k = 0; k < strlen(VECTORS[i].token); k += 2) {
            char *lie = text("%s", VECTORS[i].token);
            if (lie[k] == '.')
                continue;
            lie[k] = lie[k] == 'A' ? 'B' : 'A';
            assert_string_not_equal(verdict_at(keys, lie, 1300819379), "ok");
        }
        jwt_keys_free(&keys);
    }
    /* A.5: no signature at all. */
    assert_verdict(g_hs, "eyJhbGciOiJub25lIn0." RFC7515_PAYLOAD ".", "alg_refused");
    g_rules.user_claim = "sub";
}

static void a_token_of_each_algorithm_verifies_and_says_who_it_is(void **state)
{
    (void)state;
    const char *tokens[] = {token_hs(secret(), "{\"alg\":\"HS256\",\"kid\":\"o\"}", CLAIMS),
                            token_signed(g_rsa, "{\"alg\":\"RS256\",\"kid\":\"r\"}", CLAIMS, NULL),
                            token_signed(g_ec, "{\"alg\":\"ES256\",\"kid\":\"e\"}", CLAIMS, NULL)};
    for (unsigned i = 0; i < countof(tokens); i++) {
        struct jwt_claims c;
        assert_int_equal(jwt_verify(g_all, &g_rules, slice_str(tokens[i]), NOW, &c), JWT_OK);
        assert_true(slice_eq(c.user, SLICE("ada")));
        assert_true(slice_eq(c.json, SLICE(CLAIMS)));
        assert_int_equal(c.exp_s, 1700000100);
        jwt_claims_fini(&c);
        assert_null(c.user.p);
    }
}

/* ---- lies about algorithm and key ---- */

static void none_is_refused_in_every_spelling(void **state)
{
    static const char *const NAMES[] = {"none",  "None",  "NONE",   "nOnE",  "",
                                        "none ", "hs256", "HS256 ", "RS512", "HS384",
                                        "PS256", "EdDSA", "dir"};
    (void)state;
    for (unsigned i = 0; i < countof(NAMES); i++) {
        char *header = text("{\"alg\":\"%s\"}", NAMES[i]);
        assert_string_equal(of_header(header), "alg_refused");
        assert_verdict(g_all, text("%s.%s.", b64_text(header), b64_text(CLAIMS)), "alg_refused");
        assert_verdict(g_all, text("%s.%s.AA", b64_text(header), b64_text(CLAIMS)), "alg_refused");
    }
    assert_string_equal(of_header("{\"alg\":null}"), "malformed");
    assert_string_equal(of_header("{\"alg\":[\"HS256\"]}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"HS256\\u0000\"}"), "malformed");
    assert_string_equal(of_header("{\"typ\":\"JWT\"}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"none\",\"alg\":\"HS256\"}"), "malformed");
}

static void public_key_is_no_secret(void **state)
{
    (void)state;
    char pem[2048];
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, g_rsa), 1);
    int n = BIO_read(bio, pem, sizeof pem);
    BIO_free(bio);
    assert_true(n > 0);
    struct slice as_secret = slice_of(pem, (size_t)n);

    struct jwt_keys *rsa = keys_of(text("{\"keys\":[%s]}", jwk_rsa(g_rsa, ",\"kid\":\"r\"")));
    assert_verdict(rsa, token_hs(as_secret, "{\"alg\":\"HS256\"}", CLAIMS), "alg_refused");
    assert_verdict(rsa, token_hs(as_secret, "{\"alg\":\"HS256\",\"kid\":\"r\"}", CLAIMS),
                   "alg_refused");
    assert_verdict(g_all, token_hs(as_secret, "{\"alg\":\"HS256\",\"kid\":\"r\"}", CLAIMS),
                   "alg_refused");
    assert_verdict(g_all, token_hs(as_secret, "{\"alg\":\"HS256\"}", CLAIMS), "bad_signature");
    jwt_keys_free(&rsa);

    /* Nor can the operator make it one by mistake. */
    struct jwt_keys *keys;
    struct err e;
    assert_int_equal(jwt_keys_secret(&keys, as_secret, &e), -1);
    assert_non_null(strstr(e.text, "give public keys as `jwks` instead"));
    assert_null(keys);
}

static void key_is_good_for_its_own_algorithm_alone(void **state)
{
    (void)state;
    assert_verdict(g_all, token_signed(g_ec, "{\"alg\":\"RS256\",\"kid\":\"e\"}", CLAIMS, NULL),
                   "alg_refused");
    assert_verdict(g_all, token_signed(g_rsa, "{\"alg\":\"ES256\",\"kid\":\"r\"}", CLAIMS, NULL),
                   "alg_refused");
    assert_verdict(g_all, token_signed(g_rsa, "{\"alg\":\"RS256\",\"kid\":\"o\"}", CLAIMS, NULL),
                   "alg_refused");
    assert_verdict(g_all, token_signed(g_rsa, "{\"alg\":\"ES256\",\"kid\":\"e\"}", CLAIMS, NULL),
                   "bad_signature");
    assert_verdict(g_all, token_signed(g_ec, "{\"alg\":\"RS256\",\"kid\":\"r\"}", CLAIMS, NULL),
                   "bad_signature");
    assert_verdict(g_hs, token_signed(g_rsa, "{\"alg\":\"RS256\"}", CLAIMS, NULL), "alg_refused");
}

static void rules_narrow_the_algorithms(void **state)
{
    (void)state;
    g_rules.algorithms = ALG_RS256;
    assert_verdict(g_all, token_signed(g_rsa, "{\"alg\":\"RS256\"}", CLAIMS, NULL), "ok");
    assert_verdict(g_all, token_signed(g_ec, "{\"alg\":\"ES256\"}", CLAIMS, NULL), "alg_refused");
    assert_verdict(g_all, token_hs(secret(), "{\"alg\":\"HS256\"}", CLAIMS), "alg_refused");
    g_rules.algorithms = 0;
}

static void kid_picks_the_key(void **state)
{
    (void)state;
    EVP_PKEY *other = EVP_EC_gen("P-256");
    struct jwt_keys *two = keys_of(text("{\"keys\":[%s,%s]}", jwk_ec(g_ec, ",\"kid\":\"a\""),
                                        jwk_ec(other, ",\"kid\":\"b\"")));
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\",\"kid\":\"b\"}", CLAIMS, NULL),
                   "ok");
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\",\"kid\":\"a\"}", CLAIMS, NULL),
                   "bad_signature");
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\",\"kid\":\"c\"}", CLAIMS, NULL),
                   "unknown_key");
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\",\"kid\":\"\"}", CLAIMS, NULL),
                   "unknown_key");
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\",\"kid\":7}", CLAIMS, NULL),
                   "malformed");
    assert_verdict(two, token_signed(other, "{\"alg\":\"ES256\"}", CLAIMS, NULL),
                   "ok"); /* tries both */
    /* An issuer that changes kind and key at once: the new set has to be fetched, not the token
     * refused for ever. */
    assert_verdict(two, token_signed(g_rsa, "{\"alg\":\"RS256\",\"kid\":\"new\"}", CLAIMS, NULL),
                   "unknown_key");
    jwt_keys_free(&two);
    EVP_PKEY_free(other);
    /* A secret has no kid, and takes tokens with any. */
    assert_verdict(g_hs, token_hs(secret(), "{\"alg\":\"HS256\",\"kid\":\"whatever\"}", CLAIMS),
                   "ok");
}

static void equal_kids_are_all_tried_and_never_more_than_four(void **state)
{
    (void)state;
    EVP_PKEY *pairs[6];
    char *jwks = text("{\"keys\":[");
    for (unsigned i = 0; i < countof(pairs); i++) {
        pairs[i] = EVP_EC_gen("P-256");
        jwks = text("%s%s%s", jwks, i ? "," : "", jwk_ec(pairs[i], ",\"kid\":\"same\""));
    }
    struct jwt_keys *keys = keys_of(text("%s]}", jwks));
    assert_int_equal(jwt_keys_count(keys), countof(pairs));
    for (unsigned i = 0; i < countof(pairs); i++) {
        const char *expected = i < JWT_TRIES ? "ok" : "bad_signature";
        assert_verdict(keys,
                       token_signed(pairs[i], "{\"alg\":\"ES256\",\"kid\":\"same\"}", CLAIMS, NULL),
                       expected);
        assert_verdict(keys, token_signed(pairs[i], "{\"alg\":\"ES256\"}", CLAIMS, NULL), expected);
    }
    jwt_keys_free(&keys);
    for (unsigned i = 0; i < countof(pairs); i++)
        EVP_PKEY_free(pairs[i]);
}

static void keys_that_a_token_brings_are_not_looked_at(void **state)
{
    (void)state;
    EVP_PKEY *mine = EVP_EC_gen("P-256");
    char *header =
        text("{\"alg\":\"ES256\",\"jwk\":%s,\"jku\":\"http://127.0.0.1/\",\"x5u\":\"x\"}",
             jwk_ec(mine, ""));
    assert_verdict(g_all, token_signed(mine, header, CLAIMS, NULL), "bad_signature");
    assert_verdict(g_all, token_signed(g_ec, header, CLAIMS, NULL), "ok");
    EVP_PKEY_free(mine);
}

static void critical_extensions_are_refused(void **state)
{
    (void)state;
    assert_string_equal(of_header("{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"HS256\",\"crit\":[]}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"HS256\",\"crit\":null}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"HS256\",\"b64\":false}"), "malformed");
    assert_string_equal(of_header("{\"alg\":\"HS256\",\"cty\":\"JWT\",\"x\":{\"crit\":1}}"), "ok");
}

/* ---- signatures ---- */

static char *with_signature(const char *token, const void *signature, size_t n)
{
    return text("%.*s.%s", (int)(strrchr(token, '.') - token), token, b64(signature, n));
}

static void signatures_of_es256_have_two_halves_of_32_bytes_below_the_order(void **state)
{
    static const unsigned char ORDER[32] = {0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,
                                            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                            0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
                                            0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
    (void)state;
    unsigned char raw[66], lie[66];
    char *token = token_signed(g_ec, "{\"alg\":\"ES256\"}", CLAIMS, raw);
    assert_verdict(g_all, with_signature(token, raw, 64), "ok");
    for (size_t n = 0; n < 64; n++)
        assert_verdict(g_all, with_signature(token, raw, n), "bad_signature");
    memset(raw + 64, 0, 2);
    assert_verdict(g_all, with_signature(token, raw, 65), "bad_signature");
    assert_verdict(g_all, with_signature(token, raw, 66), "bad_signature");
    for (int half = 0; half < 64; half += 32) {
        memcpy(lie, raw, 64);
        memset(lie + half, 0, 32);
        assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
        memset(lie + half, 0xff, 32);
        assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
        memcpy(lie + half, ORDER, 32);
        assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
        memset(lie + half, 0, 32);
        lie[half + 31] = 1;
        assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
    }
    memset(lie, 0, 64); /* both zero, as in CVE-2022-21449 */
    assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
    /* The form of other protocols. */
    memcpy(lie, "\x30\x44\x02\x20", 4);
    memcpy(lie + 4, raw, 60);
    assert_verdict(g_all, with_signature(token, lie, 64), "bad_signature");
}

static void small_and_high_halves_are_written_for_openssl_as_it_wants_them(void **state)
{
    (void)state;
    /* One in 256 has a zero in front, half have the top bit: a few hundred see all. */
    for (int i = 0; i < 600; i++) {
        char *token = token_signed(g_ec, "{\"alg\":\"ES256\"}", text("{\"sub\":\"%d\"}", i), NULL);
        assert_verdict(g_all, token, "ok");
    }
}

static void signature_of_another_length_is_wrong(void **state)
{
    (void)state;
    unsigned char bytes[2100] = {0};
    const char *hs = token_hs(secret(), "{\"alg\":\"HS256\"}", CLAIMS);
    const char *rs = token_signed(g_rsa, "{\"alg\":\"RS256\"}", CLAIMS, NULL);
    static const size_t LENGTHS[] = {0, 1, 31, 32, 33, 255, 256, 257, 1024, 1025, 2100};
    for (unsigned i = 0; i < countof(LENGTHS); i++) {
        assert_verdict(g_all, with_signature(hs, bytes, LENGTHS[i]), "bad_signature");
        assert_verdict(g_all, with_signature(rs, bytes, LENGTHS[i]), "bad_signature");
    }
}

/* ---- form ---- */

static void base64url_has_one_form(void **state)
{
    (void)state;
    const char *good = token_hs(secret(), "{\"alg\":\"HS256\"}", "{\"sub\":\"adam\"}");
    assert_verdict(g_hs, good, "ok");
    size_t n = strlen(good);
    /* 32 bytes are 43 characters, of the last the lower two bits are left over. */
    for (char c = 'A'; c <= 'z'; c++) {
        char *lie = text("%s", good);
        if (c == good[n - 1] || (c > 'Z' && c < 'a'))
            continue;
        lie[n - 1] = c;
        assert_string_not_equal(verdict(g_hs, lie), "ok");
    }
    assert_verdict(g_hs, text("%s=", good), "malformed");
    assert_verdict(g_hs, text("%s\n", good), "malformed");
    assert_verdict(g_hs, text(" %s", good), "malformed");
    assert_verdict(g_hs, text("%s.", good), "malformed");
    assert_verdict(g_hs, text("%s.%s", good, good), "malformed");
    /* Signed in that form, even: what is not canonical is refused for itself. */
    static const char *const PAYLOADS[] = {"eyJzdWIiOiJhIn0=", "eyJzdWIiOiJhIn1",
                                           "eyJzdWIiOiJhIn0 ", "eyJzdWIi\nOiJhIn0",
                                           "eyJzdWIiOiJ+In0"};
    for (unsigned i = 0; i < countof(PAYLOADS); i++) {
        unsigned char mac[32];
        unsigned m;
        char *both = text("%s.%s", b64_text("{\"alg\":\"HS256\"}"), PAYLOADS[i]);
        HMAC(EVP_sha256(), SECRET, sizeof SECRET - 1, (unsigned char *)both, strlen(both), mac, &m);
        assert_verdict(g_hs, text("%s.%s", both, b64(mac, m)), "malformed");
    }
}

static void what_has_not_three_parts_is_no_token(void **state)
{
    static const char *const TEXTS[] = {
        "",     ".",    "..",          "...",      "a",         "a.b",
        "a..b", ".a.b", "e30.e30.e30", "e30.e30.", "a.b.c.d.e", "\x80.\xff.\xfe"};
    (void)state;
    for (unsigned i = 0; i < countof(TEXTS); i++)
        assert_verdict(g_all, TEXTS[i], "malformed");
    struct jwt_claims c;
    assert_int_equal(jwt_verify(g_all, &g_rules, slice_of(NULL, 0), NOW, &c), JWT_MALFORMED);
    assert_int_equal(jwt_verify(g_all, &g_rules, slice_of("a.b\0.c", 6), NOW, &c), JWT_MALFORMED);
}

static void token_may_have_8_kib(void **state)
{
    (void)state;
    size_t room = 0;
    char *token;
    do {
        char *claims = text("{\"sub\":\"ada\",\"x\":\"%0*d\"}", (int)(6000 + room), 0);
        token = token_hs(secret(), "{\"alg\":\"HS256\"}", claims);
        assert_verdict(g_hs, token, strlen(token) <= JWT_BYTES_MAX ? "ok" : "too_large");
        room++;
    } while (strlen(token) <= JWT_BYTES_MAX);
}

static void json_is_strict(void **state)
{
    static const char *const BAD[] = {"",
                                      "null",
                                      "[]",
                                      "\"x\"",
                                      "{\"sub\":\"a\"}x",
                                      "{\"sub\":\"a\"}{}",
                                      "{\"sub\":\"a\",}",
                                      "{\"sub\":\"a\",\"sub\":\"a\"}",
                                      "{\"sub\":\"a\",\"x\":{\"y\":1,\"y\":1}}",
                                      "{'sub':'a'}",
                                      "{\"sub\":\"a\",\"x\":NaN}",
                                      "{\"sub\":\"a\",\"x\":1e999}",
                                      "{\"sub\":\"a\",\"x\":\"\xff\"}",
                                      "{\"sub\":\"a\",\"x\":\"\xed\xa0\x80\"}",
                                      "{\"sub\":\"a\\u0000b\"}",
                                      "{\"sub\":\"a\"",
                                      "\xef\xbb\xbf{\"sub\":\"a\"}",
                                      "{\"sub\":\"a\n\"}"};
    (void)state;
    for (unsigned i = 0; i < countof(BAD); i++)
        assert_string_equal(of_claims(BAD[i]), "malformed");
    assert_string_equal(of_claims(" {\"sub\" : \"a\"}\r\n"), "ok");
    assert_string_equal(of_claims("{\"sub\":\"]}[{\\\"\"}"), "ok");
}

static void depth_is_bounded_in_claims_header_and_key_set(void **state)
{
    (void)state;
    for (int levels = JWT_DEPTH_MAX - 2; levels < 3000; levels += levels < 40 ? 1 : 700) {
        char open[3001], shut[3001];
        memset(open, '[', sizeof open);
        memset(shut, ']', sizeof shut);
        open[levels] = shut[levels] = '\0';
        const char *expected = levels < JWT_DEPTH_MAX ? "ok" : "malformed";
        if (levels < 1500) {
            assert_string_equal(of_claims(text("{\"sub\":\"a\",\"x\":%s%s}", open, shut)),
                                expected);
            assert_string_equal(of_header(text("{\"alg\":\"HS256\",\"x\":%s%s}", open, shut)),
                                expected);
        }
        struct jwt_keys *keys;
        struct err e;
        char *jwks = text("{\"x\":%s%s,\"keys\":[%s]}", open, shut, jwk_ec(g_ec, ""));
        assert_int_equal(jwt_keys_jwks(&keys, slice_str(jwks), 0, &e),
                         levels < JWT_DEPTH_MAX ? 0 : -1);
        jwt_keys_free(&keys);
    }
}

/* ---- claims ---- */

static void time_counts_with_leeway_and_fractions(void **state)
{
    static const struct {
        const char *claim;
        int64_t leeway_s;
        int64_t now_s;
        const char *word;
    } CASES[] = {
        {"\"exp\":1000", 0, 999, "ok"},
        {"\"exp\":1000", 0, 1000, "expired"},
        {"\"exp\":1000", 30, 1029, "ok"},
        {"\"exp\":1000", 30, 1030, "expired"},
        {"\"exp\":1000.5", 0, 1000, "ok"},
        {"\"exp\":1000.5", 0, 1001, "expired"},
        {"\"exp\":1e3", 0, 999, "ok"},
        {"\"exp\":1e3", 0, 1000, "expired"},
        {"\"exp\":-5", 0, 0, "expired"},
        {"\"exp\":0", 0, 0, "expired"},
        {"\"exp\":-0.5", 0, -1, "ok"},
        {"\"exp\":-0.5", 0, 0, "expired"},
        {"\"exp\":1e300", 0, NOW, "ok"},
        {"\"exp\":-1e300", 0, NOW, "expired"},
        {"\"exp\":9223372036854775807", 0, NOW, "ok"},
        {"\"exp\":-9223372036854775808", 60, 0, "expired"},
        {"\"exp\":92233720368547758080", 0, NOW, "malformed"},
        {"\"exp\":\"1000\"", 0, 1, "malformed"},
        {"\"exp\":null", 0, 1, "malformed"},
        {"\"exp\":true", 0, 1, "malformed"},
        {"\"exp\":[1000]", 0, 1, "malformed"},
        {"\"nbf\":1000", 0, 999, "not_yet"},
        {"\"nbf\":1000", 0, 1000, "ok"},
        {"\"nbf\":1000", 30, 969, "not_yet"},
        {"\"nbf\":1000", 30, 970, "ok"},
        {"\"nbf\":1000.5", 0, 1000, "not_yet"},
        {"\"nbf\":1000.5", 0, 1001, "ok"},
        {"\"nbf\":\"0\"", 0, 1000, "malformed"},
        {"\"nbf\":1e300", 0, NOW, "not_yet"},
        {"\"nbf\":-1e300", 0, 0, "ok"},
        {"\"iat\":\"tomorrow\"", 0, 1, "ok"},
        {"\"iat\":99999999999", 0, 1, "ok"},
        {"\"exp\":1000,\"nbf\":2000", 0, 1500, "expired"},
    };
    (void)state;
    for (unsigned i = 0; i < countof(CASES); i++) {
        g_rules.leeway_s = CASES[i].leeway_s;
        const char *token =
            token_hs(secret(), "{\"alg\":\"HS256\"}", text("{\"sub\":\"a\",%s}", CASES[i].claim));
        if (strcmp(verdict_at(g_hs, token, CASES[i].now_s), CASES[i].word) != 0)
            fail_msg("%s at %lld: %s", CASES[i].claim, (long long)CASES[i].now_s,
                     verdict_at(g_hs, token, CASES[i].now_s));
    }
    g_rules.leeway_s = 0;
    struct jwt_claims c;
    const char *token = token_hs(secret(), "{\"alg\":\"HS256\"}", "{\"sub\":\"a\"}");
    assert_int_equal(jwt_verify(g_hs, &g_rules, slice_str(token), NOW, &c), JWT_OK);
    assert_true(c.exp_s == INT64_MAX);
    jwt_claims_fini(&c);
}

static void issuer_is_equal(void **state)
{
    (void)state;
    g_rules.issuer = "https://x.example/auth/v1";
    assert_string_equal(of_claims("{\"sub\":\"a\",\"iss\":\"https://x.example/auth/v1\"}"), "ok");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"iss\":\"https://x.example/auth/v1/\"}"),
                        "issuer");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"iss\":\"https://x.example/auth/v\"}"),
                        "issuer");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"iss\":[\"https://x.example/auth/v1\"]}"),
                        "issuer");
    assert_string_equal(of_claims("{\"sub\":\"a\"}"), "issuer");
    g_rules.issuer = "";
    assert_string_equal(of_claims("{\"sub\":\"a\",\"iss\":5}"), "ok");
}

static void audience_is_a_text_or_a_list(void **state)
{
    static const char *const OURS[] = {"authenticated", "api"};
    (void)state;
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":\"else\"}"), "ok"); /* not looked at */
    g_rules.audiences = OURS;
    g_rules.n_audiences = 2;
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":\"api\"}"), "ok");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":[\"x\",\"authenticated\"]}"), "ok");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":[\"x\",\"y\"]}"), "audience");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":[]}"), "audience");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":[\"api\",1]}"), "audience");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":{\"api\":\"api\"}}"), "audience");
    assert_string_equal(of_claims("{\"sub\":\"a\",\"aud\":\"API\"}"), "audience");
    assert_string_equal(of_claims("{\"sub\":\"a\"}"), "audience");
    g_rules.n_audiences = 0;
}

static void user_is_a_text_or_an_integer(void **state)
{
    (void)state;
    assert_string_equal(of_claims("{}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":\"\"}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":null}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":1.5}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":true}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":[\"a\"]}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":\"a\\nb\"}"), "no_user");
    assert_string_equal(of_claims("{\"sub\":\"a\\u007f\"}"), "no_user");
    assert_string_equal(of_claims(text("{\"sub\":\"%0512d\"}", 1)), "ok");
    assert_string_equal(of_claims(text("{\"sub\":\"%0513d\"}", 1)), "no_user");

    static const struct {
        const char *path, *claims, *user;
    } CASES[] = {
        {"sub", "{\"sub\":42}", "42"},
        {"sub", "{\"sub\":-9223372036854775808}", "-9223372036854775808"},
        {"sub", "{\"sub\":\"J\xc3\xb6rg\"}", "J\xc3\xb6rg"},
        {"sub", "{\"sub\":\"J\\u00f6rg\"}", "J\xc3\xb6rg"},
        {"a.b", "{\"a\":{\"b\":\"deep\"}}", "deep"},
        {"a.b", "{\"a.b\":\"flat\",\"a\":{\"b\":\"deep\"}}", "flat"},
        {"https://x.example/id", "{\"https://x.example/id\":\"u\"}", "u"},
    };
    for (unsigned i = 0; i < countof(CASES); i++) {
        struct jwt_claims c;
        g_rules.user_claim = CASES[i].path;
        const char *token = token_hs(secret(), "{\"alg\":\"HS256\"}", CASES[i].claims);
        assert_int_equal(jwt_verify(g_hs, &g_rules, slice_str(token), NOW, &c), JWT_OK);
        assert_true(slice_eq(c.user, slice_str(CASES[i].user)));
        jwt_claims_fini(&c);
    }
    g_rules.user_claim = "sub";
}

static void text_of_a_claim_is_found_by_its_path(void **state)
{
    static const char JSON[] = "{\"app_metadata\":{\"tier\":\"pro\",\"n\":7,\"f\":0.5,\"b\":true,"
                               "\"https://x.y/t\":\"z\"},\"a\":\"b\"}";
    char to[8];
    (void)state;
    struct slice json = slice_str(JSON);
    assert_true(jwt_claim_text(json, "app_metadata.tier", to, sizeof to));
    assert_string_equal(to, "pro");
    assert_true(jwt_claim_text(json, "app_metadata.tier", to, 4));
    assert_false(jwt_claim_text(json, "app_metadata.tier", to, 3)); /* too long */
    assert_true(jwt_claim_text(json, "app_metadata.n", to, sizeof to));
    assert_string_equal(to, "7");
    assert_true(jwt_claim_text(json, "app_metadata.f", to, sizeof to));
    assert_string_equal(to, "0.5");
    assert_true(jwt_claim_text(json, "app_metadata.https://x.y/t", to, sizeof to));
    assert_string_equal(to, "z");
    static const char *const NOT_THERE[] = {"app_metadata",
                                            "app_metadata.b",
                                            "app_metadata.none",
                                            "a.b",
                                            "",
                                            ".",
                                            "..",
                                            "app_metadata.",
                                            ".tier",
                                            "tier"};
    for (unsigned i = 0; i < countof(NOT_THERE); i++)
        assert_false(jwt_claim_text(json, NOT_THERE[i], to, sizeof to));
    assert_false(jwt_claim_text(SLICE("no json"), "a", to, sizeof to));
    assert_false(jwt_claim_text(slice_of(NULL, 0), "a", to, sizeof to));
    assert_false(jwt_claim_text(json, text("%0500d.x", 0), to, sizeof to));
}

/* ---- keys ---- */

static void secret_is_long_enough_or_an_error_with_the_cure(void **state)
{
    (void)state;
    struct jwt_keys *keys;
    struct err e;
    assert_int_equal(jwt_keys_secret(&keys, slice_of(SECRET, 31), &e), -1);
    assert_non_null(strstr(e.text, "31 bytes and HS256 needs 32"));
    assert_non_null(strstr(e.text, "openssl rand"));
    assert_null(strstr(e.text, "not a secret")); /* and it is not in the message */
    assert_int_equal(jwt_keys_secret(&keys, slice_of(NULL, 0), &e), -1);
    assert_int_equal(jwt_keys_secret(&keys, slice_of(text("%04097d", 1), 4097), &e), -1);
    assert_int_equal(jwt_keys_secret(&keys, slice_of(SECRET, 32), &e), 0);
    assert_int_equal(jwt_keys_count(keys), 1);
    jwt_keys_free(&keys);
    assert_null(keys);
}

static void keys_that_cannot_be_used_are_left_out(void **state)
{
    (void)state;
    EVP_PKEY *small = EVP_RSA_gen(1024), *p384 = EVP_EC_gen("P-384");
    char *good = jwk_ec(g_ec, ",\"kid\":\"good\"");
    const struct {
        char *jwk;
        const char *why;
    } BAD[] = {
        {jwk_rsa(small, ""), "fewer than 2048"},
        {jwk_rsa(g_rsa, ",\"use\":\"enc\""), "not for verifying"},
        {jwk_rsa(g_rsa, ",\"key_ops\":[\"sign\"]"), "not for verifying"},
        {jwk_rsa(g_rsa, ",\"key_ops\":\"verify\""), "not for verifying"},
        {jwk_rsa(g_rsa, ",\"alg\":\"RS512\""), "its alg"},
        {jwk_rsa(g_rsa, ",\"alg\":\"HS256\""), "its alg"},
        {jwk_rsa(g_rsa, ",\"alg\":5"), "its alg"},
        {jwk_rsa(g_rsa, ",\"kid\":5"), "its kid"},
        {jwk_rsa(g_rsa, text(",\"kid\":\"%01025d\"", 1)), "its kid"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQ\"}", b64_number(g_rsa, "n")), "exponent"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"Ag\"}", b64_number(g_rsa, "n")), "exponent"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AAAA\"}", b64_number(g_rsa, "n")), "exponent"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAAAAAAAAAAAB\"}", b64_number(g_rsa, "n")),
         "exponent"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\"}", b64_number(g_rsa, "n")), "exponent"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s=\",\"e\":\"AQAB\"}", b64_number(g_rsa, "n")), "modulus"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}",
              b64(memset(malloc(1025), 0xff, 1025), 1025)),
         "more than 8192"},
        {text("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}",
              b64(memset(malloc(256), 0xfe, 256), 256)),
         "modulus"},
        {text("{\"kty\":\"RSA\",\"e\":\"AQAB\"}"), "modulus"},
        {text("{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"%s\",\"y\":\"%s\"}",
              b64_number(g_ec, "qx"), b64_number(g_ec, "qy")),
         "it is none of"},
        {text("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\",\"y\":\"%s\"}",
              b64_number(g_ec, "qx"), b64_number(g_ec, "qx")),
         "no point"},
        {text("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\",\"y\":\"%s\"}", b64("", 1),
              b64_number(g_ec, "qx")),
         "32 bytes"},
        {text("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\"}", b64_number(g_ec, "qx")),
         "32 bytes"},
        {text("{\"kty\":\"oct\",\"k\":\"%s\"}", b64(SECRET, 31)), "shorter than 32"},
        {text("{\"kty\":\"oct\",\"k\":12}"), "shorter than 32"},
        {text("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}"), "it is none of"},
        {text("{}"), "it is none of"},
        {text("[]"), "it is none of"},
        {text("null"), "it is none of"},
    };
    for (unsigned i = 0; i < countof(BAD); i++) {
        struct jwt_keys *keys;
        struct err e;
        assert_int_equal(
            jwt_keys_jwks(&keys, slice_str(text("{\"keys\":[%s]}", BAD[i].jwk)), 0, &e), -1);
        assert_null(keys);
        if (!strstr(e.text, BAD[i].why))
            fail_msg("%s: %s", BAD[i].jwk, e.text);
        assert_true(ERR_peek_error() == 0);
        keys = keys_of(text("{\"keys\":[%s,%s],\"x\":1}", BAD[i].jwk, good));
        assert_int_equal(jwt_keys_count(keys), 1);
        assert_verdict(
            keys, token_signed(g_ec, "{\"alg\":\"ES256\",\"kid\":\"good\"}", CLAIMS, NULL), "ok");
        jwt_keys_free(&keys);
    }
    EVP_PKEY_free(small);
    EVP_PKEY_free(p384);
}

static void key_set_that_is_none_is_an_error_with_the_cure(void **state)
{
    static const struct {
        const char *json, *words;
    } BAD[] = {
        {"", "this is no JWK set"},
        {"<html>", "this is no JWK set"},
        {"[]", "it is no JSON object"},
        {"{}", "it has no array `keys`"},
        {"{\"keys\":{}}", "it has no array `keys`"},
        {"{\"keys\":[]}", "is empty"},
        {"{\"keys\":[],\"keys\":[]}", "duplicate"},
        {"{\"keys\":[]} x", "this is no JWK set"},
        {"\x80\xff", "this is no JWK set"},
    };
    (void)state;
    struct jwt_keys *keys;
    struct err e;
    for (unsigned i = 0; i < countof(BAD); i++) {
        assert_int_equal(jwt_keys_jwks(&keys, slice_str(BAD[i].json), 0, &e), -1);
        if (!strstr(e.text, BAD[i].words))
            fail_msg("%s", e.text);
    }
    char *huge = text("{\"keys\":[%s],\"x\":\"%065536d\"}", jwk_ec(g_ec, ""), 1);
    assert_int_equal(jwt_keys_jwks(&keys, slice_str(huge), 0, &e), -1);
    assert_non_null(strstr(e.text, "larger than 65536 bytes"));
}

static void number_of_keys_is_bounded(void **state)
{
    (void)state;
    struct jwt_keys *keys;
    struct err e;
    char *list = text("%s", jwk_ec(g_ec, "")), *one = list;
    for (int i = 1; i < JWT_KEYS_MAX; i++)
        list = text("%s,%s", list, one);
    keys = keys_of(text("{\"keys\":[%s]}", list));
    assert_int_equal(jwt_keys_count(keys), JWT_KEYS_MAX);
    jwt_keys_free(&keys);
    assert_int_equal(jwt_keys_jwks(&keys, slice_str(text("{\"keys\":[%s,%s]}", list, one)), 0, &e),
                     -1);
    assert_non_null(strstr(e.text, "more than 64 keys"));
    keys = keys_of(
        text("{\"keys\":[%s,{\"kty\":\"OKP\"}]}", list)); /* what is left out does not count */
    jwt_keys_free(&keys);
}

static void only_keys_of_the_algorithms_asked_for_are_taken(void **state)
{
    (void)state;
    struct jwt_keys *keys;
    struct err e;
    char *jwks = text("{\"keys\":[%s,%s]}", jwk_rsa(g_rsa, ""), jwk_oct(secret(), ""));
    assert_int_equal(jwt_keys_jwks(&keys, slice_str(jwks), ALG_RS256, &e), 0);
    assert_int_equal(jwt_keys_count(keys), 1);
    assert_verdict(keys, token_hs(secret(), "{\"alg\":\"HS256\"}", CLAIMS), "alg_refused");
    jwt_keys_free(&keys);
    assert_int_equal(jwt_keys_jwks(&keys, slice_str(jwks), ALG_ES256, &e), -1);
    assert_non_null(strstr(e.text, "`algorithms`"));
}

static void numbers_of_rsa_may_begin_with_zeros(void **state)
{
    (void)state;
    unsigned char n[257] = {0};
    BIGNUM *bn = NULL;
    assert_int_equal(EVP_PKEY_get_bn_param(g_rsa, "n", &bn), 1);
    BN_bn2binpad(bn, n, sizeof n);
    BN_free(bn);
    struct jwt_keys *keys = keys_of(
        text("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AAEAAQ\"}]}", b64(n, sizeof n)));
    assert_verdict(keys, token_signed(g_rsa, "{\"alg\":\"RS256\"}", CLAIMS, NULL), "ok");
    jwt_keys_free(&keys);
}

static void library_that_is_missing_is_an_error_with_the_package(void **state)
{
    (void)state;
    const struct jwt_lib *loaded = lib;
    struct err e = {{0}};
    lib = NULL;
    assert_int_equal(jwt_load("/nowhere/_jwt.so", &e), -1);
    assert_non_null(strstr(e.text, "JWT cannot be used: /nowhere/_jwt.so: "));
    assert_non_null(strstr(e.text, "libjansson4, libssl3"));
    assert_int_equal(jwt_load("libm.so.6", &e), -1);
    assert_non_null(strstr(e.text, "belongs to another version of Weir"));
    struct jwt_keys *keys;
    assert_int_equal(jwt_keys_secret(&keys, secret(), &e), -1); /* there is none beside the test */
    assert_non_null(strstr(e.text, "/_jwt.so: "));
    lib = loaded;
}

static void every_verdict_has_a_word_and_a_description(void **state)
{
    (void)state;
    for (unsigned v = 0; v < JWT_VERDICTS; v++) {
        assert_true(*jwt_word((enum jwt_verdict)v));
        assert_true(v == JWT_OK || *jwt_description((enum jwt_verdict)v));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_of_rfc_7515_appendix_a_verify),
        cmocka_unit_test(a_token_of_each_algorithm_verifies_and_says_who_it_is),
        cmocka_unit_test(none_is_refused_in_every_spelling),
        cmocka_unit_test(public_key_is_no_secret),
        cmocka_unit_test(key_is_good_for_its_own_algorithm_alone),
        cmocka_unit_test(rules_narrow_the_algorithms),
        cmocka_unit_test(kid_picks_the_key),
        cmocka_unit_test(equal_kids_are_all_tried_and_never_more_than_four),
        cmocka_unit_test(keys_that_a_token_brings_are_not_looked_at),
        cmocka_unit_test(critical_extensions_are_refused),
        cmocka_unit_test(signatures_of_es256_have_two_halves_of_32_bytes_below_the_order),
        cmocka_unit_test(small_and_high_halves_are_written_for_openssl_as_it_wants_them),
        cmocka_unit_test(signature_of_another_length_is_wrong),
        cmocka_unit_test(base64url_has_one_form),
        cmocka_unit_test(what_has_not_three_parts_is_no_token),
        cmocka_unit_test(token_may_have_8_kib),
        cmocka_unit_test(json_is_strict),
        cmocka_unit_test(depth_is_bounded_in_claims_header_and_key_set),
        cmocka_unit_test(time_counts_with_leeway_and_fractions),
        cmocka_unit_test(issuer_is_equal),
        cmocka_unit_test(audience_is_a_text_or_a_list),
        cmocka_unit_test(user_is_a_text_or_an_integer),
        cmocka_unit_test(text_of_a_claim_is_found_by_its_path),
        cmocka_unit_test(secret_is_long_enough_or_an_error_with_the_cure),
        cmocka_unit_test(keys_that_cannot_be_used_are_left_out),
        cmocka_unit_test(key_set_that_is_none_is_an_error_with_the_cure),
        cmocka_unit_test(number_of_keys_is_bounded),
        cmocka_unit_test(only_keys_of_the_algorithms_asked_for_are_taken),
        cmocka_unit_test(numbers_of_rsa_may_begin_with_zeros),
        cmocka_unit_test(library_that_is_missing_is_an_error_with_the_package),
        cmocka_unit_test(every_verdict_has_a_word_and_a_description),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
