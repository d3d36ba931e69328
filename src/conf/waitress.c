/* waitress: Waitress' command line and keywords, carried over to the settings of Weir. */
#include "conf/conf_private.h"

#include <inttypes.h>
#include <string.h>

#include "conf/manual_private.h"
#include "conf/version.h"

enum mark { MARK_E, MARK_I };

struct waitress_row {
    const char *name;
    enum conf_kind kind;
    const char *def, *min, *max;
    enum mark mark;
    const char *setting; /* of Weir; "" = handled by name */
    const char *meaning;
};

#define WAITRESS(name, KIND, def, min, max, MARK, setting, meaning)                                \
    {name, KIND_##KIND, def, min, max, MARK_##MARK, setting, meaning},
static const struct waitress_row rows[] = {
#include "conf/waitress.def"
};
#undef WAITRESS

/* Flags of the runner alone. */
static const char *const flags[] = {"help", "call", "app"};
/* Weir's own that answer under this name as well, in full. */
static const char *const own_flags[] = {"version", "check-config", "print-config"};

static const struct waitress_row *find(const char *name)
{
    for (size_t i = 0; i < countof(rows); i++)
        if (conf_name_eq(rows[i].name, name))
            return &rows[i];
    return NULL;
}

void conf_waitress_nearest(struct conf_nearest *near)
{
    for (size_t i = 0; i < countof(rows); i++)
        conf_nearest_try(near, rows[i].name);
}

/* ---- values ---- */

static struct conf_mark *mark_of(struct conf *c, enum conf_row_id id)
{
    return &conf_priv(c)->marks[id];
}

static int set_mark(struct conf *c, enum conf_row_id id, enum conf_level level, const char *source,
                    struct err *e)
{
    mark_of(c, id)->level = level;
    return (mark_of(c, id)->source = conf_copy(c, source, strlen(source), e)) ? 0 : -1;
}

/* Idle connections; and the waits inside a request, which cannot be 0. */
static int set_channel_timeout(struct conf *c, int64_t ms, enum conf_level level,
                               const char *source, struct err *e)
{
    int64_t waits = ms < 1000 ? 1000 : ms;
    c->keep_alive = ms;
    c->header_timeout = waits;
    c->body_timeout = waits;
    c->send_timeout = waits;
    return set_mark(c, CONF_ROW_keep_alive, level, source, e) ||
                   set_mark(c, CONF_ROW_header_timeout, level, source, e) ||
                   set_mark(c, CONF_ROW_body_timeout, level, source, e) ||
                   set_mark(c, CONF_ROW_send_timeout, level, source, e)
               ? -1
               : 0;
}

/* Items separated by blanks and line ends. */
static int add_words(struct conf *c, struct conf_list *list, const char *text, struct err *e)
{
    for (const char *p = text + strspn(text, " \t\r\n"); *p; p += strspn(p, " \t\r\n")) {
        size_t n = strcspn(p, " \t\r\n");
        if (conf_list_add(c, list, p, n, e))
            return -1;
        p += n;
    }
    return 0;
}

/* The field of a row with a setting of the same kind, but with Waitress' own range. */
static int set_field(struct conf *c, const struct waitress_row *row, const char *value,
                     enum conf_level level, const char *source, struct err *e)
{
    const struct conf_row *ours = conf_row_find(row->setting);
    struct conf_row theirs = *ours;
    void *field = (char *)c + ours->offset;
    if (theirs.kind != KIND_CHOICE) {
        theirs.min = row->min;
        theirs.max = row->max;
    }
    switch (theirs.kind) {
    case KIND_INT:
    case KIND_WORKERS:
    case KIND_SIZE:
    case KIND_TIME:
    case KIND_OCTAL:
        if (conf_value_number(theirs.kind, value, theirs.min, theirs.max, source, field, e))
            return -1;
        break;
    case KIND_THREADS:
        if (conf_value_threads(value, theirs.min, theirs.max, source, field, e))
            return -1;
        break;
    case KIND_BOOL:
        if (conf_value_bool(value, source, field, e))
            return -1;
        break;
    case KIND_TEXT:
    case KIND_LIST:
    case KIND_CHOICE:
        return conf_row_set(c, ours, value, level, source, e);
    }
    return set_mark(c, (enum conf_row_id)(ours - conf_rows), level, source, e);
}

static int set_row(struct conf *c, const struct waitress_row *row, const char *value,
                   enum conf_level level, const char *source, struct err *e)
{
    struct conf_priv *p = conf_priv(c);
    int64_t n;
    bool b;

    if (row->mark == MARK_I) {
        int rc = row->kind == KIND_BOOL
                     ? conf_value_bool(value, source, &b, e)
                     : conf_value_number(row->kind, value, row->min, row->max, source, &n, e);
        return rc ? rc : conf_note(c, e, "%s has no effect: %s", source, row->meaning);
    }
    if (strcmp(row->name, "host") == 0)
        return (p->host = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
    if (strcmp(row->name, "port") == 0) {
        if (conf_port_check(value, source, e))
            return -1;
        return (p->port = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
    }
    if (strcmp(row->name, "listen") == 0)
        return add_words(c, &p->listen, value, e);
    if (strcmp(row->name, "sockets") == 0) {
        p->have_sockets = true;
        return add_words(c, &p->sockets, value, e);
    }
    if (strcmp(row->name, "unix-socket") == 0)
        return (p->unix_socket = conf_copy(c, value, strlen(value), e)) ? 0 : -1;
    if (strcmp(row->name, "channel-timeout") == 0) {
        if (conf_value_number(KIND_TIME, value, row->min, row->max, source, &n, e))
            return -1;
        return set_channel_timeout(c, n, level, source, e);
    }
    if (strcmp(row->name, "channel-request-lookahead") == 0) {
        /* Detection is on in any case; only the number is checked. */
        return conf_value_number(KIND_INT, value, row->min, row->max, source, &n, e);
    }
    if (set_field(c, row, value, level, source, e))
        return -1;
    /* "This size or more" is "above one byte less". */
    if (strcmp(row->name, "max-request-body-size") == 0 && c->max_body_size > 0)
        c->max_body_size--;
    /* Zero would keep nothing in memory and let nothing be sent. */
    if (strcmp(row->name, "outbuf-high-watermark") == 0 && c->response_backlog < 1)
        c->response_backlog = 1;
    return 0;
}

int conf_waitress_set(struct conf *c, const char *name, const char *value, const char *source,
                      struct err *e)
{
    const struct waitress_row *row = find(name);
    if (row)
        return set_row(c, row, value, LEVEL_CALLER, source, e);
    if (conf_name_eq(name, "call"))
        return conf_row_set(c, &conf_rows[CONF_ROW_factory], value, LEVEL_CALLER, source, e);
    return 1;
}

int conf_waitress_defaults(struct conf *c, struct err *e)
{
    static const char *const from = "default of waitress-serve";
    for (size_t i = 0; i < countof(rows); i++)
        if (rows[i].mark == MARK_E && *rows[i].setting &&
            set_row(c, &rows[i], rows[i].def, LEVEL_DEFAULT, from, e))
            return -1;
    /* Waitress counts bytes, not fields, and serves requests without a Host. */
    if (conf_row_set(c, &conf_rows[CONF_ROW_max_fields], "10000", LEVEL_DEFAULT, from, e))
        return -1;
    /* One process, as there; workers only where the command line asks for them. */
    if (conf_row_set(c, &conf_rows[CONF_ROW_workers], "0", LEVEL_DEFAULT, from, e))
        return -1;
    return conf_row_set(c, &conf_rows[CONF_ROW_lax_host], "yes", LEVEL_DEFAULT, from, e);
}

int conf_waitress_finish(struct conf *c, struct err *e)
{
    const struct conf_priv *p = conf_priv(c);
    bool pair = p->host || p->port;
    if (p->listen.n && pair)
        return err_set(
            e, "host or port may not be set if listen is set: name all addresses with listen");
    if (p->listen.n && p->have_sockets)
        return err_set(e, "sockets may not be set if listen is set");
    if (p->have_sockets && pair)
        return err_set(e, "host or port may not be set if sockets is set");
    if (p->have_sockets && p->unix_socket)
        return err_set(e, "unix_socket may not be set if sockets is set");
    if (p->unix_socket && pair)
        return err_set(e, "unix_socket may not be set if host or port is set");
    if (p->unix_socket && p->listen.n)
        return err_set(e, "unix_socket may not be set if listen is set");
    return 0;
}

/* ---- texts ---- */

static const char *placeholder(const struct waitress_row *row)
{
    if (strcmp(row->name, "listen") == 0)
        return "=HOST:PORT";
    switch (row->kind) {
    case KIND_BOOL:
        return "";
    case KIND_INT:
    case KIND_WORKERS:
    case KIND_SIZE:
        return "=INT";
    case KIND_TIME:
        return "=SECONDS";
    case KIND_OCTAL:
        return "=MODE";
    case KIND_THREADS:
        return "=N";
    case KIND_TEXT:
    case KIND_LIST:
    case KIND_CHOICE:
        break;
    }
    return "=TEXT";
}

void conf_waitress_usage(const char *program, FILE *out)
{
    fprintf(out, "Usage: %s [options] MODULE:OBJECT\n", program);
}

#define HELP_INDENT 36

static void help(const char *program, FILE *out)
{
    char option[64], text[256];
    conf_waitress_usage(program, out);
    fputc('\n', out);
    conf_help_line("--help", "this text", HELP_INDENT, out);
    conf_help_line("--app=MODULE:OBJECT", "the application, as an option", HELP_INDENT, out);
    conf_help_line("--call", "call the object to get the application", HELP_INDENT, out);
    for (size_t i = 0; i < countof(rows); i++) {
        const struct waitress_row *row = &rows[i];
        if (strcmp(row->name, "sockets") == 0)
            continue;
        snprintf(option, sizeof option, "--%s%s%s", row->kind == KIND_BOOL ? "[no-]" : "",
                 row->name, placeholder(row));
        if (row->mark == MARK_I)
            snprintf(text, sizeof text, "no effect: %s", row->meaning);
        else if (*row->def)
            snprintf(text, sizeof text, "%s [%s]", row->meaning, row->def);
        else
            snprintf(text, sizeof text, "%s", row->meaning);
        conf_help_line(option, text, HELP_INDENT, out);
    }
    fprintf(out, "\nEvery setting of weir --help-all works here as well, by its full name.\n");
}

/* ---- command line ---- */

/* What a long option of Waitress may be. */
struct option {
    const struct waitress_row *row; /* of Waitress */
    const struct conf_row *own;     /* of Weir, by its full name */
    const char *flag;               /* of flags or own_flags */
    bool no;                        /* --no-… */
    char name[64];                  /* in full */
};

static void option_name(struct option *o, const char *no, const char *name)
{
    snprintf(o->name, sizeof o->name, "%s%s", no, name);
}

/* Is `text` (n bytes) the beginning of `name`? */
static bool begins(const char *name, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name[i] != (text[i] == '_' ? '-' : text[i]))
            return false;
    return true;
}

/* Collects what a name or unique beginning can mean. */
struct match {
    struct option option;
    unsigned n; /* how many options begin so */
    bool exact; /* one of them is it */
};

static void match_try(struct match *m, const char *text, size_t n, struct option candidate)
{
    if (m->exact || !begins(candidate.name, text, n))
        return;
    m->exact = candidate.name[n] == 0;
    m->n = m->exact ? 1 : m->n + 1;
    m->option = candidate;
}

static struct match match_all(const char *text, size_t n)
{
    struct match m = {0};
    if (n >= sizeof m.option.name)
        return m;
    for (size_t i = 0; i < countof(flags); i++) {
        struct option o = {.flag = flags[i]};
        option_name(&o, "", flags[i]);
        match_try(&m, text, n, o);
    }
    for (size_t i = 0; i < countof(rows); i++) {
        struct option o = {.row = &rows[i]};
        if (strcmp(rows[i].name, "sockets") == 0)
            continue;
        option_name(&o, "", rows[i].name);
        match_try(&m, text, n, o);
        if (rows[i].kind != KIND_BOOL)
            continue;
        o.no = true;
        option_name(&o, "no-", rows[i].name);
        match_try(&m, text, n, o);
    }
    if (m.n)
        return m;
    /* What is Weir's only by its full name, so that no beginning becomes ambiguous. */
    for (size_t i = 0; i < countof(own_flags); i++) {
        struct option o = {.flag = own_flags[i]};
        option_name(&o, "", own_flags[i]);
        if (strlen(o.name) == n)
            match_try(&m, text, n, o);
    }
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        struct option o = {.own = &conf_rows[i]};
        option_name(&o, "", conf_rows[i].name);
        if (strlen(o.name) == n)
            match_try(&m, text, n, o);
        o.no = true;
        option_name(&o, "no-", conf_rows[i].name);
        if (conf_rows[i].kind == KIND_BOOL && strlen(o.name) == n)
            match_try(&m, text, n, o);
    }
    return m;
}

static int not_recognized(const char *text, size_t n, struct err *e)
{
    char name[80];
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), text);
    struct conf_nearest near = {.wanted = name};
    conf_waitress_nearest(&near);
    for (size_t i = 0; i < countof(flags); i++)
        conf_nearest_try(&near, flags[i]);
    if (near.best)
        return err_set(e, "option --%s not recognized; did you mean --%s?", name, near.best);
    return err_set(e, "option --%s not recognized", name);
}

static bool takes_value(const struct option *o)
{
    if (o->flag)
        return strcmp(o->flag, "app") == 0;
    return (o->row ? o->row->kind : o->own->kind) != KIND_BOOL;
}

static int take_app(struct conf *c, const char *app, struct err *e)
{
    if (conf_mark(c, CONF_ROW_app)->level == LEVEL_CALLER)
        return err_set(e, "Specify one application only");
    if (conf_app_check(app, e))
        return -1;
    return conf_row_set(c, &conf_rows[CONF_ROW_app], app, LEVEL_CALLER, "command line", e);
}

static int apply(struct conf *c, const struct option *o, const char *value,
                 enum conf_action *action, bool *help, struct err *e)
{
    char source[80];
    snprintf(source, sizeof source, "--%s", o->name);
    if (o->flag && strcmp(o->flag, "app") == 0)
        return take_app(c, value, e);
    if (o->flag && strcmp(o->flag, "call") != 0) {
        if (strcmp(o->flag, "help") == 0)
            *help = true;
        else
            *action = strcmp(o->flag, "check-config") == 0   ? CONF_CHECK
                      : strcmp(o->flag, "print-config") == 0 ? CONF_PRINT
                                                             : CONF_EXIT;
        return 0;
    }
    if (!takes_value(o))
        value = o->no ? "no" : "yes";
    return conf_set(c, o->flag ? o->flag : o->row ? o->row->name : o->own->name, value, source, e);
}

/* The option at argv[*next - 1]; its value may be the next argument. */
static int take_option(struct conf *c, int argc, char *const *argv, int *next,
                       enum conf_action *action, bool *help, struct err *e)
{
    const char *text = argv[*next - 1] + 2;
    size_t n = strcspn(text, "=");
    const char *value = text[n] ? text + n + 1 : NULL;
    struct match m = match_all(text, n);

    if (m.n == 0)
        return not_recognized(text, n, e);
    if (m.n > 1)
        return err_set(e, "option --%.*s not a unique prefix", (int)n, text);
    if (!takes_value(&m.option) && value)
        return err_set(e, "option --%s must not have an argument", m.option.name);
    if (takes_value(&m.option) && !value) {
        if (*next == argc)
            return err_set(e, "option --%s requires argument", m.option.name);
        value = argv[(*next)++];
    }
    return apply(c, &m.option, value, action, help, e);
}

int conf_waitress_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                               enum conf_action *action, int *status, struct err *e)
{
    int next = 1;
    bool want_help = false;
    /* Options end at the first argument that is none, as with the plain getopt. */
    while (next < argc && argv[next][0] == '-' && argv[next][1]) {
        const char *arg = argv[next++];
        if (strcmp(arg, "--") == 0)
            break;
        if (arg[1] != '-')
            return err_set(e, "option -%c not recognized", arg[1]);
        if (take_option(c, argc, argv, &next, action, &want_help, e))
            return -1;
    }
    *status = 0;
    if (want_help) {
        help(argv[0], out);
        *action = CONF_EXIT;
        return 0;
    }
    if (*action == CONF_EXIT) {
        fprintf(out, "weir %s\n", WEIR_VERSION);
        return 0;
    }
    for (; next < argc; next++)
        if (take_app(c, argv[next], e))
            return -1;
    return 0;
}

void conf_waitress_each(manual_option_fn *fn, void *arg)
{
    struct manual_option o = manual_flag("help", "the usage");
    fn(arg, &o);
    o = manual_option("app", KIND_TEXT, "", "", "", "the application, as an option");
    fn(arg, &o);
    o = manual_flag("call", "call the object to get the application");
    fn(arg, &o);
    for (size_t i = 0; i < countof(rows); i++) {
        const struct waitress_row *row = &rows[i];
        if (strcmp(row->name, "sockets") == 0) /* of serve() alone */
            continue;
        o = manual_option(row->name, row->kind, row->def, row->min, row->max, row->meaning);
        o.no_effect = row->mark == MARK_I;
        fn(arg, &o);
    }
}

void conf_reference_waitress(FILE *out)
{
    fprintf(out,
            "# Waitress' options in Weir\n\n"
            "<!-- Written by `weir --dump-reference waitress` from src/conf/waitress.def. -->\n\n"
            "`weir waitress-serve` and `serve(app, ...)` take every option of Waitress, with its "
            "names and\ndefaults. Names in `serve()` have underscores. Settings of Weir "
            "([settings](settings.md)) work in both as well,\nby their full name. `WEIR_...` "
            "variables and `PORT` are not read under this name.\n\n"
            "| option | default | effect | setting of Weir |\n"
            "| --- | --- | --- | --- |\n"
            "| `--help` | | prints the usage | |\n"
            "| `--app` | | the application, as an option | `app` |\n"
            "| `--call` | `no` | call the object to get the application | `factory` |\n");
    for (size_t i = 0; i < countof(rows); i++) {
        const struct waitress_row *row = &rows[i];
        const char *own = strcmp(row->name, "channel-timeout") == 0
                              ? "`keep-alive`, `header-timeout`, `body-timeout`, `send-timeout`"
                              : "";
        fprintf(out, "| `%s%s` | ", strcmp(row->name, "sockets") == 0 ? "" : "--", row->name);
        fprintf(out, *row->def ? "`%s`" : "%s", row->def);
        fprintf(out, " | %s%s | ", row->mark == MARK_I ? "none: " : "", row->meaning);
        fprintf(out, *row->setting && !*own ? "`%s` |\n" : "%s |\n", *own ? own : row->setting);
    }
    fprintf(out,
            "\nWhere Weir differs on purpose:\n\n"
            "- `--threads N` stays a bound: at most N requests are inside the application. Threads "
            "start when they are needed.\n"
            "- `serve()` and `waitress-serve` finish what runs on SIGTERM and SIGINT, and log "
            "requests only if `access-log` is given.\n"
            "- A misspelt boolean is an error, not false.\n");
}
