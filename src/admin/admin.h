/*
 * admin: the listener for those who run the server: status page, /status.json, /events, /stacks,
 * /metrics, /live, /ready, and actions on workers. An HTTP/1.1 server of its own, small and on the
 * keeper's loop, so that it answers when no worker does.
 *
 * Who may ask: see docs/see.md. The Host field has to be an IP address, localhost, or one of
 * admin-hosts (a page elsewhere, whose name was pointed here, gets 421). With admin-token a token
 * is asked for, as Bearer or as the password of Basic; /live and /ready need none. Without it only
 * loopback addresses and Unix sockets can be listened on. Actions are POST, from a page of the same
 * origin, or from no page.
 *
 * Bounds:  ADMIN_CONNS_MAX connections, heads of 8 KiB, bodies of 4 KiB; a slow reader of /events
 * is left out of events until he has read, and closed when he does not. Owner:   new makes; free
 * closes (the loop has to turn once more). `listen_fd` stays the caller's. Threads: the loop's.
 */
#ifndef WEIR_ADMIN_ADMIN_H
#define WEIR_ADMIN_ADMIN_H

#include <uv.h>

#include "admin/view.h"
#include "base/err.h"
#include "conf/conf.h"
#include "store/keeper_door.h"

#define ADMIN_CONNS_MAX 64

struct admin;

struct admin_config {
    struct admin_view view;           /* copied; what it points to is lent */
    int listen_fd;                    /* lent: listens already */
    const struct keeper_door *probes; /* lent: where workers' probes connect */
    uid_t uid;                        /* of the workers */
    int tell_fd; /* lent: one byte tells the supervisor to look at the board; -1: nobody */
};

WEIR_MUST_USE int admin_new(struct admin **out, uv_loop_t *loop, const struct admin_config *c,
                            struct err *e);
void admin_free(struct admin **a);

/* Before the first fork: bind what conf->admin says ("" = nothing: *fd is -1), and listen. The
 * check of the address is conf's. */
WEIR_MUST_USE int admin_listen(int *fd, const struct conf *c, struct err *e);

#endif
