/* Reading JSON in place: what is JSON, walking, strings, numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/json_read.h"

static void what_is_json_is_taken_and_nothing_else(void **state)
{
    (void)state;
    static const char *const GOOD[] = {
        "{}",
        "[]",
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "1.5e+10",
        "1E-2",
        "\"\"",
        "\"\\u00e9\\n\\\"\"",
        "[1, 2 ,{\"a\":[ ]}]",
        "{\"a\" : {\"b\":null}, \"c\":\"d\"}\n",
        "\"\x7f\"",
    };
    static const char *const BAD[] = {
        "",           " ",     "{",   "}",       "[1,]",        "[,1]",    "{\"a\"}",  "{\"a\":}",
        "{\"a\":1,}", "{a:1}", "01",  "1.",      ".5",          "1e",      "+1",       "-",
        "tru",        "nulll", "\"",  "\"\\x\"", "\"\\u12g4\"", "\"\\u12", "\"a\nb\"", "\"\\",
        "[1] 2",      "[1 2]", "[1}", "'a'",     "{\"a\":1]",   "NaN",
    };
    for (size_t i = 0; i < countof(GOOD); i++)
        if (!json_whole(slice_str(GOOD[i])))
            fail_msg("not taken: %s", GOOD[i]);
    for (size_t i = 0; i < countof(BAD); i++)
        if (json_whole(slice_str(BAD[i])))
            fail_msg("taken: %s", BAD[i]);
    assert_false(json_whole(slice_of("\"\\\0\"", 4)));
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char text[2 * JSON_DEPTH_MAX + 4] = {0};
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_true(json_whole(slice_str(text)));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_false(json_whole(slice_str(text)));
}

static void every_beginning_of_a_text_is_refused_without_reading_behind_it(void **state)
{
    (void)state;
    static const char TEXT[] = "{\"a\":[1.5e3,\"\\u00e9x\",true,null],\"b\":{\"c\":false}}";
    for (size_t n = 0; n < sizeof TEXT - 1; n++) {
        char *copy = malloc(n + 1); /* so that a sanitizer sees a byte too far */
        memcpy(copy, TEXT, n);
        char *exact = realloc(copy, n ? n : 1);
        assert_false(json_whole(slice_of(exact, n)));
        free(exact);
    }
    assert_true(json_whole(SLICE(TEXT)));
}

static void members_and_elements_are_walked(void **state)
{
    (void)state;
    struct slice key, value, object = SLICE("{\"a\":1, \"b\" : [10,\"x\", {}] ,\"a\":2}");
    int64_t number = 0;
    struct json_walk w = json_walk(object);
    int n = 0;
    while (json_next(&w, &key, &value))
        n++;
    assert_int_equal(n, 3);
    assert_true(json_member(object, "a", &value) && json_to_integer(value, &number));
    assert_int_equal(number, 1); /* the first */
    assert_false(json_member(object, "c", &value));
    assert_false(json_member(SLICE("[1]"), "c", &value));
    assert_true(json_member(object, "b", &value));
    w = json_walk(value);
    assert_true(json_next(&w, &key, &value) && slice_eq(value, SLICE("10")) && key.n == 0);
    assert_true(json_next(&w, &key, &value) && slice_eq(value, SLICE("\"x\"")));
    assert_true(json_next(&w, &key, &value) && slice_eq(value, SLICE("{}")));
    assert_false(json_next(&w, &key, &value));
    assert_false(json_next(&w, &key, &value));
    w = json_walk(SLICE("12"));
    assert_false(json_next(&w, &key, &value));
}

static void texts_are_read(void **state)
{
    (void)state;
    struct buf out = {0};
    assert_int_equal(
        json_unescape(SLICE("\"a\\n\\t\\\"\\\\\\/\\u00e9\\u20ac\\ud83d\\ude00\\ud83dx\xc3\xa9\""),
                      &out),
        0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal(out.p,
                        "a\n\t\"\\/\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbdx\xc3\xa9");
    assert_int_equal(json_unescape(SLICE("12"), &out), -EINVAL);
    assert_int_equal(json_unescape(SLICE("\"a\" "), &out), -EINVAL);
    buf_fini(&out);
}

static void integers_are_read(void **state)
{
    (void)state;
    int64_t v = 0;
    assert_true(json_to_integer(SLICE("-42"), &v));
    assert_int_equal(v, -42);
    assert_false(json_to_integer(SLICE("1.5"), &v));
    assert_false(json_to_integer(SLICE("\"1\""), &v));
    assert_false(json_to_integer(SLICE("-"), &v));
    assert_false(json_to_integer(SLICE("1234567890123456789"), &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json_is_taken_and_nothing_else),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(every_beginning_of_a_text_is_refused_without_reading_behind_it),
        cmocka_unit_test(members_and_elements_are_walked),
        cmocka_unit_test(texts_are_read),
        cmocka_unit_test(integers_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
