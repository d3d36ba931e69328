/*
 * admin_listen: the socket of the admin listener, made by the process that outlives its keepers.
 *
 * It is one socket: of a name with several addresses the first is taken, and no host means all
 * addresses of IPv4 ([::]:PORT: all of IPv6).
 */
#include "admin/admin.h"

#include <string.h>
#include <unistd.h>

#include "net/listen.h"

/* People and one scraper, not a crowd. */
static const int BACKLOG = 128;
static const unsigned MODE = 0600; /* of a Unix socket: what it shows is for its owner */

int admin_listen(int *fd, const struct conf *c, struct err *e)
{
    const struct conf_bind *b = &c->admin_bind;
    struct listen_set set = {.spare_fd = -1};
    *fd = -1;
    if (!*c->admin)
        return 0;
    bool is_unix = b->kind == CONF_BIND_UNIX;
    const char *host = b->host;
    if (!is_unix && !*host)
        host = "0.0.0.0";
    if (!is_unix && slice_ieq(slice_str(host), SLICE("localhost")))
        host = c->ipv4 ? "127.0.0.1" : "::1"; /* whatever a file of hosts says */
    const struct listen_spec spec = {
        .kind = is_unix ? LISTEN_UNIX : LISTEN_TCP,
        .host = host,
        .port = b->port,
        .path = b->path,
        .fd = -1,
        .text = b->text,
        .ipv4 = true,
        .ipv6 = true,
        .backlog = BACKLOG,
        .mode = MODE,
    };
    listen_init(&set);
    struct err why = {{0}};
    int rc = listen_open(&set, &spec, &why);
    if (rc)
        (void)err_set(e, "admin: %s", why.text);
    if (!rc) {
        *fd = set.items[0]->fd;
        set.items[0]->closed = true; /* it is the caller's now */
    }
    listen_fini(&set);
    return rc;
}

static struct listener *listener_of(int fd, struct listen_set *set)
{
    struct err e;
    const struct listen_spec spec = {.kind = LISTEN_FD, .fd = fd, .text = "admin"};
    listen_init(set);
    if (listen_open(set, &spec, &e))
        return NULL;
    set->items[0]->closed = true; /* lent */
    return set->items[0];
}

void admin_url(int fd, char *out, size_t n)
{
    struct listen_set set = {.spare_fd = -1};
    const struct listener *l = listener_of(fd, &set);
    if (l && l->is_unix)
        snprintf(out, n, "unix:%s", l->host);
    else
        snprintf(out, n, "%s/", l ? l->url : "?");
    listen_fini(&set);
}

void admin_unlink(int fd)
{
    struct listen_set set = {.spare_fd = -1};
    const struct listener *l = listener_of(fd, &set);
    if (l && l->is_unix && l->host[0] && l->host[0] != '@')
        (void)unlink(l->host);
    listen_fini(&set);
}
