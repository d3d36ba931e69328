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

/* An address with all that must not be taken for something else. */
#define ODD "unix:/tmp/a;7=b%25,\n\x7f\xc3\xa4"

/* What the old supervisor has, and the value that it writes. */
struct old {
    struct upgrade u;
    int ready[2], hand[2];
    char *value; /* owned */
};

static void old_make(struct old *o)
{
    assert_int_equal(pipe2(o->ready, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, o->hand), 0);
    upgrade_init(&o->u);
    o->u.old_pid = getpid();
    o->u.ready_fd = o->ready[1];
    o->u.hand_recv = o->hand[0];
    o->u.hand_send = o->hand[1];
    assert_int_equal(upgrade_add(&o->u, listener(), false, "fd://3"), 0);
    assert_int_equal(upgrade_add(&o->u, listener(), true, ODD), 0);
    assert_non_null(o->value = upgrade_write(&o->u));
}

static void old_free(struct old *o)
{
    const int fds[] = {o->ready[0], o->hand[0], o->hand[1], o->u.sockets[0].fd, o->u.sockets[1].fd};
    for (size_t i = 0; i < 5; i++)
        close(fds[i]);
    upgrade_free(&o->u);
    free(o->value);
}

static int reads_the_same(void *arg)
{
    const struct old *o = arg;
    struct upgrade u;
    struct err e;
    if (upgrade_read(&u, o->value, NULL, NULL, &e))
        return 1;
    if (u.old_pid != getppid() || u.n_sockets != 2 || u.sockets[0].fd != o->u.sockets[0].fd ||
        u.sockets[1].fd != o->u.sockets[1].fd || u.sockets[0].own || !u.sockets[1].own ||
        strcmp(u.sockets[0].text, "fd://3") != 0 || strcmp(u.sockets[1].text, ODD) != 0)
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
                   u.sockets[0].own && !u.sockets[0].text
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
    static const char *const BAD[] = {"", ",1,-1,-1;900=a", ",2,3"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s", BAD[i]);
        assert_int_equal(in_child(refused_value, text), 0);
    }
    /* A pipe in the place of a listener, a listener in that of the hand-over, nothing at all. */
    snprintf(text, sizeof text, ",%d,-1,-1;%d=a", o.ready[1], o.ready[0]);
    assert_int_equal(in_child(refused_value, text), 0);
    snprintf(text, sizeof text, ",%d,%d,-1;%d=a", o.ready[1], o.u.sockets[0].fd, o.u.sockets[1].fd);
    assert_int_equal(in_child(refused_value, text), 0);
    snprintf(text, sizeof text, ",%d,-1,-1", o.ready[1]);
    assert_int_equal(in_child(refused_value, text), 0);
    static const char *const ENDS[] = {"x", "", "x=a", "=%4", "=%4x", "=a;"};
    for (size_t i = 0; i < 6; i++) {
        snprintf(text, sizeof text, ",%d,-1,-1;%d%s", o.ready[1], o.u.sockets[1].fd, ENDS[i]);
        if (in_child(refused_value, text) != 0)
            fail_msg("%s was taken", text);
    }
    old_free(&o);
}

static void descriptors_pass_an_exec_only_when_let_through(void **state)
{
    (void)state;
    struct old o;
    old_make(&o);
    assert_int_equal(fcntl(o.u.sockets[0].fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(upgrade_let_through(&o.u), 0);
    const int fds[] = {o.ready[1], o.hand[0], o.hand[1], o.u.sockets[0].fd, o.u.sockets[1].fd};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(fcntl(fds[i], F_GETFD), 0);
    assert_int_equal(fcntl(o.ready[0], F_GETFD), FD_CLOEXEC);
    close(o.u.sockets[1].fd);
    assert_int_equal(upgrade_let_through(&o.u), -EBADF);
    old_free(&o);
}

static void as_many_sockets_fit_as_a_server_has(void **state)
{
    (void)state;
    struct upgrade u;
    upgrade_init(&u);
    for (int i = 0; i < UPGRADE_SOCKETS_MAX; i++)
        assert_int_equal(upgrade_add(&u, 2147483647, true, "[::1]:8000"), 0);
    assert_int_equal(upgrade_add(&u, 3, true, "one too many"), -1);
    char *value = upgrade_write(&u);
    assert_int_equal(strlen(value), strlen("0,-1,-1,-1") +
                                        UPGRADE_SOCKETS_MAX * strlen(";2147483647o=[::1]:8000"));
    free(value);
    upgrade_free(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_successor_gets_what_was_handed_over),
        cmocka_unit_test(only_a_parent_hands_over),
        cmocka_unit_test(gunicorns_variables_are_understood),
        cmocka_unit_test(what_is_no_listening_socket_is_refused),
        cmocka_unit_test(descriptors_pass_an_exec_only_when_let_through),
        cmocka_unit_test(as_many_sockets_fit_as_a_server_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
