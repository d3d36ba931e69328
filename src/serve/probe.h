/*
 * probe: a thread of a worker that tells where the threads of this process are. It needs neither
 * the loop nor the interpreter's lock, so it answers when both hang.
 *
 * It connects to the admin listener's door for probes, says who it is, and waits for questions;
 * when the connection breaks (the keeper was replaced) it connects again.
 *
 * Owner:   start makes the thread, stop joins it.
 * Threads: its own; start and stop from one thread. `stacks` is called on the probe's thread.
 */
#ifndef WEIR_SERVE_PROBE_H
#define WEIR_SERVE_PROBE_H

#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "store/keeper_door.h"

struct probe;

struct probe_config {
    const struct keeper_door *door; /* lent */
    uint32_t slot, generation;
    /* Append the JSON array of the threads of this process, docs/reference/stacks-json.md; thread:
     * only that one (kernel's number), or 0. Any time, any state of the process; must not block. 0
     * or -errno. */
    int (*stacks)(void *arg, struct buf *out, int32_t thread);
    void *arg;
};

/* 0 or -errno. */
WEIR_MUST_USE int probe_start(struct probe **out, const struct probe_config *c);
void probe_stop(struct probe **p);

#endif
