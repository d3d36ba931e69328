/* proc_helper: what the tests of src/proc share. */
#ifndef WEIR_TEST_PROC_HELPER_H
#define WEIR_TEST_PROC_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"

#define assert_text_in(haystack, needle)                                                           \
    do {                                                                                           \
        if (!strstr(haystack, needle))                                                             \
            fail_msg("'%s' is not in: %s", needle, haystack);                                      \
    } while (0)

/* Run `body` in a child; its return value is the exit status. */
static inline int in_child(int (*body)(void *arg), void *arg)
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(body(arg));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#endif
