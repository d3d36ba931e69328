/* status: see the header. */
#include "admin/status.h"

#include <stdlib.h>

struct history {
    int none;
};

int status_ask_parse(struct status_ask *ask, struct slice query, struct err *e)
{
    (void)query;
    (void)e;
    *ask = (struct status_ask){0};
    return 0;
}

int status_write(struct buf *out, const struct admin_view *v, const struct status_ask *ask)
{
    (void)v;
    (void)ask;
    return buf_add(out, "{}", 2);
}

int status_write_flight(struct buf *out, const struct admin_view *v, unsigned worker, uint64_t id)
{
    (void)v;
    (void)worker;
    (void)id;
    return buf_add(out, "null", 4);
}

const char *status_unready(const struct admin_view *v)
{
    (void)v;
    return NULL;
}

struct history *history_new(void)
{
    return calloc(1, sizeof(struct history));
}

void history_free(struct history **h)
{
    free(*h);
    *h = NULL;
}

int history_tick(struct history *h, const struct admin_view *v, int64_t now_ns, int64_t wall_ns)
{
    (void)h;
    (void)v;
    (void)now_ns;
    (void)wall_ns;
    return 0;
}

int history_write_last(struct buf *out, const struct history *h)
{
    (void)h;
    return buf_add(out, "{}", 2);
}

int history_write(struct buf *out, const struct history *h)
{
    (void)h;
    return buf_add(out, "{}", 2);
}
