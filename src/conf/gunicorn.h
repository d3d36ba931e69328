/*
 * gunicorn: the rows of gunicorn.def and the values that they got. Inside of src/conf; what others
 * need of it stands in conf.h (conf_gunicorn_…).
 *
 * Owner:   rows are constants; values live in the conf's arena.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_GUNICORN_H
#define WEIR_CONF_GUNICORN_H

#include "conf/conf_private.h"

/* The source of what nobody gave. */
#define GUNICORN_FROM "default of gunicorn"

enum gunicorn_kind {
    GUNICORN_INT = 0,
    GUNICORN_TIME,
    GUNICORN_THREADS,
    GUNICORN_WORKERS,
    GUNICORN_TEXT,
    GUNICORN_CHOICE,
    GUNICORN_MAYBE,
    GUNICORN_LIST,
    GUNICORN_BOOL,
    GUNICORN_UNBOOL,
    GUNICORN_BITS,
    GUNICORN_PAIRS,
    GUNICORN_CODE,
};

enum gunicorn_mark { GUNICORN_MARK_E = 0, GUNICORN_MARK_P, GUNICORN_MARK_Q, GUNICORN_MARK_I };

/* One setting; the columns are explained in gunicorn.def. */
struct gunicorn_row {
    const char *name;
    const char *flags;
    enum gunicorn_kind kind;
    const char *meta, *def, *min, *max;
    enum gunicorn_mark mark;
    const char *setting, *meaning;
};

#define GUNICORN(name, flags, KIND, meta, def, min, max, MARK, setting, meaning) GUNICORN_##name,
enum gunicorn_id {
#include "conf/gunicorn.def"
    GUNICORN_ROWS
};
#undef GUNICORN

extern const struct gunicorn_row gunicorn_rows[GUNICORN_ROWS];

/* What a setting got. */
struct gunicorn_value {
    enum conf_level level;
    const char *source;     /* "--workers", "gunicorn.conf.py: workers"; NULL at LEVEL_DEFAULT */
    struct conf_list texts; /* one, several of a list, none for None */
};

struct gunicorn_conf {
    struct gunicorn_value values[GUNICORN_ROWS];
    /* Of the environment; NULL = not set. */
    const char *web_concurrency, *forwarded_allow_ips, *sendfile, *script_name;
    bool usage;              /* what is wrong is how the command line is written, not a value */
    enum conf_action action; /* what GUNICORN_CMD_ARGS asks for */
};

/* ---- gunicorn.c ---- */
/* By the name of the setting, - and _ being the same; NULL = unknown. */
const struct gunicorn_row *gunicorn_find(const char *name);
struct gunicorn_value *gunicorn_value(const struct conf *c, const struct gunicorn_row *row);
/* Check `text` and keep it unless a stronger source has spoken; lists grow. */
WEIR_MUST_USE int gunicorn_set(struct conf *c, const struct gunicorn_row *row, const char *text,
                               enum conf_level level, const char *source, struct err *e);

/* What a setting got, the last text of it or its default ("" = none), and who gave that. */
const struct gunicorn_value *gunicorn_given(const struct conf *c, enum gunicorn_id id);
const char *gunicorn_text(const struct conf *c, enum gunicorn_id id);
const char *gunicorn_source(const struct conf *c, enum gunicorn_id id);
/* A mode in Python's notation: 18, 0o22, 0x12, 0b10010, and 022 as in C; at most 0777. */
WEIR_MUST_USE int gunicorn_bits(const struct gunicorn_row *row, const char *text,
                                const char *source, int64_t *out, struct err *e);

/* ---- gunicorn_cli.c ---- */
/* Read GUNICORN_CMD_ARGS. */
WEIR_MUST_USE int conf_gunicorn_words(struct conf *c, const char *text, struct err *e);

#endif
