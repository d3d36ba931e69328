/*
 * admin_events, and answers that nobody reads: with a status and a history of this test, so that
 * they are large. The admin listener runs on a loop of this thread; clients are plain sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/admin_private.h"
#include "base/clock.h"

#define STATUS_BYTES (512 * 1024)

/* ---- what is shown ---- */

static unsigned renders, ticks;

int status_ask_parse(struct status_ask *ask, struct slice query, struct err *e)
{
    *ask = (struct status_ask){0};
    return slice_eq(query, SLICE("wrong")) ? err_set(e, "it is wrong") : 0;
}

int status_write(struct buf *out, const struct admin_view *v, const struct status_ask *ask)
{
    (void)v;
    renders++;
    if (buf_reserve(out, STATUS_BYTES))
        return -ENOMEM;
    memset(out->p + out->n, ask->brief ? 'b' : 'w', STATUS_BYTES);
    out->n += STATUS_BYTES;
    return 0;
}

int status_write_flight(struct buf *out, const struct admin_view *v, unsigned worker, uint64_t id)
{
    (void)v;
    (void)worker;
    return id == 7 ? buf_add(out, "{\"id\":7}", 8) : buf_add(out, "null", 4);
}

const char *status_unready(const struct admin_view *v)
{
    (void)v;
    return "draining";
}

struct history {
    int none;
};

struct history *history_new(void)
{
    return calloc(1, sizeof(struct history));
}

void history_free(struct history **h)
{
    free(*h);
    *h = NULL;
}

int history_tick(struct history *h, const struct admin_view *v, int64_t now_ns, int64_t wall_ns)
{
    (void)h;
    (void)v;
    (void)now_ns;
    (void)wall_ns;
    ticks++;
    return 0;
}

int history_write_last(struct buf *out, const struct history *h)
{
    (void)h;
    return buf_add(out, "{}", 2);
}

int history_write(struct buf *out, const struct history *h)
{
    (void)h;
    return buf_add(out, "{}", 2);
}

/* ---- probes that answer when they are told to ---- */

static struct {
    probes_done *cb;
    void *arg;
    int worker;
    uint64_t id;
    unsigned forgotten;
} asked;

int probes_new(struct probes **out, uv_loop_t *loop, const struct keeper_door *door, uid_t uid,
               const struct admin_view *view, struct err *e)
{
    (void)loop;
    (void)door;
    (void)uid;
    (void)view;
    (void)e;
    *out = (struct probes *)&asked;
    return 0;
}

void probes_free(struct probes **p)
{
    *p = NULL;
}

int probes_ask(struct probes *p, int worker, uint64_t id, probes_done *cb, void *arg,
               uint64_t *ticket)
{
    (void)p;
    asked.cb = cb;
    asked.arg = arg;
    asked.worker = worker;
    asked.id = id;
    *ticket = 1;
    return 0;
}

void probes_forget(struct probes *p, uint64_t ticket)
{
    (void)p;
    (void)ticket;
    asked.forgotten++;
    asked.cb = NULL;
}

/* ---- the listener ---- */

static uv_loop_t loop;
static struct admin *admin;
static struct conf conf;
static struct scoreboard *board;
static int listen_fd;
static struct sockaddr_in at;

static int make(void **state)
{
    (void)state;
    struct err e;
    conf = (struct conf){.admin = "127.0.0.1:0",
                         .admin_bind = {.kind = CONF_BIND_TCP,
                                        .host = "127.0.0.1",
                                        .port = "0",
                                        .text = "127.0.0.1:0"},
                         .ipv4 = true};
    board = scoreboard_new(4);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(admin_listen(&listen_fd, &conf, &e), 0);
    socklen_t n = sizeof at;
    assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&at, &n), 0);
    const struct admin_config c = {
        .view = {.conf = &conf, .board = board}, .listen_fd = listen_fd, .tell_fd = -1};
    memset(&asked, 0, sizeof asked);
    renders = ticks = 0;
    return admin_new(&admin, &loop, &c, &e);
}

static int unmake(void **state)
{
    (void)state;
    admin_free(&admin);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(listen_fd);
    scoreboard_free(&board);
    return 0;
}

static int client(int receive_bytes)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (receive_bytes)
        assert_int_equal(
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void say(int fd, const char *target)
{
    char text[200];
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target);
    assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
}

/* Turn the loop until the condition holds. */
#define turn_until(condition, seconds)                                                             \
    do {                                                                                           \
        int64_t until_ns = clock_mono_ns() + (seconds)*INT64_C(1000000000);                        \
        while (!(condition)) {                                                                     \
            if (clock_mono_ns() > until_ns)                                                        \
                fail_msg("not in time: %s", #condition);                                           \
            uv_run(&loop, UV_RUN_NOWAIT);                                                          \
        }                                                                                          \
    } while (0)

static bool readable(int fd, const char *wanted, char *text, size_t room)
{
    ssize_t n = recv(fd, text, room - 1, MSG_PEEK | MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return strstr(text, wanted) != NULL;
}

static bool is_over(int fd)
{
    char bytes[65536];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        ;
    return n == 0 || errno != EAGAIN;
}

static void who_never_reads_is_left_out_and_closed_and_costs_one_event(void **state)
{
    (void)state;
    int fds[4];
    for (size_t i = 0; i < countof(fds); i++) {
        fds[i] = client(4096);
        say(fds[i], "/events");
    }
    turn_until(admin->n_viewers == countof(fds), 5);
    unsigned before = renders;
    size_t used = mallinfo2().uordblks;
    assert_in_range(before, 1, countof(fds));
    turn_until(admin->n_viewers == 0, 30);
    assert_int_equal(renders, before); /* nobody could take another */
    assert_true(mallinfo2().uordblks <= used);
    for (size_t i = 0; i < countof(fds); i++) {
        turn_until(is_over(fds[i]), 5);
        close(fds[i]);
    }
}

static void viewers_of_the_same_share_one_rendering(void **state)
{
    (void)state;
    int fds[6];
    for (size_t i = 0; i < countof(fds); i++) {
        fds[i] = client(0);
        say(fds[i], i < 4 ? "/events?a" : "/events?b");
    }
    bool over = false;
    turn_until(admin->n_viewers == countof(fds), 5);
    unsigned first = renders;
    assert_int_equal(first, countof(fds));
    for (unsigned due = ticks + 3; ticks < due;) {
        uv_run(&loop, UV_RUN_NOWAIT);
        for (size_t i = 0; i < countof(fds); i++)
            over |= is_over(fds[i]);
    }
    assert_false(over);
    /* Each turn one of each kind; who had joined later may be out of step once. */
    assert_in_range(renders - first, 4, 8);
    for (size_t i = 0; i < countof(fds); i++)
        close(fds[i]);
    turn_until(admin->n_viewers == 0, 5);
    assert_int_equal(uv_timer_get_repeat(&admin->tick), 10000);
}

static void a_large_answer_that_nobody_reads_is_given_up(void **state)
{
    (void)state;
    int fd = client(4096);
    for (int i = 0; i < 16; i++)
        say(fd, "/status.json");
    turn_until(admin->n_conns == 1, 5);
    turn_until(admin->n_conns == 0, 40);
    close(fd);
}

static void a_wrong_query_and_an_unready_server_are_told(void **state)
{
    (void)state;
    char text[2000];
    int fd = client(0);
    say(fd, "/events?wrong");
    turn_until(readable(fd, "it is wrong\n", text, sizeof text), 5);
    assert_non_null(strstr(text, "HTTP/1.1 400 "));
    say(fd, "/ready");
    turn_until(readable(fd, "draining\n", text, sizeof text), 5);
    assert_non_null(strstr(text, "HTTP/1.1 503 "));
    close(fd);
}

static void a_request_comes_with_the_stack_of_its_thread(void **state)
{
    (void)state;
    char text[2000];
    int fd = client(0);
    say(fd, "/request.json?worker=2&id=7");
    turn_until(asked.cb, 5);
    assert_int_equal(asked.worker, 2);
    assert_int_equal(asked.id, 7);
    asked.cb(asked.arg, SLICE("{\"now\":1,\"workers\":[{\"error\":null,\"threads\": "
                              "[{\"a\":\"}]\\\"\",\"b\":[{}]},{}]}]}"));
    turn_until(readable(fd, "}\n", text, sizeof text), 5);
    assert_non_null(
        strstr(text, "\r\n\r\n{\"flight\":{\"id\":7},\"thread\":{\"a\":\"}]\\\"\",\"b\":[{}]}}\n"));
    close(fd);
    fd = client(0);
    say(fd, "/request.json?worker=2&id=7");
    asked.cb = NULL;
    turn_until(asked.cb, 5);
    asked.cb(asked.arg,
             SLICE("{\"workers\":[{\"error\":\"no answer within 1 s\",\"threads\":[]}]}"));
    turn_until(readable(fd, "\"thread\":null}\n", text, sizeof text), 5);
    close(fd);
}

static void who_leaves_is_forgotten_by_the_probes(void **state)
{
    (void)state;
    int fd = client(0);
    say(fd, "/stacks.json");
    turn_until(asked.cb, 5);
    close(fd);
    fd = client(0);
    say(fd, "/stacks.json?worker=1");
    asked.cb = NULL;
    turn_until(asked.cb, 5);
    const struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    turn_until(asked.forgotten == 1, 5);
}

int main(void)
{
#define LISTENER(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        LISTENER(a_wrong_query_and_an_unready_server_are_told),
        LISTENER(a_request_comes_with_the_stack_of_its_thread),
        LISTENER(who_leaves_is_forgotten_by_the_probes),
        LISTENER(viewers_of_the_same_share_one_rendering),
        LISTENER(who_never_reads_is_left_out_and_closed_and_costs_one_event),
        LISTENER(a_large_answer_that_nobody_reads_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
