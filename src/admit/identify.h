/*
 * identify: who asks? The first of the file's identifiers that applies.
 *
 *   jwt      a bearer token, or a cookie; verified, and kept verified until it expires
 *   bearer   any bearer token is a user, named by its hash
 *   api_key  a field; of a file of keys, or any, named by its hash
 *   address  nobody that is known; limits go by the address
 *
 * A credential that applies and is wrong ends the search: the verdict is REFUSED. Only a token is
 * tried with every jwt of the file, as it may be of any issuer; and a text that is no such token at
 * all is a bearer's where `bearer` stands behind jwt. Verifying costs, so wrong ones have a rate by
 * address of their own, and above it nothing more is verified.
 *
 * Owner:   identify_new makes, identify_free gives back; `rates`, `keys` are lent. What is found
 * stands in the request's arena. Threads: one.
 */
#ifndef WEIR_ADMIT_IDENTIFY_H
#define WEIR_ADMIT_IDENTIFY_H

#include "admit/policy.h"

struct identify;

enum identify_verdict {
    IDENTIFY_KNOWN = 0, /* a->who.user is set */
    IDENTIFY_NOBODY,    /* no credential, or only an address */
    IDENTIFY_REFUSED,   /* *why says why; a->who is empty */
    IDENTIFY_NO_MEMORY,
};

WEIR_MUST_USE int identify_new(struct identify **out, const struct conf_policy *said,
                               struct rates *rates, struct keybox *keys, struct err *e);
void identify_free(struct identify **id);

/* Sets a->who and a->account. `network` is identify_network's. */
WEIR_MUST_USE enum identify_verdict identify_who(struct identify *id, struct admission *a,
                                                 const struct req *req, struct slice network,
                                                 struct arena *arena, struct policy_now now,
                                                 struct refusal *why);

/* WWW-Authenticate for who brings no credential; a literal or owned by `id`. */
const char *identify_challenge(const struct identify *id);

/* The address as limits know it: IPv4 as it is, IPv6 its /64, a Unix socket "unix". Written to `to`
 * where it changes. */
struct slice identify_network(struct slice address, char *to, size_t n);

/* See policy_wanted_keys. */
int identify_wanted(struct identify *id);

#endif
