/*
 * log: see the header.
 *
 * One mutex guards the pending bytes of all sinks; it is held for a memcpy, never for a system
 * call once the writer thread runs. Lock order: nothing is taken while it is held.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

/* Pending bytes of a sink: about 5,000 access lines, 50 ms at 100,000 requests/s. */
static const size_t LOG_PENDING_BYTES_MAX = 1024 * 1024;
#define LOG_SINKS_MAX 4

struct log_sink {
    int fd;
    char *path;         /* owned; NULL for a lent descriptor */
    struct buf pending; /* lines not yet taken by the writer */
    uint64_t dropped;   /* lines since the last one that told */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work; /* the writer waits here */
    pthread_cond_t idle; /* log_stop waits here */
    pthread_t writer;
    bool running, stopping, writing;
    struct log_sink *sinks[LOG_SINKS_MAX];
    unsigned n_sinks;
    struct log_sink *errors;
    _Atomic int least;
    bool json;
} g_log = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .work = PTHREAD_COND_INITIALIZER,
    .idle = PTHREAD_COND_INITIALIZER,
    .least = LOG_INFO,
};

static void write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return; /* nobody can be told */
        p += done;
        n -= (size_t)done;
    }
}

static void *writer_main(void *arg)
{
    (void)arg;
    struct buf taken = {0};
    pthread_mutex_lock(&g_log.lock);
    for (;;) {
        struct log_sink *s = NULL;
        for (unsigned i = 0; i < g_log.n_sinks && !s; i++)
            if (g_log.sinks[i]->pending.n)
                s = g_log.sinks[i];
        if (!s) {
            pthread_cond_broadcast(&g_log.idle);
            if (g_log.stopping)
                break;
            pthread_cond_wait(&g_log.work, &g_log.lock);
            continue;
        }
        struct buf full = s->pending;
        s->pending = taken;
        uint64_t dropped = s->dropped;
        s->dropped = 0;
        int fd = s->fd;
        g_log.writing = true;
        pthread_mutex_unlock(&g_log.lock);

        write_all(fd, full.p, full.n);
        if (dropped) {
            char line[96];
            int n = snprintf(line, sizeof line, "weir: %llu log lines were dropped: the log is too slow\n",
                             (unsigned long long)dropped);
            write_all(fd, line, (size_t)n);
        }
        buf_clear(&full, LOG_PENDING_BYTES_MAX);
        taken = full;

        pthread_mutex_lock(&g_log.lock);
        g_log.writing = false;
    }
    pthread_mutex_unlock(&g_log.lock);
    buf_fini(&taken);
    return NULL;
}

static int open_append(const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0)
        err_set(e, "cannot open the log file %s: %s; give a writable path or - ", path,
                strerror(errno));
    return fd;
}

int log_sink_open(struct log_sink **out, const char *path, int dash_fd, struct err *e)
{
    *out = NULL;
    bool dash = strcmp(path, "-") == 0;
    if (g_log.n_sinks == LOG_SINKS_MAX)
        return err_set(e, "too many log files");
    struct log_sink *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, "out of memory");
    s->fd = dash ? dash_fd : open_append(path, e);
    if (!dash && s->fd >= 0)
        s->path = strdup(path);
    if (s->fd < 0 || (!dash && !s->path)) {
        free(s);
        return -1;
    }
    pthread_mutex_lock(&g_log.lock);
    g_log.sinks[g_log.n_sinks++] = s;
    pthread_mutex_unlock(&g_log.lock);
    *out = s;
    return 0;
}

void log_sink_write(struct log_sink *s, struct slice line)
{
    pthread_mutex_lock(&g_log.lock);
    if (!g_log.running) {
        write_all(s->fd, line.p, line.n);
    } else if (s->pending.n + line.n > LOG_PENDING_BYTES_MAX || buf_add_slice(&s->pending, line)) {
        s->dropped++;
    } else if (!g_log.writing) {
        pthread_cond_signal(&g_log.work);
    }
    pthread_mutex_unlock(&g_log.lock);
}

int log_reopen(struct err *e)
{
    int rc = 0;
    for (unsigned i = 0; i < g_log.n_sinks; i++) {
        struct log_sink *s = g_log.sinks[i];
        if (!s->path)
            continue;
        int fd = open_append(s->path, rc ? NULL : e);
        if (fd < 0) {
            rc = -1;
            continue;
        }
        /* dup2 keeps the number: the writer may be about to use it. */
        dup3(fd, s->fd, O_CLOEXEC);
        close(fd);
    }
    return rc;
}

int log_start(struct err *e)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    g_log.stopping = false;
    int rc = pthread_create(&g_log.writer, NULL, writer_main, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return err_set(e, "cannot start the log writer: %s", strerror(rc));
    pthread_setname_np(g_log.writer, "weir-log");
    pthread_mutex_lock(&g_log.lock);
    g_log.running = true;
    pthread_mutex_unlock(&g_log.lock);
    return 0;
}

void log_stop(void)
{
    pthread_mutex_lock(&g_log.lock);
    if (!g_log.running) {
        pthread_mutex_unlock(&g_log.lock);
        return;
    }
    g_log.stopping = true;
    pthread_cond_signal(&g_log.work);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    bool waiting = true;
    while (waiting) {
        waiting = g_log.writing;
        for (unsigned i = 0; i < g_log.n_sinks; i++)
            waiting |= g_log.sinks[i]->pending.n > 0;
        if (waiting && pthread_cond_timedwait(&g_log.idle, &g_log.lock, &until) == ETIMEDOUT)
            break;
    }
    g_log.running = false;
    pthread_mutex_unlock(&g_log.lock);
    if (waiting)
        pthread_detach(g_log.writer); /* stuck in a write to a full pipe */
    else
        pthread_join(g_log.writer, NULL);
}

void log_setup(struct log_sink *sink, enum log_level least, bool json)
{
    g_log.errors = sink;
    atomic_store_explicit(&g_log.least, (int)least, memory_order_relaxed);
    g_log.json = json;
}

bool log_wants(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&g_log.least, memory_order_relaxed);
}

bool log_site_pass(struct log_site *site, unsigned *more)
{
    *more = 0;
    int64_t second = clock_mono_ns() / 1000000000;
    if (atomic_exchange(&site->second, second) != second) {
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

static int add_json_text(struct buf *b, struct slice s)
{
    int rc = buf_add(b, "\"", 1);
    for (size_t i = 0; i < s.n && !rc; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            rc = buf_addf(b, "\\%c", c);
        else if (c == '\n')
            rc = buf_add(b, "\\n", 2);
        else if (c < 0x20 || c == 0x7f)
            rc = buf_addf(b, "\\u%04x", c);
        else
            rc = buf_add(b, &s.p[i], 1);
    }
    return rc ? rc : buf_add(b, "\"", 1);
}

void log_text(enum log_level level, uint64_t request, struct slice text)
{
    if (!log_wants(level))
        return;
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    struct buf b = {0};
    char stamp[40];
    int rc = 0;
    if (g_log.json) {
        gmtime_r(&now.tv_sec, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
        rc |= buf_addf(&b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"pid\":%d", stamp,
                       now.tv_nsec / 1000000, LEVEL_WORDS[level], (int)getpid());
        if (request)
            rc |= buf_addf(&b, ",\"request\":%llu", (unsigned long long)request);
        rc |= buf_addf(&b, ",\"message\":");
        rc |= add_json_text(&b, text);
        rc |= buf_add(&b, "}\n", 2);
    } else {
        localtime_r(&now.tv_sec, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &tm);
        rc |= buf_addf(&b, "%s.%03ld [%d] %s ", stamp, now.tv_nsec / 1000000, (int)getpid(),
                       LEVEL_WORDS[level]);
        if (request)
            rc |= buf_addf(&b, "request=%llu ", (unsigned long long)request);
        rc |= buf_add_slice(&b, text);
        rc |= buf_add(&b, "\n", 1);
    }
    if (!rc) {
        if (g_log.errors)
            log_sink_write(g_log.errors, buf_slice(&b));
        else
            write_all(STDERR_FILENO, b.p, b.n);
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
    log_text(level, request, slice_of(text, len));
}
