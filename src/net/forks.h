/*
 * forks: what a process that the application forks (os.fork, multiprocessing) must not keep.
 *
 * Such a process has a copy of every descriptor, and may outlive the server. With a listening
 * socket it would keep the port: connections would be made that nobody accepts, and no server could
 * start there. So entries are told in the child, where they close what is theirs. Connections it
 * keeps; where forks_were says so, a close alone does not end them for the client.
 *
 * Programs that are started (subprocess) get nothing anyway: everything is close-on-exec.
 *
 * Threads: join, leave and were from any. `in_child` runs in the child, with all other threads
 * gone: only what is safe in a signal handler, and no lock.
 */
#ifndef WEIR_NET_FORKS_H
#define WEIR_NET_FORKS_H

#include <stdbool.h>

struct forks_entry {
    struct forks_entry *next;
    void (*in_child)(struct forks_entry *e);
    bool joined;
};

/* From now on `in_child` is called in every child. Joining or leaving twice is harmless. */
void forks_join(struct forks_entry *e, void (*in_child)(struct forks_entry *e));
void forks_leave(struct forks_entry *e);

/* Has this process forked since something joined? */
bool forks_were(void);

#endif
