/*
 * refusal: Weir's own answer in place of the application's, so that a program can tell why and what
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
#ifndef WEIR_HANDLER_REFUSAL_H
#define WEIR_HANDLER_REFUSAL_H

#include "handler/handler.h"

enum refusal_id {
#define REFUSAL(id, word, status, code, means, cure) REFUSAL_##id,
#include "handler/refusals.def"
#undef REFUSAL
    REFUSALS
};

struct refusal {
    enum refusal_id id;
    const char *detail;       /* one sentence for people; NULL: the table's */
    const char *limit;        /* which limit: "user", "address", "route", a tier; NULL: none */
    int64_t retry_after_s;    /* 0: no such field */
    uint32_t position;        /* of the queue, from 1; 0: not known */
    int64_t expected_ms;      /* expected wait; 0: not known */
    const char *authenticate; /* WWW-Authenticate; NULL: none */
    bool openai;              /* OpenAI's error object in place of problem+json */
};

const char *refusal_word(enum refusal_id id);
int refusal_status(enum refusal_id id);

/* The whole answer; replaces what was not yet framed. After the head was framed: call_abort. */
void refusal_answer(struct call *c, const struct refusal *r);

#endif
