/*
 * signals: handlers that do nothing but write the signal's number to a pipe, for a thread that
 * polls.
 *
 * Nothing is blocked: threads of an application and programs that they start begin with the mask of
 * the process. A child made by fork is no server: it gets the handlers back that were there before,
 * and the pipe is closed in it, before any signal can reach it (signals wait while a thread forks).
 *
 * The start: signals_hold blocks what a server will take, before Python is executed, and
 * signals_early handles and lets through what has come, as soon as Python can call it. So none of
 * them ends a process that has only begun. What came is kept for the next signals_open; a second
 * TERM or QUIT before ends the process at once.
 *
 * Source:  signal-safety(7); pthread_atfork(3); signal(7): exec keeps the mask.
 * Owner:   one pipe and one table for the process; signals_open may be called again.
 * Threads: open, take, give_back and read from one thread. Any thread may get a signal, or fork.
 */
#ifndef WEIR_PROC_SIGNALS_H
#define WEIR_PROC_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"
#include "base/err.h"

/* Make the pipe if there is none, and forget what came after an earlier use had ended. */
WEIR_MUST_USE int signals_open(struct err *e);

/* See above. Until signals_open somebody may ask what came, with signals_read, and give back. */
void signals_hold(void);
WEIR_MUST_USE int signals_early(struct err *e);

/* What to poll: readable when a signal has come; -1: not open. */
int signals_fd(void);

/* Handle this signal: by a number in the pipe, or by nothing at all. What was there before is
 * remembered once. False: the system refused. */
bool signals_take(int signo);
bool signals_ignore(int signo);

/* Put back what was there before. */
void signals_give_back(void);

/* Numbers that have come, at most n; 0: none. More signals than the pipe holds (64 KiB) are lost.
 */
size_t signals_read(unsigned char *out, size_t n);

/* One more thing that a child made by fork must do before a signal can reach it. */
void signals_on_child(void (*fn)(void));

#endif
