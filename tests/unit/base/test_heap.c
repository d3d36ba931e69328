/* Order, removal from everywhere, and a model: whatever is added and removed, the top is the
 * smallest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/heap.h"

static int64_t take_top(struct heap *h)
{
    assert_non_null(h->top);
    int64_t key = h->top->key;
    heap_del(h, h->top);
    return key;
}

static void nodes_come_out_in_the_order_of_their_keys(void **state)
{
    (void)state;
    static const int64_t keys[] = {5, INT64_MAX, 3, 8, -1, 3, 0, INT64_MIN, 7};
    static const int64_t sorted[] = {INT64_MIN, -1, 0, 3, 3, 5, 7, 8, INT64_MAX};
    struct heap h = {0};
    struct heap_node nodes[countof(keys)] = {0};
    for (unsigned i = 0; i < countof(keys); i++)
        heap_add(&h, &nodes[i], keys[i]);
    for (unsigned i = 0; i < countof(keys); i++)
        assert_int_equal(take_top(&h), sorted[i]);
    assert_null(h.top);
}

static void removed_node_is_on_no_heap(void **state)
{
    (void)state;
    struct heap h = {0};
    struct heap_node a = {0}, b = {0}, c = {0};
    assert_false(heap_has(&a));
    heap_del(&h, &a); /* harmless */
    heap_add(&h, &a, 1);
    heap_add(&h, &b, 2);
    heap_add(&h, &c, 3);
    assert_true(heap_has(&a) && heap_has(&b) && heap_has(&c));
    heap_del(&h, &b);
    heap_del(&h, &b); /* twice, too */
    assert_false(heap_has(&b));
    assert_ptr_equal(h.top, &a);
    heap_del(&h, &a);
    assert_ptr_equal(h.top, &c);
    heap_add(&h, &a, 4); /* and again, with another key */
    assert_ptr_equal(h.top, &c);
    heap_del(&h, &c);
    assert_ptr_equal(h.top, &a);
    heap_del(&h, &a);
    assert_null(h.top);
}

static void inner_nodes_leave_what_is_below_them(void **state)
{
    (void)state;
    struct heap h = {0};
    struct heap_node nodes[64] = {0};
    for (int i = 0; i < 64; i++)
        heap_add(&h, &nodes[i], i);
    assert_int_equal(take_top(&h), 0); /* pairs them up: there are inner nodes now */
    for (int i = 2; i < 64; i += 2)
        heap_del(&h, &nodes[i]);
    for (int i = 1; i < 64; i += 2)
        assert_int_equal(take_top(&h), i);
    assert_null(h.top);
}

static uint64_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* Beside a plain array. */
static void whatever_happens_the_top_is_the_smallest(void **state)
{
    (void)state;
    enum { NODES = 200, STEPS = 200000 };
    struct heap h = {0};
    struct heap_node *nodes = calloc(NODES, sizeof *nodes);
    assert_non_null(nodes);
    uint64_t seed = 1;
    for (int step = 0; step < STEPS; step++) {
        struct heap_node *n = &nodes[random_next(&seed) % NODES];
        if (heap_has(n))
            heap_del(&h, n);
        else
            heap_add(&h, n, (int64_t)(random_next(&seed) % 100));
        if (step % 7 == 0 && h.top)
            heap_del(&h, h.top);
        const struct heap_node *least = NULL;
        for (unsigned i = 0; i < NODES; i++)
            if (heap_has(&nodes[i]) && (!least || nodes[i].key < least->key))
                least = &nodes[i];
        assert_int_equal(h.top == NULL, least == NULL);
        if (least)
            assert_int_equal(h.top->key, least->key);
    }
    free(nodes);
}

static void hundred_thousand_in_a_row_need_no_stack(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    struct heap h = {0};
    struct heap_node *nodes = calloc(MANY, sizeof *nodes);
    assert_non_null(nodes);
    for (int i = 0; i < MANY; i++)
        heap_add(&h, &nodes[i], i);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(take_top(&h), i);
    for (int i = MANY; i > 0; i--)
        heap_add(&h, &nodes[i - 1], i);
    for (int i = 1; i <= MANY; i++)
        assert_int_equal(take_top(&h), i);
    free(nodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_come_out_in_the_order_of_their_keys),
        cmocka_unit_test(removed_node_is_on_no_heap),
        cmocka_unit_test(inner_nodes_leave_what_is_below_them),
        cmocka_unit_test(whatever_happens_the_top_is_the_smallest),
        cmocka_unit_test(hundred_thousand_in_a_row_need_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
