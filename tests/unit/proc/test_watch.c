/* watch: what the kernel tells of names in folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proc/watch.h"

static char top[64];
static struct watch watch;

static const char *in_top(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", top, name);
    return path;
}

static void put(const char *name)
{
    int fd = open(in_top(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

static int begin(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/weir-watch-XXXXXX");
    return mkdtemp(top) ? watch_open(&watch) : -1;
}

static int end(void **state)
{
    (void)state;
    char command[128];
    watch_close(&watch);
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

/* Is `name` of `folder` among the events that are there? */
static bool told(int folder, const char *name)
{
    struct watch_event ev;
    int rc, timeout = 2000;
    bool found = false;
    while ((rc = watch_next(&watch, timeout, &ev)) == 1) {
        found |= ev.folder == folder && strcmp(ev.name, name) == 0 && !ev.lost;
        timeout = 0;
    }
    assert_int_equal(rc, 0);
    return found;
}

static void written_renamed_and_removed_files_are_told(void **state)
{
    (void)state;
    int id = watch_add(&watch, top);
    assert_true(id >= 0);
    assert_int_equal(watch_add(&watch, top), id);
    put("a");
    assert_true(told(id, "a"));
    put("a.new");
    assert_true(told(id, "a.new"));
    char from[128];
    snprintf(from, sizeof from, "%s", in_top("a.new"));
    assert_int_equal(rename(from, in_top("a")), 0);
    assert_true(told(id, "a"));
    assert_int_equal(unlink(in_top("a")), 0);
    assert_true(told(id, "a"));
    assert_int_equal(mkdir(in_top("sub"), 0700), 0);
    assert_true(told(id, "sub"));
}

static void folders_are_told_apart_and_their_end_is_told(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_top("sub"), 0700), 0);
    int outer = watch_add(&watch, top), inner = watch_add(&watch, in_top("sub"));
    assert_true(outer >= 0 && inner >= 0 && outer != inner);
    put("sub/a");
    assert_true(told(inner, "a"));
    assert_int_equal(unlink(in_top("sub/a")), 0);
    assert_true(told(inner, "a"));
    assert_int_equal(rmdir(in_top("sub")), 0);
    assert_true(told(inner, ""));
}

static void nothing_is_told_when_nothing_happens(void **state)
{
    (void)state;
    struct watch_event ev;
    put("a");
    assert_true(watch_add(&watch, top) >= 0);
    int fd = open(in_top("a"), O_RDONLY);
    close(fd);
    assert_int_equal(watch_next(&watch, 0, &ev), 0);
}

static void many_events_are_all_told(void **state)
{
    (void)state;
    struct watch_event ev;
    char name[16];
    int id = watch_add(&watch, top);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "f%d", i);
        put(name);
    }
    bool seen[300] = {false};
    while (watch_next(&watch, 0, &ev) == 1) {
        assert_int_equal(ev.folder, id);
        seen[atoi(ev.name + 1)] = true; /* f123 */
    }
    for (int i = 0; i < 300; i++)
        assert_true(seen[i]);
}

static void what_is_no_folder_is_refused(void **state)
{
    (void)state;
    put("a");
    assert_int_equal(watch_add(&watch, in_top("a")), -ENOTDIR);
    assert_int_equal(watch_add(&watch, in_top("none")), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(written_renamed_and_removed_files_are_told, begin, end),
        cmocka_unit_test_setup_teardown(folders_are_told_apart_and_their_end_is_told, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_told_when_nothing_happens, begin, end),
        cmocka_unit_test_setup_teardown(many_events_are_all_told, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_folder_is_refused, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
