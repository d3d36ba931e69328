/*
 * manual: the command lines of Weir as data, and what is written from it: the manual page weir(1)
 * and the completions of three shells (manual.c, complete.c).
 *
 * The options come from the same tables that read the command lines, so they cannot differ. What
 * the tables do not know, the kind of thing a text names, is a small table of names in manual.c.
 *
 * Owner:   everything is constant; texts live as long as the program.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_MANUAL_PRIVATE_H
#define WEIR_CONF_MANUAL_PRIVATE_H

#include "conf/conf_private.h"

/* What an option's value is: the word in the manual, and what a shell can offer. */
enum manual_value {
    VALUE_NONE = 0, /* a flag */
    VALUE_WORD,     /* nothing that a shell could guess */
    VALUE_CHOICE,
    VALUE_FILE,
    VALUE_FOLDER,
    VALUE_USER,
    VALUE_GROUP,
    VALUE_APP, /* MODULE:ATTRIBUTE */
};

struct manual_option {
    const char *name; /* with dashes */
    const char *help;
    char letter;             /* the short form; 0: none */
    enum manual_value value; /* VALUE_NONE: a flag */
    bool negatable;          /* there is --no-NAME, too */
    bool repeats;            /* may stand several times */
    bool no_effect;          /* accepted, does nothing; help says why */
    bool needless;           /* accepted, and so in any case */
    const char *word;        /* for the value: "ADDRESS", "TIME"; "" for flags */
    const char *words;       /* CHOICE: "a|b|c"; else "" */
    const char *def;         /* as written by a user; "" = none */
    const char *min, *max;   /* as written; "" = none */
    const char *group;       /* of settings.def; "" = none */
    char variable[64];       /* of the environment; "" = none */
};

/* A flag without --no-NAME, of no group. */
struct manual_option manual_flag(const char *name, const char *help);
/* An option of a table; min and max as in its row. */
struct manual_option manual_option(const char *name, enum conf_kind kind, const char *def,
                                   const char *min, const char *max, const char *help);

typedef void manual_option_fn(void *arg, const struct manual_option *option);

/* A command line: weir itself, or one of its words. */
struct manual_program {
    const char *word;  /* "waitress-serve"; "" = weir itself */
    const char *usage; /* roff, behind the name */
    const char *about; /* roff, before the options */
    const char *brief; /* one line for completions */
    bool takes_app;    /* MODULE:ATTRIBUTE stands on it */
    /* Call fn for each option, in the order in which they are shown. */
    void (*each)(manual_option_fn *fn, void *arg);
};

extern const struct manual_program manual_programs[];
extern const unsigned manual_programs_n;

/* ---- cli.c, waitress.c, gunicorn_cli.c: their options ---- */
void conf_weir_each(manual_option_fn *fn, void *arg);
void conf_waitress_each(manual_option_fn *fn, void *arg);
void conf_gunicorn_each(manual_option_fn *fn, void *arg);

#endif
