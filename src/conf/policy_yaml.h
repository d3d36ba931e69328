/*
 * policy_yaml: what the readers of the policy's keys share.
 *
 * Values are read from the present event on; the reader is left at their last one. All complain
 * with the line, and under the name that is handed to them.
 */
#ifndef WEIR_CONF_POLICY_YAML_H
#define WEIR_CONF_POLICY_YAML_H

#include "conf/reader.h"

extern const struct policy_cors policy_cors_none;

/* Reads the value of `key`; the present event is its first, and no null. */
typedef int policy_take_fn(struct reader *r, enum policy_key_id key, void *arg);
/* The present event is the mapping's start. lines[key] (POLICY_KEYS, zero before) says where each
 * value stands that was given. */
WEIR_MUST_USE int policy_take_mapping(struct reader *r, enum policy_where where, size_t *lines,
                                      policy_take_fn *fn, void *arg);
/* Is the present event a mapping's start? `as` is how it would be written. */
WEIR_MUST_USE int policy_expect_mapping(struct reader *r, const char *name, const char *as);

int policy_wrong_shape(struct reader *r, const char *name, const char *takes);
int policy_unknown_key(struct reader *r, enum policy_where where, const char *name);

/* A text that is not empty; NULL after a complaint. */
const char *policy_take_text(struct reader *r, const char *name);
WEIR_MUST_USE int policy_take_number(struct reader *r, const char *name, enum conf_kind kind,
                                     const char *min, const char *max, int64_t *out);
/* A time of whole seconds. */
WEIR_MUST_USE int policy_take_seconds(struct reader *r, const char *name, const char *max,
                                      int64_t *out);
WEIR_MUST_USE int policy_take_bool(struct reader *r, const char *name, bool *out);
/* Which of `words` ("a|b|c") it is, from 0. */
WEIR_MUST_USE int policy_take_choice(struct reader *r, const char *name, const char *words,
                                     unsigned *which);

/* A text, or a list of them, each given to `fn`. */
typedef int policy_item_fn(struct reader *r, const char *text, void *arg);
WEIR_MUST_USE int policy_take_texts(struct reader *r, const char *name, policy_item_fn *fn,
                                    void *arg);
/* Collects different texts: the `fn` of policy_take_texts, with a struct policy_texts. */
struct policy_texts {
    const char *name;
    const char **items; /* room for `max`; the caller's */
    unsigned n, max;
};
int policy_add_text(struct reader *r, const char *text, void *arg);

/* A copy of `n` objects in the arena; NULL and an error when memory is exhausted, "" for none. */
const void *policy_keep(struct reader *r, const void *items, size_t n, size_t size);

/* ---- policy_who.c, policy_routes.c: values of the file's keys ---- */
WEIR_MUST_USE int policy_take_identify(struct reader *r);
WEIR_MUST_USE int policy_take_tiers(struct reader *r);
WEIR_MUST_USE int policy_take_tier(struct reader *r, const char *what, const char **out);
WEIR_MUST_USE int policy_take_cors(struct reader *r, struct policy_cors *cors);
WEIR_MUST_USE int policy_take_routes(struct reader *r);

#endif
