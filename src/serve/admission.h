/*
 * admission: a request's way through the checks of the policy, for serve/exchange.
 *
 *   head    who asks, CORS, rates; what is refused is answered when its body is here (or at once,
 * when that is large) enter   the body is complete: quota of the user (the keeper is asked: the
 * request is parked), then a place of its route (none free: parked in the queue). Then it goes on
 * to the application's ready queue. leave   the application has returned: the place is free end the
 * exchange ends: what is still held comes back; what never ran is refunded
 *
 * A parked request costs no thread. Who leaves while he is parked is taken off and never starts.
 *
 * Owner:   serve/exchange owns the exchange; everything here hangs on it, or on the server.
 * Threads: leader only.
 */
#ifndef WEIR_SERVE_ADMISSION_H
#define WEIR_SERVE_ADMISSION_H

#include <uv.h>

#include "admit/policy.h"
#include "handler/cors.h"
#include "serve/keeper_link.h"
#include "serve/shared.h"

struct exchange;
struct server;

/* What a parked request waits for. */
enum park {
    PARK_NOT = 0,
    PARK_QUOTA, /* the keeper's answer; at most KEEPER_LINK_ASK_MS */
    PARK_QUEUE, /* a place of its route; at most the route's wait */
    PARK_USAGE, /* the keeper's answer to /-/usage */
};

/* Of one request; all zero but `ticket` = none of it. */
struct admitted {
    struct admission found;
    struct refusal *refused;             /* in the arena: the answer to be given; NULL: none */
    const struct policy_cors *preflight; /* lent: it is a preflight, answered here */
    struct cors_ask ask;                 /* of a preflight */
    enum park park;
    uint32_t ticket;      /* of the gate; GATE_NONE */
    int64_t wait_ends_ms; /* loop time; PARK_QUEUE */
    int64_t parked_ms;    /* loop time */
    uint64_t question;    /* of the keeper, while one is asked */
    struct quota_op op;   /* with `spent` */
    bool quota_done;      /* the quota was looked at */
    bool spent;           /* and a request of it spent */
    bool usage;           /* it asks for /-/usage */
};

/* Of a server. */
struct server_admission {
    struct policy *policy; /* owned; NULL: the file says nothing of admission */
    struct shared *shared; /* lent, or owned with `own` */
    bool own;
    struct gate_owner owner;  /* who we are among the gates */
    struct keeper_link *link; /* owned; NULL: nobody is to be asked */
    uv_poll_t wake;           /* others have granted us something */
    bool wake_made;
    int64_t told_queue_ms; /* loop time of the last line about a long queue; 0: none */
};

/* In server_listen, without a supervisor: make what the configuration needs for one process. Again
 * after a failure: what was made stays. */
WEIR_MUST_USE int admission_alone(struct server *s, struct err *e);
/* From then on it is the caller's, who frees it after the server. */
struct shared *admission_give_shared(struct server *s);
/* In server_start, when the loop is there. */
WEIR_MUST_USE int admission_start(struct server *s, struct err *e);
/* Before loop_fini; then admission_free. */
void admission_close(struct server *s);
void admission_free(struct server *s);

/* The head is complete, the client's address known. */
void admission_head(struct exchange *x);

enum admission_next {
    ADMISSION_GO = 0,  /* to the application */
    ADMISSION_PARKED,  /* exchange_go or exchange_refuse follows */
    ADMISSION_REFUSED, /* x->admitted.refused says why */
};
WEIR_MUST_USE enum admission_next admission_enter(struct exchange *x);

/* Answer a preflight, a refusal, or /-/usage; false: it is none of them. True with PARK_USAGE: the
 * answer follows. */
bool admission_native(struct exchange *x);

/* The application has returned. */
void admission_leave(struct exchange *x);
/* The exchange is recycled: `began`: the application has seen the request. */
void admission_end(struct exchange *x, bool began);

/* It is parked, and this is the loop's time: is its wait over? Then x->admitted.refused says so. */
bool admission_wait_over(struct exchange *x, int64_t now_ms);
/* Loop time at which that will be; INT64_MAX: never. */
int64_t admission_wait_ends(const struct exchange *x);

/* The refusal of a request whose deadline has passed, or that the stop of the server meets: fills
 * in *r and says whether the answer is to be such a one, or plain text. */
bool admission_explains(const struct exchange *x, enum refusal_id id, struct refusal *r);

/* Is the body of this request to be complete before it goes on? What may be parked has to be: while
 * a body comes, the exchange must be able to end at any moment. So has what is answered here, or
 * its connection could not stay. */
static inline bool admission_needs_whole(const struct admitted *a)
{
    const struct policy_route *r = a->found.route;
    return a->refused || a->usage || a->preflight || (r && (r->concurrency || r->n_quotas));
}

/* Could another worker start with this request anew? Not when something was spent for it here. */
static inline bool admission_is_free(const struct admitted *a)
{
    return a->ticket == GATE_NONE && !a->spent && !a->found.n_spent && !a->park;
}

#endif
