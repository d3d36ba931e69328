/*
 * mime: the Content-Type of a file by the end of its name.
 *
 * Threads: pure.
 * Source:  the IANA registry of media types; RFC 9239 (JavaScript).
 */
#ifndef WEIR_HANDLER_MIME_H
#define WEIR_HANDLER_MIME_H

#include <stdbool.h>

#include "base/slice.h"

struct mime_type {
    struct slice text; /* "text/html; charset=utf-8" */
    bool dense;        /* compressed by its own format: no .br or .gz is looked for */
};

/* By the last extension of `path`, without regard to case; application/octet-stream where it is
 * unknown. */
struct mime_type mime_of(struct slice path);

#endif
