/*
 * policy_private: the keys of policy_keys.def, and what the policy_*.c share.
 *
 * policy_yaml.c, policy_who.c and policy_routes.c read, policy_value.c makes texts to values,
 * policy_check.c looks at what must be true of several keys together, policy_print.c writes YAML
 * and the reference.
 *
 * Owner:   rows are constants; everything else lives in the conf's arena.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_POLICY_PRIVATE_H
#define WEIR_CONF_POLICY_PRIVATE_H

#include "conf/conf_private.h"

/* The mapping in which a key stands. */
enum policy_where {
    WHERE_FILE = 0, /* the file itself */
    WHERE_IDENTIFY, /* an item of identify */
    WHERE_JWT,
    WHERE_API_KEY,
    WHERE_TIERS,
    WHERE_CORS,
    WHERE_ROUTE, /* an item of routes */
    WHERE_QUEUE,
    WHERE_RATE,
    WHERES
};

#define POLICY_KEY(where, id, takes, def, help, example) POLICY_##where##_##id,
enum policy_key_id {
#include "conf/policy_keys.def"
    POLICY_KEYS
};
#undef POLICY_KEY

struct policy_key {
    enum policy_where where;
    const char *name;        /* with underscores */
    const char *takes, *def; /* for the reference; def "" = none */
    const char *help, *example;
};
extern const struct policy_key policy_keys[POLICY_KEYS];

/* "jwt", …: for messages. "" for the file itself. */
extern const char *const policy_where_names[WHERES];

/* The key of a name written with dashes or underscores; NULL = unknown. */
const struct policy_key *policy_key_find(enum policy_where where, const char *name);
void policy_nearest(struct conf_nearest *near, enum policy_where where);

/* Where things stand that can be judged only when the whole file is read; 0 = nowhere. */
struct policy_lines {
    size_t file[POLICY_KEYS]; /* keys of the file itself */
    size_t tiers_from;
    struct policy_route_lines {
        size_t require, quota, user_rate;
        size_t tier; /* the first tier that is named */
        const char *tier_name;
    } routes[POLICY_ROUTES_MAX];
};

struct reader;

/* ---- policy_yaml.c ---- */
/* What stands in place of all that was not given. */
extern const struct conf_policy policy_none;
/* A key of the file and its value; the present event is the key. */
WEIR_MUST_USE int policy_take(struct reader *r, const struct policy_key *key);

/* ---- policy_check.c ---- */
/* Everything is read: does it fit together? */
WEIR_MUST_USE int policy_end(struct reader *r);
/* Together with settings, which stand for what routes leave out; a step of conf_finish. */
WEIR_MUST_USE int policy_check(struct conf *c, struct err *e);

/* ---- policy_value.c: texts to values. Errors are sentences without a place. ---- */
/* "10/min", "10/min burst 3"; all but by and tier of *out. */
WEIR_MUST_USE int policy_value_rate(const char *text, struct policy_rate *out, struct err *e);
/* "0", "20/day", "200/day and 2000/month", "unlimited"; all but the tier of *out. */
WEIR_MUST_USE int policy_value_quota(const char *text, struct policy_quota *out, struct err *e);
/* "/x", "POST /x", "GET|POST /x": appended to `out`, of which *n are in use. */
WEIR_MUST_USE int policy_value_match(struct conf *c, const char *text, struct policy_match *out,
                                     unsigned *n, struct err *e);
/* An origin as browsers send it, or one with a star. */
WEIR_MUST_USE int policy_value_origin(const char *text, struct err *e);
/* "app_metadata.tier" of "jwt.app_metadata.tier". */
WEIR_MUST_USE int policy_value_tier_from(const char *text, const char **out, struct err *e);
WEIR_MUST_USE int policy_value_tier(const char *text, struct err *e);
WEIR_MUST_USE int policy_value_jwks(const char *text, struct err *e);
/* A name of a field, a method or a cookie (RFC 9110 §5.6.2). */
bool policy_is_token(struct slice s);
bool policy_jwks_is_url(const char *jwks);

#endif
