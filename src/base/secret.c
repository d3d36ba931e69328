/* secret: see the header. */
#include "base/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

void *secret_map(size_t n, bool shared)
{
    int how = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, how, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, n, MADV_DONTDUMP);
    return p;
}

void secret_unmap(void **p, size_t n)
{
    if (*p) {
        explicit_bzero(*p, n);
        munmap(*p, n);
    }
    *p = NULL;
}

bool secret_random(void *to, size_t n)
{
    char *p = to;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

bool secret_same(struct slice given, struct slice secret)
{
    unsigned char differs = given.n != secret.n;
    for (size_t i = 0; i < given.n && secret.n; i++)
        differs = (unsigned char)(differs | ((unsigned char)given.p[i] ^
                                             (unsigned char)secret.p[i % secret.n]));
    return !differs;
}
