/*
 * file_ask: what a client asks of a file: which one, which part, which coding, and what it has.
 *
 * Bytes of a request in, answers out; nothing is opened here.
 *
 * Threads: pure.
 * Source:  RFC 9110 §8.8.3 (entity tags), §12.5.3 (Accept-Encoding), §14.1 and §14.2 (ranges);
 *          RFC 3986 §2.1, §3.3 (paths); RFC 8615 (.well-known).
 */
#ifndef WEIR_HANDLER_FILE_ASK_H
#define WEIR_HANDLER_FILE_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* The longest path below a folder, with its NUL; the kernel takes no longer ones. */
#define FILE_PATH_BYTES_MAX 4096

/*
 * How many bytes of `path` (percent-encoded) are the prefix; SIZE_MAX: it does not begin with it.
 * `prefix` is plain, begins with a slash and does not end with one, or is empty. Whole segments
 * only: /assets is no prefix of /assetsX.
 */
size_t file_prefix(struct slice path, struct slice prefix);

/*
 * `raw` ("" or "/sub/a%20b") decoded once, without its first slash, into out[FILE_PATH_BYTES_MAX];
 * NUL-terminated. False: there is no such file, whatever lies in the folder: a bad escape, an
 * encoded slash, NUL or another control character, a backslash, an empty segment, one that begins
 * with a dot (but .well-known), or too long. A final slash stays.
 */
bool file_path(struct slice raw, char *out);

enum file_range {
    FILE_WHOLE = 0, /* no range, several, another unit, or not well-formed: the whole file is an
                       answer, too */
    FILE_PART,      /* n >= 1 bytes from `first`, inside the file */
    FILE_NO_PART,   /* nothing of it is in the file: 416 */
};

/* The value of Range for a file of `size` bytes. */
enum file_range file_range(struct slice value, uint64_t size, uint64_t *first, uint64_t *n);

/* Weights of codings, in thousandths; -1: not named. Begin with FILE_CODINGS_NONE. */
struct file_codings {
    int br, gzip, identity, any;
};
#define FILE_CODINGS_NONE ((struct file_codings){-1, -1, -1, -1})

/* Add one Accept-Encoding field. What is not well-formed counts as not there. */
void file_codings_add(struct file_codings *c, struct slice value);

/* What a coding weighs in the end: 0 = not acceptable. */
enum file_coding { FILE_IDENTITY = 0, FILE_GZIP, FILE_BR };
int file_coding_weight(const struct file_codings *c, enum file_coding coding);

/* Does an If-Match or If-None-Match field name `etag` (or say "*")? `weak`: W/ makes no difference;
 * otherwise a tag with W/ equals none (RFC 9110 §8.8.3.2). */
bool file_etag_listed(struct slice value, struct slice etag, bool weak);

#endif
