/* upgrade: see the header. */
#include "proc/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The next number of a list; moves *p behind it and a comma. */
static bool take_number(const char **p, int *out, bool *mark)
{
    char *end;
    errno = 0;
    long n = strtol(*p, &end, 10);
    if (end == *p || errno || n < -1 || n > INT_MAX)
        return false;
    if (mark)
        *mark = *end == 'u';
    end += mark && *mark;
    if (*end && *end != ',')
        return false;
    *p = end + (*end == ',');
    *out = (int)n;
    return true;
}

static bool listens(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return fd > STDERR_FILENO && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on;
}

/* Is it open, and of this type (SOCK_…), or with 0 anything? */
static bool is_open(int fd, int type)
{
    int found = 0;
    socklen_t n = sizeof found;
    if (fd <= STDERR_FILENO || fcntl(fd, F_GETFD) < 0)
        return false;
    return !type || (getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &n) == 0 && found == type);
}

static bool take_sockets(struct upgrade *u, const char *p)
{
    while (*p) {
        unsigned i = u->n_sockets;
        if (i == UPGRADE_SOCKETS_MAX || !take_number(&p, &u->sockets[i], &u->owns_path[i]) ||
            !listens(u->sockets[i]))
            return false;
        u->n_sockets++;
    }
    return u->n_sockets > 0;
}

static void close_on_exec(const struct upgrade *u)
{
    const int others[] = {u->ready_fd, u->hand_recv, u->hand_send};
    for (size_t i = 0; i < countof(others); i++)
        if (others[i] >= 0)
            fcntl(others[i], F_SETFD, FD_CLOEXEC);
    for (unsigned i = 0; i < u->n_sockets; i++)
        fcntl(u->sockets[i], F_SETFD, FD_CLOEXEC);
}

int upgrade_read(struct upgrade *u, const char *value, const char *gunicorn_pid,
                 const char *gunicorn_fd, struct err *e)
{
    static const struct upgrade NONE = {.ready_fd = -1, .hand_recv = -1, .hand_send = -1};
    const char *name = value ? UPGRADE_VARIABLE : "GUNICORN_FD";
    int pid = 0;
    *u = NONE;
    if (!value && (!gunicorn_pid || !gunicorn_fd))
        return 0;
    const char *p = value ? value : gunicorn_pid;
    /* Passed on to some other program, which has started us: not meant for this process. */
    if (!take_number(&p, &pid, NULL) || pid != getppid())
        return 0;
    bool good = true;
    if (value)
        good = take_number(&p, &u->ready_fd, NULL) && take_number(&p, &u->hand_recv, NULL) &&
               take_number(&p, &u->hand_send, NULL) && is_open(u->ready_fd, 0) &&
               (u->hand_recv < 0 || is_open(u->hand_recv, SOCK_SEQPACKET)) &&
               (u->hand_send < 0 || is_open(u->hand_send, SOCK_SEQPACKET));
    else
        p = gunicorn_fd;
    if (!good || !take_sockets(u, p)) {
        *u = NONE;
        return err_set(
            e, "%s=%.200s does not name the listening sockets that process %d hands over; unset it",
            name, value ? value : gunicorn_fd, pid);
    }
    close_on_exec(u);
    u->old_pid = pid;
    return 0;
}

void upgrade_write(const struct upgrade *u, char *out, size_t n)
{
    size_t used = (size_t)snprintf(out, n, "%d,%d,%d,%d", (int)u->old_pid, u->ready_fd,
                                   u->hand_recv, u->hand_send);
    for (unsigned i = 0; i < u->n_sockets && used < n; i++)
        used += (size_t)snprintf(out + used, n - used, ",%d%s", u->sockets[i],
                                 u->owns_path[i] ? "u" : "");
}

static int keep(int fd)
{
    return fd < 0 || fcntl(fd, F_SETFD, 0) == 0 ? 0 : -errno;
}

int upgrade_let_through(const struct upgrade *u)
{
    int rc = keep(u->ready_fd);
    if (!rc)
        rc = keep(u->hand_recv);
    if (!rc)
        rc = keep(u->hand_send);
    for (unsigned i = 0; i < u->n_sockets && !rc; i++)
        rc = keep(u->sockets[i]);
    return rc;
}

void upgrade_tell_ready(struct upgrade *u)
{
    if (u->ready_fd < 0)
        return;
    ssize_t n =
        write(u->ready_fd, "R", 1); /* SIGPIPE is ignored here; a dead reader is over soon */
    (void)n;
    close(u->ready_fd);
    u->ready_fd = -1;
}

void upgrade_watch(const struct upgrade *u)
{
    if (u->old_pid)
        (void)prctl(PR_SET_PDEATHSIG, SIGCHLD);
}

bool upgrade_is_over(const struct upgrade *u)
{
    return u->old_pid != 0 && getppid() != u->old_pid;
}
