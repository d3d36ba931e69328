/* value: numbers, sizes, times and words, and the complaints about them. */
#include "conf_helper.h"

static int64_t number(enum conf_kind kind, const char *text)
{
    struct err e = {0};
    int64_t out = -1;
    if (conf_value_number(kind, text, "", "", "--x", &out, &e))
        fail_msg("'%s': %s", text, e.text);
    return out;
}

static void bad_number(enum conf_kind kind, const char *text, const char *min, const char *max,
                       const char *message)
{
    struct err e = {0};
    int64_t out = -1;
    assert_int_equal(conf_value_number(kind, text, min, max, "--x", &out, &e), -1);
    assert_int_equal(out, -1);
    assert_string_equal(e.text, message);
}

static void size_takes_units_of_1024(void **state)
{
    (void)state;
    assert_int_equal(number(KIND_SIZE, "4096"), 4096);
    assert_int_equal(number(KIND_SIZE, "64k"), 65536);
    assert_int_equal(number(KIND_SIZE, "64K"), 65536);
    assert_int_equal(number(KIND_SIZE, "64KiB"), 65536);
    assert_int_equal(number(KIND_SIZE, "64kb"), 65536);
    assert_int_equal(number(KIND_SIZE, "7b"), 7);
    assert_int_equal(number(KIND_SIZE, "1M"), 1048576);
    assert_int_equal(number(KIND_SIZE, "2G"), 2147483648);
    assert_int_equal(number(KIND_SIZE, "1T"), 1099511627776);
    assert_int_equal(number(KIND_SIZE, " 5 "), 5);
}

static void size_refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "k", "1x", "1kk", "1.5M", "1 k", "0x10", "1ib", "--1"};
    for (size_t i = 0; i < countof(bad); i++) {
        int64_t out;
        struct err e;
        assert_int_equal(conf_value_number(KIND_SIZE, bad[i], "", "", "--x", &out, &e), -1);
        assert_text_in(e.text, "is not a size; give bytes");
    }
}

static void time_takes_units_and_seconds_without(void **state)
{
    (void)state;
    assert_int_equal(number(KIND_TIME, "10"), 10000);
    assert_int_equal(number(KIND_TIME, "0.5"), 500);
    assert_int_equal(number(KIND_TIME, "1.25s"), 1250);
    assert_int_equal(number(KIND_TIME, "250ms"), 250);
    assert_int_equal(number(KIND_TIME, "5m"), 300000);
    assert_int_equal(number(KIND_TIME, "1.5h"), 5400000);
    assert_int_equal(number(KIND_TIME, "1d"), 86400000);
    assert_int_equal(number(KIND_TIME, "0"), 0);
    assert_int_equal(number(KIND_TIME, "0.000"), 0);
}

static void time_below_a_millisecond_is_refused(void **state)
{
    (void)state;
    bad_number(KIND_TIME, "0.0001", "", "", "--x: 0.0001 is below one millisecond");
    bad_number(KIND_TIME, "0.5ms", "", "", "--x: 0.5ms is below one millisecond");
}

static void number_out_of_range_names_the_range(void **state)
{
    (void)state;
    bad_number(KIND_INT, "70000", "1", "65535", "--x: 70000 is too large; the range is 1 to 65535");
    bad_number(KIND_INT, "0", "1", "65535", "--x: 0 is too small; the range is 1 to 65535");
    bad_number(KIND_INT, "-1", "1", "65535", "--x: -1 is too small; the range is 1 to 65535");
    bad_number(KIND_INT, "-1", "", "", "--x: -1 is too small; the least is 0");
    bad_number(KIND_SIZE, "2G", "", "1G", "--x: 2G is too large; the most is 1G");
    bad_number(KIND_OCTAL, "1000", "0", "777", "--x: 1000 is too large; the range is 0 to 777");
}

static void number_that_overflows_is_too_large(void **state)
{
    (void)state;
    bad_number(KIND_INT, "99999999999999999999", "1", "9",
               "--x: 99999999999999999999 is too large; the range is 1 to 9");
    bad_number(KIND_SIZE, "9007199254740993k", "", "", "--x: 9007199254740993k is too large");
    bad_number(KIND_SIZE, "9223372036854775807T", "", "", "--x: 9223372036854775807T is too large");
    bad_number(KIND_TIME, "9223372036854775807d", "", "", "--x: 9223372036854775807d is too large");
    bad_number(KIND_TIME, "9223372036854775807.9ms", "", "9ms",
               "--x: 9223372036854775807.9ms is too large; the most is 9ms");
    assert_int_equal(number(KIND_INT, "9223372036854775807"), INT64_MAX);
}

static void octal_is_a_file_mode(void **state)
{
    (void)state;
    assert_int_equal(number(KIND_OCTAL, "600"), 0600);
    assert_int_equal(number(KIND_OCTAL, "0o640"), 0640);
    assert_int_equal(number(KIND_OCTAL, "0777"), 0777);
    bad_number(KIND_OCTAL, "8", "", "",
               "--x: '8' is not an octal number; give a file mode, as 600");
}

static void threads_are_a_bound_a_range_or_auto(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct conf_threads want;
    } cases[] = {{"auto", {4, 256, true}}, {"8", {4, 8, false}},      {"1", {1, 1, false}},
                 {"2:64", {2, 64, false}}, {" AUTO", {4, 256, true}}, {"7:7", {7, 7, false}}};
    for (size_t i = 0; i < countof(cases); i++) {
        struct conf_threads t;
        struct err e;
        assert_int_equal(conf_value_threads(cases[i].text, "1", "4096", "-t", &t, &e), 0);
        assert_int_equal(t.min, cases[i].want.min);
        assert_int_equal(t.max, cases[i].want.max);
        assert_int_equal(t.is_auto, cases[i].want.is_auto);
    }
}

static void bad_threads_name_the_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"x", "--threads: 'x' is not a number; give N, MIN:MAX or auto"},
        {"4:", "--threads: '' is not a number; give N, MIN:MAX or auto"},
        {"9:3", "--threads: '9:3' has a minimum above its maximum; give MIN:MAX"},
        {"0", "--threads: 0 is too small; the range is 1 to 4096"},
        {"4:5000", "--threads: 5000 is too large; the range is 1 to 4096"},
        {"11111111111111111111111111111111111111:2",
         "--threads: '11111111111111111111111111111111111111:2' is not a number; give N, MIN:MAX "
         "or auto"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct conf_threads t;
        struct err e;
        assert_int_equal(conf_value_threads(cases[i].text, "1", "4096", "--threads", &t, &e), -1);
        assert_string_equal(e.text, cases[i].message);
    }
}

static void flag_takes_the_usual_words_and_no_others(void **state)
{
    (void)state;
    bool b = false;
    struct err e;
    assert_true(conf_value_bool("Yes", "--x", &b, &e) == 0 && b);
    assert_true(conf_value_bool("off", "--x", &b, &e) == 0 && !b);
    assert_true(conf_value_bool("t", "--x", &b, &e) == 0 && b);
    assert_true(conf_value_bool("", "--x", &b, &e) == 0 && !b);
    assert_int_equal(conf_value_bool("maybe", "--x", &b, &e), -1);
    assert_string_equal(e.text, "--x: 'maybe' is neither yes nor no; give yes or no");
}

static void control_bytes_do_not_reach_the_terminal(void **state)
{
    (void)state;
    bool b;
    struct err e;
    assert_int_equal(conf_value_bool("a\033[2Jb", "--x", &b, &e), -1);
    assert_null(strchr(e.text, '\033'));
}

static void every_value_reads_back_as_it_is_printed(void **state)
{
    (void)state;
    struct conf a, b;
    struct err e;
    assert_int_equal(conf_init(&a, CONF_WEIR, &e), 0);
    assert_int_equal(conf_init(&b, CONF_WEIR, &e), 0);
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        char text[256], again[256];
        conf_value_format(&a, &conf_rows[i], text, sizeof text);
        assert_int_equal(conf_row_set(&b, &conf_rows[i], text, LEVEL_CALLER, "test", &e), 0);
        conf_value_format(&b, &conf_rows[i], again, sizeof again);
        assert_string_equal(text, again);
    }
    conf_fini(&a);
    conf_fini(&b);
}

static void every_default_lies_in_its_range(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        const struct conf_row *r = &conf_rows[i];
        int64_t n;
        struct err e = {0};
        if (r->kind != KIND_INT && r->kind != KIND_SIZE && r->kind != KIND_TIME)
            continue;
        if (conf_value_number(r->kind, r->def, r->min, r->max, r->name, &n, &e))
            fail_msg("%s", e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_takes_units_of_1024),
        cmocka_unit_test(size_refuses_what_is_none),
        cmocka_unit_test(time_takes_units_and_seconds_without),
        cmocka_unit_test(time_below_a_millisecond_is_refused),
        cmocka_unit_test(number_out_of_range_names_the_range),
        cmocka_unit_test(number_that_overflows_is_too_large),
        cmocka_unit_test(octal_is_a_file_mode),
        cmocka_unit_test(threads_are_a_bound_a_range_or_auto),
        cmocka_unit_test(bad_threads_name_the_forms),
        cmocka_unit_test(flag_takes_the_usual_words_and_no_others),
        cmocka_unit_test(control_bytes_do_not_reach_the_terminal),
        cmocka_unit_test(every_value_reads_back_as_it_is_printed),
        cmocka_unit_test(every_default_lies_in_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
