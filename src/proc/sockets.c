/* sockets: see the header. */
#include "proc/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls.h"
#include "serve/server.h"

static const struct sockets_bind *find(const struct sockets *s, const char *text)
{
    for (unsigned i = 0; s && i < s->n_binds; i++)
        if (strcmp(s->binds[i].text, text) == 0)
            return &s->binds[i];
    return NULL;
}

/* Copies of the listeners of another set. Files stay that set's. */
static int keep(struct sockets *s, const struct sockets *before, const struct sockets_bind *old,
                struct err *e)
{
    for (unsigned i = old->first; i < old->first + old->n; i++) {
        const struct listener *from = before->set.items[i];
        struct listen_spec spec = {.kind = LISTEN_FD, .text = old->text};
        spec.fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 0);
        if (spec.fd < 0)
            return err_set(e, "cannot keep %s: %s", old->text, strerror(errno));
        unsigned n = s->set.n;
        if (listen_open(&s->set, &spec, e))
            return -1;
        memcpy(s->set.items[n]->path, from->path, sizeof from->path);
    }
    return 0;
}

static int open_one(struct sockets *s, const struct conf *c, const struct conf_bind *b,
                    const struct sockets *before, struct err *e)
{
    if (s->n_binds == SOCKETS_BINDS_MAX)
        return err_set(e, "too many addresses to listen on (at most %d)", SOCKETS_BINDS_MAX);
    struct sockets_bind *bind = &s->binds[s->n_binds];
    *bind = (struct sockets_bind){.text = strdup(b->text), .first = s->set.n};
    if (!bind->text)
        return err_set(e, "out of memory");
    s->n_binds++;
    const struct sockets_bind *old = find(before, b->text);
    int rc = old ? keep(s, before, old, e) : server_bind(&s->set, c, b, e);
    bind->kept = old;
    bind->n = s->set.n - bind->first;
    return rc;
}

int sockets_open(struct sockets **out, const struct conf *c, const int *fds, unsigned n_fds,
                 const struct sockets *before, struct err *e)
{
    struct sockets *s = *out = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, "out of memory");
    s->set.spare_fd = -1;
    s->set.tls = tls_wanted(c);
    int rc = 0;
    for (unsigned i = 0; i < n_fds && !rc; i++) {
        char text[32];
        snprintf(text, sizeof text, "fd://%d", fds[i]);
        struct conf_bind b = {.kind = CONF_BIND_FD, .fd = fds[i], .text = text};
        rc = open_one(s, c, &b, before, e);
    }
    for (unsigned i = 0; !n_fds && i < c->n_binds && !rc; i++)
        rc = open_one(s, c, &c->binds[i], before, e);
    if (rc)
        sockets_close(out);
    return rc;
}

static void give_back(struct sockets **sp)
{
    struct sockets *s = *sp;
    *sp = NULL;
    listen_fini(&s->set);
    for (unsigned i = 0; i < s->n_binds; i++)
        free(s->binds[i].text);
    free(s);
}

void sockets_close(struct sockets **s)
{
    if (*s)
        give_back(s);
}

void sockets_forget(struct sockets **s)
{
    for (unsigned i = 0; *s && i < (*s)->set.n; i++)
        (*s)->set.items[i]->owns_path = false;
    sockets_close(s);
}

void sockets_replace(struct sockets **before, struct sockets *now)
{
    for (unsigned i = 0; i < now->n_binds; i++) {
        struct sockets_bind *b = &now->binds[i];
        for (unsigned k = 0; b->kept && k < b->n; k++) {
            struct listener *old = (*before)->set.items[b->kept->first + k];
            now->set.items[b->first + k]->owns_path = old->owns_path;
            old->owns_path = false;
        }
        b->kept = NULL;
    }
    sockets_close(before);
    *before = now;
}
