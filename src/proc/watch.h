/*
 * watch: which names in some folders have changed, as the kernel tells it (inotify).
 *
 * Folders are watched, not files: editors put a new file in the place of the old one, and a watch
 * of the old one would go with it. What is below a folder's folders is not told.
 *
 * The kernel forgets events when too many wait (then `lost` is told), and does not know of changes
 * that are made elsewhere, on a network file system or outside of a container's mount: who
 * must know looks for himself now and then.
 *
 * Owner:   the caller; watch_close gives everything back.
 * Errors:  0 or a negative errno. ENOSPC: fs.inotify.max_user_watches; EMFILE: max_user_instances.
 * Threads: one at a time; the descriptor may be polled by any.
 * Source:  inotify(7).
 */
#ifndef WEIR_PROC_WATCH_H
#define WEIR_PROC_WATCH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/inotify.h>

#include "base/attr.h"

struct watch {
    int fd;    /* inotify, not blocking; -1: closed */
    size_t at; /* the next event in `bytes` */
    size_t n;  /* bytes in use */
    _Alignas(struct inotify_event) char bytes[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
};

struct watch_event {
    int folder;       /* as watch_add has returned it; -1 with `lost` */
    const char *name; /* in the folder; "": the folder itself is gone. Lent until the next call */
    bool lost;        /* events were forgotten: look at everything */
};

WEIR_MUST_USE int watch_open(struct watch *w);
void watch_close(struct watch *w);

/* Watch what is written, made, renamed and removed in `folder`: its number (>= 0), the same for the
 * same folder; or a negative errno. */
WEIR_MUST_USE int watch_add(struct watch *w, const char *folder);

/* The next event, waiting at most `timeout_ms` (-1: for ever): 1; 0: none came, or a signal; a
 * negative errno. */
WEIR_MUST_USE int watch_next(struct watch *w, int timeout_ms, struct watch_event *ev);

#endif
