/*
 * bench_scrape: what a scrape of /metrics costs the keeper: 50 routes with places, all used, with
 * five statuses and two refusals each, in four workers. Prints one JSON object.
 */
#include <stdio.h>
#include <stdlib.h>

#include "admin/metrics.h"
#include "admin/metrics_helper.h"
#include "base/attr.h"

enum { SCRAPES = 400 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct fake *f, const char *name, enum metrics_format format)
{
    static double ms[SCRAPES];
    for (unsigned i = 0; i < SCRAPES; i++) {
        buf_fini(&f->out); /* each scrape grows its page from nothing */
        int64_t begin_ns = clock_mono_ns();
        must(metrics_write(&f->out, &f->view, format) == 0);
        ms[i] = (double)(clock_mono_ns() - begin_ns) / 1e6;
    }
    qsort(ms, SCRAPES, sizeof ms[0], by_value);
    printf("  \"%s_ms\": {\"median\": %.3f, \"p99\": %.3f},\n  \"%s_bytes\": %zu,\n", name,
           ms[SCRAPES / 2], ms[SCRAPES * 99 / 100], name, f->out.n);
}

int main(void)
{
    static struct policy_route routes[MANY_ROUTES];
    static char names[MANY_ROUTES][64];
    struct fake *f = busy_server(routes, names);
    printf("{\n");
    measure(f, "text", METRICS_TEXT);
    measure(f, "openmetrics", METRICS_OPENMETRICS);
    printf("  \"routes\": %d,\n  \"workers\": %d\n}\n", MANY_ROUTES, MANY_WORKERS);
    fake_free(f);
    return 0;
}
