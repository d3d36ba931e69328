/* loop: nothing that is to be written waits for the next event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/loop.h"

/* Who would be waited for, if the turn did. */
static const uint64_t LONG_MS = 5000;

static struct list connection;
static unsigned flushed;

static void flush_one(struct list *node)
{
    assert_ptr_equal(node, &connection);
    flushed++;
}

static void on_due(uv_timer_t *timer)
{
    struct loop *l = timer->data;
    list_add(&l->flush, &connection);
}

static void on_late(uv_timer_t *timer)
{
    (void)timer;
}

static void what_a_timer_writes_does_not_wait_for_the_next_event(void **state)
{
    (void)state;
    struct loop l;
    uv_timer_t due, late;
    assert_int_equal(loop_init(&l), 0);
    l.flush_one = flush_one;
    list_init(&connection);
    uv_timer_init(&l.uv, &due);
    uv_timer_init(&l.uv, &late);
    due.data = &l;
    uv_timer_start(&late, on_late, LONG_MS, 0);
    uv_timer_start(&due, on_due, 0, 0); /* due when the turn begins */
    uint64_t begun_ms = loop_now_ms(&l);
    loop_turn(&l, true);
    assert_int_equal(flushed, 1);
    assert_true(loop_now_ms(&l) - begun_ms < LONG_MS / 2);
    uv_close((uv_handle_t *)&due, NULL);
    uv_close((uv_handle_t *)&late, NULL);
    loop_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_timer_writes_does_not_wait_for_the_next_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
