/* handover: see the header. Numbers are little-endian; offsets are those of version 1. */
#include "net/handover.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char MAGIC[4] = {'W', 'e', 'i', 'H'};
/* Grows when a reader must not guess; a field at the end does not need that. */
static const uint8_t VERSION = 1;

enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_FLAGS = 5,
    AT_PORT = 6,
    AT_FAMILY = 8, /* 4, 6 or 0 (Unix): the numbers of AF_… are the system's own */
    AT_URL_LENGTH = 9,
    AT_SERVED = 12,
    AT_IDLE = 16,
    AT_PEER = 20,
    AT_INPUT_LENGTH = 36,
    AT_URL = 40, /* then the input */
};
enum { FLAG_PROXIED = 1, FLAG_AWAITS_PROXY = 2, FLAG_FRONT_TRUSTED = 4 };

/* Descriptors that one packet can carry here; more are dropped by the kernel. */
#define FDS_MAX 4

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

size_t handover_write(const struct handover *h, unsigned char out[HANDOVER_HEAD_MAX])
{
    static_assert(AT_URL + sizeof h->url <= HANDOVER_HEAD_MAX, "the longest one fits");
    size_t n = strnlen(h->url, sizeof h->url - 1);
    memset(out, 0, AT_URL);
    memcpy(out + AT_MAGIC, MAGIC, sizeof MAGIC);
    out[AT_VERSION] = VERSION;
    out[AT_FLAGS] = (unsigned char)((h->proxied ? FLAG_PROXIED : 0) |
                                    (h->awaits_proxy ? FLAG_AWAITS_PROXY : 0) |
                                    (h->front_trusted ? FLAG_FRONT_TRUSTED : 0));
    out[AT_PORT] = (unsigned char)h->peer_port;
    out[AT_PORT + 1] = (unsigned char)(h->peer_port >> 8);
    out[AT_FAMILY] = h->peer_family == AF_INET ? 4 : h->peer_family == AF_INET6 ? 6 : 0;
    out[AT_URL_LENGTH] = (unsigned char)n;
    put32(out + AT_SERVED, h->served);
    put32(out + AT_IDLE, h->idle_ms);
    put32(out + AT_INPUT_LENGTH, (uint32_t)h->input.n);
    memcpy(out + AT_PEER, h->peer, sizeof h->peer);
    memcpy(out + AT_URL, h->url, n);
    return AT_URL + n;
}

bool handover_read(const unsigned char *p, size_t n, struct handover *out)
{
    memset(out, 0, sizeof *out);
    if (n < AT_URL || n > HANDOVER_BYTES_MAX || memcmp(p + AT_MAGIC, MAGIC, sizeof MAGIC) != 0 ||
        p[AT_VERSION] != VERSION)
        return false;
    size_t url = p[AT_URL_LENGTH];
    if (url >= sizeof out->url || url > n - AT_URL || memchr(p + AT_URL, '\0', url))
        return false;
    size_t input = get32(p + AT_INPUT_LENGTH);
    if (input > HANDOVER_INPUT_MAX || input > n - AT_URL - url)
        return false;
    out->input = slice_of((const char *)p + AT_URL + url, input);
    switch (p[AT_FAMILY]) {
    case 0:
        out->peer_family = AF_UNIX;
        break;
    case 4:
        out->peer_family = AF_INET;
        break;
    case 6:
        out->peer_family = AF_INET6;
        break;
    default:
        return false;
    }
    out->proxied = (p[AT_FLAGS] & FLAG_PROXIED) != 0;
    out->awaits_proxy = (p[AT_FLAGS] & FLAG_AWAITS_PROXY) != 0;
    out->front_trusted = (p[AT_FLAGS] & FLAG_FRONT_TRUSTED) != 0;
    out->peer_port = (uint16_t)(p[AT_PORT] | p[AT_PORT + 1] << 8);
    out->served = get32(p + AT_SERVED);
    out->idle_ms = get32(p + AT_IDLE);
    memcpy(out->peer, p + AT_PEER, sizeof out->peer);
    memcpy(out->url, p + AT_URL, url);
    return true;
}

int handover_send(int sock, const struct handover *h, int fd)
{
    unsigned char bytes[HANDOVER_HEAD_MAX];
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec parts[2] = {{.iov_base = bytes, .iov_len = handover_write(h, bytes)},
                             {.iov_base = (void *)(uintptr_t)h->input.p, .iov_len = h->input.n}};
    struct msghdr m = {
        .msg_iov = parts,
        .msg_iovlen = h->input.n ? 2 : 1,
        .msg_control = control.room,
        .msg_controllen = sizeof control.room,
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    ssize_t n;
    do
        n = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0;
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

/* Whether its client is still there will be seen when it is read. */
static bool is_connection(int fd)
{
    int type = 0, listening = 1;
    socklen_t n = sizeof type, m = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &m) == 0 && !listening;
}

/* The descriptors of a message, at most FDS_MAX; their number. */
static unsigned take_fds(struct msghdr *m, int fds[FDS_MAX])
{
    unsigned n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < k && n < FDS_MAX; i++)
            memcpy(&fds[n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    return n;
}

int handover_recv(int sock, unsigned char *room, struct handover *out, int *fd)
{
    /* Without a free descriptor the kernel would drop the connection that comes. */
    int probe = fcntl(sock, F_DUPFD_CLOEXEC, 0);
    if (probe < 0)
        return -EMFILE;
    close(probe);

    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = room, .iov_len = HANDOVER_BYTES_MAX};
    struct msghdr m = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof control.room,
    };
    ssize_t n;
    do
        n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    int fds[FDS_MAX];
    unsigned k = take_fds(&m, fds);
    if (n == 0 && k == 0)
        return -EPIPE; /* no process has the other end any more */
    bool good = k == 1 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                handover_read(room, (size_t)n, out) && is_connection(fds[0]);
    if (good) {
        *fd = fds[0];
        return 1;
    }
    for (unsigned i = 0; i < k; i++)
        close(fds[i]);
    return -EPROTO;
}
