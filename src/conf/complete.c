/* complete: completions for bash, zsh and fish. */
#include "conf/manual_private.h"

#include <string.h>

#define WRITTEN "# Written by `weir --dump-reference %s` from the tables of src/conf.\n"

/* What a callback of each() gets. */
struct writer {
    const struct manual_program *program;
    FILE *out;
    enum manual_value value; /* only options with this value */
    unsigned n;              /* written so far */
};

/* The name by which the scripts know a program. */
static const char *label(const struct manual_program *p)
{
    return *p->word ? p->word : "weir";
}

/* " waitress-serve …". */
static void program_words(FILE *out)
{
    for (unsigned i = 0; i < manual_programs_n; i++)
        if (*manual_programs[i].word)
            fprintf(out, " %s", manual_programs[i].word);
}

static void words_of(const char *bars, char separator, FILE *out)
{
    for (; *bars; bars++)
        fputc(*bars == '|' ? separator : *bars, out);
}

/* Text inside single quotes of bash and zsh; `more` are bytes that need a backslash as well. */
static void quoted(const char *text, const char *more, FILE *out)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fprintf(out, strchr(more, *text) ? "\\%c" : "%c", *text);
    }
}

/* What to say before the help of an option that does nothing. */
static const char *effect(const struct manual_option *o)
{
    return o->no_effect ? "no effect: " : o->needless ? "nothing to do: " : "";
}

/* ---- bash ---- */

static void bash_option(void *arg, const struct manual_option *o)
{
    struct writer *w = arg;
    const char *line = "\n            ";
    fprintf(w->out, "%s--%s", w->n++ % 4 ? " " : line, o->name);
    if (o->negatable)
        fprintf(w->out, "%s--no-%s", w->n++ % 4 ? " " : line, o->name);
}

/* The pattern of a case: what stands before a value of this kind. */
static void bash_pattern(void *arg, const struct manual_option *o)
{
    struct writer *w = arg;
    if (o->value != w->value)
        return;
    fprintf(w->out, "%s%s,--%s", w->n++ ? "|" : "    ", label(w->program), o->name);
    if (o->letter)
        fprintf(w->out, "|%s,-%c", label(w->program), o->letter);
}

static void bash_choice(void *arg, const struct manual_option *o)
{
    struct writer *w = arg;
    if (o->value != VALUE_CHOICE)
        return;
    fprintf(w->out, "    %s,--%s)\n        _weir_offer -W '", label(w->program), o->name);
    words_of(o->words, ' ', w->out);
    fputs("'; return ;;\n", w->out);
}

static void bash_values(enum manual_value value, const char *action, FILE *out)
{
    struct writer w = {.out = out, .value = value};
    for (unsigned i = 0; i < manual_programs_n; i++) {
        w.program = &manual_programs[i];
        w.program->each(bash_pattern, &w);
    }
    if (w.n)
        fprintf(out, ")\n        %s; return ;;\n", action);
}

void conf_complete_bash(FILE *out)
{
    fprintf(out,
            "# Completion of weir for bash.                                -*- shell-script "
            "-*-\n" WRITTEN "\n"
            "_weir_offer()\n"
            "{\n"
            "    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$cur\")\n"
            "}\n"
            "\n"
            "# Modules of the current folder, up to the colon.\n"
            "_weir_application()\n"
            "{\n"
            "    local file\n"
            "    compopt -o nospace 2>/dev/null\n"
            "    for file in \"$cur\"*.py; do\n"
            "        [[ -e $file ]] && COMPREPLY+=(\"${file%%.py}:\")\n"
            "    done\n"
            "}\n"
            "\n"
            "_weir()\n"
            "{\n"
            "    local cur=${COMP_WORDS[COMP_CWORD]} before= program=weir options=\n"
            "    COMPREPLY=()\n"
            "    # --name=value is three words: = separates.\n"
            "    if [[ $cur == = ]]; then\n"
            "        before=${COMP_WORDS[COMP_CWORD - 1]} cur=\n"
            "    elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then\n"
            "        before=${COMP_WORDS[COMP_CWORD - 2]}\n"
            "    else\n"
            "        before=${COMP_WORDS[COMP_CWORD - 1]}\n"
            "    fi\n"
            "    # Behind the colon of MODULE:APP or HOST:PORT there is nothing to offer.\n"
            "    [[ $cur == : || $before == : ]] && return\n"
            "    if ((COMP_CWORD > 1)); then\n"
            "        case ${COMP_WORDS[1]} in\n",
            "bash");
    for (unsigned i = 0; i < manual_programs_n; i++)
        if (*manual_programs[i].word)
            fprintf(out, "        %s) program=%s ;;\n", manual_programs[i].word,
                    manual_programs[i].word);
    fputs("        esac\n    fi\n    case $program,$before in\n", out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        struct writer w = {.program = &manual_programs[i], .out = out};
        w.program->each(bash_choice, &w);
    }
    bash_values(VALUE_FILE, "compopt -o filenames 2>/dev/null; _weir_offer -f", out);
    bash_values(VALUE_FOLDER, "compopt -o filenames 2>/dev/null; _weir_offer -d", out);
    bash_values(VALUE_USER, "_weir_offer -u", out);
    bash_values(VALUE_GROUP, "_weir_offer -g", out);
    bash_values(VALUE_APP, "_weir_application", out);
    bash_values(VALUE_WORD, ":", out);
    fputs("    esac\n    case $program in\n", out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        struct writer w = {.program = &manual_programs[i], .out = out};
        fprintf(out, "    %s)\n        options='", label(w.program));
        w.program->each(bash_option, &w);
        fputs("' ;;\n", out);
    }
    fputs("    esac\n"
          "    if [[ $cur == -* ]]; then\n"
          "        _weir_offer -W \"$options\"\n"
          "        return\n"
          "    fi\n"
          "    case $program in\n"
          "    ",
          out);
    for (unsigned i = 0, n = 0; i < manual_programs_n; i++)
        if (manual_programs[i].takes_app)
            fprintf(out, "%s%s", n++ ? "|" : "", label(&manual_programs[i]));
    fputs(") _weir_application ;;\n"
          "    esac\n"
          "    if ((COMP_CWORD == 1)); then\n"
          "        local words\n"
          "        mapfile -t words < <(compgen -W '",
          out);
    program_words(out);
    fputs("' -- \"$cur\")\n"
          "        ((${#words[@]})) && compopt +o nospace 2>/dev/null\n"
          "        COMPREPLY+=(\"${words[@]}\")\n"
          "    fi\n"
          "}\n"
          "complete -F _weir weir\n",
          out);
}

/* ---- zsh ---- */

static void zsh_value(const struct manual_option *o, FILE *out)
{
    if (o->value == VALUE_NONE)
        return;
    fputc(':', out);
    quoted(o->word, ":", out);
    fputc(':', out);
    switch (o->value) {
    case VALUE_CHOICE:
        fputc('(', out);
        words_of(o->words, ' ', out);
        fputc(')', out);
        break;
    case VALUE_FILE:
        fputs("_files", out);
        break;
    case VALUE_FOLDER:
        fputs("_files -/", out);
        break;
    case VALUE_USER:
        fputs("_users", out);
        break;
    case VALUE_GROUP:
        fputs("_groups", out);
        break;
    case VALUE_APP:
        fputs("_weir_application", out);
        break;
    case VALUE_WORD:
    case VALUE_NONE:
        break;
    }
}

static void zsh_spec(const struct manual_option *o, const char *dashes, const char *name,
                     const char *joint, FILE *out)
{
    fprintf(out, "        '%s%s%s%s[", o->repeats ? "*" : "", dashes, name, joint);
    fputs(effect(o), out);
    quoted(o->help, "[]\\", out);
    fputc(']', out);
    zsh_value(o, out);
    fputs("'\n", out);
}

static void zsh_option(void *arg, const struct manual_option *o)
{
    struct writer *w = arg;
    char letter[2] = {o->letter, 0};
    zsh_spec(o, "--", o->name, o->value != VALUE_NONE ? "=" : "", w->out);
    if (o->letter)
        zsh_spec(o, "-", letter, o->value != VALUE_NONE ? "+" : "", w->out);
    if (o->negatable)
        fprintf(w->out, "        '--no-%s[the opposite of --%s]'\n", o->name, o->name);
}

void conf_complete_zsh(FILE *out)
{
    fprintf(out,
            "#compdef weir\n"
            "# Completion of weir for zsh.\n" WRITTEN "\n"
            "_weir_application() {\n"
            "    local -a modules\n"
            "    modules=(*.py(N:r))\n"
            "    compadd -S : -q -a modules\n"
            "}\n"
            "\n"
            "_weir_first() {\n"
            "    local -a words_of_weir\n"
            "    words_of_weir=(\n",
            "zsh");
    for (unsigned i = 0; i < manual_programs_n; i++)
        if (*manual_programs[i].word)
            fprintf(out, "        '%s:%s'\n", manual_programs[i].word, manual_programs[i].brief);
    fputs("    )\n"
          "    ((CURRENT == 2)) && _describe -t commands command words_of_weir\n"
          "    _weir_application\n"
          "}\n"
          "\n"
          "_weir() {\n"
          "    local program=weir\n"
          "    local -a options\n"
          "    ((CURRENT > 2)) && case $words[2] in\n",
          out);
    for (unsigned i = 0; i < manual_programs_n; i++)
        if (*manual_programs[i].word)
            fprintf(out, "    (%s) program=%s; words=(\"${(@)words[2,-1]}\"); ((CURRENT--)) ;;\n",
                    manual_programs[i].word, manual_programs[i].word);
    fputs("    esac\n    case $program in\n", out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        struct writer w = {.program = &manual_programs[i], .out = out};
        fprintf(out, "    (%s) options=(\n", label(w.program));
        w.program->each(zsh_option, &w);
        if (!*w.program->word)
            fputs("        '*:application:_weir_first'\n", out);
        else if (w.program->takes_app)
            fputs("        '*:application:_weir_application'\n", out);
        fputs("    ) ;;\n", out);
    }
    fputs("    esac\n"
          "    _arguments -s -S \"${(@)options}\"\n"
          "}\n"
          "\n"
          "_weir \"$@\"\n",
          out);
}

/* ---- fish ---- */

static void fish_line(const struct writer *w, const struct manual_option *o, const char *no)
{
    fprintf(w->out, "complete -c weir -n '%s%s' -l %s%s",
            *w->program->word ? "__fish_seen_subcommand_from " : "__weir_own", w->program->word, no,
            o->name);
    if (!*no && o->letter)
        fprintf(w->out, " -s %c", o->letter);
    switch (o->value) {
    case VALUE_NONE:
        break;
    case VALUE_FILE:
        fputs(" -r -F", w->out);
        break;
    case VALUE_FOLDER:
        fputs(" -x -a '(__fish_complete_directories)'", w->out);
        break;
    case VALUE_USER:
        fputs(" -x -a '(__fish_complete_users)'", w->out);
        break;
    case VALUE_GROUP:
        fputs(" -x -a '(__fish_complete_groups)'", w->out);
        break;
    case VALUE_CHOICE:
        fputs(" -x -a '", w->out);
        words_of(o->words, ' ', w->out);
        fputc('\'', w->out);
        break;
    case VALUE_APP:
        fputs(" -x -a '(__weir_modules)'", w->out);
        break;
    case VALUE_WORD:
        fputs(" -x", w->out);
        break;
    }
    fputs(" -d '", w->out);
    if (*no)
        fprintf(w->out, "the opposite of --%s", o->name);
    else
        fputs(effect(o), w->out);
    for (const char *p = *no ? "" : o->help; *p; p++)
        fprintf(w->out, *p == '\'' || *p == '\\' ? "\\%c" : "%c", *p);
    fputs("'\n", w->out);
}

static void fish_option(void *arg, const struct manual_option *o)
{
    fish_line(arg, o, "");
    if (o->negatable)
        fish_line(arg, o, "no-");
}

void conf_complete_fish(FILE *out)
{
    fprintf(out,
            "# Completion of weir for fish.\n" WRITTEN "\n"
            "function __weir_own\n"
            "    not __fish_seen_subcommand_from",
            "fish");
    program_words(out);
    fputs("\n"
          "end\n"
          "\n"
          "function __weir_modules\n"
          "    for file in *.py\n"
          "        string replace -r '\\.py$' : -- $file\n"
          "    end\n"
          "end\n"
          "\n"
          "complete -c weir -f\n",
          out);
    for (unsigned i = 0; i < manual_programs_n; i++)
        if (*manual_programs[i].word)
            fprintf(out, "complete -c weir -n __fish_use_subcommand -a %s -d '%s'\n",
                    manual_programs[i].word, manual_programs[i].brief);
    fputs("complete -c weir -a '(__weir_modules)'\n", out);
    for (unsigned i = 0; i < manual_programs_n; i++) {
        struct writer w = {.program = &manual_programs[i], .out = out};
        w.program->each(fish_option, &w);
    }
}
