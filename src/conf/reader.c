/* reader: see the header. */
#include "conf/reader.h"

#include <stdarg.h>
#include <string.h>

/* Ours needs five: mapping, routes, entry, rate, tiers. The parser's own stack is bounded with it.
 */
static const unsigned DEPTH_MAX = 8;

/* ---- complaints ---- */

/* `line` from 1. */
int reader_complain(struct reader *r, size_t line, const char *fmt, ...)
{
    char what[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_set(r->e, "%.300s:%zu: %s", r->path, line, what);
}

size_t reader_line(const struct reader *r)
{
    return r->ev.start_mark.line + 1;
}

int reader_complain_here(struct reader *r, const char *what)
{
    return reader_complain(r, reader_line(r), "%s", what);
}

/* How many lines the first `n` bytes end. */
static size_t count_lines(const struct reader *r, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < r->n && i < n; i++)
        lines += r->text[i] == '\n';
    return lines;
}

/* The bytes of line `line` (from 1), without its end. */
static struct slice line_text(const struct reader *r, size_t line)
{
    const char *p = r->text, *end = r->text + r->n;
    for (; line > 1 && p < end; line--) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline ? newline + 1 : end;
    }
    const char *newline = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    return slice_of(p, (size_t)((newline ? newline : end) - p));
}

static bool indented_with_tab(struct slice s)
{
    size_t i = 0;
    while (i < s.n && s.p[i] == ' ')
        i++;
    return i < s.n && s.p[i] == '\t';
}

/* What libyaml says, and what to do about it; the first that is found in its words. */
static const struct cure {
    const char *said, *cure;
} cures[] = {
    {"mapping values are not allowed",
     "put a value that contains ': ' in quotes, and look at the indentation"},
    {"could not find expected ':'", "write NAME: VALUE, with a space behind the colon"},
    {"did not find expected alphabetic", "put a text that begins with * or & in quotes"},
    {"found character that cannot start", "put a text that begins with such a character in quotes"},
    {"unexpected end of stream", "close the quote"},
    {"unknown escape", "in double quotes a backslash is written twice; or use single quotes"},
    {"expected ',' or ']'", "close the list with ]"},
    {"expected ',' or '}'", "close the mapping with }"},
    {"did not find expected key", "look at the indentation"},
    {"block sequence entries are not allowed", "put the dash on a line of its own, below the name"},
    {"did not find expected '-' indicator", "look at the indentation of the list"},
    {"did not find expected <document start>", "write NAME: VALUE lines only"},
};

/* The parser has stopped: where and why. */
static int explain(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line + 1;
    const char *problem = p->problem ? p->problem : "";

    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->e, "%.300s: out of memory", r->path);
    if (p->error == YAML_READER_ERROR) {
        line = count_lines(r, p->problem_offset) + 1;
        if (strstr(problem, "control characters"))
            return reader_complain(r, line, "a control character stands here; take it out");
        return reader_complain(r, line, "this is not UTF-8; save the file as UTF-8");
    }
    /* libyaml puts the end of the file on a line of its own. */
    size_t last = count_lines(r, r->n) + (r->n && r->text[r->n - 1] != '\n');
    if (line > last && last)
        line = last;
    if (indented_with_tab(line_text(r, line)))
        return reader_complain(r, line, "the line is indented with a tab; use spaces");
    const char *cure = "";
    for (size_t i = 0; i < countof(cures) && !*cure; i++)
        if (strstr(problem, cures[i].said))
            cure = cures[i].cure;
    char begun[40] = "";
    if (p->context && p->context_mark.line + 1 < line)
        snprintf(begun, sizeof begun, ", begun in line %zu", p->context_mark.line + 1);
    return reader_complain(r, line, "this is not YAML (%.200s%s)%s%s", problem, begun,
                           *cure ? "; " : "", cure);
}

/* ---- events ---- */

static bool opens(yaml_event_type_t type)
{
    return type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
}

static bool closes(yaml_event_type_t type)
{
    return type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT;
}

static const yaml_char_t *tag_of(const yaml_event_t *ev)
{
    return ev->type == YAML_SCALAR_EVENT           ? ev->data.scalar.tag
           : ev->type == YAML_SEQUENCE_START_EVENT ? ev->data.sequence_start.tag
           : ev->type == YAML_MAPPING_START_EVENT  ? ev->data.mapping_start.tag
                                                   : NULL;
}

static const yaml_char_t *anchor_of(const yaml_event_t *ev)
{
    return ev->type == YAML_SCALAR_EVENT           ? ev->data.scalar.anchor
           : ev->type == YAML_SEQUENCE_START_EVENT ? ev->data.sequence_start.anchor
           : ev->type == YAML_MAPPING_START_EVENT  ? ev->data.mapping_start.anchor
                                                   : NULL;
}

/* Go on to the next event, and refuse what is not data. */
int reader_next(struct reader *r)
{
    yaml_event_delete(&r->ev);
    if (!yaml_parser_parse(&r->parser, &r->ev)) {
        r->ev = (yaml_event_t){0};
        return explain(r);
    }
    if (r->ev.type == YAML_ALIAS_EVENT)
        return reader_complain_here(
            r, "*NAME refers to another place, which is not supported; write the value "
               "again, or put a text that begins with * in quotes");
    if (anchor_of(&r->ev))
        return reader_complain_here(
            r, "&NAME marks a value for others, which is not supported; take it out, or "
               "put a text that begins with & in quotes");
    if (tag_of(&r->ev))
        return reader_complain_here(
            r, "a tag (!...) has no meaning here; take it out, or put a text that begins "
               "with ! in quotes");
    if (opens(r->ev.type) && ++r->depth > DEPTH_MAX)
        return reader_complain_here(r, "lists and mappings are nested too deeply");
    if (closes(r->ev.type))
        r->depth--;
    return 0;
}

/* ---- scalars ---- */

bool reader_is_scalar(const struct reader *r)
{
    return r->ev.type == YAML_SCALAR_EVENT;
}

struct slice reader_scalar(const struct reader *r)
{
    return slice_of((const char *)r->ev.data.scalar.value, r->ev.data.scalar.length);
}

static bool is_plain(const struct reader *r)
{
    return reader_is_scalar(r) && r->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

bool reader_is_null(const struct reader *r)
{
    return is_plain(r) && (reader_scalar(r).n == 0 || slice_eq(reader_scalar(r), SLICE("~")) ||
                           slice_ieq(reader_scalar(r), SLICE("null")));
}

/* A bare yes, no, true, …: what other readers of YAML take for a boolean. */
bool reader_is_bool(const struct reader *r)
{
    static const char *const words[] = {"yes", "no", "true", "false", "on", "off"};
    for (size_t i = 0; is_plain(r) && i < countof(words); i++)
        if (slice_ieq(reader_scalar(r), slice_str(words[i])))
            return true;
    return false;
}

/* The scalar as a text of the conf, without the line end of a block; NULL and *e where it cannot be
 * one. */
char *reader_text(struct reader *r, const char *what)
{
    struct slice s = reader_scalar(r);
    bool block = r->ev.data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
                 r->ev.data.scalar.style == YAML_FOLDED_SCALAR_STYLE;
    while (block && s.n && s.p[s.n - 1] == '\n')
        s.n--;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) {
            reader_complain(r, reader_line(r), "%.64s holds a %s", what,
                            s.p[i] == '\n' ? "line break; write it in one line"
                                           : "control character");
            return NULL;
        }
    return conf_copy(r->c, s.p, s.n, r->e);
}
