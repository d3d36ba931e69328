/* template: see the header. */
#include "proc/template.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int template_pair(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0)
        return 0;
    int failed = errno;
    close(ends[0]);
    close(ends[1]);
    return -failed;
}

/* Room for one descriptor, aligned as the kernel wants it. */
union one_fd {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int template_send(int end, const struct template_word *w, int fd)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)w, .iov_len = sizeof *w};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    union one_fd control;
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = sendmsg(end, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int template_receive(int end, struct template_word *w, int *fd)
{
    struct iovec part = {.iov_base = w, .iov_len = sizeof *w};
    union one_fd control;
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    *fd = -1;
    ssize_t n;
    do {
        n = recvmsg(end, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno; /* closed with words unread */
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(fd, CMSG_DATA(c), sizeof *fd);
    if (n == 0)
        return 0;
    if (n == (ssize_t)sizeof *w)
        return 1;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return -EPROTO;
}
