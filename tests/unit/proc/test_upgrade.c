/* upgrade: what one supervisor writes the next one reads, and what others write it does not. */
#include "proc_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proc/upgrade.h"

static int listener(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

/* What the old supervisor has, and the value that it writes. */
struct old {
    struct upgrade u;
    int ready[2], hand[2];
    char value[UPGRADE_TEXT_MAX];
};

static void old_make(struct old *o)
{
    assert_int_equal(pipe2(o->ready, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, o->hand), 0);
    o->u = (struct upgrade){.old_pid = getpid(),
                            .ready_fd = o->ready[1],
                            .hand_recv = o->hand[0],
                            .hand_send = o->hand[1],
                            .n_sockets = 2};
    o->u.sockets[0] = listener();
    o->u.sockets[1] = listener();
    o->u.owns_path[1] = true;
    upgrade_write(&o->u, o->value, sizeof o->value);
}

static void old_free(struct old *o)
{
    const int fds[] = {o->ready[0], o->ready[1],     o->hand[0],
                       o->hand[1],  o->u.sockets[0], o->u.sockets[1]};
    for (size_t i = 0; i < 6; i++)
        close(fds[i]);
}

static int reads_the_same(void *arg)
{
    const struct old *o = arg;
    struct upgrade u;
    struct err e;
    if (upgrade_read(&u, o->value, NULL, NULL, &e))
        return 1;
    if (u.old_pid != getppid() || u.n_sockets != 2 || u.sockets[0] != o->u.sockets[0] ||
        u.sockets[1] != o->u.sockets[1] || u.owns_path[0] || !u.owns_path[1])
        return 2;
    if (u.ready_fd != o->ready[1] || u.hand_recv != o->hand[0] || u.hand_send != o->hand[1])
        return 3;
    if (upgrade_is_over(&u))
        return 4;
    upgrade_tell_ready(&u);
    upgrade_tell_ready(&u);
    return 0;
}

static void a_successor_gets_what_was_handed_over(void **state)
{
    (void)state;
    struct old o;
    char byte[4];
    old_make(&o);
    assert_int_equal(in_child(reads_the_same, &o), 0);
    assert_int_equal(read(o.ready[0], byte, sizeof byte), 1);
    old_free(&o);
}

static void only_a_parent_hands_over(void **state)
{
    (void)state;
    struct old o;
    struct upgrade u;
    struct err e;
    char pid[16];
    old_make(&o); /* names this process, which is not its own parent */
    assert_int_equal(upgrade_read(&u, o.value, NULL, NULL, &e), 0);
    assert_int_equal(u.old_pid, 0);
    assert_int_equal(u.n_sockets, 0);
    snprintf(pid, sizeof pid, "%d", getpid());
    assert_int_equal(upgrade_read(&u, NULL, pid, "3", &e), 0);
    assert_int_equal(u.old_pid, 0);
    assert_int_equal(upgrade_read(&u, NULL, NULL, NULL, &e), 0);
    assert_int_equal(u.old_pid, 0);
    assert_false(upgrade_is_over(&u));
    assert_int_equal(upgrade_read(&u, "nonsense", NULL, NULL, &e), 0);
    assert_int_equal(u.old_pid, 0);
    old_free(&o);
}

static int reads_gunicorn(void *arg)
{
    struct upgrade u;
    struct err e;
    char pid[16];
    snprintf(pid, sizeof pid, "%d", getppid());
    if (upgrade_read(&u, NULL, pid, arg, &e))
        return 1;
    return u.old_pid == getppid() && u.n_sockets == 2 && u.ready_fd == -1 && u.hand_recv == -1 &&
                   !u.owns_path[0] && !u.owns_path[1]
               ? 0
               : 2;
}

static void gunicorns_variables_are_understood(void **state)
{
    (void)state;
    char fds[32];
    int a = listener(), b = listener();
    snprintf(fds, sizeof fds, "%d,%d", a, b);
    assert_int_equal(in_child(reads_gunicorn, fds), 0);
    close(a);
    close(b);
}

static int refused_value(void *arg)
{
    struct upgrade u;
    struct err e = {{0}};
    char value[128];
    snprintf(value, sizeof value, "%d%s", getppid(), (char *)arg);
    return upgrade_read(&u, value, NULL, NULL, &e) == -1 && strstr(e.text, "WEIR_UPGRADE") &&
                   u.old_pid == 0
               ? 0
               : 1;
}

static void what_is_no_listening_socket_is_refused(void **state)
{
    (void)state;
    char text[64];
    struct old o;
    old_make(&o);
    static const char *const BAD[] = {"", ",1,-1,-1,900", ",2,3"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s", BAD[i]);
        assert_int_equal(in_child(refused_value, text), 0);
    }
    /* A pipe in the place of a listener, a listener in that of the hand-over, nothing at all. */
    snprintf(text, sizeof text, ",%d,-1,-1,%d", o.ready[1], o.ready[0]);
    assert_int_equal(in_child(refused_value, text), 0);
    snprintf(text, sizeof text, ",%d,%d,-1,%d", o.ready[1], o.u.sockets[0], o.u.sockets[1]);
    assert_int_equal(in_child(refused_value, text), 0);
    snprintf(text, sizeof text, ",%d,-1,-1", o.ready[1]);
    assert_int_equal(in_child(refused_value, text), 0);
    snprintf(text, sizeof text, ",%d,-1,-1,%dx", o.ready[1], o.u.sockets[1]);
    assert_int_equal(in_child(refused_value, text), 0);
    old_free(&o);
}

static void descriptors_pass_an_exec_only_when_let_through(void **state)
{
    (void)state;
    struct old o;
    old_make(&o);
    assert_int_equal(fcntl(o.u.sockets[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(upgrade_let_through(&o.u), 0);
    const int fds[] = {o.ready[1], o.hand[0], o.hand[1], o.u.sockets[0], o.u.sockets[1]};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(fcntl(fds[i], F_GETFD), 0);
    assert_int_equal(fcntl(o.ready[0], F_GETFD), FD_CLOEXEC);
    close(o.u.sockets[1]);
    assert_int_equal(upgrade_let_through(&o.u), -EBADF);
    old_free(&o);
}

static void the_longest_value_fits(void **state)
{
    (void)state;
    struct upgrade u = {.old_pid = 2147483647,
                        .ready_fd = 2147483647,
                        .hand_recv = 2147483647,
                        .hand_send = 2147483647,
                        .n_sockets = UPGRADE_SOCKETS_MAX};
    char value[UPGRADE_TEXT_MAX];
    for (unsigned i = 0; i < UPGRADE_SOCKETS_MAX; i++) {
        u.sockets[i] = 2147483647;
        u.owns_path[i] = true;
    }
    upgrade_write(&u, value, sizeof value);
    assert_int_equal(strlen(value), 4 * 11 - 1 + UPGRADE_SOCKETS_MAX * 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_successor_gets_what_was_handed_over),
        cmocka_unit_test(only_a_parent_hands_over),
        cmocka_unit_test(gunicorns_variables_are_understood),
        cmocka_unit_test(what_is_no_listening_socket_is_refused),
        cmocka_unit_test(descriptors_pass_an_exec_only_when_let_through),
        cmocka_unit_test(the_longest_value_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
