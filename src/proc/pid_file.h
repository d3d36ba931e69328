/*
 * pid_file: the number of the supervisor in a file, for service managers and people.
 *
 * The file is written beside its place and moved there, so nobody ever reads half a number. One
 * that names a living process is not replaced; a stale one is. It is removed at the end only while
 * it still holds our number.
 *
 * A binary upgrade has two supervisors for a while: the new one writes NAME.2 and takes NAME over
 * once the old one has ended (as Gunicorn).
 *
 * Owner:   pid_file_drop frees the path. The file is the process's that made it: a fork must not
 *          drop it, which the number in it ensures.
 * Errors:  -1 and one sentence.
 * Crash:   kill -9 leaves the file; the next start finds that nobody has the number.
 */
#ifndef WEIR_PROC_PID_FILE_H
#define WEIR_PROC_PID_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"

struct pid_file {
    char *path; /* owned, absolute; NULL: there is none */
    pid_t pid;  /* what we wrote */
};

/* Write the number of this process into `path` + `suffix` ("" or ".2"). Fails when the file names
 * another living process, or cannot be written. */
WEIR_MUST_USE int pid_file_make(struct pid_file *f, const char *path, const char *suffix,
                                struct err *e);

/* Take over `path`: the file appears there and the old name goes. The old one stays if it fails.
 * `gone`: a process that the caller knows to have ended, 0 for none. Its orphans hear of its end a
 * moment before its number says so. */
WEIR_MUST_USE int pid_file_rename(struct pid_file *f, const char *path, pid_t gone, struct err *e);

/* Does a process with this number run? One that has ended and was not waited for does not. */
bool pid_file_alive(pid_t pid);

/* Remove the file if it still holds our number. Idempotent; nothing happens without a file. */
void pid_file_drop(struct pid_file *f);

#endif
