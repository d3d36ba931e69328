/* must: the one place where a broken invariant ends the process. */
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

void must_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "weir: invariant broken: %s (%s:%d); this is a bug of Weir\n", what, file,
            line);
    fflush(stderr);
    abort();
}
