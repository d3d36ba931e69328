/*
 * reply: the shape of every response (the functions of handler.h), and the Server field.
 *
 * Threads: handler_init once, before the first call; the rest as handler.h says.
 */
#ifndef WEIR_HANDLER_REPLY_H
#define WEIR_HANDLER_REPLY_H

#include "base/slice.h"

/* The largest head that a handler may build: status line and fields. */
#define REPLY_HEAD_BYTES_MAX (64 * 1024)

/* What Server says; "" or NULL: no such field. A text that is not a valid field value, or longer
 * than 200 bytes, counts as "". */
void handler_init(const char *ident);

/* An HTTP date (RFC 9110 §5.6.7) of the present second; exactly 29 bytes, no NUL. */
#define REPLY_DATE_BYTES 29
void reply_date(char out[REPLY_DATE_BYTES]);

#endif
