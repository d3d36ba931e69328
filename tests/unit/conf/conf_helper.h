/* conf_helper: a conf made from words, and its streams as texts. */
#ifndef WEIR_TEST_CONF_HELPER_H
#define WEIR_TEST_CONF_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf_private.h"

/* What one start gave. */
struct started {
    struct conf conf;
    struct err e;
    int rc, status;
    enum conf_action action;
    char *out;       /* owned: standard output */
    char said[8192]; /* standard error: complaint or notes */
};

#define WORDS_MAX 24

/* Split at single blanks; a word may contain none. `copy` is written to. */
static inline int split_words(char *copy, char **words)
{
    int n = 0;
    for (char *p = copy; p && *p; n++) {
        assert_true(n < WORDS_MAX);
        words[n] = p;
        p = strchr(p, ' ');
        if (p)
            *p++ = 0;
    }
    words[n] = NULL;
    return n;
}

/* Start with the command line `words` (its first word is the program) in the environment `env`. */
static inline struct started *start_in(enum conf_dialect dialect, const char *words,
                                       char *const *env)
{
    struct started *s = calloc(1, sizeof *s);
    char *copy = strdup(words), *argv[WORDS_MAX + 1];
    size_t out_n;
    assert_non_null(s);
    assert_int_equal(conf_init(&s->conf, dialect, &s->e), 0);
    FILE *out = open_memstream(&s->out, &out_n);
    FILE *said = fmemopen(s->said, sizeof s->said - 1, "w");
    assert_true(out && said);
    s->rc =
        conf_load(&s->conf, split_words(copy, argv), argv, env, out, &s->action, &s->status, &s->e);
    if (s->rc)
        conf_complain(&s->conf, argv[0], &s->e, said);
    else
        conf_notes(&s->conf, said);
    fclose(out);
    fclose(said);
    free(copy);
    return s;
}

static inline struct started *start(const char *words)
{
    return start_in(CONF_WEIR, words, NULL);
}

static inline struct started *start_waitress(const char *words)
{
    return start_in(CONF_WAITRESS, words, NULL);
}

static inline void end(struct started *s)
{
    conf_fini(&s->conf);
    free(s->out);
    free(s);
}

#define assert_text_in(haystack, needle)                                                           \
    do {                                                                                           \
        if (!strstr(haystack, needle))                                                             \
            fail_msg("'%s' is not in: %s", needle, haystack);                                      \
    } while (0)

/* A start that fails with `status` and says `text`. */
static inline void refuses_in(enum conf_dialect dialect, const char *words, char *const *env,
                              int status, const char *text)
{
    struct started *s = start_in(dialect, words, env);
    if (s->rc == 0)
        fail_msg("was accepted: %s", words);
    assert_int_equal(s->status, status);
    assert_text_in(s->said, text);
    assert_null(strchr(s->e.text, '\n'));
    end(s);
}

static inline void refuses(const char *words, const char *text)
{
    refuses_in(CONF_WEIR, words, NULL, 2, text);
}

static inline void waitress_refuses(const char *words, const char *text)
{
    refuses_in(CONF_WAITRESS, words, NULL, 1, text);
}

#endif
