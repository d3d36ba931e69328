/*
 * conf_private: the table of settings and what the files of this folder share.
 *
 * Owner:   rows are constants; everything else lives in the conf's arena.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_PRIVATE_H
#define WEIR_CONF_PRIVATE_H

#include "base/slice.h"
#include "conf/conf.h"
#include "conf/file.h"

enum conf_kind {
    KIND_BOOL = 0,
    KIND_INT,
    KIND_SIZE,
    KIND_TIME,
    KIND_OCTAL,
    KIND_TEXT,
    KIND_LIST,
    KIND_THREADS,
    KIND_CHOICE,
    KIND_WORKERS,
};

/* One setting of settings.def. */
struct conf_row {
    const char *name; /* with dashes */
    enum conf_kind kind;
    const char *def;       /* default as written by a user */
    const char *min, *max; /* range as written; "" = none. CHOICE: the words in max */
    const char *group, *help;
    size_t offset; /* of the field in struct conf */
};

#define SETTING(field, KIND, name, def, min, max, group, help) CONF_ROW_##field,
enum conf_row_id {
#include "conf/settings.def"
    CONF_ROWS
};
#undef SETTING

extern const struct conf_row conf_rows[CONF_ROWS];

/* Who set a value; the stronger stays. */
enum conf_level { LEVEL_DEFAULT = 0, LEVEL_FILE, LEVEL_ENV, LEVEL_CALLER };

struct conf_mark {
    enum conf_level level;
    const char *source; /* for messages; owned by the conf */
    const char *place;  /* "weir.yaml:12" for --print-config; NULL: the source. Owned by the conf */
};

/* What is not a field: addresses before they are binds, where values came from. */
struct conf_priv {
    struct conf_mark marks[CONF_ROWS];
    const char *host, *port;     /* --host, --port; NULL = not given */
    const char *port_env;        /* PORT of the environment; NULL = not given */
    const char *port_env_source; /* "PORT", or "FILE:LINE: PORT" */
    const char *concurrency;     /* WEB_CONCURRENCY of the environment; NULL = not given */
    const char *concurrency_source;
    const char *unix_socket;     /* Waitress'; NULL = not given */
    struct conf_list listen;     /* Waitress' */
    struct conf_list sockets;    /* Waitress': descriptors as text */
    bool have_sockets;           /* sockets was given, perhaps empty */
    int systemd_fds;             /* LISTEN_FDS meant for this process; 0 = none */
    struct conf_env_list added;  /* from --env-file */
    struct conf_list notes;      /* accepted without effect */
    struct gunicorn_conf *gunicorn; /* Gunicorn's values; NULL in other dialects */
};

static inline struct conf_priv *conf_priv(const struct conf *c)
{
    return c->priv;
}

/* ---- table.c ---- */
/* The row of a name written with dashes or underscores; NULL = unknown. */
const struct conf_row *conf_row_find(const char *name);
/* Are the names equal, - and _ being the same? */
bool conf_name_eq(const char *a, const char *b);

/* Collects the nearest of the names shown to it. */
struct conf_nearest {
    const char *wanted;
    const char *best; /* NULL = nothing near enough */
    unsigned distance;
};
void conf_nearest_try(struct conf_nearest *near, const char *name);

/* ---- value.c: texts to values and back ---- */
WEIR_MUST_USE int conf_value_bool(const char *text, const char *source, bool *out, struct err *e);
/* `min` and `max` as written in a row, "" = none. */
WEIR_MUST_USE int conf_value_number(enum conf_kind kind, const char *text, const char *min,
                                    const char *max, const char *source, int64_t *out,
                                    struct err *e);
WEIR_MUST_USE int conf_value_threads(const char *text, const char *min, const char *max,
                                     const char *source, struct conf_threads *out, struct err *e);
WEIR_MUST_USE int conf_value_choice(struct conf *c, const char *text, const char *words,
                                    const char *source, const char **out, struct err *e);
/* As a user would type it; at most n bytes with NUL. Secrets are not shown. */
void conf_value_format(const struct conf *c, const struct conf_row *row, char *out, size_t n);

/* ---- conf.c ---- */
/* A copy of n bytes in the conf's arena, NUL-terminated; NULL and *e when memory is exhausted. */
char *conf_copy(struct conf *c, const char *p, size_t n, struct err *e);
WEIR_MUST_USE int conf_list_add(struct conf *c, struct conf_list *list, const char *p, size_t n,
                                struct err *e);
/* Set the field of `row` unless a stronger source has spoken. */
WEIR_MUST_USE int conf_row_set(struct conf *c, const struct conf_row *row, const char *value,
                               enum conf_level level, const char *source, struct err *e);
WEIR_MUST_USE int conf_note(struct conf *c, struct err *e, const char *fmt, ...) WEIR_PRINTF(3, 4);
/* Put what `env` names last into what is added to the environment. */
WEIR_MUST_USE int conf_env_apply(struct conf *c, struct err *e);
static inline const struct conf_mark *conf_mark(const struct conf *c, enum conf_row_id id)
{
    return &conf_priv(c)->marks[id];
}
/* Errors quote what was typed: when rc is not 0, make the text safe for one line of a terminal.
 * Returns rc. */
int conf_plain_error(int rc, struct err *e);

/* ---- check.c ---- */
/* Is `text` MODULE:ATTRIBUTE? Otherwise a sentence with the cure. */
WEIR_MUST_USE int conf_app_check(const char *text, struct err *e);
/* Can the folder of --chdir be entered? Only where a program starts: serve() changes no folder. */
WEIR_MUST_USE int conf_chdir_check(const struct conf *c, struct err *e);
/* Are the folders of `static` there, seen from that folder? */
WEIR_MUST_USE int conf_folders_check(const struct conf *c, struct err *e);

/* ---- bind.c ---- */
struct conf_bind_rules {
    const char *host; /* for a lone port */
    const char *port; /* for a lone host */
    bool last_colon;  /* HOST:PORT is cut at the last colon, as Waitress does */
};
WEIR_MUST_USE int conf_bind_parse(struct conf *c, const char *text, const char *source,
                                  const struct conf_bind_rules *rules, struct conf_bind *out,
                                  struct err *e);
/* 0..65535 or a service name. */
WEIR_MUST_USE int conf_port_check(const char *port, const char *source, struct err *e);
/* Has a stronger source named addresses than the file that `bind` comes from? */
bool conf_bind_is_weaker(const struct conf *c);
/* c->binds from everything that was given. */
WEIR_MUST_USE int conf_binds_make(struct conf *c, struct err *e);

/* ---- admin.c ---- */
/* The settings of the group `seeing`; c->admin_bind. */
WEIR_MUST_USE int conf_admin_check(struct conf *c, struct err *e);

/* ---- waitress.c ---- */
WEIR_MUST_USE int conf_waitress_defaults(struct conf *c, struct err *e);
/* 1: not a name of Waitress; 0: set; -1: wrong. */
WEIR_MUST_USE int conf_waitress_set(struct conf *c, const char *name, const char *value,
                                    const char *source, struct err *e);
void conf_waitress_nearest(struct conf_nearest *near);
WEIR_MUST_USE int conf_waitress_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                                             enum conf_action *action, int *status, struct err *e);
/* Conflicts of its own; the rest is conf_finish's. */
WEIR_MUST_USE int conf_waitress_finish(struct conf *c, struct err *e);
void conf_waitress_usage(const char *program, FILE *out);

/* ---- gunicorn.c, gunicorn_apply.c, gunicorn_cli.c ---- */
WEIR_MUST_USE int conf_gunicorn_init(struct conf *c, struct err *e);
WEIR_MUST_USE int conf_gunicorn_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                                             enum conf_action *action, int *status, struct err *e);
/* One variable of the environment that Gunicorn minds; others are left alone. */
WEIR_MUST_USE int conf_gunicorn_variable(struct conf *c, const char *name, const char *value,
                                         const char *source, struct err *e);
/* Everything that was given to settings of Weir: the first step of conf_finish. */
WEIR_MUST_USE int conf_gunicorn_apply(struct conf *c, struct err *e);
/* Exit code after a refusal: 2 = the command line is no such, 1 = a value is wrong. */
int conf_gunicorn_status(const struct conf *c);
/* What GUNICORN_CMD_ARGS asks for. */
enum conf_action conf_gunicorn_action(const struct conf *c);
void conf_gunicorn_complain(const struct conf *c, const char *program, const struct err *e,
                            FILE *out);

/* ---- cli.c, help.c ---- */
WEIR_MUST_USE int conf_weir_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                                         enum conf_action *action, int *status, struct err *e);
void conf_help(const char *program, FILE *out);
/* `text` for a cell of a Markdown table, which must not contain a bare bar. */
void conf_help_cell(const char *text, FILE *out);
/* One option and its text, broken at words; the text begins in column `indent`. */
void conf_help_line(const char *option, const char *text, unsigned indent, FILE *out);
void conf_help_all(const char *program, FILE *out);
/* The groups of settings.def in the order of the texts. */
struct conf_group {
    const char *name, *title;
};
extern const struct conf_group conf_groups[];
extern const unsigned conf_groups_n;
/* WEIR_MAX_BODY_SIZE. */
void conf_variable(const struct conf_row *row, char *out, size_t n);

/* ---- manual.c, complete.c: written into packages ---- */
void conf_manual(FILE *out); /* weir(1), roff */
void conf_complete_bash(FILE *out);
void conf_complete_zsh(FILE *out);
void conf_complete_fish(FILE *out);

#endif
