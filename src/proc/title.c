/* title: see the header. */
#include "proc/title.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Arguments beyond this are left as they are; no title is longer. */
#define TITLE_BYTES_MAX ((size_t)4096)

static struct {
    bool looked;
    char *start; /* the process's argument area; NULL: not known */
    size_t n;    /* its bytes, with the last NUL */
} g_title;

/* At most n - 1 bytes of a file of /proc, NUL-terminated; how many, or -1. */
static ssize_t read_proc(const char *path, char *out, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t got = 0;
    ssize_t k;
    while (got < n - 1 && (k = read(fd, out + got, n - 1 - got)) > 0)
        got += (size_t)k;
    close(fd);
    out[got] = 0;
    return (ssize_t)got;
}

/* Field `number` (from 1) of /proc/self/stat; 0 when there is none. */
static uint64_t stat_field(const char *stat, int number)
{
    const char *p = strrchr(stat, ')'); /* the second field, which may hold anything */
    for (int i = 2; p && i < number; i++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

void title_init(void)
{
    char stat[2048], shown[TITLE_BYTES_MAX + 1];
    if (g_title.looked)
        return;
    g_title.looked = true;
    if (read_proc("/proc/self/stat", stat, sizeof stat) <= 0)
        return;
    uint64_t start = stat_field(stat, 48), end = stat_field(stat, 49);
    ssize_t n = read_proc("/proc/self/cmdline", shown, sizeof shown);
    if (!start || end <= start || n <= 0)
        return;
    size_t bytes = end - start < TITLE_BYTES_MAX ? (size_t)(end - start) : TITLE_BYTES_MAX;
    /* The memory must be what the kernel shows: then nobody has moved the area meanwhile. */
    char *area = (char *)(uintptr_t)start; // NOLINT(performance-no-int-to-ptr)
    if ((size_t)n < bytes || memcmp(area, shown, bytes) != 0)
        return;
    g_title.start = area;
    g_title.n = bytes;
}

void title_set(const char *command_line, const char *short_name)
{
    if (short_name)
        (void)prctl(PR_SET_NAME, short_name);
    if (!command_line || !g_title.start)
        return;
    size_t n = strlen(command_line);
    if (n > g_title.n - 1)
        n = g_title.n - 1;
    memcpy(g_title.start, command_line, n);
    /* The last byte stays NUL: otherwise the kernel takes the environment for a part of the title.
     */
    memset(g_title.start + n, 0, g_title.n - n);
}

void title_role(const char *role, const char *proc_name, const char *app)
{
    char text[512], name[16];
    bool named = proc_name && *proc_name;
    snprintf(text, sizeof text, "weir: %s [%s]", role, named ? proc_name : app);
    snprintf(name, sizeof name, "%s", named ? proc_name : "weir");
    title_set(text, name);
}
