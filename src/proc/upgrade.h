/*
 * upgrade: what a supervisor hands to its successor (USR2).
 *
 * The old supervisor starts the same command line again, with the listening sockets, both ends of
 * the hand-over socket and a pipe inherited. One variable of the environment says which is which:
 *
 *   WEIR_UPGRADE = PID,READY,HAND_RECV,HAND_SEND;SOCKET[o]=ADDRESS;SOCKET[o]=ADDRESS;…
 *
 * PID is the old supervisor, READY the pipe's writing end: the successor writes one byte when it
 * serves. ADDRESS is the one of the configuration (with % and two digits for %, ; and control
 * bytes), so that the successor finds its own again; an `o` marks a socket that was opened by the
 * server itself and not by a service manager. -1 stands for none.
 *
 * Gunicorn's GUNICORN_PID and GUNICORN_FD are understood too, so that a running Gunicorn can be
 * replaced by Weir with the USR2 that it knows.
 *
 * Variables that an application or a shell has passed on by mistake have no effect: the old
 * supervisor must be our parent, or have ended, and each descriptor what it is said to be.
 *
 * Owner:   upgrade_free closes nothing but ready_fd and frees the texts; the sockets are the
 *          reader's.
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

struct upgrade_socket {
    int fd;     /* listening */
    bool own;   /* opened by the server itself: a Unix socket's file is its to remove */
    char *text; /* owned; the address as configured; NULL: not known */
};

struct upgrade {
    pid_t old_pid;            /* the supervisor before us; 0: this is no upgrade */
    int ready_fd;             /* owned; tell it here that we serve; -1: nobody wants to know */
    int hand_recv, hand_send; /* connections that stopping workers hand over; -1: none */
    unsigned n_sockets;
    struct upgrade_socket sockets[UPGRADE_SOCKETS_MAX];
};

/* An upgrade that is none. */
void upgrade_init(struct upgrade *u);
void upgrade_free(struct upgrade *u);

/* Read the value of WEIR_UPGRADE, or else GUNICORN_PID and GUNICORN_FD (NULL = not set). What does
 * not come from our parent gives old_pid 0; the descriptors then stay as they are. All descriptors
 * are made close-on-exec. Fails when our parent hands over something that is no listening socket.
 */
WEIR_MUST_USE int upgrade_read(struct upgrade *u, const char *value, const char *gunicorn_pid,
                               const char *gunicorn_fd, struct err *e);

/* Add a socket (fd lent, text copied). -1: there are too many, or no memory. */
WEIR_MUST_USE int upgrade_add(struct upgrade *u, int fd, bool own, const char *text);

/* The value for the successor; malloc'ed, NULL: no memory. */
char *upgrade_write(const struct upgrade *u);

/* In the child, before exec: let its descriptors through. 0 or a negative errno. */
WEIR_MUST_USE int upgrade_let_through(const struct upgrade *u);

/* The successor: it serves. Once; nothing happens where nobody wants to know. */
void upgrade_tell_ready(struct upgrade *u);

/* The successor: get SIGCHLD when the old supervisor ends. Then ask upgrade_is_over, also once
 * after this call: it may have ended before. */
void upgrade_watch(const struct upgrade *u);

/* The successor: has the old supervisor ended, so that this one is the main one? */
bool upgrade_is_over(const struct upgrade *u);

#endif
