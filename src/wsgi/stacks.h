/*
 * stacks: which place each thread of this process is at, in Python and in the kernel.
 *
 * Works while the interpreter's lock is held by anybody, for ever; takes no lock of the process,
 * sends no signal and stops no thread. What it shows of a thread that runs on is a moment, not a
 * state.
 *
 * Source:  docs/reference/stacks-json.md; docs/decisions/0009-stacks-without-the-lock.md
 * Bounds:  threads, frames and texts as in base/tasks.h and wsgi/frames.h; a file of source whose
 *          disk or network hangs is waited for.
 * Threads: any; it needs no thread state. Several at once exclude each other.
 */
#ifndef WEIR_WSGI_STACKS_H
#define WEIR_WSGI_STACKS_H

#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"

/* What stands in `out` at the end, where it has no ceiling of its own. */
#define STACKS_BYTES_MAX ((size_t)4 * 1024 * 1024)

/* Append the JSON array `threads` of docs/reference/stacks-json.md, without `request`: of all
 * threads of this process, or of `thread` (the kernel's number) alone, an empty one where there is
 * no such thread. Where the ceiling of `out` is near, threads have no frames, and then are left
 * out. 0, -ENOMEM, or -errno: this system lets nobody look. */
WEIR_MUST_USE int wsgi_stacks(struct buf *out, int32_t thread);

/* Append the frames of one thread as in a traceback, "\n  File …", newest last, with their lines of
 * source; nothing where it has none. What has no room in `out` are the oldest. 0, or as above. */
WEIR_MUST_USE int wsgi_stacks_traceback(struct buf *out, int32_t thread);

#endif
