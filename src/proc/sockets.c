/* sockets: see the header. */
#include "proc/sockets.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/tls.h"
#include "proc/upgrade.h"
#include "serve/server.h"

static const struct sockets_bind *find(const struct sockets *s, const char *text)
{
    for (unsigned i = 0; s && i < s->n_binds; i++)
        if (strcmp(s->binds[i].text, text) == 0)
            return &s->binds[i];
    return NULL;
}

static bool is_of(const struct sockets *s, const struct sockets_bind *b)
{
    for (unsigned i = 0; b && i < s->n_binds; i++)
        if (b == &s->binds[i])
            return true;
    return false;
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
        s->set.items[n]->is_own = from->is_own;
    }
    return 0;
}

/* What `now` has kept of that set is its own from now on, files of Unix sockets too. */
static void pass_paths(struct sockets *before, struct sockets *now)
{
    for (unsigned i = 0; i < now->n_binds; i++) {
        struct sockets_bind *b = &now->binds[i];
        if (!is_of(before, b->kept))
            continue;
        for (unsigned k = 0; k < b->n; k++) {
            struct listener *old = before->set.items[b->kept->first + k];
            now->set.items[b->first + k]->owns_path = old->owns_path;
            old->owns_path = false;
        }
        b->kept = NULL;
    }
}

/* ---- addresses that overlap ---- */

/* As listeners write it; "": both families, or no address of TCP. */
static const char *host_of(const struct conf *c, const struct conf_bind *b)
{
    if (b->kind != CONF_BIND_TCP)
        return "";
    if (*b->host && strcmp(b->host, "*") != 0)
        return b->host;
    return !c->ipv6 ? "0.0.0.0" : !c->ipv4 ? "::" : "";
}

static bool is_all(const char *host)
{
    return !*host || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool is_v6(const char *host)
{
    return strchr(host, ':') != NULL;
}

static bool names(const struct conf *c, const char *text)
{
    for (unsigned i = 0; i < c->n_binds; i++)
        if (strcmp(c->binds[i].text, text) == 0)
            return true;
    return false;
}

/* The same address, written in another way. */
static const struct sockets_bind *find_same(const struct sockets *s, const struct conf *c,
                                            const struct conf_bind *b)
{
    for (unsigned i = 0; s && b->kind == CONF_BIND_TCP && i < s->n_binds; i++) {
        const struct sockets_bind *old = &s->binds[i];
        const struct listener *l = s->set.items[old->first];
        if (old->n == 1 && l->is_own && strcmp(l->host, host_of(c, b)) == 0 &&
            strcmp(l->port, b->port) == 0 && !names(c, old->text))
            return old;
    }
    return NULL;
}

/* The next listener from *at on that goes with this reload, and in whose way the new address is. */
static const struct listener *overlapped(const struct sockets *s, unsigned *at, const struct conf *c,
                                         const struct conf_bind *b)
{
    const char *host = host_of(c, b);
    for (; s && b->kind == CONF_BIND_TCP && *at < s->n_binds; ++*at) {
        const struct sockets_bind *old = &s->binds[*at];
        const struct listener *l = s->set.items[old->first];
        if (l->is_own && strcmp(l->port, b->port) == 0 && is_all(host) != is_all(l->host) &&
            (!*host || is_v6(host) == is_v6(l->host)) && !names(c, old->text))
            return l;
    }
    return NULL;
}

static int open_new(struct sockets *s, const struct conf *c, const struct conf_bind *b,
                    const struct sockets *before, struct err *e)
{
    unsigned at = 0, first = s->set.n;
    const struct listener *l = overlapped(before, &at, c, b);
    if (!l)
        return server_bind(&s->set, c, b, e);
    if (!is_all(host_of(c, b)))
        return err_set(e,
                       "cannot listen on %s beside %s:%s, which is open until the reload is over; reload with "
                       "another port first, or restart",
                       b->text, l->host, l->port);
    for (; l; at++, l = overlapped(before, &at, c, b))
        listener_share_port(l, true);
    s->set.shares_port = true;
    int rc = server_bind(&s->set, c, b, e);
    s->set.shares_port = false;
    for (unsigned i = first; i < s->set.n; i++)
        listener_share_port(s->set.items[i], false);
    for (at = 0; (l = overlapped(before, &at, c, b)); at++)
        listener_share_port(l, false);
    return rc;
}

static int open_one(struct sockets *s, const struct conf *c, const struct conf_bind *b,
                    const struct sockets *before, const struct sockets *unused, struct err *e)
{
    if (s->n_binds == SOCKETS_BINDS_MAX)
        return err_set(e, "too many addresses to listen on (at most %d)", SOCKETS_BINDS_MAX);
    struct sockets_bind *bind = &s->binds[s->n_binds];
    *bind = (struct sockets_bind){.text = strdup(b->text), .first = s->set.n};
    if (!bind->text)
        return err_set(e, "out of memory");
    s->n_binds++;
    const struct sockets *from = before;
    const struct sockets_bind *old = find(before, b->text);
    if (!old)
        old = find_same(before, c, b);
    if (!old) {
        from = unused;
        old = find(unused, b->text);
    }
    int rc = old ? keep(s, from, old, e) : open_new(s, c, b, before, e);
    bind->kept = old;
    bind->n = s->set.n - bind->first;
    return rc;
}

static int open_all(struct sockets **out, const struct conf *c, const int *fds, unsigned n_fds,
                    const struct sockets *before, const struct sockets *unused, struct err *e)
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
        rc = open_one(s, c, &b, before, unused, e);
    }
    for (unsigned i = 0; !n_fds && i < c->n_binds && !rc; i++)
        rc = open_one(s, c, &c->binds[i], before, unused, e);
    if (rc)
        sockets_close(out);
    return rc;
}

/* The sockets handed over as a set of their own, by address. */
static int handed_set(struct sockets *s, const struct upgrade *u, struct err *e)
{
    for (unsigned i = 0; i < u->n_sockets; i++) {
        const struct upgrade_socket *from = &u->sockets[i];
        struct listen_spec spec = {.kind = LISTEN_FD, .fd = from->fd, .text = UPGRADE_VARIABLE};
        if (listen_open(&s->set, &spec, e))
            return -1;
        struct listener *l = s->set.items[s->set.n - 1];
        l->owns_path = from->own && l->is_unix && l->host[0] != '@';
        if (l->owns_path)
            memcpy(l->path, l->host, sizeof l->path);
        /* Gunicorn gives no text: "http://127.0.0.1:8000" was written as "127.0.0.1:8000", most
         * likely. */
        const char *text = from->text ? from->text : strstr(l->url, "://") + 3;
        struct sockets_bind *last = s->n_binds ? &s->binds[s->n_binds - 1] : NULL;
        if (last && strcmp(last->text, text) == 0) {
            last->n++;
            continue;
        }
        struct sockets_bind *bind = &s->binds[s->n_binds];
        *bind = (struct sockets_bind){.text = strdup(text), .first = s->set.n - 1, .n = 1};
        if (!bind->text)
            return err_set(e, "out of memory");
        s->n_binds++;
    }
    return 0;
}

int sockets_take_over(struct sockets **out, const struct conf *c, const struct upgrade *u,
                      struct err *e)
{
    static_assert(UPGRADE_SOCKETS_MAX <= SOCKETS_BINDS_MAX, "each may be an address of its own");
    int fds[UPGRADE_SOCKETS_MAX];
    struct sockets *handed = calloc(1, sizeof *handed);
    *out = NULL;
    if (!handed)
        return err_set(e, "out of memory");
    handed->set.spare_fd = -1;
    unsigned known = 0;
    int rc = handed_set(handed, u, e);
    for (unsigned i = 0; i < c->n_binds && !rc; i++)
        known += find(handed, c->binds[i].text) != NULL;
    for (unsigned i = 0; i < u->n_sockets; i++)
        fds[i] = u->sockets[i].fd;
    if (!rc && !known && !u->sockets[0].text) {
        for (unsigned i = 0; i < handed->set.n; i++) /* the descriptors pass to *out */
            handed->set.items[i]->closed = true;
        rc = sockets_open(out, c, fds, u->n_sockets, NULL, e);
    } else if (!rc) {
        rc = sockets_open(out, c, NULL, 0, handed, e);
    }
    if (!rc)
        pass_paths(handed, *out);
    sockets_forget(&handed);
    return rc;
}

int sockets_hand_over(const struct sockets *s, struct upgrade *u)
{
    for (unsigned i = 0; i < s->n_binds; i++) {
        const struct sockets_bind *b = &s->binds[i];
        for (unsigned k = b->first; k < b->first + b->n; k++) {
            const struct listener *l = s->set.items[k];
            if (upgrade_add(u, l->fd, l->is_own || l->owns_path, b->text))
                return -1;
        }
    }
    return 0;
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

int sockets_settle(struct sockets *s, const struct conf *c)
{
    return listen_change(&s->set, (int)c->backlog, (unsigned)c->unix_socket_perms);
}

/* Nobody shall come to an address that `now` has not, behind the last look of the workers that had it. */
static void quench_rest(const struct sockets *before, const struct sockets *now)
{
    for (unsigned i = 0; i < before->n_binds; i++) {
        const struct sockets_bind *b = &before->binds[i];
        bool kept = false;
        for (unsigned k = 0; k < now->n_binds; k++)
            kept |= now->binds[k].kept == b;
        for (unsigned k = b->first; k < b->first + b->n && !kept; k++) {
            struct listener *l = before->set.items[k];
            if (l->owns_path)
                unlink(l->path);
            if (l->is_own || l->owns_path)
                listener_quench(l);
            l->owns_path = false;
        }
    }
}

void sockets_replace(struct sockets **before, struct sockets *now)
{
    quench_rest(*before, now);
    pass_paths(*before, now);
    sockets_close(before);
    *before = now;
}

int sockets_open(struct sockets **out, const struct conf *c, const int *fds, unsigned n_fds,
                 const struct sockets *before, struct err *e)
{
    return open_all(out, c, fds, n_fds, before, NULL, e);
}

int sockets_open_next(struct sockets **next, const struct conf *c, const struct sockets *before,
                      struct err *e)
{
    struct sockets *unused = *next;
    int rc = open_all(next, c, NULL, 0, before, unused, e);
    if (unused && !rc)
        pass_paths(unused, *next);
    sockets_close(&unused);
    return rc;
}
