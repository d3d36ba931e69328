/*
 * fake_app: an application written in C, for programs that need the server but not the interpreter.
 * A mutex plays the interpreter lock.
 *
 *   GET  /hello            12 bytes
 *   POST /echo             the body, as it came
 *   GET  /sleep/MS         blocks without the lock
 *   GET  /burn/MS          computes with the lock held
 *   GET  /stream/N         N chunks, flushed one by one
 *   GET  /big/N            N bytes in pieces of 64 KiB
 *   GET  /wait-gone        answers when the client has left, or after 5 s
 *   GET  /pid              the number of this process
 */
#ifndef WEIR_TESTS_FAKE_APP_H
#define WEIR_TESTS_FAKE_APP_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "handler/handler.h"

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
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
            if (call_ends_early(c))
                break;
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
    } else if (path_number(c, "/pid", &n)) {
        char text[24];
        int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
        if (call_data(c, slice_of(text, (size_t)len)) || call_end(c))
            call_abort(c, "cannot answer");
        return;
    } else if (path_number(c, "/echo", &n)) {
        echo(c);
        if (c->state != CALL_ABORTED && call_end(c))
            return;
        return;
    }
    if (call_data(c, c->req->query.n ? c->req->query : SLICE("Hello world\n")) || call_end(c))
        call_abort(c, "cannot answer");
}

/* There is nothing to be seen; each third time not even now. */
static bool fake_inspect(struct app *a, const struct inspect_ask *ask)
{
    (void)a;
    (void)ask;
    static unsigned asks; /* of the leader */
    return ++asks % 3 != 0;
}

static void fake_inspect_late(struct app *a, uint64_t id)
{
    (void)a;
    (void)id;
}

static struct app fake_app = {
    .thread_start = fake_thread_start,
    .thread_stop = fake_thread_stop,
    .enter = fake_enter,
    .leave = fake_leave,
    .run = fake_run,
    .inspect = fake_inspect,
    .inspect_late = fake_inspect_late,
};

#endif
