/* test_proxy: trusted addresses, the PROXY protocol, Forwarded and X-Forwarded-*. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "http/proxy.h"

#define assert_slice(s, text)                                                                      \
    do {                                                                                           \
        struct slice got_ = (s);                                                                   \
        if (!slice_eq(got_, SLICE(text))) {                                                        \
            print_error("got '%.*s', not '%s'\n", (int)got_.n, got_.p ? got_.p : "", text);        \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

/* ---- trusted addresses ---- */

static bool trusts(const char *list, const char *host)
{
    struct proxy_set set;
    struct err e;
    assert_int_equal(proxy_set_parse(&set, slice_str(list), &e), 0);
    return proxy_set_has(&set, host);
}

static void addresses_and_networks_are_trusted(void **state)
{
    (void)state;
    assert_true(trusts("127.0.0.1,::1", "127.0.0.1"));
    assert_true(trusts("127.0.0.1, ::1", "::1"));
    assert_false(trusts("127.0.0.1,::1", "127.0.0.2"));
    assert_true(trusts("10.0.0.0/8", "10.255.0.1"));
    assert_false(trusts("10.0.0.0/8", "11.0.0.1"));
    assert_true(trusts("192.0.2.128/25", "192.0.2.255"));
    assert_false(trusts("192.0.2.128/25", "192.0.2.127"));
    assert_true(trusts("192.0.2.1/32", "192.0.2.1"));
    assert_true(trusts("0.0.0.0/0", "8.8.8.8"));
    assert_false(trusts("0.0.0.0/0", "2001:db8::1"));
    assert_true(trusts("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(trusts("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(trusts("fe80::/10", "fe80::1%eth0"));
    assert_false(trusts("", "127.0.0.1"));
    assert_false(trusts("127.0.0.1", "junk"));
}

static void ipv4_peers_of_an_ipv6_socket_are_ipv4(void **state)
{
    (void)state;
    assert_true(trusts("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert_true(trusts("::ffff:10.1.2.3", "10.1.2.3"));
    assert_true(trusts("::/0", "2001:db8::1"));
    assert_false(trusts("::/0", "10.1.2.3"));
}

static void unix_peers_are_trusted_by_name_or_with_everybody(void **state)
{
    (void)state;
    assert_true(trusts("localhost", ""));
    assert_true(trusts("unix", ""));
    assert_true(trusts("*", ""));
    assert_false(trusts("127.0.0.1", ""));
    assert_false(trusts("localhost", "127.0.0.1"));
    assert_true(trusts("*", "192.0.2.1"));
}

static void bad_trusted_addresses_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"example.com", "10.0.0.0/33", "10.0.0.0/", "::/129",
                                      "1.2.3",       "10.0.0.0/+8", "/8",        "1.2.3.4:80"};
    struct proxy_set set;
    struct err e;
    for (size_t i = 0; i < countof(bad); i++) {
        char list[64];
        snprintf(list, sizeof list, "127.0.0.1,%s", bad[i]);
        assert_int_equal(proxy_set_parse(&set, slice_str(list), &e), -1);
        assert_non_null(strstr(e.text, bad[i]));
    }
    char many[65 * 8];
    many[0] = '\0';
    for (size_t i = 0; i < 65; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "1.1.1.1,");
    assert_int_equal(proxy_set_parse(&set, slice_str(many), &e), -1);
}

/* ---- PROXY protocol ---- */

struct met {
    enum h1_verdict v;
    size_t used;
    struct proxy_addr client, server;
};

static struct met meet_once(const char *p, size_t n, enum proxy_mode mode)
{
    struct met m = {.client = {"old", 1}, .server = {"old", 1}};
    struct h1_error error = {0};
    char *copy = malloc(n ? n : 1); /* exactly as long, for the sanitizer */
    assert_non_null(copy);
    memcpy(copy, p, n);
    m.v = proxy_protocol(copy, n, mode, &m.used, &m.client, &m.server, &error);
    if (m.v == H1_BAD)
        assert_int_equal(error.status, 400);
    free(copy);
    return m;
}

/* The verdict on all bytes; all shorter pieces must agree or ask for more. */
static struct met meet(const char *p, size_t n, enum proxy_mode mode)
{
    struct met whole = meet_once(p, n, mode);
    for (size_t k = 0; k < n; k++) {
        struct met part = meet_once(p, k, mode);
        if (part.v == H1_MORE)
            continue;
        assert_int_equal(part.v, whole.v);
        if (part.v == H1_DONE) {
            assert_int_equal(part.used, whole.used);
            assert_string_equal(part.client.host, whole.client.host);
        }
        break;
    }
    return whole;
}

static struct met meet_v1(const char *text)
{
    return meet(text, strlen(text), PROXY_V1);
}

static void v1_names_client_and_server(void **state)
{
    (void)state;
    struct met m = meet_v1("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET");
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 45);
    assert_string_equal(m.client.host, "192.0.2.1");
    assert_int_equal(m.client.port, 56324);
    assert_string_equal(m.server.host, "198.51.100.2");
    assert_int_equal(m.server.port, 443);
    m = meet_v1("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
    assert_int_equal(m.v, H1_DONE);
    assert_string_equal(m.client.host, "2001:db8::1");
    assert_int_equal(m.server.port, 65535);
    m = meet_v1("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    assert_int_equal(m.v, H1_DONE);
}

static void v1_unknown_changes_nothing(void **state)
{
    (void)state;
    struct met m = meet_v1("PROXY UNKNOWN\r\nGET");
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 15);
    assert_string_equal(m.client.host, "old");
    m = meet_v1("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 107);
}

static void malformed_v1_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
        "PROXY TCP4 1.1.1.1\r\n",
        "PROXY TCP4\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
        "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 0x2\r\n",
        "PROXY\tTCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4\t1.1.1.1 2.2.2.2 1 2\r\n",
        "\nPROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        ("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n"),
    };
    for (size_t i = 0; i < countof(bad); i++) {
        struct met m = meet_v1(bad[i]);
        if (m.v != H1_BAD)
            print_error("taken: %s\n", bad[i]);
        assert_int_equal(m.v, H1_BAD);
        assert_string_equal(m.client.host, "old");
    }
    assert_int_equal(meet("PROXY TCP4 1.1.1.1\0 2.2.2.2 1 2\r\n", 33, PROXY_V1).v, H1_BAD);
    assert_int_equal(meet_v1("PROXY TCP4 1.1.1.1 2.2.2.2 1 2").v, H1_MORE);
    assert_int_equal(meet_v1("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r").v, H1_MORE);
    assert_int_equal(meet_v1("").v, H1_MORE);
}

#define SIG "\r\n\r\n\0\r\nQUIT\n"

static struct met meet_v2(const char *head4, const char *rest, size_t n)
{
    static char bytes[70000];
    memcpy(bytes, SIG, 12);
    memcpy(bytes + 12, head4, 4);
    memcpy(bytes + 16, rest, n);
    return n > 1000 ? meet_once(bytes, 16 + n, PROXY_V2) : meet(bytes, 16 + n, PROXY_V2);
}

static void v2_names_client_and_server(void **state)
{
    (void)state;
    struct met m = meet_v2("\x21\x11\0\x0c", "\xc0\0\2\1\xc6\x33\x64\2\xdc\x04\1\xbbGET", 15);
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 28);
    assert_string_equal(m.client.host, "192.0.2.1");
    assert_int_equal(m.client.port, 56324);
    assert_string_equal(m.server.host, "198.51.100.2");
    assert_int_equal(m.server.port, 443);
    char v6[36] = {0x20, 1, 0x0d, (char)0xb8, [15] = 1, [31] = 2, [33] = 80, [34] = 1};
    m = meet_v2("\x21\x21\0\x24", v6, sizeof v6);
    assert_int_equal(m.v, H1_DONE);
    assert_string_equal(m.client.host, "2001:db8::1");
    assert_int_equal(m.client.port, 80);
    assert_string_equal(m.server.host, "::2");
    assert_int_equal(m.server.port, 256);
}

static void v2_skips_what_stands_behind_the_addresses(void **state)
{
    (void)state;
    struct met m = meet_v2("\x21\x11\0\x12", "\1\1\1\1\2\2\2\2\0\1\0\2\x04\0\3abcGET", 21);
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 34);
    assert_string_equal(m.client.host, "1.1.1.1");
}

static void v2_of_a_unix_socket_has_no_address(void **state)
{
    (void)state;
    char paths[216] = "/run/a.sock";
    struct met m = meet_v2("\x21\x31\0\xd8", paths, sizeof paths);
    assert_int_equal(m.v, H1_DONE);
    assert_string_equal(m.client.host, "");
    assert_int_equal(m.client.port, 0);
}

static void v2_local_and_unspecified_change_nothing(void **state)
{
    (void)state;
    struct met m = meet_v2("\x20\0\0\0", "", 0);
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 16);
    assert_string_equal(m.client.host, "old");
    m = meet_v2("\x20\x11\0\3", "abc", 3);
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 19);
    m = meet_v2("\x21\0\0\3", "abc", 3);
    assert_int_equal(m.v, H1_DONE);
    assert_string_equal(m.client.host, "old");
    m = meet_v2("\x21\x10\0\0", "", 0);
    assert_int_equal(m.v, H1_DONE);
    assert_string_equal(m.client.host, "old");
}

static void malformed_v2_is_refused(void **state)
{
    (void)state;
    const char addresses[12] = {0};
    static char long_rest[66000];
    assert_int_equal(meet_v2("\x11\x11\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x22\x11\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x31\x11\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x41\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x13\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x11\0\x0b", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x21\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x31\0\x0c", addresses, 12).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x11\xff\xff", long_rest, sizeof long_rest).v, H1_BAD);
    assert_int_equal(meet_v2("\x21\x11\x10\x00", long_rest, sizeof long_rest).v, H1_DONE);
    assert_int_equal(meet_v2("\x21\x11\0\x0c", addresses, 11).v, H1_MORE);
    assert_int_equal(meet("\r\n\r\n\0\r\nQUIT\r", 12, PROXY_V2).v, H1_BAD);
    assert_int_equal(meet("\r\n\r\n", 4, PROXY_V2).v, H1_MORE);
}

static void the_mode_says_which_version_is_taken(void **state)
{
    (void)state;
    const char v1[] = "PROXY UNKNOWN\r\n", v2[] = SIG "\x20\0\0\0";
    assert_int_equal(meet(v1, sizeof v1 - 1, PROXY_V2).v, H1_BAD);
    assert_int_equal(meet(v2, sizeof v2 - 1, PROXY_V1).v, H1_BAD);
    assert_int_equal(meet(v1, sizeof v1 - 1, PROXY_AUTO).v, H1_DONE);
    assert_int_equal(meet(v2, sizeof v2 - 1, PROXY_AUTO).v, H1_DONE);
    assert_int_equal(meet("GET / HTTP/1.1\r\n", 16, PROXY_AUTO).v, H1_BAD);
    assert_int_equal(meet("POST / HTTP/1.1\r\n", 17, PROXY_AUTO).v, H1_BAD);
    struct met m = meet_once("GET", 3, PROXY_OFF);
    assert_int_equal(m.v, H1_DONE);
    assert_int_equal(m.used, 0);
}

/* ---- header names ---- */

static void header_names_become_bits(void **state)
{
    (void)state;
    unsigned bits;
    struct err e;
    assert_int_equal(proxy_headers_parse(&bits, SLICE("x-forwarded-for X-Forwarded-Proto"), &e), 0);
    assert_int_equal(bits, PROXY_X_FOR | PROXY_X_PROTO);
    assert_int_equal(proxy_headers_parse(&bits, SLICE(" forwarded,"), &e), 0);
    assert_int_equal(bits, PROXY_FORWARDED);
    assert_int_equal(proxy_headers_parse(&bits, SLICE(""), &e), 0);
    assert_int_equal(bits, 0);
    assert_int_equal(proxy_headers_parse(&bits, SLICE("x-real-ip"), &e), -1);
    assert_non_null(strstr(e.text, "x-real-ip"));
    assert_int_equal(proxy_headers_parse(&bits, SLICE("forwarded x-forwarded-by"), &e), -1);
}

static void connections_begin_with_it_or_not(void **state)
{
    (void)state;
    assert_true(proxy_protocol_begins("P", 1, PROXY_AUTO));
    assert_true(proxy_protocol_begins("PROXY TCP4", 10, PROXY_V1));
    assert_false(proxy_protocol_begins("PROXY TCP4", 10, PROXY_V2));
    assert_false(proxy_protocol_begins("PO", 2, PROXY_AUTO));
    assert_false(proxy_protocol_begins("PROXYX", 6, PROXY_AUTO));
    assert_true(proxy_protocol_begins("\r\n\r", 3, PROXY_AUTO));
    assert_false(proxy_protocol_begins("\r\n\r", 3, PROXY_V1));
    assert_false(proxy_protocol_begins("\r\n\r\nG", 5, PROXY_AUTO));
    assert_true(proxy_protocol_begins("\r\n\r\n\0\r\nQUIT\n\x21", 13, PROXY_V2));
}

static void names_and_pairs_have_an_end(void **state)
{
    (void)state;
    static struct proxy_rules rules;
    struct err e;
    rules = (struct proxy_rules){0};
    assert_int_equal(proxy_names_parse(&rules, SLICE("SCRIPT_NAME, PATH_INFO"), &e), 0);
    assert_int_equal(rules.n_names, 2);
    assert_slice(rules.names[1], "PATH_INFO");
    assert_int_equal(proxy_names_parse(&rules, SLICE("A:B"), &e), -1);
    assert_int_equal(proxy_names_parse(&rules, SLICE("*"), &e), 0);
    assert_true(rules.any_name);
    for (unsigned i = rules.n_names; i < PROXY_NAMES_MAX; i++)
        assert_int_equal(proxy_names_parse(&rules, SLICE("X"), &e), 0);
    assert_int_equal(proxy_names_parse(&rules, SLICE("X"), &e), -1);

    assert_int_equal(proxy_scheme_add(&rules, SLICE("X-P=a=b"), &e), 0);
    assert_slice(rules.schemes[0].name, "X-P");
    assert_slice(rules.schemes[0].value, "a=b");
    assert_int_equal(proxy_scheme_add(&rules, SLICE("X-P"), &e), -1);
    assert_int_equal(proxy_scheme_add(&rules, SLICE("=x"), &e), -1);
    for (unsigned i = rules.n_schemes; i < PROXY_SCHEMES_MAX; i++)
        assert_int_equal(proxy_scheme_add(&rules, SLICE("X=y"), &e), 0);
    assert_int_equal(proxy_scheme_add(&rules, SLICE("X=y"), &e), -1);
}

/* ---- fields ---- */

static const unsigned X_ALL =
    PROXY_X_FOR | PROXY_X_HOST | PROXY_X_PROTO | PROXY_X_PORT | PROXY_X_BY;

/* One request and what the proxy's fields make of it; released by the next call. */
static struct {
    struct arena arena;
    struct field fields[20];
    struct req req;
    struct proxy_facts facts;
    struct h1_error error;
} now;

static enum h1_verdict apply_as(bool trusted, unsigned headers, unsigned hops, bool clear,
                                const char *lines)
{
    static char text[4096];
    struct h1_limits limits = {.head_bytes = sizeof text, .fields = 20};
    struct proxy_rules rules = {.headers = headers, .hops = hops, .clear = clear};
    size_t seen = 0, used = 0;
    arena_fini(&now.arena);
    memset(&now, 0, sizeof now);
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: inner:8000\r\n%s\r\n", lines);
    assert_int_equal(
        h1_head(text, (size_t)n, &seen, &limits, now.fields, &now.req, &used, &now.error), H1_DONE);
    return proxy_apply(&now.req, &rules, trusted, &now.arena, &now.facts, &now.error);
}

static void apply(unsigned headers, unsigned hops, const char *lines)
{
    enum h1_verdict v = apply_as(true, headers, hops, true, lines);
    if (v != H1_DONE)
        print_error("%s %s\n", lines, now.error.reason);
    assert_int_equal(v, H1_DONE);
}

static void refuses(unsigned headers, unsigned hops, const char *lines)
{
    enum h1_verdict v = apply_as(true, headers, hops, true, lines);
    if (v != H1_BAD)
        print_error("taken: %s\n", lines);
    assert_int_equal(v, H1_BAD);
    assert_int_equal(now.error.status, 400);
    assert_non_null(strstr(now.error.reason, "malformed"));
}

/* The value of the only visible field `id`; .p is NULL without one. */
static struct slice visible(enum hdr id)
{
    struct slice out = {0};
    for (unsigned i = 0; i < now.req.n_fields; i++)
        if (now.req.fields[i].id == id && !now.req.fields[i].dropped) {
            assert_null(out.p);
            out = now.req.fields[i].value;
        }
    return out;
}

static void client_is_the_hop_counted_from_the_right(void **state)
{
    (void)state;
    const char *three = "X-Forwarded-For: 192.0.2.1, 198.51.100.2 ,203.0.113.1\r\n";
    apply(PROXY_X_FOR, 1, three);
    assert_string_equal(now.facts.client.host, "203.0.113.1");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "203.0.113.1");
    apply(PROXY_X_FOR, 2, three);
    assert_string_equal(now.facts.client.host, "198.51.100.2");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "198.51.100.2 ,203.0.113.1");
    apply(PROXY_X_FOR, 3, three);
    assert_string_equal(now.facts.client.host, "192.0.2.1");
    apply(PROXY_X_FOR, 9, three);
    assert_string_equal(now.facts.client.host, "192.0.2.1");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "192.0.2.1, 198.51.100.2 ,203.0.113.1");
}

static void several_lines_are_one_list(void **state)
{
    (void)state;
    apply(PROXY_X_FOR, 2,
          "X-Forwarded-For: 192.0.2.1\r\nX: y\r\nX-Forwarded-For: 198.51.100.2\r\n"
          "x-forwarded-for: 203.0.113.1\r\n");
    assert_string_equal(now.facts.client.host, "198.51.100.2");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "198.51.100.2, 203.0.113.1");
    apply(PROXY_FORWARDED, 2, "Forwarded: for=192.0.2.1\r\nForwarded: for=198.51.100.2\r\n");
    assert_string_equal(now.facts.client.host, "192.0.2.1");
    assert_slice(visible(HDR_FORWARDED), "for=192.0.2.1, for=198.51.100.2");
}

static void clients_come_in_many_forms(void **state)
{
    (void)state;
    static const struct {
        const char *value, *host;
        unsigned port;
    } good[] = {
        {"192.0.2.1", "192.0.2.1", 0},
        {"192.0.2.1:5858", "192.0.2.1", 5858},
        {"\"192.0.2.1:5858\"", "192.0.2.1", 5858},
        {"2001:db8::1", "2001:db8::1", 0},
        {"2001:db8::0", "2001:db8::0", 0},
        {"[2001:db8::1]", "2001:db8::1", 0},
        {"[2001:db8::1]:3821", "2001:db8::1", 3821},
        {"\"[2001:db8::1]:3821\"", "2001:db8::1", 3821},
        {"\"192.0.2\\.1\"", "192.0.2.1", 0},
        {"::ffff:192.0.2.1", "::ffff:192.0.2.1", 0},
        {"unknown", "unknown", 0},
        {"Unknown:80", "Unknown", 80},
        {"_hidden-1.a", "_hidden-1.a", 0},
        {"_hidden:_port", "_hidden", 0},
        {"192.0.2.1:_port", "192.0.2.1", 0},
        {"", "", 0},
        {"10.0.0.1,", "", 0},
    };
    for (size_t i = 0; i < countof(good); i++) {
        char line[128];
        snprintf(line, sizeof line, "X-Forwarded-For: %s\r\n", good[i].value);
        apply(PROXY_X_FOR, 1, line);
        assert_string_equal(now.facts.client.host, good[i].host);
        assert_int_equal(now.facts.client.port, good[i].port);
    }
    static const char *const bad[] = {
        "\"foo",
        "foo\"",
        "\"",
        "\"192.0.2.1\\\"",
        "\"192\"0.2.1\"",
        "example.com",
        "192.0.2.256",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2.1:80:80",
        "192.0.2.1:+80",
        "192.0.2.1 80",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]80",
        "[]",
        "_",
        "_a b",
        "unknownx",
        "_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        char line[128];
        snprintf(line, sizeof line, "X-Forwarded-For: %s\r\n", bad[i]);
        refuses(PROXY_X_FOR, 1, line);
    }
}

static void what_stands_left_of_the_trusted_hops_does_not_matter(void **state)
{
    (void)state;
    apply(PROXY_X_FOR, 1, "X-Forwarded-For: \"<script>, ,junk, 192.0.2.1\r\n");
    assert_string_equal(now.facts.client.host, "192.0.2.1");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "192.0.2.1");
}

static void scheme_host_and_port_change_together(void **state)
{
    (void)state;
    apply(X_ALL, 1,
          "X-Forwarded-Proto: https\r\nX-Forwarded-Host: example.com\r\nX-Forwarded-By: me\r\n");
    assert_slice(now.facts.scheme, "https");
    assert_slice(now.facts.server_name, "example.com");
    assert_slice(now.facts.host, "example.com");
    assert_int_equal(now.facts.server_port, 443);
    assert_slice(now.req.host, "example.com");
    assert_slice(now.req.scheme, "https");
    assert_slice(visible(HDR_X_FORWARDED_BY), "me");

    apply(X_ALL, 1, "X-Forwarded-Proto: HTTP\r\n");
    assert_slice(now.facts.scheme, "http");
    assert_int_equal(now.facts.server_port, 80);
    assert_int_equal(now.facts.host.n, 0);
    assert_slice(now.req.host, "inner:8000");

    apply(X_ALL, 2, "X-Forwarded-Host: example.com:8443, b\r\nX-Forwarded-Proto: https\r\n");
    assert_slice(now.facts.server_name, "example.com");
    assert_slice(now.facts.host, "example.com:8443");
    assert_int_equal(now.facts.server_port, 8443);
    assert_slice(visible(HDR_X_FORWARDED_HOST), "example.com:8443, b");

    apply(X_ALL, 1, "X-Forwarded-Host: a, example.org\r\nX-Forwarded-Port: 8080\r\n");
    assert_slice(now.facts.server_name, "example.org");
    assert_slice(now.facts.host, "example.org:8080");
    assert_int_equal(now.facts.server_port, 8080);

    apply(X_ALL, 1, "X-Forwarded-Host: a\r\nX-Forwarded-Port: 80\r\nX-Forwarded-Proto: https\r\n");
    assert_slice(now.facts.host, "a:80");
    apply(X_ALL, 1, "X-Forwarded-Host: a\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: http\r\n");
    assert_slice(now.facts.host, "a:443");
    apply(X_ALL, 1, "X-Forwarded-Host: a\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: https\r\n");
    assert_slice(now.facts.host, "a");
    apply(X_ALL, 1, "X-Forwarded-Port: \"8080\"\r\n");
    assert_int_equal(now.facts.server_port, 8080);

    apply(X_ALL, 1, "X-Forwarded-Host: [::1]\r\nX-Forwarded-Port: 81\r\n");
    assert_slice(now.facts.server_name, "[::1]");
    assert_slice(now.facts.host, "[::1]:81");
    apply(X_ALL, 1, "X-Forwarded-Host: [::1]:82\r\nX-Forwarded-Port: 81\r\n");
    assert_slice(now.facts.server_name, "[::1]");
    assert_int_equal(now.facts.server_port, 82);
    apply(X_ALL, 1, "X-Forwarded-Host: a:\r\nX-Forwarded-Port: 81\r\n");
    assert_slice(now.facts.server_name, "a");
    assert_int_equal(now.facts.server_port, 81);
}

static void malformed_or_repeated_facts_are_refused(void **state)
{
    (void)state;
    refuses(X_ALL, 1, "X-Forwarded-Proto: http, https\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Proto: ftp\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Proto: http://evil?url=http\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Proto: \"http\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Port: 443, 80\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Port: 0\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Port: 65536\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Port: x\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Port: \"\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Host: \"foo\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Host: a b\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Host: user@a\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Host: a/b\r\n");
    refuses(X_ALL, 1, "X-Forwarded-Host: a:99999\r\n");
}

static void forwarded_is_read_pair_by_pair(void **state)
{
    (void)state;
    apply(PROXY_FORWARDED, 1,
          "Forwarded: For=198.51.100.2:5858;host=example.com:8080;proto=https\r\n");
    assert_string_equal(now.facts.client.host, "198.51.100.2");
    assert_int_equal(now.facts.client.port, 5858);
    assert_slice(now.facts.host, "example.com:8080");
    assert_slice(now.facts.server_name, "example.com");
    assert_int_equal(now.facts.server_port, 8080);
    assert_slice(now.facts.scheme, "https");

    apply(PROXY_FORWARDED, 2,
          "Forwarded: for=\"[2001:db8::1]:3821\";host=\"example.com:8443\";proto=\"https\", "
          "for=192.0.2.1;host=\"example.internal:8080\"\r\n");
    assert_string_equal(now.facts.client.host, "2001:db8::1");
    assert_int_equal(now.facts.client.port, 3821);
    assert_slice(now.facts.host, "example.com:8443");

    apply(PROXY_FORWARDED, 2,
          "Forwarded: for=192.0.2.1;host=fake.com, for=198.51.100.2;host=example.com:8080,\t"
          "for=203.0.113.1\r\n");
    assert_string_equal(now.facts.client.host, "198.51.100.2");
    assert_slice(now.facts.host, "example.com:8080");
    assert_slice(visible(HDR_FORWARDED),
                 "for=198.51.100.2;host=example.com:8080,\tfor=203.0.113.1");

    apply(
        PROXY_FORWARDED, 2,
        "Forwarded: for=\"[2001:db8::1]\";proto=\"https\", for=192.0.2.1;host=\"example.org\"\r\n");
    assert_string_equal(now.facts.client.host, "2001:db8::1");
    assert_slice(now.facts.host, "example.org");
    assert_int_equal(now.facts.server_port, 443);

    apply(PROXY_FORWARDED, 1,
          "Forwarded: For=198.51.100.2;;proto=https;by=_unused;x=\"a,\\\";b\"\r\n");
    assert_string_equal(now.facts.client.host, "198.51.100.2");
    apply(PROXY_FORWARDED, 1, "Forwarded: for=unknown\r\n");
    assert_string_equal(now.facts.client.host, "unknown");
    apply(PROXY_FORWARDED, 1, "Forwarded: for=\"_gazonk\"\r\n");
    assert_string_equal(now.facts.client.host, "_gazonk");
    apply(PROXY_FORWARDED, 1, "Forwarded:\r\n");
    assert_string_equal(now.facts.client.host, "");
    apply(PROXY_FORWARDED, 1, "Forwarded: for=1.1.1.1, \r\n");
    assert_string_equal(now.facts.client.host, "");
    apply(PROXY_FORWARDED, 1, "X: y\r\n");
    assert_string_equal(now.facts.client.host, "");
}

static void malformed_forwarded_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "For",
        "For=",
        "=1.1.1.1",
        "For=198.51.100.2; proto =https",
        "For= \"198.51.100.2\"; proto =https",
        "For=198.51.100.2; proto=https",
        "For =198.51.100.2",
        "for=\"198.51.100.2",
        "for=\"198.51.100.2\\",
        "for=\"198.51.100.2\"x",
        "for=198.51.100.2 proto=https",
        "for=1.1.1.1;for=2.2.2.2",
        "for=1.1.1.1;FOR=2.2.2.2",
        "for=example.com",
        "for=2001:db8::1",
        "for=\"2001:db8::1\"",
        "for=\"[2001:db8::1]:x\"",
        "host=\"a b\"",
        "proto=ftp",
        "proto=\"https,http\"",
        "for=\"evil, for=192.0.2.1",
        "(for)=a",
        "for=1.1.1.1\xff",
        "for=a=b",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        char line[128];
        snprintf(line, sizeof line, "Forwarded: %s\r\n", bad[i]);
        refuses(PROXY_FORWARDED, 1, line);
    }
}

static void untrusted_fields_are_hidden(void **state)
{
    (void)state;
    const char *lines = "Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"
                        "X-Forwarded-Host: a\r\nX-Forwarded-Proto: nonsense\r\n";
    assert_int_equal(apply_as(false, X_ALL, 1, true, lines), H1_DONE);
    assert_true(now.facts.cleared);
    assert_null(visible(HDR_FORWARDED).p);
    assert_null(visible(HDR_X_FORWARDED_FOR).p);
    assert_null(visible(HDR_X_FORWARDED_PROTO).p);
    assert_string_equal(now.facts.client.host, "");
    assert_slice(now.req.host, "inner:8000");
    assert_slice(visible(HDR_HOST), "inner:8000");

    assert_int_equal(apply_as(false, X_ALL, 1, false, lines), H1_DONE);
    assert_false(now.facts.cleared);
    assert_slice(visible(HDR_X_FORWARDED_FOR), "2.2.2.2");

    apply(PROXY_X_FOR, 1, lines);
    assert_true(now.facts.cleared);
    assert_string_equal(now.facts.client.host, "2.2.2.2");
    assert_slice(visible(HDR_X_FORWARDED_FOR), "2.2.2.2");
    assert_null(visible(HDR_FORWARDED).p);
    assert_null(visible(HDR_X_FORWARDED_HOST).p);

    apply(PROXY_FORWARDED, 1, lines);
    assert_string_equal(now.facts.client.host, "1.1.1.1");
    assert_null(visible(HDR_X_FORWARDED_FOR).p);

    apply(0, 1, lines);
    assert_true(now.facts.cleared);
    assert_string_equal(now.facts.client.host, "");
    apply(X_ALL, 1, "X: y\r\n");
    assert_false(now.facts.cleared);
}

static void names_with_underscores_are_never_trusted(void **state)
{
    (void)state;
    apply(X_ALL, 1, "X_Forwarded_For: 1.1.1.1\r\nX_Forwarded_Proto: https\r\n");
    assert_string_equal(now.facts.client.host, "");
    assert_int_equal(now.facts.scheme.n, 0);
}

static void the_arena_may_be_out_of_memory(void **state)
{
    (void)state;
    const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: a\r\n"
                        "X-Forwarded-Port: 81\r\nX-Forwarded-For: 1.1.1.1\r\n"
                        "X-Forwarded-For: 2.2.2.2\r\n\r\n";
    static const unsigned ways[] = {PROXY_X_FOR, PROXY_X_HOST | PROXY_X_PORT};
    for (size_t i = 0; i < countof(ways); i++) {
        struct h1_limits limits = {.fields = 20};
        struct proxy_rules rules = {.headers = ways[i], .hops = 1};
        struct arena none = {.max = 1};
        struct field fields[20];
        struct req req;
        struct proxy_facts facts;
        struct h1_error error;
        size_t seen = 0, used;
        assert_int_equal(
            h1_head(text, sizeof text - 1, &seen, &limits, fields, &req, &used, &error), H1_DONE);
        assert_int_equal(proxy_apply(&req, &rules, true, &none, &facts, &error), H1_BAD);
        assert_int_equal(error.status, 503);
        arena_fini(&none);
    }
}

static int release(void **state)
{
    (void)state;
    arena_fini(&now.arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_networks_are_trusted),
        cmocka_unit_test(ipv4_peers_of_an_ipv6_socket_are_ipv4),
        cmocka_unit_test(unix_peers_are_trusted_by_name_or_with_everybody),
        cmocka_unit_test(bad_trusted_addresses_are_named),
        cmocka_unit_test(v1_names_client_and_server),
        cmocka_unit_test(v1_unknown_changes_nothing),
        cmocka_unit_test(malformed_v1_is_refused),
        cmocka_unit_test(v2_names_client_and_server),
        cmocka_unit_test(v2_skips_what_stands_behind_the_addresses),
        cmocka_unit_test(v2_of_a_unix_socket_has_no_address),
        cmocka_unit_test(v2_local_and_unspecified_change_nothing),
        cmocka_unit_test(malformed_v2_is_refused),
        cmocka_unit_test(the_mode_says_which_version_is_taken),
        cmocka_unit_test(connections_begin_with_it_or_not),
        cmocka_unit_test(header_names_become_bits),
        cmocka_unit_test(names_and_pairs_have_an_end),
        cmocka_unit_test(client_is_the_hop_counted_from_the_right),
        cmocka_unit_test(several_lines_are_one_list),
        cmocka_unit_test(clients_come_in_many_forms),
        cmocka_unit_test(what_stands_left_of_the_trusted_hops_does_not_matter),
        cmocka_unit_test(scheme_host_and_port_change_together),
        cmocka_unit_test(malformed_or_repeated_facts_are_refused),
        cmocka_unit_test(forwarded_is_read_pair_by_pair),
        cmocka_unit_test(malformed_forwarded_is_refused),
        cmocka_unit_test(untrusted_fields_are_hidden),
        cmocka_unit_test(names_with_underscores_are_never_trusted),
        cmocka_unit_test(the_arena_may_be_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
