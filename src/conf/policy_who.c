/* policy_who: identify, tiers and cors: who asks, and from which pages. */
#include "conf/policy_yaml.h"

#include <string.h>

/* ---- identify ---- */

static int add_algorithm(struct reader *r, const char *text, void *arg)
{
    static const struct {
        const char *name;
        enum policy_alg alg;
    } known[] = {{"HS256", ALG_HS256}, {"RS256", ALG_RS256}, {"ES256", ALG_ES256}};
    struct policy_identifier *id = arg;
    for (size_t i = 0; i < countof(known); i++)
        if (slice_ieq(slice_str(text), slice_str(known[i].name))) {
            id->algorithms |= known[i].alg;
            return 0;
        }
    return reader_complain(r, reader_line(r),
                           "algorithms: '%.80s' is not supported; give HS256, RS256 or ES256",
                           text);
}

static int take_token(struct reader *r, const char *name, const char **out)
{
    if (!(*out = policy_take_text(r, name)))
        return -1;
    return policy_is_token(slice_str(*out)) && strlen(*out) <= 128
               ? 0
               : reader_complain(r, reader_line(r),
                                 "%s: '%.128s' holds a byte that such a name cannot have; give "
                                 "letters, digits and -",
                                 name, *out);
}

static int take_jwt_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct policy_identifier *id = arg;
    const char *name = policy_keys[key].name;
    struct err why = {{0}};
    if (key == POLICY_JWT_secret_file)
        return (id->secret_file = policy_take_text(r, name)) ? 0 : -1;
    if (key == POLICY_JWT_issuer)
        return (id->issuer = policy_take_text(r, name)) ? 0 : -1;
    if (key == POLICY_JWT_user_claim)
        return (id->user_claim = policy_take_text(r, name)) ? 0 : -1;
    if (key == POLICY_JWT_cookie)
        return take_token(r, name, &id->cookie);
    if (key == POLICY_JWT_leeway)
        return policy_take_seconds(r, name, "1h", &id->leeway_s);
    if (key == POLICY_JWT_algorithms) {
        id->algorithms = 0;
        if (policy_take_texts(r, name, add_algorithm, id))
            return -1;
        return id->algorithms ? 0 : reader_complain_here(r, "algorithms: the list is empty");
    }
    if (key == POLICY_JWT_audience) {
        const char *items[POLICY_AUDIENCES_MAX];
        struct policy_texts t = {.name = name, .items = items, .max = countof(items)};
        if (policy_take_texts(r, name, policy_add_text, &t))
            return -1;
        id->n_audiences = t.n;
        return (id->audiences = policy_keep(r, items, t.n, sizeof *items)) ? 0 : -1;
    }
    if (!(id->jwks = policy_take_text(r, name)))
        return -1;
    return policy_value_jwks(id->jwks, &why)
               ? reader_complain(r, reader_line(r), "%s: %s", name, why.text)
               : 0;
}

static int take_jwt(struct reader *r, struct policy_identifier *id)
{
    size_t lines[POLICY_KEYS] = {0}, begun = reader_line(r);
    if (policy_expect_mapping(r, "jwt", "jwt: {secret_file: FILE} or jwt: {jwks: URL}") ||
        policy_take_mapping(r, WHERE_JWT, lines, take_jwt_key, id))
        return -1;
    if (!*id->secret_file && !*id->jwks)
        return reader_complain(
            r, begun, "jwt has no key; give secret_file: FILE (HS256) or jwks: URL (RS256, ES256)");
    if (*id->secret_file && *id->jwks)
        return reader_complain(
            r, lines[POLICY_JWT_jwks],
            "jwt: secret_file and jwks exclude each other; for both write two entries of identify");
    bool given = lines[POLICY_JWT_algorithms];
    if (*id->secret_file && given && id->algorithms != ALG_HS256)
        return reader_complain(
            r, lines[POLICY_JWT_algorithms],
            "jwt: a secret signs with HS256 only; leave algorithms out, or give jwks");
    if (!given)
        id->algorithms = *id->secret_file ? ALG_HS256 : ALG_HS256 | ALG_RS256 | ALG_ES256;
    return 0;
}

static int take_api_key_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct policy_identifier *id = arg;
    if (key == POLICY_API_KEY_header)
        return take_token(r, "header", &id->header);
    return (id->file = policy_take_text(r, "file")) ? 0 : -1;
}

static int no_options(struct reader *r, const char *name)
{
    /* {} is nothing, too. */
    if (r->ev.type == YAML_MAPPING_START_EVENT)
        return reader_next(r)                         ? -1
               : r->ev.type == YAML_MAPPING_END_EVENT ? 0
                                                      : reader_complain(r, reader_line(r),
                                                                        "%s takes no options; "
                                                                        "write the word alone",
                                                                        name);
    return reader_complain(r, reader_line(r), "%s takes no options; write the word alone", name);
}

static int take_options(struct reader *r, struct policy_identifier *id)
{
    size_t lines[POLICY_KEYS] = {0};
    switch (id->kind) {
    case IDENTIFY_JWT:
        return take_jwt(r, id);
    case IDENTIFY_API_KEY:
        return policy_expect_mapping(r, "api_key", "api_key: {header: NAME, file: FILE}") ||
                       policy_take_mapping(r, WHERE_API_KEY, lines, take_api_key_key, id)
                   ? -1
                   : 0;
    case IDENTIFY_BEARER:
        return no_options(r, "bearer");
    case IDENTIFY_ADDRESS:
        return no_options(r, "address");
    }
    return -1;
}

static enum policy_identify kind_of(const struct policy_key *key)
{
    return key == &policy_keys[POLICY_IDENTIFY_jwt]       ? IDENTIFY_JWT
           : key == &policy_keys[POLICY_IDENTIFY_bearer]  ? IDENTIFY_BEARER
           : key == &policy_keys[POLICY_IDENTIFY_api_key] ? IDENTIFY_API_KEY
                                                          : IDENTIFY_ADDRESS;
}

/* `word`, or a mapping of one word to its options. */
static int take_identifier(struct reader *r, struct policy_identifier *id)
{
    static const char form[] =
        "an entry is jwt, bearer, api_key or address, with its options behind "
        "a colon";
    *id = (struct policy_identifier){.line = (unsigned)reader_line(r),
                                     .secret_file = "",
                                     .jwks = "",
                                     .issuer = "",
                                     .leeway_s = 30,
                                     .user_claim = "sub",
                                     .cookie = "",
                                     .header = "X-API-Key",
                                     .file = ""};
    bool mapping = r->ev.type == YAML_MAPPING_START_EVENT;
    if (mapping && reader_next(r))
        return -1;
    if (!reader_is_scalar(r) || reader_is_null(r))
        return reader_complain(r, reader_line(r), "identify: %s", form);
    const char *name = reader_text(r, "identify");
    if (!name)
        return -1;
    const struct policy_key *key = policy_key_find(WHERE_IDENTIFY, name);
    if (!key)
        return policy_unknown_key(r, WHERE_IDENTIFY, name);
    id->kind = kind_of(key);
    if (!mapping)
        return id->kind == IDENTIFY_JWT ? take_jwt(r, id) : 0;
    if (reader_next(r))
        return -1;
    if (reader_is_null(r) ? id->kind == IDENTIFY_JWT && take_jwt(r, id) : take_options(r, id))
        return -1;
    if (reader_next(r))
        return -1;
    if (r->ev.type != YAML_MAPPING_END_EVENT)
        return reader_complain(
            r, reader_line(r),
            "identify: a second word in one entry; put it behind a dash of its own");
    return 0;
}

int policy_take_identify(struct reader *r)
{
    struct policy_identifier ids[POLICY_IDENTIFIERS_MAX];
    struct conf_policy *p = &r->c->policy;
    unsigned n = 0;
    bool list = r->ev.type == YAML_SEQUENCE_START_EVENT;
    if (list && reader_next(r))
        return -1;
    while (r->ev.type != YAML_SEQUENCE_END_EVENT) {
        size_t line = reader_line(r);
        if (n == countof(ids))
            return reader_complain(r, line, "identify: more than %d entries",
                                   POLICY_IDENTIFIERS_MAX);
        if (take_identifier(r, &ids[n]))
            return -1;
        for (unsigned i = 0; i < n; i++) {
            bool same = ids[i].kind == ids[n].kind;
            if (ids[i].kind == IDENTIFY_ADDRESS)
                return reader_complain(r, line,
                                       "identify: address is always there, so nothing behind it "
                                       "counts; put it last");
            if (ids[i].kind == IDENTIFY_BEARER && (same || ids[n].kind == IDENTIFY_JWT))
                return reader_complain(r, line,
                                       "identify: bearer takes every token, so %s behind it never "
                                       "counts; put it first",
                                       same ? "a second one" : "jwt");
            if (same && same == (ids[n].kind == IDENTIFY_API_KEY) &&
                slice_ieq(slice_str(ids[i].header), slice_str(ids[n].header)))
                return reader_complain(
                    r, line,
                    "identify: two api_key look at the field %.80s; give one another header",
                    ids[n].header);
        }
        n++;
        if (!list)
            break;
        if (reader_next(r))
            return -1;
    }
    p->n_identifiers = n;
    return (p->identifiers = policy_keep(r, ids, n, sizeof *ids)) ? 0 : -1;
}

/* ---- tiers ---- */

int policy_take_tier(struct reader *r, const char *what, const char **out)
{
    struct err why = {{0}};
    if (!(*out = policy_take_text(r, what)))
        return -1;
    return policy_value_tier(*out, &why)
               ? reader_complain(r, reader_line(r), "%s: %s", what, why.text)
               : 0;
}

static int take_tiers_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct conf_policy *p = arg;
    struct err why = {{0}};
    if (key == POLICY_TIERS_default) {
        if (policy_take_tier(r, "tiers: default", &p->tier_default))
            return -1;
        return strcmp(p->tier_default, "default") != 0
                   ? 0
                   : reader_complain_here(r,
                                          "tiers: 'default' stands for tiers that are not named, "
                                          "so no tier has this name; give another");
    }
    const char *text = policy_take_text(r, "tiers: from");
    if (!text)
        return -1;
    return policy_value_tier_from(text, &p->tier_from, &why)
               ? reader_complain(r, reader_line(r), "tiers: from: %s", why.text)
               : 0;
}

int policy_take_tiers(struct reader *r)
{
    size_t lines[POLICY_KEYS] = {0};
    if (policy_expect_mapping(r, "tiers", "tiers: {from: jwt.CLAIM, default: free}") ||
        policy_take_mapping(r, WHERE_TIERS, lines, take_tiers_key, &r->c->policy))
        return -1;
    r->policy.tiers_from = lines[POLICY_TIERS_from];
    return 0;
}

/* ---- cors ---- */

static int add_origin(struct reader *r, const char *text, void *arg)
{
    struct err why = {{0}};
    if (policy_value_origin(text, &why))
        return reader_complain(r, reader_line(r), "origins: %s", why.text);
    return policy_add_text(r, text, arg);
}

/* Names with commas between them: of a list, or of one text. */
struct joined {
    const char *name;
    char text[1024];
    size_t n;
};

static int add_tokens(struct reader *r, const char *text, void *arg)
{
    struct joined *j = arg;
    for (const char *p = text; *p; p += strspn(p, ", \t")) {
        size_t k = strcspn(p, ", \t");
        if (!policy_is_token(slice_of(p, k)))
            return reader_complain(r, reader_line(r),
                                   "%s: '%.200s' is no list of names; write NAME, NAME", j->name,
                                   text);
        if (j->n + k + 3 > sizeof j->text)
            return reader_complain(r, reader_line(r), "%s: longer than %zu bytes", j->name,
                                   sizeof j->text);
        j->n += (size_t)snprintf(j->text + j->n, sizeof j->text - j->n, "%s%.*s", j->n ? ", " : "",
                                 (int)k, p);
        p += k;
    }
    return 0;
}

static int take_tokens(struct reader *r, const char *name, const char **out)
{
    struct joined j = {.name = name};
    if (policy_take_texts(r, name, add_tokens, &j))
        return -1;
    return (*out = conf_copy(r->c, j.text, j.n, r->e)) ? 0 : -1;
}

static int take_cors_key(struct reader *r, enum policy_key_id key, void *arg)
{
    struct policy_cors *cors = arg;
    const char *name = policy_keys[key].name;
    if (key == POLICY_CORS_credentials)
        return policy_take_bool(r, name, &cors->credentials);
    if (key == POLICY_CORS_max_age)
        return policy_take_seconds(r, name, "1d", &cors->max_age_s);
    if (key == POLICY_CORS_methods)
        return take_tokens(r, name, &cors->methods);
    if (key == POLICY_CORS_headers)
        return take_tokens(r, name, &cors->headers);
    if (key == POLICY_CORS_expose)
        return take_tokens(r, name, &cors->expose);
    const char *items[POLICY_ORIGINS_MAX];
    struct policy_texts t = {.name = name, .items = items, .max = countof(items)};
    if (policy_take_texts(r, name, add_origin, &t))
        return -1;
    cors->n_origins = t.n;
    return (cors->origins = policy_keep(r, items, t.n, sizeof *items)) ? 0 : -1;
}

int policy_take_cors(struct reader *r, struct policy_cors *cors)
{
    size_t lines[POLICY_KEYS] = {0}, begun = reader_line(r);
    *cors = policy_cors_none;
    if (policy_expect_mapping(r, "cors", "cors: {origins: [https://app.example.org]}") ||
        policy_take_mapping(r, WHERE_CORS, lines, take_cors_key, cors))
        return -1;
    if (!lines[POLICY_CORS_origins])
        return reader_complain(r, begun,
                               "cors has no origins; give those of your pages, as origins: "
                               "[https://app.example.org]");
    for (unsigned i = 0; i < cors->n_origins; i++) {
        if (strcmp(cors->origins[i], "*") != 0)
            continue;
        if (cors->credentials)
            return reader_complain(
                r, lines[POLICY_CORS_credentials],
                "cors: credentials with origins: \"*\" would hand every page the "
                "user's data; name the origins");
        if (cors->n_origins > 1)
            return reader_complain(
                r, lines[POLICY_CORS_origins],
                "cors: the origin \"*\" is every origin; leave the others out, or it");
    }
    cors->given = true;
    return 0;
}
