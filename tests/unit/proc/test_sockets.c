/* sockets: a reload opens and closes addresses without a moment in which nobody listens. */
#include "proc_helper.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log.h"
#include "proc/sockets.h"

static char folder[] = "/tmp/weir-sockets-XXXXXX";
static char old_path[64], new_path[64];

static int make_folder(void **state)
{
    (void)state;
    log_setup(NULL, LOG_CRITICAL, false);
    if (!mkdtemp(folder))
        return -1;
    snprintf(old_path, sizeof old_path, "%s/old", folder);
    snprintf(new_path, sizeof new_path, "%s/new", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* nothing may be left in it */
}

/* A configuration with these addresses; conf_fini. */
static void configure(struct conf *c, const char *first, const char *second)
{
    struct err e = {{0}};
    assert_int_equal(conf_init(c, CONF_WEIR, &e), 0);
    if (conf_set(c, "bind", first, NULL, &e) || (second && conf_set(c, "bind", second, NULL, &e)) ||
        conf_finish(c, &e))
        fail_msg("%s", e.text);
}

static struct sockets *open_or_fail(const struct conf *c, const struct sockets *before)
{
    struct sockets *s;
    struct err e = {{0}};
    if (sockets_open(&s, c, NULL, 0, before, &e))
        fail_msg("%s", e.text);
    return s;
}

static bool unix_listens(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool yes = connect(fd, (struct sockaddr *)&un, sizeof un) == 0;
    close(fd);
    return yes;
}

static int tcp_connect(const struct sockets *s)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    assert_int_equal(getsockname(s->set.items[0]->fd, (struct sockaddr *)&in, &len), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, len), 0);
    return fd;
}

static const char *unix_bind(const char *path)
{
    static char text[80];
    snprintf(text, sizeof text, "unix:%s", path);
    return text;
}

static void an_address_that_stays_keeps_its_socket(void **state)
{
    (void)state;
    struct conf before, after;
    configure(&before, "127.0.0.1:0", unix_bind(old_path));
    configure(&after, unix_bind(new_path), "127.0.0.1:0");
    struct sockets *s = open_or_fail(&before, NULL);
    assert_int_equal(s->set.n, 2);
    char port[8];
    snprintf(port, sizeof port, "%s", s->set.items[0]->port);
    int waits = tcp_connect(s); /* in the queue of the socket */

    struct sockets *next = open_or_fail(&after, s);
    sockets_replace(&s, next);
    assert_ptr_equal(s, next);
    assert_string_equal(s->set.items[1]->port, port);
    int fd = accept(s->set.items[1]->fd, NULL, NULL);
    assert_true(fd >= 0);
    close(fd);
    close(waits);
    assert_true(unix_listens(new_path));
    assert_int_equal(access(old_path, F_OK), -1);
    sockets_close(&s);
    assert_null(s);
    assert_int_equal(access(new_path, F_OK), -1);
    conf_fini(&before);
    conf_fini(&after);
}

static void what_stays_is_still_our_own(void **state)
{
    (void)state;
    struct conf c;
    configure(&c, "127.0.0.1:0", NULL);
    struct sockets *s = open_or_fail(&c, NULL);
    assert_true(s->set.items[0]->is_own);
    sockets_replace(&s, open_or_fail(&c, s));
    assert_true(s->set.items[0]->is_own); /* or nobody would close its door before the end */
    sockets_close(&s);
    conf_fini(&c);
}

static void a_reload_that_fails_leaves_everything(void **state)
{
    (void)state;
    struct conf before, after;
    configure(&before, unix_bind(old_path), NULL);
    configure(&after, unix_bind(old_path), NULL);
    struct sockets *s = open_or_fail(&before, NULL);
    struct sockets *next = open_or_fail(&after, s);
    sockets_close(&next);
    assert_true(unix_listens(old_path));
    /* And one whose second address cannot be opened. */
    struct conf wrong;
    struct err e = {{0}};
    configure(&wrong, unix_bind(new_path), "unix:/nonexistent/folder/s");
    assert_int_equal(sockets_open(&next, &wrong, NULL, 0, s, &e), -1);
    assert_text_in(e.text, "/nonexistent/folder/s");
    assert_null(next);
    assert_int_equal(access(new_path, F_OK), -1);
    assert_true(unix_listens(old_path));
    sockets_close(&s);
    conf_fini(&before);
    conf_fini(&after);
    conf_fini(&wrong);
}

static void the_file_belongs_to_the_set_in_use(void **state)
{
    (void)state;
    struct conf c;
    configure(&c, unix_bind(old_path), NULL);
    struct sockets *s = open_or_fail(&c, NULL);
    for (int i = 0; i < 3; i++) {
        struct sockets *next = open_or_fail(&c, s);
        sockets_replace(&s, next);
        assert_true(unix_listens(old_path));
    }
    sockets_close(&s);
    assert_int_equal(access(old_path, F_OK), -1);
    conf_fini(&c);
}

static struct sockets *open_next(const struct conf *c, const struct sockets *s, struct sockets *next)
{
    struct err e = {{0}};
    if (sockets_open_next(&next, c, s, &e))
        fail_msg("%s", e.text);
    return next;
}

static void a_reload_keeps_what_one_before_has_opened_in_vain(void **state)
{
    (void)state;
    struct conf before, after, wrong;
    configure(&before, "127.0.0.1:0", NULL);
    configure(&after, unix_bind(new_path), NULL);
    struct sockets *s = open_or_fail(&before, NULL);
    struct sockets *next = open_next(&after, s, NULL);
    int inherited = dup(next->set.items[0]->fd); /* as a worker of it has */
    next = open_next(&after, s, next);
    assert_true(unix_listens(new_path));
    sockets_replace(&s, next);
    assert_true(unix_listens(new_path));
    sockets_close(&s);
    assert_int_equal(access(new_path, F_OK), -1);
    close(inherited);
    /* And one that fails closes both. */
    struct err e = {{0}};
    configure(&wrong, "unix:/nonexistent/folder/s", NULL);
    s = open_or_fail(&before, NULL);
    next = open_next(&after, s, NULL);
    assert_int_equal(sockets_open_next(&next, &wrong, s, &e), -1);
    assert_null(next);
    assert_int_equal(access(new_path, F_OK), -1);
    sockets_close(&s);
    conf_fini(&before);
    conf_fini(&after);
    conf_fini(&wrong);
}

static int forget(void *arg)
{
    struct sockets *s = arg;
    sockets_forget(&s);
    return s != NULL;
}

static void a_worker_that_gives_its_copies_back_removes_nothing(void **state)
{
    (void)state;
    struct conf c;
    configure(&c, unix_bind(old_path), NULL);
    struct sockets *s = open_or_fail(&c, NULL);
    assert_int_equal(in_child(forget, s), 0);
    assert_true(unix_listens(old_path));
    sockets_close(&s);
    conf_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_that_stays_keeps_its_socket),
        cmocka_unit_test(what_stays_is_still_our_own),
        cmocka_unit_test(a_reload_that_fails_leaves_everything),
        cmocka_unit_test(the_file_belongs_to_the_set_in_use),
        cmocka_unit_test(a_reload_keeps_what_one_before_has_opened_in_vain),
        cmocka_unit_test(a_worker_that_gives_its_copies_back_removes_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
