/* pid_file: see the header. */
#include "proc/pid_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often a file that appears while we write is looked at again. */
#define TRIES 8

/* The number in a file: > 0, 0 when it holds none (empty, cut, something else), or a negative
 * errno. */
static pid_t read_number(const char *path)
{
    char text[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    int failed = n < 0 ? errno : 0;
    close(fd);
    if (failed)
        return -failed;
    text[n] = 0;
    char *end;
    errno = 0;
    long pid = strtol(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    return errno || *end || pid <= 0 || pid > 0x7fffffff ? 0 : (pid_t)pid;
}

bool pid_file_alive(pid_t pid)
{
    char path[64], line[512];
    if (kill(pid, 0) && errno == ESRCH)
        return false;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return true;
    line[n] = 0;
    const char *after = strrchr(line, ')');
    return !(after && (strncmp(after, ") Z", 3) == 0 || strncmp(after, ") X", 3) == 0));
}

static int already(struct err *e, const char *path, pid_t pid)
{
    return err_set(e,
                   "pid-file: already running: %s names the living process %d; stop it, or remove "
                   "the file if that process is something else",
                   path, (int)pid);
}

/* Write our number into a new file beside `path`; its name goes to `out`. */
static int write_beside(const char *path, pid_t pid, char *out, size_t n, struct err *e)
{
    if ((size_t)snprintf(out, n, "%s.XXXXXX", path) >= n)
        return err_set(e, "pid-file: the path is too long");
    int fd = mkostemp(out, O_CLOEXEC);
    if (fd < 0)
        return err_set(e, "pid-file: cannot write %s: %s", path, strerror(errno));
    char text[16];
    int k = snprintf(text, sizeof text, "%d\n", (int)pid);
    bool written = write(fd, text, (size_t)k) == k && fchmod(fd, 0644) == 0;
    int failed = errno;
    close(fd);
    if (written)
        return 0;
    unlink(out);
    return err_set(e, "pid-file: cannot write %s: %s", path, strerror(failed));
}

/* Put the file `beside` at `path`, unless that names another living process than `gone`. */
static int move_there(const char *beside, const char *path, pid_t pid, pid_t gone, struct err *e)
{
    for (int i = 0; i < TRIES; i++) {
        /* Of two that start at once one makes the link, the other sees it. */
        if (link(beside, path) == 0) {
            unlink(beside);
            return 0;
        }
        if (errno != EEXIST) /* a file system without hard links */
            break;
        pid_t other = read_number(path);
        if (other > 0 && other != pid && other != gone && pid_file_alive(other))
            return already(e, path, other);
        if (other < 0 && other != -ENOENT)
            return err_set(e, "pid-file: cannot read %s: %s", path, strerror(-other));
        struct stat st;
        if (other == 0 && lstat(path, &st) == 0 && st.st_size > 0)
            return err_set(
                e,
                "pid-file: %s holds something else than the number of a process; remove it "
                "or name another file",
                path);
        if (other != -ENOENT)
            break; /* stale: replace it */
    }
    if (rename(beside, path))
        return err_set(e, "pid-file: cannot write %s: %s", path, strerror(errno));
    return 0;
}

static int put(const char *path, pid_t pid, pid_t gone, struct err *e)
{
    char beside[4200];
    if (write_beside(path, pid, beside, sizeof beside, e))
        return -1;
    if (move_there(beside, path, pid, gone, e)) {
        unlink(beside);
        return -1;
    }
    return 0;
}

/* Absolute, because a later chdir must not move it. NULL: no memory, or the folder is gone. */
static char *absolute(const char *path, const char *suffix)
{
    char *out = NULL;
    char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);
    if (cwd && asprintf(&out, "%s%s%s%s", cwd, *path == '/' ? "" : "/", path, suffix) < 0)
        out = NULL;
    free(cwd);
    return out;
}

int pid_file_make(struct pid_file *f, const char *path, const char *suffix, struct err *e)
{
    *f = (struct pid_file){.pid = getpid()};
    char *full = absolute(path, suffix);
    if (!full)
        return err_set(e, "pid-file: cannot write %s: %s", path, strerror(errno));
    /* Before anything is written: the usual case shall say so even where nothing can be written. */
    pid_t other = read_number(full);
    if (other > 0 && other != f->pid && pid_file_alive(other)) {
        already(e, full, other);
        free(full);
        return -1;
    }
    if (put(full, f->pid, 0, e)) {
        free(full);
        return -1;
    }
    f->path = full;
    return 0;
}

int pid_file_rename(struct pid_file *f, const char *path, pid_t gone, struct err *e)
{
    if (!f->path)
        return 0;
    char *full = absolute(path, "");
    if (!full)
        return err_set(e, "pid-file: cannot write %s: %s", path, strerror(errno));
    if (put(full, f->pid, gone, e)) {
        free(full);
        return -1;
    }
    char *old = f->path;
    f->path = full;
    if (strcmp(old, full) != 0 && read_number(old) == f->pid)
        unlink(old);
    free(old);
    return 0;
}

void pid_file_drop(struct pid_file *f)
{
    if (f->path && f->pid == getpid() && read_number(f->path) == f->pid)
        unlink(f->path);
    free(f->path);
    f->path = NULL;
}
