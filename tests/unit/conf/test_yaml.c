/* yaml: a file of settings, and how a start finds and uses it. */
#include "conf_helper.h"

#include <sys/stat.h>
#include <unistd.h>

#include "conf/yaml.h"

static struct conf conf;

static int begin(void **state)
{
    (void)state;
    struct err e = {{0}};
    return conf_init(&conf, CONF_WEIR, &e);
}

static int drop(void **state)
{
    (void)state;
    conf_fini(&conf);
    return 0;
}

static void reads(const char *text)
{
    struct err e = {{0}};
    if (conf_yaml_parse(&conf, "weir.yaml", text, strlen(text), &e))
        fail_msg("%s", e.text);
}

static void refuses_bytes(const char *text, size_t n, const char *message)
{
    struct conf c;
    struct err e = {{0}};
    assert_int_equal(conf_init(&c, CONF_WEIR, &e), 0);
    assert_int_equal(conf_yaml_parse(&c, "weir.yaml", text, n, &e), -1);
    assert_string_equal(e.text, message);
    conf_fini(&c);
}

static void refuses_text(const char *text, const char *message)
{
    refuses_bytes(text, strlen(text), message);
}

/* ---- values ---- */

static void every_kind_of_value_is_read(void **state)
{
    (void)state;
    reads("preload: yes\nmax_requests: 1000\nmax-body-size: 10M\nkeep-alive: 2.5\n"
          "unix-socket-perms: 0660\nident: \"a: b\"\nthreads: 4:64\nproxy-protocol: off\nworkers: "
          "3\n");
    assert_true(conf.preload);
    assert_int_equal(conf.max_requests, 1000);
    assert_int_equal(conf.max_body_size, 10 << 20);
    assert_int_equal(conf.keep_alive, 2500);
    assert_int_equal(conf.unix_socket_perms, 0660);
    assert_string_equal(conf.ident, "a: b");
    assert_int_equal(conf.threads.min, 4);
    assert_int_equal(conf.threads.max, 64);
    assert_string_equal(conf.proxy_protocol, "off");
    assert_int_equal(conf.workers, 3);
}

static void text_stays_as_it_is_written(void **state)
{
    (void)state;
    reads("umask: 022\nserver-name: 1.10\nident: |\n  a b\nuser: '007'\naccess-log-format: >-\n  "
          "%(h)s\n  %(r)s\n");
    assert_string_equal(conf.umask, "022");
    assert_string_equal(conf.server_name, "1.10");
    assert_string_equal(conf.ident, "a b");
    assert_string_equal(conf.user, "007");
    assert_string_equal(conf.access_log_format, "%(h)s %(r)s");
}

static void list_is_a_list_or_one_item(void **state)
{
    (void)state;
    reads("bind: [':1', \"unix:/x\"]\npythonpath: lib\nenv-file:\n- a\n- b,c\nreload-extra: []\n");
    assert_int_equal(conf.bind.n, 2);
    assert_string_equal(conf.bind.items[1], "unix:/x");
    assert_int_equal(conf.python_path.n, 1);
    assert_int_equal(conf.env_file.n, 2);
    assert_string_equal(conf.env_file.items[1], "b,c");
    assert_int_equal(conf.reload_extra.n, 0);
}

static void pairs_may_be_a_mapping(void **state)
{
    (void)state;
    reads("static:\n  /assets: public\n  /docs: site/docs\nenv:\n  A: 1\n  B:\n  C: 'yes'\n");
    assert_int_equal(conf.static_files.n, 2);
    assert_string_equal(conf.static_files.items[0], "/assets=public");
    assert_string_equal(conf.env.items[0], "A=1");
    assert_string_equal(conf.env.items[1], "B=");
    assert_string_equal(conf.env.items[2], "C=yes");
}

static void null_is_not_given(void **state)
{
    (void)state;
    reads("threads:\nident: ~\nbind: null\nkeep-alive: NULL\ntls:\n");
    assert_true(conf.threads.is_auto);
    assert_string_equal(conf.ident, "weir");
    assert_int_equal(conf_mark(&conf, CONF_ROW_bind)->level, LEVEL_DEFAULT);
    assert_int_equal(conf.keep_alive, 75000);
    assert_int_equal(conf.n_tls_hosts, 0);
}

static void empty_file_says_nothing(void **state)
{
    (void)state;
    reads("");
    reads("# only a comment\n\n");
    reads("---\n...\n");
    reads("{}");
    reads("\xef\xbb\xbfthreads: 3\n");
    assert_int_equal(conf.threads.max, 3);
}

static void tls_names_have_certificates(void **state)
{
    (void)state;
    reads("tls:\n- names: [Example.org, '*.example.org']\n  certfile: a.pem\n  keyfile: a.key\n"
          "- names: other.example\n  certfile: b.pem\n");
    assert_int_equal(conf.n_tls_hosts, 2);
    assert_int_equal(conf.tls_hosts[0].names.n, 2);
    assert_string_equal(conf.tls_hosts[0].names.items[0], "example.org");
    assert_string_equal(conf.tls_hosts[0].keyfile, "a.key");
    assert_string_equal(conf.tls_hosts[1].names.items[0], "other.example");
    assert_string_equal(conf.tls_hosts[1].keyfile, "");
}

static void many_tls_entries_are_kept(void **state)
{
    (void)state;
    static char text[40000];
    size_t at = (size_t)snprintf(text, sizeof text, "tls:\n");
    for (int i = 0; i < 500; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "- names: n%d.example\n  certfile: %d.pem\n", i, i);
    reads(text);
    assert_int_equal(conf.n_tls_hosts, 500);
    assert_string_equal(conf.tls_hosts[257].certfile, "257.pem");
}

/* ---- what is refused ---- */

static void unknown_name_tells_place_and_nearest(void **state)
{
    (void)state;
    refuses_text("bind: ':1'\nthread: 4\n",
                 "weir.yaml:2:1: 'thread' is no setting; did you mean threads?");
    refuses_text("{tlss: 4}", "weir.yaml:1:2: 'tlss' is no setting; did you mean tls?");
    refuses_text("zzzzzzz: 4",
                 "weir.yaml:1:1: 'zzzzzzz' is no setting; weir --help-all lists them");
    refuses_text("port: 80", "weir.yaml:1: port is no setting of this file; write bind: HOST:PORT");
    refuses_text("config: x", "weir.yaml:1: config has no meaning in the file itself; take it out");
}

static void name_given_twice_is_refused(void **state)
{
    (void)state;
    refuses_text("max-fields: 3\n\nmax_fields: 3\n",
                 "weir.yaml:3: max-fields is given twice; the first is in line 1");
    refuses_text("tls: []\ntls: []\n", "weir.yaml:2: tls is given twice; the first is in line 1");
}

static void wrong_value_tells_place_and_cure(void **state)
{
    (void)state;
    refuses_text("\nthreads: x",
                 "weir.yaml:2: threads: 'x' is not a number; give N, MIN:MAX or auto");
    refuses_text("backlog: 0", "weir.yaml:1: backlog: 0 is too small; the range is 1 to 65535");
    refuses_text(
        "app: a.py",
        "weir.yaml:1: 'a.py' is a file; name the module and the application in it, as a:app");
    refuses_text("preload: maybe",
                 "weir.yaml:1: preload: 'maybe' is neither yes nor no; give yes or no");
}

static void wrong_shape_is_told(void **state)
{
    (void)state;
    refuses_text("threads: [1]", "weir.yaml:1: threads takes one value, not a list");
    refuses_text("ident: {a: b}", "weir.yaml:1: ident takes one value, not a mapping");
    refuses_text("bind: {a: b}", "weir.yaml:1: bind takes a list of texts, not a mapping");
    refuses_text("bind: [[a]]", "weir.yaml:1: bind: an item is a text, not a list");
    refuses_text("bind: [a: 1]",
                 "weir.yaml:1: bind: an item is a text, not a mapping; put it in quotes");
    refuses_text("bind:\n-\n", "weir.yaml:2: bind: the item is empty; take it out");
    refuses_text("static: {a: [b]}",
                 "weir.yaml:1: static: the value of 'a' is a text; put it in quotes");
    refuses_text("access-log: no",
                 "weir.yaml:1: access-log takes a text, not yes or no; leave it out, or put no in "
                 "quotes if that is the text");
    refuses_text("ident: \"a\\nb\"", "weir.yaml:1: ident holds a line break; write it in one line");
    refuses_text("ident: \"a\\0b\"", "weir.yaml:1: ident holds a control character");
    refuses_text("- threads", "weir.yaml:1: this is a list; write NAME: VALUE, without the dash");
    refuses_text(
        "threads:4",
        "weir.yaml:1: this is no setting; write NAME: VALUE, with a space behind the colon");
    refuses_text("{[a]: b}", "weir.yaml:1: the name of a setting is missing; write NAME: VALUE");
}

static void what_is_not_data_is_refused(void **state)
{
    (void)state;
    refuses_text("ident: &a x", "weir.yaml:1: &NAME marks a value for others, which is not "
                                "supported; take it out, or put a "
                                "text that begins with & in quotes");
    refuses_text("ident: *a", "weir.yaml:1: *NAME refers to another place, which is not supported; "
                              "write the value again, or "
                              "put a text that begins with * in quotes");
    refuses_text("trusted-proxy: *",
                 "weir.yaml:1: this is not YAML (did not find expected alphabetic or numeric "
                 "character); put a text that begins with * or & in quotes");
    refuses_text(
        "ident: !!str x",
        "weir.yaml:1: a tag (!...) has no meaning here; take it out, or put a text that begins "
        "with ! in quotes");
    refuses_text("ident: x\n---\nident: y\n",
                 "weir.yaml:2: a second document begins here; a file has one");
}

static void what_is_not_yaml_is_explained(void **state)
{
    (void)state;
    refuses_text("bind:\n\t- a\n", "weir.yaml:2: the line is indented with a tab; use spaces");
    refuses_text(
        "bind: [a,\nb",
        "weir.yaml:2: this is not YAML (did not find expected ',' or ']', begun in line 1); close "
        "the list with ]");
    refuses_text(
        "ident: a: b",
        "weir.yaml:1: this is not YAML (mapping values are not allowed in this context); put a "
        "value that contains ': ' in quotes, and look at the indentation");
    refuses_bytes("ident: x\nident: \xff", 17,
                  "weir.yaml:2: this is not UTF-8; save the file as UTF-8");
    refuses_bytes("\xff\xfe"
                  "a\0:\0",
                  6, "weir.yaml:1: this is not UTF-8; save the file as UTF-8");
    refuses_bytes("a\1: b", 5, "weir.yaml:1: a control character stands here; take it out");
    refuses_bytes("a\0: b", 5, "weir.yaml:1: a control character stands here; take it out");
}

static void tls_entries_are_checked(void **state)
{
    (void)state;
    refuses_text("tls: x", "weir.yaml:1: tls takes a list: entries of names, certfile and keyfile, "
                           "each behind a dash");
    refuses_text("tls: [x]", "weir.yaml:1: tls: an entry has names:, certfile: and keyfile:");
    refuses_text("tls:\n- name: x\n",
                 "weir.yaml:2: tls: 'name' is unknown; an entry has names, certfile and keyfile");
    refuses_text(
        "tls:\n- certfile: x\n",
        "weir.yaml:2: tls: the entry has no names; give the host names of its certificate");
    refuses_text("tls:\n- names: a.example\n", "weir.yaml:2: tls: the entry for a.example has no "
                                               "certfile; give the path of its certificate");
    refuses_text("tls:\n- names: a\n  names: b\n",
                 "weir.yaml:3: tls: names is given twice; the first is in line 2");
    refuses_text("tls:\n- {names: a, certfile: x}\n- {names: A, certfile: y}\n",
                 "weir.yaml:3: tls: 'a' is given twice; each name has one certificate");
    refuses_text("tls:\n- {names: a, certfile: [x]}\n",
                 "weir.yaml:2: tls: certfile takes the path of a file");
    static const char *const names[] = {"1.2.3.4",          "a..b",  ".a", "a.", "*", "*.", "a b",
                                        "\xc3\xa4.example", "a.*.b", "''"};
    for (size_t i = 0; i < countof(names); i++) {
        char text[64];
        struct err e = {{0}};
        snprintf(text, sizeof text, "tls: [{names: [\"%s\"], certfile: x}]", names[i]);
        assert_int_equal(conf_yaml_parse(&conf, "f", text, strlen(text), &e), -1);
        assert_text_in(e.text, "is no host name");
    }
}

static void size_depth_and_length_are_bounded(void **state)
{
    (void)state;
    size_t n = CONF_FILE_BYTES_MAX + 1;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, '#', n);
    refuses_bytes(text, n, "weir.yaml:1: larger than 1 MiB; this is no file of settings");
    memset(text, '[', n);
    memcpy(text, "bind: ", 6);
    refuses_bytes(text, n - 1, "weir.yaml:1: bind: an item is a text, not a list");
    memset(text, '[', n);
    refuses_bytes(text, n - 1, "weir.yaml:1: this is a list; write NAME: VALUE, without the dash");
    memset(text, '\n', n);
    memcpy(text, "bind:", 5);
    for (size_t i = 6; i + 8 < n; i += 8)
        memcpy(text + i, "- :8000\n", 8);
    struct err e = {{0}};
    assert_int_equal(conf_yaml_parse(&conf, "f", text, n - 1, &e), -1);
    assert_string_equal(e.text, "f:4098: bind: a list of more than 4096 items");
    free(text);
}

/* ---- a start ---- */

static char folder[] = "/tmp/weir-yaml-XXXXXX";
static char old_folder[1024];

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int enter(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    return getcwd(old_folder, sizeof old_folder) && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    unlink("weir.yaml");
    unlink("other.yaml");
    unlink("env");
    unlink("sub/weir.yaml");
    rmdir("sub");
    rmdir("weir.yaml");
    return chdir(old_folder) || rmdir(folder);
}

static void file_of_the_folder_is_found(void **state)
{
    (void)state;
    write_file("weir.yaml", "app: a:b\nthreads: 7\n");
    struct started *s = start("weir");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.app, "a:b");
    assert_int_equal(s->conf.threads.max, 7);
    assert_string_equal(s->conf.config, "weir.yaml");
    end(s);
    write_file("other.yaml", "threads: 8\n");
    s = start("weir -c other.yaml a:b");
    assert_int_equal(s->conf.threads.max, 8);
    end(s);
    s = start("weir --config= a:b");
    assert_true(s->conf.threads.is_auto);
    end(s);
}

static void file_is_looked_for_in_the_folder_of_chdir(void **state)
{
    (void)state;
    assert_int_equal(mkdir("sub", 0700), 0);
    write_file("weir.yaml", "threads: 7\n");
    write_file("sub/weir.yaml", "thread: 9\n");
    refuses("weir a:b --chdir sub", "sub/weir.yaml:1:1: 'thread' is no setting");
    write_file("sub/weir.yaml", "threads: 9\n");
    struct started *s = start("weir a:b --chdir sub");
    assert_int_equal(s->conf.threads.max, 9);
    end(s);
}

static void file_is_weaker_than_environment_and_options(void **state)
{
    (void)state;
    char *env[] = {(char *)(size_t) "WEIR_BACKLOG=5", NULL};
    write_file("weir.yaml",
               "threads: 7\nbacklog: 4\nmax-fields: 3\nenv-file: env\npythonpath: [a, b]\n");
    write_file("env", "WEIR_MAX_FIELDS=2\n");
    struct started *s = start_in(CONF_WEIR, "weir a:b --threads 6 --pythonpath c", env);
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.max, 6);
    assert_int_equal(s->conf.backlog, 5);
    assert_int_equal(s->conf.max_fields, 2);
    assert_int_equal(s->conf.python_path.n, 1);
    end(s);
}

static void any_address_given_otherwise_replaces_those_of_the_file(void **state)
{
    (void)state;
    char *env[] = {(char *)(size_t) "PORT=77", NULL};
    write_file("weir.yaml", "bind: [':1', ':2']\n");
    struct started *s = start("weir a:b");
    assert_int_equal(s->conf.n_binds, 2);
    end(s);
    s = start_in(CONF_WEIR, "weir a:b", env);
    assert_int_equal(s->conf.n_binds, 1);
    assert_string_equal(s->conf.binds[0].text, "0.0.0.0:77");
    end(s);
    s = start("weir a:b --port 5");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.binds[0].text, "127.0.0.1:5");
    end(s);
    s = start_waitress("w --listen=:6 a:b");
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->conf.binds[0].port, "6");
    end(s);
}

static void waitress_serve_reads_it_too(void **state)
{
    (void)state;
    write_file("weir.yaml", "app: a:b\nbind: ':1'\nthreads: 7\nident: x\n");
    struct started *s = start_waitress("w --ident=y");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.threads.max, 7);
    assert_string_equal(s->conf.ident, "y");
    assert_string_equal(s->conf.binds[0].port, "1");
    end(s);
    write_file("weir.yaml", "threads: 7\n");
    waitress_refuses("w", "Specify one application");
}

static void printed_settings_name_file_and_line(void **state)
{
    (void)state;
    char text[65536] = "";
    write_file("weir.yaml", "threads: 7\n\nbind: ':1'\n");
    struct started *s = start("weir --print-config a:b");
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    conf_print(&s->conf, out);
    fclose(out);
    assert_text_in(text, "threads = 4:7                           # weir.yaml:1\n");
    assert_text_in(text, "# weir.yaml:3\n");
    end(s);
}

static void later_checks_name_the_place_too(void **state)
{
    (void)state;
    write_file("weir.yaml", "\ntrusted-proxy-count: 2\n");
    refuses("weir a:b", "weir.yaml:2: trusted-proxy-count has no meaning without trusted-proxy");
}

static void unreadable_file_is_an_error(void **state)
{
    (void)state;
    refuses("weir a:b -c nothere.yaml",
            "-c: cannot read 'nothere.yaml': No such file or directory");
    assert_int_equal(mkdir("weir.yaml", 0700), 0);
    refuses("weir a:b", "'weir.yaml' is a folder");
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, begin, drop)
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(every_kind_of_value_is_read),
        ONE(text_stays_as_it_is_written),
        ONE(list_is_a_list_or_one_item),
        ONE(pairs_may_be_a_mapping),
        ONE(null_is_not_given),
        ONE(empty_file_says_nothing),
        ONE(tls_names_have_certificates),
        ONE(many_tls_entries_are_kept),
        ONE(unknown_name_tells_place_and_nearest),
        ONE(name_given_twice_is_refused),
        ONE(wrong_value_tells_place_and_cure),
        ONE(wrong_shape_is_told),
        ONE(what_is_not_data_is_refused),
        ONE(what_is_not_yaml_is_explained),
        ONE(tls_entries_are_checked),
        ONE(size_depth_and_length_are_bounded),
        IN_FOLDER(file_of_the_folder_is_found),
        IN_FOLDER(file_is_looked_for_in_the_folder_of_chdir),
        IN_FOLDER(file_is_weaker_than_environment_and_options),
        IN_FOLDER(any_address_given_otherwise_replaces_those_of_the_file),
        IN_FOLDER(waitress_serve_reads_it_too),
        IN_FOLDER(printed_settings_name_file_and_line),
        IN_FOLDER(later_checks_name_the_place_too),
        IN_FOLDER(unreadable_file_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
