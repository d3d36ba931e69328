/* Growth, the ceiling, and what clear keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.c"

static void appended_bytes_are_there_in_order(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 10000; i++) {
        char c = (char)i;
        assert_int_equal(buf_add(&b, &c, 1), 0);
    }
    assert_int_equal(b.n, 10000);
    assert_true(b.cap >= b.n && b.cap <= 2 * 10000 + BUF_BYTES_MIN);
    for (size_t i = 0; i < b.n; i++)
        assert_int_equal(b.p[i], (char)i);
    buf_fini(&b);
    assert_null(b.p);
    assert_int_equal(b.cap, 0);
    buf_fini(&b);
}

static void nothing_appended_allocates_nothing(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_add(&b, NULL, 0), 0);
    assert_int_equal(buf_add_slice(&b, (struct slice){0}), 0);
    assert_null(b.p);
    assert_int_equal(buf_slice(&b).n, 0);
}

static void ceiling_holds_to_the_byte_and_the_bytes_stay(void **state)
{
    (void)state;
    struct buf b = {.max = 5};
    assert_int_equal(buf_add(&b, "12345", 5), 0);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -EMSGSIZE);
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 4), -EMSGSIZE); /* n + more wraps */
    assert_true(slice_eq(buf_slice(&b), SLICE("12345")));
    struct buf c = {.max = 5};
    assert_int_equal(buf_add(&c, "123456", 6), -EMSGSIZE);
    assert_int_equal(c.n, 0);
    struct buf none = {0};
    assert_int_equal(buf_reserve(&none, SIZE_MAX), -EMSGSIZE);
    buf_fini(&b);
    buf_fini(&c);
}

/* The block may be larger than the ceiling (it doubles); the ceiling counts bytes in use. */
static void ceiling_holds_where_the_block_has_room_beyond_it(void **state)
{
    (void)state;
    struct buf b = {.max = 5};
    assert_int_equal(buf_add(&b, "12345", 5), 0);
    assert_int_equal(buf_add(&b, "6", 1), -EMSGSIZE);
    assert_int_equal(b.n, 5);
    buf_fini(&b);
}

static void formatted_text_is_appended_whole(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_addf(&b, "%d-", 7), 0);
    assert_int_equal(buf_addf(&b, "%600s", "x"), 0); /* longer than the first block */
    assert_int_equal(b.n, 602);
    assert_memory_equal(b.p, "7- ", 3);
    assert_int_equal(b.p[601], 'x');
    buf_fini(&b);
}

static void dropping_moves_the_rest_to_the_front(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_add(&b, "abcdef", 6), 0);
    buf_drop(&b, 0);
    buf_drop(&b, 2);
    assert_true(slice_eq(buf_slice(&b), SLICE("cdef")));
    buf_drop(&b, 4);
    assert_int_equal(b.n, 0);
    assert_non_null(b.p);
    buf_fini(&b);
    buf_drop(&b, 0);
}

static void clear_keeps_small_blocks_and_frees_large_ones(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_reserve(&b, 4000), 0);
    buf_clear(&b, 4096);
    assert_non_null(b.p);
    buf_clear(&b, 4095);
    assert_null(b.p);
    assert_int_equal(b.cap, 0);
    assert_int_equal(buf_add(&b, "again", 5), 0);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appended_bytes_are_there_in_order),
        cmocka_unit_test(nothing_appended_allocates_nothing),
        cmocka_unit_test(ceiling_holds_to_the_byte_and_the_bytes_stay),
        cmocka_unit_test(ceiling_holds_where_the_block_has_room_beyond_it),
        cmocka_unit_test(formatted_text_is_appended_whole),
        cmocka_unit_test(dropping_moves_the_rest_to_the_front),
        cmocka_unit_test(clear_keeps_small_blocks_and_frees_large_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
