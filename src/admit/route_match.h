/*
 * route_match: which route of the policy is a request for?
 *
 * The first match that fits counts. A path is compared as the application will see it: escapes are
 * decoded once, a malformed one stands for itself. Runs of slashes, escaped ones among them, are
 * one slash, because frameworks merge them; so no spelling of a path escapes its route. GET stands
 * for HEAD, too. Letters are compared as they are, and dot segments are names like others: whoever
 * resolves them would do so before, and applications do not.
 *
 * A method is a token, as the parser of heads gives it. One that no match has is looked for in
 * capitals once more: "post" would be POST to some frameworks.
 *
 * Bounds:  only POLICY_PATH_MAX + 1 decoded bytes are looked at, more than any match has.
 * Cost:    about 150 instructions for a plain path and five routes; decoding adds 15 a byte.
 * Owner:   route_match_new makes, route_match_free gives back; texts of the policy are copied.
 * Threads: read-only once made, may be shared.
 */
#ifndef WEIR_ADMIT_ROUTE_MATCH_H
#define WEIR_ADMIT_ROUTE_MATCH_H

#include <limits.h>

#include "base/attr.h"
#include "base/slice.h"
#include "conf/policy.h"

#define ROUTE_NONE UINT_MAX

struct route_match;

/* NULL: no memory. */
WEIR_MUST_USE struct route_match *route_match_new(const struct conf_policy *p);
void route_match_free(struct route_match **m);

/* The index in p->routes, or ROUTE_NONE. `path` is still percent-encoded and without its query;
 * "*" and "" match nothing. */
unsigned route_match_find(const struct route_match *m, struct slice method, struct slice path);

/* The same for an application at `prefix` (url-prefix or a front-end's SCRIPT_NAME, decoded; ""
 * and longer than ROUTE_PREFIX_MAX: none). It sees the same of a path below the prefix and of that
 * path without it, so a match is found by either: the first route that fits one of the two. */
#define ROUTE_PREFIX_MAX 1024
unsigned route_match_below(const struct route_match *m, struct slice method, struct slice path,
                           struct slice prefix);

#endif
