/* keeper_door: see the header. */
#include "store/keeper_door.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* All workers of the largest board at once; the kernel cuts it to net.core.somaxconn. */
static const int BACKLOG = 4096;

int keeper_door_open(struct keeper_door *d, struct err *e)
{
    *d = (struct keeper_door){.listen_fd = -1};
    if (getrandom(d->cookie, sizeof d->cookie, 0) != (ssize_t)sizeof d->cookie)
        return err_set(e, "the kernel gives no random numbers: %s", strerror(errno));
    d->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    d->address.sun_family = AF_UNIX;
    d->address_bytes = sizeof d->address;
    if (d->listen_fd < 0 ||
        bind(d->listen_fd, (struct sockaddr *)&d->address, sizeof(sa_family_t)) ||
        listen(d->listen_fd, BACKLOG) ||
        getsockname(d->listen_fd, (struct sockaddr *)&d->address, &d->address_bytes)) {
        int failed = errno;
        keeper_door_close(d);
        return err_set(e, "cannot make the keeper's socket: %s", strerror(failed));
    }
    return 0;
}

void keeper_door_close(struct keeper_door *d)
{
    if (d->listen_fd >= 0)
        close(d->listen_fd);
    d->listen_fd = -1;
}

int keeper_door_connect(const struct keeper_door *d, uint32_t slot, uint32_t generation)
{
    unsigned char packet[KEEPER_ASK_BYTES_MAX];
    const struct keeper_said hello = {
        .kind = KEEPER_HELLO,
        .cookie = slice_of((const char *)d->cookie, sizeof d->cookie),
        .slot = slot,
        .generation = generation,
    };
    size_t n = keeper_wire_say(&hello, packet);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&d->address, d->address_bytes) ||
        send(fd, packet, n, MSG_NOSIGNAL) != (ssize_t)n) {
        int failed = errno;
        close(fd);
        return -failed;
    }
    return fd;
}
