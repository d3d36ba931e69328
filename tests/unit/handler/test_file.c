/* file: answers of one folder, by openat2 and without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "handler/file.h"

static char top[] = "/tmp/weir-file-XXXXXX";
static struct file_root root;

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void link_to(const char *target, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    assert_int_equal(symlink(target, path), 0);
}

static int make(void **state)
{
    (void)state;
    char path[256];
    assert_non_null(mkdtemp(top));
    static const char *const folders[] = {"in", "in/sub", "in/bare"};
    for (size_t i = 0; i < countof(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", top, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    write_file("secret", "s");
    write_file("in/a.txt", "a");
    write_file("in/sub/index.html", "i");
    write_file("in/sub/b.txt", "b");
    link_to("a.txt", "in/link");
    link_to("sub", "in/folder");
    link_to("../secret", "in/out");
    link_to("..", "in/up");
    link_to("loop", "in/loop");
    return 0;
}

static int clean(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", top);
    return system(command);
}

static int open_root(void **state)
{
    char path[256];
    struct err e = {{0}};
    snprintf(path, sizeof path, "%s/in", top);
    assert_int_equal(file_root_init(&root, path, 0, "static", &e), 0);
    root.stepwise = *state != NULL;
    return 0;
}

static int close_root(void **state)
{
    (void)state;
    file_root_fini(&root);
    return 0;
}

/* The status of a GET for `rest`; `out` gets the response. */
static int get(const char *rest, struct buf *out)
{
    struct arena arena = {0};
    struct req req = {.method = SLICE("GET"), .path = slice_str(rest), .minor = 1};
    struct call c = {.req = &req, .arena = &arena, .file_fd = -1};
    file_answer(&c, &root, slice_str(rest));
    assert_int_equal(c.state, CALL_ENDED);
    assert_int_equal(c.file_fd, -1); /* all are small */
    if (out)
        *out = c.out;
    else
        buf_fini(&c.out);
    arena_fini(&arena);
    return c.status;
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += dup2(fd, fd) == fd;
    return n;
}

static void files_inside_are_found_and_nothing_else(void **state)
{
    static const struct {
        const char *rest;
        int beneath, stepwise;
    } rows[] = {
        {"/a.txt", 200, 200},
        {"/sub/b.txt", 200, 200},
        {"/sub/", 200, 200},
        {"/sub", 301, 301},
        {"/link", 200, 404},
        {"/folder/b.txt", 200, 404},
        {"/folder/", 200, 404},
        {"/out", 404, 404},
        {"/up/secret", 404, 404},
        {"/up/in/a.txt", 404, 404},
        {"/up", 404, 404},
        {"/loop", 404, 404},
        {"/bare", 404, 404},
        {"/bare/", 404, 404},
        {"/none", 404, 404},
        {"/none/a", 404, 404},
        {"/a.txt/b", 404, 404},
        {"/a.txt/", 404, 404},
        {"", 404, 404},
        {"/../secret", 404, 404},
        {"/%2e%2e/secret", 404, 404},
    };
    unsigned before = open_descriptors();
    for (size_t i = 0; i < countof(rows); i++) {
        int wanted = *state ? rows[i].stepwise : rows[i].beneath, got = get(rows[i].rest, NULL);
        if (got != wanted)
            fail_msg("%s: %d, not %d", rows[i].rest, got, wanted);
    }
    assert_int_equal(open_descriptors(), before);
}

static void without_descriptors_the_client_is_told_to_come_again(void **state)
{
    (void)state;
    struct rlimit old, none = {0};
    struct buf out = {0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int status = get("/a.txt", &out);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(status, 503);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_non_null(strstr(out.p, "Retry-After: 1\r\n"));
    buf_fini(&out);
}

static void missing_folder_is_an_error_at_the_start(void **state)
{
    (void)state;
    struct file_root r;
    struct err e = {{0}};
    assert_int_equal(file_root_init(&r, "/nonexistent", 0, "static", &e), -1);
    assert_string_equal(e.text, "static: the folder '/nonexistent': No such file or directory");
}

int main(void)
{
    static int yes;
    const struct CMUnitTest tests[] = {
        {"files_inside_are_found_and_nothing_else", files_inside_are_found_and_nothing_else,
         open_root, close_root, NULL},
        {"files_are_found_without_openat2_but_no_links", files_inside_are_found_and_nothing_else,
         open_root, close_root, &yes},
        {"without_descriptors_the_client_is_told_to_come_again",
         without_descriptors_the_client_is_told_to_come_again, open_root, close_root, NULL},
        cmocka_unit_test(missing_folder_is_an_error_at_the_start),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
