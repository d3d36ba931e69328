/* template: words with descriptors, full sockets, and ends that close. */
#include "proc_helper.h"

#include <errno.h>
#include <fcntl.h>

#include "proc/template.h"

static int ends[2];

static int make(void **state)
{
    (void)state;
    return template_pair(ends);
}

static int drop(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void an_order_brings_its_descriptor(void **state)
{
    (void)state;
    int pipe_ends[2], fd;
    char byte;
    struct template_word out = {.kind = TEMPLATE_FORK,
                                .slot = 7,
                                .age = 9,
                                .grace_ms = 1234567890123},
                         in;
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(template_send(ends[0], &out, pipe_ends[1]), 0);
    close(pipe_ends[1]);
    assert_int_equal(template_receive(ends[1], &in, &fd), 1);
    assert_memory_equal(&in, &out, sizeof in);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(read(pipe_ends[0], &byte, 1), 1);
    close(fd);
    close(pipe_ends[0]);
}

static void answers_come_one_by_one_and_the_supervisor_does_not_wait(void **state)
{
    (void)state;
    struct template_word w = {.kind = TEMPLATE_READY};
    int fd;
    assert_int_equal(template_receive(ends[0], &w, &fd), -EAGAIN);
    assert_int_equal(template_send(ends[1], &w, -1), 0);
    w = (struct template_word){.kind = TEMPLATE_FORKED, .slot = 1, .pid = 4711};
    assert_int_equal(template_send(ends[1], &w, -1), 0);
    assert_int_equal(template_receive(ends[0], &w, &fd), 1);
    assert_int_equal(w.kind, TEMPLATE_READY);
    assert_int_equal(fd, -1);
    assert_int_equal(template_receive(ends[0], &w, &fd), 1);
    assert_int_equal(w.pid, 4711);
    assert_int_equal(template_receive(ends[0], &w, &fd), -EAGAIN);
}

static void too_many_orders_are_refused_not_waited_for(void **state)
{
    (void)state;
    struct template_word w = {.kind = TEMPLATE_FORK};
    int n = 0, rc, fd;
    while ((rc = template_send(ends[0], &w, STDIN_FILENO)) == 0)
        assert_true(++n < 100000);
    assert_int_equal(rc, -EAGAIN);
    assert_true(n > 32);
    assert_int_equal(template_receive(ends[1], &w, &fd), 1);
    close(fd);
}

static void the_end_of_the_other_is_seen_by_both(void **state)
{
    (void)state;
    struct template_word w = {.kind = TEMPLATE_FORK};
    int fd, other[2];
    assert_int_equal(template_pair(other), 0);
    assert_int_equal(template_send(other[0], &w, STDIN_FILENO), 0);
    close(other[1]); /* with an order unread */
    assert_int_equal(template_receive(other[0], &w, &fd), 0);
    assert_int_equal(template_send(other[0], &w, -1), -EPIPE);
    close(other[0]);
    assert_int_equal(template_pair(other), 0);
    assert_int_equal(template_send(other[0], &w, STDIN_FILENO), 0);
    close(other[0]);
    assert_int_equal(template_receive(other[1], &w, &fd),
                     1); /* what was said before still arrives */
    close(fd);
    assert_int_equal(template_receive(other[1], &w, &fd), 0);
    assert_int_equal(fd, -1);
    close(other[1]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make, drop)
    const struct CMUnitTest tests[] = {
        T(an_order_brings_its_descriptor),
        T(answers_come_one_by_one_and_the_supervisor_does_not_wait),
        T(too_many_orders_are_refused_not_waited_for),
        T(the_end_of_the_other_is_seen_by_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
