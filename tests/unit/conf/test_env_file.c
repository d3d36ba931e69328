/* env_file: NAME=VALUE lines, and how a start uses them. */
#include "conf_helper.h"

#include <unistd.h>

static struct arena arena;

static int drop(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static struct conf_env_list parse(const char *text)
{
    struct conf_env_list list = {0};
    struct err e = {0};
    if (conf_env_parse(&arena, ".env", text, strlen(text), &list, &e))
        fail_msg("%s", e.text);
    return list;
}

static void gives(const char *text, const char *name, const char *value)
{
    struct conf_env_list list = parse(text);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.items[0].name, name);
    assert_string_equal(list.items[0].value, value);
}

static void bad(const char *text, size_t n, const char *message)
{
    struct conf_env_list list = {0};
    struct err e = {0};
    assert_int_equal(conf_env_parse(&arena, ".env", text, n, &list, &e), -1);
    assert_string_equal(e.text, message);
}

static void plain_values_are_trimmed(void **state)
{
    (void)state;
    gives("A=b", "A", "b");
    gives("A=b\n", "A", "b");
    gives("  A = b c  \r\n", "A", "b c");
    gives("export A=b", "A", "b");
    gives("A=", "A", "");
    gives("A=b=c", "A", "b=c");
    gives("\xef\xbb\xbf"
          "A=b",
          "A", "b");
    gives("export=x", "export", "x");
}

static void comments_and_blank_lines_are_skipped(void **state)
{
    (void)state;
    gives("# one\n\n   \n  # two\nA=b # three\n", "A", "b");
    gives("A=b#c", "A", "b#c");
    gives("A=#c", "A", "");
    assert_int_equal(parse("").n, 0);
    assert_int_equal(parse("# no newline at the end").n, 0);
}

static void quotes_keep_blanks_and_lines(void **state)
{
    (void)state;
    gives("A=\" b # c \" # d", "A", " b # c ");
    gives("A='x\\n$y'", "A", "x\\n$y");
    gives("A=\"1\\n2\\t\\\"\\\\\\$\\q\"", "A", "1\n2\t\"\\$\\q");
    gives("A=\"one\ntwo\"\n", "A", "one\ntwo");
    gives("A=it's", "A", "it's");
    gives("A=''", "A", "");
}

static void later_lines_win_and_know_their_place(void **state)
{
    (void)state;
    struct conf_env_list list = parse("A=1\nB=\"x\ny\"\nC=3\nA=4\n");
    assert_int_equal(list.n, 3);
    assert_string_equal(list.items[0].value, "4");
    assert_string_equal(list.items[0].source, ".env:5");
    assert_string_equal(list.items[2].source, ".env:4");
}

static void errors_name_file_and_line(void **state)
{
    (void)state;
    bad("A=1\nnonsense\n", 13, ".env:2: this is not NAME=VALUE");
    bad("=1", 2, ".env:1: this is not NAME=VALUE");
    bad("1A=1", 4, ".env:1: this is not NAME=VALUE");
    bad("\nA=\"x\n\n", 7, ".env:2: the closing \" is missing");
    bad("A='x", 4, ".env:1: the closing ' is missing");
    bad("A='x' y", 7, ".env:1: there is text behind the closing quote");
    bad("A=x\0y", 5, ".env:1: the value contains a NUL byte");
}

static void many_names_are_kept(void **state)
{
    (void)state;
    char text[4000] = "";
    size_t at = 0;
    for (int i = 0; i < 300; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "N%d=%d\n", i, i);
    struct conf_env_list list = parse(text);
    assert_int_equal(list.n, 300);
    assert_string_equal(list.items[299].value, "299");
}

/* A start with one file of `text`. */
static struct started *start_with_file(const char *text, char *const *env, const char *more)
{
    char path[] = "/tmp/weir-env-XXXXXX", words[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    snprintf(words, sizeof words, "weir a:b --env-file %s%s", path, more);
    struct started *s = start_in(CONF_WEIR, words, env);
    unlink(path);
    return s;
}

static void file_counts_as_environment_but_does_not_override_it(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "WEIR_BACKLOG=7", (char *)(uintptr_t) "SET=outside",
                         NULL};
    struct started *s = start_with_file(
        "WEIR_BACKLOG=8\nWEIR_MAX_FIELDS=9\nWEIR_THREADS=3\nSET=inside\nNEW=x\n", env, " -t 5");
    assert_int_equal(s->rc, 0);
    assert_int_equal(s->conf.backlog, 7);
    assert_int_equal(s->conf.max_fields, 9);
    assert_int_equal(s->conf.threads.max, 5);
    struct conf_env_list added = conf_env_added(&s->conf);
    assert_int_equal(added.n, 3);
    assert_string_equal(added.items[2].name, "NEW");
    end(s);
}

static void port_of_a_file_is_used(void **state)
{
    (void)state;
    struct started *s = start_with_file("PORT=7000\n", NULL, "");
    assert_string_equal(s->conf.binds[0].text, "0.0.0.0:7000");
    end(s);
}

static void wrong_setting_in_a_file_names_file_and_line(void **state)
{
    (void)state;
    struct started *s = start_with_file("\nWEIR_THREADS=x\n", NULL, "");
    assert_int_equal(s->rc, -1);
    assert_int_equal(s->status, 2);
    assert_text_in(s->e.text, ":2: WEIR_THREADS: 'x' is not a number");
    end(s);
}

static void unreadable_file_is_named_with_the_cause(void **state)
{
    (void)state;
    refuses("weir a --env-file /nonexistent/.env",
            "cannot read '/nonexistent/.env': No such file or directory");
    refuses("weir a --env-file /tmp", "'/tmp' is a folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(plain_values_are_trimmed, drop),
        cmocka_unit_test_teardown(comments_and_blank_lines_are_skipped, drop),
        cmocka_unit_test_teardown(quotes_keep_blanks_and_lines, drop),
        cmocka_unit_test_teardown(later_lines_win_and_know_their_place, drop),
        cmocka_unit_test_teardown(errors_name_file_and_line, drop),
        cmocka_unit_test_teardown(many_names_are_kept, drop),
        cmocka_unit_test(file_counts_as_environment_but_does_not_override_it),
        cmocka_unit_test(port_of_a_file_is_used),
        cmocka_unit_test(wrong_setting_in_a_file_names_file_and_line),
        cmocka_unit_test(unreadable_file_is_named_with_the_cause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
