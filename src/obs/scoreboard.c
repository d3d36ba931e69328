/* scoreboard: see the header. */
#include "obs/scoreboard.h"

#include <sys/mman.h>

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
