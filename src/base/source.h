/*
 * source: lines of source files, for who shows a stack.
 *
 * Files are read once and kept until the end, as far as they fit. Only regular files are read, none
 * of more than SOURCE_FILE_BYTES_MAX; what a disk or a network does not give is waited for.
 *
 * Owner:   new makes; free gives back, and with it all lines.
 * Threads: one a struct.
 */
#ifndef WEIR_BASE_SOURCE_H
#define WEIR_BASE_SOURCE_H

#include "base/attr.h"
#include "base/slice.h"

#define SOURCE_FILE_BYTES_MAX ((size_t)4 * 1024 * 1024)
/* All files that are kept; when more would be, all are read anew. */
#define SOURCE_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define SOURCE_FILES_MAX 64
/* What is shown of a line. */
#define SOURCE_LINE_BYTES_MAX 160

struct source;

WEIR_MUST_USE struct source *source_new(void); /* NULL: no memory */
void source_free(struct source **s);

/* Line `number` (from 1) of a file, without blanks around it, cut at a character of UTF-8; empty
 * where there is none. Lent until the next call. */
struct slice source_line(struct source *s, const char *path, int number);

#endif
