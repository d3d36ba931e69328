/*
 * refusal: why Weir answers in place of the application, as data; handler/refuse.h writes the
 * answer.
 *
 * Owner:   everything a struct refusal points to is the caller's, and lives until the answer is
 * built. Threads: pure functions.
 */
#ifndef WEIR_ADMIT_REFUSAL_H
#define WEIR_ADMIT_REFUSAL_H

#include <stdbool.h>
#include <stdint.h>

enum refusal_id {
#define REFUSAL(id, word, status, code, means, cure) REFUSAL_##id,
#include "admit/refusals.def"
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

/* The columns of refusals.def. */
const char *refusal_word(enum refusal_id id);
int refusal_status(enum refusal_id id);
const char *refusal_code(enum refusal_id id);
const char *refusal_means(enum refusal_id id);

#endif
