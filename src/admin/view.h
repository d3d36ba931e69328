/*
 * view: all that the admin listener may look at. Everything is lent, in shared memory or read-only,
 * and can be read at any time without asking anybody.
 */
#ifndef WEIR_ADMIN_VIEW_H
#define WEIR_ADMIN_VIEW_H

#include "admit/policy.h"
#include "conf/conf.h"
#include "obs/scoreboard.h"
#include "obs/telemetry.h"

struct admin_view {
    const struct conf *conf;           /* in force for this keeper */
    struct scoreboard *board;          /* a process that serves alone has a board of one slot */
    struct telemetry *telemetry;       /* never NULL */
    const struct policy_shared *parts; /* its members may be NULL */
    bool alone;                        /* no supervisor: workers cannot be replaced */
};

#endif
