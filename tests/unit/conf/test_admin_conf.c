/* admin: settings of the admin listener, and of those about where traces go. */
#include "conf_helper.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONG_ENOUGH "0123456789abcdef"

static void accepts(const char *words)
{
    struct started *s = start(words);
    if (s->rc)
        fail_msg("%s: %s", words, s->e.text);
    end(s);
}

static void addresses_are_taken_apart(void **state)
{
    (void)state;
    struct started *s = start("weir --admin 127.0.0.1:5001 a:b");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.admin_bind.kind, CONF_BIND_TCP);
    assert_string_equal(s->conf.admin_bind.host, "127.0.0.1");
    assert_string_equal(s->conf.admin_bind.port, "5001");
    end(s);
    s = start("weir --admin unix:/run/w.sock a:b");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.admin_bind.kind, CONF_BIND_UNIX);
    assert_string_equal(s->conf.admin_bind.path, "/run/w.sock");
    end(s);
    s = start("weir --admin 5001 a:b");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.admin_bind.host, "127.0.0.1");
    end(s);
}

static void loopback_needs_no_token(void **state)
{
    (void)state;
    accepts("weir --admin 127.0.0.1:0 a:b");
    accepts("weir --admin 127.8.9.10:5001 a:b");
    accepts("weir --admin localhost:5001 a:b");
    accepts("weir --admin [::1]:5001 a:b");
    accepts("weir --admin unix:@name a:b");
}

static void other_addresses_want_a_token(void **state)
{
    (void)state;
    static const char *const others[] = {
        "0.0.0.0:5001",       ":5001",         "*:5001",
        "[::]:5001",          "10.0.0.1:5001", "example.org:5001",
        "128.0.0.1:5001",     "[::2]:5001",    "127.0.0.1.example:1",
        "[::ffff:10.0.0.1]:1"};
    for (size_t i = 0; i < countof(others); i++) {
        char words[200];
        snprintf(words, sizeof words, "weir --admin %s a:b", others[i]);
        refuses(words, "admin-token-file");
        snprintf(words, sizeof words, "weir --admin %s --admin-token " LONG_ENOUGH " a:b",
                 others[i]);
        accepts(words);
        snprintf(words, sizeof words, "weir --admin %s --admin-token-file /x a:b", others[i]);
        accepts(words); /* it is read where a server starts */
    }
}

static void what_is_no_address_is_refused(void **state)
{
    (void)state;
    refuses("weir --admin localhost a:b", "give HOST:PORT");
    refuses("weir --admin fd://3 a:b", "give HOST:PORT");
    refuses("weir --admin http://127.0.0.1:5001 a:b", "is a URL");
    refuses("weir --admin unix: a:b", "the path of the Unix socket is missing");
    refuses("weir --admin 127.0.0.1:65536 a:b", "too large");
}

static void tokens_that_can_be_guessed_or_not_be_sent_are_refused(void **state)
{
    (void)state;
    refuses("weir --admin 127.0.0.1:1 --admin-token 0123456789abcde a:b", "openssl rand -hex 32");
    refuses("weir --admin 127.0.0.1:1 --admin-token 0123456789abcdef\xc3\xa4 a:b", "beyond ASCII");
    refuses("weir --admin 127.0.0.1:1 --admin-token " LONG_ENOUGH " --admin-token-file x a:b",
            "give one of the two");
    accepts("weir --admin 127.0.0.1:1 --admin-token " LONG_ENOUGH " a:b");
}

/* What conf_admin_token makes of a file with these bytes. */
static int from_file(const char *bytes, size_t n, char out[CONF_TOKEN_BYTES_MAX + 1], struct err *e)
{
    char path[] = "/tmp/weir-token-XXXXXX", words[200];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
    snprintf(words, sizeof words, "weir --admin 127.0.0.1:1 --admin-token-file %s a:b", path);
    struct started *s = start(words);
    assert_int_equal(s->rc, 0);
    int rc = conf_admin_token(&s->conf, "", out, e);
    struct err again = {{0}};
    assert_int_equal(conf_policy_files_check(&s->conf, "", &again), rc);
    end(s);
    unlink(path);
    return rc;
}

static void a_file_s_token_is_trimmed(void **state)
{
    (void)state;
    char token[CONF_TOKEN_BYTES_MAX + 1];
    struct err e = {{0}};
    static const char text[] = " \r\n\t" LONG_ENOUGH " \r\n\n";
    assert_int_equal(from_file(text, sizeof text - 1, token, &e), 0);
    assert_string_equal(token, LONG_ENOUGH);
}

static void a_file_without_a_token_is_refused(void **state)
{
    (void)state;
    char token[CONF_TOKEN_BYTES_MAX + 1], large[2000];
    struct err e = {{0}};
    memset(large, 'x', sizeof large);
    assert_int_equal(from_file("", 0, token, &e), -1);
    assert_text_in(e.text, "openssl rand -hex 32");
    assert_string_equal(token, "");
    assert_int_equal(from_file("short\n", 6, token, &e), -1);
    assert_text_in(e.text, "has 5 bytes");
    assert_int_equal(from_file(LONG_ENOUGH "\0" LONG_ENOUGH, 33, token, &e), -1);
    assert_int_equal(from_file(LONG_ENOUGH " " LONG_ENOUGH, 33, token, &e), -1);
    assert_int_equal(from_file(large, sizeof large, token, &e), -1);
    assert_int_equal(from_file(large, CONF_TOKEN_BYTES_MAX + 1, token, &e), -1);
    assert_int_equal(from_file(large, CONF_TOKEN_BYTES_MAX, token, &e), 0);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    char token[CONF_TOKEN_BYTES_MAX + 1];
    struct err e = {{0}};
    struct started *s = start("weir --admin 127.0.0.1:1 --admin-token-file nowhere/token a:b");
    assert_int_equal(s->rc, 0);
    assert_int_equal(conf_admin_token(&s->conf, "/tmp", token, &e), -1);
    assert_text_in(e.text, "cannot read '/tmp/nowhere/token'");
    end(s);
}

static void without_a_listener_nothing_is_read(void **state)
{
    (void)state;
    char token[CONF_TOKEN_BYTES_MAX + 1];
    struct err e = {{0}};
    struct started *s = start("weir --admin-token-file /nowhere a:b");
    assert_int_equal(conf_admin_token(&s->conf, "", token, &e), 0);
    assert_string_equal(token, "");
    end(s);
}

static void secrets_are_not_printed(void **state)
{
    (void)state;
    char *out = NULL;
    size_t n;
    struct started *s = start("weir --admin 127.0.0.1:1 --admin-token " LONG_ENOUGH
                              " --otlp-header api-key=s3cr3t a:b");
    assert_int_equal(s->rc, 0);
    FILE *f = open_memstream(&out, &n);
    conf_print(&s->conf, f);
    fclose(f);
    assert_text_in(out, "admin-token = (set)");
    assert_null(strstr(out, LONG_ENOUGH));
    assert_null(strstr(out, "s3cr3t"));
    free(out);
    end(s);
}

static void words_of_ready_unless_are_known(void **state)
{
    (void)state;
    accepts("weir --ready-unless booting,draining,saturated a:b");
    accepts("weir --ready-unless= a:b");
    accepts("weir --ready-unless=,saturated, a:b");
    refuses("weir --ready-unless tired a:b", "some of booting, draining, saturated");
    refuses("weir --ready-unless Booting a:b", "is not known");
}

static void host_names_have_no_port(void **state)
{
    (void)state;
    accepts("weir --admin-host weir.example.org --admin-host w a:b");
    refuses("weir --admin-host weir.example.org:5001 a:b", "without scheme and port");
    refuses("weir --admin-host http://weir a:b", "without scheme and port");
    refuses("weir --admin-host a/b a:b", "is not a host name");
}

static void a_collector_is_a_url_of_http(void **state)
{
    (void)state;
    accepts("weir --otlp-endpoint http://localhost:4318/v1/traces a:b");
    accepts("weir --otlp-endpoint https://collector.example a:b");
    refuses("weir --otlp-endpoint localhost:4318 a:b", "http://localhost:4318/v1/traces");
    refuses("weir --otlp-endpoint grpc://localhost:4317 a:b", "is not the URL");
    refuses("weir --otlp-endpoint http:// a:b", "is not the URL");
    refuses("weir --otlp-endpoint http:///v1 a:b", "is not the URL");
    accepts("weir --otlp-header Authorization=Bearer a:b");
    refuses("weir --otlp-header s3cr3t a:b", "item 1 is not NAME=VALUE");
    refuses("weir --otlp-header =x a:b", "NAME=VALUE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_taken_apart),
        cmocka_unit_test(loopback_needs_no_token),
        cmocka_unit_test(other_addresses_want_a_token),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(tokens_that_can_be_guessed_or_not_be_sent_are_refused),
        cmocka_unit_test(a_file_s_token_is_trimmed),
        cmocka_unit_test(a_file_without_a_token_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(without_a_listener_nothing_is_read),
        cmocka_unit_test(secrets_are_not_printed),
        cmocka_unit_test(words_of_ready_unless_are_known),
        cmocka_unit_test(host_names_have_no_port),
        cmocka_unit_test(a_collector_is_a_url_of_http),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
