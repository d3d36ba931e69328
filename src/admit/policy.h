/*
 * policy: may this request run? The order of the checks that need neither disk nor wait.
 *
 *   route   the first of the file that matches; none: everything passes
 *   who     identify, as the file lists it; a wrong token or key is told as such
 *   require a route for users refuses who is none (401)
 *   rates   all of the route at once, or none (429)
 *
 * What comes behind them (quota, place, queue) can wait, and is serve/exchange's with admit/gate.h
 * and serve/keeper_link.h.
 *
 * Owner:   policy_new makes, policy_free gives back; what struct policy_shared points to is lent. A
 * struct admission and all it points to live in the request's arena. Threads: one (the worker's
 * leader): the cache of tokens is inside.
 */
#ifndef WEIR_ADMIT_POLICY_H
#define WEIR_ADMIT_POLICY_H

#include "admit/gate.h"
#include "admit/rates.h"
#include "admit/refusal.h"
#include "admit/who.h"
#include "base/arena.h"
#include "conf/conf.h"
#include "http/req.h"

struct policy;
struct keybox;

/* What all processes of a server share; each made before the first fork, NULL where the file asks
 * for none of it. */
struct policy_shared {
    struct rates *rates;
    struct gates *gates;
    struct keybox *keys;
};

/* What was found and spent for one request. All zero: nothing. */
struct admission {
    const struct policy_route *route; /* NULL: no route of the file is about it */
    unsigned index;                   /* of the route */
    struct who who;
    struct slice account; /* the user as limits know it, "jwt:…"; the address where there is none */
    struct rates_key account_key; /* rates_who of it; 0: not made yet */
    uint64_t flow;                /* whose turn it is in the route's queue */
    struct slice fields;          /* RateLimit … lines for the answer */
    struct rates_ask *spent;      /* for policy_refund */
    unsigned n_spent;
    unsigned dry; /* 1 + enum refusal_id of the rate that dry_run has let pass; 0: none */
};

/* The clocks, read once a request. */
struct policy_now {
    int64_t mono_ns, wall_s;
};

/* *out is NULL where the file says nothing of admission. Reads secrets and key files. */
WEIR_MUST_USE int policy_new(struct policy **out, const struct conf *conf,
                             const struct policy_shared *shared, struct err *e);
void policy_free(struct policy **p);

/* Fill in *a. True: it may go on; false: *why says why not, and *a what is known so far.
 * `script_name` is a trusted front-end's, "": that of url-prefix; the application sees the same of
 * a path with it and without, and both are of the same route. `address` is the client's, behind
 * trusted proxies. Out of memory passes nobody: it is a refusal too. */
WEIR_MUST_USE bool policy_admit(struct policy *p, struct admission *a, const struct req *req,
                                struct slice script_name, struct slice address, struct arena *arena,
                                struct policy_now now, struct refusal *why);

/* The request was refused later, or failed before the application ran: give the rates back. */
void policy_refund(struct policy *p, struct admission *a, int64_t now_ns);

/* The CORS rules of a request to `path` with `method`; NULL: none. */
const struct policy_cors *policy_cors_of(const struct policy *p, struct slice method,
                                         struct slice path, struct slice script_name);

/* Does any rule of CORS exist? */
bool policy_has_cors(const struct policy *p);

/* Only who asks, for answers of the server about him. True: a->who is filled in, perhaps with
 * nobody. */
WEIR_MUST_USE bool policy_who(struct policy *p, struct admission *a, const struct req *req,
                              struct slice address, struct arena *arena, struct policy_now now,
                              struct refusal *why);

/* WWW-Authenticate for who brings no credential. */
const char *policy_challenge(const struct policy *p);

/* Are RateLimit fields wanted (rate-headers)? */
bool policy_draft_fields(const struct policy *p);

/* When the UTC day and month of now_s end, in wall clock seconds. */
void policy_periods(int64_t now_s, int64_t *day_ends_s, int64_t *month_ends_s);

/* The limits of the user's tier. */
enum policy_quota_kind {
    POLICY_QUOTA_NONE = 0, /* the route has none, or the tier is unlimited */
    POLICY_QUOTA_NEVER,    /* the tier may not at all: REFUSAL_TIER */
    POLICY_QUOTA_ASK,      /* ask the keeper with *limits */
};
enum policy_quota_kind policy_quota(const struct admission *a, const struct policy_quota **limits);

/* Is there something to be shown to a user of his own: quotas, or queues? */
bool policy_has_usage(const struct policy *p);

/* The route's number among the gates, and whose turn a request of *a is in its queue (as
 * policy_admit says for the route that it found). GATE_NONE: it has no queue, or one without turns.
 */
uint32_t policy_turn(const struct policy *p, const struct admission *a, unsigned route,
                     struct slice address, uint64_t *flow);

/* The route's number among the gates; GATE_NONE: it has no bound. */
uint32_t policy_gate(const struct policy *p, const struct admission *a);
struct gate_limits policy_gate_limits(const struct policy *p, const struct policy_route *r);

/* The limits of this policy are new: what waits at its gates may start. `wakes` as gates_pump; call
 * it until false. */
bool policy_pump(const struct policy *p, unsigned *route, int64_t now_ns, struct gate_wakes *wakes);

/* Shall refusals of this request be OpenAI's error object? */
bool policy_speaks_openai(const struct admission *a, const struct req *req);

/* A key that no set of keys knows was met: index of the identifier; -1: none. Forgets it. */
int policy_wanted_keys(struct policy *p);

#endif
