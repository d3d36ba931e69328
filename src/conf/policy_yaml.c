/*
 * policy_yaml: identify, tiers, cors and routes of weir.yaml into struct conf_policy.
 *
 * One function reads any mapping by the table of keys; for each key it calls the function of that
 * mapping with the value's first event. This file has that and the scalars; policy_who.c and
 * policy_routes.c have the keys. Lists are made on the stack, where their bounds are known, and
 * copied into the arena when they are complete.
 */
#include "conf/policy_yaml.h"

#include <string.h>

#define POLICY_KEY(where, id, takes, def, help, example)                                           \
    {WHERE_##where, #id, takes, def, help, example},
const struct policy_key policy_keys[POLICY_KEYS] = {
#include "conf/policy_keys.def"
};
#undef POLICY_KEY

const char *const policy_where_names[WHERES] = {
    [WHERE_FILE] = "",           [WHERE_IDENTIFY] = "identify", [WHERE_JWT] = "jwt",
    [WHERE_API_KEY] = "api_key", [WHERE_TIERS] = "tiers",       [WHERE_CORS] = "cors",
    [WHERE_ROUTE] = "routes",    [WHERE_QUEUE] = "queue",       [WHERE_RATE] = "rate",
};

#define CORS_NONE                                                                                  \
    {                                                                                              \
        .methods = "GET, HEAD, POST, PUT, PATCH, DELETE", .headers = "", .expose = "",             \
        .max_age_s = 600                                                                           \
    }
const struct conf_policy policy_none = {
    .tier_from = "", .tier_default = "", .file = "", .cors = CORS_NONE};
const struct policy_cors policy_cors_none = CORS_NONE;

const struct policy_key *policy_key_find(enum policy_where where, const char *name)
{
    for (unsigned i = 0; i < POLICY_KEYS; i++)
        if (policy_keys[i].where == where && conf_name_eq(policy_keys[i].name, name))
            return &policy_keys[i];
    return NULL;
}

void policy_nearest(struct conf_nearest *near, enum policy_where where)
{
    for (unsigned i = 0; i < POLICY_KEYS; i++)
        if (policy_keys[i].where == where)
            conf_nearest_try(near, policy_keys[i].name);
}

/* ---- mappings ---- */

int policy_unknown_key(struct reader *r, enum policy_where where, const char *name)
{
    struct conf_nearest near = {.wanted = name};
    policy_nearest(&near, where);
    if (near.best)
        return reader_complain(r, reader_line(r), "%s: '%.80s' is unknown; did you mean %s?",
                               policy_where_names[where], name, near.best);
    char names[300] = "";
    size_t at = 0;
    for (unsigned i = 0; i < POLICY_KEYS; i++)
        if (policy_keys[i].where == where)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "",
                                   policy_keys[i].name);
    return reader_complain(r, reader_line(r), "%s: '%.80s' is unknown; it has %s",
                           policy_where_names[where], name, names);
}

int policy_wrong_shape(struct reader *r, const char *name, const char *takes)
{
    const char *is = r->ev.type == YAML_MAPPING_START_EVENT    ? ", not a mapping"
                     : r->ev.type == YAML_SEQUENCE_START_EVENT ? ", not a list"
                                                               : "";
    return reader_complain(r, reader_line(r), "%s takes %s%s", name, takes, is);
}

/* A name inside a mapping. */
static char *take_name(struct reader *r, const char *what)
{
    if (reader_is_scalar(r))
        return reader_text(r, what);
    reader_complain(r, reader_line(r), "%s: a name is missing; write NAME: VALUE", what);
    return NULL;
}

/* The present event is the mapping's start. lines[key] (POLICY_KEYS, zero before) says where each
 * value stands that was given. */
int policy_take_mapping(struct reader *r, enum policy_where where, size_t *lines,
                        policy_take_fn *fn, void *arg)
{
    size_t seen[POLICY_KEYS] = {0};
    if (reader_next(r))
        return -1;
    while (r->ev.type != YAML_MAPPING_END_EVENT) {
        char *name = take_name(r, policy_where_names[where]);
        if (!name)
            return -1;
        const struct policy_key *key = policy_key_find(where, name);
        if (!key)
            return policy_unknown_key(r, where, name);
        size_t k = (size_t)(key - policy_keys), line = reader_line(r);
        if (seen[k])
            return reader_complain(r, line, "%s: %s is given twice; the first is in line %zu",
                                   policy_where_names[where], key->name, seen[k]);
        seen[k] = line;
        if (reader_next(r))
            return -1;
        if (!reader_is_null(r)) {
            lines[k] = line;
            if (fn(r, (enum policy_key_id)k, arg))
                return -1;
        }
        if (reader_next(r))
            return -1;
    }
    return 0;
}

int policy_expect_mapping(struct reader *r, const char *name, const char *as)
{
    char takes[120];
    if (r->ev.type == YAML_MAPPING_START_EVENT)
        return 0;
    snprintf(takes, sizeof takes, "a mapping, as %s", as);
    return policy_wrong_shape(r, name, takes);
}

/* A copy of `n` objects in the arena; NULL and an error when memory is exhausted, "" for none. */
const void *policy_keep(struct reader *r, const void *items, size_t n, size_t size)
{
    return conf_copy(r->c, items, n * size, r->e);
}

/* ---- scalars ---- */

/* A text that is not empty. */
const char *policy_take_text(struct reader *r, const char *name)
{
    if (!reader_is_scalar(r) || reader_is_null(r)) {
        policy_wrong_shape(r, name, "one text");
        return NULL;
    }
    if (reader_is_bool(r)) {
        reader_complain(
            r, reader_line(r),
            "%s takes a text, not yes or no; leave it out, or put %.5s in quotes if that "
            "is the text",
            name, reader_scalar(r).p);
        return NULL;
    }
    const char *text = reader_text(r, name);
    if (text && !*text) {
        reader_complain(r, reader_line(r), "%s is empty; give a text, or leave it out", name);
        return NULL;
    }
    return text;
}

int policy_take_number(struct reader *r, const char *name, enum conf_kind kind, const char *min,
                       const char *max, int64_t *out)
{
    struct err why = {{0}};
    if (!reader_is_scalar(r))
        return policy_wrong_shape(r, name, "one value");
    const char *text = reader_text(r, name);
    if (!text)
        return -1;
    return conf_value_number(kind, text, min, max, name, out, &why)
               ? reader_complain(r, reader_line(r), "%s", why.text)
               : 0;
}

/* A time of whole seconds. */
int policy_take_seconds(struct reader *r, const char *name, const char *max, int64_t *out)
{
    int64_t ms = 0;
    if (policy_take_number(r, name, KIND_TIME, "0", max, &ms))
        return -1;
    *out = ms / 1000;
    return ms % 1000 == 0 ? 0
                          : reader_complain(r, reader_line(r),
                                            "%s: the time has whole seconds only; round it", name);
}

int policy_take_bool(struct reader *r, const char *name, bool *out)
{
    struct err why = {{0}};
    if (!reader_is_scalar(r))
        return policy_wrong_shape(r, name, "yes or no");
    const char *text = reader_text(r, name);
    if (!text)
        return -1;
    return conf_value_bool(text, name, out, &why)
               ? reader_complain(r, reader_line(r), "%s", why.text)
               : 0;
}

/* Which of `words` ("a|b|c") it is. */
int policy_take_choice(struct reader *r, const char *name, const char *words, unsigned *which)
{
    struct err why = {{0}};
    const char *word;
    if (!reader_is_scalar(r))
        return policy_wrong_shape(r, name, "one value");
    const char *text = reader_text(r, name);
    if (!text)
        return -1;
    if (conf_value_choice(r->c, text, words, name, &word, &why))
        return reader_complain(r, reader_line(r), "%s", why.text);
    *which = 0;
    for (const char *w = words;
         strncmp(w, word, strlen(word)) != 0 || (w[strlen(word)] && w[strlen(word)] != '|');
         w += strcspn(w, "|") + 1)
        ++*which;
    return 0;
}

/* A text, or a list of them, each given to `fn`. */
int policy_take_texts(struct reader *r, const char *name, policy_item_fn *fn, void *arg)
{
    if (r->ev.type == YAML_MAPPING_START_EVENT)
        return policy_wrong_shape(r, name, "a text or a list of texts");
    bool list = r->ev.type == YAML_SEQUENCE_START_EVENT;
    if (list && reader_next(r))
        return -1;
    while (r->ev.type != YAML_SEQUENCE_END_EVENT) {
        const char *text = policy_take_text(r, name);
        if (!text || fn(r, text, arg))
            return -1;
        if (!list)
            return 0;
        if (reader_next(r))
            return -1;
    }
    return 0;
}

int policy_add_text(struct reader *r, const char *text, void *arg)
{
    struct policy_texts *t = arg;
    for (unsigned i = 0; i < t->n; i++)
        if (strcmp(t->items[i], text) == 0)
            return reader_complain(r, reader_line(r), "%s: '%.200s' is given twice; leave one out",
                                   t->name, text);
    if (t->n == t->max)
        return reader_complain(r, reader_line(r), "%s: more than %u", t->name, t->max);
    t->items[t->n++] = text;
    return 0;
}

/* ---- the file ---- */

int policy_take(struct reader *r, const struct policy_key *key)
{
    size_t k = (size_t)(key - policy_keys), line = reader_line(r);
    struct conf_policy *p = &r->c->policy;
    if (r->policy.file[k])
        return reader_complain(r, line, "%s is given twice; the first is in line %zu", key->name,
                               r->policy.file[k]);
    r->policy.file[k] = line;
    if (reader_next(r))
        return -1;
    if (reader_is_null(r))
        return 0;
    if (!*p->file && !(p->file = conf_copy(r->c, r->path, strlen(r->path), r->e)))
        return -1;
    if (k == POLICY_FILE_identify)
        return policy_take_identify(r);
    if (k == POLICY_FILE_tiers)
        return policy_take_tiers(r);
    if (k == POLICY_FILE_cors)
        return policy_take_cors(r, &p->cors);
    return policy_take_routes(r);
}
