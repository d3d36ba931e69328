/*
 * metric: the families of /metrics as a table, and their reference page.
 *
 * Source:  metrics.def; "Metric and label naming", Prometheus documentation.
 * Owner:   everything is constant.
 * Threads: none inside.
 */
#ifndef WEIR_OBS_METRIC_H
#define WEIR_OBS_METRIC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum metric_type { METRIC_COUNTER = 0, METRIC_GAUGE, METRIC_INFO, METRIC_HISTOGRAM };

enum metric_id {
#define METRIC_GROUP(heading)
#define METRIC(id, name, type, unit, labels, help) METRIC_ID_##id,
#define HISTOGRAM(id, name, unit, labels, help, ...) METRIC_ID_##id,
#include "obs/metrics.def"
#undef METRIC_GROUP
#undef METRIC
#undef HISTOGRAM
    METRICS
};

struct metric {
    const char *name; /* as in 0.0.4: a counter's with _total */
    enum metric_type type;
    const char *unit;   /* "seconds", "bytes"; "" = a number of things */
    const char *labels; /* "route,status"; "" = none */
    const char *help;
    const int64_t *le; /* histogram: its bounds, ns, ascending, ended by 0; NULL: none */
};
extern const struct metric metrics[METRICS];

/* docs/reference/metrics.md. */
void metric_reference(FILE *out);

/* Seconds of a duration as a decimal number without needless zeros ("0.005", "2"); `point`: "2.0",
 * the form of OpenMetrics for bounds, which 0.0.4 knows as well, so that a label `le` is the same
 * in both. Returns the bytes written to `out`, no NUL. */
#define METRIC_SECONDS_BYTES 32
unsigned metric_seconds(char out[METRIC_SECONDS_BYTES], int64_t ns, bool point);

#endif
