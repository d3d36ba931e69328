/* trace: what of a traceparent is taken, what is written, and that ids are what they have to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "obs/trace.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static void a_valid_traceparent_is_taken(void **state)
{
    (void)state;
    struct trace_context t;
    static const unsigned char trace[16] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                                            0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};
    static const unsigned char parent[8] = {0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7};
    static const unsigned char none[8];
    assert_true(trace_parse(&t, SLICE("00-" TRACE "-" PARENT "-01")));
    assert_memory_equal(t.trace_id, trace, 16);
    assert_memory_equal(t.parent_id, parent, 8);
    assert_memory_equal(t.span_id, none, 8);
    assert_true(t.sampled);
}

/* Section 3.2.2.5: only the lowest bit is known; the others say nothing. */
static void of_the_flags_only_sampled_counts(void **state)
{
    (void)state;
    static const struct {
        const char *flags;
        bool sampled;
    } FLAGS[] = {{"00", false}, {"01", true}, {"02", false},
                 {"03", true},  {"ff", true}, {"fe", false}};
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        struct trace_context t;
        char text[64], out[TRACE_PARENT_BYTES];
        snprintf(text, sizeof text, "00-" TRACE "-" PARENT "-%s", FLAGS[i].flags);
        assert_true(trace_parse(&t, slice_str(text)));
        assert_int_equal(t.sampled, FLAGS[i].sampled);
        trace_pass(&t);
        trace_write(out, &t);
        assert_memory_equal(out + 53, FLAGS[i].sampled ? "01" : "00", 2);
    }
}

static void what_is_not_valid_is_nothing(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",
        "00",
        "00-" TRACE "-" PARENT "-",
        "00-" TRACE "-" PARENT "-0",
        "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT,
        "00-" TRACE "-" PARENT "-01-", /* version 00 has nothing behind its flags */
        "00-" TRACE "-" PARENT "-01-what-follows",
        "00-" TRACE "-" PARENT "-011",
        "ff-" TRACE "-" PARENT "-01", /* forbidden version */
        "ff-" TRACE "-" PARENT "-01-what-follows",
        "0-" TRACE "-" PARENT "-011",
        "0g-" TRACE "-" PARENT "-01",
        "0F-" TRACE "-" PARENT "-01",
        "000-" TRACE "-" PARENT "-01",
        "01-" TRACE "-" PARENT "-011", /* more only behind a hyphen */
        "01-" TRACE "-" PARENT "-01.more",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473G-" PARENT "-01",
        "00-" TRACE "-00F067AA0BA902B7-01",
        "00-" TRACE "-" PARENT "-0A",
        "00-" TRACE "-" PARENT "-0x",
        "00-" TRACE "-00f067aa0ba902-01",     /* an id that is too short */
        "00-" TRACE "-00f067aa0ba902b7b7-01", /* too long */
        "00-4bf92f3577b34da6a3ce929d0e0e47-" PARENT "-01-0",
        "00_" TRACE "_" PARENT "_01",
        "00-" TRACE " " PARENT "-01",
        " 00-" TRACE "-" PARENT "-01",
        "00-" TRACE "-" PARENT "-01 ",
        "00-" TRACE "-" PARENT "-01,00-" TRACE "-" PARENT "-01", /* two lines joined */
    };
    static const struct trace_context nothing;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        /* Of its exact length, so that a sanitizer sees a byte read behind it. */
        size_t n = strlen(BAD[i]);
        char *exact = malloc(n ? n : 1);
        struct trace_context t;
        assert_non_null(exact);
        memset(&t, 0x55, sizeof t);
        memcpy(exact, BAD[i], n);
        if (trace_parse(&t, slice_of(exact, n)))
            fail_msg("taken: %s", BAD[i]);
        assert_memory_equal(t.trace_id, nothing.trace_id, sizeof t.trace_id);
        assert_memory_equal(t.parent_id, nothing.parent_id, sizeof t.parent_id);
        assert_false(t.sampled);
        free(exact);
    }
}

/* Section 3.2.2: who does not know a version reads what he knows of it, and writes his own. */
static void a_later_version_is_read_as_far_as_it_is_known(void **state)
{
    (void)state;
    static const char *const GOOD[] = {
        "01-" TRACE "-" PARENT "-01",
        "01-" TRACE "-" PARENT "-01-",
        "01-" TRACE "-" PARENT "-01-what-follows",
        "cc-" TRACE "-" PARENT "-01-what-follows.and-more",
        "fe-" TRACE "-" PARENT "-09",
    };
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        struct trace_context t;
        char out[TRACE_PARENT_BYTES];
        if (!trace_parse(&t, slice_str(GOOD[i])))
            fail_msg("not taken: %s", GOOD[i]);
        trace_pass(&t);
        trace_write(out, &t);
        assert_memory_equal(out, "00-" TRACE "-" PARENT "-01", TRACE_PARENT_BYTES);
    }
}

static void a_span_of_ours_is_the_parent_of_who_is_called(void **state)
{
    (void)state;
    struct trace_source s;
    struct trace_context t, seen;
    char out[TRACE_PARENT_BYTES];
    assert_int_equal(trace_source_init(&s), 0);
    assert_true(trace_parse(&t, SLICE("00-" TRACE "-" PARENT "-00")));
    trace_span(&t, &s);
    trace_write(out, &t);
    assert_memory_equal(out, "00-" TRACE "-", 36);
    assert_memory_not_equal(out + 36, PARENT, 16);
    assert_memory_equal(out + 52, "-00", 3);
    assert_true(trace_parse(&seen, slice_of(out, sizeof out)));
    assert_memory_equal(seen.trace_id, t.trace_id, 16);
    assert_memory_equal(seen.parent_id, t.span_id, 8);
}

static void a_trace_that_begins_here_has_no_parent_and_is_valid(void **state)
{
    (void)state;
    static const unsigned char none[8];
    struct trace_source s;
    struct trace_context t, seen;
    char out[TRACE_PARENT_BYTES];
    assert_int_equal(trace_source_init(&s), 0);
    trace_begin(&t, &s, 1000);
    assert_memory_equal(t.parent_id, none, 8);
    assert_memory_not_equal(t.span_id, none, 8);
    assert_true(t.sampled);
    trace_write(out, &t);
    assert_true(trace_parse(&seen, slice_of(out, sizeof out)));
    assert_true(seen.sampled);
}

static void as_many_traces_are_sampled_as_was_said(void **state)
{
    (void)state;
    static const unsigned PERMILLE[] = {0, 1, 10, 250, 500, 999, 1000};
    enum { N = 100000 };
    struct trace_source s = {.s = {1, 2}}; /* the same numbers each time */
    for (size_t i = 0; i < sizeof PERMILLE / sizeof PERMILLE[0]; i++) {
        int sampled = 0;
        for (int k = 0; k < N; k++) {
            struct trace_context t;
            trace_begin(&t, &s, PERMILLE[i]);
            sampled += t.sampled;
        }
        int wanted = (int)PERMILLE[i] * (N / 1000);
        int slack = PERMILLE[i] % 1000 ? 700 : 0; /* more than four standard deviations */
        assert_in_range(sampled, wanted > slack ? wanted - slack : 0, wanted + slack);
        assert_true(sampled > 0 || !PERMILLE[i]);
        assert_true(sampled < N || PERMILLE[i] == 1000);
    }
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, REQUEST_ID_BYTES);
}

static void ids_are_hexadecimal_and_none_comes_twice(void **state)
{
    (void)state;
    enum { N = 20000 };
    static const char DIGITS[] = "0123456789abcdef";
    static char ids[N][REQUEST_ID_BYTES];
    struct trace_source s, other;
    assert_int_equal(trace_source_init(&s), 0);
    assert_int_equal(trace_source_init(&other), 0);
    /* Two sources begin with the same number, and differ by their secret. */
    for (size_t i = 0; i < N; i++)
        request_id_write(ids[i], i % 2 ? &s : &other);
    unsigned seen[16] = {0};
    for (size_t i = 0; i < N; i++) {
        assert_true(request_id_is_good(slice_of(ids[i], REQUEST_ID_BYTES)));
        for (size_t k = 0; k < REQUEST_ID_BYTES; k++) {
            const char *at = memchr(DIGITS, ids[i][k], 16);
            assert_non_null(at);
            seen[at - DIGITS]++;
        }
    }
    for (size_t d = 0; d < 16; d++) /* 40,000 of each are expected */
        assert_in_range(seen[d], 38000, 42000);
    qsort(ids, N, sizeof ids[0], by_bytes);
    for (size_t i = 1; i < N; i++)
        assert_memory_not_equal(ids[i - 1], ids[i], REQUEST_ID_BYTES);
}

static void bytes_are_written_high_half_first(void **state)
{
    (void)state;
    unsigned char all[256];
    char text[513];
    for (unsigned i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    trace_hex(text, all, sizeof all);
    for (unsigned i = 0; i < 256; i++) {
        char two[3];
        snprintf(two, sizeof two, "%02x", i);
        assert_memory_equal(text + 2 * i, two, 2);
    }
}

static void a_request_id_of_a_client_is_short_and_plain(void **state)
{
    (void)state;
    static const char GOOD[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    assert_true(request_id_is_good(slice_str(GOOD)));
    assert_int_equal(strlen(GOOD), REQUEST_ID_BYTES_MAX);
    assert_true(request_id_is_good(SLICE("a")));
    assert_true(request_id_is_good(SLICE("Root=1-67891233-abcdef012345678912345678")));
    assert_true(request_id_is_good(SLICE("a.b:c/d+e=f@g")));
    assert_false(request_id_is_good(SLICE("")));
    assert_false(request_id_is_good((struct slice){0}));
    assert_false(request_id_is_good(
        SLICE("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_a")));
    for (unsigned b = 0; b < 256; b++) {
        char one = (char)b;
        bool good = b && (strchr(GOOD, one) || strchr(".:/+=@", one));
        assert_int_equal(request_id_is_good(slice_of(&one, 1)), good);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_traceparent_is_taken),
        cmocka_unit_test(of_the_flags_only_sampled_counts),
        cmocka_unit_test(what_is_not_valid_is_nothing),
        cmocka_unit_test(a_later_version_is_read_as_far_as_it_is_known),
        cmocka_unit_test(a_span_of_ours_is_the_parent_of_who_is_called),
        cmocka_unit_test(a_trace_that_begins_here_has_no_parent_and_is_valid),
        cmocka_unit_test(as_many_traces_are_sampled_as_was_said),
        cmocka_unit_test(ids_are_hexadecimal_and_none_comes_twice),
        cmocka_unit_test(bytes_are_written_high_half_first),
        cmocka_unit_test(a_request_id_of_a_client_is_short_and_plain),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
