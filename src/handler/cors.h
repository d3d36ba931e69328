/*
 * cors: which pages of other origins may read the answers, and the answer to their browsers'
 * question before.
 *
 * An entry of `origins` is an origin as browsers send it; a port of `*` stands for every port,
 * a first label of `*` for every name below the rest, `*` alone for every origin. Others get their
 * answer without the fields, and the browser keeps it from the page.
 *
 * Source:  Fetch standard, "HTTP CORS protocol"; RFC 6454 §7 (Origin); RFC 9110 §12.5.5 (Vary).
 * Threads: pure functions.
 */
#ifndef WEIR_HANDLER_CORS_H
#define WEIR_HANDLER_CORS_H

#include "conf/policy.h"
#include "handler/handler.h"

/* Longer ones are nobody's. */
#define CORS_ORIGIN_BYTES_MAX 512

bool cors_allows(const struct policy_cors *p, struct slice origin);

/* The field lines of an answer to a page of `origin` ("" = the request names none), in the arena;
 * empty: none, or no memory. */
struct slice cors_lines(const struct policy_cors *p, struct slice origin, struct arena *arena);

/* What a preflight asks (RFC: OPTIONS with Origin and Access-Control-Request-Method). */
struct cors_ask {
    struct slice origin, method, headers;
};
/* Is this request a preflight? */
bool cors_is_preflight(const struct req *r, struct cors_ask *out);

/* Answer it whole: 204, or 403 with the reason where the origin may not. */
void cors_preflight(const struct policy_cors *p, const struct cors_ask *ask, struct call *c);

#endif
