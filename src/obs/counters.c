/* counters: the tables made from close_reasons.def. */
#include "obs/counters.h"

static const struct {
    const char *word;
    int quiet;
} REASONS[CLOSE_REASONS] = {
#define CLOSE_REASON(id, word, quiet, help) {word, quiet},
#include "obs/close_reasons.def"
#undef CLOSE_REASON
};

const char *close_reason_word(enum close_reason r)
{
    return REASONS[r].word;
}

int close_reason_quiet(enum close_reason r)
{
    return REASONS[r].quiet;
}
