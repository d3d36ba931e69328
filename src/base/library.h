/*
 * library: a part of Weir that is a shared object of its own, loaded when it is needed
 * (docs/decisions/0005). It stands in the folder of the file that this code is in, and offers one
 * table of functions, whose first member is a struct library_head.
 *
 * Owner:   a library stays loaded for the life of the process.
 * Threads: one at a time; the callers load before the loop runs.
 */
#ifndef WEIR_BASE_LIBRARY_H
#define WEIR_BASE_LIBRARY_H

#include <stddef.h>

#include "base/attr.h"
#include "base/err.h"

/* What tells a table of this build from one of another. */
struct library_head {
    const char *version; /* of Weir */
    size_t bytes;        /* size of the largest struct that both sides share */
};

struct library {
    const char *what;         /* begins the sentence of an error: "TLS" */
    const char *file;         /* "_tls.so" */
    const char *symbol;       /* the name of the table */
    const char *cure;         /* "install …" */
    struct library_head head; /* what the table has to begin with */
};

/* The table of the library at `path`, or beside this code with NULL. -1 and a sentence: it cannot
 * be loaded, or belongs to another build. */
WEIR_MUST_USE int library_load(const void **table, const struct library *l, const char *path,
                               struct err *e);

#endif
