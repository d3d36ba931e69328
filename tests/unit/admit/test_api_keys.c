/* api_keys: what a file may say, and what is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admit/api_keys.h"

#define KEY1 "0123456789abcdef"
#define KEY2 "fedcba9876543210"
#define KEY3 "ghijklmnopqrstuv"

static struct api_keys *keys_of(const char *text)
{
    struct api_keys *k;
    struct err e = {{0}};
    if (api_keys_parse(&k, "keys.txt", slice_str(text), &e))
        fail_msg("%s", e.text);
    return k;
}

static const char *fault_of_bytes(struct slice text)
{
    static struct err e;
    struct api_keys *k;
    assert_int_equal(api_keys_parse(&k, "keys.txt", text, &e), -1);
    assert_null(k);
    assert_null(strstr(e.text, KEY1));
    return e.text;
}

static const char *fault(const char *text)
{
    return fault_of_bytes(slice_str(text));
}

static void names_and_tiers_are_found_by_their_keys(void **state)
{
    (void)state;
    struct api_key found;
    struct api_keys *k = keys_of("\xef\xbb\xbf# who\n\nada " KEY1 "\n  bob\t" KEY2
                                 "  pro # paid\r\n   # nothing\n\r\n"
                                 "ada " KEY3 " free");
    assert_int_equal(api_keys_count(k), 3);
    assert_true(api_keys_find(k, SLICE(KEY1), &found));
    assert_string_equal(found.name.p, "ada");
    assert_int_equal(found.tier.n, 0);
    assert_string_equal(found.tier.p, "");
    assert_true(api_keys_find(k, SLICE(KEY2), &found));
    assert_string_equal(found.name.p, "bob");
    assert_string_equal(found.tier.p, "pro");
    assert_true(api_keys_find(k, SLICE(KEY3), &found)); /* a second key of the same name */
    assert_string_equal(found.name.p, "ada");
    assert_string_equal(found.tier.p, "free");
    for (unsigned i = 0; i < 3; i++)
        assert_true(api_keys_at(k, i).name.n == 3);
    api_keys_free(&k);
    assert_null(k);
}

static void keys_that_are_almost_right_are_not_found(void **state)
{
    (void)state;
    struct api_key found;
    struct api_keys *k = keys_of("ada " KEY1 "\n");
    static const char *const WRONG[] = {
        "",   "0",  "0123456789abcde", KEY1 " ", KEY1 "0", "0123456789abcdeF", "1123456789abcdef",
        KEY2, "ada"};
    for (unsigned i = 0; i < countof(WRONG); i++)
        assert_false(api_keys_find(k, slice_str(WRONG[i]), &found));
    assert_false(api_keys_find(k, slice_of(NULL, 0), &found));
    api_keys_free(&k);
}

static void faults_name_the_line_and_the_cure_and_never_the_key(void **state)
{
    (void)state;
    assert_string_equal(fault("ada " KEY1 "\nbob\n"),
                        "keys.txt:2: there is a name without a key; write NAME KEY [TIER]");
    assert_non_null(strstr(fault("bob # " KEY1), "keys.txt:1: there is a name without a key"));
    assert_non_null(strstr(fault("# x\n\n\nada short\n"), "keys.txt:4: the key has fewer than 16"));
    assert_non_null(strstr(fault("ada short"), "openssl rand -hex 24"));
    assert_non_null(
        strstr(fault("ada " KEY1 " pro " KEY2), "keys.txt:1: there are more than three words"));
    assert_non_null(strstr(fault("ada " KEY1 "\n\nbob " KEY1 "\n"),
                           "keys.txt:3: the same key stands in line 1 already"));
    assert_non_null(strstr(fault("ada " KEY1 "\xc3\xa4\n"), "keys.txt:1: only visible ASCII"));
    assert_non_null(strstr(fault("ad\x7f " KEY1 "\n"), "keys.txt:1: only visible ASCII"));
    assert_non_null(
        strstr(fault_of_bytes(slice_of("ada " KEY1 "\0\n", 22)), "keys.txt:1: only visible ASCII"));
    assert_non_null(strstr(fault(""), "keys.txt: there is no key in it"));
    assert_non_null(strstr(fault("# " KEY1 "\n\n"), "keys.txt: there is no key in it"));
}

static void lengths_are_bounded(void **state)
{
    (void)state;
    char text[2048];
    struct api_key found;
    snprintf(text, sizeof text, "%0128d %0512d %064d", 1, 2, 3);
    struct api_keys *k = keys_of(text);
    assert_true(api_keys_find(k, slice_of(text + 129, 512), &found));
    assert_int_equal(found.name.n, 128);
    assert_int_equal(found.tier.n, 64);
    api_keys_free(&k);
    snprintf(text, sizeof text, "%0129d %0512d %064d", 1, 2, 3);
    assert_non_null(strstr(fault(text), "the name is longer than 128"));
    snprintf(text, sizeof text, "%0128d %0513d %064d", 1, 2, 3);
    assert_non_null(strstr(fault(text), "or more than 512"));
    snprintf(text, sizeof text, "%0128d %0512d %065d", 1, 2, 3);
    assert_non_null(strstr(fault(text), "the tier is longer than 64"));
    char *huge = calloc(1, API_KEYS_FILE_BYTES_MAX + 1);
    memset(huge, '#', API_KEYS_FILE_BYTES_MAX + 1);
    assert_non_null(strstr(fault_of_bytes(slice_of(huge, API_KEYS_FILE_BYTES_MAX + 1)),
                           "keys.txt: larger than 1 MiB"));
    assert_non_null(
        strstr(fault_of_bytes(slice_of(huge, API_KEYS_FILE_BYTES_MAX)), "no key in it"));
    free(huge);
}

static void ten_thousand_keys_are_found_and_one_more_is_refused(void **state)
{
    (void)state;
    enum { LINE = 64 };
    char *text = malloc((API_KEYS_MAX + 1) * LINE), key[32];
    size_t n = 0;
    struct api_key found;
    for (unsigned i = 0; i <= API_KEYS_MAX; i++) {
        if (i == API_KEYS_MAX) {
            struct api_keys *k = keys_of(text);
            assert_int_equal(api_keys_count(k), API_KEYS_MAX);
            for (unsigned j = 0; j < API_KEYS_MAX; j++) {
                snprintf(key, sizeof key, "key-%016u", j);
                assert_true(api_keys_find(k, slice_str(key), &found));
                assert_int_equal(strtoul(found.name.p + 1, NULL, 10), j);
            }
            assert_false(api_keys_find(k, SLICE("key-0000000000010000"), &found));
            api_keys_free(&k);
        }
        n += (size_t)snprintf(text + n, LINE, "n%u key-%016u t\n", i, i);
    }
    assert_non_null(strstr(fault_of_bytes(slice_of(text, n)),
                           "keys.txt:10001: there are more than 10000 keys"));
    free(text);
}

static void files_are_read_and_what_is_none_is_an_error(void **state)
{
    (void)state;
    char path[] = "/tmp/weir-test-XXXXXX";
    struct api_keys *k;
    struct err e;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "ada " KEY1 "\n", 21), 21);
    close(fd);
    assert_int_equal(api_keys_read(&k, path, &e), 0);
    assert_int_equal(api_keys_count(k), 1);
    api_keys_free(&k);
    unlink(path);
    assert_int_equal(api_keys_read(&k, path, &e), -1);
    assert_non_null(strstr(e.text, "cannot be opened: No such file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(api_keys_read(&k, path, &e), -1);
    assert_non_null(strstr(e.text, "this is no file"));
    unlink(path);
    assert_int_equal(api_keys_read(&k, "/tmp", &e), -1);
    assert_non_null(strstr(e.text, "this is no file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_tiers_are_found_by_their_keys),
        cmocka_unit_test(keys_that_are_almost_right_are_not_found),
        cmocka_unit_test(faults_name_the_line_and_the_cure_and_never_the_key),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(ten_thousand_keys_are_found_and_one_more_is_refused),
        cmocka_unit_test(files_are_read_and_what_is_none_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
