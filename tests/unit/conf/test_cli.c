/* cli: Weir's own command line, its environment, and what it prints. */
#include "conf_helper.h"

static void defaults_are_those_of_the_documentation(void **state)
{
    (void)state;
    struct started *s = start("weir api.index:app");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->action, CONF_RUN);
    const struct conf *c = &s->conf;
    assert_string_equal(c->app, "api.index:app");
    assert_true(c->threads.is_auto && c->threads.min == 4 && c->threads.max == 256);
    assert_int_equal(c->keep_alive, 75000);
    assert_int_equal(c->header_timeout, 10000);
    assert_int_equal(c->body_timeout, 30000);
    assert_int_equal(c->send_timeout, 60000);
    assert_int_equal(c->max_head_size, 32768);
    assert_int_equal(c->max_fields, 100);
    assert_int_equal(c->max_body_size, 64 << 20);
    assert_int_equal(c->grace, 30000);
    assert_false(c->lax_host);
    assert_string_equal(c->ident, "weir");
    end(s);
}

static void options_stand_before_and_behind_the_application(void **state)
{
    (void)state;
    struct started *s = start("weir --threads 2:9 a:b --backlog=77 -b:80 --no-ipv6 -- ");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.min, 2);
    assert_int_equal(s->conf.backlog, 77);
    assert_string_equal(s->conf.binds[0].port, "80");
    assert_false(s->conf.ipv6);
    end(s);
}

static void underscores_are_dashes(void **state)
{
    (void)state;
    struct started *s = start("weir --max_body_size 1k a --no-log_socket_errors --no_ipv6");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.max_body_size, 1024);
    assert_false(s->conf.log_socket_errors || s->conf.ipv6);
    end(s);
}

static void dash_is_a_value(void **state)
{
    (void)state;
    struct started *s = start("weir a --access-log - --ident=");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.access_log, "-");
    assert_string_equal(s->conf.ident, "");
    end(s);
}

static void lists_are_repeated(void **state)
{
    (void)state;
    struct started *s = start("weir a --pythonpath x --pythonpath=y");
    assert_int_equal(s->conf.python_path.n, 2);
    assert_string_equal(s->conf.python_path.items[1], "y");
    end(s);
}

static void last_of_a_repeated_option_wins(void **state)
{
    (void)state;
    struct started *s = start("weir a -t 3 --threads=auto -t5");
    assert_int_equal(s->conf.threads.max, 5);
    assert_false(s->conf.threads.is_auto);
    end(s);
}

static void unknown_options_name_the_nearest(void **state)
{
    (void)state;
    refuses("weir --thredas 4 a", "weir: --thredas: unknown option; did you mean --threads?\n");
    refuses("weir --thread 4 a", "did you mean --threads?");
    refuses("weir --body-size=4 a", "did you mean --max-body-size?");
    refuses("weir --no-ipv5 a", "did you mean --no-ipv");
    refuses("weir --verson", "did you mean --version?");
    refuses("weir --zzzzzz a", "weir --help-all lists them");
    refuses("weir -x a", "-x: unknown option");
    refuses("weir -help", "did you mean --help?");
    refuses("weir --no-threads a", "unknown option");
    refuses("weir --=3 a", "unknown option");
}

static void values_are_demanded_and_refused(void **state)
{
    (void)state;
    refuses("weir a --threads", "--threads needs a value");
    refuses("weir a --bind --threads 4", "--bind needs a value");
    refuses("weir a -t", "-t needs a value");
    refuses("weir a --help=x", "--help takes no value");
    refuses("weir a --no-ipv6=x", "--no-ipv6 takes no value");
    refuses("weir a --threads x",
            "weir: --threads: 'x' is not a number; give N, MIN:MAX or auto\n");
    refuses("weir a --log-level loud", "give one of debug|info|warning|error|critical");
}

static void strange_bytes_stay_on_one_line(void **state)
{
    (void)state;
    refuses("weir --a\nb\033[2Jc", "--a?b?[2Jc: unknown option");
    refuses("weir a\nb:c", "'a?b:c' does not name an application");
}

static void application_must_be_one_and_well_formed(void **state)
{
    (void)state;
    refuses("weir", "no application given; write weir MODULE:ATTRIBUTE");
    refuses("weir --threads 4", "no application given");
    refuses("weir a:b c:d", "two applications given, 'a:b' and 'c:d'");
    refuses("weir --app a:b c:d", "two applications given");
    refuses("weir api/index.py", "name the module and the application in it, as api.index:app");
    refuses("weir ./app.py", "as app:app");
    refuses("weir a:make()", "write --factory a:make");
    refuses("weir a:", "'a:' does not name an application");
    refuses("weir :a", "does not name an application");
    refuses("weir a..b:c", "does not name an application");
    refuses("weir 1a:b", "does not name an application");
    refuses("weir -- -a", "does not name an application");
    refuses("weir -", "does not name an application");
}

static void environment_sets_and_the_option_wins(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "WEIR_THREADS=3",
                         (char *)(uintptr_t) "WEIR_BIND=:1, unix:/x",
                         (char *)(uintptr_t) "WEIR_MAX_BODY_SIZE=1M",
                         (char *)(uintptr_t) "WEIR_APP=m:a",
                         (char *)(uintptr_t) "WEIR_BACKLOG=",
                         (char *)(uintptr_t) "WEIR_IDENT=",
                         NULL};
    struct started *s = start_in(CONF_WEIR, "weir --max-body-size 2M", env);
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.max, 3);
    assert_int_equal(s->conf.n_binds, 2);
    assert_string_equal(s->conf.binds[1].path, "/x");
    assert_int_equal(s->conf.max_body_size, 2 << 20);
    assert_string_equal(s->conf.app, "m:a");
    assert_int_equal(s->conf.backlog, 2048);
    assert_string_equal(s->conf.ident, "");
    end(s);
    /* A list of the command line replaces that of the environment. */
    s = start_in(CONF_WEIR, "weir other:app -b :2", env);
    assert_int_equal(s->conf.n_binds, 1);
    assert_string_equal(s->conf.app, "other:app");
    end(s);
}

static void wrong_variable_is_named(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "WEIR_THREADS=many", NULL};
    refuses_in(CONF_WEIR, "weir a", env, 2, "WEIR_THREADS: 'many' is not a number");
}

static void misspelt_variable_is_said_and_strangers_are_not(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "WEIR_THREDS=4",
                         (char *)(uintptr_t) "WEIR_PORT=tcp://10.0.0.1:80",
                         (char *)(uintptr_t) "WEIR_PORT_80_TCP=tcp://10.0.0.1:80",
                         (char *)(uintptr_t) "WEIR_SERVICE_HOST=10.0.0.1",
                         (char *)(uintptr_t) "WEIR_PYTHON=/usr/bin/python3",
                         (char *)(uintptr_t) "weir_threads=4",
                         NULL};
    struct started *s = start_in(CONF_WEIR, "weir a", env);
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->said, "weir: WEIR_THREDS in the environment is no setting and has no "
                                 "effect; did you mean WEIR_THREADS?\n");
    assert_string_equal(s->conf.binds[0].text, "127.0.0.1:8000");
    end(s);
}

static void help_fits_a_screen_and_names_options_that_exist(void **state)
{
    (void)state;
    struct started *s = start("weir --threads 4 --help nonsense nonsense");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->action, CONF_EXIT);
    assert_int_equal(s->status, 0);
    int lines = 0;
    for (char *line = strtok(s->out, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        assert_true(strlen(line) <= 80);
        for (char *option = strstr(line, "--"); option; option = strstr(option + 2, "--")) {
            char name[64] = "";
            size_t n = strspn(option + 2, "abcdefghijklmnopqrstuvwxyz-");
            assert_true(n < sizeof name);
            memcpy(name, option + 2, n);
            if (!conf_row_find(name) && strcmp(name, "help") && strcmp(name, "help-all") &&
                strcmp(name, "version") && strcmp(name, "check-config") &&
                strcmp(name, "print-config"))
                fail_msg("--help names --%s", name);
        }
    }
    assert_in_range(lines, 10, 24);
    end(s);
}

static void long_help_names_every_setting(void **state)
{
    (void)state;
    struct started *s = start("weir --help-all");
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        char option[80];
        snprintf(option, sizeof option, "--%s%s", conf_rows[i].kind == KIND_BOOL ? "[no-]" : "",
                 conf_rows[i].name);
        assert_text_in(s->out, option);
    }
    assert_text_in(s->out, "WEIR_MAX_BODY_SIZE");
    end(s);
}

static void version_check_and_print_are_actions(void **state)
{
    (void)state;
    struct started *s = start("weir -V");
    assert_int_equal(s->action, CONF_EXIT);
    assert_text_in(s->out, "weir 0.");
    end(s);
    s = start("weir a --check-config");
    assert_int_equal(s->action, CONF_CHECK);
    end(s);
    s = start("weir --print-config");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->action, CONF_PRINT);
    end(s);
    refuses("weir --check-config", "no application given");
}

static void printed_configuration_names_each_source(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "WEIR_BACKLOG=5", (char *)(uintptr_t) "PORT=81", NULL};
    struct started *s = start_in(CONF_WEIR, "weir a -t 3:9 --print-config", env);
    char text[16384] = "";
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    conf_print(&s->conf, out);
    fclose(out);
    assert_text_in(text, "threads = 3:9                           # -t\n");
    assert_text_in(text, "backlog = 5                             # WEIR_BACKLOG\n");
    assert_text_in(text, "bind = 0.0.0.0:81                       # PORT\n");
    assert_text_in(text, "grace = 30s                             # default\n");
    end(s);
}

static void relations_are_checked(void **state)
{
    (void)state;
    refuses("weir a --trusted-proxy-count 2",
            "--trusted-proxy-count has no meaning without trusted-proxy");
    refuses("weir a --trusted-proxy-headers forwarded", "has no meaning without trusted-proxy");
    refuses("weir a --trusted-proxy * --trusted-proxy-headers x-fowarded-for",
            "'x-fowarded-for' is no forwarding header");
    refuses("weir a --trusted-proxy * --trusted-proxy-headers forwarded,x-forwarded-for",
            "exclude each other");
    refuses("weir a --url-prefix /a?b", "is not a path");
    refuses("weir a --internal-path x", "must begin and end with a slash");
    refuses("weir a --url-scheme=", "the value is empty");
    refuses("weir a --ident=a\nb", "control character");
    refuses("weir a --chdir /nonexistent", "--chdir: '/nonexistent': No such file or directory");
    refuses("weir a --chdir /dev/null", "is not a folder");
}

static void prefix_and_proxy_headers_are_completed(void **state)
{
    (void)state;
    struct started *s = start("weir a --url-prefix api// --trusted-proxy 10.0.0.0/8");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.url_prefix, "/api");
    assert_string_equal(s->conf.trusted_proxy_headers, "x-forwarded-for x-forwarded-proto");
    end(s);
    s = start("weir a --url-prefix /");
    assert_string_equal(s->conf.url_prefix, "");
    end(s);
}

/* docs/reference is what the tables say. */
static void compare_reference(const char *which, const char *file)
{
    char path[512], words[64], *text = NULL;
    snprintf(words, sizeof words, "weir --dump-reference %s", which);
    snprintf(path, sizeof path, "%s/docs/reference/%s", WEIR_SOURCE_ROOT, file);
    struct started *s = start(words);
    FILE *f = fopen(path, "r");
    size_t n = 0;
    if (!f || getdelim(&text, &n, 0, f) < 0 || strcmp(text, s->out) != 0)
        fail_msg("docs/reference/%s is out of date; run: build/%s > docs/reference/%s", file, words,
                 file);
    fclose(f);
    free(text);
    end(s);
}

static void references_are_up_to_date(void **state)
{
    (void)state;
    compare_reference("settings", "settings.md");
    compare_reference("waitress", "waitress-options.md");
    refuses("weir --dump-reference x", "give settings, waitress, gunicorn, policy, metrics, man, bash, zsh or fish");
}

static void set_by_name_serves_callers(void **state)
{
    (void)state;
    struct conf c;
    struct err e;
    assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
    assert_int_equal(conf_set(&c, "max_body_size", "5k", NULL, &e), 0);
    assert_int_equal(c.max_body_size, 5120);
    assert_int_equal(conf_set(&c, "thread", "5", NULL, &e), -1);
    assert_string_equal(e.text, "thread: unknown setting; did you mean 'threads'?");
    assert_int_equal(conf_set(&c, "threads", "-", "WEIR.threads", &e), -1);
    assert_text_in(e.text, "WEIR.threads: '-' is not a number");
    assert_int_equal(conf_set(&c, "port", "81", NULL, &e), 0);
    assert_int_equal(conf_finish(&c, &e), 0);
    assert_string_equal(c.binds[0].text, "127.0.0.1:81");
    conf_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_documentation),
        cmocka_unit_test(options_stand_before_and_behind_the_application),
        cmocka_unit_test(underscores_are_dashes),
        cmocka_unit_test(dash_is_a_value),
        cmocka_unit_test(lists_are_repeated),
        cmocka_unit_test(last_of_a_repeated_option_wins),
        cmocka_unit_test(unknown_options_name_the_nearest),
        cmocka_unit_test(values_are_demanded_and_refused),
        cmocka_unit_test(strange_bytes_stay_on_one_line),
        cmocka_unit_test(application_must_be_one_and_well_formed),
        cmocka_unit_test(environment_sets_and_the_option_wins),
        cmocka_unit_test(wrong_variable_is_named),
        cmocka_unit_test(misspelt_variable_is_said_and_strangers_are_not),
        cmocka_unit_test(help_fits_a_screen_and_names_options_that_exist),
        cmocka_unit_test(long_help_names_every_setting),
        cmocka_unit_test(version_check_and_print_are_actions),
        cmocka_unit_test(printed_configuration_names_each_source),
        cmocka_unit_test(relations_are_checked),
        cmocka_unit_test(prefix_and_proxy_headers_are_completed),
        cmocka_unit_test(references_are_up_to_date),
        cmocka_unit_test(set_by_name_serves_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
