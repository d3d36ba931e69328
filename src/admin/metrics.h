/*
 * metrics: all figures as Prometheus text. Families, names, types, units and helps are in
 * obs/metrics.def, from which docs/reference/metrics.md is generated, too.
 *
 * Source:  Prometheus text format 0.0.4; OpenMetrics 1.0.
 * Threads: any; reads shared memory, and /proc of the workers.
 */
#ifndef WEIR_ADMIN_METRICS_H
#define WEIR_ADMIN_METRICS_H

#include <stdio.h>

#include "admin/view.h"
#include "base/buf.h"

enum metrics_format { METRICS_TEXT = 0 /* 0.0.4 */, METRICS_OPENMETRICS };

/* By the client's Accept field ("" = none). */
enum metrics_format metrics_format_of(struct slice accept);
const char *metrics_content_type(enum metrics_format f);

/* Append the whole page. 0 or -ENOMEM. */
WEIR_MUST_USE int metrics_write(struct buf *out, const struct admin_view *v, enum metrics_format f);

#endif
