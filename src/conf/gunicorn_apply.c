/*
 * gunicorn_apply: values of Gunicorn's settings to settings of Weir, when all sources have been
 * read.
 *
 * Most rows name the setting that they are. What depends on several (worker class, threads,
 * timeout), is counted another way (limits) or comes from the environment has a function here.
 */
#include <inttypes.h>
#include <string.h>

#include "base/must.h"
#include "conf/gunicorn.h"

/* Gunicorn keeps what a request may bring unbounded; so much is enough for what it was made for. */
static const int64_t HEAD_BYTES_MAX = 16LL * 1024 * 1024;
/* As much as weir itself takes, whatever the limits are. */
static const int64_t HEAD_BYTES_MIN = 32LL * 1024;
/* Threads of a worker that takes the place of one of gevent. */
static const int64_t GREEN_THREADS_MAX = 1000;
/* A worker with one thread is looked at by its request (run-timeout); only then by its loop. */
static const int64_t LOOP_AFTER_REQUEST_MS = 5000;

static int set_row(struct conf *c, enum conf_row_id id, const char *text, enum conf_level level,
                   const char *source, struct err *e)
{
    return conf_row_set(c, &conf_rows[id], text, level, source, e);
}

static int set_number(struct conf *c, enum conf_row_id id, int64_t n, const char *unit,
                      enum conf_level level, const char *source, struct err *e)
{
    char text[48];
    snprintf(text, sizeof text, "%" PRId64 "%s", n, unit);
    return set_row(c, id, text, level, source, e);
}

/* A list in place of what an equally strong source gave, item by item. */
static int set_list(struct conf *c, enum conf_row_id id, const struct conf_list *list,
                    enum conf_level level, const char *source, struct err *e)
{
    if (level < conf_mark(c, id)->level)
        return 0;
    *(struct conf_list *)((char *)c + conf_rows[id].offset) = (struct conf_list){0};
    for (unsigned i = 0; i < list->n; i++)
        if (set_row(c, id, list->items[i], level, source, e))
            return -1;
    return 0;
}

/* tcp://HOST:PORT is HOST:PORT, unix://PATH is unix:PATH. */
static int apply_bind(struct conf *c, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_bind);
    struct conf_list list = {0};
    if (p->systemd_fds) {
        /* Sockets of systemd are all there is, whatever was configured. */
        p->host = p->port = p->port_env = NULL;
        c->bind = (struct conf_list){0};
        return v->level > LEVEL_DEFAULT && v->texts.n
                   ? conf_note(c, e, "%s has no effect: systemd passed the sockets (LISTEN_FDS)",
                               v->source)
                   : 0;
    }
    for (unsigned i = 0; i < v->texts.n; i++) {
        struct slice s = slice_trim(slice_str(v->texts.items[i]));
        char *copy;
        if (slice_starts(s, SLICE("tcp://")))
            s = slice_of(s.p + 6, s.n - 6);
        if (!(copy = conf_copy(c, s.p, s.n, e)))
            return -1;
        if (slice_starts(s, SLICE("unix://")))
            memmove(copy + 5, copy + 7, s.n - 7 + 1);
        if (conf_list_add(c, &list, copy, strlen(copy), e))
            return -1;
    }
    if (!list.n)
        return 0;
    if (v->level >= conf_mark(c, CONF_ROW_bind)->level)
        p->port_env = NULL; /* PORT is but the default */
    return set_list(c, CONF_ROW_bind, &list, v->level, v->source, e);
}

static int apply_python_path(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_pythonpath);
    struct conf_list list = {0};
    for (const char *p = gunicorn_text(c, GUNICORN_pythonpath); *p;) {
        size_t n = strcspn(p, ",");
        if (n && conf_list_add(c, &list, p, n, e))
            return -1;
        p += n + (p[n] == ',');
    }
    return list.n ? set_list(c, CONF_ROW_python_path, &list, v->level, v->source, e) : 0;
}

/* Gunicorn takes any word, and info for those that it does not know. */
static int apply_log_level(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_loglevel);
    const char *text = gunicorn_text(c, GUNICORN_loglevel), *word;
    if (v->level == LEVEL_DEFAULT)
        return 0;
    if (slice_ieq(slice_trim(slice_str(text)), SLICE("warn")))
        text = "warning";
    if (conf_value_choice(c, text, gunicorn_rows[GUNICORN_loglevel].max, v->source, &word, NULL)) {
        if (conf_note(c, e, "%s: '%.40s' is unknown, so info is in force; give one of %s",
                      v->source, text, gunicorn_rows[GUNICORN_loglevel].max))
            return -1;
        text = "info";
    }
    return set_row(c, CONF_ROW_log_level, text, v->level, v->source, e);
}

static int apply_cert_reqs(struct conf *c, struct err *e)
{
    static const char *const WORDS[] = {"none", "optional", "required"};
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_cert_reqs);
    const char *text = gunicorn_text(c, GUNICORN_cert_reqs);
    if (text[0] >= '0' && text[0] <= '2' && !text[1])
        text = WORDS[text[0] - '0'];
    return *text ? set_row(c, CONF_ROW_cert_reqs, text, v->level,
                           gunicorn_source(c, GUNICORN_cert_reqs), e)
                 : 0;
}

/* Gunicorn makes Unix sockets with umask 0, or this one. */
static int apply_umask(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_umask);
    const char *source = gunicorn_source(c, GUNICORN_umask);
    char mode[16];
    int64_t bits = 0;
    if (gunicorn_bits(&gunicorn_rows[GUNICORN_umask], gunicorn_text(c, GUNICORN_umask), source,
                      &bits, e))
        return -1;
    snprintf(mode, sizeof mode, "%o", 0777u & ~(unsigned)bits);
    return set_row(c, CONF_ROW_unix_socket_perms, mode, v->level, source, e);
}

/* Gunicorn counts the end of line of a field. */
static int apply_field_size(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_limit_request_field_size);
    int64_t n = 0;
    if (conf_value_number(KIND_INT, gunicorn_text(c, GUNICORN_limit_request_field_size), "", "", "",
                          &n, e))
        return -1;
    if (n)
        n = n > 3 ? n - 2 : 1;
    return set_number(c, CONF_ROW_max_field_size, n, "", v->level,
                      gunicorn_source(c, GUNICORN_limit_request_field_size), e);
}

/* A list of addresses, with Unix sockets, which Gunicorn always trusts. */
static int set_addresses(struct conf *c, enum conf_row_id id, const char *list,
                         enum conf_level level, const char *source, struct err *e)
{
    char text[1024];
    struct slice s = slice_trim(slice_str(list));
    if (slice_eq(s, SLICE("*")))
        return set_row(c, id, "*", level, source, e);
    if ((size_t)snprintf(text, sizeof text, "%.*s%sunix", (int)s.n, s.p, s.n ? "," : "") >=
        sizeof text)
        return err_set(e, "%s: the list is longer than 1000 bytes", source);
    return set_row(c, id, text, level, source, e);
}

/* Whose header fields count, and for what: nothing but the scheme and forwarder_headers. */
static int apply_front_ends(struct conf *c, struct err *e)
{
    const struct gunicorn_conf *g = conf_priv(c)->gunicorn;
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_forwarded_allow_ips);
    const struct gunicorn_value *schemes = gunicorn_given(c, GUNICORN_secure_scheme_headers);
    const struct gunicorn_value *senders = gunicorn_given(c, GUNICORN_proxy_allow_ips);
    const char *list = gunicorn_text(c, GUNICORN_forwarded_allow_ips);
    const char *source = gunicorn_source(c, GUNICORN_forwarded_allow_ips);
    if (v->level == LEVEL_DEFAULT && g->forwarded_allow_ips) {
        list = g->forwarded_allow_ips;
        source = "FORWARDED_ALLOW_IPS";
    }
    if (set_addresses(c, CONF_ROW_proxy_protocol_from, gunicorn_text(c, GUNICORN_proxy_allow_ips),
                      senders->level, gunicorn_source(c, GUNICORN_proxy_allow_ips), e))
        return -1;
    /* Where Weir's own was given, that is meant. */
    if (conf_mark(c, CONF_ROW_trusted_proxy)->level > v->level)
        return 0;
    if (schemes->level == LEVEL_DEFAULT) {
        for (const char *p = gunicorn_rows[GUNICORN_secure_scheme_headers].def; *p;) {
            size_t n = strcspn(p, ",");
            char *item = conf_copy(c, p, n, e);
            if (!item ||
                set_row(c, CONF_ROW_secure_scheme_headers, item, LEVEL_DEFAULT, GUNICORN_FROM, e))
                return -1;
            p += n + (p[n] == ',');
        }
    }
    return set_addresses(c, CONF_ROW_trusted_proxy, list, v->level, source, e) ||
                   set_row(c, CONF_ROW_trusted_proxy_headers, "none", LEVEL_DEFAULT, GUNICORN_FROM,
                           e) ||
                   set_row(c, CONF_ROW_clear_untrusted_proxy_headers, "no", LEVEL_DEFAULT,
                           GUNICORN_FROM, e)
               ? -1
               : 0;
}

/* Fields are bounded by number and size in Gunicorn, the head as a whole by both. */
static int apply_limits(struct conf *c, struct err *e)
{
    int64_t line = 0, fields = 0, field = 0;
    const char *most = conf_rows[CONF_ROW_max_fields].max;
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_limit_request_fields);
    const char *source = gunicorn_source(c, GUNICORN_limit_request_fields);
    if (conf_value_number(KIND_INT, gunicorn_text(c, GUNICORN_limit_request_line), "", "", "",
                          &line, e) ||
        conf_value_number(KIND_INT, gunicorn_text(c, GUNICORN_limit_request_fields), "", "", "",
                          &fields, e) ||
        conf_value_number(KIND_INT, gunicorn_text(c, GUNICORN_limit_request_field_size), "", "", "",
                          &field, e))
        return -1;
    int64_t max = 10000;
    if (conf_value_number(KIND_INT, most, "", "", "", &max, e))
        return -1;
    if (fields == 0 || fields > max)
        fields = max;
    if (set_number(c, CONF_ROW_max_fields, fields, "", v->level, source, e))
        return -1;
    int64_t head = HEAD_BYTES_MAX;
    if (line && field && line < head && field < head / fields) /* neither is unlimited */
        head = line + fields * (field + 2) + 4;
    if (head > HEAD_BYTES_MAX)
        head = HEAD_BYTES_MAX;
    if (head < HEAD_BYTES_MIN)
        head = HEAD_BYTES_MIN;
    return set_number(c, CONF_ROW_max_head_size, head, "", LEVEL_DEFAULT, GUNICORN_FROM, e);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static bool one_of(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

enum worker_kind { WORKER_SYNC, WORKER_THREADS, WORKER_GREEN, WORKER_OTHER, WORKER_ASGI };

static enum worker_kind worker_kind(const char *name)
{
    static const char *const green[] = {"gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet"};
    static const char *const modules[] = {"uvicorn", "hypercorn", "daphne", "aiohttp"};
    if (strncmp(name, "egg:gunicorn#", 13) == 0)
        name += 13;
    if (!*name || strcmp(name, "sync") == 0 || ends_with(name, "SyncWorker"))
        return WORKER_SYNC;
    if (strcmp(name, "gthread") == 0 || ends_with(name, ".ThreadWorker"))
        return WORKER_THREADS;
    if (one_of(name, green, countof(green)) || strstr(name, ".ggevent.") ||
        strstr(name, ".geventlet."))
        return WORKER_GREEN;
    if (strcmp(name, "asgi") == 0 || strstr(name, ".gasgi.") || strstr(name, "Uvicorn"))
        return WORKER_ASGI;
    for (size_t i = 0; i < countof(modules); i++)
        if (strncmp(name, modules[i], strlen(modules[i])) == 0)
            return WORKER_ASGI;
    return WORKER_OTHER;
}

static int apply_workers(struct conf *c, struct err *e)
{
    struct gunicorn_conf *g = conf_priv(c)->gunicorn;
    const struct gunicorn_value *threads = gunicorn_given(c, GUNICORN_threads);
    const struct gunicorn_value *klass = gunicorn_given(c, GUNICORN_worker_class);
    const char *name = gunicorn_text(c, GUNICORN_worker_class);
    const char *source = gunicorn_source(c, GUNICORN_worker_class);
    int64_t clients = 0;

    if (gunicorn_given(c, GUNICORN_workers)->level == LEVEL_DEFAULT && g->web_concurrency &&
        set_row(c, CONF_ROW_workers, g->web_concurrency, LEVEL_DEFAULT, "WEB_CONCURRENCY", e))
        return -1;
    if (conf_value_number(KIND_INT, gunicorn_text(c, GUNICORN_worker_connections), "", "", "",
                          &clients, e))
        return -1;
    switch (worker_kind(name)) {
    case WORKER_SYNC:
    case WORKER_THREADS:
        break;
    case WORKER_ASGI:
        return err_set(e,
                       "%s: '%.100s' runs ASGI applications; Weir serves WSGI applications, so use "
                       "a server for ASGI, or leave the worker class out if yours is WSGI",
                       source, name);
    case WORKER_GREEN:
        if (conf_note(c, e,
                      "%s: '%.100s' runs on Weir's threads, up to min(worker-connections, %" PRId64
                      ") of them; nothing is monkey-patched",
                      source, name, GREEN_THREADS_MAX))
            return -1;
        if (threads->level == LEVEL_DEFAULT) {
            char text[48];
            int64_t most = clients < GREEN_THREADS_MAX ? clients : GREEN_THREADS_MAX;
            snprintf(text, sizeof text, "%" PRId64 ":%" PRId64, most < 4 ? most : 4, most);
            return set_row(c, CONF_ROW_threads, text, klass->level, source, e);
        }
        break;
    case WORKER_OTHER:
        if (conf_note(c, e, "%s: '%.100s' is not used; the application runs on Weir's threads",
                      source, name))
            return -1;
        break;
    }
    return set_row(c, CONF_ROW_threads, gunicorn_text(c, GUNICORN_threads), threads->level,
                   gunicorn_source(c, GUNICORN_threads), e);
}

/* After apply_workers. A worker with one thread is silent as long as its request runs; one with
 * more is only when its loop hangs. */
static int apply_timeout(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_given(c, GUNICORN_timeout);
    const char *source = gunicorn_source(c, GUNICORN_timeout);
    int64_t ms = 0;
    if (conf_value_number(KIND_TIME, gunicorn_text(c, GUNICORN_timeout), "", "", "", &ms, e))
        return -1;
    bool one = c->threads.max == 1;
    int64_t loop_ms = one && ms ? ms + LOOP_AFTER_REQUEST_MS : ms;
    if (one && set_number(c, CONF_ROW_run_timeout, ms, "ms", v->level, source, e))
        return -1;
    if (loop_ms > 86400000)
        loop_ms = 86400000;
    return set_number(c, CONF_ROW_worker_timeout, loop_ms, "ms", v->level, source, e);
}

static const char *raw_env(const struct conf *c, const char *name)
{
    const struct conf_list *list = &gunicorn_given(c, GUNICORN_raw_env)->texts;
    size_t n = strlen(name);
    for (unsigned i = list->n; i > 0; i--)
        if (strncmp(list->items[i - 1], name, n) == 0 && list->items[i - 1][n] == '=')
            return list->items[i - 1] + n + 1;
    return NULL;
}

/* What Gunicorn reads from the environment while it runs, so also from raw_env. */
static int apply_environment(struct conf *c, struct err *e)
{
    struct gunicorn_conf *g = conf_priv(c)->gunicorn;
    const char *script_name = raw_env(c, "SCRIPT_NAME");
    if (!script_name)
        script_name = g->script_name;
    if (script_name && *script_name &&
        set_row(c, CONF_ROW_url_prefix, script_name, LEVEL_ENV, "SCRIPT_NAME", e))
        return -1;
    const char *sendfile = raw_env(c, "SENDFILE");
    if (!sendfile)
        sendfile = g->sendfile;
    if (!sendfile || gunicorn_given(c, GUNICORN_sendfile)->level > LEVEL_DEFAULT)
        return 0;
    static const char *const yes[] = {"y", "1", "yes", "true"};
    bool on = false;
    for (size_t i = 0; i < countof(yes); i++)
        on |= slice_ieq(slice_str(sendfile), slice_str(yes[i]));
    return set_row(c, CONF_ROW_sendfile, on ? "yes" : "no", LEVEL_DEFAULT, "SENDFILE", e);
}

static bool differs_from_default(const struct gunicorn_row *row, const struct gunicorn_value *v)
{
    bool on = false;
    if (row->kind == GUNICORN_LIST || row->kind == GUNICORN_CODE)
        return v->texts.n > 0;
    if (!v->texts.n)
        return *row->def && strcmp(row->def, "''") != 0;
    const char *text = v->texts.items[v->texts.n - 1];
    if (row->kind == GUNICORN_BOOL)
        return conf_value_bool(text, "", &on, NULL) == 0 && on != (strcmp(row->def, "yes") == 0);
    return strcmp(text, strcmp(row->def, "''") == 0 ? "" : row->def) != 0;
}

static int note_ignored(struct conf *c, struct err *e)
{
    for (size_t i = 0; i < GUNICORN_ROWS; i++) {
        const struct gunicorn_row *row = &gunicorn_rows[i];
        const struct gunicorn_value *v = gunicorn_value(c, row);
        if (row->mark == GUNICORN_MARK_I && v->level > LEVEL_DEFAULT &&
            differs_from_default(row, v) &&
            conf_note(c, e, "%s has no effect: %s", v->source, row->meaning))
            return -1;
    }
    return 0;
}

/* A row whose texts mean in Weir what they mean in Gunicorn. */
static int apply_plain(struct conf *c, const struct gunicorn_row *row, struct err *e)
{
    const struct gunicorn_value *v = gunicorn_value(c, row);
    const struct conf_row *ours = conf_row_find(row->setting);
    must(ours);
    enum conf_row_id id = (enum conf_row_id)(ours - conf_rows);
    if (row->kind == GUNICORN_LIST || row->kind == GUNICORN_PAIRS)
        return v->level > LEVEL_DEFAULT ? set_list(c, id, &v->texts, v->level, v->source, e) : 0;
    if (v->level == LEVEL_DEFAULT)
        return *row->def ? set_row(c, id, row->def, LEVEL_DEFAULT, GUNICORN_FROM, e) : 0;
    if (!v->texts.n) /* None */
        return 0;
    return set_row(c, id, v->texts.items[v->texts.n - 1], v->level, v->source, e);
}

/* Rows of plain form that an apply_ function handles, or whose default is Weir's. */
static bool by_name(const struct conf *c, size_t i)
{
    static const enum gunicorn_id always[] = {
        GUNICORN_bind,
        GUNICORN_pythonpath,
        GUNICORN_loglevel,
        GUNICORN_cert_reqs,
        GUNICORN_umask,
        GUNICORN_limit_request_fields,
        GUNICORN_threads,
        GUNICORN_limit_request_field_size,
        GUNICORN_forwarded_allow_ips,
        GUNICORN_proxy_allow_ips,
    };
    static const enum gunicorn_id default_alone[] = {GUNICORN_chdir, GUNICORN_worker_connections};
    for (size_t k = 0; k < countof(always); k++)
        if (always[k] == i)
            return true;
    for (size_t k = 0; k < countof(default_alone); k++)
        if (default_alone[k] == i)
            return gunicorn_given(c, default_alone[k])->level == LEVEL_DEFAULT;
    return false;
}

int conf_gunicorn_apply(struct conf *c, struct err *e)
{
    if (strcmp(gunicorn_text(c, GUNICORN_protocol), "uwsgi") == 0)
        return err_set(e,
                       "%s: Weir does not speak uwsgi; use proxy_pass instead of uwsgi_pass in "
                       "nginx, and protocol http",
                       gunicorn_source(c, GUNICORN_protocol));
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        if (gunicorn_rows[i].mark == GUNICORN_MARK_E && *gunicorn_rows[i].setting &&
            !by_name(c, i) && apply_plain(c, &gunicorn_rows[i], e))
            return -1;
    if (apply_bind(c, e) || apply_python_path(c, e) || apply_log_level(c, e) ||
        apply_cert_reqs(c, e) || apply_umask(c, e) || apply_limits(c, e) ||
        apply_field_size(c, e) || apply_front_ends(c, e) || apply_workers(c, e) ||
        apply_timeout(c, e) || apply_environment(c, e))
        return -1;
    /* Where Gunicorn has no settings. */
    static const struct {
        enum conf_row_id id;
        const char *text;
    } manners[] = {
        {CONF_ROW_manners, "gunicorn"},
        {CONF_ROW_ident, "gunicorn"},
        {CONF_ROW_lax_host, "yes"},
        {CONF_ROW_proxy_protocol_optional, "yes"},
        {CONF_ROW_url_prefix_required, "yes"},
        /* Gunicorn hands over bodies of any size; all that is read ahead must have an end. */
        {CONF_ROW_max_body_size, "1G"},
    };
    for (size_t i = 0; i < countof(manners); i++)
        if (set_row(c, manners[i].id, manners[i].text, LEVEL_DEFAULT, GUNICORN_FROM, e))
            return -1;
    if (note_ignored(c, e))
        return -1;
    if (!*c->app && !*gunicorn_text(c, GUNICORN_paste))
        return err_set(e, "No application module specified; write weir gunicorn MODULE:APP, or "
                          "wsgi_app in the configuration file");
    return 0;
}
