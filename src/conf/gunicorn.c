/*
 * gunicorn: Gunicorn's settings, carried over to those of Weir.
 *
 * Values are kept as texts, each with the strength of its source, until all sources have been
 * read: command line, GUNICORN_CMD_ARGS, environment, weir.yaml here, then the configuration file,
 * which Python executes. conf_gunicorn_apply, called by conf_finish, turns them into settings of
 * Weir; what depends on several of them (worker class, threads, timeout) can only be told then.
 */
#include "conf/gunicorn.h"

#include <inttypes.h>
#include <string.h>

#include "base/must.h"

#define GUNICORN(name, flags, KIND, meta, def, min, max, MARK, setting, meaning)                   \
    {#name, flags, GUNICORN_##KIND, meta, def, min, max, GUNICORN_MARK_##MARK, setting, meaning},
const struct gunicorn_row gunicorn_rows[GUNICORN_ROWS] = {
#include "conf/gunicorn.def"
};
#undef GUNICORN

/* Gunicorn keeps what a request may bring unbounded; so much is enough for what it was made for. */
static const int64_t HEAD_BYTES_MAX = 16LL * 1024 * 1024;
/* As much as weir itself takes, whatever the limits are. */
static const int64_t HEAD_BYTES_MIN = 32LL * 1024;
/* Threads of a worker that takes the place of one of gevent. */
static const int64_t GREEN_THREADS_MAX = 1000;
/* A worker with one thread is looked at by its request (run-timeout); only then by its loop. */
static const int64_t LOOP_AFTER_REQUEST_MS = 5000;

static const char *const FROM = "default of gunicorn";

/* ---- rows and values ---- */

const struct gunicorn_row *gunicorn_find(const char *name)
{
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        if (conf_name_eq(gunicorn_rows[i].name, name))
            return &gunicorn_rows[i];
    return NULL;
}

struct gunicorn_value *gunicorn_value(const struct conf *c, const struct gunicorn_row *row)
{
    return &conf_priv(c)->gunicorn->values[row - gunicorn_rows];
}

static const struct gunicorn_value *value_of(const struct conf *c, enum gunicorn_id id)
{
    return &conf_priv(c)->gunicorn->values[id];
}

/* The last text of a setting, or its default; "" when there is none. */
static const char *text_of(const struct conf *c, enum gunicorn_id id)
{
    const struct gunicorn_value *v = value_of(c, id);
    if (v->level == LEVEL_DEFAULT)
        return gunicorn_rows[id].def;
    return v->texts.n ? v->texts.items[v->texts.n - 1] : "";
}

static const char *source_of(const struct conf *c, enum gunicorn_id id)
{
    const struct gunicorn_value *v = value_of(c, id);
    return v->level == LEVEL_DEFAULT ? FROM : v->source;
}

/* 18, 0o22, 0x12, 0b10010, and 022 as in C. */
static int read_bits(const struct gunicorn_row *row, const char *text, const char *source,
                     int64_t *out, struct err *e)
{
    int64_t max = 0777;
    struct slice s = slice_trim(slice_str(text));
    unsigned base = 10;
    if (s.n > 1 && s.p[0] == '0') {
        char c = (char)slice_lower((unsigned char)s.p[1]);
        base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
        size_t cut = c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
        s = slice_of(s.p + cut, s.n - cut);
    }
    int64_t n = 0;
    bool bad = s.n == 0;
    for (size_t i = 0; i < s.n && !bad; i++) {
        unsigned char c = slice_lower((unsigned char)s.p[i]);
        unsigned digit = c >= '0' && c <= '9'   ? c - (unsigned)'0'
                         : c >= 'a' && c <= 'f' ? c - 'a' + 10u
                                                : 99u;
        bad = digit >= base;
        n = n * base + digit;
        if (n > max)
            break;
    }
    if (bad)
        return err_set(e, "%s: '%.80s' is no number; give a mode, as 0o22 or 18", source, text);
    if (n > max)
        return err_set(e, "%s: %.80s is too large; %s is at most 0o777", source, text, row->name);
    *out = n;
    return 0;
}

/* Is `text` such a value? Level words that Python knows, too, pass: see log_level_text. */
static int check(struct conf *c, const struct gunicorn_row *row, const char *text,
                 const char *source, struct err *e)
{
    int64_t n;
    bool b;
    struct conf_threads t;
    const char *word;
    switch (row->kind) {
    case GUNICORN_INT:
        return conf_value_number(KIND_INT, text, row->min, row->max, source, &n, e);
    case GUNICORN_TIME:
        return conf_value_number(KIND_TIME, text, row->min, row->max, source, &n, e);
    case GUNICORN_WORKERS:
        if (slice_ieq(slice_trim(slice_str(text)), SLICE("auto")))
            return 0;
        return conf_value_number(KIND_WORKERS, text, row->min, row->max, source, &n, e);
    case GUNICORN_THREADS:
        return conf_value_threads(text, row->min, row->max, source, &t, e);
    case GUNICORN_BOOL:
    case GUNICORN_UNBOOL:
        return conf_value_bool(text, source, &b, e);
    case GUNICORN_BITS:
        return read_bits(row, text, source, &n, e);
    case GUNICORN_CHOICE:
        if (row == &gunicorn_rows[GUNICORN_loglevel])
            return 0;
        return conf_value_choice(c, text, row->max, source, &word, e);
    case GUNICORN_MAYBE:
        if (conf_value_choice(c, text, row->max, source, &word, NULL) == 0)
            return 0;
        return err_set(e, "%s: '%.80s' is unknown; give one of %s, as --proxy-protocol=auto",
                       source, text, row->max);
    case GUNICORN_TEXT:
    case GUNICORN_LIST:
    case GUNICORN_PAIRS:
    case GUNICORN_CODE:
        break;
    }
    return 0;
}

int gunicorn_set(struct conf *c, const struct gunicorn_row *row, const char *text,
                 enum conf_level level, const char *source, struct err *e)
{
    struct gunicorn_value *v = gunicorn_value(c, row);
    bool list = row->kind == GUNICORN_LIST || row->kind == GUNICORN_PAIRS;
    if (check(c, row, text, source, e))
        return -1;
    if (level < v->level)
        return 0;
    if (!list || level > v->level)
        v->texts = (struct conf_list){0};
    v->level = level;
    if (!(v->source = conf_copy(c, source, strlen(source), e)))
        return -1;
    return conf_list_add(c, &v->texts, text, strlen(text), e);
}

static int set_from_file(struct conf *c, const char *name, const char *const *texts, unsigned n,
                         const char *source, struct err *e)
{
    const struct gunicorn_row *row = gunicorn_find(name);
    if (!row)
        return err_set(e, "%s: unknown setting", source);
    struct gunicorn_value *v = gunicorn_value(c, row);
    for (unsigned i = 0; i < n; i++)
        if (gunicorn_set(c, row, texts[i], LEVEL_FILE, source, e))
            return -1;
    if (n == 0 && v->level <= LEVEL_FILE) {
        *v = (struct gunicorn_value){.level = LEVEL_FILE};
        if (!(v->source = conf_copy(c, source, strlen(source), e)))
            return -1;
    }
    return 0;
}

int conf_gunicorn_set(struct conf *c, const char *name, const char *const *texts, unsigned n,
                      const char *source, struct err *e)
{
    return conf_plain_error(set_from_file(c, name, texts, n, source, e), e);
}

bool conf_gunicorn_get(const struct conf *c, unsigned i, struct conf_gunicorn_setting *out)
{
    static const char *const KINDS[] = {
        [GUNICORN_INT] = "int",         [GUNICORN_TIME] = "time", [GUNICORN_THREADS] = "threads",
        [GUNICORN_WORKERS] = "workers", [GUNICORN_TEXT] = "text", [GUNICORN_CHOICE] = "text",
        [GUNICORN_MAYBE] = "text",      [GUNICORN_LIST] = "list", [GUNICORN_BOOL] = "bool",
        [GUNICORN_UNBOOL] = "bool",     [GUNICORN_BITS] = "bits", [GUNICORN_PAIRS] = "pairs",
        [GUNICORN_CODE] = "code",
    };
    if (i >= GUNICORN_ROWS)
        return false;
    const struct gunicorn_row *row = &gunicorn_rows[i];
    const struct gunicorn_value *v = gunicorn_value(c, row);
    *out = (struct conf_gunicorn_setting){.name = row->name,
                                          .kind = KINDS[row->kind],
                                          .def = row->def,
                                          .arity = row->kind == GUNICORN_CODE ? row->max : "",
                                          .texts = v->texts.items,
                                          .n = v->texts.n,
                                          .source = v->level > LEVEL_DEFAULT ? v->source : NULL};
    return true;
}

int conf_gunicorn_init(struct conf *c, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    p->gunicorn = arena_alloc(&c->arena, sizeof *p->gunicorn);
    if (!p->gunicorn)
        return err_set(e, "out of memory");
    *p->gunicorn = (struct gunicorn_conf){0};
    return 0;
}

/* ---- environment ---- */

int conf_gunicorn_variable(struct conf *c, const char *name, const char *value, const char *source,
                           struct err *e)
{
    struct gunicorn_conf *g = conf_priv(c)->gunicorn;
    const char **keep = NULL;
    if (strcmp(name, "GUNICORN_CMD_ARGS") == 0)
        return conf_gunicorn_words(c, value, e);
    /* These are defaults in Gunicorn, weaker than its file. */
    if (strcmp(name, "WEB_CONCURRENCY") == 0 && *value) {
        if (check(c, &gunicorn_rows[GUNICORN_workers], value, source, e))
            return -1;
        keep = &g->web_concurrency;
    } else if (strcmp(name, "FORWARDED_ALLOW_IPS") == 0) {
        keep = &g->forwarded_allow_ips;
    } else if (strcmp(name, "SENDFILE") == 0) {
        keep = &g->sendfile;
    } else if (strcmp(name, "SCRIPT_NAME") == 0) {
        keep = &g->script_name;
    }
    return keep && !(*keep = conf_copy(c, value, strlen(value), e)) ? -1 : 0;
}

/* ---- to settings of Weir ---- */

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
    const struct gunicorn_value *v = value_of(c, GUNICORN_bind);
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
    const struct gunicorn_value *v = value_of(c, GUNICORN_pythonpath);
    struct conf_list list = {0};
    for (const char *p = text_of(c, GUNICORN_pythonpath); *p;) {
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
    const struct gunicorn_value *v = value_of(c, GUNICORN_loglevel);
    const char *text = text_of(c, GUNICORN_loglevel), *word;
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
    const struct gunicorn_value *v = value_of(c, GUNICORN_cert_reqs);
    const char *text = text_of(c, GUNICORN_cert_reqs);
    if (text[0] >= '0' && text[0] <= '2' && !text[1])
        text = WORDS[text[0] - '0'];
    return *text
               ? set_row(c, CONF_ROW_cert_reqs, text, v->level, source_of(c, GUNICORN_cert_reqs), e)
               : 0;
}

/* Gunicorn makes Unix sockets with umask 0, or this one. */
static int apply_umask(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = value_of(c, GUNICORN_umask);
    const char *source = source_of(c, GUNICORN_umask);
    char mode[16];
    int64_t bits = 0;
    if (read_bits(&gunicorn_rows[GUNICORN_umask], text_of(c, GUNICORN_umask), source, &bits, e))
        return -1;
    snprintf(mode, sizeof mode, "%o", 0777u & ~(unsigned)bits);
    return set_row(c, CONF_ROW_unix_socket_perms, mode, v->level, source, e);
}

/* Gunicorn counts the end of line of a field. */
static int apply_field_size(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = value_of(c, GUNICORN_limit_request_field_size);
    int64_t n = 0;
    if (conf_value_number(KIND_INT, text_of(c, GUNICORN_limit_request_field_size), "", "", "", &n,
                          e))
        return -1;
    if (n)
        n = n > 3 ? n - 2 : 1;
    return set_number(c, CONF_ROW_max_field_size, n, "", v->level,
                      source_of(c, GUNICORN_limit_request_field_size), e);
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
    const struct gunicorn_value *v = value_of(c, GUNICORN_forwarded_allow_ips);
    const struct gunicorn_value *schemes = value_of(c, GUNICORN_secure_scheme_headers);
    const struct gunicorn_value *senders = value_of(c, GUNICORN_proxy_allow_ips);
    const char *list = text_of(c, GUNICORN_forwarded_allow_ips);
    const char *source = source_of(c, GUNICORN_forwarded_allow_ips);
    if (v->level == LEVEL_DEFAULT && g->forwarded_allow_ips) {
        list = g->forwarded_allow_ips;
        source = "FORWARDED_ALLOW_IPS";
    }
    if (set_addresses(c, CONF_ROW_proxy_protocol_from, text_of(c, GUNICORN_proxy_allow_ips),
                      senders->level, source_of(c, GUNICORN_proxy_allow_ips), e))
        return -1;
    /* Where Weir's own was given, that is meant. */
    if (conf_mark(c, CONF_ROW_trusted_proxy)->level > v->level)
        return 0;
    if (schemes->level == LEVEL_DEFAULT) {
        for (const char *p = gunicorn_rows[GUNICORN_secure_scheme_headers].def; *p;) {
            size_t n = strcspn(p, ",");
            char *item = conf_copy(c, p, n, e);
            if (!item || set_row(c, CONF_ROW_secure_scheme_headers, item, LEVEL_DEFAULT, FROM, e))
                return -1;
            p += n + (p[n] == ',');
        }
    }
    return set_addresses(c, CONF_ROW_trusted_proxy, list, v->level, source, e) ||
                   set_row(c, CONF_ROW_trusted_proxy_headers, "none", LEVEL_DEFAULT, FROM, e) ||
                   set_row(c, CONF_ROW_clear_untrusted_proxy_headers, "no", LEVEL_DEFAULT, FROM, e)
               ? -1
               : 0;
}

/* Fields are bounded by number and size in Gunicorn, the head as a whole by both. */
static int apply_limits(struct conf *c, struct err *e)
{
    int64_t line = 0, fields = 0, field = 0;
    const char *most = conf_rows[CONF_ROW_max_fields].max;
    const struct gunicorn_value *v = value_of(c, GUNICORN_limit_request_fields);
    const char *source = source_of(c, GUNICORN_limit_request_fields);
    if (conf_value_number(KIND_INT, text_of(c, GUNICORN_limit_request_line), "", "", "", &line,
                          e) ||
        conf_value_number(KIND_INT, text_of(c, GUNICORN_limit_request_fields), "", "", "", &fields,
                          e) ||
        conf_value_number(KIND_INT, text_of(c, GUNICORN_limit_request_field_size), "", "", "",
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
    return set_number(c, CONF_ROW_max_head_size, head, "", LEVEL_DEFAULT, FROM, e);
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
    const struct gunicorn_value *threads = value_of(c, GUNICORN_threads);
    const struct gunicorn_value *klass = value_of(c, GUNICORN_worker_class);
    const char *name = text_of(c, GUNICORN_worker_class);
    const char *source = source_of(c, GUNICORN_worker_class);
    int64_t clients = 0;

    if (value_of(c, GUNICORN_workers)->level == LEVEL_DEFAULT && g->web_concurrency &&
        set_row(c, CONF_ROW_workers, g->web_concurrency, LEVEL_DEFAULT, "WEB_CONCURRENCY", e))
        return -1;
    if (conf_value_number(KIND_INT, text_of(c, GUNICORN_worker_connections), "", "", "", &clients,
                          e))
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
    return set_row(c, CONF_ROW_threads, text_of(c, GUNICORN_threads), threads->level,
                   source_of(c, GUNICORN_threads), e);
}

/* After apply_workers. A worker with one thread is silent as long as its request runs; one with
 * more is only when its loop hangs. */
static int apply_timeout(struct conf *c, struct err *e)
{
    const struct gunicorn_value *v = value_of(c, GUNICORN_timeout);
    const char *source = source_of(c, GUNICORN_timeout);
    int64_t ms = 0;
    if (conf_value_number(KIND_TIME, text_of(c, GUNICORN_timeout), "", "", "", &ms, e))
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
    const struct conf_list *list = &value_of(c, GUNICORN_raw_env)->texts;
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
    if (!sendfile || value_of(c, GUNICORN_sendfile)->level > LEVEL_DEFAULT)
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
        return *row->def ? set_row(c, id, row->def, LEVEL_DEFAULT, FROM, e) : 0;
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
            return value_of(c, default_alone[k])->level == LEVEL_DEFAULT;
    return false;
}

int conf_gunicorn_apply(struct conf *c, struct err *e)
{
    if (strcmp(text_of(c, GUNICORN_protocol), "uwsgi") == 0)
        return err_set(e,
                       "%s: Weir does not speak uwsgi; use proxy_pass instead of uwsgi_pass in "
                       "nginx, and protocol http",
                       source_of(c, GUNICORN_protocol));
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
        if (set_row(c, manners[i].id, manners[i].text, LEVEL_DEFAULT, FROM, e))
            return -1;
    if (note_ignored(c, e))
        return -1;
    if (!*c->app && !*text_of(c, GUNICORN_paste))
        return err_set(e, "No application module specified; write weir gunicorn MODULE:APP, or "
                          "wsgi_app in the configuration file");
    return 0;
}

/* ---- the reference ---- */

static void reference_flags(const struct gunicorn_row *row, FILE *out)
{
    for (const char *p = row->flags; *p;) {
        size_t n = strcspn(p, ",");
        fprintf(out, "%s`%.*s`", p == row->flags ? "" : ", ", (int)n, p);
        p += n + (p[n] == ',');
    }
}

void conf_reference_gunicorn(FILE *out)
{
    unsigned honoured = 0;
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        honoured += gunicorn_rows[i].mark != GUNICORN_MARK_I;
    fprintf(out,
            "# Gunicorn's settings in Weir\n\n"
            "<!-- Written by `weir --dump-reference gunicorn` from src/conf/gunicorn.def. -->\n\n"
            "`weir gunicorn` takes all %d settings of Gunicorn 26, with its names and defaults: %u "
            "of them are honoured, the\nothers are accepted and say in one line why they have no "
            "effect. How to move over: [From Gunicorn](../from-gunicorn.md).\n\n"
            "Sources, later ones win: defaults, [`weir.yaml`](../configuration.md), the "
            "configuration file, `GUNICORN_CMD_ARGS`\n(and `WEIR_...`), the command line. Settings "
            "of Weir ([settings](settings.md)) work as options, by their full name.\n\n"
            "| setting | flag | default | effect | setting of Weir |\n"
            "| --- | --- | --- | --- | --- |\n",
            GUNICORN_ROWS, honoured);
    for (size_t i = 0; i < GUNICORN_ROWS; i++) {
        const struct gunicorn_row *row = &gunicorn_rows[i];
        fprintf(out, "| `%s` | ", row->name);
        reference_flags(row, out);
        fputs(" | ", out);
        if (*row->def && strcmp(row->def, "''") != 0) {
            fputs("`", out);
            conf_help_cell(row->def, out);
            fputs("`", out);
        }
        fprintf(out, " | %s",
                row->mark == GUNICORN_MARK_I   ? "none: "
                : row->mark == GUNICORN_MARK_Q ? "always so: "
                                               : "");
        conf_help_cell(row->meaning, out);
        fputs(" | ", out);
        fprintf(out, *row->setting ? "`%s` |\n" : "%s |\n", row->setting);
    }
    fprintf(out,
            "\nThe environment: `PORT` (then the default of bind is `0.0.0.0:$PORT`), "
            "`WEB_CONCURRENCY` (default of workers),\n`FORWARDED_ALLOW_IPS`, `SENDFILE`, "
            "`SCRIPT_NAME`, `GUNICORN_CMD_ARGS`, `LISTEN_FDS`, `NOTIFY_SOCKET`, and `WEIR_...`.\n\n"
            "Exit codes: 0 stopped, 1 configuration, 2 wrong command line, 3 a worker could not "
            "start, 4 the application could not\nbe loaded.\n");
}
