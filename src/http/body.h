/*
 * body: the content of one request, in memory while small, in an unlinked file above.
 *
 * Owner:   the exchange. Threads: the leader appends; once `complete` it is read-only and any
 *          thread may read. While incomplete, readers go through call_body_read.
 */
#ifndef WEIR_HTTP_BODY_H
#define WEIR_HTTP_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct body {
    struct buf mem;    /* all bytes while fd < 0; empty afterwards */
    int fd;            /* the unlinked file, or -1 */
    uint64_t size;     /* bytes received so far */
    bool complete;     /* all of it is here */
};

#endif
