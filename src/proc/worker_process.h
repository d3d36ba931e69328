/*
 * worker_process: a process that is a worker: what it owes its supervisor, and what it does when
 * that is gone.
 *
 *   begin     right after the fork: it shall not outlive the supervisor, and signals that are
 *             meant for the supervisor alone (kill -HUP of all) do not end it while it imports the
 *             application
 *   ready     it serves
 *   signal    TERM: finish and go; INT, QUIT: go now; USR1: open the logs again; ABRT: the
 *             supervisor has not seen a sign of life
 *   orphan    the supervisor has ended: nobody shall keep the port, so it finishes what it has (or
 *             hands it to the workers of the supervisor beside it, during a binary upgrade); after
 *             the grace + WORKER_ORPHAN_EXTRA_MS the kernel ends it, whatever it does
 *
 * Source:  PR_SET_PDEATHSIG(2const), unix(7) for the end of the socket, timer_create(2).
 * Threads: main thread of the worker.
 */
#ifndef WEIR_PROC_WORKER_PROCESS_H
#define WEIR_PROC_WORKER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"
#include "obs/scoreboard.h"

#define WORKER_ORPHAN_EXTRA_MS 1000

struct worker_process {
    struct scoreboard *board; /* lent */
    unsigned slot;
    int tell_fd;      /* lent; -1 once its other end was closed */
    pid_t supervisor; /* who has started it */
    int64_t grace_ms;
    bool orphan;
};

/* What is to be done. */
enum worker_order {
    WORKER_GO_ON = 0,
    WORKER_REOPEN,   /* open the logs again */
    WORKER_HANDOVER, /* finish; others go on */
    WORKER_DRAIN,    /* finish; nobody goes on */
    WORKER_END,      /* end now */
    WORKER_ABORT,    /* say where it hangs, and end */
};

/* In the new process, after the fork. -1: the supervisor has ended meanwhile; so should this one.
 * Call worker_process_guard again after a change of user, which the kernel answers by forgetting.
 */
WEIR_MUST_USE int worker_process_begin(const struct worker_process *w);
WEIR_MUST_USE int worker_process_guard(const struct worker_process *w);

/* Take the signals of a worker that serves. ABRT stays where the application handles it. */
WEIR_MUST_USE int worker_process_signals(struct err *e);

/* Tell the supervisor that the slot says READY. */
void worker_process_ready(const struct worker_process *w);

enum worker_order worker_process_on_signal(const struct worker_process *w, int signo);

/* tell_fd is readable: nothing but its end can come. */
enum worker_order worker_process_on_tell(struct worker_process *w);

/* May this process say why it cannot start, or has another one done so? */
bool worker_process_may_complain(const struct worker_process *w);

#endif
