/* file_ask: paths, ranges, codings and tags as clients write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/attr.h"
#include "handler/file_ask.h"

static void prefix_ends_at_a_segment(void **state)
{
    (void)state;
    static const struct {
        const char *path, *prefix;
        size_t n;
    } rows[] = {
        {"/assets", "/assets", 7},
        {"/assets/", "/assets", 7},
        {"/assets/a", "/assets", 7},
        {"/assetsX", "/assets", SIZE_MAX},
        {"/asset", "/assets", SIZE_MAX},
        {"/", "/assets", SIZE_MAX},
        {"/Assets/a", "/assets", SIZE_MAX},
        {"/%61ssets/a", "/assets", 9},
        {"/%61ssetsX", "/assets", SIZE_MAX},
        {"%2Fassets/a", "/assets", SIZE_MAX},
        {"/a%2Fb/c", "/a/b", SIZE_MAX},
        {"/a/b/c", "/a/b", 4},
        {"/a/b", "", 0},
        {"", "", 0},
        {"*", "", SIZE_MAX},
        {"/%6", "/a", SIZE_MAX},
        {"/%zz", "/a", SIZE_MAX},
        {"/assets%2Fa", "/assets", SIZE_MAX},
        {"//assets/a", "/assets", SIZE_MAX},
    };
    for (size_t i = 0; i < countof(rows); i++)
        if (file_prefix(slice_str(rows[i].path), slice_str(rows[i].prefix)) != rows[i].n)
            fail_msg("%s behind %s: %zu", rows[i].path, rows[i].prefix,
                     file_prefix(slice_str(rows[i].path), slice_str(rows[i].prefix)));
}

static void path_is_decoded_once(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *path;
    } rows[] = {
        {"", ""},
        {"/", ""},
        {"/a", "a"},
        {"/a/", "a/"},
        {"/a%20b/c.txt", "a b/c.txt"},
        {"/%41", "A"},
        {"/%2541", "%41"},
        {"/a+b", "a+b"},
        {"/a..b", "a..b"},
        {"/a./b", "a./b"},
        {"/%c3%a4", "\xc3\xa4"},
        {"/.well-known/x", ".well-known/x"},
        {"/~a", "~a"},
    };
    char out[FILE_PATH_BYTES_MAX];
    for (size_t i = 0; i < countof(rows); i++) {
        assert_true(file_path(slice_str(rows[i].raw), out));
        assert_string_equal(out, rows[i].path);
    }
}

static void path_that_could_lead_elsewhere_is_none(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "/..",     "/../a",         "/a/../b", "/a/..",        "/%2e%2e/a",
        "/.%2e/a", "/%2E%2e",       "/.",      "/./a",         "/a/./b",
        "//a",     "/a//b",         "/a//",    "//",           "/%2fa",
        "/a%2fb",  "/a%2Fb",        "/a\\b",   "/a%5cb",       "/..%5ca",
        "/%00",    "/a%00.txt",     "/a%0a",   "/%7f",         "/%",
        "/%1",     "/%g1",          "/%1g",    "/.git/config", "/a/.htaccess",
        "/%2egit", "/.well-known2", "/...",    "/a/.b/",       "a",
        "%2e",
    };
    char out[FILE_PATH_BYTES_MAX];
    for (size_t i = 0; i < countof(rows); i++)
        if (file_path(slice_str(rows[i]), out))
            fail_msg("%s became %s", rows[i], out);
}

static void path_has_a_bound(void **state)
{
    (void)state;
    char raw[FILE_PATH_BYTES_MAX + 2], out[FILE_PATH_BYTES_MAX];
    memset(raw, 'a', sizeof raw);
    raw[0] = '/';
    assert_true(file_path(slice_of(raw, FILE_PATH_BYTES_MAX), out));
    assert_int_equal(strlen(out), FILE_PATH_BYTES_MAX - 1);
    assert_false(file_path(slice_of(raw, FILE_PATH_BYTES_MAX + 1), out));
}

static void range_names_a_part(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        uint64_t size;
        enum file_range kind;
        uint64_t first, n;
    } rows[] = {
        {"bytes=0-0", 10, FILE_PART, 0, 1},
        {"bytes=2-5", 10, FILE_PART, 2, 4},
        {"bytes=2-", 10, FILE_PART, 2, 8},
        {"bytes=9-", 10, FILE_PART, 9, 1},
        {"bytes=9-100", 10, FILE_PART, 9, 1},
        {"BYTES=-3", 10, FILE_PART, 7, 3},
        {"bytes=-100", 10, FILE_PART, 0, 10},
        {"bytes=0-9223372036854775808", 10, FILE_PART, 0, 10},
        {"bytes=1-18446744073709551616", 10, FILE_PART, 1, 9},
        {"bytes= 1-2 ", 10, FILE_PART, 1, 2},
        {"bytes=,,1-2,", 10, FILE_PART, 1, 2},
        {"bytes=10-", 10, FILE_NO_PART, 0, 0},
        {"bytes=10-20", 10, FILE_NO_PART, 0, 0},
        {"bytes=9223372036854775808-", 10, FILE_NO_PART, 0, 0},
        {"bytes=99999999999999999999999999-", 10, FILE_NO_PART, 0, 0},
        {"bytes=99999999999999999999999998-99999999999999999999999999", 10, FILE_NO_PART, 0, 0},
        {"bytes=-0", 10, FILE_NO_PART, 0, 0},
        {"bytes=0-", 0, FILE_NO_PART, 0, 0},
        {"bytes=-1", 0, FILE_WHOLE, 0, 0},
        {"bytes=5-2", 10, FILE_WHOLE, 0, 0},
        {"bytes=0-1,3-4", 10, FILE_WHOLE, 0, 0},
        {"bytes=", 10, FILE_WHOLE, 0, 0},
        {"bytes", 10, FILE_WHOLE, 0, 0},
        {"", 10, FILE_WHOLE, 0, 0},
        {"bytes=-", 10, FILE_WHOLE, 0, 0},
        {"bytes=a-b", 10, FILE_WHOLE, 0, 0},
        {"bytes=1", 10, FILE_WHOLE, 0, 0},
        {"bytes=1-2x", 10, FILE_WHOLE, 0, 0},
        {"bytes=-1-2", 10, FILE_WHOLE, 0, 0},
        {"bytes=+1-2", 10, FILE_WHOLE, 0, 0},
        {"bytes =1-2", 10, FILE_WHOLE, 0, 0},
        {"lines=1-2", 10, FILE_WHOLE, 0, 0},
        {"bytes=0-", UINT64_MAX / 2, FILE_PART, 0, UINT64_MAX / 2},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t first = 0, n = 0;
        enum file_range kind = file_range(slice_str(rows[i].value), rows[i].size, &first, &n);
        if (kind != rows[i].kind ||
            (kind == FILE_PART && (first != rows[i].first || n != rows[i].n)))
            fail_msg("%s of %llu: %d, %llu + %llu", rows[i].value, (unsigned long long)rows[i].size,
                     kind, (unsigned long long)first, (unsigned long long)n);
    }
}

static void codings_are_weighed(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int br, gzip, identity;
    } rows[] = {
        {"", 0, 0, 1},
        {"gzip", 0, 1000, 1},
        {"gzip, deflate, br", 1000, 1000, 1},
        {"x-gzip", 0, 1000, 1},
        {"GZIP;q=0.5,br;Q=0.25", 250, 500, 1},
        {"br;q=0", 0, 0, 1},
        {"br ; q=0.001", 1, 0, 1},
        {"*", 1000, 1000, 1000},
        {"*;q=0", 0, 0, 0},
        {"gzip;q=0, *;q=0.3", 300, 0, 300},
        {"identity;q=0.5, br;q=0.4", 400, 0, 500},
        {"br;q=1.000", 1000, 0, 1},
        {"br;q=1.001", 0, 0, 1},
        {"br;q=2", 0, 0, 1},
        {"br;q=0.0001", 0, 0, 1},
        {"br;q=", 0, 0, 1},
        {"br;q=.5", 0, 0, 1},
        {"br;x=1", 0, 0, 1},
        {"brx, xbr", 0, 0, 1},
        {",,br,,", 1000, 0, 1},
        {"br;q=-1", 0, 0, 1},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct file_codings c = FILE_CODINGS_NONE;
        file_codings_add(&c, slice_str(rows[i].value));
        if (file_coding_weight(&c, FILE_BR) != rows[i].br ||
            file_coding_weight(&c, FILE_GZIP) != rows[i].gzip ||
            file_coding_weight(&c, FILE_IDENTITY) != rows[i].identity)
            fail_msg("%s", rows[i].value);
    }
}

static void tags_are_compared_as_the_condition_wants(void **state)
{
    (void)state;
    static const struct {
        const char *value, *etag;
        bool weak, strong;
    } rows[] = {
        {"\"a\"", "\"a\"", true, true},
        {"*", "\"a\"", true, true},
        {" \"b\" , \"a\"", "\"a\"", true, true},
        {"\"a,b\", \"c\"", "\"c\"", true, true},
        {"W/\"a\"", "\"a\"", true, false},
        {"\"a\"", "W/\"a\"", true, false},
        {"W/\"a\"", "W/\"a\"", true, false},
        {"\"b\"", "\"a\"", false, false},
        {"a", "\"a\"", false, false},
        {"\"a", "\"a\"", false, false},
        {"w/\"a\"", "\"a\"", false, false},
        {"", "\"a\"", false, false},
        {"\"\"", "\"a\"", false, false},
        {"\"a\"b", "\"a\"", true, true},
        {"\"A\"", "\"a\"", false, false},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct slice value = slice_str(rows[i].value), etag = slice_str(rows[i].etag);
        if (file_etag_listed(value, etag, true) != rows[i].weak ||
            file_etag_listed(value, etag, false) != rows[i].strong)
            fail_msg("%s in %s", rows[i].etag, rows[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefix_ends_at_a_segment),
        cmocka_unit_test(path_is_decoded_once),
        cmocka_unit_test(path_that_could_lead_elsewhere_is_none),
        cmocka_unit_test(path_has_a_bound),
        cmocka_unit_test(range_names_a_part),
        cmocka_unit_test(codings_are_weighed),
        cmocka_unit_test(tags_are_compared_as_the_condition_wants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
