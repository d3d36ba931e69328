/*
 * probes: asks workers for the stacks of their threads (serve/probe answers in them), and puts the
 * answers of all together.
 *
 * A worker whose probe does not answer in time (it boots, it is stopped by a signal) has an entry
 * that says so. Who asks the same while it is being asked gets the same answer.
 *
 * Bounds:  PROBES_ASKS_MAX asks; an answer as serve/probe_wire.h; what a worker sends is checked to
 *          be JSON, and one that sends something else loses its connection.
 * Owner:   new makes; begin to free: the loop's thread alone. `door` and `view` are lent.
 * Source:  docs/decisions/0009-stacks-without-the-lock.md
 */
#ifndef WEIR_ADMIN_PROBES_H
#define WEIR_ADMIN_PROBES_H

#include <uv.h>

#include "admin/view.h"
#include "base/buf.h"
#include "base/err.h"
#include "store/keeper_door.h"

#define PROBES_WAIT_MS 1000
#define PROBES_ASKS_MAX 64

struct probes;

WEIR_MUST_USE int probes_new(struct probes **out, uv_loop_t *loop, const struct keeper_door *door,
                             uid_t uid, const struct admin_view *view, struct err *e);
/* Asks under way get no answer. Handles are closed; the loop has to turn before it is closed. Not
 * from within a callback. */
void probes_free(struct probes **p);

/* `json`: docs/reference/stacks-json.md; lent for the call. */
typedef void probes_done(void *arg, struct slice json);

/* worker: slot, or -1: all; id: only the thread that runs this request, or 0: all threads (a worker
 * in which no thread runs it has an entry without threads and an error, or with `worker` -1 none).
 * 0 and cb follows (later, never from within), or -ENOMEM, -EBUSY. */
WEIR_MUST_USE int probes_ask(struct probes *p, int worker, uint64_t id, probes_done *cb, void *arg,
                             uint64_t *ticket);
/* Who asked does not want to know any more. */
void probes_forget(struct probes *p, uint64_t ticket);

/* Append the same as text for people: what `json` (of probes_done) says, newest frame first, each
 * with its line of source. Control characters are shown as ?. 0, -ENOMEM, -EINVAL: it is no such
 * JSON. */
WEIR_MUST_USE int probes_text(struct buf *out, struct slice json);

#endif
