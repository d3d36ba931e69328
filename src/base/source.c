/* source: see the header. */
#include "base/source.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    char *path;       /* owned */
    char *text;       /* owned; NULL: it cannot be had */
    size_t bytes;     /* of text */
    uint32_t *begins; /* owned: where each line begins, and the end */
    unsigned lines;
};

struct source {
    struct file files[SOURCE_FILES_MAX];
    unsigned n;
    size_t bytes; /* of all */
};

struct source *source_new(void)
{
    return calloc(1, sizeof(struct source));
}

static void forget(struct source *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        free(s->files[i].path);
        free(s->files[i].text);
        free(s->files[i].begins);
    }
    s->n = 0;
    s->bytes = 0;
}

void source_free(struct source **s)
{
    if (!*s)
        return;
    forget(*s);
    free(*s);
    *s = NULL;
}

static void read_text(struct file *f, int fd)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uint64_t)st.st_size > SOURCE_FILE_BYTES_MAX)
        return;
    size_t size = (size_t)st.st_size;
    f->text = malloc(size);
    while (f->text && f->bytes < size) {
        ssize_t n = read(fd, f->text + f->bytes, size - f->bytes);
        if (n <= 0)
            break;
        f->bytes += (size_t)n;
    }
}

static void find_lines(struct file *f)
{
    unsigned lines = 1;
    for (const char *p = f->text, *end = p + f->bytes; (p = memchr(p, '\n', (size_t)(end - p)));
         p++)
        lines++;
    f->begins = malloc((lines + 1) * sizeof *f->begins);
    if (!f->begins)
        return;
    f->begins[f->lines++] = 0;
    for (const char *p = f->text, *end = p + f->bytes; (p = memchr(p, '\n', (size_t)(end - p)));
         p++)
        f->begins[f->lines++] = (uint32_t)(p + 1 - f->text);
    f->begins[f->lines] = (uint32_t)f->bytes + 1; /* as if a newline stood behind the last */
}

/* NULL: no memory. A file that cannot be read is remembered as such. */
static const struct file *open_file(struct source *s, const char *path)
{
    for (unsigned i = 0; i < s->n; i++)
        if (!strcmp(s->files[i].path, path))
            return &s->files[i];
    if (s->n == SOURCE_FILES_MAX || s->bytes > SOURCE_BYTES_MAX - SOURCE_FILE_BYTES_MAX)
        forget(s);
    struct file f = {.path = strdup(path)};
    if (!f.path)
        return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) {
        read_text(&f, fd);
        close(fd);
    }
    if (f.text)
        find_lines(&f);
    s->bytes += f.bytes;
    s->files[s->n] = f;
    return &s->files[s->n++];
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f';
}

struct slice source_line(struct source *s, const char *path, int number)
{
    /* "<string>", "<frozen importlib._bootstrap>": no files. */
    const struct file *f = number >= 1 && *path && *path != '<' ? open_file(s, path) : NULL;
    if (!f || !f->begins || (unsigned)number > f->lines)
        return (struct slice){0};
    const char *p = f->text + f->begins[number - 1], *end = f->text + f->begins[number] - 1;
    while (p < end && is_blank(*p))
        p++;
    if (end - p > SOURCE_LINE_BYTES_MAX) {
        end = p + SOURCE_LINE_BYTES_MAX;
        while (end > p && ((unsigned char)*end & 0xC0) == 0x80)
            end--; /* not in the middle of a character */
    }
    while (end > p && is_blank(end[-1]))
        end--;
    return slice_of(p, (size_t)(end - p));
}
