/*
 * gunicorn_cli: Gunicorn's command line, as Python's argparse reads it.
 *
 * Unique beginnings of long options, --flag=value, -w4, -w=4, several flags in one (-DR), options
 * before and behind the application; a value that begins with a dash is one only when it is a
 * number or holds a space. Weir's own settings work as well, by their full name.
 *
 * GUNICORN_CMD_ARGS is cut into words as a shell would (shlex) and read the same way; what names an
 * application in it is left alone.
 */
#include <string.h>

#include "conf/gunicorn.h"
#include "conf/manual_private.h"
#include "conf/version.h"

#define USAGE "[OPTIONS] [APP_MODULE]"
#define HELP_INDENT 24
static const unsigned WORDS_MAX = 4096;

struct line {
    struct conf *c;
    int argc;
    char *const *argv;
    int next; /* index of the next argument */
    enum conf_level level;
    bool only_args; /* behind -- */
    bool have_app;  /* the group of arguments that are no options has been there */
    bool want_help, want_version;
    enum conf_action *action;
    struct err *e;
};

/* ---- options by name ---- */

/* What an option may be. */
struct option {
    const struct gunicorn_row *row; /* of Gunicorn */
    const struct conf_row *own;     /* of Weir, by its full name */
    bool no;                        /* --no-… of it */
    bool help, version;
    char text[64]; /* with its dashes */
};

/* Collects what a beginning can mean. */
struct match {
    struct option option;
    unsigned n;
    bool exact;
    char names[256]; /* of all of them, for the message */
};

static void match_try(struct match *m, const char *text, size_t n, const char *name, size_t name_n,
                      struct option candidate)
{
    if (m->exact || name_n < n || name_n >= sizeof candidate.text || strncmp(name, text, n) != 0)
        return;
    memcpy(candidate.text, name, name_n);
    candidate.text[name_n] = 0;
    m->exact = name_n == n;
    /* Two names of one option (--paste, --paster) are no ambiguity in its beginning, here. */
    if (!m->exact && m->n && candidate.row && candidate.row == m->option.row)
        return;
    m->n = m->exact ? 1 : m->n + 1;
    m->option = candidate;
    size_t used = strlen(m->names);
    snprintf(m->names + used, sizeof m->names - used, "%s%s", used ? ", " : "", candidate.text);
}

static void match_gunicorn(struct match *m, const char *text, size_t n)
{
    struct option help = {.help = true}, version = {.version = true};
    match_try(m, text, n, "--help", 6, help);
    match_try(m, text, n, "--version", 9, version);
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        for (const char *p = gunicorn_rows[i].flags; *p;) {
            size_t k = strcspn(p, ",");
            struct option o = {.row = &gunicorn_rows[i]};
            match_try(m, text, n, p, k, o);
            p += k + (p[k] == ',');
        }
}

/* --max-body-size, --no-disconnect-detection. */
static bool match_own(struct match *m, const char *text, size_t n)
{
    char name[60];
    struct option o = {0};
    if (n < 3 || n - 2 >= sizeof name)
        return false;
    memcpy(name, text + 2, n - 2);
    name[n - 2] = 0;
    o.own = conf_row_find(name);
    if (!o.own && (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0)) {
        o.own = conf_row_find(name + 3);
        o.no = true;
        if (o.own && o.own->kind != KIND_BOOL)
            o.own = NULL;
    }
    if (!o.own)
        return false;
    snprintf(o.text, sizeof o.text, "--%s", name);
    *m = (struct match){.option = o, .n = 1, .exact = true};
    return true;
}

/* `text` (n bytes) begins with two dashes. */
static struct match match_long(const char *text, size_t n)
{
    struct match m = {0}, own;
    match_gunicorn(&m, text, n);
    if (!m.exact && match_own(&own, text, n))
        return own;
    return m;
}

/* One letter. */
static bool match_short(struct option *o, char letter)
{
    char text[3] = {'-', letter, 0};
    *o = (struct option){.help = letter == 'h', .version = letter == 'v'};
    memcpy(o->text, text, sizeof text);
    if (o->help || o->version)
        return true;
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        if (gunicorn_rows[i].flags[0] == '-' && gunicorn_rows[i].flags[1] == letter) {
            o->row = &gunicorn_rows[i];
            return true;
        }
    return false;
}

/* ---- what is a value ---- */

/* -5, -.5, -1.5: argparse takes these for values. */
static bool negative_number(const char *s)
{
    size_t whole = strspn(s + 1, "0123456789");
    if (s[1 + whole] == 0)
        return whole > 0;
    size_t fraction = strspn(s + 2 + whole, "0123456789");
    return s[1 + whole] == '.' && fraction > 0 && s[2 + whole + fraction] == 0;
}

static bool is_option(const char *s)
{
    if (s[0] != '-' || !s[1] || negative_number(s))
        return false;
    if (!strchr(s, ' '))
        return true;
    /* With a space it is one only by its name. */
    struct option o;
    return s[1] == '-' ? match_long(s, strcspn(s, "=")).n > 0 : match_short(&o, s[1]);
}

static const char *peek_value(const struct line *l)
{
    const char *next = l->next < l->argc ? l->argv[l->next] : NULL;
    return next && !is_option(next) ? next : NULL;
}

/* ---- what was asked for ---- */

/* "argument -w/--workers", as argparse names it; an option of Weir alone by its name. */
static void name_option(const struct option *o, char *out, size_t n)
{
    size_t at = (size_t)snprintf(out, n, "argument ");
    if (!o->row) {
        snprintf(out + at, n - at, "%s", o->text);
        return;
    }
    for (const char *p = o->row->flags; *p && at < n; p++)
        at += (size_t)snprintf(out + at, n - at, "%c", *p == ',' ? '/' : *p);
}

static bool takes_value(const struct option *o)
{
    if (o->row)
        return o->row->kind != GUNICORN_BOOL && o->row->kind != GUNICORN_UNBOOL;
    return o->own && !o->no && o->own->kind != KIND_BOOL;
}

static int wrong_usage(struct line *l)
{
    conf_priv(l->c)->gunicorn->usage = true;
    return -1;
}

/* argparse itself looks at numbers only: whether they are some. What is one and was refused is out
 * of range. */
static bool wrong_number(const struct gunicorn_row *row, const char *value)
{
    const char *digits = value + strspn(value, "-+ ");
    switch (row->kind) {
    case GUNICORN_INT:
    case GUNICORN_TIME:
    case GUNICORN_WORKERS:
    case GUNICORN_THREADS:
        return !*digits || digits[strspn(digits, "0123456789 ")];
    case GUNICORN_BITS:
        return *digits < '0' || *digits > '9' ||
               digits[strspn(digits, "0123456789abcdefABCDEFoxOX")];
    case GUNICORN_TEXT:
    case GUNICORN_CHOICE:
    case GUNICORN_MAYBE:
    case GUNICORN_LIST:
    case GUNICORN_BOOL:
    case GUNICORN_UNBOOL:
    case GUNICORN_PAIRS:
    case GUNICORN_CODE:
        break;
    }
    return false;
}

static int apply(struct line *l, const struct option *o, const char *value)
{
    char source[128];
    if (o->help || o->version) {
        l->want_help |= o->help;
        l->want_version |= o->version;
        return 0;
    }
    const char *where = l->level == LEVEL_ENV ? "GUNICORN_CMD_ARGS: " : "";
    if (o->own) {
        if (!value)
            value = o->no ? "no" : "yes";
        snprintf(source, sizeof source, "%s%s", where, o->text);
        return conf_row_set(l->c, o->own, value, l->level, source, l->e);
    }
    if (!value)
        value = o->row->kind == GUNICORN_UNBOOL  ? "no"
                : o->row->kind == GUNICORN_MAYBE ? "auto"
                                                 : "yes";
    if (o->row == &gunicorn_rows[GUNICORN_check_config] && *l->action == CONF_RUN)
        *l->action = CONF_CHECK;
    if (o->row == &gunicorn_rows[GUNICORN_print_config])
        *l->action = CONF_PRINT;
    snprintf(source, sizeof source, "%s%s", where, o->text);
    if (gunicorn_set(l->c, o->row, value, l->level, source, l->e))
        return wrong_number(o->row, value) ? wrong_usage(l) : -1;
    return 0;
}

/* `attached` stands behind the = or the letter; NULL = nothing does. */
static int take(struct line *l, const struct option *o, const char *attached)
{
    char name[128];
    name_option(o, name, sizeof name);
    if (!takes_value(o)) {
        if (!attached)
            return apply(l, o, NULL);
        err_set(l->e, "%s: ignored explicit argument '%.80s'", name, attached);
        return wrong_usage(l);
    }
    if (attached)
        return apply(l, o, attached);
    const char *value = peek_value(l);
    if (value) {
        l->next++;
        return apply(l, o, value);
    }
    if (o->row && o->row->kind == GUNICORN_MAYBE)
        return apply(l, o, NULL);
    err_set(l->e, "%s: expected one argument", name);
    return wrong_usage(l);
}

static int unrecognized(struct line *l, const char *arg)
{
    char name[80];
    size_t n = strcspn(arg, "=");
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), arg);
    size_t dashes = strspn(name, "-");
    struct conf_nearest near = {.wanted = name + dashes};
    const char *flag = "";
    char flags[64];
    for (size_t i = 0; dashes == 2 && i < GUNICORN_ROWS; i++) {
        const char *p = strstr(gunicorn_rows[i].flags, "--");
        const char *before = near.best;
        if (!p)
            continue;
        snprintf(flags, sizeof flags, "%.*s", (int)strcspn(p + 2, ","), p + 2);
        conf_nearest_try(&near, flags);
        if (near.best != before)
            near.best = flag = gunicorn_rows[i].name;
    }
    const struct gunicorn_row *row = *flag ? gunicorn_find(flag) : NULL;
    if (row) {
        const char *p = strstr(row->flags, "--");
        err_set(l->e, "unrecognized arguments: %.200s; did you mean %.*s?", arg,
                (int)strcspn(p, ","), p);
    } else {
        err_set(l->e, "unrecognized arguments: %.200s", arg);
    }
    return wrong_usage(l);
}

static int take_long(struct line *l, const char *arg)
{
    size_t n = strcspn(arg, "=");
    struct match m = match_long(arg, n);
    if (m.n == 0)
        return unrecognized(l, arg);
    if (m.n > 1) {
        err_set(l->e, "ambiguous option: %.*s could match %s", (int)(n < 80 ? n : 80), arg,
                m.names);
        return wrong_usage(l);
    }
    return take(l, &m.option, arg[n] ? arg + n + 1 : NULL);
}

/* -w 4, -w4, -w=4, -DR. */
static int take_short(struct line *l, const char *arg)
{
    const char *p = arg + 1;
    struct option o;
    while (*p) {
        if (!match_short(&o, *p))
            return unrecognized(l, arg);
        p++;
        if (takes_value(&o) || *p == '=')
            return take(l, &o, !*p ? NULL : *p == '=' ? p + 1 : p);
        if (take(l, &o, NULL))
            return -1;
    }
    return 0;
}

/* All arguments up to the next option; the first of them is the application. */
static int take_app(struct line *l, const char *arg)
{
    struct conf *c = l->c;
    if (l->have_app)
        return unrecognized(l, arg);
    l->have_app = true;
    if (l->level == LEVEL_CALLER &&
        conf_row_set(c, &conf_rows[CONF_ROW_app], arg, LEVEL_CALLER, "command line", l->e))
        return -1;
    while (l->next < l->argc && (l->only_args || !is_option(l->argv[l->next])))
        if (conf_note(c, l->e, "'%.100s' has no effect: the application is '%.100s'",
                      l->argv[l->next++], arg))
            return -1;
    return 0;
}

/* As argparse does, all of the line is read before values are judged: the first wrong one is told when
 * the usage is right. */
static int read_line(struct line *l)
{
    struct err first = {0};
    int failed = 0;
    while (l->next < l->argc) {
        const char *arg = l->argv[l->next++];
        int rc;
        if (!l->only_args && strcmp(arg, "--") == 0) {
            l->only_args = true;
            continue;
        }
        if (l->only_args || !is_option(arg))
            rc = take_app(l, arg);
        else
            rc = arg[1] == '-' ? take_long(l, arg) : take_short(l, arg);
        if (rc && conf_priv(l->c)->gunicorn->usage)
            return rc;
        if (rc && !failed) {
            first = *l->e;
            failed = rc;
        }
        /* Help and version answer at once, whatever else is on the line; not from the environment. */
        if (l->level == LEVEL_CALLER && (l->want_help || l->want_version))
            return 0;
    }
    if (failed)
        *l->e = first;
    return failed;
}

/* ---- words of GUNICORN_CMD_ARGS ---- */

/* The next word of *p into `out` (room for all of *p). 0 = there is none, 1, or -1: a quotation
 * without an end. */
static int next_word(const char **p, char *out)
{
    const char *s = *p + strspn(*p, " \t\r\n");
    bool any = false;
    char quote = 0;
    for (; *s && (quote || !strchr(" \t\r\n", *s)); s++) {
        any = true;
        if (quote && *s == quote)
            quote = 0;
        else if (!quote && (*s == '\'' || *s == '"'))
            quote = *s;
        else if (*s == '\\' && quote != '\'') {
            /* In double quotes only these two are meant. */
            if (quote && s[1] != '"' && s[1] != '\\')
                *out++ = *s;
            else if (s[1])
                *out++ = *++s;
            else
                return -1;
        } else
            *out++ = *s;
    }
    *out = 0;
    *p = s;
    return quote ? -1 : any;
}

int conf_gunicorn_words(struct conf *c, const char *text, struct err *e)
{
    struct conf_list words = {0};
    enum conf_action action = CONF_RUN;
    char *word = arena_alloc(&c->arena, strlen(text) + 1);
    int rc = word ? 0 : -1;
    if (rc)
        return err_set(e, "the configuration is too large");
    /* argv[0] is not an argument. */
    if (conf_list_add(c, &words, "gunicorn", 8, e))
        return -1;
    while ((rc = next_word(&text, word)) == 1) {
        if (words.n >= WORDS_MAX)
            return err_set(e, "GUNICORN_CMD_ARGS: more than %u words", WORDS_MAX);
        if (conf_list_add(c, &words, word, strlen(word), e))
            return -1;
    }
    if (rc)
        return err_set(e, "GUNICORN_CMD_ARGS: a quotation or backslash has no end");
    struct line l = {.c = c,
                     .argc = (int)words.n,
                     .argv = (char *const *)(size_t)words.items,
                     .next = 1,
                     .level = LEVEL_ENV,
                     .action = &action,
                     .e = e};
    if (read_line(&l)) {
        struct err inner = *e;
        return err_set(e, "GUNICORN_CMD_ARGS: %s", inner.text);
    }
    conf_priv(c)->gunicorn->action = action;
    return 0;
}

/* ---- the command line ---- */

static void help_flags(const struct gunicorn_row *row, char *out, size_t n)
{
    size_t at = 0;
    bool value = row->kind != GUNICORN_BOOL && row->kind != GUNICORN_UNBOOL;
    for (const char *p = row->flags; *p && at < n;) {
        size_t k = strcspn(p, ",");
        at += (size_t)snprintf(out + at, n - at, "%s%.*s", at ? ", " : "", (int)k, p);
        if (value && at < n)
            at += (size_t)snprintf(out + at, n - at, row->kind == GUNICORN_MAYBE ? " [%s]" : " %s",
                                   row->meta);
        p += k + (p[k] == ',');
    }
}

static void help(const char *program, FILE *out)
{
    char flags[160], text[320];
    fprintf(out, "usage: %s " USAGE "\n\noptions:\n", program);
    conf_help_line("-h, --help", "show this text and exit", HELP_INDENT, out);
    conf_help_line("-v, --version", "show the version and exit", HELP_INDENT, out);
    for (size_t i = 0; i < GUNICORN_ROWS; i++) {
        const struct gunicorn_row *row = &gunicorn_rows[i];
        if (!*row->flags)
            continue;
        help_flags(row, flags, sizeof flags);
        const char *before = row->mark == GUNICORN_MARK_I   ? "no effect: "
                             : row->mark == GUNICORN_MARK_Q ? "nothing to do: "
                                                            : "";
        if (*row->def && strcmp(row->def, "''") != 0)
            snprintf(text, sizeof text, "%s%s [%s]", before, row->meaning, row->def);
        else
            snprintf(text, sizeof text, "%s%s", before, row->meaning);
        conf_help_line(flags, text, HELP_INDENT, out);
    }
    fprintf(out, "\nEvery setting of weir --help-all works here as well, by its full name.\n");
}

int conf_gunicorn_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                               enum conf_action *action, int *status, struct err *e)
{
    struct line l = {.c = c,
                     .argc = argc,
                     .argv = argv,
                     .next = 1,
                     .level = LEVEL_CALLER,
                     .action = action,
                     .e = e};
    if (read_line(&l)) {
        *status = conf_gunicorn_status(c);
        return -1;
    }
    if (l.want_help)
        help(argv[0], out);
    else if (l.want_version)
        fprintf(out, "%s (version %s, settings of Gunicorn 26)\n", argv[0], WEIR_VERSION);
    if (l.want_help || l.want_version)
        *action = CONF_EXIT;
    return 0;
}

int conf_gunicorn_status(const struct conf *c)
{
    return conf_priv(c)->gunicorn->usage ? 2 : 1;
}

enum conf_action conf_gunicorn_action(const struct conf *c)
{
    return conf_priv(c)->gunicorn->action;
}

void conf_gunicorn_complain(const struct conf *c, const char *program, const struct err *e,
                            FILE *out)
{
    if (conf_priv(c)->gunicorn && conf_priv(c)->gunicorn->usage)
        fprintf(out, "usage: %s " USAGE "\n%s: error: %s\n", program, program, e->text);
    else
        fprintf(out, "weir: %s\n", e->text);
}

/* ---- the manual ---- */

static struct manual_option manual_row(const struct gunicorn_row *row, const char *name)
{
    bool flag = row->kind == GUNICORN_BOOL || row->kind == GUNICORN_UNBOOL;
    struct manual_option o = manual_option(name, KIND_TEXT, row->def, row->min, "", row->meaning);
    if (flag || strcmp(row->def, "''") == 0)
        o.def = "";
    o.min = "";
    o.repeats = row->kind == GUNICORN_LIST || row->kind == GUNICORN_PAIRS;
    o.no_effect = row->mark == GUNICORN_MARK_I;
    o.needless = row->mark == GUNICORN_MARK_Q;
    if (o.value == VALUE_WORD)
        o.word = row->meta;
    if (flag || row->kind == GUNICORN_MAYBE) {
        o.value = VALUE_NONE;
        o.word = "";
    } else if (row->kind == GUNICORN_CHOICE) {
        o.value = VALUE_CHOICE;
        o.words = row->max;
    } else if (strcmp(row->meta, "FILE") == 0 || strcmp(row->meta, "FILES") == 0) {
        o.value = VALUE_FILE;
    } else if (strcmp(row->meta, "DIR") == 0) {
        o.value = VALUE_FOLDER;
    }
    return o;
}

/* "-w,--workers": each long name of the flags is an option, the first has the letter. */
static void each_name(const struct gunicorn_row *row, manual_option_fn *fn, void *arg)
{
    char letter = 0;
    for (const char *p = row->flags; *p;) {
        char name[64];
        size_t n = strcspn(p, ",");
        if (n == 2) {
            letter = p[1];
        } else if (n > 2 && n - 2 < sizeof name) {
            memcpy(name, p + 2, n - 2);
            name[n - 2] = 0;
            struct manual_option o = manual_row(row, name);
            o.letter = letter;
            fn(arg, &o);
            letter = 0;
        }
        p += n + (p[n] == ',');
    }
}

void conf_gunicorn_each(manual_option_fn *fn, void *arg)
{
    struct manual_option o = manual_flag("help", "the usage");
    o.letter = 'h';
    fn(arg, &o);
    o = manual_flag("version", "the version");
    o.letter = 'v';
    fn(arg, &o);
    for (size_t i = 0; i < GUNICORN_ROWS; i++)
        each_name(&gunicorn_rows[i], fn, arg);
}
