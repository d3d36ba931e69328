/*
 * upgrade: what a supervisor hands to its successor (USR2).
 *
 * The old supervisor starts the same command line again, with the listening sockets, both ends of
 * the hand-over socket and a pipe inherited. One variable of the environment says which is which:
 *
 *   WEIR_UPGRADE = PID,READY,HAND_RECV,HAND_SEND,SOCKET[u],SOCKET[u],…
 *
 * PID is the old supervisor, READY the pipe's writing end: the successor writes one byte when it
 * serves. A `u` marks a Unix socket whose file goes with the last supervisor. -1 stands for none.
 *
 * Gunicorn's GUNICORN_PID and GUNICORN_FD are understood too, so that a running Gunicorn can be
 * replaced by Weir with the USR2 that it knows.
 *
 * Variables that an application or a shell has passed on by mistake have no effect: the old
 * supervisor must be our parent, and each descriptor what it is said to be.
 *
 * Owner:   the descriptors are the reader's; nothing is allocated.
 * Threads: none inside.
 */
#ifndef WEIR_PROC_UPGRADE_H
#define WEIR_PROC_UPGRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"

#define UPGRADE_VARIABLE "WEIR_UPGRADE"
#define UPGRADE_SOCKETS_MAX 64
/* Of the variable's value, with NUL: 68 numbers of at most 11 bytes and their commas. */
#define UPGRADE_TEXT_MAX 1024

struct upgrade {
    pid_t old_pid;            /* the supervisor before us; 0: this is no upgrade */
    int ready_fd;             /* tell it here that we serve; -1: nobody wants to know */
    int hand_recv, hand_send; /* connections that stopping workers hand over; -1: none */
    unsigned n_sockets;
    int sockets[UPGRADE_SOCKETS_MAX];    /* listening */
    bool owns_path[UPGRADE_SOCKETS_MAX]; /* a Unix socket's file is ours to remove at the end */
};

/* Read the value of WEIR_UPGRADE, or else GUNICORN_PID and GUNICORN_FD (NULL = not set). What does
 * not come from our parent gives old_pid 0; the descriptors then stay as they are. All descriptors
 * are made close-on-exec. Fails when the parent hands over something that is no listening socket.
 */
WEIR_MUST_USE int upgrade_read(struct upgrade *u, const char *value, const char *gunicorn_pid,
                               const char *gunicorn_fd, struct err *e);

/* The value for the successor; `n` is UPGRADE_TEXT_MAX. */
void upgrade_write(const struct upgrade *u, char *out, size_t n);

/* In the child, before exec: let its descriptors through. */
WEIR_MUST_USE int upgrade_let_through(const struct upgrade *u);

/* The successor: it serves. Once; nothing happens where nobody wants to know. */
void upgrade_tell_ready(struct upgrade *u);

/* The successor: get SIGCHLD when the old supervisor ends. Then ask upgrade_is_over, also once after
 * this call: it may have ended before. */
void upgrade_watch(const struct upgrade *u);

/* The successor: has the old supervisor ended, so that this one is the main one? */
bool upgrade_is_over(const struct upgrade *u);

#endif
