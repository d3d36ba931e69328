/*
 * log: lines for people, and the sinks that they and the access log go to.
 *
 * A sink never blocks the thread that writes a line: once log_start ran, a writer thread does the
 * system calls. When it cannot keep up (a full pipe) lines are dropped and counted, and the
 * count is told in the error log, at most once a second per sink. Before log_start and after
 * log_stop lines are written at once, and a sink that takes nothing for LOG_STOP_MS is given up
 * until it takes something again.
 *
 * The writer wakes for the first line and then every LOG_GATHER_MS while lines come: under load
 * one system call carries many lines, and an idle server sleeps.
 *
 * Threads: log_line, log_text, log_flood, log_sink_write and log_wants from any thread; a sink
 *          given to log_sink_write stays open meanwhile. open, close, reopen, start, stop
 *          and setup exclude each other, so they too may come from any thread, but not from a
 *          signal handler.
 * fork:    the child writes at once, has no writer thread until its own log_start, and drops what
 *          waited in the parent, which will write it.
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

/* How long close and stop wait for a sink that takes nothing. */
#define LOG_STOP_MS 1000
/* How long a line may wait for others to share its system call. */
#define LOG_GATHER_MS 10

/* ---- sinks ---- */

struct log_sink;

/* Open `path` for appending ("-": the given descriptor, which stays open and the caller's). *out is
 * owned: log_sink_close. */
WEIR_MUST_USE int log_sink_open(struct log_sink **out, const char *path, int dash_fd,
                                struct err *e);

/* Append one line (with its newline) to the sink. Dropped and counted when 1 MiB waits. */
void log_sink_write(struct log_sink *s, struct slice line);

/* Write out what waits (at most LOG_STOP_MS), close the file, set *s to NULL. NULL in *s is
 * allowed. The error log goes back to standard error if this was its sink. */
void log_sink_close(struct log_sink **s);

/* Open all files again under their names (after rotation). 0, or -1 with the first failure; the
 * old file stays in use then. */
WEIR_MUST_USE int log_reopen(struct err *e);

/* What the lent descriptors of "-" point to has changed (a daemon leaves its terminal): use what is
 * there now. */
void log_lent_changed(void);

/* From now on standard output and standard error lead to the file of `s` (lent; NULL: stay where
 * they are), also after log_reopen and log_lent_changed. 0 or a negative errno: -EBADF when `s` has
 * no file of its own. */
WEIR_MUST_USE int log_capture(const struct log_sink *s);

/* Start and stop the writer thread; stop waits (bounded: LOG_STOP_MS) until all lines are out. Each
 * may be called again after the other. */
WEIR_MUST_USE int log_start(struct err *e);
void log_stop(void);

/* ---- the error log ---- */

/* Where log_line goes (lent until log_sink_close or the next setup); NULL = standard error. `json`:
 * one object a line. */
void log_setup(struct log_sink *sink, enum log_level least, bool json);
bool log_wants(enum log_level level);

/* Colour the level and the request's number of each entry, and nothing else; never in JSON. Off at
 * first. */
void log_color(bool on);
/* What `setting` ("auto", "always", "never") means for entries that go to `fd` (-1: to a file):
 * auto is a terminal, unless NO_COLOR is set or TERM says dumb. */
bool log_color_wanted(const char *setting, int fd);

/* One entry. `request` 0 = not about a request. A text of several lines stays one entry: further
 * lines begin with two spaces, in JSON they are escaped. Control characters are escaped, so
 * no text can pass for another entry. */
void log_line(enum log_level level, uint64_t request, const char *fmt, ...) WEIR_PRINTF(3, 4);
/* The same for a text of any length; cut behind LOG_TEXT_BYTES_MAX. */
#define LOG_TEXT_BYTES_MAX ((size_t)64 * 1024)
void log_text(enum log_level level, uint64_t request, struct slice text);

/* At most LOG_FLOOD_LINES a second per place in the source; what is left out is counted and told
 * with the first line of a later second. */
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
