/* waitress: Waitress' options mean here what they mean there. */
#include "conf_helper.h"

static struct conf c;
static struct err e;

static int make(void **state)
{
    (void)state;
    return conf_init(&c, CONF_WAITRESS, &e);
}

static int drop(void **state)
{
    (void)state;
    conf_fini(&c);
    return 0;
}

static void set(const char *name, const char *value)
{
    if (conf_set(&c, name, value, NULL, &e))
        fail_msg("%s", e.text);
}

/* The keywords contradict each other. */
static void conflict(const char *a, const char *b, const char *message)
{
    make(NULL);
    set(a, strcmp(a, "port") == 0 ? "80" : "1");
    set(b, strcmp(b, "port") == 0 ? "80" : "1");
    if (conf_finish(&c, &e) != -1)
        fail_msg("%s and %s were accepted", a, b);
    assert_string_equal(e.text, message);
    drop(NULL);
}

static void defaults_are_waitress_own(void **state)
{
    (void)state;
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_string_equal(c.binds[0].text, "0.0.0.0:8080");
    assert_int_equal(c.threads.min, 4);
    assert_int_equal(c.threads.max, 4);
    assert_int_equal(c.connections, 100);
    assert_int_equal(c.keep_alive, 120000);
    assert_int_equal(c.header_timeout, 120000);
    assert_int_equal(c.body_timeout, 120000);
    assert_int_equal(c.send_timeout, 120000);
    assert_int_equal(c.max_head_size, 262144);
    assert_int_equal(c.max_body_size, 1073741823);
    assert_int_equal(c.body_memory, 524288);
    assert_int_equal(c.response_memory, 1048576);
    assert_int_equal(c.response_backlog, 16777216);
    assert_int_equal(c.backlog, 1024);
    assert_int_equal(c.unix_socket_perms, 0600);
    assert_int_equal(c.trusted_proxy_count, 1);
    assert_string_equal(c.ident, "waitress");
    assert_string_equal(c.server_name, "waitress.invalid");
    assert_string_equal(c.url_scheme, "http");
    assert_true(c.lax_host && c.clear_untrusted_proxy_headers && c.log_socket_errors &&
                c.disconnect_detection);
    assert_false(c.expose_tracebacks || c.log_untrusted_proxy_headers);
}

static void keywords_are_carried_over(void **state)
{
    (void)state;
    set("threads", "8");
    set("connection_limit", "500");
    set("channel_timeout", "5");
    set("max_request_body_size", "1000");
    set("max_request_header_size", "100");
    set("inbuf_overflow", "0");
    set("outbuf_overflow", "10");
    set("outbuf_high_watermark", "0");
    set("url_prefix", "//api/");
    set("ident", "");
    set("unix_socket_perms", "660");
    set("expose_tracebacks", "True");
    set("ipv6", "false");
    set("channel_request_lookahead", "0");
    set("listen", " 127.0.0.1:1 [::1]:2\n*:3");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_int_equal(c.threads.max, 8);
    assert_int_equal(c.connections, 500);
    assert_int_equal(c.keep_alive, 5000);
    assert_int_equal(c.send_timeout, 5000);
    assert_int_equal(c.max_body_size, 999);
    assert_int_equal(c.max_head_size, 100);
    assert_int_equal(c.body_memory, 0);
    assert_int_equal(c.response_memory, 10);
    assert_int_equal(c.response_backlog, 1);
    assert_string_equal(c.url_prefix, "/api");
    assert_string_equal(c.ident, "");
    assert_int_equal(c.unix_socket_perms, 0660);
    assert_true(c.expose_tracebacks && c.disconnect_detection);
    assert_false(c.ipv6);
    assert_int_equal(c.n_binds, 3);
    assert_string_equal(c.binds[1].host, "::1");
    assert_string_equal(c.binds[2].host, "");
}

static void body_size_zero_and_timeout_zero_stay_legal(void **state)
{
    (void)state;
    set("max_request_body_size", "0");
    set("channel_timeout", "0");
    assert_int_equal(c.max_body_size, 0);
    assert_int_equal(c.keep_alive, 0);
    assert_true(c.body_timeout > 0 && c.send_timeout > 0 && c.header_timeout > 0);
}

static void threads_may_be_a_range_or_auto(void **state)
{
    (void)state;
    set("threads", "2:100");
    assert_int_equal(c.threads.max, 100);
    set("threads", "auto");
    assert_true(c.threads.is_auto);
}

static void settings_of_weir_work_by_their_full_name(void **state)
{
    (void)state;
    set("access_log", "-");
    set("grace", "5");
    assert_string_equal(c.access_log, "-");
    assert_int_equal(c.grace, 5000);
}

static void unknown_keyword_names_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(conf_set(&c, "thraeds", "8", NULL, &e), -1);
    assert_string_equal(e.text, "thraeds: unknown setting; did you mean 'threads'?");
    assert_int_equal(conf_set(&c, "bogus", "8", "serve(bogus=...)", &e), -1);
    assert_string_equal(e.text, "serve(bogus=...): unknown setting");
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *message;
    } cases[] = {
        {"threads", "0", "threads: 0 is too small"},
        {"threads", "x", "threads: 'x' is not a number; give N, MIN:MAX or auto"},
        {"port", "70000", "port: 70000 is too large"},
        {"ipv4", "perhaps", "ipv4: 'perhaps' is neither yes nor no"},
        {"unix_socket_perms", "rw", "unix_socket_perms: 'rw' is not an octal number"},
        {"recv_bytes", "many", "recv_bytes: 'many' is not a whole number"},
        {"channel_request_lookahead", "-1", "too small"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        assert_int_equal(conf_set(&c, cases[i].name, cases[i].value, NULL, &e), -1);
        assert_text_in(e.text, cases[i].message);
    }
}

static void contradictions_are_waitress_own(void **state)
{
    (void)state;
    conflict("listen", "host",
             "host or port may not be set if listen is set: name all addresses with listen");
    conflict("listen", "port",
             "host or port may not be set if listen is set: name all addresses with listen");
    conflict("listen", "sockets", "sockets may not be set if listen is set");
    conflict("sockets", "port", "host or port may not be set if sockets is set");
    conflict("sockets", "unix_socket", "unix_socket may not be set if sockets is set");
    conflict("unix_socket", "host", "unix_socket may not be set if host or port is set");
    conflict("unix_socket", "listen", "unix_socket may not be set if listen is set");
    conflict("trusted_proxy_count", "ipv4",
             "trusted_proxy_count has no meaning without trusted-proxy");
    conflict("bind", "host",
             "bind cannot be given together with host, port, listen, unix-socket or sockets; name "
             "all addresses one way");
}

static void sockets_become_descriptors(void **state)
{
    (void)state;
    set("sockets", "5");
    set("sockets", "6 7");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_int_equal(c.n_binds, 3);
    assert_int_equal(c.binds[2].fd, 7);
}

static void no_sockets_mean_the_usual_address(void **state)
{
    (void)state;
    set("sockets", "");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_string_equal(c.binds[0].text, "0.0.0.0:8080");
}

static void unix_socket_is_the_only_address(void **state)
{
    (void)state;
    set("unix_socket", "/run/w.sock");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_int_equal(c.n_binds, 1);
    assert_string_equal(c.binds[0].path, "/run/w.sock");
}

static void host_of_ipv6_needs_no_brackets(void **state)
{
    (void)state;
    set("host", "::1");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_string_equal(c.binds[0].text, "[::1]:8080");
    assert_string_equal(c.binds[0].host, "::1");
}

static void proxy_without_headers_trusts_the_scheme_and_says_so(void **state)
{
    (void)state;
    struct started *s = start_waitress("w --trusted-proxy=127.0.0.1 a:b");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.trusted_proxy_headers, "x-forwarded-proto");
    assert_text_in(s->said, "trusts x-forwarded-proto alone");
    end(s);
    s = start_waitress("w --trusted-proxy=* --trusted-proxy-headers=Forwarded a:b");
    assert_string_equal(s->conf.trusted_proxy_headers, "Forwarded");
    assert_string_equal(s->said, "");
    end(s);
    waitress_refuses("w --trusted-proxy=* --trusted-proxy-headers=x-what a:b",
                     "is no forwarding header");
}

static void command_line_is_that_of_waitress(void **state)
{
    (void)state;
    struct started *s = start_waitress(
        "w --threads=8 --host 127.0.0.1 --port=5000 --no-ipv6 --expose-tracebacks --call a.b:c.d");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.max, 8);
    assert_string_equal(s->conf.binds[0].text, "127.0.0.1:5000");
    assert_true(s->conf.factory && s->conf.expose_tracebacks && !s->conf.ipv6);
    assert_string_equal(s->conf.app, "a.b:c.d");
    end(s);
    s = start_waitress("w --listen=127.0.0.1:1 --listen=*:2 --app=a.b");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.n_binds, 2);
    assert_string_equal(s->conf.app, "a.b");
    end(s);
}

static void unique_beginnings_are_taken(void **state)
{
    (void)state;
    struct started *s = start_waitress("w --thr=8 --no-ipv6 --chan-t=5 --exp a:b");
    assert_int_equal(s->rc, -1); /* chan-t is no beginning */
    end(s);
    s = start_waitress("w --th=8 --channel-t=5 --exp --ba=9 a:b");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.max, 8);
    assert_int_equal(s->conf.keep_alive, 5000);
    assert_int_equal(s->conf.backlog, 9);
    assert_true(s->conf.expose_tracebacks);
    end(s);
    /* A whole name is no beginning of a longer one. */
    s = start_waitress("w --trusted-proxy=1.2.3.4 --trusted-proxy-headers=forwarded a:b");
    assert_int_equal(s->rc, 0);
    end(s);
    waitress_refuses("w --trusted-p=1 a:b", "option --trusted-p not a unique prefix");
    waitress_refuses("w --no-ipv a:b", "option --no-ipv not a unique prefix");
}

static void wrong_command_lines_show_the_usage(void **state)
{
    (void)state;
    waitress_refuses("w --bogus a:b", "Error: option --bogus not recognized\n\nUsage: w [options]");
    waitress_refuses("w --thraeds=8 a:b", "did you mean --threads?");
    waitress_refuses("w -x a:b", "option -x not recognized");
    waitress_refuses("w --threads", "option --threads requires argument");
    waitress_refuses("w --ipv4=yes a:b", "option --ipv4 must not have an argument");
    waitress_refuses("w", "Specify one application");
    waitress_refuses("w a:b c:d", "Specify one application only");
    waitress_refuses("w --app=a:b c:d", "Specify one application only");
    waitress_refuses("w a:b --threads=8", "Specify one application only");
    waitress_refuses("w a:", "does not name an application");
    waitress_refuses("w --sockets=3 a:b", "not recognized");
    waitress_refuses("w --threads=8 --listen=:1 --port=2 a:b", "if listen is set");
}

static void help_and_version_exit_with_zero(void **state)
{
    (void)state;
    struct started *s = start_waitress("w --help");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->action, CONF_EXIT);
    assert_int_equal(s->status, 0);
    assert_text_in(s->out, "--channel-request-lookahead=INT");
    assert_text_in(s->out, "--[no-]expose-tracebacks");
    for (char *line = strtok(s->out, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 80);
    end(s);
    s = start_waitress("w --version");
    assert_text_in(s->out, "weir 0.");
    end(s);
    s = start_waitress("w --print-config");
    assert_int_equal(s->action, CONF_PRINT);
    end(s);
}

static void options_without_effect_say_why_in_one_line(void **state)
{
    (void)state;
    static const char *const options[] = {"--recv-bytes=1",       "--send-bytes=1",
                                          "--cleanup-interval=1", "--asyncore-loop-timeout=1",
                                          "--asyncore-use-poll",  "--no-asyncore-use-poll"};
    for (size_t i = 0; i < countof(options); i++) {
        char words[80], start_of_line[80];
        snprintf(words, sizeof words, "w %s a:b", options[i]);
        struct started *s = start_waitress(words);
        assert_int_equal(s->rc, 0);
        snprintf(start_of_line, sizeof start_of_line,
                 "weir: %.*s has no effect: ", (int)strcspn(options[i], "="), options[i]);
        assert_text_in(s->said, start_of_line);
        assert_ptr_equal(strchr(s->said, '\n'), s->said + strlen(s->said) - 1);
        end(s);
    }
}

static void environment_is_not_read(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "PORT=1", (char *)(uintptr_t) "WEIR_THREADS=9", NULL};
    struct started *s = start_in(CONF_WAITRESS, "w a:b", env);
    assert_string_equal(s->conf.binds[0].text, "0.0.0.0:8080");
    assert_int_equal(s->conf.threads.max, 4);
    end(s);
}

int main(void)
{
#define WITH_CONF(f) cmocka_unit_test_setup_teardown(f, make, drop)
    const struct CMUnitTest tests[] = {
        WITH_CONF(defaults_are_waitress_own),
        WITH_CONF(keywords_are_carried_over),
        WITH_CONF(body_size_zero_and_timeout_zero_stay_legal),
        WITH_CONF(threads_may_be_a_range_or_auto),
        WITH_CONF(settings_of_weir_work_by_their_full_name),
        WITH_CONF(unknown_keyword_names_the_nearest),
        WITH_CONF(wrong_values_are_named),
        cmocka_unit_test(contradictions_are_waitress_own),
        WITH_CONF(sockets_become_descriptors),
        WITH_CONF(no_sockets_mean_the_usual_address),
        WITH_CONF(unix_socket_is_the_only_address),
        WITH_CONF(host_of_ipv6_needs_no_brackets),
        cmocka_unit_test(proxy_without_headers_trusts_the_scheme_and_says_so),
        cmocka_unit_test(command_line_is_that_of_waitress),
        cmocka_unit_test(unique_beginnings_are_taken),
        cmocka_unit_test(wrong_command_lines_show_the_usage),
        cmocka_unit_test(help_and_version_exit_with_zero),
        cmocka_unit_test(options_without_effect_say_why_in_one_line),
        cmocka_unit_test(environment_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
