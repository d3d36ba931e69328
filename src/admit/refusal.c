/* refusal: see the header. */
#include "admit/refusal.h"

#include "base/must.h"

static const struct row {
    const char *word, *code, *means;
    int status;
} rows[REFUSALS] = {
#define REFUSAL(id, word, status, code, means, cure) {word, code, means, status},
#include "admit/refusals.def"
#undef REFUSAL
};

static const struct row *row_of(enum refusal_id id)
{
    must(id < REFUSALS);
    return &rows[id];
}

const char *refusal_word(enum refusal_id id)
{
    return row_of(id)->word;
}

int refusal_status(enum refusal_id id)
{
    return row_of(id)->status;
}

const char *refusal_code(enum refusal_id id)
{
    return row_of(id)->code;
}

const char *refusal_means(enum refusal_id id)
{
    return row_of(id)->means;
}
