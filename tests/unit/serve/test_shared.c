/* shared: whoever was granted something is woken, however many they are. */
#include "../conf/conf_helper.h"

#include <unistd.h>

#include "base/clock.h"
#include "conf/yaml.h"
#include "serve/shared.h"

enum { WAITING = 40, SLOTS = 64, DEAD = 63 };

static const char POLICY[] = "routes:\n- {match: /*, name: all, concurrency: 40, queue: 40}\n";

static struct shared *shared_of_policy(struct conf *c)
{
    struct err e = {{0}};
    assert_int_equal(conf_init(c, CONF_WEIR, &e), 0);
    if (conf_yaml_parse(c, "weir.yaml", POLICY, sizeof POLICY - 1, &e))
        fail_msg("%s", e.text);
    struct shared *s = shared_new(SLOTS);
    assert_non_null(s);
    assert_int_equal(shared_need(s, c, &e), 0);
    assert_non_null(s->parts.gates);
    return s;
}

static enum gate_verdict enter(struct shared *s, uint32_t route, uint32_t slot)
{
    struct gate_answer answer;
    struct gate_ask ask = {.route = route,
                           .limits = {WAITING, WAITING, (int64_t)1000000000 * 60, 0},
                           .owner = {slot, 1},
                           .flow = slot,
                           .weight = 1,
                           .deadline_ns = INT64_MAX,
                           .cookie = slot};
    return gates_enter(s->parts.gates, &ask, clock_mono_ns(), &answer);
}

static void the_end_of_a_worker_wakes_all_that_it_held_up(void **state)
{
    (void)state;
    struct conf c;
    struct shared *s = shared_of_policy(&c);
    uint32_t route = gates_route(s->parts.gates, "all");
    for (unsigned i = 0; i < WAITING; i++)
        assert_int_equal(enter(s, route, DEAD), GATE_ENTERED);
    for (uint32_t slot = 0; slot < WAITING; slot++)
        assert_int_equal(enter(s, route, slot), GATE_QUEUED);
    shared_sweep(s, (struct gate_owner){DEAD, 1});
    for (uint32_t slot = 0; slot < WAITING; slot++) {
        uint64_t count, cookie;
        if (read(s->wakes[slot], &count, sizeof count) != (ssize_t)sizeof count)
            fail_msg("slot %u was not woken", slot);
        assert_int_equal(
            gates_take_granted(s->parts.gates, (struct gate_owner){slot, 1}, &cookie, 1), 1);
        assert_int_equal(cookie, slot);
    }
    shared_free(&s);
    conf_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_of_a_worker_wakes_all_that_it_held_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
