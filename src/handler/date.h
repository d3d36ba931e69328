/*
 * date: the dates of HTTP, as texts and as seconds.
 *
 * Units:   seconds since 1970, UTC, without leap seconds.
 * Threads: pure.
 * Source:  RFC 9110 §5.6.7.
 */
#ifndef WEIR_HANDLER_DATE_H
#define WEIR_HANDLER_DATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define DATE_BYTES 29

/* Exactly DATE_BYTES bytes, no NUL. A second outside the years 1 to 9999 becomes 1970. */
void date_format(int64_t second, char *out);

/* All three forms that a recipient must know: that of date_format, of RFC 850 (its two digits are
 * the year nearest below 50 years after `now`) and of asctime. The name of the day is not compared
 * with the date. */
bool date_parse(struct slice s, int64_t now, int64_t *second);

#endif
