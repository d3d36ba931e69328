/*
 * keeper_door: where a keeper is found. A listening SOCK_SEQPACKET socket with an abstract name
 * that the kernel chooses, and a cookie.
 *
 * It is made before any fork and inherited: who has started the keeper holds the socket open, so
 * workers queue in its backlog while a keeper is replaced, and their first questions with them.
 * The cookie is only in the memory of processes of this server.
 *
 * Source:  unix(7): autobind, SO_PEERCRED.
 * Owner:   the caller owns the struct; open makes, close gives back the socket.
 * Threads: connect any; the rest where it was made.
 */
#ifndef WEIR_STORE_KEEPER_DOOR_H
#define WEIR_STORE_KEEPER_DOOR_H

#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"
#include "base/err.h"
#include "store/keeper_wire.h"

struct keeper_door {
    int listen_fd; /* owned; -1: closed, or a process that only connects */
    struct sockaddr_un address;
    socklen_t address_bytes;
    unsigned char cookie[KEEPER_COOKIE_BYTES];
};

WEIR_MUST_USE int keeper_door_open(struct keeper_door *d, struct err *e);
/* Close the socket here: in a worker it does not listen, and can connect all the same. Again:
 * nothing. */
void keeper_door_close(struct keeper_door *d);

/* A connection (not blocking, close-on-exec) that has said hello; or -EAGAIN: the backlog is full;
 * -ECONNREFUSED: nobody listens any more; another negative errno. */
WEIR_MUST_USE int keeper_door_connect(const struct keeper_door *d, uint32_t slot,
                                      uint32_t generation);

#endif
