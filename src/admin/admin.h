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
 * Bounds:  ADMIN_CONNS_MAX connections (above it, the one that has idled longest makes room), of
 * which ADMIN_VIEWERS_MAX may view /events; heads of 8 KiB within 10 s, bodies of 4 KiB; idle
 *          connections for 60 s. A slow reader of /events is left out of events until he has read;
 *          who takes nothing for 10 s is closed. Wrong tokens: a few a second from one address.
 * Owner:   new makes; free closes (the loop has to turn until its handles are closed). `listen_fd`
 *          stays the caller's.
 * Threads: the loop's; admin_listen and the rest below it any.
 */
#ifndef WEIR_ADMIN_ADMIN_H
#define WEIR_ADMIN_ADMIN_H

#include <uv.h>

#include "admin/view.h"
#include "base/err.h"
#include "conf/conf.h"
#include "store/keeper_door.h"

#define ADMIN_CONNS_MAX 64
#define ADMIN_VIEWERS_MAX 32

struct admin;

struct admin_config {
    struct admin_view view;           /* copied; what it points to is lent */
    int listen_fd;                    /* lent: listens already */
    const struct keeper_door *probes; /* lent: where workers' probes connect */
    const char *token;                /* copied; NULL or "": none is asked for */
    uid_t uid;                        /* of the workers */
    int tell_fd; /* lent: one byte tells the supervisor to look at the board; -1: nobody */
};

WEIR_MUST_USE int admin_new(struct admin **out, uv_loop_t *loop, const struct admin_config *c,
                            struct err *e);
void admin_free(struct admin **a);

/* Before the first fork: bind what conf->admin says ("" = nothing: *fd is -1), and listen. The
 * check of the address is conf's. */
WEIR_MUST_USE int admin_listen(int *fd, const struct conf *c, struct err *e);
/* Where it listens, as text for a line of the log: "http://127.0.0.1:5001/", "unix:/run/weir.sock".
 */
void admin_url(int fd, char *out, size_t n);
/* Remove the file of its Unix socket, where it has one: nobody listens there any more. */
void admin_unlink(int fd);

#endif
