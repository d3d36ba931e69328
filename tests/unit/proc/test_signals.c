/* signals: numbers in a pipe, and children that know nothing of it. */
#include "proc_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include "proc/signals.h"

static int setup(void **state)
{
    (void)state;
    struct err e;
    return signals_open(&e);
}

static int teardown(void **state)
{
    (void)state;
    signals_give_back();
    return 0;
}

static void numbers_come_in_order(void **state)
{
    (void)state;
    unsigned char got[8];
    struct pollfd ready = {.fd = signals_fd(), .events = POLLIN};
    assert_true(signals_take(SIGUSR1) && signals_take(SIGHUP));
    assert_int_equal(poll(&ready, 1, 0), 0);
    raise(SIGHUP);
    raise(SIGUSR1);
    raise(SIGHUP);
    assert_int_equal(poll(&ready, 1, 0), 1);
    assert_int_equal(signals_read(got, sizeof got), 3);
    assert_true(got[0] == SIGHUP && got[1] == SIGUSR1 && got[2] == SIGHUP);
    assert_int_equal(signals_read(got, sizeof got), 0);
}

static void what_came_before_an_opening_is_forgotten(void **state)
{
    (void)state;
    struct err e;
    unsigned char got[8];
    assert_true(signals_take(SIGUSR1));
    raise(SIGUSR1);
    assert_int_equal(signals_open(&e), 0);
    assert_int_equal(signals_read(got, sizeof got), 0);
}

static void what_came_early_waits_for_the_opening(void **state)
{
    (void)state;
    struct err e;
    unsigned char got[8];
    sigset_t mask, before;
    signals_give_back();
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    signals_hold();
    raise(SIGHUP); /* it would end this process */
    assert_int_equal(signals_read(got, sizeof got), 0);
    assert_int_equal(signals_early(&e), 0);
    raise(SIGTERM);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGHUP), 0);
    assert_int_equal(signals_open(&e), 0);
    assert_int_equal(signals_read(got, sizeof got), 2);
    assert_true(got[0] == SIGHUP && got[1] == SIGTERM);
    assert_int_equal(signals_open(&e), 0); /* only once */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void an_ignored_signal_tells_nothing(void **state)
{
    (void)state;
    unsigned char got[8];
    assert_true(signals_ignore(SIGHUP));
    raise(SIGHUP);
    assert_int_equal(signals_read(got, sizeof got), 0);
}

static void handler(int signo)
{
    (void)signo;
}

static void what_was_there_before_comes_back(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = handler}, now;
    sigaction(SIGUSR2, &mine, NULL);
    assert_true(signals_ignore(SIGUSR2) && signals_take(SIGUSR2));
    signals_give_back();
    sigaction(SIGUSR2, NULL, &now);
    assert_true(now.sa_handler == handler);
    signal(SIGUSR2, SIG_DFL);
}

/* 0: the child's signals are as they were before, and the pipe is not there. */
static int child_is_plain(void *arg)
{
    (void)arg;
    struct sigaction now;
    sigset_t mask;
    sigaction(SIGTERM, NULL, &now);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    unsigned char got[1];
    return now.sa_handler != SIG_DFL     ? 1
           : sigismember(&mask, SIGTERM) ? 2
           : signals_fd() >= 0           ? 3
           : signals_read(got, 1)        ? 4
                                         : 0;
}

static void a_child_has_the_handlers_of_before(void **state)
{
    (void)state;
    assert_true(signals_take(SIGTERM));
    raise(SIGTERM);
    assert_int_equal(in_child(child_is_plain, NULL), 0);
    unsigned char got[8];
    assert_int_equal(signals_read(got, sizeof got), 1); /* the parent's is still there */
}

static int child_dies_of_term(void *arg)
{
    (void)arg;
    raise(SIGTERM);
    return 1;
}

static void what_ends_a_child_does_not_reach_its_parent(void **state)
{
    (void)state;
    unsigned char got[8];
    assert_true(signals_take(SIGTERM));
    assert_int_equal(in_child(child_dies_of_term, NULL), 1000 + SIGTERM);
    assert_int_equal(signals_read(got, sizeof got), 0);
}

static int called;

static void on_child(void)
{
    called = 1;
}

static int was_called(void *arg)
{
    (void)arg;
    return called;
}

static void a_child_does_what_it_is_told_first(void **state)
{
    (void)state;
    signals_on_child(on_child);
    assert_int_equal(in_child(was_called, NULL), 1);
    assert_int_equal(called, 0);
    signals_on_child(NULL);
}

static void *raise_here(void *arg)
{
    (void)arg;
    pthread_kill(pthread_self(), SIGUSR1);
    return NULL;
}

static void any_thread_may_get_it(void **state)
{
    (void)state;
    unsigned char got[8];
    pthread_t thread;
    assert_true(signals_take(SIGUSR1));
    assert_int_equal(pthread_create(&thread, NULL, raise_here, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(signals_read(got, sizeof got), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(numbers_come_in_order),
        TEST(what_came_before_an_opening_is_forgotten),
        TEST(what_came_early_waits_for_the_opening),
        TEST(an_ignored_signal_tells_nothing),
        TEST(what_was_there_before_comes_back),
        TEST(a_child_has_the_handlers_of_before),
        TEST(what_ends_a_child_does_not_reach_its_parent),
        TEST(a_child_does_what_it_is_told_first),
        TEST(any_thread_may_get_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
