/*
 * reply: the shape of every response (the functions of handler.h), and the Server field.
 *
 * Threads: a reply_ident is made once and read by many; the rest as handler.h says.
 */
#ifndef WEIR_HANDLER_REPLY_H
#define WEIR_HANDLER_REPLY_H

#include "base/slice.h"

/* The largest head that a handler may build: status line and fields. */
#define REPLY_HEAD_BYTES_MAX (64 * 1024)

#define REPLY_IDENT_BYTES_MAX 200

/* The Server field of a server's responses. */
struct reply_ident {
    char line[REPLY_IDENT_BYTES_MAX + 16]; /* "Server: …" with its line end */
    size_t n;                              /* 0: no such field */
};

/* `text` is what Server says; "" or NULL: no such field. One that is not a valid field value, or longer than
 * REPLY_IDENT_BYTES_MAX, counts as "". */
void reply_ident_set(struct reply_ident *out, const char *text);

/* An HTTP date (RFC 9110 §5.6.7) of the present second; exactly 29 bytes, no NUL. */
#define REPLY_DATE_BYTES 29
void reply_date(char out[REPLY_DATE_BYTES]);

#endif
