/* pid_file: made, refused, taken over, removed. */
#include "proc_helper.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

#include "proc/pid_file.h"

static char folder[64], path[128];
static struct pid_file file;
static struct err e;

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/weir-pid-XXXXXX"); // NOLINT
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/weir.pid", folder);
    e.text[0] = 0;
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[160];
    pid_file_drop(&file);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command); // NOLINT(cert-env33-c)
}

static void put(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* What stands in `name`; -1: there is no such file. */
static int number_in(const char *name)
{
    int n = 0;
    FILE *f = fopen(name, "r");
    if (!f)
        return -1;
    assert_int_equal(fscanf(f, "%d\n", &n), 1); // NOLINT(cert-err34-c)
    fclose(f);
    return n;
}

static unsigned files_in_folder(void)
{
    unsigned n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A process that lives until it is ended by `finish`. */
static pid_t neighbour(void)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    assert_true(pid > 0);
    return pid;
}

static void finish(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void the_file_holds_our_number_and_goes_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    assert_int_equal(number_in(path), getpid());
    assert_int_equal(files_in_folder(), 1);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    pid_file_drop(&file);
    assert_int_equal(files_in_folder(), 0);
    pid_file_drop(&file);
}

static void a_living_process_is_not_overwritten(void **state)
{
    (void)state;
    char text[32];
    pid_t other = neighbour();
    snprintf(text, sizeof text, "%d\n", other);
    put(text);
    assert_int_equal(pid_file_make(&file, path, "", &e), -1);
    assert_text_in(e.text, "already running");
    assert_int_equal(number_in(path), other);
    assert_int_equal(files_in_folder(), 1);
    finish(other);
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    assert_int_equal(number_in(path), getpid());
}

static void a_process_that_ended_but_was_not_waited_for_is_stale(void **state)
{
    (void)state;
    char text[32];
    siginfo_t info;
    pid_t other = fork();
    if (other == 0)
        _exit(0);
    assert_int_equal(waitid(P_PID, (id_t)other, &info, WEXITED | WNOWAIT), 0);
    snprintf(text, sizeof text, "%d", other);
    put(text);
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    assert_int_equal(waitpid(other, NULL, 0), other);
}

static void our_own_number_and_an_empty_file_are_stale(void **state)
{
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%d\n", getpid());
    put(text); /* a container gives the same numbers again */
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    pid_file_drop(&file);
    put("");
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    assert_int_equal(number_in(path), getpid());
}

static void a_file_of_something_else_is_not_overwritten(void **state)
{
    (void)state;
    put("import flask\n");
    assert_int_equal(pid_file_make(&file, path, "", &e), -1);
    assert_text_in(e.text, "something else");
    assert_null(file.path);
    FILE *f = fopen(path, "r");
    char first[32];
    assert_non_null(fgets(first, sizeof first, f));
    assert_string_equal(first, "import flask\n");
    fclose(f);
    assert_int_equal(files_in_folder(), 1);
}

static void a_missing_folder_is_told(void **state)
{
    (void)state;
    assert_int_equal(pid_file_make(&file, "/nonexistent/folder/weir.pid", "", &e), -1);
    assert_text_in(e.text, "/nonexistent/folder/weir.pid: No such file or directory");
    char name[192];
    snprintf(name, sizeof name, "%s/weir.pid/x", folder);
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    struct pid_file below;
    assert_int_equal(pid_file_make(&below, name, "", &e), -1);
    assert_text_in(e.text, "Not a directory");
}

static void a_file_that_another_has_taken_over_stays(void **state)
{
    (void)state;
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    put("1\n");
    pid_file_drop(&file);
    assert_int_equal(number_in(path), 1);
}

static int drop_it(void *arg)
{
    pid_file_drop(arg);
    return 0;
}

static void a_fork_does_not_remove_it(void **state)
{
    (void)state;
    assert_int_equal(pid_file_make(&file, path, "", &e), 0);
    assert_int_equal(in_child(drop_it, &file), 0);
    assert_int_equal(number_in(path), getpid());
}

static void an_upgrade_has_two_files_and_ends_with_one(void **state)
{
    (void)state;
    char second[160], text[32];
    pid_t old = neighbour();
    snprintf(text, sizeof text, "%d\n", old);
    snprintf(second, sizeof second, "%s.2", path);
    put(text);
    assert_int_equal(pid_file_make(&file, path, ".2", &e), 0);
    assert_int_equal(number_in(second), getpid());
    assert_int_equal(pid_file_rename(&file, path, 0, &e), -1);
    assert_text_in(e.text, "already running");
    assert_int_equal(number_in(second), getpid());
    finish(old);
    assert_int_equal(pid_file_rename(&file, path, 0, &e), 0);
    assert_int_equal(number_in(path), getpid());
    assert_int_equal(number_in(second), -1);
    pid_file_drop(&file);
    assert_int_equal(files_in_folder(), 0);
}

static void who_knows_that_the_other_has_ended_need_not_wait_for_its_number(void **state)
{
    (void)state;
    char text[32];
    pid_t old = neighbour(); /* lives: as one that is on its way out still seems to */
    snprintf(text, sizeof text, "%d\n", old);
    put(text);
    assert_int_equal(pid_file_make(&file, path, ".2", &e), 0);
    assert_int_equal(pid_file_rename(&file, path, old, &e), 0);
    assert_int_equal(number_in(path), getpid());
    finish(old);
}

static void a_relative_path_stays_where_it_was(void **state)
{
    (void)state;
    char *before = getcwd(NULL, 0);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(pid_file_make(&file, "weir.pid", "", &e), 0);
    assert_int_equal(chdir(before), 0);
    free(before);
    assert_int_equal(number_in(path), getpid());
    pid_file_drop(&file);
    assert_int_equal(files_in_folder(), 0);
}

static int race(void *arg)
{
    struct pid_file mine;
    struct err said;
    int begin;
    if (read(*(int *)arg, &begin, sizeof begin) < 0)
        return 3;
    if (pid_file_make(&mine, path, "", &said))
        return strstr(said.text, "already running") ? 1 : 2;
    pause();
    return 0;
}

/* Eight start at once on a fresh file: one gets it. */
static void of_several_that_start_at_once_one_wins(void **state)
{
    (void)state;
    int gate[2];
    pid_t racers[8];
    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < 8; i++) {
        racers[i] = fork();
        if (racers[i] == 0) {
            close(gate[1]);
            _exit(race(&gate[0]));
        }
    }
    close(gate[0]);
    close(gate[1]); /* all of them read the end of the pipe */
    int losers = 0, status;
    while (losers < 7) {
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        losers++;
    }
    int winner = number_in(path);
    kill(winner, SIGKILL);
    assert_int_equal(wait(&status), winner);
    unlink(path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        T(the_file_holds_our_number_and_goes_at_the_end),
        T(a_living_process_is_not_overwritten),
        T(a_process_that_ended_but_was_not_waited_for_is_stale),
        T(our_own_number_and_an_empty_file_are_stale),
        T(a_file_of_something_else_is_not_overwritten),
        T(a_missing_folder_is_told),
        T(a_file_that_another_has_taken_over_stays),
        T(a_fork_does_not_remove_it),
        T(an_upgrade_has_two_files_and_ends_with_one),
        T(who_knows_that_the_other_has_ended_need_not_wait_for_its_number),
        T(a_relative_path_stays_where_it_was),
        T(of_several_that_start_at_once_one_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
