/* scoreboard: see the header. */
#include "obs/scoreboard.h"

#include <sys/mman.h>

const char *worker_state_word(enum worker_state s)
{
    static const char *const words[] = {"none", "booting", "ready", "draining", "dead"};
    return words[s <= WORKER_DEAD ? s : WORKER_NONE];
}

const char *recycle_word(enum recycle_reason r)
{
    static const char *const words[] = {
        "none",
#define RECYCLE_REASON(id, word, text) word,
#include "obs/recycle_reasons.def"
#undef RECYCLE_REASON
    };
    return words[r < RECYCLE_REASONS ? r : RECYCLE_NONE];
}

const char *recycle_text(enum recycle_reason r)
{
    static const char *const texts[] = {
        "it asks for it",
#define RECYCLE_REASON(id, word, text) text,
#include "obs/recycle_reasons.def"
#undef RECYCLE_REASON
    };
    return texts[r < RECYCLE_REASONS ? r : RECYCLE_NONE];
}

static size_t bytes_of(unsigned n_slots)
{
    return sizeof(struct scoreboard) + n_slots * sizeof(struct scoreboard_slot);
}

struct scoreboard *scoreboard_new(unsigned n_slots)
{
    struct scoreboard *b =
        mmap(NULL, bytes_of(n_slots), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED)
        return NULL;
    b->n_slots = n_slots;
    return b;
}

void scoreboard_free(struct scoreboard **b)
{
    if (*b)
        munmap(*b, bytes_of((*b)->n_slots));
    *b = NULL;
}
