/* env_file: NAME=VALUE lines, as .env files have them. */
#include "conf/conf_private.h"

#include <stdlib.h>
#include <string.h>

static const unsigned NAMES_MAX = 4096;

struct reader {
    struct arena *arena;
    const char *path;
    const char *p, *end;
    unsigned line;
    struct err *e;
};

static int complain(struct reader *r, unsigned line, const char *what)
{
    return err_set(r->e, "%.400s:%u: %s", r->path, line, what);
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blanks(struct reader *r)
{
    while (r->p < r->end && blank(*r->p))
        r->p++;
}

static void skip_line(struct reader *r)
{
    while (r->p < r->end && *r->p != '\n')
        r->p++;
}

static bool name_byte(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (!first && ((c >= '0' && c <= '9') || c == '.' || c == '-'));
}

static struct slice take_name(struct reader *r)
{
    const char *from = r->p;
    while (r->p < r->end && name_byte(*r->p, r->p == from))
        r->p++;
    return slice_of(from, (size_t)(r->p - from));
}

static char unescape(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return c;
    }
}

/* A quoted value up to its closing quote; it may run over lines. `out` has room for all that is
 * left. */
static int take_quoted(struct reader *r, char *out, size_t *n)
{
    char quote = *r->p++;
    unsigned begun = r->line;
    for (; r->p < r->end && *r->p != quote; r->p++) {
        if (*r->p == '\n')
            r->line++;
        if (quote == '"' && *r->p == '\\' && r->p + 1 < r->end && strchr("nrt\"\\$", r->p[1]))
            out[(*n)++] = unescape(*++r->p);
        else
            out[(*n)++] = *r->p;
    }
    if (r->p == r->end)
        return complain(r, begun,
                        quote == '"' ? "the closing \" is missing" : "the closing ' is missing");
    r->p++;
    skip_blanks(r);
    if (r->p < r->end && *r->p != '\n' && *r->p != '#')
        return complain(r, r->line, "there is text behind the closing quote");
    return 0;
}

/* A bare value: to the end of the line or to " #". */
static void take_bare(struct reader *r, char *out, size_t *n)
{
    for (; r->p < r->end && *r->p != '\n'; r->p++) {
        if (*r->p == '#' && (*n == 0 || blank(out[*n - 1])))
            break;
        out[(*n)++] = *r->p;
    }
    while (*n && blank(out[*n - 1]))
        (*n)--;
}

static char *copy_text(struct reader *r, const char *p, size_t n)
{
    char *copy = arena_alloc(r->arena, n + 1);
    if (!copy) {
        err_set(r->e, "%.400s: out of memory", r->path);
        return NULL;
    }
    if (n)
        memcpy(copy, p, n);
    copy[n] = 0;
    return copy;
}

static int put(struct reader *r, struct conf_env_list *out, struct conf_env item)
{
    for (unsigned i = 0; i < out->n; i++)
        if (strcmp(out->items[i].name, item.name) == 0) {
            out->items[i] = item;
            return 0;
        }
    if (out->n == NAMES_MAX)
        return complain(r, r->line, "too many names");
    /* Room doubles; what is left behind goes with the arena. */
    if ((out->n & (out->n - 1)) == 0) {
        size_t room = out->n ? out->n * 2 : 1;
        struct conf_env *items = arena_alloc(r->arena, room * sizeof *items);
        if (!items)
            return err_set(r->e, "%.400s: out of memory", r->path);
        if (out->n)
            memcpy(items, out->items, out->n * sizeof *items);
        out->items = items;
    }
    out->items[out->n++] = item;
    return 0;
}

/* The line at r->p, which is neither blank nor a comment. `scratch` holds any value. */
static int take_pair(struct reader *r, char *scratch, struct conf_env_list *out)
{
    char source[450];
    size_t n = 0;
    unsigned line = r->line;
    struct slice name = take_name(r);
    if (slice_eq(name, SLICE("export")) && r->p < r->end && blank(*r->p)) {
        skip_blanks(r);
        name = take_name(r);
    }
    skip_blanks(r);
    if (name.n == 0 || r->p == r->end || *r->p != '=')
        return complain(r, line, "this is not NAME=VALUE");
    r->p++;
    skip_blanks(r);
    if (r->p < r->end && (*r->p == '"' || *r->p == '\'')) {
        if (take_quoted(r, scratch, &n))
            return -1;
    } else {
        take_bare(r, scratch, &n);
    }
    if (memchr(scratch, 0, n))
        return complain(r, line, "the value contains a NUL byte");

    snprintf(source, sizeof source, "%.400s:%u", r->path, line);
    struct conf_env item = {copy_text(r, name.p, name.n), copy_text(r, scratch, n),
                            copy_text(r, source, strlen(source))};
    if (!item.name || !item.value || !item.source)
        return -1;
    return put(r, out, item);
}

int conf_env_parse(struct arena *arena, const char *path, const char *text, size_t n,
                   struct conf_env_list *out, struct err *e)
{
    struct reader r = {.arena = arena, .path = path, .p = text, .end = text + n, .line = 1, .e = e};
    if (n > CONF_FILE_BYTES_MAX)
        return err_set(e, "%.400s: larger than 1 MiB; this is not a file of NAME=VALUE lines",
                       path);
    char *scratch = malloc(n + 1);
    if (!scratch)
        return err_set(e, "%.400s: out of memory", path);
    int rc = 0;
    /* Some editors put a byte order mark first. */
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        r.p += 3;
    while (rc == 0 && r.p < r.end) {
        skip_blanks(&r);
        if (r.p < r.end && *r.p != '\n' && *r.p != '#')
            rc = take_pair(&r, scratch, out);
        skip_line(&r);
        if (r.p < r.end) {
            r.p++;
            r.line++;
        }
    }
    free(scratch);
    return rc;
}

int conf_env_read(struct arena *arena, const char *path, struct conf_env_list *out, struct err *e)
{
    char *text;
    size_t n;
    if (conf_file_read("--env-file", path, &text, &n, e))
        return -1;
    int rc = conf_env_parse(arena, path, text, n, out, e);
    free(text);
    return rc;
}
