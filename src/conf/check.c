/* check: what must be true of several settings together, and of those with a form of their own. */
#include "conf/conf_private.h"
#include "conf/policy_private.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool header_known(struct slice s)
{
    static const char *const known[] = {"forwarded",         "x-forwarded-for",  "x-forwarded-host",
                                        "x-forwarded-proto", "x-forwarded-port", "x-forwarded-by"};
    for (size_t i = 0; i < countof(known); i++)
        if (slice_ieq(s, slice_str(known[i])))
            return true;
    return false;
}

static int check_headers(const char *list, const char *source, struct err *e)
{
    unsigned n = 0;
    bool forwarded = false, none = false;
    for (const char *p = list; *p; p += strspn(p, ", \t\r\n")) {
        struct slice word = slice_of(p, strcspn(p, ", \t\r\n"));
        none |= slice_ieq(word, SLICE("none"));
        if (word.n && !header_known(word) && !slice_ieq(word, SLICE("none")))
            return err_set(e,
                           "%s: '%.*s' is no forwarding header; give forwarded, some of "
                           "x-forwarded-for, x-forwarded-host, x-forwarded-proto, "
                           "x-forwarded-port, x-forwarded-by, or none",
                           source, (int)(word.n < 80 ? word.n : 80), word.p);
        n += word.n > 0;
        forwarded |= slice_ieq(word, SLICE("forwarded"));
        p += word.n;
    }
    if (none && n > 1)
        return err_set(e, "%s: none stands alone", source);
    if (forwarded && n > 1)
        return err_set(e,
                       "%s: forwarded and the x-forwarded-... headers exclude each other; "
                       "trust the one that your proxy writes",
                       source);
    return 0;
}

/* NAME=VALUE items, and names: what http/proxy makes of them at the start must not fail there. */
static int check_fields(const struct conf *c, struct err *e)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const struct conf_mark *schemes = conf_mark(c, CONF_ROW_secure_scheme_headers);
    const struct conf_mark *names = conf_mark(c, CONF_ROW_forwarder_headers);
    if (c->secure_scheme_headers.n > 16)
        return err_set(e, "%s: more than 16 fields", schemes->source);
    for (unsigned i = 0; i < c->secure_scheme_headers.n; i++) {
        const char *text = c->secure_scheme_headers.items[i];
        size_t n = strspn(text, token);
        if (n == 0 || text[n] != '=' || !text[n + 1])
            return err_set(e, "%s: '%.200s' is not NAME=VALUE, as X-Forwarded-Proto=https",
                           schemes->source, text);
    }
    unsigned n_names = 0;
    for (const char *p = c->forwarder_headers + strspn(c->forwarder_headers, ", \t"); *p;
         p += strspn(p, ", \t")) {
        size_t n = strcspn(p, ", \t");
        if (strspn(p, token) < n || ++n_names > 32)
            return err_set(e, "%s: '%.200s' is no list of at most 32 field names", names->source,
                           c->forwarder_headers);
        p += n;
    }
    return 0;
}

static int check_proxy(struct conf *c, struct err *e)
{
    const struct conf_mark *count = conf_mark(c, CONF_ROW_trusted_proxy_count);
    const struct conf_mark *headers = conf_mark(c, CONF_ROW_trusted_proxy_headers);
    if (check_fields(c, e))
        return -1;
    if (!*c->trusted_proxy) {
        if (c->secure_scheme_headers.n || *c->forwarder_headers)
            return err_set(e, "%s has no meaning without trusted-proxy",
                           c->secure_scheme_headers.n
                               ? conf_mark(c, CONF_ROW_secure_scheme_headers)->source
                               : conf_mark(c, CONF_ROW_forwarder_headers)->source);
        if (count->level > LEVEL_DEFAULT)
            return err_set(e, "%s has no meaning without trusted-proxy", count->source);
        if (headers->level > LEVEL_DEFAULT && *c->trusted_proxy_headers)
            return err_set(e, "%s has no meaning without trusted-proxy", headers->source);
        return 0;
    }
    if (*c->trusted_proxy_headers)
        return check_headers(c->trusted_proxy_headers, headers->source, e);
    /* What every proxy writes. Not the host: one that passes it through unchanged would let a
     * client choose it. */
    c->trusted_proxy_headers =
        c->dialect == CONF_WAITRESS ? "x-forwarded-proto" : "x-forwarded-for x-forwarded-proto";
    if (c->dialect == CONF_WAITRESS)
        return conf_note(c, e,
                         "trusted-proxy without trusted-proxy-headers trusts "
                         "x-forwarded-proto alone; name the headers");
    return 0;
}

/* A value that goes into a header or the environ: no control bytes. */
static int check_plain(const char *value, const char *what, bool spaces, struct err *e)
{
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f || (*p == ' ' && !spaces))
            return err_set(e, "%s: the value contains a space or control character", what);
    return 0;
}

/* "api//" and "/api" both mean "/api". */
static int normalise_prefix(struct conf *c, struct err *e)
{
    struct slice s = slice_trim(slice_str(c->url_prefix));
    while (s.n && s.p[0] == '/')
        s = slice_of(s.p + 1, s.n - 1);
    while (s.n && s.p[s.n - 1] == '/')
        s.n--;
    if (memchr(s.p, '?', s.n) || memchr(s.p, '#', s.n))
        return err_set(e, "url-prefix: '%.200s' is not a path", c->url_prefix);
    char *prefix = conf_copy(c, c->url_prefix, s.n + 1, e);
    if (!prefix)
        return -1;
    if (s.n)
        memcpy(prefix + 1, s.p, s.n);
    prefix[0] = s.n ? '/' : 0;
    c->url_prefix = prefix;
    return 0;
}

static int check_internal_path(const struct conf *c, struct err *e)
{
    const char *p = c->internal_path;
    size_t n = strlen(p);
    if (n && (n < 2 || p[0] != '/' || p[n - 1] != '/' || strpbrk(p, " ?#%")))
        return err_set(e, "internal-path: '%.200s' must begin and end with a slash, as /-/", p);
    return 0;
}

int conf_static_split(const char *item, struct slice *prefix, const char **folder, struct err *e)
{
    const char *equals = strchr(item, '=');
    if (!equals || !equals[1] || item[0] != '/')
        return err_set(e, "'%.200s' is not /PREFIX=FOLDER, as /assets=public/assets", item);
    *prefix = slice_of(item, (size_t)(equals - item));
    *folder = equals + 1;
    if (prefix->p[prefix->n - 1] == '/')
        prefix->n--;
    for (size_t i = 0; i < prefix->n; i++) {
        bool double_slash = prefix->p[i] == '/' && (i + 1 == prefix->n || prefix->p[i + 1] == '/');
        if (double_slash || strchr("?#%\\", prefix->p[i]) || (unsigned char)prefix->p[i] <= ' ')
            return err_set(e, "'%.*s' is not a prefix of paths; give one as /assets, not encoded",
                           (int)(equals - item < 200 ? equals - item : 200), item);
    }
    return 0;
}

static int check_static(struct conf *c, struct err *e)
{
    const char *source = conf_mark(c, CONF_ROW_static_files)->source, *folder;
    struct slice prefix, other;
    struct err why;
    for (unsigned i = 0; i < c->static_files.n; i++) {
        if (conf_static_split(c->static_files.items[i], &prefix, &folder, &why))
            return err_set(e, "%s: %s", source, why.text);
        for (unsigned k = 0; k < i; k++)
            if (conf_static_split(c->static_files.items[k], &other, &folder, &why) == 0 &&
                slice_eq(prefix, other))
                return err_set(e, "%s: the prefix '%.*s/' is given twice", source, (int)prefix.n, prefix.p);
        if (!prefix.n && conf_note(c, e, "%s: / takes every path, and the application gets none", source))
            return -1;
    }
    return 0;
}

static int check_addresses(const struct conf *c, struct err *e)
{
    const struct conf_priv *p = conf_priv(c);
    const struct conf_mark *bind = conf_mark(c, CONF_ROW_bind);
    if (!c->ipv4 && !c->ipv6)
        return err_set(e, "ipv4 and ipv6 are both off; leave one of them on");
    if (bind->level > LEVEL_FILE && c->bind.n && (p->host || p->port || p->listen.n || p->unix_socket || p->have_sockets))
        return err_set(e,
                       "%s cannot be given together with host, port, listen, unix-socket or "
                       "sockets; name all addresses one way",
                       bind->source);
    return 0;
}

static bool word_byte(unsigned char b, bool first)
{
    return b == '_' || b >= 0x80 || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') ||
           (!first && b >= '0' && b <= '9');
}

/* Words with dots between them. */
static bool dotted(const char *p, size_t n)
{
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '.' && !first)
            first = true;
        else if (word_byte((unsigned char)p[i], first))
            first = false;
        else
            return false;
    }
    return n && !first;
}

int conf_app_check(const char *text, struct err *e)
{
    size_t n = strlen(text);
    const char *colon = strchr(text, ':');
    size_t n_module = colon ? (size_t)(colon - text) : n;

    if (n > 3 && !colon && strcmp(text + n - 3, ".py") == 0) {
        /* A file, as the shell completes it: name the module that it is. */
        char module[200];
        const char *from = strncmp(text, "./", 2) == 0 ? text + 2 : text;
        snprintf(module, sizeof module, "%.*s", (int)(text + n - 3 - from), from);
        for (char *p = module; *p; p++)
            *p = *p == '/' ? '.' : *p;
        if (dotted(module, strlen(module)))
            return err_set(
                e, "'%.200s' is a file; name the module and the application in it, as %s:app", text,
                module);
    }
    if (n > 2 && strcmp(text + n - 2, "()") == 0)
        return err_set(e, "'%.200s' is a call; write --factory %.*s", text,
                       (int)(n - 2 < 200 ? n - 2 : 200), text);
    if (!dotted(text, n_module) || (colon && !dotted(colon + 1, n - n_module - 1)))
        return err_set(
            e, "'%.200s' does not name an application; write MODULE:ATTRIBUTE, as api.index:app",
            text);
    return 0;
}

int conf_folders_check(const struct conf *c, struct err *e)
{
    const char *source = conf_mark(c, CONF_ROW_static_files)->source, *folder;
    for (unsigned i = 0; i < c->static_files.n; i++) {
        struct slice prefix;
        struct stat st;
        char path[PATH_MAX];
        if (conf_static_split(c->static_files.items[i], &prefix, &folder, e))
            return -1;
        bool below = *c->chdir && folder[0] != '/';
        if (snprintf(path, sizeof path, "%s%s%s", below ? c->chdir : "", below ? "/" : "", folder) >=
            (int)sizeof path)
            errno = ENAMETOOLONG;
        else if (stat(path, &st) == 0)
            errno = S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
        if (errno)
            return err_set(e, "%s: the folder '%.400s': %s", source, folder, strerror(errno));
    }
    return 0;
}

int conf_chdir_check(const struct conf *c, struct err *e)
{
    struct stat st;
    if (!*c->chdir)
        return 0;
    const char *source = conf_mark(c, CONF_ROW_chdir)->source;
    if (stat(c->chdir, &st) != 0)
        return err_set(e, "%s: '%.400s': %s", source, c->chdir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(e, "%s: '%.400s' is not a folder", source, c->chdir);
    if (access(c->chdir, X_OK) != 0)
        return err_set(e, "%s: '%.400s': %s", source, c->chdir, strerror(errno));
    return 0;
}

/* What reload changes in other settings, unless they were given. */
static int check_reload(struct conf *c, struct err *e)
{
    struct conf_mark *tracebacks = &conf_priv(c)->marks[CONF_ROW_expose_tracebacks];
    if (!c->reload)
        return 0;
    if (c->workers == 0 && conf_mark(c, CONF_ROW_workers)->level > LEVEL_DEFAULT)
        return err_set(e, "%s: reload needs a worker that can be replaced; give workers 1 or more",
                       conf_mark(c, CONF_ROW_workers)->source);
    if (c->workers == 0)
        c->workers = 1;
    if (tracebacks->level == LEVEL_DEFAULT) {
        c->expose_tracebacks = true;
        tracebacks->source = "because of reload";
    }
    if (!c->preload)
        return 0;
    c->preload = false;
    return conf_note(c, e, "%s has no effect with reload: each worker imports what has changed",
                     conf_mark(c, CONF_ROW_preload)->source);
}

static int check_tls(const struct conf *c, struct err *e)
{
    const struct conf_mark *key = conf_mark(c, CONF_ROW_keyfile);
    const struct conf_mark *authorities = conf_mark(c, CONF_ROW_ca_certs);
    if (*c->keyfile && !*c->certfile)
        return err_set(e, "%s has no meaning without certfile", key->source);
    if (*c->ca_certs && !*c->certfile && !c->n_tls_hosts)
        return err_set(e, "%s has no meaning without certfile", authorities->source);
    return 0;
}

/* Where the quotas are kept, if there are any: the folder that systemd made for state, of several the first. */
static int place_store(struct conf *c, struct err *e)
{
    bool wanted = false;
    for (unsigned i = 0; i < c->policy.n_routes; i++)
        wanted |= c->policy.routes[i].n_quotas != 0;
    if (!wanted || *c->store)
        return 0;
    const char *folder = getenv("STATE_DIRECTORY");
    size_t n = folder ? strcspn(folder, ":") : 0;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%.*s%sweir.db", (int)n, n ? folder : "", n ? "/" : "") >= (int)sizeof path)
        return err_set(e, "STATE_DIRECTORY is too long; name the file of the quotas with --store");
    c->store = conf_copy(c, path, strlen(path), e);
    return c->store ? 0 : -1;
}

static int finish(struct conf *c, struct err *e)
{
    if (c->dialect == CONF_WAITRESS && conf_waitress_finish(c, e))
        return -1;
    if (c->dialect == CONF_GUNICORN &&
        (conf_gunicorn_apply(c, e) || conf_env_apply(c, e) || conf_chdir_check(c, e)))
        return -1;
    if (check_addresses(c, e) || check_tls(c, e) || check_proxy(c, e) || normalise_prefix(c, e) ||
        check_internal_path(c, e) || check_static(c, e) || check_reload(c, e) ||
        policy_check(c, e) || place_store(c, e) || conf_admin_check(c, e))
        return -1;
    if (check_plain(c->ident, "ident", true, e) ||
        check_plain(c->server_name, "server-name", false, e) ||
        check_plain(c->url_scheme, "url-scheme", false, e) ||
        check_plain(c->url_prefix, "url-prefix", true, e))
        return -1;
    if (!*c->url_scheme)
        return err_set(e, "url-scheme: the value is empty; give http or https");
    /* Gunicorn's may be a call, and Python reads it. */
    if (*c->app && c->dialect != CONF_GUNICORN && conf_app_check(c->app, e))
        return -1;
    if (c->daemon && strcmp(c->error_log, "-") == 0 &&
        conf_note(c, e, "daemon: the error log goes to standard error, which a process in the background has "
                        "only until it serves; name a file with --error-log"))
        return -1;
    return conf_binds_make(c, e);
}

int conf_finish(struct conf *c, struct err *e)
{
    return conf_plain_error(finish(c, e), e);
}
