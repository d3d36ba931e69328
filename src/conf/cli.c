/* cli: Weir's own command line: weir [options] module:app. */
#include "conf/conf_private.h"

#include <string.h>

#include "conf/manual_private.h"
#include "conf/version.h"

/* Options that are no settings. */
enum special {
    SPECIAL_NONE = 0,
    SPECIAL_HELP,
    SPECIAL_HELP_ALL,
    SPECIAL_VERSION,
    SPECIAL_CHECK,
    SPECIAL_PRINT,
    SPECIAL_DUMP, /* hidden: writes a reference page */
    SPECIAL_HOST,
    SPECIAL_PORT,
};
static const struct special_option {
    const char *name;
    enum special special;
    bool takes_value;
    const char *help; /* for the manual; NULL = not told */
} specials[] = {
    {"help", SPECIAL_HELP, false, "the most used options, on one screen"},
    {"help-all", SPECIAL_HELP_ALL, false, "every setting with default, range and variable"},
    {"version", SPECIAL_VERSION, false, "the version"},
    {"check-config", SPECIAL_CHECK, false,
     "check the settings and import the application, then exit"},
    {"print-config", SPECIAL_PRINT, false, "show every setting in force and where it comes from"},
    {"host", SPECIAL_HOST, true, "with --port another way to write one --bind"},
    {"port", SPECIAL_PORT, true, "with --host another way to write one --bind"},
    {"dump-reference", SPECIAL_DUMP, true, NULL},
};

/* Short forms of settings; -h and -V are --help and --version. */
static const struct letter {
    char letter;
    const char *name;
} letters[] = {
    {'b', "bind"},
    {'c', "config"},
    {'t', "threads"},
};

struct cli {
    struct conf *c;
    int argc;
    char *const *argv;
    int next; /* index of the next argument */
    FILE *out;
    enum conf_action *action;
    int *status;
    struct err *e;
};

static const struct special_option *special_find(const char *name)
{
    for (size_t i = 0; i < countof(specials); i++)
        if (conf_name_eq(specials[i].name, name))
            return &specials[i];
    return NULL;
}

static int unknown_option(struct cli *cli, const char *name)
{
    bool no = strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0;
    struct conf_nearest near = {.wanted = no ? name + 3 : name};
    for (unsigned i = 0; i < CONF_ROWS; i++)
        if (!no || conf_rows[i].kind == KIND_BOOL)
            conf_nearest_try(&near, conf_rows[i].name);
    for (size_t i = 0; !no && i < countof(specials); i++)
        if (specials[i].special != SPECIAL_DUMP)
            conf_nearest_try(&near, specials[i].name);
    if (near.best)
        return err_set(cli->e, "--%.100s: unknown option; did you mean --%s%s?", name,
                       no ? "no-" : "", near.best);
    return err_set(cli->e, "--%.100s: unknown option; weir --help-all lists them", name);
}

/* The value of an option: behind its =, or the next argument. NULL and *e when there is none. */
static const char *take_value(struct cli *cli, const char *option, const char *attached)
{
    if (attached)
        return attached;
    const char *value = cli->next < cli->argc ? cli->argv[cli->next] : NULL;
    if (!value || (value[0] == '-' && value[1] == '-')) {
        err_set(cli->e, "%s needs a value", option);
        return NULL;
    }
    cli->next++;
    return value;
}

static int take_app(struct cli *cli, const char *app)
{
    struct conf *c = cli->c;
    const struct conf_row *row = &conf_rows[CONF_ROW_app];
    if (conf_mark(c, CONF_ROW_app)->level == LEVEL_CALLER)
        return err_set(cli->e, "two applications given, '%.100s' and '%.100s'; give one", c->app,
                       app);
    if (conf_app_check(app, cli->e))
        return -1;
    return conf_row_set(c, row, app, LEVEL_CALLER, "command line", cli->e);
}

static int dump_reference(struct cli *cli, const char *which)
{
    static const struct {
        const char *name;
        void (*write)(FILE *out);
    } texts[] = {
        {"settings", conf_reference},          {"waitress", conf_reference_waitress},
        {"gunicorn", conf_reference_gunicorn}, {"policy", conf_reference_policy},
        {"man", conf_manual},
        {"bash", conf_complete_bash},          {"zsh", conf_complete_zsh},
        {"fish", conf_complete_fish},
    };
    *cli->action = CONF_EXIT;
    for (size_t i = 0; i < countof(texts); i++) {
        if (strcmp(which, texts[i].name) == 0) {
            texts[i].write(cli->out);
            return 0;
        }
    }
    return err_set(cli->e,
                   "--dump-reference: '%.100s' is unknown; give settings, waitress, "
                   "gunicorn, policy, metrics, man, bash, zsh or fish",
                   which);
}

static int run_special(struct cli *cli, const struct special_option *o, const char *value)
{
    switch (o->special) {
    case SPECIAL_HELP:
        *cli->action = CONF_EXIT;
        conf_help(cli->argv[0], cli->out);
        return 0;
    case SPECIAL_HELP_ALL:
        *cli->action = CONF_EXIT;
        conf_help_all(cli->argv[0], cli->out);
        return 0;
    case SPECIAL_VERSION:
        *cli->action = CONF_EXIT;
        fprintf(cli->out, "weir %s\n", WEIR_VERSION);
        return 0;
    case SPECIAL_CHECK:
        *cli->action = CONF_CHECK;
        return 0;
    case SPECIAL_PRINT:
        *cli->action = CONF_PRINT;
        return 0;
    case SPECIAL_DUMP:
        return dump_reference(cli, value);
    case SPECIAL_HOST:
        return conf_set(cli->c, "host", value, "--host", cli->e);
    case SPECIAL_PORT:
        if (conf_port_check(value, "--port", cli->e))
            return -1;
        return conf_set(cli->c, "port", value, "--port", cli->e);
    case SPECIAL_NONE:
        break;
    }
    return 0;
}

/* `text` is what stands behind the two dashes. */
static int take_long(struct cli *cli, const char *text)
{
    struct conf *c = cli->c;
    size_t n = strcspn(text, "=");
    const char *value = text[n] ? text + n + 1 : NULL;
    char *name = conf_copy(c, text, n, cli->e);
    char option[80];
    if (!name)
        return -1;
    snprintf(option, sizeof option, "--%.64s", name);

    const struct special_option *special = special_find(name);
    if (special) {
        if (!special->takes_value && value)
            return err_set(cli->e, "%s takes no value", option);
        if (special->takes_value && !(value = take_value(cli, option, value)))
            return -1;
        return run_special(cli, special, value);
    }
    const struct conf_row *row = conf_row_find(name);
    if (!row && (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0)) {
        row = conf_row_find(name + 3);
        if (!row || row->kind != KIND_BOOL)
            return unknown_option(cli, name);
        if (value)
            return err_set(cli->e, "%s takes no value", option);
        return conf_row_set(c, row, "no", LEVEL_CALLER, option, cli->e);
    }
    if (!row)
        return unknown_option(cli, name);
    if (row->kind == KIND_BOOL && !value)
        return conf_row_set(c, row, "yes", LEVEL_CALLER, option, cli->e);
    if (!(value = take_value(cli, option, value)))
        return -1;
    if (row == &conf_rows[CONF_ROW_app])
        return take_app(cli, value);
    return conf_row_set(c, row, value, LEVEL_CALLER, option, cli->e);
}

/* -b ADDRESS, -bADDRESS, -h: `text` is what stands behind the dash. */
static int take_short(struct cli *cli, const char *text)
{
    const struct conf_row *row = NULL;
    char option[3] = {'-', text[0], 0};
    if (text[0] == 'h' || text[0] == 'V') {
        if (text[1])
            return err_set(cli->e, "-%.100s: unknown option; did you mean --%.100s?", text, text);
        return run_special(cli, special_find(text[0] == 'h' ? "help" : "version"), NULL);
    }
    for (size_t i = 0; i < countof(letters); i++)
        if (letters[i].letter == text[0])
            row = conf_row_find(letters[i].name);
    if (!row)
        return err_set(cli->e, "-%.100s: unknown option; weir --help lists them", text);
    const char *value = take_value(cli, option, text[1] ? text + 1 + (text[1] == '=') : NULL);
    return value ? conf_row_set(cli->c, row, value, LEVEL_CALLER, option, cli->e) : -1;
}

int conf_weir_command_line(struct conf *c, int argc, char *const *argv, FILE *out,
                           enum conf_action *action, int *status, struct err *e)
{
    struct cli cli = {c, argc, argv, 1, out, action, status, e};
    bool options = true;
    while (cli.next < argc) {
        const char *arg = argv[cli.next++];
        int rc;
        if (!options || arg[0] != '-' || !arg[1]) {
            rc = take_app(&cli, arg);
        } else if (strcmp(arg, "--") == 0) {
            options = false;
            rc = 0;
        } else {
            rc = arg[1] == '-' ? take_long(&cli, arg + 2) : take_short(&cli, arg + 1);
        }
        /* Help and version answer at once, whatever else is on the line. */
        if (rc || *action == CONF_EXIT)
            return rc;
    }
    return 0;
}

/* ---- the manual ---- */

static char letter_of(const char *name)
{
    for (size_t i = 0; i < countof(letters); i++)
        if (strcmp(letters[i].name, name) == 0)
            return letters[i].letter;
    return 0;
}

void conf_weir_each(manual_option_fn *fn, void *arg)
{
    for (size_t i = 0; i < countof(specials); i++) {
        const struct special_option *s = &specials[i];
        if (!s->help)
            continue;
        struct manual_option o = s->takes_value
                                     ? manual_option(s->name, KIND_TEXT, "", "", "", s->help)
                                     : manual_flag(s->name, s->help);
        o.letter = s->special == SPECIAL_HELP ? 'h' : s->special == SPECIAL_VERSION ? 'V' : 0;
        fn(arg, &o);
    }
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        const struct conf_row *row = &conf_rows[i];
        struct manual_option o =
            manual_option(row->name, row->kind, row->def, row->min, row->max, row->help);
        o.letter = letter_of(row->name);
        o.group = row->group;
        conf_variable(row, o.variable, sizeof o.variable);
        fn(arg, &o);
    }
}
