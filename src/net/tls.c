/*
 * tls: the loader of _tls.so, and the keys of session tickets. See the header.
 *
 * The keys stand in one page that all processes of a server share. It is written seldom, under a
 * mutex of the kind that survives the death of its holder; each process keeps a copy and looks at
 * one number to see whether that is still right. So a worker that was stopped inside the mutex
 * holds nobody up: others go on with their copy.
 */
#include "net/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/library.h"
#include "base/log.h"
#include "base/must.h"
#include "base/secret.h"
#include "conf/version.h"

/* ---- tickets ---- */

struct ticket_page {
    pthread_mutex_t lock;          /* robust, shared between processes */
    _Atomic uint64_t generation;   /* of `keys`; 0 = none yet */
    _Atomic int64_t due_ns;        /* monotonic: when the next key is to be made */
    struct tls_ticket_key keys[2]; /* under lock: the present one, the one before */
};

struct ticket_copy {
    uint64_t generation;
    struct tls_ticket_key keys[2];
};

static struct {
    struct ticket_page *shared; /* owned, for the life of the process and of all that it forks */
    struct ticket_copy *own;    /* owned; this process' alone */
    int64_t ahead_ns;           /* tls_ticket_keys_age */
} tickets;

/* Make the next key where it is time, under the lock. */
static void rotate_locked(struct ticket_page *page, int64_t now)
{
    int64_t due = atomic_load(&page->due_ns);
    uint64_t generation = atomic_load(&page->generation);
    struct tls_ticket_key next;
    if ((generation && now < due) || !secret_random(&next, sizeof next))
        return;
    /* After a long sleep the key before is too old as well. */
    if (generation && now < due + TLS_TICKET_KEY_NS)
        page->keys[1] = page->keys[0];
    else
        explicit_bzero(&page->keys[1], sizeof page->keys[1]);
    page->keys[0] = next;
    explicit_bzero(&next, sizeof next);
    atomic_store(&page->due_ns, now + TLS_TICKET_KEY_NS);
    atomic_store(&page->generation, generation + 1);
}

static bool page_lock(struct ticket_page *page, bool wait)
{
    int rc = wait ? pthread_mutex_lock(&page->lock) : pthread_mutex_trylock(&page->lock);
    if (rc == EOWNERDEAD) /* it died inside: the keys are whole or half new, and both will do */
        rc = pthread_mutex_consistent(&page->lock);
    return rc == 0;
}

int tls_ticket_keys_new(void)
{
    if (tickets.shared)
        return 0;
    struct ticket_page *page = secret_map(sizeof *page, true);
    struct ticket_copy *own = page ? secret_map(sizeof *own, false) : NULL;
    pthread_mutexattr_t attr;
    if (!own) {
        secret_unmap((void **)&page, sizeof *page);
        return -ENOMEM;
    }
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&page->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    rotate_locked(page, clock_mono_ns());
    tickets.shared = page;
    tickets.own = own;
    return 0;
}

const struct tls_ticket_key *tls_ticket_keys(void)
{
    if (tls_ticket_keys_new())
        return NULL;
    struct ticket_page *page = tickets.shared;
    struct ticket_copy *own = tickets.own;
    int64_t now = clock_mono_ns() + tickets.ahead_ns;
    if ((own->generation != atomic_load_explicit(&page->generation, memory_order_relaxed) ||
         now >= atomic_load_explicit(&page->due_ns, memory_order_relaxed)) &&
        page_lock(page, own->generation == 0)) {
        rotate_locked(page, now);
        memcpy(own->keys, page->keys, sizeof own->keys);
        own->generation = atomic_load(&page->generation);
        pthread_mutex_unlock(&page->lock);
    }
    return own->generation ? own->keys : NULL;
}

void tls_ticket_keys_age(int64_t ns)
{
    tickets.ahead_ns += ns;
}

/* ---- the library ---- */

static const struct tls_lib *lib; /* lent by the loaded object, which stays */

int tls_load(const char *path, struct err *e)
{
    static const struct library TLS = {
        .what = "TLS",
        .file = "_tls.so",
        .symbol = TLS_LIB_SYMBOL,
        .cure = "install OpenSSL 3 (Debian: libssl3), and Weir from a build with TLS",
        .head = {WEIR_VERSION, sizeof(struct conf)},
    };
    const void *table;
    if (lib)
        return 0;
    if (library_load(&table, &TLS, path, e))
        return -1;
    lib = table;
    return 0;
}

/* ---- contexts ---- */

static struct {
    const struct conf *conf; /* whose; only compared */
    struct tls_context *ctx; /* owned, or NULL */
} prepared;

static void warn(const char *text)
{
    log_line(LOG_WARNING, 0, "%s", text);
}

int tls_context_new(struct tls_context **out, const struct conf *c, struct err *e)
{
    *out = NULL;
    if (prepared.ctx && prepared.conf == c) {
        *out = prepared.ctx;
        prepared.ctx = NULL;
        return 0;
    }
    if (tls_load(NULL, e))
        return -1;
    return lib->context_new(out, c, warn, tls_ticket_keys, e);
}

void tls_context_free(struct tls_context **ctx)
{
    if (*ctx)
        lib->context_free(ctx);
}

int tls_prepare(const struct conf *c, struct err *e)
{
    if (!tls_wanted(c))
        return 0;
    tls_context_free(&prepared.ctx);
    prepared.conf = c;
    return tls_context_new(&prepared.ctx, c, e);
}

int tls_check(const struct conf *c, struct err *e)
{
    struct tls_context *ctx = NULL;
    if (!tls_wanted(c))
        return 0;
    int rc = tls_load(NULL, e) ? -1 : lib->context_new(&ctx, c, NULL, tls_ticket_keys, e);
    tls_context_free(&ctx);
    return rc;
}

/* ---- connections ---- */

struct tls *tls_new(struct tls_context *ctx)
{
    return lib->make(ctx);
}

void tls_free(struct tls **t)
{
    if (*t)
        lib->free(t);
}

enum tls_state tls_take(struct tls *t, const char *p, size_t n, char *plain, size_t *n_plain,
                        struct buf *out)
{
    return lib->take(t, p, n, plain, n_plain, out);
}

int tls_seal(struct tls *t, const char *p, size_t n, bool small, struct buf *out)
{
    return lib->seal(t, p, n, small, out);
}

void tls_bye(struct tls *t, struct buf *out)
{
    lib->bye(t, out);
}

enum tls_state tls_state(const struct tls *t)
{
    return lib->state(t);
}

const char *tls_reason(const struct tls *t)
{
    return lib->reason(t);
}

const struct tls_facts *tls_facts(struct tls *t)
{
    return lib->facts(t);
}
