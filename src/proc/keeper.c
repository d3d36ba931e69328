/* keeper: the loader of _keeper.so, and its thread. See the header. */
#include "proc/keeper.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "conf/version.h"

/* ---- what needs one ---- */

static bool is_url(const char *jwks)
{
    return strncmp(jwks, "https://", 8) == 0 || strncmp(jwks, "http://", 7) == 0;
}

static bool has_url(const struct policy_identifier *i)
{
    return i->kind == IDENTIFY_JWT && i->jwks && is_url(i->jwks);
}

static bool is_given(const char *text)
{
    return text && *text;
}

bool keeper_wanted(const struct conf *c)
{
    const struct conf_policy *p = c ? &c->policy : NULL;
    if (c && (is_given(c->admin) || is_given(c->otlp_endpoint)))
        return true;
    for (unsigned i = 0; p && i < p->n_identifiers; i++)
        if (has_url(&p->identifiers[i]))
            return true;
    for (unsigned i = 0; p && i < p->n_routes; i++)
        if (p->routes[i].n_quotas)
            return true;
    return false;
}

void keeper_config_jwks(struct keeper_config *c, const struct conf_policy *p)
{
    c->n_jwks = 0;
    for (unsigned i = 0; p && i < p->n_identifiers && c->n_jwks < POLICY_IDENTIFIERS_MAX; i++)
        if (has_url(&p->identifiers[i]))
            c->jwks[c->n_jwks++] = (struct keeper_jwks){i, p->identifiers[i].jwks};
}

/* ---- the library ---- */

static const struct keeper_lib *lib; /* lent by the loaded object, which stays */

/* The path of _keeper.so: in the folder of the file that this code is in. */
static int path_beside(char *out, size_t room, struct err *e)
{
    Dl_info here;
    if (!dladdr((void *)(uintptr_t)&lib, &here) || !here.dli_fname)
        return err_set(e, "keeper: cannot tell where Weir is installed");
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash ? (int)(slash - here.dli_fname) + 1 : 0;
    int n = snprintf(out, room, "%s%.*s_keeper.so", slash ? "" : "./", folder, here.dli_fname);
    if (n < 0 || (size_t)n >= room)
        return err_set(e, "keeper: the path of Weir's folder is too long");
    return 0;
}

int keeper_load(const char *path, struct err *e)
{
    char beside[4096];
    if (lib)
        return 0;
    if (!path) {
        if (path_beside(beside, sizeof beside, e))
            return -1;
        path = beside;
    }
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object)
        return err_set(e,
                       "quotas, key sets, traces and the admin listener cannot be used: %s; install SQLite 3, "
                       "libcurl and Jansson (Debian: libsqlite3-0, libcurl4, libjansson4)",
                       dlerror());
    const struct keeper_lib *found = dlsym(object, KEEPER_LIB_SYMBOL);
    if (!found || strcmp(found->version, WEIR_VERSION) != 0 ||
        found->config_bytes != sizeof(struct keeper_config)) {
        dlclose(object);
        return err_set(e,
                       "quotas, key sets, traces and the admin listener cannot be used: %s belongs to another version of Weir; "
                       "install Weir again",
                       path);
    }
    lib = found;
    return 0;
}

int keeper_run(const struct keeper_config *c, struct err *e)
{
    return keeper_load(NULL, e) ? -1 : lib->run(c, e);
}

/* ---- as a thread ---- */

struct keeper_thread {
    struct keeper_config config; /* a copy; what it points to is lent */
    int stop_fd;                 /* owned; an eventfd */
    pthread_t thread;
};

static void *thread_main(void *arg)
{
    struct keeper_thread *t = arg;
    struct err e = {{0}};
    if (lib->run(&t->config, &e))
        t->config.log(LOG_ERROR, e.text);
    return NULL;
}

int keeper_thread_start(struct keeper_thread **out, const struct keeper_config *c, struct err *e)
{
    *out = NULL;
    if (keeper_load(NULL, e))
        return -1;
    struct keeper_thread *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, "out of memory");
    t->config = *c;
    t->config.process = false;
    t->stop_fd = t->config.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for other threads */
    int rc = t->stop_fd < 0 ? errno : pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        if (t->stop_fd >= 0)
            close(t->stop_fd);
        free(t);
        return err_set(e, "cannot start the keeper's thread: %s", strerror(rc));
    }
    *out = t;
    return 0;
}

void keeper_thread_stop(struct keeper_thread **tp)
{
    struct keeper_thread *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    (void)eventfd_write(t->stop_fd, 1);
    pthread_join(t->thread, NULL);
    close(t->stop_fd);
    free(t);
}
