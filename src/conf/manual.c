/* manual: options as data, and the manual page weir(1) in roff (man(7) macros). */
#include "conf/manual_private.h"

#include <string.h>

#include "conf/version.h"

/* ---- options ---- */

/* What texts name, for those options where it is not just a word. */
static const struct {
    const char *name;
    enum manual_value value;
    const char *word;
} named_values[] = {
    {"app", VALUE_APP, "MODULE:APP"},       {"chdir", VALUE_FOLDER, "FOLDER"},
    {"pythonpath", VALUE_FOLDER, "FOLDER"}, {"temp-dir", VALUE_FOLDER, "FOLDER"},
    {"env-file", VALUE_FILE, "FILE"},       {"config", VALUE_FILE, "FILE"},
    {"pid-file", VALUE_FILE, "FILE"},       {"certfile", VALUE_FILE, "FILE"},
    {"keyfile", VALUE_FILE, "FILE"},        {"ca-certs", VALUE_FILE, "FILE"},
    {"error-log", VALUE_FILE, "FILE"},      {"access-log", VALUE_FILE, "FILE"},
    {"reload-extra", VALUE_FILE, "FILE"},   {"unix-socket", VALUE_FILE, "PATH"},
    {"user", VALUE_USER, "USER"},           {"group", VALUE_GROUP, "GROUP"},
    {"bind", VALUE_WORD, "ADDRESS"},        {"listen", VALUE_WORD, "HOST:PORT"},
    {"host", VALUE_WORD, "HOST"},           {"port", VALUE_WORD, "PORT"},
    {"admin", VALUE_WORD, "ADDRESS"},       {"admin-token-file", VALUE_FILE, "FILE"},
    {"env", VALUE_WORD, "NAME=VALUE"},      {"static", VALUE_WORD, "/PREFIX=FOLDER"},
};

static const char *kind_word(enum conf_kind kind)
{
    switch (kind) {
    case KIND_INT:
        return "N";
    case KIND_SIZE:
        return "SIZE";
    case KIND_TIME:
        return "TIME";
    case KIND_OCTAL:
        return "MODE";
    case KIND_THREADS:
        return "N|MIN:MAX|auto";
    case KIND_WORKERS:
        return "N|auto";
    case KIND_CHOICE:
        return "WORD";
    case KIND_BOOL:
    case KIND_TEXT:
    case KIND_LIST:
        break;
    }
    return "TEXT";
}

struct manual_option manual_flag(const char *name, const char *help)
{
    return (struct manual_option){.name = name,
                                  .help = help,
                                  .word = "",
                                  .words = "",
                                  .def = "",
                                  .min = "",
                                  .max = "",
                                  .group = ""};
}

struct manual_option manual_option(const char *name, enum conf_kind kind, const char *def,
                                   const char *min, const char *max, const char *help)
{
    struct manual_option o = manual_flag(name, help);
    o.def = def;
    if (kind == KIND_BOOL) {
        o.negatable = true;
        return o;
    }
    o.value = kind == KIND_CHOICE ? VALUE_CHOICE : VALUE_WORD;
    o.word = kind_word(kind);
    o.repeats = kind == KIND_LIST;
    if (kind == KIND_CHOICE) {
        o.words = max;
    } else {
        o.min = min;
        o.max = max;
    }
    for (size_t i = 0; i < countof(named_values); i++) {
        if (strcmp(named_values[i].name, name) == 0) {
            o.value = named_values[i].value;
            o.word = named_values[i].word;
        }
    }
    return o;
}

/* Its own; the settings that tell the address are those of weir. */
static void healthcheck_each(manual_option_fn *fn, void *arg)
{
    struct manual_option o = manual_flag("help", "the usage");
    fn(arg, &o);
    o = manual_option("timeout", KIND_TIME, "2s", "1ms", "1h", "time for the whole check");
    fn(arg, &o);
}

/* Of `weir status` and `weir stacks`: python/weir/_status.py takes them. */
static void asking_each(manual_option_fn *fn, void *arg)
{
    struct manual_option o = manual_flag("help", "the usage");
    fn(arg, &o);
    o = manual_option("admin", KIND_TEXT, "", "", "",
                      "the admin listener to ask: HOST:PORT, unix:PATH or a URL");
    fn(arg, &o);
    o = manual_option("admin-token-file", KIND_TEXT, "", "", "", "file with its token");
    fn(arg, &o);
    o = manual_option("config", KIND_TEXT, "", "", "",
                      "the settings of the server; default weir.yaml of the current folder");
    o.letter = 'c';
    fn(arg, &o);
    o = manual_option("worker", KIND_INT, "", "0", "4095", "only the worker of this slot");
    fn(arg, &o);
    o = manual_flag("json", "what the admin listener answered, for programs");
    fn(arg, &o);
}

static void status_each(manual_option_fn *fn, void *arg)
{
    asking_each(fn, arg);
    struct manual_option o =
        manual_flag("once", "once and as plain text, as where the output is no terminal");
    fn(arg, &o);
    o = manual_option("sort", KIND_CHOICE, "age", "", "age|user|route|state",
                      "the order of the requests in flight");
    fn(arg, &o);
    o = manual_option("rows", KIND_INT, "", "0", "1000", "most requests in flight that are shown");
    fn(arg, &o);
}

const struct manual_program manual_programs[] = {
    {.word = "",
     .usage = "[\\fIoptions\\fR] \\fIMODULE\\fR:\\fIAPP\\fR",
     .brief = "serve an application",
     .takes_app = true,
     .each = conf_weir_each},
    {.word = "waitress-serve",
     .usage = "[\\fIoptions\\fR] \\fIMODULE\\fR:\\fIOBJECT\\fR",
     .about = "The command line of Waitress, with its names and defaults. Every setting of\n"
              "\\fBweir\\fR works here as well, by its full name; a unique beginning of a name of\n"
              "Waitress is enough. The variables of the environment are not read.\n",
     .brief = "the command line of Waitress",
     .takes_app = true,
     .each = conf_waitress_each},
    {.word = "gunicorn",
     .usage = "[\\fIoptions\\fR] [\\fIMODULE\\fR[:\\fIAPP\\fR]]",
     .about =
         "The command line of Gunicorn, with its names and defaults, \\fIgunicorn.conf.py\\fR,\n"
         "\\fBGUNICORN_CMD_ARGS\\fR and \\fBWEB_CONCURRENCY\\fR. Every setting of\n"
         "\\fBweir\\fR works here as well, by its full name.\n",
     .brief = "the command line of Gunicorn",
     .takes_app = true,
     .each = conf_gunicorn_each},
    {.word = "healthcheck",
     .usage = "[\\fIADDRESS\\fR] [\\fIoptions\\fR]",
     .about =
         "Ask a running server for \\fI/\\-/ping\\fR, which it answers without the application: "
         "exit\n"
         "code 0 when it answers, 1 when it does not, with one line that says why.\n"
         "\\fIADDRESS\\fR is \\fBhttp://\\fR\\fIHOST\\fR:\\fIPORT\\fR[/\\fIPATH\\fR], or as\n"
         "for \\fB\\-\\-bind\\fR. Without it the settings that the server was started with tell\n"
         "it: options of \\fBweir\\fR, \\fBWEIR_BIND\\fR, \\fBPORT\\fR, \\fIweir.yaml\\fR.\n",
     .brief = "ask whether a server answers",
     .each = healthcheck_each},
    {.word = "status",
     .usage = "[\\fIoptions\\fR]",
     .about =
         "What a running server does: workers, routes, queues and the requests in flight. On "
         "a\n"
         "terminal it is drawn anew each second: \\fBq\\fR ends, \\fBs\\fR changes the order of "
         "the\n"
         "requests, \\fB+\\fR and \\fB\\-\\fR show more or fewer of them. The admin listener is "
         "asked:\n"
         "that of \\fB\\-\\-admin\\fR, else of the settings that the server was started with "
         "(\\fBWEIR_ADMIN\\fR,\n"
         "\\fIweir.yaml\\fR), with the token of \\fB\\-\\-admin\\-token\\-file\\fR, "
         "\\fBWEIR_ADMIN_TOKEN\\fR or those\n"
         "settings.\n",
     .brief = "show what a server does now",
     .each = status_each},
    {.word = "stacks",
     .usage = "[\\fIoptions\\fR]",
     .about =
         "Where each thread of each worker is: what it waits for, whether it has the "
         "interpreter\n"
         "lock, the request it serves, and its Python stack, the newest call first. It "
         "answers\n"
         "also when every worker hangs. The admin listener is found as by \\fBweir status\\fR.\n",
     .brief = "show where its threads are",
     .each = asking_each},
};
const unsigned manual_programs_n = countof(manual_programs);

/* ---- roff ---- */

/* Plain text: what is special to roff, and a dash that stays a dash when it is copied. */
static void roff(const char *text, FILE *out)
{
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '\\':
            fputs("\\e", out);
            break;
        case '-':
            fputs("\\-", out);
            break;
        case '\'':
            fputs("\\(aq", out);
            break;
        case '`':
            fputs("\\(ga", out);
            break;
        case '^':
            fputs("\\(ha", out);
            break;
        case '~':
            fputs("\\(ti", out);
            break;
        case '.':
            /* At the begin of a line it would be a request. */
            fputs(p == text ? "\\&." : ".", out);
            break;
        default:
            fputc(*p, out);
        }
    }
}

static void bold(const char *text, FILE *out)
{
    fputs("\\fB", out);
    roff(text, out);
    fputs("\\fR", out);
}

static void option_heading(const struct manual_option *o, FILE *out)
{
    fputs(".TP\n", out);
    if (o->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
    bold("--", out);
    bold(o->name, out);
    if (*o->word) {
        fputs(" \\fI", out);
        roff(o->value == VALUE_CHOICE ? o->words : o->word, out);
        fputs("\\fR", out);
    }
    if (o->negatable) {
        fputs(", ", out);
        bold("--no-", out);
        bold(o->name, out);
    }
    fputc('\n', out);
}

/* A help text as a sentence: it begins with a capital, unless with a name. */
static void sentence(const char *text, FILE *out)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz");
    if (n && (text[n] == ' ' || text[n] == ',' || text[n] == ';' || text[n] == ':')) {
        fputc(*text - 32, out);
        text++;
    }
    roff(text, out);
}

static void option_text(const struct manual_option *o, FILE *out)
{
    if (o->no_effect || o->needless) {
        fputs(o->no_effect ? "No effect: " : "Nothing to do: ", out);
        roff(o->help, out);
        fputs(".\n", out);
        return;
    }
    sentence(o->help, out);
    fputs(o->repeats ? "; may be repeated.\n" : ".\n", out);
    if (*o->def) {
        fputs("Default ", out);
        bold(o->def, out);
        if (*o->min && *o->max) {
            fputs(", range ", out);
            roff(o->min, out);
            fputs(" to ", out);
            roff(o->max, out);
        }
        fputs(".\n", out);
    }
    if (*o->variable) {
        fputs("Variable ", out);
        bold(o->variable, out);
        fputs(".\n", out);
    }
}

/* Those of one group. */
struct group_writer {
    const char *group;
    FILE *out;
};

static void write_of_group(void *arg, const struct manual_option *o)
{
    const struct group_writer *w = arg;
    if (strcmp(o->group, w->group) != 0)
        return;
    option_heading(o, w->out);
    option_text(o, w->out);
}

static void own_options(FILE *out)
{
    struct group_writer w = {"", out};
    fputs(".SH OPTIONS\n"
          "A time is seconds (\\fB10\\fR, \\fB0.5\\fR) or has a unit: \\fB250ms\\fR, \\fB10s\\fR, "
          "\\fB5m\\fR, \\fB1h\\fR, \\fB1d\\fR.\n"
          "A size is bytes or has a unit, powers of 1024: \\fB64k\\fR, \\fB16M\\fR, \\fB1G\\fR, "
          "\\fB1T\\fR.\n"
          "Dashes and underscores in names are the same.\n",
          out);
    conf_weir_each(write_of_group, &w);
    for (unsigned i = 0; i < conf_groups_n; i++) {
        fputs(".SS ", out);
        roff(conf_groups[i].title, out);
        fputc('\n', out);
        w.group = conf_groups[i].name;
        conf_weir_each(write_of_group, &w);
    }
}

/* "WAITRESS-SERVE". */
static void section_title(const char *word, FILE *out)
{
    char title[64];
    size_t n = 0;
    for (; word[n] && n + 1 < sizeof title; n++)
        title[n] = word[n] >= 'a' && word[n] <= 'z' ? (char)(word[n] - 32) : word[n];
    title[n] = 0;
    fputs(".SH ", out);
    roff(title, out);
    fputc('\n', out);
}

static void synopsis(FILE *out)
{
    fputs(".SH SYNOPSIS\n", out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        const struct manual_program *p = &manual_programs[i];
        fputs(i ? ".br\n.B weir" : ".B weir", out);
        if (*p->word) {
            fputc(' ', out);
            roff(p->word, out);
        }
        fprintf(out, "\n%s\n", p->usage);
    }
}

void conf_manual(FILE *out)
{
    fprintf(out,
            ".\\\" Written by `weir --dump-reference man` from the tables of src/conf.\n"
            ".TH WEIR 1 \"\" \"weir %s\" \"User Commands\"\n"
            ".nh\n"
            ".SH NAME\n"
            "weir \\- production WSGI server for Python web applications\n",
            WEIR_VERSION);
    synopsis(out);
    fputs(
        ".SH DESCRIPTION\n"
        ".B weir\n"
        "serves a WSGI application: the attribute \\fIAPP\\fR of the module \\fIMODULE\\fR, which "
        "is\n"
        "imported from the current folder or the one that \\fB\\-\\-chdir\\fR names. Without any\n"
        "address it listens on \\fB127.0.0.1:8000\\fR, with \\fBPORT\\fR in the environment on\n"
        "\\fB0.0.0.0:$PORT\\fR, and with sockets from\n"
        ".BR systemd (1)\n"
        "on those.\n"
        ".PP\n"
        "Every setting is an option and a variable of the environment. The option wins over the\n"
        "variable, the variable over \\fIweir.yaml\\fR, that over the default. "
        "\\fB\\-\\-print\\-config\\fR shows what is in "
        "force\n"
        "and where it comes from.\n",
        out);
    own_options(out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        const struct manual_program *p = &manual_programs[i];
        struct group_writer w = {"", out};
        if (!*p->word)
            continue;
        section_title(p->word, out);
        fputs(p->about, out);
        p->each(write_of_group, &w);
    }
    fputs(
        ".SH FILES\n"
        ".TP\n.I weir.yaml\n"
        "Settings in YAML, in the current folder, unless \\fB\\-\\-config\\fR names another file.\n"
        ".SH ENVIRONMENT\n"
        ".TP\n\\fBWEIR_\\fINAME\\fR\n"
        "A setting: \\fBWEIR_MAX_BODY_SIZE\\fR for \\fB\\-\\-max\\-body\\-size\\fR. Lists are\n"
        "separated by commas.\n"
        ".TP\n.B PORT\n"
        "Listen on this port of all addresses, unless an address is given.\n"
        ".TP\n.BR VIRTUAL_ENV ,\\  WEIR_PYTHON\n"
        "The Python that runs the application: that of the active virtual environment, else the\n"
        "one named, else \\fI/usr/bin/python3\\fR.\n"
        ".TP\n.BR LISTEN_FDS ,\\  LISTEN_PID\n"
        "Sockets that a service manager opened; see\n"
        ".BR sd_listen_fds (3).\n"
        ".TP\n.BR NOTIFY_SOCKET ,\\  WATCHDOG_USEC\n"
        "Whom to tell that Weir is ready, that it reloads or stops, and that it is alive; see\n"
        ".BR sd_notify (3).\n"
        ".SH SIGNALS\n"
        "To the process that was started, the supervisor of the workers:\n"
        ".TP\n.B TERM\n"
        "Stop: what runs finishes within \\fB\\-\\-grace\\fR. A second one leaves it two seconds.\n"
        ".TP\n.BR INT ,\\  QUIT\n"
        "Stop at once.\n"
        ".TP\n.B HUP\n"
        "Reload: new workers read configuration and application; when all of them serve, the\n"
        "old ones end. No connection is dropped.\n"
        ".TP\n.B USR1\n"
        "Open the log files again.\n"
        ".TP\n.B USR2\n"
        "Upgrade: start a new supervisor, of the program that is now on disk, beside this one.\n"
        ".TP\n.BR TTIN ,\\  TTOU\n"
        "One worker more, one less.\n"
        ".TP\n.B WINCH\n"
        "With \\fB\\-\\-daemon\\fR: end the workers and stay.\n"
        ".PP\n"
        "With \\fB\\-\\-workers 0\\fR, and under \\fBweir waitress\\-serve\\fR, there is one "
        "process. It\n"
        "knows TERM and INT, which let what runs finish, and USR1.\n"
        ".SH \"EXIT STATUS\"\n"
        ".TP\n.B 0\nIt served and was asked to end.\n"
        ".TP\n.B 1\n"
        "It could not start: a file, an address, a setting in a file; or work was cut at the end.\n"
        ".TP\n.B 2\nThe command line or a variable is wrong.\n"
        ".TP\n.B 3\nA worker could not start.\n"
        ".TP\n.B 4\nThe application could not be loaded.\n"
        ".SH EXAMPLES\n"
        ".TP\n"
        ".B weir \\-\\-bind 0.0.0.0:5000 \\-\\-access\\-log \\- api.index:app\n"
        "Serve on port 5000 of all addresses and log requests to standard output.\n"
        ".TP\n"
        ".B weir waitress\\-serve \\-\\-port=8080 \\-\\-threads=8 api.index:app\n"
        "As it was written for Waitress.\n"
        ".TP\n"
        ".B weir gunicorn \\-w 4 \\-b 0.0.0.0:5000 api.index:app\n"
        "As it was written for Gunicorn.\n"
        ".TP\n"
        ".B weir \\-\\-factory \\-\\-check\\-config shop:create_app\n"
        "Call \\fBcreate_app\\fR to get the application, say whether everything is fine, and "
        "exit.\n"
        ".SH \"SEE ALSO\"\n"
        ".BR systemd.socket (5),\n"
        ".BR nginx (8)\n",
        out);
}
