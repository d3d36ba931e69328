/*
 * file: a small file that the start reads whole: settings, a secret, a set of keys.
 *
 * Owner:   the caller frees the text.
 * Errors:  -1 and one sentence that begins with `source` and names the path.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_FILE_H
#define WEIR_CONF_FILE_H

#include <stddef.h>

#include "base/attr.h"
#include "base/err.h"

/* Names, settings and secrets, not data: what is larger was named by mistake. */
#define CONF_FILE_BYTES_MAX ((size_t)1024 * 1024)

/* Read the file at `path`; of one larger than CONF_FILE_BYTES_MAX one byte more than that. *text is
 * NULL after an error. */
WEIR_MUST_USE int conf_file_read(const char *source, const char *path, char **text, size_t *n,
                                 struct err *e);

#endif
