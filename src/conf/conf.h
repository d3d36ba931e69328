/*
 * conf: every setting, its sources, and what is wrong with it.
 *
 * Sources, later ones win: defaults < weir.yaml < environment (WEIR_…, PORT) < command line. All of
 * them end in conf_set with a text, so there is one parser and one set of messages. A stronger
 * source wins in whatever order the sources are read, because the command line must be read before
 * the files that it names.
 *
 * Units:   TIME is milliseconds, SIZE is bytes.
 * Owner:   struct conf owns all it points to; conf_fini frees it. Read-only after conf_finish.
 * Errors:  -1 and one sentence in *e that names the setting, the value, what is allowed.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_CONF_H
#define WEIR_CONF_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"
#include "conf/policy.h"

struct conf_list {
    const char **items; /* NUL-terminated texts, owned by the conf */
    unsigned n;
};

struct conf_threads {
    int64_t min, max; /* 1 <= min <= max */
    bool is_auto;
};

/* Whose command line it is; decides names, defaults and messages. */
enum conf_dialect { CONF_WEIR = 0, CONF_WAITRESS, CONF_GUNICORN };

enum conf_bind_kind { CONF_BIND_TCP = 0, CONF_BIND_UNIX, CONF_BIND_FD };
struct conf_bind {
    enum conf_bind_kind kind;
    const char *host; /* TCP: name or address without brackets; "" or "*" = all */
    const char *port; /* TCP: number or service name */
    const char *path; /* UNIX: path; a leading @ is an abstract name */
    int fd;           /* FD */
    const char *text; /* as written, for messages */
};

#define CONF_FIELD_BOOL bool
#define CONF_FIELD_INT int64_t
#define CONF_FIELD_SIZE int64_t
#define CONF_FIELD_TIME int64_t
#define CONF_FIELD_OCTAL int64_t
#define CONF_FIELD_TEXT const char *
#define CONF_FIELD_LIST struct conf_list
#define CONF_FIELD_THREADS struct conf_threads
#define CONF_FIELD_CHOICE const char *
#define CONF_FIELD_WORKERS int64_t

/* One more name for TLS (SNI), from the `tls` list of the YAML file. */
struct conf_tls_host {
    struct conf_list names; /* "example.org", "*.example.org" */
    const char *certfile, *keyfile;
};

struct conf {
#define SETTING(field, KIND, name, def, min, max, group, help) CONF_FIELD_##KIND field;
#include "conf/settings.def"
#undef SETTING
    enum conf_dialect dialect;
    struct conf_bind
        *binds; /* made by conf_finish from bind / host / port / listen / unix socket */
    unsigned n_binds;
    struct conf_bind admin_bind; /* of `admin`, made by conf_finish; meaningless where that is "" */
    struct conf_tls_host *tls_hosts;
    unsigned n_tls_hosts;
    struct conf_policy policy; /* of the YAML file; no text in it is NULL, also when nothing is given */
    struct arena arena; /* owns the texts */
    void *priv;         /* where each value came from, pending waitress host/port, … */
};

/* What a command line asks for. */
enum conf_action {
    CONF_RUN = 0,
    CONF_EXIT,  /* help or version was printed: exit with *status */
    CONF_CHECK, /* --check-config: load, check, import, say it is fine */
    CONF_PRINT, /* --print-config */
};

/* Defaults of the dialect. */
WEIR_MUST_USE int conf_init(struct conf *c, enum conf_dialect dialect, struct err *e);
void conf_fini(struct conf *c);

/* Set one setting by its name in the dialect ("max-body-size" or "max_body_size"); in CONF_WAITRESS
 * by Waitress' names first, then by Weir's own. `source` is for messages ("--threads",
 * "WEIR_THREADS", "serve(threads=…)"; NULL: the name). For LIST it appends. "sockets"
 * (CONF_WAITRESS) takes numbers of descriptors, "call" and "factory" the same flag. */
WEIR_MUST_USE int conf_set(struct conf *c, const char *name, const char *value, const char *source,
                           struct err *e);

/* Read WEIR_…, PORT and WEB_CONCURRENCY from `environ_` (NULL-terminated NAME=VALUE); nothing in CONF_WAITRESS. */
WEIR_MUST_USE int conf_environment(struct conf *c, char *const *environ_, struct err *e);

/*
 * Read a command line; argv[0] is the program as it shall be named in messages. Help and version go
 * to `out`. Accepted options without effect are said in one line each on `out_err` (NULL: kept for
 * conf_notes). On CONF_EXIT *status is the exit code. Errors: -1, *e, and *status is the exit code
 * of the peer.
 */
WEIR_MUST_USE int conf_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                                    FILE *out_err, enum conf_action *action, int *status,
                                    struct err *e);

/* Cores that this process may use: affinity and the quota of its control group; at least 1. */
unsigned conf_cores(void);

/* Check relations between settings, make binds and defaults that depend on others. */
WEIR_MUST_USE int conf_finish(struct conf *c, struct err *e);

/*
 * All of the above in the right order: command line, environment, files of env-file, weir.yaml, is
 * there an application, conf_finish. This is what a program's start calls, between conf_init and
 * conf_fini. Arguments and result as conf_command_line. Notes stay for conf_notes.
 */
WEIR_MUST_USE int conf_load(struct conf *c, int argc, char *const *argv, char *const *environ_,
                            FILE *out, enum conf_action *action, int *status, struct err *e);

/* Write what was accepted but has no effect, one line each, and forget it. */
void conf_notes(struct conf *c, FILE *out);

/* Write an error of conf_load as the dialect's users expect it: "weir: …", or Waitress' "Error: …"
 * with the usage below. */
void conf_complain(const struct conf *c, const char *program, const struct err *e, FILE *out);

/* NAME=VALUE of a file, or what a file adds to the environment. */
struct conf_env {
    const char *name, *value; /* owned by the conf */
    const char *source;       /* "FILE:LINE", owned by the conf */
};
struct conf_env_list {
    struct conf_env *items; /* owned by the conf */
    unsigned n;
};

/*
 * Read NAME=VALUE lines: blank lines, # comments, `export `, 'verbatim', "with \n \t \" \\ \$"
 * (both may run over lines), bare values trimmed and ended by " #". Nothing is expanded. Appends to
 * *out; a later line wins over an earlier one of the same name. Errors name `path` and the line.
 */
WEIR_MUST_USE int conf_env_parse(struct arena *arena, const char *path, const char *text, size_t n,
                                 struct conf_env_list *out, struct err *e);
WEIR_MUST_USE int conf_env_read(struct arena *arena, const char *path, struct conf_env_list *out,
                                struct err *e);

/* What the files of env-file add to the environment (names already set there are left out), then
 * what `env` puts there. For the caller to put into its own environment; filled by conf_load. */
struct conf_env_list conf_env_added(const struct conf *c);

/* "/PREFIX=FOLDER" of `static` as its parts: the prefix without a final slash ("" for "/"), lent by
 * `item` as the folder is. */
WEIR_MUST_USE int conf_static_split(const char *item, struct slice *prefix, const char **folder,
                                    struct err *e);

/*
 * CONF_GUNICORN: conf_load reads command line, environment and weir.yaml, but does not finish: next
 * comes the configuration file, which Python executes. Then conf_finish.
 */
struct conf_gunicorn_setting {
    const char *name;         /* with underscores */
    const char *kind;         /* int time threads workers text list bool bits pairs code */
    const char *def;          /* as written by a user; "" = None; "''" = an empty text */
    const char *arity;        /* code: how many arguments a hook takes; "" = no hook */
    const char *const *texts; /* what was given; n is 0 for None. Owned by the conf */
    unsigned n;
    const char *source; /* where it was given; NULL = nowhere */
};
/* The i-th setting; false behind the last one. */
bool conf_gunicorn_get(const struct conf *c, unsigned i, struct conf_gunicorn_setting *out);
/* A value of the configuration file: the texts of a list, one text, or none for None. `source`
 * names file and setting. An error when it is wrong, also where a stronger source has spoken. */
WEIR_MUST_USE int conf_gunicorn_set(struct conf *c, const char *name, const char *const *texts,
                                    unsigned n, const char *source, struct err *e);

/* Can the files that `identify` and admin-token-file name be read, seen from `folder` ("" = the current one)? Behind
 * conf_finish, and only where a server starts: whoever asks for its health may be another user, from whom
 * secrets are kept. */
WEIR_MUST_USE int conf_policy_files_check(const struct conf *c, const char *folder, struct err *e);

/* The token that the admin listener asks for: admin-token, or what is in admin-token-file (seen from
 * `folder`, "" = the current one), without white space around it; "": none, or there is no admin listener. -1:
 * the file cannot be read, or holds no token. */
#define CONF_TOKEN_BYTES_MIN 16
#define CONF_TOKEN_BYTES_MAX 512
WEIR_MUST_USE int conf_admin_token(const struct conf *c, const char *folder,
                                   char out[CONF_TOKEN_BYTES_MAX + 1], struct err *e);

/* Every setting in force, and where it comes from. What is secret is told as "(set)": a token, the
 * values of NAME=VALUE. The texts are lent for the call. */
typedef void conf_told(void *arg, const char *name, const char *value, const char *source);
void conf_each(const struct conf *c, conf_told *fn, void *arg);

/* Every setting in force with its source, one a line; what is secret is not shown. */
void conf_print(const struct conf *c, FILE *out);
/* The policy as YAML that reads to the same policy again; nothing when there is none. */
void conf_policy_print(const struct conf_policy *p, FILE *out);
/* The i-th limit of a route as people read it ("user 10/min burst 3", "concurrency 8"), NUL-terminated
 * and cut to n (>= 1) bytes. False: it has no more. */
bool conf_policy_limit(const struct policy_route *r, unsigned i, char *out, size_t n);

/* Markdown references, for docs/reference: settings.md, waitress-options.md, gunicorn-settings.md,
 * policy.md. */
void conf_reference(FILE *out);
void conf_reference_waitress(FILE *out);
void conf_reference_gunicorn(FILE *out);
void conf_reference_policy(FILE *out);

#endif
