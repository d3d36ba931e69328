/* gunicorn: Gunicorn's settings mean here what they mean there, and are read as argparse reads
 * them. */
#include "conf_helper.h"

static struct conf c;
static struct err e;
static enum conf_action action;
static int status;
static char printed[32768];

static int drop(void **state)
{
    (void)state;
    conf_fini(&c);
    return 0;
}

/* Read words separated by blanks, and an environment of such words. */
static int load_with(const char *environment, const char *line)
{
    static char words[2][2048];
    char *argv[128] = {(char *)(size_t) "weir gunicorn"}, *env[64] = {NULL};
    int argc = 1, envc = 0;
    snprintf(words[0], sizeof words[0], "%s", line);
    snprintf(words[1], sizeof words[1], "%s", environment);
    char *save = NULL;
    for (char *w = strtok_r(words[0], " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    for (char *w = strtok_r(words[1], "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        env[envc++] = w;
    if (c.priv)
        conf_fini(&c);
    e.text[0] = 0;
    assert_int_equal(conf_init(&c, CONF_GUNICORN, &e), 0);
    FILE *out = fmemopen(printed, sizeof printed, "w");
    assert_non_null(out);
    int rc = conf_load(&c, argc, argv, env, out, &action, &status, &e);
    fclose(out);
    return rc;
}

/* A command line that is fine, complete. */
static void given(const char *environment, const char *line)
{
    if (load_with(environment, line) || conf_finish(&c, &e))
        fail_msg("%s: %s", line, e.text);
}

static void refused(const char *line, int code, const char *message)
{
    int rc = load_with("", line);
    if (rc == 0) {
        rc = conf_finish(&c, &e);
        status = 1;
    }
    if (rc == 0)
        fail_msg("%s was accepted", line);
    assert_string_equal(e.text, message);
    assert_int_equal(status, code);
}

static void set_in_file(const char *name, const char *value)
{
    char source[80];
    snprintf(source, sizeof source, "gunicorn.conf.py: %s", name);
    if (conf_gunicorn_set(&c, name, &value, 1, source, &e))
        fail_msg("%s", e.text);
}

static const char *notes(void)
{
    FILE *out = fmemopen(printed, sizeof printed, "w");
    assert_non_null(out);
    conf_notes(&c, out);
    fclose(out);
    return printed;
}

/* ---- what it means ---- */

static void defaults_are_gunicorns_own(void **state)
{
    (void)state;
    given("", "app:app");
    assert_string_equal(c.binds[0].text, "127.0.0.1:8000");
    assert_int_equal(c.n_binds, 1);
    assert_int_equal(c.workers, 1);
    assert_int_equal(c.threads.max, 1);
    assert_int_equal(c.backlog, 2048);
    assert_int_equal(c.keep_alive, 2000);
    assert_int_equal(c.grace, 30000);
    assert_int_equal(c.run_timeout, 30000);
    assert_int_equal(c.worker_timeout, 35000);
    assert_int_equal(c.max_line_size, 4094);
    assert_int_equal(c.max_fields, 100);
    assert_int_equal(c.max_field_size, 8188);
    assert_int_equal(c.max_head_size, 4094 + 100 * 8192 + 4);
    assert_int_equal(c.unix_socket_perms, 0777);
    assert_int_equal(c.connections, 0);
    assert_string_equal(c.ident, "gunicorn");
    assert_string_equal(c.access_log, "");
    assert_string_equal(c.error_log, "-");
    assert_string_equal(c.proxy_protocol_from, "127.0.0.1,::1,unix");
    assert_string_equal(c.trusted_proxy, "127.0.0.1,::1,unix");
    assert_string_equal(c.trusted_proxy_headers, "none");
    assert_string_equal(c.forwarder_headers, "SCRIPT_NAME,PATH_INFO");
    assert_int_equal(c.secure_scheme_headers.n, 3);
    assert_string_equal(c.secure_scheme_headers.items[2], "X-FORWARDED-SSL=on");
    assert_string_equal(c.manners, "gunicorn");
    assert_true(c.proxy_protocol_optional && c.url_prefix_required);
    assert_false(c.clear_untrusted_proxy_headers || c.permit_unconventional_method);
    assert_true(c.lax_host && c.sendfile);
    assert_string_equal(notes(), "");
}

static void settings_are_carried_over(void **state)
{
    (void)state;
    given("", "-b 127.0.0.1:1 -b unix://tmp/s -b tcp://[::1]:2 --backlog 7 -w 4 --threads 8 "
              "--worker-connections 50 --max-requests 300 --max-requests-jitter 30 "
              "--graceful-timeout 5 --keep-alive 9 --limit-request-line 0 "
              "--limit-request-fields 40000 --limit-request-field_size 100 --preload --no-sendfile "
              "--chdir / -D -e A=1 -e B=2 -p /tmp/pid -u nobody -g 5 -m 027 --pythonpath /a,/b "
              "--access-logfile - --error-logfile /tmp/e --log-level WARN -n name --certfile c "
              "--keyfile k --ca-certs ca --cert-reqs 2 --ciphers X --reload --reload-extra-file f "
              "--initgroups --proxy-protocol --proxy-allow-from 10.0.0.1 app:app");
    assert_int_equal(c.n_binds, 3);
    assert_string_equal(c.binds[1].path, "tmp/s");
    assert_string_equal(c.binds[2].host, "::1");
    assert_int_equal(c.backlog, 7);
    assert_int_equal(c.workers, 4);
    assert_int_equal(c.threads.max, 8);
    assert_int_equal(c.connections, 50);
    assert_int_equal(c.max_requests, 300);
    assert_int_equal(c.max_requests_jitter, 30);
    assert_int_equal(c.grace, 5000);
    assert_int_equal(c.keep_alive, 9000);
    assert_int_equal(c.max_line_size, 0);
    assert_int_equal(c.max_fields, 32768);
    assert_int_equal(c.max_field_size, 98);
    assert_int_equal(c.max_head_size, 16 * 1024 * 1024);
    assert_true(c.daemon && c.reload && c.initgroups);
    assert_false(c.preload); /* not with reload */
    assert_false(c.sendfile);
    assert_string_equal(c.chdir, "/");
    assert_int_equal(c.env.n, 2);
    assert_int_equal(conf_env_added(&c).n, 2);
    assert_string_equal(conf_env_added(&c).items[1].name, "B");
    assert_string_equal(c.pid_file, "/tmp/pid");
    assert_string_equal(c.user, "nobody");
    assert_string_equal(c.group, "5");
    assert_int_equal(c.unix_socket_perms, 0750);
    assert_int_equal(c.python_path.n, 2);
    assert_string_equal(c.python_path.items[1], "/b");
    assert_string_equal(c.access_log, "-");
    assert_string_equal(c.error_log, "/tmp/e");
    assert_string_equal(c.log_level, "warning");
    assert_string_equal(c.proc_name, "name");
    assert_string_equal(c.certfile, "c");
    assert_string_equal(c.keyfile, "k");
    assert_string_equal(c.ca_certs, "ca");
    assert_string_equal(c.cert_reqs, "required");
    assert_string_equal(c.ciphers, "X");
    assert_string_equal(c.reload_extra.items[0], "f");
    assert_string_equal(c.proxy_protocol, "auto");
    assert_string_equal(c.proxy_protocol_from, "10.0.0.1,unix");
    assert_string_equal(c.app, "app:app");
}

static void the_timeout_is_of_a_request_or_of_the_loop(void **state)
{
    (void)state;
    given("", "-t 7 a");
    assert_int_equal(c.run_timeout, 7000);
    assert_int_equal(c.worker_timeout, 12000);
    given("", "-t 7 --threads 4 a");
    assert_int_equal(c.run_timeout, 0);
    assert_int_equal(c.worker_timeout, 7000);
    given("", "-t 0 a");
    assert_int_equal(c.run_timeout, 0);
    assert_int_equal(c.worker_timeout, 0);
}

static void worker_classes_are_threads(void **state)
{
    (void)state;
    given("", "-k gthread --threads 6 a");
    assert_int_equal(c.threads.max, 6);
    assert_string_equal(notes(), "");
    given("", "-k gevent a");
    assert_int_equal(c.threads.min, 4);
    assert_int_equal(c.threads.max, 1000);
    assert_int_equal(c.run_timeout, 0);
    assert_non_null(strstr(notes(), "weir: -k: 'gevent' runs on Weir's threads"));
    given("", "-k gunicorn.workers.ggevent.GeventWorker --worker-connections 20 a");
    assert_int_equal(c.threads.max, 20);
    assert_int_equal(c.connections, 20);
    given("", "-k eventlet --threads 3 a");
    assert_int_equal(c.threads.max, 3);
    given("", "-k tornado a");
    assert_int_equal(c.threads.max, 1);
    assert_non_null(strstr(notes(), "'tornado' is not used"));
    refused("-k uvicorn.workers.UvicornWorker a", 1,
            "-k: 'uvicorn.workers.UvicornWorker' runs ASGI applications; Weir serves WSGI "
            "applications, so use a server for ASGI, or leave the worker class out if yours is "
            "WSGI");
}

static void what_has_no_effect_is_told(void **state)
{
    (void)state;
    given("", "--worker-tmp-dir /dev/shm --http-protocols h1 --dirty-workers=2 --no-control-socket "
              "--suppress-ragged-eofs --log-level chatty a");
    assert_string_equal(notes(),
                        "weir: --log-level: 'chatty' is unknown, so info is in force; give one of "
                        "debug|info|warning|error|critical\n"
                        "weir: --dirty-workers has no effect: there are no dirty workers\n"
                        "weir: --worker-tmp-dir has no effect: workers tell that they live through "
                        "shared memory, not through a file\n");
}

static void refusals_name_the_cure(void **state)
{
    (void)state;
    refused("--protocol uwsgi a", 1,
            "--protocol: Weir does not speak uwsgi; use proxy_pass instead of uwsgi_pass in nginx, "
            "and protocol http");
    refused("-w 4", 1,
            "No application module specified; write weir gunicorn MODULE:APP, or wsgi_app in the "
            "configuration file");
    refused("-w -1 a", 1, "-w: -1 is too small; the range is 0 to 1024");
    refused("-w many a", 2, "-w: 'many' is not a number; give N or auto");
    refused("-w 4x a", 2, "-w: '4x' is not a number; give N or auto");
    refused("-m rw a", 2, "-m: 'rw' is no number; give a mode, as 0o22 or 18");
    refused("--threads=x a", 2, "--threads: 'x' is not a number; give N, MIN:MAX or auto");
    refused("-m 9999 a", 1, "-m: 9999 is too large; umask is at most 0o777");
    refused("--reload-engine fast a", 1,
            "--reload-engine: 'fast' is unknown; give one of auto|poll|inotify");
    refused("--header-map=x a", 1,
            "--header-map: 'x' is unknown; give one of drop|refuse|dangerous");
    refused("--proxy-protocol app:app", 1,
            "--proxy-protocol: 'app:app' is unknown; give one of off|v1|v2|auto, as "
            "--proxy-protocol=auto");
    refused("-e A a", 1, "-e: 'A' is not NAME=VALUE");
    refused("--chdir /none a", 1, "--chdir: '/none': No such file or directory");
}

/* ---- argparse's manners ---- */

static void values_are_given_in_every_form(void **state)
{
    (void)state;
    given("", "-w4 -b=127.0.0.1:9 a");
    assert_int_equal(c.workers, 4);
    assert_string_equal(c.binds[0].port, "9");
    given("", "a --workers=5 --bind 127.0.0.1:9");
    assert_int_equal(c.workers, 5);
    given("", "-DRw3 a");
    assert_int_equal(c.workers, 3);
    assert_true(c.daemon);
    given("", "--preload -- a");
    assert_string_equal(c.app, "a");
    given("", "--access-logfile - a:b");
    assert_string_equal(c.access_log, "-");
    given("", "--proxy-protocol -w 2 a");
    assert_string_equal(c.proxy_protocol, "auto");
}

static void unique_beginnings_are_enough(void **state)
{
    (void)state;
    given("", "--threa 2 --pre a");
    assert_true(c.preload);
    given("", "--paste x");
    refused("--worker=3 a", 2,
            "ambiguous option: --worker could match --worker-tmp-dir, --workers, --worker-class, "
            "--worker-connections");
    refused("--wrkers=3 a", 2, "unrecognized arguments: --wrkers=3; did you mean --workers?");
    refused("-Z a", 2, "unrecognized arguments: -Z");
    refused("a -w 3 b", 2, "unrecognized arguments: b");
    refused("a -w", 2, "argument -w/--workers: expected one argument");
    refused("a -b --preload", 2, "argument -b/--bind: expected one argument");
    refused("-w -1 --bogus a", 2, "unrecognized arguments: --bogus");
    refused("-w -1 --header-map=x a", 1, "-w: -1 is too small; the range is 0 to 1024");
    refused("--preload=yes a", 2, "argument --preload: ignored explicit argument 'yes'");
}

static void settings_of_weir_work_by_their_full_name(void **state)
{
    (void)state;
    given("", "--threads auto --max-body-size 5M --no-disconnect-detection --access-log x a");
    assert_true(c.threads.is_auto);
    assert_int_equal(c.max_body_size, 5 * 1024 * 1024);
    assert_false(c.disconnect_detection);
    assert_string_equal(c.access_log, "x");
    given("WEIR_THREADS=3:6\nWEIR_MAX_BODY_SIZE=1k", "a");
    assert_int_equal(c.threads.max, 6);
    assert_int_equal(c.run_timeout, 0);
    assert_int_equal(c.max_body_size, 1024);
    given("WEIR_THREADS=3:6", "--threads 2 a");
    assert_int_equal(c.threads.max, 2);
}

static void help_and_version_answer_at_once(void **state)
{
    (void)state;
    assert_int_equal(load_with("", "--nonsense -h"), -1);
    assert_int_equal(load_with("", "-h --nonsense"), 0);
    assert_int_equal(action, CONF_EXIT);
    assert_int_equal(strncmp(printed, "usage: weir gunicorn [OPTIONS] [APP_MODULE]\n", 44), 0);
    assert_int_equal(load_with("", "--version"), 0);
    assert_int_equal(action, CONF_EXIT);
    assert_non_null(strstr(printed, "weir gunicorn (version "));
}

/* ---- sources ---- */

static void stronger_sources_win(void **state)
{
    (void)state;
    assert_int_equal(load_with("GUNICORN_CMD_ARGS=--bind 127.0.0.1:2 -w 2 --threads 9", "-w 3 a"),
                     0);
    set_in_file("workers", "5");
    set_in_file("bind", "127.0.0.1:5");
    set_in_file("threads", "5");
    set_in_file("backlog", "5");
    set_in_file("wsgi_app", "other:app");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_int_equal(c.workers, 3);
    assert_int_equal(c.n_binds, 1);
    assert_string_equal(c.binds[0].port, "2");
    assert_int_equal(c.threads.max, 9);
    assert_int_equal(c.backlog, 5);
    assert_string_equal(c.app, "a");
    assert_int_equal(load_with("", "-w 2"), 0);
    set_in_file("wsgi_app", "other:app");
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_string_equal(c.app, "other:app");
}

static void a_wrong_value_in_the_file_is_an_error_even_where_it_does_not_count(void **state)
{
    (void)state;
    const char *value = "x";
    assert_int_equal(load_with("", "-w 3 a"), 0);
    assert_int_equal(conf_gunicorn_set(&c, "workers", &value, 1, "f.py: workers", &e), -1);
    assert_string_equal(e.text, "f.py: workers: 'x' is not a number; give N or auto");
}

static void words_of_the_environment_are_cut_as_a_shell_does(void **state)
{
    (void)state;
    given("GUNICORN_CMD_ARGS=--access-logformat '%(h)s \"x\"' -n \"a \\\" b\\c\" -e A\\ B=1 stray",
          "a");
    assert_string_equal(c.access_log_format, "%(h)s \"x\"");
    assert_string_equal(c.proc_name, "a \" b\\c");
    assert_string_equal(c.env.items[0], "A B=1");
    assert_string_equal(c.app, "a");
    assert_int_equal(load_with("GUNICORN_CMD_ARGS=-n 'open", "a"), -1);
    assert_string_equal(e.text, "GUNICORN_CMD_ARGS: a quotation or backslash has no end");
    assert_int_equal(status, 1);
    assert_int_equal(load_with("GUNICORN_CMD_ARGS=--nonsense", "a"), -1);
    assert_string_equal(e.text, "GUNICORN_CMD_ARGS: unrecognized arguments: --nonsense");
    assert_int_equal(status, 2);
    assert_int_equal(load_with("GUNICORN_CMD_ARGS=--check-config", "a"), 0);
    assert_int_equal(action, CONF_CHECK);
}

static void the_environment_gives_defaults(void **state)
{
    (void)state;
    given("PORT=5000\nWEB_CONCURRENCY=3\nSCRIPT_NAME=/x\nSENDFILE=no", "a");
    assert_string_equal(c.binds[0].text, "0.0.0.0:5000");
    assert_int_equal(c.workers, 3);
    assert_string_equal(c.url_prefix, "/x");
    assert_false(c.sendfile);
    given("FORWARDED_ALLOW_IPS=10.0.0.0/8", "a");
    assert_string_equal(c.trusted_proxy, "10.0.0.0/8,unix");
    given("FORWARDED_ALLOW_IPS=10.0.0.0/8", "--forwarded-allow-ips=* a");
    assert_string_equal(c.trusted_proxy, "*");
    given("PORT=5000\nWEB_CONCURRENCY=3", "-w 2 -b 127.0.0.1:1 -e SCRIPT_NAME=/y a");
    assert_string_equal(c.binds[0].text, "127.0.0.1:1");
    assert_int_equal(c.workers, 2);
    assert_string_equal(c.url_prefix, "/y");
}

static void every_setting_can_be_asked_for(void **state)
{
    (void)state;
    struct conf_gunicorn_setting s;
    unsigned n = 0, given_ones = 0;
    given("", "-w 2 --bind 127.0.0.1:1 --bind 127.0.0.1:2 a");
    for (; conf_gunicorn_get(&c, n, &s); n++)
        if (s.source) {
            given_ones++;
            assert_int_equal(s.n, strcmp(s.name, "bind") == 0 ? 2 : 1);
        }
    assert_int_equal(n, 119);
    assert_int_equal(given_ones, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(defaults_are_gunicorns_own, drop),
        cmocka_unit_test_teardown(settings_are_carried_over, drop),
        cmocka_unit_test_teardown(the_timeout_is_of_a_request_or_of_the_loop, drop),
        cmocka_unit_test_teardown(worker_classes_are_threads, drop),
        cmocka_unit_test_teardown(what_has_no_effect_is_told, drop),
        cmocka_unit_test_teardown(refusals_name_the_cure, drop),
        cmocka_unit_test_teardown(values_are_given_in_every_form, drop),
        cmocka_unit_test_teardown(unique_beginnings_are_enough, drop),
        cmocka_unit_test_teardown(settings_of_weir_work_by_their_full_name, drop),
        cmocka_unit_test_teardown(help_and_version_answer_at_once, drop),
        cmocka_unit_test_teardown(stronger_sources_win, drop),
        cmocka_unit_test_teardown(
            a_wrong_value_in_the_file_is_an_error_even_where_it_does_not_count, drop),
        cmocka_unit_test_teardown(words_of_the_environment_are_cut_as_a_shell_does, drop),
        cmocka_unit_test_teardown(the_environment_gives_defaults, drop),
        cmocka_unit_test_teardown(every_setting_can_be_asked_for, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
