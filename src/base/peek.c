/* peek: see the header. */
#include "base/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/must.h"

static int by_call(const struct peek *p, const struct peek_part *parts, unsigned n)
{
    struct iovec to[PEEK_PARTS_MAX] WEIR_UNINITIALIZED, from[PEEK_PARTS_MAX] WEIR_UNINITIALIZED;
    size_t all = 0;
    for (unsigned i = 0; i < n; i++) {
        to[i] = (struct iovec){parts[i].to, parts[i].n};
        from[i] = (struct iovec){(void *)parts[i].from, parts[i].n};
        all += parts[i].n;
    }
    ssize_t got = process_vm_readv(p->pid, to, n, from, n, 0);
    return got < 0 ? -errno : (size_t)got == all ? 0 : -EFAULT;
}

static int by_file(const struct peek *p, const struct peek_part *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (parts[i].from > INT64_MAX)
            return -EFAULT; /* no address of a process, and no offset */
        ssize_t got = pread(p->fd, parts[i].to, parts[i].n, (off_t)parts[i].from);
        if (got < 0 || (size_t)got != parts[i].n)
            return -EFAULT; /* the kernel says EIO */
    }
    return 0;
}

int peek_parts(const struct peek *p, const struct peek_part *parts, unsigned n)
{
    must(n <= PEEK_PARTS_MAX);
    return p->way == PEEK_CALL ? by_call(p, parts, n) : by_file(p, parts, n);
}

int peek(const struct peek *p, void *to, uintptr_t from, size_t n)
{
    return peek_parts(p, &(struct peek_part){to, from, n}, 1);
}

int peek_begin(struct peek *p, enum peek_way first)
{
    const int here = 4711;
    int seen = 0, rc = 0;
    *p = (struct peek){.way = PEEK_CALL, .fd = -1, .pid = getpid()};
    if (first == PEEK_CALL) {
        rc = peek(p, &seen, (uintptr_t)&here, sizeof here);
        if (!rc && seen == here)
            return 0;
    }
    p->way = PEEK_FILE;
    p->fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    if (p->fd < 0)
        return rc ? rc : -errno;
    rc = peek(p, &seen, (uintptr_t)&here, sizeof here);
    if (!rc && seen == here)
        return 0;
    peek_end(p);
    return rc ? rc : -EIO;
}

void peek_end(struct peek *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}
