/* robust: see the header. */
#include "base/robust.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/must.h"

int robust_init(struct robust *r)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc)
        return -rc;
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!rc)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (!rc)
        rc = pthread_mutex_init(&r->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

bool robust_lock(struct robust *r)
{
    int rc = pthread_mutex_lock(&r->mutex);
    if (WEIR_LIKELY(rc == 0))
        return false;
    must(rc == EOWNERDEAD);
    must(pthread_mutex_consistent(&r->mutex) == 0);
    return true;
}

bool robust_try(struct robust *r, bool *died)
{
    int rc = pthread_mutex_trylock(&r->mutex);
    *died = rc == EOWNERDEAD;
    if (rc == EBUSY)
        return false;
    must(rc == 0 || *died);
    must(!*died || pthread_mutex_consistent(&r->mutex) == 0);
    return true;
}

bool robust_try_for(struct robust *r, int64_t ns, bool *died)
{
    static const struct timespec pause = {.tv_nsec = 50000};
    if (robust_try(r, died))
        return true;
    int64_t until_ns = clock_mono_ns() + ns;
    do {
        (void)nanosleep(&pause, NULL);
        if (robust_try(r, died))
            return true;
    } while (clock_mono_ns() < until_ns);
    return false;
}

void robust_unlock(struct robust *r)
{
    must(pthread_mutex_unlock(&r->mutex) == 0);
}

void *shared_map(size_t n)
{
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void shared_unmap(void **p, size_t n)
{
    if (*p)
        munmap(*p, n);
    *p = NULL;
}
