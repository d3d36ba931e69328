/* notify: what the service manager hears. */
#include "proc_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "proc/notify.h"

static int manager = -1; /* the service manager's socket */
static char heard[1024];

/* Listen on `name` (a path, or @ and an abstract name). */
static void listen_on(const char *name)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    memcpy(un.sun_path, name, n);
    if (name[0] == '@')
        un.sun_path[0] = 0;
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(manager, (struct sockaddr *)&un,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] != '@'))),
        0);
}

/* The next message; "" when there is none. A datagram to a local socket is there at once. */
static const char *hear(void)
{
    ssize_t n = recv(manager, heard, sizeof heard - 1, 0);
    heard[n > 0 ? n : 0] = 0;
    return heard;
}

static char name[64];

static int open_manager(void **state)
{
    (void)state;
    snprintf(name, sizeof name, "@weir-notify-%d", getpid());
    listen_on(name);
    return 0;
}

static int close_manager(void **state)
{
    (void)state;
    close(manager);
    return 0;
}

static void messages_arrive_at_an_abstract_name(void **state)
{
    (void)state;
    struct notify n;
    notify_init(&n, name, NULL, NULL);
    assert_true(notify_wanted(&n));
    notify_ready(&n, "2 workers ready");
    assert_string_equal(hear(), "READY=1\nSTATUS=2 workers ready");
    notify_status(&n, "%d of %d", 1, 2);
    assert_string_equal(hear(), "STATUS=1 of 2");
    notify_main_pid(&n, 4711);
    assert_string_equal(hear(), "MAINPID=4711");
    notify_stopping(&n);
    assert_string_equal(hear(), "STOPPING=1\nSTATUS=stopping");
    assert_string_equal(hear(), "");
}

static void messages_arrive_at_a_path(void **state)
{
    (void)state;
    char path[64];
    struct notify n;
    close(manager);
    snprintf(path, sizeof path, "/tmp/weir-notify-%d", getpid());
    listen_on(path);
    notify_init(&n, path, NULL, NULL);
    notify_stopping(&n);
    assert_text_in(hear(), "STOPPING=1");
    unlink(path);
}

static void a_reload_tells_the_time_of_the_monotonic_clock(void **state)
{
    (void)state;
    struct notify n;
    long long usec = 0;
    notify_init(&n, name, NULL, NULL);
    long long before = clock_mono_ns() / 1000;
    notify_reloading(&n);
    assert_int_equal(sscanf(hear(), "RELOADING=1\nMONOTONIC_USEC=%lld\n", &usec), 1); // NOLINT
    assert_true(usec >= before && usec <= clock_mono_ns() / 1000);
}

static void without_a_socket_nothing_happens(void **state)
{
    (void)state;
    static const char *const NAMES[] = {NULL, "", "@", "/", "relative", "vsock:2:1234"};
    for (unsigned i = 0; i < 6; i++) {
        struct notify n;
        notify_init(&n, NAMES[i], "1000000", NULL);
        assert_false(notify_wanted(&n));
        assert_int_equal(notify_beat(&n, 1, true), -1);
        notify_stopping(&n);
    }
    char too_long[200];
    struct notify n;
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[0] = '/';
    too_long[199] = 0;
    notify_init(&n, too_long, NULL, NULL);
    assert_false(notify_wanted(&n));
}

static void a_manager_that_is_gone_does_not_matter(void **state)
{
    (void)state;
    struct notify n;
    notify_init(&n, "/nonexistent/notify", "1000000", NULL);
    notify_ready(&n, "ready");
    assert_true(notify_beat(&n, clock_mono_ns(), true) > 0);
}

static void the_watchdog_hears_a_beat_every_half_of_its_time(void **state)
{
    (void)state;
    struct notify n;
    const int64_t SECOND = 1000000000;
    notify_init(&n, name, "2000000", NULL);
    assert_int_equal(notify_beat(&n, 10 * SECOND, true), 1000);
    assert_string_equal(hear(), "WATCHDOG=1");
    assert_int_equal(notify_beat(&n, 10 * SECOND + SECOND / 2, true), 500);
    assert_string_equal(hear(), "");
    assert_int_equal(notify_beat(&n, 11 * SECOND, true), 1000);
    assert_string_equal(hear(), "WATCHDOG=1");
}

static void an_unwell_server_does_not_beat(void **state)
{
    (void)state;
    struct notify n;
    const int64_t SECOND = 1000000000;
    notify_init(&n, name, "2000000", NULL);
    assert_int_equal(notify_beat(&n, 10 * SECOND, false), 125);
    assert_string_equal(hear(), "");
    assert_int_equal(notify_beat(&n, 10 * SECOND + SECOND / 8, true), 1000);
    assert_string_equal(hear(), "WATCHDOG=1");
}

static void the_watchdog_of_another_process_is_not_fed(void **state)
{
    (void)state;
    struct notify n;
    char own[16];
    notify_init(&n, name, "2000000", "1");
    assert_int_equal(notify_beat(&n, 1, true), -1);
    notify_init(&n, name, "nonsense", NULL);
    assert_int_equal(notify_beat(&n, 1, true), -1);
    snprintf(own, sizeof own, "%d", getpid());
    notify_init(&n, name, "2000000", own);
    assert_int_equal(notify_beat(&n, 5000000000, true), 1000);
}

static void a_second_supervisor_is_silent_until_it_is_the_main_one(void **state)
{
    (void)state;
    struct notify n;
    notify_init(&n, name, "2000000", NULL);
    notify_hold(&n);
    notify_ready(&n, "ready");
    assert_int_equal(notify_beat(&n, 5000000000, true), -1);
    assert_string_equal(hear(), "");
    notify_release(&n);
    notify_ready(&n, "ready");
    assert_text_in(hear(), "READY=1");
    assert_int_equal(notify_beat(&n, 5000000000, true), 1000);
    assert_string_equal(hear(), "WATCHDOG=1");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_manager, close_manager)
    const struct CMUnitTest tests[] = {
        T(messages_arrive_at_an_abstract_name),
        T(messages_arrive_at_a_path),
        T(a_reload_tells_the_time_of_the_monotonic_clock),
        T(without_a_socket_nothing_happens),
        T(a_manager_that_is_gone_does_not_matter),
        T(the_watchdog_hears_a_beat_every_half_of_its_time),
        T(an_unwell_server_does_not_beat),
        T(the_watchdog_of_another_process_is_not_fed),
        T(a_second_supervisor_is_silent_until_it_is_the_main_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
