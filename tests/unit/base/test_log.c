/* The error log's lines, and sinks under full pipes, several threads, rotation and fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.c"

/* How late a bound may be on a busy machine. */
enum { SLACK_MS = 3000 };

static char g_dir[] = "/tmp/weir-log-XXXXXX";

/* The same pointer for the same name; all of them are removed at the end. */
static char g_paths[32][128];

static const char *in_dir(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", g_dir, name);
    size_t i = 0;
    while (g_paths[i][0] && strcmp(g_paths[i], path) != 0)
        i++;
    assert_true(i < sizeof g_paths / sizeof *g_paths);
    return memcpy(g_paths[i], path, sizeof path);
}

static char *content(const char *path)
{
    static char text[8 * 1024 * 1024];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    text[n] = '\0';
    return text;
}

static struct log_sink *opened(const char *path, int fd)
{
    struct log_sink *s = NULL;
    struct err e;
    if (log_sink_open(&s, path, fd, &e))
        fail_msg("%s", e.text);
    return s;
}

static void started(void)
{
    struct err e;
    if (log_start(&e))
        fail_msg("%s", e.text);
}

static int64_t since_ms(int64_t start_ns)
{
    return (clock_mono_ns() - start_ns) / 1000000;
}

/* Whether the lines of `text` all end as they should; their number. */
static unsigned count_whole_lines(const char *text, const char *end)
{
    unsigned n = 0;
    for (const char *p = text, *newline; *p; p = newline + 1, n++) {
        newline = strchr(p, '\n');
        assert_non_null(newline);
        assert_memory_equal(newline - strlen(end), end, strlen(end));
    }
    return n;
}

static void line_is_written_at_once_without_a_writer(void **state)
{
    (void)state;
    const char *path = in_dir("at-once");
    struct log_sink *s = opened(path, -1);
    log_sink_write(s, SLICE("one\n"));
    assert_string_equal(content(path), "one\n");
    log_sink_close(&s);
    assert_null(s);
    log_sink_close(&s);
}

static void entry_has_time_pid_level_and_request(void **state)
{
    (void)state;
    const char *path = in_dir("entry");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, false);
    log_line(LOG_DEBUG, 0, "not %s", "this");
    log_line(LOG_WARNING, 7, "slow queue_ms=%d", 12);
    char *text = content(path), want[64];
    snprintf(want, sizeof want, " [%d] WARNING request=7 slow queue_ms=12\n", (int)getpid());
    assert_int_equal(strlen(text), 23 + strlen(want));
    assert_string_equal(text + 23, want);
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
}

static void colours_are_on_level_and_request_alone(void **state)
{
    (void)state;
    const char *path = in_dir("color");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, false);
    log_color(true);
    log_line(LOG_ERROR, 7, "a \x1b[2J b");
    log_setup(s, LOG_INFO, true);
    log_line(LOG_ERROR, 7, "in json");
    log_color(false);
    char *text = strstr(content(path), "] ");
    assert_non_null(strstr(text, "\"message\":\"in json\""));
    strchr(text, '\n')[1] = 0;
    assert_string_equal(text, "] \x1b[31mERROR\x1b[0m \x1b[36mrequest=7\x1b[0m a \\x1b[2J b\n");
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
}

static void colours_are_for_terminals(void **state)
{
    (void)state;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), file = open("/dev/null", O_WRONLY);
    assert_true(terminal >= 0 && file >= 0);
    unsetenv("NO_COLOR");
    setenv("TERM", "xterm", 1);
    assert_true(log_color_wanted("auto", terminal));
    assert_false(log_color_wanted("auto", file));
    assert_false(log_color_wanted("auto", -1));
    assert_false(log_color_wanted("never", terminal));
    setenv("NO_COLOR", "1", 1);
    assert_false(log_color_wanted("auto", terminal));
    assert_true(log_color_wanted("always", file));
    setenv("NO_COLOR", "", 1);
    assert_true(log_color_wanted("auto", terminal));
    setenv("TERM", "dumb", 1);
    assert_false(log_color_wanted("auto", terminal));
    close(terminal);
    close(file);
}

static void text_cannot_pass_for_another_entry(void **state)
{
    (void)state;
    const char *path = in_dir("forged");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, false);
    log_text(
        LOG_ERROR, 0,
        SLICE("Traceback:\n  File \"x\"\n2026-01-01 [1] ERROR forged\x1b[2J\r\xff\xc3\xa4\n\n"));
    char *text = strstr(content(path), "ERROR ");
    assert_string_equal(text, "ERROR Traceback:\n    File \"x\"\n  2026-01-01 [1] ERROR "
                              "forged\\x1b[2J\\x0d\\xff\xc3\xa4\n");
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
}

static void json_entry_is_one_valid_line(void **state)
{
    (void)state;
    const char *path = in_dir("json");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, true);
    log_text(LOG_ERROR, 3, SLICE("a\n\"b\"\\\x01\xff\xc3\xa4"));
    char *text = content(path);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    char want[200];
    snprintf(want, sizeof want,
             "Z\",\"level\":\"ERROR\",\"pid\":%d,\"request\":3,\"message\":\"a\\n\\\"b\\\"\\\\"
             "\\u0001\\u00ff\xc3\xa4\"}\n",
             (int)getpid());
    assert_string_equal(strstr(text, "Z\""), want);
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
}

static void long_text_is_cut_and_says_so(void **state)
{
    (void)state;
    const char *path = in_dir("long");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, false);
    static char text[LOG_TEXT_BYTES_MAX + 5];
    memset(text, 'x', sizeof text);
    log_text(LOG_ERROR, 0, slice_of(text, sizeof text));
    assert_non_null(strstr(content(path), "x... (5 bytes more)\n"));
    log_line(LOG_ERROR, 0, "%.*s", 5000, text);
    char *found = content(path);
    assert_string_equal(found + strlen(found) - 5, "x...\n");
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
}

static void closing_the_error_sink_falls_back_to_standard_error(void **state)
{
    (void)state;
    struct log_sink *s = opened(in_dir("fallback"), -1);
    log_setup(s, LOG_INFO, false);
    log_sink_close(&s);
    assert_null(g_log.errors);
    assert_int_equal(g_log.n_sinks, 1);
}

static void close_writes_what_waits(void **state)
{
    (void)state;
    const char *path = in_dir("close");
    for (int i = 0; i < 20; i++) { /* and a server may come and go many times */
        unlink(path);
        started();
        struct log_sink *s = opened(path, -1);
        log_sink_write(s, SLICE("one\n"));
        log_sink_write(s, SLICE("two\n"));
        log_sink_close(&s);
        assert_string_equal(content(path), "one\ntwo\n");
        log_stop();
    }
    assert_int_equal(g_log.n_sinks, 1);
}

static void stop_writes_what_waits_and_later_lines_go_at_once(void **state)
{
    (void)state;
    const char *path = in_dir("stop");
    struct log_sink *s = opened(path, -1);
    started();
    struct err e;
    assert_int_equal(log_start(&e), 0); /* twice is once */
    log_sink_write(s, SLICE("one\n"));
    log_stop();
    log_stop();
    assert_string_equal(content(path), "one\n");
    log_sink_write(s, SLICE("two\n"));
    assert_string_equal(content(path), "one\ntwo\n");
    log_sink_close(&s);
}

static void full_pipe_delays_no_line_and_stop_is_bounded(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const char *path = in_dir("errors");
    struct log_sink *stuck = opened("-", ends[1]), *errors = opened(path, -1);
    log_setup(errors, LOG_INFO, false);
    started();
    static char line[1000];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    int64_t start_ns = clock_mono_ns();
    for (int i = 0; i < 3000; i++) /* 3 MB into 64 KiB of pipe and 1 MiB of memory */
        log_sink_write(stuck, slice_of(line, sizeof line));
    assert_true(since_ms(start_ns) < SLACK_MS);
    log_sink_write(errors, SLICE("another sink\n")); /* is not held up */
    while (!strstr(content(path), "another sink"))
        usleep(1000);
    assert_true(since_ms(start_ns) < SLACK_MS);

    start_ns = clock_mono_ns();
    log_stop();
    assert_in_range(since_ms(start_ns), LOG_STOP_MS - 50, LOG_STOP_MS + SLACK_MS);
    start_ns = clock_mono_ns();
    log_sink_write(stuck, slice_of(line, sizeof line)); /* tried for a while, given up */
    assert_true(since_ms(start_ns) < LOG_STOP_MS + SLACK_MS);
    start_ns = clock_mono_ns();
    log_sink_write(stuck, slice_of(line, sizeof line)); /* and not waited for again */
    assert_true(since_ms(start_ns) < LOG_STOP_MS / 2);

    /* The reader comes back: what arrives is whole lines, and the loss is told. */
    char *got = malloc(4 * 1024 * 1024);
    assert_non_null(got);
    ssize_t n = read(ends[0], got, 4 * 1024 * 1024 - 1);
    assert_true(n > 0);
    log_sink_write(stuck, SLICE("after x\n"));
    log_sink_close(&stuck);
    close(ends[1]);
    ssize_t more = read(ends[0], got + n, (size_t)(4 * 1024 * 1024 - 1 - n));
    assert_true(more > 0);
    got[n + more] = '\0';
    unsigned lost = 0; /* each line arrived whole or is told of */
    const char *at = content(path);
    while ((at = strstr(at, "WARNING ")) != NULL) {
        unsigned lines;
        at += 8;
        if (sscanf(at, "%u log lines for the standard stream were lost", &lines) == 1)
            lost += lines;
    }
    assert_true(lost > 1000);
    assert_int_equal(count_whole_lines(got, "x"), 3000 + 2 + 1 - lost);
    close(ends[0]);
    free(got);
    log_sink_close(&errors);
}

static void close_of_a_full_pipe_is_bounded(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct log_sink *s = opened("-", ends[1]);
    assert_int_equal(s->kind, SINK_NONBLOCK);
    assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK,
                     0); /* the others' descriptor is as it was */
    log_setup(NULL, LOG_CRITICAL, false);
    started();
    static char line[4000];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 100; i++)
        log_sink_write(s, slice_of(line, sizeof line));
    int64_t start_ns = clock_mono_ns();
    log_sink_close(&s);
    assert_in_range(since_ms(start_ns), LOG_STOP_MS - 50, LOG_STOP_MS + SLACK_MS);
    log_stop();
    log_setup(NULL, LOG_INFO, false);
    close(ends[0]);
    close(ends[1]);
}

/* As where /proc is not mounted: the shared descriptor blocks, and only poll tells. */
static void full_pipe_of_a_shared_descriptor_does_not_block_either(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    log_setup(NULL, LOG_CRITICAL, false);
    struct log_sink *s = opened("-", ends[1]);
    close(s->fd);
    s->own_fd = false;
    s->fd = ends[1];
    s->kind = SINK_POLLED;
    started();
    static char line[4000];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 100; i++)
        log_sink_write(s, slice_of(line, sizeof line));
    int64_t start_ns = clock_mono_ns();
    log_stop();
    assert_true(since_ms(start_ns) < LOG_STOP_MS + SLACK_MS);
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
    close(ends[0]);
    close(ends[1]);
}

static void closed_pipe_loses_lines_and_nothing_else(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const char *path = in_dir("epipe");
    struct log_sink *s = opened("-", ends[1]), *errors = opened(path, -1);
    log_setup(errors, LOG_INFO, false);
    close(ends[0]);
    started();
    log_sink_write(s, SLICE("one\n"));
    log_sink_close(&s);
    log_stop();
    assert_non_null(
        strstr(content(path), "1 log lines for the standard stream were lost: Broken pipe"));
    /* The error log itself on a closed pipe: stop ends at once. */
    log_sink_close(&errors);
    s = opened("-", ends[1]);
    log_setup(s, LOG_INFO, false);
    started();
    log_line(LOG_ERROR, 0, "nobody %s", "reads this");
    int64_t start_ns = clock_mono_ns();
    log_stop();
    assert_true(since_ms(start_ns) < SLACK_MS);
    log_setup(NULL, LOG_CRITICAL, false);
    log_sink_close(&s);
    log_setup(NULL, LOG_INFO, false);
    close(ends[1]);
}

static void socket_takes_lines_too(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct log_sink *s = opened("-", ends[1]);
    assert_int_equal(s->kind, SINK_SOCKET);
    started();
    log_sink_write(s, SLICE("one\n"));
    log_sink_close(&s);
    log_stop();
    char got[8] = "";
    assert_int_equal(read(ends[0], got, sizeof got), 4);
    assert_string_equal(got, "one\n");
    close(ends[0]);
    close(ends[1]);
}

static void reopen_writes_to_the_new_file(void **state)
{
    (void)state;
    const char *path = in_dir("rotate"), *old = in_dir("rotate.1");
    struct log_sink *s = opened(path, -1);
    struct err e;
    for (int with_writer = 0; with_writer < 2; with_writer++) {
        if (with_writer)
            started();
        log_sink_write(s, SLICE("old\n"));
        if (with_writer)
            while (!*content(path))
                usleep(1000);
        assert_int_equal(rename(path, old), 0);
        assert_int_equal(log_reopen(&e), 0);
        log_sink_write(s, SLICE("new\n"));
        if (with_writer)
            log_stop();
        assert_string_equal(content(old), "old\n");
        assert_string_equal(content(path), "new\n");
        assert_int_equal(truncate(path, 0), 0);
    }
    log_sink_close(&s);
}

static void failed_reopen_keeps_the_old_file(void **state)
{
    (void)state;
    const char *dir = in_dir("d"), *path = in_dir("d/log"), *moved = in_dir("e");
    assert_int_equal(mkdir(dir, 0700), 0);
    struct log_sink *s = opened(path, -1);
    assert_int_equal(rename(dir, moved), 0);
    struct err e;
    assert_int_equal(log_reopen(&e), -1);
    assert_non_null(strstr(e.text, path));
    log_sink_write(s, SLICE("still\n"));
    assert_string_equal(content(in_dir("e/log")), "still\n");
    log_sink_close(&s);
}

static void too_many_sinks_are_an_error(void **state)
{
    (void)state;
    struct log_sink *s[LOG_SINKS_MAX] = {0};
    struct err e;
    unsigned n = 0;
    while (n < LOG_SINKS_MAX && log_sink_open(&s[n], in_dir("many"), -1, &e) == 0)
        n++;
    assert_int_equal(n, LOG_SINKS_MAX - 1); /* standard error has a place */
    assert_non_null(strstr(e.text, "too many"));
    while (n)
        log_sink_close(&s[--n]);
    assert_int_equal(log_sink_open(&s[0], "/nonexistent/log", -1, &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/log"));
}

static void flood_is_limited_per_place_and_counted(void **state)
{
    (void)state;
    struct log_site site = {0};
    unsigned more, passed = 0;
    /* All within one second of the site's own window: set it ahead, so that the clock's second does
     * not open a new one in the middle. */
    atomic_store(&site.second, clock_mono_ns() / 1000000000 + 1000);
    for (int i = 0; i < 50; i++)
        passed += log_site_pass(&site, &more);
    assert_int_equal(passed, LOG_FLOOD_LINES);
    assert_int_equal(more, 0);
    atomic_store(&site.second, 1);
    assert_true(log_site_pass(&site, &more));
    assert_int_equal(more, 50 - LOG_FLOOD_LINES);
    atomic_store(&site.second, 1);
    assert_true(log_site_pass(&site, &more));
    assert_int_equal(more, 0);
}

/* ---- several threads ---- */

enum { THREADS = 4, LINES = 3000 };

struct load {
    struct log_sink *access;
    unsigned me;
};

static void *load_main(void *arg)
{
    const struct load *load = arg;
    for (unsigned i = 0; i < LINES; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "t%u %u .\n", load->me, i);
        log_sink_write(load->access, slice_of(line, (size_t)n));
        if (i % 8 == 0)
            log_line(LOG_INFO, i, "thread %u .", load->me);
        if (i % 64 == 0)
            log_flood(LOG_INFO, 0, "flood %u .", load->me);
    }
    return NULL;
}

static void threads_lose_and_mix_nothing_while_files_are_reopened(void **state)
{
    (void)state;
    const char *access_path = in_dir("t-access"), *errors_path = in_dir("t-errors");
    struct log_sink *access = opened(access_path, -1), *errors = opened(errors_path, -1);
    log_setup(errors, LOG_INFO, false);
    started();
    pthread_t threads[THREADS];
    struct load load[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        load[i] = (struct load){access, i};
        assert_int_equal(pthread_create(&threads[i], NULL, load_main, &load[i]), 0);
    }
    struct err e;
    for (int i = 0; i < 30; i++) {
        assert_int_equal(log_reopen(&e), 0);
        struct log_sink *other = opened(in_dir("t-other"), -1);
        log_sink_write(other, SLICE("x\n"));
        log_sink_close(&other);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    log_stop();
    assert_true(count_whole_lines(content(errors_path), "") >= THREADS * ((LINES + 7) / 8));
    const char *text = content(access_path);
    assert_int_equal(count_whole_lines(text, " ."), THREADS * LINES);
    unsigned next[THREADS] = {0}; /* each thread's lines are there, in order */
    for (const char *p = text; *p; p = strchr(p, '\n') + 1) {
        unsigned t, i;
        assert_int_equal(sscanf(p, "t%u %u", &t, &i), 2);
        assert_true(t < THREADS);
        assert_int_equal(i, next[t]++);
    }
    log_setup(NULL, LOG_INFO, false);
    log_sink_close(&access);
    log_sink_close(&errors);
}

/* TSan has no threads in the child of a process that had some. */
#if defined(__SANITIZE_THREAD__)
#define NO_THREADS_AFTER_FORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_THREADS_AFTER_FORK 1
#endif
#endif
#ifndef NO_THREADS_AFTER_FORK
#define NO_THREADS_AFTER_FORK 0
#endif

static void child_of_fork_logs_at_once_and_may_start_a_writer(void **state)
{
    (void)state;
    const char *path = in_dir("fork");
    struct log_sink *s = opened(path, -1);
    log_setup(s, LOG_INFO, false);
    started();
    pthread_t thread;
    struct load load = {s, 0};
    assert_int_equal(pthread_create(&thread, NULL, load_main, &load), 0);
    enum { CHILDREN = 8 };
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            log_line(LOG_INFO, 0, "child %d .", i);
            struct err e;
            if (!NO_THREADS_AFTER_FORK && log_start(&e))
                _exit(1);
            log_line(LOG_INFO, 0, "child %d .", i);
            log_stop();
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    pthread_join(thread, NULL);
    log_stop();
    const char *text = content(path);
    count_whole_lines(text, " .");
    unsigned children = 0, lines = 0;
    for (const char *p = text; *p; p = strchr(p, '\n') + 1) {
        children += strstr(p, "INFO child") && strstr(p, "INFO child") < strchr(p, '\n');
        lines += p[0] == 't';
    }
    assert_int_equal(children, 2 * CHILDREN);
    assert_int_equal(lines, LINES); /* none twice */
    log_setup(NULL, LOG_INFO, false);
    log_sink_close(&s);
}

static void a_lent_descriptor_that_leads_elsewhere_is_followed(void **state)
{
    (void)state;
    int ends[2];
    char read_back[256];
    assert_int_equal(pipe(ends), 0);
    struct log_sink *s = opened("-", ends[1]); /* opened a second time */
    assert_true(s->own_fd);
    log_setup(s, LOG_INFO, false);
    log_line(LOG_INFO, 0, "to the pipe");
    assert_true(read(ends[0], read_back, sizeof read_back) > 0);
    const char *path = in_dir("elsewhere");
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(dup2(file, ends[1]), ends[1]);
    log_lent_changed();
    log_line(LOG_INFO, 0, "to the file");
    assert_non_null(strstr(content(path), "to the file"));
    started();
    assert_int_equal(dup2(STDERR_FILENO, ends[1]), ends[1]); /* also while the writer runs */
    log_lent_changed();
    log_stop();
    log_sink_close(&s);
    close(file);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(g_dir))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_is_written_at_once_without_a_writer),
        cmocka_unit_test(entry_has_time_pid_level_and_request),
        cmocka_unit_test(colours_are_on_level_and_request_alone),
        cmocka_unit_test(colours_are_for_terminals),
        cmocka_unit_test(text_cannot_pass_for_another_entry),
        cmocka_unit_test(json_entry_is_one_valid_line),
        cmocka_unit_test(long_text_is_cut_and_says_so),
        cmocka_unit_test(closing_the_error_sink_falls_back_to_standard_error),
        cmocka_unit_test(close_writes_what_waits),
        cmocka_unit_test(stop_writes_what_waits_and_later_lines_go_at_once),
        cmocka_unit_test(full_pipe_delays_no_line_and_stop_is_bounded),
        cmocka_unit_test(close_of_a_full_pipe_is_bounded),
        cmocka_unit_test(full_pipe_of_a_shared_descriptor_does_not_block_either),
        cmocka_unit_test(closed_pipe_loses_lines_and_nothing_else),
        cmocka_unit_test(socket_takes_lines_too),
        cmocka_unit_test(reopen_writes_to_the_new_file),
        cmocka_unit_test(failed_reopen_keeps_the_old_file),
        cmocka_unit_test(a_lent_descriptor_that_leads_elsewhere_is_followed),
        cmocka_unit_test(too_many_sinks_are_an_error),
        cmocka_unit_test(flood_is_limited_per_place_and_counted),
        cmocka_unit_test(threads_lose_and_mix_nothing_while_files_are_reopened),
        cmocka_unit_test(child_of_fork_logs_at_once_and_may_start_a_writer),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < sizeof g_paths / sizeof *g_paths && g_paths[i][0]; i++)
        unlink(g_paths[i]);
    unlink(in_dir("e/log"));
    rmdir(in_dir("e"));
    rmdir(g_dir);
    return rc;
}
