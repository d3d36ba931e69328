/*
 * python_module_admin: what the parts of weir._core have for the admin listener.
 *
 * Threads: main thread, with the GIL; but what python_admin_attach hangs into a keeper runs on that
 * one's thread.
 */
#ifndef WEIR_PYTHON_MODULE_ADMIN_H
#define WEIR_PYTHON_MODULE_ADMIN_H

#include "python_module.h"

#include "admin/admin.h"

/* The answering half, of one configuration. */
struct python_admin {
    struct admin_config
        config; /* listen_fd, tell_fd and view.alone are filled in by whoever runs it */
    struct keeper_door
        probes; /* owned; for workers' probes; its socket is -1 where none is wanted */
    char token[CONF_TOKEN_BYTES_MAX + 1]; /* "": none */
    struct admin *admin; /* owned by the keeper's loop; NULL: it does not run here */
    bool wanted;         /* the configuration names an address */
    bool process; /* it runs in a process of its own: descriptors are closed there at its end */
};

/* Read the token, and open the door for probes, where *c wants a listener. `c` and `shared` are
 * lent for its life. */
WEIR_MUST_USE int python_admin_init(struct python_admin *a, const struct conf *c,
                                    const struct shared *shared, struct err *e);
void python_admin_fini(struct python_admin *a);
/* Let it live on the loop of the keeper that *k describes; `a` stays where it is. Nothing where
 * none is wanted. */
void python_admin_attach(struct python_admin *a, struct keeper_config *k);

/* ---- the supervisor's sockets ---- */

void python_admin_socket_init(struct python_admin_socket *s);
/* At the start: what the supervisor before this one hands over, or a new one. Before the sockets of
 * the server are taken over. */
WEIR_MUST_USE int python_admin_listen(struct supervisor_object *o, struct err *e);
/* Add it to what a successor is given. */
WEIR_MUST_USE int python_admin_hand_over(const struct supervisor_object *o, struct upgrade *u);
/* For a reload: o->next_admin. */
WEIR_MUST_USE int python_admin_reload(struct supervisor_object *o, const struct conf *c,
                                      struct err *e);
void python_admin_settle(struct supervisor_object *o, bool ok);
/* One line of the log that says where it is. */
void python_admin_tell(const struct supervisor_object *o);
/* Close all here; remove: nobody goes on with them, so files of Unix sockets go. */
void python_admin_close(struct supervisor_object *o, bool remove);
/* Make the pipe by which keepers tell. */
WEIR_MUST_USE int python_admin_prepare(struct supervisor_object *o, struct err *e);
/* o->admin_tell[0] may be readable. */
void python_admin_news(struct supervisor_object *o);

#endif
