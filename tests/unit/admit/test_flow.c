/* Which clients are one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "admit/flow.h"
#include "base/must.h"

static void an_ipv4_address_stands_for_itself(void **state)
{
    (void)state;
    struct flow_net net = flow_net("192.0.2.1");
    assert_int_equal(net.n, 4);
    assert_memory_equal(net.bytes, "\xc0\x00\x02\x01", 4);
}

static void an_ipv6_address_stands_for_its_network(void **state)
{
    (void)state;
    struct flow_net a = flow_net("2001:db8:1:2:3:4:5:6"), b = flow_net("2001:db8:1:2::1%eth0");
    struct flow_net c = flow_net("2001:db8:1:3::1");
    assert_int_equal(a.n, 8);
    assert_true(slice_eq(flow_net_slice(&a), flow_net_slice(&b)));
    assert_false(slice_eq(flow_net_slice(&a), flow_net_slice(&c)));
}

static void an_ipv4_address_in_ipv6_is_the_ipv4_address(void **state)
{
    (void)state;
    struct flow_net a = flow_net("::ffff:192.0.2.1"), b = flow_net("192.0.2.1");
    assert_true(slice_eq(flow_net_slice(&a), flow_net_slice(&b)));
}

static void what_is_no_address_has_no_network(void **state)
{
    (void)state;
    assert_int_equal(flow_net("").n, 0);
    assert_int_equal(flow_net("unknown").n, 0);
    assert_int_equal(flow_net("1.2.3").n, 0);
    assert_int_equal(flow_net("2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001").n, 0);
}

static void flows_are_of_this_table_and_of_one_kind(void **state)
{
    (void)state;
    struct rates *r = rates_new(10), *other = rates_new(10);
    must(r && other);
    uint64_t user = flow_of_user(r, SLICE("\xc0\x00\x02\x01"));
    assert_int_equal(user, flow_of_user(r, SLICE("\xc0\x00\x02\x01")));
    assert_int_not_equal(user, flow_of_user(other, SLICE("\xc0\x00\x02\x01")));
    assert_int_not_equal(user, flow_of_address(r, "192.0.2.1"));
    assert_int_equal(flow_of_address(r, "2001:db8::1"), flow_of_address(r, "2001:db8::2"));
    assert_int_not_equal(flow_of_address(r, "192.0.2.1"), flow_of_address(r, "192.0.2.2"));
    rates_free(r);
    rates_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ipv4_address_stands_for_itself),
        cmocka_unit_test(an_ipv6_address_stands_for_its_network),
        cmocka_unit_test(an_ipv4_address_in_ipv6_is_the_ipv4_address),
        cmocka_unit_test(what_is_no_address_has_no_network),
        cmocka_unit_test(flows_are_of_this_table_and_of_one_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
