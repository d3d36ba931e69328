/*
 * fuzz_cli: any words as a command line of all dialects, as keywords, as GUNICORN_CMD_ARGS, and any
 * bytes as an env file.
 *
 * The first byte chooses which. Words are separated by newlines; those behind an empty one are the
 * environment. Beyond "no crash": a configuration that is accepted has addresses and sane threads,
 * its numbers read back as they are printed, and a refusal is one line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "conf/conf_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS_MAX = 64 };

static FILE *null_stream(void)
{
    static FILE *null;
    if (!null)
        null = fopen("/dev/null", "w");
    must(null);
    return null;
}

/* Files that the fuzzer names would be opened: only their names are of interest here. */
static bool names_a_file(const char *word)
{
    return strstr(word, "env") || strstr(word, "ENV_FILE");
}

static void check_one_line(const struct err *e)
{
    must(e->text[0] && !strchr(e->text, '\n') && !strchr(e->text, '\033'));
}

static void check_accepted(struct conf *c)
{
    struct conf again;
    struct err e = {0};
    must(c->n_binds >= 1 && c->n_binds <= 64);
    must(c->threads.min >= 1 && c->threads.min <= c->threads.max && c->threads.max <= 4096);
    must(c->keep_alive >= 0 && c->header_timeout > 0 && c->body_timeout > 0);
    must(c->max_body_size >= 0 && c->max_head_size > 0 && c->max_fields > 0);
    must(c->ipv4 || c->ipv6);
    conf_print(c, null_stream());
    conf_notes(c, null_stream());

    must(conf_init(&again, CONF_WEIR, &e) == 0);
    for (unsigned i = 0; i < CONF_ROWS; i++) {
        struct conf_row row = conf_rows[i];
        char text[128], twice[128];
        if (row.kind == KIND_TEXT || row.kind == KIND_LIST)
            continue;
        conf_value_format(c, &row, text, sizeof text);
        /* Ranges of the others are wider than Weir's. */
        if (conf_row_set(&again, &conf_rows[i], text, LEVEL_CALLER, "again", &e)) {
            must(c->dialect != CONF_WEIR);
            continue;
        }
        conf_value_format(&again, &row, twice, sizeof twice);
        must(strcmp(text, twice) == 0);
    }
    conf_fini(&again);
}

static void run(enum conf_dialect dialect, int argc, char **argv, char **env)
{
    struct conf c;
    struct err e = {0};
    enum conf_action action = CONF_EXIT;
    int status = -1;
    must(conf_init(&c, dialect, &e) == 0);
    if (conf_load(&c, argc, argv, env, null_stream(), &action, &status, &e)) {
        if (dialect == CONF_GUNICORN)
            must(status == 1 || status == 2);
        else
            must(status == (dialect == CONF_WAITRESS ? 1 : 2));
        check_one_line(&e);
        conf_complain(&c, argv[0], &e, null_stream());
    } else {
        must(status == 0);
        if (dialect == CONF_GUNICORN && action != CONF_EXIT && conf_finish(&c, &e))
            check_one_line(&e);
        else if (action != CONF_EXIT)
            check_accepted(&c);
    }
    conf_fini(&c);
}

/* The words in pairs: serve(name=value). */
static void set_pairs(int argc, char **argv)
{
    struct conf c;
    struct err e = {0};
    must(conf_init(&c, CONF_WAITRESS, &e) == 0);
    for (int i = 1; i + 1 < argc; i += 2)
        if (conf_set(&c, argv[i], argv[i + 1], NULL, &e)) {
            check_one_line(&e);
            goto out;
        }
    if (conf_finish(&c, &e))
        check_one_line(&e);
    else
        check_accepted(&c);
out:
    conf_fini(&c);
}

/* The same of a configuration file of Gunicorn: name = value. */
static void set_in_file(int argc, char **argv)
{
    struct conf c;
    struct err e = {0};
    must(conf_init(&c, CONF_GUNICORN, &e) == 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (conf_gunicorn_set(&c, argv[i], &value, value[0] != '-', "file: name", &e))
            check_one_line(&e);
    }
    if (conf_finish(&c, &e))
        check_one_line(&e);
    else
        check_accepted(&c);
    conf_fini(&c);
}

static void parse_env_file(const char *text, size_t n)
{
    struct arena arena = {0};
    struct conf_env_list list = {0};
    struct err e = {0};
    if (conf_env_parse(&arena, "file", text, n, &list, &e))
        must(e.text[0]);
    for (unsigned i = 0; i < list.n; i++) {
        must(list.items[i].name[0] && !strchr(list.items[i].name, '='));
        must(strlen(list.items[i].value) <= n);
    }
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char name[] = "weir";
    char *argv[WORDS_MAX + 1] = {name}, *env[WORDS_MAX + 1] = {NULL};
    int argc = 1, envc = 0;
    bool in_env = false;

    if (size < 1 || size > 8192)
        return 0;
    if (data[0] % 8 == 3) {
        parse_env_file((const char *)data + 1, size - 1);
        return 0;
    }
    char *copy = calloc(1, size);
    must(copy);
    memcpy(copy, data + 1, size - 1);
    for (char *p = copy; *p && argc < WORDS_MAX && envc < WORDS_MAX;) {
        size_t n = strcspn(p, "\n");
        bool last = p[n] == 0;
        p[n] = 0;
        if (n == 0)
            in_env = true;
        else if (names_a_file(p))
            ;
        else if (in_env)
            env[envc++] = p;
        else
            argv[argc++] = p;
        p += n + (last ? 0 : 1);
    }
    argv[argc] = NULL;
    env[envc] = NULL;
    switch (data[0] % 8) {
    case 2:
        set_pairs(argc, argv);
        break;
    case 6:
        set_in_file(argc, argv);
        break;
    case 4:
    case 7: /* GUNICORN_CMD_ARGS=… among the variables has quotes and blanks */
        run(CONF_GUNICORN, argc, argv, env);
        break;
    default:
        run(data[0] % 4 ? CONF_WAITRESS : CONF_WEIR, argc, argv, env);
    }
    free(copy);
    return 0;
}
