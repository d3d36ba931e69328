/*
 * template: the words between a supervisor and the process that forks its workers (--preload).
 *
 * The template imports the application once, says READY, and then forks a worker for each order. An
 * order brings the worker's end of its socket to the supervisor; the answer is FORKED with the
 * number of the process, or FAILED. A worker goes on only after its number was told (proc/adopt.h).
 *
 * The supervisor never waits for the template: importing an application takes what it takes.
 * Either end sees the end of the socket when the other process has ended.
 *
 * Transport: a pair of SOCK_SEQPACKET sockets, one word a message, numbers as in memory (both ends
 * are forks of one process). Owner:   the caller owns the descriptors; nothing is allocated.
 * Threads: one at each end.
 */
#ifndef WEIR_PROC_TEMPLATE_H
#define WEIR_PROC_TEMPLATE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"

enum template_kind {
    TEMPLATE_READY = 1, /* template: the application is imported */
    TEMPLATE_FORK,      /* supervisor: make this worker */
    TEMPLATE_FORKED,    /* template: it is `pid` */
    TEMPLATE_FAILED,    /* template: there is none, because of `error` */
};

/* One message. The worker is known by slot and age. */
struct template_word {
    int32_t kind; /* enum template_kind */
    uint32_t slot, age;
    int32_t pid;      /* FORKED */
    int32_t error;    /* FAILED: an errno */
    int64_t grace_ms; /* FORK */
};

/* A pair of ends: ends[0] for the supervisor, which does not block, ends[1] for the template. 0 or
 * a negative errno. */
WEIR_MUST_USE int template_pair(int ends[2]);

/* Send a word; `fd` goes with it (a copy arrives), -1: none. 0 or a negative errno: -EAGAIN when
 * too many orders wait, -EPIPE when the other end is closed. */
WEIR_MUST_USE int template_send(int end, const struct template_word *w, int fd);

/* Receive a word and the descriptor that came with it (owned; -1: none). 1: there is one, 0: the
 * other end is closed, or a negative errno: -EAGAIN when nothing is there. */
WEIR_MUST_USE int template_receive(int end, struct template_word *w, int *fd);

#endif
