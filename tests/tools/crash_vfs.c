/* crash_vfs: see the header. */
#include "../tools/crash_vfs.h"

#include <sqlite3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/must.h"

enum { FILES_MAX = 16, NAME_MAX_BYTES = 256, SHM_MAX = 16, BLOCK = 512 };

struct content {
    unsigned char *p;
    size_t n;
};

struct disk_file {
    char name[NAME_MAX_BYTES]; /* "": free */
    bool durable;              /* is there after a crash */
    struct content seen, platter;
};

struct handle {
    sqlite3_file base;
    struct disk_file *file;
    bool temporary; /* no name: gone when closed */
    void *shm[SHM_MAX];
};

static struct disk_file disk[FILES_MAX];
static unsigned left, counted;
static bool armed, dead_after, full_disk, has_failed;

/* ---- failing ---- */

static bool fails(void)
{
    counted++;
    if (!armed)
        return false;
    if (left > 1) {
        left--;
        return false;
    }
    if (has_failed && !dead_after)
        return false;
    has_failed = true;
    return true;
}

void crash_vfs_fail(unsigned n, bool dead, bool full)
{
    armed = n != 0;
    left = n;
    dead_after = dead;
    full_disk = full;
    has_failed = false;
    counted = 0;
}

bool crash_vfs_failed(void)
{
    return has_failed;
}

unsigned crash_vfs_count(void)
{
    return counted;
}

/* ---- contents ---- */

static void resize(struct content *c, size_t n)
{
    if (n > c->n) {
        c->p = realloc(c->p, n);
        must(c->p);
        memset(c->p + c->n, 0, n - c->n);
    }
    c->n = n;
}

static void copy(struct content *to, const struct content *from)
{
    resize(to, from->n);
    if (from->n)
        memcpy(to->p, from->p, from->n);
}

static void drop(struct disk_file *f)
{
    free(f->seen.p);
    free(f->platter.p);
    memset(f, 0, sizeof *f);
}

static struct disk_file *find(const char *name)
{
    for (int i = 0; i < FILES_MAX; i++)
        if (*disk[i].name && strcmp(disk[i].name, name) == 0)
            return &disk[i];
    return NULL;
}

static struct disk_file *make(const char *name)
{
    for (int i = 0; i < FILES_MAX; i++)
        if (!*disk[i].name) {
            must(strlen(name) < NAME_MAX_BYTES);
            memcpy(disk[i].name, name, strlen(name) + 1);
            return &disk[i];
        }
    must(!(bool)"more files than the disk has room for");
    return NULL;
}

void crash_vfs_clean(void)
{
    for (int i = 0; i < FILES_MAX; i++)
        drop(&disk[i]);
    crash_vfs_fail(0, false, false);
}

static void crash_file(struct disk_file *f, unsigned seed)
{
    if (seed) {
        uint32_t r = seed;
        f->durable = true;
        if (f->seen.n > f->platter.n)
            resize(&f->platter, f->seen.n);
        for (size_t at = 0; at < f->seen.n; at += BLOCK) {
            size_t n = f->seen.n - at < BLOCK ? f->seen.n - at : BLOCK;
            r = r * 1664525 + 1013904223;
            if (r >> 31)
                memcpy(f->platter.p + at, f->seen.p + at, n);
        }
    }
    if (!f->durable) {
        drop(f);
        return;
    }
    copy(&f->seen, &f->platter);
}

void crash_vfs_crash(unsigned seed)
{
    for (int i = 0; i < FILES_MAX; i++)
        if (*disk[i].name)
            crash_file(&disk[i], seed ? seed + (unsigned)i * 7919 : 0);
    crash_vfs_fail(0, false, false);
}

bool crash_vfs_flip(const char *suffix, unsigned at)
{
    for (int i = 0; i < FILES_MAX; i++) {
        size_t n = strlen(disk[i].name), m = strlen(suffix);
        if (n < m || !n || strcmp(disk[i].name + n - m, suffix) != 0 || !disk[i].seen.n)
            continue;
        disk[i].seen.p[at / 8 % disk[i].seen.n] ^= (unsigned char)(1 << at % 8);
        return true;
    }
    return false;
}

/* ---- a file ---- */

static struct handle *of(sqlite3_file *f)
{
    return container_of(f, struct handle, base);
}

static int on_close(sqlite3_file *f)
{
    struct handle *h = of(f);
    for (int i = 0; i < SHM_MAX; i++)
        free(h->shm[i]);
    if (h->temporary)
        drop(h->file);
    return SQLITE_OK;
}

static int on_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    const struct content *c = &of(f)->file->seen;
    size_t begin = (size_t)at, want = (size_t)n;
    size_t got = begin >= c->n ? 0 : c->n - begin < want ? c->n - begin : want;
    if (got)
        memcpy(to, c->p + begin, got);
    memset((char *)to + got, 0, want - got);
    return got == want ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int on_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    struct content *c = &of(f)->file->seen;
    if (fails())
        return full_disk ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    if ((size_t)at + (size_t)n > c->n)
        resize(c, (size_t)at + (size_t)n);
    memcpy(c->p + at, p, (size_t)n);
    return SQLITE_OK;
}

static int on_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    if (fails())
        return SQLITE_IOERR_TRUNCATE;
    resize(&of(f)->file->seen, (size_t)n);
    return SQLITE_OK;
}

static int on_sync(sqlite3_file *f, int flags)
{
    struct disk_file *file = of(f)->file;
    (void)flags;
    if (fails())
        return SQLITE_IOERR_FSYNC;
    file->durable = true;
    copy(&file->platter, &file->seen);
    return SQLITE_OK;
}

static int on_size(sqlite3_file *f, sqlite3_int64 *n)
{
    *n = (sqlite3_int64)of(f)->file->seen.n;
    return SQLITE_OK;
}

static int on_lock(sqlite3_file *f, int level)
{
    (void)f;
    (void)level;
    return SQLITE_OK;
}

static int on_reserved(sqlite3_file *f, int *is)
{
    (void)f;
    *is = 0;
    return SQLITE_OK;
}

static int on_control(sqlite3_file *f, int op, void *arg)
{
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int on_sector(sqlite3_file *f)
{
    (void)f;
    return BLOCK;
}

static int on_traits(sqlite3_file *f)
{
    (void)f;
    return 0;
}

static int on_shm_map(sqlite3_file *f, int i, int bytes, int extend, void volatile **out)
{
    struct handle *h = of(f);
    must(i < SHM_MAX);
    if (!h->shm[i] && extend)
        h->shm[i] = calloc(1, (size_t)bytes);
    *out = h->shm[i];
    return SQLITE_OK;
}

static int on_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    (void)f;
    (void)at;
    (void)n;
    (void)flags;
    return SQLITE_OK;
}

static void on_shm_barrier(sqlite3_file *f)
{
    (void)f;
}

static int on_shm_unmap(sqlite3_file *f, int remove)
{
    struct handle *h = of(f);
    (void)remove;
    for (int i = 0; i < SHM_MAX; i++) {
        free(h->shm[i]);
        h->shm[i] = NULL;
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods METHODS = {
    .iVersion = 2,
    .xClose = on_close,
    .xRead = on_read,
    .xWrite = on_write,
    .xTruncate = on_truncate,
    .xSync = on_sync,
    .xFileSize = on_size,
    .xLock = on_lock,
    .xUnlock = on_lock,
    .xCheckReservedLock = on_reserved,
    .xFileControl = on_control,
    .xSectorSize = on_sector,
    .xDeviceCharacteristics = on_traits,
    .xShmMap = on_shm_map,
    .xShmLock = on_shm_lock,
    .xShmBarrier = on_shm_barrier,
    .xShmUnmap = on_shm_unmap,
};

/* ---- the disk ---- */

static int on_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out_flags)
{
    static unsigned temporaries;
    struct handle *h = of(f);
    char own[32];
    (void)vfs;
    memset(h, 0, sizeof *h);
    if (fails())
        return SQLITE_CANTOPEN;
    if (!name) {
        sqlite3_snprintf(sizeof own, own, "temporary-%u", ++temporaries);
        name = own;
        h->temporary = true;
    }
    h->file = find(name);
    if (!h->file && !(flags & SQLITE_OPEN_CREATE))
        return SQLITE_CANTOPEN;
    if (!h->file)
        h->file = make(name);
    h->base.pMethods = &METHODS;
    if (out_flags)
        *out_flags = flags;
    return SQLITE_OK;
}

static int on_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct disk_file *f = find(name);
    (void)vfs;
    (void)sync;
    if (fails())
        return SQLITE_IOERR_DELETE;
    if (f)
        drop(f);
    return f ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int on_access(sqlite3_vfs *vfs, const char *name, int flags, int *is)
{
    (void)vfs;
    (void)flags;
    *is = find(name) != NULL;
    return SQLITE_OK;
}

static int on_path(sqlite3_vfs *vfs, const char *name, int room, char *out)
{
    (void)vfs;
    sqlite3_snprintf(room, out, "%s", name);
    return SQLITE_OK;
}

static int on_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    (void)n;
    (void)out;
    return 0;
}

void crash_vfs_register(void)
{
    static sqlite3_vfs vfs;
    const sqlite3_vfs *system = sqlite3_vfs_find("unix");
    vfs = *system;
    vfs.pNext = NULL;
    vfs.zName = "crash";
    vfs.szOsFile = sizeof(struct handle);
    vfs.xOpen = on_open;
    vfs.xDelete = on_delete;
    vfs.xAccess = on_access;
    vfs.xFullPathname = on_path;
    vfs.xGetLastError = on_last_error;
    int rc = sqlite3_vfs_register(&vfs, 1);
    must(rc == SQLITE_OK);
}
