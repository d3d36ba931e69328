/*
 * sockets: the addresses of a server that outlives its workers: opened before the first fork, and
 * changed by a reload without a moment in which nobody listens.
 *
 * A reload opens a second set. An address that both have keeps its socket, so no connection that
 * waits in its queue is lost. Then one of the two goes: sockets_replace or sockets_close.
 *
 * One that overlaps: all addresses of a port can be opened beside one of them that goes, because the kernel gives
 * connections to the more particular socket. The other way round the new one would take connections that nobody
 * accepts before the reload is over, so that is refused with the cure.
 *
 * Owner:   the supervisor; workers take copies of the descriptors (server_share_listeners) and give
 *          the inherited set back with sockets_forget.
 * Errors:  -1 and one sentence that names the address; nothing is open then.
 * Threads: none inside.
 */
#ifndef WEIR_PROC_SOCKETS_H
#define WEIR_PROC_SOCKETS_H

#include "base/attr.h"
#include "base/err.h"
#include "conf/conf.h"
#include "net/listen.h"

#define SOCKETS_BINDS_MAX 64

/* One address as it was configured; a host name may have given several listeners. */
struct sockets_bind {
    char *text;        /* owned */
    unsigned first, n; /* its listeners in `set` */
    const struct sockets_bind
        *kept; /* the same one of the set before; lent until replace or close */
};

struct sockets {
    struct listen_set set;
    struct sockets_bind binds[SOCKETS_BINDS_MAX];
    unsigned n_binds;
};

/* Open what `c` names (fds[0..n_fds) instead, if there are any). `before`: the set in use, or NULL.
 */
WEIR_MUST_USE int sockets_open(struct sockets **out, const struct conf *c, const int *fds,
                               unsigned n_fds, const struct sockets *before, struct err *e);

struct upgrade;

/* As sockets_open, with the sockets of the supervisor before this one for the addresses that it had;
 * what of them `c` does not name any more is closed here. Where Gunicorn handed over and none is
 * named, all are taken as they are. */
WEIR_MUST_USE int sockets_take_over(struct sockets **out, const struct conf *c,
                                    const struct upgrade *u, struct err *e);

/* Add all of them to what a successor is given: 0, or -1: no memory. */
WEIR_MUST_USE int sockets_hand_over(const struct sockets *s, struct upgrade *u);

/* For a reload: the same beside `before`, in use. *next may hold the set of a reload that is not over, whose
 * addresses are kept too; it is closed either way. */
WEIR_MUST_USE int sockets_open_next(struct sockets **next, const struct conf *c,
                                    const struct sockets *before, struct err *e);

/* The new set is in use, with these settings: what an open socket can still be told. 0 or a negative errno. */
WEIR_MUST_USE int sockets_settle(struct sockets *s, const struct conf *c);

/* The new set is in use: close what only *before has, free it, and let it point to `now`. */
void sockets_replace(struct sockets **before, struct sockets *now);

/* Close all; files of Unix sockets that only this set has are removed. NULL in *s is allowed. */
void sockets_close(struct sockets **s);

/* In a worker: the same without removing anything. */
void sockets_forget(struct sockets **s);

#endif
