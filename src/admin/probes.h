/*
 * probes: asks workers for the stacks of their threads (serve/probe answers in them), and puts the
 * answers of all together.
 *
 * A worker whose probe does not answer in time (it boots, it is stopped by a signal) has an entry
 * that says so.
 *
 * Owner:   new makes; begin to free: the loop's thread alone. `door` and `view` are lent.
 * Source:  docs/decisions/0009-stacks-without-the-lock.md
 */
#ifndef WEIR_ADMIN_PROBES_H
#define WEIR_ADMIN_PROBES_H

#include <uv.h>

#include "admin/view.h"
#include "base/err.h"
#include "store/keeper_door.h"

#define PROBES_WAIT_MS 1000

struct probes;

WEIR_MUST_USE int probes_new(struct probes **out, uv_loop_t *loop, const struct keeper_door *door,
                             uid_t uid, const struct admin_view *view, struct err *e);
/* Asks under way get no answer. Handles are closed; the loop has to turn before it is closed. */
void probes_free(struct probes **p);

/* `json`: docs/reference/stacks-json.md; lent for the call. */
typedef void probes_done(void *arg, struct slice json);

/* worker: slot, or -1: all; id: only the thread that runs this request, or 0: all threads. 0 and cb
 * follows (later, never from within), or -ENOMEM, -EBUSY. */
WEIR_MUST_USE int probes_ask(struct probes *p, int worker, uint64_t id, probes_done *cb, void *arg,
                             uint64_t *ticket);
/* Who asked does not want to know any more. */
void probes_forget(struct probes *p, uint64_t ticket);

#endif
