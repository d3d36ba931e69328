/* date: HTTP's dates in their three forms; and mime: types by extension. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/attr.h"
#include "handler/date.h"
#include "handler/mime.h"

static const int64_t NOW = 1790000000; /* in 2026 */

static void gives(const char *text, int64_t second)
{
    int64_t found = -1;
    if (!date_parse(slice_str(text), NOW, &found) || found != second)
        fail_msg("%s: %lld", text, (long long)found);
}

static void all_three_forms_are_known(void **state)
{
    (void)state;
    gives("Sun, 06 Nov 1994 08:49:37 GMT", 784111777);
    gives("Sunday, 06-Nov-94 08:49:37 GMT", 784111777);
    gives("Sun Nov  6 08:49:37 1994", 784111777);
    gives("Sun Nov 06 08:49:37 1994", 784111777);
    gives("Thu, 01 Jan 1970 00:00:00 GMT", 0);
    gives("Fri, 31 Dec 1999 23:59:60 GMT", 946684799);
    gives("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800);
}

static void two_digits_are_the_near_century(void **state)
{
    (void)state;
    gives("Friday, 01-Jan-76 00:00:00 GMT", 3345062400);
    gives("Saturday, 01-Jan-77 00:00:00 GMT", 220924800);
}

static void other_texts_are_no_dates(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        "Sun",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 30 Feb 2024 00:00:00 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Xxx 1994 08:49:37 GMT",
        "Sun, -6 Nov 1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37 GMTSun, 06 Nov 1994 08:49:37 GMT",
    };
    for (size_t i = 0; i < countof(rows); i++) {
        int64_t second;
        if (date_parse(slice_str(rows[i]), NOW, &second))
            fail_msg("%s", rows[i]);
    }
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    for (int64_t t = -1000000000; t < 5000000000; t += 86413 * 17) {
        char text[DATE_BYTES + 1] = {0};
        int64_t again = 0;
        date_format(t, text);
        assert_true(date_parse(slice_str(text), NOW, &again));
        assert_int_equal(again, t);
    }
    char text[DATE_BYTES + 1] = {0};
    date_format(INT64_MAX, text);
    assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
}

static void types_follow_the_last_extension(void **state)
{
    (void)state;
    static const struct {
        const char *path, *type;
    } rows[] = {
        {"a.html", "text/html; charset=utf-8"},
        {"a/b.CSS", "text/css; charset=utf-8"},
        {"a.min.js", "text/javascript; charset=utf-8"},
        {"a.json", "application/json"},
        {"a.7z", "application/x-7z-compressed"},
        {"a.zst", "application/zstd"},
        {"a.glb", "model/gltf-binary"},
        {"a.tar.gz", "application/gzip"},
        {"a.woff2", "font/woff2"},
        {"a", "application/octet-stream"},
        {"a.", "application/octet-stream"},
        {"a.html/b", "application/octet-stream"},
        {"html", "application/octet-stream"},
        {"a.unknownextension", "application/octet-stream"},
        {"a.webmanifest", "application/manifest+json"},
        {"", "application/octet-stream"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct mime_type t = mime_of(slice_str(rows[i].path));
        if (!slice_eq(t.text, slice_str(rows[i].type)))
            fail_msg("%s: %.*s", rows[i].path, (int)t.text.n, t.text.p);
    }
    assert_true(mime_of(SLICE("a.png")).dense);
    assert_false(mime_of(SLICE("a.svg")).dense);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_three_forms_are_known),
        cmocka_unit_test(two_digits_are_the_near_century),
        cmocka_unit_test(other_texts_are_no_dates),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(types_follow_the_last_extension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
