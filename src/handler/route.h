/*
 * route: which handler in C answers a path; all others are the application's.
 *
 * Today these are the folders of `static`. The longest prefix wins, by whole segments; what a
 * folder does not have is 404 and is not asked of the application.
 *
 * Threads: made before the server starts, read-only afterwards.
 */
#ifndef WEIR_HANDLER_ROUTE_H
#define WEIR_HANDLER_ROUTE_H

#include "conf/conf.h"
#include "handler/handler.h"

struct routes;

/* *out is owned: routes_free. NULL where the conf names none. */
WEIR_MUST_USE int routes_new(struct routes **out, const struct conf *conf, struct err *e);
void routes_free(struct routes **r);

/* Answer `c` completely, on the loop; false: it is the application's. `r` may be NULL. */
bool routes_answer(const struct routes *r, struct call *c);

#endif
