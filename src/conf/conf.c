/* conf: values from their sources into struct conf. */
#include "conf/conf_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/policy_private.h"
#include "conf/yaml.h"

/* One start reads a handful of texts; this is far above any sane configuration. */
static const size_t CONF_BYTES_MAX = 16 * 1024 * 1024;
static const unsigned LIST_ITEMS_MAX = 4096;

/* ---- texts ---- */

char *conf_copy(struct conf *c, const char *p, size_t n, struct err *e)
{
    char *copy = arena_alloc(&c->arena, n + 1);
    if (!copy) {
        err_set(e, "the configuration is too large");
        return NULL;
    }
    if (n)
        memcpy(copy, p, n);
    copy[n] = 0;
    return copy;
}

int conf_list_add(struct conf *c, struct conf_list *list, const char *p, size_t n, struct err *e)
{
    if (list->n == LIST_ITEMS_MAX)
        return err_set(e, "a list of more than %u items", LIST_ITEMS_MAX);
    /* Room doubles; what is left behind goes with the arena. */
    if ((list->n & (list->n - 1)) == 0) {
        size_t room = list->n ? list->n * 2 : 1;
        const char **items = arena_alloc(&c->arena, room * sizeof *items);
        if (!items)
            return err_set(e, "the configuration is too large");
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
    }
    char *item = conf_copy(c, p, n, e);
    if (!item)
        return -1;
    list->items[list->n++] = item;
    return 0;
}

/* What came from outside must not steer the terminal, nor make one line two. */
static void make_plain(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

int conf_plain_error(int rc, struct err *e)
{
    if (rc && e)
        make_plain(e->text);
    return rc;
}

int conf_note(struct conf *c, struct err *e, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    make_plain(text);
    return conf_list_add(c, &conf_priv(c)->notes, text, strlen(text), e);
}

void conf_notes(struct conf *c, FILE *out)
{
    struct conf_list *notes = &conf_priv(c)->notes;
    for (unsigned i = 0; i < notes->n; i++)
        fprintf(out, "weir: %s\n", notes->items[i]);
    *notes = (struct conf_list){0};
}

struct conf_env_list conf_env_added(const struct conf *c)
{
    return conf_priv(c)->added;
}

/* ---- one setting ---- */

int conf_row_set(struct conf *c, const struct conf_row *row, const char *value,
                 enum conf_level level, const char *source, struct err *e)
{
    struct conf_mark *mark = &conf_priv(c)->marks[row - conf_rows];
    void *field = (char *)c + row->offset;
    struct slice s = slice_trim(slice_str(value));
    int rc = -1;

    if (level < mark->level)
        return 0;
    switch (row->kind) {
    case KIND_BOOL:
        rc = conf_value_bool(value, source, field, e);
        break;
    case KIND_INT:
    case KIND_SIZE:
    case KIND_TIME:
    case KIND_OCTAL:
        rc = conf_value_number(row->kind, value, row->min, row->max, source, field, e);
        break;
    case KIND_WORKERS:
        rc = 0;
        if (slice_ieq(s, SLICE("auto")))
            *(int64_t *)field = conf_cores();
        else
            rc = conf_value_number(row->kind, value, row->min, row->max, source, field, e);
        break;
    case KIND_THREADS:
        rc = conf_value_threads(value, row->min, row->max, source, field, e);
        break;
    case KIND_CHOICE:
        rc = conf_value_choice(c, value, row->max, source, field, e);
        break;
    case KIND_TEXT:
        rc = (*(const char **)field = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
        break;
    case KIND_LIST:
        if (level > mark->level)
            *(struct conf_list *)field = (struct conf_list){0};
        rc = s.n == 0 ? 0 : conf_list_add(c, field, s.p, s.n, e);
        break;
    }
    if (rc)
        return rc;
    mark->level = level;
    mark->place = NULL;
    return (mark->source = conf_copy(c, source, strlen(source), e)) ? 0 : -1;
}

static int unknown_name(const struct conf *c, const char *name, const char *source, struct err *e)
{
    struct conf_nearest near = {.wanted = name};
    if (c->dialect == CONF_WAITRESS)
        conf_waitress_nearest(&near);
    for (unsigned i = 0; i < CONF_ROWS; i++)
        conf_nearest_try(&near, conf_rows[i].name);
    if (near.best)
        return err_set(e, "%.200s: unknown setting; did you mean '%s'?", source, near.best);
    return err_set(e, "%.200s: unknown setting", source);
}

static int set_by_name(struct conf *c, const char *name, const char *value, const char *source,
                       struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    if (c->dialect == CONF_WAITRESS) {
        int rc = conf_waitress_set(c, name, value, source, e);
        if (rc <= 0)
            return rc;
    } else if (conf_name_eq(name, "host")) {
        return (p->host = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
    } else if (conf_name_eq(name, "port")) {
        return (p->port = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
    }
    const struct conf_row *row = conf_row_find(name);
    return row ? conf_row_set(c, row, value, LEVEL_CALLER, source, e)
               : unknown_name(c, name, source, e);
}

int conf_set(struct conf *c, const char *name, const char *value, const char *source, struct err *e)
{
    return conf_plain_error(set_by_name(c, name, value, source ? source : name, e), e);
}

int conf_init(struct conf *c, enum conf_dialect dialect, struct err *e)
{
    *c = (struct conf){.dialect = dialect, .policy = policy_none, .arena = {.max = CONF_BYTES_MAX}};
    c->policy.read_ns = clock_mono_ns();
    if (!(c->priv = calloc(1, sizeof(struct conf_priv))))
        return err_set(e, "out of memory");
    for (unsigned i = 0; i < CONF_ROWS; i++)
        if (conf_row_set(c, &conf_rows[i], conf_rows[i].def, LEVEL_DEFAULT, "default", e))
            return -1;
    if (dialect == CONF_GUNICORN)
        return conf_gunicorn_init(c, e);
    return dialect == CONF_WAITRESS ? conf_waitress_defaults(c, e) : 0;
}

void conf_fini(struct conf *c)
{
    free(c->priv);
    c->priv = NULL;
    arena_fini(&c->arena);
}

/* ---- environment ---- */

/* WEIR_MAX_BODY_SIZE is max-body-size. Not ours: what has no row, see unknown_variable. */
static const struct conf_row *variable_row(struct slice name)
{
    char text[64];
    if (!slice_starts(name, SLICE("WEIR_")) || name.n - 5 >= sizeof text)
        return NULL;
    for (size_t i = 0; i < name.n - 5; i++) {
        char b = name.p[5 + i];
        if (!((b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '_'))
            return NULL;
        text[i] = b;
    }
    text[name.n - 5] = 0;
    return conf_row_find(text);
}

/*
 * A misspelt variable would be without effect and without a word. Said only when a setting is near:
 * programs have variables of their own (WEIR_PYTHON), and Kubernetes invents WEIR_PORT=tcp://…
 * and WEIR_SERVICE_HOST for a service called weir.
 */
static int unknown_variable(struct conf *c, struct slice name, struct err *e)
{
    char text[64];
    if (name.n - 5 >= sizeof text || slice_starts(name, SLICE("WEIR_PORT")) ||
        slice_starts(name, SLICE("WEIR_SERVICE_")))
        return 0;
    memcpy(text, name.p + 5, name.n - 5);
    text[name.n - 5] = 0;
    struct conf_nearest near = {.wanted = text};
    for (unsigned i = 0; i < CONF_ROWS; i++)
        conf_nearest_try(&near, conf_rows[i].name);
    if (!near.best)
        return 0;
    char cure[64];
    snprintf(cure, sizeof cure, "WEIR_%s", near.best);
    for (char *p = cure + 5; *p; p++)
        *p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
    return conf_note(c, e,
                     "WEIR_%s in the environment is no setting and has no effect; did you mean %s?",
                     text, cure);
}

static int set_list_variable(struct conf *c, const struct conf_row *row, const char *value,
                             const char *source, struct err *e)
{
    for (const char *p = value; *p;) {
        size_t n = strcspn(p, ",");
        char *item = conf_copy(c, p, n, e);
        if (!item || conf_row_set(c, row, item, LEVEL_ENV, source, e))
            return -1;
        p += n + (p[n] == ',');
    }
    return 0;
}

/* `where` is "" or "FILE:LINE: ". */
static int set_variable(struct conf *c, const char *name, size_t name_n, const char *value,
                        const char *where, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    struct slice s = slice_of(name, name_n);
    char source[600];
    snprintf(source, sizeof source, "%s%.*s", where, (int)(name_n < 64 ? name_n : 64), name);

    if (slice_eq(s, SLICE("PORT")) && *value) {
        p->port_env = conf_copy(c, value, strlen(value), e);
        p->port_env_source = conf_copy(c, source, strlen(source), e);
        if (!p->port_env || !p->port_env_source)
            return -1;
        /* Only a number: what hosting sets is one, and a typing error must not become a service. */
        if (value[strspn(value, "0123456789")])
            return err_set(e, "%s: '%.80s' is not a port; give 0 to 65535", source, value);
        return conf_port_check(value, source, e);
    }
    if (c->dialect == CONF_WEIR && slice_eq(s, SLICE("WEB_CONCURRENCY")) && *value) {
        p->concurrency = conf_copy(c, value, strlen(value), e);
        p->concurrency_source = conf_copy(c, source, strlen(source), e);
        return p->concurrency && p->concurrency_source ? 0 : -1;
    }
    if (!slice_starts(s, SLICE("WEIR_"))) {
        char plain[32];
        if (c->dialect != CONF_GUNICORN || name_n >= sizeof plain)
            return 0;
        snprintf(plain, sizeof plain, "%.*s", (int)name_n, name);
        return conf_gunicorn_variable(c, plain, value, source, e);
    }
    const struct conf_row *row = variable_row(s);
    if (!row)
        return unknown_variable(c, s, e);
    /* NAME= is how many tools write "not set"; only for a text it can mean something else. */
    if (!*value && row->kind != KIND_TEXT)
        return 0;
    if (row->kind == KIND_LIST)
        return set_list_variable(c, row, value, source, e);
    return conf_row_set(c, row, value, LEVEL_ENV, source, e);
}

static const char *environment_get(char *const *environ_, const char *name)
{
    size_t n = strlen(name);
    for (; environ_ && *environ_; environ_++)
        if (strncmp(*environ_, name, n) == 0 && (*environ_)[n] == '=')
            return *environ_ + n + 1;
    return NULL;
}

/* Sockets that systemd opened for this process. Numbers that are none are not meant for us. */
static int systemd_fds(char *const *environ_)
{
    const char *pid = environment_get(environ_, "LISTEN_PID");
    const char *fds = environment_get(environ_, "LISTEN_FDS");
    int64_t pid_n = 0, fds_n = 0;
    if (!pid || !fds || conf_value_number(KIND_INT, pid, "1", "", "LISTEN_PID", &pid_n, NULL) ||
        conf_value_number(KIND_INT, fds, "0", "63", "LISTEN_FDS", &fds_n, NULL))
        return 0;
    return pid_n == getpid() ? (int)fds_n : 0;
}

static int read_environment(struct conf *c, char *const *environ_, struct err *e)
{
    if (c->dialect == CONF_WAITRESS)
        return 0;
    conf_priv(c)->systemd_fds = systemd_fds(environ_);
    for (; environ_ && *environ_; environ_++) {
        const char *equals = strchr(*environ_, '=');
        if (equals && set_variable(c, *environ_, (size_t)(equals - *environ_), equals + 1, "", e))
            return -1;
    }
    return 0;
}

int conf_environment(struct conf *c, char *const *environ_, struct err *e)
{
    return conf_plain_error(read_environment(c, environ_, e), e);
}

/* Read the files of env-file, keep what is not set yet, and let it count as environment. */
static int read_env_files(struct conf *c, char *const *environ_, struct err *e)
{
    struct conf_env_list all = {0};
    struct conf_priv *p = conf_priv(c);
    for (unsigned i = 0; i < c->env_file.n; i++)
        if (conf_env_read(&c->arena, c->env_file.items[i], &all, e))
            return -1;
    p->added = (struct conf_env_list){.items = all.items};
    for (unsigned i = 0; i < all.n; i++) {
        struct conf_env item = all.items[i];
        if (environment_get(environ_, item.name))
            continue;
        p->added.items[p->added.n++] = item;
        char where[500];
        snprintf(where, sizeof where, "%s: ", item.source);
        if (c->dialect != CONF_WAITRESS && strcmp(item.name, "WEIR_ENV_FILE") != 0 &&
            set_variable(c, item.name, strlen(item.name), item.value, where, e))
            return -1;
    }
    return 0;
}

/* What `env` names goes into the environment last: it is meant for this application. */
int conf_env_apply(struct conf *c, struct err *e)
{
    struct conf_env_list *added = &conf_priv(c)->added;
    const char *source = conf_mark(c, CONF_ROW_env)->source;
    if (!c->env.n)
        return 0;
    struct conf_env *items = arena_alloc(&c->arena, (added->n + c->env.n) * sizeof *items);
    if (!items)
        return err_set(e, "the configuration is too large");
    if (added->n)
        memcpy(items, added->items, added->n * sizeof *items);
    added->items = items;
    for (unsigned i = 0; i < c->env.n; i++) {
        const char *item = c->env.items[i], *equals = strchr(item, '=');
        if (!equals || equals == item)
            return err_set(e, "%s: '%.80s' is not NAME=VALUE", source, item);
        char *name = conf_copy(c, item, (size_t)(equals - item), e);
        if (!name)
            return -1;
        added->items[added->n++] = (struct conf_env){name, equals + 1, source};
    }
    return 0;
}

/* What hosting sets for the number of workers; WEIR_WORKERS says it to Weir alone and wins. */
static int take_concurrency(struct conf *c, struct err *e)
{
    const struct conf_priv *p = conf_priv(c);
    if (!p->concurrency || conf_mark(c, CONF_ROW_workers)->level >= LEVEL_ENV)
        return 0;
    return conf_row_set(c, &conf_rows[CONF_ROW_workers], p->concurrency, LEVEL_ENV,
                        p->concurrency_source, e);
}

/* ---- the whole ---- */

int conf_command_line(struct conf *c, int argc, char *const *argv, FILE *out, FILE *out_err,
                      enum conf_action *action, int *status, struct err *e)
{
    *action = CONF_RUN;
    *status = 0;
    int rc = -1;
    switch (c->dialect) {
    case CONF_WEIR:
        rc = conf_weir_command_line(c, argc, argv, out, action, status, e);
        break;
    case CONF_WAITRESS:
        rc = conf_waitress_command_line(c, argc, argv, out, action, status, e);
        break;
    case CONF_GUNICORN:
        rc = conf_gunicorn_command_line(c, argc, argv, out, action, status, e);
        break;
    }
    if (rc && c->dialect != CONF_GUNICORN)
        *status = c->dialect == CONF_WAITRESS ? 1 : 2;
    if (!rc && out_err)
        conf_notes(c, out_err);
    return conf_plain_error(rc, e);
}

int conf_load(struct conf *c, int argc, char *const *argv, char *const *environ_, FILE *out,
              enum conf_action *action, int *status, struct err *e)
{
    if (conf_command_line(c, argc, argv, out, NULL, action, status, e))
        return -1;
    if (*action == CONF_EXIT)
        return 0;
    *status = c->dialect == CONF_WEIR ? 2 : 1;
    /* A file of variables may name the YAML file, and that may name files of variables. */
    if (conf_environment(c, environ_, e) || read_env_files(c, environ_, e) || conf_yaml_load(c, e) ||
        (conf_mark(c, CONF_ROW_env_file)->level == LEVEL_FILE && read_env_files(c, environ_, e))) {
        if (c->dialect == CONF_GUNICORN)
            *status = conf_gunicorn_status(c);
        return conf_plain_error(-1, e);
    }
    if (c->dialect == CONF_GUNICORN) {
        *status = 0;
        if (*action == CONF_RUN)
            *action = conf_gunicorn_action(c);
        return 0;
    }
    if (conf_env_apply(c, e) || take_concurrency(c, e))
        return conf_plain_error(-1, e);
    if (!*c->app && *action != CONF_PRINT)
        return err_set(
            e, c->dialect == CONF_WAITRESS
                   ? "Specify one application"
                   : "no application given; write weir MODULE:ATTRIBUTE, as weir api.index:app");
    if (conf_finish(c, e) || conf_chdir_check(c, e) || conf_folders_check(c, e))
        return conf_plain_error(-1, e);
    *status = 0;
    return 0;
}

void conf_complain(const struct conf *c, const char *program, const struct err *e, FILE *out)
{
    if (c->dialect == CONF_WEIR) {
        fprintf(out, "weir: %s\n", e->text);
        return;
    }
    if (c->dialect == CONF_GUNICORN) {
        conf_gunicorn_complain(c, program, e, out);
        return;
    }
    fprintf(out, "Error: %s\n\n", e->text);
    conf_waitress_usage(program, out);
    fprintf(out, "%s --help lists the options.\n", program);
}

/* Who may read the settings need not know these. */
static bool is_secret(const struct conf_row *row)
{
    return row == &conf_rows[CONF_ROW_admin_token] || row == &conf_rows[CONF_ROW_otlp_headers] ||
           row == &conf_rows[CONF_ROW_env];
}

/* "(set)", or the names of a list of NAME=VALUE. */
static void format_secret(const struct conf *c, const struct conf_row *row, char *out, size_t n)
{
    const void *field = (const char *)c + row->offset;
    *out = 0;
    if (row->kind != KIND_LIST) {
        snprintf(out, n, "%s", **(const char *const *)field ? "(set)" : "");
        return;
    }
    const struct conf_list *list = field;
    for (unsigned i = 0; i < list->n; i++) {
        size_t used = strlen(out);
        snprintf(out + used, n - used, "%s%.*s=(set)", i ? ", " : "",
                 (int)strcspn(list->items[i], "="), list->items[i]);
    }
}

/* Where the addresses come from. */
static const char *bind_source(const struct conf *c)
{
    const struct conf_priv *p = conf_priv(c);
    const struct conf_mark *mark = conf_mark(c, CONF_ROW_bind);
    return mark->level > LEVEL_DEFAULT && !conf_bind_is_weaker(c)
               ? (mark->place ? mark->place : mark->source)
           : p->listen.n        ? "listen"
           : p->unix_socket     ? "unix-socket"
           : p->have_sockets    ? "sockets"
           : p->host || p->port ? "host, port"
           : p->systemd_fds     ? "LISTEN_FDS"
           : p->port_env        ? p->port_env_source
                                : "default";
}

void conf_each(const struct conf *c, conf_told *fn, void *arg)
{
    char value[2048];
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        const struct conf_row *row = &conf_rows[i];
        const struct conf_mark *mark = &conf_priv(c)->marks[i];
        if (row == &conf_rows[CONF_ROW_bind]) {
            for (unsigned k = 0; k < c->n_binds; k++)
                fn(arg, "bind", c->binds[k].text, bind_source(c));
            continue;
        }
        if (is_secret(row))
            format_secret(c, row, value, sizeof value);
        else
            conf_value_format(c, row, value, sizeof value);
        fn(arg, row->name, value, mark->place ? mark->place : mark->source);
    }
    for (unsigned i = 0; i < c->n_tls_hosts; i++)
        for (unsigned k = 0; k < c->tls_hosts[i].names.n; k++) {
            snprintf(value, sizeof value, "%s for %s", c->tls_hosts[i].certfile,
                     c->tls_hosts[i].names.items[k]);
            fn(arg, "tls", value, c->config);
        }
}

static void print_one(void *arg, const char *name, const char *value, const char *source)
{
    FILE *out = arg;
    int n = fprintf(out, "%s = %s", name, value);
    fprintf(out, "%*s# %s\n", n < 40 ? 40 - n : 1, "", source);
}

void conf_print(const struct conf *c, FILE *out)
{
    conf_each(c, print_one, out);
    if (!policy_is_given(&c->policy))
        return;
    fprintf(out, "\n# %s\n", c->policy.file);
    conf_policy_print(&c->policy, out);
}
