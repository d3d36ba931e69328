/* bind: addresses in all their forms. */
#include "conf_helper.h"

#include <unistd.h>

static const struct conf_bind_rules OWN = {.host = "127.0.0.1", .port = "8000"};
static const struct conf_bind_rules THEIRS = {
    .host = "0.0.0.0", .port = "8080", .last_colon = true};

static struct conf c;

static int make(void **state)
{
    struct err e;
    (void)state;
    return conf_init(&c, CONF_WEIR, &e);
}

static int drop(void **state)
{
    (void)state;
    conf_fini(&c);
    return 0;
}

static void tcp(const char *text, const struct conf_bind_rules *rules, const char *host,
                const char *port)
{
    struct conf_bind b;
    struct err e = {0};
    if (conf_bind_parse(&c, text, "--bind", rules, &b, &e))
        fail_msg("%s", e.text);
    assert_int_equal(b.kind, CONF_BIND_TCP);
    assert_string_equal(b.host, host);
    assert_string_equal(b.port, port);
    assert_string_equal(b.text, text);
}

static void bad(const char *text, const char *message)
{
    struct conf_bind b;
    struct err e = {0};
    if (conf_bind_parse(&c, text, "--bind", &OWN, &b, &e) != -1)
        fail_msg("was accepted: %s", text);
    assert_text_in(e.text, message);
    assert_text_in(e.text, "--bind: ");
}

static void host_and_port_are_taken_apart(void **state)
{
    (void)state;
    tcp("127.0.0.1:5000", &OWN, "127.0.0.1", "5000");
    tcp("localhost:http", &OWN, "localhost", "http");
    tcp("localhost", &OWN, "localhost", "8000");
    tcp(":80", &OWN, "", "80");
    tcp("*:80", &OWN, "", "80");
    tcp("8080", &OWN, "127.0.0.1", "8080");
    tcp("h:0", &OWN, "h", "0");
}

static void ipv6_stands_in_brackets(void **state)
{
    (void)state;
    tcp("[::1]:80", &OWN, "::1", "80");
    tcp("[::]", &OWN, "::", "8000");
    tcp("[fe80::1%eth0]:80", &OWN, "fe80::1%eth0", "80");
    bad("::1:80", "put an IPv6 address in brackets");
    bad("[::1", "give [IPv6]:PORT");
    bad("[::1]80", "give [IPv6]:PORT");
}

static void waitress_cuts_at_the_last_colon(void **state)
{
    (void)state;
    tcp("::1:8080", &THEIRS, "::1", "8080");
    tcp("*:8080", &THEIRS, "", "8080");
    tcp("[::1]:8081", &THEIRS, "::1", "8081");
    tcp("localhost", &THEIRS, "localhost", "8080");
}

static void unix_paths_and_names_are_taken(void **state)
{
    struct conf_bind b;
    struct err e;
    (void)state;
    assert_int_equal(conf_bind_parse(&c, "unix:/run/w.sock", "--bind", &OWN, &b, &e), 0);
    assert_int_equal(b.kind, CONF_BIND_UNIX);
    assert_string_equal(b.path, "/run/w.sock");
    assert_int_equal(conf_bind_parse(&c, "unix:@name", "--bind", &OWN, &b, &e), 0);
    assert_string_equal(b.path, "@name");
    bad("unix:", "the path of the Unix socket is missing");
    bad("unix:@", "the path of the Unix socket is missing");
    char path[200] = "unix:";
    memset(path + 5, 'x', 108);
    bad(path, "longer than 107 bytes");
    path[5 + 107] = 0;
    assert_int_equal(conf_bind_parse(&c, path, "--bind", &OWN, &b, &e), 0);
}

static void descriptors_are_taken(void **state)
{
    struct conf_bind b;
    struct err e;
    (void)state;
    assert_int_equal(conf_bind_parse(&c, "fd://3", "--bind", &OWN, &b, &e), 0);
    assert_int_equal(b.kind, CONF_BIND_FD);
    assert_int_equal(b.fd, 3);
    bad("fd://", "is not a whole number");
    bad("fd://-1", "too small");
    bad("fd://9999999999", "too large");
}

static void wrong_addresses_name_the_forms(void **state)
{
    (void)state;
    bad("", "the address is empty");
    bad("http://127.0.0.1:80", "is a URL; give HOST:PORT alone");
    bad("h:", "has no port behind its colon");
    bad("h:99999", "99999 is too large; the range is 0 to 65535");
    tcp("h:8o", &OWN, "h", "8o");
    bad("a b:80", "is not an address");
    bad("/run/w.sock", "is not an address");
    bad("h:-1", "is not a port; give 0 to 65535");
    bad("70000", "too large");
}

static void binds_of_a_start(void **state)
{
    (void)state;
    static char *const port[] = {(char *)(uintptr_t) "PORT=9000", NULL};
    static const struct {
        const char *words, *want;
        char *const *env;
    } cases[] = {
        {"weir a", "127.0.0.1:8000", NULL},
        {"weir a", "0.0.0.0:9000", port},
        {"weir a --host 10.0.0.1", "10.0.0.1:9000", port},
        {"weir a --host ::1 --port 80", "[::1]:80", NULL},
        {"weir a --port 80", "127.0.0.1:80", NULL},
        {"weir a --port 80", "127.0.0.1:80", port},
        {"weir a -b :80", ":80", port},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct started *s = start_in(CONF_WEIR, cases[i].words, cases[i].env);
        assert_int_equal(s->rc, 0);
        assert_int_equal(s->conf.n_binds, 1);
        assert_string_equal(s->conf.binds[0].text, cases[i].want);
        end(s);
    }
}

static void several_binds_keep_their_order_and_lose_doubles(void **state)
{
    (void)state;
    struct started *s = start("weir a -b :80 --bind=unix:/x -b :80 -b h:0 -b h:0");
    assert_int_equal(s->conf.n_binds, 4);
    assert_string_equal(s->conf.binds[0].port, "80");
    assert_string_equal(s->conf.binds[1].path, "/x");
    assert_string_equal(s->conf.binds[3].port, "0");
    end(s);
}

static void addresses_named_two_ways_are_refused(void **state)
{
    (void)state;
    refuses("weir a -b :80 --port 90", "name all addresses one way");
    refuses("weir a --no-ipv4 --no-ipv6", "both off");
}

static void bad_port_in_the_environment_is_named(void **state)
{
    (void)state;
    static char *const bad_port[] = {(char *)(uintptr_t) "PORT=90000", NULL};
    static char *const no_port[] = {(char *)(uintptr_t) "PORT=tcp://1", NULL};
    refuses_in(CONF_WEIR, "weir a", bad_port, 2, "PORT: 90000 is too large");
    refuses_in(CONF_WEIR, "weir a", no_port, 2, "PORT: 'tcp://1' is not a port");
}

static void sockets_of_systemd_are_taken_when_no_address_is_given(void **state)
{
    (void)state;
    char pid[32];
    snprintf(pid, sizeof pid, "LISTEN_PID=%d", (int)getpid());
    char *const mine[] = {pid, (char *)(uintptr_t) "LISTEN_FDS=2", NULL};
    char *const other[] = {(char *)(uintptr_t) "LISTEN_PID=1", (char *)(uintptr_t) "LISTEN_FDS=2",
                           NULL};
    struct started *s = start_in(CONF_WEIR, "weir a", mine);
    assert_int_equal(s->conf.n_binds, 2);
    assert_int_equal(s->conf.binds[1].fd, 4);
    end(s);
    s = start_in(CONF_WEIR, "weir a -b :80", mine);
    assert_int_equal(s->conf.n_binds, 1);
    assert_int_equal(s->conf.binds[0].kind, CONF_BIND_TCP);
    end(s);
    s = start_in(CONF_WEIR, "weir a", other);
    assert_int_equal(s->conf.binds[0].kind, CONF_BIND_TCP);
    end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(host_and_port_are_taken_apart, make, drop),
        cmocka_unit_test_setup_teardown(ipv6_stands_in_brackets, make, drop),
        cmocka_unit_test_setup_teardown(waitress_cuts_at_the_last_colon, make, drop),
        cmocka_unit_test_setup_teardown(unix_paths_and_names_are_taken, make, drop),
        cmocka_unit_test_setup_teardown(descriptors_are_taken, make, drop),
        cmocka_unit_test_setup_teardown(wrong_addresses_name_the_forms, make, drop),
        cmocka_unit_test(binds_of_a_start),
        cmocka_unit_test(several_binds_keep_their_order_and_lose_doubles),
        cmocka_unit_test(addresses_named_two_ways_are_refused),
        cmocka_unit_test(bad_port_in_the_environment_is_named),
        cmocka_unit_test(sockets_of_systemd_are_taken_when_no_address_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
