/* adopt: see the header. */
#include "proc/adopt.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int adopt_orphans(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ? -errno : 0;
}

static ssize_t read_all(int fd, void *out, size_t n)
{
    ssize_t k;
    do {
        k = recv(fd, out, n, MSG_WAITALL);
    } while (k < 0 && errno == EINTR);
    return k;
}

/* The child: tell our number and wait until we may go on. */
static void introduce(int fd)
{
    pid_t self = getpid();
    char go;
    if (send(fd, &self, sizeof self, MSG_NOSIGNAL) != (ssize_t)sizeof self ||
        read_all(fd, &go, 1) != 1)
        _exit(0); /* the template is gone, nobody knows us */
    close(fd);
}

pid_t adopt_fork(int *go_fd)
{
    int ends[2], status = 0;
    *go_fd = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    pid_t between = fork();
    if (between == 0) {
        pid_t child = fork();
        if (child != 0)
            _exit(child < 0 ? errno & 255 : 0);
        close(ends[0]);
        introduce(ends[1]);
        return 0;
    }
    int failed = between < 0 ? errno : 0;
    close(ends[1]);
    pid_t child = 0;
    if (!failed && read_all(ends[0], &child, sizeof child) != (ssize_t)sizeof child)
        failed = EAGAIN;
    /* When the one between has been waited for, the child has its new parent. */
    while (between > 0 && waitpid(between, &status, 0) < 0 && errno == EINTR)
        ;
    if (failed) {
        close(ends[0]);
        return -(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : failed);
    }
    *go_fd = ends[0];
    return child;
}

void adopt_let_go(int *go_fd)
{
    if (*go_fd < 0)
        return;
    ssize_t n = send(*go_fd, "g", 1, MSG_NOSIGNAL);
    (void)n;
    close(*go_fd);
    *go_fd = -1;
}
