/*
 * fake_server: the whole server with an application written in C, without Python.
 *
 * For the tests that need the threads and the protocol but not the interpreter: under TSan, and in
 * the soak run. A mutex plays the interpreter lock. It prints its port and serves until TERM.
 *
 *   GET  /hello            12 bytes
 *   POST /echo             the body, as it came
 *   GET  /sleep/MS         blocks without the lock
 *   GET  /burn/MS          computes with the lock held
 *   GET  /stream/N         N chunks, flushed one by one
 *   GET  /big/N            N bytes in pieces of 64 KiB
 *   GET  /wait-gone        answers when the client has left, or after 5 s
 *
 * usage: fake_server [--name value …]   (settings of Weir)
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/server.h"

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static int g_stop_fd;

static int fake_thread_start(struct app *a, void **local)
{
    (void)a;
    *local = NULL;
    return 0;
}

static void fake_thread_stop(struct app *a, void *local)
{
    (void)a;
    (void)local;
}

static void fake_enter(struct app *a, void *local)
{
    (void)a;
    (void)local;
    pthread_mutex_lock(&g_lock);
}

static void fake_leave(struct app *a, void *local)
{
    (void)a;
    (void)local;
    pthread_mutex_unlock(&g_lock);
}

static void sleep_ms(long ms)
{
    pthread_mutex_unlock(&g_lock);
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
    pthread_mutex_lock(&g_lock);
}

static void burn_ms(long ms)
{
    int64_t end = clock_mono_ns() + ms * 1000000;
    while (clock_mono_ns() < end)
        ;
}

/* A flush that waits like an application does: without the lock. */
static int flush(struct call *c)
{
    int rc = call_flush(c);
    if (rc == -EAGAIN) {
        pthread_mutex_unlock(&g_lock);
        rc = call_wait(c);
        pthread_mutex_lock(&g_lock);
    }
    return rc;
}

static bool path_number(const struct call *c, const char *prefix, long *out)
{
    char path[64];
    size_t n = strlen(prefix);
    if (c->req->path.n < n || c->req->path.n >= sizeof path || memcmp(c->req->path.p, prefix, n) != 0)
        return false;
    memcpy(path, c->req->path.p, c->req->path.n);
    path[c->req->path.n] = '\0';
    *out = strtol(path + n, NULL, 10);
    return true;
}

static void echo(struct call *c)
{
    char piece[16384];
    if (call_begin(c, -1))
        return;
    for (;;) {
        ssize_t n = call_body_read(c, piece, sizeof piece);
        if (n == -EAGAIN) {
            pthread_mutex_unlock(&g_lock);
            int rc = call_body_wait(c);
            pthread_mutex_lock(&g_lock);
            if (rc == 0)
                continue;
            n = rc;
        }
        if (n < 0) {
            call_abort(c, "the body could not be read");
            return;
        }
        if (n == 0)
            break;
        if (call_data(c, slice_of(piece, (size_t)n)))
            return;
        if (c->out.n > 65536 && flush(c)) {
            call_abort(c, "the client left");
            return;
        }
    }
}

static void fake_run(struct app *a, void *local, struct call *c)
{
    (void)a;
    (void)local;
    long n = 0;
    if (call_status(c, SLICE("200 OK")) != CALL_OK ||
        call_field(c, SLICE("Content-Type"), SLICE("text/plain")) != CALL_OK)
        return;
    if (path_number(c, "/sleep/", &n)) {
        sleep_ms(n);
    } else if (path_number(c, "/burn/", &n)) {
        burn_ms(n);
    } else if (path_number(c, "/stream/", &n)) {
        for (long i = 0; i < n; i++) {
            char text[32];
            int len = snprintf(text, sizeof text, "event %ld\n", i);
            if (call_data(c, slice_of(text, (size_t)len)) || flush(c)) {
                call_abort(c, "the client left");
                return;
            }
            if (i % 4 == 3)
                sleep_ms(2);
        }
        if (call_end(c))
            return;
        return;
    } else if (path_number(c, "/big/", &n)) {
        static const char piece[65536];
        if (call_begin(c, n))
            return;
        for (long left = n; left > 0; left -= (long)sizeof piece) {
            size_t k = left < (long)sizeof piece ? (size_t)left : sizeof piece;
            if (call_data(c, slice_of(piece, k)) || flush(c)) {
                call_abort(c, "the client left");
                return;
            }
        }
        if (call_end(c))
            return;
        return;
    } else if (path_number(c, "/wait-gone", &n)) {
        for (int i = 0; i < 500 && !call_gone(c); i++)
            sleep_ms(10);
    } else if (path_number(c, "/echo", &n)) {
        echo(c);
        if (c->state != CALL_ABORTED && call_end(c))
            return;
        return;
    }
    if (call_data(c, c->req->query.n ? c->req->query : SLICE("Hello world\n")) || call_end(c))
        call_abort(c, "cannot answer");
}

static void on_signal(int signo)
{
    (void)signo;
    uint64_t one = 1;
    ssize_t n = write(g_stop_fd, &one, sizeof one);
    (void)n;
}

static int fail(const struct err *e)
{
    fprintf(stderr, "fake_server: %s\n", e->text);
    return 1;
}

int main(int argc, char **argv)
{
    struct conf conf;
    struct err e = {{0}};
    if (conf_init(&conf, CONF_WEIR, &e))
        return fail(&e);
    if (conf_set(&conf, "bind", "127.0.0.1:0", "default", &e))
        return fail(&e);
    for (int i = 1; i + 1 < argc; i += 2)
        if (conf_set(&conf, argv[i] + 2, argv[i + 1], argv[i], &e))
            return fail(&e);
    if (conf_finish(&conf, &e))
        return fail(&e);
    struct app app = {fake_thread_start, fake_thread_stop, fake_enter, fake_leave, fake_run};
    struct server *s = NULL;
    if (server_new(&s, &conf, &app, &e) || server_listen(s, NULL, 0, &e))
        return fail(&e);
    signal(SIGPIPE, SIG_IGN);
    g_stop_fd = eventfd(0, EFD_CLOEXEC);
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    if (log_start(&e) || server_start(s, &e))
        return fail(&e);
    for (unsigned i = 0; i < s->listeners.n; i++)
        printf("%s\n", s->listeners.items[i]->url);
    fflush(stdout);

    int stops = 0;
    for (;;) {
        struct pollfd fds[2] = {{.fd = s->done_fd, .events = POLLIN},
                                {.fd = g_stop_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            break;
        if (fds[1].revents) {
            uint64_t k = 0;
            if (read(g_stop_fd, &k, sizeof k) == sizeof k)
                server_stop(s, ++stops > 1 ? SERVER_NOW : SERVER_DRAIN);
        }
    }
    unsigned inside = server_join(s, 2000);
    struct counters *k = s->counters;
    printf("requests %llu connections %llu abandoned %llu inside %u\n",
           (unsigned long long)atomic_load(&k->requests),
           (unsigned long long)atomic_load(&k->connections),
           (unsigned long long)atomic_load(&k->abandoned), inside);
    if (!inside) {
        server_free(&s);
        conf_fini(&conf);
    }
    log_stop();
    return inside ? 1 : 0;
}
