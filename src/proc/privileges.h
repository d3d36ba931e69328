/*
 * privileges: who the workers are: user, group, mask of file modes, and no way back.
 *
 * The supervisor keeps its ids (it may have to bind low ports and open log files again); each
 * worker drops them right after its fork, before it imports the application.
 *
 *   privileges_resolve   at start and at each reload: names to numbers; says what cannot work
 *   privileges_own_file  log files and Unix sockets are given to the workers' user
 *   privileges_drop      in the worker: groups, gid, uid, a try to get them back that must fail,
 *                        and PR_SET_NO_NEW_PRIVS
 *
 * Only `user`: the group is that user's own, and its supplementary groups are not taken unless
 * initgroups is on. Only `group`: that group alone. Whatever else root belonged to is given up.
 *
 * Source:  setresuid(2), setgroups(2), capabilities(7), PR_SET_NO_NEW_PRIVS(2const).
 * Owner:   the caller owns the struct; nothing is allocated.
 * Errors:  -1 and one sentence that names the setting and the cure.
 * Threads: resolve and drop while the process has one thread.
 */
#ifndef WEIR_PROC_PRIVILEGES_H
#define WEIR_PROC_PRIVILEGES_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"

/* Supplementary groups of a user that are taken; the rest is left out. */
#define PRIVILEGES_GROUPS_MAX 256

struct privileges {
    bool drops;      /* workers get other ids than the supervisor */
    bool change_uid; /* `uid` is to be set */
    bool change_gid; /* `gid` and `groups` are to be set */
    uid_t uid;       /* the workers' */
    gid_t gid;       /* the workers' */
    unsigned n_groups;
    gid_t groups[PRIVILEGES_GROUPS_MAX]; /* the workers' supplementary groups */
    bool has_umask;
    mode_t umask;
};

/* `user` and `group` are names or numbers, "" = as the supervisor; `umask` is octal, "" =
 * unchanged. Fails for an unknown name, for initgroups without a known user, and when this process
 * may not change to them. */
WEIR_MUST_USE int privileges_resolve(struct privileges *out, const char *user, const char *group,
                                     bool initgroups, const char *umask, struct err *e);

/* Supervisor: apply the mask; workers and files inherit it. */
void privileges_umask(const struct privileges *p);

/* When workers drop privileges: make the log file `path` if it is not there, and give it to their
 * user. "-" and "" and what is no regular file with one name (a pipe, a terminal, a link) is left
 * alone. 0 or a negative errno. */
WEIR_MUST_USE int privileges_own_file(const struct privileges *p, const char *path);
/* The same for a Unix socket's path, which this process has just made. */
WEIR_MUST_USE int privileges_own_socket(const struct privileges *p, const char *path);

/* Worker: become what was resolved. On failure the process must end: it may have changed halfway.
 */
WEIR_MUST_USE int privileges_drop(const struct privileges *p, struct err *e);

#endif
