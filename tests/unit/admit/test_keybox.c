/* keybox: what readers see when the writer writes, fails, and dies in the middle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admit/keybox.h"

static char g_text[JWT_JWKS_BYTES_MAX];

static int make(void **state)
{
    *state = keybox_new();
    return *state ? 0 : -1;
}

static int unmake(void **state)
{
    struct keybox *b = *state;
    keybox_free(&b);
    return b == NULL ? 0 : -1;
}

static void an_empty_box_has_nothing(void **state)
{
    struct keybox *b = *state;
    size_t n;
    uint64_t generation;
    struct keybox_state s;
    assert_false(keybox_read(b, 0, g_text, &n, &generation));
    assert_int_equal(keybox_generation(b, 0), 0);
    assert_false(keybox_look(b, 0, &s));
    assert_int_equal(s.good_s, 0);
    assert_false(keybox_wanted(b, 0, 0));
}

static void texts_of_all_lengths_come_back_and_do_not_touch_each_other(void **state)
{
    struct keybox *b = *state;
    static char text[JWT_JWKS_BYTES_MAX];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7 + i / 256);
    static const size_t LENGTHS[] = {0, 1, 7, 8, 9, 15, 16, 17, 4096, 65535, JWT_JWKS_BYTES_MAX, 3};
    for (unsigned i = 0; i < countof(LENGTHS); i++) {
        size_t n;
        uint64_t generation;
        keybox_publish(b, 3, slice_of(text, LENGTHS[i]), 1);
        keybox_publish(b, 7, SLICE("neighbour"), 1);
        assert_true(keybox_read(b, 3, g_text, &n, &generation));
        assert_int_equal(n, LENGTHS[i]);
        assert_memory_equal(g_text, text, n);
        assert_int_equal(generation, i + 1);
        assert_int_equal(keybox_generation(b, 3), generation);
        assert_true(keybox_read(b, 7, g_text, &n, &generation));
        assert_true(slice_eq(slice_of(g_text, n), SLICE("neighbour")));
    }
    assert_int_equal(keybox_generation(b, 7), 1);
    assert_int_equal(keybox_generation(b, 0), 0);
}

static void the_same_text_again_moves_the_time_alone(void **state)
{
    struct keybox *b = *state;
    struct keybox_state s;
    keybox_publish(b, 0, SLICE("one and a half words"), 100);
    keybox_publish(b, 0, SLICE("one and a half words"), 200);
    assert_int_equal(keybox_generation(b, 0), 1);
    assert_true(keybox_look(b, 0, &s));
    assert_int_equal(s.good_s, 200);
    keybox_publish(b, 0, SLICE("one and a half wordz"), 300);
    assert_int_equal(keybox_generation(b, 0), 2);
    keybox_publish(b, 0, SLICE("one and a half word"), 300);
    assert_int_equal(keybox_generation(b, 0), 3);
}

static void a_failed_fetch_leaves_the_text_and_says_why(void **state)
{
    struct keybox *b = *state;
    struct keybox_state s;
    char longer[1000];
    size_t n;
    uint64_t generation;
    keybox_publish(b, 1, SLICE("text"), 100);
    keybox_failed(b, 1, "the issuer does not answer", 200);
    assert_true(keybox_look(b, 1, &s));
    assert_int_equal(s.good_s, 100);
    assert_int_equal(s.failed_s, 200);
    assert_string_equal(s.why, "the issuer does not answer");
    assert_true(keybox_read(b, 1, g_text, &n, &generation));
    assert_int_equal(n, 4);
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    keybox_failed(b, 1, longer, 300);
    assert_true(keybox_look(b, 1, &s));
    assert_int_equal(strlen(s.why), KEYBOX_WHY_BYTES_MAX - 1);
    keybox_publish(b, 1, SLICE("text"), 400);
    assert_true(keybox_look(b, 1, &s));
    assert_int_equal(s.good_s, 400);
    assert_int_equal(s.failed_s, 300); /* it stays to be read; good_s is later */
}

static void workers_ask_and_the_writer_fetches_once_a_minute(void **state)
{
    struct keybox *b = *state;
    const int64_t minute = KEYBOX_WANTED_NS;
    keybox_want(b, 2);
    assert_true(keybox_wanted(b, 2, 5)); /* none has begun yet */
    assert_false(keybox_wanted(b, 1, 5));
    keybox_begin(b, 2, 5);
    assert_false(keybox_wanted(b, 2, 5 + minute));
    keybox_want(b, 2); /* while it is fetched: not forgotten */
    keybox_publish(b, 2, SLICE("text"), 1);
    assert_false(keybox_wanted(b, 2, 4 + minute));
    assert_true(keybox_wanted(b, 2, 5 + minute));
    keybox_begin(b, 2, 5 + minute);
    assert_false(keybox_wanted(b, 2, 5 + 9 * minute));
}

/* A text that says of itself whether it is whole: n bytes, all the lower part of n. */
static size_t fill(char *text, unsigned round)
{
    size_t n = 1 + (round * 7919) % JWT_JWKS_BYTES_MAX;
    memset(text, (int)(n & 0xff), n);
    return n;
}

static void assert_whole(struct keybox *b)
{
    size_t n;
    uint64_t generation;
    if (!keybox_read(b, 0, g_text, &n, &generation))
        return;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)g_text[i] != (n & 0xff))
            fail_msg("byte %zu of %zu is of another text", i, n);
}

static void a_writer_that_is_killed_anywhere_leaves_a_whole_text(void **state)
{
    struct keybox *b = *state;
    static char text[JWT_JWKS_BYTES_MAX];
    uint64_t last = 0;
    for (int life = 0; life < 40; life++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            for (unsigned round = (unsigned)life;; round++) {
                size_t n = fill(text, round);
                keybox_publish(b, 0, slice_of(text, n), round);
                keybox_failed(b, 0, "why", round);
            }
        }
        /* Not before it has written, nor always at the same place. */
        uint64_t until = last + 2 + (uint64_t)(life * 13 % 37);
        while (keybox_generation(b, 0) < until)
            assert_whole(b);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        size_t n;
        uint64_t generation;
        assert_true(keybox_read(b, 0, g_text, &n, &generation));
        assert_whole(b);
        assert_true(generation >= until);
        last = generation;
        struct keybox_state s;
        assert_true(keybox_look(b, 0, &s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_box_has_nothing, make, unmake),
        cmocka_unit_test_setup_teardown(texts_of_all_lengths_come_back_and_do_not_touch_each_other,
                                        make, unmake),
        cmocka_unit_test_setup_teardown(the_same_text_again_moves_the_time_alone, make, unmake),
        cmocka_unit_test_setup_teardown(a_failed_fetch_leaves_the_text_and_says_why, make, unmake),
        cmocka_unit_test_setup_teardown(workers_ask_and_the_writer_fetches_once_a_minute, make,
                                        unmake),
        cmocka_unit_test_setup_teardown(a_writer_that_is_killed_anywhere_leaves_a_whole_text, make,
                                        unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
