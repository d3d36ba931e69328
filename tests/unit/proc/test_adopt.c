/* adopt: grandchildren that are children. */
#include "proc_helper.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <signal.h>
#include <sys/resource.h>

#include "proc/adopt.h"

static int told[2]; /* a pipe that everybody writes to */

struct word {
    pid_t pid, parent;
};

static void tell(void)
{
    struct word w = {getpid(), getppid()};
    ssize_t n = write(told[1], &w, sizeof w);
    (void)n;
}

static struct word hear(void)
{
    struct word w = {0, 0};
    assert_int_equal(read(told[0], &w, sizeof w), sizeof w);
    return w;
}

static bool silent(void)
{
    struct pollfd p = {.fd = told[0], .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static int make(void **state)
{
    (void)state;
    assert_int_equal(pipe(told), 0);
    assert_int_equal(adopt_orphans(), 0);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    close(told[0]);
    close(told[1]);
    return 0;
}

static int template_of_three(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        int go;
        pid_t pid = adopt_fork(&go);
        if (pid == 0) {
            tell();
            _exit(7);
        }
        if (pid < 0)
            return 1;
        tell();
        adopt_let_go(&go);
    }
    return waitpid(-1, NULL, 0) == -1 && errno == ECHILD ? 0 : 2;
}

static void workers_of_a_template_are_our_children(void **state)
{
    (void)state;
    assert_int_equal(in_child(template_of_three, NULL), 0);
    int workers = 0, status;
    for (int i = 0; i < 6; i++) {
        struct word w = hear();
        if (w.parent != getpid())
            fail_msg("%d has the parent %d", w.pid, w.parent);
    }
    while (wait(&status) > 0) {
        assert_int_equal(WEXITSTATUS(status), 7);
        workers++;
    }
    assert_int_equal(workers, 3);
}

static int template_that_dies(void *arg)
{
    (void)arg;
    int go;
    pid_t pid = adopt_fork(&go);
    if (pid == 0) {
        tell();
        _exit(7);
    }
    return pid > 0 ? 0 : 1; /* without letting it go */
}

static void a_worker_that_nobody_knows_ends(void **state)
{
    (void)state;
    int status;
    assert_int_equal(in_child(template_that_dies, NULL), 0);
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(silent());
}

static int template_without_processes(void *arg)
{
    (void)arg;
    struct rlimit none = {0, 0};
    int go;
    if (setgid(65534) || setuid(65534) || setrlimit(RLIMIT_NPROC, &none))
        return 1;
    return adopt_fork(&go) == -EAGAIN && go == -1 ? 0 : 2;
}

static void a_fork_that_fails_is_told(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(in_child(template_without_processes, NULL), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make, drop)
    const struct CMUnitTest tests[] = {
        T(workers_of_a_template_are_our_children),
        T(a_worker_that_nobody_knows_ends),
        T(a_fork_that_fails_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
