/*
 * gunicorn: Gunicorn's settings, carried over to those of Weir.
 *
 * Values are kept as texts, each with the strength of its source, until all sources have been
 * read: command line, GUNICORN_CMD_ARGS, environment, weir.yaml here, then the configuration file,
 * which Python executes. Then gunicorn_apply.c turns them into settings of Weir.
 */
#include "conf/gunicorn.h"

#include <string.h>

#define GUNICORN(name, flags, KIND, meta, def, min, max, MARK, setting, meaning)                   \
    {#name, flags, GUNICORN_##KIND, meta, def, min, max, GUNICORN_MARK_##MARK, setting, meaning},
const struct gunicorn_row gunicorn_rows[GUNICORN_ROWS] = {
#include "conf/gunicorn.def"
};
#undef GUNICORN

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

const struct gunicorn_value *gunicorn_given(const struct conf *c, enum gunicorn_id id)
{
    return &conf_priv(c)->gunicorn->values[id];
}

/* The last text of a setting, or its default; "" when there is none. */
const char *gunicorn_text(const struct conf *c, enum gunicorn_id id)
{
    const struct gunicorn_value *v = gunicorn_given(c, id);
    if (v->level == LEVEL_DEFAULT)
        return gunicorn_rows[id].def;
    return v->texts.n ? v->texts.items[v->texts.n - 1] : "";
}

const char *gunicorn_source(const struct conf *c, enum gunicorn_id id)
{
    const struct gunicorn_value *v = gunicorn_given(c, id);
    return v->level == LEVEL_DEFAULT ? GUNICORN_FROM : v->source;
}

/* 18, 0o22, 0x12, 0b10010, and 022 as in C. */
int gunicorn_bits(const struct gunicorn_row *row, const char *text, const char *source,
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
        return gunicorn_bits(row, text, source, &n, e);
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
