/*
 * failmalloc: an LD_PRELOAD library in which allocations of Weir's own code fail by chance.
 *
 * FAILMALLOC names a file of 8 bytes: how many of a million allocations fail (uint32_t) and how
 * many have failed (uint32_t). It is mapped, so the test changes it while the server runs. Only calls
 * that come from the module _core fail: the interpreter's answer to a failed allocation is its own affair.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

struct control {
    _Atomic uint32_t per_million, failed;
};

static struct control *control;
static _Atomic uintptr_t begin, end; /* code of _core */
static _Atomic uint64_t state = 88172645463325252u;
static _Atomic unsigned calls;

static int find(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    const char *base = strrchr(info->dlpi_name, '/');
    if (!base || strncmp(base, "/_core", 6) != 0)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
            atomic_store(&end, info->dlpi_addr + p->p_vaddr + p->p_memsz);
            atomic_store(&begin, info->dlpi_addr + p->p_vaddr);
        }
    }
    return 1;
}

__attribute__((constructor)) static void setup(void)
{
    const char *path = getenv("FAILMALLOC");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        control = p;
}

static int fails(void *caller)
{
    uint32_t rate = control ? atomic_load_explicit(&control->per_million, memory_order_relaxed) : 0;
    if (!rate)
        return 0;
    if (!atomic_load_explicit(&begin, memory_order_relaxed)) {
        if (atomic_fetch_add(&calls, 1) % 1024)
            return 0;
        dl_iterate_phdr(find, NULL);
    }
    uintptr_t at = (uintptr_t)caller;
    if (at < atomic_load_explicit(&begin, memory_order_relaxed) ||
        at >= atomic_load_explicit(&end, memory_order_relaxed))
        return 0;
    uint64_t x = atomic_load_explicit(&state, memory_order_relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    atomic_store_explicit(&state, x, memory_order_relaxed);
    if (x % 1000000 >= rate)
        return 0;
    atomic_fetch_add(&control->failed, 1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
