/* base64url: the vectors of RFC 4648, and that each byte string has one text alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/attr.h"
#include "base/base64url.h"

static void vectors_of_rfc_4648_decode(void **state)
{
    static const char *const VECTORS[][2] = {{"", ""},
                                             {"f", "Zg"},
                                             {"fo", "Zm8"},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg"},
                                             {"fooba", "Zm9vYmE"},
                                             {"foobar", "Zm9vYmFy"},
                                             {"\xff\xfe\xfd", "__79"},
                                             {"\xfb\xef\xbe", "----"}};
    (void)state;
    for (unsigned i = 0; i < countof(VECTORS); i++) {
        unsigned char out[16];
        struct slice text = slice_str(VECTORS[i][1]);
        assert_int_equal(base64url_bytes(text.n), strlen(VECTORS[i][0]));
        assert_true(base64url_decode(text, out));
        assert_memory_equal(out, VECTORS[i][0], strlen(VECTORS[i][0]));
    }
}

static void other_characters_padding_and_lengths_are_refused(void **state)
{
    static const char *const BAD[] = {
        "Z",     "Zm9vY", "Zg=",  "Zg==", "Zm8=",    "Zm9v\n", " Zm9v",
        "Zm 9v", "Zm+v",  "Zm/v", "Zm.v", "Zm9\x80", "Zm9\xff"};
    (void)state;
    unsigned char out[16];
    for (unsigned i = 0; i < countof(BAD); i++)
        assert_false(base64url_decode(slice_str(BAD[i]), out));
    assert_false(base64url_decode(slice_of("Zm9\0", 4), out));
}

static void of_texts_with_two_or_three_characters_one_stands_for_each_byte_string(void **state)
{
    (void)state;
    static unsigned char seen[65536];
    unsigned good = 0;
    for (unsigned v = 0; v < 1U << 24; v += v < 65536 ? 1 : 257) {
        char text[3] = {(char)(v & 255), (char)(v >> 8 & 255), (char)(v >> 16 & 255)};
        unsigned char out[2];
        if (!base64url_decode(slice_of(text, 3), out))
            continue;
        assert_int_equal(seen[out[0] << 8 | out[1]]++, 0);
        good++;
    }
    assert_true(good > 0);
    memset(seen, 0, sizeof seen);
    for (unsigned v = good = 0; v < 65536; v++) {
        char text[2] = {(char)(v & 255), (char)(v >> 8)};
        unsigned char out[1];
        if (base64url_decode(slice_of(text, 2), out)) {
            assert_int_equal(seen[out[0]]++, 0);
            good++;
        }
    }
    assert_int_equal(good, 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_rfc_4648_decode),
        cmocka_unit_test(other_characters_padding_and_lengths_are_refused),
        cmocka_unit_test(of_texts_with_two_or_three_characters_one_stands_for_each_byte_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
