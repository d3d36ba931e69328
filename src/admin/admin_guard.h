/*
 * admin_guard: may this request be answered? The Host field against pages whose name was pointed
 * here, the token, and for actions the page that they come from. See docs/see.md.
 *
 * Source:  RFC 9110 §7.2 (Host), §11.6 (Authorization); RFC 6750 (Bearer); RFC 7617 (Basic); RFC
 *          6454 (Origin); Fetch Metadata Request Headers (Sec-Fetch-Site).
 * Owner:   all is lent for the call; struct guard_tries is the caller's, zeroed at first.
 * Threads: none inside.
 */
#ifndef WEIR_ADMIN_ADMIN_GUARD_H
#define WEIR_ADMIN_ADMIN_GUARD_H

#include <stdint.h>

#include "base/attr.h"
#include "conf/conf.h"
#include "http/req.h"

/* Is it an IP address, localhost, one of `names`, or nothing (a client of HTTP/1.0)? */
WEIR_MUST_USE bool guard_host(struct slice host, const struct conf_list *names);

/* Does it come from a page of this server, or from no page? */
WEIR_MUST_USE bool guard_origin(const struct req *r);

enum guard_verdict {
    GUARD_NONE = 0, /* no token was given */
    GUARD_WRONG,
    GUARD_RIGHT,
};
WEIR_MUST_USE enum guard_verdict guard_token(const struct req *r, struct slice token);

/* ---- wrong tokens ---- */

/* From one address so many at once, and then one each GUARD_STEP_NS. */
#define GUARD_BURST 5
#define GUARD_STEP_NS INT64_C(500000000)
#define GUARD_ADDRESSES 32
/* Of an address: all of IPv4, the first half of IPv6 (a network of one owner); zeros: a Unix
 * socket. */
#define GUARD_KEY_BYTES 8

struct guard_tries {
    struct guard_address {
        unsigned char key[GUARD_KEY_BYTES];
        int64_t paid_ns; /* monotonic; all wrong ones are paid off then; 0: the row is free */
    } rows[GUARD_ADDRESSES];
};

/* May a token from there be looked at now? A right one is not told from a wrong one while it may
 * not. */
WEIR_MUST_USE bool guard_may_try(const struct guard_tries *t,
                                 const unsigned char key[GUARD_KEY_BYTES], int64_t now_ns);
/* One was wrong. The row that is paid off first makes room. */
void guard_was_wrong(struct guard_tries *t, const unsigned char key[GUARD_KEY_BYTES],
                     int64_t now_ns);

#endif
