/* notify: see the header. */
#include "proc/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* A beat is not late when the loop was busy for so long. */
static const int64_t SLACK_NS = 1000000;
/* How often an unwell server is looked at in the time of one beat. */
static const int64_t LOOKS = 8;

static bool number_of(const char *text, int64_t *out)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return !*end && !errno;
}

void notify_init(struct notify *n, const char *socket_name, const char *watchdog_usec,
                 const char *watchdog_pid)
{
    int64_t usec, pid;
    *n = (struct notify){.address.sun_family = AF_UNIX};
    size_t len = socket_name ? strlen(socket_name) : 0;
    if (len < 2 || len >= sizeof n->address.sun_path ||
        (socket_name[0] != '/' && socket_name[0] != '@'))
        return;
    memcpy(n->address.sun_path, socket_name, len);
    if (socket_name[0] == '@')
        n->address.sun_path[0] = '\0';
    else
        len++; /* the NUL belongs to a path, but not to an abstract name */
    n->address_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);

    if (watchdog_pid && (!number_of(watchdog_pid, &pid) || pid != getpid()))
        return;
    if (number_of(watchdog_usec, &usec) && usec > 0 && usec < INT64_MAX / 1000)
        n->beat_ns = usec * 1000 / 2;
}

void notify_hold(struct notify *n)
{
    n->held = true;
}

void notify_release(struct notify *n)
{
    n->held = false;
}

static void say(const struct notify *n, const char *text)
{
    if (!n->address_n || n->held)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
                 (const struct sockaddr *)&n->address, n->address_n);
    close(fd);
}

static void sayf(const struct notify *n, const char *fmt, ...) WEIR_PRINTF(2, 3);
static void sayf(const struct notify *n, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    say(n, text);
}

void notify_ready(struct notify *n, const char *status)
{
    sayf(n, "READY=1\nSTATUS=%s", status);
}

void notify_reloading(struct notify *n)
{
    sayf(n, "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=reloading", clock_mono_ns() / 1000);
}

void notify_stopping(struct notify *n)
{
    say(n, "STOPPING=1\nSTATUS=stopping");
}

void notify_status(struct notify *n, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sayf(n, "STATUS=%s", text);
}

void notify_main_pid(struct notify *n, int pid)
{
    sayf(n, "MAINPID=%d", pid);
}

int notify_beat(struct notify *n, int64_t now_ns, bool well)
{
    if (!n->beat_ns || n->held)
        return -1;
    if (now_ns + SLACK_NS >= n->next_ns) {
        if (well)
            say(n, "WATCHDOG=1");
        /* An unwell one may be well in a moment, long before the watchdog's time is over. */
        n->next_ns = now_ns + (well ? n->beat_ns : n->beat_ns / LOOKS);
    }
    int64_t wait_ms = (n->next_ns - now_ns + 999999) / 1000000;
    return wait_ms > 3600000 ? 3600000 : (int)wait_ms;
}
