/* worker_process: what a worker does on signals, and without its supervisor. */
#include "proc_helper.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "proc/worker_process.h"

static struct scoreboard *board;
static int ends[2]; /* [0] the supervisor's */

static struct worker_process worker_of(pid_t supervisor)
{
    return (struct worker_process){
        .board = board, .tell_fd = ends[1], .supervisor = supervisor, .grace_ms = 60000};
}

static int setup(void **state)
{
    (void)state;
    log_setup(NULL, LOG_CRITICAL, false);
    board = scoreboard_new(2);
    return !board || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);
}

static int teardown(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    scoreboard_free(&board);
    return 0;
}

static void term_hands_over_unless_the_whole_server_stops(void **state)
{
    (void)state;
    struct worker_process w = worker_of(getppid());
    assert_int_equal(worker_process_on_signal(&w, SIGTERM), WORKER_HANDOVER);
    atomic_store(&board->stopping, 1);
    assert_int_equal(worker_process_on_signal(&w, SIGTERM), WORKER_DRAIN);
    atomic_store(&board->stopping, 0);
    w.supervisor = getppid() + 1; /* it has ended: so have the others */
    assert_int_equal(worker_process_on_signal(&w, SIGTERM), WORKER_DRAIN);
}

static void the_other_signals_mean_what_gunicorn_means(void **state)
{
    (void)state;
    struct worker_process w = worker_of(getppid());
    assert_int_equal(worker_process_on_signal(&w, SIGINT), WORKER_END);
    assert_int_equal(worker_process_on_signal(&w, SIGQUIT), WORKER_END);
    assert_int_equal(worker_process_on_signal(&w, SIGUSR1), WORKER_REOPEN);
    assert_int_equal(worker_process_on_signal(&w, SIGABRT), WORKER_ABORT);
    assert_int_equal(worker_process_on_signal(&w, SIGHUP), WORKER_GO_ON);
}

static void ready_is_one_byte(void **state)
{
    (void)state;
    char bytes[8];
    struct worker_process w = worker_of(getppid());
    worker_process_ready(&w);
    assert_int_equal(recv(ends[0], bytes, sizeof bytes, 0), 1);
}

/* Ends only by KILL: the timer is the kernel's. */
static int lose_the_supervisor(void *arg)
{
    (void)arg;
    struct worker_process w = worker_of(getppid());
    w.grace_ms = 50;
    if (worker_process_on_tell(&w) != WORKER_GO_ON) /* nothing has happened yet */
        return 1;
    char byte = 'x';
    ssize_t n = send(ends[0], &byte, 1, 0);
    if (n != 1 || worker_process_on_tell(&w) != WORKER_GO_ON)
        return 2;
    shutdown(ends[0], SHUT_WR); /* the test has a copy */
    if (worker_process_on_tell(&w) != WORKER_DRAIN || w.tell_fd != -1 || !w.orphan)
        return 3;
    if (worker_process_on_signal(&w, SIGTERM) != WORKER_DRAIN)
        return 4;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    poll(NULL, 0, 20000);
    return 5;
}

static void an_orphan_finishes_and_is_ended_by_the_kernel_after_the_grace(void **state)
{
    (void)state;
    int64_t begin_ns = clock_mono_ns();
    assert_int_equal(in_child(lose_the_supervisor, NULL), 1000 + SIGKILL);
    assert_true(clock_mono_ns() - begin_ns >= (50 + WORKER_ORPHAN_EXTRA_MS) * INT64_C(1000000));
}

static int begin_under_another_parent(void *arg)
{
    (void)arg;
    struct worker_process w = worker_of(getppid() + 1);
    return worker_process_begin(&w) == -1 ? 0 : 1;
}

static int begin_and_get_what_is_the_supervisors(void *arg)
{
    (void)arg;
    struct worker_process w = worker_of(getppid());
    if (worker_process_begin(&w))
        return 1;
    raise(SIGHUP);
    raise(SIGUSR1);
    raise(SIGUSR2);
    return 0;
}

static void a_worker_that_begins_is_not_ended_by_what_is_meant_for_the_supervisor(void **state)
{
    (void)state;
    assert_int_equal(in_child(begin_and_get_what_is_the_supervisors, NULL), 0);
    assert_int_equal(in_child(begin_under_another_parent, NULL), 0);
}

/* Make a worker, wait until it has begun, and end. It alone has `held` then. */
static int leave_a_worker(void *arg)
{
    int held = *(int *)arg, began[2];
    pid_t self = getpid();
    char byte = 1;
    if (pipe(began))
        return 1;
    if (fork() == 0) {
        struct worker_process w = worker_of(self);
        byte = worker_process_begin(&w) ? 1 : 0;
        ssize_t n = write(began[1], &byte, 1);
        poll(NULL, 0, 20000);
        _exit((int)n + held);
    }
    return read(began[0], &byte, 1) == 1 ? byte : 1;
}

static void a_worker_does_not_outlive_its_supervisor(void **state)
{
    (void)state;
    char byte;
    int pair[2];
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(in_child(leave_a_worker, &pair[1]), 0);
    close(pair[1]);
    struct pollfd gone = {.fd = pair[0], .events = POLLIN};
    assert_int_equal(poll(&gone, 1, 5000), 1);
    assert_int_equal(read(pair[0], &byte, 1), 0);
    close(pair[0]);
}

static void one_worker_says_why_it_cannot_start(void **state)
{
    (void)state;
    struct worker_process w = worker_of(getppid());
    assert_true(worker_process_may_complain(&w));
    assert_false(worker_process_may_complain(&w));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(term_hands_over_unless_the_whole_server_stops),
        TEST(the_other_signals_mean_what_gunicorn_means),
        TEST(ready_is_one_byte),
        TEST(an_orphan_finishes_and_is_ended_by_the_kernel_after_the_grace),
        TEST(a_worker_that_begins_is_not_ended_by_what_is_meant_for_the_supervisor),
        TEST(a_worker_does_not_outlive_its_supervisor),
        TEST(one_worker_says_why_it_cannot_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
