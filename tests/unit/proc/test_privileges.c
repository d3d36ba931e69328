/* privileges: names, refusals, and that there is no way back. */
#include "proc_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "proc/privileges.h"

static struct privileges p;
static struct err e;

static int resolve(const char *user, const char *group, bool init)
{
    e.text[0] = 0;
    return privileges_resolve(&p, user, group, init, "", &e);
}

static void refuses(const char *user, const char *group, bool init, const char *text)
{
    assert_int_equal(resolve(user, group, init), -1);
    assert_text_in(e.text, text);
}

#define NEEDS_ROOT()                                                                               \
    do {                                                                                           \
        if (geteuid() != 0) {                                                                      \
            print_message("needs root\n");                                                         \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void unknown_names_are_told(void **state)
{
    (void)state;
    refuses("nosuchuser", "", false, "user: there is no user 'nosuchuser'");
    refuses("", "nosuchgroup", false, "group: there is no group 'nosuchgroup'");
    refuses("-5", "", false, "there is no user '-5'");
    refuses("4294967295", "", false, "there is no user '4294967295'"); /* means "unchanged" */
    refuses("", "", true, "initgroups has no meaning without user");
    assert_int_equal(privileges_resolve(&p, "", "", false, "999", &e), -1);
    assert_text_in(e.text, "umask: '999' is not an octal mode");
    assert_int_equal(privileges_resolve(&p, "", "", false, "1777", &e), -1);
}

static void without_settings_nothing_changes(void **state)
{
    (void)state;
    assert_int_equal(resolve("", "", false), 0);
    assert_false(p.drops);
    assert_false(p.has_umask);
    assert_int_equal(privileges_drop(&p, &e), 0);
    assert_int_equal(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
}

static void a_user_brings_its_own_group(void **state)
{
    (void)state;
    NEEDS_ROOT();
    const struct passwd *nobody = getpwnam("nobody");
    assert_int_equal(resolve("nobody", "", false), 0);
    assert_true(p.drops && p.change_uid && p.change_gid);
    assert_int_equal(p.uid, nobody->pw_uid);
    assert_int_equal(p.gid, nobody->pw_gid);
    assert_int_equal(p.n_groups, 1);
    assert_int_equal(resolve("65534", "daemon", false), 0);
    assert_int_equal(p.uid, 65534);
    assert_int_equal(p.gid, getgrnam("daemon")->gr_gid);
    /* A number that no user has keeps the group, as nobody says another. */
    assert_int_equal(resolve("54321", "", false), 0);
    assert_int_equal(p.gid, getegid());
    refuses("54321", "", true, "initgroups: the groups of a user are known by its name");
}

static int nothing_is_left(void *arg)
{
    (void)arg;
    uid_t ids[3];
    gid_t groups[8];
    prctl(PR_SET_PDEATHSIG, 15);
    if (privileges_drop(&p, &e)) {
        print_message("%s\n", e.text);
        return 1;
    }
    if (getresuid(&ids[0], &ids[1], &ids[2]) || ids[0] != p.uid || ids[1] != p.uid ||
        ids[2] != p.uid)
        return 2;
    if (getgroups(8, groups) != 1 || groups[0] != p.gid || getgid() != p.gid || getegid() != p.gid)
        return 3;
    if (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0 || setgroups(0, NULL) == 0)
        return 4;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 5;
    if (open("/etc/shadow", O_RDONLY) >= 0)
        return 6;
    int sig = 0;
    return prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == 15 ? 0 : 7;
}

static void a_worker_that_dropped_root_cannot_get_it_back(void **state)
{
    (void)state;
    NEEDS_ROOT();
    assert_int_equal(resolve("nobody", "", false), 0);
    assert_int_equal(in_child(nothing_is_left, NULL), 0);
    assert_int_equal(geteuid(), 0);
}

static int only_the_group(void *arg)
{
    (void)arg;
    return privileges_drop(&p, &e) == 0 && getuid() == 0 && getegid() == p.gid ? 0 : 1;
}

static void a_group_alone_can_be_changed(void **state)
{
    (void)state;
    NEEDS_ROOT();
    assert_int_equal(resolve("", "nogroup", false), 0);
    assert_true(p.change_gid && !p.change_uid);
    assert_int_equal(in_child(only_the_group, NULL), 0);
}

static int as_nobody(void *arg)
{
    (void)arg;
    if (resolve("nobody", "", false) || privileges_drop(&p, &e))
        return 1;
    if (resolve("root", "", false) != -1 || !strstr(e.text, "only root can become 'root'"))
        return 2;
    if (resolve("", "daemon", false) != -1 || !strstr(e.text, "only root can change to the group"))
        return 3;
    /* What it is already needs no right. */
    return resolve("nobody", "nogroup", false) == 0 && !p.drops ? 0 : 4;
}

static void who_is_not_root_is_told_so_at_the_start(void **state)
{
    (void)state;
    NEEDS_ROOT();
    assert_int_equal(in_child(as_nobody, NULL), 0);
}

static char folder[] = "/tmp/weir-own-XXXXXX", path[64], second[64];

static bool owned_by_nobody(const char *name)
{
    struct stat st;
    assert_int_equal(lstat(name, &st), 0);
    return st.st_uid == 65534;
}

static void log_files_are_given_to_the_workers_but_nothing_behind_a_link(void **state)
{
    (void)state;
    NEEDS_ROOT();
    assert_int_equal(resolve("nobody", "", false), 0);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/error.log", folder);
    snprintf(second, sizeof second, "%s/second", folder);
    close(open(path, O_CREAT | O_WRONLY, 0640));
    assert_int_equal(symlink(path, second), 0);
    assert_int_equal(privileges_own_file(&p, second), 0);
    assert_false(owned_by_nobody(path));
    unlink(second);
    assert_int_equal(link(path, second), 0);
    assert_int_equal(privileges_own_file(&p, path), 0);
    assert_false(owned_by_nobody(path));
    unlink(second);
    assert_int_equal(privileges_own_file(&p, path), 0);
    assert_true(owned_by_nobody(path));
    assert_int_equal(privileges_own_file(&p, "-"), 0);
    assert_int_equal(privileges_own_file(&p, ""), 0);
    assert_int_equal(privileges_own_file(&p, "/dev/null"), 0);
    assert_false(owned_by_nobody("/dev/null"));
    assert_int_equal(privileges_own_file(&p, "/nonexistent/file"), -ENOENT);
    assert_int_equal(privileges_own_file(&p, second), 0); /* a log file that is not there yet */
    assert_true(owned_by_nobody(second));
    unlink(second);
    assert_int_equal(privileges_own_socket(&p, path), -ENOTSOCK);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", second);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(privileges_own_socket(&p, second), 0);
    assert_true(owned_by_nobody(second));
    close(fd);
    unlink(second);
    unlink(path);
    rmdir(folder);
}

static int mask(void *arg)
{
    (void)arg;
    privileges_umask(&p);
    return (int)umask(0) == 027 ? 0 : 1;
}

static void the_mask_is_octal(void **state)
{
    (void)state;
    assert_int_equal(privileges_resolve(&p, "", "", false, "027", &e), 0);
    assert_true(p.has_umask);
    assert_int_equal(in_child(mask, NULL), 0);
    assert_int_equal(privileges_resolve(&p, "", "", false, "0", &e), 0);
    assert_true(p.has_umask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names_are_told),
        cmocka_unit_test(without_settings_nothing_changes),
        cmocka_unit_test(a_user_brings_its_own_group),
        cmocka_unit_test(a_worker_that_dropped_root_cannot_get_it_back),
        cmocka_unit_test(a_group_alone_can_be_changed),
        cmocka_unit_test(who_is_not_root_is_told_so_at_the_start),
        cmocka_unit_test(log_files_are_given_to_the_workers_but_nothing_behind_a_link),
        cmocka_unit_test(the_mask_is_octal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
