/*
 * refuse: Weir's own answer in place of the application's, so that a program can tell why and what
 * next.
 *
 *   problem+json (RFC 9457)   {"type":"about:blank","title":"Too Many Requests","status":429,
 *                              "detail":"…","reason":"rate_limited","retry_after":12}
 *   OpenAI's error object     {"error":{"message":"…","type":"…","param":null,"code":"…"}}
 *
 * With Retry-After (RFC 9110 §10.2.3), Cache-Control: no-store, and WWW-Authenticate (RFC 6750 §3)
 * with 401.
 *
 * Owner:   everything a struct refusal points to is the caller's, and lives until the answer is
 * built. Threads: pure but for the call.
 */
#ifndef WEIR_HANDLER_REFUSE_H
#define WEIR_HANDLER_REFUSE_H

#include "admit/refusal.h"
#include "handler/handler.h"

/* The whole answer; replaces what was not yet framed. After the head was framed: call_abort. */
void refuse(struct call *c, const struct refusal *r);

#endif
