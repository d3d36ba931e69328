/*
 * log: see the header.
 *
 * Two buffers per sink: `pending`, filled by those who log, and `out`, which the writer thread
 * takes from it and writes. `lock` guards everything but `out` and is held for a memcpy, never for
 * a system call while the writer runs. While `busy` is set the writer uses descriptors and `out`
 * without the lock; whoever wants to change them waits for its end, which comes within
 * LOG_GATHER_MS unless a write to a file hangs.
 *
 * No write may block for long, or stop and close would. Pipes and terminals are opened a second
 * time through /proc/self/fd: that gives an own open file description, so that O_NONBLOCK does not
 * reach the other processes that share standard error. Sockets take MSG_DONTWAIT. Where neither
 * works, poll says when a pipe has room for PIPE_BUF bytes, and no more is written at once.
 *
 * Lock order: `control`, then `lock`; nothing is taken while `lock` is held.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/escape.h"

/* Pending bytes of a sink: about 5,000 access lines, 50 ms at 100,000 requests/s. */
static const size_t LOG_PENDING_BYTES_MAX = (size_t)1024 * 1024;
/* Standard error, error log, access log, and some for other servers of the process. */
#define LOG_SINKS_MAX 16
static const int64_t LOG_TELL_NS = 1000000000;

enum sink_kind {
    SINK_POLLED = 0, /* a blocking descriptor: poll, then at most PIPE_BUF bytes */
    SINK_FILE,       /* a regular file: always takes all */
    SINK_NONBLOCK,   /* a pipe or terminal with O_NONBLOCK of its own */
    SINK_SOCKET,
};

struct log_sink {
    int fd;
    int lent_fd; /* without a path: the descriptor that was lent; fd may be its second opening */
    enum sink_kind kind;
    bool own_fd;        /* close it at the end */
    bool torn;          /* the last byte written is not a newline, and its line is lost */
    bool full;          /* took nothing at the last try */
    char *path;         /* owned; NULL for a lent descriptor */
    struct buf pending; /* lines not yet taken by the writer */
    struct buf out;     /* the writer's: lines being written */
    size_t out_off;     /* of them: written */
    uint64_t dropped;   /* lines that nobody was told of yet */
    int error;          /* why the last of them went, an errno; 0 = too slow */
    int64_t told_ns;    /* when somebody was */
};

static struct log_sink g_stderr = {.fd = STDERR_FILENO, .lent_fd = STDERR_FILENO};

static struct {
    pthread_mutex_t control; /* excludes open, close, reopen, start and stop */
    pthread_mutex_t lock;
    pthread_cond_t work; /* the writer waits here; monotonic clock */
    pthread_cond_t idle; /* who waits for the end of `busy` or of the writing; monotonic clock */
    pthread_t writer;
    bool running;   /* lines go to the writer */
    bool asleep;    /* the writer waits for the first line */
    bool busy;      /* the writer uses descriptors without the lock */
    bool hands_off; /* the writer may not become busy; who set it holds `control` */
    bool stopping;
    bool lost;       /* the writer hung in a write when it was to stop; lines are dropped */
    int64_t stop_ns; /* when it gives up, once stopping */
    struct log_sink *sinks[LOG_SINKS_MAX];
    unsigned n_sinks;
    struct log_sink *errors; /* lent; NULL = g_stderr */
    const struct log_sink *captured; /* lent; standard streams lead there. Under `control` */
    _Atomic int least;
    _Atomic bool json;
    _Atomic bool color;
} g_log = {
    .control = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .sinks = {&g_stderr},
    .n_sinks = 1,
    .least = LOG_INFO,
};

static pthread_once_t g_once = PTHREAD_ONCE_INIT;

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&g_log.control);
    pthread_mutex_lock(&g_log.lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&g_log.lock);
    pthread_mutex_unlock(&g_log.control);
}

static void after_fork_child(void)
{
    /* Dropped, not freed: the writer may have been about to change `out`. */
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        g_log.sinks[i]->pending.n = 0;
        g_log.sinks[i]->out = (struct buf){0};
        g_log.sinks[i]->out_off = 0;
        g_log.sinks[i]->dropped = 0;
    }
    g_log.running = g_log.asleep = g_log.busy = g_log.stopping = g_log.lost = false;
    g_log.hands_off = false;
    /* Their waiters do not exist here. */
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g_log.work, &attr);
    pthread_cond_init(&g_log.idle, &attr);
    pthread_condattr_destroy(&attr);
    after_fork_parent();
}

static void init_once(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g_log.work, &attr);
    pthread_cond_init(&g_log.idle, &attr);
    pthread_condattr_destroy(&attr);
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void control_lock(void)
{
    pthread_once(&g_once, init_once);
    pthread_mutex_lock(&g_log.control);
}

static void control_unlock(void)
{
    pthread_mutex_unlock(&g_log.control);
}

/* ---- one sink ---- */

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
                             .tv_nsec = (long)(ns % 1000000000)};
}

static uint64_t count_lines(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (const char *end = p + n; n && (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        lines++;
    return lines;
}

/* Whole lines that fit into one atomic write to a pipe, so that processes that share it do not cut
 * each other's lines; a line that is longer goes in parts. */
static size_t pipe_part(const char *p, size_t n)
{
    if (n <= PIPE_BUF)
        return n;
    const char *newline = memrchr(p, '\n', PIPE_BUF);
    return newline ? (size_t)(newline - p) + 1 : PIPE_BUF;
}

/* Bytes written (> 0), -EAGAIN: nothing now, or -errno. */
static ssize_t sink_put(struct log_sink *s, const char *p, size_t n)
{
    ssize_t done;
    do {
        if (s->kind == SINK_SOCKET) {
            done = send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else if (s->kind == SINK_FILE) {
            done = write(s->fd, p, n);
        } else {
            struct pollfd ready = {.fd = s->fd, .events = POLLOUT};
            if (s->kind == SINK_POLLED && poll(&ready, 1, 0) == 0)
                return -EAGAIN;
            done = write(s->fd, p, pipe_part(p, n));
        }
    } while (done < 0 && errno == EINTR);
    if (done > 0)
        s->torn = p[done - 1] != '\n';
    return done > 0 ? done : done < 0 ? -errno : -EIO;
}

/* Close the line that was cut when the sink was last given up. 0 or as sink_put. */
static int sink_mend(struct log_sink *s)
{
    ssize_t done = s->torn ? sink_put(s, "\n", 1) : 1;
    return done > 0 ? 0 : (int)done;
}

/* Without the writer: write now, wait at most LOG_STOP_MS, then not again before it takes a byte.
 */
static void sink_write_now(struct log_sink *s, struct slice line)
{
    int64_t until_ns = s->full ? 0 : clock_mono_ns() + (int64_t)LOG_STOP_MS * 1000000;
    bool mended = false;
    while (line.n) {
        ssize_t done = mended ? sink_put(s, line.p, line.n) : sink_mend(s);
        if (done >= 0) {
            line.p += done;
            line.n -= (size_t)done;
            mended = true;
            s->full = false;
            continue;
        }
        int64_t left_ns = until_ns - clock_mono_ns();
        if (done != -EAGAIN || left_ns <= 0) {
            s->full = done == -EAGAIN;
            s->error = s->full ? 0 : (int)-done;
            s->dropped++;
            return;
        }
        struct pollfd ready = {.fd = s->fd, .events = POLLOUT};
        (void)poll(&ready, 1, (int)(left_ns / 1000000) + 1);
    }
}

static void sink_write_locked(struct log_sink *s, struct slice line)
{
    if (!g_log.running) {
        if (g_log.lost)
            s->dropped++;
        else
            sink_write_now(s, line);
        return;
    }
    size_t before = s->pending.n;
    if (before + line.n > LOG_PENDING_BYTES_MAX || buf_add_slice(&s->pending, line)) {
        s->dropped++;
        s->error = 0;
        return;
    }
    /* Early, if what gathers could pass the ceiling before LOG_GATHER_MS are over. */
    size_t half = LOG_PENDING_BYTES_MAX / 2;
    if (g_log.asleep || (before < half && s->pending.n >= half)) {
        g_log.asleep = false;
        pthread_cond_signal(&g_log.work);
    }
}

/* ---- the writer ---- */

/* Write what the sink takes. What it refuses for good (a closed pipe, a full disk) is lost. */
static void sink_write_out(struct log_sink *s, uint64_t *dropped, int *error)
{
    s->full = false;
    int rc = s->out.n ? sink_mend(s) : 0;
    while (!rc && s->out_off < s->out.n) {
        ssize_t done = sink_put(s, s->out.p + s->out_off, s->out.n - s->out_off);
        if (done > 0)
            s->out_off += (size_t)done;
        else
            rc = (int)done;
    }
    if (rc == -EAGAIN) {
        s->full = true;
        return;
    }
    *error = -rc;
    if (rc)
        *dropped += count_lines(s->out.p + s->out_off, s->out.n - s->out_off);
    s->out_off = 0;
    buf_clear(&s->out, LOG_PENDING_BYTES_MAX);
}

/* Until a full sink has room again, at most LOG_GATHER_MS. */
static void wait_for_room(struct log_sink *const *sinks, unsigned n)
{
    struct pollfd wanted[LOG_SINKS_MAX];
    nfds_t n_wanted = 0;
    for (unsigned i = 0; i < n; i++)
        if (sinks[i]->full)
            wanted[n_wanted++] = (struct pollfd){.fd = sinks[i]->fd, .events = POLLOUT};
    (void)poll(wanted, n_wanted, LOG_GATHER_MS);
}

/* Lines of a sink that were lost. */
struct loss {
    char sink[256];
    uint64_t lines;
    int error; /* errno; 0 = too slow */
};

static void loss_of(struct loss *l, const struct log_sink *s, uint64_t lines)
{
    snprintf(l->sink, sizeof l->sink, "%s", s->path ? s->path : "the standard stream");
    l->lines = lines;
    l->error = s->error;
}

/* Not under the lock: it logs a line. */
static void tell(const struct loss *l)
{
    log_line(LOG_WARNING, 0, "%llu log lines for %s were lost: %s", (unsigned long long)l->lines,
             l->sink, l->error ? strerror(l->error) : "they are not read fast enough");
}

/* Is there a sink that writes again and whose loss is to be told now? Counted as told then. At the
 * end each is told once more, and only once: the line that tells may be lost itself. */
static bool take_untold_locked(struct loss *l)
{
    int64_t now_ns = clock_mono_ns();
    int64_t told_before_ns =
        g_log.stopping ? g_log.stop_ns - (int64_t)LOG_STOP_MS * 1000000 : now_ns - LOG_TELL_NS;
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        struct log_sink *s = g_log.sinks[i];
        if (!s->dropped || s->full || s->told_ns > told_before_ns)
            continue;
        loss_of(l, s, s->dropped);
        s->dropped = 0;
        s->told_ns = now_ns;
        return true;
    }
    return false;
}

/* Move what waits to the writer. True: there is something to write. */
static bool take_pending_locked(void)
{
    bool any = false;
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        struct log_sink *s = g_log.sinks[i];
        if (!s->out.n && s->pending.n) {
            struct buf empty = s->out;
            s->out = s->pending;
            s->pending = empty;
        }
        any |= s->out.n > 0;
    }
    return any;
}

/* The writer's time is over: what is left is lost. */
static void drop_all_locked(void)
{
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        struct log_sink *s = g_log.sinks[i];
        if (s->out.n)
            s->dropped += count_lines(s->out.p + s->out_off, s->out.n - s->out_off);
        if (s->pending.n)
            s->dropped += count_lines(s->pending.p, s->pending.n);
        s->out_off = s->out.n = s->pending.n = 0;
    }
}

/* One round: write, then wait for room or for more lines. Returns with the lock held. */
static void write_round_locked(void)
{
    struct log_sink *sinks[LOG_SINKS_MAX];
    uint64_t dropped[LOG_SINKS_MAX] = {0};
    int error[LOG_SINKS_MAX] = {0};
    unsigned n = g_log.n_sinks;
    memcpy(sinks, g_log.sinks, n * sizeof *sinks);
    g_log.busy = true;
    pthread_mutex_unlock(&g_log.lock);

    bool any_full = false;
    for (unsigned i = 0; i < n; i++) {
        sink_write_out(sinks[i], &dropped[i], &error[i]);
        any_full |= sinks[i]->full;
    }
    if (any_full)
        wait_for_room(sinks, n);

    pthread_mutex_lock(&g_log.lock);
    g_log.busy = false;
    for (unsigned i = 0; i < n; i++) {
        sinks[i]->dropped += dropped[i];
        if (dropped[i])
            sinks[i]->error = error[i];
    }
    pthread_cond_broadcast(&g_log.idle);
    if (!any_full && !g_log.stopping) {
        struct timespec until = timespec_of(clock_mono_ns() + (int64_t)LOG_GATHER_MS * 1000000);
        pthread_cond_timedwait(&g_log.work, &g_log.lock, &until);
    }
}

static void *writer_main(void *arg)
{
    (void)arg;
    struct loss loss;
    pthread_mutex_lock(&g_log.lock);
    for (;;) {
        bool late = g_log.stopping && clock_mono_ns() >= g_log.stop_ns;
        if (late) {
            drop_all_locked();
            break;
        }
        if (take_untold_locked(&loss)) {
            pthread_mutex_unlock(&g_log.lock);
            tell(&loss);
            pthread_mutex_lock(&g_log.lock);
        } else if (g_log.hands_off) {
            pthread_cond_wait(&g_log.idle, &g_log.lock);
        } else if (take_pending_locked()) {
            write_round_locked();
        } else if (g_log.stopping) {
            break;
        } else {
            g_log.asleep = true;
            pthread_cond_wait(&g_log.work, &g_log.lock);
            g_log.asleep = false;
        }
    }
    g_log.running = g_log.stopping = g_log.lost = false;
    pthread_cond_broadcast(&g_log.idle);
    pthread_mutex_unlock(&g_log.lock);
    return NULL;
}

/* Keep the writer from descriptors until hands_on_locked. False: it hangs in a write. */
static bool hands_off_locked(void)
{
    struct timespec until = timespec_of(clock_mono_ns() + (int64_t)LOG_STOP_MS * 1000000);
    /* The flag, since a writer with a full sink is hardly ever not busy. */
    g_log.hands_off = true;
    while (g_log.busy)
        if (pthread_cond_timedwait(&g_log.idle, &g_log.lock, &until) == ETIMEDOUT)
            break;
    return !g_log.busy;
}

static void hands_on_locked(void)
{
    g_log.hands_off = false;
    pthread_cond_broadcast(&g_log.idle);
}

/* ---- opening and closing ---- */

static int open_append(const char *path, struct err *e)
{
    /* O_NONBLOCK: a FIFO that nobody reads is an error, not a server that waits. */
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
    if (fd < 0)
        err_set(
            e,
            "cannot open the log file %s: %s; give a writable path, or - for the standard stream",
            path, strerror(errno));
    return fd;
}

static enum sink_kind kind_of(int fd, bool nonblock)
{
    struct stat st;
    if (fstat(fd, &st))
        return SINK_POLLED;
    if (S_ISREG(st.st_mode))
        return SINK_FILE;
    if (S_ISSOCK(st.st_mode))
        return SINK_SOCKET;
    return nonblock ? SINK_NONBLOCK : SINK_POLLED;
}

/* Use a lent descriptor, through an own open file description where there can be one. */
static void sink_lend_fd(struct log_sink *s, int fd)
{
    s->fd = s->lent_fd = fd;
    s->own_fd = false;
    s->kind = kind_of(fd, false);
    if (s->kind != SINK_POLLED)
        return;
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int own = open(name, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (own < 0)
        return;
    s->fd = own;
    s->own_fd = true;
    s->kind = kind_of(own, true);
}

static void sink_free(struct log_sink *s)
{
    if (s->own_fd)
        close(s->fd);
    buf_fini(&s->pending);
    buf_fini(&s->out);
    free(s->path);
    free(s);
}

int log_sink_open(struct log_sink **out, const char *path, int dash_fd, struct err *e)
{
    *out = NULL;
    struct log_sink *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, "out of memory");
    /* Opened by its name a standard stream may refuse a worker that gave up root's rights. */
    bool is_out = strcmp(path, "/dev/stdout") == 0, is_err = strcmp(path, "/dev/stderr") == 0;
    if (strcmp(path, "-") == 0 || is_out || is_err) {
        sink_lend_fd(s, is_out ? STDOUT_FILENO : is_err ? STDERR_FILENO : dash_fd);
    } else {
        s->fd = open_append(path, e);
        s->own_fd = s->fd >= 0;
        s->kind = kind_of(s->fd, true);
        s->path = strdup(path);
        if (s->own_fd && !s->path)
            err_set(e, "out of memory");
        if (!s->own_fd || !s->path) {
            sink_free(s);
            return -1;
        }
    }
    control_lock();
    pthread_mutex_lock(&g_log.lock);
    bool fits = g_log.n_sinks < LOG_SINKS_MAX;
    if (fits)
        g_log.sinks[g_log.n_sinks++] = s;
    pthread_mutex_unlock(&g_log.lock);
    control_unlock();
    if (!fits) {
        sink_free(s);
        return err_set(e, "too many log files are open in this process (%d)", LOG_SINKS_MAX);
    }
    *out = s;
    return 0;
}

void log_sink_write(struct log_sink *s, struct slice line)
{
    pthread_mutex_lock(&g_log.lock);
    sink_write_locked(s, line);
    pthread_mutex_unlock(&g_log.lock);
}

void log_sink_close(struct log_sink **sp)
{
    struct log_sink *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    control_lock();
    pthread_mutex_lock(&g_log.lock);
    if (g_log.errors == s)
        g_log.errors = NULL;
    struct timespec until = timespec_of(clock_mono_ns() + (int64_t)LOG_STOP_MS * 1000000);
    /* `busy` first: `out` is the writer's meanwhile. */
    while (g_log.running && (g_log.busy || s->pending.n || s->out.n)) {
        pthread_cond_signal(&g_log.work);
        if (pthread_cond_timedwait(&g_log.idle, &g_log.lock, &until) == ETIMEDOUT)
            break;
    }
    bool free_it = hands_off_locked();
    uint64_t dropped = s->dropped;
    if (free_it && s->out.n)
        dropped += count_lines(s->out.p + s->out_off, s->out.n - s->out_off);
    if (s->pending.n)
        dropped += count_lines(s->pending.p, s->pending.n);
    if (g_log.captured == s)
        g_log.captured = NULL;
    unsigned i = 0;
    while (i < g_log.n_sinks && g_log.sinks[i] != s)
        i++;
    if (i < g_log.n_sinks)
        g_log.sinks[i] = g_log.sinks[--g_log.n_sinks];
    hands_on_locked();
    pthread_mutex_unlock(&g_log.lock);
    control_unlock();
    struct loss loss;
    loss_of(&loss, s, dropped);
    if (dropped)
        tell(&loss);
    /* The writer hangs in a write to a file and holds this: better a leak than a stale pointer. */
    if (free_it)
        sink_free(s);
}

static int reopen_one(struct log_sink *s, struct err *e)
{
    int fd = open_append(s->path, e);
    if (fd < 0)
        return -1;
    pthread_mutex_lock(&g_log.lock);
    bool free_now = hands_off_locked();
    int old = -1;
    if (free_now) {
        old = s->fd;
        s->fd = fd;
        s->kind = kind_of(fd, true);
        s->torn = s->full = false;
    }
    hands_on_locked();
    pthread_mutex_unlock(&g_log.lock);
    close(free_now ? old : fd);
    return free_now ? 0 : err_set(e, "cannot reopen the log file %s: a write to it hangs", s->path);
}

/* Under `control`, which keeps the descriptor. */
static int capture(void)
{
    const struct log_sink *s = g_log.captured;
    if (!s)
        return 0;
    /* Not close-on-exec there: programs that the application starts write there too. */
    return dup2(s->fd, STDOUT_FILENO) < 0 || dup2(s->fd, STDERR_FILENO) < 0 ? -errno : 0;
}

int log_capture(const struct log_sink *s)
{
    if (s && !s->path)
        return -EBADF;
    control_lock();
    g_log.captured = s;
    int rc = capture();
    control_unlock();
    return rc;
}

int log_reopen(struct err *e)
{
    int rc = 0;
    control_lock();
    /* `control` keeps the list as it is. */
    for (unsigned i = 0; i < g_log.n_sinks; i++)
        if (g_log.sinks[i]->path && reopen_one(g_log.sinks[i], rc ? NULL : e))
            rc = -1;
    int failed = capture();
    if (failed && !rc)
        rc = err_set(e, "cannot lead standard output to the log file: %s", strerror(-failed));
    control_unlock();
    return rc;
}

void log_lent_changed(void)
{
    control_lock();
    (void)capture(); /* it worked before, and needs nothing new */
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        struct log_sink *s = g_log.sinks[i];
        /* A descriptor that is used itself has changed with its file, whatever that is. */
        if (s->path || (!s->own_fd && s->kind != SINK_SOCKET))
            continue;
        pthread_mutex_lock(&g_log.lock);
        if (hands_off_locked()) {
            if (s->own_fd)
                close(s->fd);
            sink_lend_fd(s, s->lent_fd);
            s->torn = s->full = false;
        }
        hands_on_locked();
        pthread_mutex_unlock(&g_log.lock);
    }
    control_unlock();
}

/* Standard error, which is there without being opened, as a lent descriptor or as it was. */
static void stderr_prepare(bool writer)
{
    if (g_stderr.own_fd)
        close(g_stderr.fd);
    g_stderr.own_fd = false;
    g_stderr.fd = STDERR_FILENO;
    g_stderr.kind = SINK_POLLED;
    if (writer)
        sink_lend_fd(&g_stderr, STDERR_FILENO);
}

int log_start(struct err *e)
{
    control_lock();
    pthread_mutex_lock(&g_log.lock);
    int rc = 0;
    const char *why = NULL;
    if (g_log.lost)
        why = "it still hangs in a write to a log file";
    if (!why && !g_log.running) {
        stderr_prepare(true);
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(&g_log.writer, NULL, writer_main, NULL);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (rc) {
            why = strerror(rc);
            stderr_prepare(false);
        } else {
            pthread_setname_np(g_log.writer, "weir-log");
            g_log.running = true;
        }
    }
    pthread_mutex_unlock(&g_log.lock);
    control_unlock();
    return why ? err_set(e, "cannot start the log writer: %s", why) : 0;
}

void log_stop(void)
{
    control_lock();
    pthread_mutex_lock(&g_log.lock);
    bool mine = g_log.running;
    g_log.stopping = mine;
    g_log.stop_ns = clock_mono_ns() + (int64_t)LOG_STOP_MS * 1000000;
    if (mine) {
        pthread_cond_signal(&g_log.work);
        /* It ends by itself at stop_ns, unless a write to a file hangs. */
        struct timespec until = timespec_of(g_log.stop_ns + (int64_t)LOG_STOP_MS * 1000000);
        while (g_log.running)
            if (pthread_cond_timedwait(&g_log.idle, &g_log.lock, &until) == ETIMEDOUT)
                break;
        g_log.lost = g_log.running;
        g_log.running = false;
    }
    bool lost = g_log.lost;
    pthread_mutex_unlock(&g_log.lock);
    if (mine && lost)
        pthread_detach(g_log.writer);
    else if (mine)
        pthread_join(g_log.writer, NULL);
    if (mine && !lost) {
        pthread_mutex_lock(&g_log.lock);
        stderr_prepare(false);
        pthread_mutex_unlock(&g_log.lock);
    }
    control_unlock();
}

/* ---- the error log ---- */

void log_setup(struct log_sink *sink, enum log_level least, bool json)
{
    pthread_mutex_lock(&g_log.lock);
    g_log.errors = sink;
    pthread_mutex_unlock(&g_log.lock);
    atomic_store_explicit(&g_log.least, (int)least, memory_order_relaxed);
    atomic_store_explicit(&g_log.json, json, memory_order_relaxed);
}

void log_color(bool on)
{
    atomic_store_explicit(&g_log.color, on, memory_order_relaxed);
}

bool log_color_wanted(const char *setting, int fd)
{
    if (strcmp(setting, "auto") != 0)
        return strcmp(setting, "always") == 0;
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return fd >= 0 && !(no && *no) && !(term && strcmp(term, "dumb") == 0) && isatty(fd);
}

bool log_wants(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&g_log.least, memory_order_relaxed);
}

bool log_site_pass(struct log_site *site, unsigned *more)
{
    *more = 0;
    int64_t second = clock_mono_ns() / 1000000000;
    int64_t window = atomic_load(&site->second);
    /* Only forward: a thread that read its clock before another opened the window joins it. */
    if (second > window && atomic_compare_exchange_strong(&site->second, &window, second)) {
        atomic_store(&site->written, 1);
        *more = atomic_exchange(&site->left_out, 0);
        return true;
    }
    if (atomic_fetch_add(&site->written, 1) < LOG_FLOOD_LINES)
        return true;
    atomic_fetch_add(&site->left_out, 1);
    return false;
}

static const char *const LEVEL_WORDS[] = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"};
/* Of the sixteen that every terminal has: grey, green, yellow, red, bold red; a request is cyan. */
static const char *const LEVEL_COLORS[] = {"\x1b[90m", "\x1b[32m", "\x1b[33m", "\x1b[31m",
                                           "\x1b[1;31m"};
static const char REQUEST_COLOR[] = "\x1b[36m", PLAIN[] = "\x1b[0m";

static int add_json_text(struct buf *b, struct slice s)
{
    int rc = buf_reserve(b, s.n * ESCAPE_GROWTH + 2);
    if (rc)
        return rc;
    char *out = b->p + b->n;
    *out++ = '"';
    out = escape_json(out, s);
    *out++ = '"';
    b->n = (size_t)(out - b->p);
    return 0;
}

/* UTF-8 and tabs stay, lines are indented, the rest of the control characters is escaped. */
static int add_plain_text(struct buf *b, struct slice s)
{
    int rc = buf_reserve(b, s.n * ESCAPE_GROWTH);
    if (rc)
        return rc;
    char *out = b->p + b->n;
    size_t i = 0;
    while (out = escape_copy_plain(out, s, &i), i < s.n) {
        const unsigned char *p = (const unsigned char *)s.p + i;
        size_t len = *p < 0x80 ? 0 : escape_utf8_length(p, s.n - i);
        bool c1 = len == 2 && p[0] == 0xc2 && p[1] < 0xa0;
        if (len && !c1) {
            memcpy(out, p, len);
            out += len;
            i += len;
            continue;
        }
        i++;
        if (*p == '\n') {
            memcpy(out, "\n  ", 3);
            out += 3;
        } else if (*p == '"' || *p == '\\' || *p == '\t') {
            *out++ = (char)*p;
        } else {
            *out++ = '\\';
            *out++ = 'x';
            out = escape_hex2(out, *p);
        }
    }
    b->n = (size_t)(out - b->p);
    return 0;
}

void log_text(enum log_level level, uint64_t request, struct slice text)
{
    if (!log_wants(level))
        return;
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    bool cut = text.n > LOG_TEXT_BYTES_MAX;
    size_t more = cut ? text.n - LOG_TEXT_BYTES_MAX : 0;
    text.n -= more;
    bool json = atomic_load_explicit(&g_log.json, memory_order_relaxed);
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    struct buf b = {0};
    char stamp[40];
    int rc = 0;
    if (json) {
        gmtime_r(&now.tv_sec, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
        rc |= buf_addf(&b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"pid\":%d", stamp,
                       now.tv_nsec / 1000000, LEVEL_WORDS[level], (int)getpid());
        if (request)
            rc |= buf_addf(&b, ",\"request\":%llu", (unsigned long long)request);
        if (cut)
            rc |= buf_addf(&b, ",\"cut_bytes\":%zu", more);
        rc |= buf_addf(&b, ",\"message\":");
        rc |= add_json_text(&b, text);
        rc |= buf_add(&b, "}\n", 2);
    } else {
        localtime_r(&now.tv_sec, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &tm);
        bool color = atomic_load_explicit(&g_log.color, memory_order_relaxed);
        rc |= buf_addf(&b, "%s.%03ld [%d] %s%s%s ", stamp, now.tv_nsec / 1000000, (int)getpid(),
                       color ? LEVEL_COLORS[level] : "", LEVEL_WORDS[level], color ? PLAIN : "");
        if (request)
            rc |= buf_addf(&b, "%srequest=%llu%s ", color ? REQUEST_COLOR : "",
                           (unsigned long long)request, color ? PLAIN : "");
        rc |= add_plain_text(&b, text);
        if (cut)
            rc |= buf_addf(&b, "... (%zu bytes more)", more);
        rc |= buf_add(&b, "\n", 1);
    }
    if (!rc) {
        pthread_mutex_lock(&g_log.lock);
        sink_write_locked(g_log.errors ? g_log.errors : &g_stderr, buf_slice(&b));
        pthread_mutex_unlock(&g_log.lock);
    }
    buf_fini(&b);
}

void log_line(enum log_level level, uint64_t request, const char *fmt, ...)
{
    if (!log_wants(level))
        return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    if (n >= (int)sizeof text)
        memcpy(text + len - 3, "...", 3);
    log_text(level, request, slice_of(text, len));
}
