/* forks: see the header. */
#include "net/forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static struct forks_entry *g_entries;
static _Atomic bool g_were;

static void before_fork(void)
{
    pthread_mutex_lock(&g_lock);
}

static void after_fork_parent(void)
{
    if (g_entries)
        atomic_store_explicit(&g_were, true, memory_order_relaxed);
    pthread_mutex_unlock(&g_lock);
}

static void after_fork_child(void)
{
    while (g_entries) {
        struct forks_entry *e = g_entries;
        g_entries = e->next;
        e->joined = false;
        e->in_child(e);
    }
    pthread_mutex_unlock(&g_lock);
}

void forks_join(struct forks_entry *e, void (*in_child)(struct forks_entry *e))
{
    static bool hooked;
    pthread_mutex_lock(&g_lock);
    if (!hooked)
        hooked = pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
    if (!e->joined) {
        e->in_child = in_child;
        e->next = g_entries;
        g_entries = e;
        e->joined = true;
    }
    pthread_mutex_unlock(&g_lock);
}

void forks_leave(struct forks_entry *e)
{
    pthread_mutex_lock(&g_lock);
    for (struct forks_entry **p = &g_entries; e->joined && *p; p = &(*p)->next)
        if (*p == e) {
            *p = e->next;
            e->joined = false;
            break;
        }
    pthread_mutex_unlock(&g_lock);
}

bool forks_were(void)
{
    return atomic_load_explicit(&g_were, memory_order_relaxed);
}
