/* yaml: see the header. */
#include "conf/yaml.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/reader.h"

static const char DEFAULT_NAME[] = "weir.yaml";
static const unsigned TLS_HOSTS_MAX = 1024;
static const unsigned TLS_NAMES_MAX = 4096;

/* ---- settings ---- */

/* Set `row` to a text that stands in `line`. */
static int put(struct reader *r, const struct conf_row *row, const char *text, size_t line)
{
    char place[340], source[420];
    struct conf_mark *mark = &conf_priv(r->c)->marks[row - conf_rows];
    struct err why = {{0}};
    snprintf(place, sizeof place, "%.300s:%zu", r->path, line);
    snprintf(source, sizeof source, "%s: %s", place, row->name);
    if (row == &conf_rows[CONF_ROW_app] && conf_app_check(text, &why))
        return reader_complain(r, line, "%s", why.text);
    if (conf_row_set(r->c, row, text, LEVEL_FILE, source, &why)) {
        bool placed = strncmp(why.text, place, strlen(place)) == 0;
        return placed ? err_set(r->e, "%s", why.text)
                      : reader_complain(r, line, "%s: %s", row->name, why.text);
    }
    if (mark->level == LEVEL_FILE)
        return (mark->place = conf_copy(r->c, place, strlen(place), r->e)) ? 0 : -1;
    return 0;
}

static const char *wanted(const struct conf_row *row)
{
    switch (row->kind) {
    case KIND_LIST:
        return "a list of texts";
    case KIND_BOOL:
        return "yes or no";
    case KIND_INT:
    case KIND_SIZE:
    case KIND_TIME:
    case KIND_OCTAL:
    case KIND_TEXT:
    case KIND_THREADS:
    case KIND_CHOICE:
    case KIND_WORKERS:
        break;
    }
    return "one value";
}

static int wrong_shape(struct reader *r, const struct conf_row *row)
{
    return reader_complain(r, reader_line(r), "%s takes %s, not a %s", row->name, wanted(row),
                    r->ev.type == YAML_MAPPING_START_EVENT    ? "mapping"
                    : r->ev.type == YAML_SEQUENCE_START_EVENT ? "list"
                                                              : "list inside a list");
}

/* One scalar for `row`, alone or as an item. */
static int take_scalar(struct reader *r, const struct conf_row *row)
{
    bool texts = row->kind == KIND_TEXT || row->kind == KIND_LIST;
    if (texts && reader_is_bool(r))
        return reader_complain(r, reader_line(r),
                        "%s takes a text, not yes or no; leave it out, or put %.5s in quotes if "
                        "that is the text",
                        row->name, reader_scalar(r).p);
    char *text = reader_text(r, row->name);
    if (!text)
        return -1;
    if (row->kind == KIND_LIST && !*text)
        return reader_complain(r, reader_line(r), "%s: the item is empty; take it out", row->name);
    return put(r, row, text, reader_line(r));
}

/* The items of a list; the present event is its start. */
static int take_list(struct reader *r, const struct conf_row *row)
{
    if (put(r, row, "", reader_line(r)) || reader_next(r)) /* an empty list is a value, too */
        return -1;
    while (r->ev.type != YAML_SEQUENCE_END_EVENT) {
        if (!reader_is_scalar(r))
            return reader_complain(r, reader_line(r), "%s: an item is a text, not a %s", row->name,
                            r->ev.type == YAML_MAPPING_START_EVENT ? "mapping; put it in quotes"
                                                                   : "list");
        if (reader_is_null(r))
            return reader_complain(r, reader_line(r), "%s: the item is empty; take it out", row->name);
        if (take_scalar(r, row) || reader_next(r))
            return -1;
    }
    return 0;
}

/* Settings whose items are LEFT=RIGHT may be written as a mapping. */
static bool takes_pairs(const struct conf_row *row)
{
    return row == &conf_rows[CONF_ROW_static_files] || row == &conf_rows[CONF_ROW_env];
}

static int take_pairs(struct reader *r, const struct conf_row *row)
{
    if (put(r, row, "", reader_line(r)) || reader_next(r))
        return -1;
    while (r->ev.type != YAML_MAPPING_END_EVENT) {
        size_t line = reader_line(r);
        if (!reader_is_scalar(r))
            return reader_complain(r, line, "%s: a name is a text", row->name);
        char *left = reader_text(r, row->name);
        if (!left || reader_next(r))
            return -1;
        if (!*left || strchr(left, '='))
            return reader_complain(r, line, "%s: '%.80s' is no name", row->name, left);
        if (!reader_is_scalar(r) || reader_is_bool(r))
            return reader_complain(r, reader_line(r), "%s: the value of '%.80s' is a text; put it in quotes",
                            row->name, left);
        char *right = reader_is_null(r) ? conf_copy(r->c, "", 0, r->e) : reader_text(r, row->name);
        if (!right)
            return -1;
        size_t n = strlen(left) + strlen(right) + 2;
        char *pair = arena_alloc(&r->c->arena, n);
        if (!pair)
            return err_set(r->e, "the configuration is too large");
        snprintf(pair, n, "%s=%s", left, right);
        if (put(r, row, pair, line) || reader_next(r))
            return -1;
    }
    return 0;
}

/* The value of a setting, whatever its shape; the present event is its first. */
static int take_value(struct reader *r, const struct conf_row *row)
{
    switch (r->ev.type) {
    case YAML_SCALAR_EVENT:
        return reader_is_null(r) ? 0 : take_scalar(r, row);
    case YAML_SEQUENCE_START_EVENT:
        return row->kind == KIND_LIST ? take_list(r, row) : wrong_shape(r, row);
    case YAML_MAPPING_START_EVENT:
        return takes_pairs(row) ? take_pairs(r, row) : wrong_shape(r, row);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_ALIAS_EVENT:
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        break;
    }
    return reader_complain_here(r, "a value is missing");
}

/* ---- tls ---- */

static bool name_byte(char b)
{
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '-' ||
           b == '_';
}

/* A host name, or *. before one, as certificates have it (RFC 6066 §3: ASCII, no address, no final
 * dot). */
static bool host_name_ok(const char *name)
{
    const char *p = strncmp(name, "*.", 2) == 0 ? name + 2 : name;
    bool first = true, digits = true;
    if (strlen(name) > 253)
        return false;
    for (; *p; p++) {
        if (*p == '.' && first)
            return false;
        if (*p != '.' && !name_byte(*p))
            return false;
        digits &= *p == '.' || (*p >= '0' && *p <= '9');
        first = *p == '.';
    }
    return !first && !digits;
}

static int take_name(struct reader *r, struct conf_tls_host *host)
{
    char *name = reader_is_scalar(r) && !reader_is_null(r) ? reader_text(r, "tls: names") : NULL;
    if (!name)
        return reader_is_scalar(r) && !reader_is_null(r) ? -1 : reader_complain_here(r, "tls: names takes host names");
    if (!host_name_ok(name))
        return reader_complain(r, reader_line(r),
                        "tls: '%.80s' is no host name; give one as example.org or "
                        "\"*.example.org\", and one with other letters in its xn-- form",
                        name);
    if (r->tls_names++ == TLS_NAMES_MAX)
        return reader_complain(r, reader_line(r), "tls: more than %u names", TLS_NAMES_MAX);
    for (char *p = name; *p; p++)
        *p = (char)slice_lower((unsigned char)*p);
    for (unsigned i = 0; i < r->c->n_tls_hosts; i++)
        for (unsigned k = 0; k < r->c->tls_hosts[i].names.n; k++)
            if (strcmp(r->c->tls_hosts[i].names.items[k], name) == 0)
                return reader_complain(r, reader_line(r),
                                "tls: '%.80s' is given twice; each name has one certificate", name);
    return conf_list_add(r->c, &host->names, name, strlen(name), r->e);
}

static int take_names(struct reader *r, struct conf_tls_host *host)
{
    if (r->ev.type != YAML_SEQUENCE_START_EVENT)
        return take_name(r, host);
    if (reader_next(r))
        return -1;
    while (r->ev.type != YAML_SEQUENCE_END_EVENT)
        if (take_name(r, host) || reader_next(r))
            return -1;
    return 0;
}

/* One entry; the present event is the start of its mapping. */
static int take_tls_host(struct reader *r, struct conf_tls_host *host)
{
    static const char *const keys[] = {"names", "certfile", "keyfile"};
    size_t begun = reader_line(r), lines[countof(keys)] = {0};
    if (r->ev.type != YAML_MAPPING_START_EVENT)
        return reader_complain_here(r, "tls: an entry has names:, certfile: and keyfile:");
    if (reader_next(r))
        return -1;
    while (r->ev.type != YAML_MAPPING_END_EVENT) {
        size_t line = reader_line(r), which = 0;
        char *key = reader_is_scalar(r) ? reader_text(r, "tls") : NULL;
        while (key && which < countof(keys) && !conf_name_eq(key, keys[which]))
            which++;
        if (!key || which == countof(keys))
            return reader_complain(r, line,
                            "tls: '%.80s' is unknown; an entry has names, certfile and keyfile",
                            key ? key : "");
        if (lines[which])
            return reader_complain(r, line, "tls: %s is given twice; the first is in line %zu",
                            keys[which], lines[which]);
        lines[which] = line;
        if (reader_next(r))
            return -1;
        if (which == 0) {
            if (take_names(r, host))
                return -1;
        } else if (!reader_is_null(r)) {
            char *file = reader_is_scalar(r) && !reader_is_bool(r) ? reader_text(r, keys[which]) : NULL;
            if (!file || !*file)
                return reader_is_scalar(r) && !file && !reader_is_bool(r)
                           ? -1
                           : reader_complain(r, line, "tls: %s takes the path of a file", keys[which]);
            *(which == 1 ? &host->certfile : &host->keyfile) = file;
        }
        if (reader_next(r))
            return -1;
    }
    if (!host->names.n)
        return reader_complain(r, begun,
                        "tls: the entry has no names; give the host names of its certificate");
    if (!*host->certfile)
        return reader_complain(
            r, begun, "tls: the entry for %.80s has no certfile; give the path of its certificate",
            host->names.items[0]);
    return 0;
}

static int take_tls(struct reader *r)
{
    struct conf *c = r->c;
    if (reader_is_null(r))
        return 0;
    if (r->ev.type != YAML_SEQUENCE_START_EVENT)
        return reader_complain_here(
            r, "tls takes a list: entries of names, certfile and keyfile, each behind a dash");
    if (reader_next(r))
        return -1;
    while (r->ev.type != YAML_SEQUENCE_END_EVENT) {
        if (c->n_tls_hosts == TLS_HOSTS_MAX)
            return reader_complain(r, reader_line(r), "tls: more than %u entries", TLS_HOSTS_MAX);
        /* Room doubles; what is left behind goes with the arena. */
        if ((c->n_tls_hosts & (c->n_tls_hosts - 1)) == 0) {
            size_t room = c->n_tls_hosts ? c->n_tls_hosts * 2 : 1;
            struct conf_tls_host *hosts = arena_alloc(&c->arena, room * sizeof *hosts);
            if (!hosts)
                return err_set(r->e, "the configuration is too large");
            if (c->n_tls_hosts)
                memcpy(hosts, c->tls_hosts, c->n_tls_hosts * sizeof *hosts);
            c->tls_hosts = hosts;
        }
        struct conf_tls_host host = {.certfile = "", .keyfile = ""};
        if (take_tls_host(r, &host))
            return -1;
        c->tls_hosts[c->n_tls_hosts++] = host;
        if (reader_next(r))
            return -1;
    }
    return 0;
}

/* ---- the whole ---- */

static int unknown_key(struct reader *r, const char *key)
{
    size_t line = reader_line(r), column = r->ev.start_mark.column + 1;
    if (conf_name_eq(key, "host") || conf_name_eq(key, "port"))
        return reader_complain(r, line, "%.4s is no setting of this file; write bind: HOST:PORT", key);
    struct conf_nearest near = {.wanted = key};
    for (unsigned i = 0; i < CONF_ROWS; i++)
        conf_nearest_try(&near, conf_rows[i].name);
    conf_nearest_try(&near, "tls");
    policy_nearest(&near, WHERE_FILE);
    if (near.best)
        return err_set(r->e, "%.300s:%zu:%zu: '%.80s' is no setting; did you mean %s?", r->path,
                       line, column, key, near.best);
    return err_set(r->e, "%.300s:%zu:%zu: '%.80s' is no setting; weir --help-all lists them",
                   r->path, line, column, key);
}

/* A name at the top and its value. */
static int take_setting(struct reader *r)
{
    size_t line = reader_line(r);
    if (!reader_is_scalar(r))
        return reader_complain(r, line, "the name of a setting is missing; write NAME: VALUE");
    char *key = reader_text(r, "a name");
    if (!key)
        return -1;
    const struct policy_key *policy = policy_key_find(WHERE_FILE, key);
    if (policy)
        return policy_take(r, policy);
    bool tls = conf_name_eq(key, "tls");
    const struct conf_row *row = tls ? NULL : conf_row_find(key);
    if (!tls && !row)
        return unknown_key(r, key);
    if (row == &conf_rows[CONF_ROW_config])
        return reader_complain(r, line, "config has no meaning in the file itself; take it out");
    size_t *seen = tls ? &r->tls_line : &r->lines[row - conf_rows];
    if (*seen)
        return reader_complain(r, line, "%s is given twice; the first is in line %zu",
                        tls ? "tls" : row->name, *seen);
    *seen = line;
    return reader_next(r) || (tls ? take_tls(r) : take_value(r, row)) ? -1 : 0;
}

/* Everything from the start of the stream to its end. */
static int take_stream(struct reader *r)
{
    if (reader_next(r) || reader_next(r)) /* the stream's start, which says nothing; the document's, or the end */
        return -1;
    if (r->ev.type == YAML_STREAM_END_EVENT)
        return 0; /* nothing but comments */
    if (reader_next(r))
        return -1;
    if (r->ev.type == YAML_MAPPING_START_EVENT) {
        if (reader_next(r))
            return -1;
        while (r->ev.type != YAML_MAPPING_END_EVENT)
            if (take_setting(r) || reader_next(r))
                return -1;
    } else if (!reader_is_null(r)) {
        return reader_complain_here(
            r, r->ev.type == YAML_SEQUENCE_START_EVENT
                   ? "this is a list; write NAME: VALUE, without the dash"
                   : "this is no setting; write NAME: VALUE, with a space behind the colon");
    }
    if (reader_next(r) || reader_next(r)) /* the document's end; then the stream's */
        return -1;
    if (r->ev.type != YAML_STREAM_END_EVENT)
        return reader_complain_here(r, "a second document begins here; a file has one");
    return policy_end(r);
}

static int parse(struct conf *c, const char *path, const char *text, size_t n, struct err *e)
{
    struct reader r = {.c = c, .path = path, .text = text, .n = n, .e = e};
    if (n > CONF_FILE_BYTES_MAX)
        return err_set(e, "%.300s:1: larger than 1 MiB; this is no file of settings", path);
    if (!yaml_parser_initialize(&r.parser))
        return err_set(e, "%.300s: out of memory", path);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    int rc = take_stream(&r);
    yaml_event_delete(&r.ev);
    yaml_parser_delete(&r.parser);
    return rc;
}

int conf_yaml_parse(struct conf *c, const char *path, const char *text, size_t n, struct err *e)
{
    return conf_plain_error(parse(c, path, text, n, e), e);
}

int conf_yaml_load(struct conf *c, struct err *e)
{
    struct conf_mark *mark = &conf_priv(c)->marks[CONF_ROW_config];
    bool given = mark->level > LEVEL_DEFAULT;
    char path[PATH_MAX];
    if (given && !*c->config)
        return 0;
    int length = given       ? snprintf(path, sizeof path, "%s", c->config)
                 : *c->chdir ? snprintf(path, sizeof path, "%s/%s", c->chdir, DEFAULT_NAME)
                             : snprintf(path, sizeof path, "%s", DEFAULT_NAME);
    if (length >= (int)sizeof path)
        return given ? err_set(e, "%s: the path is too long", mark->source) : 0;
    if (!given && access(path, F_OK) != 0)
        return 0;
    char *text;
    size_t n;
    if (conf_file_read(given ? mark->source : "config", path, &text, &n, e))
        return conf_plain_error(-1, e);
    int rc = conf_yaml_parse(c, path, text, n, e);
    free(text);
    if (rc || given)
        return rc;
    mark->source = "found in the folder";
    return (c->config = conf_copy(c, path, (size_t)length, e)) ? 0 : -1;
}
