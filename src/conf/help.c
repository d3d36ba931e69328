/* help: what --help, --help-all and the settings reference say. */
#include "conf/conf_private.h"

#include <string.h>

#include "conf/version.h"

/* A screen of a terminal: 24 lines of 80 columns. */
void conf_help(const char *program, FILE *out)
{
    fprintf(out,
            "Usage: %s [options] MODULE:APP         (for example: weir api.index:app)\n"
            "       %s waitress-serve [options of Waitress] MODULE:APP\n"
            "       %s gunicorn [options of Gunicorn] MODULE:APP\n"
            "       %s healthcheck | status | stacks   (does it answer, what does it do?)\n"
            "\n"
            "  -b, --bind ADDRESS     HOST:PORT, unix:PATH or fd://N   [127.0.0.1:8000]\n"
            "  -t, --threads N        requests at once: N, MIN:MAX or auto     [4:256]\n"
            "      --factory          call APP to get the application\n"
            "      --chdir DIR        change to this folder first\n"
            "  -c, --config FILE      settings and limits of users; default: weir.yaml\n"
            "      --env-file FILE    read NAME=VALUE lines into the environment\n"
            "\n"
            "      --max-body-size N  larger request bodies get 413               [64M]\n"
            "      --keep-alive TIME  close idle connections                      [75s]\n"
            "      --grace TIME       time to finish on TERM or Ctrl-C            [30s]\n"
            "      --trusted-proxy IP whose X-Forwarded-... headers count\n"
            "      --deadline TIME    time for a whole request, then 504          [none]\n"
            "      --access-log FILE  log requests; - is standard output\n"
            "      --log-level LEVEL  debug, info, warning, error              [info]\n"
            "\n"
            "      --check-config     import the application, then exit\n"
            "      --print-config     show every setting and where it comes from\n"
            "  -h, --help             this text;  --help-all: every setting\n"
            "  -V, --version          the version\n",
            program, program, program, program);
}

void conf_help_line(const char *option, const char *text, unsigned indent, FILE *out)
{
    static const size_t COLUMNS = 79;
    size_t at = (size_t)fprintf(out, "  %s", option);
    if (at >= indent) {
        fputc('\n', out);
        at = 0;
    }
    at += (size_t)fprintf(out, "%*s", (int)(indent - at), "");
    for (const char *p = text; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (at + 1 + n > COLUMNS)
            at = (size_t)fprintf(out, "\n%*s", (int)indent, "") - 1;
        at += (size_t)fprintf(out, "%s%.*s", at > indent ? " " : "", (int)n, p);
        p += n;
    }
    fputc('\n', out);
}

const struct conf_group conf_groups[] = {
    {"app", "Application"},
    {"listen", "Addresses"},
    {"run", "Processes, threads and time"},
    {"process", "The process"},
    {"limits", "Limits"},
    {"admission", "Admission"},
    {"proxy", "Behind a proxy"},
    {"tls", "TLS"},
    {"static", "Static files"},
    {"logs", "Logs"},
    {"seeing", "Seeing"},
    {"development", "Development"},
    {"HIDDEN", "Seldom needed"},
};
const unsigned conf_groups_n = countof(conf_groups);

static const char *placeholder(const struct conf_row *row)
{
    switch (row->kind) {
    case KIND_BOOL:
        return "";
    case KIND_INT:
        return " N";
    case KIND_SIZE:
        return " SIZE";
    case KIND_TIME:
        return " TIME";
    case KIND_OCTAL:
        return " MODE";
    case KIND_THREADS:
        return " N|MIN:MAX|auto";
    case KIND_WORKERS:
        return " N|auto";
    case KIND_TEXT:
    case KIND_LIST:
    case KIND_CHOICE:
        break;
    }
    return " TEXT";
}

/* WEIR_MAX_BODY_SIZE. */
void conf_variable(const struct conf_row *row, char *out, size_t n)
{
    size_t at = (size_t)snprintf(out, n, "WEIR_");
    for (const char *p = row->name; *p && at + 1 < n; p++)
        out[at++] = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
    out[at] = 0;
}

static void help_row(const struct conf_row *row, FILE *out)
{
    char env[64], words[128] = "";
    conf_variable(row, env, sizeof env);
    if (row->kind == KIND_CHOICE)
        snprintf(words, sizeof words, " %s", row->max);
    fprintf(out, "\n  --%s%s%s\n", row->kind == KIND_BOOL ? "[no-]" : "", row->name,
            *words ? words : placeholder(row));
    fprintf(out, "      %s\n      default %s", row->help, *row->def ? row->def : "none");
    if (row->kind != KIND_CHOICE && *row->min && *row->max)
        fprintf(out, ", range %s to %s", row->min, row->max);
    fprintf(out, "; %s\n", env);
}

void conf_help_all(const char *program, FILE *out)
{
    conf_help(program, out);
    fprintf(out,
            "\nTIME is seconds, or a number with ms, s, m, h or d: 250ms, 10s, 5m.\n"
            "SIZE is bytes, or a number with k, M, G or T (powers of 1024): 64k, 16M.\n"
            "Every setting is an option, a variable of the environment and a name in the YAML file; the\n"
            "option wins over the variable, the variable over the file. Lists are repeated options,\n"
            "comma-separated in the environment, lists in YAML. Without any address,\n"
            "PORT in the environment means 0.0.0.0:$PORT. --host and --port are another way to\n"
            "write one --bind. Dashes and underscores in names are the same.\n");
    for (size_t g = 0; g < conf_groups_n; g++) {
        fprintf(out, "\n%s\n", conf_groups[g].title);
        for (unsigned i = 0; i < CONF_ROWS; i++)
            if (strcmp(conf_rows[i].group, conf_groups[g].name) == 0)
                help_row(&conf_rows[i], out);
    }
}

static const char *kind_name(enum conf_kind kind)
{
    switch (kind) {
    case KIND_BOOL:
        return "yes or no";
    case KIND_INT:
        return "number";
    case KIND_SIZE:
        return "size";
    case KIND_TIME:
        return "time";
    case KIND_OCTAL:
        return "octal";
    case KIND_TEXT:
        return "text";
    case KIND_LIST:
        return "list";
    case KIND_THREADS:
        return "threads";
    case KIND_WORKERS:
        return "workers";
    case KIND_CHOICE:
        return "choice";
    }
    return "";
}

void conf_help_cell(const char *text, FILE *out)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\|" : "%c", *text);
}

static void reference_row(const struct conf_row *row, FILE *out)
{
    char env[64];
    conf_variable(row, env, sizeof env);
    fprintf(out, "| `--%s` | `%s` | %s | ", row->name, env, kind_name(row->kind));
    fprintf(out, *row->def ? "`%s` | " : "%s | ", row->def);
    if (row->kind == KIND_CHOICE) {
        conf_help_cell(row->max, out);
        fputs(" | ", out);
    } else if (*row->min && *row->max) {
        fprintf(out, "%s to %s | ", row->min, row->max);
    } else {
        fputs(" | ", out);
    }
    conf_help_cell(row->help, out);
    fputs(" |\n", out);
}

void conf_reference(FILE *out)
{
    fprintf(
        out,
        "# Settings\n\n"
        "<!-- Written by `weir --dump-reference settings` from src/conf/settings.def. -->\n\n"
        "Every setting is an option of `weir`, a variable of the environment and a name in "
        "[`weir.yaml`](../configuration.md).\nThe option wins over the variable, the variable "
        "over the file, the file over the default. `--env-file FILE` adds\nvariables that are not "
        "set yet. `weir --print-config` shows what is in force and where it comes from.\n\n"
        "| written as | means |\n| --- | --- |\n"
        "| time | seconds (`10`, `0.5`), or with a unit: `250ms`, `10s`, `5m`, `1h`, `1d` |\n"
        "| size | bytes (`4096`), or with a unit: `64k`, `16M`, `1G`, `1T`; powers of 1024 |\n"
        "| yes or no | `--name`, `--no-name`; `yes`, `no`, `true`, `false`, `on`, `off`, `1`, `0` "
        "|\n"
        "| list | the option repeated; comma-separated in the environment; a list in YAML |\n"
        "| threads | `N` (the most), `MIN:MAX` or `auto` |\n"
        "| workers | `N` or `auto` (one per core) |\n"
        "| address | `HOST:PORT`, `[IPv6]:PORT`, `:PORT` and `*:PORT` (all interfaces), `PORT`, "
        "`HOST`, `unix:PATH`, `unix:@NAME`, `fd://N` |\n\n"
        "`-b` is `--bind`, `-c` is `--config`, `-t` is `--threads`. `--host` and `--port` together "
        "are another way "
        "to write one `--bind`. Without\nany address Weir listens on `127.0.0.1:8000`; with "
        "`PORT` in the environment on `0.0.0.0:$PORT`; with sockets from\nsystemd "
        "(`LISTEN_FDS`) on those. A variable that is set but empty counts as not set, except "
        "for a text.\n");
    for (size_t g = 0; g < conf_groups_n; g++) {
        fprintf(out,
                "\n## %s\n\n| option | variable | kind | default | range | meaning |\n"
                "| --- | --- | --- | --- | --- | --- |\n",
                conf_groups[g].title);
        for (unsigned i = 0; i < CONF_ROWS; i++)
            if (strcmp(conf_rows[i].group, conf_groups[g].name) == 0)
                reference_row(&conf_rows[i], out);
    }
}
