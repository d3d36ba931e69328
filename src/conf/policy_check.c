/* policy_check: what must be true of several keys together, and of the files that they name. */
#include "conf/reader.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool policy_is_given(const struct conf_policy *p)
{
    return p->n_identifiers || *p->tier_from || *p->tier_default || p->cors.given || p->n_routes;
}

static bool has_kind(const struct conf_policy *p, enum policy_identify kind)
{
    for (unsigned i = 0; i < p->n_identifiers; i++)
        if (p->identifiers[i].kind == kind)
            return true;
    return false;
}

static bool has_users(const struct conf_policy *p)
{
    return has_kind(p, IDENTIFY_JWT) || has_kind(p, IDENTIFY_BEARER) ||
           has_kind(p, IDENTIFY_API_KEY);
}

/* May a user have a tier at all? */
static bool has_tiers(const struct conf_policy *p)
{
    for (unsigned i = 0; i < p->n_identifiers; i++)
        if (*p->identifiers[i].file)
            return true;
    return *p->tier_from || *p->tier_default;
}

/* ---- what never matches ---- */

static size_t literal_bytes(const char *path)
{
    size_t n = strlen(path);
    return n && path[n - 1] == '*' ? n - 1 : n;
}

static bool is_prefix(const char *path)
{
    return path[literal_bytes(path)] == '*';
}

/* Does `a` match all that `b` matches? */
static bool covers(const struct policy_match *a, const struct policy_match *b)
{
    bool get_head = strcmp(a->method, "GET") == 0 && strcmp(b->method, "HEAD") == 0;
    if (*a->method && strcmp(a->method, b->method) != 0 && !get_head)
        return false;
    size_t n = literal_bytes(a->path);
    return is_prefix(a->path) ? strncmp(a->path, b->path, n) == 0 : strcmp(a->path, b->path) == 0;
}

/* The earlier route that covers the last of b's matches, when each is covered; else NULL. */
static const struct policy_route *covered_by(const struct conf_policy *p, unsigned b)
{
    const struct policy_route *by = NULL;
    for (unsigned m = 0; m < p->routes[b].n_matches; m++) {
        by = NULL;
        for (unsigned a = 0; a < b && !by; a++)
            for (unsigned k = 0; k < p->routes[a].n_matches && !by; k++)
                if (covers(&p->routes[a].matches[k], &p->routes[b].matches[m]))
                    by = &p->routes[a];
        if (!by)
            return NULL;
    }
    return by;
}

/* ---- the file is read ---- */

static int check_methods(struct reader *r)
{
    const struct conf_policy *p = &r->c->policy;
    const char *known[POLICY_METHODS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < p->n_routes; i++)
        for (unsigned m = 0; m < p->routes[i].n_matches; m++) {
            const char *method = p->routes[i].matches[m].method;
            unsigned k = 0;
            while (k < n && strcmp(known[k], method) != 0)
                k++;
            if (k < n || !*method)
                continue;
            if (n == countof(known))
                return reader_complain(r, p->routes[i].line,
                                       "routes: more than %d different methods; leave the method "
                                       "out where every one is meant",
                                       POLICY_METHODS_MAX);
            known[n++] = method;
        }
    return 0;
}

static int check_route(struct reader *r, unsigned i)
{
    static const char nobody[] = "nobody is a user: identify names no jwt, bearer or api_key";
    const struct conf_policy *p = &r->c->policy;
    const struct policy_route *route = &p->routes[i];
    const struct policy_route_lines *lines = &r->policy.routes[i];
    bool users = has_users(p);
    if (route->require == REQUIRE_USER && !users)
        return reader_complain(r, lines->require, "require: user, but %s", nobody);
    if (route->n_quotas && !users)
        return reader_complain(r, lines->quota, "quota counts by user, but %s", nobody);
    if (lines->tier && !has_tiers(p))
        return reader_complain(r, lines->tier,
                               "the tier '%s' is nobody's; give tiers: {from: jwt.CLAIM, default: "
                               "TIER}, or an api_key with a file",
                               lines->tier_name);
    for (unsigned k = 0; k < i; k++)
        if (strcmp(p->routes[k].name, route->name) == 0)
            return reader_complain(r, route->line,
                                   "routes: the route in line %u is called '%.127s', too; give one "
                                   "of them another name:",
                                   p->routes[k].line, route->name);
    if (lines->user_rate && !users &&
        conf_note(r->c, r->e,
                  "%.200s:%zu: rate: user limits by address, because identify names no jwt, bearer "
                  "or api_key",
                  r->path, lines->user_rate))
        return -1;
    const struct policy_route *by = covered_by(p, i);
    if (by)
        return conf_note(
            r->c, r->e,
            "%.200s:%u: the route '%s' never matches: '%s' in line %u takes all of it; "
            "put the narrower one first",
            r->path, route->line, route->name, by->name, by->line);
    return 0;
}

int policy_end(struct reader *r)
{
    const struct conf_policy *p = &r->c->policy;
    if (*p->tier_from && !has_kind(p, IDENTIFY_JWT))
        return reader_complain(r, r->policy.tiers_from,
                               "tiers: from reads a claim of a token, but identify names no jwt; "
                               "add one, or leave from out");
    for (unsigned i = 0; i < p->n_routes; i++)
        if (check_route(r, i))
            return -1;
    return check_methods(r);
}

/* ---- with settings and files ---- */

int policy_check(struct conf *c, struct err *e)
{
    struct conf_policy *p = &c->policy;
    bool interrupt = strcmp(c->on_deadline, "interrupt") == 0;
    if (!p->n_routes)
        return 0;
    /* A copy, because what is read is constant. */
    void *copy = conf_copy(c, (const char *)p->routes, p->n_routes * sizeof *p->routes, e);
    struct policy_route *routes = copy;
    for (unsigned i = 0; routes && i < p->n_routes; i++) {
        struct policy_route *r = &routes[i];
        if (!r->on_deadline_given)
            r->on_deadline = interrupt ? ON_DEADLINE_INTERRUPT : ON_DEADLINE_TELL;
        else if (r->on_deadline == ON_DEADLINE_INTERRUPT && !r->deadline_ms && !c->deadline)
            return err_set(e,
                           "%.300s:%u: on_deadline has no meaning without a deadline; give the "
                           "route one, or --deadline",
                           p->file, r->line);
    }
    p->routes = routes;
    return routes ? 0 : -1;
}

static int check_file(const struct conf_policy *p, const struct policy_identifier *id,
                      const char *name, const char *file, const char *folder, struct err *e)
{
    struct stat st;
    char path[PATH_MAX];
    bool below = *folder && file[0] != '/';
    errno = 0;
    if (snprintf(path, sizeof path, "%s%s%s", below ? folder : "", below ? "/" : "", file) >=
        (int)sizeof path)
        errno = ENAMETOOLONG;
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        errno = EISDIR;
    else if (!errno)
        (void)access(path, R_OK);
    return errno ? err_set(e, "%.300s:%u: %s: cannot read '%.400s': %s", p->file, id->line, name,
                           file, strerror(errno))
                 : 0;
}

int conf_policy_files_check(const struct conf *c, const char *folder, struct err *e)
{
    const struct conf_policy *p = &c->policy;
    for (unsigned i = 0; i < p->n_identifiers; i++) {
        const struct policy_identifier *id = &p->identifiers[i];
        bool jwks = *id->jwks && !policy_jwks_is_url(id->jwks);
        if ((*id->secret_file && check_file(p, id, "secret_file", id->secret_file, folder, e)) ||
            (*id->file && check_file(p, id, "file", id->file, folder, e)) ||
            (jwks && check_file(p, id, "jwks", id->jwks, folder, e)))
            return conf_plain_error(-1, e);
    }
    char token[CONF_TOKEN_BYTES_MAX + 1];
    int rc = conf_admin_token(c, folder, token, e);
    explicit_bzero(token, sizeof token);
    return rc;
}
