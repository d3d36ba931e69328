/* watch: see the header. */
#include "proc/watch.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static const uint32_t MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                             IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

int watch_open(struct watch *w)
{
    w->at = w->n = 0;
    w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return w->fd < 0 ? -errno : 0;
}

void watch_close(struct watch *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

int watch_add(struct watch *w, const char *folder)
{
    int id = inotify_add_watch(w->fd, folder, MASK);
    return id < 0 ? -errno : id;
}

/* More events into `bytes`: 1, 0 or a negative errno. */
static int fill(struct watch *w, int timeout_ms)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) < 0)
        return errno == EINTR ? 0 : -errno;
    ssize_t n = read(w->fd, w->bytes, sizeof w->bytes);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    w->at = 0;
    w->n = (size_t)n;
    return n > 0;
}

int watch_next(struct watch *w, int timeout_ms, struct watch_event *ev)
{
    for (;;) {
        if (w->at == w->n) {
            int rc = fill(w, timeout_ms);
            if (rc <= 0)
                return rc;
        }
        /* The kernel writes whole events, aligned. */
        const struct inotify_event *e = (const void *)(w->bytes + w->at);
        w->at += sizeof *e + e->len;
        if (e->mask & IN_IGNORED) /* follows the end of a folder, which was told */
            continue;
        *ev = (struct watch_event){
            .folder = e->wd, .name = e->len ? e->name : "", .lost = (e->mask & IN_Q_OVERFLOW) != 0};
        return 1;
    }
}
