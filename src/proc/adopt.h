/*
 * adopt: children that one process makes and another is the parent of.
 *
 * With --preload the template has the application in memory and forks the workers, but their parent
 * must be the supervisor: it waits for them and learns how they ended. The template forks a process
 * between, that forks the worker and ends; the kernel gives orphans to the nearest ancestor that
 * asked for them. The worker goes on only when the template lets it, after the supervisor knows its
 * number.
 *
 * Whoever asks for orphans gets those of the application too (programs that went to the
 * background): it has to wait for children that it does not know.
 *
 * Source:  PR_SET_CHILD_SUBREAPER(2const).
 * Threads: adopt_fork in a process with one thread, or the child has but the calling one, as with
 *          any fork. Runs the pthread_atfork handlers of the caller twice in the child.
 * Crash:   kill -9 of the template between the steps ends the worker that was not let go yet.
 */
#ifndef WEIR_PROC_ADOPT_H
#define WEIR_PROC_ADOPT_H

#include <sys/types.h>

#include "base/attr.h"

/* Supervisor: get the orphans among our descendants. 0 or a negative errno. */
WEIR_MUST_USE int adopt_orphans(void);

/* Fork a child of the nearest ancestor that called adopt_orphans. In the caller: its number, and
 * *go_fd, owned, which adopt_let_go takes. In the child: 0, once it was let go. Negative errno: no
 * child. */
WEIR_MUST_USE pid_t adopt_fork(int *go_fd);
void adopt_let_go(int *go_fd);

#endif
