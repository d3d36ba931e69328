/* title: what /proc shows of a process that gave itself another name. */
#include "proc_helper.h"

#include <fcntl.h>

#include "proc/title.h"

static char shown[8192];

static const char *read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, shown, sizeof shown - 1);
    close(fd);
    assert_true(n >= 0);
    shown[n] = 0;
    return shown;
}

/* Program and arguments of this process as ps joins them; the exec below made them. */
static void a_title_takes_the_place_of_the_arguments(void **state)
{
    (void)state;
    read_file("/proc/self/environ");
    char environment[8192];
    memcpy(environment, shown, sizeof shown);
    title_set("weir: worker [api.index:app]", "weir");
    assert_string_equal(read_file("/proc/self/cmdline"), "weir: worker [api.index:app]");
    assert_string_equal(read_file("/proc/self/comm"), "weir\n");
    title_role("supervisor", "", "api.index:app");
    assert_string_equal(read_file("/proc/self/cmdline"), "weir: supervisor [api.index:app]");
    title_role("worker", "shop", "api.index:app");
    assert_string_equal(read_file("/proc/self/cmdline"), "weir: worker [shop]");
    assert_string_equal(read_file("/proc/self/comm"), "shop\n");
    read_file("/proc/self/environ");
    assert_memory_equal(environment, shown, sizeof shown);
}

static void a_longer_title_is_cut_before_the_environment(void **state)
{
    (void)state;
    char title[4000];
    memset(title, 'x', sizeof title - 1);
    title[sizeof title - 1] = 0;
    title_set(title, NULL);
    size_t n = strlen(read_file("/proc/self/cmdline"));
    assert_true(n > 40 && n < 1000);
    assert_int_equal(strspn(shown, "x"), n);
}

static int title_of_a_child(void *arg)
{
    (void)arg;
    title_set("weir: child", "child");
    return strcmp(read_file("/proc/self/cmdline"), "weir: child") == 0 ? 0 : 1;
}

static void a_fork_has_a_title_of_its_own(void **state)
{
    (void)state;
    title_set("weir: parent", NULL);
    assert_int_equal(in_child(title_of_a_child, NULL), 0);
    assert_string_equal(read_file("/proc/self/cmdline"), "weir: parent");
}

int main(int argc, char **argv)
{
    static char filler[] = "an argument that gives the titles of the test some room";
    if (argc < 2) { /* meson gives no arguments */
        char *const again[] = {argv[0], filler, NULL};
        execv("/proc/self/exe", again);
        return 1;
    }
    title_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_title_takes_the_place_of_the_arguments),
        cmocka_unit_test(a_longer_title_is_cut_before_the_environment),
        cmocka_unit_test(a_fork_has_a_title_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
