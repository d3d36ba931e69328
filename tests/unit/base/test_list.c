/* Order, removal, and that a node on no list may be removed again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/attr.h"
#include "base/list.h"

struct item {
    int value;
    struct list node;
};

static void expect(const struct list *head, const int *values, size_t n)
{
    const struct list *at = head;
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(at->next->prev, at);
        at = at->next;
        assert_int_equal(container_of(at, const struct item, node)->value, values[i]);
    }
    assert_ptr_equal(at->next, head);
    assert_ptr_equal(head->prev, at);
}

static void nodes_come_in_the_order_they_were_added(void **state)
{
    (void)state;
    struct list head;
    struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    assert_true(list_empty(&head));
    for (int i = 0; i < 3; i++)
        list_add(&head, &items[i].node);
    assert_false(list_empty(&head));
    expect(&head, (const int[]){1, 2, 3}, 3);
}

static void removed_node_is_on_no_list(void **state)
{
    (void)state;
    struct list head, other;
    struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 3; i++)
        list_add(&head, &items[i].node);
    list_del(&items[1].node);
    assert_true(list_empty(&items[1].node));
    list_del(&items[1].node); /* twice is harmless */
    expect(&head, (const int[]){1, 3}, 2);
    list_add(&other, &items[1].node);
    expect(&other, (const int[]){2}, 1);
    list_del(&items[0].node);
    list_del(&items[2].node);
    assert_true(list_empty(&head));
    expect(&other, (const int[]){2}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_come_in_the_order_they_were_added),
        cmocka_unit_test(removed_node_is_on_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
