/*
 * process: what the main process of a server has beside serving: pid file, title, mask and the
 * workers' user, word to the service manager, and what it was handed by a process before it.
 *
 * The main process is the supervisor, or the only process (--workers 0).
 *
 *   process_begin    before addresses and log files are opened (behind the forks of --daemon)
 *   process_own_logs when log files were opened, or opened again
 *   process_ready    it serves; again after each reload
 *   process_main     after a binary upgrade: the old supervisor has ended
 *   process_end      it has stopped, or its start failed
 *   process_worker   in a worker, before the application is imported
 *
 * Owner:   one struct for the process; a fork inherits it and must not call process_end (the pid
 * file is not removed then, but nothing else is of use either). Errors:  -1 and one sentence.
 * Threads: main thread.
 */
#ifndef WEIR_PROC_PROCESS_H
#define WEIR_PROC_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "conf/conf.h"
#include "proc/notify.h"
#include "proc/pid_file.h"
#include "proc/privileges.h"
#include "proc/upgrade.h"

struct process {
    bool begun;
    bool supervises;              /* has workers; false: the only process */
    struct privileges privileges; /* of the workers; those of the last configuration */
    struct pid_file pid_file;
    struct notify notify;
    struct upgrade upgrade; /* what the process before us handed over */
};

/* What the environment of the start says; NULL = not set. */
struct process_env {
    const char *upgrade, *gunicorn_pid, *gunicorn_fd; /* see proc/upgrade.h */
    const char *notify_socket, *watchdog_usec, *watchdog_pid;
};

WEIR_MUST_USE int process_begin(struct process *p, const struct conf *c, bool supervises,
                                const struct process_env *env, struct err *e);

/* A reload: the workers' user, the mask, the name and the place of the pid file may have changed.
 * On -1 everything is as before. */
WEIR_MUST_USE int process_reload(struct process *p, const struct conf *c, struct err *e);

/* Make the log files that workers open, and give them to the workers' user. */
WEIR_MUST_USE int process_own_logs(const struct process *p, const struct conf *c, struct err *e);

/* The same for a Unix socket that was made at `path`. */
WEIR_MUST_USE int process_own_socket(const struct process *p, const char *path, struct err *e);

/* `workers` that serve; 0: this process does itself. */
void process_ready(struct process *p, unsigned workers);

/* Has the supervisor before us ended? Then this is the main process: the pid file gets its name,
 * the service manager hears of us. True once, when that was done. */
bool process_main(struct process *p, const struct conf *c, unsigned workers);

/* A reload begins; process_ready ends it, whether it succeeded or not. */
void process_reloading(struct process *p);

/* It begins to stop; `successor` is the process that goes on, 0: none. */
void process_stopping(struct process *p, int successor);

void process_end(struct process *p);

/* In the template of --preload: its title. It keeps its user, for the workers. */
void process_template(const struct process *p, const struct conf *c);

/* In a worker that replaces one of the configuration before, while a reload is not over: its user and
 * mask. */
WEIR_MUST_USE int process_before_reload(struct process *p, const struct conf *c, struct err *e);

/* In a worker: its title, and its user. On failure it must end. */
WEIR_MUST_USE int process_worker(const struct process *p, const struct conf *c, struct err *e);

/* The same in the keeper. */
WEIR_MUST_USE int process_keeper(const struct process *p, const struct conf *c, struct err *e);

#endif
