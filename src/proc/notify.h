/*
 * notify: the word to the service manager, without its library.
 *
 * What systemd calls Type=notify: datagrams to the socket that NOTIFY_SOCKET names, a path or an
 * abstract name (@…). Without that variable every function does nothing. A message that cannot be
 * sent is lost silently: a service manager that is gone is no reason to stop serving.
 *
 * Watchdog: with WATCHDOG_USEC (and WATCHDOG_PID, if set, naming this process) notify_beat says
 * WATCHDOG=1 every half of that time, as long as its caller calls it and says that all is well.
 *
 * Source:  sd_notify(3), sd_watchdog_enabled(3).
 * Units:   time is int64_t nanoseconds of the monotonic clock.
 * Owner:   the caller owns the struct; nothing is allocated, no descriptor is kept.
 * Threads: none inside.
 */
#ifndef WEIR_PROC_NOTIFY_H
#define WEIR_PROC_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"

struct notify {
    struct sockaddr_un address; /* of the service manager */
    socklen_t address_n;        /* 0: there is none */
    bool held;                  /* not the main process: nothing is sent until notify_release */
    int64_t beat_ns;            /* half the watchdog's time; 0: no watchdog */
    int64_t next_ns;            /* when the next beat is due */
};

/* Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (NULL = not set). Values that make no sense
 * count as not set. */
void notify_init(struct notify *n, const char *socket_name, const char *watchdog_usec,
                 const char *watchdog_pid);

/* Two supervisors during a binary upgrade: the new one speaks once it is the main process. */
void notify_hold(struct notify *n);
void notify_release(struct notify *n);

/* Is anybody told? */
static inline bool notify_wanted(const struct notify *n)
{
    return n->address_n > 0;
}

/* READY=1; also after a reload. `status` is for people ("4 workers ready"). */
void notify_ready(struct notify *n, const char *status);
/* RELOADING=1 with MONOTONIC_USEC, as Type=notify-reload wants it. */
void notify_reloading(struct notify *n);
void notify_stopping(struct notify *n);
void notify_status(struct notify *n, const char *fmt, ...) WEIR_PRINTF(2, 3);
/* The main process is another one from now on. */
void notify_main_pid(struct notify *n, int pid);

/* Send a beat if it is due and `well`. Returns how long until the next one is due, in milliseconds
 * (>= 0), or -1 when there is no watchdog: what to wait at most in poll. */
int notify_beat(struct notify *n, int64_t now_ns, bool well);

#endif
