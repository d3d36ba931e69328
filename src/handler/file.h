/*
 * file: a folder's files as answers, on the loop and without the application.
 *
 * GET and HEAD of regular files below one folder: validators, one range, precompressed neighbours
 * (FILE.br, FILE.gz), index.html for a folder. Never outside the folder: the kernel resolves the
 * path below it (openat2 with RESOLVE_BENEATH), so a symbolic link that stays inside is followed
 * and one that leads out is not there; on kernels without openat2 no link is followed at all.
 *
 * Blocking: opening and reading wait for the disk where the page cache has not what is asked for,
 * and the loop with them.
 * Owner:    the root is the caller's and outlives the call.
 * Threads:  one call at a time per call; a root is read-only.
 * Source:   RFC 9110 §13 (conditions), §14 (ranges), §15.4.5, §15.5.17; RFC 9111 §5.2.
 */
#ifndef WEIR_HANDLER_FILE_H
#define WEIR_HANDLER_FILE_H

#include "base/err.h"
#include "handler/handler.h"

struct file_root {
    char *folder; /* owned; absolute. Opened by name for each request: it may be replaced while we
                     run */
    char cache_control[48]; /* "no-cache", or "public, max-age=…" */
    bool stepwise;          /* this kernel has no openat2 */
};

/* Look at the folder now (relative to the current one). `max_age_s` 0: clients ask each time.
 * Errors begin with `source`. */
WEIR_MUST_USE int file_root_init(struct file_root *root, const char *folder, int64_t max_age_s,
                                 const char *source, struct err *e);
void file_root_fini(struct file_root *root);

/* Answer completely. `rest` is the path behind the prefix, still percent-encoded: "" or "/…". */
void file_answer(struct call *c, const struct file_root *root, struct slice rest);

#endif
