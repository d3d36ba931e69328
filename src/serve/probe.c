/* probe: see the header. */
#include "serve/probe.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/probe_wire.h"

/* Connecting again: soon, then later and later. */
static const int RETRY_MS = 10;
static const int RETRY_MS_MAX = 1000;
/* A listener that takes nothing for so long is given up. */
static const int SEND_MS = 5000;

struct probe {
    struct probe_config c;
    pthread_t thread;
    int stop_fd; /* owned: readable once it is to end */
    pid_t pid;   /* the process that has the thread */
};

enum what {
    WHAT_READY,   /* the socket is */
    WHAT_TIME,    /* the time is over */
    WHAT_STOPPED, /* end */
};

/* Wait for `events` on fd (-1: only for the time). timeout_ms < 0: for ever. */
static enum what wait_for(const struct probe *p, int fd, short events, int timeout_ms)
{
    struct pollfd polled[] = {{.fd = p->stop_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    int64_t until_ms = clock_mono_ns() / 1000000 + timeout_ms;
    for (;;) {
        int n = poll(polled, 2, timeout_ms);
        if (polled[0].revents && n > 0)
            return WHAT_STOPPED;
        if (n > 0)
            return WHAT_READY;
        if (n < 0 && errno != EINTR)
            return WHAT_STOPPED; /* it cannot wait: ours is not to spin */
        int64_t left_ms = until_ms - clock_mono_ns() / 1000000;
        if (timeout_ms >= 0 && (n == 0 || left_ms <= 0))
            return WHAT_TIME;
        if (timeout_ms >= 0)
            timeout_ms = (int)left_ms;
    }
}

/* False: the connection is of no use any more. */
static bool send_piece(const struct probe *p, int fd, const struct probe_piece *head,
                       const char *bytes, size_t n)
{
    struct iovec parts[] = {{(void *)(uintptr_t)head, sizeof *head}, {(void *)(uintptr_t)bytes, n}};
    const struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
    while (sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
            return false;
        if (wait_for(p, fd, POLLOUT, SEND_MS) != WHAT_READY)
            return false;
    }
    return true;
}

static bool answer(const struct probe *p, int fd, const struct probe_ask *ask)
{
    struct buf out = {.max = PROBE_ANSWER_BYTES_MAX};
    int64_t begun_ns = clock_mono_ns();
    struct probe_piece piece = {.head = {.kind = PROBE_PIECE, .question = ask->head.question}};
    piece.error = p->c.stacks(p->c.arg, &out, ask->thread);
    piece.took_ns = clock_mono_ns() - begun_ns;
    bool good = true;
    if (piece.error)
        out.n = 0;
    for (size_t at = 0; good && !piece.last;) {
        size_t n = out.n - at < PROBE_PIECE_BYTES_MAX ? out.n - at : PROBE_PIECE_BYTES_MAX;
        piece.head.size = (uint32_t)(sizeof piece + n);
        piece.last = at + n == out.n;
        good = send_piece(p, fd, &piece, out.p ? out.p + at : NULL, n);
        at += n;
    }
    buf_fini(&out);
    return good;
}

/* Answer until the connection ends. True: a question came. */
static bool serve(const struct probe *p, int fd)
{
    bool asked = false;
    for (;;) {
        struct probe_ask ask;
        if (wait_for(p, fd, POLLIN, -1) != WHAT_READY)
            return asked;
        ssize_t n = recv(fd, &ask, sizeof ask, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
            continue;
        if (n != (ssize_t)sizeof ask || ask.head.kind != PROBE_ASK || ask.head.size != sizeof ask ||
            ask.thread < 0)
            return asked;
        asked = true;
        if (!answer(p, fd, &ask))
            return asked;
    }
}

static void *probe_main(void *arg)
{
    struct probe *p = arg;
    int retry_ms = RETRY_MS;
    do {
        int fd = keeper_door_connect(p->c.door, p->c.slot, p->c.generation);
        bool asked = fd >= 0 && serve(p, fd);
        if (fd >= 0)
            close(fd);
        retry_ms = asked ? RETRY_MS : retry_ms * 2 < RETRY_MS_MAX ? retry_ms * 2 : RETRY_MS_MAX;
    } while (wait_for(p, -1, 0, retry_ms) == WHAT_TIME);
    return NULL;
}

int probe_start(struct probe **out, const struct probe_config *c)
{
    sigset_t all, old;
    struct probe *p = *out = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->c = *c;
    p->pid = getpid();
    p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = p->stop_fd < 0 ? -errno : 0;
    if (!rc) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for other threads */
        rc = -pthread_create(&p->thread, NULL, probe_main, p);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (!rc) {
        pthread_setname_np(p->thread, "weir-probe");
        return 0;
    }
    if (p->stop_fd >= 0)
        close(p->stop_fd);
    free(p);
    *out = NULL;
    return rc;
}

void probe_stop(struct probe **pp)
{
    struct probe *p = *pp;
    const uint64_t one = 1;
    *pp = NULL;
    if (!p)
        return;
    if (p->pid == getpid()) { /* a forked process has no such thread */
        ssize_t n = write(p->stop_fd, &one, sizeof one);
        (void)n;
        pthread_join(p->thread, NULL);
    }
    close(p->stop_fd);
    free(p);
}
