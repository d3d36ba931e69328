/* file: a small file that the start reads whole. */
#include "conf/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A pipe, as of a shell's <(command), may be late, but not for ever. */
static bool wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 2000) > 0;
}

int conf_file_read(const char *source, const char *path, char **text, size_t *n, struct err *e)
{
    int rc = -1;
    struct stat st;
    *text = NULL;
    *n = 0;
    /* Not blocking: a pipe without a writer must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, "%s: cannot read '%.400s': %s", source, path, strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        err_set(e, "%s: '%.400s' is a folder", source, path);
        goto out;
    }
    if (!(*text = malloc(CONF_FILE_BYTES_MAX + 1))) {
        err_set(e, "%s: out of memory", source);
        goto out;
    }
    while (*n <= CONF_FILE_BYTES_MAX) {
        ssize_t k = read(fd, *text + *n, CONF_FILE_BYTES_MAX + 1 - *n);
        if (k < 0 && (errno == EINTR || (errno == EAGAIN && wait_readable(fd))))
            continue;
        if (k < 0) {
            err_set(e, "%s: cannot read '%.400s': %s", source, path, strerror(errno));
            goto out;
        }
        if (k == 0)
            break;
        *n += (size_t)k;
    }
    rc = 0;
out:
    if (rc) {
        free(*text);
        *text = NULL;
    }
    close(fd);
    return rc;
}
