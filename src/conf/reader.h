/*
 * reader: the events of a YAML file one after the other, and complaints that name file and line.
 *
 * What takes a value looks at the present event, which is the value's first, and leaves the reader
 * at the value's last; the caller goes on with reader_next.
 *
 * Owner:   the reader belongs to conf_yaml_parse; texts go into the conf's arena.
 * Errors:  -1 (NULL) and one sentence in r->e that begins with "FILE:LINE: ".
 * Threads: none inside.
 */
#ifndef WEIR_CONF_READER_H
#define WEIR_CONF_READER_H

#include <yaml.h>

#include "conf/conf_private.h"
#include "conf/policy_private.h"

struct reader {
    struct conf *c;
    const char *path; /* for messages; borrowed */
    const char *text; /* the whole file; borrowed */
    size_t n;
    yaml_parser_t parser;
    yaml_event_t ev; /* the present event; empty before the first */
    unsigned depth;
    size_t lines[CONF_ROWS]; /* where each setting stands; 0 = nowhere */
    size_t tls_line;
    unsigned tls_names; /* of all entries */
    struct policy_lines policy;
    struct err *e;
};

/* `line` from 1. */
int reader_complain(struct reader *r, size_t line, const char *fmt, ...) WEIR_PRINTF(3, 4);
/* At the line of the present event. */
int reader_complain_here(struct reader *r, const char *what);
size_t reader_line(const struct reader *r);

/* Go on to the next event, and refuse what is not data. */
WEIR_MUST_USE int reader_next(struct reader *r);

bool reader_is_scalar(const struct reader *r);
/* The present event's, which is a scalar; lent until the next one. */
struct slice reader_scalar(const struct reader *r);
/* Nothing, ~ or null: not given. */
bool reader_is_null(const struct reader *r);
/* A bare yes, no, true, …: what other readers of YAML take for a boolean. */
bool reader_is_bool(const struct reader *r);
/* The scalar as a text of the conf, without the line end of a block; NULL where it cannot be one:
 * `what` is its name in the complaint. */
char *reader_text(struct reader *r, const char *what);

#endif
