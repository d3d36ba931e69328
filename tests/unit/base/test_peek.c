/* Reading memory that may be gone, both ways; lines of files; threads as the kernel sees them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/peek.h"
#include "base/source.h"
#include "base/tasks.h"

static void memory_that_is_there_is_copied_and_other_is_an_error(void **state)
{
    (void)state;
    for (enum peek_way way = PEEK_CALL; way <= PEEK_FILE; way++) {
        struct peek p;
        assert_int_equal(peek_begin(&p, way), 0);
        assert_int_equal(p.way, way);
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *map =
            mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(map, MAP_FAILED);
        char *gone = map + page, got[16] = {0};
        munmap(gone, page);
        memcpy(map, "0123456789", 11);
        assert_int_equal(peek(&p, got, (uintptr_t)map, 11), 0);
        assert_string_equal(got, "0123456789");
        assert_int_equal(peek(&p, got, (uintptr_t)gone, 8), -EFAULT);
        assert_int_equal(peek(&p, got, (uintptr_t)gone - 4, 8), -EFAULT); /* half of it */
        assert_int_equal(peek(&p, got, 0, 8), -EFAULT);
        assert_int_equal(peek(&p, got, UINTPTR_MAX - 7, 8), -EFAULT);
        char a[4], b[4];
        const struct peek_part parts[] = {{a, (uintptr_t)map, 4}, {b, (uintptr_t)map + 6, 4}};
        assert_int_equal(peek_parts(&p, parts, 2), 0);
        assert_memory_equal(a, "0123", 4);
        assert_memory_equal(b, "6789", 4);
        const struct peek_part half[] = {{a, (uintptr_t)map, 4}, {b, (uintptr_t)gone, 4}};
        assert_int_equal(peek_parts(&p, half, 2), -EFAULT);
        munmap(map, page);
        peek_end(&p);
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void assert_line(struct source *s, const char *path, int number, const char *text)
{
    struct slice line = source_line(s, path, number);
    if (!slice_eq(line, slice_str(text)))
        fail_msg("line %d is '%.*s', not '%s'", number, (int)line.n, line.p, text);
}

static void lines_are_found_and_trimmed(void **state)
{
    (void)state;
    char path[] = "/tmp/weir-source-XXXXXX", other[64];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, "first\n  \tsecond \r\n\nfourth");
    struct source *s = source_new();
    assert_line(s, path, 1, "first");
    assert_line(s, path, 2, "second");
    assert_line(s, path, 3, "");
    assert_line(s, path, 4, "fourth");
    assert_line(s, path, 5, "");
    assert_line(s, path, 0, "");
    assert_line(s, path, -1, "");
    assert_line(s, "<string>", 1, "");
    assert_line(s, "", 1, "");
    assert_line(s, "/nowhere/at/all", 1, "");
    assert_line(s, "/dev/zero", 1, "");
    for (int i = 0; i < SOURCE_FILES_MAX * 2; i++) { /* more than are kept */
        snprintf(other, sizeof other, "/nowhere/%d", i);
        assert_line(s, other, 1, "");
    }
    assert_line(s, path, 2, "second");
    source_free(&s);
    assert_null(s);

    /* A long line is cut at a character. */
    char text[400] = "x";
    for (int i = 0; i < 150; i++)
        strcat(text, "\xc3\xa9");
    write_file(path, text);
    s = source_new();
    assert_int_equal(source_line(s, path, 1).n, SOURCE_LINE_BYTES_MAX - 1);
    source_free(&s);
    unlink(path);
}

struct waiter {
    int fd;
    _Atomic int32_t id;
};

static void *wait_main(void *arg)
{
    struct waiter *w = arg;
    char byte;
    pthread_setname_np(pthread_self(), "weir-(1) x");
    atomic_store(&w->id, (int32_t)gettid());
    ssize_t n = read(w->fd, &byte, 1);
    (void)n;
    return NULL;
}

static void a_waiting_thread_is_seen_with_its_call(void **state)
{
    (void)state;
    int pipes[2];
    char text[300] = "";
    pthread_t thread;
    struct peek p;
    struct task task;
    bool waits = false;
    assert_int_equal(pipe(pipes), 0);
    struct waiter w = {.fd = pipes[0]};
    assert_int_equal(peek_begin(&p, PEEK_CALL), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_main, &w), 0);
    while (!atomic_load(&w.id) || !waits) {
        struct tasks all;
        assert_int_equal(tasks_open(&all), 0);
        assert_true(all.n >= 2);
        if (atomic_load(&w.id)) {
            assert_true(task_look(&all, w.id, &task));
            waits = task_waits_in(&task, &p, text, sizeof text) &&
                    (!task.call_known || !strncmp(text, "read", 4));
        }
        tasks_close(&all);
    }
    assert_string_equal(task.name, "weir-(1) x");
    assert_int_equal(task.state, 'S');
    if (task.call_known)
        assert_memory_equal(text, "read: pipe:[", 12);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    pthread_join(thread, NULL);
    close(pipes[0]);
    close(pipes[1]);
    struct tasks all;
    assert_int_equal(tasks_open(&all), 0);
    assert_false(task_look(&all, w.id, &task));
    assert_true(task_look(&all, getpid(), &task)); /* this one runs */
    assert_int_equal(task.state, 'R');
    tasks_close(&all);
    peek_end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_there_is_copied_and_other_is_an_error),
        cmocka_unit_test(lines_are_found_and_trimmed),
        cmocka_unit_test(a_waiting_thread_is_seen_with_its_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
