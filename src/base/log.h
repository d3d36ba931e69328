/*
 * log: lines for people, and the sinks that they and the access log go to.
 *
 * A sink never blocks the thread that writes a line: once log_start ran, a writer thread does the
 * system calls, and when it cannot keep up (a full pipe) lines are dropped and counted, and
 * the count is told in the next line that goes out. Before log_start and after log_stop lines
 * are written at once.
 *
 * Threads: every function may be called from any thread, except open, start and stop.
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

enum log_level {
    LOG_DEBUG = 0, /* for those who work on Weir */
    LOG_INFO,      /* the server's state changed */
    LOG_WARNING,   /* should be read today */
    LOG_ERROR,     /* wakes somebody */
    LOG_CRITICAL,
};

/* ---- sinks ---- */

struct log_sink;

/* Open `path` for appending ("-": the given descriptor, which stays open). *out is owned by log and lives until
 * log_sinks_close. */
WEIR_MUST_USE int log_sink_open(struct log_sink **out, const char *path, int dash_fd,
                                struct err *e);

/* Append one line (with its newline) to the sink. Dropped and counted when 1 MiB waits. */
void log_sink_write(struct log_sink *s, struct slice line);

/* Open all files again under their names (after rotation). 0, or -1 with the first failure; the old file stays in use then. */
WEIR_MUST_USE int log_reopen(struct err *e);

/* Start and stop the writer thread; stop waits (bounded: 1 s) until all lines are out. */
WEIR_MUST_USE int log_start(struct err *e);
void log_stop(void);

/* ---- the error log ---- */

/* Where log_line goes; NULL = standard error. `json`: one object a line. */
void log_setup(struct log_sink *sink, enum log_level least, bool json);
bool log_wants(enum log_level level);

/* One line. `request` 0 = not about a request. A text with newlines stays one entry; in JSON they are escaped. */
void log_line(enum log_level level, uint64_t request, const char *fmt, ...) WEIR_PRINTF(3, 4);
void log_text(enum log_level level, uint64_t request, struct slice text);

/* At most LOG_FLOOD_LINES a second per place in the source; what is left out is counted and told. */
#define LOG_FLOOD_LINES 10
struct log_site {
    _Atomic int64_t second;   /* monotonic second of the window */
    _Atomic unsigned written; /* lines in it */
    _Atomic unsigned left_out;
};
/* May a line of this place be written now? *more = lines left out since the last one. */
bool log_site_pass(struct log_site *site, unsigned *more);

#define log_flood(level, request, fmt, ...)                                                        \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        unsigned log_more_;                                                                        \
        if (log_wants(level) && log_site_pass(&log_site_, &log_more_)) {                           \
            log_line(level, request, fmt, __VA_ARGS__);                                            \
            if (log_more_)                                                                         \
                log_line(level, 0, "%u more lines like this one were left out", log_more_);        \
        }                                                                                          \
    } while (0)

#endif
