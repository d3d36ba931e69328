/* keeper_private: what keeper_main.c and keeper_fetch.c share; both are in _keeper.so. */
#ifndef WEIR_PROC_KEEPER_PRIVATE_H
#define WEIR_PROC_KEEPER_PRIVATE_H

#include <uv.h>

#include "proc/keeper.h"

/* ---- keeper_fetch.c: key sets over HTTP ---- */

struct fetcher;

/* Begin to fetch all of c->jwks on the loop; *out NULL with 0: there are none. -1: libcurl cannot
 * be used. */
WEIR_MUST_USE int fetcher_new(struct fetcher **out, uv_loop_t *loop, const struct keeper_config *c,
                              struct err *e);
/* A token names a key that is not known. */
void fetcher_again(struct fetcher *f, unsigned identifier);
/* Close its handles; the loop has to turn until they are closed, then fetcher_free. */
void fetcher_stop(struct fetcher *f);
void fetcher_free(struct fetcher **f);

#endif
