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

#include "proc/pid_file.h"

/* The next number; moves *p behind it, and behind a comma. */
static bool take_number(const char **p, int *out)
{
    char *end;
    errno = 0;
    long n = strtol(*p, &end, 10);
    if (end == *p || errno || n < -1 || n > INT_MAX)
        return false;
    *p = end + (*end == ',');
    *out = (int)n;
    return true;
}

/* Must the byte be written as % and two digits? */
static bool needs_escape(unsigned char b)
{
    return b < ' ' || b == 0x7f || b == '%' || b == ';';
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n bytes without their escapes, malloc'ed; NULL: no memory, or a wrong escape. */
static char *unescape(const char *p, size_t n)
{
    char *out = malloc(n + 1), *to = out;
    for (size_t i = 0; out && i < n; i++) {
        *to++ = p[i];
        if (p[i] != '%')
            continue;
        int high = n - i > 2 ? digit(p[i + 1]) : -1;
        int low = n - i > 2 ? digit(p[i + 2]) : -1;
        if (high < 0 || low < 0) {
            free(out);
            return NULL;
        }
        to[-1] = (char)(high * 16 + low);
        i += 2;
    }
    if (out)
        *to = 0;
    return out;
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

void upgrade_init(struct upgrade *u)
{
    *u = (struct upgrade){.ready_fd = -1, .hand_recv = -1, .hand_send = -1};
}

void upgrade_free(struct upgrade *u)
{
    for (unsigned i = 0; i < u->n_sockets; i++)
        free(u->sockets[i].text);
    if (u->ready_fd >= 0)
        close(u->ready_fd);
    upgrade_init(u);
}

int upgrade_add(struct upgrade *u, int fd, bool own, const char *text)
{
    if (u->n_sockets == UPGRADE_SOCKETS_MAX)
        return -1;
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        return -1;
    u->sockets[u->n_sockets++] = (struct upgrade_socket){.fd = fd, .own = own, .text = copy};
    return 0;
}

/* ;SOCKET[o]=ADDRESS… */
static bool take_sockets(struct upgrade *u, const char *p)
{
    while (*p == ';') {
        int fd;
        p++;
        if (!take_number(&p, &fd) || !listens(fd))
            return false;
        bool own = *p == 'o';
        p += own;
        size_t n = strcspn(p, ";");
        char *text = *p == '=' ? unescape(p + 1, n - 1) : NULL;
        bool added = text && upgrade_add(u, fd, own, text) == 0;
        free(text);
        if (!added)
            return false;
        p += n;
    }
    return !*p && u->n_sockets > 0;
}

/* Gunicorn's: numbers alone. It removes the files of its Unix sockets itself, or leaves them. */
static bool take_gunicorns(struct upgrade *u, const char *p)
{
    while (*p) {
        int fd;
        if (!take_number(&p, &fd) || !listens(fd) || upgrade_add(u, fd, true, NULL))
            return false;
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
        fcntl(u->sockets[i].fd, F_SETFD, FD_CLOEXEC);
}

int upgrade_read(struct upgrade *u, const char *value, const char *gunicorn_pid,
                 const char *gunicorn_fd, struct err *e)
{
    int pid = 0, ready_fd = -1;
    upgrade_init(u);
    if (!value && (!gunicorn_pid || !gunicorn_fd))
        return 0;
    const char *p = value ? value : gunicorn_pid;
    if (!take_number(&p, &pid) || pid <= 0)
        return 0;
    bool parent = pid == getppid(), good;
    /* Passed on to some other program, which has started us: not meant for this process. But the old
     * supervisor may have ended since it started us. */
    if (!parent && (!value || pid_file_alive(pid)))
        return 0;
    if (value)
        good = take_number(&p, &ready_fd) && take_number(&p, &u->hand_recv) &&
               take_number(&p, &u->hand_send) && is_open(ready_fd, 0) &&
               (u->hand_recv < 0 || is_open(u->hand_recv, SOCK_SEQPACKET)) &&
               (u->hand_send < 0 || is_open(u->hand_send, SOCK_SEQPACKET)) && take_sockets(u, p);
    else
        good = take_gunicorns(u, gunicorn_fd);
    if (!good) {
        upgrade_free(u);
        if (!parent)
            return 0;
        return err_set(
            e, "%s=%.200s does not name the listening sockets that process %d hands over; unset it",
            value ? UPGRADE_VARIABLE : "GUNICORN_FD", value ? value : gunicorn_fd, pid);
    }
    u->ready_fd = ready_fd;
    u->old_pid = pid;
    close_on_exec(u);
    return 0;
}

char *upgrade_write(const struct upgrade *u)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    if (!f)
        return NULL;
    fprintf(f, "%d,%d,%d,%d", (int)u->old_pid, u->ready_fd, u->hand_recv, u->hand_send);
    for (unsigned i = 0; i < u->n_sockets; i++) {
        const struct upgrade_socket *s = &u->sockets[i];
        fprintf(f, ";%d%s=", s->fd, s->own ? "o" : "");
        for (const char *p = s->text ? s->text : ""; *p; p++)
            fprintf(f, needs_escape((unsigned char)*p) ? "%%%02x" : "%c", (unsigned char)*p);
    }
    if (fclose(f) == 0)
        return out;
    free(out);
    return NULL;
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
        rc = keep(u->sockets[i].fd);
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
