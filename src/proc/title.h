/*
 * title: the name that ps and top show.
 *
 * The kernel reads a process's command line from the memory where its arguments stood at exec, and
 * its short name (15 bytes, what top shows) from the task. title_init finds that memory through
 * /proc/self/stat and checks that it holds what /proc/self/cmdline shows; title_set overwrites it.
 * A title longer than the arguments is cut. Where the place is not known only the short name
 * changes.
 *
 * Source:  proc_pid_stat(5) fields 48 and 49, proc_pid_cmdline(5), PR_SET_NAME(2const).
 * Owner:   the memory is the process's own; nothing is allocated.
 * Threads: main thread, and nobody may read the C array argv any more (Python copies its own). The
 *          place is inherited by fork, so title_init runs once, before the first.
 */
#ifndef WEIR_PROC_TITLE_H
#define WEIR_PROC_TITLE_H

#include "base/attr.h"

/* Remember where the arguments are. Idempotent. */
void title_init(void);

/* The command line, as "weir: worker [api.index:app]", and the short name. Either may be NULL. */
void title_set(const char *command_line, const char *short_name);

/* title_set for one role: "weir: ROLE [NAME]". The short name is `name` when the user gave one
 * (proc-name), otherwise "weir". */
void title_role(const char *role, const char *proc_name, const char *app);

#endif
