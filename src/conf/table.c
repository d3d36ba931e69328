/* table: the rows of settings.def, found by name, and the nearest name to a misspelt one. */
#include "conf/conf_private.h"

#include <string.h>

#define SETTING(field, KIND, name, def, min, max, group, help)                                     \
    {name, KIND_##KIND, def, min, max, group, help, offsetof(struct conf, field)},
const struct conf_row conf_rows[CONF_ROWS] = {
#include "conf/settings.def"
};
#undef SETTING

/* Longer words are not misspelt names. */
#define NAME_MAX_BYTES 64

static unsigned char name_byte(char c)
{
    return c == '_' ? '-' : slice_lower((unsigned char)c);
}

bool conf_name_eq(const char *a, const char *b)
{
    while (*a && name_byte(*a) == name_byte(*b))
        a++, b++;
    return !*a && !*b;
}

const struct conf_row *conf_row_find(const char *name)
{
    for (unsigned i = 0; i < CONF_ROWS; i++)
        if (conf_name_eq(conf_rows[i].name, name))
            return &conf_rows[i];
    return NULL;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits between two names: insert, delete, replace, swap neighbours (optimal string alignment). */
static unsigned edits(const char *a, size_t na, const char *b, size_t nb)
{
    unsigned rows[3][NAME_MAX_BYTES + 1];
    unsigned *older = rows[0], *last = rows[1], *now = rows[2];

    for (size_t j = 0; j <= nb; j++)
        last[j] = (unsigned)j;
    memset(older, 0, sizeof rows[0]);
    for (size_t i = 1; i <= na; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned cost = name_byte(a[i - 1]) != name_byte(b[j - 1]);
            now[j] = least(least(last[j] + 1, now[j - 1] + 1), last[j - 1] + cost);
            if (i > 1 && j > 1 && name_byte(a[i - 1]) == name_byte(b[j - 2]) &&
                name_byte(a[i - 2]) == name_byte(b[j - 1]))
                now[j] = least(now[j], older[j - 2] + 1);
        }
        unsigned *reuse = older;
        older = last;
        last = now;
        now = reuse;
    }
    return last[nb];
}

void conf_nearest_try(struct conf_nearest *near, const char *name)
{
    size_t na = strlen(near->wanted), nb = strlen(name);
    if (na > NAME_MAX_BYTES || nb > NAME_MAX_BYTES || na < 2)
        return;
    unsigned d = edits(near->wanted, na, name, nb);
    /* Half a word (thread for threads, body-size for max-body-size) is near, too. */
    if (na >= 4 && strstr(name, near->wanted))
        d = least(d, 2);
    unsigned limit = na < 4 ? 1 : na < 8 ? 2 : 3;
    if (d <= limit && (!near->best || d < near->distance)) {
        near->best = name;
        near->distance = d;
    }
}
