/* route: see the header. */
#include "handler/route.h"

#include <stdlib.h>

#include "base/log.h"
#include "handler/file.h"
#include "handler/file_ask.h"

struct route {
    struct slice prefix; /* lent by the conf; "" = every path */
    struct file_root root;
};

struct routes {
    unsigned n;
    struct route items[]; /* the longest prefix first */
};

static int by_length(const void *a, const void *b)
{
    size_t x = ((const struct route *)a)->prefix.n, y = ((const struct route *)b)->prefix.n;
    return (x < y) - (x > y);
}

int routes_new(struct routes **out, const struct conf *conf, struct err *e)
{
    *out = NULL;
    unsigned n = conf->static_files.n;
    if (!n)
        return 0;
    struct routes *r = calloc(1, sizeof *r + n * sizeof r->items[0]);
    if (!r)
        return err_set(e, "out of memory");
    for (; r->n < n; r->n++) {
        struct route *route = &r->items[r->n];
        const char *folder;
        if (conf_static_split(conf->static_files.items[r->n], &route->prefix, &folder, e) ||
            file_root_init(&route->root, folder, conf->static_max_age / 1000, "static", e)) {
            routes_free(&r);
            return -1;
        }
        if (route->root.stepwise)
            log_line(LOG_INFO, 0, "static: no openat2 here; symbolic links in %s are not followed",
                     folder);
    }
    qsort(r->items, n, sizeof r->items[0], by_length);
    *out = r;
    return 0;
}

void routes_free(struct routes **rp)
{
    struct routes *r = *rp;
    *rp = NULL;
    for (unsigned i = 0; r && i < r->n; i++)
        file_root_fini(&r->items[i].root);
    free(r);
}

bool routes_answer(const struct routes *r, struct call *c)
{
    for (unsigned i = 0; r && i < r->n; i++) {
        struct slice path = c->req->path;
        size_t n = file_prefix(path, r->items[i].prefix);
        if (n == SIZE_MAX)
            continue;
        file_answer(c, &r->items[i].root, slice_of(path.p + n, path.n - n));
        return true;
    }
    return false;
}
