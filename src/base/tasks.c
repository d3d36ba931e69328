/* tasks: see the header. */
#include "base/tasks.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* What the first argument of a call is. */
enum about {
    ABOUT_NOTHING = 0,
    ABOUT_FD,
    ABOUT_CONNECT, /* a descriptor, and an address */
    ABOUT_POLL,    /* an array of struct pollfd and its length */
    ABOUT_PID,
    ABOUT_PATH,
    ABOUT_PATH_AT, /* the second is */
};

/* Others are shown by their number. */
static const struct call {
    long number;
    const char *name;
    enum about about;
} CALLS[] = {
#define CALL(name, about) {SYS_##name, #name, ABOUT_##about},
#include "base/system_calls.def"
#undef CALL
};

/* ---- the list ---- */

static int list(struct tasks *t, DIR *dir)
{
    unsigned room = 0;
    const struct dirent *entry;
    while (t->n < TASKS_MAX && (entry = readdir(dir))) {
        long id = strtol(entry->d_name, NULL, 10);
        if (id <= 0 || id > INT32_MAX)
            continue; /* . and .. */
        if (t->n == room) {
            room = room ? room * 2 : 64;
            int32_t *more = realloc(t->ids, room * sizeof *more);
            if (!more)
                return -ENOMEM;
            t->ids = more;
        }
        t->ids[t->n++] = (int32_t)id;
    }
    return 0;
}

int tasks_open(struct tasks *t)
{
    *t = (struct tasks){.fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    int again = t->fd < 0 ? -errno : fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
    if (again < 0) {
        again = t->fd < 0 ? again : -errno;
        tasks_close(t);
        return again;
    }
    DIR *dir = fdopendir(again);
    if (!dir) {
        close(again);
        tasks_close(t);
        return -ENOMEM;
    }
    int rc = list(t, dir);
    closedir(dir);
    if (rc)
        tasks_close(t);
    return rc;
}

void tasks_close(struct tasks *t)
{
    if (t->fd >= 0)
        close(t->fd);
    free(t->ids);
    *t = (struct tasks){.fd = -1};
}

/* ---- one thread ---- */

/* A whole file of the kernel's, NUL-terminated. Its length, or -1. */
static ssize_t slurp(const struct tasks *t, int32_t id, const char *name, char *to, size_t size)
{
    char path[48];
    snprintf(path, sizeof path, "%d/%s", (int)id, name);
    int fd = openat(t->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, to, size - 1);
    close(fd);
    to[n > 0 ? n : 0] = '\0';
    return n;
}

static bool look_stat(const struct tasks *t, struct task *out)
{
    char text[1024];
    static long ticks; /* a second; the same whoever asks */
    if (slurp(t, out->id, "stat", text, sizeof text) <= 0)
        return false;
    /* "ID (name) S …": a name may hold anything, so from its end. */
    const char *p = strrchr(text, ')');
    unsigned long long user = 0, kernel = 0;
    if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &out->state,
                     &user, &kernel) != 3)
        return false;
    if (!ticks)
        ticks = sysconf(_SC_CLK_TCK);
    if (ticks > 0)
        out->cpu_ns = (int64_t)(user + kernel) * (1000000000 / ticks);
    return true;
}

void task_look_call(const struct tasks *t, struct task *out)
{
    char text[256];
    unsigned long long a[6];
    out->call = -1;
    out->channel[0] = '\0';
    out->call_known = slurp(t, out->id, "syscall", text, sizeof text) > 0;
    if (out->call_known) {
        /* "running", "-1 0xSP 0xPC", or the number, six arguments, stack and place. */
        if (sscanf(text, "%ld %llx %llx %llx %llx %llx %llx", &out->call, &a[0], &a[1], &a[2],
                   &a[3], &a[4], &a[5]) != 7)
            out->call = -1;
        for (int i = 0; i < 6; i++)
            out->args[i] = out->call < 0 ? 0 : a[i];
        return;
    }
    if (slurp(t, out->id, "wchan", out->channel, sizeof out->channel) <= 0 ||
        !strcmp(out->channel, "0"))
        out->channel[0] = '\0';
}

bool task_look(const struct tasks *t, int32_t id, struct task *out)
{
    *out = (struct task){.id = id, .call = -1};
    if (!look_stat(t, out))
        return false;
    ssize_t n = slurp(t, id, "comm", out->name, sizeof out->name);
    if (n > 0 && out->name[n - 1] == '\n')
        out->name[n - 1] = '\0';
    task_look_call(t, out);
    /* It has begun to wait meanwhile: both shall be of one moment. */
    return out->call < 0 || out->state != 'R' || look_stat(t, out);
}

uintptr_t task_futex(const struct task *t)
{
    return t->call == SYS_futex ? (uintptr_t)t->args[0] : 0;
}

/* ---- in what it waits ---- */

struct text {
    char *p;
    size_t n, size;
};

WEIR_PRINTF(2, 3) static void add(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->p + t->n, t->size - t->n, fmt, args);
    va_end(args);
    t->n += n < 0 ? 0 : (size_t)n < t->size - t->n ? (size_t)n : t->size - t->n - 1;
}

static void add_address(struct text *t, const struct sockaddr_storage *a, socklen_t n)
{
    char host[INET6_ADDRSTRLEN];
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un path;
    switch (a->ss_family) {
    case AF_INET:
        memcpy(&v4, a, sizeof v4);
        if (inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host))
            add(t, "%s:%u", host, ntohs(v4.sin_port));
        break;
    case AF_INET6:
        memcpy(&v6, a, sizeof v6);
        if (inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host))
            add(t, "[%s]:%u", host, ntohs(v6.sin6_port));
        break;
    case AF_UNIX:
        if (n <= offsetof(struct sockaddr_un, sun_path) || n > sizeof path)
            break; /* it has no name */
        memset(&path, 0, sizeof path);
        memcpy(&path, a, n);
        if (path.sun_path[0])
            add(t, "%.*s", (int)sizeof path.sun_path, path.sun_path);
        else
            add(t, "@%.*s", (int)(n - offsetof(struct sockaddr_un, sun_path) - 1),
                path.sun_path + 1);
        break;
    default:
        break;
    }
}

/* Both ends of a socket. False: it is none. */
static bool add_socket(struct text *t, int fd)
{
    struct sockaddr_storage here, there;
    socklen_t n_here = sizeof here, n_there = sizeof there;
    if (getsockname(fd, (struct sockaddr *)&here, &n_here))
        return false;
    bool has_peer = !getpeername(fd, (struct sockaddr *)&there, &n_there);
    if (here.ss_family == AF_UNIX) {
        add(t, "unix ");
        size_t before = t->n;
        add_address(t, &here, n_here);
        if (t->n == before && has_peer)
            add_address(t, &there, n_there);
        if (t->n == before)
            t->p[--t->n] = '\0'; /* the blank */
        return true;
    }
    if (here.ss_family != AF_INET && here.ss_family != AF_INET6)
        return false;
    add_address(t, &here, n_here);
    if (has_peer) {
        add(t, " > ");
        add_address(t, &there, n_there);
    }
    return true;
}

static void add_fd(struct text *t, uint64_t arg)
{
    char path[32], target[200];
    int fd = (int)arg;
    if (fd < 0 || add_socket(t, fd))
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof target);
    if (n > 0)
        add(t, "%.*s", (int)n, target);
    else
        add(t, "descriptor %d", fd);
}

static void add_connect(struct text *t, const struct task *task, const struct peek *p)
{
    struct sockaddr_storage to;
    memset(&to, 0, sizeof to);
    size_t n = task->args[2] < sizeof to ? (size_t)task->args[2] : sizeof to;
    if (peek(p, &to, (uintptr_t)task->args[1], n))
        return;
    add(t, "> ");
    add_address(t, &to, (socklen_t)n);
}

static void add_poll(struct text *t, const struct task *task, const struct peek *p)
{
    struct pollfd first;
    if (!task->args[1] || peek(p, &first, (uintptr_t)task->args[0], sizeof first))
        return;
    add_fd(t, (uint64_t)(int64_t)first.fd);
    if (task->args[1] > 1)
        add(t, " and %llu more", (unsigned long long)(task->args[1] - 1));
}

/* A text of the application's; at most up to the end of its page, which is there. */
static void add_path(struct text *t, uint64_t from, const struct peek *p)
{
    char path[200];
    size_t n = 4096 - (size_t)(from & 4095);
    n = n < sizeof path ? n : sizeof path;
    if (!peek(p, path, (uintptr_t)from, n))
        add(t, "%.*s", (int)strnlen(path, n), path);
}

bool task_waits_in(const struct task *task, const struct peek *p, char *out, size_t size)
{
    struct text t = {.p = out, .size = size};
    const struct call *call = NULL;
    out[0] = '\0';
    if (!task->call_known) {
        if (task->state != 'R' && *task->channel)
            add(&t, "%s", task->channel);
        return t.n > 0;
    }
    if (task->call < 0)
        return false;
    for (size_t i = 0; i < countof(CALLS) && !call; i++)
        if (CALLS[i].number == task->call)
            call = &CALLS[i];
    if (!call) {
        add(&t, "system call %ld", task->call);
        return true;
    }
    add(&t, "%s: ", call->name);
    size_t before = t.n;
    switch (call->about) {
    case ABOUT_NOTHING:
        break;
    case ABOUT_FD:
        add_fd(&t, task->args[0]);
        break;
    case ABOUT_CONNECT:
        add_connect(&t, task, p);
        break;
    case ABOUT_POLL:
        add_poll(&t, task, p);
        break;
    case ABOUT_PID:
        if ((int)task->args[0] > 0)
            add(&t, "process %d", (int)task->args[0]);
        break;
    case ABOUT_PATH:
        add_path(&t, task->args[0], p);
        break;
    case ABOUT_PATH_AT:
        add_path(&t, task->args[1], p);
        break;
    }
    if (t.n == before && t.n >= 2)
        out[t.n - 2] = '\0'; /* ": " */
    return true;
}
