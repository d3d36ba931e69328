/* metric: see the header. */
#include "obs/metric.h"

#include <stdbool.h>
#include <string.h>

/* ---- the table ---- */

#define METRIC_GROUP(heading)
#define METRIC(id, name, type, unit, labels, help)
#define HISTOGRAM(id, name, unit, labels, help, ...)                                               \
    static const int64_t LE_##id[] = {__VA_ARGS__, 0};
#include "obs/metrics.def"
#undef METRIC
#undef HISTOGRAM

const struct metric metrics[METRICS] = {
#define METRIC(id, name, type, unit, labels, help)                                                 \
    [METRIC_ID_##id] = {name, METRIC_##type, unit, labels, help, NULL},
#define HISTOGRAM(id, name, unit, labels, help, ...)                                               \
    [METRIC_ID_##id] = {name, METRIC_HISTOGRAM, unit, labels, help, LE_##id},
#include "obs/metrics.def"
#undef METRIC_GROUP
#undef METRIC
#undef HISTOGRAM
};

unsigned metric_seconds(char out[METRIC_SECONDS_BYTES], int64_t ns, bool point)
{
    uint64_t whole = (uint64_t)(ns < 0 ? 0 : ns), part = whole % 1000000000;
    whole /= 1000000000;
    char digits[20];
    unsigned n = 0, k = 0;
    do {
        digits[k++] = (char)('0' + whole % 10);
        whole /= 10;
    } while (whole);
    while (k)
        out[n++] = digits[--k];
    if (!part && !point)
        return n;
    out[n++] = '.';
    for (uint64_t unit = 100000000; part; unit /= 10) {
        out[n++] = (char)('0' + part / unit);
        part %= unit;
    }
    if (out[n - 1] == '.')
        out[n++] = '0';
    return n;
}

/* ---- the reference ---- */

static const char *const TYPES[] = {"counter", "gauge", "info", "histogram"};

static void heading(FILE *out, const char *text)
{
    fprintf(out, "\n## %s\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
            text);
}

static void bounds(FILE *out, const int64_t *le)
{
    fputs(". Bounds:", out);
    for (; *le; le++) {
        char text[METRIC_SECONDS_BYTES];
        unsigned n = metric_seconds(text, *le, false);
        fprintf(out, " %.*s", (int)n, text);
    }
    fputs(" s", out);
}

static void row(FILE *out, const struct metric *m)
{
    fprintf(out, "| `%s` | %s | ", m->name, TYPES[m->type]);
    for (const char *label = m->labels; *label;) {
        size_t n = strcspn(label, ",");
        fprintf(out, "%s`%.*s`", label == m->labels ? "" : ", ", (int)n, label);
        label += label[n] ? n + 1 : n;
    }
    fprintf(out, " | %s", m->help);
    if (m->le)
        bounds(out, m->le);
    fputs(" |\n", out);
}

static const char BEGIN[] =
    "# Metrics\n\n"
    "<!-- Written by `weir --dump-reference metrics` from src/obs/metrics.def. -->\n\n"
    "What `/metrics` of the [admin listener](../see.md) shows: Prometheus text 0.0.4, and "
    "OpenMetrics 1.0 where "
    "it is\nasked for. Durations are seconds, sizes are bytes. Counters and histograms are sums "
    "over all workers; "
    "they lose nothing\nwhen a worker ends, and begin anew when the server does. `worker` is the "
    "number of a place for a "
    "worker, which later\nones take again.\n\n"
    "A histogram has `_bucket`, `_sum` and `_count`. A series of a route appears with the route's "
    "first "
    "request, one of a status\nor a reason of refusal with the first of its kind.\n\n"
    "**How many series.** No label holds anything that a request brought. `route` is a name of "
    "`weir.yaml`, "
    "`*` (no route\nof the file is about it) or `/-/` (the server's own answers): at most 160 in "
    "the life of a "
    "server; what comes later\ncounts as `*`. `status` is one of 64. So a route has at most 46 "
    "series of "
    "histograms, 5 of places, 64 of statuses and\n14 of each kind of refusal; in practice about "
    "55. A worker "
    "has 11.\n";

static const char WORDS[] = "\n## Words\n\nThe same as in the logs, on the status page and in "
                            "[/status.json](status-json.md).\n\n"
                            "`reason` of a refusal: [Refusals](../refusals.md). `state` of a "
                            "worker: `booting`, `ready`, `draining`, "
                            "`dead` (ended, and not\nyet replaced).\n";

void metric_reference(FILE *out)
{
    fputs(BEGIN, out);
#define METRIC_GROUP(text) heading(out, text);
#define METRIC(id, name, type, unit, labels, help) row(out, &metrics[METRIC_ID_##id]);
#define HISTOGRAM(id, name, unit, labels, help, ...) row(out, &metrics[METRIC_ID_##id]);
#include "obs/metrics.def"
#undef METRIC_GROUP
#undef METRIC
#undef HISTOGRAM
    fputs(WORDS, out);
    fputs("\n| `state` of a request | it waits for |\n| --- | --- |\n", out);
#define FLIGHT_STATE(id, word, help) fprintf(out, "| `%s` | %s |\n", word, help);
#include "obs/flight_states.def"
#undef FLIGHT_STATE
    fputs("\n| `reason` of a connection's end | |\n| --- | --- |\n", out);
#define CLOSE_REASON(id, word, quiet, help) fprintf(out, "| `%s` | %s |\n", word, help);
#include "obs/close_reasons.def"
#undef CLOSE_REASON
    fputs("\n| `reason` of a replacement | |\n| --- | --- |\n", out);
#define RECYCLE_REASON(id, word, text) fprintf(out, "| `%s` | %s |\n", word, text);
#include "obs/recycle_reasons.def"
#undef RECYCLE_REASON
}
