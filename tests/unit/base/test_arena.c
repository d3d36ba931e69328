/* Allocations, the ceiling, and what a reset keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.c"

static void allocations_are_aligned_and_apart(void **state)
{
    (void)state;
    struct arena a = {0};
    unsigned char *p[300];
    for (size_t i = 0; i < 300; i++) {
        p[i] = arena_alloc(&a, i + 1);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)(i & 0xff), i + 1);
    }
    for (size_t i = 0; i < 300; i++)
        for (size_t k = 0; k <= i; k++)
            assert_int_equal(p[i][k], i & 0xff);
    arena_fini(&a);
    assert_null(a.blocks);
    arena_fini(&a);
}

static void ceiling_holds_and_smaller_ones_still_fit(void **state)
{
    (void)state;
    struct arena a = {.max = 3000};
    assert_non_null(arena_alloc(&a, 2000));
    assert_null(arena_alloc(&a, 1500));
    assert_non_null(arena_alloc(&a, 900)); /* not a doubled block: what is left is enough */
    assert_true(a.bytes <= a.max);
    assert_null(arena_alloc(&a, 100));
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 2000));
    arena_fini(&a);
    assert_int_equal(a.max, 3000);
}

static void sizes_that_wrap_are_refused(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 14));
    assert_null(arena_alloc(&a, SIZE_MAX / 4 + 1));
    assert_null(a.blocks);
}

static void reset_keeps_one_ordinary_block(void **state)
{
    (void)state;
    struct arena a = {0};
    arena_reset(&a);
    assert_null(a.blocks);
    assert_non_null(arena_alloc(&a, 100));
    for (int i = 0; i < 100; i++)
        assert_non_null(arena_alloc(&a, 1000));
    size_t grown = a.bytes;
    assert_true(grown > 100000);
    arena_reset(&a);
#ifdef ARENA_ASAN
    assert_null(a.blocks); /* nothing is kept, so that stale pointers show */
#else
    assert_int_equal(a.bytes, ARENA_BYTES_KEPT); /* of 1, 2, 4 .. 64 KiB */
    assert_null(a.blocks->older);
    assert_ptr_equal(arena_alloc(&a, 100), a.blocks->payload);
#endif
    arena_fini(&a);
}

static void reset_keeps_the_block_that_the_next_one_needs(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_non_null(arena_alloc(&a, 600));
    assert_non_null(arena_alloc(&a, 1200)); /* a second block, twice as large */
    arena_reset(&a);
#ifndef ARENA_ASAN
    assert_int_equal(a.bytes, 2 * ARENA_BYTES_MIN);
    assert_null(a.blocks->older);
    assert_non_null(arena_alloc(&a, 600));
    assert_non_null(arena_alloc(&a, 1200));
    assert_int_equal(a.bytes, 2 * ARENA_BYTES_MIN);
#endif
    arena_fini(&a);
}

static void reset_gives_back_a_huge_first_block(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_non_null(arena_alloc(&a, 1024 * 1024));
    arena_reset(&a);
    assert_null(a.blocks);
    assert_int_equal(a.bytes, 0);
    assert_non_null(arena_alloc(&a, 10));
    arena_fini(&a);
}

static void copy_is_a_copy(void **state)
{
    (void)state;
    struct arena a = {.max = 2048};
    char text[] = "text";
    struct slice s = arena_copy(&a, slice_str(text));
    text[0] = 'n';
    assert_true(slice_eq(s, SLICE("text")));
    assert_int_equal(arena_copy(&a, (struct slice){0}).n, 0);
    static const char large[4096];
    s = arena_copy(&a, slice_of(large, sizeof large));
    assert_null(s.p);
    assert_int_equal(s.n, 0);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_apart),
        cmocka_unit_test(ceiling_holds_and_smaller_ones_still_fit),
        cmocka_unit_test(sizes_that_wrap_are_refused),
        cmocka_unit_test(reset_keeps_one_ordinary_block),
        cmocka_unit_test(reset_keeps_the_block_that_the_next_one_needs),
        cmocka_unit_test(reset_gives_back_a_huge_first_block),
        cmocka_unit_test(copy_is_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
