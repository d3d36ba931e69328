/*
 * err: one sentence for a human: what is wrong, where, and the cure.
 *
 * Owner: the caller; nothing to free. A longer text is cut.
 */
#ifndef WEIR_BASE_ERR_H
#define WEIR_BASE_ERR_H

#include "base/attr.h"

struct err {
    char text[1024]; /* NUL-terminated; "" = no error */
};

/* Write the sentence (e may be NULL) and return -1, so that `return err_set(…)` reads well. */
int err_set(struct err *e, const char *fmt, ...) WEIR_PRINTF(2, 3);

#endif
